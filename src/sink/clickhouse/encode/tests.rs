//! The value table of `semantics.md`, line by line, and what the builder promises.

use super::*;
use crate::codec::rows::{Field, Kind, RowMeta};
use crate::config::plan::ColumnUnit;

/// A binding of a column of that type to slot 0.
pub fn binding(name: &str, type_text: &str, slot: u16) -> Binding {
    Binding {
        name: name.to_owned(),
        type_text: type_text.to_owned(),
        of: Type::parse(type_text).unwrap(),
        path: format!("at.{name}"),
        slot: Slot(slot),
        nested: None,
        rule: ColumnRule { unit: None, zone: None, server_zone: "UTC".to_owned(), takes_nan: false },
        default_by_server: false,
        absent: Filler::Default,
        null: Filler::Default,
    }
}

/// A field from JSON text; no text is an absent field.
pub fn push_field(rows: &mut Rows, json: Option<&str>) {
    let field = match json.map(|json| (json, Value::parse(json.as_bytes()).unwrap())) {
        None => Field::ABSENT,
        Some((_, Value::Null)) => Field::NULL,
        Some((_, Value::Bool(truth))) => Field::bool(truth),
        Some((_, Value::Number(text))) => rows.append(Kind::Number, text),
        Some((_, Value::Text(text))) => rows.append(Kind::Text, text),
        Some((_, Value::Escaped(text))) => rows.append(Kind::Escaped, text),
        Some((_, Value::Array(text))) => rows.append(Kind::Array, text),
        Some((_, Value::Object(text))) => rows.append(Kind::Object, text),
        Some((json, _)) => panic!("{json}"),
    };
    rows.fields.push(field);
}

/// Rows of the given fields.
pub fn rows_of(table: &[&[Option<&str>]]) -> Rows {
    let mut rows = Rows::default();
    rows.clear(table[0].len());
    for row in table {
        row.iter().for_each(|json| push_field(&mut rows, *json));
        rows.meta.push(RowMeta::default());
    }
    rows
}

fn builder(bindings: Vec<Binding>) -> NativeBuilder {
    NativeBuilder::new("orders", bindings, BlockCompression::None).unwrap()
}

fn column_data(column: &Column) -> Vec<u8> {
    let mut data = Vec::new();
    column.write(&mut |bytes| data.extend_from_slice(bytes));
    data
}

/// What one value becomes in a column.
fn encode_with(binding: Binding, json: Option<&str>) -> Result<Vec<u8>, BadRow> {
    let mut builder = builder(vec![binding]);
    let mut bad = Vec::new();
    builder.append(&rows_of(&[&[json]]), &[0], &mut bad);
    match bad.pop() {
        Some(bad) => Err(bad),
        None => Ok(column_data(&builder.columns[0].column)),
    }
}

fn encode(type_text: &str, json: &str) -> Result<Vec<u8>, BadRow> {
    encode_with(binding("price", type_text, 0), Some(json))
}

fn good(type_text: &str, pairs: &[(&str, &[u8])]) {
    for (json, bytes) in pairs {
        assert_eq!(encode(type_text, json).as_deref(), Ok(*bytes), "{json} into {type_text}");
    }
}

fn bad(type_text: &str, values: &[&str]) {
    for json in values {
        let Err(bad) = encode(type_text, json) else { panic!("{json} went into {type_text}") };
        assert!(bad.message.contains("`price` of `orders`"), "{}", bad.message);
        assert!(bad.message.contains("`at.price`"), "{}", bad.message);
    }
}

#[test]
fn the_message_names_column_type_value_and_place() {
    let bad = encode("Decimal(10, 2)", "\"abc\"").unwrap_err();
    assert_eq!(bad.message, "column `price` of `orders` is Decimal(10,2), the record has \"abc\" at `at.price`");
    let long = format!("\"{}\"", "x".repeat(500));
    assert!(encode("UInt8", &long).unwrap_err().message.len() < 200);
}

#[test]
fn integers_take_numbers_by_value() {
    good(
        "Int16",
        &[
            ("1", &[1, 0]),
            ("1.0", &[1, 0]),
            ("1e3", &[0xe8, 3]),
            ("\"-7\"", &[0xf9, 0xff]),
            ("\"1.0\"", &[1, 0]),
            ("true", &[1, 0]),
            ("false", &[0, 0]),
            ("-32768", &[0, 0x80]),
            ("\"\\u0031\"", &[1, 0]),
        ],
    );
    bad("Int16", &["32768", "-32769", "1.5", "\"+5\"", "\" 5 \"", "\"007\"", "\"\"", "\"abc\"", "[]", "{}", "1e400"]);
    good("UInt64", &[("18446744073709551615", &[0xff; 8]), ("-0", &[0; 8])]);
    bad("UInt64", &["18446744073709551616", "-1"]);
    bad("UInt8", &["256", "-1"]);
    good(
        "UInt256",
        &[("1", &{
            let mut one = [0; 32];
            one[0] = 1;
            one
        })],
    );
    good("Int128", &[("-1", &[0xff; 16]), ("\"-1\"", &[0xff; 16])]);
    bad("Int128", &["170141183460469231731687303715884105728"]);
}

#[test]
fn decimals_take_what_they_hold_exactly() {
    good(
        "Decimal(10, 2)",
        &[
            ("1.5", &150i64.to_le_bytes()),
            ("\"1.000\"", &100i64.to_le_bytes()),
            ("-0.01", &(-1i64).to_le_bytes()),
            ("1e2", &10000i64.to_le_bytes()),
            ("99999999.99", &9999999999i64.to_le_bytes()),
        ],
    );
    bad("Decimal(10, 2)", &["1.005", "100000000", "\"+5\"", "true", "\"\"", "\" 1\"", "[1]"]);
    good("Decimal(4, 0)", &[("9999", &9999i32.to_le_bytes())]);
    bad("Decimal(4, 0)", &["10000"]);
    good("Decimal(38, 3)", &[("-0.001", &(-1i128).to_le_bytes()), ("5", &5000i128.to_le_bytes())]);
    good("Decimal(76, 0)", &[("-1", &[0xff; 32])]);
    // More than 18 digits leave the fast way.
    good("Decimal(18, 0)", &[("999999999999999999", &999999999999999999i64.to_le_bytes())]);
    bad("Decimal(18, 0)", &["1000000000000000000", "9999999999999999999"]);
}

/// The last value that a type holds, and the first that it does not.
#[test]
fn the_widest_numbers_end_where_their_types_end() {
    use ethnum::{I256, U256};
    let beyond = |text: &str| {
        // One further from zero; no last digit below is a nine but in decimals, which have their own rows.
        let (head, last) = text.split_at(text.len() - 1);
        format!("{head}{}", last.parse::<u8>().unwrap() + 1)
    };
    for (of, last, bytes) in [
        ("UInt128", u128::MAX.to_string(), u128::MAX.to_le_bytes().to_vec()),
        ("Int128", i128::MAX.to_string(), i128::MAX.to_le_bytes().to_vec()),
        ("Int128", i128::MIN.to_string(), i128::MIN.to_le_bytes().to_vec()),
        ("UInt256", U256::MAX.to_string(), U256::MAX.to_le_bytes().to_vec()),
        ("Int256", I256::MAX.to_string(), I256::MAX.to_le_bytes().to_vec()),
        ("Int256", I256::MIN.to_string(), I256::MIN.to_le_bytes().to_vec()),
    ] {
        let quoted = format!("\"{last}\"");
        good(of, &[(&last, &bytes), (&quoted, &bytes), (&format!("{last}.0"), &bytes)]);
        bad(of, &[&beyond(&last), &format!("\"{}\"", beyond(&last))]);
    }
    bad("UInt128", &["-1"]);
    bad("UInt256", &["-1"]);
    for (of, digits, scale, width) in [
        ("Decimal(38, 0)", 38, 0, 16),
        ("Decimal(38, 38)", 38, 38, 16),
        ("Decimal(76, 0)", 76, 0, 32),
        ("Decimal(76, 76)", 76, 76, 32),
    ] {
        let nines = "9".repeat(digits);
        let last = if scale == 0 { nines.clone() } else { format!("0.{nines}") };
        let scaled: I256 = nines.parse().unwrap();
        good(of, &[(&last, &scaled.to_le_bytes()[..width]), (&format!("-{last}"), &(-scaled).to_le_bytes()[..width])]);
        let one_more = if scale == 0 { format!("1{}", "0".repeat(digits)) } else { "1".to_owned() };
        bad(of, &[&one_more, &format!("-{one_more}"), &format!("{last}{}1", if scale == 0 { "." } else { "" })]);
    }
}

#[test]
fn floats_take_the_nearest_and_no_booleans() {
    good("Float64", &[("0.1", &0.1f64.to_le_bytes()), ("\"2.5\"", &2.5f64.to_le_bytes()), ("1", &1f64.to_le_bytes())]);
    good("Float32", &[("0.1", &0.1f32.to_le_bytes())]);
    bad("Float64", &["1e400", "true", "\"NaN\"", "\"inf\"", "\"\"", "\"+1\""]);
    bad("Float32", &["1e39"]);
}

#[test]
fn bools_take_six_forms() {
    good("Bool", &[("true", &[1]), ("false", &[0]), ("1", &[1]), ("0", &[0]), ("\"true\"", &[1]), ("\"false\"", &[0])]);
    bad("Bool", &["2", "-1", "\"yes\"", "\"1\"", "\"TRUE\"", "[]"]);
}

#[test]
fn strings_take_text_plain_and_the_rest_raw() {
    good(
        "String",
        &[
            ("\"abc\"", b"\x03abc"),
            ("\"a\\n\\u00e4\"", b"\x04a\n\xc3\xa4"),
            ("1.50", b"\x041.50"),
            ("true", b"\x04true"),
            ("[1, 2]", b"\x06[1, 2]"),
            ("{\"a\":1}", b"\x07{\"a\":1}"),
            ("\"\"", b"\x00"),
        ],
    );
    let long = "x".repeat(300);
    let encoded = encode("String", &format!("\"{long}\"")).unwrap();
    assert_eq!(encoded[..2], [0xac, 0x02]);
    good("LowCardinality(String)", &[("\"abc\"", b"\x03abc")]);
    good("FixedString(3)", &[("\"ab\"", b"ab\0"), ("\"abc\"", b"abc")]);
    bad("FixedString(3)", &["\"abcd\"", "12", "\"ää\""]);
}

#[test]
fn dates_take_the_date_as_written() {
    good(
        "Date",
        &[
            ("\"2024-01-15\"", &19737u16.to_le_bytes()),
            ("\"2024-01-15T23:59:59-08:00\"", &19737u16.to_le_bytes()),
            ("\"2024-01-15 23:59:59\"", &19737u16.to_le_bytes()),
        ],
    );
    bad(
        "Date",
        &["\"2024-02-30\"", "\"15.01.2024\"", "19737", "\"19737\"", "\"1969-12-31\"", "\"2149-06-07\"", "true"],
    );
    let mut days = binding("price", "Date", 0);
    days.rule.unit = Some(ColumnUnit::Days);
    assert_eq!(encode_with(days, Some("19737")), Ok(19737u16.to_le_bytes().to_vec()));
    good("Date32", &[("\"1900-01-01\"", &(-25567i32).to_le_bytes())]);
    bad("Date32", &["\"1899-12-31\"", "\"2300-01-01\""]);
}

#[test]
fn times_take_iso_text_and_numbers_with_a_unit() {
    good(
        "DateTime",
        &[
            ("\"2024-01-01T01:00:00+01:00\"", &1704067200u32.to_le_bytes()),
            ("\"2024-01-01 00:00:00.999\"", &1704067200u32.to_le_bytes()),
            ("1704067200", &1704067200u32.to_le_bytes()),
            ("1704067200.9", &1704067200u32.to_le_bytes()),
            ("\"2024-01-01T00:00:00\\u005a\"", &1704067200u32.to_le_bytes()),
        ],
    );
    good("DateTime('Europe/Berlin')", &[("\"2024-01-01 01:00:00\"", &1704067200u32.to_le_bytes())]);
    bad("DateTime", &["-1", "4294967296", "\"1969-12-31T23:59:59Z\"", "\"1704067200\"", "true", "\"\""]);
    good("DateTime64(3)", &[("\"2024-01-01T00:00:00.1239Z\"", &1704067200123i64.to_le_bytes())]);
    bad("DateTime64(3)", &["1704067200123", "\"2300-01-01\"", "\"1899-12-31\""]);
    let mut zoned = binding("price", "DateTime64(3, 'America/New_York')", 0);
    zoned.rule.unit = Some(ColumnUnit::Micros);
    zoned.rule.zone = Some("Europe/Berlin".to_owned());
    assert_eq!(encode_with(zoned.clone(), Some("1704067200123999")), Ok(1704067200123i64.to_le_bytes().to_vec()));
    assert_eq!(encode_with(zoned, Some("\"2024-01-01 01:00\"")), Ok(1704067200000i64.to_le_bytes().to_vec()));
    let mut server = binding("price", "DateTime64(0)", 0);
    server.rule.server_zone = "Asia/Tokyo".to_owned();
    assert_eq!(encode_with(server, Some("\"2024-01-01 09:00:00\"")), Ok(1704067200i64.to_le_bytes().to_vec()));
}

#[test]
fn enums_take_names_only() {
    good("Enum8('b' = 2, 'it\\'s' = -1)", &[("\"b\"", &[2]), ("\"it's\"", &[0xff])]);
    good("Enum16('x' = 300)", &[("\"x\"", &300i16.to_le_bytes())]);
    bad("Enum8('b' = 2)", &["\"c\"", "2", "\"2\"", "\"B\"", "\"\""]);
}

#[test]
fn addresses_and_uuids_take_their_text_forms() {
    let uuid: [u8; 16] = [7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8];
    good(
        "UUID",
        &[("\"00010203-0405-0607-0809-0A0b0c0d0e0f\"", &uuid), ("\"000102030405060708090a0b0c0d0e0f\"", &uuid)],
    );
    bad("UUID", &["\"00010203-0405-0607-0809-0a0b0c0d0e0\"", "\"\"", "1", "\"0001020304050607-0809-0a0b0c0d0e0fxx\""]);
    good("IPv4", &[("\"1.2.3.4\"", &[4, 3, 2, 1])]);
    bad("IPv4", &["\"1.2.3\"", "\"1.2.3.256\"", "16909060", "\"::1\"", "\"01.2.3.4\""]);
    let mut one = [0u8; 16];
    one[15] = 1;
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4];
    good("IPv6", &[("\"::1\"", &one), ("\"1.2.3.4\"", &mapped)]);
    bad("IPv6", &["\"\"", "\"::g\""]);
}

#[test]
fn containers_take_arrays_and_objects() {
    let array = [&2u64.to_le_bytes()[..], &[1, 2]].concat();
    good("Array(UInt8)", &[("[1,2]", &array), ("[]", &0u64.to_le_bytes())]);
    bad("Array(UInt8)", &["[1,null]", "[256]", "{}", "\"[1]\"", "1"]);
    let nullable = [&2u64.to_le_bytes()[..], &[0, 1], &[1, 0]].concat();
    good("Array(Nullable(UInt8))", &[("[1,null]", &nullable)]);
    let map = [&2u64.to_le_bytes()[..], &[1, 2], b"\x01a\x01b"].concat();
    good("Map(UInt8, String)", &[("{\"1\":\"a\",\"2\":\"b\"}", &map)]);
    bad("Map(UInt8, String)", &["{\"x\":\"a\"}", "[]", "{\"1\":null}"]);
    good(
        "Tuple(a UInt8, b String)",
        &[
            ("[1,\"x\"]", b"\x01\x01x"),
            ("{\"b\":\"x\",\"a\":1,\"c\":0}", b"\x01\x01x"),
            ("{\"b\":\"x\"}", b"\x00\x01x"),
        ],
    );
    bad("Tuple(a UInt8, b String)", &["[1]", "[1,\"x\",2]", "{\"a\":256}", "1", "[null,\"x\"]", "{\"a\":1,\"a\":1}"]);
    bad("Tuple(UInt8, String)", &["{\"a\":1}"]);
    let nested = [&2u64.to_le_bytes()[..], &[1, 2], b"\x01x\x00"].concat();
    good(
        "Nested(a UInt8, b String)",
        &[("[{\"a\":1,\"b\":\"x\"},{\"a\":2}]", &nested), ("{\"a\":[1,2],\"b\":[\"x\",\"\"]}", &nested)],
    );
    bad("Nested(a UInt8, b String)", &["{\"a\":[1,2],\"b\":[\"x\"]}", "[1]"]);
    good("JSON", &[("{\"a\":[1]}", b"\x09{\"a\":[1]}")]);
    bad("JSON", &["[1]", "\"{}\"", "{\"a\":1,\"a\":2}", "1"]);
}

#[test]
fn nulls_and_absent_fields_take_their_defaults() {
    let absent = |type_text: &str| encode_with(binding("price", type_text, 0), None).unwrap();
    assert_eq!(absent("UInt32"), [0; 4]);
    assert_eq!(absent("String"), [0]);
    assert_eq!(absent("Nullable(UInt8)"), [1, 0]);
    assert_eq!(absent("LowCardinality(Nullable(String))"), [1, 0]);
    assert_eq!(absent("Array(String)"), [0; 8]);
    assert_eq!(absent("Tuple(UInt8, Nullable(UInt8))"), [0, 1, 0]);
    assert_eq!(absent("Enum8('b' = 2, 'a' = 1)"), [1]);
    assert_eq!(absent("JSON"), b"\x02{}");
    assert_eq!(encode("Nullable(UInt8)", "null").unwrap(), [1, 0]);
    assert_eq!(encode("Nullable(UInt8)", "5").unwrap(), [0, 5]);
    assert_eq!(encode("UInt8", "null").unwrap(), [0]);
}

#[test]
fn a_default_of_the_server_is_asked_for_with_null() {
    let mut with_default = binding("price", "LowCardinality(String)", 0);
    with_default.default_by_server = true;
    let mut builder = builder(vec![with_default]);
    assert_eq!(builder.columns[0].wire_type, "Nullable(String)");
    builder.append(&rows_of(&[&[Some("\"a\"")], &[None], &[Some("null")]]), &[0, 1, 2], &mut Vec::new());
    assert_eq!(column_data(&builder.columns[0].column), b"\x00\x01\x01\x01a\x00\x00");
}

#[test]
fn a_constant_default_is_written_by_us() {
    let mut with_default = binding("price", "Array(UInt8)", 0);
    with_default.absent = Filler::Constant(b"[7]".to_vec());
    assert_eq!(encode_with(with_default, None).unwrap(), [&1u64.to_le_bytes()[..], &[7]].concat());
    let mut nullable = binding("price", "Nullable(UInt8)", 0);
    nullable.absent = Filler::Constant(b"7".to_vec());
    assert_eq!(encode_with(nullable.clone(), None).unwrap(), [0, 7]);
    assert_eq!(encode_with(nullable, Some("null")).unwrap(), [1, 0]);
}

#[test]
fn a_column_left_to_the_server_is_in_a_block_only_with_a_row_that_has_the_field() {
    let varying = Binding { absent: Filler::Server, ..binding("at", "Nullable(UInt8)", 1) };
    let mut builder = builder(vec![binding("id", "UInt8", 0), varying]);
    let names = |block: Block| block.header.into_iter().map(|column| column.name).collect::<Vec<_>>();
    let append = |builder: &mut NativeBuilder, at: Option<&str>| {
        builder.append(&rows_of(&[&[Some("1"), at]]), &[0], &mut Vec::new());
    };
    append(&mut builder, None);
    let mark = builder.mark();
    append(&mut builder, Some("5"));
    builder.rollback(mark);
    let without = builder.seal().unwrap();
    assert_eq!((without.rows, names(without)), (1, vec!["id".to_owned()]));
    append(&mut builder, None);
    append(&mut builder, Some("null"));
    let block = builder.seal().unwrap();
    assert!(block.body.ends_with(b"\x01\x01\x00\x00"), "{:?}", block.body);
    assert_eq!(names(block), ["id", "at"], "a null is a value");
    // What one block had says nothing of the next.
    append(&mut builder, None);
    assert_eq!(names(builder.seal().unwrap()), ["id"]);
    assert_eq!(builder.header().len(), 2);
}

#[test]
fn a_strict_column_refuses_what_is_missing() {
    let mut strict = binding("price", "UInt8", 0);
    strict.absent = Filler::Refuse(Refusal::Strict);
    strict.null = Filler::Refuse(Refusal::Strict);
    assert_eq!(encode_with(strict.clone(), None).unwrap_err().reason, "missing_field");
    assert_eq!(encode_with(strict, Some("null")).unwrap_err().reason, "null_value");
}

fn nested_builder() -> NativeBuilder {
    let member = |name: &str, of: &str, slot| {
        let mut member = binding(&format!("n.{name}"), of, slot);
        member.nested = Some(NestedSource { group: "n".to_owned(), objects: Some((Slot(0), name.to_owned())) });
        member
    };
    builder(vec![member("a", "Array(UInt8)", 1), member("b", "Array(String)", 2)])
}

#[test]
fn a_flattened_nested_takes_columns_and_objects_of_equal_length() {
    let two = 2u64.to_le_bytes();
    for (row, strings) in [
        ([None, Some("[1,2]"), Some("[\"x\",\"y\"]")], &b"\x01x\x01y"[..]),
        ([Some("[{\"a\":1,\"b\":\"x\"},{\"b\":\"y\",\"a\":2}]"), None, None], b"\x01x\x01y"),
        ([None, Some("[1,2]"), None], b"\x00\x00"),
        ([Some("[{\"a\":1},{\"a\":2,\"b\":\"y\"}]"), None, None], b"\x00\x01y"),
    ] {
        let mut builder = nested_builder();
        let mut bad = Vec::new();
        builder.append(&rows_of(&[&row]), &[0], &mut bad);
        assert_eq!(bad, []);
        assert_eq!(column_data(&builder.columns[0].column), [&two[..], &[1, 2]].concat());
        assert_eq!(column_data(&builder.columns[1].column), [&two[..], strings].concat());
    }
    for row in [[None, Some("[1,2]"), Some("[\"x\"]")], [Some("[1]"), None, None], [None, Some("[256]"), None]] {
        let mut bad = Vec::new();
        nested_builder().append(&rows_of(&[&row]), &[0], &mut bad);
        assert_eq!(bad.len(), 1);
    }
}

#[test]
fn virtual_numbers_take_the_short_way() {
    let mut rows = rows_of(&[&[None]]);
    rows.fields[0] = Field::int(-5);
    for (type_text, bytes) in [("Int64", (-5i64).to_le_bytes().to_vec()), ("String", b"\x02-5".to_vec())] {
        let mut builder = builder(vec![binding("_offset", type_text, 0)]);
        builder.append(&rows, &[0], &mut Vec::new());
        assert_eq!(column_data(&builder.columns[0].column), bytes);
    }
}

#[test]
fn bad_rows_come_once_each_in_the_order_of_the_rows() {
    let mut builder = builder(vec![binding("a", "UInt8", 0), binding("b", "UInt8", 1)]);
    let rows =
        rows_of(&[&[Some("1"), Some("x").map(|_| "\"x\"")], &[Some("2"), Some("2")], &[Some("\"y\""), Some("\"z\"")]]);
    let mut bad = Vec::new();
    builder.append(&rows, &[2, 1, 0], &mut bad);
    assert_eq!(bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), [2, 0]);
    assert!(bad[0].message.contains("`a`"), "{}", bad[0].message);
}

#[test]
fn a_rollback_leaves_no_trace() {
    let bindings = || {
        vec![binding("a", "Nullable(UInt8)", 0), binding("b", "Array(Map(String, Tuple(UInt8, Nullable(String))))", 1)]
    };
    let good_row: [Option<&str>; 2] = [Some("1"), Some("[{\"k\":[1,null]},{}]")];
    let bad_row: [Option<&str>; 2] = [Some("2"), Some("[{\"k\":[1,\"x\"],\"l\":[256,\"x\"]}]")];
    let rows = rows_of(&[&good_row, &bad_row]);
    let mut builder_a = builder(bindings());
    let empty = builder_a.mark();
    builder_a.append(&rows, &[0], &mut Vec::new());
    let mark = builder_a.mark();
    let bytes = builder_a.bytes();
    let mut bad = Vec::new();
    builder_a.append(&rows, &[0, 1], &mut bad);
    assert_eq!(bad.len(), 1);
    builder_a.rollback(mark);
    assert_eq!((builder_a.rows(), builder_a.bytes()), (1, bytes));
    builder_a.append(&rows, &[0], &mut Vec::new());
    builder_a.rollback(mark);
    let mut builder_b = builder(bindings());
    builder_b.append(&rows, &[0], &mut Vec::new());
    assert_eq!(builder_a.seal(), builder_b.seal());
    assert_eq!((builder_a.rows(), builder_a.bytes(), builder_a.seal()), (0, 0, None));
    let again = builder_a.mark();
    assert_eq!(again, empty);
}

#[test]
fn a_block_begins_with_its_columns_and_rows() {
    let mut builder = builder(vec![binding("a", "UInt8", 0)]);
    builder.append(&rows_of(&[&[Some("1")], &[Some("2")]]), &[1, 0], &mut Vec::new());
    let block = builder.seal().unwrap();
    assert_eq!(block.rows, 2);
    assert_eq!(block.body, &b"\x01\x02\x01a\x05UInt8\x02\x01"[..]);
    assert_eq!(block.header, [ColumnHeader { name: "a".to_owned(), type_text: "UInt8".to_owned() }]);
}
