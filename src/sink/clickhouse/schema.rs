//! What ClickHouse says about itself and a table: version, zone, settings, columns, views.
//!
//! Owns the questions. Promises: reads only, and only the system tables. Judges nothing.

use super::client::Client;
use super::errors::{Class, Failure};
use super::types::{Type, quoted};
use crate::sink::ColumnHeader;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What is the same for all tables of a server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerInfo {
    pub version: String,
    /// The zone of times that have none.
    pub zone: String,
    /// Names of the settings that the server knows.
    pub settings: BTreeSet<String>,
    /// Defaults of the deduplication windows of tables that do not set them, plain and replicated.
    pub plain_windows: BTreeMap<String, u64>,
    pub replicated_windows: BTreeMap<String, u64>,
}

/// What a column does when it is not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefaultKind {
    None,
    Default,
    Ephemeral,
    /// Computed: never written.
    Materialized,
    /// Computed: never written.
    Alias,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableColumn {
    pub name: String,
    pub type_text: String,
    pub default_kind: DefaultKind,
    pub default_expression: String,
    /// The DEFAULT's value as JSON, where it is the same in every row and weir has to write it itself.
    pub constant: Option<Vec<u8>>,
}

/// A table as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableSchema {
    pub database: String,
    pub table: String,
    pub engine: String,
    /// With its settings.
    pub engine_full: String,
    pub partition_key: String,
    /// How many partitions the last hour's inserts went into; 0 where there were none, or nobody may see it.
    pub partitions_written: u64,
    pub columns: Vec<TableColumn>,
}

impl TableSchema {
    /// `db`.`table`, as in a statement.
    pub fn full_name(&self) -> String {
        full_name(&self.database, &self.table)
    }

    pub fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// `db`.`table`, as in a statement.
pub fn full_name(database: &str, table: &str) -> String {
    format!("{}.{}", super::types::identifier(database), super::types::identifier(table))
}

/// A table that a materialized view writes to when the sink's table is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewTarget {
    /// The view's `db.name`.
    pub view: String,
    /// What it writes to; `None`: not visible.
    pub target: Option<TableSchema>,
}

#[derive(Deserialize)]
struct NameRow {
    name: String,
}

#[derive(Deserialize)]
struct ValueRow {
    name: String,
    value: String,
}

/// Asks for version, zone and settings.
pub async fn read_server(client: &Client) -> Result<ServerInfo, Failure> {
    let about: Vec<ValueRow> = client
        .rows("SELECT 'version' AS name, version() AS value UNION ALL SELECT 'zone' AS name, timezone() AS value")
        .await?;
    let settings: Vec<NameRow> = client.rows("SELECT name FROM system.settings").await?;
    let about = |wanted: &str| {
        let found = about.iter().find(|row| row.name == wanted);
        found.map(|row| row.value.clone()).unwrap_or_default()
    };
    Ok(ServerInfo {
        version: about("version"),
        zone: about("zone"),
        settings: settings.into_iter().map(|row| row.name).collect(),
        plain_windows: read_windows(client, "merge_tree_settings").await?,
        replicated_windows: read_windows(client, "replicated_merge_tree_settings").await.unwrap_or_default(),
    })
}

async fn read_windows(client: &Client, table: &str) -> Result<BTreeMap<String, u64>, Failure> {
    let sql =
        format!("SELECT name, toString(value) AS value FROM system.{table} WHERE name LIKE '%deduplication_window%'");
    let rows: Vec<ValueRow> = client.rows(&sql).await?;
    Ok(rows.into_iter().filter_map(|row| Some((row.name, row.value.parse().ok()?))).collect())
}

/// Asks for a table; `None`: it does not exist, or the user may not see it.
pub async fn read_table(client: &Client, database: &str, table: &str) -> Result<Option<TableSchema>, Failure> {
    #[derive(Deserialize)]
    struct TableRow {
        engine: String,
        engine_full: String,
        partition_key: String,
    }
    let sql = format!(
        "SELECT engine, engine_full, partition_key FROM system.tables WHERE database = {} AND name = {}",
        quoted(database),
        quoted(table)
    );
    let Some(found) = client.rows::<TableRow>(&sql).await?.pop() else {
        return Ok(None);
    };
    let partitions_written = match found.partition_key.is_empty() {
        true => 0,
        false => read_partitions_written(client, database, table).await?,
    };
    Ok(Some(TableSchema {
        database: database.to_owned(),
        table: table.to_owned(),
        engine: found.engine,
        engine_full: found.engine_full,
        partition_key: found.partition_key,
        partitions_written,
        columns: read_columns(client, database, table).await?,
    }))
}

/// Parts that no merge has made yet tell where inserts went.
async fn read_partitions_written(client: &Client, database: &str, table: &str) -> Result<u64, Failure> {
    let sql = format!(
        "SELECT 'partitions' AS name, toString(uniqExact(partition_id)) AS value FROM system.parts \
         WHERE database = {} AND table = {} AND level = 0 AND modification_time > now() - 3600",
        quoted(database),
        quoted(table)
    );
    let rows = unless_refused(client.rows::<ValueRow>(&sql).await)?.unwrap_or_default();
    Ok(rows.first().and_then(|row| row.value.parse().ok()).unwrap_or(0))
}

/// Asks for a table's columns.
pub async fn read_columns(client: &Client, database: &str, table: &str) -> Result<Vec<TableColumn>, Failure> {
    #[derive(Deserialize)]
    struct ColumnRow {
        name: String,
        #[serde(rename = "type")]
        type_text: String,
        default_kind: String,
        default_expression: String,
    }
    let sql = format!(
        "SELECT name, type, default_kind, default_expression FROM system.columns \
         WHERE database = {} AND table = {} ORDER BY position",
        quoted(database),
        quoted(table)
    );
    let rows: Vec<ColumnRow> = client.rows(&sql).await?;
    let columns = rows.into_iter().map(|row| TableColumn {
        name: row.name,
        type_text: row.type_text,
        default_kind: match row.default_kind.as_str() {
            "DEFAULT" => DefaultKind::Default,
            "EPHEMERAL" => DefaultKind::Ephemeral,
            "MATERIALIZED" => DefaultKind::Materialized,
            "ALIAS" => DefaultKind::Alias,
            _ => DefaultKind::None,
        },
        default_expression: row.default_expression,
        constant: None,
    });
    Ok(columns.collect())
}

/// Names and types now, for the comparison with a block's header.
pub async fn read_header(client: &Client, database: &str, table: &str) -> Result<Vec<ColumnHeader>, Failure> {
    let columns = read_columns(client, database, table).await?;
    let stored = columns.into_iter().filter(|column| column.default_kind.is_written());
    Ok(stored.map(|column| ColumnHeader { name: column.name, type_text: column.type_text }).collect())
}

impl DefaultKind {
    /// Whether an INSERT may name the column.
    pub fn is_written(self) -> bool {
        !matches!(self, DefaultKind::Materialized | DefaultKind::Alias)
    }
}

/// Fills in the DEFAULTs that a null on the wire cannot ask for, where they are the same in every row: those of columns
/// that hold null themselves, and of types that Nullable does not wrap.
pub async fn read_constants(client: &Client, schema: &mut TableSchema) -> Result<(), Failure> {
    let is_wanted = |column: &&mut TableColumn| {
        let has_default = matches!(column.default_kind, DefaultKind::Default | DefaultKind::Ephemeral);
        let asks = Type::parse(&column.type_text).is_ok_and(|of| !of.wire_asks_default());
        has_default && asks && !column.default_expression.is_empty()
    };
    let wanted: Vec<&mut TableColumn> = schema.columns.iter_mut().filter(is_wanted).collect();
    let called = wanted.iter().flat_map(|column| functions_of(&column.default_expression)).collect();
    let pure = pure_functions(client, &called).await?;
    for column in wanted {
        if functions_of(&column.default_expression).is_subset(&pure) {
            column.constant = evaluate(client, column).await?;
        }
    }
    Ok(())
}

impl Type {
    /// Whether a null on the wire makes the server evaluate the column's DEFAULT.
    pub fn wire_asks_default(&self) -> bool {
        !self.is_nullable() && self.can_be_nullable()
    }
}

/// The DEFAULT's value as JSON; `None` where it needs other columns of the row.
async fn evaluate(client: &Client, column: &TableColumn) -> Result<Option<Vec<u8>>, Failure> {
    #[derive(Deserialize)]
    struct HexRow {
        weir_value: String,
    }
    // A column of such a name would be taken for one of ours; and bytes that are no text are not what they were.
    if column.default_expression.contains("weir_") || column.default_expression.contains('\u{fffd}') {
        return Ok(None);
    }
    // In a tuple null is a value like any other; in hex, bytes that are no text come through; and without a table of
    // its own `SELECT` would know a column `dummy`.
    let sql = format!(
        "SELECT hex(toJSONString(tuple(CAST(({}), {})))) AS weir_value FROM (SELECT 1 AS weir_one) \
         SETTINGS date_time_output_format = 'iso', output_format_json_quote_denormals = 1, \
         output_format_json_quote_64bit_integers = 0",
        column.default_expression,
        quoted(&column.type_text)
    );
    let rows = unless_refused(client.rows::<HexRow>(&sql).await)?.unwrap_or_default();
    Ok(rows.first().and_then(|row| unhex(&row.weir_value)).and_then(|tuple| {
        let inner = tuple.strip_prefix(b"[")?.strip_suffix(b"]")?;
        Some(inner.to_vec())
    }))
}

/// Those of these functions that give the same value for the same arguments at every time.
async fn pure_functions(client: &Client, called: &BTreeSet<String>) -> Result<BTreeSet<String>, Failure> {
    #[derive(Deserialize)]
    struct FunctionRow {
        name: String,
        case_insensitive: u8,
        deterministic: Option<u8>,
        /// Its name in older versions.
        is_deterministic: Option<u8>,
    }
    if called.is_empty() {
        return Ok(BTreeSet::new());
    }
    let names: Vec<String> =
        called.iter().flat_map(|name| [quoted(name), quoted(&name.to_ascii_lowercase())]).collect();
    let sql = format!("SELECT * FROM system.functions WHERE name IN ({})", names.join(", "));
    let rows = unless_refused(client.rows::<FunctionRow>(&sql).await)?.unwrap_or_default();
    let is_pure = |name: &&String| {
        let is_it = |row: &&FunctionRow| {
            row.name == **name || (row.case_insensitive != 0 && row.name == name.to_ascii_lowercase())
        };
        rows.iter().find(is_it).is_some_and(|row| row.deterministic.or(row.is_deterministic) == Some(1))
    };
    Ok(called.iter().filter(is_pure).cloned().collect())
}

/// `None` where the server has no answer to the question, now or later.
fn unless_refused<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) if failure.class == Class::Retry => Err(failure),
        Err(_) => Ok(None),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Words of the grammar that may stand before a parenthesis.
const OPERATORS: [&str; 6] = ["AND", "IN", "IS", "LIKE", "NOT", "OR"];

/// The names that stand before a parenthesis: functions, or what the server will not know as one.
fn functions_of(expression: &str) -> BTreeSet<String> {
    let mut called = BTreeSet::new();
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        let (word, behind) = match c {
            '\'' | '`' | '"' => match rest.split_at_checked(quoted_len(rest)) {
                Some((word, behind)) if c != '\'' => (&word[1..word.len() - 1], behind),
                Some((_, behind)) => ("", behind),
                None => break,
            },
            c if c.is_ascii_alphabetic() || c == '_' => {
                rest.split_at(rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len()))
            }
            c => ("", &rest[c.len_utf8()..]),
        };
        if !word.is_empty() && !OPERATORS.contains(&word) && behind.trim_start().starts_with('(') {
            called.insert(word.to_owned());
        }
        rest = behind;
    }
    called
}

/// The bytes of the literal or name at the start, quotes included; more than there are where it does not close.
fn quoted_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    loop {
        match bytes.get(at) {
            None => return usize::MAX,
            Some(b'\\') => at += 2,
            Some(byte) if *byte == bytes[0] => return at + 1,
            Some(_) => at += 1,
        }
    }
}

/// The tables behind all materialized views that an INSERT into a table feeds, views upon views included.
pub async fn read_view_targets(client: &Client, database: &str, table: &str) -> Result<Vec<ViewTarget>, Failure> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([(database.to_owned(), table.to_owned())]);
    let mut open = vec![(database.to_owned(), table.to_owned())];
    while let Some((database, table)) = open.pop() {
        for view in read_views(client, &database, &table).await? {
            let view_name = format!("{}.{}", view.database, view.name);
            let target = view.target();
            if !seen.insert(target.clone()) {
                continue;
            }
            let schema = read_table(client, &target.0, &target.1).await?;
            found.push(ViewTarget { view: view_name, target: schema });
            open.push(target);
        }
    }
    Ok(found)
}

/// A materialized view, as `system.tables` has it.
#[derive(Deserialize)]
struct ViewRow {
    database: String,
    name: String,
    uuid: String,
    create_table_query: String,
}

async fn read_views(client: &Client, database: &str, table: &str) -> Result<Vec<ViewRow>, Failure> {
    // `dependencies_*` of the source name its views; each pair is looked up for its target.
    let sql = format!(
        "SELECT database, name, toString(uuid) AS uuid, create_table_query FROM system.tables \
         WHERE engine = 'MaterializedView' AND (database, name) IN (\
         SELECT pair.1, pair.2 FROM (SELECT arrayJoin(arrayZip(dependencies_database, dependencies_table)) AS pair \
         FROM system.tables WHERE database = {} AND name = {})) ORDER BY database, name",
        quoted(database),
        quoted(table)
    );
    client.rows(&sql).await
}

impl ViewRow {
    /// Database and name of the table that the view writes to.
    fn target(&self) -> (String, String) {
        if let Some(target) = named_target(&self.create_table_query, &self.database) {
            return target;
        }
        let inner = match self.uuid.as_str() {
            "00000000-0000-0000-0000-000000000000" => format!(".inner.{}", self.name),
            uuid => format!(".inner_id.{uuid}"),
        };
        (self.database.clone(), inner)
    }
}

/// The `TO db.table` of a view's statement, which stands right behind its name, before columns, engine and SELECT: a
/// TTL of its own table may have a TO as well.
fn named_target(statement: &str, own_database: &str) -> Option<(String, String)> {
    let (_, name) = statement.split_once(" VIEW ")?;
    let (_, mut head) = split_name(name.strip_prefix("IF NOT EXISTS ").unwrap_or(name), own_database)?;
    for end in [" (", " ENGINE ", " AS SELECT", " AS WITH"] {
        head = head.split(end).next().unwrap_or(head);
    }
    let (_, behind) = head.split_once(" TO ")?;
    Some(split_name(behind, own_database)?.0)
}

/// Database and name at the start, and what follows them.
fn split_name<'a>(text: &'a str, own_database: &str) -> Option<((String, String), &'a str)> {
    let (first, rest) = split_identifier(text)?;
    match rest.strip_prefix('.') {
        Some(rest) => split_identifier(rest).map(|(name, rest)| ((first, name), rest)),
        None => Some(((own_database.to_owned(), first), rest)),
    }
}

/// An identifier, quoted or not, and what follows it.
fn split_identifier(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('`') {
        let mut name = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.push(chars.next()?.1),
                '`' => return Some((name, &quoted[at + 1..])),
                c => name.push(c),
            }
        }
        return None;
    }
    let len = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (len > 0).then(|| (text[..len].to_owned(), &text[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_views_target_is_read_from_its_statement() {
        let target = |statement: &str| named_target(statement, "own");
        let pair = |database: &str, table: &str| Some((database.to_owned(), table.to_owned()));
        assert_eq!(target("CREATE MATERIALIZED VIEW d.mv TO d.tgt (`a` UInt8) AS SELECT a FROM d.s"), pair("d", "tgt"));
        assert_eq!(
            target("CREATE MATERIALIZED VIEW d.mv TO `d-x`.`a\\`b` (`a` UInt8) AS SELECT 1"),
            pair("d-x", "a`b")
        );
        assert_eq!(target("CREATE MATERIALIZED VIEW mv TO tgt AS SELECT 1"), pair("own", "tgt"));
        assert_eq!(target("CREATE MATERIALIZED VIEW d.mv (`a` UInt8) ENGINE = MergeTree AS SELECT ' TO x' AS a"), None);
    }

    #[test]
    fn the_place_of_a_ttl_is_no_target() {
        let inner = "CREATE MATERIALIZED VIEW d.mv (`a` UInt8, `t` DateTime) ENGINE = MergeTree ORDER BY a \
                     TTL t + toIntervalDay(1) TO VOLUME 'cold' SETTINGS index_granularity = 8192 AS SELECT 1 AS a";
        assert_eq!(named_target(inner, "own"), None);
        let pair = |database: &str, table: &str| Some((database.to_owned(), table.to_owned()));
        let odd = "CREATE MATERIALIZED VIEW d.`mv (3) TO x` TO d.tgt (`a` UInt8) AS SELECT 1";
        assert_eq!(named_target(odd, "own"), pair("d", "tgt"));
        let refreshed = "CREATE MATERIALIZED VIEW d.mv REFRESH EVERY 1 DAY APPEND TO d.tgt (`a` UInt8) AS SELECT 1";
        assert_eq!(named_target(refreshed, "own"), pair("d", "tgt"));
    }

    #[test]
    fn the_functions_of_a_default_are_found_and_its_texts_are_none() {
        let called = |expression: &str| functions_of(expression).into_iter().collect::<Vec<_>>();
        assert_eq!(called("'it\\'s (now())'"), Vec::<String>::new());
        assert_eq!(called("CAST([], 'Array(String)') + NOW ()"), ["CAST", "NOW"]);
        assert_eq!(called("arrayMap(x -> (x + 1), [`a(b)`, \"c\"])"), ["arrayMap"]);
        assert_eq!(called("`rand`(1) + multiIf((1 IN (1, 2)), 3, 4)"), ["multiIf", "rand"]);
        assert_eq!(called("'open"), Vec::<String>::new());
    }
}
