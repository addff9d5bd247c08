//! Members of a flattened Nested: one length in every row, wherever they come from, or the row is a dead letter.

use crate::fixture::{Database, planned};
use weir::sink::{Sink, Token};

#[tokio::test]
async fn a_member_that_the_configuration_names_keeps_its_length_group() {
    let database = Database::new("test_named_member");
    let mut table = database.table("id UInt8, n Nested(a UInt8, b String, c UInt8 )").await;
    table.plan.columns = vec![planned("n.a", "x")];
    let (block, bad) = table.encode(&[
        r#"{"id":1,"x":[1,2]}"#,
        r#"{"id":2,"x":[1],"n":{"b":["p"]}}"#,
        r#"{"id":3,"x":[1],"n":{"b":["p","q"]}}"#,
        r#"{"id":4,"n":[{"a":9,"b":"p"},{"b":"q","c":7}]}"#,
        r#"{"id":5,"x":[5],"n":[{"b":"p"},{"b":"q"}]}"#,
        r#"{"id":6}"#,
    ]);
    assert_eq!(bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), [2, 4], "{bad:?}");
    table.sink().insert(&Token("n".to_owned()), &block.unwrap()).await.unwrap();
    let read = database.run("SELECT id, n.a, n.b, n.c FROM $.t ORDER BY id FORMAT TSVRaw");
    let expected = ["1\t[1,2]\t['','']\t[0,0]", "2\t[1]\t['p']\t[0]", "4\t[0,0]\t['p','q']\t[0,7]", "6\t[]\t[]\t[]"];
    assert_eq!(read.lines().collect::<Vec<_>>(), expected);
}

/// As ClickHouse does; at the last dot the groups would be others, and the server would refuse the block (190).
#[tokio::test]
async fn groups_are_split_at_the_first_dot() {
    let database = Database::new("test_first_dot");
    let table = database.table("id UInt8, `n.a.x` Array(UInt8), `n.a.y` Array(UInt8), `n.b` Array(String)").await;
    let (block, bad) = table.encode(&[
        r#"{"id":1,"n":{"a":{"x":[1,2]}}}"#,
        r#"{"id":2,"n":{"a":{"x":[1,2]},"b":["p"]}}"#,
        r#"{"id":3,"n":[{"a":{"x":1,"y":2},"b":"p"},{"a.x":3}]}"#,
    ]);
    assert_eq!(bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), [1], "{bad:?}");
    table.sink().insert(&Token("n".to_owned()), &block.unwrap()).await.unwrap();
    let read = database.run("SELECT id, `n.a.x`, `n.a.y`, `n.b` FROM $.t ORDER BY id FORMAT TSVRaw");
    assert_eq!(read, "1\t[1,2]\t[0,0]\t['','']\n3\t[1,3]\t[2,0]\t['p','']");
}

#[tokio::test]
async fn a_scalar_in_the_place_of_a_nested_is_a_dead_letter_that_names_it() {
    let database = Database::new("test_misplaced");
    let table = database.table("id UInt8, n Nested(a UInt8, b String)").await;
    let (_, bad) = table.encode(&[
        r#"{"id":1,"n":5}"#,
        r#"{"id":2,"n":"x"}"#,
        r#"{"id":3,"n":null}"#,
        r#"{"id":4,"n":{}}"#,
        r#"{"id":5,"n":[7]}"#,
    ]);
    assert_eq!(bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), [0, 1, 4], "{bad:?}");
    assert!(bad[0].message.contains("the record has 5 at `n`"), "{}", bad[0].message);
    assert!(bad[2].message.contains("the record has [7] at `n`"), "{}", bad[2].message);
}
