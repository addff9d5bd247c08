//! Courses of events made by hand, for what random schedules meet too seldom: discards, resets, gaps, one topic of
//! two made again, a partition without a leader.

use crate::drive::{acknowledged, round, round_with, settle};
use crate::records::Content;
use crate::world::{GROUP, SESSION_MS, Setup, Violation, World, topic, unclear};
use std::sync::atomic::Ordering::Relaxed;
use weir::runtime::limits::INPUT_WAIT_MS;
use weir::runtime::task::DiscardAnswer;
use weir::state::ledger::{self, MARK_CHARS_MAX};
use weir::state::letters::REPLAY_UNCLEAR;

const ROUND_MS: u64 = 20;

fn rounds_for(world: &mut World, ms: u64) -> Result<(), Violation> {
    (0..ms / ROUND_MS).try_for_each(|_| round(world))
}

/// Everybody is away, and the group has forgotten them.
fn all_away(world: &mut World) -> Result<(), Violation> {
    for place in 0..world.instances.len() {
        world.kill(place);
        world.instances[place].boots_at_ms = u64::MAX;
    }
    world.advance(SESSION_MS + 1)
}

/// One instance with letters of which some would become rows, all of them asked to be replayed.
fn asked_to_replay() -> (World, usize) {
    let mut world = World::new(Setup { keeps_letters: true, batch_rows: 1_000, ..Setup::plain(5) });
    let place = world.add_instance();
    (0..120).for_each(|_| world.produce(0, 0));
    settle(&mut world).unwrap();
    let seqs: Vec<u64> = world.letters_of(place).into_iter().map(|(id, _)| id.seq).collect();
    assert!(keyless(&world).len() > 1, "some of {} letters fit", seqs.len());
    world.instances[place].process.as_mut().unwrap().replay(0, seqs);
    (world, place)
}

/// Offsets of the records whose letters become rows when they are replayed.
fn keyless(world: &World) -> Vec<i64> {
    let log = world.logs[&(0, 0)].iter().enumerate();
    log.filter(|(_, record)| record.content == Content::Keyless).map(|(offset, _)| offset as i64).collect()
}

/// Goes on, without any insert being answered, until one of this life is tried; its token.
fn tried_in_vain(world: &mut World, place: usize) -> String {
    let life = world.instances[place].process.as_ref().map(|process| process.life);
    let mut token = None;
    while token.is_none() {
        let lost = &mut |world: &mut World, at: usize| {
            let request = &world.table.under_way[at];
            if life.is_none() || request.life == life {
                token = Some(request.token.clone());
            }
            world.end_request(at, false, unclear())
        };
        round_with(world, lost).unwrap();
    }
    token.unwrap()
}

fn discard(world: &mut World, place: usize, token: &str) {
    let answers = world.instances[place].process.as_mut().unwrap().discard(0, token);
    rounds_for(world, 1_000).unwrap();
    let answer = answers.try_recv().expect("there is an answer");
    assert!(matches!(answer, DiscardAnswer::Done { rows, .. } if rows > 0), "{answer:?}");
}

/// The letters that would have become rows are there, and say that nobody knows.
fn letters_are_in_doubt(world: &World, place: usize) {
    let letters = world.letters_of(place);
    let of = |offset: i64| letters.iter().find(|(_, letter)| letter.offset == offset).map(|(_, letter)| &letter.reason);
    for offset in keyless(world) {
        assert_eq!(of(offset).map(String::as_str), Some(REPLAY_UNCLEAR), "the letter of {offset}");
    }
    assert_eq!(world.replayed_rows().len(), 0);
}

#[test]
fn a_discarded_replay_keeps_its_letters_and_its_rows_do_not_count_as_written() {
    let (mut world, place) = asked_to_replay();
    let before = world.letters_of(place).len();
    let token = tried_in_vain(&mut world, place);
    discard(&mut world, place, &token);
    settle(&mut world).unwrap();
    letters_are_in_doubt(&world, place);
    assert_eq!(world.letters_of(place).len(), before);
    let disk = &*world.instances[place].disk;
    let task = ledger::load(disk, 0).unwrap().unwrap().task;
    assert_eq!(ledger::discarded_rows(disk, task).unwrap(), keyless(&world).len() as u64);
    // They can be replayed again, by their names.
    let doubtful = world.letters_of(place).into_iter().filter(|(_, letter)| letter.reason == REPLAY_UNCLEAR);
    let seqs = doubtful.map(|(id, _)| id.seq).collect();
    world.instances[place].process.as_mut().unwrap().replay(0, seqs);
    rounds_for(&mut world, 2_000).unwrap();
    settle(&mut world).unwrap();
    world.judge().unwrap();
    assert_eq!(world.replayed_rows().len(), keyless(&world).len());
}

#[test]
fn letters_whose_replay_another_instance_took_over_and_discarded_stay() {
    let (mut world, first) = asked_to_replay();
    let announced = tried_in_vain(&mut world, first);
    all_away(&mut world).unwrap();
    let second = world.add_instance();
    let token = tried_in_vain(&mut world, second);
    assert_eq!(token, announced, "the other makes the same block again");
    discard(&mut world, second, &token);
    settle(&mut world).unwrap();
    all_away(&mut world).unwrap();
    world.instances[first].boots_at_ms = 0;
    rounds_for(&mut world, 2_000).unwrap();
    settle(&mut world).unwrap();
    letters_are_in_doubt(&world, first);
}

#[test]
fn a_reset_takes_the_watermark_back_to_what_lies_before_the_new_offsets() {
    let mut world = World::new(Setup::plain(9));
    world.add_instance();
    for _ in 0..40 {
        world.produce(0, 0);
        world.advance(500).unwrap();
    }
    settle(&mut world).unwrap();
    let before = world.mark(0).unwrap().acknowledged;
    all_away(&mut world).unwrap();
    world.kafka.reset_committed(GROUP, &topic(0), 0, 20);
    world.instances[0].boots_at_ms = 0;
    // Nothing is sent before the new history is accepted, so its first commits can be seen one by one.
    let mut watermarks = Vec::new();
    for _ in 0..400 {
        round(&mut world).unwrap();
        let Some(now) = world.mark(0).map(|mark| mark.acknowledged) else { continue };
        if watermarks.last() != Some(&now.watermark_ms) {
            watermarks.push(now.watermark_ms);
        }
    }
    settle(&mut world).unwrap();
    assert!(watermarks[0] < world.logs[&(0, 0)][20].time_ms, "{watermarks:?}: not later than what lies before");
    assert!(watermarks.is_sorted(), "{watermarks:?}");
    assert_eq!(*watermarks.last().unwrap(), before.watermark_ms);
    world.judge_from(&[((0, 0), 20)].into()).unwrap();
}

#[test]
fn an_input_without_a_leader_stops_the_others_for_a_while_and_no_longer() {
    let mut world = World::new(Setup { inputs: 2, ..Setup::plain(3) });
    world.add_instance();
    (0..16).for_each(|_| world.produce_anywhere());
    settle(&mut world).unwrap();
    world.leaderless.store(1 << 1, Relaxed);
    (0..8).for_each(|_| world.produce(1, 0));
    (0..24).for_each(|_| world.produce(0, 0));
    let position = |world: &World| world.mark(0).unwrap().acknowledged.inputs[0].position;
    let (before, end) = (position(&world), world.logs[&(0, 0)].len() as i64);
    rounds_for(&mut world, INPUT_WAIT_MS - 500).unwrap();
    assert_eq!(position(&world), before, "what is on its way is waited for");
    // And the commit that says so may wait as long again.
    rounds_for(&mut world, INPUT_WAIT_MS + 2_000).unwrap();
    assert_eq!(position(&world), end, "a partition without a leader does not stop the others");
    world.leaderless.store(0, Relaxed);
    settle(&mut world).unwrap();
    world.judge().unwrap();
}

#[test]
fn after_a_commit_without_an_answer_the_topics_are_compared_before_the_next_one() {
    use weir::source::memory::CommitFault::RequestLost;
    let mut world = World::new(Setup::plain(11));
    world.add_instance();
    (0..12).for_each(|_| world.produce(0, 0));
    settle(&mut world).unwrap();
    world.seams.keep_trace();
    world.kafka.next_commits([RequestLost]);
    (0..12).for_each(|_| world.produce(0, 0));
    settle(&mut world).unwrap();
    world.judge().unwrap();
    let trace = world.seams.trace();
    let after = |from: usize, part: &str| trace[from..].iter().position(|line| line.contains(part)).map(|at| from + at);
    let unanswered = after(0, "Repeat(").expect("a commit is not answered");
    let told = after(unanswered, "is told of the topics").expect("the topics are asked for");
    let next = after(unanswered, " commit ").expect("there is another commit");
    assert!(told < next, "{}", trace[unanswered..=next].join("\n"));
}

/// Records that are gone before they were read, with the process running or not.
fn lose_records(passes_gaps: bool, is_running: bool) -> (World, Result<(), Violation>) {
    let mut world = World::new(Setup { passes_gaps, ..Setup::plain(13) });
    world.add_instance();
    (0..12).for_each(|_| world.produce(0, 0));
    settle(&mut world).unwrap();
    match is_running {
        true => world.instances[0].paused_until_ms = world.seams.now_ms() + 1_000,
        false => all_away(&mut world).unwrap(),
    }
    (0..20).for_each(|_| world.produce(0, 0));
    world.kafka.trim(&topic(0), 0, 20);
    // The oracle sees what is left.
    for record in &mut world.logs.get_mut(&(0, 0)).unwrap()[12..20] {
        record.content = Content::Marker;
    }
    if !is_running {
        world.instances[0].boots_at_ms = 0;
    }
    let went = rounds_for(&mut world, 3_000).and_then(|()| settle(&mut world));
    (world, went)
}

#[test]
fn records_that_are_gone_stop_the_pipeline_or_are_passed_over_as_it_was_told() {
    for is_running in [true, false] {
        let (_, halted) = lose_records(false, is_running);
        let why = halted.expect_err("on_gap: halt").0;
        assert!(why.contains("records 12 to 20 of `topic0` partition 0 are gone") && why.contains("(gap)"), "{why}");
        let (mut world, passed) = lose_records(true, is_running);
        assert_eq!(passed, Ok(()), "running: {is_running}");
        world.judge().unwrap();
        world.kill(0);
        assert!(world.cases["gap"] > 0, "{:?}", world.cases);
    }
}

/// The log ends before the place that was read to: an unclean election took what came after it.
fn lose_the_end(passes_gaps: bool) -> (World, Result<(), Violation>) {
    let mut world = World::new(Setup { passes_gaps, ..Setup::plain(29) });
    world.add_instance();
    (0..20).for_each(|_| world.produce(0, 0));
    settle(&mut world).unwrap();
    world.judge().unwrap();
    all_away(&mut world).unwrap();
    world.cut_log(12);
    // Keys that nobody has seen: what the lost records leave behind in the state stays.
    world.makers.get_mut(&(0, 0)).unwrap().mend();
    world.instances[0].boots_at_ms = 0;
    let went = rounds_for(&mut world, 3_000);
    (world, went)
}

#[test]
fn a_log_cut_below_the_position_stops_the_pipeline_or_is_read_on_as_it_was_told() {
    let (_, halted) = lose_the_end(false);
    let why = halted.expect_err("on_gap: halt").0;
    assert!(why.contains("`topic0` partition 0") && why.contains("(gap)"), "{why}");
    let (mut world, passed) = lose_the_end(true);
    assert_eq!(passed, Ok(()));
    // What came later is read like everything else.
    (0..12).for_each(|_| world.produce(0, 0));
    settle(&mut world).unwrap();
    world.judge().unwrap();
    world.kill(0);
    assert!(world.cases["gap"] > 0, "{:?}", world.cases);
}

/// An announced epoch that is lost with its disk, and of which compaction has taken a record before it is made again.
fn compact_what_is_announced(strict: bool) -> (World, Result<(), Violation>) {
    let mut world = World::new(Setup { batch_rows: 8, strict, ..Setup::plain(31) });
    let place = world.add_instance();
    (0..20).for_each(|_| world.produce(0, 0));
    tried_in_vain(&mut world, place);
    let mark = world.mark(0).unwrap();
    let announced = mark.acknowledged.positions()[0]..mark.pending.unwrap().positions[0];
    let rows: Vec<i64> = world.expected().iter().filter(|row| !row.is_letter).map(|row| row.offset).collect();
    let gone = rows.into_iter().find(|offset| announced.contains(offset)).expect("it has rows");
    world.lose_disk(place);
    world.kafka.compact(&topic(0), 0, gone);
    world.logs.get_mut(&(0, 0)).unwrap()[gone as usize].content = Content::Marker;
    world.instances[place].boots_at_ms = 0;
    let went = rounds_for(&mut world, 3_000).and_then(|()| settle(&mut world));
    (world, went)
}

#[test]
fn an_announced_epoch_that_compaction_has_changed_goes_out_and_is_counted_or_stops_a_strict_pipeline() {
    let (mut world, went) = compact_what_is_announced(false);
    assert_eq!(went, Ok(()));
    world.judge().unwrap();
    world.kill(0);
    assert_eq!((world.cases["pending_differs"], world.cases["forced"]), (1, 1), "{:?}", world.cases);
    let (_, stopped) = compact_what_is_announced(true);
    let why = stopped.expect_err("strict").0;
    assert!(why.contains("came out differently than it was announced") && why.contains("(pending_differs)"), "{why}");
}

/// A topic gets a second partition while the pipeline runs, or while it is down.
fn grow_a_topic(passes_growth: bool, is_running: bool) -> (World, Result<(), Violation>) {
    let mut world = World::new(Setup { passes_growth, ..Setup::plain(37) });
    world.add_instance();
    (0..12).for_each(|_| world.produce(0, 0));
    settle(&mut world).unwrap();
    if !is_running {
        all_away(&mut world).unwrap();
    }
    world.grow();
    (0..20).for_each(|_| world.produce_anywhere());
    world.instances[0].boots_at_ms = 0;
    let went = rounds_for(&mut world, 10_000).and_then(|()| settle(&mut world));
    (world, went)
}

#[test]
fn a_partition_more_stops_a_dedup_or_is_read_from_its_start_as_it_was_told() {
    for is_running in [true, false] {
        let (mut world, halted) = grow_a_topic(false, is_running);
        let why = halted.expect_err("on_partition_growth: halt").0;
        assert!(why.contains("`on_partition_growth: continue`") && why.contains("(partition_growth)"), "{why}");
        // A restart does not make it forget.
        let again = rounds_for(&mut world, 3_000).expect_err("it is halted still").0;
        assert!(again.contains("(partition_growth)"), "{again}");
        let (world, passed) = grow_a_topic(true, is_running);
        assert_eq!(passed, Ok(()), "running: {is_running}");
        assert!(!world.logs[&(0, 1)].is_empty(), "the new partition has records");
        world.judge().unwrap();
    }
}

/// A block that was tried in vain and waited for longer than its table, which tells nothing of its rows, remembers.
fn older_than_the_tables_memory(resends_unclear: bool) -> (World, String) {
    const REMEMBERS_MS: i64 = 60_000;
    let mut world = World::new(Setup { remembers_ms: REMEMBERS_MS, resends_unclear, ..Setup::plain(41) });
    world.table.hides_places = true;
    let place = world.add_instance();
    (0..12).for_each(|_| world.produce(0, 0));
    let token = tried_in_vain(&mut world, place);
    world.kill(place);
    world.advance(REMEMBERS_MS as u64 + 1).unwrap();
    world.table.forget_all();
    world.instances[place].boots_at_ms = 0;
    (world, token)
}

#[test]
fn a_block_that_nobody_can_tell_of_waits_for_a_person_or_goes_out_again_as_it_was_told() {
    let (mut world, token) = older_than_the_tables_memory(false);
    rounds_for(&mut world, 30_000).unwrap();
    assert_eq!(world.table.blocks, 0, "nothing is sent, also nothing behind it");
    let rows = world.stored_rows().len();
    assert!(rows > 0, "what waits is kept");
    discard(&mut world, 0, &token);
    settle(&mut world).unwrap();
    let came = world.table.rows.keys().filter(|row| !row.is_letter).count();
    let expected = world.expected().iter().filter(|row| !row.is_letter).count();
    assert!(world.table.blocks > 0 && came < expected, "the rest goes on: {came} of {expected}");

    let (mut world, _) = older_than_the_tables_memory(true);
    settle(&mut world).unwrap();
    world.judge().unwrap();
}

/// While time stands still nothing but the cuts of its passes ends an epoch.
#[test]
fn an_epoch_is_sealed_before_its_mark_outgrows_what_kafka_takes() {
    let mut world = World::new(Setup { inputs: 2, batch_rows: 100_000, ..Setup::plain(23) });
    let place = world.add_instance();
    (0..4).for_each(|_| world.produce_anywhere());
    settle(&mut world).unwrap();
    let mut longest = 0;
    for _ in 0..5_000 {
        (0..2).for_each(|input| world.produce(input, 0));
        world.coordinate(place).unwrap();
        world.work(place);
        world.begin_attempt(place);
        while !world.table.under_way.is_empty() {
            world.end_request(0, true, acknowledged()).unwrap();
        }
        let (_, metadata) = world.kafka.committed(GROUP, &topic(0), 0).unwrap();
        longest = longest.max(metadata.len());
    }
    settle(&mut world).unwrap();
    world.judge().unwrap();
    assert!((MARK_CHARS_MAX - 300..=MARK_CHARS_MAX).contains(&longest), "{longest} characters");
}

#[test]
fn one_of_two_topics_made_again_begins_anew_and_the_other_goes_on() {
    for (made_again, is_running) in [(0, false), (1, false), (0, true), (1, true)] {
        let mut world = World::new(Setup { inputs: 2, ..Setup::plain(17) });
        world.add_instance();
        (0..30).for_each(|_| world.produce_anywhere());
        settle(&mut world).unwrap();
        world.judge().unwrap();
        if !is_running {
            all_away(&mut world).unwrap();
        }
        world.recreate_topic(made_again);
        if is_running {
            // Until somebody looks, nobody can tell the new topic's records from the old one's by their offsets.
            rounds_for(&mut world, 6_000).unwrap();
        }
        // Its state is empty, too: keys of before would come again.
        world.makers.get_mut(&(1 - made_again, 0)).unwrap().mend();
        (0..30).for_each(|_| world.produce_anywhere());
        world.instances[0].boots_at_ms = 0;
        rounds_for(&mut world, 6_000).unwrap();
        settle(&mut world).unwrap();
        assert_eq!(world.judge(), Ok(()), "topic {made_again}, running: {is_running}");
        world.kill(0);
        assert!(world.cases["recreated"] > 0, "{:?}", world.cases);
    }
}

/// The way out of an outbox stays open while the task waits for it to be delivered.
#[test]
fn a_block_can_be_discarded_while_a_start_delivers_what_an_older_plan_left() {
    let mut world = World::new(Setup::plain(19));
    let place = world.add_instance();
    (0..12).for_each(|_| world.produce(0, 0));
    tried_in_vain(&mut world, place);
    world.kill(place);
    world.set_plan_window(1_000_000);
    world.instances[place].boots_at_ms = 0;
    round_with(&mut world, &mut |world, at| world.end_request(at, false, unclear())).unwrap();
    let token = tried_in_vain(&mut world, place);
    let stages = world.instances[place].process.as_ref().unwrap().stages();
    assert!(stages.iter().all(|(_, stage)| *stage == weir::runtime::task::Stage::DeliverFirst), "{stages:?}");
    let answers = world.instances[place].process.as_mut().unwrap().discard(0, &token);
    for _ in 0..50 {
        round_with(&mut world, &mut |world, at| match world.table.under_way[at].token == token {
            true => world.end_request(at, false, unclear()),
            false => world.end_request(at, true, acknowledged()),
        })
        .unwrap();
    }
    assert!(matches!(answers.try_recv(), Ok(DiscardAnswer::Done { .. })));
    settle(&mut world).unwrap();
}
