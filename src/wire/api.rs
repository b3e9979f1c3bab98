//! Bodies of the engine's HTTP API (spec/wire 1). The client reads them leniently: what a body cannot do
//! without is required, everything else has a default, unknown keys are ignored. The embedded engine writes
//! the same types, so every key that its clients expect is there, null where the contract says null.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    frames::{AcceptedCapability, Provider},
    json::{null_as_default, number_or_null, secret},
};
use crate::{
    ids::{AgentId, AgentToken, MsgId, NodeId, NodeName, NodeToken, Seq, WorkspaceId, WorkspaceKey},
    messages::delivery::Mode,
};

/// The body of a success.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: DeserializeOwned"))]
pub struct Success<T> {
    /// True.
    pub ok: bool,
    /// The result.
    pub data: T,
    /// Where a list goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

impl<T> Success<T> {
    /// A success with this result.
    pub fn new(data: T) -> Self {
        Self { ok: true, data, cursor: None }
    }
}

/// Where a list goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cursor {
    /// Pass it on to get more.
    pub next: Option<String>,
    /// Whether there is more.
    pub has_more: bool,
}

/// The body of a failure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// False.
    pub ok: bool,
    /// Why.
    pub error: FailureCause,
}

impl Failure {
    /// A failure with this code.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { ok: false, error: FailureCause { code: code.into(), message: message.into() } }
    }
}

/// Why a request failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailureCause {
    /// What to decide on.
    pub code: String,
    /// For people.
    pub message: String,
}

/// `GET /health`; the one answer without `data`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// True.
    pub ok: bool,
    /// The engine's version.
    pub version: String,
    /// Its build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Value>,
}

/// `POST /v1/workspaces`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateWorkspace {
    /// Its name.
    pub name: String,
}

/// Answer of `POST /v1/workspaces`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreatedWorkspace {
    /// Its id.
    pub workspace_id: WorkspaceId,
    /// Its key.
    #[serde(default, with = "secret::optional", skip_serializing_if = "Option::is_none")]
    pub api_key: Option<WorkspaceKey>,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
}

/// `GET /v1/workspace`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// `free`, `pro` or `enterprise`.
    #[serde(default)]
    pub plan: String,
    /// For agents.
    #[serde(default)]
    pub system_prompt: Option<String>,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// Anything.
    #[serde(default, deserialize_with = "null_as_default")]
    pub metadata: Map<String, Value>,
    /// 64 hex digits. Not in the schema, and yet clients written in Rust fail without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_hash: Option<String>,
}

/// `POST /v1/nodes`: enrol a node, or rotate its token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateNode {
    /// Our stable id; the engine makes one without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// Unique in the workspace.
    pub name: String,
    /// `ws` (default), `http_push` or `poll`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `broker` or `direct`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Names only, unlike on the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// 0 is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_agents: Option<u64>,
    /// Free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Program and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl CreateNode {
    /// What a broker asks for.
    pub fn broker(node_id: NodeId, name: &NodeName) -> Self {
        Self {
            node_id: Some(node_id),
            name: name.to_string(),
            kind: Some("ws".to_owned()),
            role: Some("broker".to_owned()),
            version: Some(super::net::PRODUCT.to_owned()),
            ..Self::default()
        }
    }
}

/// A node as its workspace sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublicNode {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// `ws`, `http_push` or `poll`.
    #[serde(default)]
    pub kind: String,
    /// `broker` or `direct`.
    #[serde(default)]
    pub role: String,
    /// `ws.node.v1` for ws.
    #[serde(default)]
    pub delivery_adapter: Option<String>,
    /// Null for ws.
    #[serde(default)]
    pub delivery: Option<Value>,
    /// What it can do.
    #[serde(default, deserialize_with = "null_as_default")]
    pub capabilities: Vec<NodeCapability>,
    /// Free.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tags: Vec<String>,
    /// Program and version.
    #[serde(default)]
    pub version: String,
    /// `online` or `offline`.
    #[serde(default)]
    pub status: String,
    /// Online, with a heartbeat within 45 s.
    #[serde(default)]
    pub live: bool,
    /// Takes untargeted spawns.
    #[serde(default)]
    pub handlers_live: bool,
    /// Null from 7.0 on when never reported.
    #[serde(default, serialize_with = "number_or_null")]
    pub load: Option<f64>,
    /// Agents now.
    #[serde(default)]
    pub active_agents: u64,
    /// 0 is unlimited.
    #[serde(default)]
    pub max_agents: u64,
    /// ISO 8601.
    #[serde(default)]
    pub last_heartbeat_at: Option<String>,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// Echoed in the reply to `node.register` when the register named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// In the reply to `node.register` of engines from 6.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_capabilities: Option<Vec<AcceptedCapability>>,
}

/// A capability as the engine shows it. (A frame's [`super::frames::Capability`] is strict.)
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeCapability {
    /// `spawn:<harness>`, or an action's name.
    pub name: String,
    /// `capacity`, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

/// Answer of `POST /v1/nodes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreatedNode {
    /// The node; its id may be another than the one that was asked for.
    #[serde(flatten)]
    pub node: PublicNode,
    /// The new token; the former one is dead.
    #[serde(with = "secret")]
    pub token: NodeToken,
}

/// `POST /v1/nodes/:name/agents`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BindAgent {
    /// Whom.
    pub agent_name: String,
    /// The CLI session it can be resumed by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_ref: Option<String>,
    /// Of several bindings the highest wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
}

/// An agent's binding to a node. Unlike `agent.register`, making one leaves the agent's token alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// Its own id.
    #[serde(default)]
    pub id: String,
    /// The agent.
    pub agent_id: AgentId,
    /// The agent's name.
    pub agent_name: String,
    /// The node.
    #[serde(default)]
    pub node_id: String,
    /// The node's name.
    #[serde(default)]
    pub node_name: String,
    /// `ws`, `http_push` or `poll`.
    #[serde(default)]
    pub node_kind: String,
    /// `broker` or `direct`.
    #[serde(default)]
    pub node_role: String,
    /// `active`.
    #[serde(default)]
    pub status: String,
    /// The CLI session it can be resumed by.
    #[serde(default)]
    pub session_ref: Option<String>,
    /// Of several bindings the highest wins.
    #[serde(default)]
    pub priority: i64,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// ISO 8601.
    #[serde(default)]
    pub updated_at: Option<String>,
    /// Where the agent's mailbox stands (engines from 8.11.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_ack_seq: Option<Seq>,
}

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

/// `POST /v1/channels`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateChannel {
    /// `[a-z0-9][a-z0-9-]*`
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub topic: Option<String>,
    /// Anything.
    #[serde(default, deserialize_with = "null_as_default")]
    pub metadata: Map<String, Value>,
    /// An agent's id.
    #[serde(default)]
    pub created_by: Option<String>,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// No messages any more.
    #[serde(default)]
    pub is_archived: bool,
    /// How many are in it.
    #[serde(default)]
    pub member_count: u64,
    /// With a single channel only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<ChannelMember>>,
}

/// Somebody in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelMember {
    /// Who.
    pub agent_id: AgentId,
    /// Their name.
    #[serde(default)]
    pub agent_name: String,
    /// `owner` or `member`.
    #[serde(default)]
    pub role: String,
    /// ISO 8601.
    #[serde(default)]
    pub joined_at: String,
    /// Hides the channel from event streams, not from deliveries.
    #[serde(default)]
    pub is_muted: bool,
}

/// Answer of `POST /v1/channels/:name/join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedChannel {
    /// Its name.
    pub channel: String,
    /// Who joined.
    pub agent_id: AgentId,
    /// Nothing changed.
    #[serde(default)]
    pub already_member: bool,
}

/// `POST /v1/channels/:name/messages`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PostMessage {
    /// The text.
    pub text: String,
    /// How it reaches a busy agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Rich text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Value>,
    /// Ids of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Vec<String>>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

impl PostMessage {
    /// A plain text.
    pub fn text(text: impl Into<String>, mode: Option<Mode>) -> Self {
        Self { text: text.into(), mode, ..Self::default() }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: MsgId,
    /// Where.
    #[serde(default)]
    pub channel_id: String,
    /// Who.
    #[serde(default)]
    pub agent_id: String,
    /// Their name.
    #[serde(default)]
    pub agent_name: String,
    /// What.
    #[serde(default)]
    pub text: String,
    /// Rich text.
    #[serde(default)]
    pub blocks: Option<Value>,
    /// Anything.
    #[serde(default, deserialize_with = "null_as_default")]
    pub metadata: Map<String, Value>,
    /// Whether files belong to it.
    #[serde(default)]
    pub has_attachments: bool,
    /// The message that it answers.
    #[serde(default)]
    pub thread_id: Option<MsgId>,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// Names.
    #[serde(default, deserialize_with = "null_as_default")]
    pub mentions: Vec<String>,
    /// Files.
    #[serde(default, deserialize_with = "null_as_default")]
    pub attachments: Vec<Value>,
    /// How it reaches a busy agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injection_mode: Option<String>,
    /// In lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_count: Option<u64>,
    /// In lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reactions: Option<Vec<Value>>,
    /// In lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_by_count: Option<u64>,
    /// In replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_name: Option<String>,
}

/// `POST /v1/messages/:id/replies`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PostReply {
    /// The text.
    pub text: String,
    /// Rich text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Value>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

/// `POST /v1/dm`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PostDm {
    /// A name, or `@self`.
    pub to: String,
    /// The text.
    pub text: String,
    /// How it reaches a busy agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Ids of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Vec<String>>,
}

/// Answer of `POST /v1/dm`. The flat tail repeats `message` for old clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SentDm {
    /// Whom it is between.
    #[serde(default)]
    pub conversation_id: String,
    /// The message.
    #[serde(default)]
    pub message: DmMessage,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// The message's id.
    pub id: MsgId,
    /// The sender.
    #[serde(default)]
    pub from_agent_id: String,
    /// The recipient's name.
    #[serde(default)]
    pub to: String,
    /// The text.
    #[serde(default)]
    pub text: String,
    /// How it reaches a busy agent.
    #[serde(default)]
    pub injection_mode: String,
    /// Files.
    #[serde(default, deserialize_with = "null_as_default")]
    pub attachments: Vec<Value>,
}

/// A direct message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DmMessage {
    /// Its id.
    pub id: String,
    /// The sender.
    pub agent_id: String,
    /// The sender's name.
    pub agent_name: String,
    /// The text.
    pub text: String,
    /// How it reaches a busy agent.
    pub injection_mode: String,
    /// Files.
    #[serde(deserialize_with = "null_as_default")]
    pub attachments: Vec<Value>,
}

/// Answer of `POST /v1/messages/:id/read`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReceipt {
    /// Which.
    pub message_id: MsgId,
    /// Who.
    pub agent_id: AgentId,
    /// ISO 8601.
    #[serde(default)]
    pub read_at: String,
}

/// `GET /v1/inbox`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inbox {
    /// Channels with news.
    pub unread_channels: Vec<UnreadChannel>,
    /// Messages that name the reader.
    pub mentions: Vec<Mention>,
    /// Conversations with news.
    pub unread_dms: Vec<UnreadDm>,
    /// Reactions to the reader's messages.
    pub recent_reactions: Vec<Value>,
}

/// A channel with news.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnreadChannel {
    /// Its name.
    pub channel_name: String,
    /// How many.
    pub unread_count: u64,
}

/// A message that names the reader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mention {
    /// Its id.
    pub id: String,
    /// Where.
    pub channel_name: String,
    /// Who.
    pub agent_name: String,
    /// What.
    pub text: String,
    /// ISO 8601.
    pub created_at: String,
}

/// A conversation with news.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnreadDm {
    /// Whom it is between.
    pub conversation_id: String,
    /// With whom.
    pub from: String,
    /// How many.
    pub unread_count: u64,
    /// The newest.
    pub last_message: Option<LastMessage>,
}

/// The newest message of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastMessage {
    /// Its id.
    pub id: String,
    /// What.
    pub text: String,
    /// ISO 8601.
    pub created_at: String,
}
