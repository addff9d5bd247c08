//! What becomes of rows on their way through joins: who is judged by which watermark, who falls, who gets a key back.
//!
//! The source is `orders`. Its rows bring `l`, those of right sides `r`; times are milliseconds. A row that a column
//! cannot take says so with the text `unfit`.

mod driven;

use driven::Driven;

/// A join with a topic by `id`, within ten milliseconds.
fn join(topic: &str, how: &str) -> String {
    joined_with(topic, "", how)
}

fn joined_with(topic: &str, with: &str, how: &str) -> String {
    format!(
        "{{ join: {{ with: {{ kafka: {{ topic: {topic} }}{with} }}, as: {topic}, key: id, within: 10ms, {how} }} }}"
    )
}

const INTERVAL: &str = "kind: interval, max_skew: 1h";
const TEMPORAL: &str = "kind: temporal, max_skew: 1h, type: left";
const TABLE: &str = ", retain: forever";
const DEDUP: &str = "{ dedup: { key: id, window: 1h } }";

fn left(id: &str, text: &str) -> String {
    format!(r#"{{"id":"{id}","l":"{text}"}}"#)
}

fn right(id: &str, text: &str) -> String {
    format!(r#"{{"id":"{id}","r":"{text}"}}"#)
}

/// Payments have come to 95 when they fall silent, orders and shipments to 200.
fn silent_payments() -> Driven {
    let how = format!("{INTERVAL}, type: left");
    let steps = [join("payments", &how), join("shipments", &how)].join(", ");
    let mut driven = Driven::new(&steps, &["id", "l", "payments.r", "shipments.r"]);
    driven.send(1, 95, &right("x", "p0"));
    driven.send(0, 100, &left("a", "o1"));
    driven.send(2, 100, &right("a", "s1"));
    driven.send(0, 200, &left("b", "o2"));
    driven.send(2, 200, &right("b", "s2"));
    driven.run(0);
    assert_eq!(driven.rows(), [""; 0], "everybody waits for the payments");
    driven
}

const PAYMENTS_IDLE: u64 = 0b010;

#[test]
fn what_an_idle_input_lets_go_comes_to_the_next_join_before_that_one_sees_time_go_on() {
    let mut driven = silent_payments();
    driven.run(PAYMENTS_IDLE);
    assert_eq!(driven.rows(), ["a o1 null s1"]);
    driven.send(0, 300, &left("c", "o3"));
    driven.send(2, 300, &right("c", "s3"));
    driven.run(PAYMENTS_IDLE);
    assert_eq!(driven.rows(), ["b o2 null s2"]);
    driven.check_balance();
}

#[test]
fn a_rise_does_the_same_with_rows_behind_it_as_alone() {
    let rows = |alone: bool| {
        let mut driven = silent_payments();
        driven.send(0, 300, &left("c", "o3"));
        driven.send(2, 300, &right("c", "s3"));
        if alone {
            driven.set_aside(PAYMENTS_IDLE);
        }
        driven.run(PAYMENTS_IDLE);
        driven.check_balance();
        driven.rows()
    };
    assert_eq!(rows(true), ["a o1 null s1", "b o2 null s2"]);
    assert_eq!(rows(false), rows(true), "who makes an epoch again makes it of its cuts");
}

#[test]
fn a_rise_after_a_restart_is_one_from_where_time_had_come() {
    let mut driven = silent_payments();
    driven.restart();
    driven.run(PAYMENTS_IDLE);
    assert_eq!(driven.rows(), ["a o1 null s1"]);
}

#[test]
fn an_exact_table_that_is_set_aside_lets_go_to_the_next_join_in_the_same_way() {
    let users = joined_with("users", TABLE, "kind: temporal, exact: true, type: left");
    let steps = [users, join("shipments", &format!("{INTERVAL}, type: left"))].join(", ");
    let mut driven = Driven::new(&steps, &["id", "l", "users.r", "shipments.r"]);
    driven.send(1, 95, &right("x", "u0"));
    driven.send(0, 100, &left("a", "o1"));
    driven.send(2, 100, &right("a", "s1"));
    driven.send(0, 200, &left("b", "o2"));
    driven.send(2, 200, &right("b", "s2"));
    driven.run(0);
    assert_eq!(driven.rows(), [""; 0], "the table has not come so far");
    driven.run(0b010);
    assert_eq!(driven.rows(), ["a o1 null s1"]);
}

#[test]
fn a_replayed_row_meets_what_time_has_left_also_right_after_a_restart() {
    for restarts in [false, true] {
        let mut driven = Driven::new(&join("payments", TEMPORAL), &["id", "l", "payments.r"]);
        driven.send(1, 100, &right("a", "p1"));
        driven.send(1, 200, &right("b", "p2"));
        driven.send(0, 200, &left("c", "o1"));
        driven.run(0);
        if restarts {
            driven.restart();
        }
        driven.replay(7, 100, &left("a", "late"));
        driven.replay(8, 205, &left("b", "in time"));
        // The payment of `a` lies in the store still, and time has passed it.
        assert_eq!(driven.rows(), ["a late null", "b in time p2"], "restarts: {restarts}");
        driven.run(0);
        driven.close_windows();
        assert_eq!(driven.rows(), ["c o1 null"], "a replay leaves nothing behind");
    }
}

#[test]
fn a_replayed_row_that_would_wait_comes_out_alone() {
    let mut driven = Driven::new(&join("payments", TEMPORAL), &["id", "l", "payments.r"]);
    driven.send(0, 100, &left("x", "o0"));
    driven.send(1, 100, &right("x", "p0"));
    driven.run(0);
    driven.replay(7, 105, &left("a", "again"));
    driven.send(1, 105, &right("a", "p1"));
    driven.run(0);
    assert_eq!(driven.rows(), ["x o0 p0", "a again null"]);
}

#[test]
fn a_row_that_went_right_through_a_join_and_falls_gives_its_key_back() {
    let steps = [DEDUP.to_owned(), join("payments", TEMPORAL)].join(", ");
    let mut driven = Driven::new(&steps, &["id", "l", "payments.r"]);
    driven.send(1, 100, &right("a", "p1"));
    driven.send(0, 100, &left("a", "unfit"));
    driven.send(0, 101, &left("a", "mended"));
    driven.send(0, 102, &left("a", "a duplicate"));
    driven.run(0);
    assert_eq!(driven.rows(), ["a mended p1"]);
    assert_eq!(driven.letters(), ["orders@0 sink does_not_fit"]);
    driven.check_balance();
}

#[test]
fn what_a_rise_lets_go_counts_once_although_the_first_row_behind_it_falls() {
    let dedup = "{ dedup: { key: id, window: 1h, missing_key: pass } }".to_owned();
    let mut driven = Driven::new(&[dedup, join("payments", TEMPORAL)].join(", "), &["id", "l", "payments.r"]);
    driven.send(1, 95, &right("x", "p0"));
    driven.send(0, 100, &left("a", "o1"));
    driven.run(0);
    // Without a key it goes right through, and does not fit.
    driven.send(0, 300, r#"{"l":"unfit"}"#);
    driven.run(PAYMENTS_IDLE);
    assert_eq!(driven.rows(), ["a o1 null"]);
    assert_eq!(driven.letters(), ["orders@1 sink does_not_fit"]);
    driven.check_balance();
}

#[test]
fn a_row_that_has_waited_in_a_join_and_falls_keeps_its_key() {
    let steps = [DEDUP.to_owned(), join("payments", &format!("{INTERVAL}, type: left"))].join(", ");
    let mut driven = Driven::new(&steps, &["id", "l", "payments.r"]);
    driven.send(0, 100, &left("a", "unfit"));
    driven.send(1, 105, &right("a", "p1"));
    driven.send(0, 106, &left("a", "mended"));
    driven.run(0);
    assert_eq!(driven.rows(), [""; 0]);
    assert_eq!(driven.letters(), ["orders@0 sink does_not_fit"]);
    driven.check_balance();
}

#[test]
fn a_row_that_a_join_refuses_at_its_door_gives_its_key_back() {
    let how = format!("{INTERVAL}, late: dead_letter");
    let mut driven = Driven::new(&[DEDUP.to_owned(), join("payments", &how)].join(", "), &["id", "l", "payments.r"]);
    driven.send(0, 200, &left("z", "o1"));
    driven.send(1, 200, &right("z", "p1"));
    driven.run(0);
    driven.send(0, 100, &left("a", "late"));
    driven.send(0, 205, &left("a", "in time"));
    driven.send(1, 205, &right("a", "p2"));
    driven.run(0);
    assert_eq!(driven.rows(), ["z o1 p1", "a in time p2"]);
    assert_eq!(driven.letters(), ["orders@1 1 late"]);
    driven.check_balance();
}

#[test]
fn a_right_row_that_is_refused_gives_the_key_of_its_side_back() {
    let join = "{ join: { with: { kafka: { topic: payments }, steps: [ { dedup: { key: n, window: 1h } } ] }, as: p, \
                key: { path: id, as: int }, within: 10ms, kind: interval, max_skew: 1h } }";
    let mut driven = Driven::new(join, &["id", "p.r"]);
    driven.send(1, 100, r#"{"n":1,"id":"seven","r":"unfit"}"#);
    driven.send(1, 100, r#"{"n":1,"id":7,"r":"mended"}"#);
    driven.send(1, 100, r#"{"n":1,"id":7,"r":"a duplicate"}"#);
    driven.send(0, 100, r#"{"id":"7"}"#);
    driven.run(0);
    assert_eq!(driven.rows(), ["7 mended"]);
    assert_eq!(driven.letters(), ["payments@0 0 key_does_not_fit"]);
    driven.check_balance();
}

#[test]
fn behind_a_join_a_pair_that_falls_gives_the_key_to_the_next_and_its_record_falls_once() {
    let steps = [join("payments", INTERVAL), DEDUP.to_owned()].join(", ");
    let mut driven = Driven::new(&steps, &["id", "l", "payments.r"]);
    driven.send(1, 100, &right("a", "unfit"));
    driven.send(1, 101, &right("a", "unfit"));
    driven.send(1, 102, &right("a", "p3"));
    driven.send(1, 103, &right("a", "p4"));
    driven.send(0, 104, &left("a", "o1"));
    driven.run(0);
    assert_eq!(driven.rows(), ["a o1 p3"]);
    assert_eq!(driven.letters(), ["orders@0 sink does_not_fit"]);
    driven.check_balance();
}

#[test]
fn between_joins_a_released_row_is_not_late_for_a_dedup() {
    let how = format!("{INTERVAL}, type: left");
    let dedup = "{ dedup: { key: id, window: 5ms, late: dead_letter } }".to_owned();
    let steps = [join("payments", &how), dedup, join("shipments", &how)].join(", ");
    let mut driven = Driven::new(&steps, &["id", "l", "payments.r", "shipments.r"]);
    let at = |driven: &mut Driven, time_ms: i64, id: &str| {
        driven.send(0, time_ms, &left(id, "o"));
        driven.send(1, time_ms, &right("none", "p"));
        driven.send(2, time_ms, &right(id, "s"));
    };
    at(&mut driven, 100, "a");
    at(&mut driven, 102, "a");
    at(&mut driven, 106, "a");
    at(&mut driven, 9_000, "b");
    driven.run(0);
    // One jump of the watermark lets all three go: that of 102 is a duplicate, that of 106 is new again.
    assert_eq!(driven.letters(), [""; 0]);
    let met = driven.rows().iter().filter(|row| *row == "a o null s").count();
    assert_eq!(met, 2 * 3, "each of the two with the three shipments within ten milliseconds");
    driven.check_balance();
}

#[test]
fn null_keys_go_the_way_of_the_type_at_once() {
    let rows = |how: &str, with: &str| {
        let mut driven = Driven::new(&joined_with("others", with, how), &["id", "l", "others.r"]);
        driven.send(0, 100, &left("x", "first"));
        driven.send(1, 100, r#"{"id":null,"r":"none"}"#);
        driven.send(0, 101, r#"{"l":"none"}"#);
        driven.run(0);
        driven.check_balance();
        driven.rows()
    };
    assert_eq!(rows(&format!("{INTERVAL}, type: right"), ""), ["null null none"]);
    assert_eq!(rows(&format!("{INTERVAL}, type: full"), ""), ["null null none", "- none null"]);
    assert_eq!(rows(INTERVAL, ""), [""; 0]);
    let exact = "kind: temporal, exact: true, type: left";
    assert_eq!(rows(&format!("{exact}, max_skew: 1h"), ""), ["- none null"]);
    assert_eq!(rows(exact, TABLE), ["- none null"]);
    assert_eq!(rows("kind: temporal, type: left", TABLE), ["- none null"]);
}

#[test]
fn a_tombstone_with_digits_for_a_key_deletes_whichever_the_rows_hold() {
    let mut driven = Driven::new(&joined_with("users", TABLE, "kind: temporal, type: left"), &["id", "users.r"]);
    driven.send(1, 100, &right("1001", "text"));
    driven.send(1, 100, r#"{"id":1002,"r":"number"}"#);
    driven.send(1, 100, &right("1003", "stays"));
    driven.delete(1, 101, "1001");
    driven.delete(1, 101, "1002");
    ["\"1001\"", "1002", "\"1003\""].iter().for_each(|id| driven.send(0, 102, &format!("{{\"id\":{id}}}")));
    driven.run(0);
    assert_eq!(driven.rows(), ["1001 null", "1002 null", "1003 stays"]);
    driven.check_balance();
}

#[test]
fn keys_meet_by_type_and_value_or_by_what_they_are_read_as() {
    let met = |key: &str| {
        let steps = format!(
            "{{ join: {{ with: {{ kafka: {{ topic: others }} }}, as: other, key: {key}, within: 10ms, {INTERVAL} }} }}"
        );
        let mut driven = Driven::new(&steps, &["l", "other.r"]);
        driven.send(1, 100, r#"{"id":1,"r":"number"}"#);
        driven.send(1, 100, r#"{"id":"1","r":"text"}"#);
        driven.send(0, 100, r#"{"id":1,"l":"1"}"#);
        driven.send(0, 100, r#"{"id":1.0,"l":"1.0"}"#);
        driven.send(0, 100, r#"{"id":"1","l":"'1'"}"#);
        driven.run(0);
        driven.rows()
    };
    assert_eq!(met("id"), ["1 number", "1.0 number", "'1' text"]);
    let int = ["1 number", "1 text", "1.0 number", "1.0 text", "'1' number", "'1' text"];
    assert_eq!(met("{ path: id, as: int }"), int);
    assert_eq!(met("{ path: id, as: text }"), ["1 number", "1 text", "'1' number", "'1' text"]);
}

#[test]
fn a_column_that_no_side_has_so_far_is_looked_up_in_the_next_object_whoever_was_alone() {
    let steps = [join("payments", &format!("{INTERVAL}, type: full")), join("users", TEMPORAL)].join(", ");
    let mut driven = Driven::new(&steps, &["id", "l", "region"]);
    for id in ["a", "b", "c", "d"] {
        let region = if id == "c" { "" } else { r#","region":"eu""# };
        driven.send(2, 100, &format!(r#"{{"id":"{id}"{region}}}"#));
    }
    driven.send(1, 100, r#"{"id":"a"}"#);
    driven.send(1, 100, r#"{"id":"b","region":null}"#);
    driven.send(1, 100, r#"{"id":"c"}"#);
    driven.send(1, 100, r#"{"id":"d"}"#);
    driven.send(0, 100, &left("d", "o"));
    (0..3).for_each(|topic| driven.send(topic, 1_000, r#"{"id":"z"}"#));
    driven.run(0);
    // A payment's own null is its field, as it is in a pair; what nobody has is null where there was no order.
    assert_eq!(driven.rows(), ["d o eu", "z - -", "a null eu", "b null null", "c null null"]);
}

#[test]
fn behind_a_select_a_null_that_it_has_made_is_the_rows_own() {
    let select = "{ select: { id: id, region: region } }".to_owned();
    let steps = [join("payments", &format!("{INTERVAL}, type: full")), select, join("users", TEMPORAL)].join(", ");
    let mut driven = Driven::new(&steps, &["id", "region"]);
    driven.send(2, 100, r#"{"id":"a","region":"eu"}"#);
    driven.send(1, 100, r#"{"id":"a"}"#);
    (0..3).for_each(|topic| driven.send(topic, 1_000, r#"{"id":"z"}"#));
    driven.run(0);
    assert_eq!(driven.rows(), ["z null", "a null"]);
}
