//! Dead letters in a Kafka topic: key, value and headers as they were, and where and why in headers of ours.
//!
//! Owns the producer. Promises: an acknowledged block is in the topic, at least once (the `__connect.errors.*`
//! headers are a letter's identity). What is larger than the topic takes is said before a block is sealed.

use super::{Block, Sink, Token};
use crate::config::plan::KafkaPlan;
use crate::error::{Error, Result};
use crate::state::ledger::{decode, encode};
use crate::state::letters::Letter;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// What a broker takes where the topic says nothing (`max.message.bytes`).
const MESSAGE_BYTES_DEFAULT: usize = 1_048_588;
/// What a batch holds where the topic takes more.
const BATCH_BYTES: usize = 1_000_000;
/// The lowest and the highest limit that the client takes.
const MESSAGE_BYTES: (usize, usize) = (1_000, 1_000_000_000);
/// Of a message, beside key, value, headers and sentence: mostly the names in headers of ours.
const OVERHEAD_BYTES: usize = 768;
/// How long the broker may take for questions at start, and for a letter.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
const LETTER_WAIT_MS: u64 = 60_000;
/// A full producer queue is tried again after this.
const QUEUE_WAIT: Duration = Duration::from_millis(10);

/// The topic that takes letters.
pub struct KafkaLetters {
    producer: ThreadedProducer<Reports>,
    topic: String,
    letter_bytes_max: usize,
}

/// Hands delivery reports to whoever waits for the block.
struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<UnboundedSender<Option<KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        // Nobody waits any more when the attempt was given up.
        let _ = waiting.send(result.as_ref().err().map(|(error, _)| error.clone()));
    }
}

impl KafkaLetters {
    /// Connects, looks whether the topic is there, and asks for its largest message.
    ///
    /// # Errors
    /// `Retry` when no broker answers; `Stop` when there is no such topic.
    pub fn connect(kafka: &KafkaPlan, topic: &str, runtime: &tokio::runtime::Handle) -> Result<KafkaLetters> {
        let mut config = client_config(kafka);
        let message_bytes_max = runtime.block_on(message_bytes_max(&config, topic));
        // The broker measures whole batches, the client single messages: neither may refuse what fits the topic.
        config.set("batch.size", message_bytes_max.min(BATCH_BYTES).to_string());
        config.set("message.max.bytes", message_bytes_max.clamp(MESSAGE_BYTES.0, MESSAGE_BYTES.1).to_string());
        let producer: ThreadedProducer<Reports> =
            config.create_with_context(Reports).map_err(|error| Error::stop("kafka", error.to_string()))?;
        let metadata = producer
            .client()
            .fetch_metadata(Some(topic), ANSWER_WAIT)
            .map_err(|error| Error::retry("kafka", format!("no broker answers for the dead letters: {error}")))?;
        let known = metadata.topics().iter().any(|known| known.name() == topic && !known.partitions().is_empty());
        if !known {
            let message = format!("topic `{topic}` for the dead letters does not exist: create it, weir never does");
            return Err(Error::stop("missing_topic", message));
        }
        Ok(KafkaLetters { producer, topic: topic.to_owned(), letter_bytes_max: message_bytes_max })
    }

    /// The largest message that the topic takes.
    pub fn letter_bytes_max(&self) -> usize {
        self.letter_bytes_max
    }

    async fn produce(&self, letter: &Letter, waiting: &UnboundedSender<Option<KafkaError>>) -> Result<()> {
        let headers = headers(letter);
        loop {
            let mut record: BaseRecord<'_, [u8], [u8], _> =
                BaseRecord::with_opaque_to(&self.topic, Box::new(waiting.clone())).headers(headers.clone());
            record.key = letter.key.as_deref();
            record.payload = letter.value.as_deref();
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    tokio::time::sleep(QUEUE_WAIT).await;
                }
                Err((error, _)) => return Err(failure(&self.topic, &error)),
            }
        }
    }
}

impl Sink for KafkaLetters {
    /// A topic has no memory of tokens that could run out: letters go at least once, so these go again.
    async fn holds(&self, _partition: i32, _ranges: &[(String, i64, i64)]) -> Result<Option<u64>> {
        Ok(Some(0))
    }

    async fn insert(&self, _token: &Token, block: &Block) -> Result<()> {
        let letters = letters_of(block)?;
        let (waiting, mut reports) = unbounded_channel();
        for letter in &letters {
            self.produce(letter, &waiting).await?;
        }
        drop(waiting);
        while let Some(report) = reports.recv().await {
            if let Some(error) = report {
                return Err(failure(&self.topic, &error));
            }
        }
        Ok(())
    }
}

/// A block of letters for a topic: not compressed here, the producer does that.
pub fn block_of(letters: &[Letter]) -> Block {
    let body = encode(&letters.to_vec());
    let hash = xxhash_rust::xxh3::xxh3_128(&body).to_le_bytes();
    Block { header: vec![], rows: letters.len() as u64, hash, body: body.into() }
}

fn letters_of(block: &Block) -> Result<Vec<Letter>> {
    decode(&block.body)
}

/// What a letter takes as a message, about.
pub fn message_bytes(letter: &Letter) -> usize {
    let header = |(name, value): &(String, Option<Vec<u8>>)| name.len() + value.as_ref().map_or(0, Vec::len) + 10;
    OVERHEAD_BYTES
        + letter.key.as_ref().map_or(0, Vec::len)
        + letter.value.as_ref().map_or(0, Vec::len)
        + letter.message.len()
        + letter.headers.iter().map(header).sum::<usize>()
}

/// As they were, and ours behind them.
fn headers(letter: &Letter) -> OwnedHeaders {
    let as_they_were = letter
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }));
    let mut ours = vec![
        ("__connect.errors.topic", letter.topic.clone()),
        ("__connect.errors.partition", letter.partition.to_string()),
        ("__connect.errors.offset", letter.offset.to_string()),
        ("__connect.errors.stage", letter.step.clone()),
        ("__connect.errors.class.name", letter.reason.clone()),
        ("__connect.errors.exception.message", letter.message.clone()),
        ("weir.pipeline", letter.pipeline.clone()),
    ];
    // Not the message's own: by that the topic would let old letters go at once, and refuse those of the future.
    if letter.timestamp_ms != -1 {
        ours.push(("weir.timestamp", letter.timestamp_ms.to_string()));
    }
    ours.iter()
        .fold(as_they_were, |headers, (key, value)| headers.insert(Header { key, value: Some(value.as_bytes()) }))
}

fn client_config(kafka: &KafkaPlan) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "weir").set("compression.type", "lz4").set("linger.ms", "5");
    config.set("message.timeout.ms", LETTER_WAIT_MS.to_string());
    for (name, value) in kafka.security.librdkafka() {
        config.set(name, value);
    }
    for (name, value) in kafka.librdkafka.iter().filter(|(name, _)| is_of_connection(name)) {
        config.set(name, value);
    }
    config.set("bootstrap.servers", kafka.brokers.join(",")).set("enable.idempotence", "true");
    config
}

/// Of the user's options, those that say how to connect; the rest is about consuming.
fn is_of_connection(name: &str) -> bool {
    ["ssl.", "sasl.", "security.", "socket.", "broker.", "reconnect."].iter().any(|prefix| name.starts_with(prefix))
}

/// What the topic says, or the default where it cannot be asked.
async fn message_bytes_max(config: &ClientConfig, topic: &str) -> usize {
    let Ok(admin) = config.create::<AdminClient<DefaultClientContext>>() else { return MESSAGE_BYTES_DEFAULT };
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WAIT));
    let Ok(answers) = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await else {
        return MESSAGE_BYTES_DEFAULT;
    };
    let value = answers.iter().flatten().find_map(|resource| resource.get("max.message.bytes")?.value.clone());
    value.and_then(|value| value.parse().ok()).unwrap_or(MESSAGE_BYTES_DEFAULT)
}

fn failure(topic: &str, error: &KafkaError) -> Error {
    let message = format!("cannot write dead letters to topic `{topic}`: {error}");
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic,
        ) => Error::stop("dead_letters", message),
        _ => Error::retry("dead_letters", message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter {
            topic: "orders".into(),
            partition: 3,
            offset: 42,
            timestamp_ms: 7,
            key: Some(b"k".to_vec()),
            value: None,
            pipeline: "p".into(),
            headers: vec![("trace".into(), Some(b"1".to_vec())), ("empty".into(), None)],
            step: "0".into(),
            reason: "missing_key".into(),
            message: "no key".into(),
            ..Letter::default()
        }
    }

    #[test]
    fn a_block_gives_its_letters_back() {
        let letters = vec![letter(), Letter { offset: 43, ..letter() }];
        let block = block_of(&letters);
        assert_eq!(block.rows, 2);
        assert_eq!(letters_of(&block).unwrap(), letters);
        assert_ne!(block.hash, block_of(&letters[..1]).hash);
    }

    #[test]
    fn headers_are_as_they_were_and_say_where_and_why() {
        use rdkafka::message::Headers;
        let headers = headers(&letter());
        let pairs: Vec<(String, Option<Vec<u8>>)> =
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect();
        assert_eq!(pairs[..2], letter().headers[..]);
        assert_eq!(pairs[2], ("__connect.errors.topic".into(), Some(b"orders".to_vec())));
        assert_eq!(pairs[4], ("__connect.errors.offset".into(), Some(b"42".to_vec())));
        assert_eq!(
            pairs[8..],
            [("weir.pipeline", "p"), ("weir.timestamp", "7")].map(|(n, v)| (n.into(), Some(v.into())))
        );
        assert_eq!(pairs.len(), 10);
    }
}
