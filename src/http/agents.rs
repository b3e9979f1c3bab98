//! Agents: spawn, list, release, keystrokes, size, screen; and a message to one.

use std::{
    collections::HashMap,
    sync::atomic::Ordering,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Path, Payload, Query},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    api::{Api, WORKER_TIME, disappeared, of_worker},
    body,
    error::ApiError,
    spawn_body::{Defaults, SpawnBody},
};
use crate::{
    ids::{AgentName, MsgId},
    messages::{
        delivery::{CursorView, Mode},
        hold::DeliveryMode,
        pty::{AgentState, Dialog, Input, Resize, Snapshot, TakeSnapshot, TermSize},
        release::{Release, Released},
        send::{Recipient, SendMessage},
        spawn::{AgentPhase, AgentView, Origin, Spawn},
    },
};

/// For the engine's answer to a message (spec/api 2.3).
pub(super) const SEND_TIME: Duration = Duration::from_secs(30);

/// The answer to a spawn.
#[derive(Serialize)]
pub(super) struct SpawnReply {
    success: bool,
    name: AgentName,
    runtime: &'static str,
    model: Option<String>,
    #[serde(rename = "sessionId")]
    session_id: Option<String>,
    pid: u32,
    pre_registered: bool,
    warning: Option<String>,
    agent_id: String,
    harness: String,
}

/// `POST /api/spawn`
pub(super) async fn spawn(
    api: Data<Api>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body::object(&req, payload).await?;
    Ok(HttpResponse::Ok().json(spawn_for(&api, body, Origin::Api).await?))
}

/// Spawns an agent for whoever asks.
///
/// # Errors
/// What the body or the registry has against it.
pub(super) async fn spawn_for(api: &Api, body: SpawnBody, origin: Origin) -> Result<SpawnReply, ApiError> {
    let defaults = Defaults { cwd: &api.config.cwd, channels: &api.config.channels };
    let asked = body.read(&defaults)?;
    let spec = asked.spec;
    let (name, model, session) = (spec.name.clone(), spec.model.clone(), spec.session_ref.clone());
    // No limit here: the registry bounds each step of a spawn, and undoes what it gave up.
    let answer = api.doors.spawn.ask(|reply| Spawn { spec, origin, reply }).await;
    let spawned = answer?.map_err(|refused| ApiError::from(refused).about(name.as_str()))?;
    let warnings: Vec<String> = asked.warning.into_iter().chain(spawned.warning).collect();
    Ok(SpawnReply {
        success: true,
        name: spawned.name,
        runtime: "pty",
        model,
        session_id: session.map(|session| session.to_string()),
        pid: spawned.pid,
        pre_registered: true,
        warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
        agent_id: spawned.agent_id.to_string(),
        harness: spawned.harness,
    })
}

/// An agent as the list shows it: upstream's fields (spec/api 2.2), then our own.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    name: AgentName,
    runtime: &'static str,
    provider: String,
    cli: String,
    model: Option<String>,
    #[serde(rename = "sessionId")]
    session_id: Option<String>,
    team: Option<String>,
    channels: Vec<String>,
    parent: Option<String>,
    pid: Option<u32>,
    #[serde(rename = "workerPid")]
    worker_pid: Option<u32>,
    last_activity_ms: Option<u64>,
    last_activity_at: Option<String>,
    context_budget_pct: Option<u8>,
    current_state: &'static str,
    agent_id: Option<String>,
    phase: AgentPhase,
    state: Option<AgentState>,
    because: String,
    ready: bool,
    /// Messages that have come and are not in, whatever they wait for.
    pending_messages: usize,
    delivery_mode: DeliveryMode,
    /// Those of them that a person holds back.
    held_back: usize,
    /// What its program asks.
    dialog: Option<Dialog>,
    uptime_secs: u64,
    cwd: String,
}

impl Listed {
    /// The entry of an agent at this time, with what its cursor shows of itself.
    fn new(view: AgentView, cursor: Option<&CursorView>, now: SystemTime) -> Self {
        let detail = view.worker.as_ref().map(|worker| worker.detail()).unwrap_or_default();
        let last_output = view
            .worker
            .as_ref()
            .map(|worker| worker.last_output_ms.load(Ordering::Relaxed))
            .filter(|at| *at > 0);
        let ready = view.worker.as_ref().is_some_and(|worker| worker.was_ready.load(Ordering::Relaxed));
        let program = view.spec.program;
        Self {
            name: view.spec.name,
            runtime: "pty",
            provider: view.spec.harness.unwrap_or_else(|| base_name(&program).to_owned()),
            cli: program,
            model: view.spec.model,
            session_id: view.session.map(|session| session.to_string()),
            team: None,
            channels: view.spec.channels,
            parent: None,
            pid: view.pid,
            worker_pid: view.pid,
            last_activity_ms: last_output.map(|at| unix_ms(now).saturating_sub(at)),
            last_activity_at: last_output.and_then(rfc3339),
            context_budget_pct: None,
            current_state: upstream_state(detail.state),
            agent_id: view.agent_id.map(|id| id.to_string()),
            phase: view.phase,
            state: detail.state,
            because: detail.because,
            ready,
            pending_messages: detail.queued + cursor.map_or(0, |cursor| cursor.waiting),
            delivery_mode: cursor.map(|cursor| cursor.delivery_mode).unwrap_or_default(),
            held_back: cursor.map_or(0, |cursor| cursor.held_back),
            dialog: detail.dialog,
            uptime_secs: now.duration_since(view.since).map_or(0, |age| age.as_secs()),
            cwd: view.spec.cwd.display().to_string(),
        }
    }
}

/// The three states that upstream's clients know.
fn upstream_state(state: Option<AgentState>) -> &'static str {
    match state {
        Some(AgentState::Idle) => "idle",
        Some(AgentState::Blocked | AgentState::NotReading) => "blocked_on_send",
        Some(AgentState::Starting | AgentState::Working | AgentState::Human | AgentState::Exited) | None => {
            "working"
        }
    }
}

fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// That time as RFC 3339.
pub(super) fn rfc3339(ms: u64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?.format(&Rfc3339).ok()
}

/// Every agent, as lists show it.
///
/// # Errors
/// When the registry does not answer.
pub(super) async fn listed(api: &Api) -> Result<Vec<Listed>, ApiError> {
    let now = SystemTime::now();
    let agents = api.agents().await?;
    let cursors: HashMap<_, _> = api.cursors().into_iter().collect();
    let listed = |view: AgentView| {
        let cursor = cursors.get(view.spec.name.as_str());
        Listed::new(view, cursor, now)
    };
    Ok(agents.into_iter().map(listed).collect())
}

/// `GET /api/spawned`
pub(super) async fn list(api: Data<Api>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(json!({ "agents": listed(&api).await? })))
}

#[derive(Deserialize)]
pub(super) struct PreflightBody {
    agents: Vec<Planned>,
}

#[derive(Deserialize)]
struct Planned {
    name: String,
}

/// `POST /api/preflight`: whether agents may have these names. Nothing is registered ahead of a spawn, which
/// registers in one round trip by itself: an agent that is never spawned would stay in the workspace.
pub(super) async fn preflight(req: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    let PreflightBody { agents } = body::object(&req, payload).await?;
    for agent in &agents {
        AgentName::parse(&agent.name).map_err(|bad| ApiError::from(bad).about(agent.name.as_str()))?;
    }
    Ok(HttpResponse::Ok().json(json!({ "queued": 0 })))
}

#[derive(Deserialize)]
pub(super) struct ModelBody {
    model: String,
}

/// `POST /api/spawned/{name}/model`: no rule set says by which keys a program changes its model and how it shows
/// that it has, so it is refused in words instead of typed in hope.
pub(super) async fn model(
    api: Data<Api>,
    name: Path<String>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let ModelBody { model } = body::object(&req, payload).await?;
    api.agent(&name).await?;
    let message = format!(
        "the model of a running agent cannot be changed from here: type its own command for it, or release \
         it and spawn it with the model `{model}`"
    );
    Err(ApiError::new(StatusCode::CONFLICT, "model_not_changeable", message).about(name.as_str()))
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ReleaseBody {
    reason: Option<String>,
    force: bool,
}

#[derive(Deserialize)]
pub(super) struct ReleaseQuery {
    #[serde(default)]
    force: bool,
}

/// `DELETE /api/spawned/{name}`: success also when there is nothing to release, as clients rely on.
pub(super) async fn release(
    api: Data<Api>,
    name: Path<String>,
    query: Query<ReleaseQuery>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let mut body: ReleaseBody = body::object_or_default(&req, payload).await?;
    body.force |= query.force;
    Ok(HttpResponse::Ok().json(release_named(&api, &name, body).await?))
}

/// Releases an agent for whoever asks.
///
/// # Errors
/// 400 for what cannot be a name.
pub(super) async fn release_named(api: &Api, name: &str, body: ReleaseBody) -> Result<Value, ApiError> {
    let ReleaseBody { reason, force } = body;
    let name = AgentName::parse(name)?;
    let asked = name.clone();
    // No limit here: the registry's ladder from HUP to KILL has one.
    let answer = api.doors.release.ask(|reply| Release { name: asked, reason, force, reply });
    let (outcome, exit) = match answer.await? {
        Released::Ended(exit) => ("ended", Some(exit)),
        Released::AlreadyGone => ("already_gone", None),
        Released::Overdue => ("overdue", None),
        Released::Unknown => ("unknown", None),
    };
    let exit =
        exit.map(|exit| json!({ "code": exit.code, "signal": exit.signal, "uptime_ms": exit.uptime_ms }));
    Ok(json!({ "success": true, "name": name, "outcome": outcome, "exit": exit }))
}

#[derive(Deserialize)]
pub(super) struct SendBody {
    to: Option<String>,
    #[serde(alias = "message", alias = "body", alias = "content")]
    text: Option<String>,
    #[serde(default, alias = "threadId")]
    thread_id: Option<String>,
    #[serde(default)]
    mode: Option<Mode>,
}

/// `POST /api/send`: through the engine like anybody's message, also to an agent of this node.
pub(super) async fn send(
    api: Data<Api>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body::object(&req, payload).await?;
    Ok(HttpResponse::Ok().json(send_for(&api, body).await?))
}

/// Sends a message for whoever asks.
///
/// # Errors
/// What the body or the engine has against it.
pub(super) async fn send_for(api: &Api, body: SendBody) -> Result<Value, ApiError> {
    let filled = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let to = filled(body.to).ok_or_else(|| ApiError::invalid("`to` is required"))?;
    let text = filled(body.text).ok_or_else(|| ApiError::invalid("`text` is required"))?;
    let recipient = recipient(&to)?;
    let thread = filled(body.thread_id).map(MsgId::from);
    let mode = body.mode.unwrap_or_default();
    let answer = api.doors.send.ask(|reply| SendMessage { to: recipient, text, mode, thread, reply });
    let late = |_| {
        let message = "the engine did not answer in time; the message may or may not have been sent";
        ApiError::timed_out("engine_timeout", message)
    };
    let sent = tokio::time::timeout(SEND_TIME, answer).await.map_err(late)??;
    let sent = sent.map_err(|refused| ApiError::from(refused).about(to.as_str()))?;
    let workspace = api.workspace().and_then(|workspace| workspace.id.clone());
    Ok(json!({
        "success": true,
        "event_id": sent.msg_id,
        "from": sent.from,
        "targets": [to],
        "relaycast_published": true,
        "local": false,
        "workspace_id": workspace,
        "workspace_alias": null,
    }))
}

/// `#channel`, `@name` or `name`.
fn recipient(to: &str) -> Result<Recipient, ApiError> {
    let (recipient, name) = match to.strip_prefix('#') {
        Some(channel) => (Recipient::Channel(channel.to_owned()), channel),
        None => {
            let name = to.strip_prefix('@').unwrap_or(to);
            (Recipient::Direct(name.to_owned()), name)
        }
    };
    if name.is_empty() { Err(ApiError::invalid("`to` names nobody")) } else { Ok(recipient) }
}

#[derive(Deserialize)]
pub(super) struct InputBody {
    data: String,
}

/// `POST /api/input/{name}`
pub(super) async fn input(
    api: Data<Api>,
    name: Path<String>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body::object(&req, payload).await?;
    Ok(HttpResponse::Ok().json(type_into(&api, &name, body).await?))
}

/// Types into an agent's terminal for whoever asks.
///
/// # Errors
/// When there is no such agent, when somebody else types into it, when it does not read.
pub(super) async fn type_into(api: &Api, name: &str, body: InputBody) -> Result<Value, ApiError> {
    let InputBody { data } = body;
    let agent = api.agent(name).await?;
    api.writers.may_type(&agent.view.spec.name)?;
    let answer = agent.input.ask(|reply| Input { bytes: data.into_bytes(), reply });
    let late = |_| {
        let message = "the agent does not read its input; what was sent waits in its queue";
        ApiError::timed_out("input_waits", message).about(name)
    };
    let written = tokio::time::timeout(WORKER_TIME, answer).await.map_err(late)?;
    let written = written.map_err(|_| disappeared(name))?;
    let bytes = written.map_err(|refused| ApiError::from(refused).about(name))?;
    Ok(json!({ "name": name, "bytes_written": bytes }))
}

#[derive(Deserialize)]
pub(super) struct ResizeBody {
    rows: u16,
    cols: u16,
}

/// `POST /api/resize/{name}`
pub(super) async fn resize(
    api: Data<Api>,
    name: Path<String>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let ResizeBody { rows, cols } = body::object(&req, payload).await?;
    let size = TermSize::new(rows, cols)?;
    let agent = api.agent(&name).await?;
    api.writers.may_resize(&agent.view.spec.name)?;
    let resized = of_worker(&name, agent.resize.ask(|reply| Resize { size, reply })).await?;
    resized.map_err(|refused| ApiError::from(refused).about(name.as_str()))?;
    Ok(HttpResponse::Ok().json(json!({ "name": *name, "rows": rows, "cols": cols })))
}

#[derive(Deserialize)]
pub(super) struct SnapshotQuery {
    #[serde(default)]
    format: Option<String>,
}

/// `GET /api/spawned/{name}/snapshot?format=plain|ansi|json`
pub(super) async fn snapshot(
    api: Data<Api>,
    name: Path<String>,
    query: Query<SnapshotQuery>,
) -> Result<HttpResponse, ApiError> {
    let format = query.into_inner().format.unwrap_or_else(|| "plain".to_owned());
    let screen = match format.as_str() {
        "plain" => |snapshot: &Snapshot| json!(snapshot.plain),
        "ansi" => |snapshot: &Snapshot| json!(BASE64_STANDARD.encode(&snapshot.ansi)),
        "json" => |snapshot: &Snapshot| json!(snapshot.plain.lines().collect::<Vec<_>>()),
        _ => {
            let message = format!("no snapshot format `{format}`: use plain, ansi or json");
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_format", message));
        }
    };
    let agent = api.agent(&name).await?;
    let snapshot = of_worker(&name, agent.snapshot.ask(TakeSnapshot)).await?;
    Ok(HttpResponse::Ok().json(json!({
        "format": format,
        "rows": snapshot.size.rows,
        "cols": snapshot.size.cols,
        "cursor": snapshot.cursor,
        "screen": screen(&snapshot),
        "title": snapshot.title,
        "offset": snapshot.offset,
        "state": snapshot.state,
        "modes": snapshot.modes,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_and_a_mention_are_told_from_a_name() {
        assert_eq!(recipient("#general").unwrap(), Recipient::Channel("general".into()));
        assert_eq!(recipient("@bob").unwrap(), Recipient::Direct("bob".into()));
        assert_eq!(recipient("bob").unwrap(), Recipient::Direct("bob".into()));
        assert!(recipient("#").is_err());
        assert!(recipient("@").is_err());
    }
}
