//! The document as written: a tree of mappings, lists and scalars, each with its place.
//!
//! Owns the step from YAML text (JSON is YAML too) to that tree: aliases and merge keys (`<<`) are resolved,
//! duplicate keys and several documents are findings. Never knows what a field means.

use super::secrets::shown_key;
use crate::error::{Finding, Place, Severity};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use std::collections::HashMap;

/// How many nodes a document may have once its aliases are written out.
const NODES_MAX: usize = 200_000;

/// A value and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    pub at: Place,
    pub content: Content,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Content {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A scalar before any `${VAR}` is replaced.
#[derive(Clone, PartialEq)]
pub struct Scalar {
    pub text: String,
    /// Written without quotes, so that `5`, `true` and `null` mean what they look like.
    pub plain: bool,
    /// Where the text itself stands (without quotes), if it is there letter by letter on one line.
    pub text_at: Option<Place>,
    /// The last line of it.
    pub line_end: u32,
}

/// The text may be a password.
impl std::fmt::Debug for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scalar(…)")
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    pub key: String,
    pub key_at: Place,
    pub value: Node,
}

impl Scalar {
    /// Nothing was written: `null`, `~` or an empty place.
    pub fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// Reads the document. Findings that leave a tree (duplicate keys, say) come with the tree; a text that is not
/// YAML gives one finding and no tree.
pub fn read(text: &str) -> (Option<Node>, Vec<Finding>) {
    let options = serde_saphyr::granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: 64,
        block_nesting_limit: 64
    };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder { text, parser, anchors: HashMap::new(), findings: Vec::new(), nodes: 0 };
    match builder.document() {
        Ok(node) => (node, builder.findings),
        Err(stop) => {
            builder.findings.push(*stop.0);
            (None, builder.findings)
        }
    }
}

/// The text cannot be read any further.
struct Stop(Box<Finding>);

struct Builder<'t, P> {
    text: &'t str,
    parser: P,
    anchors: HashMap<usize, (Node, usize)>,
    findings: Vec<Finding>,
    nodes: usize,
}

impl<'t, P> Builder<'t, P>
where
    P: Iterator<Item = Result<(Event<'t>, Span), ScanError>>,
{
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                _ if root.is_some() => {
                    let at = self.place(span);
                    return Err(stop(
                        "several_documents",
                        at,
                        "a second document begins here; a file holds one".into(),
                    ));
                }
                event => root = Some(self.node(event, span, &mut String::new())?),
            }
        }
        if root.is_none() {
            let at = Place { line: 1, column: 1, len: 1 };
            self.findings.push(finding("empty", at, String::new(), "the document is empty".into()));
        }
        Ok(root)
    }

    fn node(&mut self, event: Event<'t>, span: Span, path: &mut String) -> Result<Node, Stop> {
        self.count(1, span)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(text.into_owned(), style, tag.as_deref(), span), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => (self.list(tag.as_deref(), span, path)?, anchor),
            Event::MappingStart(_, anchor, tag) => (self.map(tag.as_deref(), span, path)?, anchor),
            Event::Alias(id) => return self.alias(id, span),
            Event::UnresolvedAlias(name) => {
                let at = self.place(span);
                let message = format!("no anchor `&{name}` stands before this alias");
                return Err(stop("unknown_alias", at, message));
            }
            _ => return Err(stop("syntax", self.place(span), "a value is missing here".into())),
        };
        if anchor != 0 {
            let size = size(&node);
            self.count(size, span)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn list(&mut self, tag: Option<&Tag>, span: Span, path: &mut String) -> Result<Node, Stop> {
        self.refuse_tag(tag, span, path);
        let mut items = Vec::new();
        loop {
            let (event, item_span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Node { at: self.place(span), content: Content::List(items) });
            }
            let len = path.len();
            path.push_str(&format!("[{}]", items.len()));
            let item = self.node(event, item_span, path);
            path.truncate(len);
            items.push(item?);
        }
    }

    fn map(&mut self, tag: Option<&Tag>, span: Span, path: &mut String) -> Result<Node, Stop> {
        self.refuse_tag(tag, span, path);
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Entry> = Vec::new();
        loop {
            let (event, key_span) = self.next()?;
            let (key, plain) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, ..) => (text.into_owned(), style == ScalarStyle::Plain),
                _ => return Err(stop("syntax", self.place(key_span), "a key is plain text here".into())),
            };
            let key_at = self.place(key_span);
            let len = path.len();
            join(path, &key);
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, path);
            let here = path.clone();
            path.truncate(len);
            let value = value?;
            if plain && key == "<<" {
                self.merge(value, &mut merged, here);
            } else if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let key = shown_key(&key);
                let message = format!("`{key}` is written twice; the first one is on line {}", first.key_at.line);
                self.findings.push(finding("duplicate_key", key_at, here, message));
            } else {
                entries.push(Entry { key, key_at, value });
            }
        }
        // A key of the mapping itself wins over a merged one, an earlier merged mapping over a later one.
        for entry in merged {
            if !entries.iter().any(|own| own.key == entry.key) {
                entries.push(entry);
            }
        }
        let block = self.text_of(span).is_none_or(|text| !text.starts_with('{'));
        let at = match entries.first() {
            Some(first) if block => first.key_at,
            _ => Place { len: 1, ..self.place(span) },
        };
        Ok(Node { at, content: Content::Map(entries) })
    }

    fn merge(&mut self, value: Node, merged: &mut Vec<Entry>, path: String) {
        match value.content {
            Content::Map(entries) => merged.extend(entries),
            Content::List(nodes) => nodes.into_iter().for_each(|node| self.merge(node, merged, path.clone())),
            Content::Scalar(_) => {
                let message = "`<<` merges a mapping, such as `<<: *name`".into();
                self.findings.push(finding("wrong_type", value.at, path, message));
            }
        }
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Node {
        let as_text = tag.is_some_and(|tag| tag.suffix().is_empty() || (is_core(tag) && tag.suffix() == "str"));
        self.refuse_tag(tag, span, "");
        let at = self.place(span);
        let quotes = u32::from(matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted));
        let inner = Place { column: at.column + quotes, len: text.chars().count().max(1) as u32, ..at };
        let literal = self.text_of(span).is_some_and(|written| {
            let end = written.len().saturating_sub(quotes as usize);
            written.get(quotes as usize..end) == Some(text.as_str())
        });
        let plain = style == ScalarStyle::Plain && !as_text;
        let text_at = literal.then_some(inner);
        // The parser writes `~` where nothing stands.
        let text = if plain && self.text_of(span) == Some("") { String::new() } else { text };
        let line_end = (span.end.line() as u32).max(at.line);
        Node { at, content: Content::Scalar(Scalar { text, plain, text_at, line_end }) }
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<Node, Stop> {
        let Some((node, size)) = self.anchors.get(&id) else {
            return Err(stop("unknown_alias", self.place(span), "this alias stands inside its own anchor".into()));
        };
        let (node, size) = (node.clone(), *size);
        self.count(size, span)?;
        Ok(node)
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, span: Span, path: &str) {
        let Some(tag) = tag else { return };
        // `!` alone only says that a scalar is text.
        if !is_core(tag) && !tag.suffix().is_empty() {
            let at = span.tag_span().map_or_else(|| self.place(span), |tag_span| self.place(tag_span));
            let message = "tags have no meaning here".to_string();
            let mut finding = finding("tag", at, path.to_string(), message);
            finding.help = Some("leave the `!…` out".into());
            self.findings.push(finding);
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes <= NODES_MAX {
            return Ok(());
        }
        let message = format!("the document has more than {NODES_MAX} values with its aliases written out");
        Err(stop("too_large", self.place(span), message))
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        match self.parser.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Err(stop("syntax", Place { line: 1, column: 1, len: 1 }, "the document ends too early".into())),
        }
    }

    fn syntax(&self, error: &ScanError) -> Stop {
        let mark = error.marker();
        let at = Place { line: mark.line().max(1) as u32, column: mark.col() as u32 + 1, len: 1 };
        let mut stop = stop("syntax", at, format!("this is not YAML: {}", error.info()));
        let line = lines(self.text).nth(mark.line().saturating_sub(1)).unwrap_or_default();
        if line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t') {
            stop.0.help = Some("indent with spaces, YAML takes no tabs there".into());
        } else if line.contains("${") {
            stop.0.help = Some("between `{` and `}` a variable stands in quotes: \"${NAME}\"".into());
        }
        stop
    }

    /// On the first line of the span; at least one character.
    fn place(&self, span: Span) -> Place {
        let len = match self.text_of(span) {
            Some(text) => text.lines().next().unwrap_or_default().trim_end().chars().count(),
            None => 1,
        };
        Place { line: span.start.line().max(1) as u32, column: span.start.col() as u32 + 1, len: len.max(1) as u32 }
    }

    fn text_of(&self, span: Span) -> Option<&'t str> {
        self.text.get(span.start.byte_offset()?..span.end.byte_offset()?)
    }
}

fn is_core(tag: &Tag) -> bool {
    tag.handle() == "tag:yaml.org,2002:"
}

fn size(node: &Node) -> usize {
    1 + match &node.content {
        Content::Scalar(_) => 0,
        Content::List(items) => items.iter().map(size).sum(),
        Content::Map(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
    }
}

/// The lines of a text as YAML counts them: a carriage return alone ends one too.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('\r'))
}

/// Appends a key to a path in the document.
pub fn join(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(&shown_key(key));
}

fn finding(code: &'static str, at: Place, path: String, message: String) -> Finding {
    Finding { severity: Severity::Error, code, path, place: Some(at), message, help: None }
}

fn stop(code: &'static str, at: Place, message: String) -> Stop {
    Stop(Box::new(finding(code, at, String::new(), message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<'n>(node: &'n Node, key: &str) -> &'n Entry {
        let Content::Map(entries) = &node.content else { panic!("not a mapping") };
        entries.iter().find(|entry| entry.key == key).expect("the key is there")
    }

    fn text(node: &Node) -> &str {
        let Content::Scalar(scalar) = &node.content else { panic!("not a scalar") };
        &scalar.text
    }

    fn only_code(source: &str) -> &'static str {
        let (_, findings) = read(source);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings[0].code
    }

    fn place(line: u32, column: u32, len: u32) -> Place {
        Place { line, column, len }
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let (node, findings) = read("a: 1\nbé:\n  - x\n  - \"y z\"\nc: {d: 'e'}\n");
        let node = node.unwrap();
        assert_eq!(findings, []);
        assert_eq!(get(&node, "a").key_at, place(1, 1, 1));
        assert_eq!(get(&node, "a").value.at, place(1, 4, 1));
        assert_eq!(get(&node, "bé").key_at, place(2, 1, 2));
        let Content::List(items) = &get(&node, "bé").value.content else { panic!() };
        assert_eq!(items[1].at, place(4, 5, 5));
        let d = get(&get(&node, "c").value, "d");
        assert_eq!((d.key_at, d.value.at), (place(5, 5, 1), place(5, 8, 3)));
        let Content::Scalar(scalar) = &d.value.content else { panic!() };
        assert_eq!(scalar.text_at, Some(place(5, 9, 1)));
    }

    #[test]
    fn json_is_yaml() {
        let (node, findings) = read("{\"a\": {\"b\": [1, \"x\", null, true]}}");
        assert_eq!(findings, []);
        assert_eq!(get(&get(&node.unwrap(), "a").value, "b").key_at, place(1, 8, 3));
    }

    #[test]
    fn a_key_written_twice_is_found_with_its_path_and_the_first_line() {
        let (node, findings) = read("a:\n  b: 1\n  c: 2\n  b: 3\n");
        assert_eq!(text(&get(&get(&node.unwrap(), "a").value, "b").value), "1");
        assert_eq!(findings[0].path, "a.b");
        assert_eq!(findings[0].place, Some(place(4, 3, 1)));
        assert!(findings[0].message.contains("line 2"));
    }

    #[test]
    fn aliases_and_merge_keys_mean_what_a_user_expects() {
        let (node, findings) = read("base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  x: 3\nlist: [*b]\n");
        assert_eq!(findings, []);
        let node = node.unwrap();
        let own = &get(&node, "own").value;
        assert_eq!(text(&get(own, "x").value), "3");
        assert_eq!(text(&get(own, "y").value), "2");
    }

    #[test]
    fn what_is_no_single_document_is_said() {
        assert_eq!(only_code("a: [1"), "syntax");
        assert_eq!(only_code("a:\n\t- b\n"), "syntax");
        assert_eq!(only_code(""), "empty");
        assert_eq!(only_code("# nothing\n"), "empty");
        assert_eq!(only_code("a: 1\n---\nb: 2\n"), "several_documents");
        assert_eq!(only_code("a: *b\n"), "unknown_alias");
        assert_eq!(only_code("a: &a [*a]\n"), "unknown_alias");
        assert_eq!(only_code("a: !env X\n"), "tag");
        assert_eq!(only_code("<<: 5\n"), "wrong_type");
    }

    #[test]
    fn aliases_of_aliases_do_not_eat_the_memory() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..9 {
            let refs = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert_eq!(only_code(&bomb), "too_large");
    }

    #[test]
    fn deep_nesting_is_a_finding_and_no_overflow() {
        assert_eq!(only_code(&"[".repeat(10_000)), "syntax");
    }

    #[test]
    fn null_is_only_what_is_written_without_quotes() {
        let (node, _) = read("a:\nb: ~\nc: null\nd: \"null\"\ne: ''\n");
        let node = node.unwrap();
        let null = |key| matches!(&get(&node, key).value.content, Content::Scalar(scalar) if scalar.is_null());
        assert_eq!(["a", "b", "c", "d", "e"].map(null), [true, true, true, false, false]);
    }
}
