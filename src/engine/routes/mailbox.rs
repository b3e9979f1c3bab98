//! An agent's own view of its mail: inbox and deliveries.

use actix_web::web;
use serde::Deserialize;

use super::{Answer, Call, number, ok};
use crate::{
    engine::{
        core::Core,
        error::Failure,
        store::{AgentRow, DeliveryRow},
        views,
    },
    wire::api::{Inbox, LastMessage, Mention, UnreadChannel, UnreadDm},
};

/// Mentions and reactions in one inbox.
const RECENT: i64 = 50;

pub(super) fn routes(scope: &mut web::ServiceConfig) {
    scope
        .route("/inbox", web::get().to(inbox))
        .route("/deliveries", web::get().to(deliveries))
        .route("/deliveries/{id}/ack", web::post().to(ack));
}

async fn inbox(call: Call) -> Answer {
    ok(call.agent(|core, agent| read_inbox(core, &agent)).await?)
}

fn read_inbox(core: &Core, agent: &AgentRow) -> Result<Inbox, Failure> {
    let mut inbox = Inbox::default();
    for (channel, member) in core.store.channels_of(agent.id)? {
        let unread = core.store.unread_count(channel.id, agent.id, member.last_read)?;
        let unread_count = u64::try_from(unread).unwrap_or(0);
        if unread_count == 0 {
            continue;
        }
        if let Some(channel_name) = channel.name {
            inbox.unread_channels.push(UnreadChannel { channel_name, unread_count });
        } else if let Some(hex) = channel.conversation {
            let members = core.store.members(channel.id)?;
            let other = members.into_iter().find(|member| member.agent != agent.id);
            let last = core.store.last_message(channel.id)?.map(|row| LastMessage {
                id: row.id.to_string(),
                text: row.text,
                created_at: views::iso(row.created_at),
            });
            inbox.unread_dms.push(UnreadDm {
                conversation_id: format!("dm_{hex}"),
                from: other.map_or_else(|| agent.name.clone(), |other| other.agent_name),
                unread_count,
                last_message: last,
            });
        }
    }
    for (row, channel_name) in core.store.open_mentions(agent.id, RECENT)? {
        inbox.mentions.push(Mention {
            id: row.id.to_string(),
            channel_name,
            agent_name: row.agent_name,
            text: row.text,
            created_at: views::iso(row.created_at),
        });
    }
    for (row, channel_name) in core.store.recent_reactions(agent.id, RECENT)? {
        inbox.recent_reactions.push(serde_json::json!({
            "message_id": row.message.to_string(), "channel_name": channel_name, "emoji": row.emoji,
            "agent_name": row.agent_name, "created_at": views::iso(row.created_at),
        }));
    }
    Ok(inbox)
}

#[derive(Deserialize)]
struct Wanted {
    status: Option<String>,
    limit: Option<i64>,
}

async fn deliveries(call: Call, wanted: web::Query<Wanted>) -> Answer {
    ok(call
        .agent(move |core, agent| {
            let status = match &wanted.status {
                None => None,
                Some(name) => Some(views::delivery_status_number(name).ok_or_else(|| {
                    Failure::bad_request("invalid_request", format!("{name} is no state of a delivery"))
                })?),
            };
            let limit = wanted.limit.unwrap_or(100).clamp(1, 200);
            let mut shown = Vec::new();
            for row in core.store.deliveries(agent.id, status, limit)? {
                shown.push(view(core, &agent, &row)?);
            }
            Ok(shown)
        })
        .await?)
}

/// Closes one row; the cursor of the node stays where it is.
async fn ack(call: Call, id: web::Path<String>) -> Answer {
    ok(call
        .agent(move |core, agent| {
            let missing = || Failure::not_found("not_found", "there is no such delivery of yours");
            let (message, whose) =
                id.strip_prefix("del_").and_then(|ids| ids.split_once('_')).ok_or_else(missing)?;
            let message = number(message, "not_found")?;
            if whose != agent.id.to_string() {
                return Err(missing());
            }
            if core.store.ack_message(agent.id, message)? {
                core.store.insert_receipt(message, agent.id)?;
            }
            let row = core.store.delivery(agent.id, message)?.ok_or_else(missing)?;
            view(core, &agent, &row)
        })
        .await?)
}

fn view(core: &Core, agent: &AgentRow, row: &DeliveryRow) -> Result<serde_json::Value, Failure> {
    let message = core.store.message(row.message)?;
    let channel = match &message {
        Some(message) => core.store.channel(message.channel)?,
        None => None,
    };
    Ok(views::delivery(row, agent, message.as_ref().zip(channel.as_ref())))
}
