//! Random values of every type: encoded by us, read back by the engine, compared with its own reading of them.

use crate::fixture::{Database, ENGINE};
use crate::support::seed;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use weir::config::plan::BlockCompression;
use weir::sink::{Sink, Token};

/// A value as JSON, and as text that ClickHouse casts to the type; `None` is null.
type Pair = (String, Option<String>);

fn plain(strategy: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Pair> {
    strategy.prop_map(|text| (text.clone(), Some(text))).boxed()
}

fn quoted(strategy: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Pair> {
    strategy.prop_map(|text| (serde_json::to_string(&text).unwrap(), Some(text))).boxed()
}

fn or_null(strategy: BoxedStrategy<Pair>) -> BoxedStrategy<Pair> {
    prop_oneof![4 => strategy, 1 => Just(("null".to_owned(), None))].boxed()
}

/// An array of values whose literals need no quotes.
fn array(element: BoxedStrategy<Pair>) -> BoxedStrategy<Pair> {
    prop::collection::vec(element, 0..4)
        .prop_map(|pairs| {
            let json: Vec<_> = pairs.iter().map(|pair| pair.0.clone()).collect();
            let text: Vec<_> = pairs.iter().map(|pair| pair.1.clone().unwrap_or("NULL".to_owned())).collect();
            (format!("[{}]", json.join(", ")), Some(format!("[{}]", text.join(","))))
        })
        .boxed()
}

fn text() -> BoxedStrategy<Pair> {
    quoted(prop_oneof![".{0,200}", "[a-z]{0,8}", Just("\u{0}\"\\/\n😀".to_owned())])
}

fn decimal(digits: u32, scale: usize) -> BoxedStrategy<Pair> {
    let whole = digits as usize - scale;
    let digits = |regex: String| proptest::string::string_regex(&regex).unwrap();
    let parts = (any::<bool>(), digits(format!("[1-9][0-9]{{0,{}}}", whole - 1)), digits(format!("[0-9]{{{scale}}}")));
    plain(
        parts.prop_map(|(negative, whole, fraction)| format!("{}{whole}.{fraction}", if negative { "-" } else { "" })),
    )
}

fn date(years: std::ops::Range<u32>) -> impl Strategy<Value = String> {
    (years, 1u32..13, 1u32..29).prop_map(|(year, month, day)| format!("{year:04}-{month:02}-{day:02}"))
}

fn time(years: std::ops::Range<u32>, digits: usize) -> BoxedStrategy<Pair> {
    (date(years), 0u32..24, 0u32..60, 0u32..60, 0u32..1_000_000_000, any::<bool>())
        .prop_map(move |(date, hour, minute, second, nanos, blank)| {
            let nanos = format!("{nanos:09}");
            let fraction = if digits == 0 { String::new() } else { format!(".{}", &nanos[..digits]) };
            let of_day = format!("{hour:02}:{minute:02}:{second:02}");
            let json = format!("\"{date}{}{of_day}.{nanos}\"", if blank { " " } else { "T" });
            (json, Some(format!("{date} {of_day}{fraction}")))
        })
        .boxed()
}

/// A time as a clock of the column's zone shows it. Not in the hours in which clocks are set.
fn local_time(digits: usize) -> BoxedStrategy<Pair> {
    (date(1980..2037), 4u32..22, 0u32..60, 0u32..60, 0u32..1_000_000_000)
        .prop_map(move |(date, hour, minute, second, nanos)| {
            let nanos = format!("{nanos:09}");
            let fraction = if digits == 0 { String::new() } else { format!(".{}", &nanos[..digits]) };
            let text = format!("{date} {hour:02}:{minute:02}:{second:02}");
            (format!("\"{text}.{nanos}\""), Some(format!("{text}{fraction}")))
        })
        .boxed()
}

/// An instant with an offset of its own, for a column in UTC.
fn offset_time(from_s: i64, to_s: i64) -> BoxedStrategy<Pair> {
    (from_s..to_s, -14 * 60..14 * 60i32)
        .prop_map(|(second, minutes)| {
            let instant = Timestamp::from_second(second).unwrap();
            let there = instant.to_zoned(TimeZone::fixed(Offset::from_seconds(minutes * 60).unwrap()));
            let json = format!("\"{}\"", there.strftime("%Y-%m-%dT%H:%M:%S%:z"));
            (json, Some(instant.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S").to_string()))
        })
        .boxed()
}

/// Numbers of a regular language, now and then the ends of the type.
fn wide(digits: &'static str, ends: &'static [&'static str]) -> BoxedStrategy<Pair> {
    let ends = proptest::sample::select(ends).prop_map(str::to_owned);
    plain(prop_oneof![4 => digits.prop_map(|text| text), 1 => ends])
}

/// Both columns of a flattened Nested are of equal length.
fn nested() -> BoxedStrategy<Pair> {
    prop::collection::vec((any::<u32>(), any::<Option<i64>>()), 0..4)
        .prop_map(|rows| {
            let json = |(a, b): &(u32, Option<i64>)| match b {
                Some(b) => format!("{{\"a\":{a},\"b\":{b}}}"),
                None => format!("{{\"b\":null,\"a\":{a}}}"),
            };
            let a: Vec<String> = rows.iter().map(|(a, _)| a.to_string()).collect();
            let b: Vec<String> = rows.iter().map(|(_, b)| b.map_or("NULL".to_owned(), |b| b.to_string())).collect();
            let json: Vec<String> = rows.iter().map(json).collect();
            (format!("[{}]", json.join(",")), Some(format!("([{}],[{}])", a.join(","), b.join(","))))
        })
        .boxed()
}

const UINT_256_MAX: &str = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
const INT_256_MAX: &str = "57896044618658097711785492504343953926634992332820282019728792003956564819967";
const INT_256_MIN: &str = "-57896044618658097711785492504343953926634992332820282019728792003956564819968";

fn types() -> Vec<(&'static str, BoxedStrategy<Pair>)> {
    let uuid = || "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
    let name = || prop_oneof![Just("a".to_owned()), Just("it's".to_owned()), Just("x, y".to_owned())];
    vec![
        ("UInt8", plain(any::<u8>().prop_map(|v| v.to_string()))),
        ("UInt16", plain(any::<u16>().prop_map(|v| v.to_string()))),
        ("UInt32", plain(any::<u32>().prop_map(|v| v.to_string()))),
        ("UInt64", plain(any::<u64>().prop_map(|v| v.to_string()))),
        ("UInt128", plain(any::<u128>().prop_map(|v| v.to_string()))),
        ("UInt256", wide("[1-9][0-9]{0,76}", &["0", UINT_256_MAX])),
        ("Int8", quoted(any::<i8>().prop_map(|v| v.to_string()))),
        ("Int16", plain(any::<i16>().prop_map(|v| v.to_string()))),
        ("Int32", plain(any::<i32>().prop_map(|v| v.to_string()))),
        ("Int64", quoted(any::<i64>().prop_map(|v| v.to_string()))),
        ("Int128", plain(any::<i128>().prop_map(|v| v.to_string()))),
        ("Int256", wide("-[1-9][0-9]{0,75}", &["0", "-1", INT_256_MIN, INT_256_MAX])),
        ("Float32", float_32().boxed()),
        ("Float64", float_64().boxed()),
        ("Decimal(9, 4)", decimal(9, 4)),
        ("Decimal(18, 6)", decimal(18, 6)),
        ("Decimal(38, 10)", decimal(38, 10)),
        ("Decimal(76, 20)", decimal(76, 20)),
        ("Decimal(76, 0)", wide("-?[1-9][0-9]{0,75}", &["0"])),
        ("Bool", plain(any::<bool>().prop_map(|v| v.to_string()))),
        ("String", text()),
        ("FixedString(12)", quoted("[a-zA-Z0-9]{12}")),
        ("UUID", quoted(uuid())),
        ("Date", quoted(date(1970..2149))),
        ("Date32", quoted(date(1900..2300))),
        ("DateTime", time(1970..2106, 0)),
        ("DateTime('UTC')", time(1970..2106, 0)),
        ("DateTime64(3, 'UTC')", time(1900..2300, 3)),
        ("DateTime('Europe/Berlin')", local_time(0)),
        ("DateTime64(3, 'America/New_York')", local_time(3)),
        ("DateTime64(6, 'Asia/Kolkata')", local_time(6)),
        ("DateTime('UTC')", offset_time(86_400, u32::MAX as i64 - 86_400)),
        ("DateTime64(0, 'UTC')", offset_time(-2_000_000_000, 10_000_000_000)),
        ("DateTime64(6)", time(1900..2300, 6)),
        ("DateTime64(9, 'UTC')", time(1900..2262, 9)),
        ("Enum8('a' = 1, 'it\\'s' = -2, 'x, y' = 100)", quoted(name())),
        ("Enum16('a' = 1, 'it\\'s' = -2, 'x, y' = 1000)", quoted(name())),
        ("IPv4", quoted(any::<std::net::Ipv4Addr>().prop_map(|v| v.to_string()))),
        ("IPv6", quoted(any::<std::net::Ipv6Addr>().prop_map(|v| v.to_string()))),
        ("Nullable(Int32)", or_null(plain(any::<i32>().prop_map(|v| v.to_string())))),
        ("Nullable(String)", or_null(text())),
        ("Nullable(Decimal(18, 6))", or_null(decimal(18, 6))),
        ("Nullable(UUID)", or_null(quoted(uuid()))),
        ("Nullable(DateTime64(3, 'UTC'))", or_null(time(1900..2300, 3))),
        ("Nullable(Date)", or_null(quoted(date(1970..2149)))),
        ("Nullable(Enum8('a' = 1, 'it\\'s' = -2, 'x, y' = 100))", or_null(quoted(name()))),
        ("Nullable(Bool)", or_null(plain(any::<bool>().prop_map(|v| v.to_string())))),
        ("Nullable(FixedString(4))", or_null(quoted("[a-zA-Z0-9]{4}"))),
        ("Nullable(IPv6)", or_null(quoted(any::<std::net::Ipv6Addr>().prop_map(|v| v.to_string())))),
        ("Nullable(Int256)", or_null(wide("-[1-9][0-9]{0,75}", &[INT_256_MIN, INT_256_MAX]))),
        ("LowCardinality(String)", text()),
        ("LowCardinality(Nullable(String))", or_null(text())),
        ("SimpleAggregateFunction(sum, UInt64)", plain(any::<u64>().prop_map(|v| v.to_string()))),
        ("Array(Int64)", array(plain(any::<i64>().prop_map(|v| v.to_string())))),
        ("Array(Nullable(UInt8))", array(or_null(plain(any::<u8>().prop_map(|v| v.to_string()))))),
        ("Array(Array(UInt16))", array(array(plain(any::<u16>().prop_map(|v| v.to_string()))))),
        ("Array(LowCardinality(String))", array(word())),
        ("Map(String, UInt32)", map("[a-z]{1,6}", true)),
        ("Map(UInt64, UInt32)", map("[1-9][0-9]{0,9}", false)),
        ("Map(LowCardinality(String), UInt32)", map("[a-z]{1,6}", true)),
        ("Tuple(UInt8, Int64)", tuple()),
        ("Tuple(a UInt8, b Int64)", tuple()),
        ("Tuple(a UInt8, b Int64)", named_tuple()),
        ("Array(Nullable(String))", array(or_null(word()))),
        ("Nested(a UInt32, b Nullable(Int64))", nested()),
    ]
}

/// Subnormal ones and both zeros included.
fn float_32() -> impl Strategy<Value = Pair> {
    use prop::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    (POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO).prop_map(|v| (format!("{v:e}"), Some(v.to_bits().to_string())))
}

fn float_64() -> impl Strategy<Value = Pair> {
    use prop::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    (POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO).prop_map(|v| (format!("{v:e}"), Some(v.to_bits().to_string())))
}

/// Plain words, quoted in both notations.
fn word() -> BoxedStrategy<Pair> {
    "[a-z]{0,6}".prop_map(|word| (format!("\"{word}\""), Some(format!("'{word}'")))).boxed()
}

fn map(key: &'static str, quote: bool) -> BoxedStrategy<Pair> {
    prop::collection::btree_map(key, any::<u32>(), 0..4)
        .prop_map(move |map| {
            let json: Vec<_> = map.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
            let text = map
                .iter()
                .map(|(key, value)| if quote { format!("'{key}':{value}") } else { format!("{key}:{value}") });
            (format!("{{{}}}", json.join(",")), Some(format!("{{{}}}", text.collect::<Vec<_>>().join(","))))
        })
        .boxed()
}

fn tuple() -> BoxedStrategy<Pair> {
    (any::<u8>(), any::<i64>()).prop_map(|(a, b)| (format!("[{a},{b}]"), Some(format!("({a},{b})")))).boxed()
}

fn named_tuple() -> BoxedStrategy<Pair> {
    let json = |(a, b)| (format!("{{\"x\":null,\"b\":{b},\"a\":{a}}}"), Some(format!("({a},{b})")));
    (any::<u8>(), any::<i64>()).prop_map(json).boxed()
}

/// A text in SQL, whatever is in it.
fn literal(text: &Option<String>) -> String {
    match text {
        None => "NULL".to_owned(),
        Some(text) => format!("unhex('{}')", text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

const ROWS: usize = 150;

#[tokio::test]
async fn what_is_encoded_is_what_the_engine_reads() {
    let database = Database::new("test_values");
    let types = types();
    let columns: Vec<_> = types.iter().enumerate().map(|(at, (of, _))| format!("c{at} {of}")).collect();
    let table = database.table(&format!("id UInt32, {}", columns.join(", "))).await;
    let mut chance = [0; 32];
    chance[..8].copy_from_slice(&seed("values").to_le_bytes());
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &chance));
    let values: Vec<Vec<Pair>> = types
        .iter()
        .map(|(_, strategy)| (0..ROWS).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect())
        .collect();
    let records: Vec<String> = (0..ROWS)
        .map(|row| {
            let fields = values.iter().enumerate().map(|(at, column)| format!("\"c{at}\":{}", column[row].0));
            format!("{{\"id\":{row},{}}}", fields.collect::<Vec<_>>().join(","))
        })
        .collect();
    table.insert("values", &records).await;
    for (at, (of, _)) in types.iter().enumerate() {
        let literals: Vec<_> = values[at].iter().map(|pair| literal(&pair.1)).collect();
        // The engine's own reading of floats is not the nearest, so these are compared by their bits.
        let read = match *of {
            "Float32" => "reinterpretAsFloat32(toUInt32(v))".to_owned(),
            "Float64" => "reinterpretAsFloat64(toUInt64(v))".to_owned(),
            "SimpleAggregateFunction(sum, UInt64)" => "toUInt64(v)".to_owned(),
            // Their text is compared as it stands: not every version casts it.
            of if ["Map", "Tuple", "Nested"].iter().any(|kind| of.starts_with(kind)) => "v".to_owned(),
            of => format!("CAST(v, '{}')", of.replace('\\', "\\\\").replace('\'', "\\'")),
        };
        let cast = format!("arrayMap(v -> ifNull(toString({read}), '-'), [{}])", literals.join(","));
        let column = if of.starts_with("Nested") { format!("(c{at}.a, c{at}.b)") } else { format!("c{at}") };
        let stored =
            format!("(SELECT groupArray(ifNull(toString(c), '-')) FROM (SELECT {column} AS c FROM $.t ORDER BY id))");
        let wrong = database.run(&format!(
            "SELECT arrayStringConcat(arrayFilter(p -> p.1 != p.2, arrayZip({stored}, {cast})).1, ' | ') AS w FORMAT TSVRaw"
        ));
        assert_eq!(wrong, "", "{of}");
    }
}

#[tokio::test]
async fn json_and_nested_columns_take_objects() {
    let database = Database::new("test_objects");
    let table = database.table("id UInt8, j JSON, n Nested(a UInt8, b String)").await;
    let records = [
        r#"{"id":1,"j":{"a":{"b":1},"c":[1,"x"]},"n":[{"a":1,"b":"x"},{"a":2}]}"#,
        r#"{"id":2,"n":{"a":[3],"b":["y"]}}"#,
        r#"{"id":3,"n.a":[4,5]}"#,
        r#"{"id":4,"j":{"a":1,"a":2}}"#,
        r#"{"id":5,"n":{"a":[3],"b":[]}}"#,
    ];
    let (block, bad) = table.encode(&records);
    assert_eq!(bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), [3, 4], "{bad:?}");
    table.sink().insert(&Token("o".to_owned()), &block.unwrap()).await.unwrap();
    let read = database.run("SELECT id, toString(j), n.a, n.b FROM $.t ORDER BY id FORMAT TSVRaw");
    assert_eq!(read, "1\t{\"a\":{\"b\":1},\"c\":[1,\"x\"]}\t[1,2]\t['x','']\n2\t{}\t[3]\t['y']\n3\t{}\t[4,5]\t['','']");
}

#[tokio::test]
async fn an_unflattened_nested_takes_both_forms() {
    let database = Database::new("test_unflattened");
    database.run(&format!("CREATE TABLE $.t (id UInt8, n Nested(a UInt8, b String)) {ENGINE}, flatten_nested = 0"));
    let table = database.open("t").await;
    assert_eq!(table.schema.columns.len(), 2);
    table.insert("n", &[r#"{"id":1,"n":[{"a":1,"b":"x"}]}"#, r#"{"id":2,"n":{"a":[2],"b":["y"]}}"#]).await;
    assert_eq!(database.run("SELECT n FROM $.t ORDER BY id FORMAT TSVRaw"), "[(1,'x')]\n[(2,'y')]");
}

#[tokio::test]
async fn every_compression_arrives() {
    let database = Database::new("test_compression");
    let mut table = database.table("id UInt32, s String").await;
    let records: Vec<String> = (0..5000).map(|at| format!("{{\"id\":{at},\"s\":\"text {at} of many\"}}")).collect();
    for compression in [BlockCompression::None, BlockCompression::Lz4, BlockCompression::Zstd] {
        table.plan.compression = compression;
        table.insert(&format!("{compression:?}"), &records).await;
    }
    assert_eq!(database.run("SELECT count(), sum(id) FROM $.t"), format!("15000\t{}", 3 * 4999 * 5000 / 2));
}

#[tokio::test]
async fn a_large_block_is_one_part() {
    let database = Database::new("test_large");
    let table = database.table("id UInt32").await;
    let records: Vec<String> = (0..1_200_000).map(|at| format!("{{\"id\":{at}}}")).collect();
    table.insert("large", &records).await;
    let parts = "SELECT count(), sum(rows) FROM system.parts WHERE database = '$' AND table = 't' AND active";
    assert_eq!(database.run(parts), "1\t1200000");
}
