//! Tables that cannot keep the promise are refused at start, with what mends them; tables made by weir keep it.

use crate::fixture::{Database, ENGINE, connection, errors};
use weir::config::plan::{BlockCompression, ColumnPlan, CreateTablePlan, FieldPath};
use weir::error::{Kind, Place};
use weir::sink::clickhouse::client::Client;
use weir::sink::clickhouse::create;
use weir::sink::clickhouse::schema::{read_server, read_table};
use weir::sink::dead_letter::{self, Letter, LetterBuilder};
use weir::sink::{Sink, Token};

#[tokio::test]
async fn a_plain_table_is_refused_until_the_fix_has_run() {
    let database = Database::new("test_fix");
    database.run("CREATE TABLE $.t (id UInt32) ENGINE = ReplacingMergeTree ORDER BY id");
    let report = database.inspect("t").await;
    assert_eq!(report.problems[0].code, "no_window");
    database.engine.query(report.problems[0].fix_sql.as_ref().unwrap());
    assert_eq!(database.inspect("t").await.problems, []);
}

#[tokio::test]
async fn engines_without_a_window_and_missing_tables_are_refused() {
    let database = Database::new("test_engines");
    database.run("CREATE TABLE $.memory (id UInt32) ENGINE = Memory");
    database.run("CREATE TABLE $.nothing (id UInt32) ENGINE = Null");
    database.run(&format!("CREATE TABLE $.t (id UInt32) {ENGINE}"));
    database.run("CREATE TABLE $.buffer AS $.t ENGINE = Buffer('$', 't', 1, 10, 100, 1, 10, 1, 10)");
    for (table, code) in
        [("memory", "unfit_engine"), ("nothing", "unfit_engine"), ("buffer", "unfit_engine"), ("absent", "no_table")]
    {
        let report = database.inspect(table).await;
        assert_eq!(report.problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [code], "{table}");
    }
}

#[tokio::test]
async fn columns_that_cannot_be_written_are_refused_by_name() {
    let database = Database::new("test_columns");
    let mut table = database.table("id UInt32, v Variant(String, UInt8), d Dynamic, m UInt8 MATERIALIZED 1").await;
    let column = |name: &str| ColumnPlan {
        column: name.to_owned(),
        path: FieldPath { text: "x".to_owned(), at: Place::default() },
        unit: None,
        zone: None,
    };
    table.plan.columns = vec![column("m"), column("di")];
    let (_, _, problems) = table.map();
    let said = errors(&problems).join("\n");
    for part in ["`m`", "did you mean `d`?", "Variant", "Dynamic"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn a_table_is_created_from_a_sample_and_grows() {
    let database = Database::new("test_create");
    let sample: [&[u8]; 2] = [
        br#"{"id":1,"at":"2024-01-01T00:00:00Z","user":{"name":"x","age":3},"tags":["a"]}"#,
        br#"{"id":2,"price":1.5,"user":null}"#,
    ];
    let plan = CreateTablePlan { order_by: vec!["id".to_owned()], at: Place::default() };
    let statement = create::create_statement(&plan, &database.name, "t", &sample, true, 10_000).unwrap();
    database.client.execute(&statement).await.unwrap();
    let table = database.open("t").await;
    let records: Vec<_> = sample.iter().map(|record| std::str::from_utf8(record).unwrap()).collect();
    table.insert("c", &records).await;
    let read = database.run("SELECT id, at, user.name, user.age, tags, price FROM $.t ORDER BY id FORMAT TSVRaw");
    assert_eq!(read, "1\t2024-01-01 00:00:00.000000\tx\t3\t['a']\t\\N\n2\t\\N\t\\N\t\\N\t[]\t1.5");
    let new: [&[u8]; 1] = [br#"{"id":1,"user":{"city":"y"},"fresh":true,"at":null}"#];
    let statement = create::add_columns_statement(&table.schema, &[], &new).unwrap();
    let after = create::add_columns(&database.client, &table.schema, &statement).await.unwrap();
    assert!(after.column("fresh").is_some() && after.column("user.city").is_some());
    assert_eq!(create::add_columns_statement(&after, &[], &new), None);
}

#[tokio::test]
async fn dead_letters_arrive_byte_for_byte_and_once() {
    let database = Database::new("test_letters");
    database.client.execute(&dead_letter::create_statement(&database.name, "letters", 10_000)).await.unwrap();
    let table = database.open("letters").await;
    let mut builder = LetterBuilder::new(&table.schema, BlockCompression::Lz4).unwrap();
    let mut headers = weir::codec::record::RecordBatch::default();
    let pairs: [(&[u8], Option<&[u8]>); 2] = [(b"h", Some(b"\xff\"")), (b"h", None)];
    headers.push(0, 0, None, None, pairs);
    let letter = Letter {
        time_ms: 1_704_067_200_123,
        pipeline: "p",
        step: "decode",
        reason: "not_json",
        message: "it's broken",
        topic: "t",
        partition: 3,
        offset: 9,
        timestamp_ms: -1,
        key: None,
        value: Some(b"\xff{"),
        headers: headers.slice(headers.records[0].headers),
    };
    builder.push(&letter);
    let block = builder.seal().unwrap();
    for _ in 0..2 {
        table.sink().insert(&Token("l".to_owned()), &block).await.unwrap();
    }
    let other = table.sink().of_letters("another pipeline");
    assert_eq!(other.holds(3, &[("t".to_owned(), 9, 10)]).await, Ok(Some(0)));
    let sink = table.sink().of_letters("p");
    assert_eq!(sink.holds(3, &[("t".to_owned(), 9, 10)]).await, Ok(Some(1)));
    assert_eq!(sink.holds(3, &[("t".to_owned(), 0, 9)]).await, Ok(Some(0)));
    let read = database.run(
        "SELECT time, message, partition, offset, timestamp, key, hex(value), arrayMap(h -> (h.1, hex(h.2)), headers) \
         FROM $.letters FORMAT TSVRaw",
    );
    assert_eq!(read, "2024-01-01 00:00:00.123\tit's broken\t3\t9\t\\N\t\\N\tFF7B\t[('h','FF22'),('h',NULL)]");
}

#[tokio::test]
async fn a_server_that_is_away_is_told_and_another_url_is_tried() {
    let database = Database::new("test_urls");
    let away = format!("http://127.0.0.1:{}", crate::support::free_port());
    let client = Client::new(&connection(&[away.clone(), database.engine.url()], &database.name)).unwrap();
    assert!(!read_server(&client).await.unwrap().settings.is_empty());
    assert_eq!(client.url(), database.engine.url());
    let lost = Client::new(&connection(&[away], &database.name)).unwrap();
    let failure = read_table(&lost, "d", "t").await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.clone().into_error("x").kind), ("network", Kind::Retry));
}

#[tokio::test]
async fn a_wrong_password_stops_with_the_servers_words() {
    let database = Database::new("test_password");
    let mut plan = connection(&[database.engine.url()], &database.name);
    plan.user = "nobody".to_owned();
    let failure = read_server(&Client::new(&plan).unwrap()).await.unwrap_err();
    assert_eq!(failure.clone().into_error("asking").kind, Kind::Stop, "{failure:?}");
}
