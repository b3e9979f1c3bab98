//! Messages in channels and threads, direct messages, reactions, receipts.

use actix_web::web;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, created, no_content, number, ok};
use crate::{
    engine::{
        core::Core,
        error::Failure,
        ops::{Draft, access::Caller},
        store::{AgentRow, ChannelRow},
        views,
    },
    wire::api::{Message, PostDm, PostMessage, PostReply},
};

/// Messages in one answer: when nothing is asked, and at most.
const PAGE: i64 = 50;
const PAGE_MAX: i64 = 100;

pub(super) fn routes(scope: &mut web::ServiceConfig) {
    scope
        .route("/channels/{name}/messages", web::post().to(post))
        .route("/channels/{name}/messages", web::get().to(list))
        .route("/messages/{id}", web::get().to(get))
        .route("/messages/{id}/replies", web::post().to(reply))
        .route("/messages/{id}/replies", web::get().to(replies))
        .route("/messages/{id}/reactions", web::post().to(react))
        .route("/messages/{id}/reactions/{emoji}", web::delete().to(unreact))
        .route("/messages/{id}/read", web::post().to(read))
        .route("/dm", web::post().to(dm))
        .route("/dm/conversations", web::get().to(conversations))
        .route("/dm/{conversation}/messages", web::get().to(conversation));
}

async fn post(call: Call, name: web::Path<String>, body: web::Json<PostMessage>) -> Answer {
    let wish = body.into_inner();
    call.agent_once(&wish.clone(), move |core, agent| {
        let channel = core.channel_named(agent.workspace, &name)?;
        let draft = Draft {
            text: wish.text,
            mode: wish.mode.unwrap_or_default(),
            blocks: wish.blocks,
            data: wish.data,
            attachments: wish.attachments.unwrap_or_default(),
        };
        core.post_message(agent, &channel, draft)
    })
    .await
}

async fn dm(call: Call, body: web::Json<PostDm>) -> Answer {
    let wish = body.into_inner();
    call.agent_once(&wish.clone(), move |core, agent| {
        let draft = Draft {
            text: wish.text,
            mode: wish.mode.unwrap_or_default(),
            attachments: wish.attachments.unwrap_or_default(),
            ..Draft::default()
        };
        core.post_dm(agent, &wish.to, draft)
    })
    .await
}

async fn reply(call: Call, id: web::Path<String>, body: web::Json<PostReply>) -> Answer {
    let wish = body.into_inner();
    call.agent_once(&wish.clone(), move |core, agent| {
        let id = number(&id, "message_not_found")?;
        let (parent, channel) = core.message_in(agent.workspace, Some(agent.id), id)?;
        let draft = Draft { text: wish.text, blocks: wish.blocks, data: wish.data, ..Draft::default() };
        core.post_reply(agent, &parent, &channel, draft)
    })
    .await
}

#[derive(Deserialize)]
struct Range {
    limit: Option<i64>,
    before: Option<i64>,
    after: Option<i64>,
}

impl Range {
    fn limit(&self) -> i64 {
        self.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX)
    }

    fn read(&self, core: &Core, channel: &ChannelRow) -> Result<Vec<Message>, Failure> {
        let after = self.after.unwrap_or(0);
        let before = self.before.unwrap_or(i64::MAX);
        let rows = core.store.channel_messages(channel.id, after, before, self.limit())?;
        let full = rows.iter().map(|row| views::message_in_full(&core.store, row, channel));
        Ok(full.collect::<rusqlite::Result<_>>()?)
    }
}

async fn list(call: Call, name: web::Path<String>, range: web::Query<Range>) -> Answer {
    ok(call
        .any(move |core, caller| {
            let channel = core.channel_named(caller.workspace(), &name)?;
            range.read(core, &channel)
        })
        .await?)
}

async fn get(call: Call, id: web::Path<String>) -> Answer {
    ok(call
        .any(move |core, caller| {
            let id = number(&id, "message_not_found")?;
            let (row, channel) = core.message_in(caller.workspace(), reader(&caller), id)?;
            Ok(views::message_in_full(&core.store, &row, &channel)?)
        })
        .await?)
}

async fn replies(call: Call, id: web::Path<String>) -> Answer {
    ok(call
        .any(move |core, caller| {
            let id = number(&id, "message_not_found")?;
            let (parent, channel) = core.message_in(caller.workspace(), reader(&caller), id)?;
            let mut replies = Vec::new();
            for row in core.store.replies(parent.id, PAGE_MAX)? {
                replies.push(views::message_in_full(&core.store, &row, &channel)?);
            }
            let parent = views::message_in_full(&core.store, &parent, &channel)?;
            Ok(json!({"parent": parent, "replies": replies}))
        })
        .await?)
}

#[derive(Deserialize)]
struct Reaction {
    emoji: String,
}

async fn react(call: Call, id: web::Path<String>, body: web::Json<Reaction>) -> Answer {
    created(
        call.agent(move |core, agent| {
            if body.emoji.is_empty() {
                return Err(Failure::bad_request("invalid_request", "emoji must not be empty"));
            }
            core.react(&agent, number(&id, "message_not_found")?, &body.emoji)
        })
        .await?,
    )
}

async fn unreact(call: Call, path: web::Path<(String, String)>) -> Answer {
    call.agent(move |core, agent| {
        let (id, emoji) = path.into_inner();
        core.unreact(&agent, number(&id, "message_not_found")?, &emoji)
    })
    .await?;
    no_content()
}

async fn read(call: Call, id: web::Path<String>) -> Answer {
    ok(call.agent(move |core, agent| core.mark_read(&agent, number(&id, "message_not_found")?)).await?)
}

async fn conversations(call: Call) -> Answer {
    ok(call
        .agent(|core, agent| {
            let mut shown = Vec::new();
            for (channel, _) in core.store.channels_of(agent.id)? {
                if channel.conversation.is_some() {
                    shown.push(conversation_view(core, &agent, &channel)?);
                }
            }
            Ok(shown)
        })
        .await?)
}

fn conversation_view(core: &Core, agent: &AgentRow, channel: &ChannelRow) -> Result<Value, Failure> {
    let members = core.store.members(channel.id)?;
    let mine = members.iter().find(|member| member.agent == agent.id).map_or(0, |member| member.last_read);
    let last = core.store.last_message(channel.id)?;
    Ok(json!({
        "id": format!("dm_{}", channel.conversation.as_deref().unwrap_or_default()),
        "channel_id": channel.public_id(),
        "type": "1:1",
        "name": null,
        "participants": members.iter().map(|member| json!({
            "agent_id": member.agent.to_string(), "agent_name": member.agent_name,
        })).collect::<Vec<_>>(),
        "last_message": last.map(|row| json!({
            "id": row.id.to_string(), "text": row.text, "agent_id": row.agent.to_string(),
            "agent_name": row.agent_name, "created_at": views::iso(row.created_at),
        })),
        "unread_count": core.store.unread_count(channel.id, agent.id, mine)?,
        "created_at": views::iso(channel.created_at),
    }))
}

async fn conversation(call: Call, id: web::Path<String>, range: web::Query<Range>) -> Answer {
    ok(call
        .agent(move |core, agent| {
            let missing = || Failure::not_found("not_found", "there is no such conversation of yours");
            let hex = id.strip_prefix("dm_").ok_or_else(missing)?;
            let channel = core.store.channel_by_conversation(agent.workspace, hex)?.ok_or_else(missing)?;
            if !core.store.is_member(channel.id, agent.id)? {
                return Err(missing());
            }
            range.read(core, &channel)
        })
        .await?)
}

/// Whose eyes read: conversations of others are hidden from agents.
fn reader(caller: &Caller) -> Option<i64> {
    match caller {
        Caller::Key(_) => None,
        Caller::Agent(agent) => Some(agent.id),
    }
}
