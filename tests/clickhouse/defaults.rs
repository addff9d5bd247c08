//! Absent fields and nulls: DEFAULT per row, null, or the type's default.

use crate::fixture::{Database, planned};
use weir::config::plan::{ColumnPlan, ColumnUnit, MissingField};
use weir::sink::{Sink, Token};

#[tokio::test]
async fn an_absent_field_takes_the_default_row_by_row() {
    let database = Database::new("test_defaults");
    let table = database
        .table(
            "id UInt8, i Int32 DEFAULT id * 10, lc LowCardinality(String) DEFAULT concat('d', toString(id)), \
             e Enum8('a' = 1, 'b' = 2) DEFAULT 'b', plain Enum8('y' = 5, 'x' = -3), a Array(String) DEFAULT ['d', 'e'], \
             n Nullable(Int32) DEFAULT 7, m Map(String, UInt8) DEFAULT map('k', 1), j JSON DEFAULT '{\"q\":5}', \
             u UUID DEFAULT generateUUIDv4(), x UInt8 MATERIALIZED id + 1, y UInt8 ALIAS id + 2, eph String EPHEMERAL, \
             up String DEFAULT upper(eph), t Tuple(a UInt8, b String) DEFAULT (3, 'z')",
        )
        .await;
    table
        .insert(
            "defaults",
            &[
                r#"{"id":1}"#,
                r#"{"id":2,"i":5,"lc":"set","e":"a","plain":"y","a":[],"n":null,"m":{},"j":{},"eph":"abc","t":[1,"t"]}"#,
                r#"{"id":3,"i":null,"lc":null,"e":null,"plain":null,"a":null,"m":null,"up":"own"}"#,
            ],
        )
        .await;
    let read = database.run(
        "SELECT id, i, lc, e, plain, a, n, m, toString(j), u != toUUID('00000000-0000-0000-0000-000000000000'), x, y, \
         up, t FROM $.t ORDER BY id FORMAT TSVRaw",
    );
    let expected = [
        "1\t10\td1\tb\tx\t['d','e']\t7\t{'k':1}\t{\"q\":5}\t1\t2\t3\t\t(3,'z')",
        "2\t5\tset\ta\ty\t[]\t\\N\t{}\t{}\t1\t3\t4\tABC\t(1,'t')",
        "3\t30\td3\tb\tx\t['d','e']\t7\t{'k':1}\t{\"q\":5}\t1\t4\t5\town\t(3,'z')",
    ];
    assert_eq!(read.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_strict_table_makes_dead_letters_of_what_is_missing() {
    let database = Database::new("test_strict");
    let mut table = database.table("id UInt8, d UInt8 DEFAULT 5, n Nullable(UInt8), e String EPHEMERAL ''").await;
    table.plan.missing = MissingField::DeadLetter;
    let (_, bad) = table.encode(&[
        r#"{"id":1,"n":null}"#,
        r#"{"n":1}"#,
        r#"{"id":null,"n":1}"#,
        r#"{"id":1,"d":null,"n":1}"#,
        r#"{"id":1}"#,
    ]);
    let reasons: Vec<_> = bad.iter().map(|bad| (bad.row, bad.reason)).collect();
    assert_eq!(reasons, [(1, "missing_field"), (2, "null_value"), (3, "null_value"), (4, "missing_field")]);
}

/// A constant DEFAULT is the same value whether weir writes it or the server fills it in.
#[tokio::test]
async fn a_constant_default_is_the_servers_own_value() {
    let database = Database::new("test_constants");
    let mut table = database
        .table(
            "id UInt8, a Nullable(Int32) DEFAULT NULL, b LowCardinality(Nullable(String)) DEFAULT NULL, \
             c Nullable(Float64) DEFAULT nan, d Array(Float32) DEFAULT [inf, -inf, 0.1], \
             e Nullable(DateTime64(3, 'Europe/Berlin')) DEFAULT toDateTime64('2024-10-27 01:30:00.5', 3, 'UTC'), \
             f Array(String) DEFAULT splitByChar(',', 'a,b'), g Nullable(Date) DEFAULT toDate('2020-01-01') + 1, \
             h Map(UInt8, DateTime('UTC')) DEFAULT map(1, toDateTime(5, 'UTC')), i Nullable(String) DEFAULT 'it\\'s\\n\"x\"', \
             j Tuple(x UInt256, y Array(Nullable(UUID))) DEFAULT (7, [NULL]), k Nullable(Enum8('p' = 1, 'q' = -2)) DEFAULT 'q', \
             l Nullable(Decimal(38, 10)) DEFAULT 1.5, m JSON(at DateTime64(3, 'UTC')) DEFAULT '{\"at\":\"2024-01-01\",\"n\":18446744073709551615}', \
             n Array(UInt8) DEFAULT arrayMap(x -> x + 1, [1, 2]), o Nullable(FixedString(4)) DEFAULT 'ab', \
             p Nullable(UInt8) DEFAULT multiIf(1 IN (1, 2), 3, 4)",
        )
        .await;
    // What the configuration says of a record's times says nothing of the server's.
    let berlin = planned("e", "e");
    table.plan.columns =
        vec![ColumnPlan { unit: Some(ColumnUnit::Seconds), zone: Some("Asia/Tokyo".to_owned()), ..berlin }];
    let (_, _, problems) = table.map();
    assert_eq!(problems, []);
    table.insert("c", &[r#"{"id":1}"#]).await;
    database.run("INSERT INTO $.t (id) SELECT 2");
    let columns: Vec<&str> = table.schema.columns[1..].iter().map(|column| column.name.as_str()).collect();
    for column in columns {
        let read = format!(
            "SELECT uniqExact(ifNull(toString({column}), 'null')), any(toString({column})) FROM $.t FORMAT TSVRaw"
        );
        let read = database.run(&read);
        assert!(read.starts_with("1\t"), "{column}: {read}");
    }
    assert_eq!(
        database.run("SELECT toString(e, 'UTC'), isNaN(c), f FROM $.t WHERE id = 1"),
        "2024-10-27 01:30:00.500\t1\t['a','b']"
    );
}

#[tokio::test]
async fn a_default_that_varies_is_left_to_the_server_where_no_null_can_ask_for_it() {
    let database = Database::new("test_varying");
    let table = database
        .table(
            "id UInt8, s String, a Array(String) DEFAULT splitByChar(',', s), at Nullable(DateTime) DEFAULT now(), \
             u Array(UUID) DEFAULT [generateUUIDv4()]",
        )
        .await;
    let (_, _, problems) = table.map();
    assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), ["varying_default"; 3]);
    let way_out = "MODIFY COLUMN `at` DateTime DEFAULT now()";
    assert!(problems[1].message.contains(way_out), "{}", problems[1].message);
    table.insert("varying", &[r#"{"id":1,"s":"x,y"}"#, r#"{"id":2,"s":"z"}"#]).await;
    let read = database
        .run("SELECT groupArray(a), countIf(at > now() - 600), uniqExact(u) FROM (SELECT * FROM $.t ORDER BY id)");
    assert_eq!(read, "[['x','y'],['z']]\t2\t2");
}

#[tokio::test]
async fn a_field_that_is_there_is_stored_whatever_its_column_has_for_default() {
    let database = Database::new("test_present");
    let mut table = database
        .table("id UInt8, s String, a Array(String) DEFAULT splitByChar(',', s), at Nullable(DateTime('UTC')) DEFAULT now()")
        .await;
    table.insert("all", &[r#"{"id":1,"a":["own"],"at":5}"#, r#"{"id":2,"a":[],"at":null}"#]).await;
    // In one block there is one list of columns: what nobody can ask for is null, or the default of the type.
    table.insert("some", &[r#"{"id":3,"s":"x,y"}"#, r#"{"id":4,"s":"z","a":["own"],"at":6}"#]).await;
    let read = database.run("SELECT id, a, toUnixTimestamp(at) FROM $.t ORDER BY id FORMAT TSVRaw");
    assert_eq!(read, "1\t['own']\t5\n2\t[]\t\\N\n3\t[]\t\\N\n4\t['own']\t6");

    table.plan.columns = vec![planned("a", "tags")];
    let (block, bad) = table.encode(&[r#"{"id":5,"tags":["own"]}"#, r#"{"id":6,"s":"x,y"}"#]);
    assert_eq!((bad.len(), bad[0].row, bad[0].reason), (1, 1, "missing_field"), "{bad:?}");
    assert!(
        bad[0].message.contains("has nothing at `tags` (`columns` fills it from the record)"),
        "{}",
        bad[0].message
    );
    table.sink().insert(&Token("named".to_owned()), &block.unwrap()).await.unwrap();
    assert_eq!(database.run("SELECT a FROM $.t WHERE id = 5"), "['own']");
}

/// What is written depends on the rows that are left, not on those that were taken back.
#[tokio::test]
async fn a_row_that_was_taken_back_leaves_its_column_to_the_server() {
    let database = Database::new("test_taken_back");
    let table = database.table("id UInt8, s String, a Array(String) DEFAULT splitByChar(',', s)").await;
    let (block, bad) = table.encode(&[r#"{"id":1,"s":"x,y"}"#, r#"{"id":300,"a":["own"]}"#]);
    assert_eq!(bad.len(), 1);
    let block = block.unwrap();
    assert_eq!(block.header.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id", "s"]);
    table.sink().insert(&Token("t".to_owned()), &block).await.unwrap();
    assert_eq!(database.run("SELECT a FROM $.t"), "['x','y']");
}

/// Bytes that are no text in a DEFAULT, or in what the server says of one, keep nothing from starting.
#[tokio::test]
async fn a_default_that_is_no_text_keeps_no_pipeline_from_starting() {
    let database = Database::new("test_no_text");
    let table = database.table("id UInt8, s String DEFAULT '\\xff', n Nullable(String) DEFAULT '\\xfe'").await;
    table.insert("b", &[r#"{"id":1}"#, r#"{"id":2,"s":"x"}"#]).await;
    assert_eq!(database.run("SELECT hex(s), hex(n) FROM $.t ORDER BY id FORMAT TSVRaw"), "FF\tFE\n78\tFE");
}
