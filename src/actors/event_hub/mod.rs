//! The numbered event stream behind `/ws`: what happened in the house, to whoever listens.
//!
//! Every event but the ephemeral ones gets the next number, is serialised once and kept in the [`ring`].
//! A subscriber is a position in that ring and a bounded feed. The feed is filled from the ring, so a
//! reader that falls behind costs no memory and holds nobody up: it reads on where it was, and if its place
//! has left the ring meanwhile, it finds an exact `replay_gap` instead.
//!
//! Terminal output has no number and no ring. A reader may be a bounded amount of it behind; what comes beyond
//! that is not for it, and it is told so by one `stream_gap` when it has read half of what it has. Then it
//! takes a snapshot and reads on. The terminals never wait.
//!
//! ```text
//! CaughtUp --feed full--> Waiting --half of the feed is free--> CaughtUp
//! Following --too far behind--> Losing --half is read, stream_gap--> Following
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
use tokio::sync::{
    Semaphore,
    mpsc::{self, error::TrySendError},
};
use tracing::{debug, error};

use self::ring::{Gap, Ring};
use crate::{
    ids::{AgentName, EventSeq},
    messages::observe::{
        FEED_CAP, Feed, Frame, OUTPUT_BEHIND_MAX, OUTPUT_CHUNK_MIN, Output, Publish, RING_CAP, Replay,
        Replayed, Subscribe,
    },
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
    feed: mpsc::Sender<Frame>,
    /// The last number it was given.
    position: EventSeq,
    /// Owed at its connect, before anything else.
    gap: Option<Gap>,
    /// Its feed is full; it is filled again when half of it is free.
    waiting: bool,
    /// Whose output it wants; `None` is everybody's.
    output_of: Option<AgentName>,
    /// What is left of [`OUTPUT_BEHIND_MAX`].
    output_room: Arc<Semaphore>,
    /// Chunks of output that it could not take, not yet told to it.
    lost: u64,
    /// It is too far behind to be told.
    losing: bool,
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

    /// Waits until a reader that loses output has read half of what it has, and tells it.
    fn await_reader(&mut self, id: u64, ctx: &mut Context<Self>) {
        let Some(reader) = self.subscribers.iter_mut().find(|reader| reader.id == id) else { return };
        reader.losing = true;
        let room = reader.output_room.clone();
        let caught_up = async move { room.acquire_many(OUTPUT_BEHIND_MAX / 2).await.map(drop).is_ok() };
        ctx.spawn(caught_up.into_actor(self).map(move |_, hub, ctx| {
            if let Some(reader) = hub.subscribers.iter_mut().find(|reader| reader.id == id) {
                reader.losing = false;
            }
            hub.fill(id, ctx);
        }));
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
            let lost = if self.losing { 0 } else { self.lost };
            if gap.is_none() && lost == 0 && next.is_none() {
                return Filled::CaughtUp;
            }
            let room = match self.feed.try_reserve() {
                Ok(room) => room,
                Err(TrySendError::Full(())) => return Filled::Full,
                Err(TrySendError::Closed(())) => return Filled::Gone,
            };
            if let Some(gap) = gap {
                room.send(of_text(frames::replay_gap(gap, boot_id)));
                self.gap = None;
                self.position = position;
                *gaps += 1;
            } else if lost > 0 {
                room.send(of_text(frames::stream_gap(lost)));
                self.lost = 0;
            } else if let Some(text) = next {
                room.send(of_text(text.clone()));
                self.position = position.next();
            }
        }
    }

    /// Hands over a chunk of output, or counts it as lost. Says whether it was handed over.
    fn offer(&mut self, text: &Arc<str>) -> bool {
        let size = u32::try_from(text.len()).unwrap_or(u32::MAX).max(OUTPUT_CHUNK_MIN);
        let room = || self.output_room.clone().try_acquire_many_owned(size).ok();
        let room = if self.waiting || self.lost > 0 { None } else { room() };
        let frame = room.map(|room| Frame { text: text.clone(), room: Some(room) });
        let taken = frame.is_some_and(|frame| self.feed.try_send(frame).is_ok());
        if !taken {
            self.lost += 1;
        }
        taken
    }
}

/// A frame that is no output.
fn of_text(text: Arc<str>) -> Frame {
    Frame { text, room: None }
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
            reader.losing = false;
        }
    }
}

impl Handler<Publish> for EventHub {
    type Result = ();

    fn handle(&mut self, Publish(event): Publish, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let Some(text) = text_of(frames::numbered(self.ring.next(), &event)) else { return };
        self.ring.push(text);
        self.fill_all(ctx);
    }
}

impl Handler<Output> for EventHub {
    type Result = ();

    fn handle(&mut self, output: Output, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let wants = |reader: &Subscriber| reader.output_of.as_ref().is_none_or(|name| *name == output.name);
        if !self.subscribers.iter().any(wants) {
            return;
        }
        let Some(text) = text_of(frames::output(&output)) else { return };
        let mut behind = Vec::new();
        for reader in self.subscribers.iter_mut().filter(|reader| wants(reader)) {
            if !reader.offer(&text) {
                self.stream_lost += 1;
                if !reader.losing {
                    behind.push(reader.id);
                }
            }
        }
        for id in behind {
            self.await_reader(id, ctx);
        }
    }
}

/// The text of a frame. An event that cannot be written as JSON is a bug, but not one that may end the hub.
fn text_of(frame: Result<Arc<str>, serde_json::Error>) -> Option<Arc<str>> {
    frame.inspect_err(|error| error!(%error, "event is not JSON, dropped")).ok()
}

impl Handler<Subscribe> for EventHub {
    type Result = ();

    fn handle(&mut self, subscribe: Subscribe, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let Subscribe { since, boot, output_of, reply } = subscribe;
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
        let output_room = Arc::new(Semaphore::new(OUTPUT_BEHIND_MAX as usize));
        self.subscribers.push(Subscriber {
            id,
            feed,
            position,
            gap,
            waiting: false,
            output_of,
            output_room,
            lost: 0,
            losing: false,
        });
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
