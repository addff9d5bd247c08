//! What ClickHouse says about itself and a table: version, zone, settings, columns, views.
//!
//! Owns the questions. Promises: reads only, and only the system tables. Judges nothing.

use super::client::Client;
use super::errors::Failure;
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
    /// The DEFAULT's value as JSON, where it is a constant that weir has to write itself.
    pub constant: Option<String>,
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
    Ok(Some(TableSchema {
        database: database.to_owned(),
        table: table.to_owned(),
        engine: found.engine,
        engine_full: found.engine_full,
        partition_key: found.partition_key,
        columns: read_columns(client, database, table).await?,
    }))
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

/// Fills in the constant DEFAULTs that a null on the wire cannot ask for: those of columns that hold null
/// themselves, and of types that Nullable does not wrap.
pub async fn read_constants(client: &Client, schema: &mut TableSchema) -> Result<(), Failure> {
    for column in &mut schema.columns {
        let has_default = matches!(column.default_kind, DefaultKind::Default | DefaultKind::Ephemeral);
        let Ok(of) = Type::parse(&column.type_text) else { continue };
        if !has_default || of.wire_asks_default() || !is_literal(&column.default_expression) {
            continue;
        }
        let sql = format!(
            "SELECT 'constant' AS name, toJSONString(CAST({}, {})) AS value",
            column.default_expression,
            quoted(&column.type_text)
        );
        column.constant = client.rows::<ValueRow>(&sql).await?.pop().map(|row| row.value);
    }
    Ok(())
}

impl Type {
    /// Whether a null on the wire makes the server evaluate the column's DEFAULT.
    pub fn wire_asks_default(&self) -> bool {
        !self.is_nullable() && self.can_be_nullable()
    }
}

/// Whether an expression is built of literals only, so that its value is the same in every row and at every time.
fn is_literal(expression: &str) -> bool {
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        if c == '\'' {
            let Some(len) = literal_len(rest) else { return false };
            rest = &rest[len..];
        } else if c.is_ascii_alphabetic() || c == '_' {
            let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            if !is_pure(&rest[..len]) {
                return false;
            }
            rest = &rest[len..];
        } else if c == '`' || c == '"' {
            return false;
        } else {
            rest = &rest[c.len_utf8()..];
        }
    }
    true
}

/// The bytes of the string literal at the start.
fn literal_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'\'' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// Functions and words that give the same value for the same literals.
fn is_pure(word: &str) -> bool {
    let known =
        ["array", "map", "tuple", "CAST", "cast", "_CAST", "AS", "NULL", "null", "true", "false", "e", "inf", "nan"];
    known.contains(&word)
        || word.starts_with("emptyArray")
        || ["toInt", "toUInt", "toFloat", "toDecimal", "toString", "toUUID", "toIPv", "defaultValueOfTypeName"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
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

/// The `TO db.table` of a view's statement, which stands before the columns and the SELECT.
fn named_target(statement: &str, own_database: &str) -> Option<(String, String)> {
    let head = statement.split(" AS SELECT").next().unwrap_or(statement);
    let (_, behind) = head.split_once(" TO ")?;
    let (first, rest) = split_identifier(behind)?;
    match rest.strip_prefix('.') {
        Some(rest) => Some((first, split_identifier(rest)?.0)),
        None => Some((own_database.to_owned(), first)),
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
    fn only_literals_are_constant() {
        for constant in
            ["[]", "['a', 'it\\'s (now())']", "map('a', 1)", "5", "NULL", "CAST([], 'Array(String)')", "-1.5"]
        {
            assert!(is_literal(constant), "{constant}");
        }
        for other in ["now()", "[id]", "generateUUIDv4()", "`a`", "splitByChar(',', s)", "[today()]"] {
            assert!(!is_literal(other), "{other}");
        }
    }
}
