//! Nodes, and the agents that are bound to them.

use super::*;

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
            version: Some(crate::wire::net::PRODUCT.to_owned()),
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

/// A capability as the engine shows it. (A frame's [`Capability`](crate::wire::frames::Capability) is strict.)
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
