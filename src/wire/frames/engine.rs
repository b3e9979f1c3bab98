//! What the engine says. The broker's side of it is lenient.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::{FrameError, Head, Name, lenient, written};
use crate::{
    ids::{AgentId, AgentToken, DeliveryId, InvocationId, MsgId, NodeId, Seq},
    messages::delivery::Mode,
    wire::json::{null, null_as_default, present, secret, unsigned},
};

/// Engine to broker.
#[derive(Clone, Debug)]
pub enum EngineFrame {
    /// A request went well.
    Reply(Reply),
    /// A request did not, or a frame could not be read (then under an id that nobody sent).
    Error(EngineError),
    /// A message for an agent.
    Deliver(DeliverFrame),
    /// Run this.
    ActionInvoke(ActionInvoke),
    /// Something changed elsewhere; informational.
    ContextUpdate(ContextUpdate),
    /// A message that was sent from here will not reach somebody. Newer engines only.
    DeliveryFailed(DeliveryFailed),
    /// A sign of life.
    Ping,
    /// A type that this broker does not know. Inbound only.
    Unknown {
        /// The type string.
        kind: String,
    },
}

/// `reply`. Its data is shown in no log: a registration's holds a token.
#[derive(Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The id of the request; some engines invent one.
    #[serde(default)]
    pub id: String,
    /// True; what else would be an `error`.
    #[serde(default = "yes")]
    ok: bool,
    /// Any JSON.
    #[serde(default = "null")]
    pub data: Box<RawValue>,
}

impl Reply {
    /// A reply to the request with this id.
    pub fn new(id: impl Into<String>, data: &impl Serialize) -> Self {
        // Reply data are plain structs and maps with string keys, which always serialise.
        let data = to_raw_value(data).unwrap_or_else(|_| null());
        Self { id: id.into(), ok: true, data }
    }

    /// The data as what the request promised.
    ///
    /// # Errors
    /// When an essential field is missing or has another type.
    pub fn data<'a, T: Deserialize<'a>>(&'a self) -> Result<T, FrameError> {
        serde_json::from_str(self.data.get()).map_err(|why| FrameError::Body { kind: "reply", why })
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply {{ id: {:?}, data: {} bytes }}", self.id, self.data.get().len())
    }
}

/// `error`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineError {
    /// The id of the request; invented when the request could not be read.
    #[serde(default)]
    pub id: String,
    /// False, whatever came.
    #[serde(skip_deserializing)]
    ok: bool,
    /// What to decide on.
    #[serde(default)]
    pub code: String,
    /// For people.
    #[serde(default)]
    pub message: String,
}

impl EngineError {
    /// An error for the request with this id.
    pub fn new(id: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { id: id.into(), ok: false, code: code.into(), message: message.into() }
    }
}

/// `deliver`. Its payload is shown in no log.
#[derive(Clone, Serialize, Deserialize)]
pub struct DeliverFrame {
    /// Its own id; nothing else may stand in for it.
    pub delivery_id: DeliveryId,
    /// Whom it is for.
    pub agent_id: AgentId,
    /// That agent's name; the way back (acks) is by name.
    #[serde(default)]
    pub agent: String,
    /// The message it carries.
    pub msg_id: MsgId,
    /// Its place in the agent's mailbox; 0 is outside it.
    #[serde(deserialize_with = "unsigned")]
    pub seq: Seq,
    /// A mode that we do not know is read as the patient one.
    #[serde(default, deserialize_with = "mode_or_wait")]
    pub mode: Mode,
    /// Any JSON; see [`payload`](crate::wire::payload).
    #[serde(default = "null")]
    pub payload: Box<RawValue>,
}

impl fmt::Debug for DeliverFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliverFrame")
            .field("delivery_id", &self.delivery_id)
            .field("agent_id", &self.agent_id)
            .field("agent", &self.agent)
            .field("msg_id", &self.msg_id)
            .field("seq", &self.seq)
            .field("mode", &self.mode)
            .field("payload_bytes", &self.payload.get().len())
            .finish()
    }
}

/// `action.invoke`. Its input is shown in no log: it may hold a task's text.
#[derive(Clone, Serialize, Deserialize)]
pub struct ActionInvoke {
    /// The key of deduplication.
    pub invocation_id: InvocationId,
    /// `spawn`, `spawn:<harness>`, `release`, or an action's own name.
    pub action: String,
    /// Any JSON; see [`invoke`](crate::wire::invoke).
    #[serde(default = "null")]
    pub input: Box<RawValue>,
    /// The agent that owns the action, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
}

impl fmt::Debug for ActionInvoke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActionInvoke")
            .field("invocation_id", &self.invocation_id)
            .field("action", &self.action)
            .field("agent_id", &self.agent_id)
            .field("agent_name", &self.agent_name)
            .field("input_bytes", &self.input.get().len())
            .finish()
    }
}

/// `context.update`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContextUpdate {
    /// What changed.
    pub topic: Topic,
    /// How.
    #[serde(default)]
    pub event: String,
    /// Any JSON.
    #[serde(default = "null")]
    pub data: Box<RawValue>,
    /// Null and absent differ on the wire.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub channel_id: Option<Option<String>>,
    /// Whom it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_ids: Option<Vec<AgentId>>,
}

/// `delivery.failed`. No engine needs to say any of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeliveryFailed {
    /// The message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MsgId>,
    /// Its delivery, when there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<DeliveryId>,
    /// Why, in a word: `depth_cap`, `ttl_expired`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, as other engines call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether sending it again may help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
}

/// What a [`ContextUpdate`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Somebody came or went.
    Presence,
    /// A channel.
    Channel,
    /// A thread.
    Thread,
    /// An agent.
    Agent,
    /// A topic that this broker does not know. Inbound only.
    #[serde(other, rename = "")]
    Unknown,
}

impl EngineFrame {
    /// The frame's type string.
    pub fn kind(&self) -> &str {
        match self {
            Self::Reply(_) => "reply",
            Self::Error(_) => "error",
            Self::Deliver(_) => "deliver",
            Self::ActionInvoke(_) => "action.invoke",
            Self::ContextUpdate(_) => "context.update",
            Self::DeliveryFailed(_) => "delivery.failed",
            Self::Ping => "ping",
            Self::Unknown { kind } => kind,
        }
    }

    /// The frame as it goes out: no key that was not set.
    pub fn encode(&self) -> String {
        #[derive(Serialize)]
        struct Nothing {}

        let kind = self.kind();
        match self {
            Self::Reply(frame) => written(kind, frame),
            Self::Error(frame) => written(kind, frame),
            Self::Deliver(frame) => written(kind, frame),
            Self::ActionInvoke(frame) => written(kind, frame),
            Self::ContextUpdate(frame) => written(kind, frame),
            Self::DeliveryFailed(frame) => written(kind, frame),
            Self::Ping | Self::Unknown { .. } => written(kind, &Nothing {}),
        }
    }

    /// Reads a frame as the broker does: by its type string, ignoring what it does not know.
    ///
    /// # Errors
    /// When the text is no JSON object with a type, or something that a known type cannot do without is
    /// missing or has another type.
    pub fn decode_tolerant(text: &str) -> Result<Self, FrameError> {
        let head = Head::of(text)?;
        match head.kind()? {
            "deliver" => lenient(text, "deliver").map(Self::Deliver),
            "reply" => Ok(match lenient::<Reply>(text, "reply")? {
                reply if reply.ok => Self::Reply(reply),
                // Nothing we know sends this. Taken as what it says.
                _ => Self::Error(lenient(text, "error")?),
            }),
            "error" => lenient(text, "error").map(Self::Error),
            "action.invoke" => lenient(text, "action.invoke").map(Self::ActionInvoke),
            "context.update" => lenient(text, "context.update").map(Self::ContextUpdate),
            "delivery.failed" => lenient(text, "delivery.failed").map(Self::DeliveryFailed),
            "ping" => Ok(Self::Ping),
            unknown => Ok(Self::Unknown { kind: unknown.to_owned() }),
        }
    }

    /// Reads a frame as a strict 5.0 broker would: nothing missing, nothing too much, nothing replaced by a
    /// default. The measure of what our engine sends.
    ///
    /// # Errors
    /// Everything that the schemas of 5.0.7 refuse.
    pub fn decode_strict(text: &str) -> Result<Self, FrameError> {
        let frame = Self::decode_tolerant(text)?;
        if let Self::Unknown { .. } | Self::DeliveryFailed(_) = frame {
            return Err(FrameError::UnknownType(frame.kind().to_owned()));
        }
        // A tolerant reading loses or invents something exactly when the frame was not a strict one.
        let value = |text: &str| serde_json::from_str::<Value>(text).map_err(FrameError::Json);
        if value(&frame.encode())? == value(text)? {
            Ok(frame)
        } else {
            let why = serde::de::Error::custom("a key is missing, unknown, or has a value outside its range");
            Err(FrameError::Body { kind: "frame", why })
        }
    }
}

/// Reply data of `agent.register` and `agent.recover`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentRegistered {
    /// The agent's id.
    pub agent_id: AgentId,
    /// Its token; a former one is dead.
    #[serde(with = "secret")]
    pub token: AgentToken,
    /// Its name: the way to find the request when the engine dropped the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where its mailbox stands (engines from 6.0.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_ack_seq: Option<Seq>,
}

/// Reply data of `node.register`: of the public node, what a broker looks at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeRegistered {
    /// The node's id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// What became of each capability (engines from 6.0).
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub accepted_capabilities: Vec<AcceptedCapability>,
}

/// What an engine made of a capability.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedCapability {
    /// Which.
    #[serde(default)]
    pub name: String,
    /// Its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Whether it was taken.
    #[serde(default)]
    pub accepted: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Reply data of `inventory.sync`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InventorySynced {
    /// Items that were sent.
    pub rebound_agents: u64,
    /// Invocations that are still open on this node.
    pub open_invocations: u64,
    /// Invocations that an item completed.
    pub completed_invocations: u64,
    /// Open invocations that were not listed and went elsewhere.
    pub rescheduled_invocations: u64,
}

fn yes() -> bool {
    true
}

fn mode_or_wait<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Mode, D::Error> {
    Ok(match Name::deserialize(d)? {
        Name::Text(mode) if mode == "steer" => Mode::Steer,
        Name::Text(_) | Name::Other(_) => Mode::Wait,
    })
}
