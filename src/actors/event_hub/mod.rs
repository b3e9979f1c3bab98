//! The numbered event stream behind `/ws`: what happened in the house, to whoever listens.
//!
//! Every event but the ephemeral ones gets the next number, is serialised once and kept in the [`ring`].
//! A subscriber is a position in that ring and a bounded feed. The feed is filled from the ring, so a
//! reader that falls behind costs no memory and holds nobody up: it reads on where it was, and if its place
//! has left the ring meanwhile, it finds an exact `replay_gap` instead. Ephemeral events (terminal output)
//! that it could not take are counted to it as one `stream_gap`.
//!
//! ```text
//! CaughtUp --feed full--> Waiting --half of the feed is free--> CaughtUp
//!      any --reader gone--> removed
//! ```
//!
//! A restart forgets nothing that readers rely on: ring, numbers and subscribers stay with the instance.

mod frames;
mod ring;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Supervised, WrapFuture};
use tokio::sync::mpsc::{self, error::TrySendError};
use tracing::{debug, error};

use self::ring::{Gap, Ring};
use crate::{
    ids::EventSeq,
    messages::observe::{FEED_CAP, Feed, Publish, RING_CAP, Replay, Replayed, Subscribe},
    supervision::{Detail, Lifeline},
};

/// The event hub.
pub struct EventHub {
    life: Lifeline,
    boot_id: Arc<str>,
    ring: Ring,
    subscribers: Vec<Subscriber>,
    /// Never reused, so that a late completion finds its subscriber or nobody.
    last_subscriber: u64,
    stream_wanted: Arc<AtomicUsize>,
    gaps: u64,
    stream_lost: u64,
}

/// One reader.
struct Subscriber {
    id: u64,
    feed: mpsc::Sender<Arc<str>>,
    /// The last number it was given.
    position: EventSeq,
    /// Owed at its connect, before anything else.
    gap: Option<Gap>,
    /// Ephemeral events that it could not take, not yet told to it.
    lost: u64,
    /// Its feed is full; it is filled again when half of it is free.
    waiting: bool,
}

/// What filling a feed came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    /// It has everything.
    CaughtUp,
    /// It is full, and more is owed.
    Full,
    /// Nobody reads it any more.
    Gone,
}

impl EventHub {
    /// A hub. `stream_wanted` is kept at the number of subscribers: while it is 0, workers need not publish
    /// terminal output. `boot_id` tells this process's numbers from another's.
    pub fn new(life: Lifeline, stream_wanted: Arc<AtomicUsize>, boot_id: Arc<str>) -> Self {
        Self {
            life,
            boot_id,
            ring: Ring::new(RING_CAP),
            subscribers: Vec::new(),
            last_subscriber: 0,
            stream_wanted,
            gaps: 0,
            stream_lost: 0,
        }
    }

    /// True when `boot` names another process than this one.
    fn is_foreign(&self, boot: Option<&str>) -> bool {
        boot.is_some_and(|boot| boot != &*self.boot_id)
    }

    /// What a reader that has `since` is owed.
    fn owed(&self, since: EventSeq, boot: Option<&str>) -> (Option<Gap>, EventSeq) {
        if self.is_foreign(boot) { self.ring.resume_foreign(since) } else { self.ring.resume(since) }
    }

    /// Gives every reader what it has room for.
    fn fill_all(&mut self, ctx: &mut Context<Self>) {
        let ids: Vec<u64> = self.subscribers.iter().map(|reader| reader.id).collect();
        for id in ids {
            self.fill(id, ctx);
        }
    }

    /// Gives one reader what it has room for, and waits for room if that was not all.
    fn fill(&mut self, id: u64, ctx: &mut Context<Self>) {
        let Some(reader) = self.subscribers.iter_mut().find(|reader| reader.id == id) else { return };
        if reader.waiting {
            return;
        }
        let gaps = self.gaps;
        match reader.fill(&self.ring, &self.boot_id, &mut self.gaps) {
            Filled::CaughtUp => {}
            Filled::Full => {
                reader.waiting = true;
                let feed = reader.feed.clone();
                let room = async move { feed.reserve_many(FEED_CAP / 2).await.map(drop).is_ok() };
                ctx.spawn(room.into_actor(self).map(move |alive, hub, ctx| {
                    if alive {
                        hub.room(id, ctx);
                    } else {
                        hub.remove(id);
                    }
                }));
            }
            Filled::Gone => self.remove(id),
        }
        if gaps != self.gaps {
            self.show();
        }
    }

    /// A reader has room again.
    fn room(&mut self, id: u64, ctx: &mut Context<Self>) {
        if let Some(reader) = self.subscribers.iter_mut().find(|reader| reader.id == id) {
            reader.waiting = false;
        }
        self.fill(id, ctx);
    }

    /// Notices when a reader goes, also while nothing happens.
    fn watch(&self, id: u64, ctx: &mut Context<Self>) {
        let Some(reader) = self.subscribers.iter().find(|reader| reader.id == id) else { return };
        let feed = reader.feed.clone();
        let gone = async move { feed.closed().await };
        ctx.spawn(gone.into_actor(self).map(move |(), hub, _| hub.remove(id)));
    }

    fn remove(&mut self, id: u64) {
        self.subscribers.retain(|reader| reader.id != id);
        self.show();
    }

    fn show(&self) {
        self.stream_wanted.store(self.subscribers.len(), Ordering::Release);
        self.life.state("serving");
        self.life.detail(Detail::Facts(vec![
            ("subscribers", self.subscribers.len().to_string()),
            ("behind", self.subscribers.iter().filter(|reader| reader.waiting).count().to_string()),
            ("replay_gaps", self.gaps.to_string()),
            ("stream_frames_lost", self.stream_lost.to_string()),
        ]));
    }
}

impl Subscriber {
    /// Moves what is owed from the ring into the feed while there is room.
    fn fill(&mut self, ring: &Ring, boot_id: &str, gaps: &mut u64) -> Filled {
        loop {
            let (gap, position) = match self.gap {
                Some(gap) => (Some(gap), self.position),
                None => ring.resume(self.position),
            };
            let next = ring.get(position.next());
            if gap.is_none() && self.lost == 0 && next.is_none() {
                return Filled::CaughtUp;
            }
            let room = match self.feed.try_reserve() {
                Ok(room) => room,
                Err(TrySendError::Full(())) => return Filled::Full,
                Err(TrySendError::Closed(())) => return Filled::Gone,
            };
            if let Some(gap) = gap {
                room.send(frames::replay_gap(gap, boot_id));
                self.gap = None;
                self.position = position;
                *gaps += 1;
            } else if self.lost > 0 {
                room.send(frames::stream_gap(self.lost));
                self.lost = 0;
            } else if let Some(text) = next {
                room.send(text.clone());
                self.position = position.next();
            }
        }
    }

    /// Hands over an ephemeral event, or counts it as lost. Says whether it was handed over.
    fn offer(&mut self, text: &Arc<str>) -> bool {
        let taken = !self.waiting && self.lost == 0 && self.feed.try_send(text.clone()).is_ok();
        if !taken {
            self.lost += 1;
        }
        taken
    }
}

impl Actor for EventHub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.life.started();
        // After a restart the futures of the former life are gone; their subscribers are not.
        let ids: Vec<u64> = self.subscribers.iter().map(|reader| reader.id).collect();
        for id in ids {
            self.watch(id, ctx);
            self.fill(id, ctx);
        }
        self.show();
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.life.stopped();
    }
}

impl Supervised for EventHub {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        self.life.restarting();
        for reader in &mut self.subscribers {
            reader.waiting = false;
        }
    }
}

impl Handler<Publish> for EventHub {
    type Result = ();

    fn handle(&mut self, Publish(event): Publish, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        if event.is_ephemeral() {
            if self.subscribers.is_empty() {
                return;
            }
            let Some(text) = text_of(frames::ephemeral(&event)) else { return };
            let lost_before = self.stream_lost;
            for reader in &mut self.subscribers {
                if !reader.offer(&text) {
                    self.stream_lost += 1;
                }
            }
            if lost_before != self.stream_lost {
                // Somebody's feed is full: wait for its room, so that its loss is told as soon as may be.
                self.fill_all(ctx);
            }
        } else {
            let Some(text) = text_of(frames::numbered(self.ring.next(), &event)) else { return };
            self.ring.push(text);
            self.fill_all(ctx);
        }
    }
}

/// The text of a frame. An event that cannot be written as JSON is a bug, but not one that may end the hub.
fn text_of(frame: Result<Arc<str>, serde_json::Error>) -> Option<Arc<str>> {
    frame.inspect_err(|error| error!(%error, "event is not JSON, dropped")).ok()
}

impl Handler<Subscribe> for EventHub {
    type Result = ();

    fn handle(&mut self, Subscribe { since, boot, reply }: Subscribe, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let (gap, position) = match since {
            Some(since) => self.owed(since, boot.as_deref()),
            None => (None, self.ring.current()),
        };
        let (feed, frames) = mpsc::channel(FEED_CAP);
        if !reply.send(Feed { frames }) {
            debug!("subscriber left before it was served");
            return;
        }
        self.last_subscriber += 1;
        let id = self.last_subscriber;
        self.subscribers.push(Subscriber { id, feed, position, gap, lost: 0, waiting: false });
        self.watch(id, ctx);
        self.fill(id, ctx);
        self.show();
    }
}

impl Handler<Replay> for EventHub {
    type Result = ();

    fn handle(&mut self, Replay { since, boot, reply }: Replay, _ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let (gap, position) = self.owed(since, boot.as_deref());
        // A reader that has gone needs no answer.
        reply.send(Replayed {
            events: self.ring.after(position).cloned().collect(),
            gap: gap.is_some(),
            oldest: self.ring.oldest(),
            current: self.ring.current(),
        });
    }
}

#[cfg(test)]
mod tests;
