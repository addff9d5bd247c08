//! Errors as `application/problem+json` (RFC 9457).

use crate::error::Error;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

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

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = status.canonical_reason().unwrap_or("Error");
        let body = serde_json::json!({
            "type": "about:blank", "title": title, "status": status.as_u16(), "detail": self.detail,
        });
        (status, [("content-type", "application/problem+json")], body.to_string()).into_response()
    }
}
