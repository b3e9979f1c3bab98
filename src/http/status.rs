//! The house as a whole: health, readiness, session, status, configuration, metrics, shutdown.

use std::time::SystemTime;

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde_json::{Value, json};
use tracing::info;

use super::{
    SessionMode,
    agents::{self, unix_ms},
    api::Api,
    error::ApiError,
};
use crate::{
    messages::{
        lifecycle::{ActorKind, Resume, Shutdown},
        readiness::Readiness,
        spawn::AgentPhase,
    },
    supervision::Gone,
};

/// `GET /health`: open, always 200, and true. Counts come from probes, so that it answers while every room
/// is busy.
pub(super) async fn health(api: Data<Api>) -> HttpResponse {
    let live = api.readiness.with(Readiness::is_live);
    let workspace = api.workspace().and_then(|workspace| workspace.id.clone());
    let memberships: Vec<_> = workspace.iter().collect();
    HttpResponse::Ok().json(json!({
        "status": if live { "ok" } else { "degraded" },
        "service": "agent-relay-listen",
        "version": api.config.version,
        "uptimeMs": ms(api.started.elapsed()),
        "workspaceId": workspace,
        "defaultWorkspaceId": workspace,
        "memberships": memberships,
        "agentCount": api.agent_count(),
        "pendingDeliveryCount": pending(&api),
        "deadLetterCount": api.fact(ActorKind::Journal, "dead_letters"),
        "wsConnections": api.streams.count(),
        "memoryMb": memory_of("self").map(|bytes| bytes / (1 << 20)),
        "relaycastConnected": live,
        "boot_id": &*api.config.boot_id,
    }))
}

/// `GET /readyz`: 200 only while the engine confirms this node.
pub(super) async fn readyz(api: Data<Api>) -> HttpResponse {
    let readiness = api.readiness.get();
    let next = match &readiness {
        Readiness::Live { .. } => {
            return HttpResponse::Ok().json(json!({ "ready": true, "session": readiness }));
        }
        Readiness::Starting { .. } => "wait for the start to finish".to_owned(),
        Readiness::Offline { next, .. } => next.clone(),
        Readiness::Ending => "start the broker again".to_owned(),
    };
    HttpResponse::ServiceUnavailable().json(json!({ "ready": false, "session": readiness, "next": next }))
}

/// `GET /api/session`
pub(super) async fn session(api: Data<Api>) -> HttpResponse {
    let workspace = api.workspace();
    HttpResponse::Ok().json(json!({
        "broker_version": api.config.version,
        "protocol_version": 2,
        "workspace_key": workspace.and_then(|w| w.key.as_ref()).map(|key| key.expose()),
        "relay_base_url": workspace.map(|w| w.base_url.as_str()),
        "default_workspace_id": workspace.and_then(|w| w.id.as_ref()),
        "mode": api.config.mode,
        "uptime_secs": api.started.elapsed().as_secs(),
        "instance": api.config.instance,
        "boot_id": &*api.config.boot_id,
        "session": api.readiness.get(),
    }))
}

/// `POST /api/session/renew`
pub(super) async fn renew(api: Data<Api>) -> HttpResponse {
    let expires = api.lease.as_ref().map_or(0, |lease| lease.renew().as_secs());
    HttpResponse::Ok().json(json!({
        "renewed": true,
        "expires_in_secs": expires,
        "persist": api.config.mode == SessionMode::Persist,
    }))
}

/// `GET /api/status`
pub(super) async fn status(api: Data<Api>) -> Result<HttpResponse, ApiError> {
    let agents = agents::listed(&api).await?;
    Ok(HttpResponse::Ok().json(json!({
        "agent_count": agents.len(),
        "agents": agents,
        "pending_delivery_count": pending(&api),
        "pending_deliveries": pending_deliveries(&api),
        "auth": auth(&api),
        "session": api.readiness.get(),
    })))
}

/// The newest delivery of each agent that is still under way; those behind it are only counted.
fn pending_deliveries(api: &Api) -> Vec<Value> {
    let now_ms = unix_ms(SystemTime::now());
    let waiting = |(agent, cursor): (String, crate::messages::delivery::CursorView)| {
        let last = cursor.last.filter(|last| last.seq > cursor.acked)?;
        Some(json!({
            "delivery_id": last.delivery_id,
            "worker_name": agent,
            "event_id": last.msg_id,
            "from": last.from,
            "to": agent,
            "attempts": last.attempts,
            "queued_at_ms": last.queued_at_ms,
            "age_ms": now_ms.saturating_sub(last.queued_at_ms),
            "last_error": null,
            "rung": last.rung,
            "waiting_for": last.waiting_for,
        }))
    };
    api.cursors().into_iter().filter_map(waiting).collect()
}

fn auth(api: &Api) -> Value {
    let live = api.readiness.with(Readiness::is_live);
    let Some(workspace) = api.workspace() else {
        return json!({ "authenticated": false, "workspace_count": 0, "default_workspace_id": null,
            "workspaces": [] });
    };
    json!({
        "authenticated": live,
        "workspace_count": 1,
        "default_workspace_id": workspace.id,
        "workspaces": [{
            "workspace_id": workspace.id,
            "workspace_alias": null,
            "self_name": workspace.self_name,
            "self_agent_id": workspace.self_agent_id,
            "authenticated": live,
            "default": true,
        }],
    })
}

/// `GET /api/config`
pub(super) async fn config(api: Data<Api>) -> HttpResponse {
    let workspace = api.workspace();
    let id = workspace.and_then(|w| w.id.as_ref());
    HttpResponse::Ok().json(json!({
        "workspaceKey": workspace.and_then(|w| w.key.as_ref()).map(|key| key.expose()),
        "defaultWorkspaceId": id,
        "memberships": id.iter().collect::<Vec<_>>(),
    }))
}

/// `GET /api/metrics`. A number that nobody counts is `null`, never 0.
pub(super) async fn metrics(api: Data<Api>) -> Result<HttpResponse, ApiError> {
    let now = SystemTime::now();
    let views = api.agents().await?;
    let active = views.iter().filter(|view| view.phase == AgentPhase::Live).count();
    let agent = |view: &crate::messages::spawn::AgentView| {
        json!({
            "name": view.spec.name,
            "pid": view.pid,
            "memory_bytes": view.pid.and_then(|pid| memory_of(&pid.to_string())),
            "uptime_secs": now.duration_since(view.since).map_or(0, |age| age.as_secs()),
        })
    };
    let registry = |name| api.fact(ActorKind::AgentRegistry, name);
    let probes = api.directory.view();
    Ok(HttpResponse::Ok().json(json!({
        "agents": views.iter().map(agent).collect::<Vec<_>>(),
        "broker": {
            "uptime_secs": api.started.elapsed().as_secs(),
            "total_agents_spawned": registry("spawned"),
            "total_crashes": registry("crashed"),
            "total_restarts": registry("restarted"),
            "active_agents": active,
            "actor_restarts": probes.iter().map(|probe| probe.restart_count).sum::<u64>(),
            "messages_waiting": probes.iter().map(|probe| probe.mailbox_depth).sum::<usize>(),
            "memory_bytes": memory_of("self"),
        },
        "at_ms": unix_ms(now),
    })))
}

/// `POST /api/shutdown`: the answer first, the end after it.
pub(super) async fn shutdown(api: Data<Api>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(shut_down(&api)?))
}

/// Ends the house for whoever asks.
///
/// # Errors
/// 503 when it is ending already.
pub(super) fn shut_down(api: &Api) -> Result<Value, ApiError> {
    info!("shutdown asked for by a client");
    let reason = "asked for by a client".to_owned();
    api.doors.shutdown.tell(Shutdown { reason, reply: None }).map_err(ending)?;
    Ok(json!({ "status": "shutting_down" }))
}

/// `POST /api/resume`: wakes what is parked.
pub(super) async fn resume(api: Data<Api>) -> Result<HttpResponse, ApiError> {
    api.doors.resume.tell(Resume).map_err(ending)?;
    Ok(HttpResponse::Ok().json(json!({ "status": "resuming" })))
}

fn ending(Gone: Gone) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "the broker is shutting down already")
}

/// Deliveries that have come and are not settled.
fn pending(api: &Api) -> usize {
    api.cursors().iter().map(|(_, cursor)| cursor.held).sum()
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Resident bytes of a process, while it is there. procfs answers from memory: it does not block.
fn memory_of(process: &str) -> Option<u64> {
    resident(&std::fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

/// `VmRSS:   1234 kB` in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes_and_a_zombie_has_none() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2 << 20));
        assert_eq!(resident("Name:\tx\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn the_memory_of_this_very_process_is_known() {
        assert!(memory_of("self").is_some_and(|bytes| bytes > 1 << 20));
    }
}
