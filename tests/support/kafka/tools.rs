//! Kafka's own tool for consumer groups: what an operator would type.

use super::super::PATIENCE;
use super::super::process::Process;
use super::Kafka;
use super::broker::java;

impl Kafka {
    /// `to` is what the tool takes: `--to-earliest`, `--to-latest`, `--to-offset 5`, `--shift-by -3`,
    /// `--to-datetime 2026-01-01T00:00:00.000`. The tool refuses while the group has members.
    pub fn reset_offsets(&self, group: &str, topic: &str, to: &str) {
        let place = format!("--group {group} --topic {topic} --reset-offsets {to} --execute");
        self.consumer_groups(&place);
    }

    /// What the tool says when it refuses to move the offsets.
    pub fn refused_reset(&self, group: &str, topic: &str, to: &str) -> String {
        let place = format!("--group {group} --topic {topic} --reset-offsets {to} --execute");
        self.try_consumer_groups(&place).expect_err("the tool refuses")
    }

    /// Forgets all offsets of the group.
    pub fn delete_group(&self, group: &str) {
        self.consumer_groups(&format!("--group {group} --delete"));
    }

    fn consumer_groups(&self, arguments: &str) {
        self.try_consumer_groups(arguments).unwrap_or_else(|said| panic!("kafka-consumer-groups {arguments}:\n{said}"));
    }

    fn try_consumer_groups(&self, arguments: &str) -> Result<(), String> {
        let mut command = java("-Xmx256m");
        command.arg("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand");
        command.args(["--bootstrap-server", &self.brokers()]).args(arguments.split(' '));
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut process = Process::start("kafka-consumer-groups", command, log.path());
        let status = process.wait(PATIENCE);
        let said = process.log_end();
        // The tool says `Error:` and leaves with 0 when the group has members.
        match status.success() && !said.contains("Error:") {
            true => Ok(()),
            false => Err(said),
        }
    }
}
