//! How an agent becomes known at the engine: over the socket while it is up, over HTTP while it is not.
//!
//! Before the first session of this process there is nothing to fall back from: spawns wait for it for a while.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use tracing::info;

use super::{AgentRegistry, saga::Event as Happened};
use crate::{
    ids::{AgentId, AgentName, Birth},
    messages::{
        readiness::Readiness,
        session::{DeregisterAgent, RegisterAgent, RegisterRefused, Registration, SessionDown, SessionUp},
        spawn::Origin,
    },
};

/// How long a spawn waits for the first session of this process before it goes over HTTP.
const FIRST_SESSION: Duration = Duration::from_secs(5);

/// The session as the registry knows it. A session that waits for its next life reads no mail, so nothing is
/// asked of it unless it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// The first one is on its way.
    Coming,
    /// The node is live at the engine.
    Up,
    /// It ended; the next one comes by itself or not at all.
    Down,
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

impl AgentRegistry {
    pub(super) fn register(&mut self, name: AgentName, birth: Birth, ctx: &mut Context<Self>) {
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

    fn offline(&mut self, name: &AgentName, birth: Birth, ctx: &mut Context<Self>) {
        self.happen(name, birth, Happened::NotRegistered(RegisterRefused::Offline), ctx);
    }

    fn register_over_the_socket(&mut self, name: AgentName, birth: Birth, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get(&name) else { return };
        let invocation = match &entry.origin {
            Origin::Api => None,
            Origin::Engine(invocation) | Origin::Sidecar(invocation) => Some(invocation.clone()),
        };
        let known_id = self.former.id_of(&name);
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

    pub(super) fn register_over_http(&mut self, name: AgentName, birth: Birth, ctx: &mut Context<Self>) {
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
        match self.of_birth(name, birth) {
            Some(entry) => {
                entry.registration = Some(registration);
                entry.warning = warning;
            }
            None => self.deregister(registration.agent_id, name),
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
        let engine_asked = self.of_birth(name, birth).is_some_and(|entry| entry.origin != Origin::Api);
        let unbound = warning.clone().filter(|_| engine_asked);
        let registered = self.registered(name, birth, registration, warning);
        match unbound {
            Some(why) => Happened::NotBound { why },
            None => registered,
        }
    }

    pub(super) fn deregister(&self, agent_id: AgentId, name: &AgentName) {
        // A session that is down says the same by leaving the agent out of its next sync.
        self.doors.deregister.tell(DeregisterAgent { agent_id, name: name.clone() }).ok();
    }
}
