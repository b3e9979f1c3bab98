//! The debug pages: every actor, one agent explained, deliberate faults.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use actix_web::{
    HttpResponse,
    http::StatusCode,
    web::{Data, Path, Query},
};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    agents::{rfc3339, unix_ms},
    api::Api,
    error::ApiError,
    explain::{Facts, explain},
};
use crate::{
    ids::AgentName,
    messages::{
        Answer,
        dead_letter::ListDeadLetters,
        delivery::ObserveCursor,
        lifecycle::{ActorId, ActorKind},
        pty::{Snapshot, TakeSnapshot, WorkerView},
        spawn::{AgentDoors, FindAgent, Found, ListAgents},
    },
    supervision::{Detail, FaultPoint, Probe, ProbeView},
};

/// For an actor's answer to a debug page. A page that waits for a stuck actor explains nothing.
const OBSERVE_TIME: Duration = Duration::from_millis(200);
/// Screen lines that an explanation shows.
const SCREEN_LINES: usize = 20;

#[derive(Deserialize)]
pub(super) struct ActorsQuery {
    #[serde(default)]
    deep: Option<String>,
}

#[derive(Serialize)]
struct Actor {
    #[serde(flatten)]
    probe: ProbeView,
    /// Who restarts it.
    parent: Option<&'static str>,
}

/// `GET /debug/actors[?deep=1]`. Without `deep` it reads probes only, and so answers while every actor is
/// stuck.
pub(super) async fn actors(api: Data<Api>, query: Query<ActorsQuery>) -> HttpResponse {
    let parent = |kind| (kind != ActorKind::Supervisor).then(|| ActorKind::Supervisor.as_str());
    let actors: Vec<_> = api
        .directory
        .view()
        .into_iter()
        .map(|probe| Actor { parent: parent(probe.id.kind), probe })
        .collect();
    let deep = query.deep.as_deref().is_some_and(|deep| !matches!(deep, "0" | "false"));
    let cursors = if deep { Some(observe_cursors(&api).await) } else { None };
    HttpResponse::Ok().json(json!({
        "version": api.config.version,
        "instance": api.config.instance,
        "boot_id": &*api.config.boot_id,
        "uptime_ms": u64::try_from(api.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "session": api.readiness.get(),
        "actors": actors,
        "cursors": cursors,
    }))
}

/// An actor's answer, when it comes at once.
async fn prompt<T>(answer: Answer<T>) -> Option<T> {
    tokio::time::timeout(OBSERVE_TIME, answer).await.ok()?.ok()
}

/// What every cursor says of itself now; `null` for one that does not answer.
async fn observe_cursors(api: &Api) -> BTreeMap<String, Value> {
    let Some(agents) = prompt(api.doors.list.ask(ListAgents)).await else { return BTreeMap::new() };
    let observed = agents.into_iter().map(|view| async move {
        let name = view.spec.name;
        let cursor = match find(api, &name).await {
            Some(Found::Doors(doors)) => prompt(doors.cursor.ask(ObserveCursor)).await,
            _ => None,
        };
        (name.to_string(), json!(cursor))
    });
    join_all(observed).await.into_iter().collect()
}

/// `None` when the registry does not answer at once.
async fn find(api: &Api, name: &AgentName) -> Option<Found> {
    prompt(api.doors.find.ask(|reply| FindAgent { name: name.clone(), reply })).await
}

/// `GET /debug/agents/{name}`
pub(super) async fn agent(api: Data<Api>, name: Path<String>) -> Result<HttpResponse, ApiError> {
    let name = AgentName::parse(&name)?;
    let (doors, phase) = match find(&api, &name).await {
        Some(Found::Doors(doors)) => {
            let phase = doors.view.phase;
            (Some(*doors), Some(phase))
        }
        Some(Found::NoProgram(phase)) => (None, Some(phase)),
        Some(Found::Nobody) | None => (None, None),
    };
    let probe = |kind| api.directory.get(&ActorId::of(kind, &name)).map(|probe| probe.view());
    let (worker_probe, cursor_probe) = (probe(ActorKind::PtyWorker), probe(ActorKind::DeliveryCursor));
    if phase.is_none() && worker_probe.is_none() && cursor_probe.is_none() {
        return Err(ApiError::no_agent(name.as_str()));
    }
    let (cursor, snapshot) = match &doors {
        Some(doors) => {
            let cursor = prompt(doors.cursor.ask(ObserveCursor));
            let snapshot = prompt(doors.snapshot.ask(TakeSnapshot));
            futures_util::join!(cursor, snapshot)
        }
        None => (None, None),
    };
    let cursor = cursor.or_else(|| match cursor_probe.as_ref().map(|probe| &probe.detail) {
        Some(Detail::Cursor(view)) => Some(view.clone()),
        _ => None,
    });
    let view = doors.as_ref().and_then(|doors| doors.view.worker.clone());
    let view = view.or_else(|| match worker_probe.as_ref().map(|probe| &probe.detail) {
        Some(Detail::Worker(view)) => Some(view.clone()),
        _ => None,
    });
    let worker = view.as_deref().map(WorkerView::detail);
    let now = SystemTime::now();
    let output = view.as_deref().and_then(|view| last_output(view, now));
    let down: Vec<_> = [&worker_probe, &cursor_probe].into_iter().flatten().filter_map(down).collect();
    let session = api.readiness.get();
    let letters = prompt(api.doors.dead_letters.ask(ListDeadLetters)).await.unwrap_or_default();
    let dead_letters = letters.iter().filter(|letter| letter.name == name).count();
    let verdict = explain(&Facts {
        name: name.as_str(),
        phase,
        worker: worker.as_ref(),
        cursor: cursor.as_ref(),
        down: &down,
        session: &session,
        dead_letters,
        quiet_for: output.as_ref().map(|output| Duration::from_millis(output.ago_ms)),
    });
    let last = cursor.as_ref().and_then(|cursor| cursor.last.clone());
    let process = process(doors.as_ref(), view.as_deref(), now);
    let actors: Vec<_> = [worker_probe, cursor_probe].into_iter().flatten().collect();
    Ok(HttpResponse::Ok().json(json!({
        "name": name,
        "summary": verdict.summary,
        "next": verdict.next,
        "phase": phase,
        "agent_id": doors.as_ref().and_then(|doors| doors.view.agent_id.as_ref()),
        "process": process,
        "state": worker,
        "last_message": last,
        "cursor": cursor,
        "dead_letters": dead_letters,
        "last_output": output,
        "screen": snapshot.map(|snapshot| screen(&snapshot)),
        "session": session,
        "actors": actors,
    })))
}

/// An actor that does not run, and what it does instead.
fn down(probe: &ProbeView) -> Option<(&'static str, String)> {
    let state = probe.state.as_str();
    let stopped = matches!(state, "restarting" | "quarantined" | "failed") || state.starts_with("parked");
    stopped.then(|| (probe.kind, probe.state.clone()))
}

#[derive(Serialize)]
struct LastOutput {
    at: Option<String>,
    ago_ms: u64,
    total_bytes: u64,
}

fn last_output(view: &WorkerView, now: SystemTime) -> Option<LastOutput> {
    let at = view.last_output_ms.load(Ordering::Relaxed);
    (at > 0).then(|| LastOutput {
        at: rfc3339(at),
        ago_ms: unix_ms(now).saturating_sub(at),
        total_bytes: view.output_bytes.load(Ordering::Relaxed),
    })
}

/// The process, without arguments and environment: those may hold secrets.
fn process(doors: Option<&AgentDoors>, view: Option<&WorkerView>, now: SystemTime) -> Value {
    let pid = view.map(|view| view.pid.load(Ordering::Relaxed)).filter(|pid| *pid > 0);
    let agent = doors.map(|doors| &doors.view);
    json!({
        "pid": agent.and_then(|agent| agent.pid).or(pid),
        "program": agent.map(|agent| &agent.spec.program),
        "harness": agent.and_then(|agent| agent.spec.harness.as_ref()),
        "cwd": agent.map(|agent| &agent.spec.cwd),
        "session_id": agent.and_then(|agent| agent.session.as_ref()),
        "uptime_ms": agent.and_then(|agent| now.duration_since(agent.since).ok())
            .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
    })
}

/// The last lines that have something on them.
fn screen(snapshot: &Snapshot) -> Value {
    let mut lines: Vec<&str> = snapshot.plain.lines().filter(|line| !line.trim().is_empty()).collect();
    let skip = lines.len().saturating_sub(SCREEN_LINES);
    lines.drain(..skip);
    json!({ "title": snapshot.title, "cursor": snapshot.cursor, "lines": lines })
}

/// `POST /debug/fault/{actor}/{point}`: a deliberate panic, for tests; there is no such route without
/// `RELAY_BROKER_FAULTS=1`. `actor` is the id of the debug page
/// (`pty_worker/alice`, its slash encoded or not).
pub(super) async fn fault(api: Data<Api>, target: Path<(String, String)>) -> Result<HttpResponse, ApiError> {
    let (actor, point) = target.into_inner();
    let (kind, of) = actor.split_once('/').unwrap_or((&actor, ""));
    let probe = probe_of(&api, kind, of).ok_or_else(|| {
        let message = format!("no actor `{actor}`; `relay-broker actors` lists them");
        ApiError::new(StatusCode::NOT_FOUND, "actor_not_found", message)
    })?;
    let point = match point.as_str() {
        "handler" => FaultPoint::Handler,
        "started" => FaultPoint::Started,
        "restarting" => FaultPoint::Restarting,
        "stopped" => FaultPoint::Stopped,
        _ => return Err(ApiError::invalid("a fault is placed in handler, started, restarting or stopped")),
    };
    probe.arm(point);
    Ok(HttpResponse::Ok().json(json!({ "armed": true, "actor": actor })))
}

fn probe_of(api: &Api, kind: &str, of: &str) -> Option<std::sync::Arc<Probe>> {
    let view = api.directory.view().into_iter().find(|view| view.kind == kind && view.id.of == of)?;
    api.directory.get(&view.id)
}
