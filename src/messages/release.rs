//! Releasing: http, cli, node_session and pty_worker -> registry; ONE path, whoever asks.

use super::{Reply, pty::ExitRecord, spawn::Origin, told};
use crate::ids::AgentName;

/// http or node_session -> registry: end an agent.
#[derive(Debug)]
pub struct Release {
    /// Whom.
    pub name: AgentName,
    /// Why, for the log and the event.
    pub reason: Option<String>,
    /// For whom.
    pub origin: Origin,
    /// Kill at once instead of asking first.
    pub force: bool,
    /// Answered when the process tree is gone and the engine was told.
    pub reply: Reply<Released>,
}

/// How a release ended. Never an error to the local API: releasing what is gone is success there.
#[derive(Clone, Debug)]
pub enum Released {
    /// It was live and is gone now.
    Ended(ExitRecord),
    /// It had ended before (its exit is remembered).
    AlreadyGone,
    /// There never was one of that name in this broker's life. An error to the engine (S100).
    Unknown,
}

told!(Release);
