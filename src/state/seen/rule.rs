//! What is remembered of a key, and what it says about the next record: one rule per `keep`.
//!
//! Owns the values of `seen`. Promises the definitions of `keep`, `window` and `renew` to the millisecond, from
//! nothing but the record's time and the watermark. Never looks anything up, never reads a clock.
//!
//! ```text
//! keep: first   │ accepted_at_ms i64 │ …      every accepted time that can still matter, ascending
//! keep: latest  │ passed_at_ms i64 │
//! keep: changes │ passed_at_ms i64 │ content hash 16 │ 1 │      the odd length tells it from three times
//! ```

use super::{Candidate, Verdict};

const TIME_LEN: usize = 8;
const CONTENT_LEN: usize = TIME_LEN + 16 + 1;

/// What a rule says about one record.
pub(super) struct Outcome {
    pub verdict: Verdict,
    /// Whether what is remembered of the key is another now.
    pub changed: bool,
}

impl Outcome {
    fn unchanged(verdict: Verdict) -> Outcome {
        Outcome { verdict, changed: false }
    }

    fn passed() -> Outcome {
        Outcome { verdict: Verdict::Pass, changed: true }
    }
}

/// One meaning of `keep`.
pub(super) trait Rule {
    /// What is remembered of a key.
    type Known: Clone;

    /// Whether a newer state of a key never has an earlier newest time than an older one that still matters. Where
    /// it may, a newer state must not be left out as passed while an older one could come to light again.
    const TIMES_ONLY_RISE: bool;

    fn judge(&self, known: &mut Option<Self::Known>, row: &Candidate) -> Outcome;

    fn encode(known: &Self::Known, into: &mut Vec<u8>);

    /// How many bytes `encode` appends.
    fn encoded_len(known: &Self::Known) -> usize;

    /// The newest of its times: when the watermark has passed it by a window, nothing of it matters.
    fn newest_ms(known: &Self::Known) -> i64;

    /// `None` for what this rule never wrote.
    fn decode(value: &[u8]) -> Option<Self::Known>;

    /// Bytes behind `known` that its own size does not show.
    fn heap_bytes(_known: &Self::Known) -> usize {
        0
    }
}

/// How long a time matters; `None` is forever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window(pub Option<i64>);

impl Window {
    /// The watermark has passed `time_ms` + window.
    fn is_passed(self, time_ms: i64, watermark_ms: i64) -> bool {
        self.0.is_some_and(|window_ms| time_ms.saturating_add(window_ms) < watermark_ms)
    }

    /// The watermark has reached `time_ms` + window.
    fn is_reached(self, time_ms: i64, watermark_ms: i64) -> bool {
        self.0.is_some_and(|window_ms| time_ms.saturating_add(window_ms) <= watermark_ms)
    }

    /// The two times are less than a window apart.
    fn holds(self, a_ms: i64, b_ms: i64) -> bool {
        self.0.is_none_or(|window_ms| (a_ms.abs_diff(b_ms) as i128) < window_ms as i128)
    }
}

/// The newest of the times in a value, whichever rule wrote it; `None` for what no rule wrote.
pub(super) fn newest_ms(value: &[u8]) -> Option<i64> {
    if value.len() == CONTENT_LEN {
        return value.first_chunk().map(|time| i64::from_be_bytes(*time));
    }
    // Ascending.
    if !value.len().is_multiple_of(TIME_LEN) {
        return None;
    }
    value.last_chunk().map(|time| i64::from_be_bytes(*time))
}

/// The accepted times of a key, ascending. Nearly always one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Times {
    One(i64),
    Many(Box<[i64]>),
}

impl Times {
    fn as_slice(&self) -> &[i64] {
        match self {
            Times::One(time_ms) => std::slice::from_ref(time_ms),
            Times::Many(times_ms) => times_ms,
        }
    }

    fn from_unsorted(mut times_ms: Vec<i64>) -> Times {
        times_ms.sort_unstable();
        times_ms.dedup();
        match times_ms[..] {
            [time_ms] => Times::One(time_ms),
            _ => Times::Many(times_ms.into()),
        }
    }
}

/// `keep: first`.
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    pub window: Window,
    pub renew: bool,
}

impl First {
    /// The times that a record at this watermark still meets.
    fn remembered<'a>(&self, known: &'a Option<Times>, watermark_ms: i64) -> impl Iterator<Item = i64> + 'a {
        let window = self.window;
        let times_ms = known.as_ref().map_or(&[][..], Times::as_slice);
        times_ms.iter().copied().filter(move |&time_ms| !window.is_passed(time_ms, watermark_ms))
    }

    /// Every remembered time that meets the record becomes the later of the two.
    fn renewed(&self, known: &Option<Times>, row: &Candidate) -> Times {
        let renew = |time_ms: i64| match self.window.holds(row.time_ms, time_ms) {
            true => time_ms.max(row.time_ms),
            false => time_ms,
        };
        Times::from_unsorted(self.remembered(known, row.watermark_ms).map(renew).collect())
    }
}

impl Rule for First {
    type Known = Times;

    /// A new state holds every older time that is remembered, and its own.
    const TIMES_ONLY_RISE: bool = true;

    #[inline]
    fn judge(&self, known: &mut Option<Times>, row: &Candidate) -> Outcome {
        if self.window.is_passed(row.time_ms, row.watermark_ms) {
            return Outcome::unchanged(Verdict::Late);
        }
        if !self.remembered(known, row.watermark_ms).any(|time_ms| self.window.holds(row.time_ms, time_ms)) {
            let rest: Vec<i64> = self.remembered(known, row.watermark_ms).collect();
            *known = Some(match rest.is_empty() {
                true => Times::One(row.time_ms),
                false => Times::from_unsorted(rest.into_iter().chain([row.time_ms]).collect()),
            });
            return Outcome::passed();
        }
        // Forever cannot be extended.
        if !self.renew || self.window.0.is_none() {
            return Outcome::unchanged(Verdict::Duplicate);
        }
        let renewed = Some(self.renewed(known, row));
        let changed = renewed != *known;
        *known = renewed;
        Outcome { verdict: Verdict::Duplicate, changed }
    }

    #[inline]
    fn encode(known: &Times, into: &mut Vec<u8>) {
        for time_ms in known.as_slice() {
            into.extend_from_slice(&time_ms.to_be_bytes());
        }
    }

    #[inline]
    fn encoded_len(known: &Times) -> usize {
        size_of_val(known.as_slice())
    }

    #[inline]
    fn newest_ms(known: &Times) -> i64 {
        *known.as_slice().last().expect("a key is known by at least one time")
    }

    #[inline]
    fn decode(value: &[u8]) -> Option<Times> {
        if let Ok(time) = value.try_into() {
            return Some(Times::One(i64::from_be_bytes(time)));
        }
        let (times, rest) = value.as_chunks::<TIME_LEN>();
        let is_whole = !times.is_empty() && rest.is_empty();
        is_whole.then(|| Times::Many(times.iter().map(|&time| i64::from_be_bytes(time)).collect()))
    }

    fn heap_bytes(known: &Times) -> usize {
        match known {
            Times::One(_) => 0,
            Times::Many(times_ms) => size_of_val(&**times_ms),
        }
    }
}

/// `keep: latest`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latest {
    pub window: Window,
}

impl Rule for Latest {
    /// The time that passed last.
    type Known = i64;

    /// An earlier one passes only when the last one is forgotten, and then it is no earlier than the watermark
    /// less the window, which is what forgot it.
    const TIMES_ONLY_RISE: bool = true;

    #[inline]
    fn judge(&self, known: &mut Option<i64>, row: &Candidate) -> Outcome {
        match known.filter(|&passed_ms| !self.window.is_reached(passed_ms, row.watermark_ms)) {
            Some(passed_ms) if row.time_ms < passed_ms => return Outcome::unchanged(Verdict::Duplicate),
            None if self.window.is_passed(row.time_ms, row.watermark_ms) => return Outcome::unchanged(Verdict::Late),
            _ => *known = Some(row.time_ms),
        }
        Outcome::passed()
    }

    fn encode(known: &i64, into: &mut Vec<u8>) {
        into.extend_from_slice(&known.to_be_bytes());
    }

    fn encoded_len(_: &i64) -> usize {
        TIME_LEN
    }

    fn newest_ms(known: &i64) -> i64 {
        *known
    }

    fn decode(value: &[u8]) -> Option<i64> {
        value.try_into().ok().map(i64::from_be_bytes)
    }
}

/// `keep: changes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changes {
    pub window: Window,
}

/// What passed last: when, and the hash of its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    passed_ms: i64,
    hash: [u8; 16],
}

impl Rule for Changes {
    type Known = Content;

    /// By arrival: a change that happened earlier takes the place of a later one.
    const TIMES_ONLY_RISE: bool = false;

    #[inline]
    fn judge(&self, known: &mut Option<Content>, row: &Candidate) -> Outcome {
        let content = Content { passed_ms: row.time_ms, hash: row.content.to_be_bytes() };
        match known.filter(|last| !self.window.is_reached(last.passed_ms, row.watermark_ms)) {
            // By arrival: an equal record that happened before the last one is no change either.
            Some(last) if last.hash == content.hash && !self.window.is_reached(last.passed_ms, row.time_ms) => {
                return Outcome::unchanged(Verdict::Duplicate);
            }
            None if self.window.is_passed(row.time_ms, row.watermark_ms) => return Outcome::unchanged(Verdict::Late),
            _ => *known = Some(content),
        }
        Outcome::passed()
    }

    fn encode(known: &Content, into: &mut Vec<u8>) {
        into.extend_from_slice(&known.passed_ms.to_be_bytes());
        into.extend_from_slice(&known.hash);
        into.push(1);
    }

    fn encoded_len(_: &Content) -> usize {
        CONTENT_LEN
    }

    fn newest_ms(known: &Content) -> i64 {
        known.passed_ms
    }

    fn decode(value: &[u8]) -> Option<Content> {
        let value: &[u8; CONTENT_LEN] = value.try_into().ok()?;
        let (time, rest) = value.split_first_chunk::<TIME_LEN>()?;
        Some(Content { passed_ms: i64::from_be_bytes(*time), hash: *rest.first_chunk()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded<R: Rule>(known: &R::Known) -> Vec<u8> {
        let mut value = Vec::new();
        R::encode(known, &mut value);
        assert_eq!(R::encoded_len(known), value.len());
        assert_eq!(newest_ms(&value), Some(R::newest_ms(known)));
        value
    }

    proptest! {
        #[test]
        fn times_come_back_as_they_went_in(times_ms in prop::collection::vec(any::<i64>(), 1..9)) {
            let times = Times::from_unsorted(times_ms.clone());
            let value = encoded::<First>(&times);
            prop_assert_eq!(newest_ms(&value), times_ms.into_iter().max());
            prop_assert_eq!(First::decode(&value), Some(times));
        }

        #[test]
        fn a_passed_time_comes_back_as_it_went_in(passed_ms: i64) {
            let value = encoded::<Latest>(&passed_ms);
            prop_assert_eq!(newest_ms(&value), Some(passed_ms));
            prop_assert_eq!(Latest::decode(&value), Some(passed_ms));
        }

        #[test]
        fn a_content_comes_back_as_it_went_in(passed_ms: i64, hash: [u8; 16]) {
            let content = Content { passed_ms, hash };
            let value = encoded::<Changes>(&content);
            prop_assert_eq!(newest_ms(&value), Some(passed_ms));
            prop_assert_eq!(Changes::decode(&value), Some(content));
        }
    }

    #[test]
    fn what_no_rule_wrote_is_not_read() {
        assert_eq!(newest_ms(b""), None);
        assert_eq!(newest_ms(b"123456789"), None);
        assert_eq!(First::decode(b""), None);
        assert_eq!(Latest::decode(b"1234567890123456"), None);
        assert_eq!(Changes::decode(b"123456781234567812345678"), None);
    }
}
