//! What the client says, in our words: rebalances, commit answers, and errors as sentences.
//!
//! Promises: the classes of a commit's answer are those of `exactly-once.md` (Accepted). Decides nothing else.

use super::client::{Entry, Event};
use crate::error::Error;
use crate::source::{CommitOutcome, GroupEvent};
use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_resp_err_t as err;
use std::ffi::CStr;

/// The events a member's queue carries.
pub(super) const MEMBER_EVENTS: i32 =
    sys::RD_KAFKA_EVENT_REBALANCE | sys::RD_KAFKA_EVENT_OFFSET_COMMIT | sys::RD_KAFKA_EVENT_ERROR;

/// `lost`: the client says that its assignment is gone already. `None` for what means nothing to us.
pub(super) fn read(event: &Event, brokers: &str, lost: impl FnOnce() -> bool) -> Option<GroupEvent> {
    match event.kind() {
        sys::RD_KAFKA_EVENT_REBALANCE => Some(rebalance(event, lost)),
        sys::RD_KAFKA_EVENT_OFFSET_COMMIT => {
            let outcome = commit_outcome(event.error(), &event.entries());
            Some(GroupEvent::Committed { id: event.tag(), outcome })
        }
        sys::RD_KAFKA_EVENT_ERROR => trouble(event, brokers),
        _ => None,
    }
}

fn rebalance(event: &Event, lost: impl FnOnce() -> bool) -> GroupEvent {
    let partitions = event.entries().into_iter().map(|entry| entry.partition).collect();
    if event.error() == err::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS as i32 {
        GroupEvent::Assigned(partitions)
    } else {
        // A rebalance that failed inside the client revokes as well.
        GroupEvent::Revoked { partitions, lost: lost() }
    }
}

/// The worst of the request's error and its partitions' errors decides.
fn commit_outcome(request_error: i32, entries: &[Entry]) -> CommitOutcome {
    let errors = || entries.iter().map(|entry| entry.error).chain([request_error]).filter(|&error| error != 0);
    if let Some(error) = errors().find(|&error| is_fenced(error)) {
        return CommitOutcome::Fenced(error_text(error));
    }
    match errors().next() {
        None => CommitOutcome::Accepted,
        Some(error) => {
            let refused = entries.iter().find(|entry| entry.error == error);
            let place = refused.map_or(String::new(), |entry| format!(" (`{}` {})", entry.topic, entry.partition));
            CommitOutcome::Repeat(format!("{}{place}", error_text(error)))
        }
    }
}

fn is_fenced(error: i32) -> bool {
    [
        err::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
        err::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
        err::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
        err::RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH,
        err::RD_KAFKA_RESP_ERR__FATAL,
        err::RD_KAFKA_RESP_ERR__ASSIGNMENT_LOST,
    ]
    .iter()
    .any(|&fenced| fenced as i32 == error)
}

fn trouble(event: &Event, brokers: &str) -> Option<GroupEvent> {
    let (code, text) = (event.error(), event.error_text());
    if event.is_fatal() {
        return Some(GroupEvent::Fatal(fatal(code, &text)));
    }
    if code == err::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32 {
        return None;
    }
    let code = if is_tls_trouble(code, &text) { err::RD_KAFKA_RESP_ERR__SSL as i32 } else { code };
    Some(GroupEvent::Trouble(Error::retry(code_name(code), sentence(code, &text, brokers))))
}

/// A peer that hangs up in the middle of the handshake comes as a lost connection; the text knows more.
fn is_tls_trouble(code: i32, text: &str) -> bool {
    code == err::RD_KAFKA_RESP_ERR__TRANSPORT as i32 && text.contains("in state SSL_HANDSHAKE")
}

fn fatal(code: i32, text: &str) -> Error {
    if code == err::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID as i32 {
        return Error::fenced(
            code_name(code),
            "another process uses this group instance id: was the state directory copied, or is weir running twice?",
        );
    }
    Error::retry(code_name(code), format!("the Kafka client cannot go on: {text}"))
}

/// A client error as a sentence that says what to look at.
fn sentence(code: i32, text: &str, brokers: &str) -> String {
    let is = |error: err| code == error as i32;
    if is(err::RD_KAFKA_RESP_ERR__AUTHENTICATION) || is(err::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED) {
        return format!("Kafka refuses the login: check `security.sasl` (mechanism, username, password): {text}");
    }
    if is(err::RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM) {
        return format!("Kafka does not offer this SASL mechanism: check `security.sasl.mechanism`: {text}");
    }
    if is(err::RD_KAFKA_RESP_ERR__SSL) {
        return match text {
            text if text.contains("verify failed") || text.contains("unable to get") => {
                format!(
                    "the certificate of Kafka is not signed by an authority we know: check `security.tls.ca`: {text}"
                )
            }
            text if ["wrong version", "unexpected message", "PLAINTEXT broker"]
                .iter()
                .any(|sign| text.contains(sign)) =>
            {
                format!("Kafka does not speak TLS at this port: check `brokers` and `security.tls`: {text}")
            }
            // How a broker without TLS ends it, too, when its answer is lost behind the closing.
            text if text.contains("closed by peer") && text.contains("HANDSHAKE") => format!(
                "Kafka closed the connection before TLS was agreed on: it does not speak TLS at this port, or asks for a \
                 client certificate: check `brokers` and `security.tls`: {text}"
            ),
            text => format!("TLS to Kafka fails: check `security.tls`: {text}"),
        };
    }
    if is(err::RD_KAFKA_RESP_ERR__RESOLVE) {
        return format!("the broker's name is not known here: check `brokers`: {text}");
    }
    if is(err::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        return format!("no broker of {brokers} answers: {text}");
    }
    if is(err::RD_KAFKA_RESP_ERR__TRANSPORT) && text.contains("connecting to a SSL listener") {
        return format!("Kafka may want TLS at this port: check `brokers` and `security.tls`: {text}");
    }
    if is(err::RD_KAFKA_RESP_ERR__TRANSPORT) {
        return format!("the connection to a broker is lost: {text}");
    }
    if is(err::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
        return format!("Kafka does not let this user read the topic: {text}");
    }
    if is(err::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED) {
        return format!("Kafka does not let this user use the consumer group: check `group` and its ACLs: {text}");
    }
    if is(err::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) || is(err::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC) {
        return format!("the topic is not there: {text}");
    }
    if is(err::RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED) {
        return format!("this process did not answer the group for too long and lost its partitions: {text}");
    }
    format!("the Kafka client says: {text}")
}

/// A short stable name for a metric, such as `_TRANSPORT` → `transport`.
pub(super) fn code_name(code: i32) -> String {
    // SAFETY: any number is allowed; the answer is a static string, or null for none.
    let name = unsafe {
        let name = sys::rd_kafka_err2name(std::mem::transmute::<i32, err>(known(code)));
        if name.is_null() { "" } else { CStr::from_ptr(name).to_str().unwrap_or_default() }
    };
    name.trim_start_matches('_').to_ascii_lowercase()
}

/// The library's text for an error number.
pub(super) fn error_text(code: i32) -> String {
    // SAFETY: any known number is allowed; the answer is a static string.
    let text = unsafe { sys::rd_kafka_err2str(std::mem::transmute::<i32, err>(known(code))) };
    super::client::text_of(text)
}

/// The number itself where the enum has it, else "unknown": a newer broker may send others.
fn known(code: i32) -> i32 {
    err::try_from(code).map_or(err::RD_KAFKA_RESP_ERR_UNKNOWN as i32, |known| known as i32)
}

/// What an error on a partition's queue means for its task.
pub(super) fn input_error(code: i32, text: &str, topic: &str, partition: i32, offset: i64) -> Error {
    let is = |error: err| code == error as i32;
    if is(err::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET) || is(err::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE) {
        let message =
            format!("topic `{topic}` partition {partition}: offset {offset} is not in the log (any more): {text}");
        return Error::stop("gap", message);
    }
    let message = format!("topic `{topic}` partition {partition} at offset {offset}: {text}");
    if WILL_PASS.iter().any(|&passing| is(passing)) {
        Error::retry(code_name(code), message)
    } else {
        // The client passes over what it cannot read (unknown compression, a broken batch): we do not.
        Error::stop(code_name(code), message)
    }
}

/// Errors of a partition that the client gets over by itself, losing nothing.
const WILL_PASS: [err; 14] = [
    err::RD_KAFKA_RESP_ERR__TRANSPORT,
    err::RD_KAFKA_RESP_ERR__TIMED_OUT,
    err::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
    err::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
    err::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
    err::RD_KAFKA_RESP_ERR__AUTHENTICATION,
    err::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
    err::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID,
    err::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
    err::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
    err::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
    err::RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE,
    err::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
    err::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(error: err) -> Entry {
        Entry { topic: "t".into(), partition: 3, offset: 7, metadata: String::new(), error: error as i32 }
    }

    #[test]
    fn a_commit_is_accepted_only_without_any_error() {
        let fine = entry(err::RD_KAFKA_RESP_ERR_NO_ERROR);
        assert_eq!(commit_outcome(0, std::slice::from_ref(&fine)), CommitOutcome::Accepted);
        let moved = entry(err::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS);
        assert!(
            matches!(commit_outcome(0, &[fine.clone(), moved]), CommitOutcome::Repeat(why) if why.contains("`t` 3"))
        );
        let late = err::RD_KAFKA_RESP_ERR__TIMED_OUT as i32;
        assert!(matches!(commit_outcome(late, &[fine]), CommitOutcome::Repeat(_)));
    }

    #[test]
    fn one_refused_generation_fences_the_whole_commit() {
        for fenced in [
            err::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
            err::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
            err::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
            err::RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH,
        ] {
            let entries = [entry(err::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS), entry(fenced)];
            assert!(matches!(commit_outcome(0, &entries), CommitOutcome::Fenced(_)));
        }
    }

    #[test]
    fn names_are_short_and_unknown_numbers_have_one_too() {
        assert_eq!(code_name(err::RD_KAFKA_RESP_ERR__TRANSPORT as i32), "transport");
        assert_eq!(code_name(err::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION as i32), "illegal_generation");
        assert_eq!(code_name(31_000), "unknown");
    }

    #[test]
    fn what_the_client_would_pass_over_stops_the_pipeline() {
        let broken = input_error(err::RD_KAFKA_RESP_ERR__BAD_COMPRESSION as i32, "zstd", "t", 0, 5);
        assert_eq!(broken.kind, crate::error::Kind::Stop);
        let gap = input_error(err::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET as i32, "gone", "t", 0, 5);
        assert_eq!((gap.kind, gap.code.as_str()), (crate::error::Kind::Stop, "gap"));
        let moving = input_error(err::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as i32, "moved", "t", 0, 5);
        assert_eq!(moving.kind, crate::error::Kind::Retry);
    }
}
