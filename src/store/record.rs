//! What the journal keeps, one record at a time.

use serde::{Deserialize, Serialize};

use super::CursorState;
use crate::{
    ids::{AgentId, AgentName, DeliveryId, InvocationId, MsgId, Seq, SpawnId},
    messages::{
        dead_letter::DeadLetter,
        delivery::Rung,
        invoke::InvocationResult,
        process::{KnownSession, PastExit},
    },
};

/// One thing that happened and must outlive the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The cursor of an agent starts here: everything up to `at` is the past.
    Seeded {
        /// Whose.
        agent: AgentId,
        /// Where.
        at: Seq,
    },
    /// A delivery is about to be handed to a terminal: from here on it may have been typed.
    Handed {
        /// Whose.
        agent: AgentId,
        /// Which.
        delivery: DeliveryId,
        /// Its place.
        seq: Seq,
        /// Which try.
        attempt: u32,
    },
    /// A delivery has come this far and is still under way.
    Reached {
        /// Whose.
        agent: AgentId,
        /// Which.
        delivery: DeliveryId,
        /// How far.
        rung: Rung,
    },
    /// An agent's program ended by itself with these in its composer, or on their way into it.
    ReaderDied {
        /// Whose.
        agent: AgentId,
        /// Which.
        deliveries: Vec<DeliveryId>,
    },
    /// A delivery is at its end and will never be injected (again).
    Settled {
        /// Whose.
        agent: AgentId,
        /// Which.
        delivery: DeliveryId,
        /// What it carried.
        msg: MsgId,
        /// Its place; 0 for a frame outside the mailbox.
        seq: Seq,
        /// How it ended.
        outcome: Outcome,
    },
    /// A delivery could not be put in: settled, and kept for a person.
    DeadLettered(Box<DeadLetter>),
    /// A dead letter by itself, long settled. Written by compaction alone.
    KeptLetter(Box<DeadLetter>),
    /// A person has dealt with a dead letter.
    DeadLetterCleared {
        /// Whose.
        agent: AgentId,
        /// Which.
        delivery: DeliveryId,
    },
    /// Numbers that never came and were given up.
    GapSkipped {
        /// Whose.
        agent: AgentId,
        /// The first one.
        from: Seq,
        /// The last one.
        to: Seq,
    },
    /// An agent's process runs.
    AgentLive(LiveAgent),
    /// An agent was released, or its end was dealt with.
    AgentGone {
        /// Which.
        agent: AgentId,
    },
    /// An agent's program has ended.
    AgentExited(Box<PastExit>),
    /// An agent that ended had this id: an engine that never registers a name twice gives the agent back to
    /// who knows it.
    AgentKnown {
        /// Which.
        agent: AgentId,
        /// Its name.
        name: AgentName,
    },
    /// An invocation has its result, which is repeated when the engine repeats the invocation.
    InvocationEnded {
        /// Which.
        invocation: InvocationId,
        /// How.
        result: InvocationResult,
        /// When, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// A whole cursor. Written by compaction alone.
    Cursor {
        /// Whose.
        agent: AgentId,
        /// All of it.
        state: Box<CursorState>,
    },
}

/// How a delivery ended, other than as a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is in the terminal, shown by this rung.
    Proven(Rung),
    /// It is never shown.
    AckOnly,
    /// Its message was injected by another delivery.
    Duplicate,
    /// It cannot be read, or is of a kind that nobody knows.
    Unusable,
}

/// An agent whose process runs, or ran when the broker ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveAgent {
    /// Its id.
    pub agent: AgentId,
    /// Its name.
    pub name: AgentName,
    /// This life of it.
    pub spawn: SpawnId,
    /// Its process.
    pub pid: u32,
    /// When the kernel started that process, in clock ticks since boot: tells it from a later process
    /// that was given the same number (field 22 of `/proc/<pid>/stat`).
    pub started: u64,
    /// What it leaves behind is nobody's to end.
    #[serde(default)]
    pub keep_daemons: bool,
    /// The session of its program, once it is known: the record is written again then.
    #[serde(default)]
    pub session: Option<KnownSession>,
}
