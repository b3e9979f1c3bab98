//! The agents of this node: one path to spawn and one to release, whoever asks.
//!
//! ```text
//! http ─Spawn─▶ registry ─RegisterAgent─▶ node_session      (over HTTP when the socket is down)
//!                        ─BuildRooms────▶ supervisor        (cursor, worker, route)
//!                        ◀─Started─────── pty_worker
//! http ◀─Spawned─
//! node_session ─Invoke─▶ the same path ─InvocationEnded─▶ node_session
//! ```
//!
//! What is to be done when is the [`saga`]'s decision; here it is done. An agent's token, id and ways to its
//! rooms live in its entry and die with it; no registration ever rotates a live agent's token.
//!
//! A restart keeps every live agent (the entries stay with the instance) and gives up what was under way:
//! the asker is told, and what had been begun is undone. An exit that was lost with the failed turn is found
//! in the worker's own view.

mod engine_side;
mod invocations;
mod location;
mod saga;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::PathBuf,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Supervised, WrapFuture};
use futures_util::future::join_all;
use tracing::{info, warn};

use self::{
    engine_side::EngineSide,
    invocations::{Defaults, Plan, Running, spawn_failure},
    location::{Local, claimed},
    saga::{Effect, Event as Happened, Phase, Saga},
};
use crate::{
    config::CommandLine,
    ids::{AgentId, AgentName, InvocationId, NodeName, WorkspaceId, WorkspaceKey},
    messages::{
        Reply, Unanswered,
        dead_letter::{Letters, ListDeadLetters, Redeliver, RedeliverLetters, RedeliverRefused, Redelivery},
        delivery::MarkRead,
        invoke::{InvocationEnded, InvocationResult, Invoke},
        lifecycle::ActorKind,
        observe::{Event, Publish},
        pty::{AgentState, ChildExited, EndedBy, ExitRecord, StateChanged, Terminate},
        readiness::{Readiness, ReadinessBoard},
        release::{Release, ReleaseAll, Released, WorkerLost},
        send::SendMessage,
        session::{
            Absent, DeregisterAgent, Dialect, InventoryItem, LocationConflict, RegisterAgent,
            RegisterRefused, Registration, SessionDown, SessionUp, SetInventory,
        },
        spawn::{
            AgentDoors, AgentEnv, AgentPhase, AgentView, BuildRooms, CloseRooms, FindAgent, ListAgents,
            Origin, Rooms, Spawn, SpawnRefused, SpawnSpec, Spawned, Started,
        },
    },
    store::{AGENTS_KNOWN_MAX, DeadLetter, Journal, LiveAgent, Record},
    supervision::{Detail, Lifeline, Post},
    wire::client::{EngineClient, EngineEndpoint},
};

/// An ended order that nothing came of for this long is taken as carried out; the ladder itself takes 7 s.
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
    /// Tells an agent from a later one of the same name.
    births: u64,
    /// Agents that ended by themselves, and not with code 0.
    crashes: u64,
    /// Agents that have ended, oldest first, with their ids at the engine.
    past: VecDeque<(AgentName, Option<AgentId>)>,
    /// Agents of an earlier broker process that was killed: their mail waits at the engine.
    absent: HashMap<AgentName, AgentId>,
    running: Running,
    presence: Presence,
    /// Spawns that wait for the first session.
    waiting: Vec<(AgentName, u64)>,
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
    birth: u64,
    saga: Saga,
    spec: SpawnSpec,
    origin: Origin,
    since: SystemTime,
    reply: Option<Reply<Result<Spawned, SpawnRefused>>>,
    releases: Vec<Reply<Released>>,
    registration: Option<Registration>,
    rooms: Option<Rooms>,
    started: Option<Started>,
    warning: Option<String>,
    quarantined: bool,
    /// Its first readiness was published.
    was_ready: bool,
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
        let engine = Rc::new(EngineSide::new(
            EngineClient::new(config.endpoint.clone()),
            config.workspace_key.clone(),
            config.instance.clone(),
            config.agent_type.clone(),
            config.identity_file.clone(),
        ));
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
            births: 0,
            crashes: 0,
            past,
            absent,
            running: Running::default(),
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
        let name = spec.name.clone();
        let (saga, first) = Saga::begin();
        self.births += 1;
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
            warning: None,
            quarantined: false,
            was_ready: false,
            claimed: false,
        };
        self.agents.insert(name.clone(), entry);
        self.perform(&name, first, ctx);
    }

    /// Takes an event into an agent's saga, if that agent is still the one it is about.
    fn happen(&mut self, name: &AgentName, birth: u64, event: Happened, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get_mut(name).filter(|entry| entry.birth == birth) else { return };
        let effects = entry.saga.step(event);
        self.perform(name, effects, ctx);
    }

    /// Does what a saga asks for, in its order.
    fn perform(&mut self, name: &AgentName, effects: Vec<Effect>, ctx: &mut Context<Self>) {
        for effect in effects {
            let Some(entry) = self.agents.get_mut(name) else { return };
            let birth = entry.birth;
            match effect {
                Effect::Check => self.check(name.clone(), birth, ctx),
                Effect::Register => self.register(name.clone(), birth, ctx),
                Effect::RegisterOverHttp => self.register_over_http(name.clone(), birth, ctx),
                Effect::Build => self.build(name.clone(), birth, ctx),
                Effect::Deregister => {
                    if let Some(registration) = entry.registration.as_ref().filter(|_| !entry.claimed) {
                        let agent_id = registration.agent_id.clone();
                        // A session that is down says the same by leaving the agent out of its next sync.
                        self.doors.deregister.tell(DeregisterAgent { agent_id, name: name.clone() }).ok();
                    }
                }
                Effect::CloseRooms(reason) => {
                    if let Some(registration) = &entry.registration {
                        let agent_id = registration.agent_id.clone();
                        let close = CloseRooms { name: name.clone(), agent_id, reason };
                        // The supervisor outlives the registry.
                        self.doors.close.tell(close).ok();
                    }
                }
                Effect::Terminate { force, by } => self.terminate(name, birth, force, by, ctx),
                Effect::Announce(started) => self.announce(name, started, ctx),
                Effect::Bury(exit) => self.bury(name, exit),
                Effect::AnswerSpawn(result) => {
                    let (reply, origin) = (entry.reply.take(), entry.origin.clone());
                    let result = result.map(|started| Spawned {
                        name: name.clone(),
                        agent_id: entry
                            .registration
                            .as_ref()
                            .map_or_else(|| AgentId::from(""), |registration| registration.agent_id.clone()),
                        pid: started.pid,
                        harness: started.harness,
                        warning: entry.warning.clone(),
                    });
                    self.answer_spawn(&origin, name, reply, result);
                }
                Effect::AnswerReleases(released) => {
                    for waiter in entry.releases.drain(..) {
                        // Whoever stopped waiting knows where to look.
                        waiter.send(released.clone());
                    }
                }
            }
        }
        if self.agents.get(name).is_some_and(|entry| entry.saga.phase() == Phase::Gone) {
            let gone = self.agents.remove(name);
            let gone = gone.filter(|entry| !entry.claimed);
            let id = gone.and_then(|entry| entry.registration).map(|registration| registration.agent_id);
            self.remember(name.clone(), id);
            self.publish_inventory();
            self.closed_if_empty();
        }
        self.report();
    }

    fn check(&mut self, name: AgentName, birth: u64, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get(&name) else { return };
        let cwd = entry.spec.cwd.clone();
        let looked = actix_rt::task::spawn_blocking(move || usable_directory(cwd));
        ctx.spawn(looked.into_actor(self).map(move |looked, registry, ctx| {
            let checked = looked
                .unwrap_or_else(|_| Err(SpawnRefused::Abandoned("the look at its directory failed".into())));
            registry.happen(&name, birth, Happened::Checked(checked), ctx);
        }));
    }

    fn register(&mut self, name: AgentName, birth: u64, ctx: &mut Context<Self>) {
        match self.presence {
            Presence::Up => self.register_over_the_socket(name, birth, ctx),
            Presence::Down => self.offline(&name, birth, ctx),
            Presence::Coming => {
                self.waiting.push((name.clone(), birth));
                ctx.run_later(FIRST_SESSION, move |registry, ctx| {
                    let waits = |waiting: &(AgentName, u64)| waiting.1 == birth;
                    if let Some(at) = registry.waiting.iter().position(waits) {
                        registry.waiting.swap_remove(at);
                        registry.offline(&name, birth, ctx);
                    }
                });
            }
        }
    }

    fn offline(&mut self, name: &AgentName, birth: u64, ctx: &mut Context<Self>) {
        self.happen(name, birth, Happened::NotRegistered(RegisterRefused::Offline), ctx);
    }

    fn register_over_the_socket(&mut self, name: AgentName, birth: u64, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get(&name) else { return };
        let invocation = match &entry.origin {
            Origin::Api => None,
            Origin::Engine(invocation) => Some(invocation.clone()),
        };
        let known_id = self.absent.get(&name).cloned().or_else(|| self.past_id(&name));
        let session_ref = entry.spec.session_ref.clone();
        let wanted = name.clone();
        let answer = self.doors.register.ask(|reply| RegisterAgent {
            name: wanted,
            invocation,
            session_ref,
            known_id,
            reply,
        });
        ctx.spawn(answer.into_actor(self).map(move |answer, registry, ctx| {
            // A session that restarts drops its questions: it is offline for now.
            let event = match answer.unwrap_or(Err(RegisterRefused::Offline)) {
                Ok(registration) => registry.registered(&name, birth, registration, None),
                Err(refused) => Happened::NotRegistered(refused),
            };
            registry.happen(&name, birth, event, ctx);
        }));
    }

    fn register_over_http(&mut self, name: AgentName, birth: u64, ctx: &mut Context<Self>) {
        let (engine, node) = (self.engine.clone(), self.node_name.clone());
        let asked = name.clone();
        let registered = async move { engine.register(&asked, node.as_ref()).await };
        ctx.spawn(registered.into_actor(self).map(move |registered, registry, ctx| {
            let event = match registered {
                Ok((registration, warning)) => {
                    registry.registered_over_http(&name, birth, registration, warning)
                }
                Err(why) => Happened::NodeOffline { why },
            };
            registry.happen(&name, birth, event, ctx);
        }));
    }

    /// Notes an agent's registration. One that comes too late is undone.
    fn registered(
        &mut self,
        name: &AgentName,
        birth: u64,
        registration: Registration,
        warning: Option<String>,
    ) -> Happened {
        match self.agents.get_mut(name).filter(|entry| entry.birth == birth) {
            Some(entry) => {
                entry.registration = Some(registration);
                entry.warning = warning;
            }
            None => {
                let agent_id = registration.agent_id;
                // A session that is down says the same by leaving the agent out of its next sync.
                self.doors.deregister.tell(DeregisterAgent { agent_id, name: name.clone() }).ok();
            }
        }
        Happened::Registered
    }

    /// A client reads the warning that an agent is not bound yet; an engine that is told "spawned" would take
    /// the agent for reachable.
    fn registered_over_http(
        &mut self,
        name: &AgentName,
        birth: u64,
        registration: Registration,
        warning: Option<String>,
    ) -> Happened {
        let entry = self.agents.get(name).filter(|entry| entry.birth == birth);
        let engine_asked = entry.is_some_and(|entry| matches!(entry.origin, Origin::Engine(_)));
        let unbound = warning.clone().filter(|_| engine_asked);
        let registered = self.registered(name, birth, registration, warning);
        match unbound {
            Some(why) => Happened::NotBound { why },
            None => registered,
        }
    }

    fn build(&mut self, name: AgentName, birth: u64, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get(&name) else { return };
        let Some(registration) = &entry.registration else { return };
        self.absent.remove(&name);
        let (started, surviving) = Reply::channel();
        let spec = entry.spec.clone();
        let relay_env = AgentEnv {
            token: registration.token.clone(),
            base_url: self.config.endpoint.base_url().to_owned(),
            workspace: self.config.workspace.clone(),
        };
        let (agent_id, ack_seq) = (registration.agent_id.clone(), registration.ack_seq);
        let rooms =
            self.doors.build.ask(|reply| BuildRooms { agent_id, spec, relay_env, ack_seq, started, reply });
        let built = name.clone();
        ctx.spawn(rooms.into_actor(self).map(move |rooms, registry, ctx| match rooms {
            Ok(rooms) => {
                if let Some(entry) = registry.agents.get_mut(&built).filter(|entry| entry.birth == birth) {
                    entry.rooms = Some(rooms);
                }
            }
            Err(Unanswered) => {
                let why = SpawnRefused::Abandoned("its rooms could not be built".to_owned());
                registry.happen(&built, birth, Happened::NotStarted(why), ctx);
            }
        }));
        ctx.spawn(surviving.into_actor(self).map(move |survived, registry, ctx| {
            let event = match survived {
                Ok(Ok(started)) => Happened::Survived(started),
                Ok(Err(refused)) => Happened::NotStarted(refused),
                Err(Unanswered) => Happened::NotStarted(SpawnRefused::Abandoned(
                    "its terminal's worker failed while starting".to_owned(),
                )),
            };
            registry.happen(&name, birth, event, ctx);
        }));
    }

    fn terminate(&mut self, name: &AgentName, birth: u64, force: bool, by: EndedBy, ctx: &mut Context<Self>) {
        let Some(rooms) = self.agents.get(name).and_then(|entry| entry.rooms.as_ref()) else { return };
        let closing = self.closing.as_ref().filter(|_| by == EndedBy::Shutdown);
        let within = closing.map(|closing| closing.within);
        let gone = rooms.terminate.tell(Terminate { by, force, within }).is_err();
        let name = name.clone();
        let limit = if gone { Duration::ZERO } else { RELEASE_LIMIT };
        ctx.run_later(limit, move |registry, ctx| {
            registry.happen(&name, birth, Happened::Overdue, ctx);
        });
    }

    /// An agent lives: write it down, list it, join its channels, tell the world.
    fn announce(&mut self, name: &AgentName, started: Started, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get_mut(name) else { return };
        let Some(registration) = entry.registration.clone() else { return };
        entry.started = Some(started.clone());
        self.journal.append(Record::AgentLive(LiveAgent {
            agent: registration.agent_id.clone(),
            name: name.clone(),
            spawn: started.spawn,
            pid: started.pid,
            started: started.at_tick,
        }));
        let spec = entry.spec.clone();
        let source = match entry.origin {
            Origin::Api => "api",
            Origin::Engine(_) => "engine",
        };
        info!(agent = %name, pid = started.pid, harness = %started.harness, source, "agent live");
        let event = Event::AgentSpawned {
            name: name.clone(),
            runtime: "pty",
            provider: started.harness,
            cli: spec.program.clone(),
            model: spec.model.clone(),
            session_id: spec.session_ref.as_ref().map(ToString::to_string),
            pid: Some(started.pid),
            source,
            pre_registered: true,
            registration_warning: entry.warning.clone(),
        };
        self.publish(event);
        self.publish_inventory();
        let (engine, agent) = (self.engine.clone(), name.clone());
        let joined = async move { engine.join(&agent, &registration.token, &spec.channels).await };
        ctx.spawn(joined.into_actor(self).map(|(), _, _| ()));
    }

    /// An agent that lived is gone: write it down, tell the world.
    fn bury(&mut self, name: &AgentName, exit: Option<ExitRecord>) {
        let Some(entry) = self.agents.get(name) else { return };
        let released =
            !entry.releases.is_empty() || exit.as_ref().is_some_and(|exit| exit.by != EndedBy::Itself);
        if let Some(registration) = &entry.registration {
            self.journal.append(Record::AgentGone { agent: registration.agent_id.clone() });
        }
        if let Some(exit) = exit {
            if exit.by == EndedBy::Itself && exit.code != Some(0) {
                self.crashes += 1;
            }
            info!(agent = %name, how = exit.how(), by = ?exit.by, uptime_ms = exit.uptime_ms, "agent ended");
            let reason = if released { "released" } else { "child_exited" };
            self.publish(Event::AgentExit { name: name.clone(), reason });
            self.publish(Event::AgentExited {
                name: name.clone(),
                code: exit.code,
                signal: exit.signal,
                reason,
                uptime_ms: exit.uptime_ms,
            });
        }
        if released {
            self.publish(Event::AgentReleased { name: name.clone() });
        }
    }

    fn answer_spawn(
        &mut self,
        origin: &Origin,
        name: &AgentName,
        reply: Option<Reply<Result<Spawned, SpawnRefused>>>,
        result: Result<Spawned, SpawnRefused>,
    ) {
        if let Err(refused) = &result {
            warn!(agent = %name, %refused, "agent not spawned");
        }
        if let Origin::Engine(invocation) = origin {
            let result = match &result {
                Ok(_) => InvocationResult::Spawned { name: name.clone() },
                Err(refused) => spawn_failure(refused),
            };
            self.answer_invocation(invocation.clone(), result);
        }
        if let Some(reply) = reply {
            // An asker that went away finds the agent in the list.
            reply.send(result);
        }
    }

    fn answer_invocation(&mut self, invocation: InvocationId, result: InvocationResult) {
        self.running.ended(&invocation);
        let at_ms = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        self.journal.append(Record::InvocationEnded {
            invocation: invocation.clone(),
            result: result.clone(),
            at_ms,
        });
        // A session that is down is asked again by the engine, and answers from the journal.
        self.doors.invocation_ended.tell(InvocationEnded { invocation, result }).ok();
        self.publish_inventory();
    }

    /// All live agents, to the session: a projection, sent whole at every change.
    fn publish_inventory(&self) {
        let live = |entry: &Entry| {
            let registration = entry.registration.as_ref()?;
            let here = matches!(entry.saga.phase(), Phase::Starting | Phase::Live | Phase::Releasing);
            (here && !entry.claimed).then(|| InventoryItem {
                agent_id: registration.agent_id.clone(),
                name: entry.spec.name.clone(),
                invocation: match &entry.origin {
                    Origin::Engine(id) if entry.saga.phase() == Phase::Starting => Some(id.clone()),
                    _ => None,
                },
                session_ref: entry.spec.session_ref.clone(),
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
                Phase::Releasing | Phase::Gone => AgentPhase::Releasing,
            },
            pid: entry.started.as_ref().map(|started| started.pid),
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
        ]));
    }
}

/// Looks at a working directory. Blocking.
fn usable_directory(cwd: PathBuf) -> Result<(), SpawnRefused> {
    let shown = cwd.display();
    if !cwd.is_absolute() {
        return Err(SpawnRefused::BadCwd(format!("the working directory `{shown}` must be absolute")));
    }
    match std::fs::metadata(&cwd) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(SpawnRefused::BadCwd(format!("the working directory `{shown}` is not a directory"))),
        Err(error) => Err(SpawnRefused::BadCwd(format!("the working directory `{shown}`: {error}"))),
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
        self.running.clear();
        self.waiting.clear();
        self.receipts = 0;
        self.locating = false;
        let all: Vec<_> = self.agents.iter().map(|(name, entry)| (name.clone(), entry.birth)).collect();
        for (name, birth) in all {
            let exit = self.agents.get(&name).and_then(|entry| {
                let view = &entry.rooms.as_ref()?.view;
                crate::supervision::lock(&view.detail).exit.clone()
            });
            match exit {
                Some(exit) => self.happen(&name, birth, Happened::ChildEnded(exit), ctx),
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
        let Release { name, reason, force, reply, .. } = release;
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
        let Some(entry) = self.agents.get(&exited.name) else { return };
        let birth = entry.birth;
        self.happen(&exited.name, birth, Happened::ChildEnded(exited.exit), ctx);
    }
}

impl Handler<StateChanged> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, changed: StateChanged, _: &mut Self::Context) {
        let _turn = self.life.turn();
        let StateChanged { name, from, to } = changed;
        if matches!(to, AgentState::Idle | AgentState::Working)
            && let Some(entry) = self.agents.get_mut(&name)
            && !std::mem::replace(&mut entry.was_ready, true)
        {
            let ready = Event::WorkerReady {
                name: name.clone(),
                runtime: "pty",
                provider: entry.started.as_ref().map(|started| started.harness.clone()).unwrap_or_default(),
                cli: entry.spec.program.clone(),
                model: entry.spec.model.clone(),
                session_id: entry.spec.session_ref.as_ref().map(ToString::to_string),
                pid: entry.rooms.as_ref().map(|rooms| rooms.view.pid.load(Ordering::Relaxed)),
            };
            self.publish(ready);
        }
        self.publish(Event::AgentState { name, from, to });
    }
}

impl Handler<WorkerLost> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, lost: WorkerLost, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let Some(entry) = self.agents.get_mut(&lost.name) else { return };
        entry.quarantined = true;
        entry.warning = Some(lost.why);
        // A cursor that is gone costs the agent its mail, not its life; without its worker nobody holds its
        // terminal any more.
        if lost.actor == ActorKind::PtyWorker {
            let birth = entry.birth;
            self.happen(&lost.name, birth, Happened::Overdue, ctx);
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
        let RegistryConfig { cwd, channels, handlers, .. } = &self.config;
        let defaults = Defaults { cwd, channels, handlers };
        match self.running.plan(&invocation, known, action, defaults) {
            Plan::Ignore => {}
            Plan::Repeat(result) => {
                // A session that is down is asked again by the engine.
                self.doors.invocation_ended.tell(InvocationEnded { invocation, result }).ok();
            }
            Plan::Fail(why) => self.answer_invocation(invocation, InvocationResult::Failed(why)),
            Plan::Spawn(spec) => self.spawn(*spec, Origin::Engine(invocation), None, ctx),
            Plan::Release(name, reason) => {
                let (reply, released) = Reply::channel();
                let origin = Origin::Engine(invocation.clone());
                let release = Release { name: name.clone(), reason, origin, force: false, reply };
                self.release(release, ctx);
                ctx.spawn(released.into_actor(self).map(move |released, registry, _| {
                    let result = match released {
                        Ok(Released::Ended(_) | Released::AlreadyGone) => InvocationResult::Released { name },
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
        let doors = self.agents.get(&find.name).and_then(|entry| {
            let rooms = entry.rooms.as_ref()?;
            Some(AgentDoors {
                view: Self::view(entry),
                input: rooms.input.clone(),
                resize: rooms.resize.clone(),
                snapshot: rooms.snapshot.clone(),
                cursor: rooms.cursor.clone(),
            })
        });
        // Whoever asked went away.
        find.reply.send(doors);
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
