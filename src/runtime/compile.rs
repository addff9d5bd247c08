//! From a pipeline's plan to the parts of a task: decoders, steps, joins with their right sides, builder.
//!
//! Owns the order in which names get their slots: event time, steps as written, columns. Everything that could be
//! wrong with an expression or a name is a finding here, with its place; a [`Blueprint`] that was made once can be
//! made again for every task.

mod join;
mod races;
mod sides;

use crate::codec::decode::{Decoder, TimeField, TimeSpec};
use crate::codec::expr::ExprError;
use crate::codec::key::{Cast, KeyHasher, KeyPart};
use crate::codec::rows::Slot;
use crate::codec::scope::{Layout, Scope, UnknownName};
use crate::codec::time::{Unit, Zone};
use crate::config::plan::{
    DedupPlan, Draft, ExprText, FieldPath, JoinPlan, Keep, KeyCast, KeyPlan, Matching, PipelinePlan, Plan, SidePlan,
    StepPlan, TimeUnit, Tombstones,
};
use crate::error::{Finding, Place, Severity};
use crate::metrics::{StepKind, StepName};
use crate::runtime::chain::Step;
use crate::sink::BlockBuilder;
use crate::state::ledger;
use crate::step::dedup::Dedup;
use crate::step::filter::Filter;
use crate::step::select::Select;
use crate::types::TaskNo;
pub use join::JoinPart;
use join::{CompiledJoin, rules};
pub use races::{Race, races};
pub use sides::{InputRoles, roles};
use std::sync::Arc;

/// Makes the builder of the sink, asking for the slot of each field that a column needs.
pub type MakeBuilder = Arc<dyn Fn(&mut dyn FnMut(&str) -> Slot) -> Box<dyn BlockBuilder> + Send + Sync>;

/// Makes the parts of tasks; cheap to keep, made once per pipeline.
pub struct Blueprint {
    plan: PipelinePlan,
    seed: [u8; 16],
    /// Memory of one dedup step's filter, in bytes.
    filter_bytes_max: usize,
    make_builder: MakeBuilder,
}

/// The parts of one task.
pub struct Parts {
    pub decoders: Vec<Decoder>,
    /// The steps of the pipeline but its joins.
    pub steps: Vec<Step>,
    pub joins: Vec<JoinPart>,
    pub builder: Box<dyn BlockBuilder>,
}

impl Blueprint {
    pub fn new(plan: PipelinePlan, seed: [u8; 16], filter_bytes_max: usize, make_builder: MakeBuilder) -> Blueprint {
        Blueprint { plan, seed, filter_bytes_max, make_builder }
    }

    pub fn plan(&self) -> &PipelinePlan {
        &self.plan
    }

    /// The parts of the task of one partition, its state under `task`.
    pub fn parts(&self, partition: i32, task: TaskNo) -> Result<Parts, Vec<Finding>> {
        let (mut compiler, time, steps) = self.compile(task);
        if !compiler.findings.is_empty() {
            return Err(compiler.findings);
        }
        let builder = (self.make_builder)(&mut |path| compiler.slot_or_absent(path));
        let (joins, layout) = self.join_parts(compiler, partition);
        let decoders = self.decoders(&self.plan.source, &layout, &time.unwrap_or_else(no_time), partition);
        Ok(Parts { decoders, steps, joins, builder })
    }

    /// A hash of what state depends on: inputs, event time, every step, and the fields that joins keep of their rows. A
    /// column that is filled from behind a join adds one, and rows that were kept without it cannot fill it.
    pub fn state_hash(&self) -> Result<u64, Vec<Finding>> {
        let mut text = state_text(&self.plan);
        self.parts(0, TaskNo(0))?.joins.iter().for_each(|join| text += &format!("\nkept {}", join.kept));
        Ok(xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
    }

    /// The joins, and the layout of the source's rows: no name is asked for any more.
    pub(super) fn join_parts(&self, compiler: Compiler, partition: i32) -> (Vec<JoinPart>, Layout) {
        let (layout, joined) = compiler.scope.finish_with_joins();
        let joins = compiler.joins.into_iter().zip(joined);
        (joins.map(|(join, layout)| self.join_part(join, layout, partition)).collect(), layout)
    }

    /// Everything up to the columns; what is wrong is in the compiler's findings.
    pub(super) fn compile(&self, task: TaskNo) -> (Compiler, Option<TimeSpec>, Vec<Step>) {
        let PipelinePlan { name, source, steps, .. } = &self.plan;
        let path = format!("pipelines.{name}");
        Course { path, source, steps, seed: self.seed, filter_bytes_max: self.filter_bytes_max }.compile(task)
    }

    pub(super) fn decoders(&self, side: &SidePlan, layout: &Layout, time: &TimeSpec, partition: i32) -> Vec<Decoder> {
        let decoder = |input: &usize| {
            Decoder::new(
                layout.clone(),
                time.clone(),
                side.tombstones == Tombstones::Keep,
                side.max_payload_bytes,
                self.plan.topics[*input].name.clone(),
                partition,
                *input as u16,
            )
        };
        side.inputs.iter().map(decoder).collect()
    }
}

/// The part of a pipeline that names and expressions are in.
struct Course<'p> {
    /// How its findings call it.
    path: String,
    source: &'p SidePlan,
    steps: &'p [StepPlan],
    seed: [u8; 16],
    filter_bytes_max: usize,
}

impl Course<'_> {
    fn compile(&self, task: TaskNo) -> (Compiler, Option<TimeSpec>, Vec<Step>) {
        let mut compiler = Compiler::new();
        let time = compiler.time(&format!("{}.source.time", self.path), self.source);
        let mut steps = Vec::new();
        for (place, step) in self.steps.iter().enumerate() {
            let path = format!("{}.steps[{place}]", self.path);
            match step {
                StepPlan::Join(join) => self.join(&mut compiler, &path, place, steps.len(), join, task),
                step => steps.extend(self.step(&mut compiler, &path, place as u16, step, task)),
            }
        }
        (compiler, time, steps)
    }

    /// A step that keeps its state under `number`.
    fn step(&self, compiler: &mut Compiler, path: &str, number: u16, step: &StepPlan, task: TaskNo) -> Option<Step> {
        match step {
            StepPlan::Filter(text) => compiler.filter(path, text),
            StepPlan::Select(fields) => compiler.select(path, fields),
            StepPlan::Dedup(dedup) => {
                let key = compiler.key(path, &dedup.key, self.seed);
                let content = match &dedup.keep {
                    Keep::Changes(fields) => Some(compiler.content(path, fields, self.seed)),
                    _ => None,
                };
                let (key, content) = match content {
                    Some(content) => (key?, Some(content?)),
                    None => (key?, None),
                };
                // A task's share is for all its steps.
                let filter_bytes_max = self.filter_bytes_max / dedups_among(self.steps);
                Some(Step::Dedup(Box::new(Dedup::new(dedup, task, number, key, content, filter_bytes_max))))
            }
            StepPlan::Join(_) => unreachable!("a right side has no joins, and those of the pipeline are no such step"),
        }
    }
}

/// The joins of a pipeline, in the order of the steps.
pub fn joins_of(plan: &PipelinePlan) -> impl Iterator<Item = &JoinPlan> {
    joins_with_places(plan).map(|(_, join)| join)
}

/// The joins of a plan, each with its place among the steps.
pub(super) fn joins_with_places(plan: &PipelinePlan) -> impl Iterator<Item = (usize, &JoinPlan)> {
    plan.steps.iter().enumerate().filter_map(|(place, step)| match step {
        StepPlan::Join(join) => Some((place, &**join)),
        _ => None,
    })
}

/// How many dedups there are, those of right sides included.
fn dedups_among(steps: &[StepPlan]) -> usize {
    let among = |step: &StepPlan| match step {
        StepPlan::Filter(_) | StepPlan::Select(_) => 0,
        StepPlan::Dedup(_) => 1,
        StepPlan::Join(join) => dedups_among(&join.steps),
    };
    steps.iter().map(among).sum()
}

/// What is wrong with the expressions and names of pipelines, before anything is connected.
pub fn judge(drafts: &[Draft]) -> Vec<Finding> {
    drafts.iter().flat_map(judge_one).collect()
}

fn judge_one(draft: &Draft) -> Vec<Finding> {
    let Draft { path, source, steps, columns } = draft;
    let course = Course { path: path.clone(), source, steps, seed: [0; 16], filter_bytes_max: 0 };
    let (mut compiler, ..) = course.compile(TaskNo(0));
    for column in columns {
        // One that only its table knows may be left out; one that is written down is meant.
        if let Err(unknown) = compiler.scope.resolve_column(&column.path.text) {
            let path = format!("{path}.sink.clickhouse.columns.{}", column.column);
            compiler.unknown(&path, column.path.at, &unknown);
        }
    }
    compiler.findings
}

/// What is wrong with a plan as a whole, before anything is connected.
pub fn judge_plan(plan: &Plan) -> Vec<Finding> {
    plan.pipelines.iter().enumerate().filter_map(|(place, pipeline)| mark_too_long(place, pipeline)).collect()
}

/// Whether what a task commits for so many topics would outgrow what a broker takes: then no commit is ever accepted.
fn mark_too_long(place: usize, plan: &PipelinePlan) -> Option<Finding> {
    let topics = plan.topics.iter().map(|topic| topic.name.as_str());
    let room = ledger::mark_room(&plan.name, topics);
    if room.is_some_and(|room| room >= ledger::mark_room_least(plan.topics.len())) {
        return None;
    }
    let (count, chars): (usize, usize) = (plan.topics.len(), plan.topics.iter().map(|topic| topic.name.len()).sum());
    Some(Finding {
        severity: Severity::Error,
        code: "mark_too_long",
        path: format!("pipelines[{place}].name"),
        place: Some(plan.at),
        message: format!(
            "these are {count} topics with {chars} characters in their names: what is committed for them does not fit \
             the {} characters that Kafka takes",
            ledger::MARK_CHARS_MAX
        ),
        help: Some("read fewer topics with one pipeline, or topics with shorter names".to_owned()),
    })
}

/// Which of these paths nothing can fill behind the pipeline's steps, because a select has left them out.
pub fn left_out<'p>(plan: &PipelinePlan, paths: &[&'p str]) -> Vec<&'p str> {
    let (mut compiler, ..) = offline(plan).compile(TaskNo(0));
    paths.iter().copied().filter(|path| compiler.column(path).is_err()).collect()
}

/// A blueprint that is only compiled, never built.
pub(super) fn offline(plan: &PipelinePlan) -> Blueprint {
    let make_builder: MakeBuilder = Arc::new(|_| unreachable!("nothing is built without a table"));
    Blueprint::new(plan.clone(), [0; 16], 0, make_builder)
}

pub(super) fn no_time() -> TimeSpec {
    TimeSpec { field: None, max_future_ms: 0 }
}

/// The places of the joins among the steps.
pub fn join_places(plan: &PipelinePlan) -> Vec<usize> {
    joins_with_places(plan).map(|(place, _)| place).collect()
}

/// How many sides of joins keep rows.
pub fn join_sides(plan: &PipelinePlan) -> u64 {
    2 * plan.steps.iter().filter(|step| matches!(step, StepPlan::Join(_))).count() as u64
}

/// All steps by their numbers: the written ones, behind them those of right sides, join by join.
pub fn step_names(plan: &PipelinePlan) -> Vec<StepName> {
    let kind = |step: &StepPlan| match step {
        StepPlan::Filter(_) => StepKind::Filter,
        StepPlan::Select(_) => StepKind::Select,
        StepPlan::Dedup(_) => StepKind::Dedup,
        StepPlan::Join(_) => StepKind::Join,
    };
    let written =
        plan.steps.iter().enumerate().map(|(place, step)| StepName { name: place.to_string(), kind: kind(step) });
    let right = plan.steps.iter().enumerate().flat_map(|(place, step)| {
        let steps = if let StepPlan::Join(join) = step { join.steps.as_slice() } else { &[] };
        let name = move |(inner, step)| StepName { name: format!("{place}.{inner}"), kind: kind(step) };
        steps.iter().enumerate().map(name)
    });
    written.chain(right).collect()
}

/// The longest sum of windows, waits and look-backs along a path of steps: `None` without state, `Some(None)` without
/// limit.
pub fn reach_ms(plan: &PipelinePlan) -> Option<Option<i64>> {
    reach_of(&plan.steps)
}

fn reach_of(steps: &[StepPlan]) -> Option<Option<i64>> {
    let further = |sum: Option<Option<i64>>, own: Option<i64>| match sum {
        None => Some(own),
        Some(sum) => Some(sum.and_then(|sum| Some(sum.saturating_add(own?)))),
    };
    steps.iter().fold(None, |sum, step| match step {
        StepPlan::Filter(_) | StepPlan::Select(_) => sum,
        StepPlan::Dedup(dedup) => further(sum, dedup.window_ms),
        StepPlan::Join(join) => {
            // A table is read from its beginning anyway.
            let is_table = matches!(join.matching, Matching::Table { .. });
            let of_right = if is_table { None } else { reach_of(&join.steps) };
            further(longer(sum, of_right), Some(join.matching.reach_ms()))
        }
    })
}

/// No state is less than any, no limit more than any.
fn longer(one: Option<Option<i64>>, other: Option<Option<i64>>) -> Option<Option<i64>> {
    match (one, other) {
        (None, reach) | (reach, None) => reach,
        (Some(one), Some(other)) => Some(one.zip(other).map(|(one, other)| one.max(other))),
    }
}

/// The parts of the plan that state depends on: inputs, event time, and every step.
fn state_text(plan: &PipelinePlan) -> String {
    let topics: Vec<&str> = plan.topics.iter().map(|topic| topic.name.as_str()).collect();
    let mut text = format!("{topics:?} {}", side_text(&plan.source));
    plan.steps.iter().for_each(|step| text += &step_text(step));
    text
}

fn side_text(side: &SidePlan) -> String {
    let SidePlan { time, tombstones, .. } = side;
    let field = time.field.as_ref().map(|field| &field.text);
    format!("{field:?} {:?} {:?} {} {tombstones:?}", time.unit, time.zone, time.lateness_ms)
}

fn step_text(step: &StepPlan) -> String {
    match step {
        StepPlan::Filter(expr) => format!("\nfilter {:?}", expr.text),
        StepPlan::Select(fields) => {
            format!("\nselect {:?}", fields.iter().map(|(name, expr)| (name, &expr.text)).collect::<Vec<_>>())
        }
        StepPlan::Dedup(dedup) => dedup_text(dedup),
        StepPlan::Join(join) => join_text(join),
    }
}

fn join_text(join: &JoinPlan) -> String {
    let key = |parts: &[KeyPlan]| parts.iter().map(|part| format!("{:?} {:?}", part.path.text, part.cast)).collect();
    let keys: [Vec<String>; 2] = [key(&join.left_key), key(&join.right_key)];
    let with = (&join.with.inputs, side_text(&join.with));
    let steps: Vec<String> = join.steps.iter().map(step_text).collect();
    format!("\njoin {:?} {keys:?} {:?} {with:?} {steps:?}", join.name, rules(join))
}

fn dedup_text(dedup: &DedupPlan) -> String {
    let key: Vec<_> = dedup.key.iter().map(|part| (&part.path.text, part.cast)).collect();
    let keep = match &dedup.keep {
        Keep::First => "first".to_owned(),
        Keep::Latest => "latest".to_owned(),
        Keep::Changes(fields) => format!("changes {:?}", fields.iter().map(|field| &field.text).collect::<Vec<_>>()),
    };
    format!("\ndedup {key:?} {:?} {keep} {} {:?}", dedup.window_ms, dedup.renew, dedup.late)
}

/// Gives names their slots, in the order of the pipeline.
pub(super) struct Compiler {
    pub(super) scope: Scope,
    pub(super) findings: Vec<Finding>,
    /// In the order of the steps.
    joins: Vec<CompiledJoin>,
    /// A slot that nothing fills: what a column gets whose field a select has left out.
    absent: Option<Slot>,
}

impl Compiler {
    fn new() -> Compiler {
        Compiler { scope: Scope::new(), findings: Vec::new(), joins: Vec::new(), absent: None }
    }

    fn time(&mut self, path: &str, side: &SidePlan) -> Option<TimeSpec> {
        let max_future_ms = side.time.max_future_ms;
        let Some(field) = &side.time.field else {
            return Some(TimeSpec { field: None, max_future_ms });
        };
        let slot = self.slot(&format!("{path}.field"), field)?;
        let unit = match side.time.unit {
            TimeUnit::Iso => Unit::Iso,
            TimeUnit::Seconds => Unit::Seconds,
            TimeUnit::Millis => Unit::Millis,
            TimeUnit::Micros => Unit::Micros,
            TimeUnit::Nanos => Unit::Nanos,
        };
        let zone = match Zone::named(&side.time.zone) {
            Ok(zone) => zone,
            Err(message) => {
                self.wrong(&format!("{path}.zone"), field.at, message);
                return None;
            }
        };
        Some(TimeSpec { field: Some(TimeField { slot, path: field.text.clone(), unit, zone }), max_future_ms })
    }

    fn filter(&mut self, path: &str, text: &ExprText) -> Option<Step> {
        match Filter::compile(&text.text, &mut self.scope) {
            Ok(filter) => Some(Step::Filter(filter)),
            Err(error) => {
                self.wrong_expression(path, text, error);
                None
            }
        }
    }

    fn select(&mut self, path: &str, fields: &[(String, ExprText)]) -> Option<Step> {
        let named = fields.iter().map(|(name, text)| (name.as_str(), text.text.as_str()));
        match Select::compile(named, &mut self.scope) {
            Ok(select) => Some(Step::Select(select)),
            Err(wrong) => {
                wrong.into_iter().for_each(|wrong| self.wrong_expression(path, &fields[wrong.field].1, wrong.error));
                None
            }
        }
    }

    fn wrong_expression(&mut self, path: &str, text: &ExprText, error: ExprError) {
        // A text that YAML folds or escapes does not stand in the file letter by letter.
        let is_literal = text.at.len as usize == text.text.chars().count();
        let within = Place { column: text.at.column + error.start, len: error.len.max(1), ..text.at };
        let at = if is_literal { within } else { text.at };
        self.wrong(path, at, error.message);
    }

    fn key(&mut self, path: &str, parts: &[KeyPlan], seed: [u8; 16]) -> Option<KeyHasher> {
        let mut part = |part: &KeyPlan| -> Option<KeyPart> {
            let slot = self.slot(path, &part.path)?;
            let cast = part.cast.map(|cast| match cast {
                KeyCast::Decimal { precision, scale } => Cast::Decimal { precision, scale },
                KeyCast::Int => Cast::Int,
                KeyCast::Text => Cast::Text,
                KeyCast::Bool => Cast::Bool,
            });
            Some(KeyPart { slot, cast, path: part.path.text.clone() })
        };
        let parts: Vec<Option<KeyPart>> = parts.iter().map(&mut part).collect();
        hasher(seed, parts)
    }

    /// The compared fields of `keep: changes`: nulls are values like any other.
    fn content(&mut self, path: &str, fields: &[FieldPath], seed: [u8; 16]) -> Option<KeyHasher> {
        let mut part = |field: &FieldPath| -> Option<KeyPart> {
            Some(KeyPart { slot: self.slot(path, field)?, cast: None, path: field.text.clone() })
        };
        let parts: Vec<Option<KeyPart>> = fields.iter().map(&mut part).collect();
        hasher(seed, parts)
    }

    fn slot(&mut self, path: &str, field: &FieldPath) -> Option<Slot> {
        match self.scope.resolve(&field.text) {
            Ok(slot) => Some(slot),
            Err(unknown) => {
                self.unknown(path, field.at, &unknown);
                None
            }
        }
    }

    fn slot_or_absent(&mut self, path: &str) -> Slot {
        match self.column(path) {
            Ok(slot) => slot,
            Err(_) => *self.absent.get_or_insert_with(|| self.scope.computed()),
        }
    }

    /// What a column of that name gets. Its table named it, not the user: `_Key` is then as good as any.
    fn column(&mut self, path: &str) -> Result<Slot, UnknownName> {
        match self.scope.resolve_column(path) {
            Err(UnknownName::NotVirtual { .. }) => self.scope.resolve_column(&format!("`{path}`")),
            found => found,
        }
    }

    fn unknown(&mut self, path: &str, at: Place, unknown: &UnknownName) {
        self.wrong(path, at, unknown.to_string());
        let help = match unknown {
            UnknownName::NotSelected { .. } => None,
            UnknownName::NotVirtual { path, .. } => Some(format!("a field of the payload is written \"`{path}`\"")),
        };
        let said = self.findings.last_mut().expect("it was just said");
        said.help = help;
    }

    fn wrong(&mut self, path: &str, at: Place, message: String) {
        self.findings.push(Finding {
            severity: Severity::Error,
            code: "expression",
            path: path.to_owned(),
            place: Some(at),
            message,
            help: None,
        });
    }
}

/// `None` where a part is wrong or none is there, which was said.
fn hasher(seed: [u8; 16], parts: Vec<Option<KeyPart>>) -> Option<KeyHasher> {
    let parts = parts.into_iter().collect::<Option<Vec<_>>>()?;
    (!parts.is_empty()).then(|| KeyHasher::new(seed, parts))
}

#[cfg(test)]
mod tests;
