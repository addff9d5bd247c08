//! A join of a file, from its text to the fields of its rows.

use super::join::right_step_numbers;
use super::*;
use crate::codec::decode::Decoded;
use crate::codec::record::RecordBatch;
use crate::codec::rows::{BadRow, Field, Kind as FieldKind, Rows};
use crate::config::{self, parse};
use crate::runtime::inputs::{Feeds, InputSide};
use crate::sink::{Block, BuilderMark};
use crate::state::buffer::SegmentSize;
use crate::state::memory::MemoryStore;
use crate::step::join::{Batch, Clock, Event, Join, JoinParts, Output, Side};
use std::sync::Mutex;

/// Nothing is sent here: the tests look at the rows before they reach it.
struct NoBuilder;

impl BlockBuilder for NoBuilder {
    fn append(&mut self, _: &Rows, _: &[u32], _: &mut Vec<BadRow>) {}
    fn mark(&mut self) -> BuilderMark {
        unreachable!("nothing is appended")
    }
    fn rollback(&mut self, _: BuilderMark) {}
    fn rows(&self) -> u64 {
        0
    }
    fn bytes(&self) -> usize {
        0
    }
    fn seal(&mut self) -> Option<Block> {
        None
    }
}

fn plan(steps: &str) -> PipelinePlan {
    let text = format!(
        "kafka: {{ brokers: [k] }}\nclickhouse: {{ url: http://c:8123 }}\npipelines: [ {{ name: p, source: {{ kafka: \
         {{ topic: orders }} }}, steps: [ {steps} ], sink: {{ clickhouse: {{ table: out }} }} }} ]\n"
    );
    let (plan, findings) = parse(&text, &|_| None);
    plan.unwrap_or_else(|| panic!("{findings:#?}")).pipelines.remove(0)
}

/// A pipeline with one join, compiled, and what its steps have made so far.
struct Joining {
    parts: Parts,
    columns: Vec<Slot>,
    rows: Rows,
    events: Vec<Event>,
}

impl Joining {
    fn new(steps: &str, columns: &'static [&'static str]) -> Joining {
        let slots = Arc::new(Mutex::new(vec![]));
        let asked = slots.clone();
        let make_builder: MakeBuilder =
            Arc::new(move |slot_of: &mut dyn FnMut(&str) -> Slot| -> Box<dyn BlockBuilder> {
                *asked.lock().unwrap() = columns.iter().map(|column| slot_of(column)).collect();
                Box::new(NoBuilder)
            });
        let blueprint = Blueprint::new(plan(steps), [7; 16], 1 << 20, make_builder);
        let parts = blueprint.parts(3, TaskNo(1)).unwrap_or_else(|findings| panic!("{findings:#?}"));
        let columns = slots.lock().unwrap().clone();
        Joining { parts, columns, rows: Rows::default(), events: vec![] }
    }

    fn add(&mut self, side: Side, payloads: &[&str]) {
        let mut batch = RecordBatch::default();
        for (offset, payload) in payloads.iter().enumerate() {
            batch.push(offset as i64, 1_000, None, Some(payload.as_bytes()), []);
        }
        self.take(side, batch, false);
    }

    fn delete(&mut self, key: &str) {
        let mut batch = RecordBatch::default();
        batch.push(0, 1_000, Some(key.as_bytes()), None, []);
        self.take(Side::Right, batch, true);
    }

    /// Decodes records of one side, runs its steps up to the join, and adds them behind what is there.
    fn take(&mut self, side: Side, mut batch: RecordBatch, deletes: bool) {
        let join = &mut self.parts.joins[0];
        let (decoder, steps) = match side {
            Side::Left => (&mut self.parts.decoders[0], &mut self.parts.steps[..join.steps_before]),
            Side::Right => (&mut join.decoders[0], join.steps.as_mut_slice()),
        };
        let (mut rows, mut decoded) = (Rows::default(), Decoded::default());
        decoder.decode(&mut batch, 1_000, &mut rows, &mut decoded);
        assert_eq!(decoded.broken, []);
        let mut alive: Vec<u32> = (0..rows.len() as u32).collect();
        run(steps, &mut rows, &mut alive);
        self.rows.width = rows.width;
        for row in alive {
            let place = self.events.len() as u32;
            self.events.push(Event { row: place, side, deletes, is_replayed: false, place });
            copy(&rows, row, &mut self.rows);
        }
    }

    /// What comes out of the join and the steps behind it, by column; the watermark passes everything in the end.
    fn join(mut self) -> Vec<Vec<String>> {
        let store = MemoryStore::new();
        let join = self.parts.joins.remove(0);
        let parts = JoinParts {
            rules: join.rules,
            left_key: join.left_key,
            right_key: join.right_key,
            key_text: join.key_text,
            assembly: join.assembly,
            segment: SegmentSize::within(1 << 20),
        };
        let mut step = Join::open(&store, TaskNo(1), join.place, parts).unwrap();
        let mut after_ms = vec![i64::MIN; self.events.len()];
        *after_ms.last_mut().unwrap() = i64::MAX;
        let clock = Clock { start_ms: i64::MIN, after_ms: &after_ms };
        let mut batch = Batch::new(clock, &self.events, 0, after_ms.len() as u32);
        let mut out = Output::default();
        assert!(step.apply(&store, &mut batch, &mut self.rows, &mut out).unwrap());
        assert_eq!(out.bad, []);
        let mut alive: Vec<u32> = out.rows.iter().map(|joined| joined.row).collect();
        run(&mut self.parts.steps[join.steps_before..], &mut self.rows, &mut alive);
        let text = |field: Field| match field.kind {
            FieldKind::Absent => "absent".to_owned(),
            FieldKind::Null => "null".to_owned(),
            FieldKind::Int => field.as_int().to_string(),
            _ => String::from_utf8(self.rows.text(field).to_vec()).unwrap(),
        };
        let row = |row: u32| self.columns.iter().map(|slot| text(self.rows.field(row, *slot))).collect();
        alive.into_iter().map(row).collect()
    }
}

fn run(steps: &mut [Step], rows: &mut Rows, alive: &mut Vec<u32>) {
    let mut bad = vec![];
    for step in steps {
        match step {
            Step::Filter(filter) => _ = filter.apply(rows, alive, &mut bad),
            Step::Select(select) => select.apply(rows, alive, &mut bad),
            Step::Dedup(_) => unreachable!("no test here has one"),
        }
    }
    assert_eq!(bad, []);
}

fn copy(from: &Rows, row: u32, to: &mut Rows) {
    for field in from.row(row) {
        let is_text = !matches!(
            field.kind,
            FieldKind::Absent | FieldKind::Null | FieldKind::False | FieldKind::True | FieldKind::Int
        );
        let copied = if is_text { to.append(field.kind, from.text(*field)) } else { *field };
        to.fields.push(copied);
    }
    to.meta.push(from.meta[row as usize]);
}

const ORDERS: [&str; 3] = [r#"{"id":1,"sum":10}"#, r#"{"id":2,"sum":20,"payer":"own"}"#, r#"{"id":3,"sum":-1}"#];
const PAYMENTS: [&str; 3] =
    [r#" {"order":1,"amount":9,"payer":"ann"} "#, r#"{"order":2,"amount":20}"#, r#"{"order":9,"amount":5}"#];

fn interval(with: &str) -> String {
    format!(
        "{{ join: {{ with: {{ kafka: {{ topic: payments }}{with} }}, as: payment, key: {{ left: id, right: order }}, \
         kind: interval, within: 1s, type: full }} }}"
    )
}

/// Whoever comes first waits in state, the other arrives: both ways the fields are the same.
fn both_ways(steps: &str, columns: &'static [&'static str]) -> Vec<Vec<String>> {
    let joined = |first, second| {
        let mut joining = Joining::new(steps, columns);
        for side in [first, second] {
            joining.add(side, if side == Side::Left { &ORDERS } else { &PAYMENTS });
        }
        let mut rows = joining.join();
        rows.sort();
        rows
    };
    let rows = joined(Side::Left, Side::Right);
    assert_eq!(rows, joined(Side::Right, Side::Left));
    rows
}

#[test]
fn columns_get_fields_of_both_sides_and_a_right_row_alone_has_the_key() {
    let rows = both_ways(&interval(""), &["id", "sum", "payment.amount", "payer", "order"]);
    assert_eq!(
        rows,
        [
            ["1", "10", "9", "ann", "1"],
            ["2", "20", "20", "own", "2"],
            ["3", "-1", "null", "absent", "absent"],
            ["9", "null", "5", "null", "9"],
        ]
    );
}

#[test]
fn steps_before_and_behind_the_join_see_their_names() {
    let steps = format!(
        "{{ filter: sum > 0 }}, {}, {{ filter: 'payment != null && sum != null' }}, \
         {{ select: {{ id: id, rest: sum - payment.amount, p: payment }} }}",
        interval("")
    );
    let rows = both_ways(&steps, &["id", "rest", "p", "p.amount", "sum"]);
    assert_eq!(
        rows,
        [
            ["1", "1", r#"{"order":1,"amount":9,"payer":"ann"}"#, "9", "absent"],
            ["2", "0", r#"{"order":2,"amount":20}"#, "20", "absent"],
        ]
    );
}

#[test]
fn steps_of_the_right_side_run_before_the_join() {
    let steps = interval(", steps: [ { filter: amount > 8 }, { select: { order: order, twice: amount * 2 } } ]");
    let rows = both_ways(&steps, &["id", "payment.twice", "payment.amount", "amount"]);
    assert_eq!(
        rows,
        [["1", "18", "absent", "absent"], ["2", "40", "absent", "absent"], ["3", "null", "absent", "absent"]]
    );
}

/// As in dedup: 3 is 3.0, and 1 is not "1".
#[test]
fn keys_that_differ_in_type_do_not_meet() {
    for first in [Side::Left, Side::Right] {
        let steps = interval("");
        let mut joining = Joining::new(&steps, &["id", "payment.amount"]);
        let lefts = [r#"{"id":1}"#, r#"{"id":"2"}"#, r#"{"id":3}"#, r#"{"id":"4"}"#];
        let rights = [
            r#"{"order":"1","amount":10}"#,
            r#"{"order":2,"amount":20}"#,
            r#"{"order":3.0,"amount":30}"#,
            r#"{"order":"4","amount":40}"#,
        ];
        for side in [first, if first == Side::Left { Side::Right } else { Side::Left }] {
            joining.add(side, if side == Side::Left { &lefts } else { &rights });
        }
        let mut rows = joining.join();
        rows.sort();
        assert_eq!(
            rows,
            [["1", "10"], ["1", "null"], ["2", "20"], ["2", "null"], ["3", "30"], ["4", "40"]],
            "{first:?} first"
        );
    }
}

#[test]
fn a_tombstone_of_a_table_deletes_the_key_that_its_record_names() {
    let steps = "{ join: { with: { kafka: { topic: users }, retain: forever }, as: user, key: id, kind: temporal, \
                 within: 1s, type: left } }";
    let mut joining = Joining::new(steps, &["id", "user.name"]);
    joining.add(Side::Right, &[r#"{"id":1,"name":"ann"}"#, r#"{"id":2,"name":"bob"}"#]);
    joining.delete("1");
    joining.add(Side::Left, &[r#"{"id":1}"#, r#"{"id":2}"#]);
    assert_eq!(joining.join(), [["1", "null"], ["2", "bob"]]);
}

#[test]
fn a_tombstone_with_digits_for_a_key_deletes_the_number_and_the_text() {
    let steps = |key: &str| {
        format!(
            "{{ join: {{ with: {{ kafka: {{ topic: users }}, retain: forever }}, as: user, key: {key}, kind: temporal, \
             within: 1s, type: left }} }}"
        )
    };
    let users = [r#"{"id":"1001","name":"ann"}"#, r#"{"id":1001,"name":"bob"}"#, r#"{"id":"1002","name":"eve"}"#];
    let mut joining = Joining::new(&steps("id"), &["id", "user.name"]);
    joining.add(Side::Right, &users);
    joining.delete("1001");
    // Told apart by who writes them as JSON.
    joining.delete("{\"id\":1002}");
    joining.add(Side::Left, &[r#"{"id":"1001"}"#, r#"{"id":1001}"#, r#"{"id":"1002"}"#]);
    assert_eq!(joining.join(), [["1001", "null"], ["1001", "null"], ["1002", "eve"]]);

    let mut joining = Joining::new(&steps("{ path: id, as: int }"), &["user.name"]);
    joining.add(Side::Right, &users[..1]);
    joining.delete("1001");
    assert_eq!(joining.events.len(), 2, "one type, one key");
    joining.add(Side::Left, &[r#"{"id":1001}"#]);
    assert_eq!(joining.join(), [["null"]]);
}

#[test]
fn a_wrong_name_is_found_with_its_place() {
    let findings = |steps: &str| {
        let mut plan = plan("");
        plan.steps = self::plan(steps).steps;
        let (compiler, ..) = offline(&plan).compile(TaskNo(0));
        compiler.findings.into_iter().map(|finding| (finding.path, finding.message)).collect::<Vec<_>>()
    };
    let select = ", steps: [ { select: { order: order } } ]";
    let found = findings(&format!("{}, {{ filter: payment.amount > 1 }}", interval(select)));
    let [(path, message)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(path, "pipelines.p.steps[1]");
    assert!(message.contains("payment.order"), "{message}");
    let found = findings(&interval(", steps: [ { select: { amount: amount } } ]"));
    assert_eq!(found[0].0, "pipelines.p.steps[0].join.key");
    let found = findings(&interval(", steps: [ { filter: 'amount >' } ]"));
    assert_eq!(found[0].0, "pipelines.p.steps[0].join.with.steps[0]");
}

#[test]
fn reach_is_the_longest_path_of_windows_waits_and_look_backs() {
    let reach = |steps: &str| reach_ms(&plan(steps));
    let dedup = |window: &str| format!("{{ dedup: {{ key: id, window: {window} }} }}");
    assert_eq!(reach(&interval("")), Some(Some(1_000)));
    let right = format!(", steps: [ {} ]", dedup("9s"));
    assert_eq!(reach(&format!("{}, {}, {}", dedup("5s"), interval(&right), dedup("2s"))), Some(Some(12_000)));
    assert_eq!(reach(&format!("{}, {}", dedup("forever"), interval(""))), Some(None));
    assert_eq!(reach("{ filter: a > 1 }"), None);
}

/// The hash of a pipeline that fills these columns.
fn hash_with(steps: &str, columns: &'static [&'static str]) -> u64 {
    let make_builder: MakeBuilder = Arc::new(move |slot_of: &mut dyn FnMut(&str) -> Slot| -> Box<dyn BlockBuilder> {
        columns.iter().for_each(|column| _ = slot_of(column));
        Box::new(NoBuilder)
    });
    let blueprint = Blueprint::new(plan(steps), [7; 16], 1 << 20, make_builder);
    blueprint.state_hash().unwrap_or_else(|findings| panic!("{findings:#?}"))
}

#[test]
fn state_belongs_to_the_fields_that_joins_keep_for_the_columns_and_to_nothing_else_of_the_table() {
    let joined = interval("");
    let before = hash_with(&joined, &["id", "sum", "payment.amount"]);
    assert_ne!(hash_with(&joined, &["id", "sum", "payment.amount", "note"]), before, "a column was added");
    assert_ne!(hash_with(&joined, &["id", "payment.amount"]), before, "a column was dropped");
    assert_eq!(hash_with(&joined, &["payment.amount", "sum", "id"]), before, "columns changed places");
    assert_eq!(hash_with(&joined, &["id", "sum", "sum", "payment.amount"]), before, "two columns of one field");
    let selected = format!("{joined}, {{ select: {{ id: id, rest: sum - payment.amount }} }}");
    assert_eq!(hash_with(&selected, &["id", "rest", "note"]), hash_with(&selected, &["id"]), "a select asks for both");
    let filter = "{ filter: a > 1 }";
    assert_eq!(hash_with(filter, &["a", "b"]), hash_with(filter, &["a"]), "without a join nothing is kept");
}

#[test]
fn the_state_belongs_to_the_plan_of_its_join() {
    let hash = |steps: &str| hash_with(steps, &["id"]);
    let table = |bootstrap: bool| {
        format!(
            "{{ join: {{ with: {{ kafka: {{ topic: users }}, retain: forever, bootstrap: {bootstrap} }}, as: u, key: id, \
             kind: temporal, within: 1s }} }}"
        )
    };
    assert_eq!(hash(&table(true)), hash(&table(false)), "how a table was read first is not in it");
    assert_ne!(hash(&interval("")), hash(&interval(", steps: [ { filter: amount > 8 } ]")));
    assert_ne!(hash(&interval("")), hash(&interval(", time: { lateness: 1s }")));
}

/// A stream, an exact table, a table that is not read first, and the source itself.
fn several_joins() -> String {
    let join = |with: String, name: &str, how: &str| {
        format!("{{ join: {{ with: {{ {with} }}, as: {name}, key: id, {how} }} }}")
    };
    let stream = |topic: &str| format!("kafka: {{ topic: {topic} }}");
    let table = |topic: &str| format!("{}, retain: forever, time: {{ lateness: 3s }}", stream(topic));
    let joins = [
        join(stream("payments"), "payment", "kind: interval, within: 2s"),
        join(table("users"), "user", "kind: temporal, within: 1s, exact: true"),
        join(format!("{}, bootstrap: false", table("rates")), "rate", "kind: temporal, within: 1s"),
        join(stream("orders"), "earlier", "kind: interval, within: 1s, max_skew: 7s"),
    ];
    joins.join(", ")
}

#[test]
fn each_topic_knows_its_sides() {
    let plan = plan(&several_joins());
    let roles = roles(&plan);
    assert_eq!((roles.left.as_slice(), roles.is_merged), (&[0][..], true));
    assert_eq!((roles.tables, roles.bootstrapped), (vec![2, 3], vec![2]));
    let make_builder: MakeBuilder =
        Arc::new(|_: &mut dyn FnMut(&str) -> Slot| -> Box<dyn BlockBuilder> { Box::new(NoBuilder) });
    let blueprint = Blueprint::new(plan.clone(), [7; 16], 1 << 20, make_builder);
    let mut parts = blueprint.parts(3, TaskNo(1)).unwrap_or_else(|findings| panic!("{findings:#?}"));
    let facts = |side: InputSide| (side.decoder.topic().to_owned(), side.feeds, side.lateness_ms, side.max_skew_ms);
    let topics = parts.take_sides(&plan).into_iter();
    let sides: Vec<Vec<_>> = topics.map(|sides| sides.into_iter().map(facts).collect()).collect();
    let own = [Feeds::Left, Feeds::Right { join: 3 }].map(|feeds| ("orders".to_owned(), feeds, 0, Some(7_000)));
    assert_eq!(sides[0], own, "the source feeds all joins, and the strictest of them holds it");
    assert_eq!(sides[1], [("payments".to_owned(), Feeds::Right { join: 0 }, 0, Some(20_000))]);
    assert_eq!(sides[2], [("users".to_owned(), Feeds::Table { join: 1, exact: true }, 3_000, None)]);
    assert_eq!(sides[3], [("rates".to_owned(), Feeds::Table { join: 2, exact: false }, 3_000, None)]);
}

/// What the layers find in a file, and the place and code of each; no notes.
fn found(text: &str) -> Vec<(&'static str, String, String)> {
    let config::Parsed { drafts, findings, .. } = config::read(text, &|_| None, &config::machine::Machine::this());
    let errors = findings.into_iter().filter(|finding| finding.severity == Severity::Error);
    errors.chain(judge(&drafts)).map(|finding| (finding.code, finding.path, finding.message)).collect()
}

fn around(steps: &str, sink: &str) -> String {
    format!(
        "kafka: {{ brokers: [k] }}\nclickhouse: {{ url: http://c:8123 }}\npipelines: [ {{ name: p, source: {{ kafka: \
         {{ topic: orders }} }}, steps: [ {steps} ], sink: {{ clickhouse: {{ table: out{sink} }} }} }} ]\n"
    )
}

#[test]
fn expressions_are_judged_whatever_else_is_wrong_with_the_file() {
    let wrong = "{ filter: 'nosuch(x)' }";
    let says = |text: String, code: &str| {
        let found = found(&text);
        let codes: Vec<&str> = found.iter().map(|(code, ..)| *code).collect();
        assert!(codes.contains(&code), "{code} is not in {found:#?}");
        let expressions: Vec<_> = found.iter().filter(|(code, ..)| *code == "expression").collect();
        let [(_, path, message)] = expressions[..] else { panic!("not one expression: {found:#?}\n{text}") };
        assert!(message.contains("no function `nosuch`"), "{message}");
        path.clone()
    };
    let elsewhere = |place: &str| format!("pipelines[0].steps[{place}]");
    assert_eq!(says(format!("htpp: {{}}\n{}", around(wrong, "")), "unknown_field"), elsewhere("0"));
    assert_eq!(says(around(wrong, ", tabel: x"), "unknown_field"), elsewhere("0"));
    assert_eq!(says(around(wrong, "").replace("table: out", ""), "missing_field"), elsewhere("0"));
    assert_eq!(says(around(wrong, "").replace("name: p,", ""), "missing_field"), elsewhere("0"));
    assert_eq!(says(around(wrong, "").replace("kafka: { topic: orders }", ""), "missing_field"), elsewhere("0"));
    for before in [
        "{ filter: }",
        "{ filter: [a] }",
        "{ dedup: { key: a } }",
        "{ dedup: { window: 1h } }",
        "{ dedup: 5 }",
        "{ dedup: { key: a, window: 1h, keep: changes, fields: [] } }",
        "{ repartition: { key: a } }",
        "{ join: { with: { kafka: { topic: b } }, as: u, key: k, kind: temporal } }",
        "{ join: { with: { kafka: {} }, as: u, key: k, kind: temporal, within: 1s } }",
        "{ join: { with: { kafka: { topic: b }, steps: [ { filtr: x } ] }, as: u, key: k, kind: temporal, within: 1s } }",
        "{ join: { as: u, key: k, kind: temporal, within: 1s } }",
        "{ join: { with: { kafka: { topic: b } }, as: u, key: [], kind: temporal, within: 1s } }",
    ] {
        let found = found(&around(&format!("{before}, {{ filter: u.x > 1 }}, {wrong}"), ""));
        assert!(found.iter().any(|(code, ..)| *code != "expression"), "{before} is wrong: {found:#?}");
        let expressions: Vec<_> = found.iter().filter(|(code, ..)| *code == "expression").collect();
        assert_eq!(expressions.len(), 1, "{before}: {found:#?}");
        assert_eq!(expressions[0].1, elsewhere("2"));
    }
    // What stands in the right side of a join that is wrong elsewhere.
    let right = format!(
        "{{ join: {{ with: {{ kafka: {{ topic: b }}, steps: [ {wrong} ] }}, as: u, key: k, kind: temporl }} }}"
    );
    assert_eq!(says(around(&right, ""), "unknown_word"), elsewhere("0") + ".join.with.steps[0]");
}

#[test]
fn nothing_is_said_of_names_that_a_wrong_step_might_have_left() {
    for wrong in [
        "{ selct: { a: b } }",
        "{ select: [a] }",
        "{ select: {} }",
        "{ join: { with: { kafka: { topic: b } }, key: k, kind: temporal, within: 1s } }",
        "{ select: { a: x, b: { c: d } } }",
    ] {
        let text = around(&format!("{{ select: {{ x: y }} }}, {wrong}, {{ filter: a == b }}"), ", columns: { c: a }");
        let found = found(&text);
        assert!(!found.is_empty() && found.iter().all(|(code, ..)| *code != "expression"), "{wrong}: {found:#?}");
    }
}

#[test]
fn all_that_is_wrong_in_a_select_and_a_dedup_is_said_at_once() {
    let steps = "{ select: { a: nosuch(x), b: x, c: '1 +', d: nosuch(y) } }, { filter: a > b && c == d }, \
                 { dedup: { key: [gone, a, lost], window: 1h, keep: changes, fields: [past, b, _Key] } }";
    let found = found(&around(steps, ", columns: { x: b, y: absent, z: { path: d.e }, other: {} }"));
    let said: Vec<(&str, &str)> = found.iter().map(|(_, path, message)| (path.as_str(), message.as_str())).collect();
    let place = |place: &str| format!("pipelines[0].{place}");
    let [select, dedup] = [place("steps[0]"), place("steps[2]")];
    let (y, other) = (place("sink.clickhouse.columns.y"), place("sink.clickhouse.columns.other"));
    let expected = [
        (&select, "there is no function `nosuch`"),
        (&select, "Syntax error"),
        (&select, "there is no function `nosuch`"),
        (&dedup, "`gone` is not among the selected fields: a, b, c, d"),
        (&dedup, "`lost` is not among"),
        (&dedup, "`past` is not among"),
        (&dedup, "`_Key` is no virtual field: did you mean `_key`?"),
        (&y, "`absent` is not among the selected fields"),
        (&other, "`other` is not among the selected fields"),
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for ((path, message), (expected_path, part)) in said.iter().zip(expected) {
        assert!(path == expected_path && message.contains(part), "{path}: {message}; not {expected_path}: {part}");
    }
}

#[test]
fn a_column_is_filled_by_a_field_that_only_looks_like_a_virtual_one() {
    let mut joining = Joining::new("{ filter: a == 1 }", &["_Key", "_headers", "_offset"]);
    joining.parts.steps.clear();
    let mut batch = RecordBatch::default();
    batch.push(7, 1_000, None, Some(br#"{"_Key":"k","_headers":[1]}"#), []);
    let (mut rows, mut decoded) = (Rows::default(), Decoded::default());
    joining.parts.decoders[0].decode(&mut batch, 1_000, &mut rows, &mut decoded);
    let fields: Vec<Field> = joining.columns.iter().map(|slot| rows.field(0, *slot)).collect();
    assert_eq!([rows.text(fields[0]), rows.text(fields[1])], [&b"k"[..], b"[1]"]);
    assert_eq!(fields[2].as_int(), 7);
}

#[test]
fn topics_whose_mark_no_broker_takes_are_refused() {
    let of = |count: usize, chars: usize| {
        let topics: Vec<String> = (0..count).map(|number| format!("{number:0>chars$}")).collect();
        let text = format!(
            "kafka: {{ brokers: [k] }}\nclickhouse: {{ url: http://c:8123 }}\npipelines: [ {{ name: p, source: {{ kafka: \
             {{ topics: {topics:?} }} }}, sink: {{ clickhouse: {{ table: out }} }} }} ]\n"
        );
        let (plan, findings) = parse(&text, &|_| None);
        judge_plan(&plan.unwrap_or_else(|| panic!("{findings:#?}")))
    };
    assert_eq!(of(1, 249), []);
    assert_eq!(of(8, 249), []);
    assert_eq!(of(30, 20), []);
    for (count, chars) in [(10, 249), (64, 2)] {
        let [finding] = &of(count, chars)[..] else { panic!("{count} topics of {chars} characters are refused") };
        assert_eq!((finding.code, finding.severity), ("mark_too_long", Severity::Error));
        let said = format!("these are {count} topics with {} characters in their names", count * chars);
        assert!(finding.message.starts_with(&said), "{finding:?}");
    }
}

#[test]
fn without_a_join_one_topic_is_not_merged() {
    let roles = roles(&plan("{ filter: a > 1 }"));
    assert!(!roles.is_merged && roles.tables.is_empty());
}

#[test]
fn each_right_step_keeps_its_state_under_a_number_of_its_own() {
    let side = ", steps: [ { filter: amount > 8 }, { dedup: { key: order, window: 1s } } ]";
    let other = interval(side).replace("as: payment", "as: other").replace("topic: payments", "topic: others");
    let plan = plan(&format!("{}, {other}", interval(side)));
    let numbers = |place: usize| right_step_numbers(&plan.steps, place).take(2).collect::<Vec<_>>();
    assert_eq!((numbers(0), numbers(1)), (vec![2, 3], vec![4, 5]));
}
