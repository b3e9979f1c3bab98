//! All probes, by actor: the one place where the whole house can be looked at.

use std::sync::Arc;

use dashmap::DashMap;

use super::{Probe, ProbeView};
use crate::messages::lifecycle::ActorId;

/// The directory of probes. Cheap to clone; reading it never touches an actor.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    probes: Arc<DashMap<ActorId, Arc<Probe>>>,
}

impl Directory {
    /// Enters a probe, replacing one of the same id (a new agent of an old name).
    pub fn enter(&self, probe: Arc<Probe>) {
        self.probes.insert(probe.id().clone(), probe);
    }

    /// Removes this very probe. A newer one of the same id stays.
    pub fn leave(&self, probe: &Arc<Probe>) {
        self.probes.remove_if(probe.id(), |_, there| Arc::ptr_eq(there, probe));
    }

    /// One probe.
    pub fn get(&self, id: &ActorId) -> Option<Arc<Probe>> {
        self.probes.get(id).map(|entry| entry.value().clone())
    }

    /// Every actor as it is now, by kind and name.
    pub fn view(&self) -> Vec<ProbeView> {
        let mut all: Vec<_> = self.probes.iter().map(|entry| entry.value().clone()).collect();
        all.sort_by(|a, b| a.id().cmp(b.id()));
        all.iter().map(|probe| probe.view()).collect()
    }
}
