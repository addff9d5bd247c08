//! JSON columns: what the engine would refuse is a dead letter before, and a declared path is read like a column.

use crate::fixture::Database;
use weir::sink::{Sink, Token};

/// One row that the server refuses would hold up its block for ever.
#[tokio::test]
async fn what_the_engine_refuses_in_an_object_is_a_dead_letter() {
    let database = Database::new("test_unfit_objects");
    let table = database
        .table("id UInt8, j JSON(b Bool, i Int64, a.s UInt8, t Tuple(x UInt8), d Date, l Array(Int8)) DEFAULT '{}'")
        .await;
    let refused = [
        r#"{"x":18446744073709551616}"#,
        r#"{"x":-9223372036854775809}"#,
        r#"{"x":[1,123456789012345678901234567890]}"#,
        r#"{"x":[{"y":{"z":123456789012345678901234567890}}]}"#,
        r#"{"x":1e400}"#,
        r#"{"x":{"y":1},"x.y":2}"#,
        r#"{"i":{"y":1}}"#,
        r#"{"a":{"s":{"y":1}}}"#,
        r#"{"i":9223372036854775808}"#,
        r#"{"b":"yes"}"#,
        r#"{"d":20000}"#,
        r#"{"l":5}"#,
        r#"{"l":["x"]}"#,
    ];
    for object in refused {
        let itself = format!("INSERT INTO {}.t (id, j) SELECT 0, '{object}'", database.name);
        assert!(database.engine.try_query(&itself).is_err(), "the engine takes {object}");
    }
    // These it takes, and stores something else.
    let changed = [r#"{"i":1.5}"#, r#"{"b":2}"#, r#"{"i":9223372036854775808.0}"#, r#"{"l":[null]}"#];
    let all = refused.iter().chain(&changed).map(|object| format!(r#"{{"id":1,"j":{object}}}"#));
    let mut records: Vec<String> = all.collect();
    let good = [
        (r#"{"x":[18446744073709551615,-9223372036854775808,123456789012345678901234567890.5]}"#, "x"),
        (r#"{"b":"true"}"#, "b"),
        (r#"{"i":9223372036854775807.0}"#, "i"),
        (r#"{"i":9007199254740993.0}"#, "i"),
        (r#"{"i":null,"t":{"y":1}}"#, "t.x"),
        (r#"{"a":5}"#, "a"),
        (r#"{}"#, "x"),
    ];
    let bad_count = records.len();
    records.extend(good.iter().map(|(object, _)| format!(r#"{{"id":2,"j":{object}}}"#)));
    let (block, bad) = table.encode(&records);
    assert_eq!(bad.iter().map(|bad| bad.row as usize).collect::<Vec<_>>(), (0..bad_count).collect::<Vec<_>>());
    table.sink().insert(&Token("o".to_owned()), &block.unwrap()).await.unwrap();
    assert_eq!(database.run("SELECT count() FROM $.t"), good.len().to_string());
    let numbers = database.run("SELECT groupArray(j.i) FROM (SELECT j FROM $.t WHERE j.i != 0 ORDER BY j.i)");
    assert_eq!(numbers, "[9007199254740993,9223372036854775807]");
    assert_eq!(database.run("SELECT countIf(j.b) FROM $.t"), "1");
}

#[tokio::test]
async fn a_declared_path_holds_what_a_column_of_its_type_holds() {
    let declared = [
        ("Int64", vec!["9007199254740993.0", "\"-7\"", "1e3", "true"]),
        ("UInt128", vec!["340282366920938463463374607431768211455", "\"5\""]),
        ("Int256", vec!["-57896044618658097711785492504343953926634992332820282019728792003956564819968"]),
        ("Float64", vec!["0.1", "18446744073709551616", "\"2.5\"", "1e300"]),
        ("Float32", vec!["0.1", "1e38", "16777217"]),
        ("Decimal(10, 2)", vec!["0.29", "\"-0.1\"", "1e2"]),
        ("Decimal(38, 10)", vec!["1234567890123456789012345678.0123456789"]),
        ("Decimal(76, 20)", vec!["-0.00000000000000000001", "9007199254740993"]),
        ("Bool", vec!["true", "\"false\"", "1"]),
        ("String", vec!["\"a\\\"b\\n\\u00e4\"", "1.50", "[1, \"x\"]", "{\"y\": 1}", "true"]),
        ("FixedString(4)", vec!["\"ab\"", "\"abcd\""]),
        ("UUID", vec!["\"00010203-0405-0607-0809-0A0b0c0d0e0f\"", "\"000102030405060708090a0b0c0d0e0f\""]),
        ("Date", vec!["\"2024-01-15\"", "\"2024-01-15T23:59:59-08:00\"", "\"2149-06-06\""]),
        ("Date32", vec!["\"1900-01-01\"", "\"2299-12-31 12:00:00\""]),
        ("DateTime", vec!["\"2024-01-01T00:00:00Z\"", "1704067200.9", "0", "\"2106-02-07 06:28:15\""]),
        ("DateTime('Europe/Berlin')", vec!["\"2024-10-27T01:30:00Z\"", "\"2024-10-27 02:30:00\""]),
        ("DateTime64(3, 'UTC')", vec!["\"1969-12-31T23:59:58.5Z\"", "\"2299-12-31T23:59:59.999Z\""]),
        ("DateTime64(9, 'America/New_York')", vec!["\"2024-11-03T06:30:00.123456789Z\"", "\"1900-01-01T05:00:00Z\""]),
        ("Enum8('a' = 1, 'it\\'s \"it\"' = -2)", vec!["\"it's \\\"it\\\"\"", "\"a\""]),
        ("IPv4", vec!["\"1.2.3.4\""]),
        ("IPv6", vec!["\"::1\"", "\"1.2.3.4\""]),
        ("Nullable(DateTime64(3, 'UTC'))", vec!["null", "\"2024-01-01\""]),
        ("LowCardinality(Nullable(String))", vec!["null", "\"x\""]),
        ("Array(Nullable(Date))", vec!["[]", "[\"2024-01-15\", null]"]),
        ("Array(Array(Decimal(9, 4)))", vec!["[[1.5],[],[\"0.0001\"]]"]),
        ("Map(String, DateTime)", vec!["{}", "{\"a\\\"b\": 5, \"c\": \"2024-01-01T00:00:00Z\"}"]),
        ("Tuple(x UInt8, y Nullable(UUID))", vec!["[1,null]", "{\"z\":0,\"x\":1}", "{}"]),
    ];
    let database = Database::new("test_declared");
    let columns: Vec<String> =
        declared.iter().enumerate().map(|(at, (of, _))| format!("c{at} {of}, j{at} JSON(v {of})")).collect();
    let table = database.table(&format!("id UInt8, {}", columns.join(", "))).await;
    let most = declared.iter().map(|(_, values)| values.len()).max().unwrap();
    let records: Vec<String> = (0..most)
        .map(|row| {
            let fields = declared.iter().enumerate().filter_map(|(at, (_, values))| {
                let value = values.get(row)?;
                Some(format!(r#","c{at}":{value},"j{at}":{{"v":{value},"w":[{row}]}}"#))
            });
            format!("{{\"id\":{row}{}}}", fields.collect::<String>())
        })
        .collect();
    table.insert("declared", &records).await;
    for (at, (of, values)) in declared.iter().enumerate() {
        let compared = database.run(&format!(
            "SELECT countIf(toString(c{at}) = toString(j{at}.v) OR (c{at} IS NULL AND j{at}.v IS NULL)), \
             groupArray((toString(c{at}), toString(j{at}.v))) FROM $.t WHERE id < {} FORMAT TSVRaw",
            values.len()
        ));
        assert!(compared.starts_with(&format!("{}\t", values.len())), "{of}: {compared}");
    }
}
