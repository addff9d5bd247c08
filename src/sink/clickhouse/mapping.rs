//! Which field fills which column, and the INSERT that follows from it.
//!
//! Owns the rules of `semantics.md`, Mapping, that are decided before the first row. Promises: the column list is
//! explicit; computed columns are never in it; what cannot be written is a sentence, not a surprise.

use super::encode::column::ColumnRule;
use super::encode::{Binding, Filler, NativeBuilder, NestedSource};
use super::schema::{DefaultKind, ServerInfo, TableColumn, TableSchema};
use super::table::Problem;
use super::types::{Type, identifier};
use crate::codec::rows::Slot;
use crate::config::plan::{BlockCompression, ClickHouseSinkPlan, ColumnPlan, ColumnUnit, MissingField};
use crate::sink::ColumnHeader;
use std::collections::BTreeMap;

/// A table's columns bound to fields.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// For messages: the table's name as the user knows it.
    pub table: String,
    pub bindings: Vec<Binding>,
    pub compression: BlockCompression,
}

impl Mapping {
    /// An empty builder for this table.
    pub fn builder(&self) -> NativeBuilder {
        NativeBuilder::new(&self.table, self.bindings.clone(), self.compression)
            .expect("the bindings were tried when they were made")
    }
}

/// Binds the table's columns. `resolve` gives the slot of a field path. With a problem of severity `Error` the
/// pipeline cannot start.
pub fn map(
    plan: &ClickHouseSinkPlan,
    schema: &TableSchema,
    server: &ServerInfo,
    resolve: &mut dyn FnMut(&str) -> Slot,
) -> (Mapping, Vec<Problem>) {
    let mut mapper = Mapper { plan, schema, server, problems: Vec::new() };
    mapper.check_names();
    let mut bindings = Vec::new();
    for column in &schema.columns {
        bindings.extend(mapper.bind(column, resolve));
    }
    for binding in &bindings {
        // One at a time, so that every column's problem is told.
        if let Err(problem) = NativeBuilder::new(&plan.table, vec![binding.clone()], plan.compression) {
            mapper.problems.push(Problem::error("unfit_column", problem));
        }
    }
    if bindings.is_empty() && mapper.problems.is_empty() {
        let message = format!("{} has no column that can be written", schema.full_name());
        mapper.problems.push(Problem::error("no_columns", message));
    }
    (Mapping { table: plan.table.clone(), bindings, compression: plan.compression }, mapper.problems)
}

/// The columns that blocks of this sink have, by the table.
pub fn inserted(plan: &ClickHouseSinkPlan) -> impl Fn(&ServerInfo, &TableSchema) -> Vec<String> + '_ {
    move |server, schema| {
        let (mapping, _) = map(plan, schema, server, &mut |_| Slot(0));
        mapping.bindings.into_iter().map(|binding| binding.name).collect()
    }
}

struct Mapper<'a> {
    plan: &'a ClickHouseSinkPlan,
    schema: &'a TableSchema,
    server: &'a ServerInfo,
    problems: Vec<Problem>,
}

impl Mapper<'_> {
    /// Columns that the configuration names must be there and writable.
    fn check_names(&mut self) {
        let table = &self.plan.table;
        for planned in &self.plan.columns {
            let name = &planned.column;
            match self.schema.column(name) {
                None => {
                    let near = self.nearest(name);
                    let message = format!("`{table}` has no column `{name}`, which `columns` names{near}");
                    self.problems.push(Problem::error("unknown_column", message));
                }
                Some(column) if !column.default_kind.is_written() => {
                    let message =
                        format!("column `{name}` of `{table}` is computed by the server and cannot be filled");
                    self.problems.push(Problem::error("computed_column", message));
                }
                Some(_) => {}
            }
        }
    }

    fn nearest(&self, name: &str) -> String {
        let names = self.schema.columns.iter().map(|column| column.name.as_str());
        let near = names.map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
        match near {
            Some((distance, known)) if distance <= 2 => format!(" (did you mean `{known}`?)"),
            _ => String::new(),
        }
    }

    fn bind(&mut self, column: &TableColumn, resolve: &mut dyn FnMut(&str) -> Slot) -> Option<Binding> {
        if !column.default_kind.is_written() {
            return None;
        }
        let planned = self.plan.columns.iter().find(|planned| planned.column == column.name);
        let of = match Type::parse(&column.type_text) {
            Ok(of) => of,
            Err(problem) => {
                let message = format!("column `{}` of `{}`: {problem}", column.name, self.plan.table);
                self.problems.push(Problem::error("unsupported_type", message));
                return None;
            }
        };
        let path = planned.map_or(column.name.as_str(), |planned| planned.path.text.as_str());
        let unit = self.unit(column, &of, planned, path);
        let (absent, null, default_by_server) = self.fillers(column, &of, planned)?;
        let nested = match planned {
            None => self.nested(column, &of, resolve),
            Some(_) => None,
        };
        Some(Binding {
            name: column.name.clone(),
            type_text: column.type_text.clone(),
            path: path.to_owned(),
            slot: resolve(path),
            nested,
            rule: ColumnRule {
                unit,
                zone: planned.and_then(|planned| planned.zone.clone()),
                server_zone: self.server.zone.clone(),
            },
            default_by_server,
            absent,
            null,
            of,
        })
    }

    /// What numbers mean in a column: as configured, or milliseconds for the Kafka timestamp.
    fn unit(
        &mut self,
        column: &TableColumn,
        of: &Type,
        planned: Option<&ColumnPlan>,
        path: &str,
    ) -> Option<ColumnUnit> {
        let unit = planned.and_then(|planned| planned.unit);
        let inner = match of.value_type() {
            Type::Nullable(inner) => inner.value_type(),
            plain => plain,
        };
        let is_date = matches!(inner, Type::Date | Type::Date32);
        let is_time = matches!(inner, Type::DateTime { .. } | Type::DateTime64 { .. });
        let refused = match unit {
            None if path == "_timestamp" && is_date => Some(
                "the Kafka timestamp is a point in time, and which date it is depends on a zone: give the column \
                      a DEFAULT from a DateTime64 column",
            ),
            None if path == "_timestamp" && is_time => return Some(ColumnUnit::Millis),
            None => None,
            Some(ColumnUnit::Days) if is_time => Some("`unit: days` is for Date columns"),
            Some(ColumnUnit::Days) => None,
            Some(_) if is_date => Some("numbers in a Date column need `unit: days`"),
            Some(_) => None,
        };
        if let Some(why) = refused {
            let message = format!("column `{}` of `{}` is {of}: {why}", column.name, self.plan.table);
            self.problems.push(Problem::error("unfit_unit", message));
        }
        unit
    }

    /// What an absent field and a null become, and whether the server is asked for the DEFAULT. `None`: the column
    /// is left to the server.
    fn fillers(
        &mut self,
        column: &TableColumn,
        of: &Type,
        planned: Option<&ColumnPlan>,
    ) -> Option<(Filler, Filler, bool)> {
        let strict = self.plan.missing == MissingField::DeadLetter;
        let has_default = matches!(column.default_kind, DefaultKind::Default | DefaultKind::Ephemeral)
            && !column.default_expression.is_empty();
        let by_server = has_default && of.wire_asks_default();
        let absent = match (has_default, by_server, &column.constant) {
            (false, ..) if strict => Filler::Refuse,
            (false, ..) | (_, true, _) => Filler::Default,
            (_, _, Some(constant)) => Filler::Constant(constant.clone()),
            (true, false, None) => self.varying_default(column, planned)?,
        };
        let null = match of.is_nullable() {
            true => Filler::Default,
            false if strict => Filler::Refuse,
            false => absent.clone(),
        };
        Some((absent, null, by_server))
    }

    /// A DEFAULT that differs from row to row, in a column where no null on the wire can ask for it.
    fn varying_default(&mut self, column: &TableColumn, planned: Option<&ColumnPlan>) -> Option<Filler> {
        let (name, table) = (&column.name, &self.plan.table);
        let default = &column.default_expression;
        if column.default_kind == DefaultKind::Ephemeral {
            return Some(Filler::Default);
        }
        if planned.is_some() {
            let message = format!(
                "column `{name}` of `{table}` is {} DEFAULT {default}: an absent field cannot take this DEFAULT in a \
                 block where other rows have the field, so such a row becomes a dead letter",
                column.type_text
            );
            self.problems.push(Problem::warning("varying_default", message));
            return Some(Filler::Refuse);
        }
        let message = format!(
            "column `{name}` of `{table}` is {} DEFAULT {default}, which the server fills in every row; to fill it \
             from the record instead, name it under `columns`",
            column.type_text
        );
        self.problems.push(Problem::warning("varying_default", message));
        None
    }

    /// Members of a flattened Nested: array columns with a dot in their name.
    fn nested(&self, column: &TableColumn, of: &Type, resolve: &mut dyn FnMut(&str) -> Slot) -> Option<NestedSource> {
        let (group, member) = column.name.rsplit_once('.')?;
        matches!(of.value_type(), Type::Array(_)).then(|| NestedSource {
            group: group.to_owned(),
            slot: resolve(group),
            member: member.to_owned(),
        })
    }
}

/// The statement for a block with these columns.
pub fn insert_statement(schema_name: &str, header: &[ColumnHeader]) -> String {
    let columns: Vec<String> = header.iter().map(|column| identifier(&column.name)).collect();
    format!("INSERT INTO {schema_name} ({}) FORMAT Native", columns.join(", "))
}

/// More rows than any block has: a block must never be cut.
const BLOCK_ROWS_MAX: &str = "1000000000";

/// What the protocol pins in every INSERT, as far as a server knows it.
pub const PINNED: [(&str, &str); 10] = [
    ("max_insert_block_size", BLOCK_ROWS_MAX),
    ("min_insert_block_size_rows", BLOCK_ROWS_MAX),
    ("min_insert_block_size_bytes", "0"),
    ("use_strict_insert_block_limits", "0"),
    ("max_partitions_per_insert_block", "0"),
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_insert", "enable"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("input_format_null_as_default", "1"),
];

/// The settings of every INSERT: the user's, and over them those that the protocol pins, as far as the server knows
/// them. More than one block per INSERT loses or doubles rows on a retry (measured).
pub fn insert_settings(server: &ServerInfo, user: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut settings = user.clone();
    for (name, value) in PINNED {
        if server.settings.contains(name) {
            settings.insert(name.to_owned(), value.to_owned());
        } else {
            settings.remove(name);
        }
    }
    // A parameter of the HTTP interface, which every server knows.
    settings.insert("wait_end_of_query".to_owned(), "1".to_owned());
    settings.into_iter().collect()
}
