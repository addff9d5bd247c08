//! A chain with its inputs and its store, driven as a task does, without Kafka, a table or a clock.

use crate::codec::record::RecordBatch;
use crate::codec::rows::{BadRow, Field, Kind, Rows, Slot};
use crate::config::parse;
use crate::config::plan::PipelinePlan;
use crate::error::Result;
use crate::metrics::{PipelineStats, StepKind};
use crate::runtime::chain::{Chain, ChainParts, Mode, SealAt};
use crate::runtime::commit::History;
use crate::runtime::compile::{self, Blueprint, MakeBuilder};
use crate::runtime::inputs::{Found, Pass, PassLimit, TaskInput, TaskInputs};
use crate::runtime::letters::{EpochLetters, LetterBlocks, LetterTarget};
use crate::runtime::recovery::beginning;
use crate::sink::{Block, BlockBuilder, BuilderMark};
use crate::source::{FetchLimit, Fetched, Input};
use crate::state::buffer::SegmentSize;
use crate::state::ledger::{Counts, Cuts, Moment};
use crate::state::letters::{Letter, Letters};
use crate::state::memory::MemoryStore;
use crate::state::{StateStore, WriteBatch};
use crate::types::{Incarnation, TaskNo, TopicId};
use std::sync::{Arc, Mutex};

const NOTE_MS: i64 = 10_000_000;
/// A column with this text does not fit.
pub const UNFIT: &str = "unfit";

type Log = Arc<Mutex<RecordBatch>>;
type Texts = Arc<Mutex<Vec<String>>>;

struct Reader {
    log: Log,
    next: i64,
}

impl Input for Reader {
    fn fill(&mut self, batch: &mut RecordBatch, limit: FetchLimit) -> Result<Fetched> {
        let log = self.log.lock().unwrap();
        let rest = log.records[self.next as usize..].iter().filter(|record| record.offset < limit.offset_end);
        let before = self.next;
        for record in rest.take(limit.records) {
            let bytes = |span| log.slice(span);
            let (key, value) = (record.key.map(bytes), record.value.map(bytes));
            batch.push(record.offset, record.timestamp_ms, key, value, []);
            self.next = record.offset + 1;
        }
        let at_end = self.next as usize == log.records.len();
        Ok(Fetched { records: (self.next - before) as usize, offset_next: self.next, at_end })
    }

    fn end(&self) -> i64 {
        self.log.lock().unwrap().records.len() as i64
    }
}

/// Writes rows as texts, and never forgets those that were sealed.
struct TextBuilder {
    slots: Vec<Slot>,
    rows: Texts,
    sealed: usize,
}

fn shown(rows: &Rows, field: Field) -> String {
    match field.kind {
        Kind::Absent => "-".to_owned(),
        Kind::Null => "null".to_owned(),
        Kind::Int => field.as_int().to_string(),
        Kind::False | Kind::True => format!("{:?}", field.kind),
        _ => String::from_utf8(rows.text(field).to_vec()).unwrap(),
    }
}

impl BlockBuilder for TextBuilder {
    fn append(&mut self, rows: &Rows, alive: &[u32], bad: &mut Vec<BadRow>) {
        for &row in alive {
            let columns: Vec<String> = self.slots.iter().map(|slot| shown(rows, rows.field(row, *slot))).collect();
            match columns.iter().any(|column| column == UNFIT) {
                true => bad.push(BadRow { row, reason: "does_not_fit", message: columns.join(" ") }),
                false => self.rows.lock().unwrap().push(columns.join(" ")),
            }
        }
    }

    fn mark(&mut self) -> BuilderMark {
        BuilderMark(self.rows.lock().unwrap().len() as u64)
    }

    fn rollback(&mut self, mark: BuilderMark) {
        self.rows.lock().unwrap().truncate(mark.0 as usize);
    }

    fn rows(&self) -> u64 {
        (self.rows.lock().unwrap().len() - self.sealed) as u64
    }

    fn bytes(&self) -> usize {
        0
    }

    fn seal(&mut self) -> Option<Block> {
        self.sealed = self.rows.lock().unwrap().len();
        None
    }
}

/// Takes letters as `topic@offset step reason`.
struct LetterTexts(Texts);

impl LetterBlocks for LetterTexts {
    fn target(&self) -> &str {
        "letters"
    }

    fn encode(&mut self, letters: &[Letter]) -> Block {
        let text = |letter: &Letter| format!("{}@{} {} {}", letter.topic, letter.offset, letter.step, letter.reason);
        self.0.lock().unwrap().extend(letters.iter().map(text));
        Block { header: vec![], rows: letters.len() as u64, hash: [0; 16], body: Vec::new().into() }
    }
}

pub struct Driven {
    plan: PipelinePlan,
    blueprint: Blueprint,
    store: Arc<MemoryStore>,
    logs: Vec<Log>,
    inputs: TaskInputs,
    chain: Chain,
    pass: Pass,
    rows: Texts,
    letters: Texts,
    epoch: u64,
    /// So many rows were asked for.
    asked: usize,
}

impl Driven {
    /// The steps as in a file, and the columns of the table.
    pub fn new(steps: &str, columns: &'static [&'static str]) -> Driven {
        let text = format!(
            "kafka: {{ brokers: [k] }}\nclickhouse: {{ url: http://c:8123 }}\npipelines: [ {{ name: p, source: {{ \
             kafka: {{ topic: orders }} }}, steps: [ {steps} ], sink: {{ clickhouse: {{ table: out }} }} }} ]\n"
        );
        let (plan, findings) = parse(&text, &|_| None);
        let plan = plan.unwrap_or_else(|| panic!("{findings:#?}")).pipelines.remove(0);
        let (rows, letters) = (Texts::default(), Texts::default());
        let written = rows.clone();
        let make_builder: MakeBuilder =
            Arc::new(move |slot_of: &mut dyn FnMut(&str) -> Slot| -> Box<dyn BlockBuilder> {
                let slots = columns.iter().map(|column| slot_of(column)).collect();
                let sealed = written.lock().unwrap().len();
                Box::new(TextBuilder { slots, rows: written.clone(), sealed })
            });
        let blueprint = Blueprint::new(plan.clone(), [7; 16], 1 << 20, make_builder);
        let logs: Vec<Log> = plan.topics.iter().map(|_| Log::default()).collect();
        let store = Arc::new(MemoryStore::new());
        let moment = beginning(Incarnation([1; 16]), &vec![0; logs.len()]);
        let (inputs, chain) = open(&blueprint, &store, &logs, &letters, &moment, None);
        Driven { plan, blueprint, store, logs, inputs, chain, pass: Pass::default(), rows, letters, epoch: 0, asked: 0 }
    }

    /// A record of a topic, by its place among the pipeline's.
    pub fn send(&mut self, topic: usize, time_ms: i64, payload: &str) {
        self.add(topic, time_ms, None, Some(payload));
    }

    pub fn delete(&mut self, topic: usize, time_ms: i64, key: &str) {
        self.add(topic, time_ms, Some(key), None);
    }

    fn add(&mut self, topic: usize, time_ms: i64, key: Option<&str>, payload: Option<&str>) {
        let mut log = self.logs[topic].lock().unwrap();
        let offset = log.records.len() as i64;
        log.push(offset, time_ms, key.map(str::as_bytes), payload.map(str::as_bytes), []);
    }

    /// Takes what is there, in one epoch that begins with these inputs set aside (a bit each).
    pub fn run(&mut self, idle: u64) {
        let rises = self.inputs.begin_epoch(idle, NOTE_MS);
        let limit = PassLimit { records: usize::MAX, bytes: usize::MAX, offset_ends: None };
        let mut passes = 0;
        while self.inputs.next_pass(&mut self.pass, limit, 0, &mut Cuts::default()).unwrap() == Found::Pass {
            self.process(Mode::Deliver);
            passes += 1;
        }
        if passes == 0 && rises {
            self.inputs.empty_pass(&mut self.pass);
            self.process(Mode::Deliver);
        }
    }

    /// An epoch that decides nothing but who is set aside.
    pub fn set_aside(&mut self, idle: u64) {
        self.inputs.begin_epoch(idle, NOTE_MS);
        self.inputs.empty_pass(&mut self.pass);
        self.process(Mode::Deliver);
    }

    fn process(&mut self, mode: Mode) {
        self.chain.process(&mut self.pass, &self.inputs, &*self.store, mode).unwrap();
    }

    pub fn close_windows(&mut self) {
        self.inputs.empty_pass(&mut self.pass);
        self.chain.close_windows(&mut self.pass, &self.inputs, &*self.store, Mode::Deliver).unwrap();
    }

    /// A dead letter of the source on its way back.
    pub fn replay(&mut self, offset: i64, time_ms: i64, payload: &str) {
        let mut batch = RecordBatch::default();
        batch.push(offset, time_ms, None, Some(payload.as_bytes()), []);
        self.inputs.replay_pass(&mut self.pass, 0, &batch);
        self.process(Mode::Replay);
    }

    /// Ends the epoch: all of it is stored.
    pub fn seal(&mut self) {
        self.epoch += 1;
        let topics = self.plan.topics.iter().map(|topic| (topic.name.clone(), TopicId::default())).collect();
        let origin = vec![0; self.logs.len()];
        let history = History { pipeline: "p".into(), incarnation: Incarnation([1; 16]), origin, plan: 0, topics };
        let epoch = crate::types::Epoch(self.epoch);
        let at = SealAt { history: &history, partition: 0, epoch, note_ms: NOTE_MS };
        let mut batch = WriteBatch::default();
        let watermark_ms = self.inputs.times.watermark_ms;
        self.chain.seal(&at, &*self.store, watermark_ms, &mut batch).unwrap();
        self.store.write(&batch).unwrap();
        self.chain.stored(&*self.store, watermark_ms);
    }

    /// Stops, and begins again on what was stored.
    pub fn restart(&mut self) {
        self.seal();
        let moment = Moment {
            inputs: self.inputs.progress(),
            watermark_ms: self.inputs.times.watermark_ms,
            idle: self.inputs.times.idle,
            ..beginning(Incarnation([1; 16]), &[])
        };
        let counts = self.chain.counts().clone();
        let (inputs, chain) = open(&self.blueprint, &self.store, &self.logs, &self.letters, &moment, Some(counts));
        (self.inputs, self.chain) = (inputs, chain);
    }

    /// What has come since this was asked last.
    pub fn rows(&mut self) -> Vec<String> {
        let rows = self.rows.lock().unwrap();
        let before = std::mem::replace(&mut self.asked, rows.len());
        rows[before..].to_vec()
    }

    /// All dead letters, as `topic@offset step reason`.
    pub fn letters(&mut self) -> Vec<String> {
        self.seal();
        self.letters.lock().unwrap().clone()
    }

    /// Every record, and every row of every step, is where `GET …/ledger` says.
    pub fn check_balance(&self) {
        let Counts { records, again, right_rows, tombstones, broken, unfit, written, steps, .. } = self.chain.counts();
        let mut rows = records + again - tombstones - broken - right_rows;
        for (number, (name, step)) in compile::step_names(&self.plan).iter().zip(steps).enumerate() {
            let out = match name.kind {
                StepKind::Join => step.left_decided + step.dead_letters + step.waiting,
                _ => step.rows_out + step.dropped + step.dead_letters,
            };
            assert_eq!(step.rows_in, out, "step {}: {step:?}", name.name);
            if !name.name.contains('.') {
                assert_eq!(step.rows_in, rows, "before step {number}");
                rows = step.rows_out;
            }
        }
        assert_eq!(rows - unfit, *written, "behind the last step");
        assert_eq!(*written, self.rows.lock().unwrap().len() as u64);
    }
}

fn open(
    blueprint: &Blueprint,
    store: &Arc<MemoryStore>,
    logs: &[Log],
    letters: &Texts,
    moment: &Moment,
    counts: Option<Counts>,
) -> (TaskInputs, Chain) {
    let (plan, task) = (blueprint.plan(), TaskNo(1));
    let mut parts = blueprint.parts(0, task).unwrap_or_else(|findings| panic!("{findings:#?}"));
    let queues = logs.iter().zip(&moment.inputs).map(|(log, input)| Reader { log: log.clone(), next: input.position });
    let inputs = queues.zip(parts.take_sides(plan)).map(|(queue, sides)| TaskInput::new(Box::new(queue), sides));
    let mut inputs = TaskInputs::new(inputs.collect(), moment, i64::MAX);
    let topics: Vec<String> = plan.topics.iter().map(|topic| topic.name.clone()).collect();
    let stats = PipelineStats::new("p", "d.out", &topics, &compile::step_names(plan));
    let store: Arc<dyn StateStore> = store.clone();
    let kept = Arc::new(Letters::open(store.clone(), 1 << 20).unwrap());
    let target = LetterTarget::Blocks(Box::new(LetterTexts(letters.clone())), kept);
    let chain = ChainParts {
        task,
        steps: parts.steps,
        joins: parts.joins,
        segment: SegmentSize { rows_max: 4, bytes_max: 1 << 10, chunk_rows: 2 },
        builder: parts.builder,
        target: "d/out".into(),
        letters: EpochLetters::new("p".into(), topics, 0, target),
        counts,
        stats,
    };
    let mut chain = Chain::open(&*store, chain).unwrap();
    let mut nothing = Pass::default();
    inputs.empty_pass(&mut nothing);
    chain.begin(&nothing);
    (inputs, chain)
}
