//! relay-broker: makes a machine a node of a Relaycast workspace.
//!
//! The modules in reading order. The way of one delivery: `wire` -> `actors::node_session` ->
//! `messages::delivery` -> `actors::delivery_cursor` -> `actors::pty_worker` -> `pty`, and back as proof
//! to the cursor, `store::journal`, and as an ack to the session. See ARCHITECTURE.md.

pub mod ids;
pub mod messages;
pub mod supervision;

pub mod actors;

pub mod harness;
pub mod pty;
pub mod screen;
pub mod store;
pub mod wire;

pub mod engine;
pub mod http;

pub mod cli;
pub mod command_line;
pub mod config;
pub mod escape;
pub mod house;

#[cfg(test)]
mod testing;
