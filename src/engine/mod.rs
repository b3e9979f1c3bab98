//! The embedded engine: a Relaycast engine for one machine, on loopback, stored in SQLite.
//!
//! It speaks the same wire as any other engine (spec/wire) and shares no code with the rooms: the broker
//! reaches it over a socket like a stranger. Three kinds of thread:
//!
//! ```text
//! http worker ──Job──▶ core thread ──frames──▶ node sockets
//!     ▲                 │ owns SQLite and the live links,
//!     └────answer───────┘ group-commits what arrives together
//! ```
//!
//! Because one thread owns both the tables and the links, a message is stored, numbered and handed to its
//! socket in one order, and nothing is answered or sent before it is on disk.

mod core;
mod error;
mod frames;
mod hub;
mod ids;
mod ops;
mod routes;
mod rules;
mod store;
mod views;

use std::{path::PathBuf, sync::mpsc, thread::JoinHandle, time::Duration};

use actix_web::dev::ServerHandle;
use tracing::{info, warn};

use self::core::CoreHandle;

/// Where an engine lives and which periods it keeps.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The SQLite file; created with its directory when missing, readable by the owner alone.
    pub database: PathBuf,
    /// The loopback port; 0 lets the system pick.
    pub port: u16,
    /// What `/health` reports.
    pub version: String,
    /// The engine's periods and bounds.
    pub limits: Limits,
}

/// The engine's periods and bounds. The defaults are the contract (spec/wire 4); tests shorten them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A node without a heartbeat for this long is offline (45 s).
    pub liveness: Duration,
    /// Between two looks at liveness, expiry and overdue invocations (15 s).
    pub sweep: Duration,
    /// An invocation without a result for this long is dispatched again (30 s).
    pub dispatch_timeout: Duration,
    /// The first pause before an invocation is dispatched again; doubles up to a minute (5 s).
    pub retry_delay: Duration,
    /// An undelivered message is a dead letter after this long (1 h).
    pub message_ttl: Duration,
    /// Most unacked messages in one agent's mailbox (1000).
    pub mailbox_depth: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            liveness: Duration::from_secs(45),
            sweep: Duration::from_secs(15),
            dispatch_timeout: Duration::from_secs(30),
            retry_delay: Duration::from_secs(5),
            message_ttl: Duration::from_secs(3600),
            mailbox_depth: 1000,
        }
    }
}

impl EngineConfig {
    /// An engine on a port of the system's choice with the contract's periods.
    pub fn new(database: PathBuf) -> Self {
        Self { database, port: 0, version: env!("CARGO_PKG_VERSION").to_owned(), limits: Limits::default() }
    }
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The database's directory or file could not be prepared.
    #[error(
        "cannot prepare the engine's database {path}: {source}; check the directory's owner and free space"
    )]
    Directory {
        /// The database file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite refused the file.
    #[error("cannot open the engine's database {path}: {source}; is it a database of this program?")]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The port could not be bound.
    #[error("cannot listen on 127.0.0.1:{port}: {source}; choose another port, or 0 for any")]
    Bind {
        /// The port asked for.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start the engine's thread: {0}")]
    Thread(std::io::Error),
    /// The server's thread ended before it listened.
    #[error("the engine's server ended before it listened; see the log")]
    Vanished,
}

/// A running engine. Dropping it stops it.
pub struct Engine {
    port: u16,
    base_url: String,
    core: CoreHandle,
    server: ServerHandle,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Opens the store, binds `127.0.0.1` and serves on threads of its own; returns once it listens.
    /// Usable from inside another actix system.
    ///
    /// # Errors
    /// [`EngineError`] when the file, the port or a thread is not to be had.
    pub fn start(config: EngineConfig) -> Result<Self, EngineError> {
        let (core, core_thread) = core::start(&config)?;
        let (ready, listening) = mpsc::channel();
        let server_thread = std::thread::Builder::new()
            .name("engine-http".to_owned())
            .spawn({
                let core = core.clone();
                move || serve(config, core, &ready)
            })
            .map_err(EngineError::Thread)?;
        let (port, server) = listening.recv().map_err(|_| EngineError::Vanished)??;
        info!(port, "engine listening");
        Ok(Self {
            port,
            base_url: format!("http://127.0.0.1:{port}"),
            core,
            server,
            threads: vec![server_thread, core_thread],
        })
    }

    /// `http://127.0.0.1:<port>`, without a trailing slash.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The bound port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes the node sockets, answers what is in flight, stores everything and joins the threads.
    /// Blocks for up to a few seconds: from an actor, call it on a blocking thread.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Open sockets would hold a graceful stop, so they end first; the core ends last because the
        // server's last answers come from it.
        self.core.close_links();
        // The command is sent by the call itself; its future only waits, and so does the join below.
        drop(self.server.stop(true));
        let mut threads = std::mem::take(&mut self.threads).into_iter();
        join(threads.next());
        self.core.finish();
        threads.for_each(|thread| join(Some(thread)));
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        warn!("a thread of the engine ended with a panic");
    }
}

/// The server's thread: an actix system of its own, so that the engine runs beside any other.
fn serve(
    config: EngineConfig,
    core: CoreHandle,
    ready: &mpsc::Sender<Result<(u16, ServerHandle), EngineError>>,
) {
    let port = config.port;
    let served = actix_rt::System::new().block_on(async {
        let (bound, server) = routes::server(config.port, config.version, core)?;
        if ready.send(Ok((bound, server.handle()))).is_ok() {
            server.await?;
        }
        Ok::<(), std::io::Error>(())
    });
    if let Err(source) = served {
        // Nobody listens any more when the failure came after the start.
        if ready.send(Err(EngineError::Bind { port, source })).is_err() {
            warn!("the engine's server failed");
        }
    }
}
