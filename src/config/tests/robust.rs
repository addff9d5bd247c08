//! No text makes the reader panic, and no finding points outside of it.

use super::*;
use crate::config::report::Report;
use proptest::prelude::*;

const SEEDS: &[&str] = &[
    include_str!("../../../config/weir.yaml"),
    include_str!("../../../config/pipelines/sessions.yaml"),
    include_str!("../../../config/pipelines/filter-select.yaml"),
    include_str!("../../../config/pipelines/keep-changes.yaml"),
    include_str!("../../../config/pipelines/composite-key.yaml"),
];

/// Pieces that mean something to YAML or to us.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ": ",
    ", ",
    "- ",
    "\n",
    "\n  ",
    "\"",
    "'",
    "|",
    ">",
    "&a ",
    "*a",
    "<<: ",
    "${",
    "}",
    "${X:-",
    "~",
    "null",
    "true",
    "5",
    "-5s",
    "forever",
    "99999999999999999999",
    "é",
    "\u{1F600}",
    "\t",
    "\0",
    "\r",
    "#",
    "!!str ",
    "!x ",
    "---\n",
    "%YAML 1.2\n",
    "password: hunter2",
    "@",
    "://",
    "join: ",
    "with: ",
    "dedup: ",
    "key: ",
    "kafka: ",
    "...",
    "\u{feff}",
    "\u{85}",
];

fn holds(text: &str) {
    let (plan, findings) = parse(text);
    let lines = crate::config::node::lines(text).count().max(1) as u32;
    for finding in &findings {
        let place = finding.place.unwrap_or_else(|| panic!("no place: {finding:?}"));
        assert!(place.line >= 1 && place.column >= 1 && place.len >= 1, "{finding:?}");
        assert!(place.line <= lines + 1, "{finding:?} of {lines} lines");
    }
    assert!(plan.is_some() || !findings.is_empty(), "nothing is wrong and there is no plan");
    let report = Report::new("x.yaml", text, findings);
    report.text(true);
    report.json();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_make_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        holds(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_pieces_make_no_panic(picks in proptest::collection::vec(0..PIECES.len(), 0..40)) {
        holds(&picks.iter().map(|i| PIECES[*i]).collect::<String>());
    }

    #[test]
    fn mutated_configurations_make_no_panic(
        seed in 0..SEEDS.len(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0..12usize, 0..PIECES.len()), 1..6),
    ) {
        let mut chars: Vec<char> = SEEDS[seed].chars().collect();
        for (at, delete, piece) in cuts {
            let at = at.index(chars.len() + 1);
            let end = (at + delete).min(chars.len());
            chars.splice(at..end, PIECES[piece].chars());
        }
        holds(&chars.into_iter().collect::<String>());
    }
}

/// A guided run under `cargo bolero`, a short random one under `cargo test`.
#[test]
fn fuzzed_text_makes_no_panic() {
    bolero::check!().with_iterations(2_000).for_each(|bytes: &[u8]| holds(&String::from_utf8_lossy(bytes)));
}
