//! What can go wrong, told so that the reader knows the next step.
//!
//! A [`Finding`] is something wrong (or worth saying) in the configuration, with its place. An [`Error`] is
//! something wrong at run time; its [`Kind`] says what to do about it.

use std::fmt;

/// Where in the configuration file: 1-based line and column, length in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize)]
pub struct Place {
    pub line: u32,
    pub column: u32,
    pub len: u32,
}

/// How bad a finding is. Only `Error` keeps a pipeline from starting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
    Note,
}

/// One thing that `check` says.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// A short stable name, such as `unknown_field`.
    pub code: &'static str,
    /// The path in the document, such as `pipelines[0].sink.clickhouse.table`.
    pub path: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    pub message: String,
    /// What to do about it; shown on a line of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Finding {
    /// The same, saying what to do about it.
    pub fn with_help(self, help: impl Into<String>) -> Finding {
        Finding { help: Some(help.into()), ..self }
    }

    /// The same, as something worth saying that keeps nothing from starting.
    pub fn as_warning(self) -> Finding {
        Finding { severity: Severity::Warning, ..self }
    }

    pub fn as_note(self) -> Finding {
        Finding { severity: Severity::Note, ..self }
    }
}

/// What to do about an [`Error`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The same thing may work later: wait and try again, without a limit.
    Retry,
    /// Only a person can mend it: stop the pipeline with the sentence, lose nothing.
    Stop,
    /// This process is no longer the owner: drop the work, commit nothing.
    Fenced,
}

/// A run-time error: its kind, the sentence a person reads, and a short stable code for metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    pub kind: Kind,
    /// Short and of few values (a metric label), such as `209` or `network`.
    pub code: String,
    pub message: String,
}

impl Error {
    pub fn retry(code: impl Into<String>, message: impl Into<String>) -> Error {
        Error { kind: Kind::Retry, code: code.into(), message: message.into() }
    }

    pub fn stop(code: impl Into<String>, message: impl Into<String>) -> Error {
        Error { kind: Kind::Stop, code: code.into(), message: message.into() }
    }

    pub fn fenced(code: impl Into<String>, message: impl Into<String>) -> Error {
        Error { kind: Kind::Fenced, code: code.into(), message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

pub type Result<T, E = Error> = std::result::Result<T, E>;
