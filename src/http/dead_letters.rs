//! Dead letters: what could not be put in, and trying it again (spec/api 2.8).

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Payload},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    agents::rfc3339,
    api::{Api, ROOM_TIME, within},
    body,
    error::ApiError,
};
use crate::{
    ids::{AgentName, DeliveryId, MsgId, Seq},
    messages::dead_letter::{
        DeadLetter, Letters, ListDeadLetters, RedeliverLetters, RedeliverRefused, Redelivery,
    },
};

#[derive(Serialize)]
struct Listed {
    id: DeliveryId,
    name: AgentName,
    event_id: MsgId,
    seq: Seq,
    from: String,
    target: String,
    thread_id: Option<MsgId>,
    body: String,
    reason: String,
    attempts: u32,
    /// The text stands in the composer all the same: trying it again shows it twice.
    landed: bool,
    at_ms: u64,
    at: Option<String>,
}

impl From<DeadLetter> for Listed {
    fn from(letter: DeadLetter) -> Self {
        Self {
            id: letter.delivery,
            name: letter.name,
            event_id: letter.note.msg_id,
            seq: letter.seq,
            from: letter.note.from,
            target: letter.note.target,
            thread_id: letter.note.thread,
            body: letter.note.body,
            reason: letter.reason,
            attempts: letter.attempts,
            landed: letter.landed,
            at_ms: letter.at_ms,
            at: rfc3339(letter.at_ms),
        }
    }
}

/// `GET /api/dead-letters`: oldest first.
pub(super) async fn list(api: Data<Api>) -> Result<HttpResponse, ApiError> {
    let letters = within(ROOM_TIME, api.doors.dead_letters.ask(ListDeadLetters)).await?;
    let letters: Vec<_> = letters.into_iter().map(Listed::from).collect();
    Ok(HttpResponse::Ok().json(json!({ "count": letters.len(), "dead_letters": letters })))
}

#[derive(Deserialize)]
pub(super) struct RedeliverBody {
    #[serde(default, alias = "delivery_id")]
    id: Option<String>,
    #[serde(default)]
    all: bool,
}

#[derive(Serialize)]
struct Failed {
    id: DeliveryId,
    name: AgentName,
    code: &'static str,
    message: String,
}

/// `POST /api/dead-letters/redeliver`: `{"id":…}` or `{"all":true}`. Answers when the agents' cursors have
/// taken them; how each goes on is told by the event stream.
pub(super) async fn redeliver(
    api: Data<Api>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let RedeliverBody { id, all } = body::object(&req, payload).await?;
    let id = id.filter(|id| !id.is_empty());
    let which = match (&id, all) {
        (Some(id), false) => Letters::Of(DeliveryId::from(id.as_str())),
        (None, true) => Letters::All,
        _ => return Err(ApiError::invalid("name one with `id`, or say `\"all\": true`")),
    };
    let answer = api.doors.redeliver.ask(|reply| RedeliverLetters { which, reply });
    let tried = within(ROOM_TIME, answer).await?;
    if let Some(id) = id
        && tried.is_empty()
    {
        let message = format!("no dead letter `{id}`; `relay-broker dead-letters` lists them");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "dead_letter_not_found", message));
    }
    if let ([Redelivery { name, outcome: Err(refused), .. }], false) = (tried.as_slice(), all) {
        return Err(ApiError::from(*refused).about(name.as_str()));
    }
    let (mut taken, mut failed) = (Vec::new(), Vec::new());
    for Redelivery { delivery: id, name, outcome } in tried {
        match outcome {
            Ok(()) => taken.push(id),
            Err(refused) => {
                failed.push(Failed { id, name, code: code(refused), message: refused.to_string() })
            }
        }
    }
    Ok(HttpResponse::Ok().json(json!({
        "success": failed.is_empty(),
        "redelivered": taken,
        "failed": failed,
    })))
}

fn code(refused: RedeliverRefused) -> &'static str {
    match refused {
        RedeliverRefused::NotLive => "agent_not_running",
        RedeliverRefused::UnderWay => "redelivery_under_way",
        RedeliverRefused::NoRoom => "mailbox_full",
    }
}

impl From<RedeliverRefused> for ApiError {
    fn from(refused: RedeliverRefused) -> Self {
        let error = Self::new(StatusCode::CONFLICT, code(refused), refused.to_string());
        if refused == RedeliverRefused::NoRoom { error.retryable() } else { error }
    }
}
