//! The steps of a pipeline as typed: filter, select, dedup (a join has its own file).

use super::join::{JOIN, JoinSpec};
use super::path::{read_expression, read_path};
use crate::config::grammar::{Field, Object, Shape, Words, names};
use crate::config::plan::{ExprText, FieldPath, KeyCast, KeyPlan, Late, MissingKey};
use crate::config::read::{At, Fields, Value};

/// One step.
#[derive(Clone, PartialEq, Debug)]
#[expect(clippy::large_enum_variant, reason = "a handful exist, and none is moved about")]
pub enum StepSpec {
    Filter(ExprText),
    /// Without an expression where it cannot be read, and that was said.
    Select(Vec<(String, Option<ExprText>)>),
    Dedup(DedupSpec),
    Join(Box<JoinSpec>),
    /// It cannot be read, and that was said.
    Wrong {
        /// Whether the fields behind it are those before it.
        keeps_names: bool,
    },
}

pub static STEP: Object = Object {
    name: "a step",
    doc: "One step: a mapping with one of these keys.",
    choice: true,
    fields: &[&[
        Field::new("filter", Shape::Expression, "Keeps the rows for which the expression is true."),
        Field::new("select", Shape::Map(&Shape::Expression), "Makes a new row: name and expression of each field."),
        Field::new("dedup", Shape::Object(&DEDUP), "Drops rows whose key was let through before."),
        Field::new("join", Shape::Object(&JOIN), "Adds the matching row of another topic."),
        Field::new("repartition", Shape::Unread, "Sends the stream through an internal topic, by another key.")
            .later("`repartition`"),
        Field::new("validate", Shape::Unread, "Checks rows against a schema.").later("`validate`"),
    ]],
};

impl StepSpec {
    /// All steps of a list.
    pub fn read_list(fields: &Fields<'_>, name: &str) -> Vec<StepSpec> {
        let items = fields.get(name).and_then(|value| value.list()).unwrap_or_default();
        items.iter().map(StepSpec::read).collect()
    }

    fn read(value: &Value<'_>) -> StepSpec {
        let Some((name, value)) = value.choice(&STEP) else {
            return StepSpec::Wrong { keeps_names: false };
        };
        let step = match name {
            "filter" => read_expression(&value).map(StepSpec::Filter),
            "select" => read_select(&value).map(StepSpec::Select),
            "dedup" => DedupSpec::read(&value).map(StepSpec::Dedup),
            "join" => JoinSpec::read(&value).map(|join| StepSpec::Join(Box::new(join))),
            _ => None,
        };
        step.unwrap_or(StepSpec::Wrong { keeps_names: matches!(name, "filter" | "dedup" | "repartition" | "validate") })
    }
}

fn read_select(value: &Value<'_>) -> Option<Vec<(String, Option<ExprText>)>> {
    let entries = value.entries()?;
    if entries.is_empty() {
        value.error("empty", "`select` names no field", Some("such as `{ id: id, total: price * amount }`".into()));
        return None;
    }
    let read = |(name, value): (At<String>, Value<'_>)| (name.value, read_expression(&value));
    Some(entries.into_iter().map(read).collect())
}

/// `dedup`.
#[derive(Clone, PartialEq, Debug)]
pub struct DedupSpec {
    pub at: At<()>,
    pub key: Vec<At<KeyPlan>>,
    /// `None` inside: forever.
    pub window_ms: Option<At<Option<i64>>>,
    pub keep: Option<At<KeepSpec>>,
    /// For `keep: changes`; the place is the field's name.
    pub fields: Option<At<Vec<FieldPath>>>,
    pub renew: Option<At<bool>>,
    pub missing_key: Option<At<MissingKey>>,
    pub late: Option<At<Late>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeepSpec {
    First,
    Latest,
    Changes,
}

const KEEP: Words<KeepSpec> =
    &[("first", KeepSpec::First), ("latest", KeepSpec::Latest), ("changes", KeepSpec::Changes)];
const MISSING_KEY: Words<MissingKey> =
    &[("dead_letter", MissingKey::DeadLetter), ("pass", MissingKey::Pass), ("drop", MissingKey::Drop)];
const LATE: Words<Late> = &[("pass", Late::Pass), ("drop", Late::Drop), ("dead_letter", Late::DeadLetter)];

/// One field of a key, short or typed.
pub const KEY_SHAPE: Shape = Shape::OneOrList(&Shape::Either(&[Shape::Path, Shape::Object(&TYPED_KEY)]));

static DEDUP: Object = Object {
    name: "`dedup`",
    doc: "Drops rows whose key was let through before.",
    choice: false,
    fields: &[&[
        Field::new("key", KEY_SHAPE, "What makes two rows the same: a field, several, or `_key`.").required(),
        Field::new("window", Shape::DurationOrForever, "How far apart in time duplicates may be, such as `24h`.")
            .required(),
        Field::new("keep", Shape::Word(|| names(KEEP)), "Which row of a key goes on.").default("first"),
        Field::new("fields", Shape::OneOrList(&Shape::Path), "For `keep: changes`: the fields that count as a change."),
        Field::new("renew", Shape::Bool, "A duplicate extends the window (`keep: first`).").default("false"),
        Field::new("missing_key", Shape::Word(|| names(MISSING_KEY)), "What happens to a row without the key.")
            .default("dead_letter"),
        Field::new("late", Shape::Word(|| names(LATE)), "What happens to a row too late to be judged.").default("pass"),
    ]],
};

static TYPED_KEY: Object = Object {
    name: "a typed key",
    doc: "A key field that is read as a type before it is compared.",
    choice: false,
    fields: &[&[
        Field::new("path", Shape::Path, "The field.").required(),
        Field::new("as", Shape::Text, "`decimal(10,2)`, `int`, `text` or `bool`."),
    ]],
};

impl DedupSpec {
    fn read(value: &Value<'_>) -> Option<DedupSpec> {
        let fields = value.fields(&DEDUP)?;
        let changes = fields.get("fields").map(|value| {
            value.refuse_empty_list();
            value.named().map(|_| value.one_or_list().iter().filter_map(read_path).collect())
        });
        Some(DedupSpec {
            at: fields.named().map(|_| ()),
            key: fields.get("key").map(|value| read_key(&value)).unwrap_or_default(),
            window_ms: fields.duration_or_forever("window"),
            keep: fields.word("keep", KEEP),
            fields: changes,
            renew: fields.bool("renew"),
            missing_key: fields.word("missing_key", MISSING_KEY),
            late: fields.word("late", LATE),
        })
    }
}

/// One field or several, each a path or typed.
pub fn read_key(value: &Value<'_>) -> Vec<At<KeyPlan>> {
    value.refuse_empty_list();
    value.one_or_list().iter().filter_map(read_key_field).collect()
}

fn read_key_field(value: &Value<'_>) -> Option<At<KeyPlan>> {
    if !value.is_map() {
        let path = read_path(value)?;
        return Some(value.at(KeyPlan { path, cast: None }));
    }
    let fields = value.fields(&TYPED_KEY)?;
    let cast = fields.get("as").and_then(|value| read_cast(&value));
    let path = fields.get("path").and_then(|value| read_path(&value))?;
    Some(At { at: path.at, ..value.at(KeyPlan { path, cast }) })
}

fn read_cast(value: &Value<'_>) -> Option<KeyCast> {
    /// Digits of the widest decimal that ClickHouse has.
    const PRECISION_MAX: u8 = 76;
    let text = value.filled_text()?.value.to_ascii_lowercase();
    let help = match text.as_str() {
        "int" => return Some(KeyCast::Int),
        "text" => return Some(KeyCast::Text),
        "bool" => return Some(KeyCast::Bool),
        "integer" | "int64" | "int32" | "long" => "did you mean `int`?".to_string(),
        "string" | "str" => "did you mean `text`?".into(),
        "boolean" => "did you mean `bool`?".into(),
        "decimal" => "with precision and scale: `decimal(10,2)`".into(),
        decimal => match decimal_parts(decimal) {
            Some((precision, scale)) if (1..=PRECISION_MAX).contains(&precision) && scale <= precision => {
                return Some(KeyCast::Decimal { precision, scale });
            }
            Some(_) => format!("a decimal has 1 to {PRECISION_MAX} digits, and no more of them after the point"),
            None => "one of `decimal(10,2)`, `int`, `text`, `bool`".into(),
        },
    };
    value.refuse("unknown_word", "takes the type of a key", Some(help));
    None
}

fn decimal_parts(text: &str) -> Option<(u8, u8)> {
    let inner = text.strip_prefix("decimal(")?.strip_suffix(')')?;
    let (precision, scale) = inner.split_once(',')?;
    Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?))
}
