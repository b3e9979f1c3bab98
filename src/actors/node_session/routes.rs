//! Whose frames go where.
//!
//! By agent id; by name only when a frame's id is unknown. An agent that is ours but has no cursor now (it was
//! just registered, or its process is gone for the moment) keeps its place: its frames are left unacked, and
//! that some were left is remembered until its route comes. Everybody else is a stranger.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    ids::{AgentId, AgentName, Epoch},
    messages::{
        delivery::{EpochStarted, Lane},
        session::Route,
    },
};

/// Strangers that are remembered, so that each is warned about once.
const STRANGERS_MAX: usize = 1024;

/// The routing table. Survives sockets and restarts.
#[derive(Debug, Default)]
pub(super) struct Routes {
    by_id: HashMap<AgentId, Place>,
    by_name: HashMap<String, AgentId>,
    strangers: HashSet<AgentId>,
}

#[derive(Debug)]
enum Place {
    Here(Route),
    Absent { name: AgentName, left: bool },
}

/// Where a frame goes.
#[derive(Debug)]
pub(super) enum Destination<'a> {
    /// To this cursor.
    Cursor(&'a Route),
    /// Nowhere now: it stays unacked.
    Absent,
    /// Nobody of ours.
    Stranger {
        /// It is the first frame for it.
        first: bool,
    },
}

impl Routes {
    /// An agent has a cursor. Says whether frames of it were left before.
    pub(super) fn put(&mut self, route: Route) -> bool {
        self.name(&route.name, &route.agent_id);
        let before = self.by_id.insert(route.agent_id.clone(), Place::Here(route));
        matches!(before, Some(Place::Absent { left: true, .. }))
    }

    /// An agent is ours and has no cursor for now. One that has keeps it.
    pub(super) fn expect(&mut self, agent_id: AgentId, name: AgentName) {
        if !self.by_id.contains_key(&agent_id) {
            self.absent(agent_id, name);
        }
    }

    /// An agent is ours and has no cursor any more. One that had may have let frames go with its program.
    pub(super) fn absent(&mut self, agent_id: AgentId, name: AgentName) {
        self.name(&name, &agent_id);
        let left =
            matches!(self.by_id.get(&agent_id), Some(Place::Here(_) | Place::Absent { left: true, .. }));
        self.by_id.insert(agent_id, Place::Absent { name, left });
    }

    /// An agent is not ours any more.
    pub(super) fn remove(&mut self, agent_id: &AgentId) {
        let Some(place) = self.by_id.remove(agent_id) else { return };
        let name = match &place {
            Place::Here(route) => &route.name,
            Place::Absent { name, .. } => name,
        };
        // The name may belong to a newer agent by now.
        if self.by_name.get(name.as_str()) == Some(agent_id) {
            self.by_name.remove(name.as_str());
        }
    }

    /// Removes an agent that has no cursor; one that has keeps its place.
    pub(super) fn forget_absent(&mut self, agent_id: &AgentId) {
        if matches!(self.by_id.get(agent_id), Some(Place::Absent { .. })) {
            self.remove(agent_id);
        }
    }

    /// True when the agent is ours.
    pub(super) fn knows(&self, agent_id: &AgentId) -> bool {
        self.by_id.contains_key(agent_id)
    }

    /// Where a frame for this id and name goes.
    pub(super) fn find(&mut self, agent_id: &AgentId, name: &str) -> Destination<'_> {
        let id = if self.by_id.contains_key(agent_id) { Some(agent_id) } else { self.by_name.get(name) };
        match id.and_then(|id| self.by_id.get_mut(id)) {
            Some(Place::Here(route)) => Destination::Cursor(route),
            Some(Place::Absent { left, .. }) => {
                *left = true;
                Destination::Absent
            }
            None => {
                if self.strangers.len() >= STRANGERS_MAX {
                    self.strangers.clear();
                }
                Destination::Stranger { first: self.strangers.insert(agent_id.clone()) }
            }
        }
    }

    /// Tells every cursor that a socket is live.
    pub(super) fn epoch_started(&self, epoch: Epoch) {
        for route in self.cursors() {
            // A cursor that was given up (quarantine) has nothing to ack.
            route.epochs.tell(EpochStarted { epoch }).ok();
        }
    }

    /// The room of an agent that has a cursor.
    pub(super) fn lane(&self, agent_id: &AgentId) -> Option<&Arc<Lane>> {
        match self.by_id.get(agent_id) {
            Some(Place::Here(route)) => Some(&route.lane),
            Some(Place::Absent { .. }) | None => None,
        }
    }

    /// The room of every agent.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.cursors().map(|route| &route.lane)
    }

    /// True while any delivery is held.
    pub(super) fn outstanding(&self) -> bool {
        self.lanes().any(|lane| lane.held().0 > 0)
    }

    /// Agents with a cursor.
    pub(super) fn len(&self) -> usize {
        self.cursors().count()
    }

    fn cursors(&self) -> impl Iterator<Item = &Route> {
        self.by_id.values().filter_map(|place| match place {
            Place::Here(route) => Some(route),
            Place::Absent { .. } => None,
        })
    }

    fn name(&mut self, name: &AgentName, agent_id: &AgentId) {
        self.by_name.insert(name.as_str().to_owned(), agent_id.clone());
    }
}
