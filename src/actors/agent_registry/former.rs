//! The agents that are not here, by name: those that have ended, and those that an earlier broker process left behind
//! when it was killed. The next agent of a name asks the engine for the same id.

use std::collections::{HashMap, VecDeque};

use crate::{
    ids::{AgentId, AgentName},
    store::{AGENTS_KNOWN_MAX, LiveAgent},
};

/// Each name stands here once among the ended, and once among the absent.
#[derive(Debug)]
pub(super) struct Former {
    /// Oldest first. One without an id was never registered, or lives on another node.
    ended: VecDeque<(AgentName, Option<AgentId>)>,
    /// Their mail waits at the engine.
    absent: HashMap<AgentName, AgentId>,
}

impl Former {
    /// As the journal tells it.
    pub(super) fn new(ended: Vec<(AgentName, AgentId)>, live: Vec<LiveAgent>) -> Self {
        Self {
            ended: ended.into_iter().map(|(name, id)| (name, Some(id))).collect(),
            absent: live.into_iter().map(|agent| (agent.name, agent.agent)).collect(),
        }
    }

    /// Those that an earlier broker process left behind.
    pub(super) fn absent(&self) -> &HashMap<AgentName, AgentId> {
        &self.absent
    }

    /// The id that the next agent of this name is to have.
    pub(super) fn id_of(&self, name: &AgentName) -> Option<AgentId> {
        let ended = || self.ended.iter().find(|(ended, _)| ended == name).and_then(|(_, id)| id.clone());
        self.absent.get(name).cloned().or_else(ended)
    }

    /// True when an agent of this name was here and has ended.
    pub(super) fn has_ended(&self, name: &AgentName) -> bool {
        self.ended.iter().any(|(ended, _)| ended == name)
    }

    /// It is not absent any more: another is to take its place, or its mail is given up.
    pub(super) fn take_absent(&mut self, name: &AgentName) -> Option<AgentId> {
        self.absent.remove(name)
    }

    /// Another one has ended. The oldest is forgotten beyond [`AGENTS_KNOWN_MAX`].
    pub(super) fn ended(&mut self, name: AgentName, id: Option<AgentId>) {
        self.ended.retain(|(ended, _)| *ended != name);
        self.ended.push_back((name, id));
        if self.ended.len() > AGENTS_KNOWN_MAX {
            self.ended.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::name;

    #[test]
    fn the_newest_agent_of_a_name_says_which_id_the_next_one_has() {
        let mut former = Former::new(vec![(name("ann"), "1".into())], Vec::new());
        former.absent.insert(name("ben"), "2".into());
        former.ended(name("ben"), Some("3".into()));
        assert_eq!(former.id_of(&name("ann")), Some("1".into()));
        assert_eq!(former.id_of(&name("ben")), Some("2".into()), "it was live when its broker was killed");
        former.take_absent(&name("ben"));
        assert_eq!(former.id_of(&name("ben")), Some("3".into()));
        former.ended(name("ben"), None);
        assert_eq!(former.id_of(&name("ben")), None);
        assert!(former.has_ended(&name("ben")) && !former.has_ended(&name("cat")));
    }

    #[test]
    fn of_many_names_the_one_that_ended_first_is_forgotten() {
        let mut former = Former::new(Vec::new(), Vec::new());
        for n in 0..AGENTS_KNOWN_MAX {
            former.ended(name(&format!("a{n}")), None);
        }
        former.ended(name("a0"), None);
        former.ended(name("last"), None);
        assert!(former.has_ended(&name("a0")) && !former.has_ended(&name("a1")));
    }
}
