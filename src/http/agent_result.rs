//! What an agent hands in, through the tool `submit_result` that it has (spec/api 2.2).

use std::time::Instant;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::HeaderName,
    web::{Data, Payload},
};
use serde::Deserialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::{
    api::{Api, ROOM_TIME, within},
    auth, body,
    error::ApiError,
};
use crate::{ids::ResultToken, messages::result::SubmitResult};

/// The only path that an agent's token opens, and the only one with a key that the API key does not open.
pub const PATH: &str = "/api/agent-result";
/// The largest body. A thousand events are kept: 64 MiB at worst.
pub(super) const RESULT_MAX: usize = 64 << 10;

static TOKEN: HeaderName = HeaderName::from_static("x-agent-result-token");

#[derive(Deserialize)]
pub(super) struct ResultBody {
    #[serde(default, alias = "name")]
    agent: Option<String>,
    #[serde(alias = "result")]
    data: Value,
    #[serde(default, rename = "final")]
    is_final: Option<bool>,
    #[serde(default)]
    metadata: Option<Value>,
}

/// Read once and written again: no deeper and no wilder than what the house's own clients can read.
fn json_text(value: &Value) -> Result<Box<RawValue>, ApiError> {
    to_raw_value(value).map_err(|error| ApiError::invalid(error.to_string()))
}

/// `POST /api/agent-result`
pub(super) async fn submit(
    api: Data<Api>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let Some(token) = auth::shown(req.headers(), &TOKEN).next() else {
        return Err(ApiError::unauthorized(
            "no token: send AGENT_RELAY_RESULT_TOKEN as `X-Agent-Result-Token` or `Authorization: Bearer`",
        ));
    };
    let token = ResultToken::from(String::from_utf8_lossy(token).into_owned());
    let ResultBody { agent, data, is_final, metadata } =
        body::object_within(RESULT_MAX, &req, payload).await?;
    let is_final = is_final.unwrap_or(true);
    let (data, metadata) = (json_text(&data)?, metadata.as_ref().map(json_text).transpose()?);
    let taken = api.doors.result.ask(|reply| SubmitResult { token, agent, data, is_final, metadata, reply });
    let Some(taken) = within(ROOM_TIME, taken).await? else {
        tokio::time::sleep(api.wrong_key(Instant::now())).await;
        return Err(ApiError::unauthorized("this is not the token of such an agent that runs here"));
    };
    Ok(HttpResponse::Ok().json(json!({ "success": true, "name": taken.name, "result_id": taken.id })))
}
