//! Agents that another node has claimed: the engine is asked which are still here, and the others are ended.

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use tracing::warn;

use super::{
    AgentRegistry, Entry,
    location::{Local, claimed},
    saga::Event as Happened,
};
use crate::{
    ids::AgentName,
    messages::{observe::Event, process::EndedBy, session::LocationConflict},
};

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
            let Some(entry) = self.of_birth(name, *birth) else {
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
