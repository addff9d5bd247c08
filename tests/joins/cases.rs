//! The cases that have names. A stream is written as `L100a R95a W120`: side, time and key (`_` is null, `!` does not
//! fit), `D` a deletion, `W` a watermark. What comes out is written by places: `0+1@100` is a pair and its time, `0+·` and
//! `·+1` are rows alone, `0!late` is a dead letter.

use crate::oracle::{Key, Out, Place, Row};
use crate::stage::{Stage, side};
use weir::state::buffer::SegmentSize;
use weir::state::memory::MemoryStore;
use weir::step::join::{JoinCounts, Kind, Late, Rules};

fn interval(before_ms: i64, after_ms: i64) -> Rules {
    rules(Kind::Interval { before_ms, after_ms })
}

fn temporal(within_ms: i64) -> Rules {
    rules(Kind::Temporal { within_ms, exact: false })
}

fn exact(within_ms: i64) -> Rules {
    rules(Kind::Temporal { within_ms, exact: true })
}

fn table(within_ms: i64) -> Rules {
    rules(Kind::Table { within_ms, exact: false })
}

fn rules(kind: Kind) -> Rules {
    Rules { kind, keeps_left: false, keeps_right: false, late: Late::Join, rows_per_key_max: 100_000 }
}

fn left(rules: Rules) -> Rules {
    Rules { keeps_left: true, ..rules }
}

fn full(rules: Rules) -> Rules {
    Rules { keeps_left: true, keeps_right: true, ..rules }
}

fn places(stream: &str) -> Vec<Place> {
    let mut watermark_ms = i64::MIN;
    let place = |token: &str| {
        let letter = token.chars().next().unwrap();
        if letter == 'W' {
            watermark_ms = token[1..].parse().unwrap();
            return Place { row: None, watermark_ms };
        }
        let (time, key) = token[1..].split_at(token.len() - 2);
        let key = match key.chars().next().unwrap() {
            '_' => Key::Null,
            '!' => Key::Unfit,
            letter => Key::Number(letter as u8),
        };
        let row = Row { side: side(letter), deletes: letter == 'D', key, time_ms: time.parse().unwrap() };
        Place { row: Some(row), watermark_ms }
    };
    stream.split_whitespace().map(place).collect()
}

fn shown(out: &[Out]) -> String {
    let one = |out: &Out| match out {
        Out::Row { left, right, time_ms, .. } => {
            let id = |id: &Option<usize>| id.map_or("·".to_owned(), |id| id.to_string());
            format!("{}+{}@{time_ms}", id(left), id(right))
        }
        Out::Dead { row, reason } => format!("{row}!{reason}"),
    };
    out.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn run_counted(rules: Rules, stream: &str) -> (String, JoinCounts) {
    let store = MemoryStore::new();
    let mut stage = Stage::new(&store, rules, SegmentSize::within(1 << 20));
    let places = places(stream);
    // Each place a pass of its own: a pair never comes of lying in one batch.
    places.chunks(1).for_each(|place| stage.pass(place, &[], false));
    let shown = shown(&stage.out);
    let (once, counts) = (MemoryStore::new(), stage.counts());
    let mut at_once = Stage::new(&once, rules, SegmentSize::within(1 << 20));
    at_once.pass(&places, &[], true);
    assert_eq!(at_once.counts(), counts, "one pass or many");
    (shown, counts)
}

fn run(rules: Rules, stream: &str) -> String {
    run_counted(rules, stream).0
}

#[test]
fn bounds_are_inclusive_at_both_ends() {
    assert_eq!(run(interval(5, 10), "L100a R95a R110a"), "0+1@100 0+2@110");
    assert_eq!(run(interval(5, 10), "R95a R110a L100a"), "2+0@100 2+1@110");
    assert_eq!(run(temporal(5), "R95a L100a"), "1+0@100");
    assert_eq!(run(temporal(5), "L100a R105a"), "0+1@100");
}

#[test]
fn one_tick_outside_is_no_pair() {
    assert_eq!(run(interval(5, 10), "L100a R94a R111a"), "");
    assert_eq!(run(interval(5, 10), "R94a R111a L100a"), "");
    assert_eq!(run(temporal(5), "R94a R106a L100a"), "");
    assert_eq!(run(temporal(5), "L100a R94a R106a"), "");
}

#[test]
fn a_row_serves_until_the_watermark_has_passed_its_upper_bound_and_no_longer() {
    assert_eq!(run(left(interval(0, 10)), "L100a W110 R110a W200"), "0+2@110");
    assert_eq!(run(left(interval(0, 10)), "L100a W111 R110a W200"), "0+·@100");
}

#[test]
fn a_shifted_interval_lies_wholly_before_or_behind() {
    assert_eq!(run(interval(-5, 10), "L100a R104a R105a R110a R111a"), "0+2@105 0+3@110");
    assert_eq!(run(interval(10, -5), "L100a R89a R90a R95a R96a"), "0+2@100 0+3@100");
    // Its upper bound has passed when it comes, and it is not late: it meets what serves, and does not stay.
    assert_eq!(run(left(interval(10, -5)), "R92a L100b W98 L100a R93b W120"), "1+·@100 3+0@100");
}

#[test]
fn many_meet_many_each_pair_once() {
    assert_eq!(run(interval(9, 9), "L1a R2a L3a R4a L5a"), "0+1@2 2+1@3 0+3@4 2+3@4 4+1@5 4+3@5");
}

#[test]
fn a_null_key_meets_nobody_inner_drops_it_left_and_full_pass_it_at_once() {
    let (out, counts) = run_counted(interval(9, 9), "L1_ R1_ W50");
    assert_eq!((out.as_str(), counts.dropped), ("", 1), "only left rows count as dropped");
    assert_eq!(run(left(interval(9, 9)), "L1_ R1_ W50"), "0+·@1");
    assert_eq!(run(full(interval(9, 9)), "L1_ R2_ W50"), "0+·@1 ·+1@2");
    assert_eq!(run(left(temporal(9)), "R1_ L1_"), "1+·@1");
}

#[test]
fn a_key_that_does_not_fit_is_a_dead_letter() {
    assert_eq!(run(full(interval(9, 9)), "L1! R1!"), "0!key_does_not_fit 1!key_does_not_fit");
}

#[test]
fn rows_of_the_same_time_meet_and_the_later_arrival_is_the_newer_version() {
    assert_eq!(run(interval(0, 0), "L7a R7a R7a"), "0+1@7 0+2@7");
    assert_eq!(run(temporal(5), "R7a R7a L7a"), "2+1@7");
    // Of those after it the oldest, and of equal ones the first to come.
    assert_eq!(run(temporal(5), "R9a R8a R8a L7a"), "3+1@7");
}

#[test]
fn right_before_left_and_left_before_right_give_the_same_pair() {
    assert_eq!(run(interval(5, 5), "R3a L5a"), "1+0@5");
    assert_eq!(run(interval(5, 5), "L5a R3a"), "0+1@5");
    assert_eq!(run(temporal(5), "R3a L5a"), "1+0@5");
    assert_eq!(run(temporal(5), "L5a R3a"), "0+1@5");
}

#[test]
fn a_late_row_joins_what_is_retained_and_is_alone_at_once() {
    // The right row serves until 110; the left one is late, its own upper bound 95 has passed.
    assert_eq!(run(left(interval(20, 5)), "R90a W101 L90a L91b W200"), "2+0@90 3+·@91");
    let (out, counts) = run_counted(interval(20, 5), "R90a W101 L90a L91b R70a W200");
    assert_eq!((out.as_str(), counts.late, counts.dropped), ("2+0@90", 3, 1));
    // A late row is not kept: nobody meets it afterwards.
    assert_eq!(run(interval(5, 20), "W101 R90a L90a"), "");
}

#[test]
fn a_late_row_is_dropped_or_a_dead_letter_where_the_plan_says_so() {
    let (out, counts) = run_counted(Rules { late: Late::Drop, ..full(interval(5, 5)) }, "R90a W101 L90a");
    assert_eq!((out.as_str(), counts.late, counts.dropped), ("·+0@90", 1, 1));
    assert_eq!(run(Rules { late: Late::DeadLetter, ..full(interval(5, 5)) }, "W101 L95a R96a L96a"), "1!late 3+2@96");
}

#[test]
fn a_row_below_the_watermark_is_counted_though_its_own_window_is_open_for_partners_may_be_gone() {
    // The right row of 90 served until 95; the left one of 95 is not late, its window is open until 115.
    let (out, counts) = run_counted(left(interval(5, 20)), "R90a W98 L95a R100a W200");
    assert_eq!((out.as_str(), counts.late), ("2+3@100", 1));
    let (_, counts) = run_counted(left(interval(5, 20)), "R90a W95 L95a R100a W200");
    assert_eq!(counts.late, 0, "in time");
    let (_, counts) = run_counted(left(table(20)), "W50 R10a L60a");
    assert_eq!(counts.late, 0, "a version does not go by age");
}

#[test]
fn a_row_is_never_both_unmatched_and_matched() {
    assert_eq!(run(left(interval(0, 10)), "L100a W111 R105a W300"), "0+·@100");
    assert_eq!(run(full(interval(0, 10)), "L100a R105a W300"), "0+1@105");
    assert_eq!(run(left(temporal(10)), "L100a W111 R105a W300"), "0+·@100");
}

#[test]
fn unmatched_rows_leave_in_the_order_of_their_times_the_right_side_first() {
    assert_eq!(run(full(interval(5, 5)), "L30a L10b R20c R10d L10e W100"), "·+3@10 1+·@10 4+·@10 ·+2@20 0+·@30");
    // Both bounds are passed by one advance: the order is that of the times, not that of the bounds.
    assert_eq!(run(full(interval(0, 50)), "L10a R20b W100"), "0+·@10 ·+1@20");
    assert_eq!(run(full(interval(0, 50)), "L10a R20b W21 W100"), "·+1@20 0+·@10");
}

#[test]
fn what_an_advance_releases_follows_the_row_that_caused_it() {
    // The row of the second place raises the watermark itself: its pair comes first, then who has waited for it.
    let mut places = places("L10a R60b L60b");
    places[2].watermark_ms = 60;
    let store = MemoryStore::new();
    let mut stage = Stage::new(&store, left(interval(5, 5)), SegmentSize::within(1 << 20));
    stage.pass(&places, &[], false);
    assert_eq!(shown(&stage.out), "2+1@60 0+·@10");
    for out in &stage.out {
        let Out::Row { time_ms, watermark_ms, cause, .. } = out else { panic!("only rows") };
        assert_eq!((watermark_ms, *cause), (&i64::MIN, 2), "the watermark behind the join is the one from before");
        assert!(time_ms >= watermark_ms);
    }
}

#[test]
fn a_side_without_rows_holds_nobody_once_the_watermark_passes_without_it() {
    // The runtime sets an idle side aside: the watermark goes on with the other alone.
    assert_eq!(run(left(interval(0, 10)), "L100a L105b W111 L120c W116"), "0+·@100 1+·@105");
}

#[test]
fn the_close_lets_out_what_waits_and_an_inner_join_keeps_it() {
    let close = |rules, before: &str, after: &str| {
        let store = MemoryStore::new();
        let mut stage = Stage::new(&store, rules, SegmentSize::within(1 << 20));
        stage.pass(&places(before), &[], false);
        stage.close();
        let waiting = stage.waiting();
        stage.pass(&places(after), &[], false);
        (shown(&stage.out), waiting)
    };
    // Who came out is gone; who had met somebody serves on.
    assert_eq!(close(left(interval(5, 5)), "L10a L11b R11b", "R12a R12b"), ("1+2@11 0+·@10 1+4@12".into(), 0));
    assert_eq!(close(interval(5, 5), "L10a", "R12a"), ("0+1@12".into(), 1));
    assert_eq!(close(left(temporal(5)), "L10a", "R12a"), ("0+·@10".into(), 0));
    assert_eq!(close(temporal(5), "L10a", "R12a"), ("0+1@10".into(), 1));
    assert_eq!(close(exact(5), "R9b L10a L10b", "R10a W11"), ("2+0@10 1+3@10".into(), 1));
}

#[test]
fn a_temporal_left_takes_the_version_valid_at_its_time_also_when_versions_come_out_of_order() {
    assert_eq!(run(temporal(50), "R30a R10a R20a L25a"), "3+2@25");
    assert_eq!(run(exact(50), "L25a R30a R10a R20a W26"), "0+3@25");
    assert_eq!(run(table(50), "R30a R10a R20a L25a"), "3+2@25");
    // Without `exact` the first that comes completes who waits.
    assert_eq!(run(temporal(50), "L25a R30a R10a R20a"), "0+1@25");
}

#[test]
fn an_exact_left_waits_until_the_watermark_has_passed_its_time() {
    assert_eq!(run(exact(10), "R10a L15a W15 R15a W16"), "1+3@15");
    assert_eq!(run(left(exact(10)), "R10a L21a W22"), "1+·@21");
    let (out, counts) = run_counted(exact(10), "R10a L21a W22");
    assert_eq!((out.as_str(), counts.dropped, counts.left_decided), ("", 1, 1));
    // Below the watermark it is late: it takes what serves, at once.
    assert_eq!(run(left(exact(10)), "R10a W16 L15a L15b"), "2+0@15 3+·@15");
    assert_eq!(run(Rules { late: Late::DeadLetter, ..exact(10) }, "R10a W16 L15a"), "2!late");
}

#[test]
fn a_version_serves_as_long_as_its_upper_bound_and_then_expires() {
    assert_eq!(run(left(temporal(10)), "R10a W20 L20a W40"), "2+0@20");
    assert_eq!(run(left(temporal(10)), "R10a W21 L20a W40"), "2+·@20");
}

#[test]
fn a_table_keeps_the_version_at_the_watermark_and_all_newer_ones() {
    assert_eq!(run(table(5), "R10a W1000 L1000a"), "2+0@1000", "however old it is");
    // At 25 the version of 20 is kept, that of 10 is not: a left row of 15 is older than all that is kept.
    assert_eq!(run(table(20), "R10a R20a W25 L15a"), "3+1@15");
    assert_eq!(run(table(20), "R10a R20a W19 L15a"), "3+0@15");
    // One that comes older than the version at the watermark is not kept.
    assert_eq!(run(table(20), "R20a W25 R10a L15a"), "3+0@15");
    assert_eq!(run(rules(Kind::Table { within_ms: 20, exact: true }), "R10a R20a L15a W30"), "2+0@15");
}

#[test]
fn a_left_older_than_every_version_takes_the_oldest_one_but_not_under_exact() {
    assert_eq!(run(table(5), "R100a R200a L50a"), "2+0@50");
    assert_eq!(run(left(rules(Kind::Table { within_ms: 5, exact: true })), "R100a L50a W51"), "1+·@50");
}

#[test]
fn a_left_waits_only_for_a_key_without_any_version_and_the_first_completes_it() {
    assert_eq!(run(left(table(10)), "L50a L52a R900a W100"), "0+2@50 1+2@52");
    assert_eq!(run(left(table(10)), "L50a W61 R40a W100"), "0+·@50");
}

#[test]
fn a_tombstone_deletes_from_its_time_on_and_is_a_version_like_any_other() {
    assert_eq!(run(left(table(10)), "R10a D20a L15a L20a L25a R30a L31a"), "2+0@15 3+·@20 4+·@25 6+5@31");
    // The key is known, and deleted: nobody waits.
    assert_eq!(run(left(table(10)), "D20a L25a R26a"), "1+·@25");
    // A deletion that comes first completes who waits: with nothing.
    assert_eq!(run(left(table(10)), "L25a D20a R26a W100"), "0+·@25");
    assert_eq!(run(table(10), "L25a D20a R26a W100"), "");
}

#[test]
fn a_table_never_triggers_by_itself() {
    assert_eq!(run(left(table(10)), "R10a L11a R12a D13a R14a W100"), "1+0@11");
}

#[test]
fn rows_of_a_table_are_never_late() {
    let (out, counts) = run_counted(Rules { late: Late::DeadLetter, ..table(10) }, "W1000 R10a L1000a");
    assert_eq!((out.as_str(), counts.late), ("2+1@1000", 0));
}

#[test]
fn an_interval_of_one_point_joins_equal_times_only() {
    assert_eq!(run(interval(0, 0), "L10a R9a R10a R11a"), "0+2@10");
    assert_eq!(run(interval(-7, 7), "L10a R16a R17a R18a"), "0+2@17");
}

#[test]
fn a_self_join_meets_itself_and_does_not_depend_on_passes() {
    // Each record goes to the right side first, then to the left.
    let store = MemoryStore::new();
    let mut stage = Stage::new(&store, interval(5, 5), SegmentSize::within(1 << 20));
    stage.pass(&places("R1a L1a R4a L4a"), &[1, 2, 3], true);
    assert_eq!(shown(&stage.out), "1+0@1 1+2@4 3+0@4 3+2@4");
    assert_eq!(run(interval(5, 5), "R1a L1a R4a L4a"), shown(&stage.out));
}

#[test]
fn a_key_over_the_limit_is_a_dead_letter_until_its_rows_have_passed() {
    let few = |rules| Rules { rows_per_key_max: 2, ..rules };
    assert_eq!(run(few(interval(0, 10)), "L10a L11a L12a L12b W21 L22a R22a"), "2!max_rows_per_key 5+6@22");
    // Rows that were completed do not wait any more.
    assert_eq!(
        run(few(temporal(10)), "L10a L11a L12a R11a L13b L13b L13b"),
        "2!max_rows_per_key 0+3@10 1+3@11 6!max_rows_per_key"
    );
    assert_eq!(run(few(table(10)), "L10b L11b L12b"), "2!max_rows_per_key", "those that wait for a table");
}

#[test]
fn versions_of_a_table_do_not_wait_and_none_is_refused_however_many_a_silent_source_lets_there_be() {
    let versions: Vec<String> = (0..200).map(|at| format!("R{}a", 10 + at)).collect();
    let stream = |rest: &str| format!("{} {rest}", versions.join(" "));
    let few = Rules { rows_per_key_max: 2, ..table(10) };
    // One in the middle, one newer than all, one older than all; and one that comes late between the others.
    assert_eq!(run(few, &stream("L57a L999a L5a")), "200+47@57 201+199@999 202+0@5");
    assert_eq!(run(few, &stream("R57a L57a L58a")), "201+200@57 202+48@58");
    // The watermark makes all of them but one needless.
    assert_eq!(run(few, &stream("W100 L57a L101a")), "201+90@57 202+91@101");
    assert_eq!(run(few, &stream("W500 L57a R501a L57a L501a")), "201+199@57 203+199@57 204+202@501");
    let exact = rules(Kind::Table { within_ms: 10, exact: true });
    assert_eq!(run(exact, &stream("L57a L7a W58")), "200+47@57");
}

#[test]
fn the_join_rate_counts_each_left_row_once() {
    let (_, counts) = run_counted(interval(5, 5), "L10a R10a R11a L12b L13c R13c W100");
    let JoinCounts { matched, left_matched, left_decided, dropped, .. } = counts;
    assert_eq!((matched, left_matched, left_decided, dropped), (3, 2, 3, 1));
    let (_, counts) = run_counted(left(temporal(5)), "L10a R10a L11a L12b W100");
    assert_eq!((counts.left_matched, counts.left_decided, counts.unmatched), (2, 3, 1));
}

#[test]
fn a_key_with_many_rows_comes_out_in_portions_and_whole() {
    let mut stream: Vec<String> = (0..300).map(|_| "L10a".to_owned()).collect();
    stream.extend((0..300).map(|_| "R10a".to_owned()));
    let store = MemoryStore::new();
    let small = SegmentSize { rows_max: 40, bytes_max: 1 << 20, chunk_rows: 7 };
    let mut stage = Stage::new(&store, interval(5, 5), small);
    let places = places(&stream.join(" "));
    stage.pass(&places[..300], &[], false);
    stage.seal();
    stage.store_sealed();
    stage.pass(&places[300..], &[], true);
    let mut expected = (300..600).flat_map(|right| (0..300).map(move |left| (left, right)));
    assert!(stage.out.iter().all(|out| {
        let Some((l, r)) = expected.next() else { return false };
        matches!(out, Out::Row { left, right, .. } if (*left, *right) == (Some(l), Some(r)))
    }));
    assert_eq!(stage.out.len(), 90_000);
}

#[test]
fn many_rows_that_leave_at_once_come_out_in_portions_and_in_order() {
    let mut stream: Vec<String> = (0..40_000).map(|at| format!("L{}a", at * 7919 % 40_000)).collect();
    stream.push("W1000000".into());
    let store = MemoryStore::new();
    let small = SegmentSize { rows_max: 3_000, bytes_max: 1 << 20, chunk_rows: 100 };
    let mut stage = Stage::new(&store, left(interval(5, 5)), small);
    let places = places(&stream.join(" "));
    for pass in places.chunks(4096) {
        stage.pass(pass, &[], false);
        stage.seal();
        stage.store_sealed();
    }
    let times: Vec<i64> = stage
        .out
        .iter()
        .map(|out| match out {
            Out::Row { time_ms, .. } => *time_ms,
            Out::Dead { .. } => panic!("only rows"),
        })
        .collect();
    assert_eq!(times, (0..40_000).collect::<Vec<i64>>());
    assert_eq!(stage.waiting(), 0);
}
