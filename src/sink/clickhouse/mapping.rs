//! Which field fills which column, and the INSERT that follows from it.
//!
//! Owns the rules of `semantics.md`, Mapping, that are decided before the first row. Promises: the column list is
//! explicit; computed columns are never in it; what cannot be written is a sentence, not a surprise.

use super::encode::column::{Column, ColumnRule};
use super::encode::{Binding, Filler, NativeBuilder, NestedSource, Refusal};
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
    mapper.check_settings();
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
                    let near = nearest(name, self.schema.columns.iter().map(|column| column.name.as_str()));
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

    /// Settings that the server does not know would refuse every INSERT (115).
    fn check_settings(&mut self) {
        let is_known = |name: &str| {
            let of_http = ["role", "quota_key"].contains(&name) || name.starts_with("param_");
            of_http || name.starts_with("SQL_") || self.server.settings.contains(name)
        };
        let unknown: Vec<&String> = self.plan.settings.keys().filter(|name| !is_known(name)).collect();
        for name in unknown {
            let near = nearest(name, self.server.settings.iter().map(String::as_str));
            let message = format!("ClickHouse {} has no setting `{name}`{near}", self.server.version);
            self.problems.push(Problem::error("unknown_setting", message));
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
        let rule = ColumnRule {
            unit: self.unit(column, &of, planned, path),
            zone: self.zone(column, &of, planned),
            server_zone: self.server.zone.clone(),
            takes_nan: false,
        };
        let nested = nested(column, &of, planned, resolve);
        let (absent, null, default_by_server) = self.fillers(column, &of, planned, &rule, nested.is_some());
        Some(Binding {
            name: column.name.clone(),
            type_text: column.type_text.clone(),
            path: path.to_owned(),
            slot: resolve(path),
            nested,
            rule,
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
        let (of_value, all) = (Times::of(of.without_null()), Times::in_all_of(of));
        let refused = match unit {
            None if path == "_timestamp" && of_value.dates => Some(
                "the Kafka timestamp is a point in time, and which date it is depends on a zone: give the column \
                      a DEFAULT from a DateTime64 column",
            ),
            None if path == "_timestamp" && of_value.times => return Some(ColumnUnit::Millis),
            None => None,
            Some(_) if !all.dates && !all.times => Some("`unit` is for dates and times: leave it out"),
            Some(ColumnUnit::Days) if !all.dates => Some("`unit: days` is for Date columns"),
            Some(ColumnUnit::Days) => None,
            Some(_) if !all.times => Some("numbers in a Date column need `unit: days`"),
            Some(_) => None,
        };
        self.refuse(column, of, "unfit_unit", refused);
        unit
    }

    /// The zone of text without an offset, as configured.
    fn zone(&mut self, column: &TableColumn, of: &Type, planned: Option<&ColumnPlan>) -> Option<String> {
        let zone = planned.and_then(|planned| planned.zone.clone())?;
        let refused = match Times::in_all_of(of) {
            Times { times: true, .. } => None,
            Times { dates: true, .. } => Some("a date is taken as it is written, whatever the zone: leave out `zone`"),
            _ => Some("`zone` is for times: leave it out"),
        };
        self.refuse(column, of, "unfit_zone", refused);
        Some(zone)
    }

    fn refuse(&mut self, column: &TableColumn, of: &Type, code: &'static str, why: Option<&str>) {
        if let Some(why) = why {
            let message = format!("column `{}` of `{}` is {of}: {why}", column.name, self.plan.table);
            self.problems.push(Problem::error(code, message));
        }
    }

    /// What an absent field and a null become, and whether the server is asked for the DEFAULT.
    fn fillers(
        &mut self,
        column: &TableColumn,
        of: &Type,
        planned: Option<&ColumnPlan>,
        rule: &ColumnRule,
        is_member: bool,
    ) -> (Filler, Filler, bool) {
        let strict = self.plan.missing == MissingField::DeadLetter;
        let has_default = matches!(column.default_kind, DefaultKind::Default | DefaultKind::Ephemeral)
            && !column.default_expression.is_empty();
        let by_server = has_default && of.wire_asks_default();
        let constant = column.constant.as_ref().filter(|text| Column::of_constant(of, rule, text).is_ok());
        let absent = match (has_default, by_server, constant) {
            (false, ..) if strict => Filler::Refuse(Refusal::Strict),
            (false, ..) | (_, true, _) => Filler::Default,
            (_, _, Some(constant)) => Filler::Constant(constant.clone()),
            (true, false, None) => self.varying_default(column, of, planned, is_member),
        };
        let null = match of.is_nullable() {
            true => Filler::Default,
            false if strict => Filler::Refuse(Refusal::Strict),
            false => absent.clone(),
        };
        (absent, null, by_server)
    }

    /// A DEFAULT that differs from row to row, in a column where no null on the wire can ask for it. A value that is
    /// there is stored; what else is possible in one block is said.
    fn varying_default(
        &mut self,
        column: &TableColumn,
        of: &Type,
        planned: Option<&ColumnPlan>,
        is_member: bool,
    ) -> Filler {
        let (name, table) = (&column.name, &self.plan.table);
        let instead = if of.is_nullable() { "null" } else { "the default of its type" };
        let way_out = match of.without_null() {
            plain if of.is_nullable() && plain.can_be_nullable() => format!(
                ", or let the server be asked row by row: ALTER TABLE {} MODIFY COLUMN {} {plain} DEFAULT {}",
                self.schema.full_name(),
                identifier(name),
                column.default_expression
            ),
            _ => String::new(),
        };
        let (filler, what) = match planned {
            // Its length has to be that of the other members.
            _ if is_member => (Filler::Default, format!("an absent field becomes {instead}")),
            Some(_) => (
                Filler::Refuse(Refusal::VaryingDefault),
                format!("a record without `{}` becomes a dead letter, for `columns` names it", planned_path(planned)),
            ),
            None => (
                Filler::Server,
                format!(
                    "in a block none of whose records has `{name}` the server fills it in; in others, records without \
                     it get {instead}; to make dead letters of these, name the column under `columns`"
                ),
            ),
        };
        let message = format!(
            "column `{name}` of `{table}` is {} DEFAULT {}, which differs from row to row and cannot be asked for row \
             by row: {what}{way_out}",
            column.type_text, column.default_expression
        );
        self.problems.push(Problem::warning("varying_default", message));
        filler
    }
}

fn planned_path(planned: Option<&ColumnPlan>) -> &str {
    planned.map_or("", |planned| &planned.path.text)
}

/// Members of a flattened Nested: array columns with a dot in their name. The server splits at the first one, and wants
/// one length of all of them.
fn nested(
    column: &TableColumn,
    of: &Type,
    planned: Option<&ColumnPlan>,
    resolve: &mut dyn FnMut(&str) -> Slot,
) -> Option<NestedSource> {
    let (group, member) = column.name.split_once('.')?;
    matches!(of.value_type(), Type::Array(_)).then(|| NestedSource {
        group: group.to_owned(),
        objects: planned.is_none().then(|| (resolve(group), member.to_owned())),
    })
}

fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let near = names.map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
    match near {
        Some((distance, known)) if distance <= 2 => format!(" (did you mean `{known}`?)"),
        _ => String::new(),
    }
}

/// Which of both a type holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Times {
    dates: bool,
    times: bool,
}

impl Times {
    fn of(of: &Type) -> Times {
        Times {
            dates: matches!(of, Type::Date | Type::Date32),
            times: matches!(of, Type::DateTime { .. } | Type::DateTime64 { .. }),
        }
    }

    /// In containers, too.
    fn in_all_of(of: &Type) -> Times {
        of.parts()
            .into_iter()
            .map(Times::in_all_of)
            .fold(Times::of(of), |all, part| Times { dates: all.dates || part.dates, times: all.times || part.times })
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
pub const PINNED: [(&str, &str); 14] = [
    ("max_insert_block_size", BLOCK_ROWS_MAX),
    ("min_insert_block_size_rows", BLOCK_ROWS_MAX),
    ("min_insert_block_size_bytes", "0"),
    ("use_strict_insert_block_limits", "0"),
    ("max_partitions_per_insert_block", "0"),
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_insert", "enable"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("materialized_views_ignore_errors", "0"),
    ("input_format_null_as_default", "1"),
    ("input_format_defaults_for_omitted_fields", "1"),
    ("input_format_native_allow_types_conversion", "1"),
    ("input_format_native_decode_types_in_binary_format", "0"),
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
