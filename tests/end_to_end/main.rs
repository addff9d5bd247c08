//! weir as its user runs it: the real binary, the real broker, the real engine, and everything that can go wrong.
//!
//! Every test has a topic, a table, a group and state directories of its own, so they run side by side on one broker
//! and one engine; those that kill a part have it for themselves. The result is compared row for row with the oracle
//! (`oracle.rs`), which reads the topic with a plain client.

mod broken;
mod chaos;
mod damage;
mod disk;
mod flow;
mod groups;
mod joined;
mod joins;
mod kills;
mod letters;
mod lossy;
mod options;
mod oracle;
mod plain;
mod reading;
mod rebalances;
mod refused;
mod replanned;
mod secured;
mod several_pipelines;
mod several_topics;
mod sides;
mod stage;
mod stops;
#[path = "../support/mod.rs"]
mod support;
mod topics;
mod trouble;
mod weir;
