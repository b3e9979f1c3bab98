//! The frames that the engine sends, built from its rows.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{rules::text::event_key, store::OpenRow};
use crate::{
    ids::Seq,
    messages::delivery::Mode,
    wire::frames::{ActionInvoke, DeliverFrame, EngineError, EngineFrame, Reply},
};

/// Something that happened outside the mailboxes: sent at most once, as seq 0.
pub(super) struct Event<'a> {
    /// `message.read` and its like.
    pub(super) kind: &'static str,
    /// What tells this one from others of its kind.
    pub(super) key: &'a str,
    /// The message, invocation or action it is about.
    pub(super) about: &'a str,
    /// `{type, data}`.
    pub(super) payload: &'a RawValue,
}

/// A message out of a mailbox.
pub(super) fn deliver(agent: i64, row: &OpenRow<'_>) -> String {
    let message = row.message.to_string();
    let agent_id = agent.to_string();
    EngineFrame::Deliver(DeliverFrame {
        delivery_id: delivery_id(row.message, agent).into(),
        agent_id: agent_id.into(),
        agent: row.agent_name.to_owned(),
        msg_id: message.into(),
        seq: Seq(u64::try_from(row.seq).unwrap_or(0)),
        mode: mode(row.mode),
        payload: raw(row.payload),
    })
    .encode()
}

/// `del_<message>_<agent>`
pub(super) fn delivery_id(message: i64, agent: i64) -> String {
    format!("del_{message}_{agent}")
}

/// An event for one agent.
pub(super) fn event(agent: i64, agent_name: &str, event: &Event<'_>) -> String {
    EngineFrame::Deliver(DeliverFrame {
        delivery_id: format!("evt_{}_{}_{agent}", event_key(event.kind), event_key(event.key)).into(),
        agent_id: agent.to_string().into(),
        agent: agent_name.to_owned(),
        msg_id: event.about.into(),
        seq: Seq(0),
        mode: Mode::Wait,
        payload: event.payload.to_owned(),
    })
    .encode()
}

/// `{type, data}`, what every deliver frame carries.
pub(super) fn payload(kind: &str, data: &impl Serialize) -> Box<RawValue> {
    #[derive(Serialize)]
    struct Payload<'a, T> {
        r#type: &'a str,
        data: &'a T,
    }
    // Data are plain structs and maps with string keys, which always serialise.
    to_raw_value(&Payload { r#type: kind, data }).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// An action for a node to run.
pub(super) fn invoke(invocation: i64, action: &str, input: &str) -> String {
    EngineFrame::ActionInvoke(ActionInvoke {
        invocation_id: invocation_id(invocation).into(),
        action: action.to_owned(),
        input: raw(input),
        agent_id: None,
        agent_name: None,
    })
    .encode()
}

/// `inv_<snowflake>`
pub(super) fn invocation_id(invocation: i64) -> String {
    format!("inv_{invocation}")
}

/// A request went well.
pub(super) fn reply(id: String, data: &impl Serialize) -> String {
    EngineFrame::Reply(Reply::new(id, data)).encode()
}

/// A request did not go well, or a frame could not be read.
pub(super) fn error(id: String, code: &str, message: &str) -> String {
    EngineFrame::Error(EngineError::new(id, code, message)).encode()
}

fn mode(stored: &str) -> Mode {
    if stored == "steer" { Mode::Steer } else { Mode::Wait }
}

fn raw(json: &str) -> Box<RawValue> {
    // The store holds what the engine itself serialised.
    RawValue::from_string(json.to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
