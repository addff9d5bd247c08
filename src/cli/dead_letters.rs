//! `weir dead-letters`: the records that could not be processed, in the local store of this instance.
//!
//! While weir runs on this configuration it is asked over HTTP; while it is stopped its directory is read, and
//! `delete` takes it for itself; `replay` goes through the running task of a letter's partition and is refused where
//! none runs. Promises: nothing is deleted or replayed without being named, by name or by filter.

use super::ask::{self, Heard, Verb, escaped};
use super::{Format, Global, check, print};
use crate::api::letters::{delete_all, letter_json, page_json, read_id, read_time};
use crate::config::plan::{DeadLettersPlan, PipelinePlan, Plan};
use crate::state::letters::{LetterFilter, Letters};
use crate::state::rocks::{RocksStore, Shared};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Arc;

/// Look at records that could not be processed
#[derive(clap::Args)]
pub struct DeadLetters {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// One line for each
    List {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        filter: Filter,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Go on where a list ended
        #[arg(long, value_name = "ID", value_parser = id)]
        cursor: Option<String>,
        /// How they are printed
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// All of one: key, value, headers, where it came from and what is wrong with it
    Show {
        #[command(flatten)]
        of: Of,
        /// Its name, such as 3-17
        #[arg(value_name = "ID", value_parser = id)]
        id: String,
        /// How it is printed
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Send those that are named, or all that meet the filter, through the running pipeline again, past dedup, each
    /// exactly once; one that fails again stays, with its new reason
    Replay {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        which: Which,
    },
    /// Delete those that are named, or all that meet the filter
    Delete {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        which: Which,
    },
    /// All that meet the filter, one JSON object a line
    Export {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        filter: Filter,
    },
}

#[derive(clap::Args)]
struct Of {
    /// Of which pipeline; may be left out where the file has one
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
}

/// The letters that a command changes: never all of them by accident.
#[derive(clap::Args)]
struct Which {
    /// Their names, such as 3-17
    #[arg(value_name = "ID", value_parser = id, conflicts_with_all = ["reason", "step", "from", "to", "all"])]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All of them, where no filter is given
    #[arg(long)]
    all: bool,
}

#[derive(clap::Args, Default)]
struct Filter {
    /// Only with this reason, such as value_out_of_range
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Only from this step: its place in the list, source or sink
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// Only at or after this time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<String>,
    /// Only before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<String>,
}

fn id(text: &str) -> Result<String, String> {
    read_id(text).map(|_| text.to_owned())
}

fn time(text: &str) -> Result<String, String> {
    read_time(text).map(|_| text.to_owned())
}

impl DeadLetters {
    pub fn run(self, global: &Global) -> ExitCode {
        let (report, plan) = check::judged(global);
        let Some(plan) = plan.filter(|_| !report.has_errors()) else {
            eprint!("{}", report.text(super::colour(&std::io::stderr())));
            return ExitCode::FAILURE;
        };
        match self.command.run(&plan) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

impl Command {
    fn run(self, plan: &Plan) -> Result<(), String> {
        match self {
            Command::List { of, filter, limit, cursor, format } => {
                let page = of.desk(plan)?.page(&filter, cursor.as_deref(), limit.into())?;
                match format {
                    Format::Json => print(&format!("{page:#}\n")),
                    Format::Text => print(&table(&page)),
                }
            }
            Command::Show { of, id, format } => {
                let letter = of.desk(plan)?.letter(&id)?;
                match format {
                    Format::Json => print(&format!("{letter:#}\n")),
                    Format::Text => print(&in_full(&letter)),
                }
            }
            Command::Replay { of, which } => {
                let (ids, filter) = which.chosen()?;
                let desk = of.desk(plan)?;
                let replayed = desk.replay(&ids, &filter)?;
                let stopped = replayed.stopped;
                replayed.tell()?;
                if stopped {
                    return Err(desk.not_running(&ids, &filter)?);
                }
            }
            Command::Delete { of, which } => {
                let (ids, filter) = which.chosen()?;
                let count = of.desk(plan)?.delete(&ids, &filter)?;
                eprintln!("{count} deleted");
            }
            Command::Export { of, filter } => {
                let desk = of.desk(plan)?;
                let mut cursor = None;
                loop {
                    let page = desk.page(&filter, cursor.as_deref(), 1_000)?;
                    let letters = page["dead_letters"].as_array().map(Vec::as_slice).unwrap_or_default();
                    print(&letters.iter().map(|letter| format!("{letter}\n")).collect::<String>());
                    match page["next"].as_str() {
                        Some(next) => cursor = Some(next.to_owned()),
                        None => break,
                    }
                }
            }
        }
        Ok(())
    }
}

impl Which {
    fn chosen(self) -> Result<(Vec<String>, Filter), String> {
        let Which { ids, filter, all } = self;
        match ids.is_empty() && !all && filter.is_empty() {
            true => Err("name letters, give a filter, or --all".to_owned()),
            false => Ok((ids, filter)),
        }
    }
}

impl Of {
    fn desk<'p>(&self, plan: &'p Plan) -> Result<Desk<'p>, String> {
        let pipeline = ask::pick(plan, self.pipeline.as_deref())?;
        match &pipeline.dead_letters {
            DeadLettersPlan::Local { .. } => {}
            DeadLettersPlan::Kafka { topic, .. } => {
                eprintln!(
                    "note: dead letters of `{}` go to topic `{topic}`; the local store may hold older ones",
                    pipeline.name
                );
            }
            DeadLettersPlan::ClickHouse { table, .. } => {
                eprintln!(
                    "note: dead letters of `{}` go to table `{table}`; the local store may hold older ones",
                    pipeline.name
                );
            }
        }
        Ok(Desk { plan, pipeline })
    }
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.reason.is_none() && self.step.is_none() && self.from.is_none() && self.to.is_none()
    }

    fn meant(&self) -> LetterFilter {
        let ms = |text: &Option<String>| text.as_deref().and_then(|text| read_time(text).ok());
        LetterFilter {
            reason: self.reason.clone(),
            step: self.step.clone(),
            from_ms: ms(&self.from),
            to_ms: ms(&self.to),
        }
    }

    /// As parameters of an address.
    fn asked(&self) -> String {
        let parts = [("reason", &self.reason), ("step", &self.step), ("from", &self.from), ("to", &self.to)];
        let given = parts.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        given.map(|(name, value)| format!("&{name}={}", escaped(value))).collect()
    }
}

/// One pipeline's letters, wherever they can be reached.
struct Desk<'p> {
    plan: &'p Plan,
    pipeline: &'p PipelinePlan,
}

impl Desk<'_> {
    fn page(&self, filter: &Filter, cursor: Option<&str>, limit: usize) -> Result<Value, String> {
        let from = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let path = self.path(&format!("?limit={limit}{from}{}", filter.asked()));
        if let Heard::Done(page, _) = ask::ask(&self.plan.http, Verb::Get, &path)? {
            return Ok(page);
        }
        let letters = self.read()?;
        let from = cursor.map(read_id).transpose()?;
        let page = letters.page(from, limit, &filter.meant()).map_err(|error| error.message)?;
        let mut object = page_json(&page);
        object["total"] = letters.len().into();
        object["bytes"] = letters.bytes().into();
        Ok(object)
    }

    fn letter(&self, id: &str) -> Result<Value, String> {
        if let Heard::Done(letter, _) = ask::ask(&self.plan.http, Verb::Get, &self.path(&format!("/{id}")))? {
            return Ok(letter);
        }
        let known = read_id(id)?;
        let letter = self.read()?.get(known).map_err(|error| error.message)?;
        letter.map(|letter| letter_json(known, &letter)).ok_or_else(|| format!("there is no dead letter {id}"))
    }

    fn delete(&self, ids: &[String], filter: &Filter) -> Result<u64, String> {
        let mut count = 0;
        let paths = match ids {
            [] => vec![self.path(&format!("?{}", filter.asked().trim_start_matches('&')))],
            ids => ids.iter().map(|id| self.path(&format!("/{id}"))).collect(),
        };
        for (place, path) in paths.iter().enumerate() {
            match ask::ask(&self.plan.http, Verb::Delete, path)? {
                Heard::Done(_, deleted) => count += deleted,
                Heard::NotRunning if place == 0 => return self.delete_stopped(ids, filter),
                Heard::NotRunning => return Err(format!("weir ended meanwhile; {count} deleted")),
            }
        }
        Ok(count)
    }

    /// By name, or page by page.
    fn replay(&self, ids: &[String], filter: &Filter) -> Result<Replayed, String> {
        let mut replayed = Replayed::default();
        if !ids.is_empty() {
            for some in ids.chunks(1_000) {
                self.replay_page(&self.path("/replay"), &json!({ "ids": some }).to_string(), &mut replayed)?;
            }
            return Ok(replayed);
        }
        let mut cursor = String::new();
        loop {
            let path = self.path(&format!("/replay?limit=1000{cursor}{}", filter.asked()));
            match self.replay_page(&path, "", &mut replayed)? {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(replayed),
            }
        }
    }

    /// Where the next page begins.
    fn replay_page(&self, path: &str, body: &str, replayed: &mut Replayed) -> Result<Option<String>, String> {
        let Heard::Done(answer, _) = ask::ask(&self.plan.http, Verb::Post(body), path)? else {
            replayed.stopped = true;
            return Ok(None);
        };
        replayed.add(&answer);
        Ok(answer["next"].as_str().map(str::to_owned))
    }

    /// A replay goes through the running task of its partition; this says which ones do not run.
    fn not_running(&self, ids: &[String], filter: &Filter) -> Result<String, String> {
        let mut partitions = std::collections::BTreeSet::new();
        for id in ids {
            partitions.insert(read_id(id)?.partition);
        }
        let letters = self.read()?;
        let mut from = None;
        while ids.is_empty() {
            let page = letters.page(from, 1_000, &filter.meant()).map_err(|error| error.message)?;
            partitions.extend(page.letters.iter().map(|(id, _)| id.partition));
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        let listed: Vec<String> = partitions.iter().map(u32::to_string).collect();
        Ok(match listed.as_slice() {
            [] => "there is no dead letter that is meant".to_owned(),
            listed => format!(
                "partition {} of pipeline `{}` does not run, and a replay goes through the running task of the \
                 letter's partition: start `weir run`, then replay",
                listed.join(", "),
                self.pipeline.name
            ),
        })
    }

    fn delete_stopped(&self, ids: &[String], filter: &Filter) -> Result<u64, String> {
        let told = |error: crate::error::Error| error.message;
        let path = self.plan.state.rocksdb_path.join(&self.pipeline.name);
        // Opening for writing would make a directory that is not there.
        self.read()?;
        let store = RocksStore::open(&path, &small()).map_err(told)?;
        let letters = Letters::open(Arc::new(store), u64::MAX).map_err(told)?;
        if ids.is_empty() {
            return delete_all(&letters, &filter.meant()).map_err(told);
        }
        let ids: Vec<_> = ids.iter().map(|id| read_id(id)).collect::<Result<_, _>>()?;
        if let Some(missing) = ids.iter().find(|id| letters.get(**id).ok().flatten().is_none()) {
            return Err(format!("there is no dead letter {}-{}; nothing is deleted", missing.partition, missing.seq));
        }
        letters.delete(&ids).map_err(told)
    }

    /// The letters of a stopped pipeline, for a look.
    fn read(&self) -> Result<Letters, String> {
        let path = self.plan.state.rocksdb_path.join(&self.pipeline.name);
        let store = RocksStore::open_read_only(&path, &small()).map_err(|error| error.message)?;
        Letters::open(Arc::new(store), u64::MAX).map_err(|error| error.message)
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/pipelines/{}/dead-letters{rest}", escaped(&self.pipeline.name))
    }
}

/// How a replay went, over all its pages.
#[derive(Default)]
struct Replayed {
    replayed: u64,
    failed: u64,
    skipped: u64,
    recreated: u64,
    under_way: u64,
    refused: std::collections::BTreeSet<String>,
    /// The pipeline does not run (any more).
    stopped: bool,
}

impl Replayed {
    fn add(&mut self, answer: &Value) {
        let number = |name: &str| answer[name].as_u64().unwrap_or(0);
        self.replayed += number("replayed");
        self.failed += number("failed");
        self.skipped += number("skipped");
        self.recreated += number("recreated");
        self.under_way += number("under_way");
        let refused = answer["refused"].as_array().map(Vec::as_slice).unwrap_or_default();
        self.refused.extend(refused.iter().filter_map(Value::as_str).map(str::to_owned));
    }

    fn tell(&self) -> Result<(), String> {
        let mut parts = vec![format!("{} replayed", self.replayed)];
        let others = [
            (self.failed, "failed again (`list` shows why)"),
            (self.skipped, "not replayed: gone, being replayed already, or of a topic that is no input now"),
            (
                self.recreated,
                "not replayed: their topic was deleted and created again since, and their offsets name other records \
                 now (`export` them, then `delete`)",
            ),
            (self.under_way, "still under way: they go when the table and Kafka have answered"),
        ];
        parts.extend(others.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
        if !self.stopped || self.replayed > 0 {
            eprintln!("{}", parts.join("; "));
        }
        match self.refused.is_empty() {
            true => Ok(()),
            false => Err(self.refused.iter().cloned().collect::<Vec<_>>().join("; ")),
        }
    }
}

/// Memory for a short look.
pub(super) fn small() -> Shared {
    Shared::new(8 << 20, 8 << 20)
}

fn table(page: &Value) -> String {
    let letters = page["dead_letters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    let mut lines =
        vec![format!("{:<10} {:<24} {:<24} {:<8} {:<22} {}\n", "id", "time", "record", "step", "reason", "message")];
    for letter in letters {
        let record = format!("{}/{}@{}", text(&letter["topic"]), letter["partition"], letter["offset"]);
        lines.push(format!(
            "{:<10} {:<24} {:<24} {:<8} {:<22} {}\n",
            text(&letter["id"]),
            text(&letter["time"]),
            record,
            text(&letter["step"]),
            text(&letter["reason"]),
            text(&letter["message"])
        ));
    }
    match page["next"].as_str() {
        Some(next) => eprintln!("{} of {}; go on with --cursor {next}", letters.len(), page["total"]),
        None => eprintln!("{} of {}", letters.len(), page["total"]),
    }
    lines.concat()
}

fn in_full(letter: &Value) -> String {
    const ORDER: [&str; 13] = [
        "id",
        "time",
        "pipeline",
        "step",
        "reason",
        "message",
        "topic",
        "partition",
        "offset",
        "timestamp",
        "headers",
        "key",
        "value",
    ];
    let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    ORDER.iter().map(|name| format!("{name:<10} {}\n", text(letter.get(*name).unwrap_or(&json!(null))))).collect()
}
