//! Letters on their way back: which of a partition are being replayed, until Kafka has accepted their epoch.
//!
//! Owns the entry that names them. Promises: it goes in with the epoch's write, and out with the write that deletes
//! the letters, leaves them, or says that nobody knows; between the two nobody else touches them. Decides nothing.

use super::{Letter, LetterId, Letters, REPLAYING, decoded, encoded, letter_bytes, read};
use crate::error::{Error, Result};
use crate::state::keys::letter_key;
use crate::state::ledger::Replayed;
use crate::state::{StateStore, Table, WriteBatch};
use crate::types::Incarnation;
use bincode::{Decode, Encode};

const VERSION: u8 = 1;

/// A replay that is stored: the letters that go when its epoch counts.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Replaying {
    pub incarnation: Incarnation,
    pub replayed: Replayed,
    /// The numbers of those that go, ascending.
    pub seqs: Vec<u64>,
    /// Of those that failed again: they stay whatever happens, and are needed if the epoch has to be made again.
    pub stays: Vec<u64>,
}

/// What becomes of the letters of a replay that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It counts: they go.
    Gone,
    /// It never happened: they are dead letters as before.
    Kept,
    /// Nobody can know: they stay, and say so.
    Unclear,
}

/// The reason of a letter whose replay may have been delivered.
pub const REPLAY_UNCLEAR: &str = "replay_unclear";

/// A replay that ends with a write; [`Letters::ended`] follows when it is made.
#[must_use = "the books are right only after `Letters::ended`"]
#[derive(Debug)]
pub struct Ended {
    ids: Vec<LetterId>,
    /// Bytes of each letter that goes.
    gone: Vec<u64>,
}

impl Ended {
    /// How many letters go.
    pub fn gone(&self) -> u64 {
        self.gone.len() as u64
    }
}

/// The replay of a partition that is under way on the disk.
pub fn replaying(store: &dyn StateStore, partition: u32) -> Result<Option<Replaying>> {
    let Some(value) = store.get(Table::DeadLetters, &letter_key(partition, REPLAYING))? else { return Ok(None) };
    let damaged = || {
        let message = format!("the replay under way of partition {partition} is damaged or of a newer weir");
        Error::stop("corrupt", message)
    };
    read_entry(&value).map(Some).ok_or_else(damaged)
}

/// The letters that an entry names; none for one that cannot be read (its task's start says so).
pub(super) fn ids(partition: u32, value: &[u8]) -> Vec<LetterId> {
    read_entry(value).map(|entry| ids_of(partition, &entry)).unwrap_or_default()
}

fn read_entry(value: &[u8]) -> Option<Replaying> {
    let [VERSION, body @ ..] = value else { return None };
    decoded(body)
}

fn ids_of(partition: u32, entry: &Replaying) -> Vec<LetterId> {
    entry.seqs.iter().chain(&entry.stays).map(|&seq| LetterId { partition, seq }).collect()
}

impl Letters {
    /// What is known on the disk about this partition's replay is what counts from now on: a task begins.
    pub fn take_up_replay(&self, partition: u32, entry: Option<&Replaying>) {
        let mut books = self.books();
        books.replaying.retain(|id| id.partition != partition);
        books.replaying.extend(entry.into_iter().flat_map(|entry| ids_of(partition, entry)));
    }

    /// Whether this letter's replay is under way.
    pub fn is_replaying(&self, id: LetterId) -> bool {
        self.books().replaying.contains(&id)
    }

    /// A letter for a replay that begins; nobody else touches it from now on. `None` for one that is not there, or
    /// that a replay has already.
    pub fn claim(&self, id: LetterId) -> Result<Option<Letter>> {
        // Looking and claiming are one: a letter that is deleted must not come into the table, nor the other way.
        let mut books = self.books();
        if books.replaying.contains(&id) {
            return Ok(None);
        }
        let letter = self.get(id)?;
        if letter.is_some() {
            books.replaying.insert(id);
        }
        Ok(letter)
    }

    /// A letter that was claimed and is not replayed after all.
    pub fn unclaim(&self, id: LetterId) {
        self.books().replaying.remove(&id);
    }

    /// Adds to an epoch's write that it replays these letters: of all that were claimed, only they stay so.
    pub fn put_replay(&self, partition: u32, entry: &Replaying, into: &mut WriteBatch) -> Result<()> {
        into.put(Table::DeadLetters, letter_key(partition, REPLAYING), encoded(VERSION, entry)?);
        self.take_up_replay(partition, Some(entry));
        Ok(())
    }

    /// Adds to an epoch's write what is wrong with a letter now; it keeps its name. It takes the room that it needs:
    /// a full store must not keep anybody from emptying it.
    pub fn rewrite(&self, id: LetterId, letter: &Letter, into: &mut WriteBatch) -> Result<()> {
        let value = letter.encoded()?;
        // One that is deleted meanwhile must not come back uncounted.
        let mut books = self.books();
        let Some(before) = self.value(id)? else { return Ok(()) };
        books.bytes = books.bytes - letter_bytes(&before) + letter_bytes(&value);
        into.put(Table::DeadLetters, letter_key(id.partition, id.seq), value);
        Ok(())
    }

    /// Adds to a write how a replay ended.
    pub fn end_replay(
        &self,
        partition: u32,
        entry: &Replaying,
        ending: Ending,
        into: &mut WriteBatch,
    ) -> Result<Ended> {
        into.delete(Table::DeadLetters, letter_key(partition, REPLAYING));
        let going: Vec<LetterId> = entry.seqs.iter().map(|&seq| LetterId { partition, seq }).collect();
        let mut gone = Vec::new();
        match ending {
            Ending::Gone => gone = self.find(&going, into)?,
            Ending::Kept => {}
            Ending::Unclear => going.iter().try_for_each(|&id| self.doubt(id, into))?,
        }
        Ok(Ended { ids: ids_of(partition, entry), gone })
    }

    /// The write with that ending was made.
    pub fn ended(&self, ended: Ended) {
        let mut books = self.books();
        ended.ids.iter().for_each(|id| _ = books.replaying.remove(id));
        ended.gone.into_iter().for_each(|bytes| books.drop_one(bytes));
    }

    fn doubt(&self, id: LetterId, into: &mut WriteBatch) -> Result<()> {
        let Some(letter) = doubtful(&*self.store, id)? else { return Ok(()) };
        self.rewrite(id, &letter, into)
    }
}

/// Adds to a write that the letters of a replay stay, where nobody counts them: the pipeline does not run.
pub fn keep_at_rest(
    partition: u32,
    entry: &Replaying,
    is_unclear: bool,
    store: &dyn StateStore,
    into: &mut WriteBatch,
) -> Result<()> {
    into.delete(Table::DeadLetters, letter_key(partition, REPLAYING));
    for &seq in entry.seqs.iter().filter(|_| is_unclear) {
        if let Some(letter) = doubtful(store, LetterId { partition, seq })? {
            into.put(Table::DeadLetters, letter_key(partition, seq), letter.encoded()?);
        }
    }
    Ok(())
}

/// The letter that says where to look; `None` where it does already, or is not there.
fn doubtful(store: &dyn StateStore, id: LetterId) -> Result<Option<Letter>> {
    let letter = read(store, id)?.filter(|letter| letter.reason != REPLAY_UNCLEAR);
    Ok(letter.map(|mut letter| {
        letter.message = format!(
            "a replay of this record may be in the table already: look there for `{}` {} at offset {}, then delete \
             the letter, or replay it by its name. It was set aside because: {}",
            letter.topic, letter.partition, letter.offset, letter.message
        );
        letter.reason = REPLAY_UNCLEAR.to_owned();
        letter
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::memory::MemoryStore;
    use crate::types::Epoch;
    use std::sync::Arc;

    const PARTITION: u32 = 3;

    fn entry(seqs: &[u64]) -> Replaying {
        let replayed = Replayed { epoch: Epoch(7), records: 9 };
        Replaying { incarnation: Incarnation([1; 16]), replayed, seqs: seqs.to_vec(), stays: vec![] }
    }

    /// A store with two letters, and the replay of the first one under way.
    fn under_way() -> (Arc<MemoryStore>, Letters) {
        let store = Arc::new(MemoryStore::new());
        let letters = Letters::open(store.clone(), 1 << 20).unwrap();
        let mut batch = WriteBatch::default();
        for offset in 0..2 {
            let letter = Letter { offset, reason: "type".into(), message: "no number".into(), ..Letter::default() };
            letters.put(PARTITION, &letter, &mut batch).unwrap();
        }
        letters.put_replay(PARTITION, &entry(&[0]), &mut batch).unwrap();
        store.write(&batch).unwrap();
        (store, letters)
    }

    fn id(seq: u64) -> LetterId {
        LetterId { partition: PARTITION, seq }
    }

    fn end(store: &Arc<MemoryStore>, letters: &Letters, ending: Ending) {
        let mut batch = WriteBatch::default();
        let ended = letters.end_replay(PARTITION, &entry(&[0]), ending, &mut batch).unwrap();
        store.write(&batch).unwrap();
        letters.ended(ended);
        let again = Letters::open(store.clone(), 1 << 20).unwrap();
        assert_eq!((again.bytes(), again.len()), (letters.bytes(), letters.len()), "the books");
        assert!(replaying(&**store, PARTITION).unwrap().is_none() && !letters.is_replaying(id(0)));
    }

    #[test]
    fn a_letter_that_is_being_replayed_cannot_be_deleted_also_after_a_restart() {
        let (store, letters) = under_way();
        for letters in [&letters, &Letters::open(store.clone(), 1 << 20).unwrap()] {
            assert!(letters.is_replaying(id(0)) && !letters.is_replaying(id(1)));
            assert_eq!(letters.delete(&[id(0)]).unwrap(), 0);
            assert!(letters.get(id(0)).unwrap().is_some());
        }
        assert_eq!(replaying(&*store, PARTITION).unwrap(), Some(entry(&[0])));
        assert_eq!(letters.page(None, 10, &Default::default()).unwrap().letters.len(), 2);
    }

    #[test]
    fn a_letter_is_claimed_once_and_cannot_be_deleted_before_the_seal_either() {
        let (_, letters) = under_way();
        let claimed = letters.claim(id(1)).unwrap().unwrap();
        assert_eq!(letters.delete(&[id(0), id(1)]).unwrap(), 0);
        assert_eq!(letters.claim(id(1)).unwrap(), None, "by the replay that has it");
        letters.unclaim(id(1));
        assert_eq!(letters.delete(&[id(1)]).unwrap(), 1);
        assert_eq!(letters.claim(id(1)).unwrap(), None, "it is deleted");
        let (bytes, mut batch) = (letters.bytes(), WriteBatch::default());
        letters.rewrite(id(1), &claimed, &mut batch).unwrap();
        assert_eq!((batch.changes.len(), letters.bytes()), (0, bytes), "it does not come back");
    }

    #[test]
    fn what_was_claimed_beside_a_sealed_replay_is_free_again() {
        let (_, letters) = under_way();
        letters.claim(id(1)).unwrap().unwrap();
        letters.put_replay(PARTITION, &entry(&[0]), &mut WriteBatch::default()).unwrap();
        assert!(letters.is_replaying(id(0)) && !letters.is_replaying(id(1)));
    }

    #[test]
    fn letters_replayed_go_with_the_write_that_says_so() {
        let (store, letters) = under_way();
        end(&store, &letters, Ending::Gone);
        assert!(letters.get(id(0)).unwrap().is_none() && letters.get(id(1)).unwrap().is_some());
    }

    #[test]
    fn letters_of_a_replay_that_never_happened_are_as_before() {
        let (store, letters) = under_way();
        end(&store, &letters, Ending::Kept);
        assert_eq!(letters.get(id(0)).unwrap().unwrap().reason, "type");
        assert_eq!(letters.delete(&[id(0)]).unwrap(), 1);
    }

    #[test]
    fn a_letter_whose_replay_is_unclear_says_where_to_look() {
        let (store, letters) = under_way();
        end(&store, &letters, Ending::Unclear);
        let letter = letters.get(id(0)).unwrap().unwrap();
        assert_eq!(letter.reason, REPLAY_UNCLEAR);
        assert!(letter.message.contains("at offset 0") && letter.message.ends_with("no number"), "{}", letter.message);
    }
}
