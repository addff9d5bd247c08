//! What the engine said, as the server would say it over HTTP: status, headers, body.

use super::engine::{Answer, EngineError, Work};
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, StatusCode};
use std::time::Duration;

/// An error as the server writes it: its code, its name, and the sentence between them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exception {
    pub code: u32,
    pub name: String,
    pub sentence: String,
}

impl Exception {
    pub fn new(code: u32, name: &str, sentence: impl Into<String>) -> Exception {
        Exception { code, name: name.to_owned(), sentence: sentence.into() }
    }

    /// Takes the engine's text apart. The library repeats code, name and version around what it read from a
    /// file, and says so; the server does not.
    pub fn of(error: &EngineError) -> Exception {
        let mut text = error.0.trim();
        let mut code = 0;
        while let Some((digits, rest)) =
            text.strip_prefix("Code: ").and_then(|rest| rest.split_once(". DB::Exception: "))
        {
            let Ok(number) = digits.parse() else { break };
            code = number;
            text = rest;
        }
        let mut name = "UNKNOWN_EXCEPTION";
        let mut sentence = text;
        while let Some((before, last)) = cut_name(sentence) {
            if !last.starts_with("version ") {
                name = last;
            }
            sentence = before;
        }
        let sentence = sentence.replace(": data for INSERT was parsed from file", "");
        Exception { code, name: name.to_owned(), sentence }
    }

    /// The body, without the line's end.
    pub fn text(&self, version: &str) -> String {
        let Exception { code, name, sentence } = self;
        format!("Code: {code}. DB::Exception: {sentence} ({name}) (version {version} (embedded))")
    }

    /// The status that the server gives to the code.
    pub fn status(&self) -> StatusCode {
        match self.code {
            194 => StatusCode::UNAUTHORIZED,
            192 | 193 | 497 | 516 => StatusCode::FORBIDDEN,
            46 | 47 | 50 | 56 | 60 | 63 | 73 | 81 | 115 => StatusCode::NOT_FOUND,
            6 | 25 | 26 | 27 | 36 | 38 | 41 | 43 | 52 | 53 | 62 | 69 | 72 | 78 | 180 => StatusCode::BAD_REQUEST,
            159 => StatusCode::REQUEST_TIMEOUT,
            48 => StatusCode::NOT_IMPLEMENTED,
            209 | 439 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Cuts ` (X)`, with a full stop behind it or not, off the text's end.
fn cut_name(text: &str) -> Option<(&str, &str)> {
    let inner = text.trim_end_matches('.').strip_suffix(')')?;
    let (before, last) = inner.rsplit_once(" (")?;
    let is_name = last.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    (is_name || last.starts_with("version ")).then_some((before, last))
}

/// What every answer of one request carries.
pub struct About<'a> {
    pub version: &'a str,
    pub query_id: &'a str,
    pub format: &'a str,
    pub elapsed: Duration,
}

/// The answer to a statement that worked.
pub fn success(about: &About<'_>, answer: Answer) -> Response<Body> {
    let summary = summary(answer.work(), about.elapsed);
    let mut response = Response::new(Body::from(Bytes::from_owner(answer)));
    let headers = response.headers_mut();
    headers.insert("x-clickhouse-summary", header(&summary));
    headers.insert("x-clickhouse-format", header(about.format));
    headers.insert("x-clickhouse-timezone", HeaderValue::from_static("UTC"));
    headers.insert("content-type", HeaderValue::from_static(content_type(about.format)));
    with_query_id(response, about)
}

/// The answer to a statement that did not.
pub fn failure(about: &About<'_>, exception: &Exception) -> Response<Body> {
    let mut response = Response::new(Body::from(exception.text(about.version) + "\n"));
    *response.status_mut() = exception.status();
    let headers = response.headers_mut();
    headers.insert("x-clickhouse-exception-code", HeaderValue::from(exception.code));
    headers.insert("x-clickhouse-summary", header(&summary(Work::default(), about.elapsed)));
    headers.insert("content-type", HeaderValue::from_static("text/plain; charset=UTF-8"));
    with_query_id(response, about)
}

fn with_query_id(mut response: Response<Body>, about: &About<'_>) -> Response<Body> {
    response.headers_mut().insert("x-clickhouse-query-id", header(about.query_id));
    response.headers_mut().insert("x-clickhouse-server-display-name", HeaderValue::from_static("weir-embedded"));
    response
}

/// Numbers are texts, as the server writes them.
fn summary(work: Work, elapsed: Duration) -> String {
    let Work { rows_read, bytes_read, rows_written, bytes_written } = work;
    let elapsed_ns = elapsed.as_nanos();
    format!(
        r#"{{"read_rows":"{rows_read}","read_bytes":"{bytes_read}","written_rows":"{rows_written}","written_bytes":"{bytes_written}","total_rows_to_read":"0","result_rows":"{rows_written}","result_bytes":"{bytes_written}","elapsed_ns":"{elapsed_ns}"}}"#
    )
}

fn content_type(format: &str) -> &'static str {
    match format {
        "JSON" | "JSONCompact" | "JSONStrings" => "application/json; charset=UTF-8",
        "JSONEachRow" | "JSONCompactEachRow" => "application/x-ndjson; charset=UTF-8",
        "TabSeparated" | "TSV" | "TSVRaw" => "text/tab-separated-values; charset=UTF-8",
        "Native" | "RowBinary" | "RowBinaryWithNamesAndTypes" => "application/octet-stream",
        _ => "text/plain; charset=UTF-8",
    }
}

/// A header's value; what a header cannot hold becomes a question mark.
fn header(text: &str) -> HeaderValue {
    let safe: String = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    HeaderValue::from_str(&safe).expect("printable ASCII only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_from_inside_a_file_reads_as_the_servers() {
        let error = EngineError(
            "Code: 27. DB::Exception: Code: 27. DB::Exception: Cannot parse input: expected '\"' before: 'z': (at row \
             2)\n: While executing File: data for INSERT was parsed from file. (CANNOT_PARSE_INPUT_ASSERTION_FAILED) \
             (version 26.5.1.1). (CANNOT_PARSE_INPUT_ASSERTION_FAILED)"
                .to_owned(),
        );
        let exception = Exception::of(&error);
        assert_eq!((exception.code, exception.name.as_str()), (27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED"));
        assert_eq!(
            exception.text("26.5.1.1"),
            "Code: 27. DB::Exception: Cannot parse input: expected '\"' before: 'z': (at row 2)\n: While executing \
             File. (CANNOT_PARSE_INPUT_ASSERTION_FAILED) (version 26.5.1.1 (embedded))"
        );
    }

    #[test]
    fn a_plain_error_keeps_its_brackets() {
        let error = EngineError("Code: 47. DB::Exception: Unknown `x` (in scope). (UNKNOWN_IDENTIFIER)".to_owned());
        let exception = Exception::of(&error);
        assert_eq!(exception, Exception::new(47, "UNKNOWN_IDENTIFIER", "Unknown `x` (in scope)."));
        assert_eq!(exception.status(), StatusCode::NOT_FOUND);
    }
}
