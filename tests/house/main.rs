//! House tests: the real binary, real agents in real terminals, and an engine on loopback with every kind of
//! bad luck between them. A file per theme; `support` is what they are written with.
//!
//! Random choices come from a seed that a failing test prints; `RELAY_TEST_SEED=<seed>` repeats them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "other test binaries use the rest")]
mod support;

mod actions;
mod attach;
mod backlog;
mod bad_start;
mod broker_killed;
mod conversation;
mod dead_letters;
mod disk;
mod exits;
mod first_starts;
mod killed_at_calls;
mod mcp;
mod panics;
mod poison;
mod presence;
mod program_interface;
mod restart;
mod restarts;
mod shutdown;
mod socket_cuts;
mod spawning;
mod strangers;
mod token_revoked;
mod turnover;
mod two_nodes;
