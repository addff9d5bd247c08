//! Which parts of a document are not to be shown.
//!
//! Owns the masks that lie over source lines in a report. Errs on the side of hiding.

use super::node::{self, Content, Entry, Node, Scalar};
use std::collections::BTreeMap;

/// Per line (1-based), half-open column ranges (0-based characters) that are hidden.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Masks {
    lines: BTreeMap<u32, Vec<(usize, usize)>>,
}

const WHOLE: usize = usize::MAX;

impl Masks {
    /// The masks of a document; of one that is not YAML, what looks like a secret.
    pub fn of(text: &str) -> Masks {
        let mut masks = Masks::default();
        if let (Some(node), _) = node::read(text) {
            masks.hide_in(&node);
        }
        masks
    }

    /// The hidden ranges of a line, sorted.
    pub fn of_line(&self, number: u32, line: &str) -> Vec<(usize, usize)> {
        let mut ranges = self.lines.get(&number).cloned().unwrap_or_default();
        let chars: Vec<char> = line.chars().collect();
        ranges.extend(values_of_secret_keys(&chars));
        ranges.extend(credentials_on_a_line(&chars));
        ranges.extend(secret_parameters(&chars, |c| c.is_whitespace() || matches!(c, '"' | '\'')));
        for range in &mut ranges {
            range.1 = range.1.min(chars.len());
        }
        ranges.retain(|(start, end)| start < end);
        ranges.sort_unstable();
        ranges
    }

    fn hide_in(&mut self, node: &Node) {
        match &node.content {
            Content::Scalar(scalar) => self.hide_parts(node, scalar),
            Content::List(items) => items.iter().for_each(|item| self.hide_in(item)),
            Content::Map(entries) => {
                for entry in entries {
                    self.hide_key(entry);
                    match is_secret_name(&entry.key) {
                        true => self.hide_all(&entry.value),
                        false => self.hide_in(&entry.value),
                    }
                }
            }
        }
    }

    /// An address where a key should be.
    fn hide_key(&mut self, entry: &Entry) {
        if !secret_parts(&entry.key.chars().collect::<Vec<char>>()).is_empty() {
            let start = entry.key_at.column as usize - 1;
            let range = (start, start + entry.key_at.len as usize);
            self.lines.entry(entry.key_at.line).or_default().push(range);
        }
    }

    fn hide_all(&mut self, node: &Node) {
        match &node.content {
            Content::Scalar(scalar) => self.hide(node, scalar),
            Content::List(items) => items.iter().for_each(|item| self.hide_all(item)),
            Content::Map(entries) => entries.iter().for_each(|entry| self.hide_all(&entry.value)),
        }
    }

    /// Hides what is secret inside of a text, or all of it where its letters do not stand there one by one.
    fn hide_parts(&mut self, node: &Node, scalar: &Scalar) {
        let chars: Vec<char> = scalar.text.chars().collect();
        let parts = secret_parts(&chars);
        match scalar.text_at {
            _ if parts.is_empty() => {}
            Some(at) => {
                let from = at.column as usize - 1;
                let places = parts.into_iter().map(|(start, end)| (from + start, from + end));
                self.lines.entry(at.line).or_default().extend(places);
            }
            None => self.hide(node, scalar),
        }
    }

    fn hide(&mut self, node: &Node, scalar: &Scalar) {
        if is_bare_variable(&scalar.text) {
            return;
        }
        let start = node.at.column as usize - 1;
        let end = if scalar.line_end > node.at.line { WHOLE } else { start + node.at.len as usize };
        self.lines.entry(node.at.line).or_default().push((start, end));
        for line in node.at.line + 1..=scalar.line_end {
            self.lines.entry(line).or_default().push((0, WHOLE));
        }
    }
}

/// A key as it may be shown: `password:hunter2`, where the blank behind the colon was forgotten, is one.
pub fn shown_key(key: &str) -> String {
    match key.split_once(':') {
        Some((head, rest)) if is_secret_name(head) && !is_bare_variable(rest.trim()) => format!("{head}:…"),
        _ => without_credentials(key),
    }
}

/// The text of a scalar without what stands before an `@` in a URL or address, and without secret parameters.
pub fn without_credentials(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut shown = String::new();
    let mut at = 0;
    for (start, end) in secret_parts(&chars) {
        shown.extend(&chars[at..start]);
        shown.push('…');
        at = end;
    }
    shown.extend(&chars[at..]);
    shown
}

/// Whether a key of this name, or one a slip away, holds a secret.
fn is_secret_name(key: &str) -> bool {
    const PARTS: &[&str] = &["password", "passwd", "passphrase", "secret", "token", "credential", "api_key", "key.pem"];
    let key = key.to_ascii_lowercase();
    let last = key.rsplit(['.', '_']).next().unwrap_or(&key);
    PARTS.iter().any(|part| key.contains(part))
        || strsim::damerau_levenshtein(last, "password") <= 2
        || strsim::damerau_levenshtein(last, "token") <= 1
        || key.contains("jaas")
}

/// `${NAME}` alone says nothing.
fn is_bare_variable(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'));
    name.is_some_and(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

/// What follows `password:` on a line, up to the end of the value.
fn values_of_secret_keys(chars: &[char]) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    for colon in (0..chars.len()).filter(|i| chars[*i] == ':') {
        let is_key = |c: &&char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let before: Vec<&char> =
            chars[..colon].iter().rev().skip_while(|c| matches!(c, '"' | '\'' | ' ')).take_while(is_key).collect();
        let key: String = before.into_iter().rev().collect();
        let start = colon + 1 + chars[colon + 1..].iter().take_while(|c| **c == ' ').count();
        if key.is_empty() || !is_secret_name(&key) || start >= chars.len() {
            continue;
        }
        let mut end = value_end(chars, start);
        while chars[start..end].last().is_some_and(|c| c.is_whitespace()) {
            end -= 1;
        }
        let value: String = chars[start..end].iter().collect();
        if !is_bare_variable(value.trim_matches(['"', '\'', ' '])) {
            ranges.push((start, end));
        }
    }
    ranges
}

fn value_end(chars: &[char], start: usize) -> usize {
    let quote = chars[start];
    if quote == '"' || quote == '\'' {
        let mut escaped = false;
        for (i, c) in chars.iter().enumerate().skip(start + 1) {
            if *c == quote && !escaped {
                return i + 1;
            }
            escaped = *c == '\\' && !escaped;
        }
        return chars.len();
    }
    // A plain value may hold `,` and `}` outside of braces; the tree knows better, if there is one.
    let mut braces = 0;
    for (i, c) in chars.iter().enumerate().skip(start) {
        match c {
            '{' => braces += 1,
            '}' if braces > 0 => braces -= 1,
            ',' | '}' if braces == 0 => return i,
            _ => {}
        }
    }
    chars.len()
}

/// What is secret inside of a text that stands alone, in order and apart from each other. A password may hold every
/// character that an address is divided by.
fn secret_parts(chars: &[char]) -> Vec<(usize, usize)> {
    let credentials = chars.iter().rposition(|c| *c == '@').and_then(|at| {
        let host = chars.windows(3).position(|window| window == SCHEME_END).map(|i| i + SCHEME_END.len());
        let start = host.filter(|start| *start <= at);
        let address = &chars[start.unwrap_or(0)..at];
        let is_address = start.is_some() || (address.contains(&':') && !address.contains(&' '));
        (is_address && !address.is_empty()).then(|| (start.unwrap_or(0), at))
    });
    let behind = credentials.map_or(0, |(_, end)| end);
    let parameters = secret_parameters(chars, |_| false);
    credentials.into_iter().chain(parameters.into_iter().find(|(start, _)| *start >= behind)).collect()
}

const SCHEME_END: [char; 3] = [':', '/', '/'];

/// What follows `password=`, up to a character that ends it.
fn secret_parameters(chars: &[char], ends: impl Fn(char) -> bool) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    for equals in (0..chars.len()).filter(|i| chars[*i] == '=') {
        let is_name = |c: &&char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let before: Vec<&char> = chars[..equals].iter().rev().take_while(is_name).collect();
        let name: String = before.into_iter().rev().collect();
        let start = equals + 1;
        let is_comparison = chars.get(start) == Some(&'=');
        let end = chars[start..].iter().position(|c| ends(*c)).map_or(chars.len(), |len| start + len);
        let value: String = chars[start..end].iter().collect();
        if start < end && !is_comparison && is_secret_name(&name) && !is_bare_variable(&value) {
            ranges.push((start, end));
        }
    }
    ranges
}

/// `user:password` in `://user:password@host`, on a line of whatever.
fn credentials_on_a_line(chars: &[char]) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    for at in (0..chars.len()).filter(|i| chars[*i] == '@') {
        let start = chars[..at].iter().rposition(|c| c.is_whitespace() || matches!(c, '"' | '\'' | '[' | '{'));
        let start = start.map_or(0, |i| i + 1);
        let host = chars[start..at].windows(3).position(|window| window == SCHEME_END);
        let start = host.map_or(start, |i| start + i + SCHEME_END.len());
        if chars[start..at].contains(&':') {
            ranges.push((start, at));
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document with its masks drawn.
    fn drawn(text: &str) -> String {
        let masks = Masks::of(text);
        let line = |(i, line): (usize, &str)| {
            let mut chars: Vec<char> = line.chars().collect();
            for (start, end) in masks.of_line(i as u32 + 1, line) {
                chars[start..end].fill('*');
            }
            chars.into_iter().collect::<String>()
        };
        text.lines().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn passwords_and_tokens_are_hidden_however_they_are_written() {
        for text in [
            "password: hunter2",
            "{\"user\": \"u\", \"password\": \"hunter2\"}",
            "sasl: { mechanism: plain, password: hunter2, username: u }",
            "pasword: hunter2",
            "http: { token: 'hunter2' }",
            "ssl.key.password: hunter2",
            "sasl.password: \"x, hunter2\"",
            "password: |\n  hunter2\n  more hunter2\nuser: u",
            "password: \"a\n  hunter2\"",
            "url: http://u:hunter2@host:8123",
            "password: ${PW:-hunter2}",
            "a: &p hunter2\npassword: *p",
            "{ password: hunter2, broken",
            "url: \"http://u:hunt,hunter2@h:8123\"",
            "url: \"http://u:hunt/hunter2@h:8123\"",
            "url: \"http://u:hunt hunter2@h:8123\"",
            "url: 'http://u:@hunter2@h:8123'",
            "url: http://hunter2@h:8123",
            "urls: [\"http://a:1\", \"http://u:[hunter2@h:8123\"]",
            "brokers: [\"u:hunt,hunter2@k:1\"]",
            "brokers: \"u:hunt/hunter2@k:1, v:2\"",
            "url: \"http://h:8123/?user=default&password=hunter2\"",
            "url: \"http://h:8123/?password=a&hunter2&user=default\"",
            "url: http://h:8123/?access_token=hunter2#x",
            "url: \"http://h:8123/\\x3fpassword=hunter2\"",
            "url: \"${URL:-http://u:hunter2@h}\"",
            "url: >-\n  http://u:hunter2@h",
            "option: user=u secret=hunter2",
            "password:\n  - hunter2",
            "password:\n  of: { it: hunter2 }",
            "a: { password:hunter2, b: c }",
            "broken: [ http://u:hunter2,hunter2@h",
            "broken: [ http://h/?password=hunter2",
            "password: hunter2 \n bad: [",
        ] {
            assert!(!drawn(text).contains("hunter2"), "{}", drawn(text));
        }
    }

    #[test]
    fn what_is_no_secret_stays_readable() {
        for text in [
            "user: u, name: x",
            "password: ${CLICKHOUSE_PASSWORD}",
            "key: user_id",
            "cert: a.pem",
            "a: b@c",
            "f: token==\"a\"",
            "url: http://h/?password=${PW}",
        ] {
            assert_eq!(drawn(text), text);
        }
    }

    #[test]
    fn credentials_in_addresses_are_cut_out() {
        assert_eq!(without_credentials("http://u:p@h:1,x"), "http://…@h:1,x");
        assert_eq!(without_credentials("u:a,b/c@d@h:1"), "…@h:1");
        assert_eq!(without_credentials("http://u:p@h/?password=a&b=c"), "http://…@h/?password=…");
        assert_eq!((shown_key("password:hunter2"), shown_key("a:b")), ("password:…".into(), "a:b".into()));
        assert_eq!(without_credentials("no credentials"), "no credentials");
    }
}
