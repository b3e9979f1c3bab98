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
//! What is to be done when is the [`saga`]'s decision; here it is done. An agent's token, id and ways to its
//! rooms live in its entry and die with it; no registration ever rotates a live agent's token.
//!
//! A restart keeps every live agent (the entries stay with the instance) and gives up what was under way:
//! the asker is told, and what had been begun is undone. An exit that was lost with the failed turn is found
//! in the worker's own view.

mod calls;
mod command;
mod deeds;
mod ends;
mod engine_side;
mod invocations;
mod location;
mod restart;
mod saga;
mod session;
mod sidecar;
mod stillness;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::PathBuf,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, Supervised, WrapFuture};
use futures_util::future::{OptionFuture, join_all};
use tracing::{info, warn};

use self::{
    command::Call,
    engine_side::EngineSide,
    invocations::{Defaults, Plan, Running, cut_short},
    location::{Local, claimed},
    saga::{Event as Happened, Phase, Saga},
    sidecar::Place,
};
use crate::{
    config::{CommandLine, DeclaredAction},
    ids::{AgentId, AgentName, Birth, NodeName, ResultId, ResultToken, WorkspaceId, WorkspaceKey},
    messages::{
        Reply, Unanswered,
        channels::{ChangeChannels, ChannelsRefused, Membership},
        dead_letter::{Letters, ListDeadLetters, Redeliver, RedeliverLetters, RedeliverRefused, Redelivery},
        delivery::MarkRead,
        invoke::{InvocationEnded, InvocationResult, Invoke},
        lifecycle::ActorKind,
        observe::{Event, Publish},
        process::{EndedBy, KnownSession, ListExits},
        pty::{AgentState, ChildExited, StateChanged},
        readiness::{Readiness, ReadinessBoard},
        release::{Release, ReleaseAll, Released, WorkerLost},
        result::{ResultTaken, SubmitResult},
        send::SendMessage,
        session::{
            Absent, DeregisterAgent, Dialect, InventoryItem, LocationConflict, RegisterAgent, Registration,
            SessionDown, SessionUp, SetInventory, SetOffer,
        },
        spawn::{
            AgentDoors, AgentPhase, AgentView, BuildRooms, CloseRooms, FindAgent, Found, ListAgents, Origin,
            Rooms, Spawn, SpawnRefused, SpawnSpec, Spawned, Started,
        },
    },
    store::{AGENTS_KNOWN_MAX, DeadLetter, Journal, Record},
    supervision::{Detail, Lifeline, Post},
    wire::client::EngineEndpoint,
};

/// A release whose agent has not ended after so long is answered as overdue; finishing what is half-way and the ladder
/// itself take 9 s.
const RELEASE_LIMIT: Duration = Duration::from_secs(15);

/// Read receipts on their way at once; further ones are not sent, for nothing depends on them.
const RECEIPTS_MAX: usize = 64;

/// How long a spawn waits for the first session of this process before it goes over HTTP.
const FIRST_SESSION: Duration = Duration::from_secs(5);

/// The session as the registry knows it. A session that waits for its next life reads no mail, so nothing is
/// asked of it unless it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// The first one is on its way.
    Coming,
    /// The node is live at the engine.
    Up,
    /// It ended; the next one comes by itself or not at all.
    Down,
}

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
    /// Agents that have ended, oldest first, with their ids at the engine.
    past: VecDeque<(AgentName, Option<AgentId>)>,
    /// Agents of an earlier broker process that was killed: their mail waits at the engine.
    absent: HashMap<AgentName, AgentId>,
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

/// The end of all agents.
struct Closing {
    /// Who waits for the last one.
    reply: Option<Reply<usize>>,
    /// How many there were.
    agents: usize,
    /// Each one's time before KILL.
    within: Duration,
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
        let past = journal.known_agents().into_iter().map(|(name, id)| (name, Some(id))).collect();
        let absent = journal.agents().into_iter().map(|agent| (agent.name, agent.agent)).collect();
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
            past,
            absent,
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

    /// Begins an agent's life, or refuses to.
    fn spawn(
        &mut self,
        spec: SpawnSpec,
        origin: Origin,
        reply: Option<Reply<Result<Spawned, SpawnRefused>>>,
        ctx: &mut Context<Self>,
    ) {
        let refused = if self.closing.is_some() {
            Some(SpawnRefused::Abandoned("the broker is shutting down".to_owned()))
        } else if self.agents.contains_key(&spec.name) {
            Some(SpawnRefused::NameTaken(spec.name.clone()))
        } else {
            None
        };
        if let Some(refused) = refused {
            self.answer_spawn(&origin, &spec.name, reply, Err(refused));
            return;
        }
        let spec = self.with_left_session(spec);
        let name = spec.name.clone();
        let (saga, first) = Saga::begin();
        self.births = self.births.next();
        let entry = Entry {
            birth: self.births,
            saga,
            spec,
            origin,
            since: SystemTime::now(),
            reply,
            releases: Vec::new(),
            registration: None,
            rooms: None,
            started: None,
            session: None,
            result_token: None,
            warning: None,
            quarantined: false,
            history: restart::History::default(),
            restarts: 0,
            gave_up: None,
            was_ready: false,
            stillness: None,
            claimed: false,
        };
        self.agents.insert(name.clone(), entry);
        self.perform(&name, first, ctx);
    }

    /// All live agents, to the session: a projection, sent whole at every change.
    fn publish_inventory(&self) {
        let live = |entry: &Entry| {
            let registration = entry.registration.as_ref()?;
            let here = matches!(
                entry.saga.phase(),
                Phase::Starting | Phase::Live | Phase::Resting | Phase::Releasing
            );
            (here && !entry.claimed).then(|| InventoryItem {
                agent_id: registration.agent_id.clone(),
                name: entry.spec.name.clone(),
                invocation: match &entry.origin {
                    // A sidecar's spawn is no result yet.
                    Origin::Engine(id) if entry.saga.phase() == Phase::Starting => Some(id.clone()),
                    _ => None,
                },
                session_ref: entry.session_ref().cloned(),
            })
        };
        let agents = self.agents.values().filter_map(live).collect();
        // A session that restarts keeps the last one.
        self.doors.inventory.tell(SetInventory { agents, invoking: self.running.any() }).ok();
    }

    fn publish(&self, event: Event) {
        // The hub outlives the registry.
        self.doors.publish.tell(Publish(event)).ok();
    }

    fn past_id(&self, name: &AgentName) -> Option<AgentId> {
        self.past.iter().find(|(past, _)| past == name).and_then(|(_, id)| id.clone())
    }

    fn remember(&mut self, name: AgentName, id: Option<AgentId>) {
        if let Some(agent) = id.clone() {
            self.journal.append(Record::AgentKnown { agent, name: name.clone() });
        }
        self.past.retain(|(past, _)| *past != name);
        self.past.push_back((name, id));
        if self.past.len() > AGENTS_KNOWN_MAX {
            self.past.pop_front();
        }
    }

    fn closed_if_empty(&mut self) {
        if self.agents.is_empty()
            && let Some(closing) = &mut self.closing
            && let Some(reply) = closing.reply.take()
        {
            reply.send(closing.agents);
        }
    }

    fn view(entry: &Entry) -> AgentView {
        AgentView {
            spec: entry.spec.clone(),
            agent_id: entry.registration.as_ref().map(|registration| registration.agent_id.clone()),
            phase: match entry.saga.phase() {
                _ if entry.quarantined => AgentPhase::Quarantined,
                Phase::Checking | Phase::Registering => AgentPhase::Registering,
                Phase::Starting => AgentPhase::Starting,
                Phase::Live => AgentPhase::Live,
                Phase::Resting => AgentPhase::Restarting,
                Phase::Releasing | Phase::Gone => AgentPhase::Releasing,
            },
            pid: entry.started.as_ref().map(|started| started.pid),
            session: entry.session_ref().cloned(),
            since: entry.since,
            worker: entry.rooms.as_ref().map(|rooms| Arc::clone(&rooms.view)),
        }
    }

    fn report(&self) {
        let count = |phase| self.agents.values().filter(|entry| entry.saga.phase() == phase).count();
        self.life.state(format!("{} live", count(Phase::Live)));
        self.life.detail(Detail::Facts(vec![
            ("live", count(Phase::Live).to_string()),
            (
                "starting",
                (count(Phase::Checking) + count(Phase::Registering) + count(Phase::Starting)).to_string(),
            ),
            ("releasing", count(Phase::Releasing).to_string()),
            ("absent", self.absent.len().to_string()),
            ("spawned", self.births.to_string()),
            ("crashed", self.crashes.to_string()),
            ("restarted", self.restarts.to_string()),
            ("sidecar", self.sidecar.name().to_owned()),
            ("handlers", self.sidecar.offered_names()),
            ("calls", self.running.calls().to_string()),
        ]));
    }
}

impl Actor for AgentRegistry {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.life.started();
        for (name, agent_id) in &self.absent {
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

impl Handler<Spawn> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, spawn: Spawn, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.spawn(spawn.spec, spawn.origin, Some(spawn.reply), ctx);
    }
}

impl Handler<Release> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, release: Release, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.release(release, ctx);
    }
}

impl AgentRegistry {
    fn release(&mut self, release: Release, ctx: &mut Context<Self>) {
        let Release { name, reason, force, reply } = release;
        let Some(entry) = self.agents.get_mut(&name) else {
            let ended = self.past.iter().any(|(past, _)| *past == name);
            let known = ended || self.forget_absent(&name);
            // Whoever stopped waiting knows where to look.
            reply.send(if known { Released::AlreadyGone } else { Released::Unknown });
            return;
        };
        info!(agent = %name, reason = reason.as_deref().unwrap_or("none given"), force, "releasing");
        entry.releases.push(reply);
        let birth = entry.birth;
        self.happen(&name, birth, Happened::ReleaseAsked { force, by: EndedBy::Release }, ctx);
    }

    /// Gives up the mail of an agent that an earlier broker process left behind.
    fn forget_absent(&mut self, name: &AgentName) -> bool {
        let Some(agent_id) = self.absent.remove(name) else { return false };
        self.journal.append(Record::AgentGone { agent: agent_id.clone() });
        // A session that is down says the same by leaving the agent out of its next sync.
        let gone = DeregisterAgent { agent_id: agent_id.clone(), name: name.clone() };
        self.doors.deregister.tell(gone).ok();
        self.remember(name.clone(), Some(agent_id));
        true
    }
}

impl Handler<ReleaseAll> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, all: ReleaseAll, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let ReleaseAll { within, reply } = all;
        self.closing = Some(Closing { reply: Some(reply), agents: self.agents.len(), within });
        let names: Vec<_> = self.agents.iter().map(|(name, entry)| (name.clone(), entry.birth)).collect();
        for (name, birth) in names {
            self.happen(&name, birth, Happened::ReleaseAsked { force: false, by: EndedBy::Shutdown }, ctx);
        }
        self.closed_if_empty();
    }
}

impl Handler<ChildExited> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, exited: ChildExited, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.child_ended(&exited.name, exited.birth, exited.exit, ctx);
    }
}

impl Handler<ListExits> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, list: ListExits, _: &mut Self::Context) {
        let _turn = self.life.turn();
        // Whoever asked went away.
        list.0.send(self.journal.exits());
    }
}

impl Handler<StateChanged> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, changed: StateChanged, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let StateChanged { name, birth, from, to, because, dialog } = changed;
        let Some(entry) = self.agents.get_mut(&name).filter(|entry| entry.birth == birth) else { return };
        if matches!(to, AgentState::Idle | AgentState::Working)
            && !std::mem::replace(&mut entry.was_ready, true)
        {
            let ready = Event::WorkerReady {
                name: name.clone(),
                runtime: "pty",
                provider: entry.started.as_ref().map(|started| started.harness.clone()).unwrap_or_default(),
                cli: entry.spec.program.clone(),
                model: entry.spec.model.clone(),
                session_id: entry.session_ref().map(ToString::to_string),
                pid: entry.rooms.as_ref().map(|rooms| rooms.view.pid.load(Ordering::Relaxed)),
            };
            self.publish(ready);
        }
        self.time_stillness(&name, to, ctx);
        self.publish(Event::AgentState { name, from, to, because, dialog });
    }
}

impl Handler<WorkerLost> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, lost: WorkerLost, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let WorkerLost { name, birth, actor, why } = lost;
        let Some(entry) = self.agents.get_mut(&name).filter(|entry| entry.birth == birth) else { return };
        entry.quarantined = true;
        entry.warning = Some(why);
        // A cursor that is gone costs the agent its mail, not its life; without its worker nobody holds its
        // terminal any more.
        if actor == ActorKind::PtyWorker {
            self.happen(&name, birth, Happened::Lost, ctx);
        }
    }
}

impl Handler<SessionUp> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, up: SessionUp, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.presence = Presence::Up;
        self.dialect = Some(up.dialect);
        for (name, birth) in std::mem::take(&mut self.waiting) {
            self.register_over_the_socket(name, birth, ctx);
        }
        self.node_name = Some(up.node_name.clone());
        self.readiness.set(Readiness::Live { node_id: up.node_id.clone(), node_name: up.node_name.clone() });
        info!(node = %up.node_name, id = %up.node_id, epoch = up.epoch.0, "node live at the engine");
    }
}

impl Handler<SessionDown> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, down: SessionDown, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.presence = Presence::Down;
        for (name, birth) in std::mem::take(&mut self.waiting) {
            self.offline(&name, birth, ctx);
        }
        let next = match down.retry_at {
            Some(at) => {
                let left = at.saturating_duration_since(std::time::Instant::now());
                format!("next try in {:.1} s", left.as_secs_f64())
            }
            None => "waits for a person: see `relay-broker actors`, then `relay-broker resume`".to_owned(),
        };
        self.readiness.set(Readiness::Offline { why: down.why, next });
    }
}

impl Handler<MarkRead> for AgentRegistry {
    type Result = ();

    /// On a 5.0 engine, and on our own, an ack is a read receipt already (spec/wire 4.3); newer ones are told
    /// by the agent's own token, beside everything else.
    fn handle(&mut self, read: MarkRead, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        if self.config.embedded || self.dialect != Some(Dialect::V6) {
            self.publish_read(read, "suppressed_duplicate", None);
            return;
        }
        let token =
            self.agents.get(&read.name).and_then(|entry| Some(entry.registration.as_ref()?.token.clone()));
        let Some(token) = token else {
            return self.publish_read(read, "failed", Some("the agent is gone".to_owned()));
        };
        if self.receipts == RECEIPTS_MAX {
            return self.publish_read(read, "failed", Some("too many are on their way".to_owned()));
        }
        self.receipts += 1;
        let (engine, message) = (self.engine.clone(), read.msg_id.clone());
        let marked = async move { engine.mark_read(&token, &message).await };
        ctx.spawn(marked.into_actor(self).map(|marked, registry, _| {
            registry.receipts = registry.receipts.saturating_sub(1);
            match marked {
                Ok(()) => registry.publish_read(read, "marked", None),
                Err(why) => registry.publish_read(read, "failed", Some(why)),
            }
        }));
    }
}

impl AgentRegistry {
    fn publish_read(&self, read: MarkRead, status: &'static str, reason: Option<String>) {
        let MarkRead { name, delivery_id, msg_id } = read;
        self.publish(Event::DeliveryReadAck { name, delivery_id, event_id: msg_id, status, reason });
    }
}

impl Handler<LocationConflict> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, _: LocationConflict, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let Some(node) = self.node_name.clone().filter(|_| !self.locating) else { return };
        self.locating = true;
        // Of now: one that is registered while the engine is asked is in no answer yet.
        let local = self.local();
        let engine = self.engine.clone();
        let asked = async move { engine.bound_here(&node).await };
        ctx.spawn(asked.into_actor(self).map(move |here, registry, ctx| {
            registry.locating = false;
            match here {
                Ok(here) => registry.detach(&claimed(&local, &here), ctx),
                // The next sync is refused as well, and asks again.
                Err(why) => warn!(why, "the engine does not say which agents live on this node"),
            }
        }));
    }
}

impl AgentRegistry {
    fn local(&self) -> Vec<Local> {
        let local = |(name, entry): (&AgentName, &Entry)| {
            let registration = entry.registration.as_ref().filter(|_| !entry.claimed)?;
            Some(Local {
                name: name.clone(),
                birth: entry.birth,
                agent_id: registration.agent_id.clone(),
                was_bound: entry.warning.is_none(),
            })
        };
        self.agents.iter().filter_map(local).collect()
    }

    /// Ends what lives on another node now, and leaves it out of the inventory at once.
    fn detach(&mut self, claimed: &[Local], ctx: &mut Context<Self>) {
        for Local { name, birth, .. } in claimed {
            let Some(entry) = self.agents.get_mut(name).filter(|entry| entry.birth == *birth) else {
                continue;
            };
            entry.claimed = true;
            warn!(agent = %name, "another node has claimed this agent, ending it here");
            self.publish(Event::AgentDetached { name: name.clone(), reason: "claimed_by_another_node" });
        }
        self.publish_inventory();
        for Local { name, birth, .. } in claimed {
            self.happen(name, *birth, Happened::ReleaseAsked { force: false, by: EndedBy::Release }, ctx);
        }
    }
}

impl Handler<Invoke> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, invoke: Invoke, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let Invoke { invocation, action } = invoke;
        let known = self.journal.invocation(&invocation);
        let RegistryConfig { cwd, channels, handlers, actions, .. } = &self.config;
        let defaults = Defaults { cwd, channels, handlers, actions, sidecar: &self.sidecar };
        match self.running.plan(&invocation, known, action, defaults) {
            Plan::Ignore => {}
            Plan::Repeat(result) => {
                // A session that is down is asked again by the engine.
                self.doors.invocation_ended.tell(InvocationEnded { invocation, result }).ok();
            }
            Plan::Fail(why) => self.answer_invocation(invocation, InvocationResult::Failed(why)),
            Plan::Unavailable => self.unavailable(invocation),
            Plan::Call(sidecar, call) => self.call(sidecar, call, ctx),
            Plan::Run { action, declared, input } => {
                info!(action, %invocation, "running a declared action");
                let kept = self.keep_result(&invocation, cut_short());
                let cwd = self.config.cwd.clone();
                let call = Call { action, invocation: invocation.clone(), declared, cwd, input };
                let written = self.journal.written(kept);
                let ran = async move {
                    // Before that record is in the kernel, a kill of this process would have the command run twice.
                    // A journal that has ended ends the house.
                    if let Some(Err(Unanswered)) = OptionFuture::from(written).await {
                        return cut_short();
                    }
                    command::run(call).await
                };
                ctx.spawn(ran.into_actor(self).map(move |result, registry, _| {
                    registry.answer_invocation(invocation, result);
                }));
            }
            Plan::Spawn(spec) => self.spawn(*spec, Origin::Engine(invocation), None, ctx),
            Plan::Release(name, reason) => {
                let (reply, released) = Reply::channel();
                let release = Release { name: name.clone(), reason, force: false, reply };
                self.release(release, ctx);
                ctx.spawn(released.into_actor(self).map(move |released, registry, _| {
                    let result = match released {
                        Ok(Released::Ended(_) | Released::AlreadyGone) => InvocationResult::Released { name },
                        Ok(Released::Overdue) => InvocationResult::Failed(
                            "release_failed: it did not end in time; look for its process on this node"
                                .to_owned(),
                        ),
                        Ok(Released::Unknown) => {
                            InvocationResult::Failed("release_failed: no such agent on this node".to_owned())
                        }
                        Err(Unanswered) => {
                            InvocationResult::Failed("release_failed: the registry restarted".to_owned())
                        }
                    };
                    registry.answer_invocation(invocation, result);
                }));
            }
        }
        self.publish_inventory();
    }
}

impl Handler<ListAgents> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, list: ListAgents, _: &mut Self::Context) {
        let _turn = self.life.turn();
        // Whoever asked went away.
        list.0.send(self.agents.values().map(Self::view).collect());
    }
}

impl Handler<FindAgent> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, find: FindAgent, _: &mut Self::Context) {
        let _turn = self.life.turn();
        let found = self.agents.get(&find.name).map_or(Found::Nobody, |entry| {
            let view = Self::view(entry);
            let Some(rooms) = &entry.rooms else { return Found::NoProgram(view.phase) };
            Found::Doors(Box::new(AgentDoors {
                view,
                input: rooms.input.clone(),
                resize: rooms.resize.clone(),
                snapshot: rooms.snapshot.clone(),
                answer: rooms.answer.clone(),
                cursor: rooms.cursor.clone(),
                hold: rooms.hold.clone(),
            }))
        });
        // Whoever asked went away.
        find.reply.send(found);
    }
}

impl Handler<SubmitResult> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, submit: SubmitResult, _: &mut Self::Context) {
        let _turn = self.life.turn();
        let SubmitResult { token, agent, data, is_final, metadata, reply } = submit;
        let is_its = |(name, entry): &(&AgentName, &Entry)| {
            let known = entry.result_token.as_ref().is_some_and(|own| own.is(token.expose().as_bytes()));
            known && agent.as_ref().is_none_or(|agent| name.as_str() == agent)
        };
        let taken = self.agents.iter().find(is_its).map(|(name, _)| {
            let (name, id) = (name.clone(), ResultId::random());
            info!(agent = %name, result = %id, is_final, "the agent has handed in a result");
            let (result_id, name) = (id.clone(), name.clone());
            self.publish(Event::AgentResult { name: name.clone(), result_id, data, is_final, metadata });
            ResultTaken { name, id }
        });
        // Whoever asked went away; it has been told.
        reply.send(taken);
    }
}

impl Handler<ListDeadLetters> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, list: ListDeadLetters, _: &mut Self::Context) {
        let _turn = self.life.turn();
        // Whoever asked went away.
        list.0.send(self.journal.dead_letters());
    }
}

impl Handler<RedeliverLetters> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, redeliver: RedeliverLetters, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let RedeliverLetters { which, reply } = redeliver;
        let wanted = |letter: &DeadLetter| match &which {
            Letters::All => true,
            Letters::Of(delivery) => letter.delivery == *delivery,
        };
        let tries: Vec<_> = self
            .journal
            .dead_letters()
            .into_iter()
            .filter(wanted)
            .map(|letter| self.redeliver(letter))
            .collect();
        // Whoever asked went away; the cursors go on all the same.
        ctx.spawn(join_all(tries).into_actor(self).map(|tried, _, _| {
            reply.send(tried);
        }));
    }
}

impl AgentRegistry {
    /// Hands a letter to the agent that has its name now, whoever had it then.
    fn redeliver(&self, letter: DeadLetter) -> impl Future<Output = Redelivery> + 'static {
        let (delivery, name) = (letter.delivery.clone(), letter.name.clone());
        let live = self.agents.get(&name).filter(|entry| entry.saga.phase() == Phase::Live);
        let answer = live
            .and_then(|entry| entry.rooms.as_ref())
            .map(|rooms| rooms.redeliver.ask(|reply| Redeliver { letter, reply }));
        async move {
            let outcome = match answer {
                // A cursor that was given up takes nothing any more.
                Some(answer) => answer.await.unwrap_or(Err(RedeliverRefused::NotLive)),
                None => Err(RedeliverRefused::NotLive),
            };
            Redelivery { delivery, name, outcome }
        }
    }
}

impl Handler<ChangeChannels> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, ask: ChangeChannels, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let ChangeChannels { name, change, channels, reply } = ask;
        let found =
            self.agents.get(&name).and_then(|entry| Some((entry.birth, entry.registration.as_ref()?)));
        let Some((birth, registration)) = found else {
            // Whoever asked went away.
            reply.send(Err(ChannelsRefused::NoSuchAgent(name)));
            return;
        };
        let channels: Vec<_> = channels.iter().map(|name| name.trim_start_matches('#').to_owned()).collect();
        let (engine, token, agent) = (self.engine.clone(), registration.token.clone(), name.clone());
        let changed = async move {
            let (done, result) = engine.change_channels(&agent, &token, change, &channels).await;
            (channels.into_iter().take(done).collect::<Vec<_>>(), result)
        };
        ctx.spawn(changed.into_actor(self).map(move |(changed, result), registry, _| {
            let entry = registry.agents.get_mut(&name).filter(|entry| entry.birth == birth);
            let answer = match entry {
                None => Err(ChannelsRefused::NoSuchAgent(name)),
                Some(entry) => {
                    entry.note_channels(change, changed);
                    result.map(|()| entry.spec.channels.clone())
                }
            };
            // Whoever asked went away; the list has it.
            reply.send(answer);
        }));
    }
}

impl Entry {
    /// The engine has changed these memberships.
    fn note_channels(&mut self, change: Membership, changed: Vec<String>) {
        let channels = &mut self.spec.channels;
        channels.retain(|known| !changed.iter().any(|one| one == known.trim_start_matches('#')));
        if change == Membership::Join {
            channels.extend(changed);
        }
    }
}

impl Handler<SendMessage> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, send: SendMessage, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let SendMessage { to, text, mode, thread, reply } = send;
        let engine = self.engine.clone();
        let sent = async move { engine.send(to, text, mode, thread).await };
        ctx.spawn(sent.into_actor(self).map(|sent, _, _| {
            // Whoever asked went away; the message is on its way all the same.
            reply.send(sent);
        }));
    }
}
