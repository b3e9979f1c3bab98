//! The end, in order: agents first (a name is never free while its process lives), then the goodbye to the
//! engine, then the API, then what is on disk, then the threads.
//!
//! What stands half-way in a terminal comes to its proof first, where it can. Nothing is lost by ending early: what
//! has no proof on disk has no ack, and the engine keeps it. So every step has a limit, and all of them together stay
//! within the five seconds that clients wait.

use std::{future::Future, time::Duration};

use actix_rt::Arbiter;
use tracing::{info, warn};

use crate::{
    actors::supervisor::PermanentRooms,
    engine::Engine,
    http::HttpServer,
    messages::{release::ReleaseAll, session::Leave},
    store::{AgentFiles, Journal},
};

/// Each agent's time before KILL; up to half of it is for an injection that is half-way.
const LADDER: Duration = Duration::from_millis(2000);
/// For all agents together.
const AGENTS_LIMIT: Duration = Duration::from_millis(3000);
/// For each of the other steps.
const STEP_LIMIT: Duration = Duration::from_millis(700);

/// What is to be closed.
pub(super) struct House {
    pub(super) rooms: PermanentRooms,
    /// How far it had come.
    pub(super) built: Built,
    pub(super) http: HttpServer,
    pub(super) files: AgentFiles,
    pub(super) journal: Journal,
    pub(super) engine: Option<Engine>,
    pub(super) arbiters: Vec<Arbiter>,
}

/// How far a house had come when it was to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Built {
    /// Its engine was still being looked for: there are no agents and no session.
    Booting,
    /// It ran, without anybody to say goodbye to.
    Offline,
    /// It ran, and an engine listens.
    Live,
}

/// Closes the house.
pub(super) async fn close(house: House) {
    let House { rooms, built, http, files, journal, engine, arbiters } = house;
    if built != Built::Booting {
        let all = rooms.registry.post().ask(|reply| ReleaseAll { within: LADDER, reply });
        if let Some(Ok(agents)) = limited("agents", AGENTS_LIMIT, all).await {
            info!(agents, "agents ended");
        }
    }
    if built == Built::Live {
        limited("session", STEP_LIMIT, rooms.session.post().ask(Leave)).await;
    } else {
        rooms.session.handle().stop();
    }
    http.close_streams();
    limited("api", STEP_LIMIT, http.stop()).await;
    limited("files of agents", STEP_LIMIT, files.close()).await;
    let closed = actix_rt::task::spawn_blocking(move || journal.close());
    match limited("journal", STEP_LIMIT, closed).await {
        Some(Ok(Err(error))) => warn!(%error, "the journal is incomplete"),
        Some(Err(_)) => warn!("the journal's end failed"),
        Some(Ok(Ok(()))) | None => {}
    }
    if let Some(engine) = engine {
        limited("engine", STEP_LIMIT, actix_rt::task::spawn_blocking(move || engine.stop())).await;
    }
    for arbiter in arbiters {
        arbiter.stop();
    }
}

async fn limited<T>(step: &'static str, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => Some(done),
        Err(_) => {
            warn!(step, ?limit, "closing: step did not end in time");
            None
        }
    }
}
