//! Field paths (`a.b.c`), virtual fields (`_key`) and expressions, as typed.

use crate::config::plan::{ExprText, FieldPath};
use crate::config::read::Value;

pub fn read_path(value: &Value<'_>) -> Option<FieldPath> {
    let text = value.text()?;
    let help = match text.value.as_str() {
        "" => Some("a path is written `user.name`".to_string()),
        "_headers" | "_headers." => Some("a header is written `_headers.name`".into()),
        path if path.trim() != path => Some(format!("without the spaces: `{}`", path.trim())),
        path if path.starts_with("$.") => Some(format!("without `$.`: `{}`", &path[2..])),
        path if path.starts_with("_headers.") => None,
        path if path.starts_with('`') != path.ends_with('`') || path == "`" || path == "``" => {
            Some("backticks stand around a path, or nowhere".into())
        }
        path if path.split('.').any(str::is_empty) => Some("no part of a path is empty: `user.name`".into()),
        _ => None,
    };
    match help {
        None => Some(FieldPath { text: text.value, at: text.at }),
        Some(help) => {
            value.refuse("bad_path", "takes a field path", Some(help));
            None
        }
    }
}

pub fn read_expression(value: &Value<'_>) -> Option<ExprText> {
    let text = value.scalar_text()?;
    if text.value.trim().is_empty() {
        value.refuse("empty", "takes an expression", Some("such as `amount > 0.0`".into()));
        return None;
    }
    Some(ExprText { text: text.value, at: value.text_place() })
}
