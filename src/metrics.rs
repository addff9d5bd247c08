//! What weir counts, and how it is shown: one [`PipelineStats`] per pipeline, published to Prometheus on demand.
//!
//! Owns the numbers. Workers add per batch, never per record; a scrape copies them into the recorder. Counters
//! count since the process started. No label carries a key, an offset or a message text.

use crate::error::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Why an epoch was sealed: the label `why`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealedWhy {
    Rows,
    Bytes,
    Age,
    End,
}

impl SealedWhy {
    const NAMES: [&'static str; 4] = ["rows", "bytes", "age", "end"];
}

/// The kind of a step: decides what its dropped rows are called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepKind {
    Filter,
    Select,
    Dedup,
    Join,
}

/// One step's rows: in = out + dropped + unjudged + dead letters.
#[derive(Debug)]
pub struct StepStats {
    /// As in [`StepName`].
    pub name: String,
    pub kind: StepKind,
    pub rows_in: AtomicU64,
    pub rows_out: AtomicU64,
    pub dropped: AtomicU64,
    /// What a dedup dropped and did not judge: without a key, or late.
    pub unjudged: AtomicU64,
    pub late: AtomicU64,
    /// Pairs of a join, and rows that it sent alone.
    pub matched: AtomicU64,
    pub unmatched: AtomicU64,
    /// Left rows of a join that met somebody, and those of which it is known whether they do.
    pub left_matched: AtomicU64,
    pub left_decided: AtomicU64,
}

/// A step as it is named: its place in the written list, from 0; a step of a right side is `1.0`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepName {
    pub name: String,
    pub kind: StepKind,
}

/// One topic's records.
#[derive(Debug)]
pub struct TopicStats {
    pub topic: String,
    pub records: AtomicU64,
    pub bytes: AtomicU64,
}

/// How far one topic's partition is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PartitionLag {
    /// Next offset to process.
    pub offset: i64,
    /// The readable end.
    pub end: i64,
}

/// What is said about one task, a few times a second.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TaskSnapshot {
    /// Per topic.
    pub lags: Vec<PartitionLag>,
    /// `i64::MIN` before the first record.
    pub watermark_ms: i64,
    pub outbox_blocks: u64,
    pub outbox_bytes: u64,
    /// The last acknowledged epoch.
    pub acknowledged: u64,
    pub restoring: bool,
    /// Per step: about how many keys it remembers; 0 for a step without memory.
    pub state_keys: Vec<u64>,
    /// Per join.
    pub joins: Vec<JoinSnapshot>,
}

/// What waits in a join.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct JoinSnapshot {
    /// Its place among the steps.
    pub step: usize,
    pub rows: u64,
    /// The event time of the oldest row, or earlier.
    pub oldest_ms: Option<i64>,
}

/// Where a pipeline is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PipelineState {
    Starting,
    Restoring,
    Running,
    Failed,
    Stopped,
}

impl PipelineState {
    pub fn name(self) -> &'static str {
        match self {
            PipelineState::Starting => "starting",
            PipelineState::Restoring => "restoring",
            PipelineState::Running => "running",
            PipelineState::Failed => "failed",
            PipelineState::Stopped => "stopped",
        }
    }
}

/// Things that change rarely: behind one lock, never taken per record.
#[derive(Debug, Default)]
struct Rare {
    dead_letters: BTreeMap<(String, &'static str), u64>,
    insert_retries: BTreeMap<String, u64>,
    commits: BTreeMap<&'static str, u64>,
    recoveries: BTreeMap<&'static str, u64>,
    tasks: BTreeMap<i32, TaskSnapshot>,
    state_bytes: BTreeMap<&'static str, u64>,
    last_error: Option<String>,
    state: Option<PipelineState>,
    /// Partitions that a scrape has shown.
    shown: BTreeSet<i32>,
    /// By topic.
    partitioners: BTreeMap<String, &'static str>,
    /// By join step and code: what speaks against the way its topics lie.
    join_doubts: BTreeMap<(usize, &'static str), String>,
    /// By dedup step: that the same key came through two partitions.
    scattered: BTreeMap<usize, String>,
}

/// A histogram small enough to read quantiles from: bucket bounds double from 100 µs.
#[derive(Debug)]
pub struct Quantiles {
    buckets: [AtomicU64; Self::BUCKETS],
    count: AtomicU64,
}

impl Default for Quantiles {
    fn default() -> Self {
        Quantiles { buckets: [const { AtomicU64::new(0) }; Self::BUCKETS], count: AtomicU64::new(0) }
    }
}

impl Quantiles {
    const BUCKETS: usize = 128;
    /// Four buckets per doubling.
    const STEPS: f64 = 4.0;
    const FIRST_SECONDS: f64 = 1e-4;

    pub fn record(&self, seconds: f64, count: u64) {
        let place = ((seconds / Self::FIRST_SECONDS).max(1.0).log2() * Self::STEPS).ceil() as usize;
        self.buckets[place.min(Self::BUCKETS - 1)].fetch_add(count, Relaxed);
        self.count.fetch_add(count, Relaxed);
    }

    /// The upper bound of the bucket that holds this quantile, in seconds; 0 without values.
    pub fn quantile(&self, share: f64) -> f64 {
        let total = self.count.load(Relaxed);
        let wanted = ((total as f64) * share).ceil() as u64;
        let mut seen = 0;
        for (place, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if total > 0 && seen >= wanted.max(1) {
                return Self::FIRST_SECONDS * (place as f64 / Self::STEPS).exp2();
            }
        }
        0.0
    }
}

/// Everything counted for one pipeline.
#[derive(Debug)]
pub struct PipelineStats {
    pub pipeline: String,
    pub table: String,
    pub topics: Vec<TopicStats>,
    pub steps: Vec<StepStats>,
    pub tombstones: AtomicU64,
    /// Top-level fields of payloads that nothing names.
    pub extra_fields: AtomicU64,
    pub rows_written: AtomicU64,
    pub sealed: [AtomicU64; 4],
    pub blocks_acknowledged: AtomicU64,
    pub blocks_discarded: AtomicU64,
    pub rows_sealed: AtomicU64,
    pub blocks_sealed: AtomicU64,
    pub rebalances: AtomicU64,
    pub processing: Quantiles,
    pub inserts: Quantiles,
    pub latency: Quantiles,
    pub stores: Quantiles,
    processing_histogram: metrics::Histogram,
    insert_histogram: metrics::Histogram,
    latency_histogram: metrics::Histogram,
    store_histogram: metrics::Histogram,
    block_rows_histogram: metrics::Histogram,
    rare: Mutex<Rare>,
}

impl StepStats {
    /// Of a step among others: what it did since.
    pub fn add_rows(&self, rows_in: u64, rows_out: u64, dropped: u64, unjudged: u64, late: u64) {
        self.rows_in.fetch_add(rows_in, Relaxed);
        self.rows_out.fetch_add(rows_out, Relaxed);
        self.dropped.fetch_add(dropped, Relaxed);
        self.unjudged.fetch_add(unjudged, Relaxed);
        self.late.fetch_add(late, Relaxed);
    }

    /// Of a join.
    pub fn add_pairs(&self, matched: u64, unmatched: u64, left_matched: u64, left_decided: u64) {
        self.matched.fetch_add(matched, Relaxed);
        self.unmatched.fetch_add(unmatched, Relaxed);
        self.left_matched.fetch_add(left_matched, Relaxed);
        self.left_decided.fetch_add(left_decided, Relaxed);
    }
}

impl PipelineStats {
    pub fn new(pipeline: &str, table: &str, topics: &[String], steps: &[StepName]) -> Arc<PipelineStats> {
        let label = pipeline.to_owned();
        let topic = |topic: &String| TopicStats {
            topic: topic.clone(),
            records: Default::default(),
            bytes: Default::default(),
        };
        let step = |step: &StepName| StepStats {
            name: step.name.clone(),
            kind: step.kind,
            rows_in: Default::default(),
            rows_out: Default::default(),
            dropped: Default::default(),
            unjudged: Default::default(),
            late: Default::default(),
            matched: Default::default(),
            unmatched: Default::default(),
            left_matched: Default::default(),
            left_decided: Default::default(),
        };
        Arc::new(PipelineStats {
            pipeline: label.clone(),
            table: table.to_owned(),
            topics: topics.iter().map(topic).collect(),
            steps: steps.iter().map(step).collect(),
            tombstones: Default::default(),
            extra_fields: Default::default(),
            rows_written: Default::default(),
            sealed: Default::default(),
            blocks_acknowledged: Default::default(),
            blocks_discarded: Default::default(),
            rows_sealed: Default::default(),
            blocks_sealed: Default::default(),
            rebalances: Default::default(),
            processing: Default::default(),
            inserts: Default::default(),
            latency: Default::default(),
            stores: Default::default(),
            processing_histogram: metrics::histogram!("weir_processing_seconds", "pipeline" => label.clone()),
            insert_histogram: metrics::histogram!("weir_insert_seconds", "pipeline" => label.clone()),
            latency_histogram: metrics::histogram!("weir_latency_seconds", "pipeline" => label.clone()),
            store_histogram: metrics::histogram!("weir_store_seconds", "pipeline" => label.clone()),
            block_rows_histogram: metrics::histogram!("weir_block_rows", "pipeline" => label),
            rare: Mutex::default(),
        })
    }

    fn rare(&self) -> MutexGuard<'_, Rare> {
        self.rare.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// One pass went from the client's queue into a block that is stored.
    pub fn processed(&self, took: Duration) {
        self.processing.record(took.as_secs_f64(), 1);
        self.processing_histogram.record(took.as_secs_f64());
    }

    /// An epoch was sealed with blocks of that many rows.
    pub fn sealed(&self, why: SealedWhy, blocks: impl Iterator<Item = u64>) {
        for rows in blocks {
            self.sealed[why as usize].fetch_add(1, Relaxed);
            self.blocks_sealed.fetch_add(1, Relaxed);
            self.rows_sealed.fetch_add(rows, Relaxed);
            self.block_rows_histogram.record(rows as f64);
        }
    }

    /// A synced write took that long.
    pub fn stored(&self, took: Duration) {
        self.stores.record(took.as_secs_f64(), 1);
        self.store_histogram.record(took.as_secs_f64());
    }

    /// A block was acknowledged by its table.
    pub fn acknowledged(&self, insert_seconds: f64) {
        self.blocks_acknowledged.fetch_add(1, Relaxed);
        self.inserts.record(insert_seconds, 1);
        self.insert_histogram.record(insert_seconds);
    }

    /// A block was taken out of the outbox by hand.
    pub fn discarded(&self) {
        self.blocks_discarded.fetch_add(1, Relaxed);
    }

    /// Rows are in their table; the records of the epoch were between these ages (in seconds).
    pub fn written(&self, rows: u64, ages_seconds: Option<(f64, f64)>) {
        self.rows_written.fetch_add(rows, Relaxed);
        let Some((oldest, newest)) = ages_seconds else { return };
        self.latency.record(oldest, rows.div_ceil(2));
        self.latency.record(newest, rows / 2);
        self.latency_histogram.record(oldest);
        self.latency_histogram.record(newest);
    }

    pub fn attempt_failed(&self, error: &Error) {
        *self.rare().insert_retries.entry(error.code.clone()).or_default() += 1;
        self.failed_with(error.message.clone());
    }

    /// Remembers the last thing that went wrong.
    pub fn failed_with(&self, message: String) {
        self.rare().last_error = Some(message);
    }

    /// What went wrong is mended.
    pub fn forget_error(&self) {
        self.rare().last_error = None;
    }

    pub fn dead_letter(&self, step: &str, reason: &'static str, count: u64) {
        *self.rare().dead_letters.entry((step.to_owned(), reason)).or_default() += count;
    }

    pub fn committed(&self, result: &'static str) {
        *self.rare().commits.entry(result).or_default() += 1;
    }

    /// A row of the table of start and hand-over was taken.
    pub fn recovered(&self, case: &'static str) {
        *self.rare().recoveries.entry(case).or_default() += 1;
    }

    pub fn set_task(&self, partition: i32, snapshot: TaskSnapshot) {
        self.rare().tasks.insert(partition, snapshot);
    }

    pub fn forget_task(&self, partition: i32) {
        self.rare().tasks.remove(&partition);
    }

    /// Of a run that is over.
    pub fn forget_tasks(&self) {
        self.rare().tasks.clear();
    }

    /// How the keys of a topic came to their partitions.
    pub fn set_partitioner(&self, topic: &str, partitioner: &'static str) {
        self.rare().partitioners.insert(topic.to_owned(), partitioner);
    }

    /// Something speaks against the way the topics of a join lie.
    pub fn doubt_join(&self, step: usize, code: &'static str, message: String) {
        self.rare().join_doubts.insert((step, code), message);
    }

    /// The same key of a dedup step came through two partitions.
    pub fn scattered(&self, step: usize, message: String) {
        self.rare().scattered.insert(step, message);
    }

    /// What speaks against the way the keys of a dedup step lie.
    pub fn dedup_doubts(&self, step: usize) -> Vec<String> {
        self.rare().scattered.get(&step).cloned().into_iter().collect()
    }

    /// What speaks against a join.
    pub fn join_doubts(&self, step: usize) -> Vec<String> {
        let rare = self.rare();
        rare.join_doubts.iter().filter(|((of, _), _)| *of == step).map(|(_, message)| message.clone()).collect()
    }

    pub fn set_state(&self, state: PipelineState) {
        self.rare().state = Some(state);
    }

    pub fn state(&self) -> PipelineState {
        let rare = self.rare();
        let state = rare.state.unwrap_or(PipelineState::Starting);
        let restoring = state == PipelineState::Running && rare.tasks.values().any(|task| task.restoring);
        if restoring { PipelineState::Restoring } else { state }
    }

    pub fn last_error(&self) -> Option<String> {
        self.rare().last_error.clone()
    }

    pub fn tasks(&self) -> BTreeMap<i32, TaskSnapshot> {
        self.rare().tasks.clone()
    }

    pub fn dead_letters(&self) -> BTreeMap<(String, &'static str), u64> {
        self.rare().dead_letters.clone()
    }

    pub fn insert_retries(&self) -> u64 {
        self.rare().insert_retries.values().sum()
    }

    pub fn recoveries(&self) -> BTreeMap<&'static str, u64> {
        self.rare().recoveries.clone()
    }

    /// Bytes of state by table, as last looked at.
    pub fn state_bytes(&self) -> BTreeMap<&'static str, u64> {
        self.rare().state_bytes.clone()
    }

    pub fn set_state_bytes(&self, table: &'static str, bytes: u64) {
        self.rare().state_bytes.insert(table, bytes);
    }

    pub fn records_read(&self) -> u64 {
        self.topics.iter().map(|topic| topic.records.load(Relaxed)).sum()
    }

    /// Records between what was processed and the readable end, over all tasks.
    pub fn lag_records(&self) -> u64 {
        let rare = self.rare();
        let lags = rare.tasks.values().flat_map(|task| &task.lags);
        lags.map(|lag| (lag.end - lag.offset).max(0) as u64).sum()
    }

    /// Copies every number into the Prometheus recorder.
    pub fn publish(&self) {
        let pipeline = || self.pipeline.clone();
        for topic in &self.topics {
            let labels = [("pipeline", pipeline()), ("topic", topic.topic.clone())];
            metrics::counter!("weir_records_read_total", &labels).absolute(topic.records.load(Relaxed));
            metrics::counter!("weir_bytes_read_total", &labels).absolute(topic.bytes.load(Relaxed));
        }
        metrics::counter!("weir_rows_written_total", "pipeline" => pipeline(), "table" => self.table.clone())
            .absolute(self.rows_written.load(Relaxed));
        for step in &self.steps {
            let labels = [("pipeline", pipeline()), ("step", step.name.clone())];
            match step.kind {
                StepKind::Filter => {
                    metrics::counter!("weir_rows_filtered_total", &labels).absolute(step.dropped.load(Relaxed));
                }
                StepKind::Dedup => {
                    metrics::counter!("weir_rows_duplicate_total", &labels).absolute(step.dropped.load(Relaxed));
                    metrics::counter!("weir_rows_late_total", &labels).absolute(step.late.load(Relaxed));
                }
                StepKind::Join => {
                    metrics::counter!("weir_rows_late_total", &labels).absolute(step.late.load(Relaxed));
                    let outcomes =
                        [("matched", &step.matched), ("unmatched", &step.unmatched), ("dropped", &step.dropped)];
                    for (outcome, count) in outcomes {
                        let labels =
                            [("pipeline", pipeline()), ("step", step.name.clone()), ("outcome", outcome.to_owned())];
                        metrics::counter!("weir_join_rows_total", &labels).absolute(count.load(Relaxed));
                    }
                }
                StepKind::Select => {}
            }
        }
        metrics::counter!("weir_extra_fields_total", "pipeline" => pipeline())
            .absolute(self.extra_fields.load(Relaxed));
        for (why, count) in SealedWhy::NAMES.iter().zip(&self.sealed) {
            metrics::counter!("weir_blocks_sealed_total", "pipeline" => pipeline(), "why" => *why)
                .absolute(count.load(Relaxed));
        }
        metrics::counter!("weir_blocks_acknowledged_total", "pipeline" => pipeline())
            .absolute(self.blocks_acknowledged.load(Relaxed));
        metrics::counter!("weir_blocks_discarded_total", "pipeline" => pipeline())
            .absolute(self.blocks_discarded.load(Relaxed));
        metrics::counter!("weir_rebalances_total", "pipeline" => pipeline()).absolute(self.rebalances.load(Relaxed));
        self.publish_rare();
    }

    /// A recorder forgets nothing: of a partition that went to somebody else it would show the last lag for ever, and an
    /// alarm with it.
    fn take_back_gone(&self, rare: &mut Rare) {
        let now: BTreeSet<i32> = rare.tasks.keys().copied().collect();
        let before = std::mem::replace(&mut rare.shown, now);
        for partition in before.difference(&rare.shown) {
            let (pipeline, partition) = (|| self.pipeline.clone(), partition.to_string());
            for topic in &self.topics {
                let labels =
                    [("pipeline", pipeline()), ("topic", topic.topic.clone()), ("partition", partition.clone())];
                metrics::gauge!("weir_lag_records", &labels).set(0.0);
            }
            let labels = [("pipeline", pipeline()), ("partition", partition)];
            metrics::gauge!("weir_watermark_timestamp_seconds", &labels).set(f64::NAN);
        }
    }

    fn publish_rare(&self) {
        let state = self.state();
        let mut rare = self.rare();
        self.take_back_gone(&mut rare);
        let pipeline = || self.pipeline.clone();
        for ((step, reason), count) in &rare.dead_letters {
            let labels = [("pipeline", pipeline()), ("step", step.clone()), ("reason", (*reason).to_owned())];
            metrics::counter!("weir_dead_letters_total", &labels).absolute(*count);
        }
        for (code, count) in &rare.insert_retries {
            metrics::counter!("weir_insert_retries_total", "pipeline" => pipeline(), "code" => code.clone())
                .absolute(*count);
        }
        for (result, count) in &rare.commits {
            metrics::counter!("weir_commits_total", "pipeline" => pipeline(), "result" => *result).absolute(*count);
        }
        for (case, count) in &rare.recoveries {
            metrics::counter!("weir_recoveries_total", "pipeline" => pipeline(), "case" => *case).absolute(*count);
        }
        for (partition, task) in &rare.tasks {
            for (topic, lag) in self.topics.iter().zip(&task.lags) {
                let labels =
                    [("pipeline", pipeline()), ("topic", topic.topic.clone()), ("partition", partition.to_string())];
                metrics::gauge!("weir_lag_records", &labels).set((lag.end - lag.offset).max(0) as f64);
            }
            if task.watermark_ms != i64::MIN {
                let labels = [("pipeline", pipeline()), ("partition", partition.to_string())];
                metrics::gauge!("weir_watermark_timestamp_seconds", &labels).set(task.watermark_ms as f64 / 1000.0);
            }
        }
        let sum = |number: fn(&TaskSnapshot) -> u64| rare.tasks.values().map(number).sum::<u64>() as f64;
        metrics::gauge!("weir_outbox_blocks", "pipeline" => pipeline()).set(sum(|task| task.outbox_blocks));
        metrics::gauge!("weir_outbox_bytes", "pipeline" => pipeline()).set(sum(|task| task.outbox_bytes));
        for (family, bytes) in &rare.state_bytes {
            metrics::gauge!("weir_state_bytes", "pipeline" => pipeline(), "family" => *family).set(*bytes as f64);
        }
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| step.kind == StepKind::Dedup) {
            let keys: u64 = rare.tasks.values().filter_map(|task| task.state_keys.get(place)).sum();
            metrics::gauge!("weir_state_keys_estimate", "pipeline" => pipeline(), "step" => step.name.clone())
                .set(keys as f64);
        }
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| step.kind == StepKind::Join) {
            let joins = rare.tasks.values().flat_map(|task| &task.joins).filter(|join| join.step == place);
            let rows: u64 = joins.clone().map(|join| join.rows).sum();
            let labels = [("pipeline", pipeline()), ("step", step.name.clone())];
            metrics::gauge!("weir_join_waiting_rows", &labels).set(rows as f64);
            // A recorder forgets nothing: where nobody waits any more, that has to be said.
            let oldest_ms = joins.filter_map(|join| join.oldest_ms).min();
            let oldest_seconds = oldest_ms.map_or(f64::NAN, |ms| ms as f64 / 1000.0);
            metrics::gauge!("weir_join_oldest_waiting_timestamp_seconds", &labels).set(oldest_seconds);
        }
        for (topic, partitioner) in &rare.partitioners {
            let labels =
                [("pipeline", pipeline()), ("topic", topic.clone()), ("partitioner", (*partitioner).to_owned())];
            metrics::gauge!("weir_topic_partitioner_info", &labels).set(1.0);
        }
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| step.kind == StepKind::Dedup) {
            let is_scattered = rare.scattered.contains_key(&place);
            metrics::gauge!("weir_scattered_keys", "pipeline" => pipeline(), "step" => step.name.clone())
                .set(f64::from(u8::from(is_scattered)));
        }
        for (step, code) in rare.join_doubts.keys() {
            let labels = [("pipeline", pipeline()), ("step", step.to_string()), ("reason", (*code).to_owned())];
            metrics::gauge!("weir_join_doubts", &labels).set(1.0);
        }
        use PipelineState::*;
        for known in [Starting, Restoring, Running, Failed, Stopped] {
            let up = if known == state { 1.0 } else { 0.0 };
            metrics::gauge!("weir_pipeline_up", "pipeline" => pipeline(), "state" => known.name()).set(up);
        }
    }
}
