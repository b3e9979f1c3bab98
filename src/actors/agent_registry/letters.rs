//! Dead letters: what could not be put in is listed, and tried again with the agent that has the name now.

use actix::{ActorFutureExt, AsyncContext, Handler, WrapFuture};
use futures_util::future::join_all;

use super::{AgentRegistry, saga::Phase};
use crate::{
    messages::dead_letter::{
        Letters, ListDeadLetters, Redeliver, RedeliverLetters, RedeliverRefused, Redelivery,
    },
    store::DeadLetter,
};

impl Handler<ListDeadLetters> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, list: ListDeadLetters, _: &mut Self::Context) {
        let _turn = self.life.turn();
        // Whoever asked went away.
        list.0.send(self.journal.dead_letters());
    }
}

impl Handler<RedeliverLetters> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, redeliver: RedeliverLetters, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let RedeliverLetters { which, reply } = redeliver;
        let wanted = |letter: &DeadLetter| match &which {
            Letters::All => true,
            Letters::Of(delivery) => letter.delivery == *delivery,
        };
        let tries: Vec<_> = self
            .journal
            .dead_letters()
            .into_iter()
            .filter(wanted)
            .map(|letter| self.redeliver(letter))
            .collect();
        // Whoever asked went away; the cursors go on all the same.
        ctx.spawn(join_all(tries).into_actor(self).map(|tried, _, _| {
            reply.send(tried);
        }));
    }
}

impl AgentRegistry {
    /// Hands a letter to the agent that has its name now, whoever had it then.
    fn redeliver(&self, letter: DeadLetter) -> impl Future<Output = Redelivery> + 'static {
        let (delivery, name) = (letter.delivery.clone(), letter.name.clone());
        let live = self.agents.get(&name).filter(|entry| entry.saga.phase() == Phase::Live);
        let answer = live
            .and_then(|entry| entry.rooms.as_ref())
            .map(|rooms| rooms.redeliver.ask(|reply| Redeliver { letter, reply }));
        async move {
            let outcome = match answer {
                // A cursor that was given up takes nothing any more.
                Some(answer) => answer.await.unwrap_or(Err(RedeliverRefused::NotLive)),
                None => Err(RedeliverRefused::NotLive),
            };
            Redelivery { delivery, name, outcome }
        }
    }
}
