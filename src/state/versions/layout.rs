//! How a table lies in the store, drawn; the value of a key, and the keys of its older versions.
//!
//! ```text
//! buffer │ task u32 │ step u16 │ 2 │ key 16 │ → older │ newest versions, oldest first: time i64 │ length u32 │ row │
//!                                               older = 0, or 1 │ time i64 │ number u32 │ next number u32 │
//! buffer │ task u32 │ step u16 │ 3 │ key 16 │ newest first: time u64 │ number u32 │ → 0 │ row, or 1: deleted
//! ```
//! A length of ff × 4 is a deletion. These keys are shorter and longer than those of `buffer/layout.rs`; numbers in keys
//! are big-endian, values little-endian.

use crate::error::{Error, Result};
use crate::types::TaskNo;

const NEWEST: u8 = 2;
const OLDER: u8 = 3;
const PREFIX_LEN: usize = 7;
pub(super) const KEY_LEN: usize = PREFIX_LEN + 16;
const OLDER_KEY_LEN: usize = KEY_LEN + 12;
const HEAD_BYTES: usize = 12;
const DELETED: u32 = u32::MAX;

/// A version: its time and its row, `None` where it deletes.
pub(super) type Version<'a> = (i64, Option<&'a [u8]>);

/// The common start of a table's keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prefix([u8; PREFIX_LEN - 1]);

/// Which of a key's older versions: its time, and its number among them in the order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub time_ms: i64,
    pub number: u32,
}

/// What is known of a key's older versions without reading them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Older {
    /// The oldest that counts, or where the next one is to lie; what lies before it is needless.
    pub first: Place,
    next: u32,
}

impl Older {
    pub const NONE: Older = Older { first: Place { time_ms: i64::MIN, number: 0 }, next: 0 };

    pub fn has_some(&self) -> bool {
        self.first.number < self.next
    }

    /// One more; it is not older than what was cut away.
    pub fn add(&mut self, time_ms: i64) -> Place {
        let place = Place { time_ms, number: self.next };
        if self.next == 0 || self.first.number < self.next {
            self.first = if self.next == 0 { place } else { self.first.min(place) };
        }
        self.next += 1;
        place
    }

    /// All of them have become needless; what comes is of this time or newer.
    pub fn cut(&mut self, time_ms: i64) -> Place {
        self.first = Place { time_ms, number: self.next };
        self.first
    }
}

impl Prefix {
    pub fn new(task: TaskNo, step: u16) -> Prefix {
        let mut prefix = [0; PREFIX_LEN - 1];
        prefix[..4].copy_from_slice(&task.0.to_be_bytes());
        prefix[4..].copy_from_slice(&step.to_be_bytes());
        Prefix(prefix)
    }

    fn begin(self, part: u8, key: u128, into: &mut [u8]) {
        into[..PREFIX_LEN - 1].copy_from_slice(&self.0);
        into[PREFIX_LEN - 1] = part;
        into[PREFIX_LEN..KEY_LEN].copy_from_slice(&key.to_be_bytes());
    }

    /// Where the value of a key lies.
    pub fn key(self, key: u128) -> [u8; KEY_LEN] {
        let mut bytes = [0; KEY_LEN];
        self.begin(NEWEST, key, &mut bytes);
        bytes
    }

    /// Where one of its older versions lies: the newer, the earlier.
    pub fn older_key(self, key: u128, place: Place) -> Vec<u8> {
        let mut bytes = vec![0; OLDER_KEY_LEN];
        self.begin(OLDER, key, &mut bytes);
        let rank = !(place.time_ms as u64 ^ 1 << 63);
        bytes[KEY_LEN..KEY_LEN + 8].copy_from_slice(&rank.to_be_bytes());
        bytes[KEY_LEN + 8..].copy_from_slice(&(!place.number).to_be_bytes());
        bytes
    }

    /// Behind all older versions of a key.
    pub fn older_end(self, key: u128) -> Vec<u8> {
        let mut bytes = vec![u8::MAX; OLDER_KEY_LEN + 1];
        self.begin(OLDER, key, &mut bytes);
        bytes
    }
}

/// The place that an older version's key names.
pub(super) fn place_of(key: &[u8]) -> Place {
    let (rank, number) = key[KEY_LEN..].split_first_chunk::<8>().expect("a key of an older version was written here");
    let time_ms = (!u64::from_be_bytes(*rank) ^ 1 << 63) as i64;
    Place { time_ms, number: !u32::from_be_bytes(number.try_into().expect("four bytes are left")) }
}

pub(super) fn older_value(row: Option<&[u8]>) -> Vec<u8> {
    let mut value = vec![row.is_none() as u8];
    value.extend_from_slice(row.unwrap_or_default());
    value
}

/// The row of an older version; `None` where it deletes.
pub(super) fn read_older(value: &[u8]) -> Result<Option<&[u8]>> {
    match value {
        [0, row @ ..] => Ok(Some(row)),
        [1] => Ok(None),
        _ => Err(corrupt()),
    }
}

/// The value of a key.
pub(super) fn value_of(older: Older, versions: &[Version<'_>]) -> Vec<u8> {
    let mut value = Vec::with_capacity(17 + versions.iter().map(|version| bytes_of(*version)).sum::<usize>());
    match older.next {
        0 => value.push(0),
        _ => {
            value.push(1);
            value.extend_from_slice(&older.first.time_ms.to_le_bytes());
            value.extend_from_slice(&older.first.number.to_le_bytes());
            value.extend_from_slice(&older.next.to_le_bytes());
        }
    }
    for (time_ms, row) in versions {
        value.extend_from_slice(&time_ms.to_le_bytes());
        value.extend_from_slice(&row.map_or(DELETED, |row| row.len() as u32).to_le_bytes());
        value.extend_from_slice(row.unwrap_or_default());
    }
    value
}

/// A version's bytes in the value of its key.
pub(super) fn bytes_of((_, row): Version<'_>) -> usize {
    HEAD_BYTES + row.map_or(0, <[u8]>::len)
}

/// What a key's value says of the older versions, and the list of the newest ones. No value is a key without versions.
pub(super) fn split(value: &[u8]) -> (Older, &[u8]) {
    read_head(value).unwrap_or((Older::NONE, &[]))
}

fn read_head(value: &[u8]) -> Option<(Older, &[u8])> {
    let (flag, rest) = value.split_first()?;
    if *flag == 0 {
        return Some((Older::NONE, rest));
    }
    let (time_ms, rest) = rest.split_first_chunk::<8>()?;
    let (number, rest) = rest.split_first_chunk::<4>()?;
    let (next, rest) = rest.split_first_chunk::<4>()?;
    let first = Place { time_ms: i64::from_le_bytes(*time_ms), number: u32::from_le_bytes(*number) };
    Some((Older { first, next: u32::from_le_bytes(*next) }, rest))
}

/// The versions of a list, oldest first.
pub(super) fn list(mut rest: &[u8]) -> impl Iterator<Item = Version<'_>> {
    std::iter::from_fn(move || {
        let (time_ms, behind) = rest.split_first_chunk::<8>()?;
        let (len, behind) = behind.split_first_chunk::<4>()?;
        let time_ms = i64::from_le_bytes(*time_ms);
        let len = u32::from_le_bytes(*len);
        if len == DELETED {
            rest = behind;
            return Some((time_ms, None));
        }
        let (row, behind) = behind.split_at_checked(len as usize)?;
        rest = behind;
        Some((time_ms, Some(row)))
    })
}

/// Whether all of it is a head and versions in order.
pub(super) fn is_value(value: &[u8]) -> bool {
    let Some((_, versions)) = read_head(value).filter(|_| value[0] <= 1) else { return false };
    let all: usize = list(versions).map(bytes_of).sum();
    all == versions.len() && !versions.is_empty() && list(versions).is_sorted_by_key(|(time_ms, _)| time_ms)
}

#[cold]
pub(super) fn corrupt() -> Error {
    Error::stop(
        "corrupt",
        "the join state holds a table row that weir did not write; the state directory is damaged or belongs to a \
         newer version",
    )
}
