//! The frames of `/v1/node/ws`, both directions (spec/wire 3 and 7).
//!
//! ```text
//! broker  BrokerFrame::encode  ----->  BrokerFrame::decode_strict / decode_extended  engine
//! broker  EngineFrame::decode_tolerant  <-----  EngineFrame::encode                  engine
//! ```
//!
//! The engine's side is strict: one unknown key, or a null where a key may only be absent, and the whole
//! frame is refused. The broker's side ignores what it does not know. What is open by contract (payload,
//! input, output, reply data) is carried as raw JSON and never parsed on the way.

mod broker;
mod engine;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::{broker::*, engine::*};
use super::json::{Headless, write_framed};

/// Why a text is not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Not JSON, or not an object.
    #[error("not a JSON object: {0}")]
    Json(serde_json::Error),
    /// `v` is missing or not 1 (strict side only).
    #[error("`v` must be 1")]
    Version,
    /// No `type`, or not a string.
    #[error("the frame has no `type`")]
    Untyped,
    /// A type that the strict side does not know.
    #[error("unknown frame type `{0}`")]
    UnknownType(String),
    /// The frame's type is known and its body is not as that type demands.
    #[error("{kind}: {why}")]
    Body {
        /// The frame's type.
        kind: &'static str,
        /// What is wrong with it.
        why: serde_json::Error,
    },
    /// A key of a later engine generation in a frame for a 5.0 engine.
    #[error("{kind}: unrecognized key `{key}`")]
    TooNew {
        /// The frame's type.
        kind: &'static str,
        /// The key.
        key: &'static str,
    },
}

/// What every frame begins with, wherever in the object it stands.
#[derive(Deserialize)]
struct Head<'a> {
    v: Option<Value>,
    #[serde(borrow, rename = "type")]
    kind: Option<Name<'a>>,
}

/// The type string, borrowed unless it is escaped; anything else than a string is kept as such.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Other(serde::de::IgnoredAny),
}

impl<'a> Head<'a> {
    fn of(text: &'a str) -> Result<Self, FrameError> {
        if !text.trim_start().starts_with('{') {
            return Err(FrameError::Json(serde::de::Error::custom("it does not begin with a brace")));
        }
        serde_json::from_str(text).map_err(FrameError::Json)
    }

    fn kind(&self) -> Result<&str, FrameError> {
        match &self.kind {
            Some(Name::Text(kind)) => Ok(kind),
            Some(Name::Other(_)) | None => Err(FrameError::Untyped),
        }
    }
}

/// The body of a frame, every key accounted for.
fn body<'a, T: Deserialize<'a>>(text: &'a str, kind: &'static str) -> Result<T, FrameError> {
    T::deserialize(Headless(&mut serde_json::Deserializer::from_str(text)))
        .map_err(|why| FrameError::Body { kind, why })
}

/// The body of a frame, unknown keys ignored.
fn lenient<'a, T: Deserialize<'a>>(text: &'a str, kind: &'static str) -> Result<T, FrameError> {
    serde_json::from_str(text).map_err(|why| FrameError::Body { kind, why })
}

fn written(kind: &str, body: &impl Serialize) -> String {
    // Every body is a struct with string keys, which always serialises; should that ever change, the
    // contract tests fail, and at run time the peer sees a ping.
    write_framed(kind, body).unwrap_or_else(|_| r#"{"v":1,"type":"ping"}"#.to_owned())
}
