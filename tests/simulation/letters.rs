//! Dead letters in the directories of the instances: asking for replays as a person would, and what must be true of
//! them in the end.

use crate::records::Content;
use crate::rows::RowId;
use crate::world::{Violation, World, topic};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use weir::state::ledger::flag;
use weir::state::letters::{self, Letter, LetterId, Letters, REPLAY_UNCLEAR};

/// A record by its place: input, partition, offset.
pub type Place = (u16, i32, i64);

impl World {
    /// The letters in the directory of an instance.
    pub fn letters_of(&self, place: usize) -> Vec<(LetterId, Letter)> {
        let letters = Letters::open(self.instances[place].disk.store(), u64::MAX).unwrap();
        letters.page(None, usize::MAX, &Default::default()).unwrap().letters
    }

    /// How many letters there are of each record, over all directories.
    fn letters_by_record(&self) -> BTreeMap<Place, u64> {
        let mut counts = BTreeMap::new();
        for place in 0..self.instances.len() {
            for (_, letter) in self.letters_of(place) {
                *counts.entry(place_of(&letter)).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Asks an instance to replay some of its letters: none that another directory holds as well (two local stores
    /// know nothing of each other), and none of which nobody knows whether it is in the table.
    pub fn ask_to_replay(&mut self, place: usize) {
        if !self.setup.keeps_letters || !self.runs(place) {
            return;
        }
        let everywhere = self.letters_by_record();
        let mut asked: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (id, letter) in self.letters_of(place) {
            if everywhere[&place_of(&letter)] == 1 && letter.reason != REPLAY_UNCLEAR && !self.chance.one_in(3) {
                asked.entry(id.partition).or_default().push(id.seq);
            }
        }
        for (partition, seqs) in asked {
            self.instances[place].process.as_mut().unwrap().replay(partition as i32, seqs);
        }
    }

    /// The table takes from now on what did not fit before.
    pub fn mend_table(&mut self) {
        self.seams.note(|| "the table is mended".into());
        self.is_mended.store(true, Relaxed);
        self.makers.values_mut().for_each(|maker| maker.mend());
    }

    /// Writes down which replays were announced: whatever happens, those come out.
    pub fn watch_replays(&mut self) {
        for partition in 0..self.setup.partitions {
            let Some(pending) = self.mark(partition).and_then(|mark| mark.pending) else { continue };
            let names = pending.replay.iter().filter(|_| pending.flags & flag::REPLAY != 0);
            let places: Vec<Place> = names.map(|name| (name.input, partition, name.offset)).collect();
            let fitting: Vec<Place> = places.into_iter().filter(|place| self.fits(*place)).collect();
            self.announced.extend(fitting);
        }
    }

    /// Whether a replay of this record gives a row now.
    fn fits(&self, (input, partition, offset): Place) -> bool {
        match self.logs[&(input, partition)][offset as usize].content {
            Content::Keyless => true,
            Content::Unfit => self.is_mended.load(Relaxed),
            _ => false,
        }
    }

    /// No running task waits for the end of a replay.
    pub fn replays_are_settled(&self) -> bool {
        self.instances.iter().all(|instance| {
            let partitions = instance.process.iter().flat_map(|process| process.stages()).map(|(id, _)| id.partition);
            let is_open = |partition: i32| letters::replaying(&*instance.disk, partition as u32).unwrap().is_some();
            !partitions.into_iter().any(is_open)
        })
    }

    /// Every record that became a dead letter is one, or is in the table, and never twice there.
    pub fn judge_letters(&self) -> Result<(), Violation> {
        let letters = self.letters_by_record();
        let alone = self.instances.len() == 1 && self.disks_lost == 0;
        for row in self.expected().into_iter().filter(|row| row.is_letter) {
            let place = (row.input, row.partition, row.offset);
            let rows = self.table.rows.get(&RowId { is_letter: false, ..row }).map_or(0, Vec::len) as u64;
            let kept = letters.get(&place).copied().unwrap_or(0);
            let content = self.logs[&(row.input, row.partition)][row.offset as usize].content;
            let fits = self.fits(place);
            let wrong =
                |what: &str| Err(Violation(format!("{row:?} ({content:?}): {rows} rows, {kept} letters: {what}")));
            if rows > 1 || rows == 1 && !fits {
                return wrong("it came too often");
            }
            if rows == 0 && fits && self.announced.contains(&place) {
                return wrong("its replay was announced and never came");
            }
            if alone && rows + kept != 1 {
                return wrong("it has to be in one place");
            }
            if self.disks_lost == 0 && rows + kept == 0 {
                return wrong("it is lost");
            }
        }
        Ok(())
    }

    /// Rows that came by a replay.
    pub fn replayed_rows(&self) -> BTreeSet<RowId> {
        let letters = self.expected().into_iter().filter(|row| row.is_letter);
        letters.map(|row| RowId { is_letter: false, ..row }).filter(|row| self.table.rows.contains_key(row)).collect()
    }
}

fn place_of(letter: &Letter) -> Place {
    let input = (0..).find(|input| topic(*input) == letter.topic).unwrap();
    (input, letter.partition as i32, letter.offset)
}
