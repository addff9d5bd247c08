//! Every row of the table of start and hand-over.

use super::*;
use crate::state::ledger::{Checkpoint, Counts, Cuts, OutputRecord};
use crate::types::{Link, TaskNo};

const PLAN: u64 = 7;
const OURS: Incarnation = Incarnation([1; 16]);

fn topic_id(n: u8) -> TopicId {
    TopicId([n; 16])
}

fn topics() -> Vec<TopicInfo> {
    vec![TopicInfo { name: "orders".into(), id: topic_id(1), partitions: 4 }]
}

fn moment(epoch: u64, link: u8, position: i64) -> Moment {
    Moment {
        epoch: Epoch(epoch),
        link: Link([link; 16]),
        inputs: vec![Progress { position, high_ms: position * 10 }],
        watermark_ms: position * 10,
        idle: 0,
        note_ms: 0,
        closed: None,
        replayed: None,
    }
}

fn mark(acknowledged: Moment) -> Mark {
    Mark {
        pipeline: "p".into(),
        incarnation: OURS,
        origin: vec![0],
        plan: PLAN,
        topics: vec![("orders".into(), topic_id(1))],
        acknowledged,
        pending: None,
    }
}

fn record(after: Moment) -> EpochRecord {
    let output = OutputRecord { token: "t".into(), header: vec![], rows: 5, hash: [0; 16], body_bytes: 9 };
    EpochRecord { after, cuts: Cuts::default(), flags: 0, idle_before: 0, outputs: vec![output], replay: vec![] }
}

/// A ledger whose accepted epoch is the first moment and which went on to the others.
fn ledger(accepted: Moment, on: Vec<Moment>) -> Ledger {
    let tip = on.last().unwrap_or(&accepted).clone();
    Ledger {
        task: TaskNo(3),
        checkpoint: Checkpoint {
            pipeline: "p".into(),
            partition: 2,
            incarnation: OURS,
            origin: vec![0],
            plan: PLAN,
            topics: vec![("orders".into(), topic_id(1))],
            moment: tip,
            restoring: false,
            counts: Counts::default(),
        },
        accepted: mark(accepted),
        epochs: on.into_iter().map(record).collect(),
    }
}

/// Committed as the mark says.
fn committed(mark: &Mark) -> CommittedOffsets {
    let offsets = mark.acknowledged.positions().into_iter().map(Some).collect();
    CommittedOffsets { offsets, metadata: mark.to_metadata() }
}

fn nothing_committed() -> CommittedOffsets {
    CommittedOffsets { offsets: vec![None], metadata: String::new() }
}

fn decide_with(
    ledger: Option<&Ledger>,
    committed: &CommittedOffsets,
    change: impl FnOnce(&mut Facts),
) -> Result<Start> {
    let topics = topics();
    let mut facts = Facts {
        pipeline: "p",
        partition: 2,
        plan: PLAN,
        ledger,
        committed,
        topics: &topics,
        tables: &[],
        logs: &[(0, 1000)],
        group_has_offsets: false,
        policy: Policy { halt_on_reset: false, halt_on_gap: true, strict: false },
    };
    change(&mut facts);
    decide(&facts)
}

fn case(ledger: Option<&Ledger>, committed: &CommittedOffsets) -> Start {
    decide_with(ledger, committed, |_| {}).expect("this case does not stop")
}

fn with_pending(mark: Mark, of: &Moment) -> Mark {
    Mark { pending: Some(record(of.clone()).pending()), ..mark }
}

#[test]
fn nothing_known_is_new_and_begins_where_the_source_says() {
    let start = case(None, &nothing_committed());
    assert_eq!((start.case, start.base.clone()), (Case::New, Base::Empty));
    assert_eq!(start.mark, MarkPlan::New { positions: vec![None] });
    assert!(start.must_accept());
}

#[test]
fn a_partition_that_appears_later_begins_at_its_start() {
    let start = decide_with(None, &nothing_committed(), |facts| {
        facts.group_has_offsets = true;
        facts.logs = &[(40, 1000)];
    });
    assert_eq!(start.unwrap().mark, MarkPlan::New { positions: vec![Some(40)] });
}

#[test]
fn a_ledger_without_committed_offsets_wins() {
    let ledger = ledger(moment(4, 4, 40), vec![moment(5, 5, 50)]);
    let start = case(Some(&ledger), &nothing_committed());
    assert_eq!((start.case, start.base.clone(), start.forced.clone()), (Case::Unmarked, Base::Ledger, None));
    let MarkPlan::Keep(mark) = &start.mark else { panic!("the ledger's mark is kept") };
    assert_eq!(
        mark.pending.as_ref().map(|pending| pending.link),
        Some(Link([5; 16])),
        "its first outbox epoch is announced"
    );
    assert!(start.is_remembered, "all that it holds may be in the table");
    assert!(start.must_accept());
}

#[test]
fn offsets_without_our_mark_are_a_reset() {
    let ledger = ledger(moment(4, 4, 40), vec![moment(5, 5, 50)]);
    let moved = CommittedOffsets { offsets: vec![Some(10)], metadata: String::new() };
    let start = case(Some(&ledger), &moved);
    assert_eq!(start.case, Case::Reset);
    assert_eq!(start.mark, MarkPlan::New { positions: vec![Some(10)] });
    assert!(start.warnings[0].contains("5 rows that were not delivered yet are discarded"), "{:?}", start.warnings);
}

#[test]
fn an_offset_that_is_not_the_marks_is_a_reset() {
    let mark = mark(moment(4, 4, 40));
    let moved = CommittedOffsets { offsets: vec![Some(41)], metadata: mark.to_metadata() };
    assert_eq!(case(None, &moved).case, Case::Reset);
    let halted = decide_with(None, &moved, |facts| facts.policy.halt_on_reset = true).unwrap_err();
    assert_eq!(halted.code, "reset");
}

#[test]
fn the_same_link_and_nothing_pending_continues() {
    let ledger = ledger(moment(4, 4, 40), vec![moment(5, 5, 50), moment(6, 6, 60)]);
    for at in [moment(4, 4, 40), moment(5, 5, 50), moment(6, 6, 60)] {
        let start = case(Some(&ledger), &committed(&mark(at)));
        assert_eq!((start.case, start.base, start.forced), (Case::Continue, Base::Ledger, None));
    }
}

#[test]
fn a_pending_that_our_outbox_holds_is_delivered_from_there() {
    let ledger = ledger(moment(4, 4, 40), vec![moment(5, 5, 50)]);
    let announced = with_pending(mark(moment(4, 4, 40)), &moment(5, 5, 50));
    let start = case(Some(&ledger), &committed(&announced));
    assert_eq!((start.case, start.forced), (Case::Continue, None));
}

#[test]
fn a_pending_of_another_owner_is_forced_where_our_ledger_ends() {
    let ledger = ledger(moment(4, 4, 40), vec![]);
    let announced = with_pending(mark(moment(4, 4, 40)), &moment(5, 99, 55));
    let start = case(Some(&ledger), &committed(&announced));
    assert_eq!(start.case, Case::Continue);
    assert_eq!(start.forced.map(|pending| pending.link), Some(Link([99; 16])));
}

#[test]
fn a_ledger_that_went_another_way_than_pending_does_not_continue() {
    let ledger = ledger(moment(4, 4, 40), vec![moment(5, 5, 50)]);
    let announced = with_pending(mark(moment(4, 4, 40)), &moment(5, 99, 55));
    let start = case(Some(&ledger), &committed(&announced));
    assert_eq!(start.case, Case::Restore, "its state is ahead of the mark: it cannot catch up either");
    assert!(start.forced.is_some());
}

#[test]
fn a_directory_that_missed_epochs_catches_up() {
    let ledger = ledger(moment(4, 4, 40), vec![]);
    let start = case(Some(&ledger), &committed(&mark(moment(9, 9, 90))));
    assert_eq!((start.case, start.base), (Case::CatchUp, Base::CatchUp));
}

#[test]
fn catching_up_needs_the_records_and_no_flags() {
    let behind = ledger(moment(4, 4, 40), vec![]);
    let ahead = committed(&mark(moment(9, 9, 90)));
    let gone = decide_with(Some(&behind), &ahead, |facts| facts.logs = &[(60, 1000)]).unwrap();
    assert_eq!(gone.case, Case::Restore);
    let mut flagged = ledger(moment(4, 4, 40), vec![moment(5, 5, 50)]);
    flagged.epochs[0].flags = crate::state::ledger::flag::CLOSED;
    assert_eq!(case(Some(&flagged), &ahead).case, Case::Restore);
}

#[test]
fn a_flag_that_kafka_knows_of_is_no_reason_not_to_catch_up() {
    let mut flagged = ledger(moment(4, 4, 40), vec![]);
    flagged.epochs.push(EpochRecord { flags: crate::state::ledger::flag::REPLAY, ..record(moment(4, 4, 40)) });
    assert_eq!(case(Some(&flagged), &committed(&mark(moment(9, 9, 90)))).case, Case::CatchUp);
}

#[test]
fn a_ledger_catches_up_over_a_closing_of_windows_that_lies_ahead() {
    let closed_at = |position: i64| committed(&mark(Moment { closed: Some(vec![position]), ..moment(9, 9, 90) }));
    let behind = ledger(moment(4, 4, 40), vec![]);
    assert_eq!(case(Some(&behind), &closed_at(40)).case, Case::CatchUp);
    assert_eq!(case(Some(&behind), &closed_at(39)).case, Case::Restore, "it has read on with them open");
    let mut closed = ledger(moment(4, 4, 40), vec![]);
    closed.checkpoint.moment.closed = Some(vec![39]);
    assert_eq!(case(Some(&closed), &closed_at(39)).case, Case::CatchUp);
}

#[test]
fn how_far_back_to_read_is_not_said_by_a_table() {
    let mut old = moment(4, 4, 40);
    old.watermark_ms = 500;
    let restore = |tables: &'static [usize]| {
        let start = decide_with(None, &committed(&mark(old.clone())), |facts| facts.tables = tables).unwrap();
        start.base
    };
    assert_eq!(restore(&[]), Base::Reread { origin: vec![0], watermarks: Some(400) });
    assert_eq!(restore(&[0]), Base::Reread { origin: vec![0], watermarks: Some(500) });
}

#[test]
fn a_restoring_ledger_never_continues() {
    let mut half = ledger(moment(4, 4, 40), vec![]);
    half.checkpoint.restoring = true;
    half.checkpoint.moment.inputs[0].position = 20;
    let start = case(Some(&half), &committed(&mark(moment(4, 4, 40))));
    assert_eq!(start.case, Case::CatchUp);
}

#[test]
fn without_a_ledger_state_is_restored_from_the_mark() {
    let start = case(None, &committed(&mark(moment(4, 4, 40))));
    assert_eq!(start.case, Case::Restore);
    assert_eq!(start.base, Base::Reread { origin: vec![0], watermarks: Some(400) });
}

#[test]
fn another_incarnation_is_foreign() {
    let mut other = ledger(moment(4, 4, 40), vec![]);
    other.checkpoint.incarnation = Incarnation([9; 16]);
    assert_eq!(case(Some(&other), &committed(&mark(moment(4, 4, 40)))).case, Case::Foreign);
}

#[test]
fn a_changed_plan_delivers_first_and_restores_then() {
    let mut old = ledger(moment(4, 4, 40), vec![moment(5, 5, 50)]);
    old.checkpoint.plan = 1;
    let at_four = committed(&mark(moment(4, 4, 40)));
    let start = case(Some(&old), &at_four);
    assert_eq!((start.case, start.base), (Case::Replanned, Base::DeliverFirst));
    let start = case(Some(&old), &committed(&mark(moment(5, 5, 50))));
    assert_eq!(start.case, Case::Replanned, "the outbox is empty now");
    assert!(matches!(start.base, Base::Reread { .. }));
}

#[test]
fn a_recreated_topic_delivers_first_and_begins_anew_then() {
    let recreated = vec![TopicInfo { id: topic_id(2), ..topics()[0].clone() }];
    let undelivered = ledger(moment(4, 4, 40), vec![moment(5, 5, 50)]);
    let decide = |ledger: &Ledger| {
        decide_with(Some(ledger), &nothing_committed(), |facts| {
            facts.topics = Box::leak(recreated.clone().into_boxed_slice());
            facts.logs = &[(0, 3)];
        })
        .unwrap()
    };
    let start = decide(&undelivered);
    assert_eq!((start.case, start.base.clone()), (Case::Recreated, Base::DeliverFirst));
    let start = decide(&ledger(moment(5, 5, 50), vec![]));
    assert_eq!((start.case, start.base.clone()), (Case::Recreated, Base::Empty));
    assert_eq!(start.mark, MarkPlan::New { positions: vec![Some(0)] });
}

#[test]
fn with_the_state_a_table_is_gone_so_that_it_is_read_from_its_beginning_again() {
    let input = |position| Progress { position, high_ms: 0 };
    let mut of_three = mark(moment(4, 4, 40));
    of_three.acknowledged.inputs = vec![input(40), input(70), input(90)];
    of_three.topics =
        [("orders", 1), ("users", 5), ("payments", 6)].map(|(name, id)| (name.into(), topic_id(id))).into();
    let names = [("orders", 2), ("users", 5), ("payments", 6)];
    let now = names.map(|(name, id)| TopicInfo { name: name.into(), id: topic_id(id), partitions: 4 });
    let committed = committed(&of_three);
    let start = decide_with(None, &committed, |facts| {
        facts.topics = Box::leak(Box::new(now));
        facts.tables = &[1];
        facts.logs = &[(0, 3), (7, 100), (0, 100)];
    });
    let start = start.unwrap();
    assert_eq!((start.case, start.base), (Case::Recreated, Base::Empty));
    assert_eq!(start.mark, MarkPlan::New { positions: vec![Some(0), Some(7), Some(90)] });
}

#[test]
fn marks_of_the_future_and_of_others_at_work_stop() {
    use base64::Engine as _;
    let newer = base64::engine::general_purpose::STANDARD_NO_PAD.encode([crate::state::ledger::FORMAT + 1, 0, 0]);
    let newer = CommittedOffsets { offsets: vec![Some(4)], metadata: newer };
    assert_eq!(decide_with(None, &newer, |_| {}).unwrap_err().code, "newer");
    let mut other = with_pending(mark(moment(4, 4, 40)), &moment(5, 5, 50));
    other.pipeline = "other".into();
    assert_eq!(decide_with(None, &committed(&other), |_| {}).unwrap_err().code, "newer");
    other.pending = None;
    assert_eq!(decide_with(None, &committed(&other), |_| {}).unwrap().case, Case::Reset);
}

#[test]
fn a_mark_survives_its_metadata() {
    let announced = with_pending(mark(moment(4, 4, 40)), &moment(5, 5, 50));
    assert_eq!(Mark::from_metadata(&announced.to_metadata()), MarkRead::Mark(Box::new(announced)));
    assert_eq!(Mark::from_metadata(""), MarkRead::Foreign);
    assert_eq!(Mark::from_metadata("checkpoint of some other tool"), MarkRead::Foreign);
}

/// A replay of one record, stored as the epoch behind `moment`.
fn replayed(before: &Moment) -> (Moment, crate::state::letters::Replaying, Pending) {
    use crate::state::ledger::{RecordName, Replayed, flag, names_hash};
    let names = vec![RecordName { input: 0, offset: 5 }];
    let epoch = before.epoch.next();
    let replayed = Replayed { epoch, records: names_hash(&mark(before.clone()).topics, &names) };
    let after = Moment { epoch, link: Link([99; 16]), replayed: Some(replayed), ..before.clone() };
    let entry = crate::state::letters::Replaying { incarnation: OURS, replayed, seqs: vec![0], stays: vec![] };
    let pending = Pending { flags: flag::REPLAY, replay: names, ..record(after.clone()).pending() };
    (after, entry, pending)
}

#[test]
fn a_replay_in_our_outbox_or_in_the_mark_is_under_way() {
    let before = moment(3, 3, 30);
    let (after, entry, pending) = replayed(&before);
    let ours = ledger(before.clone(), vec![after]);
    let announced = Mark { pending: Some(pending), ..mark(before.clone()) };
    for mark in [mark(before.clone()), announced.clone()] {
        assert_eq!(replay_ending(&entry, &case(Some(&ours), &committed(&mark)), Some(&ours)), None);
    }
    // The ledger is gone or another's, and the mark names it: it is made again from its letters.
    let start = case(None, &committed(&announced));
    assert!(start.forced.is_some());
    assert_eq!(replay_ending(&entry, &start, None), None);
}

#[test]
fn a_replay_counts_when_the_mark_is_behind_it_and_names_it() {
    use crate::state::letters::Ending;
    let before = moment(3, 3, 30);
    let (after, entry, _) = replayed(&before);
    let ours = ledger(before.clone(), vec![after.clone()]);
    let ending = |acknowledged: Moment| {
        let start = case(Some(&ours), &committed(&mark(acknowledged)));
        replay_ending(&entry, &start, Some(&ours))
    };
    assert_eq!(ending(after.clone()), Some(Ending::Gone));
    // Another owner went on from it, and from where we were.
    assert_eq!(ending(Moment { replayed: after.replayed, ..moment(9, 9, 90) }), Some(Ending::Gone));
    assert_eq!(ending(moment(4, 44, 40)), Some(Ending::Kept));
    assert_eq!(ending(moment(9, 9, 90)), Some(Ending::Kept));
    let later = crate::state::ledger::Replayed { epoch: Epoch(8), records: 1 };
    assert_eq!(ending(Moment { replayed: Some(later), ..moment(9, 9, 90) }), Some(Ending::Unclear));
    let same_number = crate::state::ledger::Replayed { epoch: Epoch(4), records: 1 };
    assert_eq!(ending(Moment { replayed: Some(same_number), ..moment(9, 9, 90) }), Some(Ending::Unclear));
}

#[test]
fn a_replay_that_was_never_announced_is_kept_where_its_epoch_is_dropped() {
    use crate::state::letters::Ending;
    let before = moment(3, 3, 30);
    let (after, entry, _) = replayed(&before);
    let ours = ledger(before.clone(), vec![after]);
    let other = Mark { pending: Some(record(moment(4, 44, 40)).pending()), ..mark(before) };
    let start = case(Some(&ours), &committed(&other));
    assert_ne!(start.case, Case::Continue);
    assert_eq!(replay_ending(&entry, &start, Some(&ours)), Some(Ending::Kept));
}

#[test]
fn a_replay_of_another_incarnation_is_unclear() {
    use crate::state::letters::Ending;
    let before = moment(3, 3, 30);
    let (after, entry, _) = replayed(&before);
    let ours = ledger(before, vec![after]);
    let reset = CommittedOffsets { offsets: vec![Some(7)], metadata: String::new() };
    assert_eq!(replay_ending(&entry, &case(Some(&ours), &reset), Some(&ours)), Some(Ending::Unclear));
    let theirs = Mark { incarnation: Incarnation([8; 16]), ..mark(moment(9, 9, 90)) };
    assert_eq!(replay_ending(&entry, &case(Some(&ours), &committed(&theirs)), Some(&ours)), Some(Ending::Unclear));
}

#[test]
fn an_input_less_is_a_changed_plan_and_no_reset() {
    let three = |n: u8, name: &str| TopicInfo { name: name.into(), id: topic_id(n), partitions: 4 };
    let known = [three(1, "orders"), three(2, "payments"), three(3, "users")];
    let inputs = [40, 70, 90].map(|position| Progress { position, high_ms: 0 }).to_vec();
    let at_four = Moment { inputs, ..moment(4, 4, 40) };
    let named: Vec<_> = known.iter().map(|topic| (topic.name.clone(), topic.id)).collect();
    let mark = Mark { topics: named.clone(), ..mark(at_four.clone()) };
    let mut old = ledger(at_four, vec![]);
    (old.checkpoint.topics, old.checkpoint.plan) = (named, 1);
    let now = [known[0].clone(), known[2].clone()];
    let committed = CommittedOffsets { offsets: vec![Some(40), Some(90)], metadata: mark.to_metadata() };
    let decide = |committed: &CommittedOffsets, topics: &[TopicInfo]| {
        let topics = Box::leak(topics.to_vec().into_boxed_slice());
        let logs: &'static [(i64, i64)] = &[(0, 1000), (0, 1000)];
        decide_with(Some(&old), committed, |facts| (facts.topics, facts.logs) = (topics, logs)).unwrap().case
    };
    assert_eq!(decide(&committed, &now), Case::Replanned);
    let turned = CommittedOffsets { offsets: vec![Some(90), Some(40)], ..committed.clone() };
    assert_eq!(decide(&turned, &[now[1].clone(), now[0].clone()]), Case::Replanned);
    let moved = CommittedOffsets { offsets: vec![Some(40), Some(91)], ..committed };
    assert_eq!(decide(&moved, &now), Case::Reset);
}
