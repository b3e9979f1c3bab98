//! The small machinery that makes an actix actor restartable and observable.
//!
//! actix's own `Supervisor` does not restart after a panic, knows no backoff, no limit and no reason. Here a
//! [`Runner`] polls the actor's `ContextFut` inside `catch_unwind`; when the actor ends, a pure [`policy`]
//! decides what happens, and `ContextFut::restart()` brings it back with its address, its mailbox and its
//! instance intact, so that nobody has to be wired anew. `Supervised::restarting` rebuilds every volatile
//! field; the generation tells late answers from current ones.
//!
//! An actor holds one [`Lifeline`]: through it, it ends on purpose, reports its state, and counts its turns.
//! Others hold [`Post`]s: a sender of one message type, never the address of an actor.

mod directory;
mod lifeline;
pub mod policy;
mod post;
mod probe;
mod runner;
#[cfg(test)]
mod tests;

pub use directory::Directory;
pub use lifeline::{Lifeline, Turn};
pub use post::{Gone, Post};
pub use probe::{Detail, FaultPoint, Probe, ProbeView, Restart};
pub(crate) use probe::{lock, now_ms};
pub use runner::{Child, ChildHandle, Runner, Seat};
