//! Messages held back for a person: the mode is set and asked for, what waits is listed, and let through.

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use tracing::info;

use super::{DeliveryCursor, book::Event, now};
use crate::messages::{
    Reply,
    delivery::CancelInjections,
    hold::{Flush, GetDeliveryMode, ListPending, ModeConflict, ModeSet, SetDeliveryMode},
    observe,
};

/// Who is told that messages are held, once the worker has given back what it had not begun.
pub(super) type Holder = (Reply<Result<ModeSet, ModeConflict>>, ModeSet);

impl Handler<SetDeliveryMode> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, ask: SetDeliveryMode, ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        self.set_mode(ask, ctx);
    }
}

impl Handler<GetDeliveryMode> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, ask: GetDeliveryMode, _ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        // One who gave up waiting needs no answer.
        ask.0.send(self.book.mode());
    }
}

impl Handler<ListPending> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, ask: ListPending, _ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        // One who gave up waiting needs no answer.
        ask.0.send(self.book.pending());
    }
}

impl Handler<Flush> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, flush: Flush, ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        self.flush(flush, ctx);
    }
}

impl DeliveryCursor {
    fn set_mode(&mut self, ask: SetDeliveryMode, ctx: &mut Context<Self>) {
        let SetDeliveryMode { mode, expect, reply } = ask;
        let at = now();
        let set = match self.book.set_mode(at, mode, expect, &mut self.out) {
            Ok(set) => set,
            Err(conflict) => {
                // Whoever stopped waiting has changed nothing.
                reply.send(Err(conflict));
                return;
            }
        };
        if set.previous != set.mode {
            info!(agent = %self.config.name, mode = %set.mode, flushed = set.flushed, "delivery mode set");
            let name = self.config.name.clone();
            self.publish(observe::Event::AgentInboundDeliveryModeChanged {
                name: name.clone(),
                previous_mode: set.previous,
                mode: set.mode,
            });
            if set.flushed > 0 {
                let (count, reason) = (set.flushed, "delivery_mode_transition");
                self.publish(observe::Event::AgentPendingDrained { name, count, reason });
            }
        }
        let mut holder = Some((reply, set));
        self.carry_out_for(&mut holder, at, ctx);
        if let Some((reply, set)) = holder {
            // Nothing was to be given back.
            reply.send(Ok(set));
        }
    }

    /// Asks the worker for what it has not begun, and tells whoever holds the messages back.
    pub(super) fn take_back(&mut self, holder: Option<Holder>, ctx: &mut Context<Self>) {
        let forgotten = self.doors.cancel.ask(|reply| CancelInjections { reply });
        ctx.spawn(forgotten.into_actor(self).map(move |forgotten, cursor, ctx| {
            // A worker that ended meanwhile is followed by another, which is asked again.
            cursor.step(Event::TakenBack(forgotten.unwrap_or_default()), ctx);
            if let Some((reply, set)) = holder {
                // Whoever stopped waiting reads the mode.
                reply.send(Ok(set));
            }
        }));
    }

    fn flush(&mut self, flush: Flush, ctx: &mut Context<Self>) {
        let at = now();
        let count = self.book.flush(at, flush.only.as_ref(), &mut self.out);
        if count > 0 {
            let (name, reason) = (self.config.name.clone(), "explicit_flush");
            self.publish(observe::Event::AgentPendingDrained { name, count, reason });
        }
        self.carry_out(at, ctx);
        // Whoever stopped waiting sees in the list what is left.
        flush.reply.send(count);
    }
}
