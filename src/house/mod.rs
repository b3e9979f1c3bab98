//! The house: threads, engine, actors and the local API, from the first port to the last thread.
//!
//! ```text
//! journal ─▶ seats reserved ─▶ API listens ─▶ root and event stream run
//!         ─▶ engine and workspace found (`boot`) ─▶ mint, session, registry run
//!         ─▶ ... ─▶ a signal, a Shutdown or an escalation ─▶ `close`
//! ```
//!
//! Threads: this one is the core arbiter with every actor but the workers; workers are spread over the pty
//! arbiters, which live until the last child has ended (a child dies with the thread that forked it); one
//! for the API, two for the journal, and the embedded engine's own.

mod boot;
mod close;

use std::{
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::Duration,
};

use actix_rt::{Arbiter, System};
use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tracing::{debug, error, info, warn};

use crate::{
    actors::supervisor::{self, Blueprint, Ending},
    config::{Config, ToolServer},
    http::{self, HttpConfig, HttpDoors, SessionMode},
    ids::ApiKey,
    messages::{
        delivery::House as Room,
        lifecycle::Shutdown,
        readiness::{Readiness, ReadinessBoard},
    },
    pty::{self, Guard},
    store::{AgentFiles, Journal},
    supervision::Directory,
};

/// Exit code of a house that an actor's failure ended (`EX_SOFTWARE` of sysexits).
pub const EXIT_ESCALATED: u8 = 70;
/// Most pty arbiters; more do not help while one child writes at a time (measured at design).
const PTY_ARBITERS_MAX: usize = 4;
/// This very program, also when its file was replaced meanwhile (proc(5)).
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Where nobody says how many agents there will be: a machine that has no room for these is short of something.
const AGENTS_USUAL: u64 = 50;
/// Between two looks for orphans that agents left to us as their subreaper, and after the guard.
const REAP_EVERY: Duration = Duration::from_secs(5);

/// Where the local API listens.
#[derive(Clone, Debug)]
pub struct Listening {
    /// `http://<bind>:<port>`.
    pub url: String,
    /// The port that was bound.
    pub port: u16,
    /// What guards it.
    pub api_key: ApiKey,
}

/// Runs a broker until it ends, and answers its exit code. `on_listening` is called once the port is
/// bound, before the engine is contacted.
///
/// # Errors
/// Whatever kept it from starting.
pub fn run(
    config: Config,
    on_listening: impl FnOnce(&Listening) -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    if let Err(error) = pty::become_subreaper() {
        warn!(%error, "not a subreaper: daemons that agents leave behind will not be found");
    }
    check_capacity(config.max_agents);
    System::new().block_on(live(config, on_listening))
}

/// The tools that agents are handed: this program itself, wherever it lies.
fn tool_server(wanted: Option<bool>) -> ToolServer {
    let program = std::env::current_exe().ok().and_then(|path| path.into_os_string().into_string().ok());
    if program.is_none() {
        warn!("the path of this program is not known or not UTF-8: no agent is handed its tools");
    }
    ToolServer { program, wanted }
}

/// Says what the machine has no room for, before somebody finds out by a spawn that fails.
fn check_capacity(max_agents: u32) {
    let pty::Capacity { agents, raise } = pty::capacity();
    let wanted = if max_agents == 0 { AGENTS_USUAL } else { u64::from(max_agents) };
    if agents < wanted {
        warn!(room = agents, wanted, raise, "there is no room for that many agents");
    }
}

async fn live(
    config: Config,
    on_listening: impl FnOnce(&Listening) -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let mut signals = Signals::install()?;
    config.catalogue.clone().install()?;
    let journal = Journal::open(config.state_dir.join("journal.log"))?;
    let directory = Directory::default();
    directory.enter(journal.probe().clone());
    let agents_dir = config.state_dir.join("agents");
    let files = AgentFiles::open(agents_dir.clone(), config.record_output)
        .with_context(|| format!("cannot keep files of agents in {}", agents_dir.display()))?;
    let readiness = ReadinessBoard::default();
    let (rooms, tree) = supervisor::reserve(&directory);

    let boot_id: Arc<str> = uuid::Uuid::new_v4().simple().to_string().into();
    let workspace = Arc::new(OnceLock::new());
    let http = http::serve(
        HttpConfig {
            bind: config.api.bind,
            port: config.api.port,
            key: config.api.key.clone(),
            version: env!("CARGO_PKG_VERSION"),
            instance: config.instance.clone(),
            boot_id: boot_id.clone(),
            mode: if config.lease.is_some() { SessionMode::Ephemeral } else { SessionMode::Persist },
            lease: config.lease,
            faults: config.faults,
            cwd: config.cwd.clone(),
            agents_dir,
            channels: config.channels.clone(),
            workspace: workspace.clone(),
        },
        HttpDoors {
            spawn: rooms.registry.post(),
            release: rooms.registry.post(),
            list: rooms.registry.post(),
            find: rooms.registry.post(),
            send: rooms.registry.post(),
            channels: rooms.registry.post(),
            dead_letters: rooms.registry.post(),
            exits: rooms.registry.post(),
            redeliver: rooms.registry.post(),
            result: rooms.registry.post(),
            sidecar: http::SidecarDoors {
                register: rooms.registry.post(),
                offer: rooms.registry.post(),
                end: rooms.registry.post(),
                gone: rooms.registry.post(),
            },
            subscribe: rooms.hub.post(),
            replay: rooms.hub.post(),
            shutdown: rooms.supervisor.post(),
            resume: rooms.supervisor.post(),
        },
        directory.clone(),
        readiness.clone(),
    )?;
    let url = format!("http://{}", http.addr());
    on_listening(&Listening { url: url.clone(), port: http.addr().port(), api_key: config.api.key.clone() })?;

    let (endings, mut ending) = mpsc::unbounded_channel();
    let guard = Guard::start(Path::new(OWN_PROGRAM));
    let arbiters = pty_arbiters();
    let blueprint = Arc::new(Blueprint {
        journal: journal.clone(),
        timings: config.timings.clone(),
        stream_wanted: Arc::new(AtomicUsize::new(0)),
        files: files.clone(),
        tools: tool_server(config.mcp),
        guard: guard.clone(),
        room: Arc::new(Room::default()),
    });
    let handles = arbiters.iter().map(Arbiter::handle).collect();
    let waiting = tree.start(&rooms, blueprint, boot_id, handles, endings);
    actix_rt::spawn(look_after(guard));

    // Engine and workspace may take long, or for ever; the house can be ended meanwhile.
    let booted = tokio::select! {
        booted = boot::boot(&config, &url, &journal, &readiness) => Ok(booted?),
        ended = end(&mut signals, &mut ending, &rooms) => Err(ended),
    };
    let (engine, ended) = match booted {
        Err(ended) => (None, ended),
        Ok(booted) => {
            // Set once, here.
            workspace.set(booted.shown).ok();
            readiness.set(Readiness::Offline {
                why: "connecting to the engine".to_owned(),
                next: "wait a moment".to_owned(),
            });
            waiting.start(&rooms, booted.settled, journal.clone(), readiness.clone());
            let ended = end(&mut signals, &mut ending, &rooms).await;
            (booted.engine, ended)
        }
    };

    let code = match &ended {
        Ending::Asked(shutdown) => {
            info!(reason = shutdown.reason, "closing the house");
            0
        }
        Ending::Failed { actor, reason } => {
            error!(%actor, %reason, "closing the house after a failure");
            EXIT_ESCALATED
        }
    };
    signals.second_one_ends_at_once();
    let built = match readiness.get() {
        Readiness::Starting { .. } => close::Built::Booting,
        Readiness::Live { .. } => close::Built::Live,
        Readiness::Offline { .. } | Readiness::Ending => close::Built::Offline,
    };
    readiness.set(Readiness::Ending);
    close::close(close::House { rooms, built, http, files, journal, engine, arbiters }).await;
    if let Ending::Asked(Shutdown { reply: Some(reply), .. }) = ended {
        // Whoever asked may have gone with its connection.
        reply.send(());
    }
    Ok(code)
}

/// Waits for whatever ends the house.
async fn end(
    signals: &mut Signals,
    ending: &mut mpsc::UnboundedReceiver<Ending>,
    rooms: &supervisor::PermanentRooms,
) -> Ending {
    tokio::select! {
        Some(ending) = ending.recv() => ending,
        name = signals.next() => Ending::Asked(Shutdown { reason: name.to_owned(), reply: None }),
        () = rooms.supervisor.handle().gone() => Ending::Failed {
            actor: rooms.supervisor.probe().id().clone(),
            reason: crate::messages::lifecycle::ExitReason::Panicked("see the log".to_owned()),
        },
    }
}

/// The arbiters that workers live on: one core is left to everything else.
fn pty_arbiters() -> Vec<Arbiter> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = cores.saturating_sub(1).clamp(1, PTY_ARBITERS_MAX);
    (0..count).map(|_| Arbiter::new()).collect()
}

/// Reaps what agents' orphans leave, and sees to it that there is a guard, for as long as the system runs.
async fn look_after(guard: Guard) {
    loop {
        tokio::time::sleep(REAP_EVERY).await;
        guard.look_after();
        let reaped = pty::reap_adopted();
        if reaped > 0 {
            debug!(reaped, "orphans of agents reaped");
        }
    }
}

/// The signals that end the house.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }

    /// While the house closes, a second signal ends the process: agents die with the threads that forked
    /// them, and nothing that was acked is lost.
    fn second_one_ends_at_once(mut self) {
        actix_rt::spawn(async move {
            let name = self.next().await;
            error!(signal = name, "second signal, ending at once");
            std::process::exit(i32::from(EXIT_ESCALATED));
        });
    }
}
