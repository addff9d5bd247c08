//! The broker's process: one JVM, KRaft, everything in one temporary folder, listeners for every kind of security.

use super::super::process::Process;
use super::super::{PATIENCE, free_port, wait_for};
use super::certificates::Certificates;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;
use weir::demo::clickhouse::parts_path;

const VERSION_FOLDER: &str = "kafka-4.3.1";
/// Any 22 characters of this alphabet do.
const CLUSTER_ID: &str = "weirweirweirweirweirwA";

/// Who may come in through the SASL listener, with PLAIN and both SCRAM mechanisms.
pub const USER: &str = "weir";
pub const PASSWORD: &str = "dam-and-river";

pub struct Kafka {
    folder: TempDir,
    ports: Ports,
    certificates: Certificates,
    process: Option<Process>,
}

struct Ports {
    plain: u16,
    sasl: u16,
    tls: u16,
    controller: u16,
}

impl Kafka {
    /// One for all tests of this process that do not hurt it. Each takes topics of its own.
    pub fn shared() -> &'static Kafka {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(Kafka::start)
    }

    pub fn start() -> Kafka {
        let folder = tempfile::Builder::new().prefix("weir-kafka-").tempdir().unwrap();
        let ports = Ports { plain: free_port(), sasl: free_port(), tls: free_port(), controller: free_port() };
        let certificates = Certificates::make(&folder.path().join("tls"));
        let mut kafka = Kafka { folder, ports, certificates, process: None };
        std::fs::write(kafka.properties_path(), kafka.properties()).unwrap();
        kafka.format();
        kafka.restart();
        kafka
    }

    /// The listener without security.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plain)
    }

    /// The listener that asks for [`USER`] and [`PASSWORD`].
    pub fn sasl_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.ports.sasl)
    }

    /// The TLS listener; it checks a client's certificate where it gets one.
    pub fn tls_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.ports.tls)
    }

    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same folder and ports, and waits until it answers.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = java("-Xmx768m");
        command.arg("kafka.Kafka").arg(self.properties_path());
        let mut process = Process::start("the Kafka broker", command, &self.log_path());
        self.wait_until_ready(|| process.assert_running());
        self.process = Some(process);
    }

    /// For SIGSTOP and SIGCONT.
    pub fn signal(&self, signal: i32) {
        self.process.as_ref().expect("the broker runs").signal(signal);
    }

    /// A client's configuration for the listener without security.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn properties_path(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }

    fn wait_until_ready(&self, mut check: impl FnMut()) {
        wait_for("the Kafka broker's first answer", PATIENCE, || {
            check();
            let consumer: BaseConsumer = self.client().set("log_level", "0").create().unwrap();
            consumer.fetch_metadata(None, Duration::from_secs(1)).ok().filter(|data| !data.brokers().is_empty())
        });
    }

    fn format(&self) {
        let mut command = java("-Xmx128m");
        command.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(self.properties_path());
        command.arg("--standalone");
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            command.args(["--add-scram", &format!("{mechanism}=[name={USER},password={PASSWORD}]")]);
        }
        let log = self.log_path();
        let mut process = Process::start("Kafka's StorageTool", command, &log);
        let status = process.wait(PATIENCE);
        assert!(status.success(), "Kafka's StorageTool failed:\n{}", process.log_end());
    }

    /// A killed broker is taken back only when its former session has ended, hence the short one.
    fn properties(&self) -> String {
        let Ports { plain, sasl, tls, controller } = self.ports;
        let logs = self.folder.path().join("data");
        let (keystore, ca) = (self.certificates.broker_keystore(), self.certificates.ca());
        let (logs, keystore, ca) = (logs.display(), keystore.display(), ca.display());
        let module = "org.apache.kafka.common.security";
        format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
listeners=PLAIN://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAIN://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls}
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,CONTROLLER:PLAINTEXT
listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";
listener.name.sasl.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location={keystore}
listener.name.tls.ssl.truststore.type=PEM
listener.name.tls.ssl.truststore.location={ca}
listener.name.tls.ssl.client.auth=requested
log.dirs={logs}
auto.create.topics.enable=false
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.retention.ms=-1
"
        )
    }
}

/// A command that runs a class of Kafka's.
pub(super) fn java(memory: &str) -> Command {
    let mut command = Command::new("java");
    command.args([memory, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
    command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
    command.arg("-cp").arg(class_path());
    command
}

fn class_path() -> PathBuf {
    let folder = parts_path().join(VERSION_FOLDER);
    assert!(has_jars(&folder), "Kafka is not at {}: run `make parts` once, it fetches it", folder.display());
    folder.join("*")
}

fn has_jars(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some())
}
