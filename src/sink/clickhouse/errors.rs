//! What an answer of ClickHouse means for the block that was sent.
//!
//! Owns the classification of error codes. Promises: nothing is ever dropped: what may work later is repeated, what
//! a person has to mend stops the pipeline with the server's own words.

use crate::error::{Error, Kind};
use clickhouse::error::Error as ClientError;

/// What to do about an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// The same bytes under the same token, later.
    Retry,
    /// The table is not what it was: look at it, then stop.
    Schema,
    /// The server refuses the data, although every value was checked: stop.
    Data,
    /// Settings, grants, limits: stop.
    Config,
    /// Unknown or internal: a few times more, then stop.
    Doubtful,
}

/// An answer, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub class: Class,
    /// The server's code, or `network`, `timeout`, `http`.
    pub code: String,
    /// The server's words, shortened.
    pub message: String,
}

impl Failure {
    /// Understands what the client says.
    pub fn of(error: &ClientError) -> Failure {
        match error {
            ClientError::BadResponse(text) => Failure::of_answer(text),
            ClientError::TimedOut => Failure::timeout(),
            ClientError::Network(_) => Failure::new(Class::Retry, "network", &with_causes(error)),
            ClientError::InvalidParams(_) | ClientError::Unsupported(_) => {
                Failure::new(Class::Config, "client", &with_causes(error))
            }
            _ => Failure::new(Class::Doubtful, "client", &with_causes(error)),
        }
    }

    pub fn timeout() -> Failure {
        Failure::new(Class::Retry, "timeout", "no answer in time")
    }

    /// Understands the body of an error's answer.
    fn of_answer(text: &str) -> Failure {
        match code_of(text) {
            Some(code) => Failure::new(classify(code, text), &code.to_string(), text),
            // A proxy, a gateway, a server that is going down.
            None => Failure::new(Class::Retry, "http", text),
        }
    }

    fn new(class: Class, code: &str, message: &str) -> Failure {
        Failure { class, code: code.to_owned(), message: shortened(message) }
    }

    /// The error for the pipeline; `doing` begins the sentence: "inserting into `db`.`t`".
    pub fn into_error(self, doing: &str) -> Error {
        let kind = match self.class {
            Class::Retry | Class::Doubtful => Kind::Retry,
            Class::Schema | Class::Data | Class::Config => Kind::Stop,
        };
        let message = match self.code.as_str() {
            "network" => format!("ClickHouse cannot be reached ({doing}): {}", self.message),
            "timeout" => format!("ClickHouse gave no answer in time ({doing})"),
            "http" => format!("something in front of ClickHouse answered ({doing}): {}", self.message),
            _ => format!("ClickHouse refused ({doing}): {}", self.message),
        };
        Error { kind, code: self.code, message }
    }
}

/// The server's code, where a body begins as one of its exceptions does (`Code: 60. DB::Exception: …`): the page of a
/// proxy may have any text. The client puts the header's code, which has nothing behind it, in the place of an empty
/// body.
fn code_of(text: &str) -> Option<u32> {
    let behind = ["Code: ", "Poco::Exception. Code: ", "std::exception. Code: "]
        .iter()
        .find_map(|begins| text.trim_start().strip_prefix(begins))?;
    let (digits, rest) = behind.split_at(behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len()));
    let is_exception = rest.is_empty() || rest.starts_with(',') || (rest.starts_with(". ") && rest.contains("::"));
    if is_exception { digits.parse().ok() } else { None }
}

/// The class of a server's error code; some codes mean two things and only the text tells.
pub fn classify(code: u32, text: &str) -> Class {
    match code {
        252 if text.contains("Too many partitions") => Class::Config,
        // Unreachable, busy, full, restarting, read-only, out of memory, 216 = the attempt before still runs.
        3
        | 159
        | 198
        | 201..=203
        | 209
        | 210
        | 216
        | 225
        | 236
        | 241..=243
        | 252
        | 254
        | 265
        | 279
        | 285
        | 286
        | 289
        | 290
        | 297
        | 319
        | 364
        | 384
        | 394
        | 425
        | 439
        | 473
        | 499
        | 692
        | 700
        | 722
        | 733
        | 735
        | 745
        | 999
        | 1000 => Class::Retry,
        7 | 8 | 10 | 16 | 20 | 33 | 44 | 47 | 53 | 117 | 122 | 131 => Class::Schema,
        6 | 25..=27 | 38 | 41 | 69 | 72 | 130 | 190 | 321 | 349 | 395 | 407 | 441 | 467 | 469 | 675 | 676 | 691 => {
            Class::Data
        }
        36 | 43 | 46 | 48 | 50 | 57 | 60 | 62 | 73 | 80 | 81 | 115 | 164 | 192..=195 | 291 | 392 | 497 | 516 => {
            Class::Config
        }
        _ => Class::Doubtful,
    }
}

/// Server messages are cut here; stack traces and repeated data say nothing more.
const MESSAGE_CHARS_MAX: usize = 600;

fn shortened(message: &str) -> String {
    let message = message.trim();
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &message[..at]),
        None => message.to_owned(),
    }
}

/// The error with what caused it: "client error (Connect): … : Connection refused".
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> Class {
        Failure::of(&ClientError::BadResponse(text.to_owned())).class
    }

    #[test]
    fn one_number_with_two_meanings_is_told_by_its_text() {
        assert_eq!(class("Code: 252. DB::Exception: Too many parts (300). Merges are processing…"), Class::Retry);
        assert_eq!(class("Code: 252. DB::Exception: Too many partitions for single INSERT block"), Class::Config);
    }

    #[test]
    fn what_may_work_later_is_repeated() {
        for text in [
            "Code: 241. DB::Exception: Memory limit",
            "Code: 319. DB::Exception: Unknown status",
            "Code: 216. DB::Exception: Query with id is already running",
            "502 Bad Gateway",
            "504 Gateway Timeout",
            "<h1>Error Code: 117. DB::Exception</h1> behind this proxy",
            "Code: 117 is what this proxy says",
            "<html>Service Unavailable</html>",
            "",
        ] {
            assert_eq!(class(text), Class::Retry, "{text}");
        }
        for text in ["Code: 999. Coordination::Exception: Session expired", "Code: 210. DB::NetException: reset"] {
            assert_eq!(class(text), Class::Retry, "{text}");
        }
        assert_eq!(Failure::of(&ClientError::TimedOut).class, Class::Retry);
        assert_eq!(Failure::of(&ClientError::Network("reset".into())).code, "network");
    }

    #[test]
    fn what_a_person_mends_stops_with_the_servers_words() {
        let failure =
            Failure::of(&ClientError::BadResponse("Code: 60. DB::Exception: Table d.t does not exist".into()));
        let error = failure.into_error("inserting into `d`.`t`");
        assert_eq!((error.kind, error.code.as_str()), (Kind::Stop, "60"));
        assert!(error.message.contains("`d`.`t`") && error.message.contains("does not exist"), "{error}");
        assert_eq!(class("Code: 469. DB::Exception: Constraint violated"), Class::Data);
        assert_eq!(class("Code: 16. DB::Exception: No such column"), Class::Schema);
        assert_eq!(class("Code: 49. DB::Exception: Logical error"), Class::Doubtful);
        assert_eq!(class("Code: 98765. DB::Exception: new"), Class::Doubtful);
        assert_eq!(class("Code: 60"), Class::Config, "the header's code, without a body");
    }
}
