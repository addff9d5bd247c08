//! What a broken payload is, which value a path means, and agreement with serde_json.

use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn paths(list: &[&str]) -> Vec<PayloadPath> {
    let path = |(slot, text): (usize, &&str)| PayloadPath { parts: vec![text.to_string()], slot: Slot(slot as u16) };
    list.iter().enumerate().map(path).collect()
}

/// What the paths hold, as (kind, text); the payload stands in the middle of an arena.
fn extract(list: &[&str], payload: &[u8]) -> Result<Vec<(Kind, String)>, Fault> {
    Extractor::new(&paths(list)).run(list.len(), payload)
}

impl Extractor {
    fn run(&mut self, width: usize, payload: &[u8]) -> Result<Vec<(Kind, String)>, Fault> {
        let mut plain = None;
        for behind in ["", "\"}]:0123456789abcdef"] {
            let arena = [b"xyz", payload, behind.as_bytes()].concat();
            let mut fields = vec![Field::ABSENT; width];
            let span = Span { start: 3, len: payload.len() as u32 };
            let result = self.extract(&arena, span, &mut fields).map_err(|fault| *fault).map(|()| {
                let text = |field: &Field| match field.kind {
                    Kind::Absent | Kind::Null | Kind::True | Kind::False => String::new(),
                    _ => String::from_utf8(arena[field.span().range()].to_vec()).unwrap(),
                };
                fields.iter().map(|field| (field.kind, text(field))).collect()
            });
            if let Some(plain) = &plain {
                assert_eq!(plain, &result, "what lies behind a payload must not matter");
            }
            plain = Some(result);
        }
        plain.expect("ran twice")
    }
}

fn broken(payload: impl AsRef<[u8]>, reason: &str, at: usize) {
    let fault = extract(&["a", "n.b"], payload.as_ref()).unwrap_err();
    let shown = String::from_utf8_lossy(payload.as_ref()).into_owned();
    assert_eq!((fault.reason, fault.at), (reason, at), "{shown}: {}", fault.what);
}

#[test]
fn fields_are_found_with_their_kinds() {
    let payload =
        br#" { "s" : "x" , "e":"a\n", "n":-1.5e+3,"t":true,"f":false,"z":null,"l":[1,{"q":[]}],"o":{"p":{}} } "#;
    let found = extract(&["s", "e", "n", "t", "f", "z", "l", "o", "gone", "o.p"], payload).unwrap();
    let expected = [
        (Kind::Text, "x"),
        (Kind::Escaped, "a\\n"),
        (Kind::Number, "-1.5e+3"),
        (Kind::True, ""),
        (Kind::False, ""),
        (Kind::Null, ""),
        (Kind::Array, r#"[1,{"q":[]}]"#),
        (Kind::Object, r#"{"p":{}}"#),
        (Kind::Absent, ""),
        (Kind::Object, "{}"),
    ];
    let found: Vec<(Kind, &str)> = found.iter().map(|(kind, text)| (*kind, text.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_literal_dotted_key_wins_over_the_path_at_every_level() {
    let value = |payload: &str| extract(&["a.b.c"], payload.as_bytes()).unwrap()[0].1.clone();
    assert_eq!(value(r#"{"a":{"b":{"c":1}},"a.b":{"c":2},"a.b.c":3}"#), "3");
    assert_eq!(value(r#"{"a":{"b":{"c":1}},"a.b":{"c":2}}"#), "2");
    assert_eq!(value(r#"{"a":{"b":{"c":1},"b.c":2}}"#), "2");
    assert_eq!(value(r#"{"a":{"b":{"c":1}}}"#), "1");
    assert_eq!(value(r#"{"a":5}"#), "");
}

#[test]
fn a_literal_dotted_key_wins_in_a_long_path_too() {
    let value = |payload: &str| extract(&["a.b.c.d.e.f.g.h.i.j"], payload.as_bytes()).unwrap()[0].1.clone();
    let plain = r#""b":{"c":{"d":{"e":{"f":{"g":{"h":{"i":{"j":1}}}}}}}}"#;
    assert_eq!(value(&format!(r#"{{"a":{{{plain}}}}}"#)), "1");
    assert_eq!(value(&format!(r#"{{"a":{{{plain}}},"a.b.c.d.e.f.g.h":{{"i":{{"j":2}}}}}}"#)), "2");
    assert_eq!(value(&format!(r#"{{"a":{{{plain},"b.c.d.e.f.g.h.i.j":3}}}}"#)), "3");
    assert_eq!(value(&format!(r#"{{"a":{{{plain}}},"a.b":{{"c":0}},"a.b.c.d.e.f.g.h.i.j":4}}"#)), "4");
}

#[test]
fn broken_payloads_are_told_by_reason_and_place() {
    broken("", "not_json", 0);
    broken("[1]", "not_an_object", 0);
    broken(" 5 ", "not_an_object", 1);
    broken("nothing", "not_json", 0);
    broken(r#"{"a":1"#, "not_json", 6);
    broken(r#"{"a":"x"#, "not_json", 7);
    broken(r#"{"a":1} x"#, "not_json", 8);
    broken(r#"{"a":1}{}"#, "not_json", 7);
    broken(r#"{"a":1,}"#, "not_json", 7);
    broken(r#"{"a" 1}"#, "not_json", 5);
    broken(r#"{a:1}"#, "not_json", 1);
    broken(r#"{"a":NaN}"#, "not_json", 5);
    broken(r#"{"x":Infinity}"#, "not_json", 5);
    broken(r#"{"x":-Infinity}"#, "not_json", 5);
    broken(r#"{"x":01}"#, "not_json", 5);
    broken(r#"{"x":+1}"#, "not_json", 5);
    broken(r#"{"x":1.}"#, "not_json", 7);
    broken(r#"{"x":.5}"#, "not_json", 5);
    broken(r#"{"x":1e}"#, "not_json", 7);
    broken(r#"{"x":-}"#, "not_json", 5);
    broken(r#"{"x":tru}"#, "not_json", 5);
    broken(r#"{"x":"\x"}"#, "not_json", 6);
    broken(r#"{"x":"\u12g4"}"#, "not_json", 10);
    broken("{\"x\":\"a\tb\"}", "not_json", 7);
    broken(r#"{"x":[1,2}"#, "not_json", 9);
    broken(r#"{"x":[1,]}"#, "not_json", 8);
    broken(r#"{"x":{"y":1]}"#, "not_json", 11);
    broken(r#"{"x":"\ud800"}"#, "lone_surrogate", 6);
    broken(r#"{"x":"\ud800\u0041"}"#, "lone_surrogate", 6);
    broken(r#"{"x":"\udc00"}"#, "lone_surrogate", 6);
    broken(b"{\"x\":\"ab\xff\"}", "invalid_utf8", 8);
    broken(b"{\"x\":\"\xed\xa0\x80\"}", "invalid_utf8", 6);
    broken(b"{\"x\xc3\":1}", "invalid_utf8", 3);
    broken(b"{\"x\":1}\0", "not_json", 7);
    assert!(extract(&["a"], br#"{"x":"\ud83d\ude00","a":"\u0000"}"#).is_ok());
}

#[test]
fn nesting_ends_at_128() {
    let nested =
        |open: &str, close: &str, depth: usize| format!(r#"{{"x":{}1{}}}"#, open.repeat(depth), close.repeat(depth));
    assert!(extract(&["a"], nested("[", "]", 127).as_bytes()).is_ok());
    assert!(extract(&["x"], nested("[", "]", 127).as_bytes()).is_ok());
    broken(nested("[", "]", 128), "too_deep", 5 + 127);
    broken(nested(r#"{"k":"#, "}", 128), "too_deep", 5 + 127 * 5);
    broken(nested("[", "]", 100_000), "too_deep", 5 + 127);
}

#[test]
fn a_used_field_given_twice_is_broken_and_an_unused_one_is_not() {
    broken(r#"{"a":1,"a":1}"#, "duplicate_field", 8);
    broken(r#"{"a":1,"\u0061":1}"#, "duplicate_field", 8);
    broken(r#"{"\u0061":1,"a":1}"#, "duplicate_field", 13);
    broken(r#"{"n":{"c":1},"n":{"b":2}}"#, "duplicate_field", 14);
    broken(r#"{"n":{"b":1,"b":2}}"#, "duplicate_field", 13);
    broken(r#"{"n":5,"n":{"b":2}}"#, "duplicate_field", 8);
    assert!(extract(&["a", "n.b"], br#"{"x":1,"x":2,"a":1,"n":{"c":1,"c":2,"b":1}}"#).is_ok());
    assert_eq!(extract(&["a"], br#"{"\u0061":7}"#).unwrap()[0].1, "7");
}

#[test]
fn records_of_other_shapes_do_not_disturb_each_other() {
    let mut extractor = Extractor::new(&paths(&["a", "b", "long_name_of_a_field"]));
    let texts = [
        (r#"{"a":1,"b":2,"long_name_of_a_field":3}"#, ["1", "2", "3"]),
        (r#"{"long_name_of_a_field":3,"b":2,"a":1}"#, ["1", "2", "3"]),
        (r#"{"a":1,"long_name_of_a_fielD":3}"#, ["1", "", ""]),
        (r#"{"ab":1,"b":2}"#, ["", "2", ""]),
        (r#"{}"#, ["", "", ""]),
        (r#"{"a":1,"b":2,"long_name_of_a_field":3}"#, ["1", "2", "3"]),
    ];
    for _ in 0..3 {
        for (payload, expected) in texts {
            let found = extractor.run(3, payload.as_bytes()).unwrap();
            let found: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!(found, expected, "{payload}");
        }
    }
}

#[test]
fn fields_that_no_path_names_are_counted_and_kept_when_asked() {
    let mut extractor = Extractor::new(&paths(&["a"]));
    extractor.collect_extras();
    let payload = br#"{"a":1,"x":null,"y":"v","n":{"q":1},"\u007a":0}"#;
    let span = Span { start: 0, len: payload.len() as u32 };
    extractor.extract(payload, span, &mut [Field::ABSENT]).unwrap();
    assert_eq!(extractor.take_extra_fields(), 4);
    let extras = extractor.take_extras();
    let names: Vec<&[u8]> = extras.keys().map(Vec::as_slice).collect();
    assert_eq!(names, [b"n".as_slice(), b"x", b"y", b"z"]);
}

fn json() -> impl Strategy<Value = Value> {
    let name = prop_oneof!["[abc]", "[ab]\\.[ab]", any::<String>()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Quarters only: serde_json reads other fractions a digit off.
        any::<i32>().prop_map(|quarters| Value::from(quarters as f64 / 4.0)),
        any::<String>().prop_map(Value::from),
        "[a-z]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

/// The meaning of a path, as the specification has it.
fn meaning<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    let object = value.as_object()?;
    if let Some(found) = object.get(path) {
        return Some(found);
    }
    path.rmatch_indices('.').find_map(|(dot, _)| meaning(object.get(&path[..dot])?, &path[dot + 1..]))
}

fn as_value(kind: Kind, text: &str) -> Option<Value> {
    match kind {
        Kind::Absent => None,
        Kind::Null => Some(Value::Null),
        Kind::True => Some(Value::Bool(true)),
        Kind::False => Some(Value::Bool(false)),
        Kind::Text | Kind::Escaped => Some(serde_json::from_str(&format!("\"{text}\"")).unwrap()),
        _ => Some(serde_json::from_str(text).unwrap()),
    }
}

proptest! {
    #[test]
    fn what_is_found_is_what_serde_json_finds(
        documents in prop::collection::vec(prop::collection::vec(("[abc]|[ab]\\.[ab]|\\PC*", json()), 0..6), 1..4),
        pretty in any::<bool>(),
    ) {
        let list = ["a", "b", "a.b", "a.b.c", "c.a"];
        let mut extractor = Extractor::new(&paths(&list));
        for entries in documents {
            let document: Value = entries.into_iter().collect();
            let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
            let found = extractor.run(list.len(), text.unwrap().as_bytes()).unwrap();
            for (path, (kind, text)) in list.iter().zip(&found) {
                let found = as_value(*kind, text);
                prop_assert_eq!(found.as_ref(), meaning(&document, path), "{}", path);
            }
        }
    }

    #[test]
    fn what_is_refused_is_what_serde_json_refuses(document in json(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = serde_json::to_vec(&Value::from_iter([("v", document)])).unwrap();
        let at = cut.index(text.len());
        text[at] = byte;
        let theirs = serde_json::from_slice::<Value>(&text);
        let ours = extract(&["zz"], &text);
        // serde_json also refuses numbers beyond f64, which are JSON.
        let out_of_range = theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
        if !out_of_range {
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", String::from_utf8_lossy(&text), ours);
        }
    }

    #[test]
    fn escaping_and_back_gives_the_text(text in any::<String>()) {
        let mut escaped = Vec::new();
        crate::codec::scan::escape(&text, &mut escaped);
        let mut back = Vec::new();
        unescape(&escaped, &mut back);
        prop_assert_eq!(back, text.as_bytes());
        let quoted = serde_json::to_string(&text).unwrap();
        back = Vec::new();
        unescape(&quoted.as_bytes()[1..quoted.len() - 1], &mut back);
        prop_assert_eq!(back, text.as_bytes());
    }
}
