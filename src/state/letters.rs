//! The local store of dead letters: records that could not be processed, kept until a person looks.
//!
//! Promises that a letter goes in with its epoch's write or not at all, that the bytes kept are counted exactly
//! (anew at each start), and that nothing is ever dropped: a full store is an error. Never reads a clock.
//!
//! ```text
//! dead_letters │ partition u32 │ seq u64      │ → version u8 │ letter (bincode; before version 2 without its topic's id)
//! dead_letters │ partition u32 │ u64::MAX     │ → the next seq, u64: a number is never given twice
//! dead_letters │ partition u32 │ u64::MAX − 1 │ → version u8 │ the replay under way (bincode)
//! ```

mod replay;

pub use replay::{Ended, Ending, REPLAY_UNCLEAR, Replaying, keep_at_rest, replaying};

use super::keys::{letter_key, letter_parts};
use super::{StateStore, Table, WriteBatch};
use crate::error::{Error, Result};
use crate::types::TopicId;
use bincode::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const LETTER_VERSION: u8 = 2;
/// Letters of this one end before their topic's id.
const LETTER_VERSION_WITHOUT_ID: u8 = 1;
/// Where a partition keeps its next number.
const NEXT_SEQ: u64 = u64::MAX;
/// Where a partition keeps the replay that is under way.
const REPLAYING: u64 = u64::MAX - 1;
/// A page looks at this many letters at most; a rare filter gets several pages, empty ones too.
const LOOKED_AT_MAX: usize = 10_000;
/// A page ends when it holds this many bytes: one letter can be as large as a record.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// A record that could not be processed, as it was, and why.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Letter {
    pub topic: String,
    pub partition: u32,
    pub offset: i64,
    /// The record's Kafka timestamp; -1 where it has none.
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub pipeline: String,
    /// The place of the step in the pipeline, `source` where it could not be read, or `sink`.
    pub step: String,
    /// A short stable name.
    pub reason: String,
    /// The sentence a person reads.
    pub message: String,
    /// The epoch's noted wall clock.
    pub noted_ms: i64,
    /// Which topic of that name; all zero where it is not known. The offset says nothing in another one.
    pub topic_id: TopicId,
}

/// The header of a letter whose value is not the record's own, but what a join has kept of it, as a JSON object.
pub const KEPT_FIELDS: &str = "weir_kept_fields";

impl Letter {
    /// Whether its value is what a join has kept of the record; the record itself is in its topic.
    pub fn is_of_kept_fields(&self) -> bool {
        self.headers.iter().any(|(name, _)| name == KEPT_FIELDS)
    }

    /// Whether it came from this topic, and not from one of the same name that was deleted since.
    pub fn is_of(&self, topic: &str, id: TopicId) -> bool {
        let is_known = |id: TopicId| id != TopicId::default();
        self.topic == topic && (self.topic_id == id || !is_known(self.topic_id) || !is_known(id))
    }
}

/// A letter's name: task partition and number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LetterId {
    pub partition: u32,
    pub seq: u64,
}

/// Which letters a page shows: all that meet every condition given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LetterFilter {
    pub reason: Option<String>,
    pub step: Option<String>,
    /// Noted at or after this.
    pub from_ms: Option<i64>,
    /// Noted before this.
    pub to_ms: Option<i64>,
}

impl LetterFilter {
    fn takes(&self, letter: &Letter) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        is(&self.reason, &letter.reason)
            && is(&self.step, &letter.step)
            && self.from_ms.is_none_or(|from_ms| letter.noted_ms >= from_ms)
            && self.to_ms.is_none_or(|to_ms| letter.noted_ms < to_ms)
    }
}

/// Some letters, in the order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    pub letters: Vec<(LetterId, Letter)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<LetterId>,
}

/// The letters of one pipeline; shared by its workers and the API.
pub struct Letters {
    store: Arc<dyn StateStore>,
    bytes_max: u64,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    /// Keys and values of all letters that are stored or on their way.
    bytes: u64,
    letters: u64,
    next_seq: BTreeMap<u32, u64>,
    /// Letters whose replay is stored and not settled: nobody deletes or replays them meanwhile.
    replaying: BTreeSet<LetterId>,
}

impl Letters {
    /// Counts what is stored.
    pub fn open(store: Arc<dyn StateStore>, bytes_max: u64) -> Result<Letters> {
        let mut books = Books::default();
        visit_all(&*store, LetterId { partition: 0, seq: 0 }, &mut |id, value| {
            books.take_stock(id, value);
            true
        })?;
        Ok(Letters { store, bytes_max, books: Mutex::new(books) })
    }

    /// Adds a letter of this task partition to the epoch's write. It counts from now on: a write that is not made ends
    /// the pipeline's run, and the next one counts anew.
    pub fn put(&self, partition: u32, letter: &Letter, into: &mut WriteBatch) -> Result<LetterId> {
        let value = letter.encoded()?;
        let mut books = self.books();
        let seq = books.next_seq.get(&partition).copied().unwrap_or(0);
        let id = LetterId { partition, seq };
        let bytes = letter_bytes(&value);
        if books.bytes + bytes > self.bytes_max {
            return Err(self.full(&books, bytes));
        }
        books.bytes += bytes;
        books.letters += 1;
        books.next_seq.insert(partition, seq + 1);
        into.put(Table::DeadLetters, letter_key(partition, seq), value);
        into.put(Table::DeadLetters, letter_key(partition, NEXT_SEQ), (seq + 1).to_be_bytes());
        Ok(id)
    }

    /// Letters from `from` on (`None`: the first) that meet `filter`, at most `letters_max`. A page can be empty
    /// and have a next one.
    pub fn page(&self, from: Option<LetterId>, letters_max: usize, filter: &LetterFilter) -> Result<Page> {
        let from = from.unwrap_or(LetterId { partition: 0, seq: 0 });
        let (mut page, mut looked_at, mut bytes, mut broken) = (Page::default(), 0, 0, None);
        visit_all(&*self.store, from, &mut |id, value| {
            if id.seq >= REPLAYING {
                return true;
            }
            if looked_at == LOOKED_AT_MAX || page.letters.len() >= letters_max || bytes >= PAGE_BYTES_MAX {
                page.next = Some(id);
                return false;
            }
            looked_at += 1;
            match decode(id, value) {
                Ok(letter) if filter.takes(&letter) => {
                    bytes += value.len();
                    page.letters.push((id, letter));
                }
                Ok(_) => {}
                Err(error) => broken = Some(error),
            }
            broken.is_none()
        })?;
        broken.map_or(Ok(page), Err)
    }

    pub fn get(&self, id: LetterId) -> Result<Option<Letter>> {
        read(&*self.store, id)
    }

    /// Deletes letters now, those aside that are being replayed; answers how many there were.
    pub fn delete(&self, ids: &[LetterId]) -> Result<u64> {
        let mut batch = WriteBatch::default();
        // Looking and deleting are one: two who delete the same letter must not both count it.
        let mut books = self.books();
        let ids: Vec<LetterId> = ids.iter().filter(|id| !books.replaying.contains(id)).copied().collect();
        let found = self.find(&ids, &mut batch)?;
        self.store.write(&batch)?;
        found.iter().for_each(|&bytes| books.drop_one(bytes));
        Ok(found.len() as u64)
    }

    /// Bytes of all letters, those on their way to the disk included.
    pub fn bytes(&self) -> u64 {
        self.books().bytes
    }

    /// How many letters there are, those on their way to the disk included.
    pub fn len(&self) -> u64 {
        self.books().letters
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the deletion of those that are there to a write; answers their bytes.
    fn find(&self, ids: &[LetterId], into: &mut WriteBatch) -> Result<Vec<u64>> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let mut found = Vec::new();
        for id in ids {
            if let Some(value) = self.value(id)? {
                found.push(letter_bytes(&value));
                into.delete(Table::DeadLetters, letter_key(id.partition, id.seq));
            }
        }
        Ok(found)
    }

    fn value(&self, id: LetterId) -> Result<Option<Vec<u8>>> {
        value(&*self.store, id)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn full(&self, books: &Books, bytes: u64) -> Error {
        let message = format!(
            "the dead-letter store is full: {} letters take {} of {} bytes, and the next one needs {bytes}; \
             replay or delete some, or raise dead_letters.local.bytes",
            books.letters, books.bytes, self.bytes_max
        );
        Error::stop("letters_full", message)
    }
}

impl Books {
    fn take_stock(&mut self, id: LetterId, value: &[u8]) {
        let next = self.next_seq.entry(id.partition).or_insert(0);
        if id.seq == NEXT_SEQ {
            let stored = value.try_into().map_or(0, u64::from_be_bytes);
            *next = stored.max(*next);
            return;
        }
        if id.seq == REPLAYING {
            self.replaying.extend(replay::ids(id.partition, value));
            return;
        }
        *next = (id.seq + 1).max(*next);
        self.bytes += letter_bytes(value);
        self.letters += 1;
    }

    fn drop_one(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.letters -= 1;
    }
}

/// A letter as it is stored.
pub fn read(store: &dyn StateStore, id: LetterId) -> Result<Option<Letter>> {
    value(store, id)?.map(|value| decode(id, &value)).transpose()
}

fn value(store: &dyn StateStore, id: LetterId) -> Result<Option<Vec<u8>>> {
    if id.seq >= REPLAYING {
        return Ok(None);
    }
    store.get(Table::DeadLetters, &letter_key(id.partition, id.seq))
}

fn letter_bytes(value: &[u8]) -> u64 {
    (super::keys::LETTER_KEY_LEN + value.len()) as u64
}

fn visit_all(store: &dyn StateStore, from: LetterId, visit: &mut dyn FnMut(LetterId, &[u8]) -> bool) -> Result<()> {
    let end = [u8::MAX; 16];
    store.scan(Table::DeadLetters, &letter_key(from.partition, from.seq), &end, &mut |key, value| {
        letter_parts(key).is_none_or(|(partition, seq)| visit(LetterId { partition, seq }, value))
    })
}

impl Letter {
    fn encoded(&self) -> Result<Vec<u8>> {
        encoded(LETTER_VERSION, self)
    }
}

/// Version byte and bincode.
fn encoded<T: Encode>(version: u8, value: &T) -> Result<Vec<u8>> {
    let mut bytes = vec![version];
    bincode::encode_into_std_write(value, &mut bytes, bincode::config::standard())
        .map_err(|error| Error::stop("letter", format!("a dead letter cannot be written down: {error}")))?;
    Ok(bytes)
}

/// `None` for what `encoded` did not write.
fn decoded<T: Decode<()>>(body: &[u8]) -> Option<T> {
    bincode::decode_from_slice(body, bincode::config::standard()).ok().map(|(read, _)| read)
}

fn decode(id: LetterId, value: &[u8]) -> Result<Letter> {
    let letter = match value {
        [LETTER_VERSION, body @ ..] => decoded(body),
        [LETTER_VERSION_WITHOUT_ID, body @ ..] => decoded(&[body, &TopicId::default().0].concat()),
        _ => None,
    };
    letter.ok_or_else(|| {
        let LetterId { partition, seq } = id;
        let message = format!("dead letter {partition}-{seq} is damaged or was written by a newer weir");
        Error::stop("corrupt", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::memory::MemoryStore;

    fn letter(offset: i64, reason: &str) -> Letter {
        Letter {
            topic: "orders".into(),
            partition: 3,
            offset,
            timestamp_ms: 7,
            key: Some(b"k".to_vec()),
            value: None,
            headers: vec![("h".into(), None), ("h".into(), Some(vec![0, 255]))],
            pipeline: "p".into(),
            step: "dedup".into(),
            reason: reason.into(),
            message: "why".into(),
            noted_ms: offset * 10,
            topic_id: TopicId([7; 16]),
        }
    }

    fn put(letters: &Letters, store: &MemoryStore, partition: u32, letter: &Letter) -> LetterId {
        let mut batch = WriteBatch::default();
        let id = letters.put(partition, letter, &mut batch).unwrap();
        store.write(&batch).unwrap();
        id
    }

    fn open(store: &Arc<MemoryStore>, bytes_max: u64) -> Letters {
        Letters::open(store.clone(), bytes_max).unwrap()
    }

    #[test]
    fn a_letter_comes_back_as_it_went_in() {
        let store = Arc::new(MemoryStore::new());
        let letters = open(&store, 1 << 20);
        let id = put(&letters, &store, 3, &letter(5, "missing_key"));
        assert_eq!(letters.get(id).unwrap(), Some(letter(5, "missing_key")));
        assert_eq!(letters.get(LetterId { partition: 3, seq: 9 }).unwrap(), None);
    }

    #[test]
    fn the_books_are_the_same_after_a_restart() {
        let store = Arc::new(MemoryStore::new());
        let letters = open(&store, 1 << 20);
        let first = put(&letters, &store, 3, &letter(5, "late"));
        put(&letters, &store, 4, &letter(6, "late"));
        assert_eq!(letters.delete(&[first, first]).unwrap(), 1);
        let again = open(&store, 1 << 20);
        assert_eq!((again.bytes(), again.len()), (letters.bytes(), 1));
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let store = Arc::new(MemoryStore::new());
        let letters = open(&store, 1 << 20);
        let first = put(&letters, &store, 3, &letter(5, "late"));
        letters.delete(&[first]).unwrap();
        assert_ne!(put(&open(&store, 1 << 20), &store, 3, &letter(6, "late")), first);
    }

    #[test]
    fn a_full_store_is_an_error_and_takes_letters_again_after_a_delete() {
        let store = Arc::new(MemoryStore::new());
        let letters = open(&store, 80);
        let first = put(&letters, &store, 3, &letter(5, "late"));
        let full = letters.put(3, &letter(6, "late"), &mut WriteBatch::default()).unwrap_err();
        assert_eq!(full.code, "letters_full");
        letters.delete(&[first]).unwrap();
        put(&letters, &store, 3, &letter(6, "late"));
    }

    #[test]
    fn a_letter_of_before_the_topic_ids_can_be_read() {
        let store = Arc::new(MemoryStore::new());
        let letters = open(&store, 1 << 20);
        let id = put(&letters, &store, 3, &letter(5, "late"));
        let stored = store.get(Table::DeadLetters, &letter_key(3, id.seq)).unwrap().unwrap();
        let mut batch = WriteBatch::default();
        let without_id = [&[LETTER_VERSION_WITHOUT_ID], &stored[1..stored.len() - 16]].concat();
        batch.put(Table::DeadLetters, letter_key(3, id.seq), without_id);
        store.write(&batch).unwrap();
        let expected = Letter { topic_id: TopicId::default(), ..letter(5, "late") };
        assert_eq!(letters.get(id).unwrap(), Some(expected));
    }

    #[test]
    fn a_letter_is_of_its_topic_and_not_of_a_later_one_of_that_name() {
        let (own, other, unknown) = (TopicId([7; 16]), TopicId([8; 16]), TopicId::default());
        let letter = letter(5, "late");
        assert!(letter.is_of("orders", own) && letter.is_of("orders", unknown));
        assert!(!letter.is_of("orders", other) && !letter.is_of("others", own));
        assert!(Letter { topic_id: unknown, ..letter }.is_of("orders", other));
    }

    #[test]
    fn pages_follow_one_another_and_hold_what_the_filter_takes() {
        let store = Arc::new(MemoryStore::new());
        let letters = open(&store, 1 << 20);
        for offset in 0..50 {
            let reason = if offset % 2 == 0 { "late" } else { "missing_key" };
            put(&letters, &store, offset as u32 % 3, &letter(offset, reason));
        }
        let filter = LetterFilter { reason: Some("late".into()), from_ms: Some(100), ..Default::default() };
        let (mut from, mut offsets) = (None, Vec::new());
        loop {
            let page = letters.page(from, 4, &filter).unwrap();
            assert!(page.letters.len() <= 4);
            offsets.extend(page.letters.iter().map(|(_, letter)| letter.offset));
            let Some(next) = page.next else { break };
            from = Some(next);
        }
        offsets.sort_unstable();
        assert_eq!(offsets, (10..50).step_by(2).collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_letter_is_an_error_that_names_it() {
        let store = Arc::new(MemoryStore::new());
        let mut batch = WriteBatch::default();
        batch.put(Table::DeadLetters, letter_key(2, 8), *b"\x09rest");
        store.write(&batch).unwrap();
        let letters = open(&store, 1 << 20);
        let error = letters.get(LetterId { partition: 2, seq: 8 }).unwrap_err();
        assert!(error.code == "corrupt" && error.message.contains("2-8"));
    }
}
