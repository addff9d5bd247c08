//! A join as typed: its right side, its key, and what it does with rows that meet nobody or come late.

use super::pipeline::{SOURCE_FIELDS, SourceSpec};
use super::step::{KEY_SHAPE, STEP, StepSpec, read_key};
use crate::config::grammar::{Field, Object, Shape, Words, names};
use crate::config::plan::{JoinLate, KeyPlan};
use crate::config::read::{At, Value};

/// `join`.
#[derive(Clone, PartialEq, Debug)]
pub struct JoinSpec {
    pub at: At<()>,
    pub with: Option<WithSpec>,
    pub name: Option<At<String>>,
    pub key: Option<JoinKeySpec>,
    pub kind: Option<At<JoinKind>>,
    pub within_ms: Option<At<i64>>,
    pub before_ms: Option<At<i64>>,
    pub after_ms: Option<At<i64>>,
    pub join_type: Option<At<JoinType>>,
    pub late: Option<At<JoinLate>>,
    pub exact: Option<At<bool>>,
    pub max_skew_ms: Option<At<i64>>,
    pub max_rows_per_key: Option<At<u64>>,
}

/// The key fields of both sides.
#[derive(Clone, PartialEq, Debug)]
pub struct JoinKeySpec {
    pub left: Vec<At<KeyPlan>>,
    pub right: Vec<At<KeyPlan>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinKind {
    Temporal,
    Interval,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinType {
    Inner,
    Left,
    Right,
    Full,
}

const KIND: Words<JoinKind> = &[("temporal", JoinKind::Temporal), ("interval", JoinKind::Interval)];
const TYPE: Words<JoinType> =
    &[("inner", JoinType::Inner), ("left", JoinType::Left), ("right", JoinType::Right), ("full", JoinType::Full)];
const LATE: Words<JoinLate> =
    &[("join", JoinLate::Join), ("drop", JoinLate::Drop), ("dead_letter", JoinLate::DeadLetter)];

pub static JOIN: Object = Object {
    name: "`join`",
    doc: "Adds the matching row of another topic.",
    choice: false,
    fields: &[&[
        Field::new("with", Shape::Object(&WITH), "The right side.").required(),
        Field::new("as", Shape::Text, "The field under which the right row appears.").required(),
        Field::new("key", Shape::Either(&[KEY_SHAPE, Shape::Object(&BOTH_KEYS)]), "What both sides have in common.")
            .required(),
        Field::new(
            "kind",
            Shape::Word(|| names(KIND)),
            "`temporal` enriches each left row once, `interval` gives every pair.",
        )
        .required(),
        Field::new("within", Shape::Duration { min_ms: 0 }, "How far apart in time the two rows may be."),
        Field::new("before", Shape::SignedDuration, "How far the right row may lie before the left one.").default("0s"),
        Field::new("after", Shape::SignedDuration, "How far the right row may lie after the left one.").default("0s"),
        Field::new("type", Shape::Word(|| names(TYPE)), "What happens to rows without a match.").default("inner"),
        Field::new("late", Shape::Word(|| names(LATE)), "What happens to late rows.").default("join"),
        Field::new("exact", Shape::Bool, "Waits until the watermark decides which right row is the newest.")
            .default("false"),
        Field::new("max_skew", Shape::Duration { min_ms: 1 }, "How far one side may run ahead of the other.")
            .default("ten times the window"),
        Field::new("max_rows_per_key", Shape::Int { min: 1, max: 100_000_000 }, "Waiting rows of one key and side.")
            .default("100000"),
    ]],
};

static BOTH_KEYS: Object = Object {
    name: "`key`",
    doc: "The key's name on each side.",
    choice: false,
    fields: &[&[
        Field::new("left", KEY_SHAPE, "The fields of the left side.").required(),
        Field::new("right", KEY_SHAPE, "The fields of the right side.").required(),
    ]],
};

impl JoinSpec {
    pub fn read(value: &Value<'_>) -> Option<JoinSpec> {
        let fields = value.fields(&JOIN)?;
        fields.either("within", "before");
        fields.either("within", "after");
        Some(JoinSpec {
            at: fields.named().map(|_| ()),
            with: fields.get("with").and_then(|value| WithSpec::read(&value)),
            name: fields.text("as"),
            key: fields.get("key").and_then(|value| JoinKeySpec::read(&value)),
            kind: fields.word("kind", KIND),
            within_ms: fields.duration("within"),
            before_ms: fields.duration("before"),
            after_ms: fields.duration("after"),
            join_type: fields.word("type", TYPE),
            late: fields.word("late", LATE),
            exact: fields.bool("exact"),
            max_skew_ms: fields.duration("max_skew"),
            max_rows_per_key: fields.int("max_rows_per_key"),
        })
    }
}

impl JoinKeySpec {
    /// One for both sides, or `{ left, right }`. (`{ path, as }` is one for both.)
    fn read(value: &Value<'_>) -> Option<JoinKeySpec> {
        if !value.is_map() || value.entries()?.iter().any(|(name, _)| name.value == "path") {
            let key = read_key(value);
            return Some(JoinKeySpec { left: key.clone(), right: key });
        }
        let fields = value.fields(&BOTH_KEYS)?;
        let side = |name| fields.get(name).map(|value| read_key(&value)).unwrap_or_default();
        Some(JoinKeySpec { left: side("left"), right: side("right") })
    }
}

/// `with`: a source, and what only a right side has.
#[derive(Clone, PartialEq, Debug)]
pub struct WithSpec {
    pub source: SourceSpec,
    pub steps: Vec<StepSpec>,
    /// `None` inside: forever, a table.
    pub retain_ms: Option<At<Option<i64>>>,
    pub bootstrap: Option<At<bool>>,
}

static WITH: Object = Object {
    name: "`with`",
    doc: "The right side of a join.",
    choice: false,
    fields: &[
        SOURCE_FIELDS,
        &[
            Field::new("steps", Shape::List(&Shape::Object(&STEP)), "What happens to the right rows before they join."),
            Field::new("retain", Shape::DurationOrForever, "`forever` makes the right side a table."),
            Field::new("bootstrap", Shape::Bool, "Reads a new table whole before the first left row.").default("true"),
        ],
    ],
};

impl WithSpec {
    fn read(value: &Value<'_>) -> Option<WithSpec> {
        let fields = value.fields(&WITH)?;
        Some(WithSpec {
            source: SourceSpec::from_fields(&fields),
            steps: StepSpec::read_list(&fields, "steps"),
            retain_ms: fields.duration_or_forever("retain"),
            bootstrap: fields.bool("bootstrap"),
        })
    }
}
