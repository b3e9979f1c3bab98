//! Real coding CLIs in the real broker: what they are sent, what their model hears, what proves it.
//!
//! The CLIs come from npm, once, into the build directory (about 1.2 GB). Each runs in a home directory of its
//! own, pointed by its own configuration at a model server inside the test; nothing leaves the machine. What is
//! delivered is judged by what that model was sent, not by the screen.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod model_server;
#[path = "../support/npm.rs"]
mod npm;
mod scenario;
mod stage;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the house tests use the rest")]
mod support;

/// A file per CLI; the name lets `scripts/test` leave them all out.
mod real_cli {
    mod claude;
    mod codex;
    mod dialogs;
    mod gemini;
    mod mcp;
    mod opencode;
    mod sessions;
}
