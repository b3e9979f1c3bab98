//! Terminal tests: fake programs that behave in the ways in which real CLIs are hard to type into, each run by the
//! real binary, sent real messages through an engine, and asked afterwards what it really got.
//!
//! A program is a file of `tests/fixtures/programs` and says at its top which behaviour it copies. It notes every byte
//! that it reads and every turn that it is given, so a test judges by what arrived and not by what the broker
//! says. docs/testing.md tells how to add one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod stage;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "other test binaries use the rest")]
mod support;

mod busy;
mod composers;
mod dialogs;
mod ends;
mod hostile;
mod names;
mod people;
mod plain;
