//! Findings as people and programs read them: with the line, a caret, and what to do; or as JSON.
//!
//! Every finding of every layer is shown here. Promises: a secret in the document is never shown.

use super::node;
use super::secrets::Masks;
use crate::error::{Finding, Place, Severity};
use std::fmt::Write;

/// The findings of one document.
pub struct Report {
    file: String,
    lines: Vec<String>,
    masks: Masks,
    findings: Vec<Finding>,
}

/// A longer line is shown around its caret.
const COLUMNS_MAX: usize = 120;

impl Report {
    pub fn new(file: impl Into<String>, text: impl AsRef<str>, findings: Vec<Finding>) -> Report {
        let text = text.as_ref();
        let lines = node::lines(text).map(str::to_string).collect();
        Report { file: file.into(), lines, masks: Masks::of(text), findings }
    }

    /// Of a file that cannot be read.
    pub fn unreadable(file: impl Into<String>, why: &str) -> Report {
        let finding = Finding {
            severity: Severity::Error,
            code: "unreadable",
            path: String::new(),
            place: None,
            message: format!("the file cannot be read: {why}"),
            help: Some("name another with --config FILE or WEIR_CONFIG".into()),
        };
        Report::new(file, "", vec![finding])
    }

    /// Adds what another layer found.
    pub fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
    }

    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// As text, one paragraph per finding and a line that counts them.
    pub fn text(&self, colour: bool) -> String {
        let paint = Paint { colour };
        let mut out = String::new();
        for finding in &self.findings {
            self.render(finding, paint, &mut out);
            out.push('\n');
        }
        out.push_str(&self.summary());
        out.push('\n');
        out
    }

    /// As one JSON object.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "file": self.file,
            "ok": !self.has_errors(),
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "notes": self.count(Severity::Note),
            "findings": self.findings,
        })
    }

    /// `weir.yaml: 2 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let counted = |severity, name: &str| match self.count(severity) {
            0 => None,
            1 => Some(format!("1 {name}")),
            n => Some(format!("{n} {name}s")),
        };
        let parts = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")];
        let parts: Vec<String> = parts.into_iter().filter_map(|(severity, name)| counted(severity, name)).collect();
        let good = if self.has_errors() { "" } else { "good" };
        match (good, parts.join(", ")) {
            ("", counts) => format!("{}: {counts}", self.file),
            (good, counts) if counts.is_empty() => format!("{}: {good}", self.file),
            (good, counts) => format!("{}: {good}, {counts}", self.file),
        }
    }

    fn render(&self, finding: &Finding, paint: Paint, out: &mut String) {
        let (name, colour) = match finding.severity {
            Severity::Error => ("error", "31"),
            Severity::Warning => ("warning", "33"),
            Severity::Note => ("note", "36"),
        };
        let head = paint.bold(colour, &format!("{name}[{}]", finding.code));
        let _ = writeln!(out, "{head}{}", paint.bold("0", &format!(": {}", finding.message)));
        let margin = finding.place.map_or(1, |place| place.line.to_string().len());
        let bar = paint.bold("34", "|");
        match finding.place {
            Some(Place { line, column, .. }) => {
                let arrow = paint.bold("34", "-->");
                let _ = writeln!(out, "{:margin$}{arrow} {}:{line}:{column}", "", self.file);
            }
            None => {
                let _ = writeln!(out, "{:margin$}{} {}", "", paint.bold("34", "-->"), self.file);
            }
        }
        if let Some((line, caret)) = finding.place.and_then(|place| self.line_and_caret(place)) {
            let number = paint.bold("34", &finding.place.map_or(String::new(), |place| place.line.to_string()));
            let _ = writeln!(out, "{:margin$} {bar}", "");
            let _ = writeln!(out, "{number} {bar} {line}");
            let _ = writeln!(out, "{:margin$} {bar} {}{}", "", caret.indent(), paint.bold(colour, &caret.carets()));
        }
        if let Some(help) = &finding.help {
            // A statement has lines of its own.
            let help = help.replace('\n', &format!("\n{:margin$}   ", ""));
            let _ = writeln!(out, "{:margin$} {} {help}", "", paint.bold("34", "="));
        }
    }

    /// The source line as it may be shown, and where the caret stands below it.
    fn line_and_caret(&self, place: Place) -> Option<(String, Caret)> {
        let line = self.lines.get(place.line.checked_sub(1)? as usize)?;
        let masked = self.masks.of_line(place.line, line);
        let mut shown: Vec<char> = Vec::new();
        let mut shown_at: Vec<usize> = Vec::new();
        for (i, c) in line.chars().enumerate() {
            match masked.iter().find(|(start, end)| (*start..*end).contains(&i)) {
                Some((start, _)) if i > *start && shown_at.last().is_some() => shown_at.push(shown.len() - 1),
                Some(_) => {
                    shown.extend(['*', '*', '*']);
                    shown_at.push(shown.len() - 3);
                }
                None => {
                    shown_at.push(shown.len());
                    shown.push(if c.is_control() { ' ' } else { c });
                }
            }
        }
        shown_at.push(shown.len());
        let clamp = |column: u32| shown_at[(column as usize).min(shown_at.len() - 1)];
        let start = clamp(place.column.saturating_sub(1));
        let end = clamp(place.column.saturating_sub(1).saturating_add(place.len)).max(start + 1);
        Some(window(&shown, Caret { start, len: end - start }))
    }
}

struct Caret {
    start: usize,
    len: usize,
}

impl Caret {
    fn indent(&self) -> String {
        " ".repeat(self.start)
    }

    fn carets(&self) -> String {
        "^".repeat(self.len)
    }
}

/// The part of a long line around its caret.
fn window(line: &[char], caret: Caret) -> (String, Caret) {
    let line_end = line.iter().rposition(|c| !c.is_whitespace()).map_or(0, |i| i + 1);
    let line = &line[..line_end];
    if line.len() <= COLUMNS_MAX {
        return (line.iter().collect(), caret);
    }
    let from = caret.start.saturating_sub(COLUMNS_MAX / 3).min(line.len());
    let to = (from + COLUMNS_MAX).min(line.len());
    let (before, after) = (if from > 0 { "…" } else { "" }, if to < line.len() { "…" } else { "" });
    let text = format!("{before}{}{after}", line[from..to].iter().collect::<String>());
    let start = caret.start - from + before.chars().count();
    let len = caret.len.min(to.saturating_sub(caret.start).max(1));
    (text, Caret { start, len })
}

#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn bold(self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[1;{code}m{text}\u{1b}[0m") } else { text.to_string() }
    }
}

/// A report is what stops a start.
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text(false))
    }
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}
