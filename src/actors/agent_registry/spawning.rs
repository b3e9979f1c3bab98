//! The way to a live agent, whoever asks for it: its directory is looked at, the engine is told of it, its rooms are
//! built, its program survives its first moments, and whoever asked is answered.

use std::{path::PathBuf, time::SystemTime};

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use futures_util::future::OptionFuture;
use tracing::{info, warn};

use super::{
    AgentRegistry, Entry,
    invocations::spawn_failure,
    restart,
    saga::{Event as Happened, Phase, Saga},
};
use crate::{
    ids::{AgentName, Birth, ResultToken},
    messages::{
        Reply, Unanswered,
        invoke::InvocationResult,
        observe::Event,
        spawn::{AgentEnv, BuildRooms, Origin, Spawn, SpawnRefused, SpawnSpec, Spawned, Started},
    },
    store::Record,
};

impl Handler<Spawn> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, spawn: Spawn, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.spawn(spawn.spec, spawn.origin, Some(spawn.reply), ctx);
    }
}

impl AgentRegistry {
    /// Begins an agent's life, or refuses to.
    pub(super) fn spawn(
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
        let entry = Entry::new(self.births, saga, spec, origin, reply);
        self.agents.insert(name.clone(), entry);
        self.perform(&name, first, ctx);
    }

    pub(super) fn check(&mut self, name: AgentName, birth: Birth, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get(&name) else { return };
        let cwd = entry.spec.cwd.clone();
        let looked = actix_rt::task::spawn_blocking(move || usable_directory(cwd));
        ctx.spawn(looked.into_actor(self).map(move |looked, registry, ctx| {
            let checked = looked
                .unwrap_or_else(|_| Err(SpawnRefused::Abandoned("the look at its directory failed".into())));
            registry.happen(&name, birth, Happened::Checked(checked), ctx);
        }));
    }

    pub(super) fn build(&mut self, name: AgentName, birth: Birth, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get_mut(&name) else { return };
        let Some(registration) = &entry.registration else { return };
        self.former.take_absent(&name);
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
                if let Some(entry) = registry.of_birth(&built, birth) {
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

    /// A program has survived its first moments: write that down before anybody hears of it.
    fn survived(&mut self, name: AgentName, birth: Birth, started: Started, ctx: &mut Context<Self>) {
        let Some(entry) = self.of_birth(&name, birth) else { return };
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
            let started = registry.of_birth(&name, birth).and_then(|entry| entry.started.clone());
            // A journal that has ended ends the house.
            if let (Some(started), None | Some(Ok(()))) = (started, written) {
                registry.happen(&name, birth, Happened::Survived(started), ctx);
            }
        }));
    }

    /// An agent lives: list it, join its channels, tell the world.
    pub(super) fn announce(&mut self, name: &AgentName, started: Started, ctx: &mut Context<Self>) {
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

    pub(super) fn answer_spawned(&mut self, name: &AgentName, started: Started) {
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
}

impl Entry {
    fn new(
        birth: Birth,
        saga: Saga,
        spec: SpawnSpec,
        origin: Origin,
        reply: Option<Reply<Result<Spawned, SpawnRefused>>>,
    ) -> Self {
        Self {
            birth,
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
        }
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
