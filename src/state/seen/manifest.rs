//! The manifest: which runs a table has, in what order they are asked, and how far their merges have come.
//!
//! Owns its layout and what must hold in it. One stored value per task and step, written with every change.
//!
//! ```text
//! format u8 │ bincode
//! ```

use super::run::Run;
use crate::error::{Error, Result};
use bincode::{Decode, Encode};

const FORMAT: u8 = 1;

/// The runs of a table.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub(super) struct Manifest {
    /// The number of the next run.
    pub next_run: u64,
    /// The first journal that no run holds yet.
    pub first_journal: u64,
    /// The newest first: of a key, the first run that holds it has the whole truth.
    pub runs: Vec<Run>,
    pub merges: Vec<Merge>,
    /// Runs that nobody reads any more. Their chunks go with the next change, not with this one: whoever still
    /// reads by the manifest before finds them, whenever this one is written.
    pub dropped: Vec<u64>,
}

/// Runs on their way into one.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Merge {
    /// Neighbours in the manifest, the newest first.
    pub sources: Vec<u64>,
    /// Its `keys` count what it has so far.
    pub target: Run,
    /// Chunks of the target that are done: their keys are looked for there, all others in the sources.
    pub cursor: u32,
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bincode::encode_into_std_write(self, &mut bytes, bincode::config::standard()).expect("a Vec takes all bytes");
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        match bytes.split_first() {
            Some((&FORMAT, body)) => match bincode::decode_from_slice::<Manifest, _>(body, bincode::config::standard())
            {
                Ok((manifest, read)) if read == body.len() && manifest.is_sound() => Ok(manifest),
                _ => Err(unreadable()),
            },
            Some((&format, _)) if format > FORMAT => Err(Error::stop(
                "newer",
                format!(
                    "the dedup state was written by a newer weir (format {format}, this one reads up to {FORMAT}); \
                     run that version"
                ),
            )),
            _ => Err(unreadable()),
        }
    }

    pub fn draw_run(&mut self) -> u64 {
        self.next_run += 1;
        self.next_run - 1
    }

    pub fn place_of(&self, number: u64) -> Option<usize> {
        self.runs.iter().position(|run| run.number == number)
    }

    /// The merge that a run goes into.
    pub fn merge_from(&self, number: u64) -> Option<&Merge> {
        self.merges.iter().find(|merge| merge.sources.contains(&number))
    }

    /// The newest time in the runs from this place on; nothing is older than they are.
    pub fn newest_ms_from(&self, place: usize) -> i64 {
        self.runs[place..].iter().map(|run| run.newest_ms).max().unwrap_or(i64::MIN)
    }

    /// All runs, those in the making included.
    pub fn all(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().chain(self.merges.iter().map(|merge| &merge.target))
    }

    /// Takes a run out; its chunks go with the next change.
    pub fn drop_run(&mut self, number: u64) {
        self.runs.retain(|run| run.number != number);
        self.dropped.push(number);
    }

    /// The sources of a merge give way to its target, or to nothing where it has no keys.
    pub fn end_merge(&mut self, at: usize) {
        let Merge { sources, target, .. } = self.merges.remove(at);
        let place = sources.first().and_then(|&source| self.place_of(source)).expect("a merge has its sources");
        sources.into_iter().for_each(|source| self.drop_run(source));
        match target.keys {
            0 => self.dropped.push(target.number),
            _ => self.runs.insert(place, target),
        }
    }

    fn is_sound(&self) -> bool {
        let are_neighbours = |sources: &[u64]| {
            let first = sources.first().and_then(|&source| self.place_of(source));
            let runs = first.and_then(|first| self.runs.get(first..first + sources.len()));
            runs.is_some_and(|runs| runs.iter().map(|run| run.number).eq(sources.iter().copied()))
        };
        self.all().all(|run| run.chunks > 0 && run.number < self.next_run)
            && self.merges.iter().all(|merge| merge.cursor < merge.target.chunks && are_neighbours(&merge.sources))
    }
}

pub(super) fn unreadable() -> Error {
    Error::stop(
        "corrupt",
        "the list of runs of the dedup state is missing or cannot be read; the state directory is damaged: \
         set it aside, Kafka still has the records",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u64, keys: u64) -> Run {
        Run { number, level: 0, chunks: 3, keys, first_ms: -5, newest_ms: number as i64 }
    }

    fn manifest(target_keys: u64) -> Manifest {
        Manifest {
            next_run: 9,
            first_journal: 4,
            runs: vec![run(7, 1), run(5, 2), run(4, 3), run(2, 4)],
            merges: vec![Merge { sources: vec![5, 4], target: run(8, target_keys), cursor: 2 }],
            dropped: vec![1],
        }
    }

    fn numbers(manifest: &Manifest) -> Vec<u64> {
        manifest.runs.iter().map(|run| run.number).collect()
    }

    #[test]
    fn a_manifest_comes_back_as_it_went_in() {
        assert_eq!(Manifest::decode(&manifest(6).encode()).unwrap(), manifest(6));
        assert_eq!(Manifest::decode(&Manifest::default().encode()).unwrap(), Manifest::default());
    }

    #[test]
    fn a_damaged_or_newer_manifest_is_refused_with_a_sentence() {
        let whole = manifest(6).encode();
        let cut = Manifest::decode(&whole[..whole.len() - 1]).unwrap_err();
        assert_eq!(cut.code, "corrupt");
        assert!(cut.to_string().contains("damaged"), "{cut}");
        let newer = [&[FORMAT + 1], &whole[1..]].concat();
        assert_eq!(Manifest::decode(&newer).unwrap_err().code, "newer");
        assert_eq!(Manifest::decode(&[]).unwrap_err().code, "corrupt");
        let parted = Manifest { runs: vec![run(5, 2), run(7, 1), run(4, 3)], ..manifest(6) };
        assert_eq!(Manifest::decode(&parted.encode()).unwrap_err().code, "corrupt");
        let done = Manifest { merges: vec![Merge { cursor: 3, ..manifest(6).merges[0].clone() }], ..manifest(6) };
        assert_eq!(Manifest::decode(&done.encode()).unwrap_err().code, "corrupt");
    }

    #[test]
    fn the_target_of_a_merge_takes_the_place_of_its_sources() {
        let mut full = manifest(6);
        full.end_merge(0);
        assert_eq!((numbers(&full), full.dropped), (vec![7, 8, 2], vec![1, 5, 4]));
        let mut empty = manifest(0);
        empty.end_merge(0);
        assert_eq!((numbers(&empty), empty.dropped), (vec![7, 2], vec![1, 5, 4, 8]));
    }
}
