//! What every actor and the supervisor say to each other: why one ended, and what was decided.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

use super::{Reply, told};
use crate::ids::{AgentName, Birth, Generation};

/// The kinds of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// The tree.
    Supervisor,
    /// The socket.
    NodeSession,
    /// The node token.
    TokenMint,
    /// Spawns and releases.
    AgentRegistry,
    /// One agent's mailbox position.
    DeliveryCursor,
    /// One agent's terminal.
    PtyWorker,
    /// The event stream.
    EventHub,
    /// The journal's thread. Not an actix actor, but watched like one.
    Journal,
}

impl ActorKind {
    /// The kind in words, as in the debug page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::NodeSession => "node_session",
            Self::TokenMint => "token_mint",
            Self::AgentRegistry => "agent_registry",
            Self::DeliveryCursor => "delivery_cursor",
            Self::PtyWorker => "pty_worker",
            Self::EventHub => "event_hub",
            Self::Journal => "journal",
        }
    }
}

/// Which actor: its kind, and for per-agent actors the agent's name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActorId {
    /// Its kind.
    pub kind: ActorKind,
    /// The agent's name for per-agent actors, else empty.
    pub of: String,
}

impl ActorId {
    /// The only actor of its kind.
    pub fn sole(kind: ActorKind) -> Self {
        Self { kind, of: String::new() }
    }

    /// The actor of this kind that serves this agent.
    pub fn of(kind: ActorKind, agent: impl fmt::Display) -> Self {
        Self { kind, of: agent.to_string() }
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if self.of.is_empty() { Ok(()) } else { write!(f, "/{}", self.of) }
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ActorId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why an actor ended. An actor ends on purpose only through `Lifeline::exit(reason)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExitReason {
    /// The link is gone: EOF, I/O error, close code, refused, 5xx, timeout, idle, write stall.
    #[error("disconnected: {0}")]
    Disconnected(String),
    /// The engine named a pause (Retry-After) before the next try.
    #[error("disconnected: {why}; the engine asks to wait {wait:?}")]
    AskedToWait {
        /// In words.
        why: String,
        /// At least this long.
        wait: Duration,
    },
    /// Another socket holds this node.
    #[error("another broker holds this node")]
    Superseded,
    /// The handshake answered 401: the token of this generation is dead.
    #[error("the engine refused the node token (generation {token})")]
    Unauthorized {
        /// The generation that was refused.
        token: Generation,
    },
    /// The engine refused in a way that trying again at once cannot change.
    #[error("the engine refused: {0}")]
    Refused(String),
    /// The workspace key, or a pinned node token, is refused: a person must act.
    #[error("the engine refuses our credentials: {0}")]
    KeyRefused(String),
    /// A panic, with its message.
    #[error("panicked: {0}")]
    Panicked(String),
    /// The work is done (a released agent, an orderly shutdown).
    #[error("finished")]
    Finished,
}

/// Why an actor waits for somebody instead of trying on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ParkReason {
    /// Five 401s in a row without a healthy spell.
    #[error(
        "the engine keeps refusing this node's token; check the workspace key, then `relay-broker resume`"
    )]
    AuthFailed,
    /// The workspace key itself was refused or has expired.
    #[error("the engine refuses the workspace key; set a valid one and restart")]
    KeyRefused,
}

/// What the policy decided about an ended actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start it again after this long.
    Restart {
        /// Zero means at once.
        after: Duration,
    },
    /// Leave it down until resumed; probe again after `retry`.
    Park {
        /// Why.
        why: ParkReason,
        /// The slow probe.
        retry: Duration,
    },
    /// This agent alone is given up: no acks, the engine keeps its mail.
    Quarantine,
    /// It is done.
    Stop,
    /// The process cannot go on: orderly shutdown, exit code 70.
    Escalate,
}

/// Runner -> supervisor: a step in an actor's life.
#[derive(Clone, Debug)]
pub struct ChildNotice {
    /// Whose.
    pub id: ActorId,
    /// The agent that it serves, and which of that name.
    pub agent: Option<(AgentName, Birth)>,
    /// The life that this is about.
    pub generation: Generation,
    /// What happened.
    pub step: ChildStep,
}

/// A step in an actor's life.
#[derive(Clone, Debug)]
pub enum ChildStep {
    /// It runs (again).
    Started,
    /// It ended, and this was decided.
    Ended {
        /// Why it ended.
        reason: ExitReason,
        /// What comes next.
        decision: Decision,
    },
    /// Its healthy spell is reached: past failures are forgotten.
    Healthy,
}

/// Anyone -> supervisor: end the house in order. Answered when everything has ended.
#[derive(Debug)]
pub struct Shutdown {
    /// Why, for the log.
    pub reason: String,
    /// Answered at the end; `None` for signals.
    pub reply: Option<Reply<()>>,
}

/// http or cli -> supervisor: wake every parked actor now.
#[derive(Clone, Copy, Debug)]
pub struct Resume;

told!(ChildNotice, Shutdown, Resume);
