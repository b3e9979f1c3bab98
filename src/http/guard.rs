//! What every request passes before it is routed: `Host` and `Origin`, readiness, key.

use std::{sync::Arc, time::Instant};

use actix_web::{
    Error, HttpResponse, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web::Data,
};
use tracing::debug;
use uuid::Uuid;

use super::{agent_result, api::Api, auth, connection::Connection, error::ApiError};
use crate::messages::readiness::Readiness;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The longest request id that is taken over from a client.
const REQUEST_ID_MAX: usize = 64;

/// Lets a request through to the routes, or answers it.
pub(super) async fn guard(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let began = Instant::now();
    let id = request_id(req.headers());
    let method = req.method().clone();
    let path = req.path().to_owned();
    let in_hand = req.conn_data::<Arc<Connection>>().map(Connection::take);
    let mut response = match admit(&req).await {
        Ok(()) => next.call(req).await?.map_into_boxed_body(),
        Err(refusal) => req.into_response(refusal.into_response()),
    };
    if let Some(in_hand) = &in_hand
        && response.status() == StatusCode::SWITCHING_PROTOCOLS
    {
        in_hand.streams();
    }
    let status = response.status().as_u16();
    debug!(request = id, %method, path, status, took = ?began.elapsed(), "request served");
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// Why a request is not routed.
enum Refusal {
    /// The house is not built yet.
    Starting(String),
    /// Anything else.
    Refused(ApiError),
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl Refusal {
    /// Until the house is built the answer is plain text: upstream's driver knows a broker that is still
    /// starting only by these words, and gives up on a JSON answer (spec/api 1.3).
    fn into_response(self) -> HttpResponse {
        match self {
            Self::Starting(doing) => HttpResponse::ServiceUnavailable()
                .insert_header((header::RETRY_AFTER, "1"))
                .content_type("text/plain; charset=utf-8")
                .body(format!("503 Service Unavailable: the broker is starting ({doing})\n")),
            Self::Refused(error) => error.error_response(),
        }
    }
}

async fn admit(req: &ServiceRequest) -> Result<(), Refusal> {
    let Some(api) = req.app_data::<Data<Api>>() else {
        return Err(ApiError::not_found(req.path()).into());
    };
    is_for_us(api, req)?;
    if req.path() == "/health" {
        return Ok(());
    }
    if let Readiness::Starting { doing } = api.readiness.get() {
        return Err(Refusal::Starting(doing));
    }
    // A result has a key of its own, which only the registry knows.
    if matches!(req.path(), "/readyz" | agent_result::PATH) {
        return Ok(());
    }
    Ok(authorize(api, req.headers()).await?)
}

/// Refuses a browser that was lured here.
fn is_for_us(api: &Api, req: &ServiceRequest) -> Result<(), ApiError> {
    let misdirected = || {
        let message = "the Host header names another server; use localhost or the address it listens on";
        ApiError::new(StatusCode::MISDIRECTED_REQUEST, "misdirected_request", message)
    };
    let mut hosts = req.headers().get_all(header::HOST);
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(misdirected()) };
    let host_allowed = host.to_str().is_ok_and(|host| api.hosts.allows_host(host));
    // The target of an absolute-form request counts more than its Host header (RFC 9112 3.2.2).
    let target_allowed =
        req.uri().authority().is_none_or(|authority| api.hosts.allows_host(authority.as_str()));
    if !(host_allowed && target_allowed) {
        return Err(misdirected());
    }
    let foreign = |origin: &HeaderValue| !origin.to_str().is_ok_and(|o| api.hosts.allows_origin(o));
    if req.headers().get_all(header::ORIGIN).any(foreign) {
        let message = "pages of another origin may not use this API";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", message));
    }
    Ok(())
}

async fn authorize(api: &Api, headers: &HeaderMap) -> Result<(), ApiError> {
    let mut given = auth::shown(headers, &API_KEY).peekable();
    if given.peek().is_none() {
        return Err(ApiError::unauthorized(
            "no API key: send the `api_key` of connection.json as `X-API-Key` or `Authorization: Bearer`",
        ));
    }
    if given.any(|key| api.config.key.is(key)) {
        return Ok(());
    }
    tokio::time::sleep(api.wrong_key(Instant::now())).await;
    Err(ApiError::unauthorized(
        "this is not the API key of this broker: use the `api_key` of its connection.json",
    ))
}

/// The client's own id when it is harmless, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let harmless = |id: &&str| {
        (1..=REQUEST_ID_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(harmless)
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}
