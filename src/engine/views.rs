//! Rows of the store as bodies of the wire.

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, macros::format_description};

use super::{
    frames,
    rules::is_live,
    store::{AgentRow, ChannelRow, DeliveryRow, InvocationRow, MemberRow, MessageRow, NodeRow, Store},
};
use crate::{
    ids::Seq,
    wire::api::{
        AgentChannel, Binding, Channel, ChannelMember, Invocation, Message, NodeCapability, PublicAgent,
        PublicNode, Workspace,
    },
};

/// ISO 8601, UTC, with milliseconds.
pub(super) fn iso(at_ms: i64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000)
        .ok()
        .and_then(|at| at.format(format).ok())
        .unwrap_or_default()
}

/// JSON out of the store, which the engine itself wrote; null if it is none.
pub(super) fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}

fn object(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap_or_default()
}

fn list<T: serde::de::DeserializeOwned>(json: &str) -> Vec<T> {
    serde_json::from_str(json).unwrap_or_default()
}

fn count(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

pub(super) fn workspace(row: &super::store::WorkspaceRow) -> Workspace {
    Workspace {
        id: row.id.to_string().into(),
        name: row.name.clone(),
        plan: "free".to_owned(),
        system_prompt: None,
        created_at: iso(row.created_at),
        metadata: object(&row.metadata),
        api_key_hash: Some(row.key_hash.clone()),
    }
}

/// A node as its workspace sees it at `now`.
pub(super) fn node(row: &NodeRow, now: i64, liveness: std::time::Duration) -> PublicNode {
    let live = is_live(row.online, row.last_heartbeat_at, now, liveness);
    PublicNode {
        id: row.id.as_str().into(),
        name: row.name.clone(),
        kind: row.kind.clone(),
        role: row.role.clone(),
        delivery_adapter: Some("ws.node.v1".to_owned()),
        delivery: None,
        capabilities: list::<NodeCapability>(&row.capabilities),
        tags: list(&row.tags),
        version: row.version.clone(),
        status: if live { "online" } else { "offline" }.to_owned(),
        live,
        handlers_live: live && row.handlers_live,
        load: Some(row.load),
        active_agents: count(row.active_agents),
        max_agents: count(row.max_agents),
        last_heartbeat_at: row.last_heartbeat_at.map(iso),
        created_at: iso(row.created_at),
        provider: None,
        accepted_capabilities: None,
    }
}

/// The binding of an agent that is located on `node`.
pub(super) fn binding(agent: &AgentRow, node: &NodeRow) -> Binding {
    let bound_at = agent.bound_at.unwrap_or(agent.created_at);
    Binding {
        id: format!("anb_{}", agent.binding.unwrap_or(agent.id)),
        agent_id: agent.id.to_string().into(),
        agent_name: agent.name.clone(),
        node_id: node.id.clone(),
        node_name: node.name.clone(),
        node_kind: node.kind.clone(),
        node_role: node.role.clone(),
        status: "active".to_owned(),
        session_ref: agent.session_ref.clone(),
        priority: agent.priority,
        created_at: iso(bound_at),
        updated_at: Some(iso(bound_at)),
        delivery_ack_seq: Some(Seq(count(agent.ack_seq))),
    }
}

/// An agent as a list shows it.
pub(super) fn agent(row: &AgentRow) -> PublicAgent {
    PublicAgent {
        id: row.id.to_string().into(),
        workspace_id: Some(row.workspace.to_string().into()),
        name: row.name.clone(),
        handle: format!("@{}", row.name),
        kind: row.kind.clone(),
        status: row.status.clone(),
        persona: row.persona.clone(),
        capabilities: row.capabilities.as_deref().map(parsed),
        created_at: iso(row.created_at),
        last_seen: Some(iso(row.last_seen)),
        metadata: object(&row.metadata),
        channels: None,
        actions_provided: None,
        actions_available_to: None,
        pending_deliveries: None,
    }
}

/// An agent alone, with its channels and what waits for it.
pub(super) fn agent_in_full(store: &Store, row: &AgentRow) -> rusqlite::Result<PublicAgent> {
    let channels = store.channels_of(row.id)?.into_iter().filter_map(|(channel, member)| {
        Some(AgentChannel {
            id: channel.id.to_string(),
            name: channel.name?,
            role: member.role,
            joined_at: iso(member.joined_at),
        })
    });
    let pending = store.deliveries(row.id, None, 100)?;
    let pending = pending.iter().filter(|delivery| delivery.status < 2);
    Ok(PublicAgent {
        channels: Some(channels.collect()),
        actions_provided: Some(Vec::new()),
        actions_available_to: Some(Vec::new()),
        pending_deliveries: Some(
            pending
                .map(|delivery| {
                    json!({
                        "id": frames::delivery_id(delivery.message, row.id),
                        "message_id": delivery.message.to_string(),
                        "seq": delivery.seq,
                        "status": delivery_status(delivery.status),
                    })
                })
                .collect(),
        ),
        ..agent(row)
    })
}

pub(super) fn channel(row: &ChannelRow) -> Channel {
    Channel {
        id: row.id.to_string(),
        name: row.display_name().to_owned(),
        topic: row.topic.clone(),
        metadata: object(&row.metadata),
        created_by: row.created_by.map(|id| id.to_string()),
        created_at: iso(row.created_at),
        is_archived: row.archived,
        member_count: count(row.member_count),
        members: None,
    }
}

pub(super) fn member(row: &MemberRow) -> ChannelMember {
    ChannelMember {
        agent_id: row.agent.to_string().into(),
        agent_name: row.agent_name.clone(),
        role: row.role.clone(),
        joined_at: iso(row.joined_at),
        is_muted: row.muted,
    }
}

/// A message as the answer to posting it and as a payload carry it.
pub(super) fn message(row: &MessageRow, channel: &ChannelRow) -> Message {
    Message {
        id: row.id.to_string().into(),
        channel_id: channel.public_id(),
        agent_id: row.agent.to_string(),
        agent_name: row.agent_name.clone(),
        text: row.text.clone(),
        blocks: row.blocks.as_deref().map(parsed),
        metadata: object(&row.metadata),
        has_attachments: false,
        thread_id: row.thread.map(|id| id.to_string().into()),
        created_at: iso(row.created_at),
        mentions: list(&row.mentions),
        attachments: Vec::new(),
        injection_mode: Some(row.mode.clone()),
        reply_count: None,
        reactions: None,
        read_by_count: None,
        channel_name: None,
    }
}

/// A message as lists show it: with replies, reactions and readers counted.
pub(super) fn message_in_full(
    store: &Store,
    row: &MessageRow,
    channel: &ChannelRow,
) -> rusqlite::Result<Message> {
    let mut grouped: Vec<(String, Vec<String>)> = Vec::new();
    for reaction in store.reactions(row.id)? {
        match grouped.iter_mut().find(|(emoji, _)| *emoji == reaction.emoji) {
            Some((_, agents)) => agents.push(reaction.agent_name),
            None => grouped.push((reaction.emoji, vec![reaction.agent_name])),
        }
    }
    let reactions = grouped
        .into_iter()
        .map(|(emoji, agents)| json!({"emoji": emoji, "count": agents.len(), "agents": agents}));
    Ok(Message {
        reply_count: Some(count(store.reply_count(row.id)?)),
        reactions: Some(reactions.collect()),
        read_by_count: Some(count(store.read_by_count(row.id)?)),
        ..message(row, channel)
    })
}

pub(super) fn invocation(row: &InvocationRow) -> Invocation {
    Invocation {
        invocation_id: frames::invocation_id(row.id),
        action_name: row.action.clone(),
        handler_agent_id: None,
        handler_node_id: row.node.clone().or_else(|| row.target.clone()),
        dispatched_node_id: row.dispatched_at.and_then(|_| row.node.clone()),
        input: parsed(&row.input),
        status: row.status.clone(),
        created_at: iso(row.created_at),
    }
}

/// An invocation as asking for it later shows it.
pub(super) fn invocation_in_full(row: &InvocationRow) -> Value {
    json!({
        "invocation_id": frames::invocation_id(row.id),
        "action_name": row.action,
        "caller_id": row.caller.map(|id| id.to_string()),
        "caller_name": row.caller_name,
        "input": parsed(&row.input),
        "output": row.output.as_deref().map(parsed),
        "status": row.status,
        "error": row.error,
        "duration_ms": row.completed_at.map(|at| at - row.created_at),
        "dispatched_node_id": row.dispatched_at.and(row.node.as_ref()),
        "dispatched_at": row.dispatched_at.map(iso),
        "created_at": iso(row.created_at),
        "completed_at": row.completed_at.map(iso),
    })
}

/// One row of a mailbox with its message.
pub(super) fn delivery(
    row: &DeliveryRow,
    agent: &AgentRow,
    message: Option<(&MessageRow, &ChannelRow)>,
) -> Value {
    let direct = format!("node_direct_{}", agent.id);
    let location = agent.node.as_deref().unwrap_or(&direct);
    let role = if agent.node.is_some() { "broker" } else { "direct" };
    json!({
        "id": frames::delivery_id(row.message, row.agent),
        "message_id": row.message.to_string(),
        "channel_id": message.map(|(_, channel)| channel.public_id()),
        "agent_id": row.agent.to_string(),
        "status": delivery_status(row.status),
        "seq": row.seq,
        "location_type": "via_node",
        "location_node_id": location,
        "route_node_id": location,
        "route_node_kind": "ws",
        "route_node_role": role,
        "delivery_adapter": "ws.node.v1",
        "dispatch_attempts": row.attempts,
        "next_attempt_at": null,
        "last_dispatch_error": null,
        "mode": if message.is_some_and(|(message, _)| message.mode == "steer") { "immediate" } else { "next-tool-call" },
        "reason": row.reason,
        "priority": "normal",
        "retryable": null,
        "error": if row.status == 4 { Some("ttl_expired") } else { None },
        "available_at": null,
        "deadline": null,
        "expires_at": iso(row.expires_at),
        "delivered_at": row.delivered_at.map(iso),
        "acked_at": row.acked_at.map(iso),
        "dead_lettered_at": row.dead_at.map(iso),
        "created_at": iso(row.created_at),
        "updated_at": row.updated_at.map(iso),
        "message": message.map(|(message, channel)| json!({
            "id": message.id.to_string(),
            "channel_id": channel.public_id(),
            "agent_id": message.agent.to_string(),
            "agent_name": message.agent_name,
            "text": message.text,
            "thread_id": message.thread.map(|id| id.to_string()),
            "created_at": iso(message.created_at),
        })),
    })
}

/// The names of the states that a mailbox row goes through, by their number in the store.
const DELIVERY_STATUS: [&str; 5] = ["queued", "delivered", "acked", "failed", "dead_lettered"];

fn delivery_status(stored: i64) -> &'static str {
    usize::try_from(stored).ok().and_then(|index| DELIVERY_STATUS.get(index)).unwrap_or(&"failed")
}

/// The number of a state in the store.
pub(super) fn delivery_status_number(name: &str) -> Option<i64> {
    DELIVERY_STATUS.iter().position(|known| *known == name).and_then(|index| i64::try_from(index).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_in_utc_with_milliseconds() {
        assert_eq!(iso(1_782_897_330_250), "2026-07-01T09:15:30.250Z");
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn every_delivery_state_has_a_name_and_a_number() {
        for (number, name) in DELIVERY_STATUS.iter().enumerate() {
            assert_eq!(delivery_status_number(name), i64::try_from(number).ok());
        }
        assert_eq!(delivery_status_number("no such"), None);
    }
}
