//! A table in a database of its own, and records on their way into it.

use crate::support::clickhouse::{ClickHouse, USER};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir::codec::rows::{BadRow, Field, Kind, RowMeta, Rows, Slot};
use weir::config::plan::*;
use weir::error::{Place, Severity};
use weir::sink::clickhouse::client::Client;
use weir::sink::clickhouse::encode::json::{Pairs, Value};
use weir::sink::clickhouse::insert::ClickHouseSink;
use weir::sink::clickhouse::mapping::{self, Mapping};
use weir::sink::clickhouse::schema::{ServerInfo, TableSchema};
use weir::sink::clickhouse::table::{self, Load, Problem, TableReport};
use weir::sink::{Block, BlockBuilder, Sink, Token};

pub const LOAD: Load =
    Load { delivery: DeliveryGuarantee::ExactlyOnce, servers: 1, tasks: 1, batch_interval_ms: 10_000 };

/// What every good table ends with.
pub const ENGINE: &str = "ENGINE = MergeTree ORDER BY tuple() SETTINGS non_replicated_deduplication_window = 10000";

pub fn connection(urls: &[String], database: &str) -> ClickHousePlan {
    ClickHousePlan {
        urls: urls.to_vec(),
        at: Place::default(),
        database: database.to_owned(),
        user: USER.to_owned(),
        password: Secret(String::new()),
        auth: HttpAuth::Basic,
        tls: TlsPlan::default(),
    }
}

/// A test's own database.
pub struct Database {
    pub name: String,
    pub client: Arc<Client>,
    pub engine: &'static ClickHouse,
}

impl Database {
    pub fn new(name: &str) -> Database {
        let engine = ClickHouse::shared();
        engine.query(&format!("CREATE DATABASE {name}"));
        let client = Arc::new(Client::new(&connection(&[engine.url()], name)).unwrap());
        Database { name: name.to_owned(), client, engine }
    }

    /// Runs SQL in which `$` stands for the database.
    pub fn run(&self, sql: &str) -> String {
        self.engine.query(&sql.replace('$', &self.name))
    }

    pub async fn inspect(&self, table: &str) -> TableReport {
        self.inspect_through(&self.client, table).await
    }

    pub async fn inspect_through(&self, client: &Client, table: &str) -> TableReport {
        let inserted = |_: &ServerInfo, schema: &TableSchema| {
            let written = schema.columns.iter().filter(|column| column.default_kind.is_written());
            written.map(|column| column.name.clone()).collect()
        };
        table::inspect(client, &self.name, table, LOAD, inserted).await.unwrap()
    }

    /// Makes a good table `t` with these columns and opens it.
    pub async fn table(&self, columns: &str) -> Table {
        self.run(&format!("CREATE TABLE $.t ({columns}) {ENGINE}"));
        self.open("t").await
    }

    pub async fn open(&self, table: &str) -> Table {
        self.opened(table, self.inspect(table).await)
    }

    /// A table that promises nothing.
    pub async fn open_at_least_once(&self, table: &str) -> Table {
        let load = Load { delivery: DeliveryGuarantee::AtLeastOnce, ..LOAD };
        self.opened(table, table::inspect(&self.client, &self.name, table, load, |_, _| vec![]).await.unwrap())
    }

    fn opened(&self, table: &str, report: TableReport) -> Table {
        assert_eq!(errors(&report.problems), Vec::<String>::new());
        let schema = report.schema.unwrap();
        let plan = ClickHouseSinkPlan {
            connection: connection(&[self.engine.url()], &self.name),
            table: table.to_owned(),
            table_at: Place::default(),
            batch: BatchPlan { rows: 100_000, bytes: 1 << 25, interval_ms: 10_000 },
            columns: Vec::new(),
            missing: MissingField::Default,
            create_table: None,
            evolve_add_columns: false,
            compression: BlockCompression::Lz4,
            settings: BTreeMap::new(),
        };
        Table { plan, schema, server: report.server, client: self.client.clone(), database: self.name.clone() }
    }
}

pub fn errors(problems: &[Problem]) -> Vec<String> {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(|problem| problem.message.clone()).collect()
}

/// An open table.
pub struct Table {
    pub plan: ClickHouseSinkPlan,
    pub schema: TableSchema,
    pub server: ServerInfo,
    client: Arc<Client>,
    database: String,
}

impl Table {
    /// The mapping, the paths of the slots, and what was said.
    pub fn map(&self) -> (Mapping, Vec<String>, Vec<Problem>) {
        let mut paths: Vec<String> = Vec::new();
        let (mapping, problems) = mapping::map(&self.plan, &self.schema, &self.server, &mut |path| {
            let at = paths.iter().position(|known| known == path).unwrap_or_else(|| {
                paths.push(path.to_owned());
                paths.len() - 1
            });
            Slot(at as u16)
        });
        (mapping, paths, problems)
    }

    /// Encodes JSON records; those that do not fit are left out and given back.
    pub fn encode(&self, records: &[impl AsRef<str>]) -> (Option<Block>, Vec<BadRow>) {
        let (mapping, paths, problems) = self.map();
        assert_eq!(errors(&problems), Vec::<String>::new());
        let mut rows = Rows::default();
        rows.clear(paths.len());
        for record in records {
            paths.iter().for_each(|path| push_field(&mut rows, record.as_ref(), path));
            rows.meta.push(RowMeta::default());
        }
        let mut builder = mapping.builder();
        let mut alive: Vec<u32> = (0..records.len() as u32).collect();
        let mark = builder.mark();
        let mut bad = Vec::new();
        builder.append(&rows, &alive, &mut bad);
        if !bad.is_empty() {
            builder.rollback(mark);
            alive.retain(|row| bad.iter().all(|bad| bad.row != *row));
            builder.append(&rows, &alive, &mut Vec::new());
        }
        (builder.seal(), bad)
    }

    pub fn sink(&self) -> ClickHouseSink {
        ClickHouseSink::new(self.client.clone(), &self.server, &self.database, &self.plan.table, &self.plan.settings)
    }

    /// Encodes and inserts; every record must fit.
    pub async fn insert(&self, token: &str, records: &[impl AsRef<str>]) {
        let (block, bad) = self.encode(records);
        assert_eq!(bad, []);
        self.sink().insert(&Token(token.to_owned()), &block.unwrap()).await.unwrap();
    }
}

fn push_field(rows: &mut Rows, record: &str, path: &str) {
    let field = match lookup(record.as_bytes(), path) {
        Value::Absent => Field::ABSENT,
        Value::Null => Field::NULL,
        Value::Bool(truth) => Field::bool(truth),
        Value::Number(text) if path.starts_with('_') => Field::int(std::str::from_utf8(text).unwrap().parse().unwrap()),
        Value::Number(text) => rows.append(Kind::Number, text),
        Value::Text(text) => rows.append(Kind::Text, text),
        Value::Escaped(text) => rows.append(Kind::Escaped, text),
        Value::Array(text) => rows.append(Kind::Array, text),
        Value::Object(text) => rows.append(Kind::Object, text),
        Value::Int(_) | Value::Bytes(_) => unreachable!("not in JSON"),
    };
    rows.fields.push(field);
}

/// The exact name, else the path.
fn lookup<'a>(object: &'a [u8], path: &str) -> Value<'a> {
    let mut pairs = Pairs::of(object);
    let mut inner = Value::Absent;
    while let Some((name, value)) = pairs.next().unwrap() {
        let name = String::from_utf8(name.meant().unwrap().into_owned()).unwrap();
        if name == path {
            return value;
        }
        if let (Some(rest), Value::Object(text)) = (path.strip_prefix(&format!("{name}.")), value) {
            inner = lookup(text, rest);
        }
    }
    inner
}

/// A column that the configuration fills from a path.
pub fn planned(column: &str, path: &str) -> ColumnPlan {
    let path = FieldPath { text: path.to_owned(), at: Place::default() };
    ColumnPlan { column: column.to_owned(), path, unit: None, zone: None }
}
