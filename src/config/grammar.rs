//! The grammar of the document as tables: which object has which fields, and what each takes.
//!
//! Owns the vocabulary of those tables. The readers in `spec` and the JSON schema are driven by the same tables,
//! so an editor and `weir check` cannot disagree. Never reads a document.

/// A mapping with known fields.
pub struct Object {
    /// What the reader of a finding calls it, such as `dedup`.
    pub name: &'static str,
    pub doc: &'static str,
    /// Groups of fields, so that objects can share some.
    pub fields: &'static [&'static [Field]],
    /// Exactly one of the fields stands there (an externally tagged choice).
    pub choice: bool,
}

impl Object {
    pub fn fields(&self) -> impl Iterator<Item = &'static Field> {
        self.fields.iter().flat_map(|group| group.iter())
    }

    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields().find(|field| field.name == name)
    }
}

/// One field of an [`Object`].
pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    pub doc: &'static str,
    pub required: bool,
    /// As the documentation says it; empty where there is none.
    pub default: &'static str,
    /// Named by the language but not in this version: what the sentence calls it.
    pub later: Option<&'static str>,
}

impl Field {
    pub const fn new(name: &'static str, shape: Shape, doc: &'static str) -> Field {
        Field { name, shape, doc, required: false, default: "", later: None }
    }

    pub const fn required(mut self) -> Field {
        self.required = true;
        self
    }

    pub const fn default(mut self, text: &'static str) -> Field {
        self.default = text;
        self
    }

    pub const fn later(mut self, what: &'static str) -> Field {
        self.later = Some(what);
        self
    }
}

/// What a field takes.
#[derive(Clone, Copy)]
pub enum Shape {
    Text,
    /// Text that is never printed.
    Secret,
    /// `a.b.c` or a virtual field.
    Path,
    /// A CEL expression.
    Expression,
    Bool,
    /// A whole number within these bounds, both included.
    Int {
        min: u64,
        max: u64,
    },
    /// `90s`, `5m`, `24h`, `7d`; at least `min_ms`.
    Duration {
        min_ms: i64,
    },
    /// A duration of more than nothing, or `forever`.
    DurationOrForever,
    /// A duration that may be negative.
    SignedDuration,
    /// `4GiB`, `32MiB` or a plain number of bytes.
    Size {
        min: u64,
        max: u64,
    },
    /// `earliest`, `latest` or an RFC 3339 time.
    Start,
    /// One of a few words.
    Word(fn() -> Vec<&'static str>),
    Object(&'static Object),
    List(&'static Shape),
    /// One, or a list of them.
    OneOrList(&'static Shape),
    /// Any names.
    Map(&'static Shape),
    /// Any one of these.
    Either(&'static [Shape]),
    /// Any scalar: passed on as its text.
    Scalar,
    /// Not looked into by this version.
    Unread,
}

/// The words of a choice and what each means.
pub type Words<T> = &'static [(&'static str, T)];

/// The words alone.
pub fn names<T>(words: Words<T>) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}

/// Where in the document a field of this name may stand: the paths below `object`, nearest first, each object
/// visited once.
pub fn places_of(name: &str, object: &'static Object) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen: Vec<*const Object> = Vec::new();
    let mut queue = std::collections::VecDeque::from([(String::new(), object)]);
    while let Some((path, object)) = queue.pop_front() {
        if seen.contains(&std::ptr::from_ref(object)) {
            continue;
        }
        seen.push(object);
        for field in object.fields().filter(|field| field.later.is_none()) {
            let path = if path.is_empty() { field.name.to_string() } else { format!("{path}.{}", field.name) };
            if field.name == name {
                found.push(path.clone());
            }
            objects_in(field.shape, path, &mut queue);
        }
    }
    found
}

fn objects_in(shape: Shape, path: String, queue: &mut std::collections::VecDeque<(String, &'static Object)>) {
    match shape {
        Shape::Object(object) => queue.push_back((path, object)),
        Shape::List(inner) => objects_in(*inner, format!("{path}[]"), queue),
        Shape::OneOrList(inner) => objects_in(*inner, path, queue),
        Shape::Map(inner) => objects_in(*inner, format!("{path}.*"), queue),
        Shape::Either(shapes) => shapes.iter().for_each(|shape| objects_in(*shape, path.clone(), queue)),
        _ => {}
    }
}
