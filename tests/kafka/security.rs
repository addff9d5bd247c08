//! Logins and certificates, right and wrong: the wrong ones come as sentences that name the setting.

use crate::bench::{WAIT, unique};
use crate::member::{open, plan};
use crate::support::kafka::{Kafka, PASSWORD, USER};
use std::time::{Duration, Instant};
use weir::config::plan::{KafkaPlan, SaslMechanism, SaslPlan, Secret, TlsPlan};
use weir::error::{Error, Kind};
use weir::source::{Group, GroupEvent};

fn sasl(mechanism: SaslMechanism, password: &str) -> KafkaPlan {
    let mut kafka = plan(&unique("g"));
    kafka.brokers = vec![Kafka::shared().sasl_brokers()];
    kafka.security.sasl = Some(SaslPlan { mechanism, username: USER.into(), password: Secret(password.into()) });
    kafka
}

fn tls(brokers: String, tls: TlsPlan) -> KafkaPlan {
    let mut kafka = plan(&unique("g"));
    kafka.brokers = vec![brokers];
    kafka.security.tls = Some(tls);
    kafka
}

/// The first trouble with this code.
fn trouble(kafka: &KafkaPlan, code: &str) -> Error {
    let mut group = open(kafka, Some("a"), &["t".to_string()]);
    group.join().unwrap();
    let deadline = Instant::now() + WAIT;
    let mut others = Vec::new();
    while Instant::now() < deadline {
        match group.poll(Duration::from_millis(100)) {
            Some(GroupEvent::Trouble(error)) if error.code == code => return error,
            Some(event) => others.push(event),
            None => {}
        }
    }
    panic!("in {WAIT:?} no {code}, but {others:?}");
}

fn reaches(kafka: &KafkaPlan) {
    let topic = unique("t");
    Kafka::shared().create_topic(&topic, 2);
    assert_eq!(open(kafka, Some("a"), &[topic]).topics().unwrap()[0].partitions, 2);
}

#[test]
fn every_mechanism_lets_the_right_password_in() {
    for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512] {
        reaches(&sasl(mechanism, PASSWORD));
    }
}

#[test]
fn a_wrong_password_is_told_as_a_sentence() {
    for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha512] {
        let error = trouble(&sasl(mechanism, "wrong"), "authentication");
        assert_eq!(error.kind, Kind::Retry);
        assert!(error.message.starts_with("Kafka refuses the login") && !error.message.contains("wrong"), "{error}");
    }
}

#[test]
fn a_known_authority_is_trusted() {
    let ca = Some(Kafka::shared().certificates().ca());
    reaches(&tls(Kafka::shared().tls_brokers(), TlsPlan { ca, ..TlsPlan::default() }));
}

#[test]
fn an_unknown_authority_is_told_as_a_sentence() {
    let error = trouble(&tls(Kafka::shared().tls_brokers(), TlsPlan::default()), "ssl");
    assert!(error.message.contains("`security.tls.ca`"), "{error}");
}

#[test]
fn tls_to_a_port_without_it_is_told_as_a_sentence() {
    let error = trouble(&tls(Kafka::shared().brokers(), TlsPlan::default()), "ssl");
    assert!(error.message.contains("does not speak TLS"), "{error}");
}
