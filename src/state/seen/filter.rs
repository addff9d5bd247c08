//! A filter in memory for each run: most keys are in none, and for those no chunk is read.
//!
//! Owns a blocked Bloom filter. Promises never to hide a key that was inserted; decides nothing: with any filter,
//! or none, the verdicts are the same. It is not stored: a start makes it anew from the chunks.
//!
//! The upper half of a key names its line, so that ascending keys walk through memory in order. It also lets a
//! merge take the room of its sources, from the front, while the filter of its target grows.

use super::order::share_of;
use super::run::END;

/// The smaller (and younger) a run, the more bits its keys get: there are more of them for each key to pass.
const BITS_OF_LEVEL: [u64; 3] = [20, 16, 12];
/// A filter with fewer bits lets through too much to be worth its memory.
const BITS_MIN: u64 = 4;
/// 16 KiB: what is taken and given back at once.
const SEGMENT_LINES: usize = 256;

/// The filter of one run.
pub(super) struct Filter {
    /// 0: there is no room for a filter, and every key may be in the run.
    lines: usize,
    /// Made as keys come. What was given back is empty.
    segments: Vec<Box<[Line]>>,
    /// Keys whose upper half is not below it may be in the run, for all that is known.
    known_below: u128,
}

/// The bits of a cache line; the probes of a key share one.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line([u64; 8]);

impl Filter {
    /// A filter for a run of this many keys, in at most three quarters of the bytes that are free.
    pub fn new(keys: u64, level: u8, free_bytes: usize) -> Filter {
        let wanted = BITS_OF_LEVEL[(level as usize).min(BITS_OF_LEVEL.len() - 1)];
        let lines_free = (free_bytes / 4 * 3 / size_of::<Line>()) as u64;
        let lines = keys.saturating_mul(wanted).div_ceil(512).min(lines_free);
        let is_worth_it = lines * 512 >= keys.saturating_mul(BITS_MIN);
        Filter { lines: if is_worth_it { lines as usize } else { 0 }, segments: Vec::new(), known_below: END }
    }

    /// Keys whose upper half is below this were all inserted; the others may be missing.
    pub fn knows_below(&mut self, end: u128) {
        self.known_below = end;
    }

    /// Whether there was room for one.
    pub fn is_any(&self) -> bool {
        self.lines > 0
    }

    /// Whether the run can hold this key.
    #[inline]
    pub fn may_hold(&self, probe: &Probe) -> bool {
        if self.lines == 0 || probe.upper as u128 >= self.known_below {
            return true;
        }
        let line = share_of(probe.upper, self.lines as u64);
        let Some(segment) = self.segments.get(line / SEGMENT_LINES) else { return false };
        // What was given back answers yes; nobody should ask.
        let Some(Line(line)) = segment.get(line % SEGMENT_LINES) else { return true };
        let [(first, first_bits), (second, second_bits)] = probe.bits;
        (line[first as usize & 7] & first_bits == first_bits) & (line[second as usize & 7] & second_bits == second_bits)
    }

    #[inline]
    pub fn insert(&mut self, key: u128) {
        if self.lines == 0 {
            return;
        }
        let probe = Probe::of(key);
        let line = share_of(probe.upper, self.lines as u64);
        let segment = line / SEGMENT_LINES;
        while self.segments.len() <= segment {
            let len = (self.lines - self.segments.len() * SEGMENT_LINES).min(SEGMENT_LINES);
            self.segments.push(vec![Line::default(); len].into());
        }
        if let Some(Line(line)) = self.segments[segment].get_mut(line % SEGMENT_LINES) {
            probe.bits.iter().for_each(|&(word, bits)| line[word as usize] |= bits);
        }
    }

    /// Gives back what only serves keys whose upper half is below `end`: nobody asks for them any more.
    pub fn give_back(&mut self, end: u128) {
        let line = (end * self.lines as u128) >> 64;
        for segment in self.segments.iter_mut().take(line as usize / SEGMENT_LINES) {
            *segment = Box::default();
        }
    }

    /// What it takes now.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| size_of_val(&**segment)).sum()
    }

    /// What it takes when it is whole.
    pub fn bytes_whole(&self) -> usize {
        self.lines * size_of::<Line>()
    }
}

/// What all filters look for of a key: three bits in each of two words of the line that its upper half names.
#[derive(Clone, Copy)]
pub(super) struct Probe {
    upper: u64,
    /// Which of eight words, and the bits there.
    bits: [(u8, u64); 2],
}

impl Probe {
    #[inline]
    pub fn of(key: u128) -> Probe {
        let low = key as u64;
        let bits = |from: u32| (0..3).fold(0, |bits, at| bits | 1 << (low >> (from + 6 * at) & 63));
        let first = (low >> 36 & 7) as u8;
        // Another word than the first.
        let second = (first + 1 + (low >> 39) as u8 % 7) & 7;
        Probe { upper: (key >> 64) as u64, bits: [(first, bits(0)), (second, bits(18))] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_128;

    fn key(n: u64) -> u128 {
        xxh3_128(&n.to_be_bytes())
    }

    fn filter(keys: u64, level: u8, free_bytes: usize) -> Filter {
        let mut filter = Filter::new(keys, level, free_bytes);
        (0..keys).for_each(|n| filter.insert(key(n)));
        filter
    }

    fn wrong(filter: &Filter) -> usize {
        (1_000_000..1_100_000).filter(|&n| filter.may_hold(&Probe::of(key(n)))).count()
    }

    #[test]
    fn no_key_is_hidden_and_most_others_are_held_back() {
        for (level, wrong_max) in [(0, 200), (1, 400), (2, 1_200), (9, 1_200)] {
            let filter = filter(60_000, level, 1 << 20);
            assert!((0..60_000).all(|n| filter.may_hold(&Probe::of(key(n)))));
            assert!(wrong(&filter) < wrong_max, "level {level}: {} of 100,000 got through", wrong(&filter));
            assert_eq!(filter.bytes(), filter.bytes_whole());
        }
    }

    #[test]
    fn a_filter_keeps_to_its_room_and_without_any_lets_all_through() {
        let narrow = filter(60_000, 2, 64 << 10);
        assert!(narrow.bytes() <= 48 << 10 && (0..60_000).all(|n| narrow.may_hold(&Probe::of(key(n)))));
        assert!(wrong(&narrow) < 30_000);
        let none = filter(60_000, 2, 8 << 10);
        assert_eq!((none.bytes(), wrong(&none)), (0, 100_000));
    }

    #[test]
    fn what_is_given_back_hides_no_key_above_it() {
        let mut filter = filter(60_000, 0, 1 << 20);
        let end = 1u128 << 63;
        filter.give_back(end);
        assert!(filter.bytes() < filter.bytes_whole() * 6 / 10);
        assert!((0..60_000).all(|n| filter.may_hold(&Probe::of(key(n)))));
        filter.give_back(1 << 64);
        assert!(filter.bytes() <= SEGMENT_LINES * size_of::<Line>());
    }
}
