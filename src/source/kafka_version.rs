//! Which Kafka client is inside.

/// The version of librdkafka that is linked.
pub fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
