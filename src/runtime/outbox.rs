//! Blocks that are stored and not acknowledged: shown, handed out, and, where nothing else helps, discarded.
//!
//! Owns the way out for a block that the table can never take (`exactly-once.md`, Rules for the insert), where the
//! pipeline is stopped; while it runs, its task does it (`runtime/task/discard.rs`). Promises: nothing is discarded
//! while the block may be in the table already (unless forced), or when another instance has gone on with its
//! records.
//!
//! Why a discarded block counts as acknowledged: the epoch stays in the ledger with its positions, its link and its
//! state changes; only the block is taken out of its outputs, in one synced write. At the next start the ledger
//! still holds the link of what Kafka's mark names as acknowledged or as pending, so it is the same history and
//! nothing is processed anew. An epoch without outputs counts as acknowledged as soon as all before it are
//! (`runtime/commit.rs`), so the commit that follows names it as such, and only by that does it leave the mark: the
//! rule that a pending leaves the mark in no other way holds. Until that commit is accepted the mark may still name
//! it: an instance that takes the partition over before would make the block again and send it under its token,
//! which is why the discard is said to hold only when this directory is the next to run.

use crate::config::plan::PipelinePlan;
use crate::error::{Error, Result};
use crate::source::kafka::{KafkaGroup, MemberOptions};
use crate::source::{CommittedOffsets, Group};
use crate::state::ledger::{self, EpochRecord, Ledger, Mark, MarkRead, encode, key};
use crate::state::letters::{self, Replaying};
use crate::state::{StateStore, Table, WriteBatch};

/// A block in the outbox.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Waiting {
    pub token: String,
    pub partition: i32,
    pub epoch: u64,
    pub output: u16,
    pub rows: u64,
    pub bytes: u64,
    pub standing: Standing,
}

/// What is known about whether the table has a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It was never announced, so it was never sent.
    Unsent,
    /// It may have been sent: Kafka's mark names it, or Kafka could not be asked.
    Unclear,
    /// Kafka's mark says that it is acknowledged, or that another instance has gone on: the next start drops it.
    Settled,
}

impl Standing {
    pub fn name(self) -> &'static str {
        match self {
            Standing::Unsent => "unsent",
            Standing::Unclear => "unclear",
            Standing::Settled => "settled",
        }
    }
}

/// The blocks that are not acknowledged, in the order of delivery, and what kept Kafka from being asked. A settled
/// one is still on the disk, and no longer anybody's concern.
pub fn unacknowledged(plan: &PipelinePlan, store: &dyn StateStore) -> Result<(Vec<Waiting>, Option<Error>)> {
    let (mut blocks, trouble) = waiting(plan, store)?;
    blocks.retain(|block| block.standing != Standing::Settled);
    Ok((blocks, trouble))
}

/// Every block of a pipeline's outbox, in the order of delivery, and what kept Kafka from being asked.
pub fn waiting(plan: &PipelinePlan, store: &dyn StateStore) -> Result<(Vec<Waiting>, Option<Error>)> {
    let ledgers = ledgers(store)?;
    let partitions: Vec<i32> = ledgers.iter().map(|(partition, _)| *partition).collect();
    let (marks, trouble) = match committed(plan, &partitions) {
        Ok(committed) => (committed.iter().map(|offsets| Some(read_mark(offsets))).collect(), None),
        Err(error) => (vec![None; partitions.len()], Some(error)),
    };
    let mut blocks = Vec::new();
    for ((partition, ledger), mark) in ledgers.iter().zip(&marks) {
        for record in &ledger.epochs {
            if record.after.epoch <= ledger.accepted.acknowledged.epoch {
                continue;
            }
            let standing = standing(ledger, record, mark.as_ref().and_then(Option::as_ref));
            blocks.extend(record.outputs.iter().enumerate().map(|(output, of)| Waiting {
                token: of.token.clone(),
                partition: *partition,
                epoch: record.after.epoch.0,
                output: output as u16,
                rows: of.rows,
                bytes: of.body_bytes,
                standing,
            }));
        }
    }
    Ok((blocks, trouble))
}

/// The body of a block, as it would be sent.
pub fn body(store: &dyn StateStore, block: &Waiting) -> Result<Vec<u8>> {
    let gone = || Error::stop("released", format!("the block {} is no longer in the outbox", block.token));
    let ledger = ledger::load(store, block.partition)?.ok_or_else(gone)?;
    let key = key::outbox(ledger.task, crate::types::Epoch(block.epoch), block.output);
    store.get(Table::Outbox, &key)?.ok_or_else(gone)
}

/// Takes a block out of the outbox for good; `store` must be the only one that has the directory. `rows_target`: how
/// the tokens of the sink's rows end.
///
/// # Errors
/// It may be in the table already, and `force` was not given; or it is settled.
pub fn discard(store: &dyn StateStore, block: &Waiting, force: bool, rows_target: &str) -> Result<()> {
    match block.standing {
        Standing::Unsent => {}
        Standing::Unclear if force => {}
        Standing::Unclear => {
            return Err(Error::stop("unclear", unclear(&block.token)));
        }
        Standing::Settled => {
            return Err(Error::stop(
                "settled",
                format!("block {} is settled: the next start drops it, nothing is to be discarded", block.token),
            ));
        }
    }
    let is_of_rows = block.token.ends_with(&format!("/{rows_target}"));
    store.write(&without(store, block, is_of_rows)?)
}

/// Why a block is not discarded without force.
pub fn unclear(token: &str) -> String {
    format!(
        "block {token} may be in the table already: look there for its rows (`weir outbox export` writes them to a \
         file), then give --force (over HTTP `force=true`) to discard it whatever the table has"
    )
}

/// The write that takes one output out of an epoch; those behind it move up.
fn without(store: &dyn StateStore, block: &Waiting, is_of_rows: bool) -> Result<WriteBatch> {
    let gone = || Error::stop("released", format!("the block {} is no longer in the outbox", block.token));
    let mut ledger = ledger::load(store, block.partition)?.ok_or_else(gone)?;
    let record = ledger.epochs.iter().find(|record| record.after.epoch.0 == block.epoch).ok_or_else(gone)?;
    let mut after: EpochRecord = record.clone();
    let outputs = after.outputs.len() as u16;
    if after.outputs.get(block.output as usize).is_none_or(|output| output.token != block.token) {
        return Err(gone());
    }
    after.outputs.remove(block.output as usize);
    let (task, epoch) = (ledger.task, record.after.epoch);
    let at = |output: u16| key::outbox(task, epoch, output);
    let mut batch = WriteBatch::default();
    for output in block.output..outputs - 1 {
        batch.put(Table::Outbox, at(output), store.get(Table::Outbox, &at(output + 1))?.ok_or_else(gone)?);
    }
    batch.delete(Table::Outbox, at(outputs - 1));
    ledger::take_replay_out(epoch, &mut after);
    batch.put(Table::Ledger, key::epoch(task, epoch), encode(&after));
    for later in ledger.epochs.iter_mut().filter(|later| later.after.epoch > epoch) {
        if ledger::take_replay_out(epoch, later) {
            batch.put(Table::Ledger, key::epoch(task, later.after.epoch), encode(later));
        }
    }
    if is_of_rows {
        ledger::count_discarded(store, task, block.rows, &mut batch)?;
    }
    let partition = block.partition as u32;
    let of_epoch =
        |entry: &Replaying| (entry.replayed.epoch, entry.incarnation) == (epoch, ledger.checkpoint.incarnation);
    if let Some(entry) = letters::replaying(store, partition)?.filter(of_epoch) {
        // What was replayed stays a dead letter; another block of the epoch may bring its row all the same.
        let is_unclear = block.standing != Standing::Unsent || !after.outputs.is_empty();
        letters::keep_at_rest(partition, &entry, is_unclear, store, &mut batch)?;
    }
    Ok(batch)
}

/// `mark`: what Kafka has committed; `None` where it could not be asked or has nothing of ours.
fn standing(ledger: &Ledger, record: &EpochRecord, mark: Option<&Mark>) -> Standing {
    let Some(mark) = mark else { return Standing::Unclear };
    let goes_on = ledger.checkpoint.incarnation == mark.incarnation && ledger.holds(mark.acknowledged.link);
    match &mark.pending {
        _ if !goes_on || record.after.epoch <= mark.acknowledged.epoch => Standing::Settled,
        Some(pending) if pending.link == record.after.link => Standing::Unclear,
        // The mark names another next epoch than ours: somebody else went on.
        Some(pending) if !ledger.holds(pending.link) => Standing::Settled,
        _ => Standing::Unsent,
    }
}

fn read_mark(committed: &CommittedOffsets) -> Option<Mark> {
    committed.offsets.first().copied().flatten()?;
    match Mark::from_metadata(&committed.metadata) {
        MarkRead::Mark(mark) => Some(*mark),
        MarkRead::Foreign | MarkRead::Newer(_) | MarkRead::Unreadable => None,
    }
}

fn committed(plan: &PipelinePlan, partitions: &[i32]) -> Result<Vec<CommittedOffsets>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let topics: Vec<String> = plan.topics.iter().map(|topic| topic.name.clone()).collect();
    KafkaGroup::open(MemberOptions {
        kafka: &plan.kafka,
        instance_id: None,
        topics: &topics,
        queued_bytes_per_partition: 1 << 20,
        with_headers: false,
        describe_by_broker: None,
    })?
    .committed(partitions)
}

fn ledgers(store: &dyn StateStore) -> Result<Vec<(i32, Ledger)>> {
    let mut ledgers = Vec::new();
    for partition in ledger::partitions(store)? {
        ledgers.extend(ledger::load(store, partition)?.map(|ledger| (partition, ledger)));
    }
    Ok(ledgers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::recovery::beginning;
    use crate::state::ledger::{Checkpoint, Counts, Cuts, Moment, OutputRecord, Pending, TaskEntry};
    use crate::state::memory::MemoryStore;
    use crate::types::{Epoch, Incarnation, Link, TaskNo};

    const TASK: TaskNo = TaskNo(7);
    /// The first output of each epoch is of rows.
    const TARGET: &str = "0";
    const INCARNATION: Incarnation = Incarnation([9; 16]);

    fn moment(epoch: u64) -> Moment {
        let begun = beginning(INCARNATION, &[epoch as i64 * 10]);
        if epoch == 0 { begun } else { Moment { epoch: Epoch(epoch), link: Link([epoch as u8; 16]), ..begun } }
    }

    fn mark(acknowledged: u64, pending: Option<u64>) -> Mark {
        Mark {
            pipeline: "p".into(),
            incarnation: INCARNATION,
            origin: vec![0],
            plan: 1,
            topics: vec![],
            acknowledged: moment(acknowledged),
            pending: pending.map(|epoch| record(epoch, 1).pending()),
        }
    }

    fn record(epoch: u64, outputs: u16) -> EpochRecord {
        let output = |output| OutputRecord {
            token: format!("weir1/p/0/{epoch}/{output}"),
            header: vec![],
            rows: 5,
            hash: [0; 16],
            body_bytes: 4,
        };
        EpochRecord {
            after: moment(epoch),
            cuts: Cuts::default(),
            flags: 0,
            idle_before: 0,
            outputs: (0..outputs).map(output).collect(),
            replay: vec![],
        }
    }

    /// Accepted up to epoch 1; 2 and 3 wait, the latter with two outputs.
    fn store() -> MemoryStore {
        let store = MemoryStore::default();
        let checkpoint = Checkpoint {
            pipeline: "p".into(),
            partition: 0,
            incarnation: INCARNATION,
            origin: vec![0],
            plan: 1,
            topics: vec![],
            moment: moment(3),
            restoring: false,
            counts: Counts::default(),
        };
        let mut batch = WriteBatch::default();
        batch.put(Table::Ledger, key::partition(0), encode(&TaskEntry { task: TASK, left_ms: 0 }));
        batch.put(Table::Ledger, key::checkpoint(TASK), encode(&checkpoint));
        batch.put(Table::Ledger, key::accepted(TASK), encode(&mark(1, Some(2))));
        for (epoch, outputs) in [(2, 1), (3, 2)] {
            batch.put(Table::Ledger, key::epoch(TASK, Epoch(epoch)), encode(&record(epoch, outputs)));
            for output in 0..outputs {
                batch.put(
                    Table::Outbox,
                    key::outbox(TASK, Epoch(epoch), output),
                    format!("{epoch}{output}").into_bytes(),
                );
            }
        }
        store.write(&batch).unwrap();
        store
    }

    fn block(epoch: u64, output: u16, standing: Standing) -> Waiting {
        let token = format!("weir1/p/0/{epoch}/{output}");
        Waiting { token, partition: 0, epoch, output, rows: 5, bytes: 4, standing }
    }

    #[test]
    fn only_what_the_mark_does_not_name_is_unsent() {
        let ledger = ledger::load(&store(), 0).unwrap().unwrap();
        let of = |epoch: u64, mark: Option<Mark>| standing(&ledger, &record(epoch, 1), mark.as_ref());
        assert_eq!(of(2, Some(mark(1, Some(2)))), Standing::Unclear);
        assert_eq!(of(3, Some(mark(1, Some(2)))), Standing::Unsent);
        assert_eq!(of(2, Some(mark(2, Some(3)))), Standing::Settled);
        assert_eq!(of(2, Some(mark(1, None))), Standing::Unsent);
        assert_eq!(of(3, None), Standing::Unclear);
    }

    #[test]
    fn what_another_instance_went_on_from_is_settled() {
        let ledger = ledger::load(&store(), 0).unwrap().unwrap();
        let elsewhere = Link([0xee; 16]);
        let ahead = Mark { acknowledged: Moment { link: elsewhere, ..moment(2) }, ..mark(2, None) };
        assert_eq!(standing(&ledger, &record(3, 1), Some(&ahead)), Standing::Settled);
        let other = Pending { link: elsewhere, ..record(2, 1).pending() };
        assert_eq!(
            standing(&ledger, &record(2, 1), Some(&Mark { pending: Some(other), ..mark(1, None) })),
            Standing::Settled
        );
    }

    #[test]
    fn an_unclear_block_is_only_discarded_by_force() {
        let store = store();
        let unclear = block(2, 0, Standing::Unclear);
        assert_eq!(discard(&store, &unclear, false, TARGET).unwrap_err().code, "unclear");
        assert_eq!(discard(&store, &block(2, 0, Standing::Settled), true, TARGET).unwrap_err().code, "settled");
        discard(&store, &unclear, true, TARGET).unwrap();
        assert_eq!(body(&store, &unclear).unwrap_err().code, "released");
    }

    #[test]
    fn a_discarded_block_leaves_its_epoch_with_link_and_positions() {
        let store = store();
        discard(&store, &block(2, 0, Standing::Unsent), false, TARGET).unwrap();
        let ledger = ledger::load(&store, 0).unwrap().unwrap();
        assert_eq!(ledger.epochs[0], EpochRecord { outputs: vec![], ..record(2, 1) });
        assert!(ledger.holds(moment(2).link));
    }

    #[test]
    fn letters_whose_replay_is_discarded_stay_and_say_where_the_table_may_have_them() {
        use crate::state::ledger::Replayed;
        use crate::state::letters::{Letter, LetterId, Letters, REPLAY_UNCLEAR};
        for (standing, reason) in [(Standing::Unsent, "type"), (Standing::Unclear, REPLAY_UNCLEAR)] {
            let store = std::sync::Arc::new(store());
            let letters = Letters::open(store.clone(), 1 << 20).unwrap();
            let mut batch = WriteBatch::default();
            letters.put(0, &Letter { reason: "type".into(), ..Letter::default() }, &mut batch).unwrap();
            let replayed = Replayed { epoch: Epoch(2), records: 1 };
            let entry = Replaying { incarnation: INCARNATION, replayed, seqs: vec![0], stays: vec![] };
            letters.put_replay(0, &entry, &mut batch).unwrap();
            store.write(&batch).unwrap();
            discard(&*store, &block(3, 1, Standing::Unsent), false, TARGET).unwrap();
            assert!(letters::replaying(&*store, 0).unwrap().is_some(), "the block of another epoch");
            discard(&*store, &block(2, 0, standing), true, TARGET).unwrap();
            assert!(letters::replaying(&*store, 0).unwrap().is_none());
            let kept = letters::read(&*store, LetterId { partition: 0, seq: 0 }).unwrap().unwrap();
            assert_eq!(kept.reason, reason);
        }
    }

    #[test]
    fn a_replay_whose_block_is_discarded_is_nobodys_any_more_in_this_history() {
        use crate::state::ledger::Replayed;
        let store = store();
        let replayed = Replayed { epoch: Epoch(2), records: 77 };
        let mut batch = WriteBatch::default();
        for (epoch, outputs) in [(2, 1), (3, 2)] {
            let mut replays = record(epoch, outputs);
            replays.after.replayed = Some(replayed);
            batch.put(Table::Ledger, key::epoch(TASK, Epoch(epoch)), encode(&replays));
        }
        store.write(&batch).unwrap();
        let said = || {
            let ledger = ledger::load(&store, 0).unwrap().unwrap();
            ledger.epochs.iter().map(|record| record.after.replayed.unwrap()).collect::<Vec<_>>()
        };
        discard(&store, &block(3, 1, Standing::Unsent), false, TARGET).unwrap();
        assert_eq!(said(), [replayed, replayed], "the block of another epoch");
        discard(&store, &block(2, 0, Standing::Unsent), false, TARGET).unwrap();
        assert!(said().iter().all(|said| said.epoch == Epoch(2) && said.records != replayed.records), "{:?}", said());
    }

    #[test]
    fn rows_that_were_discarded_are_counted_and_letters_are_not() {
        let store = store();
        discard(&store, &block(2, 0, Standing::Unsent), false, TARGET).unwrap();
        discard(&store, &block(3, 1, Standing::Unsent), false, TARGET).unwrap();
        assert_eq!(ledger::discarded_rows(&store, TASK).unwrap(), 5);
        discard(&store, &block(3, 0, Standing::Unsent), false, TARGET).unwrap();
        assert_eq!(ledger::discarded_rows(&store, TASK).unwrap(), 10);
    }

    #[test]
    fn the_outputs_behind_a_discarded_one_move_up_with_their_tokens() {
        let store = store();
        discard(&store, &block(3, 0, Standing::Unsent), false, TARGET).unwrap();
        let ledger = ledger::load(&store, 0).unwrap().unwrap();
        assert_eq!(ledger.epochs[1].outputs, record(3, 2).outputs[1..]);
        let left = Waiting { output: 0, ..block(3, 1, Standing::Unsent) };
        assert_eq!(body(&store, &left).unwrap(), b"31");
        assert_eq!(store.get(Table::Outbox, &key::outbox(TASK, Epoch(3), 1)).unwrap(), None);
    }

    #[test]
    fn an_epoch_whose_block_was_discarded_counts_as_acknowledged_at_the_next_start() {
        use crate::runtime::commit::{CommitLog, History, Patience};
        let store = store();
        discard(&store, &block(2, 0, Standing::Unclear), true, TARGET).unwrap();
        let ledger = ledger::load(&store, 0).unwrap().unwrap();
        let history =
            History { pipeline: "p".into(), incarnation: INCARNATION, origin: vec![0], plan: 1, topics: vec![] };
        let mut log = CommitLog::new(history, TASK, mark(1, Some(2)), ledger.epochs, None, false, Patience::new(6_000));
        assert_eq!(log.acknowledged().epoch, Epoch(2));
        let (_, offered) = log.offer(0, true).unwrap();
        assert_eq!(
            (offered.acknowledged.epoch, offered.pending.map(|pending| pending.link)),
            (Epoch(2), Some(moment(3).link))
        );
    }
}
