//! Absent fields and nulls: DEFAULT per row, null, or the type's default.

use crate::fixture::Database;
use weir::config::plan::MissingField;

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

#[tokio::test]
async fn a_default_that_varies_is_left_to_the_server_where_no_null_can_ask_for_it() {
    let database = Database::new("test_varying");
    let table = database.table("id UInt8, s String, a Array(String) DEFAULT splitByChar(',', s)").await;
    let (_, _, problems) = table.map();
    assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), ["varying_default"]);
    table.insert("varying", &[r#"{"id":1,"s":"x,y"}"#]).await;
    assert_eq!(database.run("SELECT a FROM $.t"), "['x','y']");
}
