//! Kafka and ClickHouse: what a pipeline writes laid over the default connection.

use super::denied::{librdkafka_help, set_by_security};
use super::{Check, defaults, value_or};
use crate::config::plan::{
    ClickHousePlan, HttpAuth, KafkaPlan, KafkaSecurity, SaslMechanism, SaslPlan, Secret, TlsPlan,
};
use crate::config::read::At;
use crate::config::spec::connection::{ClickHouseSpec, KafkaSpec, SaslSpec, SecuritySpec, TlsSpec};
use std::collections::BTreeMap;

impl Check<'_> {
    /// The connection of a source. Its topics are the caller's.
    pub(super) fn kafka_plan(&mut self, own: &KafkaSpec, pipeline: &str, source: &At<()>) -> Option<KafkaPlan> {
        let written = own.brokers.as_ref().or(self.kafka.brokers.as_ref());
        let brokers: Vec<String> = written.into_iter().flatten().map(|broker| broker.value.clone()).collect();
        let group = own.group.as_ref().or(self.kafka.group.as_ref());
        let security = own.security.as_ref().or(self.kafka.security.as_ref());
        let instance_id = own.instance_id.as_ref().or(self.kafka.instance_id.as_ref());
        let plan = KafkaPlan {
            group: group.map_or_else(|| defaults::group(pipeline), |at| at.value.clone()),
            instance_id: instance_id.map(|at| at.value.clone()),
            security: security.map(|security| self.security_plan(security)).unwrap_or_default(),
            librdkafka: self.librdkafka_plan(own, security),
            brokers,
        };
        if written.is_some() {
            return Some(plan);
        }
        let finding = source.error("missing_field", "where Kafka is, nobody says: `brokers` is missing");
        self.say(finding.with_help("at the top: `kafka: { brokers: [\"localhost:9092\"] }`"));
        None
    }

    /// The options of the source over those of the top.
    fn librdkafka_plan(&mut self, own: &KafkaSpec, security: Option<&SecuritySpec>) -> BTreeMap<String, String> {
        let (tls, sasl) = security.map_or((false, false), |spec| (spec.tls.is_some(), spec.sasl.is_some()));
        let mut plan = BTreeMap::new();
        for (option, value) in self.kafka.librdkafka.iter().chain(&own.librdkafka) {
            if let Some(help) = librdkafka_help(option) {
                let message = format!("`{option}` cannot be set: it would break the protocol");
                self.findings.push(value.error("refused_option", message).with_help(help));
            } else if set_by_security(option, tls, sasl) {
                let message = format!("`{option}` is set by `security` already");
                self.findings.push(value.error("refused_option", message).with_help("write it in one place"));
            }
            plan.insert(option.clone(), value.value.clone());
        }
        plan
    }

    fn security_plan(&mut self, spec: &SecuritySpec) -> KafkaSecurity {
        let tls = spec.tls.as_ref().map(|tls| self.tls_plan(tls));
        let sasl = spec.sasl.as_ref().map(|sasl| self.sasl_plan(sasl, tls.is_some()));
        KafkaSecurity { tls, sasl }
    }

    fn sasl_plan(&mut self, spec: &SaslSpec, encrypted: bool) -> SaslPlan {
        let mechanism = value_or(&spec.mechanism, || SaslMechanism::Plain);
        if mechanism == SaslMechanism::Plain && !encrypted && spec.mechanism.is_some() {
            let finding = spec.at.error("clear_password", "without `tls` the password crosses the network readably");
            self.say(finding.as_warning().with_help("add `tls: {}` beside `sasl`"));
        }
        SaslPlan {
            mechanism,
            username: value_or(&spec.username, String::new),
            password: spec.password.clone().unwrap_or(Secret(String::new())),
        }
    }

    fn tls_plan(&mut self, spec: &TlsSpec) -> TlsPlan {
        if spec.cert.is_some() != spec.key.is_some() {
            let there = if spec.cert.is_some() { "cert" } else { "key" };
            let missing = if spec.cert.is_some() { "key" } else { "cert" };
            self.say(spec.at.error("missing_field", format!("`{there}` needs `{missing}` beside it")));
        }
        if let Some(at) = spec.skip_verification.as_ref().filter(|at| at.value) {
            let finding = at.error("unverified", "any server is trusted, also one that reads along");
            self.say(finding.as_warning().with_help("name the authority with `ca` instead"));
        }
        let path = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.clone().into());
        TlsPlan {
            ca: path(&spec.ca),
            cert: path(&spec.cert),
            key: path(&spec.key),
            key_password: spec.key_password.clone().map(|at| at.value),
            skip_verification: value_or(&spec.skip_verification, || false),
        }
    }

    /// TLS to ClickHouse: what reads the key there opens no encrypted one.
    fn plain_key_plan(&mut self, spec: &TlsSpec) -> TlsPlan {
        if let Some(at) = spec.key_password.as_ref().filter(|at| !at.value.0.is_empty()) {
            let finding = at.error("encrypted_key", "the key of a ClickHouse connection cannot be encrypted");
            let help = "decrypt it (`openssl pkey -in key.pem -out plain.pem`) and leave out `key_password`";
            self.say(finding.with_help(help));
        }
        TlsPlan { key_password: None, ..self.tls_plan(spec) }
    }

    /// The connection of a sink: each part its own, else `beside` (the sink's, for a dead-letter table), else the
    /// default connection's.
    pub(super) fn clickhouse_plan(
        &mut self,
        own: &ClickHouseSpec,
        beside: Option<&ClickHouseSpec>,
        named: &At<()>,
    ) -> Option<ClickHousePlan> {
        let layers: Vec<&ClickHouseSpec> = [Some(own), beside, Some(self.clickhouse)].into_iter().flatten().collect();
        let written = layers.iter().find_map(|layer| layer.urls.as_ref());
        let urls: Vec<&At<String>> = written.into_iter().flatten().collect();
        let tls = layers.iter().find_map(|layer| layer.tls.as_ref());
        if written.is_none() {
            let finding = named.error("missing_field", "where ClickHouse is, nobody says: `url` is missing");
            self.say(finding.with_help("at the top: `clickhouse: { url: \"http://localhost:8123\" }`"));
        }
        if let (Some(tls), true) = (tls, urls.iter().any(|url| url.value.starts_with("http://"))) {
            let finding = tls.at.error("unused", "`tls` does nothing for a URL that begins with `http://`");
            self.say(finding.as_warning().with_help("a server with TLS is reached by `https://`"));
        }
        let text = |pick: fn(&ClickHouseSpec) -> &Option<At<String>>, default: &str| {
            layers.iter().find_map(|layer| pick(layer).as_ref()).map_or(default.to_string(), |at| at.value.clone())
        };
        Some(ClickHousePlan {
            at: urls.first()?.at,
            database: text(|layer| &layer.database, defaults::DATABASE),
            user: text(|layer| &layer.user, defaults::USER),
            password: layers.iter().find_map(|layer| layer.password.clone()).unwrap_or(Secret(String::new())),
            auth: layers.iter().find_map(|layer| layer.auth.as_ref()).map_or(HttpAuth::Basic, |at| at.value),
            tls: tls.map(|tls| self.plain_key_plan(tls)).unwrap_or_default(),
            urls: urls.iter().map(|url| url.value.clone()).collect(),
        })
    }
}
