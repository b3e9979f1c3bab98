//! The local API: JSON in, a message to a room, JSON out. No decisions are made here.
//!
//! A request passes, in this order and before any routing: request id, `Host` and `Origin` (a browser that
//! was lured here gets no further), readiness (503 until the house is built), API key. See `guard`.
//! Every refusal has the one envelope of [`mod@error`].

mod agent_result;
mod agents;
mod api;
mod auth;
mod body;
mod channels;
mod connection;
mod crash_insights;
mod dead_letters;
mod debug;
mod dialog;
mod error;
mod events;
mod explain;
mod fleet;
mod guard;
mod hold;
mod hosts;
mod input_stream;
mod lease;
mod log;
mod process_body;
mod socket;
mod spawn_body;
mod status;
mod writers;

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use actix_web::{
    App, HttpRequest, HttpResponse, ResponseError, Route,
    dev::ServerHandle,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
    middleware::from_fn,
    web::{self, Data, PathConfig, QueryConfig, ServiceConfig, delete, get, post, put},
};
use tracing::error;

use self::{
    api::{Api, Streams},
    connection::Connection,
    error::ApiError,
    hosts::Hosts,
    lease::Lease,
    writers::Writers,
};
use crate::{
    ids::{AgentId, ApiKey, WorkspaceId, WorkspaceKey},
    messages::{
        channels::ChangeChannels,
        dead_letter::{ListDeadLetters, RedeliverLetters},
        lifecycle::{Resume, Shutdown},
        observe::{Replay, Subscribe},
        process::ListExits,
        readiness::ReadinessBoard,
        release::Release,
        result::SubmitResult,
        send::SendMessage,
        sidecar::{EndCall, OfferHandlers, RegisterSidecar, SidecarGone},
        spawn::{FindAgent, ListAgents, Spawn},
    },
    supervision::{Directory, Post},
};

/// Where agents hand in their results.
pub use self::agent_result::PATH as RESULT_PATH;

/// For the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// For a connection without a request.
const IDLE_TIME: Duration = Duration::from_secs(8);
/// Seconds that requests under way have to finish at the end.
pub const STOP_TIME: u64 = 2;
/// Connections at once.
const CONNECTIONS_MAX: usize = 1024;

/// What the server was told at its start.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where to listen.
    pub bind: IpAddr,
    /// 0 lets the system pick.
    pub port: u16,
    /// Opens everything but `/health`, `/readyz` and `/api/agent-result`.
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
    /// Where what is kept of agents is.
    pub agents_dir: PathBuf,
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
    /// To the registry.
    pub dead_letters: Post<ListDeadLetters>,
    /// To the registry.
    pub exits: Post<ListExits>,
    /// To the registry.
    pub result: Post<SubmitResult>,
    /// To the registry.
    pub redeliver: Post<RedeliverLetters>,
    /// To the registry.
    pub channels: Post<ChangeChannels>,
    /// To the registry.
    pub sidecar: SidecarDoors,
}

/// What a sidecar says to the registry.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is named for its message")]
pub struct SidecarDoors {
    pub register: Post<RegisterSidecar>,
    pub offer: Post<OfferHandlers>,
    pub end: Post<EndCall>,
    pub gone: Post<SidecarGone>,
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
    handle: ServerHandle,
    streams: Streams,
}

impl HttpServer {
    /// Where it really listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends every open event stream. To be called before [`HttpServer::stop`]: open streams hold it up.
    pub fn close_streams(&self) {
        self.streams.close();
    }

    /// Stops accepting, finishes what is under way for at most [`STOP_TIME`] seconds, and returns when all is
    /// closed.
    pub async fn stop(&self) {
        self.handle.stop(true).await;
    }
}

/// Listens, and serves until [`HttpServer::stop`]. To be called inside an actix system.
///
/// # Errors
/// [`HttpError::Bind`] when the address cannot be had.
pub fn serve(
    config: HttpConfig,
    doors: HttpDoors,
    directory: Directory,
    readiness: ReadinessBoard,
) -> Result<HttpServer, HttpError> {
    let asked = SocketAddr::new(config.bind, config.port);
    let fail = |source| HttpError::Bind { addr: asked, source };
    // Bound here and not by the framework, so that the routes know the port that was given.
    let listener = TcpListener::bind(asked).map_err(fail)?;
    let addr = listener.local_addr().map_err(fail)?;
    let streams = Streams::default();
    let faults = config.faults;
    let lease = config.lease.map(Lease::new);
    if let Some(lease) = &lease {
        actix_web::rt::spawn(lease.watch(doors.shutdown.clone()));
    }
    let api = Data::new(Api {
        hosts: Hosts::new(addr),
        started: Instant::now(),
        lease,
        streams: streams.clone(),
        writers: Writers::default(),
        failures: Mutex::default(),
        config,
        doors,
        directory,
        readiness,
    });
    let app = move || {
        App::new()
            .app_data(api.clone())
            .app_data(
                QueryConfig::default().error_handler(|bad, _| ApiError::invalid(bad.to_string()).into()),
            )
            .app_data(PathConfig::default().error_handler(|bad, _| ApiError::invalid(bad.to_string()).into()))
            .wrap(from_fn(guard::guard))
            .configure(|app| routes(app, faults))
            .default_service(web::to(no_route))
    };
    let server = actix_web::HttpServer::new(app)
        .workers(1)
        .max_connections(CONNECTIONS_MAX)
        .client_request_timeout(HEAD_TIME)
        .client_disconnect_timeout(Duration::from_secs(1))
        .keep_alive(IDLE_TIME)
        .shutdown_timeout(STOP_TIME)
        .on_connect(Connection::accept)
        .disable_signals()
        .listen(listener)
        .map_err(fail)?
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(async move {
        if let Err(error) = server.await {
            error!(%error, "the local API has ended");
        }
    });
    Ok(HttpServer { addr, handle, streams })
}

/// Every route. A path with another method is a 405, not a 404.
fn routes(app: &mut ServiceConfig, faults: bool) {
    let mut at = |path: &str, methods: &'static str, routes: Vec<Route>| {
        let wrong_method = move || async move { wrong_method(methods) };
        let resource = web::resource(path).default_service(web::to(wrong_method));
        app.service(routes.into_iter().fold(resource, actix_web::Resource::route));
    };
    at("/health", "GET", vec![get().to(status::health)]);
    at("/readyz", "GET", vec![get().to(status::readyz)]);
    at("/api/spawn", "POST", vec![post().to(agents::spawn)]);
    at("/api/spawned", "GET", vec![get().to(agents::list)]);
    at("/api/spawned/{name}", "DELETE", vec![delete().to(agents::release)]);
    at("/api/spawned/{name}/snapshot", "GET", vec![get().to(agents::snapshot)]);
    let delivery_mode = "/api/spawned/{name}/delivery-mode";
    at(delivery_mode, "GET, PUT", vec![get().to(hold::mode), put().to(hold::set_mode)]);
    at("/api/spawned/{name}/pending", "GET", vec![get().to(hold::pending)]);
    at("/api/spawned/{name}/flush", "POST", vec![post().to(hold::flush)]);
    at("/api/spawned/{name}/subscribe", "POST", vec![post().to(channels::subscribe)]);
    at("/api/spawned/{name}/unsubscribe", "POST", vec![post().to(channels::unsubscribe)]);
    at("/api/spawned/{name}/model", "POST", vec![post().to(agents::model)]);
    at("/api/preflight", "POST", vec![post().to(agents::preflight)]);
    at("/api/spawned/{name}/answer", "POST", vec![post().to(dialog::answer)]);
    at("/api/spawned/{name}/log", "GET", vec![get().to(log::log)]);
    at("/api/send", "POST", vec![post().to(agents::send)]);
    at("/api/input/{name}", "POST", vec![post().to(agents::input)]);
    at("/api/input/{name}/stream", "GET", vec![get().to(input_stream::open)]);
    at("/api/resize/{name}", "POST", vec![post().to(agents::resize)]);
    at(agent_result::PATH, "POST", vec![post().to(agent_result::submit)]);
    at("/api/crash-insights", "GET", vec![get().to(crash_insights::list)]);
    at("/api/dead-letters", "GET", vec![get().to(dead_letters::list)]);
    at("/api/dead-letters/redeliver", "POST", vec![post().to(dead_letters::redeliver)]);
    at("/api/session", "GET", vec![get().to(status::session)]);
    at("/api/session/renew", "POST", vec![post().to(status::renew)]);
    at("/api/status", "GET", vec![get().to(status::status)]);
    at("/api/config", "GET", vec![get().to(status::config)]);
    at("/api/metrics", "GET", vec![get().to(status::metrics)]);
    at("/api/events/replay", "GET", vec![get().to(events::replay)]);
    at("/ws", "GET", vec![get().to(events::stream)]);
    at("/api/fleet/ws", "GET", vec![get().to(fleet::open)]);
    at("/api/shutdown", "POST", vec![post().to(status::shutdown)]);
    at("/api/resume", "POST", vec![post().to(status::resume)]);
    at("/debug/actors", "GET", vec![get().to(debug::actors)]);
    at("/debug/agents/{name}", "GET", vec![get().to(debug::agent)]);
    if faults {
        // The id of a per-agent actor has a slash, which some clients encode and some do not.
        at("/debug/fault/{actor:.+}/{point}", "POST", vec![post().to(debug::fault)]);
    }
}

async fn no_route(req: HttpRequest) -> HttpResponse {
    ApiError::not_found(req.path()).error_response()
}

/// Names the methods that a path has, as RFC 9110 15.5.6 wants.
fn wrong_method(methods: &'static str) -> HttpResponse {
    let message = format!("this path takes {methods} only");
    let mut response =
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).error_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

#[cfg(test)]
mod tests;
