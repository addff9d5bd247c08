//! Reads the tree with the grammar's tables beside it, and collects every finding on the way.
//!
//! A reader never stops at the first mistake: what is wrong becomes a finding and `None`, and its neighbours are
//! read on. No finding holds a value that came out of the environment or that is a secret.

use super::grammar::{Field, Object, Shape, Words, places_of};
use super::node::{Content, Entry, Node, Scalar, join};
use super::vars::{self, Env};
use super::{secrets, spec, units};
use crate::error::{Finding, Place, Severity};
use std::cell::RefCell;

/// A value, and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct At<T> {
    pub value: T,
    pub at: Place,
    /// The path in the document, such as `pipelines[0].name`.
    pub path: String,
}

impl<T> At<T> {
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), at: self.at, path: self.path }
    }

    /// An error about this value.
    pub fn error(&self, code: &'static str, message: impl Into<String>) -> Finding {
        Finding {
            severity: Severity::Error,
            code,
            path: self.path.clone(),
            place: Some(self.at),
            message: message.into(),
            help: None,
        }
    }
}

/// One reading of one document.
pub struct Reading<'e> {
    env: &'e Env<'e>,
    findings: RefCell<Vec<Finding>>,
}

impl<'e> Reading<'e> {
    pub fn new(env: &'e Env<'e>) -> Reading<'e> {
        Reading { env, findings: RefCell::default() }
    }

    pub fn into_findings(self) -> Vec<Finding> {
        self.findings.into_inner()
    }

    fn say(&self, finding: Finding) {
        self.findings.borrow_mut().push(finding);
    }
}

/// A value of the document, not yet read.
#[derive(Clone)]
pub struct Value<'a> {
    reading: &'a Reading<'a>,
    node: &'a Node,
    path: String,
    /// What it is called in findings: the last key of its path.
    name: String,
    /// Where that key stands (the value itself, where it has none).
    named_at: Place,
    secret: bool,
}

impl<'a> Value<'a> {
    pub fn root(reading: &'a Reading<'a>, node: &'a Node) -> Value<'a> {
        let name = "the document".to_string();
        Value { reading, node, path: String::new(), name, named_at: node.at, secret: false }
    }

    /// The key that names the value.
    pub fn named(&self) -> At<String> {
        At { value: self.name.clone(), at: self.named_at, path: self.path.clone() }
    }

    pub fn error(&self, code: &'static str, message: impl Into<String>, help: Option<String>) {
        let nothing = self.scalar_node().is_some_and(Scalar::is_null);
        let at = if nothing { self.named().map(|_| ()) } else { self.at(()) };
        self.reading.say(Finding { help, ..at.error(code, message) });
    }

    /// The fields of a mapping. Unknown and missing ones are findings; a mapping with some is read all the same.
    pub fn fields(&self, object: &'static Object) -> Option<Fields<'a>> {
        let entries: &[Entry] = match &self.node.content {
            Content::Map(entries) => entries,
            Content::Scalar(scalar) if scalar.is_null() => &[],
            _ => {
                self.wrong_type(&format!("takes {}", example(object)));
                return None;
            }
        };
        let fields = Fields { value: self.clone(), object, entries };
        entries.iter().for_each(|entry| fields.judge(entry));
        fields.missing();
        Some(fields)
    }

    /// A choice: the one field that stands there, or a finding.
    pub fn choice(&self, object: &'static Object) -> Option<(&'static str, Value<'a>)> {
        let fields = self.fields(object)?;
        let mut chosen = fields.known();
        let first = chosen.next()?;
        if let Some((_, second)) = chosen.next() {
            let message = format!("`{}` and `{}` stand together; {} takes one", first.0, second.name, self.called());
            second.named_error("several_choices", message);
        }
        Some(first)
    }

    pub fn list(&self) -> Option<Vec<Value<'a>>> {
        let Content::List(items) = &self.node.content else {
            self.wrong_type("takes a list");
            return None;
        };
        Some(items.iter().enumerate().map(|(i, node)| self.item(i, node)).collect())
    }

    /// One value, or a list of them.
    pub fn one_or_list(&self) -> Vec<Value<'a>> {
        match &self.node.content {
            Content::List(items) => items.iter().enumerate().map(|(i, node)| self.item(i, node)).collect(),
            _ => vec![self.clone()],
        }
    }

    /// The entries of a mapping whose keys are any names, in the written order.
    pub fn entries(&self) -> Option<Vec<(At<String>, Value<'a>)>> {
        let Content::Map(entries) = &self.node.content else {
            self.wrong_type("takes a mapping of names to values");
            return None;
        };
        for entry in entries {
            self.refuse_variable_in(entry);
        }
        Some(entries.iter().map(|entry| self.entry(entry)).map(|value| (value.named(), value)).collect())
    }

    /// Whether a variable stands in the key, which is said.
    fn refuse_variable_in(&self, entry: &'a Entry) -> bool {
        let found = vars::has_vars(&entry.key);
        if found {
            let named = self.entry(entry).named();
            let finding = named.error("variable", format!("`{}` is a key, and in keys nothing is replaced", entry.key));
            self.reading.say(finding.with_help("variables stand in values: write the key itself"));
        }
        found
    }

    pub fn refuse_empty_list(&self) {
        if matches!(&self.node.content, Content::List(items) if items.is_empty()) {
            self.error("empty", format!("{} is an empty list", self.called()), None);
        }
    }

    pub fn is_map(&self) -> bool {
        matches!(self.node.content, Content::Map(_))
    }

    /// Text. A plain number or boolean is none: it has to be quoted.
    pub fn text(&self) -> Option<At<String>> {
        let text = self.scalar("takes text")?;
        if let (false, Some(kind)) = (text.replaced, plain_kind(self.scalar_node()?)) {
            let quoted = format!("in quotes it is text: \"{}\"", text.written);
            self.error(
                "wrong_type",
                format!("{} takes text, this is {kind}", self.called()),
                self.unless_secret(quoted),
            );
            return None;
        }
        Some(self.at(text.text))
    }

    /// Text that has at least one character.
    pub fn filled_text(&self) -> Option<At<String>> {
        let text = self.text()?;
        if text.value.trim().is_empty() {
            self.error("empty", format!("{} is empty", self.called()), None);
            return None;
        }
        Some(text)
    }

    /// Any scalar, as its text: what goes to librdkafka or ClickHouse, and expressions.
    pub fn scalar_text(&self) -> Option<At<String>> {
        let text = self.scalar("takes text, a number or a boolean")?;
        Some(self.at(text.text))
    }

    /// The place of the text itself, without quotes, so that an offset in it is an offset in the line.
    pub fn text_place(&self) -> Place {
        self.scalar_node().and_then(|scalar| scalar.text_at).unwrap_or(self.node.at)
    }

    pub fn bool(&self) -> Option<At<bool>> {
        let text = self.scalar("takes true or false")?;
        match (text.text.as_str(), text.typed()) {
            ("true" | "True" | "TRUE", true) => Some(self.at(true)),
            ("false" | "False" | "FALSE", true) => Some(self.at(false)),
            _ => {
                self.wrong_scalar(&text, "wrong_type", "takes true or false", None);
                None
            }
        }
    }

    pub fn int(&self, min: u64, max: u64) -> Option<At<u64>> {
        let text = self.scalar("takes a whole number")?;
        let Some(number) = text.text.parse::<u64>().ok().filter(|_| text.typed()) else {
            let help = text.text.contains('_').then(|| "write the digits without `_`".to_string());
            self.wrong_scalar(&text, "wrong_type", "takes a whole number", help);
            return None;
        };
        if (min..=max).contains(&number) {
            return Some(self.at(number));
        }
        self.wrong_scalar(&text, "out_of_range", &format!("takes {min} to {max}"), None);
        None
    }

    /// A duration of at least `min_ms`.
    pub fn duration(&self, min_ms: i64) -> Option<At<i64>> {
        let text = self.scalar("takes a duration")?;
        self.duration_of(&text, min_ms)
    }

    fn duration_of(&self, text: &Text, min_ms: i64) -> Option<At<i64>> {
        match units::duration_ms(&text.text) {
            Ok(ms) if ms >= min_ms => Some(self.at(ms)),
            Ok(_) => {
                let least = if min_ms <= 1 { "more than nothing".into() } else { format!("at least {min_ms}ms") };
                let least = if min_ms == 0 { "a duration that is not negative".into() } else { least };
                self.wrong_scalar(text, "out_of_range", &format!("takes {least}"), None);
                None
            }
            Err(help) => {
                let help = if text.text == "forever" { "`forever` is not possible here".into() } else { help };
                self.wrong_scalar(text, "bad_duration", "takes a duration", Some(help));
                None
            }
        }
    }

    /// A duration of more than nothing; `None` inside means `forever`.
    pub fn duration_or_forever(&self) -> Option<At<Option<i64>>> {
        let text = self.scalar("takes a duration")?;
        match text.text.as_str() {
            "forever" => Some(self.at(None)),
            _ => self.duration_of(&text, 1).map(|at| at.map(Some)),
        }
    }

    pub fn size(&self, min: u64, max: u64) -> Option<At<u64>> {
        let text = self.scalar("takes a size")?;
        match units::size_bytes(&text.text) {
            Ok(bytes) if (min..=max).contains(&bytes) => Some(self.at(bytes)),
            Ok(_) => {
                let (min, max) = (shown_size(min), shown_size(max));
                self.wrong_scalar(&text, "out_of_range", &format!("takes {min} to {max}"), None);
                None
            }
            Err(help) => {
                self.wrong_scalar(&text, "bad_size", "takes a size", Some(help));
                None
            }
        }
    }

    /// One of the words.
    pub fn word<T: Copy>(&self, words: Words<T>) -> Option<At<T>> {
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let takes = format!("takes {}", listed(&all, "or"));
        let text = self.scalar(&takes)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text.text) {
            return Some(self.at(*meaning));
        }
        let help = nearest(&text.text, all.into_iter()).map(|word| format!("did you mean `{word}`?"));
        self.wrong_scalar(&text, "unknown_word", &takes, help);
        None
    }

    /// The value, with what it was read as.
    pub fn at<T>(&self, value: T) -> At<T> {
        At { value, at: self.node.at, path: self.path.clone() }
    }

    /// Says that the text is not what is taken here. The text is shown as written, never as replaced.
    pub fn refuse(&self, code: &'static str, takes: &str, help: Option<String>) {
        if let Some(text) = self.scalar(takes) {
            self.wrong_scalar(&text, code, takes, help);
        }
    }

    fn wrong_scalar(&self, text: &Text, code: &'static str, takes: &str, help: Option<String>) {
        let shown = if self.secret { "…".to_string() } else { shortened(&text.written) };
        let (shown, help) = match text.replaced {
            true => (format!("what `{shown}` stands for"), Some("look at the environment".into())),
            false if shown.is_empty() => ("an empty text".into(), help),
            false if text.quoted => (format!("\"{shown}\""), help),
            false => (format!("`{shown}`"), help),
        };
        self.error(code, format!("{} {takes}, not {shown}", self.called()), help);
    }

    fn wrong_type(&self, takes: &str) {
        self.error("wrong_type", format!("{} {takes}, this is {}", self.called(), kind(self.node)), None);
    }

    fn named_error(&self, code: &'static str, message: String) {
        self.reading.say(self.named().error(code, message));
    }

    fn called(&self) -> String {
        if self.path.is_empty() { self.name.clone() } else { format!("`{}`", self.name) }
    }

    fn unless_secret(&self, help: impl Into<String>) -> Option<String> {
        (!self.secret).then(|| help.into())
    }

    fn scalar_node(&self) -> Option<&'a Scalar> {
        match &self.node.content {
            Content::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The scalar with its variables replaced.
    fn scalar(&self, takes: &str) -> Option<Text> {
        let Some(scalar) = self.scalar_node() else {
            self.wrong_type(takes);
            return None;
        };
        let written = scalar.text.clone();
        if !vars::has_vars(&written) {
            return Some(Text { text: written.clone(), written, replaced: false, quoted: !scalar.plain });
        }
        match vars::replace(&written, self.reading.env) {
            Ok(text) => {
                let replaced = text != written.replace("$${", "${");
                Some(Text { text, written, replaced, quoted: !scalar.plain })
            }
            Err(errors) => {
                errors.into_iter().for_each(|error| self.variable_error(scalar, error));
                None
            }
        }
    }

    fn variable_error(&self, scalar: &Scalar, error: vars::VarError) {
        let place = match scalar.text_at {
            Some(at) => Place { column: at.column + error.start as u32, len: error.len as u32, ..at },
            None => self.node.at,
        };
        let at = At { value: (), at: place, path: self.path.clone() };
        self.reading.say(Finding { help: error.help, ..at.error("variable", error.message) });
    }

    fn item(&self, index: usize, node: &'a Node) -> Value<'a> {
        let path = format!("{}[{index}]", self.path);
        Value { node, path, named_at: node.at, ..self.clone() }
    }

    fn entry(&self, entry: &'a Entry) -> Value<'a> {
        let mut path = self.path.clone();
        join(&mut path, &entry.key);
        let (name, named_at) = (entry.key.clone(), entry.key_at);
        Value { reading: self.reading, node: &entry.value, path, name, named_at, secret: self.secret }
    }
}

/// A scalar as it was written and as it reads with its variables replaced.
struct Text {
    text: String,
    written: String,
    replaced: bool,
    quoted: bool,
}

impl Text {
    /// May be a number or a boolean: not quoted, or put together from variables.
    fn typed(&self) -> bool {
        !self.quoted || self.replaced
    }
}

/// A mapping whose fields are known.
#[derive(Clone)]
pub struct Fields<'a> {
    value: Value<'a>,
    object: &'static Object,
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    /// The field, if something is written there.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        let field = self.field(name);
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        let mut value = self.value.entry(entry);
        value.secret = matches!(field.shape, Shape::Secret);
        let null = value.scalar_node().is_some_and(Scalar::is_null);
        // `null` is an expression of its own.
        let written = !null || matches!(field.shape, Shape::Expression);
        written.then_some(value)
    }

    /// The key that names the whole mapping.
    pub fn named(&self) -> At<String> {
        self.value.named()
    }

    pub fn text(&self, name: &str) -> Option<At<String>> {
        self.get(name)?.filled_text()
    }

    pub fn bool(&self, name: &str) -> Option<At<bool>> {
        self.get(name)?.bool()
    }

    pub fn word<T: Copy>(&self, name: &str, words: Words<T>) -> Option<At<T>> {
        self.get(name)?.word(words)
    }

    /// A whole number within the bounds of the table.
    pub fn int(&self, name: &str) -> Option<At<u64>> {
        match self.field(name).shape {
            Shape::Int { min, max } => self.get(name)?.int(min, max),
            _ => unreachable!("the table says that `{name}` is no number"),
        }
    }

    /// A duration of at least what the table says.
    pub fn duration(&self, name: &str) -> Option<At<i64>> {
        match self.field(name).shape {
            Shape::Duration { min_ms } => self.get(name)?.duration(min_ms),
            Shape::SignedDuration => self.get(name)?.duration(i64::MIN),
            _ => unreachable!("the table says that `{name}` is no duration"),
        }
    }

    pub fn duration_or_forever(&self, name: &str) -> Option<At<Option<i64>>> {
        self.get(name)?.duration_or_forever()
    }

    /// A size within the bounds of the table.
    pub fn size(&self, name: &str) -> Option<At<u64>> {
        match self.field(name).shape {
            Shape::Size { min, max } => self.get(name)?.size(min, max),
            _ => unreachable!("the table says that `{name}` is no size"),
        }
    }

    /// Says that two fields exclude each other, if both stand there.
    pub fn either(&self, one: &str, other: &str) {
        if let (Some(_), Some(second)) = (self.get(one), self.get(other)) {
            second.named_error("several_choices", format!("`{one}` and `{other}` stand together; write one of them"));
        }
    }

    /// The fields that stand there and are in the table.
    fn known(&self) -> impl Iterator<Item = (&'static str, Value<'a>)> {
        self.entries.iter().filter_map(|entry| {
            let field = self.object.field(&entry.key)?;
            Some((field.name, self.value.entry(entry)))
        })
    }

    fn field(&self, name: &str) -> &'static Field {
        self.object
            .field(name)
            .unwrap_or_else(|| unreachable!("`{name}` is not in the table of `{}`", self.object.name))
    }

    fn judge(&self, entry: &'a Entry) {
        let value = self.value.entry(entry);
        match self.object.field(&entry.key) {
            None if self.value.refuse_variable_in(entry) => {}
            None => self.unknown(&value),
            Some(Field { later: Some(what), .. }) => {
                value.named_error("not_yet", format!("this version of weir does not have {what} yet"));
            }
            Some(_) => {}
        }
    }

    fn unknown(&self, value: &Value<'a>) {
        let key = &secrets::shown_key(&value.name);
        let names: Vec<&str> = self.object.fields().map(|field| field.name).collect();
        let head = key.split_once(':').map(|(head, _)| head).filter(|head| names.contains(head));
        let help = match head.or_else(|| nearest(key, names.iter().copied())) {
            Some(name) if head.is_some() => format!("a blank stands behind the colon: `{name}: …`"),
            Some(name) => format!("did you mean `{name}`?"),
            None => match places_of(key, &spec::FILE).first() {
                Some(path) => format!("`{key}` belongs in `{path}`"),
                None => format!("{} takes {}", self.object.name, listed(&names, "and")),
            },
        };
        let message = format!("unknown field `{key}` in {}", self.object.name);
        value.reading.say(Finding { help: Some(help), ..value.named().error("unknown_field", message) });
    }

    fn missing(&self) {
        let named = self.value.named();
        if self.object.choice && self.known().next().is_none() {
            let names: Vec<&str> = self.object.fields().filter(|f| f.later.is_none()).map(|f| f.name).collect();
            // An unknown field was said already; what it should have been is in its help.
            if self.entries.is_empty() {
                let message = format!("{} needs one of {}", self.object.name, listed(&names, "or"));
                self.value.reading.say(named.error("missing_field", message));
            }
            return;
        }
        for field in self.object.fields().filter(|field| field.required) {
            let entry = self.entries.iter().find(|entry| entry.key == field.name);
            let finding = match entry {
                None => named.error("missing_field", format!("{} needs `{}`", self.object.name, field.name)),
                Some(entry) if matches!(&entry.value.content, Content::Scalar(scalar) if scalar.is_null()) => {
                    self.value.entry(entry).named().error("missing_field", format!("`{}` has no value", field.name))
                }
                Some(_) => continue,
            };
            let help = field.doc.split(". ").next().unwrap_or_default().trim_end_matches('.');
            self.value.reading.say(Finding { help: Some(format!("`{}`: {help}", field.name)), ..finding });
        }
    }
}

/// What a value looks like, for "this is …".
fn kind(node: &Node) -> String {
    match &node.content {
        Content::List(_) => "a list".into(),
        Content::Map(_) => "a mapping".into(),
        Content::Scalar(scalar) if scalar.is_null() => "nothing".into(),
        Content::Scalar(scalar) => plain_kind(scalar).unwrap_or("text").into(),
    }
}

fn plain_kind(scalar: &Scalar) -> Option<&'static str> {
    let text = scalar.text.as_str();
    let number = || {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        digits.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok()
    };
    match text {
        _ if !scalar.plain => None,
        "" | "~" | "null" | "Null" | "NULL" => Some("nothing"),
        "true" | "false" | "True" | "False" | "TRUE" | "FALSE" => Some("a boolean"),
        _ if number() => Some("a number"),
        _ => None,
    }
}

fn example(object: &Object) -> String {
    let names: Vec<&str> = object.fields().filter(|field| field.later.is_none()).map(|field| field.name).collect();
    match object.choice {
        true => format!("a mapping with one of {}", listed(&names, "or")),
        false => "a mapping".to_string(),
    }
}

/// `a`, `b` or `c`.
pub fn listed(names: &[&str], last: &str) -> String {
    match names {
        [] => "nothing".into(),
        [one] => format!("`{one}`"),
        [rest @ .., end] => {
            let rest: Vec<String> = rest.iter().map(|name| format!("`{name}`")).collect();
            format!("{} {last} `{end}`", rest.join(", "))
        }
    }
}

/// The candidate that a slip of the keyboard away from `name`, if there is one.
pub fn nearest<'n>(name: &str, candidates: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', ' ', '.'], "_");
    let slips_max = (name.chars().count() / 3).max(1);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&plain(name), &plain(candidate)), candidate))
        .filter(|(slips, candidate)| *slips <= slips_max && *slips < candidate.chars().count())
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let text = &super::secrets::without_credentials(text);
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARS_MAX).collect();
    if text.chars().count() > CHARS_MAX { format!("{line}…") } else { line }
}

/// A size as it would be written.
pub fn shown_size(bytes: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}
