//! The sink's table before the first row: looked at, created from a sample, given columns for new fields.
//!
//! Owns `create_table` and `evolve` at a pipeline's start. Promises: what is run is first logged; nothing but
//! CREATE TABLE and ADD COLUMN; a table that is there is never created; the sample commits nothing.

use crate::config::plan::{ClickHouseSinkPlan, PipelinePlan, SinkPlan, TopicPlan};
use crate::error::{Error, Result};
use crate::runtime::preview;
use crate::sink::clickhouse::client::Client;
use crate::sink::clickhouse::schema::TableSchema;
use crate::sink::clickhouse::table::{self, Load, TableReport};
use crate::sink::clickhouse::{create, mapping};
use crate::source::kafka::{self, Sample};

/// Records of a sample, all topics together.
pub const SAMPLE_RECORDS_MAX: usize = 1_000;

/// How to reach what a start needs.
pub struct Preparing<'a> {
    pub plan: &'a PipelinePlan,
    pub client: &'a Client,
    pub tokio: &'a tokio::runtime::Handle,
    pub load: Load,
    /// See [`kafka::MemberOptions`].
    pub describe_by_broker: Option<i32>,
}

impl Preparing<'_> {
    /// Looks at the table, and makes it what the configuration asks for.
    ///
    /// # Errors
    /// `Retry`: not reachable, or the topics have no record yet from which to make a table.
    pub fn table(&self) -> Result<TableReport> {
        let sink = self.sink();
        let report = self.inspect()?;
        match &report.schema {
            None if sink.create_table.is_some() => {
                let statement = self.create_statement()?;
                self.run(&statement, "creating the table")?;
                self.inspect()
            }
            Some(schema) if sink.evolve_add_columns => match self.add_columns_statement(schema)? {
                None => Ok(report),
                Some(statement) => {
                    tracing::info!(pipeline = self.plan.name, "evolve: {statement}");
                    let added = self.tokio.block_on(create::add_columns(self.client, schema, &statement));
                    added.map_err(|failure| failure.into_error("adding columns"))?;
                    self.inspect()
                }
            },
            _ => Ok(report),
        }
    }

    /// The statement by which `create_table` makes the table.
    pub fn create_statement(&self) -> Result<String> {
        let sink = self.sink();
        let create = sink.create_table.as_ref().expect("asked only with `create_table`");
        let records = self.records()?;
        if records.is_empty() {
            let topics: Vec<&str> = self.plan.topics.iter().map(|topic| topic.name.as_str()).collect();
            let message = format!(
                "table `{}` is created from a sample, and {} has no record yet that reaches it",
                sink.table,
                topics.join(", ")
            );
            return Err(Error::retry("no_sample", message));
        }
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let window = table::window_needed(self.load);
        create::create_statement(create, &sink.connection.database, &sink.table, &records, false, window)
            .map_err(|message| Error::stop("create_table", message))
    }

    /// The statement by which `evolve` adds columns; `None` when every field of the sample has one.
    pub fn add_columns_statement(&self, schema: &TableSchema) -> Result<Option<String>> {
        let records = self.records()?;
        let used: Vec<&str> = self.sink().columns.iter().map(|column| column.path.text.as_str()).collect();
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        Ok(create::add_columns_statement(schema, &used, &records))
    }

    /// Newest records of all topics, as they would reach the table.
    pub fn records(&self) -> Result<Vec<Vec<u8>>> {
        let of_each = (SAMPLE_RECORDS_MAX / self.plan.topics.len()).max(1);
        let sample = |topic: &TopicPlan| kafka::sample(&self.plan.kafka, &topic.name, self.describe_by_broker, of_each);
        let samples: Vec<Sample> = self.plan.topics.iter().map(sample).collect::<Result<_>>()?;
        Ok(preview::at_the_sink(self.plan, &samples))
    }

    fn sink(&self) -> &ClickHouseSinkPlan {
        let SinkPlan::ClickHouse(sink) = &self.plan.sink;
        sink
    }

    fn inspect(&self) -> Result<TableReport> {
        let sink = self.sink();
        let (database, inserted) = (&sink.connection.database, mapping::inserted(sink));
        let looked = table::inspect(self.client, database, &sink.table, self.load, inserted);
        self.tokio.block_on(looked).map_err(|failure| failure.into_error("looking at the table"))
    }

    fn run(&self, statement: &str, doing: &str) -> Result<()> {
        tracing::info!(pipeline = self.plan.name, "create_table: {statement}");
        self.tokio.block_on(self.client.execute(statement)).map_err(|failure| failure.into_error(doing))
    }
}
