//! The rules of one mailbox: what is taken, handed over, settled, acked, and what is asked for again.
//!
//! A frame is *held* until its end is on disk and the engine is told: beyond a gap (`ahead`), admitted and
//! waiting (`ready`), in the worker (`in_flight`), or settled and waiting for the disk. `slots` is the
//! mailbox from the last ack up to the position, in order; only its settled, written prefix is ever acked.
//!
//! Whether the position advances and whether a text is injected are two decisions: the same message at the
//! next seq advances, is acked, and is not typed again.

mod ending;
mod held;
mod hold;
mod order;
mod recall;
mod view;
mod worker;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

pub(super) use self::held::Held;
#[cfg(test)]
pub(super) use self::held::{ATTEMPTS_MAX, DEATHS_MAX};
use self::held::{End, Ending, Last};
use super::gap::Gap;
use crate::{
    ids::{AgentId, AgentName, DeliveryId, Epoch, Generation, MsgId, Seq},
    messages::{
        delivery::{Content, Credit, Delivery, Inject, InjectReport, InjectStep, Lane, Note, Rung, WorkerUp},
        hold::DeliveryMode,
    },
    store::{Attempt, CursorState, DeadLetter, Outcome, Record, Seen, Spans},
};

/// Frames held beyond a gap; half a lane, so that what is missing always finds room. Further ones are
/// dropped unacked, the farthest first, and come back with the replay.
pub(super) const AHEAD_MAX: usize = 512;

/// The moment of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// Milliseconds since the Unix epoch, for stamps.
    pub(super) wall_ms: u64,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    Deliver {
        epoch: Epoch,
        delivery: Arc<Delivery>,
        credit: Credit,
    },
    /// A dead letter is to be tried again, outside the mailbox.
    Again {
        delivery: Arc<Delivery>,
        credit: Credit,
    },
    Report(InjectReport),
    WorkerUp(WorkerUp),
    WorkerGone {
        reason: String,
    },
    /// The worker has forgotten these attempts, which it had not begun.
    TakenBack(Vec<(DeliveryId, u32)>),
    /// Every [`Effect::Append`] up to and including this mark is on disk. Mark 1 stands for all that the
    /// journal took before this book began; the first append of the book is mark 2.
    OnDisk(u64),
    EpochStarted,
    /// The engine was asked for a replay in this epoch, or (`None`) never.
    ReplayAsked(Option<Epoch>),
    Tick,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Effect {
    /// Into the journal; each is the next mark.
    Append(Record),
    /// Into the journal too, but nothing waits for the disk: it need only outlive the process.
    Trace(Record),
    /// To the worker, which types nothing of it before the traces so far have outlived the process.
    Inject(Inject),
    /// The worker is to give back what it has not begun; answered by [`Event::TakenBack`].
    TakeBack,
    /// To the engine.
    Ack(Seq),
    /// To the engine; answered by [`Event::ReplayAsked`].
    RequestReplay,
    /// For everybody.
    Tell(Arc<Delivery>, Fact),
    /// Numbers were given up.
    Skipped { from: Seq, to: Seq },
    /// A frame of an unknown kind was settled.
    Unusable(Arc<Delivery>),
    /// Frames were dropped unacked.
    Dropped { count: usize, reason: String },
}

/// What became of a delivery; each is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Received {
        /// It waits for a person to let it through.
        held_back: bool,
    },
    Injected(Rung),
    Verified(Rung),
    Stuck {
        rung: Rung,
        /// The last rows of the screen.
        screen: String,
    },
    /// Proof on disk, engine told.
    Acked(Rung),
    DeadLettered {
        reason: String,
        attempts: u32,
    },
}

/// What a delivery shows, if it is one that shows anything.
pub(super) fn note_of(delivery: &Delivery) -> Option<&Note> {
    match &delivery.content {
        Content::Inject(note) => Some(note),
        Content::AckOnly(_) | Content::Unusable(_) => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Unknown,
    At(u64),
}

/// A stretch of the mailbox above the last ack.
#[derive(Debug)]
enum Slot {
    Held(u64),
    /// Given up, or settled in an earlier life: everything up to `to`.
    Past {
        to: u64,
        mark: u64,
    },
}

/// Numbers since start, which survive a restart.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    gaps_skipped: u64,
    duplicates: u64,
    dead_letters: u64,
    stale_reports: u64,
}

/// One mailbox.
#[derive(Debug)]
pub(super) struct Book {
    agent: AgentId,
    name: AgentName,
    lane: Arc<Lane>,
    worker: Option<WorkerUp>,
    gone: bool,
    mode: DeliveryMode,
    condemned: HashSet<DeliveryId>,

    position: Position,
    /// Settled above the position, by the journal.
    settled: Spans,
    /// Tries of earlier lives whose end is unknown.
    unfinished: BTreeMap<DeliveryId, Attempt>,
    messages: Seen<MsgId>,
    fanout: Seen<DeliveryId>,

    held: BTreeMap<u64, Held>,
    next_key: u64,
    ahead: BTreeMap<u64, Held>,
    gap: Gap,
    ready: VecDeque<u64>,
    in_flight: Vec<u64>,
    slots: VecDeque<Slot>,
    /// How many slots at the front are settled.
    lead: usize,
    /// Settled frames outside the mailbox, with their marks, ascending.
    fanout_ends: VecDeque<(u64, u64)>,

    marks: u64,
    /// The mark of where this book started: no ack before that is on disk.
    base: u64,
    on_disk: u64,
    /// The highest seq seen, in a frame or as a place to start from.
    received: u64,
    injected: u64,
    journalled: u64,
    acked: u64,
    ack_due: bool,
    repeats: u64,
    counts: Counts,
    last: Option<Last>,
}

/// What a book starts from.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) agent: AgentId,
    pub(super) name: AgentName,
    pub(super) lane: Arc<Lane>,
    /// What the journal says.
    pub(super) journal: CursorState,
    /// What the engine says.
    pub(super) ack_seq: Option<Seq>,
    /// Deliveries that are dead letters wherever they turn up.
    pub(super) condemned: HashSet<DeliveryId>,
    /// The worker's life, when it is known already.
    pub(super) worker: Option<WorkerUp>,
    /// Whether messages are held back.
    pub(super) mode: DeliveryMode,
    pub(super) counts: Counts,
}

impl Book {
    /// A book at the place that engine and journal agree on: the higher one, because what either says is
    /// settled must not be typed again.
    pub(super) fn new(origin: Origin, out: &mut Vec<Effect>) -> Self {
        let Origin { agent, name, lane, journal, ack_seq, condemned, worker, mode, counts } = origin;
        let mut book = Self {
            agent,
            name,
            lane,
            worker,
            gone: false,
            mode,
            condemned,
            position: Position::Unknown,
            settled: journal.ahead,
            unfinished: journal.unfinished,
            messages: journal.messages,
            fanout: journal.fanout,
            held: BTreeMap::new(),
            next_key: 0,
            ahead: BTreeMap::new(),
            gap: Gap::default(),
            ready: VecDeque::new(),
            in_flight: Vec::new(),
            slots: VecDeque::new(),
            lead: 0,
            fanout_ends: VecDeque::new(),
            marks: 1,
            base: 1,
            on_disk: 0,
            received: 0,
            injected: 0,
            journalled: 0,
            acked: 0,
            ack_due: false,
            repeats: 0,
            counts,
            last: None,
        };
        if let Some(at) = journal.position {
            book.pass(at.0, 1);
        }
        if let Some(at) = ack_seq
            && journal.position.is_none_or(|known| known < at)
        {
            book.seed(at.0, out);
            book.base = book.marks;
        }
        book
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Gives a frame whose id the engine uses again and again a name of its own within this house.
    /// `life` keeps the names of different lives of the cursor apart.
    pub(super) fn name_repeat(&mut self, life: Generation, delivery: &mut Delivery) {
        self.repeats += 1;
        delivery.delivery_id = DeliveryId::from(format!("{}#{life}.{}", delivery.delivery_id, self.repeats));
    }

    /// The delivery that a report is about, while it is held.
    pub(super) fn find(&self, delivery: &DeliveryId) -> Option<&Arc<Delivery>> {
        self.in_flight_key(delivery).map(|key| &self.held[&key].delivery)
    }

    /// When the next tick is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.gap.deadline()
    }

    /// Takes one event; what follows from it is appended to `out`, in the order in which it is to be done.
    pub(super) fn step(&mut self, at: Moment, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Deliver { epoch, delivery, credit } => {
                self.deliver(at, epoch, Held::new(delivery, credit, at), out);
            }
            Event::Again { delivery, credit } => {
                if !self.gone {
                    // A person wants it, whatever is known of it.
                    self.fanout.insert(delivery.delivery_id.clone());
                    // The earlier attempts may have left their traces in the terminal.
                    let one = Held { uncertain: true, ..Held::new(delivery, credit, at) };
                    self.enter(at, one, out);
                }
            }
            Event::Report(report) => self.report(at, report, out),
            Event::WorkerUp(worker) => self.worker_up(worker),
            Event::WorkerGone { reason } => self.worker_gone(reason, out),
            Event::TakenBack(forgotten) => self.taken_back(&forgotten),
            Event::OnDisk(mark) => self.on_disk = self.on_disk.max(mark),
            Event::EpochStarted => {
                self.ack_due |= self.position != Position::Unknown;
                if self.gap.epoch_started() {
                    out.push(Effect::RequestReplay);
                }
            }
            Event::ReplayAsked(epoch) => {
                // From here on a refused frame below those held means that the gap is our own doing.
                if self.gap.answered(epoch, at.now) || self.position == Position::Unknown {
                    self.lane.forget_lowest_refused();
                }
            }
            Event::Tick => {
                let due = self.gap.tick(at.now, self.position != Position::Unknown);
                if due.ask {
                    out.push(Effect::RequestReplay);
                }
                if due.give_up {
                    self.give_up(at, out);
                }
            }
        }
        self.hand_over(at, out);
        self.finish_step(out);
    }

    fn deliver(&mut self, at: Moment, epoch: Epoch, one: Held, out: &mut Vec<Effect>) {
        if self.gone {
            return;
        }
        let delivery = &one.delivery;
        if delivery.seq.0 != 0 {
            return self.sequenced(at, Some(epoch), one, out);
        }
        if !delivery.repeats && !self.fanout.insert(delivery.delivery_id.clone()) {
            self.counts.duplicates += 1;
            self.ack_due = true;
            return;
        }
        match &delivery.content {
            Content::Inject(_) => self.enter(at, one, out),
            Content::AckOnly(_) => self.ack_due = true,
            Content::Unusable(_) => {
                out.push(Effect::Unusable(one.delivery));
                self.ack_due = true;
            }
        }
    }

    /// The next frame in order.
    fn admit(&mut self, at: Moment, one: Held, out: &mut Vec<Effect>) {
        let seq = one.delivery.seq.0;
        self.position = Position::At(seq);
        self.enter(at, one, out);
        let beyond = self.settled.absorb(seq);
        if beyond > seq {
            self.pass(beyond, 1);
        }
    }

    fn keep(&mut self, one: Held) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        self.held.insert(key, one);
        key
    }

    /// Takes a frame in whose turn it is: to be handed over, or settled at once.
    fn enter(&mut self, at: Moment, mut one: Held, out: &mut Vec<Effect>) {
        let delivery = one.delivery.clone();
        if let Some(before) = self.unfinished.get(&delivery.delivery_id).copied()
            && before.seq == delivery.seq
        {
            self.unfinished.remove(&delivery.delivery_id);
            one.attempts = one.attempts.max(before.attempt);
            one.rung = one.rung.max(before.rung);
            one.deaths = before.deaths;
            one.uncertain = true;
        }
        let ended = one.end.take();
        let fresh = !one.told.received;
        one.told.received |= note_of(&delivery).is_some();
        self.last = Some(Last::of(&one));
        let key = self.keep(one);
        if delivery.seq.0 != 0 {
            self.slots.push_back(Slot::Held(key));
        }
        if let Some(end) = ended {
            return self.settle(at, key, end.how, out);
        }
        match &delivery.content {
            Content::AckOnly(_) => self.settle(at, key, Ending::Outcome(Outcome::AckOnly), out),
            Content::Unusable(_) => {
                out.push(Effect::Unusable(delivery.clone()));
                self.settle(at, key, Ending::Outcome(Outcome::Unusable), out);
            }
            Content::Inject(_) if self.condemned.contains(&delivery.delivery_id) => {
                let reason = "the broker failed three times while handling this message".to_owned();
                self.settle(at, key, Ending::DeadLetter { reason, landed: false }, out);
            }
            Content::Inject(_) if delivery.seq.0 != 0 && !self.messages.insert(delivery.msg_id.clone()) => {
                self.counts.duplicates += 1;
                self.settle(at, key, Ending::Outcome(Outcome::Duplicate), out);
            }
            Content::Inject(_) => {
                if fresh {
                    let held_back = self.mode == DeliveryMode::ManualFlush;
                    out.push(Effect::Tell(delivery, Fact::Received { held_back }));
                }
                self.ready.push_back(key);
            }
        }
    }
}
