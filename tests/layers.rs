//! Who may import whom, and which crate stays where (see the map in `src/lib.rs`).
//!
//! Reads the sources as text. A rule that has to give way is changed here, with its reason, in the same commit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// From the ground up; a module imports from lower lines only. Modules of one line are siblings and never meet.
const LEVELS: [&[&str]; 7] = [
    &["types", "error", "clock"],
    // Counts errors, so it stands on them.
    &["metrics"],
    &["state", "codec", "config"],
    &["source", "sink", "step"],
    &["runtime"],
    &["api", "demo"],
    &["cli"],
];

/// Where a crate that touches the outside may be named: path prefixes below `src/`.
const PLACES: [(&str, &[&str]); 10] = [
    // The demo's broker and generator are a Kafka and its producer, not a way into it for the engine.
    ("rdkafka", &["source/kafka", "sink/kafka", "demo/broker.rs", "demo/generator.rs"]),
    ("rocksdb", &["state/rocks"]),
    // The embedded engine speaks ClickHouse's HTTP, so it is a server, too.
    ("axum", &["api/", "demo/clickhouse/"]),
    ("clap", &["cli/"]),
    // The demo makes its table and asks for its proof as any user would, past the engine on purpose.
    ("clickhouse", &["sink/clickhouse/", "demo/proof.rs", "cli/demo.rs"]),
    ("hyper", &["sink/clickhouse/"]),
    ("hyper_util", &["sink/clickhouse/"]),
    ("hyper_rustls", &["sink/clickhouse/"]),
    ("libloading", &["demo/clickhouse/"]),
    // Commands that ask the running weir.
    ("ureq", &["cli/"]),
];

/// What a step never sees: threads, files, clocks.
const OUTSIDE: [&str; 6] = ["std::thread", "std::fs", "std::net", "std::time", "tokio::", "crossbeam_channel"];

const NAMES_WITHOUT_MEANING: [&str; 8] =
    ["util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"];

#[test]
fn imports_go_one_way() {
    let level: BTreeMap<&str, usize> = LEVELS
        .iter()
        .enumerate()
        .flat_map(|(number, modules)| modules.iter().map(move |module| (*module, number)))
        .collect();
    let wrong = each_line(|source, line| {
        let from = source.module.as_str();
        let own = level.get(from)?;
        let upward = imported(line)
            .into_iter()
            .find(|module| module != from && level.get(module.as_str()).is_none_or(|theirs| theirs >= own));
        upward.map(|module| format!("`{from}` imports `{module}`, which does not lie below it"))
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_module_has_its_level() {
    let known: Vec<&str> = LEVELS.concat();
    let unknown: Vec<String> = sources()
        .into_iter()
        .map(|source| source.module)
        .filter(|module| !["main", "lib", "bin"].contains(&module.as_str()) && !known.contains(&module.as_str()))
        .collect();
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn crates_that_touch_the_outside_stay_in_their_places() {
    let wrong = each_line(|source, line| {
        PLACES.iter().find_map(|(name, places)| {
            let away = !places.iter().any(|place| source.path.starts_with(place));
            (away && names_crate(line, name)).then(|| format!("`{name}` belongs into {}", places.join(", ")))
        })
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_step_never_sees_threads_files_or_clocks() {
    let wrong = each_line(|source, line| {
        let outside = OUTSIDE.iter().find(|name| source.module == "step" && line.contains(*name))?;
        Some(format!("a step uses `{outside}`"))
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_module_is_named_after_nothing() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .map(|source| source.path)
        .filter(|path| path.split(['/', '.']).any(|part| NAMES_WITHOUT_MEANING.contains(&part)))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_file_opens_with_what_it_owns() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//!") && !source.is_tests())
        .map(|source| source.path)
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_rules_see_a_break() {
    assert_eq!(imported("use crate::runtime::task::Task;"), ["runtime"]);
    assert_eq!(imported("use crate::{source, state::Table};"), ["source", "state"]);
    assert_eq!(imported("    let moment = crate::codec::time::Moment::from_ms(ms);"), ["codec"]);
    assert!(names_crate("use rdkafka::ClientConfig;", "rdkafka"));
    assert!(names_crate("    let client = clickhouse::Client::default();", "clickhouse"));
    assert!(!names_crate("use crate::sink::clickhouse::client::Client;", "clickhouse"));
    assert!(!names_crate("pub mod clickhouse;", "clickhouse"));
}

struct Source {
    /// Below `src/`, with `/`.
    path: String,
    /// The top module that it belongs to.
    module: String,
    text: String,
}

impl Source {
    fn is_tests(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    assert!(paths.len() > 50, "the sources are where they were");
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let module = path.split(['/', '.']).next().unwrap().to_owned();
        Source { path, module, text }
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// What `judge` says about lines of code, each with its place. Comments are no code.
fn each_line(judge: impl Fn(&Source, &str) -> Option<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(what) = judge(&source, code) {
                wrong.push(format!("src/{}:{}: {what}", source.path, number + 1));
            }
        }
    }
    wrong
}

/// The top modules that a line names: `crate::a::b`, or the firsts of `crate::{a::b, c}`.
fn imported(line: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let mut modules = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => modules.extend(list.split(',').map(name)),
            None => modules.push(name(rest)),
        }
    }
    modules.retain(|module| module.starts_with(|c: char| c.is_ascii_lowercase()));
    modules
}

/// Whether a line names a crate itself, not a module of ours that is called the same.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':'))
    })
}
