//! Releasing: http, cli, node_session and pty_worker -> registry; ONE path, whoever asks.

use std::time::Duration;

use super::{Reply, lifecycle::ActorKind, process::ExitRecord, told};
use crate::ids::{AgentName, Birth};

/// http -> registry: end an agent; one that the engine wants ended goes the same way.
#[derive(Debug)]
pub struct Release {
    /// Whom.
    pub name: AgentName,
    /// Why, for the log alone.
    pub reason: Option<String>,
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
    /// It did not end in time, and is given up: whether its process is gone is not known. The name is free.
    Overdue,
    /// There never was one of that name, as far as this broker remembers. An error to the engine (S100).
    Unknown,
}

/// house -> registry: end every agent, take no new ones. Answered when all are gone, with how many there
/// were.
#[derive(Debug)]
pub struct ReleaseAll {
    /// Time for each agent's ladder before KILL.
    pub within: Duration,
    /// Answered at the end.
    pub reply: Reply<usize>,
}

/// supervisor -> registry: an actor of this agent failed beyond repair.
#[derive(Clone, Debug)]
pub struct WorkerLost {
    /// Whose.
    pub name: AgentName,
    /// Of the agents that have had this name.
    pub birth: Birth,
    /// Which of its actors.
    pub actor: ActorKind,
    /// Its last reason.
    pub why: String,
}

told!(Release, ReleaseAll, WorkerLost);
