//! What semantics.md says about expressions, and agreement with the `cel` crate where both mean the same.

use super::*;
use crate::codec::extract::Extractor;
use crate::codec::scope::Selected;
use crate::types::Span;
use proptest::prelude::*;

/// The expression's value for a payload, as JSON text; errors as sentences.
fn eval(text: &str, payload: &str) -> Result<String, String> {
    let mut scope = Scope::new();
    let expr = Expr::compile(text, &mut scope).map_err(|error| format!("compile: {}", error.message))?;
    let (mut rows, row) = row_of(payload, scope);
    let field = expr.field(&mut rows, row, &mut Vec::new()).map_err(|fail| expr.sentence(&fail))?;
    let text = |field| String::from_utf8(rows.text(field).to_vec()).unwrap();
    Ok(match field.kind {
        Kind::Absent | Kind::Null => "null".to_owned(),
        Kind::True => "true".to_owned(),
        Kind::False => "false".to_owned(),
        Kind::Text | Kind::Escaped => format!("\"{}\"", text(field)),
        _ => text(field),
    })
}

fn row_of(payload: &str, scope: Scope) -> (Rows, u32) {
    let layout = scope.finish();
    let mut rows = Rows::default();
    rows.clear(layout.width);
    rows.bytes.extend_from_slice(payload.as_bytes());
    rows.fields.resize(layout.width, Field::ABSENT);
    rows.meta.push(Default::default());
    let span = Span { start: 0, len: payload.len() as u32 };
    Extractor::new(&layout.paths).extract(&rows.bytes, span, &mut rows.fields).unwrap();
    (rows, 0)
}

fn gives(text: &str, payload: &str, expected: &str) {
    assert_eq!(eval(text, payload).as_deref(), Ok(expected), "{text} on {payload}");
}

fn refused(text: &str, part: &str) {
    let error = Expr::compile(text, &mut Scope::new()).map(|_| ()).unwrap_err();
    assert!(error.message.contains(part), "{text}: {}", error.message);
}

fn fails(text: &str, payload: &str, part: &str) {
    let error = eval(text, payload).unwrap_err();
    assert!(error.contains(part) && !error.starts_with("compile"), "{text}: {error}");
}

#[test]
fn numbers_compare_by_value_across_int_uint_and_double() {
    for text in ["x == 1", "x == 1.0", "x == 1u", "x >= 1.0", "x < 1.5", "x > 0.5", "x in [2, 1.0]", "x != 2"] {
        for payload in [r#"{"x":1}"#, r#"{"x":1.0}"#, r#"{"x":1e0}"#, r#"{"x":10e-1}"#] {
            gives(text, payload, "true");
        }
    }
    gives("x == 9007199254740993", r#"{"x":9007199254740993}"#, "true");
    gives("x == 9007199254740992", r#"{"x":9007199254740993}"#, "false");
    gives("x > 9007199254740992.0", r#"{"x":9007199254740993}"#, "true");
    gives("x == 18446744073709551615u", r#"{"x":18446744073709551615}"#, "true");
    gives("x > -1", r#"{"x":18446744073709551615}"#, "true");
    gives("x == y", r#"{"x":18446744073709551616,"y":18446744073709551617}"#, "false");
    gives("x == y", r#"{"x":18446744073709551616,"y":18446744073709551616}"#, "true");
    gives("x > 1", r#"{"x":1e400}"#, "true");
}

#[test]
fn digits_behind_a_point_count_beyond_the_doubles() {
    for (number, equal) in [
        ("9007199254740993.0", "9007199254740993"),
        ("9007199254740993e0", "9007199254740993"),
        ("1.8446744073709551615e19", "18446744073709551615u"),
        ("123456789012345e5", "12345678901234500000u"),
        ("1.00000000000000000", "1"),
    ] {
        let payload = format!("{{\"x\":{number}}}");
        gives(&format!("x == {equal} && x in [0, {equal}] && x <= {equal}"), &payload, "true");
        gives(&format!("x + 0.0 == {equal} + 0.0"), &payload, "true");
    }
    gives("x == 9007199254740992 || x == 9007199254740994", r#"{"x":9007199254740993.0}"#, "false");
    gives("x > 1", r#"{"x":1.00000000000000000001}"#, "true");
    gives("x == y", r#"{"x":9007199254740993.0,"y":9007199254740992.0}"#, "false");
    gives("x == y", r#"{"x":9007199254740993.0,"y":9007199254740993}"#, "true");
    gives("x == 0.30000000000000004", r#"{"x":0.30000000000000004}"#, "true");
    gives("x == 9007199254740993.0", r#"{"x":9007199254740993.0}"#, "true");
    gives("int(x)", r#"{"x":9007199254740993.9}"#, "9007199254740993");
    gives("int(x)", r#"{"x":-9007199254740993.9}"#, "-9007199254740993");
    gives("uint(x)", r#"{"x":18446744073709551615.0}"#, "18446744073709551615");
    gives("-x", r#"{"x":1.50000000000000000}"#, "-1.5");
    gives("x / 2", r#"{"x":5.00000000000000000}"#, "2.5");
    gives("true ? x : 1", r#"{"x":0.123456789012345678901}"#, "0.123456789012345678901");
    gives("timestamp(x)", r#"{"x":1700000000.123456789}"#, "\"2023-11-14T22:13:20.123456789Z\"");
}

#[test]
fn a_member_that_is_null_is_the_same_as_none() {
    let payload = r#"{"m":{"a":1,"b":null},"n":{"a":1}}"#;
    gives("m == n && n == m && m == {'a': 1} && m == {'a': 1, 'c': null}", payload, "true");
    gives("[m] == [n] && m in [n] && {'x': m} == {'x': n}", payload, "true");
    gives("size(m) == size(n) && size({'a': null}) == 0", payload, "true");
    gives("'b' in m || 'b' in {'b': null} || has(m.b)", payload, "false");
    gives("m.map(k, k)", payload, "[\"a\"]");
    gives("[null] == [] || [1, null] == [null, 1]", payload, "false");
    gives("{'a': null}", payload, "{\"a\":null}");
}

#[test]
fn text_is_text_until_it_is_converted() {
    gives("price == 1", r#"{"price":"1"}"#, "false");
    gives("double(price) > 1.0", r#"{"price":"1.5"}"#, "true");
    fails("price > 1.0", r#"{"price":"1.5"}"#, "text and a number have no order");
    fails("double(price) > 1.0", r#"{"price":"abc"}"#, "\"abc\" is not a double");
    gives("name == \"a\\\"b\"", r#"{"name":"a\"b"}"#, "true");
    gives("name == 'ä'", r#"{"name":"\u00e4"}"#, "true");
}

#[test]
fn arithmetic_mixes_int_and_double_as_double() {
    gives("x + 0.5", r#"{"x":1}"#, "1.5");
    gives("x * 2.0", r#"{"x":1}"#, "2.0");
    gives("x / 2", r#"{"x":5}"#, "2");
    gives("x / 2", r#"{"x":5.0}"#, "2.5");
    gives("x % 3", r#"{"x":5}"#, "2");
    gives("-x", r#"{"x":5}"#, "-5");
    gives("x + 1", r#"{"x":18446744073709551614}"#, "18446744073709551615");
    fails("x + 1", r#"{"x":9223372036854775807}"#, "no 64-bit integer");
    fails("x / 0", r#"{"x":1}"#, "division by zero");
    fails("x / 0.0", r#"{"x":1}"#, "not a JSON number");
    gives("0.1 + x", r#"{"x":0.2}"#, "0.30000000000000004");
}

#[test]
fn absent_is_null_for_equality_and_an_error_for_order_and_arithmetic() {
    gives("x == null", "{}", "true");
    gives("x != null", r#"{"x":null}"#, "false");
    gives("has(a.b)", r#"{"a":{"b":null}}"#, "false");
    gives("has(a.b)", r#"{"a":{"b":0}}"#, "true");
    gives("x == 1", "{}", "false");
    fails("x > 1", "{}", "null and a number have no order");
    fails("x + 1", "{}", "there is no null + a number");
    gives("a.b.c", r#"{"a":5}"#, "null");
    gives("items[0].x", r#"{"items":[{"x":7}]}"#, "7");
    gives("items[3].x", r#"{"items":[{"x":7}]}"#, "null");
    gives("items[0]", "{}", "null");
    gives("m[\"k\"]", r#"{"m":{"k":[1,2]}}"#, "[1,2]");
    gives("x == null || x > 1", "{}", "true");
    gives("x != null && x > 1", "{}", "false");
}

#[test]
fn and_and_or_take_no_notice_of_an_error_that_does_not_decide() {
    gives("x > 1 || true", "{}", "true");
    gives("x > 1 && y", r#"{"y":false}"#, "false");
    fails("x > 1 || y", r#"{"y":false}"#, "no order");
    fails("y && z", r#"{"y":true,"z":1}"#, "a number where a boolean should be");
}

#[test]
fn functions_work_on_paths() {
    gives("s.startsWith('ab') && s.endsWith('cd') && s.contains('bc')", r#"{"s":"abcd"}"#, "true");
    gives("s.matches('^a.*d$') && matches(s, 'b')", r#"{"s":"abcd"}"#, "true");
    gives("size(s)", r#"{"s":"äöü"}"#, "3");
    gives("size(l) + l.size()", r#"{"l":[1,2]}"#, "4");
    gives("int('42') + int(1.9)", "{}", "43");
    gives("string(x) + '!'", r#"{"x":1.5}"#, "\"1.5!\"");
    gives("s.upperAscii().trim()", r#"{"s":" a "}"#, "\"A\"");
    gives("s.split(',').map(p, int(p) * 2)", r#"{"s":"1,2"}"#, "[2,4]");
    gives("s.replace('a', 'b').substring(1, 3)", r#"{"s":"aaaa"}"#, "\"bb\"");
    gives("math.abs(x) + math.greatest(x, 3)", r#"{"x":-2}"#, "5");
    fails("s.startsWith('a')", r#"{"s":5}"#, "`startsWith` does not take a number, text");
}

#[test]
fn times_and_durations_compute() {
    gives("timestamp(t) > timestamp('2024-01-01T00:00:00Z')", r#"{"t":"2024-01-01T01:00:00+00:30"}"#, "true");
    gives("timestamp(t) + duration('1h30m')", r#"{"t":"2024-01-01T00:00:00Z"}"#, "\"2024-01-01T01:30:00Z\"");
    gives("timestamp(a) - timestamp(b) == duration('1s')", r#"{"a":2,"b":1}"#, "true");
    gives("timestamp(t).getFullYear()", r#"{"t":"2024-02-29"}"#, "2024");
    gives("timestamp(t).getHours('Europe/Berlin')", r#"{"t":"2024-07-01T22:30:00Z"}"#, "0");
    gives("timestamp(t).getDayOfYear()", r#"{"t":"2024-03-01"}"#, "60");
    gives("timestamp(t).getDayOfWeek()", r#"{"t":"2024-03-03"}"#, "0");
    gives("int(timestamp(t))", r#"{"t":"1970-01-02"}"#, "86400");
    gives("duration('90s')", "{}", "\"90s\"");
    gives("duration('1.5s').getMilliseconds()", "{}", "500");
}

#[test]
fn macros_go_over_lists_and_names() {
    let payload = r#"{"l":[{"n":1},{"n":5}],"m":{"a":1,"b":2}}"#;
    gives("l.exists(e, e.n > 4)", payload, "true");
    gives("l.all(e, e.n > 4)", payload, "false");
    gives("l.exists_one(e, e.n > 4)", payload, "true");
    gives("l.map(e, e.n * 2)", payload, "[2,10]");
    gives("l.map(e, e.n > 1, e.n)", payload, "[5]");
    gives("l.filter(e, e.n > 1)", payload, r#"[{"n":5}]"#);
    gives("m.exists(k, m[k] == 2)", payload, "true");
    gives("l.all(e, l.exists(f, f.n >= e.n))", payload, "true");
    gives("l.exists(e, e.x > 1 || e.n == 5)", payload, "true");
    fails("l.exists(e, e.x > 1)", payload, "no order");
    gives("'b' in m", payload, "true");
}

#[test]
fn literals_lists_objects_and_choices_are_values() {
    gives("{'a': x, 'b': [1.0, \"q\\\"\", null]}", r#"{"x":1e2}"#, r#"{"a":100.0,"b":[1.0,"q\"",null]}"#);
    gives("x > 1 ? 'many' : 'one'", r#"{"x":2}"#, "\"many\"");
    gives("x", r#"{"x":[1, 2]}"#, "[1, 2]");
    gives("[1, 2] + l", r#"{"l":[3]}"#, "[1,2,3]");
    gives("l == [1.0, 2]", r#"{"l":[1,2.0]}"#, "true");
    gives("o == {'a': 1}", r#"{"o":{"a":1.0}}"#, "true");
}

#[test]
fn what_can_be_known_before_is_said_before() {
    refused("nothing(x)", "there is no function `nothing`");
    refused("x.size(1)", "takes 0 arguments, not 1");
    refused("startsWith(x, 'a')", "is called on a value");
    refused("x >", "");
    refused("", "empty");
    refused("1 + 'a'", "a number and text are not computed");
    refused("x + null", "anything and null");
    refused("x > null", "no order");
    refused("x.matches('(')", "");
    refused("1 / 0", "division by zero");
    refused("!size(x)", "a number where a boolean should be");
    refused("x && 'a'", "text where a boolean should be");
    assert!(Expr::compile_condition("x + 1.0 > 2.0", &mut Scope::new()).is_ok());
    for text in ["'a'", "size(x)", "[x]", "1"] {
        let error = Expr::compile_condition(text, &mut Scope::new()).map(|_| ()).unwrap_err();
        assert!(error.message.contains("a condition gives true or false"), "{text}: {}", error.message);
    }
}

#[test]
fn virtual_fields_that_are_misspelt_or_looked_into_are_refused() {
    refused("_Key == 'a'", "`_Key` is no virtual field: did you mean `_key`?");
    refused("x > 1 && _header.trace == 'a'", "did you mean `_headers.trace`?");
    refused("_headers == null", "a header is written `_headers.name`");
    refused("_headers['a' + x] == 'b'", "known before");
    refused("_headers[''] == 'b'", "a header is written `_headers.name`");
    refused("'a' in _headers", "a header is written `_headers.name`");
    refused("_key.id == 1", "`_key` has no fields");
    refused("_Headers['a'] == 'b'", "a header is written `_headers.name`");
    gives("[1].exists(_headers, _headers == 1)", "{}", "true");
}

#[test]
fn a_header_is_reached_by_point_or_index() {
    let mut scope = Scope::new();
    let index = Expr::compile("_headers[\"content-type\"] == 'a'", &mut scope).unwrap();
    let point = Expr::compile("_headers.`content-type` == 'a'", &mut scope).unwrap();
    let slot = scope.resolve("_headers.content-type").unwrap();
    let layout = scope.finish();
    assert_eq!((layout.virtuals.len(), layout.paths.len()), (1, 0));
    let mut rows = Rows::default();
    rows.clear(layout.width);
    rows.fields.resize(layout.width, Field::ABSENT);
    rows.meta.push(Default::default());
    let header = rows.append(Kind::Text, b"a");
    rows.set(0, slot, header);
    assert_eq!((index.holds(&rows, 0), point.holds(&rows, 0)), (Ok(true), Ok(true)));
}

#[test]
fn an_expression_of_very_many_operators_is_refused_with_the_way_out() {
    let many = vec!["x == 1"; 400].join(" || ");
    let error = Expr::compile(&many, &mut Scope::new()).map(|_| ()).unwrap_err();
    assert!(error.message.contains("x in [...]"), "{}", error.message);
    let list = format!("x in [{}]", vec!["'a.b + (c)'"; 5_000].join(", "));
    assert!(Expr::compile(&list, &mut Scope::new()).is_ok());
}

#[test]
fn errors_point_at_their_place() {
    let place = |text: &str| {
        let error = Expr::compile(text, &mut Scope::new()).map(|_| ()).unwrap_err();
        text.chars().skip(error.start as usize).take(error.len as usize).collect::<String>()
    };
    assert_eq!(place("x == 1 && nothing(y)"), "nothing(y)");
    assert_eq!(place("'ä' == x && (1 + 'a') == 2"), "1 + 'a'");
    let error = eval("x == 1 && y.z > 1", r#"{"x":1}"#).unwrap_err();
    assert_eq!(
        error,
        "the expression `x == 1 && y.z > 1` failed at character 11, `y.z > 1`: null and a number have no order"
    );
}

#[test]
fn a_closed_scope_knows_its_names_only() {
    let mut scope = Scope::new();
    scope.close(vec![("a".into(), Selected::Path("x".into()))]).unwrap();
    assert!(Expr::compile("a > 1 && _offset > 0", &mut scope).is_ok());
    let error = Expr::compile("a > 1 && x > 1", &mut scope).map(|_| ()).unwrap_err();
    assert!(error.message.contains("`x` is not among the selected fields: a"), "{}", error.message);
    assert_eq!((error.start, error.len), (9, 1));
}

/// Expressions over `i` (int), `d` (double), `s` (text) and `b` (boolean), typed so that CEL accepts them.
fn conditions() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        Just("i".to_owned()),
        Just("d".to_owned()),
        (-3i64..4).prop_map(|n| n.to_string()),
        (-3i64..4).prop_map(|n| format!("{n}.5")),
    ];
    let text = prop_oneof![Just("s".to_owned()), Just("'a'".to_owned()), Just("'ab'".to_owned())];
    let sign = prop_oneof![Just("<"), Just("<="), Just(">"), Just(">="), Just("=="), Just("!=")];
    let leaf = prop_oneof![
        (number.clone(), sign.clone(), number.clone()).prop_map(|(l, s, r)| format!("({l} {s} {r})")),
        (text.clone(), sign, text.clone()).prop_map(|(l, s, r)| format!("({l} {s} {r})")),
        (text.clone(), text).prop_map(|(l, r)| format!("{l}.startsWith({r})")),
        (number.clone(), number).prop_map(|(l, r)| format!("({l} in [1, {r}, 2.5])")),
        Just("b".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(l, r)| format!("({l} && {r})")),
            (inner.clone(), inner.clone()).prop_map(|(l, r)| format!("({l} || {r})")),
            inner.clone().prop_map(|e| format!("!{e}")),
            (inner.clone(), inner.clone(), inner).prop_map(|(c, l, r)| format!("({c} ? {l} : {r})")),
        ]
    })
}

proptest! {
    #[test]
    fn we_agree_with_the_interpreter_of_the_cel_crate(
        text in conditions(), i in -3i64..4, d in -3i64..4, s in "[ab]{0,2}", b in any::<bool>()
    ) {
        let program = cel::Program::compile(&text).unwrap();
        let mut context = cel::Context::default();
        context.add_variable_from_value("i", i);
        context.add_variable_from_value("d", d as f64 / 2.0);
        context.add_variable_from_value("s", s.clone());
        context.add_variable_from_value("b", b);
        if let Ok(cel::Value::Bool(expected)) = program.execute(&context) {
            let payload = format!(r#"{{"i":{i},"d":{:?},"s":"{s}","b":{b}}}"#, d as f64 / 2.0);
            prop_assert_eq!(eval(&text, &payload), Ok(expected.to_string()), "{} on {}", text, payload);
        }
    }
}
