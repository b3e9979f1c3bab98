//! What is said to the engine: at once, or when it is back.

use std::time::Instant;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::{NodeSession, OWED_MAX, WRITER_RETRY, words};
use crate::wire::{frames::BrokerFrame, socket::SinkRefused};

impl NodeSession {
    pub(super) fn send(&mut self, frame: BrokerFrame) {
        if let Some(link) = &mut self.link {
            link.outbox.control(frame);
            self.flush();
        }
    }

    /// Sends when live, else keeps it for the next session.
    pub(super) fn send_or_owe(&mut self, frame: BrokerFrame) {
        if self.machine.is_live() {
            self.send(frame);
            return;
        }
        if self.owed.len() == OWED_MAX {
            self.owed.pop_front();
            self.tally.stale += 1;
        }
        self.owed.push_back(frame);
    }

    /// Offers the writer what waits.
    pub(super) fn flush(&mut self) {
        let Some(link) = &mut self.link else { return };
        let (sink, tally) = (&link.sink, &mut self.tally);
        let handed = link.outbox.drain(|frame| {
            sink.try_send(frame.encode())?;
            tally.sent(frame.kind());
            Ok(())
        });
        link.retry_at = match handed {
            Ok(()) => None,
            Err(SinkRefused::Full) => Some(Instant::now() + WRITER_RETRY),
            // The stream says how it ended.
            Err(SinkRefused::Closed) => None,
        };
    }

    /// Flushes once this turn's messages are through, so that their acks merge.
    pub(super) fn flush_soon(&mut self, ctx: &mut Context<Self>) {
        if let Some(link) = &mut self.link
            && !std::mem::replace(&mut link.flushing, true)
        {
            ctx.spawn(std::future::ready(()).into_actor(self).map(|(), this, ctx| {
                if let Some(link) = &mut this.link {
                    link.flushing = false;
                }
                this.flush();
                this.arm(ctx);
            }));
        }
    }

    pub(super) fn beat(&mut self) {
        let Some(dialect) = self.machine.dialect() else { return };
        let Some(link) = &self.link else { return };
        let frame = self.words.heartbeat(dialect, self.inventory.len());
        // Both fail only when the writer is stuck or gone, which ends the session by itself.
        if link.sink.try_send_urgent(frame.encode()).is_ok() {
            self.tally.sent(frame.kind());
        }
        link.sink.ping().ok();
    }

    pub(super) fn sync(&mut self, now: Instant) {
        let id = self.request_id("inventory_sync");
        let Some(link) = &mut self.link else { return };
        link.replay.sent(now, id.clone());
        let frame = words::inventory(id, &self.inventory);
        self.send(frame);
        for asker in self.replay_askers.drain(..) {
            asker.send(self.epoch);
        }
    }

    pub(super) fn request_id(&mut self, what: &str) -> String {
        self.requests += 1;
        format!("{what}_{}", self.requests)
    }
}
