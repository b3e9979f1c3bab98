//! The offer of a sidecar's handlers: a further `node.register` on a session that is live.
//!
//! It goes beside the registration that a session begins with, which names what the node runs by itself. So an
//! engine that refuses a handler refuses that alone: the agents of this node stay connected.

use std::time::Instant;

use actix::{Context, Handler};
use tracing::{info, warn};

use super::NodeSession;
use crate::{
    messages::{
        Reply,
        session::{OfferRefused, SetOffer},
    },
    wire::frames::{EngineError, NodeRegistered, Reply as EngineReply},
};

/// A registration that is to be answered.
pub(super) struct Offering {
    id: String,
    pub(super) until: Instant,
    /// Absent when nobody waits: the session has made the offer anew.
    reply: Option<Reply<Result<(), OfferRefused>>>,
}

impl NodeSession {
    /// Tells the engine all that this node handles.
    pub(super) fn make_offer(&mut self, reply: Option<Reply<Result<(), OfferRefused>>>) {
        let id = self.request_id("node_register_offer");
        let (Some(grant), Some(dialect)) = (&self.grant, self.machine.dialect()) else { return };
        let frame = self.words.register_all(id.clone(), dialect, grant);
        let until = Instant::now() + self.timings.register;
        if let Some(link) = &mut self.link {
            // An offer that is replaced before its answer is nobody's any more.
            link.offering = Some(Offering { id, until, reply });
        }
        self.send(frame);
        // Its number of agents and whether it handles anything go with every beat.
        self.beat();
    }

    /// A reply that may be the offer's; true when it was.
    pub(super) fn offer_replied(&mut self, reply: &EngineReply) -> bool {
        if !self.offered_as(&reply.id) {
            return false;
        }
        let refused = reply.data::<NodeRegistered>().ok().and_then(|node| self.words.refused(&node));
        self.offer_ended(refused.map_or(Ok(()), Err));
        true
    }

    /// An error that may be the offer's; true when it was.
    pub(super) fn offer_errored(&mut self, error: &EngineError) -> bool {
        if !self.offered_as(&error.id) {
            return false;
        }
        let (code, message) = (error.code.clone(), error.message.clone());
        self.offer_ended(Err(OfferRefused::Engine { code, message }));
        true
    }

    pub(super) fn offer_on_time(&mut self, now: Instant) {
        let offering = self.link.as_ref().and_then(|link| link.offering.as_ref());
        if offering.is_some_and(|offering| offering.until <= now) {
            self.offer_ended(Err(OfferRefused::TimedOut));
        }
    }

    fn offered_as(&self, id: &str) -> bool {
        self.link.as_ref().and_then(|link| link.offering.as_ref()).is_some_and(|offering| offering.id == id)
    }

    fn offer_ended(&mut self, taken: Result<(), OfferRefused>) {
        let Some(offering) = self.link.as_mut().and_then(|link| link.offering.take()) else { return };
        match &taken {
            Ok(()) => info!(handlers = self.words.offered(), "the engine has taken what the sidecar handles"),
            Err(why) => {
                warn!(%why, "the engine has not taken what the sidecar handles");
                self.life.error(why.to_string());
            }
        }
        if let Some(reply) = offering.reply {
            // Whoever asked went away.
            reply.send(taken);
        }
        self.show();
    }
}

impl Handler<SetOffer> for NodeSession {
    type Result = ();

    fn handle(&mut self, set: SetOffer, ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        let changed = self.words.offer(set.offer);
        if !changed || !self.machine.is_live() {
            // Whoever asked went away.
            set.reply.send(Ok(()));
            return;
        }
        self.make_offer(Some(set.reply));
        self.arm(ctx);
    }
}
