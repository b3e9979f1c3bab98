//! An agent's messages, held back or not (spec/api 2.4).

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Path, Payload},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    api::{Api, ROOM_TIME, within},
    body,
    error::ApiError,
};
use crate::{
    ids::{DeliveryId, MsgId},
    messages::{
        delivery::Mode,
        hold::{DeliveryMode, Flush, GetDeliveryMode, ListPending, ModeConflict, Pending, SetDeliveryMode},
    },
};

/// `GET /api/spawned/{name}/delivery-mode`
pub(super) async fn mode(api: Data<Api>, name: Path<String>) -> Result<HttpResponse, ApiError> {
    let agent = api.agent(&name).await?;
    let mode = within(ROOM_TIME, agent.hold.get.ask(GetDeliveryMode)).await?;
    Ok(HttpResponse::Ok().json(json!({ "mode": mode })))
}

#[derive(Deserialize)]
pub(super) struct ModeBody {
    mode: Option<String>,
    /// Set it only if it is this one now.
    #[serde(default, alias = "previous")]
    expect: Option<String>,
}

/// `PUT /api/spawned/{name}/delivery-mode`
pub(super) async fn set_mode(
    api: Data<Api>,
    name: Path<String>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let ModeBody { mode, expect } = body::object(&req, payload).await?;
    let mode = read_mode(mode.as_deref().unwrap_or_default())?;
    let expect = expect.as_deref().map(read_mode).transpose()?;
    let agent = api.agent(&name).await?;
    let set = agent.hold.set.ask(|reply| SetDeliveryMode { mode, expect, reply });
    let set = within(ROOM_TIME, set).await?;
    let set = set.map_err(|conflict| ApiError::from(conflict).about(name.as_str()))?;
    let (mode, previous, flushed) = (set.mode, set.previous, set.flushed);
    Ok(HttpResponse::Ok().json(json!({ "mode": mode, "previous": previous, "flushed": flushed })))
}

fn read_mode(text: &str) -> Result<DeliveryMode, ApiError> {
    [DeliveryMode::AutoInject, DeliveryMode::ManualFlush]
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .ok_or_else(|| {
            let message = format!("no delivery mode `{text}`: use auto_inject or manual_flush");
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_mode", message)
        })
}

impl From<ModeConflict> for ApiError {
    fn from(conflict: ModeConflict) -> Self {
        Self::new(StatusCode::CONFLICT, "delivery_mode_conflict", conflict.to_string())
    }
}

/// Upstream's fields, then our own.
#[derive(Serialize)]
struct Listed {
    from: String,
    body: String,
    target: String,
    /// Nobody here has priorities, but upstream's clients expect the number.
    priority: u8,
    mode: Mode,
    queued_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<MsgId>,
    event_id: MsgId,
    delivery_id: DeliveryId,
}

impl From<Pending> for Listed {
    fn from(pending: Pending) -> Self {
        Self {
            from: pending.note.from,
            body: pending.note.body,
            target: pending.note.target,
            priority: 0,
            mode: pending.mode,
            queued_at_ms: pending.queued_at_ms,
            thread_id: pending.note.thread,
            event_id: pending.note.msg_id,
            delivery_id: pending.delivery,
        }
    }
}

/// `GET /api/spawned/{name}/pending`: what is held back, in the order in which it will go in.
pub(super) async fn pending(api: Data<Api>, name: Path<String>) -> Result<HttpResponse, ApiError> {
    let agent = api.agent(&name).await?;
    let pending = within(ROOM_TIME, agent.hold.pending.ask(ListPending)).await?;
    let pending: Vec<_> = pending.into_iter().map(Listed::from).collect();
    Ok(HttpResponse::Ok().json(json!({ "pending": pending })))
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct FlushBody {
    /// Only this one, by the id in the list.
    #[serde(alias = "id")]
    delivery_id: Option<String>,
}

/// `POST /api/spawned/{name}/flush`
pub(super) async fn flush(
    api: Data<Api>,
    name: Path<String>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let FlushBody { delivery_id } = body::object_or_default(&req, payload).await?;
    let agent = api.agent(&name).await?;
    let only = delivery_id.map(DeliveryId::from);
    let flushed = within(ROOM_TIME, agent.hold.flush.ask(|reply| Flush { only, reply })).await?;
    Ok(HttpResponse::Ok().json(json!({ "flushed": flushed })))
}
