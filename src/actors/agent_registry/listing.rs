//! What the registry shows: its agents to the engine and to whoever asks, and itself to the debug page.

use std::sync::Arc;

use actix::Handler;

use super::{AgentRegistry, Entry, saga::Phase};
use crate::{
    messages::{
        session::{InventoryItem, SetInventory},
        spawn::{AgentDoors, AgentPhase, AgentView, FindAgent, Found, ListAgents, Origin},
    },
    supervision::Detail,
};

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

impl AgentRegistry {
    /// All live agents, to the session: a projection, sent whole at every change.
    pub(super) fn publish_inventory(&self) {
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

    pub(super) fn report(&self) {
        let count = |phase| self.agents.values().filter(|entry| entry.saga.phase() == phase).count();
        self.life.state(format!("{} live", count(Phase::Live)));
        self.life.detail(Detail::Facts(vec![
            ("live", count(Phase::Live).to_string()),
            (
                "starting",
                (count(Phase::Checking) + count(Phase::Registering) + count(Phase::Starting)).to_string(),
            ),
            ("releasing", count(Phase::Releasing).to_string()),
            ("absent", self.former.absent().len().to_string()),
            ("spawned", self.births.to_string()),
            ("crashed", self.crashes.to_string()),
            ("restarted", self.restarts.to_string()),
            ("sidecar", self.sidecar.name().to_owned()),
            ("handlers", self.sidecar.offered_names()),
            ("calls", self.running.calls().to_string()),
        ]));
    }
}
