//! Agents, and what is asked of them.

use super::*;

/// `POST /v1/agents`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateAgent {
    /// Unique in the workspace, among humans, agents and brokers.
    pub name: String,
    /// `agent` (default), `human` or `system`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<String>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Value>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skills: Option<Value>,
}

/// Answer of `POST /v1/agents`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreatedAgent {
    /// Its id.
    pub id: AgentId,
    /// Its workspace.
    #[serde(default)]
    pub workspace_id: Option<WorkspaceId>,
    /// Its name.
    pub name: String,
    /// `@name`.
    #[serde(default)]
    pub handle: String,
    /// Its token.
    #[serde(with = "secret")]
    pub token: AgentToken,
    /// Open set: `active`, `offline`, `idle`, ...
    #[serde(default)]
    pub status: String,
    /// Anything.
    #[serde(default)]
    pub capabilities: Option<Value>,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
}

/// An agent as its workspace sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublicAgent {
    /// Its id.
    pub id: AgentId,
    /// Its workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<WorkspaceId>,
    /// Its name.
    pub name: String,
    /// `@name`.
    #[serde(default)]
    pub handle: String,
    /// `agent`, `human` or `system`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Open set: `active`, `offline`, `idle`, ...
    #[serde(default)]
    pub status: String,
    /// Who it is.
    #[serde(default)]
    pub persona: Option<String>,
    /// Anything.
    #[serde(default)]
    pub capabilities: Option<Value>,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// ISO 8601.
    #[serde(default)]
    pub last_seen: Option<String>,
    /// Anything.
    #[serde(default, deserialize_with = "null_as_default")]
    pub metadata: Map<String, Value>,
    /// With a single agent only, and there some clients cannot do without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<AgentChannel>>,
    /// With a single agent only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions_provided: Option<Vec<Value>>,
    /// With a single agent only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions_available_to: Option<Vec<Value>>,
    /// With a single agent only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_deliveries: Option<Vec<Value>>,
}

/// A channel that an agent is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentChannel {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `owner` or `member`.
    pub role: String,
    /// ISO 8601.
    pub joined_at: String,
}

/// `PATCH /v1/agents/:name`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PatchAgent {
    /// Open set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persona: Option<String>,
    /// Anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Value>,
}

/// Answer of `POST /v1/agents/:name/rotate-token`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RotatedToken {
    /// Whose.
    pub name: String,
    /// The new token; the former one is dead.
    #[serde(with = "secret")]
    pub token: AgentToken,
}

/// `POST /v1/agents/spawn`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpawnAgent {
    /// Its name.
    pub name: String,
    /// The program.
    pub cli: String,
    /// First task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Channel to join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// What else the caller says; handed to the node as it is.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `POST /v1/agents/release`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReleaseAgent {
    /// Whom.
    pub name: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Delete the agent too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_agent: Option<bool>,
}

/// Answer of spawn, release and invoke.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Invocation {
    /// Its id.
    pub invocation_id: String,
    /// `spawn`, `release`, or the action's own name.
    #[serde(default)]
    pub action_name: String,
    /// The agent that handles it.
    #[serde(default)]
    pub handler_agent_id: Option<String>,
    /// The node that handles it.
    #[serde(default)]
    pub handler_node_id: Option<String>,
    /// The node it was sent to.
    #[serde(default)]
    pub dispatched_node_id: Option<String>,
    /// As the caller gave it.
    #[serde(default)]
    pub input: Value,
    /// `pending`, `dispatched`, `completed` or `failed`.
    #[serde(default)]
    pub status: String,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
}
