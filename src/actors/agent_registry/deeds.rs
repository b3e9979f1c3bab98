//! What a saga's effects come to: checking, registering, building, ending, announcing and burying an agent.
//!
//! Each deed that takes time comes back as an event of the saga, with the agent's birth: an answer about an
//! earlier agent of the same name changes nothing.

use std::{path::PathBuf, time::Duration};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use futures_util::future::OptionFuture;
use tracing::{info, warn};

use super::{
    AgentRegistry, Entry, FIRST_SESSION, Presence, RELEASE_LIMIT,
    invocations::spawn_failure,
    saga::{Effect, Event as Happened, Phase},
};
use crate::{
    ids::{AgentName, Birth, InvocationId, ResultToken},
    messages::{
        Reply, Unanswered,
        invoke::{InvocationEnded, InvocationResult},
        observe::Event,
        process::EndedBy,
        pty::Terminate,
        session::{DeregisterAgent, RegisterAgent, RegisterRefused, Registration},
        spawn::{AgentEnv, BuildRooms, CloseRooms, Origin, SpawnRefused, Spawned, Started},
    },
    store::{Record, Ticket},
    supervision::now_ms,
};

impl AgentRegistry {
    /// Takes an event into an agent's saga, if that agent is still the one it is about.
    pub(super) fn happen(
        &mut self,
        name: &AgentName,
        birth: Birth,
        event: Happened,
        ctx: &mut Context<Self>,
    ) {
        let Some(entry) = self.agents.get_mut(name).filter(|entry| entry.birth == birth) else { return };
        let effects = entry.saga.step(event);
        self.perform(name, effects, ctx);
    }

    /// Does what a saga asks for, in its order.
    pub(super) fn perform(&mut self, name: &AgentName, effects: Vec<Effect>, ctx: &mut Context<Self>) {
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
                Effect::CloseRooms { returns } => {
                    entry.result_token = None;
                    if let Some(registration) = &entry.registration {
                        let agent_id = registration.agent_id.clone();
                        let close = CloseRooms { name: name.clone(), agent_id, returns };
                        // The supervisor outlives the registry.
                        self.doors.close.tell(close).ok();
                    }
                }
                Effect::Terminate { force, by } => self.terminate(name, birth, force, by, ctx),
                Effect::Announce(started) => self.announce(name, started, ctx),
                Effect::Bury(exit) => self.bury(name, exit),
                Effect::Mourn { exit, delay } => self.mourn(name, exit, delay),
                Effect::Rest(delay) => self.rest(name.clone(), birth, delay, ctx),
                Effect::AnswerSpawn(Ok(started)) => self.answer_spawned(name, started),
                Effect::AnswerSpawn(Err(refused)) => {
                    let (reply, origin) = (entry.reply.take(), entry.origin.clone());
                    self.answer_spawn(&origin, name, reply, Err(refused));
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
            let (claimed, registration) =
                gone.map_or((false, None), |entry| (entry.claimed, entry.registration));
            let id = registration.map(|registration| registration.agent_id);
            if let Some(agent) = id.clone() {
                self.journal.append(Record::AgentGone { agent });
            }
            let id = id.filter(|_| !claimed);
            self.remember(name.clone(), id);
            self.publish_inventory();
            self.closed_if_empty();
        }
        self.report();
    }

    fn check(&mut self, name: AgentName, birth: Birth, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get(&name) else { return };
        let cwd = entry.spec.cwd.clone();
        let looked = actix_rt::task::spawn_blocking(move || usable_directory(cwd));
        ctx.spawn(looked.into_actor(self).map(move |looked, registry, ctx| {
            let checked = looked
                .unwrap_or_else(|_| Err(SpawnRefused::Abandoned("the look at its directory failed".into())));
            registry.happen(&name, birth, Happened::Checked(checked), ctx);
        }));
    }

    fn register(&mut self, name: AgentName, birth: Birth, ctx: &mut Context<Self>) {
        match self.presence {
            Presence::Up => self.register_over_the_socket(name, birth, ctx),
            Presence::Down => self.offline(&name, birth, ctx),
            Presence::Coming => {
                self.waiting.push((name.clone(), birth));
                ctx.run_later(FIRST_SESSION, move |registry, ctx| {
                    let waits = |waiting: &(AgentName, Birth)| waiting.1 == birth;
                    if let Some(at) = registry.waiting.iter().position(waits) {
                        registry.waiting.swap_remove(at);
                        registry.offline(&name, birth, ctx);
                    }
                });
            }
        }
    }

    pub(super) fn offline(&mut self, name: &AgentName, birth: Birth, ctx: &mut Context<Self>) {
        self.happen(name, birth, Happened::NotRegistered(RegisterRefused::Offline), ctx);
    }

    pub(super) fn register_over_the_socket(
        &mut self,
        name: AgentName,
        birth: Birth,
        ctx: &mut Context<Self>,
    ) {
        let Some(entry) = self.agents.get(&name) else { return };
        let invocation = match &entry.origin {
            Origin::Api => None,
            Origin::Engine(invocation) | Origin::Sidecar(invocation) => Some(invocation.clone()),
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

    fn register_over_http(&mut self, name: AgentName, birth: Birth, ctx: &mut Context<Self>) {
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
        birth: Birth,
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
        birth: Birth,
        registration: Registration,
        warning: Option<String>,
    ) -> Happened {
        let entry = self.agents.get(name).filter(|entry| entry.birth == birth);
        let engine_asked = entry.is_some_and(|entry| entry.origin != Origin::Api);
        let unbound = warning.clone().filter(|_| engine_asked);
        let registered = self.registered(name, birth, registration, warning);
        match unbound {
            Some(why) => Happened::NotBound { why },
            None => registered,
        }
    }

    fn build(&mut self, name: AgentName, birth: Birth, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get_mut(&name) else { return };
        let Some(registration) = &entry.registration else { return };
        self.absent.remove(&name);
        let (started, surviving) = Reply::channel();
        let spec = entry.spec_of_next_program();
        let relay_env = AgentEnv {
            token: registration.token.clone(),
            result_token: entry.result_token.insert(ResultToken::random()).clone(),
            result_url: self.config.result_url.clone(),
            base_url: self.config.endpoint.base_url().to_owned(),
            workspace: self.config.workspace.clone(),
        };
        let (agent_id, ack_seq) = (registration.agent_id.clone(), registration.ack_seq);
        let rooms = self.doors.build.ask(|reply| BuildRooms {
            agent_id,
            birth,
            spec,
            relay_env,
            ack_seq,
            started,
            reply,
        });
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
        ctx.spawn(surviving.into_actor(self).map(move |survived, registry, ctx| match survived {
            Ok(Ok(started)) => registry.survived(name, birth, started, ctx),
            Ok(Err(refused)) => registry.not_started(&name, birth, refused, ctx),
            Err(Unanswered) => {
                let why = "its terminal's worker failed while starting".to_owned();
                let event = Happened::NotStarted(SpawnRefused::Abandoned(why));
                registry.happen(&name, birth, event, ctx);
            }
        }));
    }

    fn terminate(
        &mut self,
        name: &AgentName,
        birth: Birth,
        force: bool,
        by: EndedBy,
        ctx: &mut Context<Self>,
    ) {
        let Some(rooms) = self.agents.get(name).and_then(|entry| entry.rooms.as_ref()) else { return };
        let closing = self.closing.as_ref().filter(|_| by == EndedBy::Shutdown);
        let within = closing.map(|closing| closing.within);
        let gone = rooms.terminate.tell(Terminate { by, force, within }).is_err();
        let name = name.clone();
        let (limit, event) =
            if gone { (Duration::ZERO, Happened::Lost) } else { (RELEASE_LIMIT, Happened::Overdue) };
        ctx.run_later(limit, move |registry, ctx| registry.happen(&name, birth, event, ctx));
    }

    /// A program has survived its first moments: write that down before anybody hears of it.
    fn survived(&mut self, name: AgentName, birth: Birth, started: Started, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get_mut(&name).filter(|entry| entry.birth == birth) else { return };
        entry.note_spawned_session(&started.harness);
        entry.started = Some(started);
        if let Some(live) = entry.live_agent() {
            self.journal.append(Record::AgentLive(live));
        }
        self.survived_on_record(name, birth, ctx);
    }

    /// True for an agent whose program has survived, which nobody was told yet.
    pub(super) fn awaits_record(&self, name: &AgentName) -> bool {
        let awaits = |entry: &Entry| entry.saga.phase() == Phase::Starting && entry.started.is_some();
        self.agents.get(name).is_some_and(awaits)
    }

    /// Goes on with an agent once a kill of this process cannot lose its record any more: to the next one it would be
    /// a stranger, and its mail would be acked unread.
    pub(super) fn survived_on_record(&mut self, name: AgentName, birth: Birth, ctx: &mut Context<Self>) {
        let written = OptionFuture::from(self.journal.written(self.journal.last_ticket()));
        ctx.spawn(written.into_actor(self).map(move |written, registry, ctx| {
            let entry = registry.agents.get(&name).filter(|entry| entry.birth == birth);
            let started = entry.and_then(|entry| entry.started.clone());
            // A journal that has ended ends the house.
            if let (Some(started), None | Some(Ok(()))) = (started, written) {
                registry.happen(&name, birth, Happened::Survived(started), ctx);
            }
        }));
    }

    /// An agent lives: list it, join its channels, tell the world.
    fn announce(&mut self, name: &AgentName, started: Started, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get_mut(name) else { return };
        let Some(registration) = entry.registration.clone() else { return };
        if entry.restarts > 0 {
            return self.announce_again(name, started.pid);
        }
        let spec = entry.spec.clone();
        let source = match entry.origin {
            Origin::Api => "api",
            Origin::Engine(_) => "engine",
            Origin::Sidecar(_) => "sidecar",
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

    fn answer_spawned(&mut self, name: &AgentName, started: Started) {
        let Some(entry) = self.agents.get_mut(name) else { return };
        let Some(registration) = &entry.registration else { return };
        let spawned = Spawned {
            name: name.clone(),
            agent_id: registration.agent_id.clone(),
            pid: started.pid,
            harness: started.harness,
            warning: entry.warning.clone(),
        };
        let (origin, reply) = (entry.origin.clone(), entry.reply.take());
        self.answer_spawn(&origin, name, reply, Ok(spawned));
    }

    pub(super) fn answer_spawn(
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

    pub(super) fn answer_invocation(&mut self, invocation: InvocationId, result: InvocationResult) {
        self.running.ended(&invocation);
        self.keep_result(&invocation, result.clone());
        // A session that is down is asked again by the engine, and answers from the journal.
        self.doors.invocation_ended.tell(InvocationEnded { invocation, result }).ok();
        self.publish_inventory();
    }

    /// From now on, and by the next broker process, the invocation is answered with this.
    pub(super) fn keep_result(&self, invocation: &InvocationId, result: InvocationResult) -> Ticket {
        let (invocation, at_ms) = (invocation.clone(), now_ms());
        self.journal.append(Record::InvocationEnded { invocation, result, at_ms })
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
