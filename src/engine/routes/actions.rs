//! Spawn, release and other actions.

use actix_web::web;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, created, ok};
use crate::{
    engine::{
        core::Core,
        error::Failure,
        ops::access::Caller,
        store::{AgentRow, InvocationRow},
        views,
    },
    wire::api::{ReleaseAgent, SpawnAgent},
};

pub(super) fn routes(scope: &mut web::ServiceConfig) {
    scope
        .route("/agents/spawn", web::post().to(spawn))
        .route("/agents/release", web::post().to(release))
        .route("/actions", web::get().to(list))
        .route("/actions/{name}/invoke", web::post().to(invoke))
        .route("/actions/{name}/invocations/{id}", web::get().to(get));
}

async fn spawn(call: Call, body: web::Json<SpawnAgent>) -> Answer {
    let input = input(&body.into_inner())?;
    created(
        call.any(move |core, caller| {
            let row = core.invoke_spawn(caller.workspace(), speaker(&caller), &input)?;
            Ok(views::invocation(&row))
        })
        .await?,
    )
}

async fn release(call: Call, body: web::Json<ReleaseAgent>) -> Answer {
    let input = input(&body.into_inner())?;
    created(
        call.any(move |core, caller| {
            let row = core.invoke_release(caller.workspace(), speaker(&caller), &input)?;
            Ok(views::invocation(&row))
        })
        .await?,
    )
}

/// Actions of nodes are found in what the nodes offer; the built-in ones need no row.
async fn list(call: Call) -> Answer {
    ok(call.any(|_, _| Ok(Vec::<Value>::new())).await?)
}

#[derive(Deserialize)]
struct Invoke {
    #[serde(default)]
    input: Value,
}

async fn invoke(call: Call, name: web::Path<String>, body: web::Json<Invoke>) -> Answer {
    created(
        call.agent(move |core, agent| {
            let row = start(core, &agent, &name, body.into_inner().input)?;
            Ok(views::invocation(&row))
        })
        .await?,
    )
}

fn start(core: &mut Core, agent: &AgentRow, name: &str, mut input: Value) -> Result<InvocationRow, Failure> {
    if !input.is_object() {
        input = json!({});
    }
    match name.split_once(':') {
        None if name == "spawn" => core.invoke_spawn(agent.workspace, Some(agent), &input),
        Some(("spawn", _)) => {
            // The name says which capability is wanted.
            input["capability"] = Value::from(name);
            core.invoke_spawn(agent.workspace, Some(agent), &input)
        }
        None if name == "release" => core.invoke_release(agent.workspace, Some(agent), &input),
        _ => core.invoke_declared(agent.workspace, agent, name, &input),
    }
}

async fn get(call: Call, path: web::Path<(String, String)>) -> Answer {
    ok(call
        .any(move |core, caller| {
            let row = core.invocation_in(caller.workspace(), &path.1)?;
            Ok(views::invocation_in_full(&row))
        })
        .await?)
}

fn input(body: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(body).map_err(|_| Failure::bad_request("invalid_request", "the input is not JSON"))
}

fn speaker(caller: &Caller) -> Option<&AgentRow> {
    match caller {
        Caller::Key(_) => None,
        Caller::Agent(agent) => Some(agent),
    }
}
