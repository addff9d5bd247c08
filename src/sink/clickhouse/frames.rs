//! ClickHouse's compressed frames, as the server reads them with `decompress=1`.
//!
//! ```text
//! checksum 16 │ method 1 │ size u32 (with these 9) │ raw size u32 │ data
//! ```
//! The checksum is CityHash128 (v1.0.2) of all behind it. Promises: the frames depend on the bytes alone, not on
//! the pieces in which they come; the hash is that of the raw bytes.

use crate::config::plan::BlockCompression;
use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

/// Raw bytes per frame.
const FRAME_RAW_BYTES: usize = 1 << 20;
const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 9;
const METHOD_LZ4: u8 = 0x82;
const METHOD_ZSTD: u8 = 0x90;
const ZSTD_LEVEL: i32 = 1;

/// Takes raw bytes, gives the body of an INSERT.
pub struct FrameWriter {
    compression: BlockCompression,
    hash: Xxh3,
    /// Raw bytes of the frame that is being filled.
    raw: Vec<u8>,
    out: Vec<u8>,
}

impl FrameWriter {
    pub fn new(compression: BlockCompression) -> FrameWriter {
        FrameWriter { compression, hash: Xxh3::new(), raw: Vec::new(), out: Vec::new() }
    }

    /// Appends raw bytes.
    pub fn write(&mut self, mut bytes: &[u8]) {
        self.hash.update(bytes);
        if self.compression == BlockCompression::None {
            self.out.extend_from_slice(bytes);
            return;
        }
        while self.raw.len() + bytes.len() >= FRAME_RAW_BYTES {
            let (now, later) = bytes.split_at(FRAME_RAW_BYTES - self.raw.len());
            if self.raw.is_empty() {
                append_frame(self.compression, now, &mut self.out);
            } else {
                self.raw.extend_from_slice(now);
                append_frame(self.compression, &self.raw, &mut self.out);
                self.raw.clear();
            }
            bytes = later;
        }
        self.raw.extend_from_slice(bytes);
    }

    /// The body and the xxh3-128 of the raw bytes; ready for the next block, its memory kept.
    pub fn finish(&mut self) -> (Bytes, [u8; 16]) {
        if !self.raw.is_empty() {
            append_frame(self.compression, &self.raw, &mut self.out);
            self.raw.clear();
        }
        let hash = self.hash.digest128().to_le_bytes();
        self.hash.reset();
        // A body lives on in the outbox, so it gets its own memory, as large as it is.
        let body = Bytes::copy_from_slice(&self.out);
        self.out.clear();
        (body, hash)
    }
}

/// Whether a body is made of frames: its first one has the right checksum.
pub fn is_framed(body: &[u8]) -> bool {
    let Some((checksum, rest)) = body.split_at_checked(CHECKSUM_BYTES) else { return false };
    let Some(size) = rest.get(1..5).map(|size| u32::from_le_bytes(size.try_into().expect("four bytes"))) else {
        return false;
    };
    let frame = rest.get(..size as usize);
    matches!(rest[0], METHOD_LZ4 | METHOD_ZSTD) && frame.is_some_and(|frame| checksum == checksum_of(frame))
}

/// The checksum of a frame, which stands before it: the higher half first.
fn checksum_of(frame: &[u8]) -> [u8; CHECKSUM_BYTES] {
    cityhash_rs::cityhash_102_128(frame).rotate_right(64).to_le_bytes()
}

fn append_frame(compression: BlockCompression, raw: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let bound = match compression {
        BlockCompression::Zstd => zstd::zstd_safe::compress_bound(raw.len()),
        _ => lz4_flex::block::get_maximum_output_size(raw.len()),
    };
    let data_at = start + CHECKSUM_BYTES + HEADER_BYTES;
    out.resize(data_at + bound, 0);
    let data_len = match compression {
        BlockCompression::Zstd => {
            zstd::bulk::compress_to_buffer(raw, &mut out[data_at..], ZSTD_LEVEL).expect("the buffer holds the bound")
        }
        _ => lz4_flex::block::compress_into(raw, &mut out[data_at..]).expect("the buffer holds the bound"),
    };
    out.truncate(data_at + data_len);
    let frame = &mut out[start..];
    frame[16] = if compression == BlockCompression::Zstd { METHOD_ZSTD } else { METHOD_LZ4 };
    frame[17..21].copy_from_slice(&((HEADER_BYTES + data_len) as u32).to_le_bytes());
    frame[21..25].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    let checksum = checksum_of(&frame[CHECKSUM_BYTES..]);
    frame[..CHECKSUM_BYTES].copy_from_slice(&checksum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(compression: BlockCompression, raw: &[u8], piece: usize) -> (Bytes, [u8; 16]) {
        let mut writer = FrameWriter::new(compression);
        raw.chunks(piece).for_each(|piece| writer.write(piece));
        writer.finish()
    }

    fn raw_of(body: &[u8]) -> Vec<u8> {
        let mut raw = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let size = u32::from_le_bytes(rest[17..21].try_into().unwrap()) as usize;
            let raw_len = u32::from_le_bytes(rest[21..25].try_into().unwrap()) as usize;
            let data = &rest[25..16 + size];
            match rest[16] {
                METHOD_LZ4 => raw.extend(lz4_flex::block::decompress(data, raw_len).unwrap()),
                METHOD_ZSTD => raw.extend(zstd::bulk::decompress(data, raw_len).unwrap()),
                other => panic!("method {other}"),
            }
            rest = &rest[16 + size..];
        }
        raw
    }

    #[test]
    fn a_body_depends_on_the_bytes_and_not_on_their_pieces() {
        let raw: Vec<u8> = (0..2_500_000u32).flat_map(|at| (at / 3 % 251).to_le_bytes()).take(2_500_000).collect();
        for compression in [BlockCompression::Lz4, BlockCompression::Zstd, BlockCompression::None] {
            let whole = frames(compression, &raw, raw.len());
            assert_eq!(whole, frames(compression, &raw, 977));
            assert_eq!(whole, frames(compression, &raw, 1 << 20));
            assert_eq!(whole.1, xxhash_rust::xxh3::xxh3_128(&raw).to_le_bytes());
            assert_eq!(is_framed(&whole.0), compression != BlockCompression::None);
            match compression {
                BlockCompression::None => assert_eq!(whole.0, raw),
                _ => assert_eq!(raw_of(&whole.0), raw),
            }
        }
    }
}
