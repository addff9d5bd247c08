//! How a topic's records came to their partitions, recognised from keys that were seen.
//!
//! Owns nothing; the hashes are librdkafka's own. Promises: says nothing of a topic of which too little was seen.

use super::sample::Sample;
use rdkafka::bindings as sys;
use std::collections::BTreeMap;
use std::ptr;

/// What decided the partition of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Partitioner {
    /// As Java clients do.
    Murmur2,
    /// librdkafka's default, and so that of clients built on it.
    Crc32,
    /// Neither: a partitioner of its own, several producers that differ, or partitions that were added later.
    Other,
}

/// Fewer different keys say nothing: by chance alone they would fit one time in `partitions` to their number.
const KEYS_MIN: usize = 12;

impl Partitioner {
    pub fn name(self) -> &'static str {
        match self {
            Partitioner::Murmur2 => "murmur2",
            Partitioner::Crc32 => "crc32",
            Partitioner::Other => "other",
        }
    }

    /// As it is said to a person.
    pub fn described(self) -> &'static str {
        match self {
            Partitioner::Murmur2 => "murmur2 (as Java clients do)",
            Partitioner::Crc32 => "CRC32 (as librdkafka does by default)",
            Partitioner::Other => "neither murmur2 nor CRC32",
        }
    }

    /// The partitioner that put these keys where they are; `None` where that cannot be told.
    pub fn of(sample: &Sample) -> Option<Partitioner> {
        let partitions = sample.ranges.len() as i32;
        let keyed = sample.records.iter().filter_map(|record| Some((record.key.as_deref()?, record.partition)));
        let keys: BTreeMap<&[u8], i32> = keyed.collect();
        if partitions < 2 || keys.len() < KEYS_MIN {
            return None;
        }
        let all = |hash: fn(&[u8], i32) -> i32| keys.iter().all(|(key, partition)| hash(key, partitions) == *partition);
        Some(match (all(murmur2), all(crc32)) {
            (true, _) => Partitioner::Murmur2,
            (false, true) => Partitioner::Crc32,
            (false, false) => Partitioner::Other,
        })
    }
}

fn murmur2(key: &[u8], partitions: i32) -> i32 {
    // SAFETY: of its arguments it reads the key and the count; the others are not looked at.
    unsafe {
        let (none, nothing) = (ptr::null(), ptr::null_mut());
        sys::rd_kafka_msg_partitioner_murmur2(none, key.as_ptr().cast(), key.len(), partitions, nothing, nothing)
    }
}

fn crc32(key: &[u8], partitions: i32) -> i32 {
    // SAFETY: as above.
    unsafe {
        let (none, nothing) = (ptr::null(), ptr::null_mut());
        sys::rd_kafka_msg_partitioner_consistent(none, key.as_ptr().cast(), key.len(), partitions, nothing, nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::SampledRecord;
    use super::*;

    fn sample(keys: usize, partition: fn(&[u8], i32) -> i32) -> Sample {
        let record = |number: usize| {
            let key = format!("user-{number}").into_bytes();
            let partition = partition(&key, 8);
            SampledRecord { partition, offset: 0, timestamp_ms: 0, key: Some(key), value: None }
        };
        Sample { ranges: vec![(0, 1); 8], records: (0..keys).map(record).collect() }
    }

    #[test]
    fn each_partitioner_is_recognised_from_the_keys_that_it_placed() {
        assert_eq!(Partitioner::of(&sample(40, murmur2)), Some(Partitioner::Murmur2));
        assert_eq!(Partitioner::of(&sample(40, crc32)), Some(Partitioner::Crc32));
        assert_eq!(Partitioner::of(&sample(40, |key, _| key.len() as i32 % 8)), Some(Partitioner::Other));
        assert_eq!(Partitioner::of(&sample(4, murmur2)), None, "too few keys");
    }

    /// The figures of Kafka's own test of its `Utils.murmur2` and of the CRC-32 check value.
    #[test]
    fn the_hashes_are_the_ones_that_producers_use() {
        assert_eq!(murmur2(b"21", i32::MAX), -973932308i32 & 0x7fff_ffff);
        assert_eq!(murmur2(b"foobar", i32::MAX), -790332482i32 & 0x7fff_ffff);
        assert_eq!(crc32(b"123456789", 1000), (0xCBF4_3926u32 % 1000) as i32);
    }
}
