//! The buffer against a plain list, with segments so small that every path is taken.

use super::*;
use crate::state::memory::MemoryStore;
use proptest::prelude::*;

const TASK: TaskNo = TaskNo(3);

#[derive(Clone, Debug)]
enum Act {
    Append {
        key: u8,
        time_ms: i64,
        waits: bool,
    },
    Find {
        key: u8,
        from_ms: i64,
        len_ms: i64,
    },
    Nearest {
        key: u8,
        from_ms: i64,
        len_ms: i64,
        at_ms: i64,
    },
    Settle(prop::sample::Index),
    /// Everything older is handed out.
    Release(i64),
    Close,
    /// These, and then as if they had not been.
    Undo(Vec<Act>),
    Seal,
    Store,
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let times = || -20i64..60;
    let simple = prop_oneof![
        8 => (0u8..4, times(), any::<bool>()).prop_map(|(key, time_ms, waits)| Act::Append { key, time_ms, waits }),
        4 => (0u8..4, times(), 0i64..40).prop_map(|(key, from_ms, len_ms)| Act::Find { key, from_ms, len_ms }),
        2 => (0u8..4, times(), 0i64..40, times())
            .prop_map(|(key, from_ms, len_ms, at_ms)| Act::Nearest { key, from_ms, len_ms, at_ms }),
        3 => any::<prop::sample::Index>().prop_map(Act::Settle),
        2 => times().prop_map(Act::Release),
    ];
    let simple = simple.boxed();
    prop_oneof![
        16 => simple.clone(),
        1 => Just(Act::Close),
        2 => prop::collection::vec(simple, 0..8).prop_map(Act::Undo),
        3 => Just(Act::Seal),
        3 => Just(Act::Store),
        1 => Just(Act::Crash),
    ]
}

/// A row as the list knows it.
#[derive(Clone, Debug)]
struct Row {
    key: u128,
    time_ms: i64,
    bytes: Vec<u8>,
    waits: bool,
    is_gone: bool,
}

#[derive(Clone, Default)]
struct Model {
    rows: Vec<Row>,
    /// Rows older than this are not asked for any more, and may be away.
    kept_from_ms: Option<i64>,
}

struct Run {
    store: MemoryStore,
    buffer: Buffer,
    model: Model,
    sealed: VecDeque<(WriteBatch, Model)>,
    stored: Model,
    size: SegmentSize,
}

impl Run {
    fn new(size: SegmentSize) -> Run {
        let store = MemoryStore::new();
        let buffer = Buffer::open(&store, TASK, 1, 0, size).unwrap();
        let (model, stored) = Default::default();
        Run { store, buffer, model, sealed: VecDeque::new(), stored, size }
    }

    fn take(&mut self, act: &Act) {
        match act {
            Act::Append { key, time_ms, waits } => {
                if self.model.kept_from_ms.is_some_and(|kept| *time_ms < kept) {
                    return;
                }
                let (key, number) = (key_of(*key), self.model.rows.len());
                let bytes = vec![number as u8; number % 7];
                assert_eq!(self.buffer.append(key, *time_ms, &bytes, *waits), Arrival(number as u64));
                self.model.rows.push(Row { key, time_ms: *time_ms, bytes, waits: *waits, is_gone: false });
            }
            Act::Find { key, from_ms, len_ms } => self.find(*key, *from_ms, *len_ms, Take::All),
            Act::Nearest { key, from_ms, len_ms, at_ms } => {
                self.find(*key, *from_ms, *len_ms, Take::Nearest { at_ms: *at_ms })
            }
            Act::Settle(index) => {
                let there: Vec<usize> = (0..self.model.rows.len()).filter(|row| self.is_there(*row)).collect();
                if let Some(row) = (!there.is_empty()).then(|| there[index.index(there.len())]) {
                    self.buffer.settle(Arrival(row as u64));
                    self.model.rows[row].waits = false;
                }
            }
            Act::Release(below_ms) => self.release(*below_ms),
            Act::Close => self.close(),
            Act::Undo(acts) => {
                let (mark, model) = (self.buffer.mark(), self.model.clone());
                acts.iter().for_each(|act| self.take(act));
                self.buffer.rollback(mark);
                // What was released keeps its promise: nobody asks below it, also where it was taken back.
                self.model = model;
                acts.iter().take(2).for_each(|act| self.take(act));
            }
            Act::Seal => self.seal(),
            Act::Store => {
                if let Some((batch, model)) = self.sealed.pop_front() {
                    self.store.write(&batch).unwrap();
                    self.buffer.stored();
                    self.stored = model;
                }
            }
            Act::Crash => {
                self.sealed.clear();
                self.model = self.stored.clone();
                self.buffer = Buffer::open(&self.store, TASK, 1, 0, self.size).unwrap();
            }
        }
        let waiting = self.model.rows.iter().filter(|row| row.waits).count();
        assert_eq!(self.buffer.waiting(), waiting as u64);
    }

    fn is_there(&self, row: usize) -> bool {
        self.model.kept_from_ms.is_none_or(|kept| self.model.rows[row].time_ms >= kept)
    }

    fn find(&mut self, key: u8, from_ms: i64, len_ms: i64, take: Take) {
        let from_ms = from_ms.max(self.model.kept_from_ms.unwrap_or(i64::MIN));
        let probe = Probe { key: key_of(key), from_ms, to_ms: from_ms + len_ms, take };
        let mut ahead = Ahead::default();
        assert_eq!(self.buffer.look_ahead(&self.store, &[probe], &mut ahead).unwrap(), 1);
        let mut found = Vec::new();
        self.buffer.find(&ahead, 0, &probe, &mut found);

        let rows = self.model.rows.iter().enumerate();
        let rows = rows.filter(|(_, row)| row.key == probe.key && (from_ms..=probe.to_ms).contains(&row.time_ms));
        let is_nearest = matches!(take, Take::Nearest { .. });
        let rows = rows.filter(|(_, row)| is_nearest || !row.is_gone);
        let mut expected: Vec<Hit> =
            rows.map(|(at, row)| Hit { time_ms: row.time_ms, arrival: Arrival(at as u64) }).collect();
        expected.sort();
        if let Take::Nearest { at_ms } = take {
            let newest = expected.iter().rfind(|hit| hit.time_ms <= at_ms).or(expected.first()).copied();
            expected = newest.into_iter().collect();
        }
        assert_eq!(found, expected);
        for hit in found {
            self.compare(hit.arrival);
        }
    }

    fn compare(&mut self, arrival: Arrival) {
        let mut bytes = Vec::new();
        let (time_ms, key) = self.buffer.row(&self.store, arrival, &mut bytes).unwrap();
        let row = &self.model.rows[arrival.0 as usize];
        assert_eq!((time_ms, key, &bytes), (row.time_ms, row.key, &row.bytes));
    }

    fn release(&mut self, below_ms: i64) {
        let mut released = Vec::new();
        while let Some(hit) = self.buffer.due(&self.store, below_ms).unwrap() {
            self.buffer.take_due();
            self.compare(hit.arrival);
            released.push(hit);
        }
        assert_eq!(released, self.waiting_below(below_ms));
        for hit in released {
            self.model.rows[hit.arrival.0 as usize].waits = false;
        }
    }

    fn close(&mut self) {
        let expected = self.waiting_below(i64::MAX);
        let mut closed = Vec::new();
        while let Some(hit) = self.buffer.due(&self.store, i64::MAX).unwrap() {
            self.buffer.take_closed();
            closed.push(hit);
        }
        self.buffer.close();
        assert_eq!(closed, expected);
        for hit in closed {
            let row = &mut self.model.rows[hit.arrival.0 as usize];
            (row.waits, row.is_gone) = (false, true);
        }
    }

    fn waiting_below(&self, below_ms: i64) -> Vec<Hit> {
        let rows = self.model.rows.iter().enumerate();
        let mut waiting: Vec<Hit> = rows
            .filter(|(_, row)| row.waits && row.time_ms < below_ms)
            .map(|(at, row)| Hit { time_ms: row.time_ms, arrival: Arrival(at as u64) })
            .collect();
        waiting.sort();
        waiting
    }

    /// Everything older than a while is released, then it may go.
    fn seal(&mut self) {
        let newest_ms = self.model.rows.iter().map(|row| row.time_ms).max().unwrap_or(0);
        let kept_from_ms = self.model.kept_from_ms.unwrap_or(i64::MIN).max(newest_ms - 45);
        self.release(kept_from_ms);
        self.model.kept_from_ms = Some(kept_from_ms);
        let mut batch = WriteBatch::default();
        self.buffer.seal(kept_from_ms, &mut batch);
        self.sealed.push_back((batch, self.model.clone()));
    }
}

/// Spread as hashes are.
fn key_of(key: u8) -> u128 {
    xxhash_rust::xxh3::xxh3_128(&[key])
}

fn size() -> impl Strategy<Value = SegmentSize> {
    (1u32..80, 1usize..200, 1u32..6).prop_map(|(rows_max, bytes_max, chunk_rows)| SegmentSize {
        rows_max,
        bytes_max,
        chunk_rows,
    })
}

proptest! {
    #[test]
    fn a_buffer_answers_as_a_list_would(size in size(), acts in prop::collection::vec(act(), 0..160)) {
        let mut run = Run::new(size);
        acts.iter().for_each(|act| run.take(act));
    }
}

fn stored(rows: usize, size: SegmentSize) -> (MemoryStore, Buffer) {
    let store = MemoryStore::new();
    let mut buffer = Buffer::open(&store, TASK, 1, 0, size).unwrap();
    for row in 0..rows {
        buffer.append(key_of(row as u8), row as i64, b"row", true);
        let mut batch = WriteBatch::default();
        buffer.seal(i64::MIN, &mut batch);
        store.write(&batch).unwrap();
        buffer.stored();
    }
    (store, buffer)
}

const SMALL: SegmentSize = SegmentSize { rows_max: 4, bytes_max: 1 << 20, chunk_rows: 2 };

fn keys(store: &MemoryStore) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    store
        .scan(Table::Buffer, &[], &[255; 32], &mut |key, _| {
            keys.push(key.to_vec());
            true
        })
        .unwrap();
    keys
}

#[test]
fn what_nobody_will_ask_for_leaves_nothing_behind_but_the_manifest() {
    let (store, mut buffer) = stored(11, SMALL);
    assert!(keys(&store).len() > 9);
    while buffer.due(&store, 100).unwrap().is_some() {
        buffer.take_due();
    }
    let mut batch = WriteBatch::default();
    buffer.seal(100, &mut batch);
    store.write(&batch).unwrap();
    buffer.stored();
    assert_eq!(keys(&store), [Prefix::new(TASK, 1, 0).manifest().to_vec()]);
    let mut reopened = Buffer::open(&store, TASK, 1, 0, SMALL).unwrap();
    assert_eq!(reopened.append(1, 100, b"", false), Arrival(11));
}

#[test]
fn a_row_that_was_settled_before_its_segment_came_due_waits_again_when_that_is_taken_back() {
    let (store, _) = stored(7, SMALL);
    let mut buffer = Buffer::open(&store, TASK, 1, 0, SMALL).unwrap();
    let mark = buffer.mark();
    buffer.settle(Arrival(1));
    let released = |buffer: &mut Buffer| {
        let mut released = vec![];
        while let Some(hit) = buffer.due(&store, 3).unwrap() {
            buffer.take_due();
            released.push(hit.arrival.0);
        }
        released
    };
    assert_eq!(released(&mut buffer), [0, 2]);
    buffer.rollback(mark);
    assert_eq!(released(&mut buffer), [0, 1, 2]);
}

#[test]
fn each_segment_goes_with_one_deletion() {
    let (_, mut buffer) = stored(11, SMALL);
    while buffer.due(&MemoryStore::new(), i64::MIN).unwrap().is_some() {}
    let mut batch = WriteBatch::default();
    buffer.seal(8, &mut batch);
    let deletions =
        batch.changes.iter().filter(|change| matches!(change, crate::state::Change::DeleteRange { .. })).count();
    assert_eq!((deletions, batch.changes.len()), (2, 3), "two segments and the manifest");
}

#[test]
fn a_row_is_written_once_but_for_the_last_page() {
    let store = MemoryStore::new();
    let mut buffer = Buffer::open(&store, TASK, 1, 0, SegmentSize::within(1 << 20)).unwrap();
    let mut pages = 0;
    for epoch in 0..10 {
        for row in 0..100 {
            buffer.append(row, epoch, &[7; 50], false);
        }
        let mut batch = WriteBatch::default();
        buffer.seal(i64::MIN, &mut batch);
        buffer.stored();
        pages += batch.changes.len() - 1;
    }
    assert!(pages <= 1000 / PAGE_ROWS as usize + 10 + 1, "{pages} pages for 1000 rows in 10 epochs");
}

#[test]
fn what_is_damaged_or_gone_is_corrupt() {
    let (store, _) = stored(7, SMALL);
    for key in keys(&store) {
        for value in [None, Some(vec![]), Some(vec![9, 9, 9])] {
            let (store, _) = stored(7, SMALL);
            let mut batch = WriteBatch::default();
            match value {
                Some(value) => batch.put(Table::Buffer, key.clone(), value),
                None => batch.delete(Table::Buffer, key.clone()),
            }
            store.write(&batch).unwrap();
            // Without the manifest it is an empty buffer; bits that are not there are rows that do not wait.
            let is_silent = key[15] == Part::Manifest as u8 || key[15] == Part::Waiting as u8;
            let outcome = read_all(&store);
            match outcome {
                Err(error) => assert!(["corrupt", "newer"].contains(&error.code.as_str()), "{error}"),
                Ok(()) => assert!(is_silent || keys(&store).contains(&key) && key[15] == Part::Index as u8, "{key:?}"),
            }
        }
    }
}

/// Opens the buffer and looks at every row.
fn read_all(store: &MemoryStore) -> Result<()> {
    let mut buffer = Buffer::open(store, TASK, 1, 0, SMALL)?;
    let (mut ahead, mut hits) = (Ahead::default(), Vec::new());
    for row in 0..7 {
        let probe = Probe { key: key_of(row), from_ms: 0, to_ms: 10, take: Take::All };
        buffer.look_ahead(store, &[probe], &mut ahead)?;
        buffer.find(&ahead, 0, &probe, &mut hits);
        for hit in &hits {
            buffer.row(store, hit.arrival, &mut Vec::new())?;
        }
    }
    while buffer.due(store, 100)?.is_some() {
        buffer.take_due();
    }
    Ok(())
}
