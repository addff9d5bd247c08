//! One attempt to insert a block under its token.
//!
//! Promises: the same block and token give the same request but for the query's id; what is unclear is an error of
//! kind `Retry`; a table that is not what it was stops the pipeline before anything is sent. Never repeats, never
//! splits, never encodes anew.

use super::client::{Client, POOL_IDLE};
use super::errors::{Class, Failure};
use super::frames;
use super::mapping::insert_statement;
use super::schema::{self, ServerInfo, full_name};
use super::types::quoted;
use crate::error::{Error, Result};
use crate::sink::{Block, ColumnHeader, NOT_SENT, Sink, Token};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// How long one attempt may take; the same block goes out again afterwards.
pub const INSERT_TIMEOUT: Duration = Duration::from_secs(60);
/// The table is looked at again after this time at the latest.
const HEADER_AGE_MAX: Duration = Duration::from_secs(60);
/// Internal or unknown errors in a row after which a person should look.
const DOUBTFUL_ATTEMPTS_MAX: u32 = 20;

/// What is a block's token in each of its requests: it drops what is repeated, and is found in the server's log.
const REQUEST_SETTINGS: [&str; 2] = ["insert_deduplication_token", "log_comment"];

/// A table that takes blocks. One per output of a pipeline, shared by its tasks.
pub struct ClickHouseSink {
    client: Arc<Client>,
    database: String,
    table: String,
    settings: Vec<(String, String)>,
    /// The names of settings of one request that the server knows.
    request_settings: Vec<&'static str>,
    /// The columns that say which record a row came from: topic, partition, offset.
    place_columns: [&'static str; 3],
    /// Only rows whose `pipeline` is this one count: others write into the same table of dead letters.
    pipeline: Option<String>,
    /// Another pipeline writes rows of the same records into the table.
    is_shared: bool,
    seen: Mutex<Seen>,
    /// Internal or unknown errors in a row, by block: tasks share the sink, and one's luck is not another's.
    doubtful_attempts: Mutex<BTreeMap<Token, u32>>,
    /// Makes the ids of attempts differ, across processes too.
    instance: String,
    attempts: AtomicU64,
}

/// What was last known of the table.
#[derive(Default)]
struct Seen {
    header: Vec<ColumnHeader>,
    /// When the table was looked at; `None`: look before the next INSERT.
    looked_at: Option<Instant>,
    /// When the server last answered.
    answered_at: Option<Instant>,
}

impl ClickHouseSink {
    /// `user_settings` are the configuration's; those that the protocol pins win over them.
    pub fn new(
        client: Arc<Client>,
        server: &ServerInfo,
        database: &str,
        table: &str,
        user_settings: &BTreeMap<String, String>,
    ) -> ClickHouseSink {
        let mut random = [0u8; 6];
        getrandom::fill(&mut random).expect("the system gives random bytes");
        ClickHouseSink {
            client,
            database: database.to_owned(),
            table: table.to_owned(),
            settings: super::mapping::insert_settings(server, user_settings),
            request_settings: REQUEST_SETTINGS.into_iter().filter(|name| server.settings.contains(*name)).collect(),
            place_columns: ["_topic", "_partition", "_offset"],
            pipeline: None,
            is_shared: false,
            seen: Mutex::default(),
            doubtful_attempts: Mutex::default(),
            instance: random.iter().map(|byte| format!("{byte:02x}")).collect(),
            attempts: AtomicU64::new(0),
        }
    }

    fn name(&self) -> String {
        full_name(&self.database, &self.table)
    }

    /// The same for the table of dead letters, which names the place of a record without underscores, and whose
    /// letter it is.
    pub fn of_letters(self, pipeline: &str) -> ClickHouseSink {
        let pipeline = Some(pipeline.to_owned());
        ClickHouseSink { place_columns: ["topic", "partition", "offset"], pipeline, ..self }
    }

    /// The same where rows of a record may be another pipeline's: counting them tells nothing then.
    pub fn shared(self, is_shared: bool) -> ClickHouseSink {
        ClickHouseSink { is_shared, ..self }
    }

    /// How many rows of a Kafka range the table holds, by its columns `_topic`, `_partition`, `_offset`; `None`:
    /// it does not have them. `offset_from .. offset_to` is half-open.
    pub async fn holds_offsets(
        &self,
        topic: &str,
        partition: i32,
        offset_from: i64,
        offset_to: i64,
    ) -> Result<Option<u64>> {
        let doing = format!("asking {} for what it holds", self.name());
        let failed = |failure: Failure| failure.into_error(&doing);
        let header = schema::read_header(&self.client, &self.database, &self.table).await.map_err(failed)?;
        let has = |name: &&str| header.iter().any(|column| column.name == *name);
        if !self.place_columns.iter().all(has) {
            return Ok(None);
        }
        let [topic_column, partition_column, offset_column] = self.place_columns;
        #[derive(Deserialize)]
        struct Count {
            rows: String,
        }
        let sql = format!(
            "SELECT toString(count()) AS rows FROM {} WHERE `{topic_column}` = {} \
             AND `{partition_column}` = {partition} AND `{offset_column}` >= {offset_from} \
             AND `{offset_column}` < {offset_to}{}",
            self.name(),
            quoted(topic),
            self.pipeline.as_ref().map_or(String::new(), |pipeline| format!(" AND `pipeline` = {}", quoted(pipeline)))
        );
        let counts: Vec<Count> = self.client.rows(&sql).await.map_err(failed)?;
        Ok(counts.first().and_then(|count| count.rows.parse().ok()))
    }

    /// Compares the block's columns with the table's, which are read again after every reconnect and each minute.
    async fn check_header(&self, block: &Block) -> Result<()> {
        let header = match self.known_header() {
            Some(header) => header,
            None => self.look().await?,
        };
        let Some(sentence) = difference(&self.name(), &block.header, &header) else {
            return Ok(());
        };
        // Mended tables are noticed at the next attempt.
        self.forget();
        Err(Error::stop(NOT_SENT, sentence))
    }

    fn known_header(&self) -> Option<Vec<ColumnHeader>> {
        let seen = self.seen.lock().expect("no holder panics");
        let fresh = seen.looked_at.is_some_and(|at| at.elapsed() < HEADER_AGE_MAX);
        // An idle connection is closed, so the next INSERT makes a new one: perhaps to a changed server.
        let connected = seen.answered_at.is_some_and(|at| at.elapsed() < POOL_IDLE);
        (fresh && connected).then(|| seen.header.clone())
    }

    async fn look(&self) -> Result<Vec<ColumnHeader>> {
        let header = schema::read_header(&self.client, &self.database, &self.table)
            .await
            .map_err(|failure| failure.into_error(&format!("looking at {}", self.name())))?;
        let mut seen = self.seen.lock().expect("no holder panics");
        seen.header.clone_from(&header);
        seen.looked_at = Some(Instant::now());
        seen.answered_at = seen.looked_at;
        Ok(header)
    }

    fn forget(&self) {
        self.seen.lock().expect("no holder panics").looked_at = None;
    }

    fn request_settings(&self, token: &Token, block: &Block) -> Vec<(String, String)> {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        let mut settings = self.settings.clone();
        let mut set = |name: &str, value: String| settings.push((name.to_owned(), value));
        self.request_settings.iter().for_each(|name| set(name, token.0.clone()));
        set("query_id", format!("{}#{}-{attempt}", token.0, self.instance));
        if frames::is_framed(&block.body) {
            set("decompress", "1".to_owned());
        }
        settings
    }

    /// What a failed attempt means; a changed table is told by its own sentence, under the server's code: the block
    /// was sent.
    async fn judge(&self, failure: Failure, token: &Token, block: &Block) -> Error {
        self.forget();
        if failure.class == Class::Schema
            && let Err(changed) = self.check_header(block).await
            && changed.code == NOT_SENT
        {
            return Error::stop(failure.code, changed.message);
        }
        let doubtful = match failure.class {
            Class::Doubtful => {
                let mut attempts = self.doubtful_attempts.lock().expect("no holder panics");
                let count = attempts.entry(token.clone()).or_default();
                *count += 1;
                *count
            }
            _ => 0,
        };
        let mut error = failure.into_error(&format!("inserting into {}", self.name()));
        if doubtful >= DOUBTFUL_ATTEMPTS_MAX {
            error = Error::stop(error.code, format!("{} ({doubtful} times in a row)", error.message));
        }
        error
    }
}

impl Sink for ClickHouseSink {
    async fn holds(&self, partition: i32, ranges: &[(String, i64, i64)]) -> Result<Option<u64>> {
        if self.is_shared {
            return Ok(None);
        }
        let mut all = 0;
        for (topic, from, to) in ranges {
            let Some(rows) = self.holds_offsets(topic, partition, *from, *to).await? else { return Ok(None) };
            all += rows;
        }
        Ok(Some(all))
    }

    async fn insert(&self, token: &Token, block: &Block) -> Result<()> {
        self.check_header(block).await?;
        let statement = insert_statement(&self.name(), &block.header);
        let settings = self.request_settings(token, block);
        match self.client.insert(&statement, &settings, block.body.clone(), INSERT_TIMEOUT).await {
            Ok(()) => {
                self.doubtful_attempts.lock().expect("no holder panics").remove(token);
                self.seen.lock().expect("no holder panics").answered_at = Some(Instant::now());
                Ok(())
            }
            Err(failure) => Err(self.judge(failure, token, block).await),
        }
    }
}

/// What keeps a block from being sent: a column that is gone or has another type. New columns do no harm.
fn difference(table: &str, block: &[ColumnHeader], now: &[ColumnHeader]) -> Option<String> {
    if now.is_empty() {
        return Some(format!(
            "{table} is gone, or its columns are not visible any more; a stored block waits for it: create it as it \
             was (a new table has an empty window), or discard the block with `weir outbox discard`"
        ));
    }
    for column in block {
        let (name, was) = (&column.name, &column.type_text);
        match now.iter().find(|now| now.name == *name) {
            None => {
                return Some(format!(
                    "column `{name}` ({was}) is gone from {table}; a stored block has it and waits: add it back with \
                     `ALTER TABLE {table} ADD COLUMN {} {was}`, or discard the block with `weir outbox discard`",
                    super::types::identifier(name)
                ));
            }
            Some(now) if now.type_text != *was => {
                return Some(format!(
                    "column `{name}` of {table} was {was} and is {} now; a stored block has the old type and waits: \
                     change it back with `ALTER TABLE {table} MODIFY COLUMN {} {was}`, or discard the block with \
                     `weir outbox discard`",
                    now.type_text,
                    super::types::identifier(name)
                ));
            }
            Some(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(columns: &[(&str, &str)]) -> Vec<ColumnHeader> {
        let header = |(name, of): &(&str, &str)| ColumnHeader { name: (*name).into(), type_text: (*of).into() };
        columns.iter().map(header).collect()
    }

    #[test]
    fn added_columns_do_no_harm_and_lost_or_changed_ones_stop() {
        let block = header(&[("a", "UInt8"), ("b", "String")]);
        let now = |columns: &[(&str, &str)]| difference("`d`.`t`", &block, &header(columns));
        assert_eq!(now(&[("c", "UInt8"), ("b", "String"), ("a", "UInt8")]), None);
        assert!(now(&[("a", "UInt8")]).unwrap().contains("ADD COLUMN `b` String"));
        assert!(now(&[("a", "UInt16"), ("b", "String")]).unwrap().contains("was UInt8 and is UInt16"));
        assert!(now(&[]).unwrap().contains("gone"));
    }
}
