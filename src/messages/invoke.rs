//! The engine asks the node to run an action: node_session -> registry, and the result back.

use serde::{Deserialize, Serialize};

use super::told;
use crate::ids::{AgentId, AgentName, InvocationId};

/// node_session -> registry: run this. The same invocation may come again (spec/wire 4.7).
#[derive(Clone, Debug)]
pub struct Invoke {
    /// The key of deduplication.
    pub invocation: InvocationId,
    /// What to run.
    pub action: Action,
}

/// What can be asked of a node, already taken out of the engine's frame (spec/wire 5.8).
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start an agent.
    Spawn(InvokedSpawn),
    /// End an agent. A missing name is a typed failure of the invocation.
    Release {
        /// Whom.
        name: Option<String>,
        /// Why, for the log.
        reason: Option<String>,
    },
    /// An action that this node handles when it is declared.
    Other {
        /// Its name.
        name: String,
        /// What it is about, as JSON.
        input: String,
    },
}

/// A spawn as the engine words it; every field is as it came, trimmed, blank as absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InvokedSpawn {
    /// First non-blank of frame and input (spec/wire 5.8).
    pub name: Option<String>,
    /// The agent that owns the action, when the frame carried one.
    pub agent_id: Option<AgentId>,
    /// `cli`, `command` or `provider` of the input, else the suffix of `spawn:<harness>`.
    pub cli: Option<String>,
    /// The harness in the action's suffix.
    pub harness: Option<String>,
    /// First task.
    pub task: Option<String>,
    /// Channels to join.
    pub channels: Vec<String>,
    /// Model.
    pub model: Option<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// The CLI session to resume.
    pub session_ref: Option<String>,
    /// All of it as it came, as JSON: for a sidecar that handles spawns of this harness.
    pub input: String,
}

/// registry -> node_session: an invocation ended. Sent again whenever the engine repeats the invocation.
#[derive(Clone, Debug, PartialEq)]
pub struct InvocationEnded {
    /// Which.
    pub invocation: InvocationId,
    /// How.
    pub result: InvocationResult,
}

/// The result of an invocation. The wire forbids an empty error and both keys at once; this type does too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvocationResult {
    /// The agent runs.
    Spawned {
        /// Its name.
        name: AgentName,
    },
    /// The agent is gone.
    Released {
        /// Its name.
        name: AgentName,
    },
    /// A declared action's command printed this JSON, or a sidecar's handler answered it.
    Output(String),
    /// It failed: `code` or `code: detail`, never empty.
    Failed(String),
}

impl InvocationResult {
    /// The failure of a declared action.
    pub fn failed_action(why: impl std::fmt::Display) -> Self {
        Self::Failed(format!("action_failed: {why}"))
    }
}

told!(Invoke, InvocationEnded);
