//! The one error envelope: `{"success":false,"code","message","error","retryable","statusCode"[,"name"]}`.
//!
//! It is a superset of the three shapes that upstream's clients read (spec/api 2).

use std::borrow::Cow;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use serde::Serialize;

use crate::{
    ids::BadAgentName,
    messages::{
        Unanswered,
        pty::{BadSize, PtyRefused},
        send::SendRefused,
        session::RegisterRefused,
        spawn::{AgentPhase, SpawnRefused},
    },
};

/// A refusal on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(super) struct ApiError {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    retryable: bool,
    name: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    success: bool,
    code: &'a str,
    message: &'a str,
    error: &'a str,
    retryable: bool,
    status_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl ApiError {
    /// A refusal that will not go away by asking again.
    pub(super) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self { status, code: code.into(), message: message.into(), retryable: false, name: None }
    }

    /// The request makes no sense.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// No key, or a wrong one.
    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// No such agent.
    pub(super) fn no_agent(name: &str) -> Self {
        let ended = "`relay-broker crashes` those that have ended";
        let message = format!("no agent named `{name}`; `relay-broker ps` lists them, {ended}");
        Self::new(StatusCode::NOT_FOUND, "agent_not_found", message).about(name)
    }

    /// The agent is there, and its program is not.
    pub(super) fn no_program(name: &str, phase: AgentPhase) -> Self {
        let (code, message) = match phase {
            AgentPhase::Restarting => {
                let message = format!(
                    "the program of `{name}` has failed and is started again soon; ask again then, or look at \
                     its end with `relay-broker crashes`"
                );
                ("agent_restarting", message)
            }
            _ => (
                "agent_starting",
                format!("the program of `{name}` does not run yet; ask again when it does"),
            ),
        };
        Self::new(StatusCode::CONFLICT, code, message).retryable().about(name)
    }

    /// No such route.
    pub(super) fn not_found(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("no such path: {path}"))
    }

    /// A room did not answer within its limit.
    pub(super) fn timed_out(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, code, message).retryable()
    }

    /// The same request may succeed later.
    pub(super) fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Names the agent that it is about.
    pub(super) fn about(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The refusal as a frame of this type, for a client of a socket.
    pub(super) fn as_frame(&self, kind: &str) -> String {
        serde_json::json!({
            "type": kind,
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
            "statusCode": self.status.as_u16(),
        })
        .to_string()
    }

    /// The refusal as the payload of a sidecar's `error` frame.
    pub(super) fn as_payload(&self) -> serde_json::Value {
        serde_json::json!({ "code": self.code, "message": self.message, "retryable": self.retryable })
    }

    /// The code.
    #[cfg(test)]
    pub(super) fn code(&self) -> &str {
        &self.code
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status).json(Envelope {
            success: false,
            code: &self.code,
            message: &self.message,
            error: &self.message,
            retryable: self.retryable,
            status_code: self.status.as_u16(),
            name: self.name.as_deref(),
        })
    }
}

impl From<BadAgentName> for ApiError {
    fn from(bad: BadAgentName) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_name", bad.to_string())
    }
}

impl From<BadSize> for ApiError {
    fn from(bad: BadSize) -> Self {
        Self::invalid(bad.to_string())
    }
}

impl From<Unanswered> for ApiError {
    fn from(_: Unanswered) -> Self {
        let message = "the part of the broker that was asked is restarting; try again, and see \
                       `relay-broker actors`";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).retryable()
    }
}

impl From<SpawnRefused> for ApiError {
    fn from(refused: SpawnRefused) -> Self {
        let message = refused.to_string();
        let (status, code, retryable) = match &refused {
            SpawnRefused::NameTaken(_) => (StatusCode::CONFLICT, "agent_exists", false),
            SpawnRefused::BadCwd(_) => (StatusCode::BAD_REQUEST, "invalid_cwd", false),
            SpawnRefused::BadProgram { .. } => (StatusCode::BAD_REQUEST, "program_not_found", false),
            SpawnRefused::DiedAtOnce(_) => (StatusCode::UNPROCESSABLE_ENTITY, "exited_at_once", false),
            SpawnRefused::NodeOffline { .. } | SpawnRefused::NotRegistered(RegisterRefused::Offline) => {
                (StatusCode::SERVICE_UNAVAILABLE, "node_offline", true)
            }
            SpawnRefused::NotRegistered(RegisterRefused::TimedOut) => {
                (StatusCode::GATEWAY_TIMEOUT, "engine_timeout", true)
            }
            SpawnRefused::NotRegistered(RegisterRefused::InProgress) => {
                (StatusCode::CONFLICT, "agent_exists", true)
            }
            SpawnRefused::NotRegistered(RegisterRefused::Engine { .. }) => {
                (StatusCode::BAD_GATEWAY, "engine_refused", false)
            }
            SpawnRefused::UnknownHarness(_) => (StatusCode::BAD_REQUEST, "unknown_harness", false),
            SpawnRefused::Abandoned(_) => (StatusCode::CONFLICT, "spawn_abandoned", false),
        };
        Self { status, code: code.into(), message, retryable, name: None }
    }
}

impl From<SendRefused> for ApiError {
    fn from(refused: SendRefused) -> Self {
        let message = refused.to_string();
        match refused {
            SendRefused::NoSuchRecipient(_) => Self::new(StatusCode::NOT_FOUND, "agent_not_found", message),
            SendRefused::Unreachable(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "engine_unreachable", message).retryable()
            }
            SendRefused::Engine { .. } => Self::new(StatusCode::BAD_GATEWAY, "engine_refused", message),
        }
    }
}

impl From<PtyRefused> for ApiError {
    fn from(refused: PtyRefused) -> Self {
        let message = refused.to_string();
        match refused {
            PtyRefused::Exited => Self::new(StatusCode::CONFLICT, "agent_exited", message),
            PtyRefused::InputFull(_) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "input_full", message).retryable()
            }
            PtyRefused::Io(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "terminal_error", message),
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;
    use crate::messages::process::{EndedBy, ExitRecord};

    #[actix::test]
    async fn the_envelope_has_every_field_that_some_client_reads() {
        let response = ApiError::no_agent("bob").error_response();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let body = to_bytes(response.into_body()).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["success"], false);
        assert_eq!(body["code"], "agent_not_found");
        assert_eq!(body["message"], body["error"]);
        assert_eq!(body["retryable"], false);
        assert_eq!(body["statusCode"], 404);
        assert_eq!(body["name"], "bob");
    }

    #[test]
    fn a_client_fault_is_never_a_500_and_only_passing_trouble_is_retryable() {
        let name = crate::ids::AgentName::parse("a").unwrap();
        let engine = RegisterRefused::Engine { code: "x".into(), message: "y".into() };
        for (refused, status, retryable) in [
            (SpawnRefused::NameTaken(name), 409, false),
            (SpawnRefused::BadCwd("no such directory".into()), 400, false),
            (SpawnRefused::BadProgram { program: "p".into(), why: "w".into() }, 400, false),
            (SpawnRefused::DiedAtOnce(Box::new(ExitRecord::with_code(EndedBy::Itself, 1))), 422, false),
            (SpawnRefused::NodeOffline { why: "w".into(), next: "n".into() }, 503, true),
            (SpawnRefused::NotRegistered(RegisterRefused::Offline), 503, true),
            (SpawnRefused::NotRegistered(RegisterRefused::TimedOut), 504, true),
            (SpawnRefused::NotRegistered(engine), 502, false),
            (SpawnRefused::UnknownHarness("h".into()), 400, false),
        ] {
            let error = ApiError::from(refused.clone());
            assert_eq!((error.status.as_u16(), error.retryable), (status, retryable), "{refused:?}");
        }
    }
}
