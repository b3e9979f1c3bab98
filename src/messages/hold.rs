//! Holding an agent's messages back, and letting them through: http -> delivery_cursor.
//!
//! ```text
//! AutoInject --SetDeliveryMode--> ManualFlush
//!     in order, as there is room      nothing new is handed to the worker, and what it has not begun comes back;
//!                                     Flush lets through what is held at that moment, once
//! ```
//!
//! It is about every source: messages of the engine, frames outside the mailbox, and dead letters that are
//! tried again all pass the cursor. What is held has no ack; the engine keeps it too.

use serde::{Deserialize, Serialize};

use super::{
    Reply,
    delivery::{Mode, Note},
    told,
};
use crate::{ids::DeliveryId, supervision::Post};

/// When an agent's messages are put in (spec/api 2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryMode {
    /// As they come, by the rules of its harness.
    #[default]
    AutoInject,
    /// When a person lets them through.
    ManualFlush,
}

impl DeliveryMode {
    /// As clients write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AutoInject => "auto_inject",
            Self::ManualFlush => "manual_flush",
        }
    }
}

impl std::fmt::Display for DeliveryMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Sets the mode. It keeps until it is set again, also over a restart of the cursor, and ends with the agent.
#[derive(Debug)]
pub struct SetDeliveryMode {
    /// The new one.
    pub mode: DeliveryMode,
    /// Set it only if it is this one now.
    pub expect: Option<DeliveryMode>,
    /// Answered once it is in force: to hold means that the worker has given back what it had not begun. An
    /// injection under way is finished.
    pub reply: Reply<Result<ModeSet, ModeConflict>>,
}

/// The mode is as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSet {
    /// Before.
    pub previous: DeliveryMode,
    /// Now.
    pub mode: DeliveryMode,
    /// Messages that were held and are on their way because of it.
    pub flushed: usize,
}

/// Somebody else has set it meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the delivery mode is `{mode}` and not `{expected}`; read it again and decide anew")]
pub struct ModeConflict {
    /// As it is.
    pub mode: DeliveryMode,
    /// As the asker thought.
    pub expected: DeliveryMode,
}

/// Asks for the mode.
#[derive(Debug)]
pub struct GetDeliveryMode(pub Reply<DeliveryMode>);

/// Asks for what is held back, in the order in which it will go in.
#[derive(Debug)]
pub struct ListPending(pub Reply<Vec<Pending>>);

/// A message that is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Which.
    pub delivery: DeliveryId,
    /// What it says.
    pub note: Note,
    /// Wait or steer.
    pub mode: Mode,
    /// When it came, in milliseconds since the Unix epoch.
    pub queued_at_ms: u64,
}

/// Lets through, once, what is held at this moment; the mode stays.
#[derive(Debug)]
pub struct Flush {
    /// Only this one.
    pub only: Option<DeliveryId>,
    /// Answered at once with how many; 0 also when nothing is held.
    pub reply: Reply<usize>,
}

/// The ways to one agent's mode.
#[derive(Clone, Debug)]
pub struct HoldDoors {
    /// Set it.
    pub set: Post<SetDeliveryMode>,
    /// Read it.
    pub get: Post<GetDeliveryMode>,
    /// What is held.
    pub pending: Post<ListPending>,
    /// Let it through.
    pub flush: Post<Flush>,
}

told!(SetDeliveryMode, GetDeliveryMode, ListPending, Flush);
