//! A member of a group with the simplest coordinator and worker there can be: one thread, records in a list.
//!
//! A record counts only when the commit behind it was accepted; so what the members tell together must be each
//! record once, in order, whatever the group does meanwhile.

use crate::bench::{WAIT, bootstrap};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use weir::codec::record::RecordBatch;
use weir::config::plan::{KafkaPlan, KafkaSecurity};
use weir::error::{Error, Kind};
use weir::source::kafka::{KafkaGroup, MemberOptions};
use weir::source::{CommitOutcome, FetchLimit, Group, GroupEvent, Input, OffsetsToCommit, Wake};

pub const ALL: FetchLimit = FetchLimit { records: 10_000, bytes: 8 << 20, offset_end: i64::MAX };

/// Counts the wakes.
#[derive(Default)]
pub struct Wakes(pub AtomicU64);

impl Wake for Wakes {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

pub fn plan(group: &str) -> KafkaPlan {
    let quick = [
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "200"),
        ("topic.metadata.refresh.interval.ms", "1000"),
    ];
    KafkaPlan {
        brokers: vec![bootstrap()],
        group: group.into(),
        instance_id: None,
        security: KafkaSecurity::default(),
        librdkafka: quick.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
    }
}

pub fn open(plan: &KafkaPlan, instance_id: Option<&str>, topics: &[String]) -> KafkaGroup {
    KafkaGroup::open(MemberOptions {
        kafka: plan,
        instance_id,
        topics,
        queued_bytes_per_partition: 1 << 20,
        with_headers: true,
        describe_by_broker: None,
    })
    .unwrap()
}

/// (topic, partition) → offsets and values that counted, in the order they counted.
pub type Told = Arc<Mutex<BTreeMap<(usize, i32), Vec<(i64, String)>>>>;

pub struct Member {
    pub group: KafkaGroup,
    pub inputs: BTreeMap<(usize, i32), Box<dyn Input>>,
    pub positions: BTreeMap<i32, Vec<i64>>,
    pub rebalances: usize,
    pub losses: usize,
    pub fenced: usize,
    /// Commits that were not even sent.
    pub refused: usize,
    pub fatal: Option<Error>,
    pub wakes: Arc<Wakes>,
    pub outcomes: Vec<(u64, CommitOutcome)>,
    pub ends: BTreeMap<(usize, i32), bool>,
    topics: usize,
    pending: BTreeMap<(usize, i32), Vec<(i64, String)>>,
    in_flight: Option<u64>,
    commits: u64,
    told: Told,
}

impl Member {
    pub fn join(group: &str, instance_id: Option<&str>, topics: &[String], told: &Told) -> Member {
        Member::join_with(&plan(group), instance_id, topics, told)
    }

    pub fn join_with(plan: &KafkaPlan, instance_id: Option<&str>, topics: &[String], told: &Told) -> Member {
        let mut group = open(plan, instance_id, topics);
        group.join().unwrap();
        Member {
            group,
            inputs: BTreeMap::new(),
            positions: BTreeMap::new(),
            rebalances: 0,
            losses: 0,
            fenced: 0,
            refused: 0,
            fatal: None,
            wakes: Arc::new(Wakes::default()),
            outcomes: Vec::new(),
            ends: BTreeMap::new(),
            topics: topics.len(),
            pending: BTreeMap::new(),
            in_flight: None,
            commits: 0,
            told: told.clone(),
        }
    }

    pub fn partitions(&self) -> BTreeSet<i32> {
        self.positions.keys().copied().collect()
    }

    /// Serves the group for a moment, then reads what is there.
    pub fn step(&mut self) {
        if let Some(event) = self.group.poll(Duration::from_millis(5)) {
            self.serve(event);
        }
        self.read();
    }

    pub fn run(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.step();
        }
    }

    /// Steps until the condition holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Member) -> bool) {
        let deadline = Instant::now() + WAIT;
        while !holds(self) {
            assert!(Instant::now() < deadline, "in {WAIT:?}: {what}; {self:?}");
            self.step();
        }
    }

    pub fn serve(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Assigned(partitions) => self.take(&partitions),
            GroupEvent::Revoked { partitions, lost } => self.give_back(&partitions, lost),
            GroupEvent::Committed { id, outcome } => self.answered(id, outcome),
            GroupEvent::Fatal(error) => self.fatal = Some(error),
            GroupEvent::Trouble(error) => eprintln!("trouble: {error}"),
        }
    }

    fn take(&mut self, partitions: &[i32]) {
        self.rebalances += 1;
        let committed = self.group.committed(partitions).unwrap();
        let mut starts = Vec::new();
        for (partition, committed) in partitions.iter().zip(committed) {
            let offsets: Vec<i64> = committed.offsets.iter().map(|offset| offset.unwrap_or(0)).collect();
            for topic in 0..self.topics {
                let input = self.group.input(topic, *partition, self.wakes.clone()).unwrap();
                self.inputs.insert((topic, *partition), input);
            }
            self.positions.insert(*partition, offsets.clone());
            starts.push((*partition, offsets));
        }
        self.group.assign(&starts).unwrap();
    }

    fn give_back(&mut self, partitions: &[i32], lost: bool) {
        self.rebalances += 1;
        self.losses += usize::from(lost);
        if !lost {
            self.finish_commits(partitions);
        }
        for partition in partitions {
            self.positions.remove(partition);
            self.inputs.retain(|(_, p), _| p != partition);
            self.pending.retain(|(_, p), _| p != partition);
        }
        self.group.unassign(partitions).unwrap();
    }

    /// What can still be accepted for partitions that go.
    fn finish_commits(&mut self, partitions: &[i32]) {
        let deadline = Instant::now() + Duration::from_secs(3);
        self.wait_for_answer(deadline);
        if partitions.iter().any(|partition| self.positions.contains_key(partition)) {
            self.commit();
            self.wait_for_answer(deadline);
        }
    }

    fn wait_for_answer(&mut self, deadline: Instant) {
        while self.in_flight.is_some() && Instant::now() < deadline {
            match self.group.poll(Duration::from_millis(5)) {
                Some(GroupEvent::Committed { id, outcome }) => self.answered(id, outcome),
                Some(GroupEvent::Assigned(_) | GroupEvent::Revoked { .. }) => panic!("a rebalance inside a rebalance"),
                Some(_) | None => {}
            }
        }
    }

    pub fn commit(&mut self) {
        if self.in_flight.is_some() || self.positions.is_empty() {
            return;
        }
        self.commits += 1;
        let tasks: Vec<OffsetsToCommit> = self
            .positions
            .iter()
            .map(|(partition, offsets)| OffsetsToCommit {
                partition: *partition,
                offsets: offsets.iter().copied().map(Some).collect(),
                metadata: format!("mark {}", self.commits),
            })
            .collect();
        match self.group.commit(self.commits, &tasks) {
            Ok(()) => self.in_flight = Some(self.commits),
            Err(error) => {
                assert_eq!(error.kind, Kind::Fenced, "{error}");
                self.refused += 1;
            }
        }
    }

    fn answered(&mut self, id: u64, outcome: CommitOutcome) {
        assert_eq!(self.in_flight.take(), Some(id), "answers come in order, one at a time");
        match &outcome {
            CommitOutcome::Accepted => self.count(),
            CommitOutcome::Repeat(_) => {}
            CommitOutcome::Fenced(_) => self.fenced += 1,
        }
        self.outcomes.push((id, outcome));
    }

    /// Everything read before the commit counts now. (Nothing is read while one is in flight.)
    fn count(&mut self) {
        let mut told = self.told.lock().unwrap();
        for (place, records) in std::mem::take(&mut self.pending) {
            told.entry(place).or_default().extend(records);
        }
    }

    pub fn read(&mut self) {
        if self.in_flight.is_some() {
            return;
        }
        let mut batch = RecordBatch::default();
        let mut any = false;
        for ((topic, partition), input) in &mut self.inputs {
            batch.clear();
            let fetched = input.fill(&mut batch, ALL).unwrap();
            assert_eq!(fetched.records, batch.records.len());
            let pending = self.pending.entry((*topic, *partition)).or_default();
            for record in &batch.records {
                let value = record.value.map_or("", |span| std::str::from_utf8(batch.slice(span)).unwrap());
                pending.push((record.offset, value.to_string()));
            }
            let position = &mut self.positions.get_mut(partition).unwrap()[*topic];
            assert!(fetched.offset_next >= *position, "positions never go back");
            any |= fetched.offset_next > *position;
            *position = fetched.offset_next;
            self.ends.insert((*topic, *partition), fetched.at_end);
        }
        // Also what an earlier commit was refused with goes again.
        if any || self.pending.values().any(|records| !records.is_empty()) {
            self.commit();
        }
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told: Vec<_> = self.told.lock().unwrap().iter().map(|(place, records)| (*place, records.len())).collect();
        let outcomes = &self.outcomes[self.outcomes.len().saturating_sub(3)..];
        write!(f, "at {:?}, ends {:?}, told {told:?}, {:?}, {outcomes:?}", self.positions, self.ends, self.in_flight)
    }
}

/// How many records counted.
pub fn counted(told: &Told) -> usize {
    told.lock().unwrap().values().map(Vec::len).sum()
}
