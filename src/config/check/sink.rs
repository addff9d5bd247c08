//! The sink and the place of dead letters.

use super::denied::clickhouse_help;
use super::{Check, defaults, value_or};
use crate::config::plan::{
    BatchPlan, BlockCompression, ClickHouseSinkPlan, CreateTablePlan, DeadLettersPlan, MissingField, SinkPlan,
    TopicPlan,
};
use crate::config::read::At;
use crate::config::spec::pipeline::PipelineSpec;
use crate::config::spec::sink::{BatchSpec, ClickHouseSinkSpec, DeadLettersSpec, SinkSpec};

impl Check<'_> {
    pub(super) fn sink_plan(&mut self, spec: &SinkSpec) -> Option<SinkPlan> {
        match spec {
            SinkSpec::ClickHouse(spec) => self.clickhouse_sink_plan(spec).map(SinkPlan::ClickHouse),
        }
    }

    fn clickhouse_sink_plan(&mut self, spec: &ClickHouseSinkSpec) -> Option<ClickHouseSinkPlan> {
        let connection = self.clickhouse_plan(&spec.connection, None, &spec.at);
        let table = spec.table.as_ref().filter(|table| self.table_fits(table));
        for (setting, value) in &spec.settings {
            if let Some(help) = clickhouse_help(setting) {
                let message = format!("`{setting}` cannot be set: exactly once depends on it");
                self.say(value.error("refused_option", message).with_help(help));
            }
        }
        let settings = spec.settings.iter().map(|(name, at)| (name.clone(), at.value.clone())).collect();
        let create_table = spec.create_table.as_ref().map(|create| CreateTablePlan {
            order_by: create.order_by.iter().map(|column| column.value.clone()).collect(),
            at: create.at.at,
        });
        Some(ClickHouseSinkPlan {
            connection: connection?,
            table: table?.value.clone(),
            table_at: table?.at,
            batch: batch_plan(&spec.batch),
            columns: spec.columns.clone(),
            missing: value_or(&spec.missing, || MissingField::Default),
            create_table,
            evolve_add_columns: spec.evolve.is_some(),
            compression: value_or(&spec.compression, || BlockCompression::Lz4),
            settings,
        })
    }

    fn table_fits(&mut self, table: &At<String>) -> bool {
        let Some((database, name)) = table.value.split_once('.') else { return true };
        let finding = table.error("bad_table", "`table` is the name alone");
        self.say(finding.with_help(format!("write `database: {database}` and `table: {name}`")));
        false
    }

    pub(super) fn dead_letters_plan(
        &mut self,
        spec: &PipelineSpec,
        topics: &[TopicPlan],
        sink: Option<&SinkPlan>,
    ) -> Option<DeadLettersPlan> {
        match &spec.dead_letters {
            None => Some(DeadLettersPlan::Local { bytes_max: defaults::DEAD_LETTERS_BYTES }),
            Some(DeadLettersSpec::Local { bytes_max }) => {
                Some(DeadLettersPlan::Local { bytes_max: value_or(bytes_max, || defaults::DEAD_LETTERS_BYTES) })
            }
            Some(DeadLettersSpec::Kafka { topic }) => self.letter_topic(topic.as_ref()?, topics, sink),
            Some(DeadLettersSpec::ClickHouse { at, connection, table }) => {
                let beside = spec.sink.as_ref().map(|SinkSpec::ClickHouse(sink)| &sink.connection);
                let connection = self.clickhouse_plan(connection, beside, at);
                let table = table.as_ref().filter(|table| self.table_fits(table))?;
                let connection = connection?;
                if let Some(SinkPlan::ClickHouse(sink)) = sink
                    && sink.table == table.value
                    && sink.connection.database == connection.database
                {
                    let finding = match sink.connection.urls == connection.urls {
                        true => table.error("same_table", "dead letters cannot go to the table of the sink"),
                        false => table
                            .error("same_table", "dead letters need a table of another name than the sink's")
                            .with_help("on another server, too: a block's token names its database and table only"),
                    };
                    self.say(finding);
                }
                Some(DeadLettersPlan::ClickHouse { connection, table: table.value.clone(), at: table.at })
            }
        }
    }

    fn letter_topic(
        &mut self,
        topic: &At<String>,
        topics: &[TopicPlan],
        sink: Option<&SinkPlan>,
    ) -> Option<DeadLettersPlan> {
        self.topic_fits(topic);
        if let Some(SinkPlan::ClickHouse(sink)) = sink
            && sink.connection.database == "kafka"
            && sink.table == topic.value
        {
            let message = "in a database `kafka` the topic of dead letters needs another name than the sink's table";
            let help = "the tokens of both would end in `kafka/<name>`";
            self.say(topic.error("same_table", message).with_help(help));
        }
        if topics.iter().any(|input| input.name == topic.value) {
            let finding = topic.error("same_topic", "dead letters cannot go to a topic that the pipeline reads");
            self.say(finding.with_help("each would come back as a record, for ever"));
        }
        Some(DeadLettersPlan::Kafka { topic: topic.value.clone(), at: topic.at })
    }
}

fn batch_plan(spec: &BatchSpec) -> BatchPlan {
    BatchPlan {
        rows: value_or(&spec.rows, || defaults::BATCH_ROWS),
        bytes: value_or(&spec.bytes, || defaults::BATCH_BYTES),
        interval_ms: value_or(&spec.interval_ms, || defaults::BATCH_INTERVAL_MS) as u64,
    }
}
