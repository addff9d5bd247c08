//! What lies on disk and in Kafka: every record comes back as it was written, or is refused by its name; keys lie in
//! the order of their numbers; a mark fits what a broker takes.

use super::*;
use crate::error::Kind;
use crate::state::memory::MemoryStore;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::fmt::Debug;

fn number() -> impl Strategy<Value = u64> {
    // All lengths that a number can have, and the numbers at their borders.
    prop_oneof![
        any::<u64>(),
        any::<u8>().prop_map(u64::from),
        Just(u64::MAX),
        (0..8u32).prop_map(|n| 251u64 << (7 * n))
    ]
}

fn offset() -> impl Strategy<Value = i64> {
    number().prop_map(|number| number as i64)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    number().prop_map(Epoch)
}

fn link() -> impl Strategy<Value = Link> {
    any::<[u8; 16]>().prop_map(Link)
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    any::<[u8; 16]>().prop_map(Incarnation)
}

fn topics(count: usize) -> impl Strategy<Value = Vec<(String, TopicId)>> {
    vec(("[a-zA-Z0-9._-]{1,40}", any::<[u8; 16]>().prop_map(TopicId)), count)
}

fn names() -> impl Strategy<Value = Vec<RecordName>> {
    vec((0..64u16, offset()).prop_map(|(input, offset)| RecordName { input, offset }), 0..5)
}

fn moment(inputs: usize) -> impl Strategy<Value = Moment> {
    let progress = (offset(), offset()).prop_map(|(position, high_ms)| Progress { position, high_ms });
    let replayed = (epoch(), number()).prop_map(|(epoch, records)| Replayed { epoch, records });
    let times = (offset(), number(), offset());
    let rest = (option::of(vec(offset(), inputs)), option::of(replayed));
    (epoch(), link(), vec(progress, inputs), times, rest).prop_map(
        |(epoch, link, inputs, (watermark_ms, idle, note_ms), (closed, replayed))| Moment {
            epoch,
            link,
            inputs,
            watermark_ms,
            idle,
            note_ms,
            closed,
            replayed,
        },
    )
}

fn output() -> impl Strategy<Value = OutputRecord> {
    let header = vec(("\\PC{1,9}", "\\PC{1,9}"), 0..4);
    ("\\PC{0,30}", header, number(), any::<[u8; 16]>(), number())
        .prop_map(|(token, header, rows, hash, body_bytes)| OutputRecord { token, header, rows, hash, body_bytes })
}

fn record() -> impl Strategy<Value = EpochRecord> {
    let numbers = (any::<u8>(), number());
    (moment(2), vec(number(), 0..8), numbers, vec(output(), 0..3), names()).prop_map(
        |(after, cuts, (flags, idle_before), outputs, replay)| EpochRecord {
            after,
            cuts: Cuts(cuts),
            flags,
            idle_before,
            outputs,
            replay,
        },
    )
}

/// A mark of that many inputs, without a pending.
fn mark_without_pending(inputs: usize) -> impl Strategy<Value = Mark> {
    let own = ("[a-z0-9-]{1,100}", incarnation(), vec(offset(), inputs), number());
    (own, topics(inputs), moment(inputs)).prop_map(|((pipeline, incarnation, origin, plan), topics, acknowledged)| {
        Mark { pipeline, incarnation, origin, plan, topics, acknowledged, pending: None }
    })
}

fn mark() -> impl Strategy<Value = Mark> {
    (mark_without_pending(2), option::of(record().prop_map(|record| record.pending())))
        .prop_map(|(mark, pending)| Mark { pending, ..mark })
}

fn counts() -> impl Strategy<Value = Counts> {
    let step = proptest::array::uniform11(number()).prop_map(|n| StepCounts {
        rows_in: n[0],
        rows_out: n[1],
        dropped: n[2],
        dead_letters: n[3],
        late: n[4],
        matched: n[5],
        unmatched: n[6],
        left_matched: n[7],
        left_decided: n[8],
        waiting: n[9],
        unjudged: n[10],
    });
    (proptest::array::uniform7(number()), vec(step, 0..4)).prop_map(|(n, steps)| Counts {
        records: n[0],
        again: n[1],
        tombstones: n[2],
        broken: n[3],
        steps,
        right_rows: n[4],
        unfit: n[5],
        written: n[6],
    })
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    let rest = (any::<i32>(), any::<bool>(), counts());
    (mark_without_pending(3), rest).prop_map(|(mark, (partition, restoring, counts))| Checkpoint {
        pipeline: mark.pipeline,
        partition,
        incarnation: mark.incarnation,
        origin: mark.origin,
        plan: mark.plan,
        topics: mark.topics,
        moment: mark.acknowledged,
        restoring,
        counts,
    })
}

fn identity() -> impl Strategy<Value = Identity> {
    ("\\PC{0,20}", "\\PC{0,20}", any::<[u8; 16]>()).prop_map(|(pipeline, instance_id, seed)| Identity {
        pipeline,
        instance_id,
        seed,
    })
}

/// The code with which these bytes are refused as a record of that type.
fn refused<T: Decode<()> + Debug>(bytes: &[u8]) -> String {
    let error = decode::<T>(bytes).expect_err("it is refused");
    assert_eq!(error.kind, Kind::Stop);
    error.code
}

/// It comes back as it was, and nothing but all of it, in this format, is taken for it.
fn comes_back<T: Encode + Decode<()> + PartialEq + Debug>(record: &T) {
    let bytes = encode(record);
    assert_eq!(&decode::<T>(&bytes).unwrap(), record);
    for len in 0..bytes.len() {
        assert_eq!(refused::<T>(&bytes[..len]), "corrupt", "{len} of {} bytes", bytes.len());
    }
    assert_eq!(refused::<T>(&[&bytes[..], &[0]].concat()), "corrupt");
    let of_format = |format: u8| [&[format], &bytes[1..]].concat();
    assert_eq!(refused::<T>(&of_format(FORMAT + 1)), "newer");
    assert_eq!(refused::<T>(&of_format(FORMAT - 1)), "older");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_record_comes_back_as_it_was_or_is_refused_by_its_name(
        (mark, checkpoint, record) in (mark(), checkpoint(), record()),
        (identity, task, left_ms) in (identity(), any::<u32>(), offset()),
        (id, partitions, rows) in (any::<[u8; 16]>(), any::<i32>(), number()),
    ) {
        comes_back(&mark);
        comes_back(&checkpoint);
        comes_back(&record);
        comes_back(&identity);
        comes_back(&TaskEntry { task: TaskNo(task), left_ms });
        comes_back(&PartitionsSeen { topic: TopicId(id), partitions });
        comes_back(&rows);
    }

    #[test]
    fn a_mark_comes_back_from_kafka_or_is_told_apart_from_what_others_commit(mark in mark(), other in "\\PC{0,40}") {
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD_NO_PAD;
        let metadata = mark.to_metadata();
        prop_assert_eq!(Mark::from_metadata(&metadata), MarkRead::Mark(Box::new(mark.clone())));
        let bytes = base64.decode(&metadata).unwrap();
        let of_format = |format: u8| base64.encode([&[format], &bytes[1..]].concat());
        prop_assert_eq!(Mark::from_metadata(&of_format(FORMAT + 1)), MarkRead::Newer(FORMAT + 1));
        prop_assert_eq!(Mark::from_metadata(&of_format(FORMAT - 1)), MarkRead::Unreadable);
        prop_assert_eq!(Mark::from_metadata(&base64.encode(&bytes[..bytes.len() - 1])), MarkRead::Unreadable);
        prop_assert!(!matches!(Mark::from_metadata(&other), MarkRead::Mark(_)));
        prop_assert_eq!(Mark::from_metadata(""), MarkRead::Foreign);
    }

    /// Also where the damage makes a list of billions of it.
    #[test]
    fn damaged_bytes_are_read_or_refused_and_nothing_else_happens(
        record in record(),
        mark in mark(),
        damage in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        noise in vec(any::<u8>(), 0..80),
    ) {
        let damaged = |mut bytes: Vec<u8>| {
            for (place, byte) in &damage {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            bytes
        };
        let _ = decode::<EpochRecord>(&damaged(encode(&record)));
        let _ = decode::<Checkpoint>(&[&[FORMAT], &noise[..]].concat());
        use base64::Engine as _;
        let metadata = base64::engine::general_purpose::STANDARD_NO_PAD.encode(damaged(encode(&mark)));
        let _ = Mark::from_metadata(&metadata);
    }

    /// Whatever the numbers become, and however the room is used up.
    #[test]
    fn a_mark_whose_cuts_or_names_stay_in_their_room_fits_what_a_broker_takes(
        mark in (1..12usize).prop_flat_map(mark_without_pending),
        pending in record(),
        cuts in vec(number(), 3_100),
        offsets in vec(offset(), 400),
        replays in any::<bool>(),
    ) {
        let topics = mark.topics.iter().map(|(name, _)| name.as_str());
        let Some(room) = mark_room(&mark.pipeline, topics) else { return Ok(()) };
        let mut pending = Pending {
            positions: mark.acknowledged.positions(),
            cuts: Cuts::default(),
            replay: vec![],
            ..pending.pending()
        };
        if replays {
            let names = offsets.into_iter().map(|offset| RecordName { input: 63, offset });
            pending.replay = names.take(room / RECORD_NAME_BYTES_MAX).collect();
        } else {
            for cut in cuts {
                pending.cuts.0.push(cut);
                if pending.cuts.mark_bytes() > room {
                    pending.cuts.0.pop();
                    break;
                }
            }
        }
        let metadata = Mark { pending: Some(pending), ..mark }.to_metadata();
        prop_assert!(metadata.len() <= MARK_CHARS_MAX, "{} characters", metadata.len());
    }

    #[test]
    fn keys_lie_in_the_order_of_their_numbers(
        (a, b) in ((any::<u32>(), number(), any::<u16>()), (any::<u32>(), number(), any::<u16>())),
        (p, q) in (0..=i32::MAX, 0..=i32::MAX),
    ) {
        let epoch = |(task, epoch, _): (u32, u64, u16)| key::epoch(TaskNo(task), Epoch(epoch));
        let outbox = |(task, epoch, output): (u32, u64, u16)| key::outbox(TaskNo(task), Epoch(epoch), output);
        prop_assert_eq!(epoch(a).cmp(&epoch(b)), (a.0, a.1).cmp(&(b.0, b.1)));
        prop_assert_eq!(outbox(a).cmp(&outbox(b)), a.cmp(&b));
        prop_assert_eq!(key::partition(p).cmp(&key::partition(q)), p.cmp(&q));
    }

    #[test]
    fn the_range_of_a_task_holds_its_own_keys_and_no_others(
        task in any::<u32>(),
        other in any::<u32>(),
        (epoch, partition) in (number(), any::<i32>()),
    ) {
        let (from, to) = key::task_range(TaskNo(task));
        let is_in = |key: &[u8]| key >= from.as_slice() && key < to.as_slice();
        for key in keys_of(TaskNo(task), epoch) {
            prop_assert!(is_in(&key), "{key:?} lies in {from:?} .. {to:?}");
        }
        for neighbour in [other, task.wrapping_add(1), task.wrapping_sub(1), task ^ 0x0100_0000] {
            for key in keys_of(TaskNo(neighbour), epoch) {
                prop_assert!(neighbour == task || !is_in(&key), "{key:?} lies outside of {from:?} .. {to:?}");
            }
        }
        let of_nobody = [key::IDENTITY, key::NEXT_TASK, key::PARTITIONS_SEEN].map(<[u8]>::to_vec);
        for key in of_nobody.into_iter().chain([key::partition(partition), key::retired(TaskNo(task))]) {
            prop_assert!(!is_in(&key), "{key:?} is no task's");
        }
    }
}

/// Every key of a task in the ledger.
fn keys_of(task: TaskNo, epoch: u64) -> Vec<Vec<u8>> {
    let epochs = [0, epoch, u64::MAX].map(|epoch| key::epoch(task, Epoch(epoch)));
    [vec![key::checkpoint(task), key::accepted(task), key::discarded(task)], epochs.to_vec()].concat()
}

/// The room is not given away: with the largest numbers everywhere, a mark that uses it is nearly as long as allowed.
#[test]
fn the_room_of_a_mark_is_what_its_largest_numbers_leave() {
    let topics: Vec<(String, TopicId)> = (0..4).map(|n| (format!("{n}").repeat(249), TopicId([0xff; 16]))).collect();
    let room = mark_room("p", topics.iter().map(|(name, _)| name.as_str())).unwrap();
    let largest = vec![i64::MAX; 4];
    let moment = Moment {
        epoch: Epoch(u64::MAX),
        link: Link::default(),
        inputs: vec![Progress { position: i64::MAX, high_ms: i64::MAX }; 4],
        watermark_ms: i64::MAX,
        idle: u64::MAX,
        note_ms: i64::MAX,
        closed: Some(largest.clone()),
        replayed: Some(Replayed { epoch: Epoch(u64::MAX), records: u64::MAX }),
    };
    let pending = Pending {
        link: Link::default(),
        positions: largest.clone(),
        cuts: Cuts(vec![u64::MAX; room / NUMBER_BYTES_MAX]),
        watermark_ms: i64::MAX,
        note_ms: i64::MAX,
        idle: u64::MAX,
        flags: u8::MAX,
        columns: u64::MAX,
        replay: vec![],
    };
    let mark = Mark {
        pipeline: "p".into(),
        incarnation: Incarnation::default(),
        origin: largest,
        plan: u64::MAX,
        topics,
        acknowledged: moment,
        pending: Some(pending),
    };
    let chars = mark.to_metadata().len();
    assert!(chars <= MARK_CHARS_MAX && chars > MARK_CHARS_MAX - 24, "{chars} characters");
}

#[test]
fn where_names_alone_fill_the_mark_there_is_no_room() {
    let topics = |count: usize| (0..count).map(|n| format!("{n:0>249}")).collect::<Vec<_>>();
    let room = |count: usize| mark_room("p", topics(count).iter().map(String::as_str));
    assert!(room(1).is_some_and(|room| room > 2_500), "{:?}", room(1));
    assert!(room(8).is_some_and(|room| room >= mark_room_least(8)), "{:?}", room(8));
    assert_eq!(room(12), None);
}

#[test]
fn a_retired_task_leaves_nothing_and_takes_nothing_of_its_neighbours() {
    let store = MemoryStore::new();
    let mut batch = WriteBatch::default();
    for task in [6, 7, 8].map(TaskNo) {
        for key in keys_of(task, 5) {
            batch.put(Table::Ledger, key, [1]);
        }
        batch.put(Table::Outbox, key::outbox(task, Epoch(u64::MAX), u16::MAX), [2]);
        batch.put(Table::Buffer, [&task.0.to_be_bytes()[..], b"row"].concat(), [3]);
        batch.put(Table::Seen, [&task.0.to_be_bytes()[..], b"key"].concat(), [4]);
    }
    store.write(&batch).unwrap();
    let count = |table: Table| {
        let mut keys = 0;
        store
            .scan(table, &[], &[0xff], &mut |_, _| {
                keys += 1;
                true
            })
            .unwrap();
        keys
    };
    let tables = [Table::Ledger, Table::Outbox, Table::Buffer, Table::Seen];
    let before = tables.map(count);
    let mut batch = WriteBatch::default();
    retire(TaskNo(7), &mut batch);
    store.write(&batch).unwrap();
    assert_eq!(retired(&store).unwrap(), [TaskNo(7)]);
    clear_retired(&store).unwrap();
    assert_eq!(retired(&store).unwrap(), []);
    assert_eq!(tables.map(count), before.map(|keys: u64| keys / 3 * 2));
    assert_eq!(store.get(Table::Ledger, &key::checkpoint(TaskNo(7))).unwrap(), None);
}

fn pending_at(positions: &[i64], cuts: &[u64]) -> Pending {
    Pending {
        link: Link([1; 16]),
        positions: positions.to_vec(),
        cuts: Cuts(cuts.to_vec()),
        watermark_ms: 0,
        note_ms: 0,
        idle: 0,
        flags: 0,
        columns: 0,
        replay: vec![],
    }
}

#[test]
fn an_announced_epoch_is_cut_to_what_its_logs_have() {
    let cut = |logs: &[(i64, i64)]| {
        let mut pending = pending_at(&[130, 60], &[10, 0, 20, 10]);
        pending.cut_to(&[100, 50], logs);
        (pending.positions, pending.cuts.0)
    };
    assert_eq!(cut(&[(0, 200), (0, 200)]), (vec![130, 60], vec![10, 0, 20, 10]));
    assert_eq!(cut(&[(115, 200), (0, 200)]), (vec![130, 60], vec![0, 0, 15, 10]), "behind a gap at its beginning");
    assert_eq!(cut(&[(150, 200), (0, 200)]), (vec![150, 60], vec![0, 0, 0, 10]), "all of it is gone");
    assert_eq!(cut(&[(0, 105), (0, 55)]), (vec![105, 55], vec![5, 0, 0, 5]), "up to the end of a log that was cut");
}
