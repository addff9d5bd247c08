//! How Kafka and ClickHouse are reached: `kafka` and `clickhouse`, at the top and in a source or sink.

use crate::config::grammar::{Field, Object, Shape, Words, names};
use crate::config::plan::{HttpAuth, SaslMechanism, Secret};
use crate::config::read::{At, Fields, Value};
use std::collections::BTreeMap;

/// `kafka`, at the top or in a source.
#[derive(Clone, PartialEq, Default)]
pub struct KafkaSpec {
    /// Empty inside: what is written is wrong, and that was said.
    pub brokers: Option<Vec<At<String>>>,
    /// From `topic` or `topics`.
    pub topics: Vec<At<String>>,
    pub group: Option<At<String>>,
    pub instance_id: Option<At<String>>,
    pub security: Option<SecuritySpec>,
    pub librdkafka: BTreeMap<String, At<String>>,
}

/// Options of librdkafka may be passwords.
impl std::fmt::Debug for KafkaSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = f.debug_struct("KafkaSpec");
        fields.field("brokers", &self.brokers).field("topics", &self.topics).field("group", &self.group);
        fields.field("librdkafka", &self.librdkafka.keys()).finish_non_exhaustive()
    }
}

pub static KAFKA: Object = Object {
    name: "`kafka`",
    doc: "A connection to Kafka, and in a source what is read.",
    choice: false,
    fields: &[&[
        Field::new("brokers", Shape::OneOrList(&Shape::Text), "Where to begin: `host:port`, several as a list."),
        Field::new("topic", Shape::Text, "The topic to read."),
        Field::new(
            "topics",
            Shape::List(&Shape::Text),
            "Several topics with equal partition counts, read as one stream.",
        ),
        Field::new("group", Shape::Text, "The consumer group; no two pipelines share one.").default("weir-<pipeline>"),
        Field::new("instance_id", Shape::Text, "The static member's id.").default("the id of the state directory"),
        Field::new("security", Shape::Object(&SECURITY), "TLS and SASL."),
        Field::new(
            "librdkafka",
            Shape::Map(&Shape::Scalar),
            "Options passed on to librdkafka, except those that would break the protocol.",
        ),
    ]],
};

impl KafkaSpec {
    pub fn read(value: &Value<'_>) -> Option<KafkaSpec> {
        let fields = value.fields(&KAFKA)?;
        fields.either("topic", "topics");
        let mut topics: Vec<At<String>> = fields.text("topic").into_iter().collect();
        if let Some(value) = fields.get("topics") {
            let listed = value.list().unwrap_or_default();
            value.refuse_empty_list();
            topics.extend(listed.iter().filter_map(Value::filled_text));
        }
        Some(KafkaSpec {
            brokers: read_brokers(&fields),
            topics,
            group: fields.text("group"),
            instance_id: fields.text("instance_id"),
            security: fields.get("security").and_then(|value| SecuritySpec::read(&value)),
            librdkafka: read_options(&fields, "librdkafka"),
        })
    }
}

/// One text may hold several, with commas: that is how they come out of a variable.
fn read_brokers(fields: &Fields<'_>) -> Option<Vec<At<String>>> {
    let written = fields.get("brokers")?;
    written.refuse_empty_list();
    let values = written.one_or_list();
    let mut brokers = Vec::new();
    for value in &values {
        let Some(text) = value.filled_text() else { continue };
        for broker in text.value.split(',').map(str::trim).filter(|broker| !broker.is_empty()) {
            if is_host_port(broker) {
                brokers.push(value.at(broker.to_string()));
            } else {
                value.refuse("bad_address", "takes `host:port`", Some("such as `kafka-1:9092`, without `…://`".into()));
            }
        }
    }
    Some(brokers)
}

/// `host`, `host:port` or `[v6]:port`.
fn is_host_port(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_fits =
        !host.is_empty() && !host.contains(['/', ' ', '@']) && (!host.contains(':') || host.starts_with('['));
    host_fits && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// A mapping of names to scalars, as text.
pub fn read_options(fields: &Fields<'_>, name: &str) -> BTreeMap<String, At<String>> {
    let entries = fields.get(name).and_then(|value| value.entries()).unwrap_or_default();
    let read = |(key, value): (At<String>, Value<'_>)| {
        let text = value.scalar_text()?;
        // The place is the name's: that is what a finding about an option is about.
        Some((key.value.clone(), At { value: text.value, at: key.at, path: key.path }))
    };
    entries.into_iter().filter_map(read).collect()
}

/// `security`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SecuritySpec {
    pub tls: Option<TlsSpec>,
    pub sasl: Option<SaslSpec>,
}

static SECURITY: Object = Object {
    name: "`security`",
    doc: "How the connection to Kafka is protected.",
    choice: false,
    fields: &[&[
        Field::new("tls", Shape::Object(&TLS), "Encrypts; `tls: {}` uses the machine's own authorities."),
        Field::new("sasl", Shape::Object(&SASL), "Says who we are."),
    ]],
};

impl SecuritySpec {
    fn read(value: &Value<'_>) -> Option<SecuritySpec> {
        let fields = value.fields(&SECURITY)?;
        Some(SecuritySpec {
            tls: fields.get("tls").and_then(|value| TlsSpec::read(&value)),
            sasl: fields.get("sasl").and_then(|value| SaslSpec::read(&value)),
        })
    }
}

/// `sasl`.
#[derive(Clone, PartialEq, Debug)]
pub struct SaslSpec {
    pub at: At<()>,
    pub mechanism: Option<At<SaslMechanism>>,
    pub username: Option<At<String>>,
    pub password: Option<Secret>,
}

const MECHANISM: Words<SaslMechanism> = &[
    ("plain", SaslMechanism::Plain),
    ("scram-sha-256", SaslMechanism::ScramSha256),
    ("scram-sha-512", SaslMechanism::ScramSha512),
];

static SASL: Object = Object {
    name: "`sasl`",
    doc: "User and password for Kafka.",
    choice: false,
    fields: &[&[
        Field::new("mechanism", Shape::Word(|| names(MECHANISM)), "How the password is shown.").required(),
        Field::new("username", Shape::Text, "The user.").required(),
        Field::new("password", Shape::Secret, "The password. Better `${KAFKA_PASSWORD}`.").required(),
    ]],
};

impl SaslSpec {
    fn read(value: &Value<'_>) -> Option<SaslSpec> {
        let fields = value.fields(&SASL)?;
        Some(SaslSpec {
            at: fields.named().map(|_| ()),
            mechanism: fields.word("mechanism", MECHANISM),
            username: fields.text("username"),
            password: read_secret(&fields, "password"),
        })
    }
}

/// `tls`, to Kafka or ClickHouse.
#[derive(Clone, PartialEq, Debug)]
pub struct TlsSpec {
    pub at: At<()>,
    pub ca: Option<At<String>>,
    pub cert: Option<At<String>>,
    pub key: Option<At<String>>,
    pub key_password: Option<At<Secret>>,
    pub skip_verification: Option<At<bool>>,
}

static TLS: Object = Object {
    name: "`tls`",
    doc: "TLS. Files are PEM.",
    choice: false,
    fields: &[&[
        Field::new("ca", Shape::Text, "A file with the authorities to trust.").default("those of the machine"),
        Field::new("cert", Shape::Text, "A file with our certificate, for servers that ask for one."),
        Field::new("key", Shape::Text, "A file with the certificate's key."),
        Field::new("key_password", Shape::Secret, "What opens the key. Not for ClickHouse: its key has to be plain."),
        Field::new("skip_verification", Shape::Bool, "Trusts any server. For tests.").default("false"),
    ]],
};

impl TlsSpec {
    fn read(value: &Value<'_>) -> Option<TlsSpec> {
        let fields = value.fields(&TLS)?;
        Some(TlsSpec {
            at: fields.named().map(|_| ()),
            ca: fields.text("ca"),
            cert: fields.text("cert"),
            key: fields.text("key"),
            key_password: fields.get("key_password").and_then(|value| value.text()).map(|text| text.map(Secret)),
            skip_verification: fields.bool("skip_verification"),
        })
    }
}

/// A secret may be empty.
fn read_secret(fields: &Fields<'_>, name: &str) -> Option<Secret> {
    fields.get(name)?.text().map(|text| Secret(text.value))
}

/// `clickhouse`, at the top; a sink has the same fields and more.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ClickHouseSpec {
    /// From `url` or `urls`. Empty inside: what is written is wrong, and that was said.
    pub urls: Option<Vec<At<String>>>,
    pub database: Option<At<String>>,
    pub user: Option<At<String>>,
    pub password: Option<Secret>,
    pub auth: Option<At<HttpAuth>>,
    pub tls: Option<TlsSpec>,
}

const AUTH: Words<HttpAuth> = &[("basic", HttpAuth::Basic), ("headers", HttpAuth::Headers)];

pub const CLICKHOUSE_FIELDS: &[Field] = &[
    Field::new("url", Shape::Text, "The HTTP interface, such as `http://localhost:8123`."),
    Field::new("urls", Shape::List(&Shape::Text), "Several servers of one Replicated or Shared table."),
    Field::new("database", Shape::Text, "The database.").default("default"),
    Field::new("user", Shape::Text, "The user.").default("default"),
    Field::new("password", Shape::Secret, "The password. Better `${CLICKHOUSE_PASSWORD}`.").default("empty"),
    Field::new("auth", Shape::Word(|| names(AUTH)), "How user and password travel.").default("basic"),
    Field::new("tls", Shape::Object(&TLS), "Authorities and certificates for `https`."),
];

pub static CLICKHOUSE: Object = Object {
    name: "`clickhouse`",
    doc: "The default connection to ClickHouse.",
    choice: false,
    fields: &[CLICKHOUSE_FIELDS],
};

impl ClickHouseSpec {
    pub fn read(value: &Value<'_>) -> Option<ClickHouseSpec> {
        Some(ClickHouseSpec::from_fields(&value.fields(&CLICKHOUSE)?))
    }

    /// From an object that has `CLICKHOUSE_FIELDS` among its fields.
    pub fn from_fields(fields: &Fields<'_>) -> ClickHouseSpec {
        fields.either("url", "urls");
        let one = fields.get("url").map(|value| vec![value]);
        let several = fields.get("urls").map(|value| {
            value.refuse_empty_list();
            value.list().unwrap_or_default()
        });
        let urls = one.or(several);
        ClickHouseSpec {
            urls: urls.map(|urls| urls.iter().filter_map(read_url).collect()),
            database: fields.text("database"),
            user: fields.text("user"),
            password: read_secret(fields, "password"),
            auth: fields.word("auth", AUTH),
            tls: fields.get("tls").and_then(|value| TlsSpec::read(&value)),
        }
    }
}

fn read_url(value: &Value<'_>) -> Option<At<String>> {
    let text = value.filled_text()?;
    match url_help(&text.value) {
        None => Some(text.map(|url| url.trim_end_matches('/').to_string())),
        Some(help) => {
            // The text is not shown: it may hold a password.
            let name = value.named().value;
            value.error("bad_url", format!("`{name}` takes a URL such as `http://localhost:8123`"), Some(help.into()));
            None
        }
    }
}

fn url_help(url: &str) -> Option<&'static str> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Some("begin with `http://` or `https://`");
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    match () {
        _ if scheme != "http" && scheme != "https" => {
            Some("weir speaks ClickHouse's HTTP interface: `http://` or `https://`")
        }
        _ if authority.contains('@') => Some("user and password go to `user` and `password`"),
        _ if url.contains(['?', '#']) => {
            Some("no query belongs here: the database goes to `database`, settings go to the sink's `settings`")
        }
        _ if !is_host_port(authority) => Some("after `://` comes a host, and a port if it is not the usual one"),
        _ if authority.ends_with(":9000") || authority.ends_with(":9440") => {
            Some("that is the port of the native protocol; the HTTP interface usually has 8123 or 8443")
        }
        _ if path.contains(' ') => Some("a URL has no spaces"),
        _ => None,
    }
}
