//! weir: Kafka to ClickHouse, exactly once.
//!
//! A weir is a low dam: the river passes, what should not pass stays behind. This page is the architecture; each
//! module's own page says what it owns, promises, and never does.
//!
//! # The map
//!
//! ```text
//!  Kafka                      one process                                              ClickHouse
//!  ┌───────────┐   ┌──────────────────────────────────────────────────────────┐   ┌──────────────┐
//!  │ topic p0  ├──►│ worker 0   task p0: decode → steps → encode ─► open block │   │              │
//!  │       p1  ├──►│ worker 1   task p1   (pinned threads; no locks, no async) │   │  table       │
//!  │       p2  ├──►│ worker 0   task p2          │ seal                        │   │  and tokens  │
//!  │           │   │                             ▼                             │   │              │
//!  │           │   │  RocksDB: ONE synced write of state + positions + block   │   │              │
//!  │           │   │                             │ stored                      │   │              │
//!  │ committed │◄──┤ coordinator: announces the epoch in the commit's metadata │   │              │
//!  │ offsets + │   │                             │ accepted                    │   │              │
//!  │ mark      │   │ delivery (tokio): the same bytes under the same token ────┼──►│ INSERT       │
//!  │           │◄──┤ coordinator: acknowledged, with the next announcement  ◄──┼───┤ acknowledged │
//!  └───────────┘   └──────────────────────────────────────────────────────────┘   └──────────────┘
//! ```
//!
//! The words: a **task** is one partition number over all topics of a pipeline, the unit of state, order and
//! delivery. A **worker** is a pinned thread that owns tasks. An **epoch** is what a task commits at once; its
//! encoded rows are a **block**, and the block's idempotence key is its **token**. The **outbox** holds blocks that
//! are stored and not acknowledged. The **mark** is what the committed offsets carry as metadata: what was
//! acknowledged last, and what is about to be sent. A **link** names a history: two ledgers with the same link have
//! the same past.
//!
//! # Who may import whom
//!
//! One way, and siblings do not meet; `tests/layers.rs` holds it.
//!
//! ```text
//!  cli ─► api, demo ─► runtime ─► source, sink, step ─► state, codec, config ─► metrics ─► types, error, clock
//! ```
//!
//! librdkafka stays in [`source::kafka`] (and the demo's own cluster), RocksDB in [`state::rocks`], HTTP to
//! ClickHouse in [`sink::clickhouse`], the HTTP server in [`api`], the command line in [`cli`]. Four seams are
//! traits, each with a real version, one in memory and one that fails on purpose: [`clock::Clock`],
//! [`source::Group`] with [`source::Input`], [`state::StateStore`], [`sink::Sink`].
//!
//! # The path of one record
//!
//! 1. [`runtime::worker`] ticks the tasks that have room.
//! 2. [`source::kafka`] hands over a batch from the partition's queue, in offset order.
//! 3. [`runtime::inputs`] merges a task's inputs into passes: lowest event time first when there are several.
//! 4. [`codec::decode`] finds the planned fields in one lazy pass over the JSON; a broken payload becomes a dead
//!    letter.
//! 5. [`runtime::chain`] runs the steps in the written order on the whole pass: [`step::filter`], [`step::select`].
//! 6. [`step::dedup`] asks [`state::seen`]: the first sight of a key stays. [`step::join`] asks [`state::buffer`] and
//!    [`state::versions`] for rows of the other side, and lets those go that nobody can meet any more.
//! 7. What cannot be processed is set aside by [`runtime::letters`], and gives back the keys that it had taken.
//! 8. [`sink::clickhouse::encode`] appends the rows that are left to column buffers, as ClickHouse keeps them; a
//!    value that does not fit its column makes the row a dead letter and leaves no trace in the buffers.
//! 9. [`runtime::commit`] seals the epoch and stores it: ONE synced write of state, positions, watermark and block.
//! 10. The [`runtime::coordinator`] announces it in a commit; [`runtime::delivery`] inserts the block under its token
//!     until it is acknowledged; the next commit says so, and the outbox entry goes.
//!
//! How a task begins, after whatever happened to the process, the disk, the group or the topic before, is the
//! business of [`runtime::recovery`]: a table of cases as a pure function.
//!
//! # What always holds
//!
//! * **Stored before sent.** A block is in RocksDB, in one write with the state that it came from and the positions
//!   it ends at, before its first byte goes to ClickHouse.
//! * **Announced before sent.** Whoever takes over the partition finds the epoch in the mark, and makes it again
//!   with the same cuts under the same token, also without our disk.
//! * **Same bytes, same token.** A block is never split, cut anew or encoded anew under a token. Rows are validated
//!   before they are in it.
//! * **A pending epoch leaves the mark only acknowledged.** No commit takes it back.
//! * **Nothing is sent without a lease.** An attempt begins only within a third of the session timeout after the
//!   last accepted commit was handed over; a process that slept through that wakes up and is refused.
//! * **An epoch is a pure function** of the state before it, its input ranges and what was noted with it. No clock,
//!   no randomness, no order of a hash map on the way: that makes replay, simulation and hand-over exact.
//! * **Everything has a bound**, named in [`runtime::limits`]; waiting is how we push back, and nothing is dropped
//!   in silence.
//! * **One owner.** State belongs to one thread; others send it messages. One thread, the coordinator, commits.
//!
//! # An example
//!
//! A configuration is read into a [`config::plan::Plan`], which cannot be wrong, or into findings, all at once:
//!
//! ```
//! use weir::config::{self, plan::{Keep, StepPlan}};
//!
//! let text = "
//! version: 1
//! kafka:      { brokers: [\"${KAFKA_BROKERS:-localhost:9092}\"] }
//! clickhouse: { url: http://localhost:8123 }
//! pipelines:
//!   - name: orders
//!     source: { kafka: { topic: orders } }
//!     steps:
//!       - dedup: { key: order_id, window: 24h }
//!     sink: { clickhouse: { table: orders } }
//! ";
//! let no_variables = |_: &str| None;
//!
//! let (plan, findings) = config::parse(text, &no_variables);
//! let orders = &plan.expect("nothing is wrong with it").pipelines[0];
//! assert_eq!(orders.kafka.group, "weir-orders");
//! let [StepPlan::Dedup(dedup)] = orders.steps.as_slice() else { panic!("one dedup") };
//! assert_eq!((dedup.window_ms, &dedup.keep), (Some(24 * 3_600_000), &Keep::First));
//! assert_eq!(findings[0].code, "local_dead_letters"); // A note: where dead letters stay.
//!
//! let (plan, findings) = config::parse(&text.replace("window: 24h", "window: 24 hours"), &no_variables);
//! assert!(plan.is_none());
//! assert_eq!(findings[0].message, "`window` takes a duration, not `24 hours`");
//! let place = findings[0].place.expect("it stands somewhere");
//! assert_eq!((place.line, place.column), (9, 41));
//! ```

pub mod api;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod demo;
pub mod error;
pub mod metrics;
pub mod runtime;
pub mod sink;
pub mod source;
pub mod state;
pub mod step;
pub mod types;
