//! The book in a small world: an engine that keeps what is not acked, a link that loses and reorders, a
//! worker that reports in any order, a disk that lags, a person who holds messages back and lets them through,
//! crashes of the cursor and of the whole broker, programs that die of what is typed.
//!
//! `MODEL_CASES` sets the number of cases; a failure prints the case, and proptest's seed file repeats it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use proptest::{prelude::*, test_runner::RngAlgorithm};

use super::{book::*, *};
use crate::{
    ids::{Generation, MsgId},
    messages::{
        delivery::{Content, CursorView, House, InjectStep, Mode, Note, Rung},
        hold::DeliveryMode,
    },
    store::{CursorState, Outcome, Record},
};

/// What the engine has for this agent.
#[derive(Clone, Debug)]
struct World {
    /// Number of rows; their seqs are 1 to this, plus `start`.
    rows: u64,
    start: u64,
    /// Says where the mailbox stands when the agent registers.
    tells_position: bool,
    /// Rows that expired before they could be sent.
    expired: BTreeSet<u64>,
    /// Rows that carry the message of the row before them.
    repeated: BTreeSet<u64>,
    /// Rows that nobody is shown.
    silent: BTreeSet<u64>,
    /// Bytes per frame: large ones do not fit into the house all at once.
    bytes: usize,
    ops: Vec<Op>,
}

#[derive(Clone, Debug)]
enum Op {
    /// The engine sends one unacked row.
    Live(u64),
    /// A frame outside the mailbox.
    Fanout(u8),
    /// Frames arrive.
    Pump(usize),
    /// The socket is cut and comes back; the engine replays.
    Cut,
    /// The engine is asked for what the book wants replayed.
    Asked,
    /// The session ended before it could ask.
    Unanswered,
    Time(u16),
    WorkerUp(usize),
    Report(usize, Say),
    /// A report about an earlier try or an earlier worker.
    Stale(usize),
    /// A person holds messages back, or not any more.
    Hold(bool),
    /// A person lets through what is held, or one of it.
    Flush(Option<usize>),
    /// The worker comes to a question what it has not begun.
    GiveBack,
    /// Its answer arrives.
    Returned,
    /// Some records reach the disk.
    Disk(usize),
    /// The cursor panics.
    Crash,
    /// The broker is killed.
    Kill,
    /// The program ends by itself, and the next one gets a cursor of its own.
    Die,
}

#[derive(Clone, Copy, Debug)]
enum Say {
    Written,
    Landed,
    Waiting,
    Stuck,
    Proven,
    Failed,
}

/// How often each is drawn.
const SAYS: [Say; 13] = {
    use Say::*;
    [Proven, Proven, Proven, Proven, Proven, Proven, Written, Written, Landed, Landed, Waiting, Stuck, Failed]
};
const OP_KINDS: u8 = 44;

/// One of many, with one argument, from two numbers: a choice of strategies draws (and keeps, to shrink) every
/// one of them, which costs more than to run the schedule.
fn op((kind, n): (u8, u16)) -> Op {
    let pick = usize::from(n);
    match kind {
        0..4 => Op::Pump(1 + pick % 7),
        4..8 => Op::Disk(1 + pick % 8),
        8..16 => Op::Report(pick % 5, SAYS[pick / 5 % SAYS.len()]),
        16..22 => Op::Live(u64::from(n) % 40),
        22..24 => Op::WorkerUp(pick % 5),
        24..26 => Op::Time(1 + n % 7000),
        26..28 => Op::Asked,
        28 => Op::Unanswered,
        29 => Op::Stale(pick % 8),
        30 => Op::Fanout((pick % 4) as u8),
        31 => Op::Cut,
        32 => Op::Crash,
        33..35 => Op::Hold(n.is_multiple_of(2)),
        35 => Op::Flush(None),
        36 => Op::Flush(Some(pick % 5)),
        37..39 => Op::GiveBack,
        39..41 => Op::Returned,
        41 => Op::Kill,
        _ => Op::Die,
    }
}

fn world() -> impl Strategy<Value = World> {
    let op = (0..OP_KINDS, any::<u16>()).prop_map(op);
    let rows = 1u64..30;
    let some = || prop::collection::btree_set(1u64..30, 0..6);
    let bytes = prop_oneof![4 => Just(100usize), 1 => Just(6usize << 20)];
    let start = prop_oneof![2 => Just(0u64), 1 => 1u64..1000];
    (rows, start, any::<bool>(), some(), some(), some(), bytes, prop::collection::vec(op, 0..160)).prop_map(
        |(rows, start, tells_position, expired, repeated, silent, bytes, ops)| World {
            rows,
            start,
            tells_position,
            expired: expired.into_iter().map(|n| n + start).collect(),
            repeated: repeated.into_iter().filter(|n| *n > 1).map(|n| n + start).collect(),
            silent: silent.into_iter().map(|n| n + start).collect(),
            bytes,
            ops,
        },
    )
}

struct Run {
    world: World,
    now: Instant,
    lane: Arc<Lane>,
    book: Book,
    life: u64,

    engine_acked: u64,
    epoch: Epoch,
    link: VecDeque<Delivery>,
    replay_wanted: bool,

    records: Vec<Record>,
    on_disk: usize,
    /// What the records on disk say.
    disk: CursorState,
    /// The number of records that must be on disk for each mark of the current book.
    marks: Vec<usize>,

    worker: Generation,
    queue: Vec<Inject>,
    past: Vec<InjectReport>,
    /// What this child has at least a byte of.
    begun: HashSet<DeliveryId>,
    /// Questions to the worker what it has not begun, with what it had been handed by then.
    questions: VecDeque<Vec<(DeliveryId, u32)>>,
    answers: VecDeque<Vec<(DeliveryId, u32)>>,
    /// Attempts that were never begun.
    returned: HashSet<(DeliveryId, u32)>,
    /// What may be handed over although messages are held.
    let_through: HashSet<DeliveryId>,
    /// In the hands of a worker that has ended, and not handed over since.
    unfinished: HashSet<DeliveryId>,

    /// How often each ended a program.
    deaths: HashMap<DeliveryId, u32>,
    handed_in_order: u64,
    settled: BTreeMap<u64, &'static str>,
    proven_messages: HashMap<MsgId, u64>,
    proven_fanout: HashSet<DeliveryId>,
    skipped: BTreeSet<u64>,
    facts: HashSet<(DeliveryId, String)>,
    start: u64,
}

fn origin(world: &World, lane: &Arc<Lane>, journal: CursorState, engine_acked: u64) -> Origin {
    Origin {
        agent: AgentId::from("a"),
        name: AgentName::parse("a").unwrap(),
        lane: lane.clone(),
        journal,
        ack_seq: world.tells_position.then_some(Seq(engine_acked)),
        condemned: HashSet::new(),
        worker: None,
        mode: DeliveryMode::default(),
        counts: Counts::default(),
    }
}

impl Run {
    fn new(world: World) -> Self {
        let lane = Lane::new(Arc::<House>::default());
        let mut out = Vec::new();
        let start = world.start;
        let book = Book::new(origin(&world, &lane, CursorState::default(), start), &mut out);
        let mut run = Self {
            now: Instant::now(),
            lane,
            book,
            life: 0,
            engine_acked: start,
            epoch: Epoch(1),
            link: VecDeque::new(),
            replay_wanted: false,
            records: Vec::new(),
            on_disk: 0,
            disk: CursorState::default(),
            marks: vec![0],
            worker: Generation(0),
            queue: Vec::new(),
            past: Vec::new(),
            begun: HashSet::new(),
            questions: VecDeque::new(),
            answers: VecDeque::new(),
            returned: HashSet::new(),
            let_through: HashSet::new(),
            unfinished: HashSet::new(),
            deaths: HashMap::new(),
            handed_in_order: 0,
            settled: BTreeMap::new(),
            proven_messages: HashMap::new(),
            proven_fanout: HashSet::new(),
            skipped: BTreeSet::new(),
            facts: HashSet::new(),
            start,
            world,
        };
        run.carry_out(out);
        run.replay();
        run
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, wall_ms: 0 }
    }

    fn row(&self, seq: u64) -> Delivery {
        let carries = if self.world.repeated.contains(&seq) { seq - 1 } else { seq };
        let msg_id = MsgId::from(format!("msg_{carries}"));
        let content = if self.world.silent.contains(&seq) {
            if seq.is_multiple_of(2) {
                Content::AckOnly("read".into())
            } else {
                Content::Unusable("odd".into())
            }
        } else {
            Content::Inject(note(&msg_id))
        };
        Delivery {
            delivery_id: format!("del_{seq}").into(),
            msg_id,
            seq: Seq(seq),
            mode: Mode::Wait,
            content,
            repeats: false,
        }
    }

    fn open_rows(&self) -> Vec<u64> {
        let all = self.start + 1..=self.start + self.world.rows;
        all.filter(|seq| *seq > self.engine_acked && !self.world.expired.contains(seq)).collect()
    }

    fn replay(&mut self) {
        for seq in self.open_rows() {
            let row = self.row(seq);
            self.link.push_back(row);
        }
    }

    fn step(&mut self, event: Event) {
        let mut out = Vec::new();
        self.book.step(self.moment(), event, &mut out);
        self.carry_out(out);
        self.check();
    }

    fn pump(&mut self) {
        let Some(delivery) = self.link.pop_front() else { return };
        let Some(credit) = self.lane.take(delivery.seq, self.world.bytes) else { return };
        self.step(Event::Deliver { epoch: self.epoch, delivery: Arc::new(delivery), credit });
    }

    fn carry_out(&mut self, out: Vec<Effect>) {
        for effect in out {
            match effect {
                Effect::Append(record) => {
                    self.note_end(&record);
                    self.records.push(record);
                    self.marks.push(self.records.len());
                }
                Effect::Trace(record) => self.records.push(record),
                Effect::Inject(inject) => self.take_injection(inject),
                Effect::TakeBack => {
                    let had = self.queue.iter().map(|one| (one.delivery_id.clone(), one.attempt));
                    self.questions.push_back(had.collect());
                }
                Effect::Ack(Seq(up_to)) => self.take_ack(up_to),
                Effect::RequestReplay => {
                    assert!(!self.replay_wanted, "one question at a time");
                    self.replay_wanted = true;
                }
                Effect::Tell(delivery, fact) => {
                    let kind = format!("{fact:?}").split(['(', ' ']).next().unwrap_or_default().to_owned();
                    let told = (delivery.delivery_id.clone(), kind);
                    assert!(self.facts.insert(told.clone()), "told twice: {told:?}");
                }
                Effect::Skipped { from, to } => {
                    for seq in from.0..=to.0 {
                        let lost = self.world.expired.contains(&seq) || seq <= self.engine_acked;
                        assert!(lost, "{seq} was given up, but the engine has it");
                        self.skipped.insert(seq);
                    }
                }
                Effect::Unusable(_) | Effect::Dropped { .. } => {}
            }
        }
    }

    fn note_end(&mut self, record: &Record) {
        match record {
            Record::Settled { seq: Seq(0), delivery, .. } => {
                assert!(self.proven_fanout.insert(delivery.clone()), "{delivery} settled twice");
            }
            Record::Settled { seq, msg, outcome, .. } => {
                assert!(self.settled.insert(seq.0, "settled").is_none(), "{seq} settled twice");
                if matches!(outcome, Outcome::Proven(_)) {
                    let before = self.proven_messages.insert(msg.clone(), seq.0);
                    assert!(before.is_none(), "{msg} is in the terminal twice: {before:?} and {seq}");
                }
            }
            Record::DeadLettered(letter) if letter.seq.0 != 0 => {
                assert!(self.settled.insert(letter.seq.0, "dead").is_none(), "{} settled twice", letter.seq);
            }
            _ => {}
        }
    }

    fn take_injection(&mut self, inject: Inject) {
        assert!(!self.proven_fanout.contains(&inject.delivery_id), "{inject:?} is in already");
        let deaths = self.deaths.get(&inject.delivery_id).copied().unwrap_or_default();
        assert!(deaths < DEATHS_MAX, "{inject:?} has ended {deaths} programs");
        let known = self.queue.iter().find(|one| one.delivery_id == inject.delivery_id);
        assert!(known.is_none(), "{inject:?} while the worker has it");
        let is_held = self.book.mode() == DeliveryMode::ManualFlush;
        let may_go = !is_held || self.let_through.contains(&inject.delivery_id);
        assert!(may_go, "{inject:?} while messages are held");
        self.unfinished.remove(&inject.delivery_id);
        if let Some(seq) = inject.delivery_id.as_str().strip_prefix("del_") {
            let seq: u64 = seq.parse().unwrap();
            assert!(!self.settled.contains_key(&seq), "{seq} is at its end already");
            if !is_held {
                assert!(seq > self.handed_in_order, "{seq} after {}", self.handed_in_order);
                self.handed_in_order = seq;
            }
            let tried = self.past.iter().any(|report| {
                let attempt = (report.delivery_id.clone(), report.attempt);
                attempt.0 == inject.delivery_id && !self.returned.contains(&attempt)
            });
            assert_eq!(inject.redelivered, tried, "{inject:?}");
        }
        let traced = self.records.iter().any(|record| {
            matches!(record, Record::Handed { delivery, attempt, .. }
                if *delivery == inject.delivery_id && *attempt == inject.attempt)
        });
        assert!(traced || inject.delivery_id.as_str().starts_with("evt_"), "no trace of {inject:?}");
        self.past.push(InjectReport {
            worker: self.worker,
            delivery_id: inject.delivery_id.clone(),
            attempt: inject.attempt,
            step: InjectStep::Proven(Rung::Submitted),
        });
        self.queue.push(inject);
    }

    /// The heart of it: an ack is never ahead of the disk.
    fn take_ack(&mut self, up_to: u64) {
        let position = self.disk.position.map_or(0, |at| at.0);
        assert!(up_to <= position, "acked {up_to}, on disk {position}");
        for seq in self.start + 1..=up_to {
            let known = self.settled.contains_key(&seq) || self.skipped.contains(&seq);
            // A cursor that was told nothing starts at the lowest frame that comes.
            let expired_before_all = self.world.expired.contains(&seq) || seq <= self.engine_acked;
            assert!(known || expired_before_all, "acked {seq}, which has no end");
        }
        self.engine_acked = self.engine_acked.max(up_to);
    }

    fn check(&self) {
        let CursorView { received, injected, journalled, acked, held, .. } = self.book.view();
        assert!(acked <= journalled && journalled <= injected, "{:?}", self.book.view());
        assert!(injected <= received, "{:?}", self.book.view());
        assert!(held <= self.world.rows as usize + 4, "{:?}", self.book.view());
        for pending in self.book.pending() {
            let is_in = self.queue.iter().any(|one| one.delivery_id == pending.delivery);
            assert!(!is_in, "{pending:?} is held, and the worker has it");
            assert!(!self.begun.contains(&pending.delivery), "{pending:?} is held half-way");
        }
    }

    fn write(&mut self, records: usize) {
        let upto = self.on_disk.saturating_add(records).min(self.records.len());
        self.records[self.on_disk..upto].iter().for_each(|record| self.disk.apply(record));
        self.on_disk = upto;
    }

    fn disk(&mut self, records: usize) {
        self.write(records);
        let mark = self.marks.iter().take_while(|needs| **needs <= self.on_disk).count() as u64;
        if mark > 0 {
            self.step(Event::OnDisk(mark));
        }
    }

    fn time(&mut self, by: Duration) {
        // Five seconds are an age on the wire: what was sent has come by then.
        if by > Duration::from_secs(1) {
            while !self.link.is_empty() {
                self.pump();
            }
        }
        self.now += by;
        self.step(Event::Tick);
    }

    fn cut(&mut self) {
        self.link.clear();
        self.epoch = self.epoch.next();
        self.replay();
        self.step(Event::EpochStarted);
    }

    fn asked(&mut self) {
        if std::mem::take(&mut self.replay_wanted) {
            self.replay();
            self.step(Event::ReplayAsked(Some(self.epoch)));
        }
    }

    fn worker_up(&mut self, window: usize) {
        self.worker = self.worker.next();
        self.lose_queue();
        self.step(Event::WorkerUp(WorkerUp { worker: self.worker, window }));
    }

    /// The worker's queue is gone, and everything in it may have been begun.
    fn lose_queue(&mut self) {
        self.unfinished.extend(self.queue.drain(..).map(|one| one.delivery_id));
        // The worker had forgotten these, but the book never heard of it.
        let unheard = self.answers.iter().flatten().map(|(delivery, _)| delivery.clone());
        self.unfinished.extend(unheard);
        self.let_through.extend(self.unfinished.iter().cloned());
        self.handed_in_order = 0;
    }

    fn set_mode(&mut self, mode: DeliveryMode) {
        if mode == DeliveryMode::ManualFlush && mode != self.book.mode() {
            // What an earlier worker may have begun is finished all the same.
            self.let_through.retain(|id| self.unfinished.contains(id));
        }
        let mut out = Vec::new();
        let pending = self.book.pending().len();
        let set = self.book.set_mode(self.moment(), mode, None, &mut out).unwrap();
        let is_drained = (set.previous, mode) == (DeliveryMode::ManualFlush, DeliveryMode::AutoInject);
        assert_eq!(set.flushed, if is_drained { pending } else { 0 });
        self.carry_out(out);
        self.check();
    }

    fn flush(&mut self, only: Option<usize>) {
        let pending: Vec<_> = self.book.pending().into_iter().map(|pending| pending.delivery).collect();
        let only = only.filter(|_| !pending.is_empty()).map(|nth| pending[nth % pending.len()].clone());
        // What the worker is about to give back is held at this moment, too.
        let on_its_way = self.queue.iter().map(|one| one.delivery_id.clone());
        let on_its_way = on_its_way.chain(self.answers.iter().flatten().map(|(id, _)| id.clone()));
        let meant: Vec<_> = pending.iter().cloned().chain(on_its_way).collect();
        let meant = meant.into_iter().filter(|id| only.as_ref().is_none_or(|only| only == id));
        self.let_through.extend(meant);
        let mut out = Vec::new();
        let flushed = self.book.flush(self.moment(), only.as_ref(), &mut out);
        assert_eq!(flushed, if only.is_some() { 1 } else { pending.len() });
        self.carry_out(out);
        self.check();
    }

    fn give_back(&mut self) {
        let Some(had) = self.questions.pop_front() else { return };
        let is_forgotten = |(delivery, attempt): &(DeliveryId, u32)| {
            let has = |one: &Inject| one.delivery_id == *delivery && one.attempt == *attempt;
            self.queue.iter().any(has) && !self.begun.contains(delivery)
        };
        let forgotten: Vec<_> = had.into_iter().filter(is_forgotten).collect();
        self.queue.retain(|one| !forgotten.iter().any(|(delivery, _)| *delivery == one.delivery_id));
        self.answers.push_back(forgotten);
    }

    fn take_answer(&mut self) {
        let Some(forgotten) = self.answers.pop_front() else { return };
        // An answer comes too late once its worker has ended, or another attempt has followed.
        let (past, unfinished) = (&self.past, &self.unfinished);
        let is_last = |(id, attempt): &&(DeliveryId, u32)| {
            let is_followed =
                past.iter().any(|report| report.delivery_id == *id && report.attempt > *attempt);
            !is_followed && !unfinished.contains(id)
        };
        self.returned.extend(forgotten.iter().filter(is_last).cloned());
        let seq = |id: &DeliveryId| id.as_str().strip_prefix("del_").and_then(|seq| seq.parse::<u64>().ok());
        let lowest = forgotten.iter().filter_map(|(id, _)| seq(id)).min();
        self.handed_in_order = self.handed_in_order.min(lowest.map_or(u64::MAX, |seq| seq - 1));
        self.step(Event::TakenBack(forgotten));
    }

    fn report(&mut self, nth: usize, say: Say) {
        if self.queue.is_empty() {
            return;
        }
        let nth = nth % self.queue.len();
        let (delivery_id, attempt) = (self.queue[nth].delivery_id.clone(), self.queue[nth].attempt);
        let step = match say {
            Say::Written => InjectStep::Reached(Rung::Written),
            Say::Landed => InjectStep::Reached(Rung::Landed),
            Say::Waiting => InjectStep::Waiting("agent is working".into()),
            Say::Stuck => InjectStep::Stuck { rung: Rung::Landed, screen: String::new() },
            Say::Proven => InjectStep::Proven(Rung::Submitted),
            Say::Failed => InjectStep::Failed { reason: "refused".into(), landed: false },
        };
        if !matches!(say, Say::Waiting) {
            self.begun.insert(delivery_id.clone());
        }
        if matches!(say, Say::Proven | Say::Failed) {
            self.queue.remove(nth);
            self.begun.remove(&delivery_id);
        }
        self.step(Event::Report(InjectReport { worker: self.worker, delivery_id, attempt, step }));
    }

    fn stale(&mut self, nth: usize) {
        let is_being_returned = |report: &InjectReport| {
            let attempt = (report.delivery_id.clone(), report.attempt);
            self.answers.iter().flatten().any(|forgotten| *forgotten == attempt)
        };
        let current = |report: &InjectReport| {
            report.worker == self.worker
                && self
                    .queue
                    .iter()
                    .any(|one| one.delivery_id == report.delivery_id && one.attempt == report.attempt)
        };
        let old: Vec<_> = self
            .past
            .iter()
            .filter(|report| !current(report) && !is_being_returned(report))
            .cloned()
            .collect();
        if old.is_empty() {
            return;
        }
        let before = self.book.view().stale_reports;
        self.step(Event::Report(old[nth % old.len()].clone()));
        assert_eq!(self.book.view().stale_reports, before + 1);
    }

    /// What the journal knows: what is on disk, and what is on its way there.
    fn journal(&self) -> CursorState {
        let mut state = self.disk.clone();
        self.records[self.on_disk..].iter().for_each(|record| state.apply(record));
        state
    }

    /// A panic of the cursor: the instance, the worker and the link go on.
    fn crash(&mut self) {
        self.life += 1;
        self.marks = vec![self.records.len()];
        self.replay_wanted = false;
        self.lose_queue();
        // Nobody waits for these answers any more.
        self.questions.clear();
        self.answers.clear();
        let mut out = Vec::new();
        let window = WorkerUp { worker: self.worker, window: 3 };
        let mut from = origin(&self.world, &self.lane, self.journal(), self.start);
        from.worker = (self.worker.0 > 0).then_some(window);
        from.counts = self.book.counts();
        from.mode = self.book.mode();
        let book = Book::new(from, &mut out);
        let held = std::mem::replace(&mut self.book, book).into_held();
        self.book.recall(self.moment(), held, &mut out);
        self.carry_out(out);
        self.check();
    }

    /// The end of the process: what was appended is there, what was held is not, and the agent is new.
    fn kill(&mut self) {
        self.write(usize::MAX);
        self.marks = vec![self.records.len()];
        self.replay_wanted = false;
        self.queue.clear();
        self.begun.clear();
        self.questions.clear();
        self.answers.clear();
        self.returned.clear();
        self.let_through.clear();
        self.unfinished.clear();
        self.handed_in_order = 0;
        self.facts.clear();
        self.lane = Lane::new(Arc::<House>::default());
        let mut out = Vec::new();
        let from = origin(&self.world, &self.lane, self.journal(), self.engine_acked);
        self.book = Book::new(from, &mut out);
        self.link.clear();
        self.epoch = Epoch(1);
        self.carry_out(out);
        self.replay();
    }

    /// The end of the program: what it had of a message is blamed, and the rest is the engine's.
    fn die(&mut self) {
        let is_its = |one: &&Inject| {
            self.begun.contains(&one.delivery_id) && one.delivery_id.as_str().starts_with("del_")
        };
        let deliveries: Vec<_> =
            self.queue.iter().filter(is_its).map(|one| one.delivery_id.clone()).collect();
        for delivery in &deliveries {
            *self.deaths.entry(delivery.clone()).or_default() += 1;
        }
        self.records.push(Record::ReaderDied { agent: AgentId::from("a"), deliveries });
        self.kill();
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Live(row) => {
                let seq = self.start + 1 + row % self.world.rows;
                if self.open_rows().contains(&seq) {
                    let row = self.row(seq);
                    self.link.push_back(row);
                }
            }
            Op::Fanout(id) => {
                let msg_id = MsgId::from("msg_1");
                self.link.push_back(Delivery {
                    delivery_id: format!("evt_{id}").into(),
                    content: Content::Inject(note(&msg_id)),
                    msg_id,
                    seq: Seq(0),
                    mode: Mode::Wait,
                    repeats: false,
                });
            }
            Op::Pump(frames) => (0..frames).for_each(|_| self.pump()),
            Op::Cut => self.cut(),
            Op::Asked => self.asked(),
            Op::Unanswered => {
                if std::mem::take(&mut self.replay_wanted) {
                    self.step(Event::ReplayAsked(None));
                }
            }
            Op::Time(ms) => self.time(Duration::from_millis(u64::from(ms))),
            Op::WorkerUp(window) => self.worker_up(window),
            Op::Report(nth, say) => self.report(nth, say),
            Op::Stale(nth) => self.stale(nth),
            Op::Hold(true) => self.set_mode(DeliveryMode::ManualFlush),
            Op::Hold(false) => self.set_mode(DeliveryMode::AutoInject),
            Op::Flush(only) if self.book.mode() == DeliveryMode::ManualFlush => self.flush(only),
            Op::Flush(_) => {}
            Op::GiveBack => self.give_back(),
            Op::Returned => self.take_answer(),
            Op::Disk(records) => self.disk(records),
            Op::Crash => self.crash(),
            Op::Kill => self.kill(),
            Op::Die => self.die(),
        }
    }

    /// With everybody at work the mailbox is emptied in a bounded number of rounds; held messages are let
    /// through, and stay held otherwise.
    fn finish(&mut self) {
        self.worker_up(4);
        for _ in 0..200 {
            self.asked();
            while !self.link.is_empty() {
                self.pump();
            }
            while !self.questions.is_empty() || !self.answers.is_empty() {
                self.give_back();
                self.take_answer();
            }
            if self.book.mode() == DeliveryMode::ManualFlush {
                self.flush(None);
            }
            while !self.queue.is_empty() {
                self.report(0, Say::Proven);
            }
            self.disk(usize::MAX);
            if self.open_rows().is_empty() && self.lane.held() == (0, 0) {
                return;
            }
            self.time(Duration::from_secs(6));
        }
        panic!("jammed: open {:?}, {:?}", self.open_rows(), self.book.view());
    }
}

fn note(msg_id: &MsgId) -> Note {
    Note {
        from: "b".into(),
        target: "#c".into(),
        thread: None,
        msg_id: msg_id.clone(),
        body: "text".into(),
        sent_at: None,
        system: false,
    }
}

fn cases() -> u32 {
    std::env::var("MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        // Drawing a schedule with the default's cipher costs several times as much as running it.
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_is_lost_typed_twice_or_acked_early_whatever_happens(world in world()) {
        let mut world = world;
        let ops = std::mem::take(&mut world.ops);
        let mut run = Run::new(world);
        for op in ops {
            run.apply(op);
        }
        run.finish();
    }
}
