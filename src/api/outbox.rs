//! The outbox over HTTP: blocks that are not acknowledged, and the way out for one that can never be.

use super::guard::{MayRead, MayWrite};
use super::problem::Problem;
use super::{Watched, at_rest, desk, json_response, on_disk};
use crate::clock::{Clock, SystemClock};
use crate::runtime::commit::NotDiscarded;
use crate::runtime::outbox;
use crate::runtime::task::DiscardAnswer;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;
use std::time::Duration;

/// How long an attempt under way is waited for.
const DISCARD_PATIENCE: Duration = Duration::from_secs(8);

pub fn routes() -> Router<Watched> {
    Router::new()
        .route("/api/v1/pipelines/{name}/outbox", get(waiting))
        .route("/api/v1/pipelines/{name}/outbox/discard", post(discard))
}

async fn waiting(MayRead(watched): MayRead, Path(name): Path<String>) -> Result<Response, Problem> {
    let desk = desk(&watched, &name)?;
    on_disk(move || {
        let store = desk.store().ok_or_else(|| at_rest(&desk))?;
        let (blocks, trouble) = outbox::unacknowledged(&desk.plan, &*store).map_err(|error| Problem::of(&error))?;
        Ok(json_response(&json!({ "blocks": blocks, "trouble": trouble.map(|error| error.message) })))
    })
    .await
}

/// Which block, and whether also where the table may have it: in the address, or the block in the body.
#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Named {
    token: Option<String>,
    #[serde(default)]
    force: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    token: String,
}

impl Named {
    fn token(&self, body: &[u8]) -> Result<String, Problem> {
        match (&self.token, body_token(body)?) {
            (Some(token), Some(other)) if *token != other => {
                Err(Problem::new(400, format!("which block? the address names {token}, the body {other}")))
            }
            (Some(token), _) => Ok(token.clone()),
            (None, Some(token)) => Ok(token),
            (None, None) => Err(Problem::new(
                400,
                "which block? name it: `?token=…`, or {\"token\": \"…\"} as the body; GET …/outbox lists them",
            )),
        }
    }
}

fn body_token(body: &[u8]) -> Result<Option<String>, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let read = serde_json::from_slice::<Body>(body).map_err(|error| {
        let wanted = "the body is {\"token\": \"…\"} and nothing else; `force` is a query parameter: `?force=true`";
        Problem::new(400, format!("{wanted} ({error})"))
    })?;
    Ok(Some(read.token))
}

async fn discard(
    MayWrite(watched): MayWrite,
    Path(name): Path<String>,
    Query(named): Query<Named>,
    body: Bytes,
) -> Result<Response, Problem> {
    let (desk, token) = (desk(&watched, &name)?, named.token(&body)?);
    on_disk(move || {
        let token = token.as_str();
        if desk.store().is_none() {
            return Err(at_rest(&desk));
        }
        match desk.discard(token, named.force, SystemClock.boot_ms(), DISCARD_PATIENCE) {
            Some(DiscardAnswer::Done { rows, bytes }) => {
                Ok(json_response(&json!({ "discarded": token, "rows": rows, "bytes": bytes })))
            }
            Some(DiscardAnswer::Refused(why)) => Err(refused(token, why)),
            Some(DiscardAnswer::Unknown) => Err(Problem::new(
                503,
                format!("no answer in time: look at the list (GET …/outbox) whether block {token} is still there"),
            )),
            Some(DiscardAnswer::NotBegun(why)) => Err(Problem::new(409, format!("{why}: nothing is discarded"))),
            None => Err(no_block(token)),
        }
    })
    .await
}

fn refused(token: &str, why: NotDiscarded) -> Problem {
    match why {
        NotDiscarded::Absent => no_block(token),
        NotDiscarded::UnderWay => {
            Problem::new(409, format!("block {token} is being sent right now: try again when the attempt has ended"))
        }
        NotDiscarded::Unclear => Problem::new(409, outbox::unclear(token)),
    }
}

fn no_block(token: &str) -> Problem {
    Problem::new(404, format!("there is no block {token} in the outbox of a task that runs here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(named: &Named, body: &str) -> String {
        let problem = named.token(body.as_bytes()).unwrap_err();
        assert_eq!(problem.status, 400);
        problem.detail
    }

    #[test]
    fn the_block_is_named_in_the_address_or_in_the_body() {
        let named = Named { token: Some("a".into()), force: false };
        assert_eq!(named.token(b"").unwrap(), "a");
        assert_eq!(Named::default().token(br#"{"token":"b"}"#).unwrap(), "b");
        assert!(detail(&named, r#"{"token":"b"}"#).contains("the body b"));
        assert!(detail(&Named::default(), " ").contains("which block?"));
    }

    #[test]
    fn a_body_that_asks_for_force_or_is_no_json_is_refused_with_the_reason() {
        let forced = detail(&Named::default(), r#"{"token":"b","force":true}"#);
        assert!(forced.contains("`?force=true`") && forced.contains("unknown field `force`"), "{forced}");
        let malformed = detail(&Named { token: Some("a".into()), force: true }, "{\"token\":");
        assert!(malformed.contains("EOF") && malformed.contains("line 1"), "{malformed}");
    }
}
