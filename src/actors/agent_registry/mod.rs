//! The agents of this node: one path to spawn and one to release, whoever asks.
//!
//! ```text
//! http ─Spawn─▶ registry ─RegisterAgent─▶ node_session      (over HTTP when the socket is down)
//!                        ─BuildRooms────▶ supervisor        (cursor, worker, route)
//!                        ◀─Started─────── pty_worker
//! http ◀─Spawned─
//! node_session ─Invoke─▶ the same path ─InvocationEnded─▶ node_session
//!              ─Invoke─▶ a command, or the sidecar's handler: the same
//! ```
//!
//! What is to be done when is the [`saga`]'s decision; [`deeds`] has it done. An agent's token, id and ways to its
//! rooms live in its entry and die with it; no registration ever rotates a live agent's token.
//!
//! | conversation | file |
//! |---|---|
//! | a spawn, until its asker is answered; its registration at the engine | [`spawning`], [`registering`] |
//! | a release; the end of a program, and the next one | [`releasing`], [`ends`] |
//! | an agent's state; its session | [`stillness`], [`session`] |
//! | another node claims an agent | [`conflict`] |
//! | an invocation; the calls of a sidecar | [`invoking`], [`calls`] |
//! | a message sent, channels changed, a receipt; dead letters; results | [`errands`], [`letters`], [`results`] |
//! | who lives here | [`listing`] |
//!
//! A restart keeps every live agent (the entries stay with the instance) and gives up what was under way:
//! the asker is told, and what had been begun is undone. An exit that was lost with the failed turn is found
//! in the worker's own view.

mod calls;
mod command;
mod conflict;
mod deeds;
mod ends;
mod engine_side;
mod errands;
mod former;
mod invocations;
mod invoking;
mod letters;
mod listing;
mod location;
mod registering;
mod releasing;
mod restart;
mod results;
mod saga;
mod session;
mod sidecar;
mod spawning;
mod stillness;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, rc::Rc, time::SystemTime};

use actix::{Actor, Context, SpawnHandle, Supervised};

use self::{
    engine_side::EngineSide,
    former::Former,
    invocations::{Running, cut_short},
    registering::Presence,
    releasing::Closing,
    saga::{Event as Happened, Saga},
    sidecar::Place,
};
use crate::{
    config::{CommandLine, DeclaredAction},
    ids::{AgentName, Birth, NodeName, ResultToken, WorkspaceId, WorkspaceKey},
    messages::{
        Reply,
        invoke::InvocationEnded,
        observe::{Event, Publish},
        process::KnownSession,
        readiness::ReadinessBoard,
        release::Released,
        session::{Absent, DeregisterAgent, Dialect, RegisterAgent, Registration, SetInventory, SetOffer},
        spawn::{BuildRooms, CloseRooms, Origin, Rooms, SpawnRefused, SpawnSpec, Spawned, Started},
    },
    store::Journal,
    supervision::{Lifeline, Post},
    wire::client::EngineEndpoint,
};

/// What the registry was told.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// The engine.
    pub endpoint: EngineEndpoint,
    /// Administers the workspace; without it only the socket registers agents and nobody can `send`.
    pub workspace_key: Option<WorkspaceKey>,
    /// The workspace, told to agents.
    pub workspace: Option<WorkspaceId>,
    /// The broker's own name.
    pub instance: String,
    /// What the broker is at the engine, `human` unless configured otherwise.
    pub agent_type: String,
    /// Where the broker's own identity is kept.
    pub identity_file: PathBuf,
    /// For spawns of the engine that name no directory.
    pub cwd: PathBuf,
    /// For spawns of the engine that name no channels.
    pub channels: Vec<String>,
    /// The engine is the one in this binary, whose acks are read receipts in every dialect.
    pub embedded: bool,
    /// What runs for the engine's `spawn:<harness>`, where declared.
    pub handlers: BTreeMap<String, CommandLine>,
    /// What runs for other actions, where declared.
    pub actions: BTreeMap<String, DeclaredAction>,
    /// Where agents hand in their results.
    pub result_url: String,
}

/// Whom the registry talks to.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is named for its message")]
pub struct RegistryDoors {
    pub register: Post<RegisterAgent>,
    pub deregister: Post<DeregisterAgent>,
    pub inventory: Post<SetInventory>,
    pub absent: Post<Absent>,
    pub invocation_ended: Post<InvocationEnded>,
    pub offer: Post<SetOffer>,
    pub build: Post<BuildRooms>,
    pub close: Post<CloseRooms>,
    pub publish: Post<Publish>,
}

/// The registry.
pub struct AgentRegistry {
    life: Lifeline,
    config: RegistryConfig,
    doors: RegistryDoors,
    journal: Journal,
    readiness: ReadinessBoard,
    engine: Rc<EngineSide>,
    agents: BTreeMap<AgentName, Entry>,
    /// The newest.
    births: Birth,
    /// Agents that ended by themselves, and not with code 0.
    crashes: u64,
    /// Programs that were started again.
    restarts: u64,
    former: Former,
    running: Running,
    sidecar: Place,
    presence: Presence,
    /// Spawns that wait for the first session.
    waiting: Vec<(AgentName, Birth)>,
    node_name: Option<NodeName>,
    /// What the engine speaks.
    dialect: Option<Dialect>,
    /// Read receipts on their way.
    receipts: usize,
    /// The engine is being asked who lives here.
    locating: bool,
    /// Set once the house is ending.
    closing: Option<Closing>,
}

/// One agent.
struct Entry {
    birth: Birth,
    saga: Saga,
    spec: SpawnSpec,
    origin: Origin,
    since: SystemTime,
    reply: Option<Reply<Result<Spawned, SpawnRefused>>>,
    releases: Vec<Reply<Released>>,
    registration: Option<Registration>,
    rooms: Option<Rooms>,
    started: Option<Started>,
    /// The session that its program is in, or was in when it ended.
    session: Option<KnownSession>,
    /// Of the process that runs, and of no earlier one.
    result_token: Option<ResultToken>,
    warning: Option<String>,
    quarantined: bool,
    /// The restarts that still count, and how many there were in all.
    history: restart::History,
    restarts: u32,
    /// Why it is not started again although it should be.
    gave_up: Option<String>,
    /// Its first readiness was published.
    was_ready: bool,
    /// Tells how long it has been as it is.
    stillness: Option<SpawnHandle>,
    /// It lives on another node now: what is said of it to the engine would be said of that one.
    claimed: bool,
}

impl AgentRegistry {
    /// The registry of one node.
    pub fn new(
        life: Lifeline,
        config: RegistryConfig,
        doors: RegistryDoors,
        journal: Journal,
        readiness: ReadinessBoard,
    ) -> Self {
        let engine = Rc::new(EngineSide::new(&config));
        let former = Former::new(journal.known_agents(), journal.agents());
        Self {
            life,
            config,
            doors,
            journal,
            readiness,
            engine,
            agents: BTreeMap::new(),
            births: Birth::default(),
            crashes: 0,
            restarts: 0,
            former,
            running: Running::default(),
            sidecar: Place::default(),
            presence: Presence::Coming,
            waiting: Vec::new(),
            node_name: None,
            dialect: None,
            receipts: 0,
            locating: false,
            closing: None,
        }
    }

    /// The agent of this name, if it is still the one that was meant.
    fn of_birth(&mut self, name: &AgentName, birth: Birth) -> Option<&mut Entry> {
        self.agents.get_mut(name).filter(|entry| entry.birth == birth)
    }

    fn publish(&self, event: Event) {
        // The hub outlives the registry.
        self.doors.publish.tell(Publish(event)).ok();
    }
}

impl Actor for AgentRegistry {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.life.started();
        for (name, agent_id) in self.former.absent() {
            // The session outlives the registry's restarts, and keeps what it was told.
            self.doors.absent.tell(Absent { agent_id: agent_id.clone(), name: name.clone() }).ok();
        }
        self.report();
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.life.stopped();
    }
}

impl Supervised for AgentRegistry {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        self.life.restarting();
        for invocation in self.running.clear() {
            self.answer_invocation(invocation, cut_short());
        }
        self.waiting.clear();
        self.receipts = 0;
        self.locating = false;
        self.time_all_stillness(ctx);
        let all: Vec<_> = self.agents.iter().map(|(name, entry)| (name.clone(), entry.birth)).collect();
        for (name, birth) in all {
            let exit = self.agents.get(&name).and_then(|entry| {
                let view = &entry.rooms.as_ref()?.view;
                crate::supervision::lock(&view.detail).exit.clone()
            });
            match exit {
                Some(exit) => self.child_ended(&name, birth, exit, ctx),
                None if self.awaits_record(&name) => self.survived_on_record(name, birth, ctx),
                None => self.happen(&name, birth, Happened::Interrupted, ctx),
            }
        }
    }
}
