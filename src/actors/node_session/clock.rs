//! What falls due: signs of life, replays, registrations without a reply, and the one timer for all of it.

use std::time::Instant;

use actix::{AsyncContext, Context};
use tracing::warn;

use super::{NodeSession, ROOM_CHECK, phase::Event, replay::Facts};
use crate::messages::session::RegisterRefused;

impl NodeSession {
    pub(super) fn facts(&self) -> Facts {
        Facts { outstanding: self.routes.outstanding(), invoking: self.invoking }
    }

    /// Sends a sync if one is due.
    pub(super) fn pump(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let facts = self.facts();
        if self.machine.is_live() && self.link.as_ref().is_some_and(|link| link.replay.is_due(now, facts)) {
            self.sync(now);
        }
        self.arm(ctx);
    }

    pub(super) fn on_time(&mut self, ctx: &mut Context<Self>) {
        self.timer = None;
        self.step(ctx, Event::Time);
        let now = Instant::now();
        if self.machine.is_live() {
            self.live_on_time(ctx, now);
        }
        if self.show_at.is_some_and(|at| at <= now) {
            self.show();
        }
        self.pump(ctx);
    }

    pub(super) fn live_on_time(&mut self, ctx: &mut Context<Self>, now: Instant) {
        let Some(link) = &mut self.link else { return };
        if link.pulse.is_silent(now) {
            let why = format!("nothing was heard for {:?}", self.timings.silence);
            self.step(ctx, Event::Closed { reason: None, why });
            return;
        }
        if link.replay.is_dead(now) {
            let why = "the engine answers pings but not inventory.sync".to_owned();
            self.step(ctx, Event::Closed { reason: None, why });
            return;
        }
        for (name, waiter) in link.pending.expire(now) {
            warn!(agent = %name, "registration was not answered in time");
            waiter.asked.reply.send(Err(RegisterRefused::TimedOut));
        }
        if link.retry_at.is_some_and(|at| at <= now) {
            self.flush();
        }
        self.offer_on_time(now);
        let Some(link) = &mut self.link else { return };
        if link.pulse.beat(now) {
            // A cursor may have dropped a frame unacked on its own.
            link.room_at.get_or_insert(now);
            self.beat();
        }
        self.look_for_room(now);
    }

    pub(super) fn look_for_room(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        if link.room_at.is_none_or(|at| at > now) {
            return;
        }
        // Every lane is asked: each says yes once.
        let wants = self.routes.lanes().filter(|lane| lane.wants_replay()).count() > 0;
        if wants {
            link.replay.room(now);
        }
        let owed = self.routes.lanes().any(|lane| lane.owes_replay());
        link.room_at = owed.then_some(now + ROOM_CHECK);
    }

    /// Sets the one timer to whatever comes first.
    pub(super) fn arm(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let live = self.machine.is_live();
        let of_link = self.link.as_ref().filter(|_| live).map(|link| {
            let facts = self.facts();
            let offered = link.offering.as_ref().map(|offering| offering.until);
            [link.pending.deadline(), link.retry_at, link.room_at, offered]
                .into_iter()
                .flatten()
                .fold(link.pulse.deadline().min(link.replay.deadline(now, facts)), Instant::min)
        });
        let Some(at) = [self.machine.deadline(), of_link, self.show_at].into_iter().flatten().min() else {
            return;
        };
        if let Some((set, handle)) = self.timer {
            if set <= at {
                // It fires early at worst, and sets itself anew.
                return;
            }
            ctx.cancel_future(handle);
        }
        let handle = ctx.run_later(at.saturating_duration_since(now), |this, ctx| this.on_time(ctx));
        self.timer = Some((at, handle));
    }
}
