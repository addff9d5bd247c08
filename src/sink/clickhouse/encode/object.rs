//! Objects for JSON columns: sent as text and parsed by the server, so what the server would refuse is found here.
//!
//! Measured: ClickHouse refuses a path that is given twice (also `{"a":{"b":1},"a.b":2}`), and a number beyond the
//! range of a double. One such row would hold up its whole block for ever.

use super::Misfit;
use super::json::{Elements, Pairs, Value};
use super::leaf::Leaf;
use std::collections::HashSet;

/// What an object must hold to be taken by a JSON column.
#[derive(Clone, Debug, Default)]
pub struct JsonRule {
    /// Paths whose type the column declares.
    pub typed_paths: Vec<(String, Leaf)>,
}

impl JsonRule {
    pub fn check(&self, object: &[u8]) -> Result<(), Misfit> {
        let mut walk = Walk { rule: self, path: String::new(), seen: HashSet::new() };
        walk.object(object)
    }
}

struct Walk<'r> {
    rule: &'r JsonRule,
    /// The path of the object that is walked, dots between the names.
    path: String,
    seen: HashSet<String>,
}

impl Walk<'_> {
    fn object(&mut self, text: &[u8]) -> Result<(), Misfit> {
        let mut pairs = Pairs::of(text);
        let mut names = HashSet::new();
        while let Some((name, value)) = pairs.next()? {
            let name = plain(name)?;
            let parent_len = self.path.len();
            if parent_len > 0 {
                self.path.push('.');
            }
            self.path.push_str(&name);
            if !names.insert(name) {
                return Err(Misfit::GivenTwice);
            }
            self.value(value)?;
            self.path.truncate(parent_len);
        }
        Ok(())
    }

    fn value(&mut self, value: Value<'_>) -> Result<(), Misfit> {
        if let Value::Object(text) = value {
            return self.object(text);
        }
        if !self.seen.insert(self.path.clone()) {
            return Err(Misfit::GivenTwice);
        }
        if let Some((_, leaf)) = self.rule.typed_paths.iter().find(|(path, _)| *path == self.path)
            && !value.is_null()
        {
            leaf.put(value, &mut Vec::new())?;
        }
        in_array(value)
    }
}

/// Checks what stands in arrays: objects there are JSON values of their own.
fn in_array(value: Value<'_>) -> Result<(), Misfit> {
    match value {
        Value::Array(text) => {
            let mut elements = Elements::of(text);
            while let Some(element) = elements.next()? {
                in_array(element)?;
            }
            Ok(())
        }
        Value::Object(text) => JsonRule::default().check(text),
        Value::Number(text) => crate::codec::number::to_f64(text).map(|_| ()).map_err(Misfit::from),
        _ => Ok(()),
    }
}

fn plain(name: Value<'_>) -> Result<String, Misfit> {
    let bytes = name.meant().ok_or(Misfit::Broken)?.into_owned();
    String::from_utf8(bytes).map_err(|_| Misfit::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_would_refuse_is_found() {
        let rule = JsonRule { typed_paths: vec![("t.u".to_owned(), Leaf::U8)] };
        for good in [
            r#"{}"#,
            r#"{"a":1,"b":{"c":[1,{"b":2},null]},"":1}"#,
            r#"{"a":123456789012345678901234567890}"#,
            r#"{"t":{"u":255}}"#,
            r#"{"t":{"u":null}}"#,
        ] {
            assert_eq!(rule.check(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, why) in [
            (r#"{"a":1,"a":2}"#, Misfit::GivenTwice),
            (r#"{"a":1,"\u0061":2}"#, Misfit::GivenTwice),
            (r#"{"a":{"b":1},"a.b":2}"#, Misfit::GivenTwice),
            (r#"{"a":{},"a":{}}"#, Misfit::GivenTwice),
            (r#"{"a":{"b":1},"a":5}"#, Misfit::GivenTwice),
            (r#"{"a":[{"b":1,"b":2}]}"#, Misfit::GivenTwice),
            (r#"{"a":1e400}"#, Misfit::OutOfRange),
            (r#"{"t":{"u":256}}"#, Misfit::OutOfRange),
            (r#"{"t.u":"x"}"#, Misfit::Kind),
        ] {
            assert_eq!(rule.check(bad.as_bytes()), Err(why), "{bad}");
        }
    }
}
