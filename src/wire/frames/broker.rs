//! What the broker says. The engine's side of it is strict.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use super::{FrameError, Head, body, written};
use crate::{
    ids::{AgentId, InvocationId, Seq},
    wire::json::{null, number, objects, present, present_object, unsigned},
};

/// Broker to engine.
#[derive(Clone, Debug)]
pub enum BrokerFrame {
    /// The first frame on every socket. Answered by a reply with the public node.
    NodeRegister(NodeRegister),
    /// Presence and load. Never answered.
    NodeHeartbeat(NodeHeartbeat),
    /// The node goes away.
    NodeDeregister(NodeDeregister),
    /// Creates an agent on this node. Answered by [`AgentRegistered`](super::AgentRegistered).
    AgentRegister(AgentRegister),
    /// Takes an existing agent back (engines from 7.0). Answered by [`AgentRegistered`](super::AgentRegistered).
    AgentRecover(AgentRecover),
    /// An agent is gone from this node.
    AgentDeregister(AgentDeregister),
    /// Everything up to a number has been handled. Never answered.
    DeliveryAck(DeliveryAck),
    /// How an action ended. Never answered.
    ActionResult(ActionResult),
    /// All live agents. Answered by [`InventorySynced`](super::InventorySynced).
    InventorySync(InventorySync),
}

/// Which provider of a node speaks (engines from 6.0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Fixed per kind of program.
    pub name: String,
    /// One per process.
    pub instance_id: String,
}

/// Something that a node can do, as a frame words it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capability {
    /// `spawn:<harness>`, or an action's name.
    pub name: String,
    /// `capacity` keeps engines from 6.0 from making an action of it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Anything.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Engines from 6.0; never sent by us.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub global: Option<Value>,
    /// Engines from 6.0; never sent by us.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub queue: Option<Value>,
}

impl Capability {
    /// A capability with a name and nothing else, as a 5.0 engine wants it.
    pub fn plain(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// A capability of kind `capacity`, for engines from 6.0.
    pub fn capacity(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: Some("capacity".to_owned()), ..Self::default() }
    }

    /// The same with this JSON object about it; what is none says nothing.
    #[must_use]
    pub fn described(self, json: &str) -> Self {
        Self { metadata: serde_json::from_str(json).ok(), ..self }
    }

    fn too_new(&self) -> Option<&'static str> {
        first_set([("global", self.global.is_some()), ("queue", self.queue.is_some())])
    }
}

/// A node's load: a finite number, at least 0. What we send is 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Load(f64);

impl Serialize for Load {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        number(self.0, s)
    }
}

impl Load {
    /// A load from 0 to 1; what is outside is moved to the nearer end, and what is no number is 0.
    pub fn clamped(load: f64) -> Self {
        if load.is_nan() { Self(0.0) } else { Self(load.clamp(0.0, 1.0)) }
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Load {
    type Error = &'static str;
    fn try_from(load: f64) -> Result<Self, Self::Error> {
        if load.is_finite() && load >= 0.0 { Ok(Self(load)) } else { Err("load must be a number from 0 up") }
    }
}

/// `node.register`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRegister {
    /// Comes back in the reply.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The node's name.
    pub name: String,
    /// Must be the node that the token opens.
    pub node_id: String,
    /// Engines from 6.0.
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// May be empty.
    #[serde(deserialize_with = "objects")]
    pub capabilities: Vec<Capability>,
    /// Most agents at once; 0 is unlimited.
    #[serde(deserialize_with = "unsigned")]
    pub max_agents: u64,
    /// May be empty.
    pub tags: Vec<String>,
    /// Program and version.
    pub version: String,
    /// Ignored by every engine known; null and absent differ on the wire.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub resume_cursor: Option<Option<String>>,
    /// Engines from 8.3; never sent by us.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// Engines from 8.1; never sent by us.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub repo_keys: Option<Vec<String>>,
}

/// `node.heartbeat`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeHeartbeat {
    /// Comes back in an error, if there is one.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Engines from 6.0; the same as on register.
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Engines before 7.0 demand it; always sent by us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Agents now.
    #[serde(deserialize_with = "unsigned")]
    pub active_agents: u64,
    /// False keeps untargeted spawns away.
    pub handlers_live: bool,
    /// Roster: replaces what the engine has.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Roster.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// Roster.
    #[serde(default, deserialize_with = "objects", skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Capability>>,
    /// Roster.
    #[serde(default, deserialize_with = "unsigned", skip_serializing_if = "Option::is_none")]
    pub max_agents: Option<u64>,
    /// Roster.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// `node.deregister`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeDeregister {
    /// Engines from 8.7 answer when it is there.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Engines from 6.0; the same as on register.
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
}

/// `agent.register`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentRegister {
    /// Comes back in the reply.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The agent's name.
    pub name: String,
    /// The invocation that asked for it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<InvocationId>,
    /// The CLI session it can be resumed by.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub session_ref: Option<String>,
    /// Whether it can be resumed.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub resumable: Option<bool>,
}

/// `agent.recover`, engines from 7.0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentRecover {
    /// Comes back in the reply.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The agent's name.
    pub name: String,
    /// The id that this node knows it by.
    pub expected_agent_id: AgentId,
    /// The invocation that asked for it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<InvocationId>,
    /// The CLI session it can be resumed by.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub session_ref: Option<String>,
    /// Whether it can be resumed.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub resumable: Option<bool>,
}

/// `agent.deregister`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentDeregister {
    /// Engines from 8.7 answer when it is there.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Which agent; an empty id makes the engine look at the name.
    pub agent_id: AgentId,
    /// Its name.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `delivery.ack`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryAck {
    /// Not needed: acks are not answered.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The agent's NAME (the engine selects by it).
    pub agent: String,
    /// Cumulative.
    #[serde(deserialize_with = "unsigned")]
    pub up_to_seq: Seq,
}

/// `action.result`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "ActionResultKeys", into = "ActionResultKeys")]
pub struct ActionResult {
    /// Not needed: results are not answered.
    pub id: Option<String>,
    /// Which invocation.
    pub invocation_id: InvocationId,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an action ended; exactly one of the two stands in the frame.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Any JSON.
    Output(Box<RawValue>),
    /// `code` or `code: detail`. A blank one is written as `action_failed`: the engine would take an empty
    /// error for success.
    Error(String),
}

impl ActionResult {
    /// The action ended well.
    pub fn output(invocation_id: InvocationId, output: &impl Serialize) -> Self {
        // Our outputs are plain structs and maps with string keys, which always serialise.
        let output = to_raw_value(output).unwrap_or_else(|_| null());
        Self { id: None, invocation_id, outcome: Outcome::Output(output) }
    }

    /// The action ended well and said this JSON; what is none is a failure.
    pub fn printed(invocation_id: InvocationId, json: String) -> Self {
        match RawValue::from_string(json) {
            Ok(output) => Self { id: None, invocation_id, outcome: Outcome::Output(output) },
            Err(error) => Self::error(invocation_id, format!("action_failed: {error}")),
        }
    }

    /// The action failed.
    pub fn error(invocation_id: InvocationId, error: impl Into<String>) -> Self {
        Self { id: None, invocation_id, outcome: Outcome::Error(error.into()) }
    }
}

/// The keys of `action.result` as they stand in JSON.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionResultKeys {
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    invocation_id: InvocationId,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    output: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl TryFrom<ActionResultKeys> for ActionResult {
    type Error = &'static str;
    fn try_from(keys: ActionResultKeys) -> Result<Self, Self::Error> {
        let outcome = match (keys.output, keys.error) {
            (Some(output), None) => Outcome::Output(output),
            (None, Some(error)) => Outcome::Error(error),
            _ => return Err("exactly one of `output` and `error` must be there"),
        };
        Ok(Self { id: keys.id, invocation_id: keys.invocation_id, outcome })
    }
}

impl From<ActionResult> for ActionResultKeys {
    fn from(result: ActionResult) -> Self {
        let (output, error) = match result.outcome {
            Outcome::Output(output) => (Some(output), None),
            Outcome::Error(error) if error.trim().is_empty() => (None, Some("action_failed".to_owned())),
            Outcome::Error(error) => (None, Some(error)),
        };
        Self { id: result.id, invocation_id: result.invocation_id, output, error }
    }
}

/// `inventory.sync`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventorySync {
    /// Comes back in the reply.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Every live agent; may be empty.
    #[serde(deserialize_with = "objects")]
    pub agents: Vec<InventoryAgent>,
}

/// One agent of an [`InventorySync`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryAgent {
    /// Its id.
    pub agent_id: AgentId,
    /// Its name.
    pub name: String,
    /// An invocation that this item completes.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<InvocationId>,
    /// The CLI session it can be resumed by.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub session_ref: Option<String>,
}

impl BrokerFrame {
    /// The frame's type string.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NodeRegister(_) => "node.register",
            Self::NodeHeartbeat(_) => "node.heartbeat",
            Self::NodeDeregister(_) => "node.deregister",
            Self::AgentRegister(_) => "agent.register",
            Self::AgentRecover(_) => "agent.recover",
            Self::AgentDeregister(_) => "agent.deregister",
            Self::DeliveryAck(_) => "delivery.ack",
            Self::ActionResult(_) => "action.result",
            Self::InventorySync(_) => "inventory.sync",
        }
    }

    /// The id that a reply would carry.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::NodeRegister(frame) => frame.id.as_deref(),
            Self::NodeHeartbeat(frame) => frame.id.as_deref(),
            Self::NodeDeregister(frame) => frame.id.as_deref(),
            Self::AgentRegister(frame) => frame.id.as_deref(),
            Self::AgentRecover(frame) => frame.id.as_deref(),
            Self::AgentDeregister(frame) => frame.id.as_deref(),
            Self::DeliveryAck(frame) => frame.id.as_deref(),
            Self::ActionResult(frame) => frame.id.as_deref(),
            Self::InventorySync(frame) => frame.id.as_deref(),
        }
    }

    /// The frame as it goes out: no key that was not set.
    pub fn encode(&self) -> String {
        let kind = self.kind();
        match self {
            Self::NodeRegister(frame) => written(kind, frame),
            Self::NodeHeartbeat(frame) => written(kind, frame),
            Self::NodeDeregister(frame) => written(kind, frame),
            Self::AgentRegister(frame) => written(kind, frame),
            Self::AgentRecover(frame) => written(kind, frame),
            Self::AgentDeregister(frame) => written(kind, frame),
            Self::DeliveryAck(frame) => written(kind, frame),
            Self::ActionResult(frame) => written(kind, frame),
            Self::InventorySync(frame) => written(kind, frame),
        }
    }

    /// Reads a frame exactly as a 5.0 engine does.
    ///
    /// # Errors
    /// Everything that the schemas of 5.0.7 refuse, keys of later generations included.
    pub fn decode_strict(text: &str) -> Result<Self, FrameError> {
        let frame = Self::decode_extended(text)?;
        match frame.too_new() {
            None => Ok(frame),
            Some(_) if matches!(frame, Self::AgentRecover(_)) => {
                Err(FrameError::UnknownType(frame.kind().to_owned()))
            }
            Some(key) => Err(FrameError::TooNew { kind: frame.kind(), key }),
        }
    }

    /// Reads a frame as the embedded engine does: as strict as [`Self::decode_strict`], and with what later
    /// generations added, so that their brokers can be hosted: `provider` on register, heartbeat and
    /// deregister; `machine_id` and `repo_keys` on register; `global` and `queue` in a capability; a
    /// heartbeat whose `load` is null or absent; and `agent.recover`.
    ///
    /// # Errors
    /// Everything else that the schemas of 5.0.7 refuse.
    pub fn decode_extended(text: &str) -> Result<Self, FrameError> {
        let head = Head::of(text)?;
        if head.v.as_ref().and_then(Value::as_f64) != Some(1.0) {
            return Err(FrameError::Version);
        }
        match head.kind()? {
            "node.register" => body(text, "node.register").map(Self::NodeRegister),
            "node.heartbeat" => body(text, "node.heartbeat").map(Self::NodeHeartbeat),
            "node.deregister" => body(text, "node.deregister").map(Self::NodeDeregister),
            "agent.register" => body(text, "agent.register").map(Self::AgentRegister),
            "agent.recover" => body(text, "agent.recover").map(Self::AgentRecover),
            "agent.deregister" => body(text, "agent.deregister").map(Self::AgentDeregister),
            "delivery.ack" => body(text, "delivery.ack").map(Self::DeliveryAck),
            "action.result" => body(text, "action.result").map(Self::ActionResult),
            "inventory.sync" => body(text, "inventory.sync").map(Self::InventorySync),
            unknown => Err(FrameError::UnknownType(unknown.to_owned())),
        }
    }

    /// The first thing in this frame that a 5.0 engine refuses.
    fn too_new(&self) -> Option<&'static str> {
        match self {
            Self::NodeRegister(frame) => first_set([
                ("provider", frame.provider.is_some()),
                ("machine_id", frame.machine_id.is_some()),
                ("repo_keys", frame.repo_keys.is_some()),
            ])
            .or_else(|| frame.capabilities.iter().find_map(Capability::too_new)),
            Self::NodeHeartbeat(frame) => {
                first_set([("provider", frame.provider.is_some()), ("load", frame.load.is_none())])
                    .or_else(|| frame.capabilities.iter().flatten().find_map(Capability::too_new))
            }
            Self::NodeDeregister(frame) => frame.provider.is_some().then_some("provider"),
            Self::AgentRecover(_) => Some("type"),
            Self::AgentRegister(_)
            | Self::AgentDeregister(_)
            | Self::DeliveryAck(_)
            | Self::ActionResult(_)
            | Self::InventorySync(_) => None,
        }
    }
}

fn first_set<const N: usize>(keys: [(&'static str, bool); N]) -> Option<&'static str> {
    keys.into_iter().find_map(|(key, set)| set.then_some(key))
}
