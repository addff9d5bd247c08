//! The dead letters of a task's open epoch, on their way to the local store or into a block of their own.
//!
//! Owns them until the epoch is sealed; then they are part of its write batch, or a block under a token. Promises:
//! none is dropped; a full local store is an error with that sentence; a letter that is replayed and fails again
//! stays where it is, with its new reason.

use crate::codec::record::{Record, RecordBatch};
use crate::codec::rows::{BadRow, RowMeta};
use crate::error::Result;
use crate::runtime::chain::SealAt;
use crate::sink::Block;
use crate::state::WriteBatch;
use crate::state::ledger::RecordName;
use crate::state::letters::{self, Letter, LetterId, Letters};
use crate::types::TopicId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Turns letters into a block for a table or a topic.
pub trait LetterBlocks: Send {
    /// `<database>/<table>` or the topic, as the token names it.
    fn target(&self) -> &str;

    fn encode(&mut self, letters: &[Letter]) -> Block;

    /// Whether it can hold this one; what it cannot goes to the local store.
    fn takes(&self, letter: &Letter) -> bool {
        let _ = letter;
        true
    }
}

/// Where a pipeline's dead letters go.
pub enum LetterTarget {
    Local(Arc<Letters>),
    /// A table or a topic, and the store for what is too large for it.
    Blocks(Box<dyn LetterBlocks>, Arc<Letters>),
}

pub struct EpochLetters {
    pipeline: String,
    topics: Vec<String>,
    /// Known when the task begins.
    topic_ids: Vec<TopicId>,
    partition: i32,
    target: LetterTarget,
    letters: Vec<Letter>,
    bytes: usize,
    /// Whose letters the open epoch has, by input and offset: behind a join, several rows may be of one record.
    named: BTreeSet<(usize, i64)>,
    /// In a replay epoch: the local letters of its records, by topic and offset.
    replays: Option<BTreeMap<(String, i64), Vec<LetterId>>>,
    /// Those of them that failed again.
    stays: Vec<LetterId>,
}

impl EpochLetters {
    pub fn new(pipeline: String, topics: Vec<String>, partition: i32, target: LetterTarget) -> EpochLetters {
        let topic_ids = vec![TopicId::default(); topics.len()];
        EpochLetters {
            pipeline,
            topics,
            topic_ids,
            partition,
            target,
            letters: vec![],
            bytes: 0,
            named: BTreeSet::new(),
            replays: None,
            stays: vec![],
        }
    }

    /// Which topics these are, as the task knows them: a letter says so, for its offset means nothing in another one.
    pub fn set_topic_ids(&mut self, topics: &[(String, TopicId)]) {
        for (name, id) in self.topics.iter().zip(&mut self.topic_ids) {
            *id = topics.iter().find(|(known, _)| known == name).map(|(_, id)| *id).unwrap_or_default();
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The local store: where letters go, or what no table or topic can take.
    pub fn store(&self) -> &Arc<Letters> {
        match &self.target {
            LetterTarget::Local(store) | LetterTarget::Blocks(_, store) => store,
        }
    }

    /// The open epoch replays these letters of the local store: each record, by input and offset, with its letters.
    /// Where a record has none here, another instance keeps its letter.
    pub fn begin_replay(&mut self, letters: &BTreeMap<RecordName, Vec<LetterId>>) {
        let named = letters.iter().map(|(name, ids)| ((self.topics[name.input as usize].clone(), name.offset), ids));
        self.replays = Some(named.map(|(record, ids)| (record, ids.clone())).collect());
    }

    /// After the seal of a replay epoch: the letters that go when it counts, and those that failed again.
    pub fn take_replayed(&mut self) -> (Vec<LetterId>, Vec<LetterId>) {
        let mut gone: Vec<LetterId> = self.replays.take().unwrap_or_default().into_values().flatten().collect();
        gone.sort_unstable();
        (gone, std::mem::take(&mut self.stays))
    }

    /// Writes down a record that cannot be processed, as it came; false if the epoch has its letter already.
    pub fn add(&mut self, input: usize, record: &Record, arena: &[u8], step: &str, bad: &BadRow) -> bool {
        if !self.named.insert((input, record.offset)) {
            return false;
        }
        let bytes = |span: crate::types::Span| arena[span.range()].to_vec();
        let letter = Letter {
            pipeline: self.pipeline.clone(),
            step: step.to_owned(),
            reason: bad.reason.to_owned(),
            message: bad.message.clone(),
            topic: self.topics[input].clone(),
            partition: self.partition as u32,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(bytes),
            value: record.value.map(bytes),
            headers: headers(record, arena),
            noted_ms: 0,
            topic_id: self.topic_ids[input],
        };
        self.bytes +=
            std::mem::size_of::<Letter>() + (record.value.map_or(0, |value| value.len) + record.headers.len) as usize;
        self.letters.push(letter);
        true
    }

    /// Writes down a row whose record is not here any more: where that lies, and the fields that are known of it.
    pub fn add_known(&mut self, meta: &RowMeta, known: &[u8], step: &str, bad: &BadRow) -> bool {
        if !self.named.insert((meta.input as usize, meta.offset)) {
            return false;
        }
        let letter = Letter {
            pipeline: self.pipeline.clone(),
            step: step.to_owned(),
            reason: bad.reason.to_owned(),
            message: bad.message.clone(),
            topic: self.topics[meta.input as usize].clone(),
            partition: self.partition as u32,
            offset: meta.offset,
            timestamp_ms: meta.timestamp_ms,
            key: None,
            value: Some(known.to_vec()),
            headers: vec![(letters::KEPT_FIELDS.to_owned(), None)],
            noted_ms: 0,
            topic_id: self.topic_ids[meta.input as usize],
        };
        self.bytes += std::mem::size_of::<Letter>() + known.len();
        self.letters.push(letter);
        true
    }

    /// Ends the epoch: into the write batch, or as a block with its target.
    pub fn seal(&mut self, at: &SealAt, batch: &mut WriteBatch) -> Result<Option<(String, Block)>> {
        self.bytes = 0;
        self.named.clear();
        let mut letters = std::mem::take(&mut self.letters);
        if letters.is_empty() {
            return Ok(None);
        }
        letters.iter_mut().for_each(|letter| letter.noted_ms = at.note_ms);
        // They came step by step within each pass; the block must not depend on where passes were cut.
        letters.sort_by(|a, b| (&a.topic, a.offset).cmp(&(&b.topic, b.offset)));
        let (taken, local) = match &mut self.target {
            LetterTarget::Local(_) => (vec![], letters),
            LetterTarget::Blocks(blocks, _) => letters.into_iter().partition(|letter| blocks.takes(letter)),
        };
        local.iter().try_for_each(|letter| self.keep(letter, batch))?;
        let LetterTarget::Blocks(blocks, _) = &mut self.target else { return Ok(None) };
        Ok((!taken.is_empty()).then(|| (blocks.target().to_owned(), blocks.encode(&taken))))
    }

    /// Into the local store; one that was replayed stays there under its name.
    fn keep(&mut self, letter: &Letter, batch: &mut WriteBatch) -> Result<()> {
        let store = self.store().clone();
        let Some(replays) = &mut self.replays else {
            return store.put(letter.partition, letter, batch).map(|_| ());
        };
        let known = replays.remove(&(letter.topic.clone(), letter.offset)).unwrap_or_default();
        known.iter().try_for_each(|&id| store.rewrite(id, letter, batch))?;
        self.stays.extend(known);
        Ok(())
    }
}

fn headers(record: &Record, arena: &[u8]) -> Vec<(String, Option<Vec<u8>>)> {
    let walk = RecordBatch::headers_in(&arena[record.headers.range()]);
    walk.map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.map(<[u8]>::to_vec))).collect()
}
