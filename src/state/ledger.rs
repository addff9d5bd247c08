//! What a task knows about its own past: checkpoint, accepted mark, unreleased epochs, identity.
//!
//! Owns the `ledger` and `outbox` keys. Promises: what is read back is what was written, or an error says which
//! of it is unreadable or of a newer format. Never decides anything (`runtime/recovery.rs` does).
//!
//! ```text
//! ledger │ 'i'                         │ → Identity
//! ledger │ 'n'                         │ → u32 BE, the next task number
//! ledger │ 'g'                         │ → PartitionsSeen (how many the first topic had)
//! ledger │ 'p' │ partition u32         │ → TaskEntry (which number the partition's state has)
//! ledger │ 'r' │ task u32              │ → () a task number set aside, its keys wait to be deleted
//! ledger │ 't' │ task u32 │ 'c'        │ → Checkpoint
//! ledger │ 't' │ task u32 │ 'a'        │ → Mark, as last accepted
//! ledger │ 't' │ task u32 │ 'd'        │ → u64, rows of blocks that were taken out of the outbox by hand
//! ledger │ 't' │ task u32 │ 'e' │ epoch u64 │ → EpochRecord
//! outbox │ task u32 │ epoch u64 │ output u16 │ → the block's body
//! ```
//! Every value begins with a format byte; numbers in keys are big-endian.

use super::{StateStore, Table, WriteBatch};
use crate::error::{Error, Result};
use crate::types::{Epoch, Incarnation, Link, TaskNo, TopicId};
use bincode::{Decode, Encode};

/// The format this version writes and reads. With any other the pipeline stops with that sentence (`newer`, `older`).
pub const FORMAT: u8 = 4;

/// More than any record takes: damaged bytes that name a longer one are refused before memory is asked for.
const RECORD_BYTES_MAX: usize = 1 << 30;

/// One input of a task: how far it was read and the highest time it pushed the watermark with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Progress {
    /// Next offset to read.
    pub position: i64,
    /// `i64::MIN` before the first record.
    pub high_ms: i64,
}

/// Where a task stands after an epoch.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Moment {
    pub epoch: Epoch,
    pub link: Link,
    pub inputs: Vec<Progress>,
    /// `i64::MIN` before the first record.
    pub watermark_ms: i64,
    /// Inputs set aside, one bit each.
    pub idle: u64,
    /// The wall clock at the epoch's first fetch.
    pub note_ms: i64,
    /// Positions at the last closing of windows.
    pub closed: Option<Vec<i64>>,
    /// The last epoch of this history that replayed dead letters.
    pub replayed: Option<Replayed>,
}

/// A replay epoch of a history: by it a directory that was left behind learns whether its own replay counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Replayed {
    pub epoch: Epoch,
    /// Hash of the records it names, see [`names_hash`].
    pub records: u64,
}

impl Replayed {
    /// What a history says after a block of the replay was taken out by hand: whoever keeps its letters finds that not
    /// they were delivered, and keeps them.
    pub fn taken_out(self) -> Replayed {
        Replayed { records: 0, ..self }
    }
}

/// A record that a replay epoch names: which input of the task, and its offset there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct RecordName {
    pub input: u16,
    pub offset: i64,
}

/// A hash of records by topic and offset: the same whatever place the topics have in a plan.
pub fn names_hash(topics: &[(String, TopicId)], names: &[RecordName]) -> u64 {
    let mut named: Vec<(&str, i64)> =
        names.iter().filter_map(|name| Some((topics.get(name.input as usize)?.0.as_str(), name.offset))).collect();
    named.sort_unstable();
    xxhash_rust::xxh3::xxh3_64(&bincode::encode_to_vec(named, bincode::config::standard()).expect("plain data encodes"))
}

impl Moment {
    /// Whether an epoch ended here, so that its times are what they were; else nobody has read up to here yet.
    pub fn has_times(&self) -> bool {
        self.epoch > Epoch(0) || self.watermark_ms != i64::MIN
    }

    pub fn positions(&self) -> Vec<i64> {
        self.inputs.iter().map(|input| input.position).collect()
    }
}

/// Flags of an epoch that are no records.
pub mod flag {
    /// Everything that waited in windows came out.
    pub const CLOSED: u8 = 1;
    /// Dead letters were replayed.
    pub const REPLAY: u8 = 2;
}

/// The next epoch, announced before its first insert. Its number is the acknowledged one's plus one.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Pending {
    pub link: Link,
    pub positions: Vec<i64>,
    /// Where its passes cut, see [`Cuts`].
    pub cuts: Cuts,
    pub watermark_ms: i64,
    pub note_ms: i64,
    /// Inputs that were idle at its start.
    pub idle: u64,
    pub flags: u8,
    /// Hash of the column lists of its blocks.
    pub columns: u64,
    /// The records of a replay epoch, ascending; it has no ranges.
    pub replay: Vec<RecordName>,
}

impl Pending {
    /// Leaves out of each pass what lies outside of the logs (first offset, end). `from`: where the epoch began.
    pub fn cut_to(&mut self, from: &[i64], logs: &[(i64, i64)]) {
        let inside = |topic: usize, offset: i64| offset.clamp(logs[topic].0, logs[topic].1.max(logs[topic].0));
        let mut behind = from.to_vec();
        for pass in self.cuts.0.chunks_mut(from.len().max(1)) {
            for (topic, (advance, behind)) in pass.iter_mut().zip(&mut behind).enumerate() {
                let (begins, ends) = (*behind, *behind + *advance as i64);
                *advance = (inside(topic, ends) - inside(topic, begins)) as u64;
                *behind = ends;
            }
        }
        for (topic, position) in self.positions.iter_mut().enumerate() {
            *position = inside(topic, *position);
        }
    }
}

/// How far each input went in each pass: offsets advanced, pass after pass, one number per input. Empty for a
/// task with one input, whose result does not depend on its passes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Cuts(pub Vec<u64>);

impl Cuts {
    /// How many bytes of a mark they take.
    pub fn mark_bytes(&self) -> usize {
        self.0.iter().map(|cut| number_bytes(*cut)).sum()
    }
}

/// What a task commits to Kafka beside its offsets.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Mark {
    pub pipeline: String,
    pub incarnation: Incarnation,
    /// The positions where this incarnation's state began empty.
    pub origin: Vec<i64>,
    /// Hash of the parts of the plan that state depends on.
    pub plan: u64,
    pub topics: Vec<(String, TopicId)>,
    pub acknowledged: Moment,
    pub pending: Option<Pending>,
}

/// What the metadata of a committed offset turned out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MarkRead {
    /// No metadata, or not one of ours: somebody else committed.
    Foreign,
    /// Written by a newer weir.
    Newer(u8),
    /// Written by an older weir, or damaged: what it announced is not known.
    Unreadable,
    Mark(Box<Mark>),
}

/// The most characters of metadata a broker takes by default (`offset.metadata.max.bytes`).
pub const MARK_CHARS_MAX: usize = 4096;

/// The bytes behind so many characters of base64.
const MARK_BYTES_MAX: usize = MARK_CHARS_MAX / 4 * 3;

/// The most bytes that a number takes (bincode: one that says how many follow).
pub const NUMBER_BYTES_MAX: usize = 9;

/// The most bytes that a record's name takes: there are fewer than 251 inputs.
pub const RECORD_NAME_BYTES_MAX: usize = 1 + NUMBER_BYTES_MAX;

/// How many bytes of cuts, or of names of replayed records, a mark of this pipeline takes beside all else, whatever
/// numbers that comes to hold; `None` where that alone is too much.
pub fn mark_room<'t>(pipeline: &str, topics: impl IntoIterator<Item = &'t str>) -> Option<usize> {
    let topics: Vec<_> = topics.into_iter().map(|topic| (topic.to_owned(), TopicId([0xff; 16]))).collect();
    let positions = vec![i64::MAX; topics.len()];
    let largest = Mark {
        pipeline: pipeline.to_owned(),
        incarnation: Incarnation::default(),
        origin: positions.clone(),
        plan: u64::MAX,
        acknowledged: Moment {
            epoch: Epoch(u64::MAX),
            link: Link::default(),
            inputs: vec![Progress { position: i64::MAX, high_ms: i64::MIN }; topics.len()],
            watermark_ms: i64::MIN,
            idle: u64::MAX,
            note_ms: i64::MAX,
            closed: Some(positions.clone()),
            replayed: Some(Replayed { epoch: Epoch(u64::MAX), records: u64::MAX }),
        },
        topics,
        pending: Some(Pending {
            link: Link::default(),
            positions,
            cuts: Cuts::default(),
            watermark_ms: i64::MIN,
            note_ms: i64::MAX,
            idle: u64::MAX,
            flags: u8::MAX,
            columns: u64::MAX,
            replay: vec![],
        }),
    };
    // The number of cuts takes two bytes more than that of none.
    MARK_BYTES_MAX.checked_sub(encode(&largest).len() + 2)
}

/// The least room that a task with so many inputs can work with: one pass, or one replayed record.
pub fn mark_room_least(inputs: usize) -> usize {
    (NUMBER_BYTES_MAX * inputs).max(RECORD_NAME_BYTES_MAX)
}

fn number_bytes(number: u64) -> usize {
    match number {
        0..251 => 1,
        251..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => NUMBER_BYTES_MAX,
    }
}

impl Mark {
    /// The acknowledged position of a topic, by its name: a plan may list others, or in another order.
    pub fn position_of(&self, topic: &str) -> Option<i64> {
        let index = self.topics.iter().position(|(known, _)| known == topic)?;
        self.acknowledged.inputs.get(index).map(|input| input.position)
    }

    /// As committed: base64 of format byte and bincode.
    pub fn to_metadata(&self) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(encode(self))
    }

    /// Reads committed metadata.
    pub fn from_metadata(metadata: &str) -> MarkRead {
        use base64::Engine as _;
        let Ok(bytes) = base64::engine::general_purpose::STANDARD_NO_PAD.decode(metadata) else {
            return MarkRead::Foreign;
        };
        match bytes.first() {
            Some(&newer) if newer > FORMAT && newer < 32 => MarkRead::Newer(newer),
            Some(1..=FORMAT) => decode(&bytes).map_or(MarkRead::Unreadable, |mark| MarkRead::Mark(Box::new(mark))),
            _ => MarkRead::Foreign,
        }
    }
}

/// What a task's steps did since its state began (`GET …/ledger`): records, each as often as it has sides to go to, =
/// tombstones + broken + rows of the first step and of right sides.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Counts {
    pub records: u64,
    /// How often a record went to a further side.
    pub again: u64,
    pub tombstones: u64,
    pub broken: u64,
    /// In the written order; behind them those of right sides, join by join.
    pub steps: Vec<StepCounts>,
    /// Rows of right sides.
    pub right_rows: u64,
    /// Rows that did not fit the table.
    pub unfit: u64,
    /// Rows of blocks, acknowledged or not.
    pub written: u64,
}

/// Rows in = out + dropped + unjudged + dead letters, per step. Of a join only left rows come in: in = decided + dead letters +
/// waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct StepCounts {
    pub rows_in: u64,
    pub rows_out: u64,
    /// Duplicates, filtered, or dropped, by the kind of step.
    pub dropped: u64,
    /// What a dedup dropped and did not judge: without a key, or late.
    pub unjudged: u64,
    pub dead_letters: u64,
    pub late: u64,
    /// Pairs of a join, and rows that it has sent alone.
    pub matched: u64,
    pub unmatched: u64,
    /// Left rows of a join that met somebody, and those of which it is known whether they do.
    pub left_matched: u64,
    pub left_decided: u64,
    /// Left rows of which it is not known yet: a state, not a sum.
    pub waiting: u64,
}

impl StepCounts {
    /// Adds what was done since.
    pub fn add(&mut self, more: &StepCounts) {
        self.rows_in += more.rows_in;
        self.rows_out += more.rows_out;
        self.dropped += more.dropped;
        self.unjudged += more.unjudged;
        self.dead_letters += more.dead_letters;
        self.late += more.late;
        self.matched += more.matched;
        self.unmatched += more.unmatched;
        self.left_matched += more.left_matched;
        self.left_decided += more.left_decided;
    }
}

/// The state's own description of itself, written with every epoch.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Checkpoint {
    pub pipeline: String,
    pub partition: i32,
    pub incarnation: Incarnation,
    pub origin: Vec<i64>,
    pub plan: u64,
    pub topics: Vec<(String, TopicId)>,
    pub moment: Moment,
    /// The state is being re-read and is not whole: it never continues.
    pub restoring: bool,
    pub counts: Counts,
}

/// A stored epoch whose release was not accepted yet.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct EpochRecord {
    pub after: Moment,
    pub cuts: Cuts,
    pub flags: u8,
    /// Inputs that were idle at its start.
    pub idle_before: u64,
    pub outputs: Vec<OutputRecord>,
    /// The records of a replay epoch, ascending; it has no ranges.
    pub replay: Vec<RecordName>,
}

impl EpochRecord {
    /// As the mark announces it.
    pub fn pending(&self) -> Pending {
        Pending {
            link: self.after.link,
            positions: self.after.positions(),
            cuts: self.cuts.clone(),
            watermark_ms: self.after.watermark_ms,
            note_ms: self.after.note_ms,
            idle: self.idle_before,
            flags: self.flags,
            columns: columns_hash(&self.outputs),
            replay: self.replay.clone(),
        }
    }
}

/// One block of an epoch, its body apart.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct OutputRecord {
    pub token: String,
    /// Column names and types as sent.
    pub header: Vec<(String, String)>,
    pub rows: u64,
    pub hash: [u8; 16],
    pub body_bytes: u64,
}

fn columns_hash(outputs: &[OutputRecord]) -> u64 {
    let headers: Vec<_> = outputs.iter().map(|output| &output.header).collect();
    xxhash_rust::xxh3::xxh3_64(
        &bincode::encode_to_vec(headers, bincode::config::standard()).expect("plain data encodes"),
    )
}

/// What the state directory is: made once.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Identity {
    pub pipeline: String,
    /// The static member's `group.instance.id`.
    pub instance_id: String,
    /// The secret behind key hashes.
    pub seed: [u8; 16],
}

/// Which task number holds a partition's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct TaskEntry {
    pub task: TaskNo,
    /// When the partition left this process, by the wall clock; 0 while it is here.
    pub left_ms: i64,
}

/// All that is known of a task, as read at its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ledger {
    pub task: TaskNo,
    pub checkpoint: Checkpoint,
    pub accepted: Mark,
    /// Ascending by epoch, the last one is the checkpoint's.
    pub epochs: Vec<EpochRecord>,
}

impl Ledger {
    /// Whether this history contains the link: at the accepted epoch or at a later one.
    pub fn holds(&self, link: Link) -> bool {
        self.accepted.acknowledged.link == link || self.epochs.iter().any(|epoch| epoch.after.link == link)
    }
}

/// Format byte and bincode.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    bincode::encode_into_std_write(value, &mut bytes, bincode::config::standard()).expect("a Vec takes all bytes");
    bytes
}

/// Reads what `encode` wrote; the error says whether it is newer or unreadable.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T> {
    let Some((&format, body)) = bytes.split_first() else {
        return Err(Error::stop("corrupt", "a stored value is empty"));
    };
    if format > FORMAT {
        return Err(Error::stop(
            "newer",
            format!("the state was written by a newer weir (format {format}, this one reads up to {FORMAT})"),
        ));
    }
    if format < FORMAT {
        return Err(Error::stop(
            "older",
            format!(
                "the state was written by an older weir (format {format}, this one reads {FORMAT}): run that version, \
                 or set the state directory aside and start from Kafka"
            ),
        ));
    }
    match bincode::decode_from_slice(body, bincode::config::standard().with_limit::<RECORD_BYTES_MAX>()) {
        Ok((value, read)) if read == body.len() => Ok(value),
        Ok(_) => Err(Error::stop("corrupt", "a stored value has bytes left over")),
        Err(error) => Err(Error::stop("corrupt", format!("a stored value cannot be read: {error}"))),
    }
}

/// The keys of the two tables.
pub mod key {
    use super::{Epoch, TaskNo};

    pub const IDENTITY: &[u8] = b"i";
    pub const NEXT_TASK: &[u8] = b"n";
    pub const PARTITIONS_SEEN: &[u8] = b"g";

    pub fn partition(partition: i32) -> Vec<u8> {
        [b"p".as_slice(), &(partition as u32).to_be_bytes()].concat()
    }

    pub fn retired(task: TaskNo) -> Vec<u8> {
        [b"r".as_slice(), &task.0.to_be_bytes()].concat()
    }

    pub fn checkpoint(task: TaskNo) -> Vec<u8> {
        [b"t".as_slice(), &task.0.to_be_bytes(), b"c"].concat()
    }

    pub fn accepted(task: TaskNo) -> Vec<u8> {
        [b"t".as_slice(), &task.0.to_be_bytes(), b"a"].concat()
    }

    pub fn discarded(task: TaskNo) -> Vec<u8> {
        [b"t".as_slice(), &task.0.to_be_bytes(), b"d"].concat()
    }

    pub fn epoch(task: TaskNo, epoch: Epoch) -> Vec<u8> {
        [b"t".as_slice(), &task.0.to_be_bytes(), b"e", &epoch.0.to_be_bytes()].concat()
    }

    /// All of a task's ledger keys: `from .. to`.
    pub fn task_range(task: TaskNo) -> (Vec<u8>, Vec<u8>) {
        let from = [b"t".as_slice(), &task.0.to_be_bytes()].concat();
        (from.clone(), [from, vec![0xff]].concat())
    }

    pub fn outbox(task: TaskNo, epoch: Epoch, output: u16) -> Vec<u8> {
        [task.0.to_be_bytes().as_slice(), &epoch.0.to_be_bytes(), &output.to_be_bytes()].concat()
    }
}

/// Reads the directory's identity, or makes and writes one.
pub fn identity(store: &dyn StateStore, pipeline: &str, random: impl FnOnce() -> [u8; 32]) -> Result<Identity> {
    if let Some(bytes) = store.get(Table::Ledger, key::IDENTITY)? {
        return decode(&bytes);
    }
    let random = random();
    let hex: String = random[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let identity = Identity {
        pipeline: pipeline.to_owned(),
        instance_id: format!("weir-{hex}"),
        seed: random[16..].try_into().expect("half of 32 bytes is 16"),
    };
    let mut batch = WriteBatch::default();
    batch.put(Table::Ledger, key::IDENTITY, encode(&identity));
    store.write(&batch)?;
    Ok(identity)
}

/// How many partitions the first topic had when this directory last began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PartitionsSeen {
    pub topic: TopicId,
    pub partitions: i32,
}

/// What was noted; `None` in a new directory.
pub fn partitions_seen(store: &dyn StateStore) -> Result<Option<PartitionsSeen>> {
    store.get(Table::Ledger, key::PARTITIONS_SEEN)?.map(|bytes| decode(&bytes)).transpose()
}

pub fn note_partitions(store: &dyn StateStore, seen: PartitionsSeen) -> Result<()> {
    let mut batch = WriteBatch::default();
    batch.put(Table::Ledger, key::PARTITIONS_SEEN, encode(&seen));
    store.write(&batch)
}

/// The partitions of which there is a ledger, ascending.
pub fn partitions(store: &dyn StateStore) -> Result<Vec<i32>> {
    let mut partitions = Vec::new();
    store.scan(Table::Ledger, b"p", b"q", &mut |key, _| {
        if let Ok(number) = key[1..].try_into() {
            partitions.push(u32::from_be_bytes(number) as i32);
        }
        true
    })?;
    Ok(partitions)
}

/// Reads a partition's ledger; `None` when there is none.
pub fn load(store: &dyn StateStore, partition: i32) -> Result<Option<Ledger>> {
    let Some(entry) = store.get(Table::Ledger, &key::partition(partition))? else {
        return Ok(None);
    };
    let entry: TaskEntry = decode(&entry)?;
    let task = entry.task;
    let read = |key: Vec<u8>, what: &str| {
        store
            .get(Table::Ledger, &key)?
            .ok_or_else(|| Error::stop("corrupt", format!("the {what} of partition {partition} is missing")))
    };
    let checkpoint = decode(&read(key::checkpoint(task), "checkpoint")?)?;
    let accepted = decode(&read(key::accepted(task), "accepted mark")?)?;
    let mut epochs = Vec::new();
    let mut failed = None;
    let (from, to) = (key::epoch(task, Epoch(0)), key::epoch(task, Epoch(u64::MAX)));
    store.scan(Table::Ledger, &from, &to, &mut |_, value| match decode(value) {
        Ok(epoch) => {
            epochs.push(epoch);
            true
        }
        Err(error) => {
            failed = Some(error);
            false
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(Some(Ledger { task, checkpoint, accepted, epochs })),
    }
}

/// Rows of blocks that were taken out of the outbox by hand since the task's state began.
pub fn discarded_rows(store: &dyn StateStore, task: TaskNo) -> Result<u64> {
    store.get(Table::Ledger, &key::discarded(task))?.map_or(Ok(0), |bytes| decode(&bytes))
}

/// Adds to `batch` that so many more rows were taken out. One caller at a time per task.
pub fn count_discarded(store: &dyn StateStore, task: TaskNo, rows: u64, batch: &mut WriteBatch) -> Result<()> {
    let rows = discarded_rows(store, task)? + rows;
    batch.put(Table::Ledger, key::discarded(task), encode(&rows));
    Ok(())
}

/// After a block of epoch `of` was taken out: what this record, of that epoch or a later one, says of it if it was a
/// replay. True when it says something else now.
pub fn take_replay_out(of: Epoch, record: &mut EpochRecord) -> bool {
    let named = record.after.replayed.filter(|last| last.epoch == of);
    record.after.replayed = named.map(Replayed::taken_out).or(record.after.replayed);
    named.is_some()
}

/// Draws a task number and adds to `batch` that it is taken. One caller at a time per store.
pub fn draw_task(store: &dyn StateStore, batch: &mut WriteBatch) -> Result<TaskNo> {
    let next = match store.get(Table::Ledger, key::NEXT_TASK)? {
        None => 1,
        Some(bytes) => {
            u32::from_be_bytes(bytes.try_into().map_err(|_| Error::stop("corrupt", "the task counter cannot be read"))?)
        }
    };
    batch.put(Table::Ledger, key::NEXT_TASK, (next + 1).to_be_bytes());
    Ok(TaskNo(next))
}

/// Adds to `batch` that a task's state is set aside: its number is retired, `clear_retired` deletes its keys later.
pub fn retire(task: TaskNo, batch: &mut WriteBatch) {
    batch.put(Table::Ledger, key::retired(task), []);
}

/// Retires the tasks of partitions that left this process before `oldest_ms`.
pub fn retire_left(store: &dyn StateStore, oldest_ms: i64) -> Result<()> {
    let mut batch = WriteBatch::default();
    store.scan(Table::Ledger, b"p", b"q", &mut |key, value| {
        if let Ok(entry) = decode::<TaskEntry>(value)
            && entry.left_ms > 0
            && entry.left_ms < oldest_ms
        {
            batch.delete(Table::Ledger, key);
            retire(entry.task, &mut batch);
        }
        true
    })?;
    if batch.is_empty() { Ok(()) } else { store.write(&batch) }
}

/// The task numbers that were set aside and whose keys may still be there.
pub fn retired(store: &dyn StateStore) -> Result<Vec<TaskNo>> {
    let mut tasks = Vec::new();
    store.scan(Table::Ledger, b"r", b"s", &mut |key, _| {
        if let Ok(number) = key[1..].try_into() {
            tasks.push(TaskNo(u32::from_be_bytes(number)));
        }
        true
    })?;
    Ok(tasks)
}

/// Deletes the keys of retired tasks.
pub fn clear_retired(store: &dyn StateStore) -> Result<()> {
    for task in retired(store)? {
        let mut batch = WriteBatch::default();
        let (from, to) = key::task_range(task);
        batch.delete_range(Table::Ledger, from, to);
        let (from, to) = (task.0.to_be_bytes(), (task.0 + 1).to_be_bytes());
        batch.delete_range(Table::Outbox, from, to);
        batch.delete_range(Table::Seen, from, to);
        batch.delete_range(Table::Buffer, from, to);
        batch.delete(Table::Ledger, key::retired(task));
        store.write(&batch)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
