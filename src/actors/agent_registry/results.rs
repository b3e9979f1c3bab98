//! The results that agents hand in: whose one is, its token says.

use actix::Handler;
use tracing::info;

use super::{AgentRegistry, Entry};
use crate::{
    ids::{AgentName, ResultId},
    messages::{
        observe::Event,
        result::{ResultTaken, SubmitResult},
    },
};

impl Handler<SubmitResult> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, submit: SubmitResult, _: &mut Self::Context) {
        let _turn = self.life.turn();
        let SubmitResult { token, agent, data, is_final, metadata, reply } = submit;
        let is_its = |(name, entry): &(&AgentName, &Entry)| {
            let known = entry.result_token.as_ref().is_some_and(|own| own.is(token.expose().as_bytes()));
            known && agent.as_ref().is_none_or(|agent| name.as_str() == agent)
        };
        let taken = self.agents.iter().find(is_its).map(|(name, _)| {
            let (name, id) = (name.clone(), ResultId::random());
            info!(agent = %name, result = %id, is_final, "the agent has handed in a result");
            let (result_id, name) = (id.clone(), name.clone());
            self.publish(Event::AgentResult { name: name.clone(), result_id, data, is_final, metadata });
            ResultTaken { name, id }
        });
        // Whoever asked went away; it has been told.
        reply.send(taken);
    }
}
