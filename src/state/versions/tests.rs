//! A table against a list of all its versions, and what one more costs.

use super::*;
use crate::state::Change;
use crate::state::memory::MemoryStore;
use proptest::prelude::*;

const KEY: u128 = 7;

fn open() -> Versions {
    Versions::new(TaskNo(3), 1)
}

/// All versions of one key, in the order of (time, arrival).
#[derive(Clone, Default)]
struct Model(Vec<(i64, Option<Vec<u8>>)>);

impl Model {
    fn kept(&self, watermark_ms: i64) -> &[(i64, Option<Vec<u8>>)] {
        let needless = self.0.iter().filter(|(at_ms, _)| *at_ms <= watermark_ms).count().saturating_sub(1);
        &self.0[needless..]
    }

    fn add(&mut self, time_ms: i64, row: Option<Vec<u8>>, watermark_ms: i64) -> Added {
        let newest = self.0.iter().rfind(|(at_ms, _)| *at_ms <= watermark_ms);
        if newest.is_some_and(|(newest_ms, _)| *newest_ms > time_ms) {
            return Added::Outdated;
        }
        let added = if self.0.is_empty() { Added::First } else { Added::Further };
        let at = self.0.partition_point(|(at_ms, _)| *at_ms <= time_ms);
        self.0.insert(at, (time_ms, row));
        added
    }

    fn valid_at(&self, time_ms: i64, kept: &[(i64, Option<Vec<u8>>)], or_oldest: bool) -> (Valid, Option<Vec<u8>>) {
        let newest = kept.iter().rfind(|(at_ms, _)| *at_ms <= time_ms);
        match newest.or(kept.first().filter(|_| or_oldest)) {
            None => (Valid::Nothing, None),
            Some((_, None)) => (Valid::Deleted, None),
            Some((_, row)) => (Valid::Row, row.clone()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// A version so much behind the last one's time, with a row of this length; 255: a deletion.
    Add(i64, u8),
    /// Some versions, for nothing.
    Undone(u8),
    Watermark(i64),
    Seal,
    Store,
    Crash,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        30 => (-6i64..12, any::<u8>()).prop_map(|(step_ms, len)| Act::Add(step_ms, len)),
        2 => (1u8..40).prop_map(Act::Undone),
        1 => (0i64..60).prop_map(Act::Watermark),
        3 => Just(Act::Seal),
        2 => Just(Act::Store),
        1 => Just(Act::Crash),
    ];
    prop::collection::vec(act, 0..250)
}

struct Tried {
    table: Versions,
    model: Model,
    time_ms: i64,
    watermark_ms: i64,
}

impl Tried {
    fn add(&mut self, store: &dyn StateStore, step_ms: i64, row: Option<Vec<u8>>) -> Result<(), TestCaseError> {
        let time_ms = self.time_ms + step_ms;
        self.time_ms = self.time_ms.max(time_ms);
        self.table.look_ahead(store, &[KEY]).unwrap();
        let added = self.table.add(store, KEY, time_ms, row.as_deref(), self.watermark_ms).unwrap();
        prop_assert_eq!(added, self.model.add(time_ms, row, self.watermark_ms));
        Ok(())
    }

    fn agrees(&mut self, store: &dyn StateStore) -> Result<(), TestCaseError> {
        self.table.look_ahead(store, &[KEY]).unwrap();
        for time_ms in self.watermark_ms.max(-20) - 8..=self.time_ms + 1 {
            for or_oldest in [false, true] {
                let mut row = vec![];
                let kept_at_ms = Some(self.watermark_ms);
                let valid = self.table.valid_at(store, KEY, time_ms, kept_at_ms, or_oldest, &mut row).unwrap();
                let kept = self.model.kept(self.watermark_ms);
                let expected = self.model.valid_at(time_ms, kept, or_oldest);
                let row = (valid == Valid::Row).then_some(row);
                prop_assert_eq!((valid, row), expected, "at {}, watermark {}", time_ms, self.watermark_ms);
            }
        }
        // Who has waited for his time looks at all of them.
        for time_ms in self.watermark_ms.max(-20)..=self.time_ms {
            let mut row = vec![];
            let valid = self.table.valid_at(store, KEY, time_ms, None, false, &mut row).unwrap();
            let row = (valid == Valid::Row).then_some(row);
            prop_assert_eq!((valid, row), self.model.valid_at(time_ms, &self.model.0, false));
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_key_has_the_versions_that_were_added_however_many_they_are(acts in acts()) {
        let store = MemoryStore::new();
        let mut tried = Tried { table: open(), model: Model::default(), time_ms: 0, watermark_ms: i64::MIN };
        let mut sealed = std::collections::VecDeque::new();
        let mut stored = (Model::default(), 0, i64::MIN);
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Add(step_ms, 255) => tried.add(&store, step_ms, None)?,
                Act::Add(step_ms, len) => {
                    // Now and then a large one.
                    let len = if len == 254 { 5_000 } else { len as usize };
                    tried.add(&store, step_ms, Some(vec![number as u8; len]))?;
                }
                Act::Undone(count) => {
                    let (mark, model, time_ms) = (tried.table.mark(), tried.model.clone(), tried.time_ms);
                    let bytes = tried.table.bytes();
                    for step_ms in 0..count as i64 {
                        tried.add(&store, step_ms % 3 - 1, Some(vec![0; 9]))?;
                    }
                    tried.table.rollback(mark);
                    (tried.model, tried.time_ms) = (model, time_ms);
                    prop_assert_eq!(tried.table.bytes(), bytes);
                }
                Act::Watermark(by_ms) => tried.watermark_ms = tried.watermark_ms.max(tried.time_ms - 30 + by_ms),
                Act::Seal => {
                    let mut batch = WriteBatch::default();
                    tried.table.seal(&mut batch);
                    sealed.push_back((batch, (tried.model.clone(), tried.time_ms, tried.watermark_ms)));
                }
                Act::Store => {
                    if let Some((batch, moment)) = sealed.pop_front() {
                        store.write(&batch).unwrap();
                        tried.table.stored();
                        stored = moment;
                    }
                }
                Act::Crash => {
                    sealed.clear();
                    tried.table = open();
                    (tried.model, tried.time_ms, tried.watermark_ms) = stored.clone();
                }
            }
        }
        tried.agrees(&store)?;
        while let Some((batch, _)) = sealed.pop_front() {
            store.write(&batch).unwrap();
            tried.table.stored();
        }
        let mut batch = WriteBatch::default();
        tried.table.seal(&mut batch);
        store.write(&batch).unwrap();
        tried.table.stored();
        prop_assert_eq!(tried.table.bytes(), 0);
        tried.agrees(&store)?;
        // What the watermark has made needless goes with the next version.
        tried.add(&store, 1, None)?;
        tried.watermark_ms = tried.time_ms;
        tried.add(&store, 1, None)?;
        let mut batch = WriteBatch::default();
        tried.table.seal(&mut batch);
        store.write(&batch).unwrap();
        let mut left = 0;
        store.scan(Table::Buffer, &[], &[u8::MAX; 40], &mut |_, _| { left += 1; true }).unwrap();
        prop_assert_eq!(left, 1, "the value of the key, and nothing beside it");
    }
}

#[test]
fn another_version_costs_as_much_as_the_first_however_many_there_are() {
    let store = MemoryStore::new();
    let mut table = open();
    let row = [1; 100];
    for time_ms in 0..20_000 {
        table.look_ahead(&store, &[KEY]).unwrap();
        table.add(&store, KEY, time_ms, Some(&row), i64::MIN).unwrap();
        let mut batch = WriteBatch::default();
        table.seal(&mut batch);
        store.write(&batch).unwrap();
        table.stored();
        assert!(batch.bytes() < 3_000, "{} bytes for one more after {time_ms}", batch.bytes());
        assert!(!batch.changes.iter().any(|change| matches!(change, Change::DeleteRange { .. })));
    }
}
