//! Dead letters over HTTP, and the form in which they are shown everywhere.
//!
//! Owns the JSON of a letter. Promises: bytes that are text are shown as text, others as base64; a call that would
//! show payloads or change something is answered only to those who may.

use super::guard::{MayRead, MayWrite};
use super::problem::Problem;
use super::{Watched, at_rest, desk, json_response, on_disk};
use crate::codec::time::Moment;
use crate::runtime::desk::{Desk, Replay};
use crate::state::letters::{Letter, LetterFilter, LetterId, Letters, Page, REPLAY_UNCLEAR};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A page where no `limit` is given, and the most that it may be.
const PAGE_LETTERS: usize = 100;
const PAGE_LETTERS_MAX: usize = 1_000;
/// How long a replay is waited for before the answer says that it is under way.
const REPLAY_PATIENCE: Duration = Duration::from_secs(10);

pub fn routes() -> Router<Watched> {
    Router::new()
        .route("/api/v1/pipelines/{name}/dead-letters", get(list).delete(delete_some))
        .route("/api/v1/pipelines/{name}/dead-letters/replay", post(replay_some))
        .route("/api/v1/pipelines/{name}/dead-letters/{id}", get(show).delete(delete_one))
        .route("/api/v1/pipelines/{name}/dead-letters/{id}/replay", post(replay_one))
}

type Asked = BTreeMap<String, String>;

async fn list(
    MayRead(watched): MayRead,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let (desk, question) = (desk(&watched, &name)?, Question::read(&asked)?);
    on_disk(move || {
        let letters = letters(&desk)?;
        let page =
            letters.page(question.from, question.limit, &question.filter).map_err(|error| Problem::of(&error))?;
        let mut object = page_json(&page);
        object["total"] = letters.len().into();
        object["bytes"] = letters.bytes().into();
        Ok(json_response(&object))
    })
    .await
}

async fn show(MayRead(watched): MayRead, Path((name, id)): Path<(String, String)>) -> Result<Response, Problem> {
    let (desk, id) = (desk(&watched, &name)?, named(&id)?);
    on_disk(move || match letters(&desk)?.get(id) {
        Ok(Some(letter)) => Ok(json_response(&letter_json(id, &letter))),
        Ok(None) => Err(no_letter(id)),
        Err(error) => Err(Problem::of(&error)),
    })
    .await
}

async fn delete_one(
    MayWrite(watched): MayWrite,
    Path((name, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (desk, id) = (desk(&watched, &name)?, named(&id)?);
    on_disk(move || {
        let letters = letters(&desk)?;
        match letters.delete(&[id]) {
            Ok(0) if letters.is_replaying(id) => {
                Err(Problem::new(409, format!("dead letter {} is being replayed: wait for its end", id_text(id))))
            }
            Ok(0) => Err(no_letter(id)),
            Ok(count) => Ok(deleted(count)),
            Err(error) => Err(Problem::of(&error)),
        }
    })
    .await
}

/// Deletes all that meet the filter; without one, all.
async fn delete_some(
    MayWrite(watched): MayWrite,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let (desk, question) = (desk(&watched, &name)?, Question::read(&asked)?);
    on_disk(move || {
        let count = delete_all(&*letters(&desk)?, &question.filter).map_err(|error| Problem::of(&error))?;
        Ok(deleted(count))
    })
    .await
}

/// Replays those that the body names (`{"ids": ["3-17"]}`), or without a body a page of those that meet the filter;
/// `next` says where to go on.
async fn replay_some(
    MayWrite(watched): MayWrite,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    body: Bytes,
) -> Result<Response, Problem> {
    let (desk, question) = (desk(&watched, &name)?, Question::read(&asked)?);
    let ids = read_ids(&body)?;
    on_disk(move || {
        let letters = letters(&desk)?;
        match ids {
            Some(ids) => replay(&desk, &ids, None),
            None => {
                let page = letters.page(question.from, question.limit, &question.filter);
                let page = page.map_err(|error| Problem::of(&error))?;
                // Nobody knows whether these are in the table: a person has to ask for them.
                let wants_doubtful = question.filter.reason.as_deref() == Some(REPLAY_UNCLEAR);
                let meant = page.letters.iter().filter(|(_, letter)| wants_doubtful || letter.reason != REPLAY_UNCLEAR);
                replay(&desk, &meant.map(|(id, _)| *id).collect::<Vec<_>>(), page.next)
            }
        }
    })
    .await
}

async fn replay_one(
    MayWrite(watched): MayWrite,
    Path((name, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (desk, id) = (desk(&watched, &name)?, named(&id)?);
    on_disk(move || replay(&desk, &[id], None)).await
}

fn replay(desk: &Desk, ids: &[LetterId], next: Option<LetterId>) -> Result<Response, Problem> {
    let letters = letters(desk)?;
    for &id in ids {
        if letters.get(id).map_err(|error| Problem::of(&error))?.is_none() {
            return Err(no_letter(id));
        }
    }
    let replay = desk.replay(ids, REPLAY_PATIENCE).ok_or_else(|| at_rest(desk))?;
    let has_begun = replay.done != Default::default() || replay.under_way > 0;
    if !has_begun && !replay.refused.is_empty() {
        return Err(Problem::new(409, replay.refused.join("; ")));
    }
    let status = if replay.under_way > 0 { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, json_response(&replay_json(&replay, next))).into_response())
}

fn replay_json(replay: &Replay, next: Option<LetterId>) -> Value {
    json!({
        "replayed": replay.done.replayed,
        "failed": replay.done.failed,
        "skipped": replay.done.skipped,
        "recreated": replay.done.recreated,
        "refused": replay.refused,
        "under_way": replay.under_way,
        "next": next.map(id_text),
    })
}

/// The letters that a body names; `None` without a body.
fn read_ids(body: &[u8]) -> Result<Option<Vec<LetterId>>, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Named {
        ids: Vec<String>,
    }
    let read: Named = serde_json::from_slice(body)
        .map_err(|error| Problem::new(400, format!("the body takes {{\"ids\": [\"3-17\"]}}: {error}")))?;
    if read.ids.len() > PAGE_LETTERS_MAX {
        return Err(Problem::new(
            422,
            format!("at most {PAGE_LETTERS_MAX} letters at once; this names {}", read.ids.len()),
        ));
    }
    read.ids.iter().map(|id| named(id)).collect::<Result<Vec<_>, _>>().map(Some)
}

fn named(id: &str) -> Result<LetterId, Problem> {
    read_id(id).map_err(|why| Problem::new(400, why))
}

/// Deletes letters page by page; answers how many.
pub fn delete_all(letters: &Letters, filter: &LetterFilter) -> crate::error::Result<u64> {
    let (mut from, mut count) = (None, 0);
    loop {
        let page = letters.page(from, PAGE_LETTERS_MAX, filter)?;
        let ids: Vec<LetterId> = page.letters.iter().map(|(id, _)| *id).collect();
        count += letters.delete(&ids)?;
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok(count),
        }
    }
}

/// What is asked of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    pub filter: LetterFilter,
    pub from: Option<LetterId>,
    pub limit: usize,
}

impl Question {
    fn read(asked: &Asked) -> Result<Question, Problem> {
        const KNOWN: [&str; 6] = ["reason", "step", "from", "to", "cursor", "limit"];
        if let Some(unknown) = asked.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(Problem::new(
                400,
                format!("`{unknown}` is no parameter here; there are: {}", KNOWN.join(", ")),
            ));
        }
        let wrong = |why: String| Problem::new(400, why);
        let time = |name| asked.get(name).map(|text| read_time(text)).transpose().map_err(wrong);
        let limit = match asked.get("limit").map(|text| text.parse::<usize>()) {
            None => PAGE_LETTERS,
            Some(Ok(limit @ 1..=PAGE_LETTERS_MAX)) => limit,
            Some(_) => return Err(wrong(format!("`limit` takes a number from 1 to {PAGE_LETTERS_MAX}"))),
        };
        Ok(Question {
            filter: LetterFilter {
                reason: asked.get("reason").cloned(),
                step: asked.get("step").cloned(),
                from_ms: time("from")?,
                to_ms: time("to")?,
            },
            from: asked.get("cursor").map(|text| read_id(text)).transpose().map_err(wrong)?,
            limit,
        })
    }
}

/// `<partition>-<number>`.
pub fn read_id(text: &str) -> Result<LetterId, String> {
    let parts = text.split_once('-').and_then(|(partition, seq)| Some((partition.parse().ok()?, seq.parse().ok()?)));
    let (partition, seq) =
        parts.ok_or_else(|| format!("`{text}` names no dead letter: a name is <partition>-<number>, such as 3-17"))?;
    Ok(LetterId { partition, seq })
}

/// RFC 3339, in milliseconds.
pub fn read_time(text: &str) -> Result<i64, String> {
    let time = text.parse::<jiff::Timestamp>();
    time.map(|time| time.as_millisecond()).map_err(|_| format!("`{text}` is no time such as 2026-01-31T12:00:00Z"))
}

fn id_text(id: LetterId) -> String {
    format!("{}-{}", id.partition, id.seq)
}

pub fn page_json(page: &Page) -> Value {
    let letters: Vec<Value> = page.letters.iter().map(|(id, letter)| letter_json(*id, letter)).collect();
    json!({ "dead_letters": letters, "next": page.next.map(id_text) })
}

pub fn letter_json(id: LetterId, letter: &Letter) -> Value {
    let headers =
        letter.headers.iter().map(|(name, value)| json!({ "name": name, "value": bytes_json(value.as_deref()) }));
    json!({
        "id": id_text(id),
        "pipeline": letter.pipeline,
        "step": letter.step,
        "reason": letter.reason,
        "message": letter.message,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": (letter.timestamp_ms >= 0).then(|| time_text(letter.timestamp_ms)),
        "time": time_text(letter.noted_ms),
        "key": bytes_json(letter.key.as_deref()),
        "value": bytes_json(letter.value.as_deref()),
        "headers": headers.collect::<Vec<_>>(),
    })
}

/// Text as it is, other bytes as `{"base64": "…"}`.
fn bytes_json(bytes: Option<&[u8]>) -> Value {
    match bytes.map(std::str::from_utf8) {
        None => Value::Null,
        Some(Ok(text)) => text.into(),
        Some(Err(_)) => {
            json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes.unwrap_or_default()) })
        }
    }
}

fn time_text(ms: i64) -> String {
    let moment = Moment::from_nanos(i128::from(ms) * 1_000_000);
    moment.map_or(format!("{ms} ms since 1970"), |moment| moment.to_rfc3339())
}

fn letters(desk: &Desk) -> Result<Arc<Letters>, Problem> {
    desk.letters().ok_or_else(|| at_rest(desk))
}

fn no_letter(id: LetterId) -> Problem {
    Problem::new(404, format!("there is no dead letter {}", id_text(id)))
}

fn deleted(count: u64) -> Response {
    (StatusCode::NO_CONTENT, [("weir-deleted", count.to_string())]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        let letter =
            Letter { key: Some(b"k".to_vec()), value: Some(vec![0xff, 0]), timestamp_ms: -1, ..Letter::default() };
        let object = letter_json(LetterId { partition: 3, seq: 17 }, &letter);
        assert_eq!(object["id"], "3-17");
        assert_eq!(object["key"], "k");
        assert_eq!(object["value"], json!({ "base64": "/wA=" }));
        assert_eq!((object["timestamp"].clone(), object["time"].as_str()), (Value::Null, Some("1970-01-01T00:00:00Z")));
    }

    #[test]
    fn a_question_is_read_or_refused_with_what_is_known() {
        let read = |pairs: &[(&str, &str)]| {
            Question::read(&pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
        };
        let question = read(&[("reason", "bad_json"), ("from", "1970-01-01T00:00:01Z"), ("cursor", "3-17")]).unwrap();
        assert_eq!(question.filter.reason.as_deref(), Some("bad_json"));
        assert_eq!((question.filter.from_ms, question.limit), (Some(1000), PAGE_LETTERS));
        assert_eq!(question.from, Some(LetterId { partition: 3, seq: 17 }));
        assert_eq!(read_ids(b" ").unwrap(), None);
        assert_eq!(read_ids(br#"{"ids": ["3-17"]}"#).unwrap(), Some(vec![LetterId { partition: 3, seq: 17 }]));
        assert_eq!(read_ids(br#"{"id": "3-17"}"#).unwrap_err().status, 400);
        for wrong in [("limit", "0"), ("cursor", "x"), ("to", "yesterday"), ("reson", "x")] {
            assert_eq!(read(&[wrong]).unwrap_err().status, 400, "{wrong:?}");
        }
    }
}
