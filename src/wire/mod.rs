//! The street door: the only place that knows the engine's words.
//!
//! Frames of the node socket, bodies of the HTTP API, and the two ways of carrying them (an HTTP client
//! and a WebSocket client, both awc). Everything here translates; nothing here decides. Outbound is strict
//! (a 5.0 engine refuses a frame for one key too many), inbound is tolerant (a newer engine may add what
//! it likes).
//!
//! | file | holds |
//! |---|---|
//! | [`frames`] | the frames, both directions, and their codecs |
//! | [`payload`] | what a `deliver` frame says, as the note an agent is shown |
//! | [`invoke`] | what an `action.invoke` frame asks for |
//! | [`codes`] | error codes and other words that several go by |
//! | [`api`] | bodies of the HTTP API |
//! | [`client`] | the HTTP client |
//! | [`socket`] | the WebSocket client |
//! | `json` | how fields are read and written: null rules, JavaScript's integers, secrets |
//! | `net` | TLS, TCP and header settings that both clients share |

pub mod api;
pub mod client;
pub mod codes;
pub mod frames;
pub mod invoke;
pub mod payload;
pub mod socket;

mod json;
mod net;

#[cfg(test)]
mod contract;
