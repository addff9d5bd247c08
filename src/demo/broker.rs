//! The demo's Kafka: librdkafka's in-process cluster, the real protocol on loopback.
//!
//! Owns the cluster and its topics. It keeps 5 MiB a partition and silently drops the oldest, so whoever produces
//! must wait for the reader ([`super::generator`] does). Not for load tests, and gone with the process.

use crate::error::{Error, Result};
use rdkafka::ClientConfig;
use rdkafka::bindings::{rd_kafka_handle_mock_cluster, rd_kafka_mock_group_initial_rebalance_delay_ms};
use rdkafka::producer::{BaseProducer, Producer};

/// What a partition keeps; no setting changes it.
pub const KEPT_BYTES: u64 = 5 << 20;

/// The cluster's default of three seconds is for groups that grow; the demo has one member.
const FIRST_REBALANCE_WAIT_MS: i32 = 100;

/// A running in-process Kafka; dropping it ends it.
pub struct Broker {
    /// The cluster lives inside this client.
    owner: BaseProducer,
    address: String,
}

impl Broker {
    /// Starts it with these topics and partition counts.
    pub fn start(topics: &[(&str, i32)]) -> Result<Broker> {
        let owner: BaseProducer = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .create()
            .map_err(|error| stop(format!("cannot start the in-process Kafka: {error}")))?;
        let address = {
            let cluster = owner.client().mock_cluster().expect("the client was made with a cluster");
            // SAFETY: the cluster was just found in this client and lives as long as it does.
            unsafe {
                let cluster = rd_kafka_handle_mock_cluster(owner.client().native_ptr());
                rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, FIRST_REBALANCE_WAIT_MS);
            }
            cluster.bootstrap_servers()
        };
        let broker = Broker { owner, address };
        topics.iter().try_for_each(|(name, partitions)| broker.create_topic(name, *partitions))?;
        Ok(broker)
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        let cluster = self.owner.client().mock_cluster().expect("the client was made with a cluster");
        cluster.create_topic(name, partitions, 1).map_err(|error| stop(format!("cannot create topic {name}: {error}")))
    }
}

fn stop(message: String) -> Error {
    Error::stop("demo_kafka", message)
}
