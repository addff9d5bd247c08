//! Arbitrary bytes and texts never break the codec. `cargo test` runs each target briefly; `cargo bolero` longer.

use weir::codec::expr::Expr;
use weir::codec::extract::Extractor;
use weir::codec::number::{Decimal, compare, to_f64, to_i128, to_i256};
use weir::codec::rows::{Field, Kind, Rows, Slot};
use weir::codec::scope::{PayloadPath, Scope};
use weir::codec::time::{Unit, parse_epoch, parse_iso};
use weir::types::Span;

fn extractor() -> Extractor {
    let path = |(slot, text): (usize, &str)| PayloadPath { parts: vec![text.to_owned()], slot: Slot(slot as u16) };
    Extractor::new(&["a", "b.c", "d.e.f"].into_iter().enumerate().map(path).collect::<Vec<_>>())
}

#[test]
fn extraction_takes_any_bytes() {
    bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
        let payload = [b"{\"a\":", bytes, b"}"].concat();
        for text in [bytes, &payload] {
            let mut fields = [Field::ABSENT; 3];
            let span = Span { start: 0, len: text.len() as u32 };
            if extractor().extract(text, span, &mut fields).is_ok() {
                // What passes is JSON; serde_json takes it too, but for numbers beyond its floats.
                let theirs = serde_json::from_slice::<serde_json::Value>(text);
                assert!(theirs.is_ok() || theirs.is_err_and(|error| error.to_string().contains("out of range")));
            }
        }
    });
}

#[test]
fn numbers_and_times_take_any_bytes() {
    bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
        let parsed = Decimal::parse(bytes).is_some();
        assert_eq!(compare(bytes, bytes).is_some(), parsed);
        assert!(parsed || (to_i128(bytes).is_err() && to_i256(bytes).is_err()));
        let _ = (to_f64(bytes), parse_iso(bytes), parse_epoch(bytes, Unit::Seconds));
    });
}

#[test]
fn expressions_take_any_bytes_that_are_text() {
    bolero::check!().with_iterations(5_000).for_each(|bytes: &[u8]| {
        if let Err(error) = Expr::compile(&String::from_utf8_lossy(bytes), &mut Scope::new()) {
            assert!(!error.message.is_empty());
        }
    });
}

#[test]
fn expressions_without_end_are_read_or_refused() {
    for (begin, piece) in [
        ("", "("),
        ("", "["),
        ("", "{1:"),
        ("", "a("),
        ("", "a?a:"),
        ("1", "+1"),
        ("a", ".a"),
        ("a", "[0]"),
        ("a", "||a"),
    ] {
        for times in [90, 240, 1_000, 20_000] {
            let text = format!("{begin}{}", piece.repeat(times));
            let refused = Expr::compile(&text, &mut Scope::new()).is_err();
            assert!(refused || !begin.is_empty(), "{piece} {times} times");
        }
    }
    for sign in ["!", "-"] {
        drop(Expr::compile(&format!("{}a", sign.repeat(20_000)), &mut Scope::new()));
    }
}

#[test]
fn expressions_take_any_text() {
    let words = [
        "a",
        "b.c",
        "1",
        "2.5",
        "'x'",
        "null",
        "true",
        "==",
        "<",
        "+",
        "-",
        "*",
        "/",
        "%",
        "&&",
        "||",
        "!",
        "(",
        ")",
        "[",
        "]",
        "?",
        ":",
        ",",
        ".size()",
        ".map(v, v)",
        ".exists(v, v > 1)",
        "in",
        "has(a.b)",
        "timestamp(a)",
        "int(",
        "{",
    ];
    let payload = br#"{"a":{"b":[1,2]},"b":{"c":"x"}}"#;
    bolero::check!().with_iterations(2_000).for_each(|bytes: &[u8]| {
        let text: Vec<&str> = bytes.iter().take(12).map(|byte| words[*byte as usize % words.len()]).collect();
        let mut scope = Scope::new();
        let Ok(expr) = Expr::compile(&text.join(" "), &mut scope) else { return };
        let layout = scope.finish();
        let mut rows = Rows::default();
        rows.clear(layout.width);
        rows.bytes.extend_from_slice(payload);
        rows.fields.resize(layout.width, Field::ABSENT);
        let span = Span { start: 0, len: payload.len() as u32 };
        Extractor::new(&layout.paths).extract(&rows.bytes, span, &mut rows.fields).expect("the payload is JSON");
        match expr.field(&mut rows, 0, &mut Vec::new()) {
            Ok(field) => assert_ne!(field.kind, Kind::Absent),
            Err(fail) => assert!(!expr.sentence(&fail).is_empty()),
        }
    });
}
