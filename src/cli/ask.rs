//! Asking the weir that runs on this configuration, if one does.
//!
//! Promises: that nobody answers, or that whoever answers does not run the pipeline, is an answer, not an error: the
//! directory can be looked at then.

use super::healthcheck::reachable;
use crate::config::plan::{HttpPlan, PipelinePlan, Plan};
use serde_json::Value;
use std::time::Duration;

/// Enough for a disk that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a running weir said.
pub enum Heard {
    /// The body, and how many letters it deleted.
    Done(Value, u64),
    NotRunning,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verb<'b> {
    Get,
    Delete,
    /// With this JSON as the body; empty for none.
    Post(&'b str),
}

/// Sends a call about a pipeline.
pub fn ask(http: &HttpPlan, verb: Verb, path: &str) -> Result<Heard, String> {
    let address = reachable(&http.listen);
    // A proxy of the environment is for the world, not for this machine.
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).proxy(None);
    let agent = config.build().new_agent();
    let url = format!("http://{address}{path}");
    let token = http.token.as_ref().map(|token| format!("Bearer {}", token.0));
    let call = match (verb, &token) {
        (Verb::Get, None) => agent.get(url).call(),
        (Verb::Get, Some(token)) => agent.get(url).header("Authorization", token).call(),
        (Verb::Delete, None) => agent.delete(url).call(),
        (Verb::Delete, Some(token)) => agent.delete(url).header("Authorization", token).call(),
        (Verb::Post(body), None) => agent.post(url).send(body),
        (Verb::Post(body), Some(token)) => agent.post(url).header("Authorization", token).send(body),
    };
    let Ok(mut answer) = call else { return Ok(Heard::NotRunning) };
    let deleted = answer.headers().get("weir-deleted").and_then(|count| count.to_str().ok()?.parse().ok());
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let detail = body["detail"].as_str().map(str::to_owned);
    match answer.status().as_u16() {
        // Something else may listen there.
        200..=299 if verb != Verb::Delete && !body.is_object() => Ok(Heard::NotRunning),
        200..=299 => Ok(Heard::Done(body, deleted.unwrap_or(0))),
        // The one that is asked for is not there, says the weir that runs the pipeline.
        404 if detail.as_ref().is_some_and(|told| told.contains("no dead letter") || told.contains("no block")) => {
            Err(detail.unwrap_or_default())
        }
        404 | 503 => Ok(Heard::NotRunning),
        // It says why it does not do it.
        409 => Err(detail.unwrap_or(text)),
        status => Err(format!("weir at {address} answers {status}: {}", detail.unwrap_or(text))),
    }
}

/// The pipeline that is meant: the named one, or the only one of the file.
pub fn pick<'p>(plan: &'p Plan, name: Option<&str>) -> Result<&'p PipelinePlan, String> {
    let names: Vec<&str> = plan.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
    match name {
        Some(name) => plan
            .pipelines
            .iter()
            .find(|pipeline| pipeline.name == name)
            .ok_or_else(|| format!("there is no pipeline `{name}` in the file; it has: {}", names.join(", "))),
        None => match plan.pipelines.as_slice() {
            [only] => Ok(only),
            _ => Err(format!("which pipeline? name it with --pipeline: {}", names.join(", "))),
        },
    }
}

/// A parameter of an address.
pub fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_escaped() {
        assert_eq!(escaped("2026-01-01T00:00:00+01:00 ü"), "2026-01-01T00%3A00%3A00%2B01%3A00%20%C3%BC");
    }
}
