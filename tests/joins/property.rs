//! Random streams, cut at random, against the definition.

use crate::oracle::{Key, Oracle, Out, Place, Row};
use crate::stage::Stage;
use proptest::prelude::*;
use weir::state::StateStore;
use weir::state::buffer::SegmentSize;
use weir::state::memory::MemoryStore;
use weir::state::rocks::{RocksStore, Shared};
use weir::step::join::{Kind, Late, Rules, Side};

/// A record: side, key, step of its time, and how it is to be taken.
type Draw = (bool, u8, i64, u8);

fn rules() -> impl Strategy<Value = Rules> {
    let kind = prop_oneof![
        6 => (-10i64..20, 0i64..20).prop_map(|(before_ms, more)| Kind::Interval { before_ms, after_ms: more - before_ms }),
        4 => (0i64..15, any::<bool>()).prop_map(|(within_ms, exact)| Kind::Temporal { within_ms, exact }),
        4 => (0i64..15, any::<bool>()).prop_map(|(within_ms, exact)| Kind::Table { within_ms, exact }),
    ];
    let late = prop_oneof![3 => Just(Late::Join), 1 => Just(Late::Drop), 1 => Just(Late::DeadLetter)];
    let rows_per_key_max = prop_oneof![4 => Just(1000u64), 1 => 1u64..4];
    (kind, any::<bool>(), any::<bool>(), late, rows_per_key_max).prop_map(
        |(kind, keeps_left, keeps_right, late, rows_per_key_max)| {
            let keeps_right = keeps_right && matches!(kind, Kind::Interval { .. });
            Rules { kind, keeps_left, keeps_right, late, rows_per_key_max }
        },
    )
}

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    prop::collection::vec((any::<bool>(), 0u8..14, -12i64..16, any::<u8>()), 0..90)
}

/// Two inputs with their own lateness: the watermark is the lower of both, and never goes back.
fn places(rules: &Rules, draws: &[Draw], lateness_ms: (i64, i64)) -> Vec<Place> {
    let mut times_ms = [0i64; 2];
    let mut highs_ms: [Option<i64>; 2] = [None; 2];
    let mut watermark_ms = i64::MIN;
    let place = |&(is_left, key, step_ms, how): &Draw| {
        let input = is_left as usize;
        let time_ms = times_ms[input] + step_ms;
        times_ms[input] = times_ms[input].max(time_ms - 2);
        highs_ms[input] = highs_ms[input].max(Some(time_ms));
        if let (Some(left_ms), Some(right_ms)) = (highs_ms[1], highs_ms[0]) {
            watermark_ms = watermark_ms.max((left_ms - lateness_ms.0).min(right_ms - lateness_ms.1));
        }
        let key = match key {
            12 => Key::Null,
            13 => Key::Unfit,
            number => Key::Number(number % 4),
        };
        let side = if is_left { Side::Left } else { Side::Right };
        let deletes = side == Side::Right && matches!(rules.kind, Kind::Table { .. }) && how % 5 == 0;
        let row = (how % 7 > 0).then_some(Row { side, deletes, key, time_ms });
        Place { row, watermark_ms }
    };
    draws.iter().map(place).collect()
}

#[derive(Clone, Debug)]
enum Act {
    /// So many places, cut into batches there.
    Pass(usize, Vec<usize>, bool),
    Seal,
    Store,
    Crash,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0usize..12, prop::collection::vec(0usize..12, 0..3), prop::bool::weighted(0.3))
            .prop_map(|(len, cuts, redo)| Act::Pass(len, cuts, redo)),
        3 => Just(Act::Seal),
        2 => Just(Act::Store),
        1 => Just(Act::Crash),
    ];
    prop::collection::vec(act, 0..60)
}

fn segment() -> impl Strategy<Value = SegmentSize> {
    let small =
        (1u32..40, 1u32..5).prop_map(|(rows_max, chunk_rows)| SegmentSize { rows_max, bytes_max: 1 << 20, chunk_rows });
    prop_oneof![3 => small, 1 => Just(SegmentSize::within(1 << 20))]
}

/// The step over a store, whatever happens to it, gives what the definition gives.
fn agrees(
    store: &dyn StateStore,
    rules: Rules,
    places: &[Place],
    acts: &[Act],
    segment: SegmentSize,
) -> Result<(), TestCaseError> {
    let mut oracle = Oracle::new(rules);
    places.iter().enumerate().for_each(|(number, place)| oracle.take(number, place));
    let mut stage = Stage::new(store, rules, segment);
    for act in acts {
        match act {
            Act::Pass(len, cuts, redo) => {
                let end = places.len().min(stage.at + len);
                stage.pass(&places[stage.at..end], cuts, *redo);
            }
            Act::Seal => stage.seal(),
            Act::Store => stage.store_sealed(),
            Act::Crash => stage.crash(),
        }
    }
    stage.pass(&places[stage.at..], &[], false);
    let (rows, dead) = split(&stage.out);
    let (expected_rows, expected_dead) = split(&oracle.out);
    prop_assert_eq!(&rows, &expected_rows);
    prop_assert_eq!(dead, expected_dead);
    once_each(&rules, &rows)
}

/// Rows and dead letters have each their order; between them there is none.
fn split(out: &[Out]) -> (Vec<Out>, Vec<Out>) {
    out.iter().partition(|out| matches!(out, Out::Row { .. }))
}

/// What holds whatever the definition says in detail.
fn once_each(rules: &Rules, rows: &[Out]) -> Result<(), TestCaseError> {
    let mut pairs: Vec<_> = rows
        .iter()
        .map(|out| match out {
            Out::Row { left, right, .. } => (*left, *right),
            Out::Dead { .. } => unreachable!("only rows"),
        })
        .collect();
    pairs.sort();
    prop_assert!(pairs.windows(2).all(|two| two[0] != two[1]), "a pair came twice");
    for (side, kept) in [(0, rules.keeps_left), (1, rules.keeps_right)] {
        let of = |pair: &(Option<usize>, Option<usize>)| if side == 0 { *pair } else { (pair.1, pair.0) };
        let alone: Vec<usize> =
            pairs.iter().map(of).filter(|(_, other)| other.is_none()).filter_map(|(one, _)| one).collect();
        prop_assert!(kept || alone.is_empty());
        let matched = |one: &usize| pairs.iter().map(of).any(|(two, other)| two == Some(*one) && other.is_some());
        prop_assert!(!alone.iter().any(matched), "a row came both matched and alone");
    }
    if !matches!(rules.kind, Kind::Interval { .. }) {
        let mut lefts: Vec<_> = pairs.iter().map(|pair| pair.0).collect();
        lefts.dedup();
        prop_assert_eq!(lefts.len(), pairs.len(), "a left row came twice");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_step_gives_what_the_definition_gives_however_it_is_cut_and_crashed(
        rules in rules(),
        draws in draws(),
        acts in acts(),
        segment in segment(),
        lateness_ms in (0i64..30, 0i64..30),
    ) {
        let places = places(&rules, &draws, lateness_ms);
        agrees(&MemoryStore::new(), rules, &places, &acts, segment)?;
    }

    /// No row is late: then there is one possible table, and no order of arrival shows in it.
    #[test]
    fn an_interval_join_of_rows_that_are_not_late_has_every_pair_whatever_order_they_came_in(
        rules in rules(),
        draws in draws(),
        acts in acts(),
        segment in segment(),
    ) {
        let Kind::Interval { before_ms, after_ms } = rules.kind else { return Ok(()) };
        let rules = Rules { rows_per_key_max: 1000, ..rules };
        // Nobody is ever further behind than this.
        let places = places(&rules, &draws, (2000, 2000));
        let mut places: Vec<Place> = places.into_iter().filter(|place| place.row.is_none_or(|row| row.key != Key::Unfit)).collect();
        places.push(Place { row: None, watermark_ms: 1_000_000 });
        let store = MemoryStore::new();
        agrees(&store, rules, &places, &acts, segment)?;

        let store = MemoryStore::new();
        let mut stage = Stage::new(&store, rules, segment);
        stage.pass(&places, &[], false);
        let mut found: Vec<_> = stage.out.iter().filter_map(|out| match out {
            Out::Row { left, right, .. } => Some((*left, *right)),
            Out::Dead { .. } => None,
        }).collect();
        found.sort();
        let rows = |side| {
            places.iter().enumerate().filter_map(move |(at, place)| Some((at, place.row?))).filter(move |(_, row)| row.side == side)
        };
        let mut expected = Vec::new();
        for (left, l) in rows(Side::Left) {
            for (right, r) in rows(Side::Right) {
                let apart_ms = r.time_ms - l.time_ms;
                if l.key == r.key && l.key != Key::Null && (-before_ms..=after_ms).contains(&apart_ms) {
                    expected.push((Some(left), Some(right)));
                }
            }
        }
        let pairs = expected.clone();
        let lefts = rows(Side::Left).filter(|(left, _)| !pairs.iter().any(|pair| pair.0 == Some(*left)));
        expected.extend(lefts.filter(|_| rules.keeps_left).map(|(left, _)| (Some(left), None)));
        let rights = rows(Side::Right).filter(|(right, _)| !pairs.iter().any(|pair| pair.1 == Some(*right)));
        expected.extend(rights.filter(|_| rules.keeps_right).map(|(right, _)| (None, Some(right))));
        expected.sort();
        prop_assert_eq!(found, expected);
    }

    /// Under `exact`, too: each left row has the newest right row at or before it.
    #[test]
    fn an_exact_join_of_rows_that_are_not_late_depends_on_no_order_of_arrival(
        draws in draws(),
        within_ms in 0i64..15,
        is_table: bool,
        keeps_left: bool,
        segment in segment(),
        shuffle in any::<u64>(),
    ) {
        let kind = if is_table { Kind::Table { within_ms, exact: true } } else { Kind::Temporal { within_ms, exact: true } };
        let rules = Rules { kind, keeps_left, keeps_right: false, late: Late::DeadLetter, rows_per_key_max: 1000 };
        let mut rows: Vec<Row> = places(&rules, &draws, (0, 0)).into_iter().filter_map(|place| place.row).collect();
        // No two right rows at one time: between those the later arrival is the newer.
        rows.sort_by_key(|row| (row.side, row.time_ms));
        rows.dedup_by_key(|row| (row.side, row.time_ms));
        let table = |rows: &[Row]| {
            let mut places: Vec<Place> = rows.iter().map(|row| Place { row: Some(*row), watermark_ms: -100_000 }).collect();
            places.push(Place { row: None, watermark_ms: 1_000_000 });
            let store = MemoryStore::new();
            let mut stage = Stage::new(&store, rules, segment);
            stage.pass(&places, &[], false);
            let by_time = |at: usize| (rows[at].side, rows[at].time_ms);
            let mut found: Vec<_> = stage.out.iter().filter_map(|out| match out {
                Out::Row { left, right, .. } => Some((left.map(by_time), right.map(by_time))),
                Out::Dead { .. } => None,
            }).collect();
            found.sort();
            found
        };
        let sorted = table(&rows);
        let mut expected = Vec::new();
        for left in rows.iter().filter(|row| row.side == Side::Left && row.key != Key::Unfit) {
            let valid = rows.iter().filter(|right| {
                let is_near = is_table || left.time_ms - right.time_ms <= within_ms;
                let meets = right.side == Side::Right && right.key == left.key && left.key != Key::Null;
                meets && right.time_ms <= left.time_ms && is_near
            });
            let newest = valid.max_by_key(|right| right.time_ms).filter(|right| !right.deletes);
            if newest.is_some() || keeps_left {
                expected.push((Some((left.side, left.time_ms)), newest.map(|right| (right.side, right.time_ms))));
            }
        }
        expected.sort();
        prop_assert_eq!(&sorted, &expected);
        let mut other: Vec<(u64, Row)> = rows
            .iter()
            .map(|row| ((row.time_ms as u64 ^ shuffle).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ row.side as u64, *row))
            .collect();
        other.sort_by_key(|(chance, _)| *chance);
        let other: Vec<Row> = other.into_iter().map(|(_, row)| row).collect();
        prop_assert_eq!(table(&other), sorted);
    }

    #[test]
    fn what_waits_at_the_close_comes_out_and_nothing_of_it_comes_again(
        rules in rules(),
        draws in draws(),
        close_at in any::<prop::sample::Index>(),
        segment in segment(),
        lateness_ms in (0i64..30, 0i64..30),
        crash: bool,
    ) {
        let places = places(&rules, &draws, lateness_ms);
        let close_at = close_at.index(places.len() + 1);
        let mut oracle = Oracle::new(rules);
        places[..close_at].iter().enumerate().for_each(|(number, place)| oracle.take(number, place));
        oracle.close(close_at);
        places[close_at..].iter().enumerate().for_each(|(number, place)| oracle.take(close_at + number, place));

        let store = MemoryStore::new();
        let mut stage = Stage::new(&store, rules, segment);
        stage.pass(&places[..close_at], &[], false);
        stage.close();
        stage.seal();
        stage.store_sealed();
        if crash {
            stage.crash();
        }
        stage.pass(&places[close_at..], &[], true);
        prop_assert_eq!(split(&stage.out), split(&oracle.out));
        once_each(&rules, &split(&stage.out).0)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_store_on_disk_gives_the_same(
        rules in rules(),
        draws in draws(),
        acts in acts(),
        segment in segment(),
        lateness_ms in (0i64..30, 0i64..30),
    ) {
        let places = places(&rules, &draws, lateness_ms);
        let directory = tempfile::tempdir().unwrap();
        let store = RocksStore::open(directory.path(), &Shared::new(8 << 20, 64 << 20)).unwrap();
        agrees(&store, rules, &places, &acts, segment)?;
    }
}
