//! What the routes share.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::http::StatusCode;
use tokio::sync::watch;

use super::{
    HttpConfig, HttpDoors, Workspace, auth::Failures, error::ApiError, hosts::Hosts, lease::Lease,
    writers::Writers,
};
use crate::{
    ids::AgentName,
    messages::{
        Answer,
        delivery::CursorView,
        lifecycle::{ActorId, ActorKind},
        readiness::ReadinessBoard,
        spawn::{AgentDoors, AgentView, FindAgent, Found, ListAgents},
    },
    supervision::{Detail, Directory},
};

/// How long a room may take for an answer that needs nobody else.
pub(super) const ROOM_TIME: Duration = Duration::from_secs(2);
/// For a terminal's answer (spec/api 2.4).
pub(super) const WORKER_TIME: Duration = Duration::from_secs(5);

/// What the routes share.
pub(super) struct Api {
    pub(super) config: HttpConfig,
    pub(super) doors: HttpDoors,
    pub(super) directory: Directory,
    pub(super) readiness: ReadinessBoard,
    pub(super) started: Instant,
    pub(super) hosts: Hosts,
    pub(super) lease: Option<Lease>,
    pub(super) streams: Streams,
    pub(super) writers: Writers,
    pub(super) failures: Mutex<Failures>,
}

/// The open event streams.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    open: Arc<AtomicUsize>,
    closing: Arc<watch::Sender<bool>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { open: Arc::default(), closing: Arc::new(watch::Sender::new(false)) }
    }
}

/// One open stream; counted until it is dropped.
pub(super) struct OpenStream(Arc<AtomicUsize>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Streams {
    /// Counts a stream in.
    pub(super) fn open(&self) -> OpenStream {
        self.open.fetch_add(1, Ordering::AcqRel);
        OpenStream(self.open.clone())
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Ends them all, and refuses new ones.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Becomes true when they are to end.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }
}

impl Api {
    /// A wrong key came: how long its answer is held back.
    pub(super) fn wrong_key(&self, now: Instant) -> Duration {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).failed(now)
    }

    /// The workspace, once it is known.
    pub(super) fn workspace(&self) -> Option<&Workspace> {
        self.config.workspace.get()
    }

    /// Every agent.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub(super) async fn agents(&self) -> Result<Vec<AgentView>, ApiError> {
        within(ROOM_TIME, self.doors.list.ask(ListAgents)).await
    }

    /// One agent's doors.
    ///
    /// # Errors
    /// 400 for what cannot be a name, 404 when there is no such agent, 409 while it has no program.
    pub(super) async fn agent(&self, name: &str) -> Result<AgentDoors, ApiError> {
        let parsed = AgentName::parse(name)?;
        let found = self.doors.find.ask(|reply| FindAgent { name: parsed, reply });
        match within(ROOM_TIME, found).await? {
            Found::Doors(doors) => Ok(*doors),
            Found::NoProgram(phase) => Err(ApiError::no_program(name, phase)),
            Found::Nobody => Err(ApiError::no_agent(name)),
        }
    }

    /// Every cursor's numbers, by agent, as the probes show them.
    pub(super) fn cursors(&self) -> Vec<(String, CursorView)> {
        let cursor = |probe: crate::supervision::ProbeView| match probe.detail {
            Detail::Cursor(view) => Some((probe.id.of, view)),
            _ => None,
        };
        self.directory.view().into_iter().filter_map(cursor).collect()
    }

    /// How many agents have a terminal.
    pub(super) fn agent_count(&self) -> usize {
        self.directory.view().iter().filter(|probe| probe.id.kind == ActorKind::PtyWorker).count()
    }

    /// A number that the only actor of this kind shows of itself.
    pub(super) fn fact(&self, kind: ActorKind, name: &str) -> Option<u64> {
        let Detail::Facts(facts) = self.directory.get(&ActorId::sole(kind))?.view().detail else {
            return None;
        };
        facts.iter().find(|(key, _)| *key == name)?.1.parse().ok()
    }
}

/// Waits for a room's answer, but not for ever.
///
/// # Errors
/// 504 `room_timeout` when it does not come in time, 503 when it cannot come.
pub(super) async fn within<T>(limit: Duration, answer: Answer<T>) -> Result<T, ApiError> {
    let late = |_| {
        let message =
            format!("no answer within {limit:?}: the part that was asked is busy, see `relay-broker actors`");
        ApiError::timed_out("room_timeout", message)
    };
    Ok(tokio::time::timeout(limit, answer).await.map_err(late)??)
}

/// Waits for the answer of this agent's terminal, for at most [`WORKER_TIME`].
///
/// # Errors
/// 504 `worker_timeout` when it does not come in time, 503 `worker_disappeared` when it cannot come.
pub(super) async fn of_worker<T>(name: &str, answer: Answer<T>) -> Result<T, ApiError> {
    let late =
        |_| ApiError::timed_out("worker_timeout", "the agent's terminal did not answer in time").about(name);
    tokio::time::timeout(WORKER_TIME, answer).await.map_err(late)?.map_err(|_| disappeared(name))
}

/// 503 `worker_disappeared`: the terminal was asked and will not answer any more.
pub(super) fn disappeared(name: &str) -> ApiError {
    let message = "the agent's terminal went away before it could answer; try again";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "worker_disappeared", message).retryable().about(name)
}
