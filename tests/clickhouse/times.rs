//! Points in time on their way into a real table: zones with their gaps and folds, units, and times within others.

use crate::fixture::{Database, planned};
use weir::config::plan::{ColumnPlan, ColumnUnit};

fn zoned(column: &str, path: &str, unit: Option<ColumnUnit>, zone: Option<&str>) -> ColumnPlan {
    ColumnPlan { unit, zone: zone.map(str::to_owned), ..planned(column, path) }
}

#[tokio::test]
async fn unit_and_zone_of_the_configuration_reach_the_table() {
    let database = Database::new("test_units");
    let mut table = database
        .table(
            "id UInt8, ms DateTime64(6, 'UTC'), us DateTime, ns DateTime64(9, 'UTC'), days Date, berlin DateTime('UTC'), \
             own DateTime64(3, 'Asia/Tokyo')",
        )
        .await;
    table.plan.columns = vec![
        zoned("ms", "a", Some(ColumnUnit::Millis), None),
        zoned("us", "b", Some(ColumnUnit::Micros), None),
        zoned("ns", "c", Some(ColumnUnit::Nanos), None),
        zoned("days", "d", Some(ColumnUnit::Days), None),
        zoned("berlin", "e", None, Some("Europe/Berlin")),
    ];
    let record = r#"{"id":1,"a":1704067200123,"b":1704067200999999,"c":1704067200123456789,"d":19737,
        "e":"2024-07-01 12:00:00","own":"2024-07-01 12:00:00"}"#;
    table.insert("u", &[record]).await;
    let read = database.run(
        "SELECT toString(ms), toUnixTimestamp(us), toString(ns), days, toString(berlin), toString(own, 'UTC') FROM $.t \
         FORMAT TSVRaw",
    );
    let expected = "2024-01-01 00:00:00.123000\t1704067200\t2024-01-01 00:00:00.123456789\t2024-01-15\t\
                    2024-07-01 10:00:00\t2024-07-01 03:00:00.000";
    assert_eq!(read, expected);
}

/// In the gap of spring a local time is moved on by the gap; in the fold of autumn it is the first of the two.
#[tokio::test]
async fn local_times_that_are_not_there_or_twice_there_are_read_as_documented() {
    let database = Database::new("test_gaps");
    let table = database
        .table("id UInt8, b DateTime('Europe/Berlin'), n DateTime64(3, 'America/New_York'), h DateTime('Australia/Lord_Howe')")
        .await;
    table
        .insert(
            "g",
            &[
                // Gaps: 02:00 to 03:00 in Berlin and New York, half an hour from 02:00 on Lord Howe.
                r#"{"id":1,"b":"2024-03-31 02:30:00","n":"2024-03-10 02:30:00.5","h":"2024-10-06 02:15:00"}"#,
                // Folds.
                r#"{"id":2,"b":"2024-10-27 02:30:00","n":"2024-11-03 01:30:00.5","h":"2024-04-07 01:45:00"}"#,
                // With an offset there is no doubt.
                r#"{"id":3,"b":"2024-10-27T02:30:00+01:00","n":"2024-11-03T01:30:00.5-05:00","h":"2024-04-07T01:45:00+10:30"}"#,
            ],
        )
        .await;
    let read = database.run(
        "SELECT id, toString(b, 'UTC'), toString(n, 'UTC'), toString(h, 'UTC') FROM $.t ORDER BY id FORMAT TSVRaw",
    );
    let expected = [
        "1\t2024-03-31 01:30:00\t2024-03-10 07:30:00.500\t2024-10-05 15:45:00",
        "2\t2024-10-27 00:30:00\t2024-11-03 05:30:00.500\t2024-04-06 14:45:00",
        "3\t2024-10-27 01:30:00\t2024-11-03 06:30:00.500\t2024-04-06 15:15:00",
    ];
    assert_eq!(read.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_unit_counts_for_the_times_within_a_container() {
    let database = Database::new("test_contained");
    let mut table = database
        .table(
            "id UInt8, a Array(DateTime64(3, 'UTC')), m Map(String, Nullable(DateTime64(0, 'UTC'))), \
             t Tuple(at DateTime64(6, 'UTC'), n UInt8), d Array(Date)",
        )
        .await;
    table.plan.columns = vec![
        zoned("a", "a", Some(ColumnUnit::Micros), None),
        zoned("m", "m", Some(ColumnUnit::Millis), None),
        zoned("t", "t", Some(ColumnUnit::Seconds), None),
        zoned("d", "d", Some(ColumnUnit::Days), None),
    ];
    let record = r#"{"id":1,"a":[1704067200123456,"2024-01-01"],"m":{"x":1704067200999,"y":null},"t":[1704067200.5,7],"d":[0,19737]}"#;
    table.insert("c", &[record]).await;
    assert_eq!(
        database.run("SELECT a, m, t, d FROM $.t FORMAT TSVRaw"),
        "['2024-01-01 00:00:00.123','2024-01-01 00:00:00.000']\t{'x':'2024-01-01 00:00:00','y':NULL}\t\
         ('2024-01-01 00:00:00.500000',7)\t['1970-01-01','2024-01-15']"
    );
}

#[tokio::test]
async fn the_keys_of_a_map_are_read_as_their_type() {
    let database = Database::new("test_map_keys");
    let mut table = database
        .table(
            "id UInt8, d Map(Date, UInt8), t Map(DateTime('UTC'), UInt8), p Map(DateTime64(3, 'UTC'), UInt8), \
             e Map(Enum8('a' = 1, 'b' = 2), UInt8), u Map(UUID, UInt8), i Map(Int64, UInt8)",
        )
        .await;
    table.plan.columns = vec![zoned("p", "p", Some(ColumnUnit::Millis), None)];
    let record = r#"{"id":1,"d":{"2024-01-15":1},"t":{"2024-01-01T01:00:00+01:00":2,"1704067201":3},"p":{"1704067200123":4},
        "e":{"b":5},"u":{"00010203-0405-0607-0809-0a0b0c0d0e0f":6},"i":{"-7":7}}"#;
    table.insert("k", &[record]).await;
    let read = database.run("SELECT d, t, p, e, u, i FROM $.t FORMAT TSVRaw");
    let expected = [
        "{'2024-01-15':1}",
        "{'2024-01-01 00:00:00':2,'2024-01-01 00:00:01':3}",
        "{'2024-01-01 00:00:00.123':4}",
        "{'b':5}",
        "{'00010203-0405-0607-0809-0a0b0c0d0e0f':6}",
        "{-7:7}",
    ];
    assert_eq!(read.split('\t').collect::<Vec<_>>(), expected);
    let (_, bad) = table.encode(&[
        r#"{"id":1,"d":{"2024-02-30":1}}"#,
        r#"{"id":2,"t":{"soon":1}}"#,
        r#"{"id":3,"e":{"c":1}}"#,
        r#"{"id":4,"u":{"x":1}}"#,
    ]);
    assert_eq!(bad.len(), 4, "{bad:?}");
}

#[tokio::test]
async fn epochs_before_1970_are_cut_towards_the_past() {
    let database = Database::new("test_negative");
    let mut table = database.table("id UInt8, s DateTime64(0, 'UTC'), ms DateTime64(3, 'UTC'), d Date32").await;
    table.plan.columns = vec![
        zoned("s", "a", Some(ColumnUnit::Millis), None),
        zoned("ms", "b", Some(ColumnUnit::Micros), None),
        zoned("d", "d", Some(ColumnUnit::Days), None),
    ];
    table
        .insert("n", &[r#"{"id":1,"a":-1,"b":-1500001,"d":-1}"#, r#"{"id":2,"a":-2208988800000,"b":-0.5,"d":-25567}"#])
        .await;
    assert_eq!(
        database.run("SELECT s, ms, d FROM $.t ORDER BY id FORMAT TSVRaw"),
        "1969-12-31 23:59:59\t1969-12-31 23:59:58.499\t1969-12-31\n1900-01-01 00:00:00\t1969-12-31 23:59:59.999\t1900-01-01"
    );
}

#[tokio::test]
async fn unit_and_zone_where_there_is_no_time_are_findings() {
    let database = Database::new("test_no_times");
    let mut table = database.table("n UInt64, d Date, t DateTime, a Array(String), j JSON(at DateTime)").await;
    let findings = |table: &crate::fixture::Table| {
        let (_, _, problems) = table.map();
        problems.iter().map(|problem| (problem.code, problem.message.clone())).collect::<Vec<_>>()
    };
    table.plan.columns = vec![
        zoned("n", "n", Some(ColumnUnit::Millis), None),
        zoned("a", "a", None, Some("Europe/Berlin")),
        zoned("d", "d", Some(ColumnUnit::Seconds), Some("Europe/Berlin")),
        zoned("t", "t", Some(ColumnUnit::Days), None),
        zoned("j", "j", Some(ColumnUnit::Millis), Some("Europe/Berlin")),
    ];
    let said = findings(&table);
    assert_eq!(
        said.iter().map(|(code, _)| *code).collect::<Vec<_>>(),
        ["unfit_unit", "unfit_unit", "unfit_zone", "unfit_unit", "unfit_zone"]
    );
    let text = said.iter().map(|(_, message)| message.as_str()).collect::<Vec<_>>().join("\n");
    for sentence in [
        "column `n` of `t` is UInt64: `unit` is for dates and times: leave it out",
        "column `a` of `t` is Array(String): `zone` is for times: leave it out",
        "column `d` of `t` is Date: numbers in a Date column need `unit: days`",
        "column `d` of `t` is Date: a date is taken as it is written, whatever the zone: leave out `zone`",
        "column `t` of `t` is DateTime: `unit: days` is for Date columns",
    ] {
        assert!(text.contains(sentence), "{sentence}\n{text}");
    }
}
