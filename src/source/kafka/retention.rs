//! How long topics keep their records, for `check --connect`.
//!
//! Owns one question to the broker. Promises: an answer that the user may not have is `None`, not an error.

use super::client::{Client, millis, text_of};
use super::events::{code_name, error_text};
use super::settings::Settings;
use super::{REQUEST_WAIT, c_name};
use crate::config::plan::KafkaPlan;
use crate::error::{Error, Result};
use rdkafka::bindings as sys;
use std::ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

/// What a topic's settings say about how long its records stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// `None`: for ever.
    pub ms: Option<i64>,
    /// Of each partition; `None`: no limit.
    pub bytes: Option<i64>,
    /// Older records of a key go.
    pub compacts: bool,
}

/// Asks for a topic's retention; `None` where the user may not ask.
pub fn retention(kafka: &KafkaPlan, topic: &str) -> Result<Option<Retention>> {
    let client = Client::consumer(&Settings::fetching(kafka, 0), 0)?;
    let answer = ask(&client, topic);
    client.close();
    answer
}

fn ask(client: &Arc<Client>, topic: &str) -> Result<Option<Retention>> {
    let queue = client.answer_queue();
    let name = c_name(topic)?;
    let mut text = [0 as c_char; 256];
    // SAFETY: everything made here lives until the request is sent (it copies what it needs) and is destroyed
    // right after it; the queue outlives the answer.
    unsafe {
        let mut resource =
            sys::rd_kafka_ConfigResource_new(sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr());
        let options =
            sys::rd_kafka_AdminOptions_new(client.ptr(), sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(REQUEST_WAIT), text.as_mut_ptr(), text.len());
        sys::rd_kafka_DescribeConfigs(client.ptr(), &mut resource, 1, options, queue.ptr());
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_ConfigResource_destroy(resource);
    }
    let no_answer =
        || Error::retry("timed_out", format!("the broker does not say how long `{topic}` keeps its records"));
    let event = queue.poll(REQUEST_WAIT + Duration::from_secs(1)).ok_or_else(no_answer)?;
    if event.error() != 0 {
        let code = event.error();
        let message = format!("asking how long `{topic}` keeps its records failed: {}", error_text(code));
        return Err(Error::retry(code_name(code), message));
    }
    let mut settings = Vec::new();
    // SAFETY: the event is live and of the type asked; what it gives belongs to it and is copied.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConfigs_result(event.ptr());
        assert!(!result.is_null(), "the queue is for this answer alone");
        let mut count = 0;
        let resources = sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
        if count == 0 || sys::rd_kafka_ConfigResource_error(*resources) as i32 != 0 {
            return Ok(None);
        }
        let mut entries = 0;
        let configs = sys::rd_kafka_ConfigResource_configs(*resources, &mut entries);
        for index in 0..entries {
            let entry = *configs.add(index);
            let value = text_of(sys::rd_kafka_ConfigEntry_value(entry));
            settings.push((text_of(sys::rd_kafka_ConfigEntry_name(entry)), value));
        }
    }
    Ok(Some(of_settings(&settings)))
}

fn of_settings(settings: &[(String, String)]) -> Retention {
    let setting = |wanted: &str| settings.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let number = |name| setting(name).and_then(|text| text.parse::<i64>().ok()).filter(|number| *number >= 0);
    let policy = setting("cleanup.policy").unwrap_or("delete");
    let deletes = policy.contains("delete");
    Retention {
        ms: number("retention.ms").filter(|_| deletes),
        bytes: number("retention.bytes").filter(|_| deletes),
        compacts: policy.contains("compact"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &[(&str, &str)]) -> Retention {
        of_settings(&settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>())
    }

    #[test]
    fn minus_one_is_for_ever_and_only_delete_deletes() {
        let forever = read(&[("retention.ms", "-1"), ("retention.bytes", "-1"), ("cleanup.policy", "delete")]);
        assert_eq!(forever, Retention { ms: None, bytes: None, compacts: false });
        let compacted = read(&[("retention.ms", "1000"), ("cleanup.policy", "compact")]);
        assert_eq!(compacted, Retention { ms: None, bytes: None, compacts: true });
        let both = read(&[("retention.ms", "1000"), ("cleanup.policy", "compact,delete")]);
        assert_eq!(both, Retention { ms: Some(1000), bytes: None, compacts: true });
    }
}
