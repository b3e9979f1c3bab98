//! What the engine answers when it does not do what was asked.

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use serde_json::json;
use tracing::error;

/// A refusal in the words of the contract (spec/wire 1.2): clients decide on `code`, people read `message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Why a job did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The caller asked for something that cannot be.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(Refusal),
    /// SQLite failed: full disk, broken file.
    #[error("storage failed: {0}")]
    Storage(#[from] rusqlite::Error),
    /// The work was given up: a bug in the engine, a failed commit, or the engine is stopping.
    #[error("{0}")]
    Aborted(&'static str),
}

impl Failure {
    fn refused(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self::Refused(Refusal { status, code, message: message.into() })
    }

    pub(super) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::refused(400, code, message)
    }

    pub(super) fn unauthorized(code: &'static str, message: impl Into<String>) -> Self {
        Self::refused(401, code, message)
    }

    pub(super) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::refused(403, code, message)
    }

    pub(super) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::refused(404, code, message)
    }

    pub(super) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::refused(409, code, message)
    }

    pub(super) fn too_large(code: &'static str, message: impl Into<String>) -> Self {
        Self::refused(413, code, message)
    }

    pub(super) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::refused(503, code, message)
    }

    /// The answer as a client sees it; what failed inside stays inside.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal.clone(),
            Self::Storage(_) | Self::Aborted(_) => Refusal {
                status: 500,
                code: "internal_error",
                message: "the engine could not store this; see the broker's log".to_owned(),
            },
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.refusal().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let refusal = self.refusal();
        if refusal.status >= 500 {
            error!(failure = %self, "request failed inside the engine");
        }
        HttpResponse::build(self.status_code())
            .json(json!({"ok": false, "error": {"code": refusal.code, "message": refusal.message}}))
    }
}
