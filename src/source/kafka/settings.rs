//! What the Kafka client is told: our settings for throughput and for the protocol, and the user's own.
//!
//! Promises: what the commit protocol rests on cannot be overridden; the user's `librdkafka:` wins over the rest.

use crate::config::plan::KafkaPlan;
use std::collections::BTreeMap;

/// Names and values for the client.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(BTreeMap<String, String>);

/// How long the broker waits for a silent member, where the user says nothing.
const SESSION_TIMEOUT_MS: u64 = 45_000;
const FETCH_BYTES_MAX: u64 = 4 << 20;
const QUEUED_BYTES_MIN: u64 = 1 << 20;
/// What one queued message costs besides its bytes, about; so that tiny messages are bounded by count.
const MESSAGE_OVERHEAD_BYTES: u64 = 512;

/// The session timeout that the pipeline's member has: the lease and the revocation deadline derive from it.
pub fn session_timeout_ms(kafka: &KafkaPlan) -> u64 {
    let typed = kafka.librdkafka.get("session.timeout.ms");
    typed.and_then(|text| text.trim().parse().ok()).unwrap_or(SESSION_TIMEOUT_MS)
}

impl Settings {
    /// A consumer that fetches as we like it; `queued_bytes` bounds each partition's queue.
    pub(super) fn fetching(kafka: &KafkaPlan, queued_bytes: u64) -> Settings {
        let mut settings = Settings::default();
        let queued_bytes = queued_bytes.max(QUEUED_BYTES_MIN);
        let queued_records = (queued_bytes / MESSAGE_OVERHEAD_BYTES).clamp(1_000, 100_000);
        settings.set("client.id", "weir");
        settings.set("session.timeout.ms", SESSION_TIMEOUT_MS);
        settings.set("fetch.wait.max.ms", 100);
        settings.set("fetch.min.bytes", 65_536);
        settings.set("max.partition.fetch.bytes", queued_bytes.min(FETCH_BYTES_MAX));
        settings.set("queued.min.messages", queued_records);
        settings.set("queued.max.messages.kbytes", queued_bytes / 1024);
        // A full queue is looked at again soon: with small queues the default second would stall the partition.
        settings.set("fetch.queue.backoff.ms", 20);
        settings.set("check.crcs", false);
        settings.set("socket.keepalive.enable", true);
        // A broker that comes back is found within a second, not ten.
        settings.set("reconnect.backoff.max.ms", 1_000);
        // Grown and re-created topics are noticed within a minute.
        settings.set("topic.metadata.refresh.interval.ms", 60_000);
        for (name, value) in kafka.security.librdkafka() {
            settings.set(name, value);
        }
        for (name, value) in &kafka.librdkafka {
            settings.set(name, value);
        }
        settings.set("bootstrap.servers", kafka.brokers.join(","));
        settings.set("group.id", &kafka.group);
        settings.set("enable.auto.commit", false);
        settings.set("enable.auto.offset.store", false);
        settings.set("enable.partition.eof", true);
        // The client never jumps by itself: a gap is judged by the pipeline.
        settings.set("auto.offset.reset", "error");
        settings.set("isolation.level", "read_committed");
        settings
    }

    /// A member of the pipeline's group.
    pub(super) fn member(kafka: &KafkaPlan, instance_id: Option<&str>, queued_bytes: u64) -> Settings {
        let mut settings = Settings::fetching(kafka, queued_bytes);
        settings.set("group.protocol", "classic");
        settings.set("partition.assignment.strategy", "cooperative-sticky");
        if let Some(id) = instance_id {
            settings.set("group.instance.id", id);
        }
        settings
    }

    pub(super) fn set(&mut self, name: &str, value: impl ToString) {
        self.0.insert(name.to_string(), value.to_string());
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::{KafkaSecurity, SaslMechanism, SaslPlan, Secret, TlsPlan};

    fn plan(librdkafka: &[(&str, &str)]) -> KafkaPlan {
        KafkaPlan {
            brokers: vec!["a:1".into(), "b:2".into()],
            group: "g".into(),
            instance_id: None,
            security: KafkaSecurity::default(),
            librdkafka: librdkafka.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        }
    }

    #[test]
    fn the_users_settings_win_except_where_the_protocol_rests_on_ours() {
        let kafka =
            plan(&[("fetch.wait.max.ms", "7"), ("auto.offset.reset", "earliest"), ("group.protocol", "consumer")]);
        let settings = Settings::member(&kafka, Some("me"), 0).0;
        assert_eq!(settings["fetch.wait.max.ms"], "7");
        assert_eq!(settings["auto.offset.reset"], "error");
        assert_eq!(settings["group.protocol"], "classic");
        assert_eq!(settings["bootstrap.servers"], "a:1,b:2");
        assert_eq!(settings["group.instance.id"], "me");
    }

    #[test]
    fn the_session_timeout_is_the_typed_one_or_45_seconds() {
        assert_eq!(session_timeout_ms(&plan(&[])), 45_000);
        assert_eq!(session_timeout_ms(&plan(&[("session.timeout.ms", "6000")])), 6_000);
    }

    #[test]
    fn queues_are_bounded_by_bytes_and_by_count() {
        let settings = Settings::fetching(&plan(&[]), 8 << 20).0;
        assert_eq!(settings["queued.max.messages.kbytes"], "8192");
        assert_eq!(settings["queued.min.messages"], "16384");
        assert_eq!(settings["max.partition.fetch.bytes"], (4 << 20).to_string());
    }

    #[test]
    fn tls_and_sasl_together_are_sasl_ssl() {
        let mut kafka = plan(&[]);
        kafka.security.tls = Some(TlsPlan::default());
        kafka.security.sasl = Some(SaslPlan {
            mechanism: SaslMechanism::ScramSha512,
            username: "u".into(),
            password: Secret("p".into()),
        });
        let settings = Settings::fetching(&kafka, 0).0;
        assert_eq!(settings["security.protocol"], "sasl_ssl");
        assert_eq!(settings["sasl.mechanisms"], "SCRAM-SHA-512");
        assert_eq!(settings["ssl.ca.location"], "probe");
    }
}
