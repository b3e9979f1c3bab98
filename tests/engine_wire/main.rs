//! The embedded engine over its wire: a real server on loopback, real sockets, real files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod bodies;
mod delivery;
mod frames;
mod harbour;
mod invocations;
mod lifetime;
mod nodes;
