//! The table changes while blocks wait: nothing is sent into a column that is not what it was.

use crate::fixture::Database;
use weir::error::Kind;
use weir::sink::clickhouse::client::POOL_IDLE;
use weir::sink::{NOT_SENT, Sink, Token};

#[tokio::test]
async fn a_stored_block_waits_for_its_columns() {
    let database = Database::new("test_changes");
    let table = database.table("id UInt32, s String").await;
    let (block, _) = table.encode(&[r#"{"id":1,"s":"x"}"#]);
    let block = block.unwrap();
    let insert = async |token: &str| table.sink().insert(&Token(token.to_owned()), &block).await;
    insert("a").await.unwrap();

    database.run("ALTER TABLE $.t ADD COLUMN n UInt8 DEFAULT 7");
    insert("b").await.unwrap();

    database.run("ALTER TABLE $.t DROP COLUMN s");
    let gone = insert("c").await.unwrap_err();
    assert_eq!((gone.kind, gone.code.as_str()), (Kind::Stop, "table_changed"));
    assert!(gone.message.contains("ADD COLUMN `s` String"), "{gone}");

    database.run("ALTER TABLE $.t ADD COLUMN s UInt8");
    let retyped = insert("c").await.unwrap_err();
    assert!(retyped.message.contains("was String and is UInt8"), "{retyped}");

    database.run("ALTER TABLE $.t MODIFY COLUMN s String");
    insert("c").await.unwrap();
    assert_eq!(database.run("SELECT count(), countIf(s = 'x'), sum(n) FROM $.t"), "3\t1\t21");

    database.run("RENAME TABLE $.t TO $.away");
    let missing = insert("d").await.unwrap_err();
    assert_eq!(missing.kind, Kind::Stop);
    assert!(missing.message.contains("gone"), "{missing}");
}

/// Between two looks at the table the server's own answer has to tell.
#[tokio::test]
async fn a_change_that_the_last_look_missed_is_found_by_the_servers_refusal() {
    let database = Database::new("test_missed");
    let table = database.table("id UInt32, s String").await;
    let (block, _) = table.encode(&[r#"{"id":1,"s":"x"}"#]);
    let block = block.unwrap();
    let sink = table.sink();
    sink.insert(&Token("a".to_owned()), &block).await.unwrap();
    database.run("ALTER TABLE $.t DROP COLUMN s");
    let gone = sink.insert(&Token("b".to_owned()), &block).await.unwrap_err();
    // The server's code: the block was sent, so it counts as unclear.
    assert_eq!((gone.kind, gone.code.as_str()), (Kind::Stop, "16"));
    assert!(gone.message.contains("ADD COLUMN `s` String"), "{gone}");
    database.run("ALTER TABLE $.t ADD COLUMN s String");
    sink.insert(&Token("b".to_owned()), &block).await.unwrap();
    assert_eq!(database.run("SELECT count() FROM $.t"), "2");
}

/// A server that was away may have come back with another table.
#[tokio::test]
async fn the_columns_are_compared_again_before_the_first_insert_of_a_new_connection() {
    let database = Database::new("test_reconnect");
    let table = database.table("id UInt32, s String").await;
    let (block, _) = table.encode(&[r#"{"id":1,"s":"x"}"#]);
    let block = block.unwrap();
    let sink = table.sink();
    sink.insert(&Token("a".to_owned()), &block).await.unwrap();
    database.run("ALTER TABLE $.t DROP COLUMN s");
    // As long as it takes until the idle connection is closed.
    tokio::time::sleep(POOL_IDLE).await;
    let gone = sink.insert(&Token("b".to_owned()), &block).await.unwrap_err();
    assert_eq!((gone.kind, gone.code.as_str()), (Kind::Stop, NOT_SENT));
}
