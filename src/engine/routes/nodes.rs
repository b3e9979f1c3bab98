//! `/v1/nodes`.

use actix_web::web;
use serde::Deserialize;

use super::{Answer, Call, created, no_content, ok};
use crate::{
    engine::{error::Failure, views},
    wire::api::{BindAgent, CreateNode, CreatedNode},
};

pub(super) fn routes(scope: &mut web::ServiceConfig) {
    scope
        .route("/nodes", web::post().to(enrol))
        .route("/nodes", web::get().to(list))
        .route("/nodes/{name}", web::get().to(get))
        .route("/nodes/{name}/agents", web::get().to(agents))
        .route("/nodes/{name}/agents", web::post().to(bind))
        .route("/nodes/{name}/agents/{agent}", web::delete().to(unbind));
}

/// `X-Relaycast-Node-Token` may come with it; the workspace key is proof enough for this engine.
async fn enrol(call: Call, body: web::Json<CreateNode>) -> Answer {
    created(
        call.workspace(move |core, workspace| {
            let (row, token) = core.enrol(workspace, &body)?;
            Ok(CreatedNode { node: core.node_view(&row), token: token.into() })
        })
        .await?,
    )
}

#[derive(Deserialize)]
struct Wanted {
    name: Option<String>,
    capability: Option<String>,
}

async fn list(call: Call, wanted: web::Query<Wanted>) -> Answer {
    ok(call
        .any(move |core, caller| {
            let nodes = core.store.nodes(caller.workspace())?;
            let mut views: Vec<_> = nodes.iter().map(|node| core.node_view(node)).collect();
            views.retain(|node| wanted.name.as_ref().is_none_or(|name| node.name == *name));
            views.retain(|node| {
                let able =
                    |name: &String| node.capabilities.iter().any(|capability| capability.name == *name);
                wanted.capability.as_ref().is_none_or(able)
            });
            Ok(views)
        })
        .await?)
}

async fn get(call: Call, name: web::Path<String>) -> Answer {
    ok(call
        .any(move |core, caller| {
            let node = core.node_named(caller.workspace(), &name)?;
            Ok(core.node_view(&node))
        })
        .await?)
}

async fn agents(call: Call, name: web::Path<String>) -> Answer {
    ok(call
        .any(move |core, caller| {
            let node = core.node_named(caller.workspace(), &name)?;
            let agents = core.store.agents_on(&node.id)?;
            Ok(agents.iter().map(|agent| views::binding(agent, &node)).collect::<Vec<_>>())
        })
        .await?)
}

async fn bind(call: Call, name: web::Path<String>, body: web::Json<BindAgent>) -> Answer {
    created(
        call.workspace(move |core, workspace| {
            let node = core.node_named(workspace, &name)?;
            let agent = core.agent_named(workspace, &body.agent_name)?;
            let bound = core.bind(&agent, &node, body.session_ref.as_deref(), body.priority.unwrap_or(0))?;
            Ok(views::binding(&bound, &node))
        })
        .await?,
    )
}

async fn unbind(call: Call, path: web::Path<(String, String)>) -> Answer {
    call.workspace(move |core, workspace| {
        let (node, agent) = path.into_inner();
        let node = core.node_named(workspace, &node)?;
        let agent = core.agent_named(workspace, &agent)?;
        if agent.node.as_deref() != Some(&node.id) {
            let why = format!("{} is not bound to {}", agent.name, node.name);
            return Err(Failure::not_found("node_agent_binding_not_found", why));
        }
        Ok(core.store.unlocate_agent(agent.id, &agent.status)?)
    })
    .await?;
    no_content()
}
