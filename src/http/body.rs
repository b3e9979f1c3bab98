//! Reading a request's body: JSON objects of a bounded size, within a bounded time.

use std::time::Duration;

use actix_web::{
    HttpMessage, HttpRequest,
    http::{StatusCode, header},
    web::{Bytes, BytesMut, Payload},
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The largest body.
pub(super) const BODY_MAX: usize = 1 << 20;
/// The longest that a body may take to arrive; the server's own limit ends with the head.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The body as a JSON object. Fields that `T` does not know are accepted.
///
/// # Errors
/// 415 for another content type, 413 over [`BODY_MAX`], 408 when it does not arrive in time, 400 for
/// anything that is not such an object.
pub(super) async fn object<T: DeserializeOwned>(req: &HttpRequest, body: Payload) -> Result<T, ApiError> {
    object_within(BODY_MAX, req, body).await
}

/// The body as a JSON object of at most `max` bytes.
///
/// # Errors
/// As [`object`].
pub(super) async fn object_within<T: DeserializeOwned>(
    max: usize,
    req: &HttpRequest,
    body: Payload,
) -> Result<T, ApiError> {
    is_json(req)?;
    parse(&read(max, req, body).await?)
}

/// The body as a JSON object, or the default when there is none.
///
/// # Errors
/// As [`object`], when there is one.
pub(super) async fn object_or_default<T: DeserializeOwned + Default>(
    req: &HttpRequest,
    body: Payload,
) -> Result<T, ApiError> {
    let bytes = read(BODY_MAX, req, body).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    is_json(req)?;
    parse(&bytes)
}

fn is_json(req: &HttpRequest) -> Result<(), ApiError> {
    if req.content_type().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "the body must be JSON: send `content-type: application/json`";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let refuse = |message: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message);
    // serde would also fill a struct from an array, field by field.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(refuse("the body must be a JSON object".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        if error.is_data() {
            ApiError::invalid(error.to_string())
        } else {
            refuse(format!("the body is not JSON: {error}"))
        }
    })
}

async fn read(max: usize, req: &HttpRequest, body: Payload) -> Result<Bytes, ApiError> {
    let announced = req.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|length| length.parse().ok()).is_some_and(|length: usize| length > max) {
        return Err(too_large(max));
    }
    let late = |_| {
        let message = format!("the body did not arrive within {BODY_TIME:?}");
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
    };
    tokio::time::timeout(BODY_TIME, collect(max, body)).await.map_err(late)?
}

async fn collect(max: usize, mut body: Payload) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| ApiError::invalid(format!("the body broke off: {error}")))?;
        if bytes.len() + chunk.len() > max {
            return Err(too_large(max));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn too_large(max: usize) -> ApiError {
    let message = format!("the body is larger than {max} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
}
