//! What semantics.md says about times, tombstones, virtual fields and broken payloads.

use super::*;
use crate::codec::scope::Scope;

const HOUR_MS: i64 = 3_600_000;
const NOW_MS: i64 = 1_700_000_000_000;

struct Setup {
    scope: Scope,
    time: Option<Unit>,
    keep: bool,
}

fn kafka_time() -> Setup {
    Setup { scope: Scope::new(), time: None, keep: false }
}

impl Setup {
    fn decode(mut self, batch: &mut RecordBatch) -> (Rows, Decoded) {
        let field = self.time.map(|unit| TimeField {
            slot: self.scope.resolve("ts").unwrap(),
            path: "ts".into(),
            unit,
            zone: Zone::UTC,
        });
        let time = TimeSpec { field, max_future_ms: HOUR_MS };
        let mut decoder = Decoder::new(self.scope.finish(), time, self.keep, 200, "orders".into(), 3, 1);
        let (mut rows, mut out) = (Rows::default(), Decoded::default());
        decoder.decode(batch, NOW_MS, &mut rows, &mut out);
        (rows, out)
    }
}

fn push(batch: &mut RecordBatch, timestamp_ms: i64, value: Option<&str>) {
    let offset = batch.records.len() as i64 + 10;
    batch.push(offset, timestamp_ms, None, value.map(str::as_bytes), []);
}

fn reasons(out: &Decoded) -> Vec<(u32, &'static str)> {
    out.broken.iter().map(|bad| (bad.row, bad.reason)).collect()
}

#[test]
fn rows_keep_order_and_broken_payloads_name_their_record() {
    let mut batch = RecordBatch::default();
    for value in
        [r#"{"a":1,"x":2}"#, "no", r#"{"a":"é"}"#, r#"{"a":1,"a":2}"#, &format!(r#"{{"a":"{}"}}"#, "x".repeat(300))]
    {
        push(&mut batch, NOW_MS, Some(value));
    }
    let mut setup = kafka_time();
    let slot = setup.scope.resolve("a").unwrap();
    let (rows, out) = setup.decode(&mut batch);
    assert_eq!(rows.meta.iter().map(|meta| (meta.offset, meta.record)).collect::<Vec<_>>(), [(10, 0), (12, 2)]);
    assert_eq!(rows.text(rows.field(1, slot)), "é".as_bytes());
    assert_eq!(reasons(&out), [(1, "not_json"), (3, "duplicate_field"), (4, "too_large")]);
    assert_eq!(out.broken[0].message, "the payload is broken at byte 0: `n` where a value should be");
    assert_eq!(out.extra_fields, 1);
    assert_eq!(rows.meta[0].input, 1);
    assert!(batch.bytes.is_empty(), "the arena moved");
}

#[test]
fn event_time_is_the_kafka_timestamp_or_a_field() {
    let mut batch = RecordBatch::default();
    push(&mut batch, NOW_MS - 5, Some("{}"));
    push(&mut batch, -1, Some("{}"));
    let (rows, out) = kafka_time().decode(&mut batch);
    assert_eq!(rows.meta[0].time_ms, NOW_MS - 5);
    assert_eq!(reasons(&out), [(1, "no_time")]);

    let mut batch = RecordBatch::default();
    for value in [
        r#"{"ts":"2023-11-14T22:13:20.123Z"}"#,
        r#"{"ts":1}"#,
        r#"{"ts":null}"#,
        "{}",
        r#"{"ts":"soon"}"#,
        r#"{"ts":"2023\u002d11-14"}"#,
    ] {
        push(&mut batch, NOW_MS, Some(value));
    }
    let (rows, out) = Setup { time: Some(Unit::Iso), ..kafka_time() }.decode(&mut batch);
    assert_eq!(rows.meta.iter().map(|meta| meta.time_ms).collect::<Vec<_>>(), [NOW_MS + 123, 1_699_920_000_000]);
    assert_eq!(reasons(&out), [(1, "bad_time"), (2, "no_time"), (3, "no_time"), (4, "bad_time")]);
    assert!(out.broken[3].message.contains("`ts`") && out.broken[3].message.contains("\"soon\""));
}

#[test]
fn epoch_numbers_may_be_text_and_have_fractions() {
    let mut batch = RecordBatch::default();
    for value in [r#"{"ts":1700000000.9}"#, r#"{"ts":"1700000000"}"#, r#"{"ts":-0.0001}"#, r#"{"ts":true}"#] {
        push(&mut batch, NOW_MS, Some(value));
    }
    let (rows, out) = Setup { time: Some(Unit::Seconds), ..kafka_time() }.decode(&mut batch);
    assert_eq!(rows.meta.iter().map(|meta| meta.time_ms).collect::<Vec<_>>(), [NOW_MS + 900, NOW_MS, -1]);
    assert_eq!(reasons(&out), [(3, "bad_time")]);
}

#[test]
fn a_time_beyond_the_smaller_of_kafka_timestamp_and_wall_clock_is_a_dead_letter() {
    let limit = NOW_MS + HOUR_MS;
    let mut batch = RecordBatch::default();
    for (timestamp_ms, time_ms) in [
        (NOW_MS, limit),
        (NOW_MS, limit + 1),
        (NOW_MS - 1000, limit),
        (NOW_MS + 9 * HOUR_MS, limit + 1),
        (-1, limit),
        (-1, limit + 1),
    ] {
        push(&mut batch, timestamp_ms, Some(&format!(r#"{{"ts":{time_ms}}}"#)));
    }
    let (rows, out) = Setup { time: Some(Unit::Millis), ..kafka_time() }.decode(&mut batch);
    assert_eq!(rows.meta.iter().map(|meta| meta.record).collect::<Vec<_>>(), [0, 4]);
    assert!(out.broken.iter().all(|bad| bad.reason == "time_in_future"));

    // A producer's wrong clock is no better where the Kafka timestamp is the event time.
    let mut batch = RecordBatch::default();
    push(&mut batch, limit + 1, Some("{}"));
    assert_eq!(reasons(&kafka_time().decode(&mut batch).1), [(0, "time_in_future")]);
}

#[test]
fn a_payload_of_exactly_max_payload_passes_and_one_byte_more_is_a_dead_letter() {
    let of = |len: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(len - r#"{"a":""}"#.len()));
    let mut batch = RecordBatch::default();
    for len in [199, 200, 201] {
        push(&mut batch, NOW_MS, Some(&of(len)));
    }
    let (rows, out) = kafka_time().decode(&mut batch);
    assert_eq!(rows.meta.iter().map(|meta| meta.record).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(reasons(&out), [(2, "too_large")]);
    assert_eq!(out.broken[0].message, "the payload has 201 bytes; max_payload is 200");
}

#[test]
fn tombstones_are_skipped_or_kept_with_their_virtual_fields_at_their_kafka_timestamp() {
    let mut batch = RecordBatch::default();
    push(&mut batch, NOW_MS, None);
    push(&mut batch, NOW_MS, Some("{}"));
    let (rows, out) = kafka_time().decode(&mut batch);
    assert_eq!((rows.len(), out.tombstones), (1, 1));

    let mut batch = RecordBatch::default();
    push(&mut batch, NOW_MS, None);
    let mut setup = Setup { time: Some(Unit::Iso), keep: true, ..kafka_time() };
    let (field, offset) = (setup.scope.resolve("a").unwrap(), setup.scope.resolve("_offset").unwrap());
    let (rows, out) = setup.decode(&mut batch);
    assert_eq!((rows.len(), out.tombstones, rows.meta[0].time_ms), (1, 0, NOW_MS));
    assert_eq!(rows.field(0, field).kind, Kind::Absent);
    assert_eq!(rows.field(0, offset).as_int(), 10);
}

#[test]
fn virtual_fields_are_there_as_they_are() {
    let mut batch = RecordBatch::default();
    let headers = [(&b"h"[..], Some(&b"first"[..])), (b"h", Some(b"last")), (b"n", None)];
    batch.push(5, NOW_MS, Some(b"k\"1"), Some(b"{}"), headers);
    batch.push(6, NOW_MS, Some(b"\xff"), Some(b"{}"), []);
    let mut setup = kafka_time();
    let mut slot = |name: &str| setup.scope.resolve(name).unwrap();
    let [topic, partition, timestamp, key] = ["_topic", "_partition", "_timestamp", "_key"].map(&mut slot);
    let [h, n, gone] = ["_headers.h", "_headers.n", "_headers.gone"].map(&mut slot);
    let (rows, _) = setup.decode(&mut batch);
    assert_eq!(rows.text(rows.field(0, topic)), b"orders");
    assert_eq!(rows.field(0, partition).as_int(), 3);
    assert_eq!(rows.field(0, timestamp).as_int(), NOW_MS);
    assert_eq!((rows.field(0, key).kind, rows.text(rows.field(0, key))), (Kind::Escaped, &b"k\\\"1"[..]));
    assert_eq!(rows.text(rows.field(0, h)), b"last");
    assert_eq!(rows.field(0, n).kind, Kind::Null);
    assert_eq!(rows.field(0, gone).kind, Kind::Absent);
    assert_eq!(rows.field(1, key).kind, Kind::Bytes);
    assert_eq!(rows.text(rows.field(1, topic)), b"orders");
}

/// Decodes tombstones of a table with these key fields; their texts, or nothing where the key could not be read.
fn deletions<const N: usize>(fields: [&str; N], keys: &[Option<&[u8]>]) -> (Vec<[String; N]>, Decoded) {
    let mut scope = Scope::new();
    let slots = fields.map(|field| scope.resolve(field).unwrap());
    let key = DeletionKey::new(fields.map(str::to_owned).into_iter().zip(slots));
    let time = TimeSpec { field: None, max_future_ms: HOUR_MS };
    let decoder = Decoder::new(scope.finish(), time, false, 200, "users".into(), 0, 0);
    let mut batch = RecordBatch::default();
    for (offset, key) in keys.iter().enumerate() {
        batch.push(offset as i64, NOW_MS, *key, None, []);
    }
    let (mut rows, mut out) = (Rows::default(), Decoded::default());
    decoder.deleting(key).decode(&mut batch, NOW_MS, &mut rows, &mut out);
    let text = |row: u32, slot: Slot| {
        let field = rows.field(row, slot);
        format!("{:?} {}", field.kind, String::from_utf8_lossy(rows.text(field)))
    };
    ((0..rows.len() as u32).map(|row| slots.map(|slot| text(row, slot))).collect(), out)
}

#[test]
fn a_tombstone_of_a_table_is_a_row_with_the_key_of_its_record() {
    let (rows, out) =
        deletions(["id"], &[Some(b"42"), Some(b"u-42"), Some(b"\"42\""), Some(b"{\"id\":42}"), Some(b"a\"b")]);
    // A plain number does not tell whether the payloads hold a number or text: it is a row of each.
    let expected = ["Number 42", "Text 42", "Text u-42", "Text 42", "Number 42", "Escaped a\\\"b"];
    assert_eq!(rows, expected.map(|text| [text.to_owned()]));
    assert_eq!((out.tombstones, out.unread_keys), (0, 0));
}

#[test]
fn a_key_of_several_fields_comes_from_an_object_that_has_them_all() {
    let keys: [Option<&[u8]>; 4] =
        [Some(b"{\"a\":1,\"b\":\"x\",\"c\":0}"), Some(b"{\"a\":1}"), Some(b"1"), Some(b"{\"a\":1,\"b\":2} x")];
    let (rows, out) = deletions(["a", "b"], &keys);
    assert_eq!(rows, [["Number 1".to_owned(), "Text x".to_owned()]]);
    assert_eq!((out.tombstones, out.unread_keys), (3, 3));
}

#[test]
fn a_record_key_that_is_none_is_counted() {
    let (rows, out) = deletions(["id"], &[None, Some(b""), Some(b" "), Some(&[0xff, 0xfe]), Some(b"{\"ID\":1}")]);
    assert_eq!(rows.len(), 0);
    assert_eq!((out.tombstones, out.unread_keys), (5, 5));
}
