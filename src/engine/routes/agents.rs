//! `/v1/agents`, `/v1/agent`.

use actix_web::web;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, created, no_content, ok};
use crate::{
    engine::views,
    wire::api::{CreateAgent, CreatedAgent, PatchAgent, RotatedToken},
};

pub(super) fn routes(scope: &mut web::ServiceConfig) {
    scope
        .route("/agent", web::get().to(me))
        .route("/agents", web::post().to(create))
        .route("/agents", web::get().to(list))
        .route("/agents/heartbeat", web::post().to(heartbeat))
        .route("/agents/disconnect", web::post().to(disconnect))
        .route("/agents/{name}", web::get().to(get))
        .route("/agents/{name}", web::patch().to(patch))
        .route("/agents/{name}", web::delete().to(delete))
        .route("/agents/{name}/rotate-token", web::post().to(rotate))
        .route("/agents/{name}/events", web::post().to(event));
}

async fn create(call: Call, body: web::Json<CreateAgent>) -> Answer {
    created(
        call.workspace(move |core, workspace| {
            let (row, token) = core.create_agent(workspace, &body)?;
            let view = views::agent(&row);
            Ok(CreatedAgent {
                id: view.id,
                workspace_id: view.workspace_id,
                name: view.name,
                handle: view.handle,
                token: token.into(),
                status: view.status,
                capabilities: view.capabilities,
                created_at: view.created_at,
            })
        })
        .await?,
    )
}

async fn me(call: Call) -> Answer {
    ok(call.agent(|core, agent| Ok(views::agent_in_full(&core.store, &agent)?)).await?)
}

#[derive(Deserialize)]
struct Wanted {
    status: Option<String>,
}

async fn list(call: Call, wanted: web::Query<Wanted>) -> Answer {
    ok(call
        .any(move |core, caller| {
            let mut agents = core.store.agents(caller.workspace())?;
            agents.retain(|agent| wanted.status.as_ref().is_none_or(|status| agent.status == *status));
            Ok(agents.iter().map(views::agent).collect::<Vec<_>>())
        })
        .await?)
}

async fn get(call: Call, name: web::Path<String>) -> Answer {
    ok(call
        .any(move |core, caller| {
            let agent = core.agent_named(caller.workspace(), &name)?;
            Ok(views::agent_in_full(&core.store, &agent)?)
        })
        .await?)
}

async fn patch(call: Call, name: web::Path<String>, body: web::Json<PatchAgent>) -> Answer {
    ok(call
        .workspace(move |core, workspace| {
            let agent = core.agent_named(workspace, &name)?;
            let agent = core.patch_agent(agent, body.into_inner())?;
            Ok(views::agent_in_full(&core.store, &agent)?)
        })
        .await?)
}

async fn delete(call: Call, name: web::Path<String>) -> Answer {
    call.workspace(move |core, workspace| {
        let agent = core.agent_named(workspace, &name)?;
        Ok(core.store.delete_agent(agent.id)?)
    })
    .await?;
    no_content()
}

async fn rotate(call: Call, name: web::Path<String>) -> Answer {
    ok(call
        .workspace(move |core, workspace| {
            let agent = core.agent_named(workspace, &name)?;
            let token = core.rotate_agent_token(agent.id)?;
            Ok(RotatedToken { name: agent.name, token: token.into() })
        })
        .await?)
}

/// Using the token has made the agent active already.
async fn heartbeat(call: Call) -> Answer {
    ok(call.agent(|_, _| Ok(json!({"ok": true}))).await?)
}

async fn disconnect(call: Call) -> Answer {
    ok(call
        .agent(|core, agent| {
            core.store.set_agent_status(agent.id, "offline")?;
            Ok(json!({"ok": true}))
        })
        .await?)
}

/// Session events are for observers; this engine has none yet, so they are taken and let go.
async fn event(call: Call, name: web::Path<String>, _body: web::Json<Value>) -> Answer {
    ok(call
        .any(move |core, caller| {
            core.agent_named(caller.workspace(), &name)?;
            Ok(json!({"ok": true}))
        })
        .await?)
}
