//! Which of our agents live elsewhere now.
//!
//! An `inventory.sync` that lists an agent which is active on another node is refused as a whole (spec/wire
//! 4.6): until that agent is found and dropped, none of the others is confirmed.

use std::collections::HashSet;

use crate::ids::{AgentId, AgentName, Birth};

/// A live agent of this broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) name: AgentName,
    /// Tells it from a later one of the same name.
    pub(super) birth: Birth,
    pub(super) agent_id: AgentId,
    /// The engine once said that it is bound to this node.
    pub(super) was_bound: bool,
}

/// An agent that the engine has on this node: its id and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) agent_id: AgentId,
    pub(super) name: String,
}

/// The agents that somebody else has claimed: those that the engine does not have here any more. One that was
/// never bound here is only waiting for the sync that binds it, so it is suspected last.
pub(super) fn claimed(local: &[Local], here: &[Bound]) -> Vec<Local> {
    let ids: HashSet<_> = here.iter().map(|bound| &bound.agent_id).collect();
    let names: HashSet<_> = here.iter().map(|bound| bound.name.as_str()).collect();
    let missing = |one: &&Local| !ids.contains(&one.agent_id) && !names.contains(one.name.as_str());
    let missing: Vec<_> = local.iter().filter(missing).collect();
    let any_was_bound = missing.iter().any(|one| one.was_bound);
    missing.into_iter().filter(|one| one.was_bound || !any_was_bound).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(name: &str, id: &str, was_bound: bool) -> Local {
        Local { name: AgentName::parse(name).unwrap(), birth: Birth(1), agent_id: id.into(), was_bound }
    }

    fn bound(id: &str, name: &str) -> Bound {
        Bound { agent_id: id.into(), name: name.to_owned() }
    }

    #[test]
    fn what_the_engine_does_not_have_here_is_claimed_and_what_was_never_bound_is_suspected_last() {
        let (ann, ben, cat) = (local("ann", "1", true), local("ben", "2", true), local("cat", "3", false));
        let all = [ann.clone(), ben.clone(), cat.clone()];
        for (local, here, gone) in [
            (&all[..], vec![bound("1", "ann"), bound("2", "ben"), bound("3", "cat")], vec![]),
            (&all[..], vec![bound("1", "ann")], vec!["ben"]),
            (&all[..], vec![], vec!["ann", "ben"]),
            (&all[2..], vec![bound("9", "eve")], vec!["cat"]),
            // By id or by name: an engine may list either in its own way.
            (&all[..2], vec![bound("1", ""), bound("x", "ben")], vec![]),
        ] {
            let names: Vec<_> = claimed(local, &here).iter().map(|one| one.name.to_string()).collect();
            assert_eq!(names, gone, "{here:?}");
        }
    }
}
