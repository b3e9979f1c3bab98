//! `/v1/channels` but for their messages.

use actix_web::web;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, created, no_content, ok};
use crate::{
    engine::{error::Failure, rules::text::is_channel_name, views},
    wire::api::{Channel, CreateChannel, JoinedChannel},
};

pub(super) fn routes(scope: &mut web::ServiceConfig) {
    scope
        .route("/channels", web::post().to(create))
        .route("/channels", web::get().to(list))
        .route("/channels/{name}", web::get().to(get))
        .route("/channels/{name}/members", web::get().to(members))
        .route("/channels/{name}/join", web::post().to(join))
        .route("/channels/{name}/leave", web::post().to(leave))
        .route("/channels/{name}/invite", web::post().to(invite))
        .route(
            "/channels/{name}/mute",
            web::post().to(|call: Call, name: web::Path<String>| mute(call, name, true)),
        )
        .route(
            "/channels/{name}/unmute",
            web::post().to(|call: Call, name: web::Path<String>| mute(call, name, false)),
        );
}

async fn create(call: Call, body: web::Json<CreateChannel>) -> Answer {
    created(
        call.agent(move |core, agent| {
            let wish = body.into_inner();
            if !is_channel_name(&wish.name) {
                let why = "a channel's name is lower-case letters, digits and dashes";
                return Err(Failure::bad_request("invalid_channel_name", why));
            }
            if core.store.channel_by_name(agent.workspace, &wish.name)?.is_some() {
                return Err(Failure::conflict("channel_already_exists", format!("{} exists", wish.name)));
            }
            let metadata = Value::Object(wish.metadata.unwrap_or_default()).to_string();
            let id = core.store.insert_channel(
                agent.workspace,
                &wish.name,
                wish.topic.as_deref(),
                &metadata,
                Some(agent.id),
            )?;
            core.store.join(id, agent.id, "owner")?;
            Ok(views::channel(&core.channel_named(agent.workspace, &wish.name)?))
        })
        .await?,
    )
}

async fn list(call: Call) -> Answer {
    ok(call
        .any(|core, caller| {
            let channels = core.store.channels(caller.workspace())?;
            Ok(channels.iter().map(views::channel).collect::<Vec<_>>())
        })
        .await?)
}

async fn get(call: Call, name: web::Path<String>) -> Answer {
    ok(call
        .any(move |core, caller| {
            let channel = core.channel_named(caller.workspace(), &name)?;
            let members = core.store.members(channel.id)?;
            Ok(Channel {
                members: Some(members.iter().map(views::member).collect()),
                ..views::channel(&channel)
            })
        })
        .await?)
}

async fn members(call: Call, name: web::Path<String>) -> Answer {
    ok(call
        .any(move |core, caller| {
            let channel = core.channel_named(caller.workspace(), &name)?;
            let members = core.store.members(channel.id)?;
            Ok(members.iter().map(views::member).collect::<Vec<_>>())
        })
        .await?)
}

async fn join(call: Call, name: web::Path<String>) -> Answer {
    ok(call
        .agent(move |core, agent| {
            let channel = core.channel_named(agent.workspace, &name)?;
            let joined = core.store.join(channel.id, agent.id, "member")?;
            Ok(JoinedChannel {
                channel: channel.display_name().to_owned(),
                agent_id: agent.id.to_string().into(),
                already_member: !joined,
            })
        })
        .await?)
}

async fn leave(call: Call, name: web::Path<String>) -> Answer {
    call.agent(move |core, agent| {
        let channel = core.channel_named(agent.workspace, &name)?;
        core.store.leave(channel.id, agent.id)?;
        Ok(())
    })
    .await?;
    no_content()
}

#[derive(Deserialize)]
struct Invite {
    agent_name: String,
}

async fn invite(call: Call, name: web::Path<String>, body: web::Json<Invite>) -> Answer {
    ok(call
        .agent(move |core, agent| {
            let channel = core.channel_named(agent.workspace, &name)?;
            let guest = core.agent_named(agent.workspace, &body.agent_name)?;
            core.store.join(channel.id, guest.id, "member")?;
            Ok(json!({"channel": channel.display_name(), "agent": guest.name}))
        })
        .await?)
}

async fn mute(call: Call, name: web::Path<String>, muted: bool) -> Answer {
    ok(call
        .agent(move |core, agent| {
            let channel = core.channel_named(agent.workspace, &name)?;
            if !core.store.set_muted(channel.id, agent.id, muted)? {
                return Err(Failure::not_found("channel_not_found", "you are not in this channel"));
            }
            Ok(json!({"channel": channel.display_name(), "agent_id": agent.id.to_string(), "muted": muted}))
        })
        .await?)
}
