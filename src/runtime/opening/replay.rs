//! What a start finds of a replay of dead letters: how the stored one stands, and the records of one that has to be
//! made again.

use super::Opening;
use crate::codec::record::RecordBatch;
use crate::error::Result;
use crate::runtime::recovery::{self, Start};
use crate::runtime::task::{ReplayRecords, ReplayStart};
use crate::source::Group;
use crate::state::ledger::{Ledger, Mark, RecordName, flag};
use crate::state::letters::{self, Letter, LetterId, Replaying};
use std::collections::BTreeMap;

impl Opening {
    pub(super) fn replay_start(
        &self,
        group: &mut dyn Group,
        partition: i32,
        start: &Start,
        mark: &Mark,
        ledger: Option<&Ledger>,
    ) -> Result<ReplayStart> {
        let stored = letters::replaying(&*self.store, partition as u32)?;
        let ending = stored.as_ref().and_then(|stored| recovery::replay_ending(stored, start, ledger));
        let (under_way, ended) = match (stored, ending) {
            (Some(stored), Some(ending)) => {
                tracing::info!(pipeline = self.settings.name, partition, ?ending, "a replay of dead letters has ended");
                (None, Some((stored, ending)))
            }
            (stored, _) => (stored, None),
        };
        let named = start.forced.as_ref().and(mark.pending.as_ref());
        let records = match named.filter(|pending| pending.flags & flag::REPLAY != 0) {
            Some(pending) => self.records_of(group, partition, &pending.replay, under_way.as_ref())?,
            None => ReplayRecords::default(),
        };
        Ok(ReplayStart { under_way, ended, records })
    }

    /// The records from the local letters, or from Kafka where another instance keeps them. Those that are nowhere
    /// are left out.
    fn records_of(
        &self,
        group: &mut dyn Group,
        partition: i32,
        names: &[RecordName],
        under_way: Option<&Replaying>,
    ) -> Result<ReplayRecords> {
        let mut local: BTreeMap<RecordName, Vec<(LetterId, Letter)>> = BTreeMap::new();
        for seq in under_way.iter().flat_map(|entry| entry.seqs.iter().chain(&entry.stays)) {
            let id = LetterId { partition: partition as u32, seq: *seq };
            let Some(letter) = letters::read(&*self.store, id)? else { continue };
            let input = self.settings.topics.iter().position(|(topic, _)| *topic == letter.topic);
            let Some(input) = input else { continue };
            let name = RecordName { input: input as u16, offset: letter.offset };
            local.entry(name).or_default().push((id, letter));
        }
        let mut records = ReplayRecords::default();
        for input in 0..self.settings.topics.len() {
            let of_input: Vec<RecordName> = names.iter().filter(|name| name.input as usize == input).copied().collect();
            let elsewhere: Vec<i64> =
                of_input.iter().filter(|name| !local.contains_key(name)).map(|name| name.offset).collect();
            let mut fetched = RecordBatch::default();
            if !elsewhere.is_empty() {
                group.records_at(input, partition, &elsewhere, &mut fetched)?;
            }
            for name in of_input {
                match local.get(&name) {
                    Some(letters) => records.add(name, &letters[0].1, letters.iter().map(|(id, _)| *id).collect()),
                    None => records.add_fetched(name, &fetched),
                }
            }
        }
        Ok(records)
    }
}
