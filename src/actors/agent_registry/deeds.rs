//! An agent's saga, told what happens and obeyed in what it asks for.
//!
//! Each deed that takes time comes back as an event of the saga, with the agent's birth: an answer about an
//! earlier agent of the same name changes nothing.

use actix::Context;

use super::{
    AgentRegistry,
    saga::{Effect, Event as Happened, Phase},
};
use crate::{
    ids::{AgentName, Birth},
    messages::spawn::CloseRooms,
    store::Record,
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
        let Some(entry) = self.of_birth(name, birth) else { return };
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
                    let registration = entry.registration.as_ref().filter(|_| !entry.claimed);
                    if let Some(agent_id) = registration.map(|registration| registration.agent_id.clone()) {
                        self.deregister(agent_id, name);
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
}
