//! The local API: JSON in, a message to a room, JSON out. No decisions are made here.
//!
//! A request passes, in this order and before any routing: request id, `Host` and `Origin` (a browser that
//! was lured here gets no further), readiness (503 until the house is built), API key. See `guard`.
//! Every refusal has the one envelope of [`error`].

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::{
    ids::{AgentId, ApiKey, WorkspaceId, WorkspaceKey},
    messages::{
        lifecycle::{Resume, Shutdown},
        observe::{Replay, Subscribe},
        readiness::ReadinessBoard,
        release::Release,
        send::SendMessage,
        spawn::{FindAgent, ListAgents, Spawn},
    },
    supervision::{Directory, Post},
};

/// What the server was told at its start.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where to listen.
    pub bind: IpAddr,
    /// 0 lets the system pick.
    pub port: u16,
    /// Opens everything but `/health` and `/readyz`.
    pub key: ApiKey,
    /// The broker's version.
    pub version: &'static str,
    /// The broker's name.
    pub instance: String,
    /// Tells this process's event numbers from another's. The event hub has the same.
    pub boot_id: Arc<str>,
    /// Whether the broker outlives its clients.
    pub mode: SessionMode,
    /// Ends the broker when `/api/session/renew` is not called for this long.
    pub lease: Option<Duration>,
    /// Serve `/debug/fault`.
    pub faults: bool,
    /// For spawns that name no directory. Absolute.
    pub cwd: PathBuf,
    /// For spawns that name no channel.
    pub channels: Vec<String>,
    /// Filled once the workspace is known.
    pub workspace: Arc<OnceLock<Workspace>>,
}

/// Whether the broker outlives its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionMode {
    /// It does.
    Persist,
    /// It ends when its lease runs out.
    Ephemeral,
}

/// The workspace this broker belongs to.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Its id, if the engine said so.
    pub id: Option<WorkspaceId>,
    /// Its key, if this broker has one; shown to holders of the API key (`/api/session`), as upstream's
    /// clients expect.
    pub key: Option<WorkspaceKey>,
    /// The engine.
    pub base_url: String,
    /// The broker's own identity there.
    pub self_name: String,
    /// Its id there, if it has registered.
    pub self_agent_id: Option<AgentId>,
}

/// The ways from the API into the house.
#[derive(Clone, Debug)]
pub struct HttpDoors {
    /// To the registry.
    pub spawn: Post<Spawn>,
    /// To the registry.
    pub release: Post<Release>,
    /// To the registry.
    pub list: Post<ListAgents>,
    /// To the registry.
    pub find: Post<FindAgent>,
    /// To the event hub.
    pub subscribe: Post<Subscribe>,
    /// To the event hub.
    pub replay: Post<Replay>,
    /// To the supervisor.
    pub shutdown: Post<Shutdown>,
    /// To the supervisor.
    pub resume: Post<Resume>,
    /// To the registry.
    pub send: Post<SendMessage>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The port is taken, or the address is not ours.
    #[error("cannot listen on {addr}: {source}; choose another port with --api-port, or 0 for any free one")]
    Bind {
        /// Where.
        addr: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
}

/// The running server.
#[derive(Debug)]
pub struct HttpServer {
    addr: SocketAddr,
}

impl HttpServer {
    /// Where it really listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends every open event stream. To be called before [`HttpServer::stop`]: open streams hold it up.
    pub fn close_streams(&self) {}

    /// Stops accepting, finishes what is under way, and returns when all is closed.
    pub async fn stop(&self) {}
}

/// Listens, and serves until [`HttpServer::stop`]. To be called inside an actix system.
///
/// # Errors
/// [`HttpError::Bind`] when the address cannot be had.
pub fn serve(
    config: HttpConfig,
    _doors: HttpDoors,
    _directory: Directory,
    _readiness: ReadinessBoard,
) -> Result<HttpServer, HttpError> {
    let addr = SocketAddr::new(config.bind, config.port);
    Ok(HttpServer { addr })
}
