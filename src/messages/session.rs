//! What the registry and the node session say to each other: the node's presence at the engine.

use std::{sync::Arc, time::Instant};

use serde::Serialize;

use super::{Reply, delivery::Lane, sidecar::Offer, told};
use crate::{
    ids::{AgentId, AgentName, AgentToken, Epoch, InvocationId, NodeId, NodeName, Seq, SessionRef},
    supervision::Post,
};

/// Which engine generation we speak to (spec/wire 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Dialect {
    /// The 5.0 baseline: strict frames, no provider.
    #[serde(rename = "5")]
    V5,
    /// 6.0 and later: provider, capacity capabilities, cursor position in replies.
    #[serde(rename = "6+")]
    V6,
}

/// node_session -> registry: the node is live at the engine.
#[derive(Clone, Debug)]
pub struct SessionUp {
    /// The life that began.
    pub epoch: Epoch,
    /// The node's id there.
    pub node_id: NodeId,
    /// The node's name there.
    pub node_name: NodeName,
    /// What it speaks.
    pub dialect: Dialect,
}

/// supervisor -> registry: the session ended; `retry_at` is when the next try begins.
#[derive(Clone, Debug)]
pub struct SessionDown {
    /// In words for a person.
    pub why: String,
    /// `None` when parked.
    pub retry_at: Option<Instant>,
}

/// node_session -> registry: the engine refuses our inventory because an agent in it is active on another node.
#[derive(Clone, Copy, Debug)]
pub struct LocationConflict;

/// registry -> node_session: register this agent over the socket. A reply that comes after the asker gave
/// up is undone by the session itself (`agent.deregister`).
#[derive(Debug)]
pub struct RegisterAgent {
    /// The name it shall have.
    pub name: AgentName,
    /// The invocation that asked for it, if the engine did.
    pub invocation: Option<InvocationId>,
    /// A session that the CLI can be resumed by.
    pub session_ref: Option<SessionRef>,
    /// The id that our own state recorded for this name: allows `agent.recover` on engines where
    /// registration is create-only.
    pub known_id: Option<AgentId>,
    /// Answered exactly once.
    pub reply: Reply<Result<Registration, RegisterRefused>>,
}

/// A registered agent.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its id.
    pub agent_id: AgentId,
    /// Its own token; kept by the registry entry alone.
    pub token: AgentToken,
    /// Where its mailbox stands, when the engine says so (spec/wire 7: `delivery_ack_seq`).
    pub ack_seq: Option<Seq>,
}

/// Why an agent was not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterRefused {
    /// The socket is down.
    #[error("the engine is not connected")]
    Offline,
    /// No reply within the limit.
    #[error("the engine did not answer the registration in time")]
    TimedOut,
    /// The same name is being registered already.
    #[error("a registration of this name is already under way")]
    InProgress,
    /// The engine said no.
    #[error("the engine refused: {code}: {message}")]
    Engine {
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
}

/// registry -> node_session: this agent is gone from the node.
#[derive(Clone, Debug)]
pub struct DeregisterAgent {
    /// Its id.
    pub agent_id: AgentId,
    /// Its name.
    pub name: AgentName,
}

/// An agent as the engine's inventory lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryItem {
    /// Its id.
    pub agent_id: AgentId,
    /// Its name.
    pub name: AgentName,
    /// The invocation that spawned it, while that has not been answered yet.
    pub invocation: Option<InvocationId>,
    /// The CLI session it can be resumed by.
    pub session_ref: Option<SessionRef>,
}

/// registry -> node_session: all live agents. A projection, sent whole at every change; the session syncs
/// it at once when live, and again at each connect.
#[derive(Clone, Debug)]
pub struct SetInventory {
    /// Every live agent.
    pub agents: Vec<InventoryItem>,
    /// True while an invocation runs: periodic syncs wait (spec/wire 4.6).
    pub invoking: bool,
}

/// registry -> node_session: frames for this agent go to this cursor.
#[derive(Clone, Debug)]
pub struct Route {
    /// Frames are routed by id, and by name only when a frame's id is unknown.
    pub agent_id: AgentId,
    /// Its name.
    pub name: AgentName,
    /// Its cursor.
    pub cursor: Post<super::delivery::Deliver>,
    /// Told of each new epoch.
    pub epochs: Post<super::delivery::EpochStarted>,
    /// Its room.
    pub lane: Arc<Lane>,
}

/// registry -> node_session: frames for this agent have no place here any more.
#[derive(Clone, Debug)]
pub struct Unroute {
    /// Which agent.
    pub agent_id: AgentId,
}

/// registry -> node_session: this agent is ours but has no process now (the broker was killed under it): its
/// frames are left unacked, so that the engine keeps its mail until it is spawned again. The session does the
/// same on its own for an agent between its registration and its `Route`, and asks for a replay at the `Route`
/// when it left any.
#[derive(Clone, Debug)]
pub struct Absent {
    /// Which agent.
    pub agent_id: AgentId,
    /// Its name.
    pub name: AgentName,
}

/// registry -> node_session: what the sidecar handles for this node; empty without one. A projection, sent whole at
/// every change; offered to the engine at once when live, and again at each connect. Answered when the engine has
/// taken it, and at once while there is no session.
#[derive(Debug)]
pub struct SetOffer {
    /// All of it.
    pub offer: Offer,
    /// Dropped by an end of the session meanwhile; the next one offers it then.
    pub reply: Reply<Result<(), OfferRefused>>,
}

/// Why an offer was not taken. The session keeps it, and makes it again at the next connect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferRefused {
    /// No reply within the limit for `node.register`.
    #[error("the engine did not answer the registration of the handlers in time")]
    TimedOut,
    /// The engine said no.
    #[error("the engine refused the handlers: {code}: {message}")]
    Engine {
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
}

/// supervisor -> node_session: say goodbye: flush acks, `node.deregister`, close 1000. Answered when the
/// socket is closed.
#[derive(Debug)]
pub struct Leave(pub Reply<()>);

told!(
    SessionUp,
    SessionDown,
    LocationConflict,
    RegisterAgent,
    DeregisterAgent,
    SetInventory,
    SetOffer,
    Route,
    Unroute,
    Absent,
    Leave,
);
