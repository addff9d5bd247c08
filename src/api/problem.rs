//! Errors as `application/problem+json` (RFC 9457).

use crate::error::Error;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

const PROBLEM: &str = "application/problem+json";

/// What an answer that is none says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub status: u16,
    pub detail: String,
}

impl Problem {
    pub fn new(status: u16, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into() }
    }

    pub fn of(error: &Error) -> Problem {
        Problem::new(500, error.message.clone())
    }
}

/// What the framework says in plain text (a parameter that cannot be read, a body that is too large) in our form.
pub async fn told_as_one(response: Response) -> Response {
    const DETAIL_BYTES_MAX: usize = 4096;
    let is_told = response.headers().get("content-type").is_some_and(|form| form == PROBLEM);
    if is_told || !(response.status().is_client_error() || response.status().is_server_error()) {
        return response;
    }
    let status = response.status();
    let text = axum::body::to_bytes(response.into_body(), DETAIL_BYTES_MAX).await.unwrap_or_default();
    Problem::new(status.as_u16(), String::from_utf8_lossy(&text)).into_response()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = status.canonical_reason().unwrap_or("Error");
        let body = serde_json::json!({
            "type": "about:blank", "title": title, "status": status.as_u16(), "detail": self.detail,
        });
        (status, [("content-type", PROBLEM)], body.to_string()).into_response()
    }
}
