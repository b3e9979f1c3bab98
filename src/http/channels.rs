//! The channels of an agent that lives (spec/api 2.2).

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Path, Payload},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    agents::SEND_TIME,
    api::{Api, within},
    body,
    error::ApiError,
};
use crate::{
    ids::AgentName,
    messages::channels::{ChangeChannels, ChannelsRefused, Membership},
};

#[derive(Deserialize)]
pub(super) struct ChannelsBody {
    channels: Vec<String>,
}

/// `POST /api/spawned/{name}/subscribe`
pub(super) async fn subscribe(
    api: Data<Api>,
    name: Path<String>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body::object(&req, payload).await?;
    Ok(HttpResponse::Ok().json(change(&api, &name, Membership::Join, body).await?))
}

/// `POST /api/spawned/{name}/unsubscribe`
pub(super) async fn unsubscribe(
    api: Data<Api>,
    name: Path<String>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body::object(&req, payload).await?;
    Ok(HttpResponse::Ok().json(change(&api, &name, Membership::Leave, body).await?))
}

/// Changes an agent's memberships for whoever asks, and answers all its channels.
///
/// # Errors
/// What the body, the registry or the engine has against it.
pub(super) async fn change(
    api: &Api,
    name: &str,
    change: Membership,
    body: ChannelsBody,
) -> Result<Value, ApiError> {
    let ChannelsBody { channels } = body;
    if channels.iter().any(|channel| channel.trim_start_matches('#').trim().is_empty()) {
        return Err(ApiError::invalid("`channels` has an empty name"));
    }
    let agent = AgentName::parse(name)?;
    let changed = api.doors.channels.ask(|reply| ChangeChannels { name: agent, change, channels, reply });
    let channels =
        within(SEND_TIME, changed).await?.map_err(|refused| ApiError::from(refused).about(name))?;
    Ok(json!({ "name": name, "channels": channels }))
}

impl From<ChannelsRefused> for ApiError {
    fn from(refused: ChannelsRefused) -> Self {
        let message = refused.to_string();
        match refused {
            ChannelsRefused::NoSuchAgent(_) => Self::new(StatusCode::NOT_FOUND, "agent_not_found", message),
            ChannelsRefused::Unreachable { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "engine_unreachable", message).retryable()
            }
            ChannelsRefused::Engine { .. } => Self::new(StatusCode::BAD_GATEWAY, "engine_refused", message),
        }
    }
}
