//! One agent's mailbox: what has come, what is in the terminal, what is on disk, what the engine was told.
//!
//! ```text
//! Deliver --in order--> ready --window--> Inject --rungs--> Proven --journal--> Journalled --> Ack
//!    \--beyond a gap--> held --250 ms--> RequestReplay --5 s--> the missing numbers are given up
//!    \--already known--> the current ack again
//! ```
//!
//! The numbers obey `acked <= journalled <= injected <= received`. The rules are in [`book`]; this shell
//! carries their effects out, and beside it stand what is said about messages that are [held back](holding) and
//! about dead [letters]. When the child is gone, what has no proof is dropped unacked: the engine keeps
//! it for the next process of this agent.
//!
//! A restart rebuilds the book from the journal and takes back what was held; whatever has no proof is handed
//! over once more under a new attempt, and a replay is asked for, because the message that was being handled
//! is lost. It remembers which delivery was in hand: one that is there at three panics becomes a dead letter.
//! A new cursor stands for a new process, so it takes no rung over from the journal: what stood in the old
//! composer is gone with it.

mod book;
mod facts;
mod gap;
mod holding;
mod letters;
mod marks;
#[cfg(test)]
mod model;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, Supervised, WrapFuture};
use tracing::{info, warn};

use self::{
    book::{Book, Effect, Event, Fact, Moment, Origin},
    holding::Holder,
    marks::Marks,
};
use crate::{
    ids::{AgentId, AgentName, DeliveryId, Epoch, Seq},
    messages::{
        Reply,
        dead_letter::DeadLetter,
        delivery::{
            Ack, CancelInjections, Deliver, Delivery, EpochStarted, FlushAcks, Inject, InjectReport,
            Journalled, Lane, MarkRead, ObserveCursor, RequestReplay, WorkerGone, WorkerUp,
        },
        hold::DeliveryMode,
        observe::{self, Publish},
    },
    store::{Journal, Ticket},
    supervision::{Detail, Lifeline, Post, now_ms},
};

/// Panics with the same delivery in hand before it is a dead letter.
const POISON_PANICS: u32 = 3;

/// Whose mailbox.
#[derive(Clone, Debug)]
pub struct CursorConfig {
    /// The agent.
    pub agent_id: AgentId,
    /// Its name: acks select by it.
    pub name: AgentName,
    /// Where its mailbox stands, when the engine said so.
    pub ack_seq: Option<Seq>,
}

/// Whom a cursor speaks to.
#[derive(Clone, Debug)]
pub struct CursorDoors {
    /// Into the terminal.
    pub inject: Post<Inject>,
    /// What is queued there and not begun is to be forgotten.
    pub cancel: Post<CancelInjections>,
    /// To the engine.
    pub ack: Post<Ack>,
    /// What is acked was read.
    pub read: Post<MarkRead>,
    /// Frames are missing.
    pub replay: Post<RequestReplay>,
    /// For everybody.
    pub publish: Post<Publish>,
}

/// One agent's mailbox. See the module.
pub struct DeliveryCursor {
    life: Lifeline,
    config: CursorConfig,
    journal: Journal,
    doors: CursorDoors,
    lane: Arc<Lane>,
    book: Book,
    /// Effects of the current turn.
    out: Vec<Effect>,
    /// What has to reach the disk yet.
    marks: Marks,
    /// The trace of the newest try.
    traced: Ticket,
    /// The journal was asked to tell.
    notified: bool,
    /// Who waits until nothing has to reach the disk any more.
    flushing: Vec<Reply<()>>,
    wake: Option<(Instant, SpawnHandle)>,
    /// What the current turn is about.
    in_hand: Option<Arc<Delivery>>,
    /// Panics by the delivery that was in hand.
    panics: HashMap<DeliveryId, u32>,
    condemned: HashSet<DeliveryId>,
    /// Dead letters that are being tried again, by the id of the new attempt.
    again: HashMap<DeliveryId, DeadLetter>,
    worker: Option<WorkerUp>,
    gone: Option<String>,
    /// A delivery that makes the rules panic.
    #[cfg(test)]
    poison: Option<DeliveryId>,
}

impl DeliveryCursor {
    /// A cursor for a fresh process of this agent. Frames come through `lane`.
    pub fn new(
        life: Lifeline,
        config: CursorConfig,
        journal: Journal,
        doors: CursorDoors,
        lane: Arc<Lane>,
    ) -> Self {
        let mut out = Vec::new();
        let mut known = journal.cursor(&config.agent_id);
        for attempt in known.unfinished.values_mut() {
            attempt.rung = None;
        }
        let book = Book::new(
            Origin {
                agent: config.agent_id.clone(),
                name: config.name.clone(),
                lane: lane.clone(),
                journal: known,
                ack_seq: config.ack_seq,
                condemned: HashSet::new(),
                worker: None,
                mode: DeliveryMode::default(),
                counts: book::Counts::default(),
            },
            &mut out,
        );
        let marks = Marks::after(journal.last_ticket());
        Self {
            life,
            config,
            journal,
            doors,
            lane,
            book,
            out,
            marks,
            traced: Ticket(0),
            notified: false,
            flushing: Vec::new(),
            wake: None,
            in_hand: None,
            panics: HashMap::new(),
            condemned: HashSet::new(),
            again: HashMap::new(),
            worker: None,
            gone: None,
            #[cfg(test)]
            poison: None,
        }
    }

    /// Charges the delivery that was in hand when this cursor panicked.
    fn charge(&mut self) {
        let Some(delivery) = self.in_hand.take() else { return };
        let panics = self.panics.entry(delivery.delivery_id.clone()).or_default();
        *panics += 1;
        if *panics >= POISON_PANICS {
            warn!(
                agent = %self.config.name, delivery = %delivery.delivery_id, panics,
                "a delivery keeps breaking its cursor, it becomes a dead letter"
            );
            self.condemned.insert(delivery.delivery_id.clone());
        }
    }

    fn rebuild(&mut self) {
        self.out.clear();
        self.wake = None;
        self.notified = false;
        self.marks = Marks::after(self.journal.last_ticket());
        let origin = Origin {
            agent: self.config.agent_id.clone(),
            name: self.config.name.clone(),
            lane: self.lane.clone(),
            journal: self.journal.cursor(&self.config.agent_id),
            ack_seq: self.config.ack_seq,
            condemned: self.condemned.clone(),
            worker: self.worker,
            mode: self.book.mode(),
            counts: self.book.counts(),
        };
        let book = Book::new(origin, &mut self.out);
        let held = std::mem::replace(&mut self.book, book).into_held();
        self.book.recall(now(), held, &mut self.out);
        if let Some(reason) = &self.gone {
            let gone = Event::WorkerGone { reason: reason.clone() };
            self.book.step(now(), gone, &mut self.out);
        }
    }

    /// One event through the rules, and what follows from it.
    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        #[cfg(test)]
        self.break_on_poison(&event);
        let at = now();
        self.book.step(at, event, &mut self.out);
        self.carry_out(at, ctx);
        self.in_hand = None;
    }

    fn carry_out(&mut self, at: Moment, ctx: &mut Context<Self>) {
        self.carry_out_for(&mut None, at, ctx);
    }

    /// As [`Self::carry_out`]; if the worker is asked to give something back, its answer is the holder's too,
    /// which is taken for it.
    fn carry_out_for(&mut self, holder: &mut Option<Holder>, at: Moment, ctx: &mut Context<Self>) {
        let mut effects = std::mem::take(&mut self.out);
        for effect in effects.drain(..) {
            self.carry_out_one(effect, holder, at, ctx);
        }
        self.out = effects;
        self.await_disk(ctx);
        self.set_wake(at, ctx);
        self.life.detail(Detail::Cursor(self.book.view()));
    }

    fn carry_out_one(
        &mut self,
        effect: Effect,
        holder: &mut Option<Holder>,
        at: Moment,
        ctx: &mut Context<Self>,
    ) {
        // None of these doors is closed while an agent lives; when one is, the house is ending, and what has
        // no ack is kept by the engine.
        match effect {
            Effect::Append(record) => {
                let ticket = self.journal.append(record);
                self.marks.appended(ticket);
            }
            Effect::Trace(record) => self.traced = self.journal.append(record),
            Effect::Inject(mut inject) => {
                // A try that the journal lost in a kill of this process would be repeated without a word of warning.
                inject.marked = self.journal.written(self.traced);
                self.doors.inject.tell(inject).ok();
            }
            Effect::TakeBack => self.take_back(holder.take(), ctx),
            Effect::Ack(up_to) => {
                let (agent_id, agent) = (self.config.agent_id.clone(), self.config.name.clone());
                self.doors.ack.tell(Ack { agent_id, agent, up_to }).ok();
            }
            Effect::RequestReplay => self.request_replay(ctx),
            Effect::Tell(delivery, fact) => {
                if let Fact::DeadLettered { reason, attempts } = &fact {
                    warn!(
                        agent = %self.config.name, delivery = %delivery.delivery_id, reason, attempts,
                        "delivery became a dead letter"
                    );
                }
                let ended = matches!(fact, Fact::Acked(_) | Fact::DeadLettered { .. });
                let proven = matches!(fact, Fact::Acked(_));
                facts::publish(&self.config.name, &delivery, fact, at.wall_ms, |event| self.publish(event));
                if proven && delivery.seq.0 != 0 {
                    let (name, delivery_id) = (self.config.name.clone(), delivery.delivery_id.clone());
                    let msg_id = delivery.msg_id.clone();
                    self.doors.read.tell(MarkRead { name, delivery_id, msg_id }).ok();
                }
                if ended && let Some(letter) = self.again.remove(&delivery.delivery_id) {
                    self.tried_again(letter, proven);
                }
            }
            Effect::Skipped { from, to } => {
                warn!(agent = %self.config.name, %from, %to, "messages never came, given up");
            }
            Effect::Unusable(delivery) => {
                warn!(
                    agent = %self.config.name, delivery = %delivery.delivery_id, seq = %delivery.seq,
                    content = ?delivery.content, "frame of an unknown kind acked and not shown"
                );
            }
            Effect::Dropped { count, reason } => {
                info!(agent = %self.config.name, count, reason, "deliveries left to the engine");
                self.publish(observe::Event::DeliveryDropped {
                    name: self.config.name.clone(),
                    count,
                    reason,
                });
            }
        }
    }

    fn publish(&self, event: observe::Event) {
        // Without a hub nobody listens.
        self.doors.publish.tell(Publish(event)).ok();
    }

    fn request_replay(&self, ctx: &mut Context<Self>) {
        let agent_id = self.config.agent_id.clone();
        let answer = self.doors.replay.ask(|reply| RequestReplay { agent_id, reply });
        let asked = answer.into_actor(self).map(|epoch: Result<Epoch, _>, cursor, ctx| {
            cursor.step(Event::ReplayAsked(epoch.ok()), ctx);
        });
        ctx.spawn(asked);
    }

    /// One question to the journal at a time, about the oldest record: its answer covers all that are on
    /// disk by then.
    fn await_disk(&mut self, ctx: &mut Context<Self>) {
        let oldest = self.marks.oldest();
        if oldest.is_none() {
            // Whoever stopped waiting leaves the rest to the journal.
            self.flushing.drain(..).for_each(|flushed| _ = flushed.send(()));
        }
        if let Some(oldest) = oldest
            && !self.notified
        {
            self.notified = true;
            let post = Post::new(ctx.address().recipient(), self.life.probe().clone());
            self.journal.notify(oldest, post);
        }
    }

    fn set_wake(&mut self, at: Moment, ctx: &mut Context<Self>) {
        let deadline = self.book.deadline();
        if deadline == self.wake.map(|(at, _)| at) {
            return;
        }
        if let Some((_, timer)) = self.wake.take() {
            ctx.cancel_future(timer);
        }
        self.wake = deadline.map(|deadline| {
            let timer = ctx.run_later(deadline.saturating_duration_since(at.now), |cursor, ctx| {
                cursor.wake = None;
                cursor.step(Event::Tick, ctx);
            });
            (deadline, timer)
        });
    }

    #[cfg(test)]
    fn break_on_poison(&self, event: &Event) {
        if let (Event::Deliver { delivery, .. }, Some(poison)) = (event, &self.poison)
            && delivery.delivery_id == *poison
            && !self.condemned.contains(poison)
        {
            panic!("poisoned");
        }
    }
}

impl Actor for DeliveryCursor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.life.started();
        self.life.state("running");
        self.carry_out(now(), ctx);
    }

    fn stopped(&mut self, _ctx: &mut Context<Self>) {
        self.life.stopped();
    }
}

impl Supervised for DeliveryCursor {
    fn restarting(&mut self, _ctx: &mut Context<Self>) {
        self.life.restarting();
        self.charge();
        self.rebuild();
        if self.worker.is_some() {
            // What it had queued comes again under a new attempt; a worker that is gone needs nothing.
            let (reply, _forgotten) = Reply::channel();
            self.doors.cancel.tell(CancelInjections { reply }).ok();
        }
    }
}

impl Handler<Deliver> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        let Deliver { epoch, mut delivery, credit } = deliver;
        if delivery.repeats {
            self.book.name_repeat(self.life.generation(), &mut delivery);
        }
        let delivery = Arc::new(delivery);
        self.in_hand = Some(delivery.clone());
        self.step(Event::Deliver { epoch, delivery, credit }, ctx);
    }
}

impl Handler<InjectReport> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, report: InjectReport, ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        self.in_hand = self.book.find(&report.delivery_id).cloned();
        self.step(Event::Report(report), ctx);
    }
}

impl Handler<WorkerUp> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, worker: WorkerUp, ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        self.worker = Some(worker);
        self.step(Event::WorkerUp(worker), ctx);
    }
}

impl Handler<WorkerGone> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, gone: WorkerGone, ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        self.worker = None;
        // Their letters are kept.
        self.again.clear();
        self.gone = Some(gone.reason.clone());
        self.life.state("the agent is gone");
        self.step(Event::WorkerGone { reason: gone.reason }, ctx);
    }
}

impl Handler<FlushAcks> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, flush: FlushAcks, ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        self.flushing.push(flush.0);
        self.await_disk(ctx);
    }
}

impl Handler<Journalled> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, journalled: Journalled, ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        self.notified = false;
        match self.marks.on_disk(Ticket(journalled.ticket)) {
            Some(mark) => self.step(Event::OnDisk(mark), ctx),
            None => self.await_disk(ctx),
        }
    }
}

impl Handler<EpochStarted> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, _started: EpochStarted, ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        self.step(Event::EpochStarted, ctx);
    }
}

impl Handler<ObserveCursor> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, ask: ObserveCursor, _ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        // One who gave up waiting needs no answer.
        ask.0.send(self.book.view());
    }
}

/// The runtime's clock, so that tests can hold it, and the wall's for stamps.
fn now() -> Moment {
    Moment { now: tokio::time::Instant::now().into_std(), wall_ms: now_ms() }
}
