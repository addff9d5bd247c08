//! What names mean at a place of the pipeline, and which slot of a row each of them has.
//!
//! Owns the assignment of slots. A [`Scope`] goes along with the steps while they are compiled: it starts open
//! (every name is a payload field), and a select closes it (only the selected names are left). [`Scope::finish`]
//! gives the [`Layout`] that decoding and extraction work by. The same path always has the same slot.
//!
//! Virtual fields (`_topic`, `_headers.name`, …) win over payload fields of that name, and are there after a select
//! too, unless the select has a field of that name. What looks like one and is none (`_Key`, `_header.x`) is refused:
//! it would be null in every row. In backticks a path is one of the payload, whatever it looks like.
//!
//! A right side has a scope of its own. [`Scope::join`] takes it in: below the object's name its names are known, and
//! each that is asked for has a slot here, too, which the join fills. The object wins over a field of that name. What
//! each join has to keep of its rows is what is filled before it and read behind it (`scope/joined.rs`).

mod joined;

use crate::codec::extract::Extractor;
use crate::codec::rows::{Field, Kind, Rows, Slot};
use crate::codec::scan::Scanned;
pub use joined::{Either, JoinFields, JoinLayout};
use joined::{Joined, Life};
use std::sync::{Arc, OnceLock};

/// Resolves paths to slots.
#[derive(Debug, Default)]
pub struct Scope {
    payload: Vec<PayloadPath>,
    virtuals: Vec<(Virtual, Slot)>,
    width: u16,
    /// `None` while the scope is open.
    closed: Option<Vec<(String, Entry)>>,
    derived: Vec<DerivedPath>,
    /// Filled by `finish`, one per select.
    handles: Vec<Arc<OnceLock<Vec<Derivation>>>>,
    /// Per select, how many joins lie before it.
    joins_before: Vec<usize>,
    /// The row as one object, where it is asked for.
    whole: Option<Slot>,
    /// What steps write, in the order of the steps.
    computed: Vec<Slot>,
    /// Says behind a join that the row came without a left one.
    alone: Option<Slot>,
    joins: Vec<Joined>,
    /// Objects that no select has hidden, and which join adds them.
    objects: Vec<(String, usize)>,
    /// Per slot.
    lives: Vec<Life>,
}

/// A path into the payload: the parts are looked up one inside the other; within a part, dots may belong to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PayloadPath {
    pub parts: Vec<String>,
    pub slot: Slot,
}

/// What does not come from the payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Virtual {
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    /// The last header of that name.
    Header(String),
}

/// What a selected field is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selected {
    /// A plain path, as seen before the select.
    Path(String),
    /// What an expression writes.
    Computed(Slot),
}

/// A name that a scope does not have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UnknownName {
    /// A closed scope has these and no others.
    NotSelected { path: String, known: Vec<String> },
    /// Nearly a virtual field, and what to write instead.
    NotVirtual { path: String, instead: String },
}

impl std::fmt::Display for UnknownName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UnknownName::NotSelected { path, known } => {
                write!(f, "`{path}` is not among the selected fields: {}", known.join(", "))
            }
            UnknownName::NotVirtual { path, instead } => write!(f, "`{path}` is no virtual field: {instead}"),
        }
    }
}

/// What stands behind a name of a closed scope.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Entry {
    /// Each part without a dot: paths below go on in the payload itself.
    Payload(Vec<String>),
    /// Paths below are taken out of the field's text, right after the select.
    Slot(Slot),
    /// The object that this join adds: paths below go on in the right side's scope.
    Object(usize),
}

#[derive(Clone, Debug)]
struct DerivedPath {
    /// Which select fills it.
    select: usize,
    from: Slot,
    path: String,
    slot: Slot,
}

impl Scope {
    pub fn new() -> Scope {
        Scope::default()
    }

    /// The slot of a path (or virtual field) at this place. Fails behind a select that has no such name, and for what
    /// is nearly a virtual field.
    pub fn resolve(&mut self, path: &str) -> Result<Slot, UnknownName> {
        let slot = self.unread_slot(path)?;
        self.read_behind(slot, self.joins.len());
        Ok(slot)
    }

    fn unread_slot(&mut self, path: &str) -> Result<Slot, UnknownName> {
        match self.entry(path)? {
            Entry::Slot(slot) => Ok(slot),
            Entry::Payload(parts) => Ok(self.payload_slot(parts)),
            Entry::Object(join) => Ok(self.object_slot(join)),
        }
    }

    /// A slot that a step writes.
    pub fn computed(&mut self) -> Slot {
        let slot = self.slot_filled_behind(self.joins.len());
        self.computed.push(slot);
        slot
    }

    /// A slot that is filled when so many joins lie behind the row.
    fn slot_filled_behind(&mut self, joins: usize) -> Slot {
        let slot = Slot(self.width);
        self.width = self.width.checked_add(1).expect("a pipeline has fewer than 65536 fields");
        self.lives.push(Life { filled_behind: joins, read_behind: joins });
        slot
    }

    /// Closes the scope: from here on only these names are known (a later one of the same name wins). The handle
    /// gives, once the scope is finished, what has to be taken out of the selected fields.
    pub fn close(&mut self, fields: Vec<(String, Selected)>) -> Result<Derivations, UnknownName> {
        let mut names = Vec::with_capacity(fields.len());
        for (name, selected) in fields {
            let entry = match selected {
                Selected::Path(path) => self.entry(&path)?,
                Selected::Computed(slot) => Entry::Slot(slot),
            };
            names.retain(|(known, _)| *known != name);
            names.push((name, entry));
        }
        self.closed = Some(names);
        self.objects.clear();
        self.joins_before.push(self.joins.len());
        let handle = Arc::new(OnceLock::new());
        self.handles.push(Arc::clone(&handle));
        Ok(Derivations { list: handle })
    }

    /// The selected names in their order; `None` while every payload field is a name.
    pub fn names(&self) -> Option<Vec<&str>> {
        let names = self.closed.as_ref()?;
        Some(names.iter().map(|(name, _)| name.as_str()).collect())
    }

    /// The objects of joins that are names here, in the order of the joins.
    pub fn object_names(&self) -> Vec<String> {
        self.objects.iter().map(|(name, _)| name.clone()).collect()
    }

    /// No further names: how rows are laid out.
    pub fn finish(self) -> Layout {
        self.finish_with_joins().0
    }

    /// The same, with what each join keeps and where its right rows' fields are. Rows of all sides are equally wide.
    pub fn finish_with_joins(mut self) -> (Layout, Vec<JoinLayout>) {
        let mut joins = self.join_layouts();
        let mut layout = self.layout();
        layout.width = joins.iter().map(|join| join.right.width).fold(layout.width, usize::max);
        joins.iter_mut().for_each(|join| join.right.width = layout.width);
        (layout, joins)
    }

    fn layout(self) -> Layout {
        for (select, handle) in self.handles.iter().enumerate() {
            let mut derivations: Vec<Derivation> = Vec::new();
            let of_select = self.derived.iter().filter(|derived| derived.select == select);
            for derived in of_select {
                let path = PayloadPath { parts: vec![derived.path.clone()], slot: derived.slot };
                match derivations.iter_mut().find(|derivation| derivation.from == derived.from) {
                    Some(derivation) => derivation.paths.push(path),
                    None => derivations.push(Derivation { from: derived.from, paths: vec![path] }),
                }
            }
            handle.set(derivations).expect("a scope is finished once");
        }
        // Behind a select the object is made of what it selects.
        let whole = self.whole.filter(|_| self.closed.is_none());
        Layout { width: self.width as usize, paths: self.payload, virtuals: self.virtuals, whole }
    }

    fn entry(&mut self, path: &str) -> Result<Entry, UnknownName> {
        match self.object_of(path) {
            Some((join, None)) => return Ok(Entry::Object(join)),
            Some((join, Some(rest))) => return self.joined_slot(join, path, rest).map(Entry::Slot),
            None => {}
        }
        let plain = in_backticks(path);
        let Some(names) = &self.closed else {
            return match plain {
                Some(plain) => Ok(self.below_payload(vec![plain.to_owned()])),
                None => self.open_entry(path),
            };
        };
        // The longest name that the path begins with, as among the keys of an object.
        let beginning = |path| {
            prefixes(path).find_map(|(head, rest)| {
                let (_, entry) = names.iter().find(|(name, _)| name == head)?;
                Some((entry.clone(), rest))
            })
        };
        let found = beginning(path).or_else(|| beginning(plain?));
        match found {
            Some((entry, None)) => Ok(entry),
            Some((Entry::Payload(mut parts), Some(rest))) => {
                parts.push(rest.to_owned());
                Ok(self.below_payload(parts))
            }
            Some((Entry::Slot(from), Some(rest))) => Ok(Entry::Slot(self.derived_slot(from, rest))),
            Some((Entry::Object(join), Some(rest))) => self.joined_slot(join, path, rest).map(Entry::Slot),
            None => match Virtual::named(path) {
                Some(virtual_field) => Ok(Entry::Slot(self.virtual_slot(virtual_field))),
                None => {
                    let objects = self.objects.iter().map(|(name, _)| name);
                    let known = names.iter().map(|(name, _)| name).chain(objects).cloned().collect();
                    Err(Virtual::meant(path).unwrap_or(UnknownName::NotSelected { path: path.to_owned(), known }))
                }
            },
        }
    }

    fn open_entry(&mut self, path: &str) -> Result<Entry, UnknownName> {
        match (Virtual::named(path), Virtual::meant(path)) {
            (Some(virtual_field), _) => Ok(Entry::Slot(self.virtual_slot(virtual_field))),
            (None, Some(unknown)) => Err(unknown),
            (None, None) => Ok(self.below_payload(vec![path.to_owned()])),
        }
    }

    /// Where the last part has a dot it may mean several places, so that a path below it needs the field itself.
    fn below_payload(&mut self, parts: Vec<String>) -> Entry {
        match parts.last().is_some_and(|part| part.contains('.')) {
            true => Entry::Slot(self.payload_slot(parts)),
            false => Entry::Payload(parts),
        }
    }

    fn payload_slot(&mut self, parts: Vec<String>) -> Slot {
        if let Some(known) = self.payload.iter().find(|path| path.parts == parts) {
            return known.slot;
        }
        let slot = self.slot_filled_behind(0);
        self.payload.push(PayloadPath { parts, slot });
        slot
    }

    fn virtual_slot(&mut self, virtual_field: Virtual) -> Slot {
        if let Some((_, slot)) = self.virtuals.iter().find(|(known, _)| *known == virtual_field) {
            return *slot;
        }
        let slot = self.slot_filled_behind(0);
        self.virtuals.push((virtual_field, slot));
        slot
    }

    fn derived_slot(&mut self, from: Slot, path: &str) -> Slot {
        let select = self.handles.len() - 1;
        let known = |derived: &&DerivedPath| derived.select == select && derived.from == from && derived.path == path;
        if let Some(derived) = self.derived.iter().find(known) {
            return derived.slot;
        }
        let slot = self.slot_filled_behind(self.joins_before[select]);
        self.derived.push(DerivedPath { select, from, path: path.to_owned(), slot });
        slot
    }
}

impl Virtual {
    /// The virtual field of that name.
    pub fn named(path: &str) -> Option<Virtual> {
        match path {
            "_topic" => Some(Virtual::Topic),
            "_partition" => Some(Virtual::Partition),
            "_offset" => Some(Virtual::Offset),
            "_timestamp" => Some(Virtual::Timestamp),
            "_key" => Some(Virtual::Key),
            _ => {
                let name = path.strip_prefix("_headers.").filter(|name| !name.is_empty())?;
                Some(Virtual::Header(name.to_owned()))
            }
        }
    }

    /// What was meant by a path that is nearly one of a virtual field.
    fn meant(path: &str) -> Option<UnknownName> {
        const ALONE: [&str; 5] = ["_topic", "_partition", "_offset", "_timestamp", "_key"];
        let (root, below) = path.split_once('.').map_or((path, ""), |(root, below)| (root, below));
        let is_headers = ["_headers", "_header"].iter().any(|name| root.eq_ignore_ascii_case(name));
        let near = ALONE.into_iter().find(|name| root.eq_ignore_ascii_case(name));
        let instead = match (is_headers, near) {
            (true, _) if below.is_empty() => "a header is written `_headers.name`".to_owned(),
            (true, _) => format!("did you mean `_headers.{below}`?"),
            (false, Some(name)) if below.is_empty() => format!("did you mean `{name}`?"),
            (false, Some(name)) => format!("`{name}` has no fields"),
            (false, None) => return None,
        };
        Some(UnknownName::NotVirtual { path: path.to_owned(), instead })
    }

    /// As it is written in a path.
    fn name(&self) -> String {
        match self {
            Virtual::Topic => "_topic".to_owned(),
            Virtual::Partition => "_partition".to_owned(),
            Virtual::Offset => "_offset".to_owned(),
            Virtual::Timestamp => "_timestamp".to_owned(),
            Virtual::Key => "_key".to_owned(),
            Virtual::Header(name) => format!("_headers.{name}"),
        }
    }
}

/// A path that is meant as one of the payload.
pub fn in_backticks(path: &str) -> Option<&str> {
    path.strip_prefix('`')?.strip_suffix('`')
}

/// How a path begins: first the whole, then ever shorter heads with what is left behind the dot.
pub(super) fn prefixes(path: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let shorter = path.rmatch_indices('.').map(|(dot, _)| (&path[..dot], Some(&path[dot + 1..])));
    std::iter::once((path, None)).chain(shorter)
}

/// Which slots a row has and what fills them.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Fields per row.
    pub width: usize,
    pub paths: Vec<PayloadPath>,
    pub virtuals: Vec<(Virtual, Slot)>,
    /// Gets the whole payload.
    pub whole: Option<Slot>,
}

/// What has to be taken out of the text of selected fields. Known once the scope is finished.
#[derive(Clone, Debug)]
pub struct Derivations {
    list: Arc<OnceLock<Vec<Derivation>>>,
}

#[derive(Clone, Debug)]
struct Derivation {
    from: Slot,
    paths: Vec<PayloadPath>,
}

impl Derivations {
    /// Ready to run. To be called after `Scope::finish`.
    pub fn extractors(&self) -> Derive {
        let list = self.list.get().expect("the scope is finished before a row is processed");
        Derive { list: list.iter().map(|one| (one.from, Extractor::new(&one.paths))).collect() }
    }
}

/// Fills the slots that lie below selected fields.
#[derive(Clone, Debug)]
pub struct Derive {
    list: Vec<(Slot, Extractor)>,
}

impl Derive {
    /// Takes the paths out of the objects of one row. Fails where a used field is given twice in them.
    pub fn run(&mut self, rows: &mut Rows, row: u32) -> Scanned<()> {
        for (from, extractor) in &mut self.list {
            let field = rows.field(row, *from);
            let start = row as usize * rows.width;
            let fields = &mut rows.fields[start..start + rows.width];
            extractor.clear(fields);
            if field.kind == Kind::Object {
                extractor.extract(&rows.bytes, field.span(), fields)?;
            }
        }
        Ok(())
    }
}

/// Sets a field that is absent to null: what a select leaves behind.
#[inline]
pub fn absent_to_null(rows: &mut Rows, row: u32, slot: Slot) {
    if rows.field(row, slot).kind == Kind::Absent {
        rows.set(row, slot, Field::NULL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_path_has_the_same_slot() {
        let mut scope = Scope::new();
        let a = scope.resolve("a.b").unwrap();
        assert_eq!(scope.resolve("a.b").unwrap(), a);
        assert_ne!(scope.resolve("a").unwrap(), a);
        assert_eq!(scope.resolve("_offset").unwrap(), scope.resolve("_offset").unwrap());
        assert_eq!(scope.finish().width, 3);
    }

    #[test]
    fn behind_a_select_only_its_names_and_the_virtual_fields_are_known() {
        let mut scope = Scope::new();
        let country = scope.resolve("user.country").unwrap();
        let computed = scope.computed();
        scope
            .close(vec![
                ("u".into(), Selected::Path("user".into())),
                ("sum".into(), Selected::Computed(computed)),
                ("_key".into(), Selected::Path("id".into())),
            ])
            .unwrap();
        assert_ne!(scope.resolve("u.country").unwrap(), country, "a literal dotted key of the payload is not in u");
        assert_eq!(scope.resolve("sum").unwrap(), computed);
        assert!(scope.resolve("user").is_err());
        assert!(scope.resolve("_topic").is_ok());
        let key = scope.resolve("_key").unwrap();
        assert_eq!(scope.names(), Some(vec!["u", "sum", "_key"]));
        let layout = scope.finish();
        assert!(layout.paths.iter().any(|path| path.parts == ["id"] && path.slot == key));
        assert!(layout.paths.iter().any(|path| path.parts == ["user", "country"]));
    }

    #[test]
    fn an_unknown_name_tells_the_known_ones() {
        let mut scope = Scope::new();
        scope.close(vec![("a".into(), Selected::Path("x".into()))]).unwrap();
        let error = scope.resolve("b").unwrap_err();
        assert_eq!(error.to_string(), "`b` is not among the selected fields: a");
    }

    #[test]
    fn what_is_nearly_a_virtual_field_is_refused_with_what_was_meant() {
        for (path, said) in [
            ("_Key", "`_Key` is no virtual field: did you mean `_key`?"),
            ("_TIMESTAMP", "`_TIMESTAMP` is no virtual field: did you mean `_timestamp`?"),
            ("_header.x-y", "`_header.x-y` is no virtual field: did you mean `_headers.x-y`?"),
            ("_Headers.x", "`_Headers.x` is no virtual field: did you mean `_headers.x`?"),
            ("_headers", "`_headers` is no virtual field: a header is written `_headers.name`"),
            ("_key.id", "`_key.id` is no virtual field: `_key` has no fields"),
        ] {
            assert_eq!(Scope::new().resolve(path).unwrap_err().to_string(), said);
            let mut closed = Scope::new();
            closed.close(vec![("a".into(), Selected::Path("x".into()))]).unwrap();
            assert_eq!(closed.resolve(path).unwrap_err().to_string(), said);
        }
        for path in ["_id", "_offsets", "key", "a._Key"] {
            assert!(Scope::new().resolve(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn in_backticks_a_path_is_one_of_the_payload() {
        let mut scope = Scope::new();
        let (plain, key) = (scope.resolve("`_Key`").unwrap(), scope.resolve("`_key`").unwrap());
        assert_ne!(scope.resolve("_key").unwrap(), key);
        assert_eq!(scope.resolve("`a.b`").unwrap(), scope.resolve("a.b").unwrap());
        let layout = scope.finish();
        let slot = |name: &str| layout.paths.iter().find(|path| path.parts == [name]).map(|path| path.slot);
        assert_eq!((slot("_Key"), slot("_key")), (Some(plain), Some(key)));
    }

    #[test]
    fn a_select_may_call_a_field_like_a_virtual_one() {
        let mut scope = Scope::new();
        let names = ["_Key", "_headers"].map(|name| (name.to_owned(), Selected::Path("x".to_owned())));
        scope.close(names.into()).unwrap();
        assert!(scope.resolve("_Key").is_ok() && scope.resolve("_headers.x").is_ok());
    }
}
