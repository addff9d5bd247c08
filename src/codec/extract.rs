//! One pass over a payload: it is validated whole, and the planned paths are found.
//!
//! Owns the tree of planned paths. Promises: a field's span lies in the arena and holds valid JSON; a broken payload
//! gives one [`Fault`] with its place; nothing is allocated per record (but for an error). Records of one topic
//! come with their keys in the same order, so each object remembers which key followed which, and compares with
//! that one before it looks anything up.

use crate::codec::rows::{Field, Kind, Slot};
use crate::codec::scan::{DEPTH_MAX, Fault, Scanned, Text, fault, span, unescape};
use crate::codec::scope::{PayloadPath, prefixes};
use crate::types::Span;
use std::collections::{BTreeMap, HashMap};

/// Finds the planned paths of a layout in payloads.
#[derive(Clone, Debug)]
pub struct Extractor {
    nodes: Vec<Node>,
    /// Paths with several meanings: the first place in `found` that holds anything wins.
    choices: Vec<Choice>,
    /// Paths that end at one key: the first is filled by the pass, the others from it.
    copies: Vec<(Target, Target)>,
    found: Vec<Field>,
    /// Every slot this extractor fills.
    slots: Vec<Slot>,
    /// The number of the record, to tell what has been seen in it.
    stamp: u32,
    extra_fields: u64,
    /// Fields of the payload that no path names, with a sample: only kept when asked.
    extras: Option<BTreeMap<Vec<u8>, Field>>,
}

/// Keys of an object that are remembered beyond the planned ones.
const KEYS_REMEMBERED: usize = 64;
/// A path of more segments has at most one literal dotted key in it: all combinations would be too many.
const SEGMENTS_MAX: usize = 8;
/// And one of more than that is a plain path or one literal key.
const SEGMENTS_WITH_A_LITERAL_MAX: usize = 64;
const NONE: u16 = u16::MAX;

/// An object on the way to planned fields.
#[derive(Clone, Debug, Default)]
struct Node {
    keys: Vec<Key>,
    by_name: HashMap<Box<[u8]>, u16>,
    /// The first key of the last object.
    first: u16,
    keys_max: usize,
}

/// A key of such an object, planned or just seen.
#[derive(Clone, Debug)]
struct Key {
    /// Its first bytes with the closing quote, and which of them count.
    head: [u8; 16],
    mask: u16,
    len: u32,
    /// Which key came after it last time.
    next: u16,
    target: Target,
    /// The node of what lies below.
    child: u16,
    /// The record it was last seen in.
    stamp: u32,
    name: Box<[u8]>,
}

/// Where a value goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    Nowhere,
    Slot(u16),
    Found(u16),
}

#[derive(Clone, Debug)]
struct Choice {
    slot: Slot,
    from: usize,
    len: usize,
}

impl Extractor {
    pub fn new(paths: &[PayloadPath]) -> Extractor {
        let mut extractor = Extractor {
            nodes: vec![Node::new()],
            choices: Vec::new(),
            copies: Vec::new(),
            found: Vec::new(),
            slots: paths.iter().map(|path| path.slot).collect(),
            stamp: 0,
            extra_fields: 0,
            extras: None,
        };
        for path in paths {
            extractor.plan(path);
        }
        for node in &mut extractor.nodes {
            node.keys_max = node.keys.len() + KEYS_REMEMBERED;
        }
        extractor
    }

    /// Validates the payload at `value` and fills the planned slots of `fields`, which were absent.
    pub fn extract(&mut self, arena: &[u8], value: Span, fields: &mut [Field]) -> Scanned<()> {
        let range = value.range();
        let text = Text::new(arena, range.end);
        self.extract_text(text, range.start, fields).map_err(|mut fault| {
            fault.at -= range.start;
            fault
        })
    }

    fn extract_text(&mut self, text: Text<'_>, start: usize, fields: &mut [Field]) -> Scanned<()> {
        self.next_stamp();
        if !self.found.is_empty() {
            self.found.fill(Field::ABSENT);
        }
        let at = text.skip_space(start);
        if text.byte(at) != b'{' {
            return not_an_object(text, at);
        }
        let at = self.object(text, 0, at, 1, fields)?;
        let at = text.skip_space(at);
        if at < text.end {
            return text.unexpected(at, "the end");
        }
        if !self.found.is_empty() || !self.copies.is_empty() {
            self.settle(fields);
        }
        Ok(())
    }

    /// Sets the planned slots to absent.
    pub fn clear(&self, fields: &mut [Field]) {
        for slot in &self.slots {
            fields[slot.0 as usize] = Field::ABSENT;
        }
    }

    /// Top-level fields seen that no path names, since this was asked last.
    pub fn take_extra_fields(&mut self) -> u64 {
        std::mem::take(&mut self.extra_fields)
    }

    /// From now on keeps the names of such fields, each with its first value that is not null.
    pub fn collect_extras(&mut self) {
        self.extras = Some(BTreeMap::new());
    }

    /// The fields kept, by name; the spans point into the arena of the last records.
    pub fn take_extras(&mut self) -> BTreeMap<Vec<u8>, Field> {
        self.extras.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn next_stamp(&mut self) {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.nodes.iter_mut().flat_map(|node| &mut node.keys).for_each(|key| key.stamp = 0);
            self.stamp = 1;
        }
    }

    /// The object that begins at `start`; the place behind it. Its own depth is `depth`.
    fn object(
        &mut self,
        text: Text<'_>,
        node: usize,
        start: usize,
        depth: u32,
        fields: &mut [Field],
    ) -> Scanned<usize> {
        let mut at = text.skip_space(start + 1);
        if text.byte(at) == b'}' {
            return Ok(at + 1);
        }
        let mut before = NONE;
        let mut guess = self.nodes[node].first;
        loop {
            if text.byte(at) != b'"' {
                return text.no_key(at);
            }
            let key_start = at + 1;
            let (key, quote) = match self.nodes[node].keys.get(guess as usize) {
                Some(key) if key.stands_at(text, key_start) => (guess, key_start + key.len as usize),
                _ => self.look_up(text, node, key_start, before)?,
            };
            at = quote + 1;
            at = if text.byte(at) == b':' { text.skip_space(at + 1) } else { text.colon(at)? };
            at = match key {
                NONE => self.extra(text, node, key_start..quote, at, depth)?,
                key => {
                    before = key;
                    guess = self.nodes[node].keys[key as usize].next;
                    self.member(text, node, key, key_start..quote, at, depth, fields)?
                }
            };
            at = text.skip_space(at);
            match text.byte(at) {
                b',' => at = text.skip_space(at + 1),
                b'}' => return Ok(at + 1),
                _ => return text.no_separator(at, true),
            }
        }
    }

    /// The value at `at` of a key that the node knows.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // one caller; a struct would be built per field
    fn member(
        &mut self,
        text: Text<'_>,
        node: usize,
        key: u16,
        written: std::ops::Range<usize>,
        at: usize,
        depth: u32,
        fields: &mut [Field],
    ) -> Scanned<usize> {
        let known = &mut self.nodes[node].keys[key as usize];
        let (target, child) = (known.target, known.child);
        if target == Target::Nowhere && child == NONE {
            return self.extra(text, node, written, at, depth);
        }
        if known.stamp == self.stamp {
            return given_twice(&known.name, written.start);
        }
        known.stamp = self.stamp;
        let (field, end) = match child {
            child if child != NONE && text.byte(at) == b'{' => {
                if depth == DEPTH_MAX {
                    return fault("too_deep", at, format!("nested deeper than {DEPTH_MAX}"));
                }
                let end = self.object(text, child as usize, at, depth + 1, fields)?;
                (Field::text(Kind::Object, span(at, end)), end)
            }
            _ => text.value(at, depth)?,
        };
        match target {
            Target::Slot(slot) => fields[slot as usize] = field,
            Target::Found(place) => self.found[place as usize] = field,
            Target::Nowhere => {}
        }
        Ok(end)
    }

    /// The value at `at` of a key that no path names.
    #[inline(always)]
    fn extra(
        &mut self,
        text: Text<'_>,
        node: usize,
        key: std::ops::Range<usize>,
        at: usize,
        depth: u32,
    ) -> Scanned<usize> {
        let (field, end) = text.value(at, depth)?;
        if node == 0 {
            self.extra_fields += 1;
            if let Some(extras) = &mut self.extras {
                keep_extra(extras, &text.bytes[key], field);
            }
        }
        Ok(end)
    }

    /// The key that begins at `start`, which is not the expected one: its number (or `NONE`) and its closing quote.
    #[inline(never)]
    fn look_up(&mut self, text: Text<'_>, node: usize, start: usize, before: u16) -> Scanned<(u16, usize)> {
        let (quote, kind) = text.string(start)?;
        let written = &text.bytes[start..quote];
        let node = &mut self.nodes[node];
        if kind == Kind::Escaped {
            // Not remembered as following: its text is not its name.
            let mut name = Vec::with_capacity(written.len());
            unescape(written, &mut name);
            return Ok((node.by_name.get(name.as_slice()).copied().unwrap_or(NONE), quote));
        }
        let key = match node.by_name.get(written) {
            Some(key) => *key,
            None if node.keys.len() < node.keys_max => node.add(written),
            None => return Ok((NONE, quote)),
        };
        match before {
            NONE => node.first = key,
            before => node.keys[before as usize].next = key,
        }
        Ok((key, quote))
    }

    fn plan(&mut self, path: &PayloadPath) {
        let meanings = meanings(&path.parts);
        if let [meaning] = meanings.as_slice() {
            return self.plan_meaning(meaning, Target::Slot(path.slot.0));
        }
        let from = self.found.len();
        for (place, meaning) in meanings.iter().enumerate() {
            self.plan_meaning(meaning, Target::Found((from + place) as u16));
        }
        self.found.resize(from + meanings.len(), Field::ABSENT);
        self.choices.push(Choice { slot: path.slot, from, len: meanings.len() });
    }

    fn plan_meaning(&mut self, keys: &[&str], target: Target) {
        let (last, way) = keys.split_last().expect("a path has at least one key");
        let mut node = 0;
        for name in way {
            let key = self.nodes[node].key_named(name.as_bytes());
            node = match self.nodes[node].keys[key].child {
                NONE => {
                    self.nodes.push(Node::new());
                    let child = self.nodes.len() - 1;
                    self.nodes[node].keys[key].child = u16::try_from(child).expect("fewer than 65535 objects");
                    child
                }
                child => child as usize,
            };
        }
        let key = self.nodes[node].key_named(last.as_bytes());
        let known = &mut self.nodes[node].keys[key];
        // `user.country`, and `country` below a selected `user`, end at the same key.
        match known.target {
            Target::Nowhere => known.target = target,
            taken => self.copies.push((taken, target)),
        }
    }

    /// Fills what does not have its value from the pass itself.
    fn settle(&mut self, fields: &mut [Field]) {
        for (from, to) in &self.copies {
            let field = match *from {
                Target::Slot(slot) => fields[slot as usize],
                Target::Found(place) => self.found[place as usize],
                Target::Nowhere => Field::ABSENT,
            };
            match *to {
                Target::Slot(slot) => fields[slot as usize] = field,
                Target::Found(place) => self.found[place as usize] = field,
                Target::Nowhere => {}
            }
        }
        for choice in &self.choices {
            let meanings = &self.found[choice.from..choice.from + choice.len];
            let best = meanings.iter().find(|field| field.kind != Kind::Absent);
            fields[choice.slot.0 as usize] = best.copied().unwrap_or(Field::ABSENT);
        }
    }
}

impl Node {
    fn new() -> Node {
        Node { first: NONE, keys_max: usize::MAX, ..Node::default() }
    }

    fn key_named(&mut self, name: &[u8]) -> usize {
        match self.by_name.get(name) {
            Some(key) => *key as usize,
            None => self.add(name) as usize,
        }
    }

    fn add(&mut self, name: &[u8]) -> u16 {
        let number = self.keys.len() as u16;
        assert!(number < NONE, "an object has fewer than 65535 planned fields");
        self.keys.push(Key::new(name));
        self.by_name.insert(name.into(), number);
        number
    }
}

impl Key {
    fn new(name: &[u8]) -> Key {
        let mut head = [0; 16];
        let kept = name.len().min(16);
        head[..kept].copy_from_slice(&name[..kept]);
        let mut compared = kept;
        if kept < 16 {
            head[kept] = b'"';
            compared += 1;
        }
        let mask = ((1u32 << compared) - 1) as u16;
        let len = name.len() as u32;
        Key { head, mask, len, next: NONE, target: Target::Nowhere, child: NONE, stamp: 0, name: name.into() }
    }

    /// Whether this key with its closing quote stands at `start`. Only names that stood in a payload without an
    /// escape are ever guessed, so what equals one is valid.
    #[inline(always)]
    fn stands_at(&self, text: Text<'_>, start: usize) -> bool {
        let end = start + self.len as usize;
        if end >= text.end {
            return false;
        }
        if let Some(chunk) = text.bytes.get(start..start + 16) {
            let chunk: &[u8; 16] = chunk.try_into().expect("sixteen bytes");
            if equal_mask(chunk, &self.head) & self.mask != self.mask {
                return false;
            }
            if self.len < 16 {
                return true;
            }
        }
        text.bytes[end] == b'"' && &text.bytes[start..end] == self.name.as_ref()
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn equal_mask(left: &[u8; 16], right: &[u8; 16]) -> u16 {
    use std::arch::x86_64::*;
    // SAFETY: SSE2 is part of x86-64, and each load reads the sixteen bytes of its array.
    unsafe {
        let left = _mm_loadu_si128(left.as_ptr().cast());
        let right = _mm_loadu_si128(right.as_ptr().cast());
        _mm_movemask_epi8(_mm_cmpeq_epi8(left, right)) as u16
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn equal_mask(left: &[u8; 16], right: &[u8; 16]) -> u16 {
    left.iter().zip(right).rev().fold(0, |mask, (left, right)| mask << 1 | (left == right) as u16)
}

/// All the ways to read a path as keys, the longest literal first at every level.
fn meanings(parts: &[String]) -> Vec<Vec<&str>> {
    let Some((first, rest)) = parts.split_first() else {
        return vec![Vec::new()];
    };
    let below = meanings(rest);
    let mut all = Vec::new();
    for head in part_meanings(first) {
        for tail in &below {
            all.push([head.as_slice(), tail].concat());
        }
    }
    all
}

fn part_meanings(part: &str) -> Vec<Vec<&str>> {
    let segments = part.matches('.').count() + 1;
    if segments > SEGMENTS_WITH_A_LITERAL_MAX {
        return vec![vec![part], part.split('.').collect()];
    }
    if segments > SEGMENTS_MAX {
        return meanings_with_one_literal(part);
    }
    let mut all = Vec::new();
    for (head, rest) in prefixes(part) {
        match rest {
            None => all.push(vec![head]),
            Some(rest) => {
                for tail in part_meanings(rest) {
                    all.push([&[head], tail.as_slice()].concat());
                }
            }
        }
    }
    all
}

/// One dotted key among plain ones, the first and the longest first; then the plain path.
fn meanings_with_one_literal(part: &str) -> Vec<Vec<&str>> {
    let plain: Vec<&str> = part.split('.').collect();
    let begins: Vec<usize> = std::iter::once(0).chain(part.match_indices('.').map(|(dot, _)| dot + 1)).collect();
    let mut all = Vec::new();
    for first in 0..plain.len() {
        for last in (first + 1..plain.len()).rev() {
            let literal = &part[begins[first]..begins[last] + plain[last].len()];
            all.push([&plain[..first], &[literal], &plain[last + 1..]].concat());
        }
    }
    all.push(plain);
    all
}

#[cold]
#[inline(never)]
fn given_twice<T>(name: &[u8], at: usize) -> Scanned<T> {
    fault("duplicate_field", at, format!("the field `{}` is given twice", String::from_utf8_lossy(name)))
}

#[cold]
#[inline(never)]
fn not_an_object(text: Text<'_>, at: usize) -> Scanned<()> {
    let (_, end) = text.value(at, 0)?;
    let end = text.skip_space(end);
    if end < text.end {
        return text.unexpected(end, "the end");
    }
    fault("not_an_object", at, "JSON, but not an object")
}

#[inline(never)]
fn keep_extra(extras: &mut BTreeMap<Vec<u8>, Field>, written: &[u8], field: Field) {
    let mut name = Vec::with_capacity(written.len());
    unescape(written, &mut name);
    let kept = extras.entry(name).or_insert(field);
    if kept.is_null() {
        *kept = field;
    }
}

impl Fault {
    /// The sentence a person reads.
    pub fn sentence(&self) -> String {
        format!("the payload is broken at byte {}: {}", self.at, self.what)
    }
}

#[cfg(test)]
mod tests;
