//! The contract with the programs of others: their published schemas judge what our binary and our engine
//! send, and their published clients drive our binary unchanged.
//!
//! Needs node and npm, and a registry to install the pinned packages from (once; they are kept in the build
//! directory). Everything else stays on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod answers;
mod broker;
mod clients;
mod engine;
mod fixtures;
mod judge;
#[path = "../support/npm.rs"]
mod npm;
mod recorded;
mod recorder;
mod sidecars;
