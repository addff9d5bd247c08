//! ClickHouse's compressed frames, read: the body of an INSERT sent with `decompress=1`.
//!
//! ```text
//! frame │ CityHash128 of what follows 16 │ method u8 │ compressed size + 9 u32 │ raw size u32 │ data │
//! ```
//! All little-endian; method 0x82 is LZ4, 0x90 ZSTD, 0x02 none. The checksum is the hash of the library's version
//! 1.0.2, its high half first.

use cityhash_rs::cityhash_102_128;

const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 9;
/// No frame of ours or of a client is larger; more is a broken size, not data.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// All frames' data, one after the other. The error is a sentence.
pub fn decompress(mut body: &[u8]) -> Result<Vec<u8>, String> {
    let mut data = Vec::new();
    while !body.is_empty() {
        body = read_frame(body, &mut data)?;
    }
    Ok(data)
}

/// Appends one frame's data and returns what follows the frame.
fn read_frame<'a>(body: &'a [u8], data: &mut Vec<u8>) -> Result<&'a [u8], String> {
    if body.len() < CHECKSUM_BYTES + HEADER_BYTES {
        return Err(format!("a compressed frame's header is cut after {} bytes", body.len()));
    }
    let (checksum, rest) = body.split_at(CHECKSUM_BYTES);
    let size = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four bytes")) as usize;
    let (method, framed_bytes, raw_bytes) = (rest[0], size(1), size(5));
    if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&framed_bytes) || raw_bytes > FRAME_BYTES_MAX {
        return Err(format!("a compressed frame of {framed_bytes} bytes for {raw_bytes} bytes makes no sense"));
    }
    if rest.len() < framed_bytes {
        return Err(format!("a compressed frame of {framed_bytes} bytes is cut after {}", rest.len()));
    }
    let (framed, after) = rest.split_at(framed_bytes);
    if checksum != checksum_of(framed) {
        return Err("the checksum of a compressed frame doesn't match: the data is corrupted".to_owned());
    }
    let before = data.len();
    match method {
        0x02 => data.extend_from_slice(&framed[HEADER_BYTES..]),
        0x82 => {
            data.resize(before + raw_bytes, 0);
            let written = lz4_flex::block::decompress_into(&framed[HEADER_BYTES..], &mut data[before..])
                .map_err(|error| format!("a compressed frame is no LZ4: {error}"))?;
            data.truncate(before + written);
        }
        0x90 => data.extend(
            zstd::bulk::decompress(&framed[HEADER_BYTES..], raw_bytes)
                .map_err(|error| format!("a compressed frame is no ZSTD: {error}"))?,
        ),
        other => return Err(format!("a compressed frame has the unknown method 0x{other:02x}")),
    }
    match data.len() - before == raw_bytes {
        true => Ok(after),
        false => Err(format!("a compressed frame holds {} bytes and promised {raw_bytes}", data.len() - before)),
    }
}

fn checksum_of(framed: &[u8]) -> [u8; CHECKSUM_BYTES] {
    cityhash_102_128(framed).rotate_right(64).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(method: u8, data: &[u8], raw_bytes: usize) -> Vec<u8> {
        let mut framed = vec![method];
        framed.extend((data.len() as u32 + HEADER_BYTES as u32).to_le_bytes());
        framed.extend((raw_bytes as u32).to_le_bytes());
        framed.extend_from_slice(data);
        [checksum_of(&framed).as_slice(), &framed].concat()
    }

    #[test]
    fn frames_of_every_method_are_read_one_after_the_other() {
        let raw = b"to weir or not to weir, to weir or not to weir".as_slice();
        let body = [
            frame(0x82, &lz4_flex::block::compress(raw), raw.len()),
            frame(0x90, &zstd::bulk::compress(raw, 1).unwrap(), raw.len()),
            frame(0x02, raw, raw.len()),
        ]
        .concat();
        assert_eq!(decompress(&body).unwrap(), raw.repeat(3));
    }

    #[test]
    fn a_flipped_bit_is_found_by_the_checksum() {
        let mut body = frame(0x02, b"hello", 5);
        *body.last_mut().unwrap() ^= 1;
        assert!(decompress(&body).unwrap_err().contains("checksum"));
    }

    #[test]
    fn a_cut_frame_is_an_error_wherever_it_is_cut() {
        let body = frame(0x82, &lz4_flex::block::compress(b"hello hello hello"), 17);
        for cut in 1..body.len() {
            assert!(decompress(&body[..cut]).is_err(), "cut at {cut}");
        }
    }
}
