//! A hostile engine, as frames in this process and as a whole at the real binary's socket.
//!
//! Random choices come from a seed that a failing test prints; `RELAY_TEST_SEED=<seed>` repeats them. What the
//! figures of docs/reliability.md are held by is named there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "../../fuzz/entries.rs"]
mod entries;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "other test binaries use the rest")]
mod support;

mod clock;
mod corpus;
mod liveness;
mod meddler;
mod mutate;
mod refusals;
mod storm;
