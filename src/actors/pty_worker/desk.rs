//! The worker's work without its terminal: output in, bytes to type out, reports and states as effects.
//!
//! ```text
//! output --> screen --> readiness --> state
//! Inject --> frame --> lane (plain or composer) --> writer --> kernel --> proof --> report
//! ```
//!
//! It never reads a clock and never touches a descriptor; [`PtyWorker`](super::PtyWorker) does both and asks.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::{
    frame::{Frame, Framing},
    inject::{Act, Injection, Sight, Wording},
    plain::{LineEnd, PlainLane},
    readiness::{Gate, Look, Readiness},
    writer::{Kind, Taken, Writer},
};
use crate::{
    harness::{Composer, Harness, Place, Rule},
    ids::DeliveryId,
    messages::{
        delivery::{Inject, InjectStep, Note, Rung},
        pty::{AgentState, InjectionView, TermSize},
    },
    screen::{Region, Screen},
};

/// Proven deliveries remembered: one that is handed over again after its proof is answered, not typed.
const PROVEN_KEPT: usize = 256;
/// Injections held without a composer, and with one.
const WINDOW_PLAIN: usize = 64;
const WINDOW_COMPOSER: usize = 8;

/// The first task among the deliveries. Ids of engines begin with `del_` or `evt_`.
const TASK: &str = "task";

/// Shortest time to the next step, and while a frame is being drawn.
const STEP_MIN: Duration = Duration::from_millis(1);
const FRAME_STEP: Duration = Duration::from_millis(50);

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Tell the cursor.
    Report {
        /// Which delivery.
        id: DeliveryId,
        /// Which attempt.
        attempt: u32,
        /// What happened.
        step: InjectStep,
    },
    /// What the agent does has changed.
    State {
        /// Before.
        from: AgentState,
        /// Now.
        to: AgentState,
    },
    /// The kernel has taken these keystrokes.
    InputTaken(u64),
    /// The first task is in, or never will be, and why.
    Task(Result<Rung, String>),
}

/// A delivery that is held.
#[derive(Debug)]
struct Ticket {
    attempt: u32,
    text: Text,
    redelivered: bool,
}

/// What is to be typed.
#[derive(Debug)]
enum Text {
    Message(Note),
    Task(String),
}

#[derive(Debug)]
enum Lane {
    Plain(PlainLane),
    Composer(Box<ComposerLane>),
}

/// One message at a time into a composer.
#[derive(Debug, Default)]
struct ComposerLane {
    waiting: VecDeque<DeliveryId>,
    current: Option<Injection>,
    /// Sent to this very child in an earlier life of the worker, or while it seemed plain.
    sent_before: Vec<Sent>,
}

#[derive(Debug)]
struct Sent {
    id: DeliveryId,
    wording: Wording,
    flat: bool,
    as_line: bool,
}

/// The work. See the module.
#[derive(Debug)]
pub(super) struct Desk {
    harness: &'static Harness,
    screen: Screen,
    writer: Writer,
    readiness: Readiness,
    lane: Lane,
    tickets: HashMap<DeliveryId, Ticket>,
    /// The first task, until it is in.
    task: Option<String>,
    proven: VecDeque<(DeliveryId, Rung)>,
    framed: u64,
    state: AgentState,
    because: String,
    gate: Gate,
    /// The busy rule and the dialog rule that match the last whole frame.
    working: Option<&'static str>,
    blocked: Option<&'static str>,
    /// A message was typed into this child: its screen may show what others wrote.
    typed: bool,
    /// The child had read everything at the last look, if that was after the last byte.
    consumed: Option<bool>,
    effects: Vec<Effect>,
    /// Handed over with an attempt that is older than one already seen.
    pub(super) stale: u64,
}

impl Desk {
    /// The desk of a program that starts now.
    pub(super) fn new(harness: &'static Harness, size: TermSize, now: Instant) -> Self {
        Self {
            harness,
            screen: Screen::new(size),
            writer: Writer::default(),
            readiness: Readiness::new(now),
            lane: empty_lane(harness),
            tickets: HashMap::new(),
            task: None,
            proven: VecDeque::new(),
            framed: 0,
            state: AgentState::Starting,
            because: "the program is starting".to_owned(),
            gate: Gate::Closed { why: "the program is starting".to_owned(), until: None },
            working: None,
            blocked: None,
            typed: false,
            consumed: None,
            effects: Vec::new(),
            stale: 0,
        }
    }

    /// Begins the next life of the worker around the same child. Kept is what the child has or may have of
    /// ours: the writer's queue, flights, the text in the composer. Forgotten is what was not begun: the
    /// cursor hands it over again.
    pub(super) fn begin_next_life(&mut self) {
        self.effects.clear();
        match &mut self.lane {
            Lane::Plain(lane) => lane.cancel_waiting(),
            Lane::Composer(lane) => {
                lane.waiting.clear();
                let begun = lane.current.take().filter(|i| !i.is_untouched() && !i.is_done());
                lane.sent_before.extend(begun.map(|injection| {
                    let (wording, flat) = injection.wording();
                    Sent { id: injection.id().clone(), wording: wording.clone(), flat, as_line: false }
                }));
            }
        }
        self.drop_loose_tickets();
        self.offer_task();
    }

    /// The screen.
    pub(super) fn screen(&self) -> &Screen {
        &self.screen
    }

    /// The rule set in use now.
    #[cfg(test)]
    pub(super) fn harness(&self) -> &'static Harness {
        self.harness
    }

    /// What the agent does, and why in words.
    pub(super) fn state(&self) -> (AgentState, &str) {
        (self.state, &self.because)
    }

    /// True once it has been ready.
    pub(super) fn was_ready(&self) -> bool {
        self.readiness.was_ready()
    }

    /// How many injections it holds at once.
    pub(super) fn window(&self) -> usize {
        if self.harness.composer == Composer::Always { WINDOW_COMPOSER } else { WINDOW_PLAIN }
    }

    /// Injections held and not done.
    pub(super) fn queued(&self) -> usize {
        match &self.lane {
            Lane::Plain(lane) => lane.len(),
            Lane::Composer(lane) => lane.waiting.len() + usize::from(lane.current.is_some()),
        }
    }

    /// The injection that is furthest.
    pub(super) fn injecting(&self) -> Option<InjectionView> {
        match &self.lane {
            Lane::Plain(lane) => lane.front().map(|(id, rung)| InjectionView {
                delivery_id: id.clone(),
                rung,
                waiting_for: match (&self.gate, rung) {
                    (Gate::Closed { why, .. }, Rung::Queued) => why.clone(),
                    _ => "the agent to read its input".to_owned(),
                },
            }),
            Lane::Composer(lane) => lane.current.as_ref().map(|injection| InjectionView {
                delivery_id: injection.id().clone(),
                rung: injection.rung(),
                waiting_for: injection.waiting_for(),
            }),
        }
    }

    /// What has happened since the last call.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The program wrote something. `canonical` says whether it reads lines now: then nobody waits for an
    /// answer to a query in it, and one would only spoil the next line.
    pub(super) fn output(&mut self, bytes: &[u8], canonical: impl FnOnce() -> bool, now: Instant) {
        self.readiness.output(now);
        let answers = self.screen.feed(bytes);
        if !answers.is_empty() && !canonical() {
            // A program that asks without end and never reads gets no more answers.
            self.writer.push_answer(answers);
        }
        let shows_composer = self.screen.bracketed_paste() || self.screen.alternate();
        if self.harness.composer == Composer::Seen && shows_composer {
            self.become_composer();
        }
    }

    /// A new size.
    pub(super) fn resize(&mut self, size: TermSize) {
        self.screen.resize(size);
    }

    /// A message is handed over.
    pub(super) fn inject(&mut self, inject: Inject) {
        let Inject { delivery_id: id, attempt, mode: _, note, reached, redelivered } = inject;
        if let Some(ticket) = self.tickets.get_mut(&id) {
            if attempt < ticket.attempt {
                self.stale += 1;
            } else {
                ticket.attempt = attempt;
            }
            return;
        }
        let proven = self.proven.iter().find(|(known, _)| *known == id).map(|(_, rung)| *rung);
        if let Some(rung) = proven {
            return self.effects.push(Effect::Report { id, attempt, step: InjectStep::Proven(rung) });
        }
        self.hold(id, Ticket { attempt, text: Text::Message(note), redelivered }, reached);
    }

    /// Gives the agent its first task: typed before every message that is not under way.
    pub(super) fn assign(&mut self, task: String) {
        self.task = Some(task);
        self.offer_task();
    }

    /// No cursor hands the task over again, so whatever makes the desk forget it is followed by this.
    fn offer_task(&mut self) {
        let id = DeliveryId::from(TASK);
        if let Some(task) = self.task.clone()
            && !self.tickets.contains_key(&id)
        {
            self.hold(id, Ticket { attempt: 0, text: Text::Task(task), redelivered: false }, None);
        }
    }

    fn hold(&mut self, id: DeliveryId, ticket: Ticket, reached: Option<Rung>) {
        let sent_before = match &self.lane {
            Lane::Composer(lane) => lane.sent_before.iter().any(|sent| sent.id == id),
            Lane::Plain(_) => false,
        };
        if !sent_before && reached >= Some(Rung::Landed) {
            // Not by this child: it stood in the composer of one that has ended.
            let reason = "it stood in the composer of an earlier process of this agent, which has ended";
            let step = InjectStep::Failed { reason: reason.to_owned(), landed: true };
            return self.effects.push(Effect::Report { id, attempt: ticket.attempt, step });
        }
        match &mut self.lane {
            Lane::Plain(lane) => {
                lane.offer(id.clone(), frame(self.harness, &mut self.framed, &ticket).flat());
            }
            Lane::Composer(lane) if sent_before => {
                // It was under way, so nothing that came later may overtake it.
                if let Some(later) = lane.current.take_if(|injection| injection.is_untouched()) {
                    lane.waiting.push_front(later.id().clone());
                }
                lane.waiting.push_front(id.clone());
            }
            Lane::Composer(lane) => lane.waiting.push_back(id.clone()),
        }
        self.tickets.insert(id, ticket);
    }

    /// Forgets what is not begun.
    pub(super) fn cancel(&mut self) {
        match &mut self.lane {
            Lane::Plain(lane) => lane.cancel_waiting(),
            Lane::Composer(lane) => {
                lane.waiting.clear();
                lane.current.take_if(|injection| injection.is_untouched());
            }
        }
        self.drop_loose_tickets();
        self.offer_task();
    }

    fn drop_loose_tickets(&mut self) {
        let lane = &self.lane;
        self.tickets.retain(|id, _| match lane {
            Lane::Plain(lane) => lane.holds(id),
            Lane::Composer(lane) => lane.current.as_ref().is_some_and(|current| current.id() == id),
        });
    }

    /// A person's keystrokes: their number, or how many bytes wait already.
    pub(super) fn input(&mut self, bytes: Vec<u8>) -> Result<u64, usize> {
        self.consumed = None;
        self.writer.push_input(bytes)
    }

    /// The next bytes for the kernel.
    pub(super) fn offer(&self) -> Option<&[u8]> {
        self.writer.offer()
    }

    /// The kernel took so many of them.
    pub(super) fn took(&mut self, bytes: usize, now: Instant) {
        self.consumed = None;
        let Some(taken) = self.writer.took(bytes) else { return };
        self.taken(&taken, now);
    }

    fn taken(&mut self, taken: &Taken, now: Instant) {
        if let Kind::Input(number) = taken.kind {
            self.effects.push(Effect::InputTaken(number));
        }
        if let Lane::Plain(lane) = &mut self.lane {
            lane.took(taken, now);
        }
    }

    /// So many bytes are unread.
    pub(super) fn looked(&mut self, unread: usize, now: Instant) {
        self.consumed = Some(unread == 0 && self.writer.is_idle());
        if let Lane::Plain(lane) = &mut self.lane {
            for (id, step) in lane.looked(unread, self.writer.taken(), now) {
                self.say(id, step);
            }
        }
    }

    /// The child has thrown its unread input away.
    pub(super) fn flushed(&mut self, now: Instant) {
        self.consumed = None;
        self.readiness.flushed(now);
        // A composer shows what it has; there, the screen decides.
        if let Lane::Plain(lane) = &mut self.lane {
            for (id, step) in lane.flushed(self.writer.taken(), self.writer.begun(), now) {
                self.say(id, step);
            }
        }
    }

    /// Does what can be done now.
    pub(super) fn work(&mut self, canonical: bool, now: Instant) {
        self.readiness.line_mode(canonical, now);
        self.gate = self.judge(now);
        if self.gate == Gate::Open {
            self.readiness.mark_ready();
        }
        self.work_lane(canonical, now);
        self.update_state(now);
    }

    /// When to work again although nothing happened.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let gate_matters =
            !self.readiness.was_ready() || self.queued() > 0 || self.state == AgentState::Working;
        let gate = match &self.gate {
            Gate::Closed { until, .. } if gate_matters => until.filter(|at| *at > now),
            _ => None,
        };
        let lane = match &self.lane {
            Lane::Plain(_) => None,
            Lane::Composer(lane) => {
                let quiet = self.readiness.quiet(now);
                lane.current.as_ref().and_then(|injection| injection.wake(quiet, now))
            }
        };
        // A step may wait for a whole frame although its time has come.
        let next = [gate, lane].into_iter().flatten().min();
        next.map(|at| at.max(now + if self.screen.is_complete() { STEP_MIN } else { FRAME_STEP }))
    }

    /// How long to wait before the next look at what the child has read; `None` when it has read all that
    /// matters.
    pub(super) fn look_after(&self, now: Instant) -> Option<Duration> {
        match &self.lane {
            Lane::Plain(lane) => lane.look_after(self.writer.taken(), now),
            Lane::Composer(lane) => lane.current.as_ref().and_then(|injection| injection.look_after(now)),
        }
    }

    fn work_lane(&mut self, canonical: bool, now: Instant) {
        let submit = &self.harness.submit;
        let key = if canonical { &submit.canonical } else { &submit.raw };
        match &mut self.lane {
            Lane::Plain(lane) => {
                if self.gate == Gate::Open {
                    lane.fill(&mut self.writer, LineEnd { canonical, key }, now);
                }
            }
            Lane::Composer(_) => self.work_composer(now),
        }
    }

    fn work_composer(&mut self, now: Instant) {
        // As many as wait: each turn ends one injection or stops.
        for _ in 0..=self.queued() {
            if !self.begin_next(now) {
                return;
            }
            let Lane::Composer(lane) = &mut self.lane else { return };
            let Some(injection) = &mut lane.current else { return };
            let sight = Sight {
                gate: &self.gate,
                taken: !self.writer.holds(injection.id()),
                consumed: self.consumed,
                screen: &self.screen,
                complete: self.readiness.is_frame(self.screen.is_complete(), now),
                quiet: self.readiness.quiet(now),
            };
            let acts = injection.look(&sight, now);
            let id = injection.id().clone();
            let done = injection.is_done();
            let typed = acts.contains(&Act::Type).then(|| injection.text().to_owned());
            if done {
                lane.current = None;
            }
            if let Some(text) = typed {
                self.typed = true;
                self.consumed = None;
                let bytes = self.paste(text);
                self.writer.push_message(id.clone(), bytes);
            }
            for act in acts {
                match act {
                    Act::Type => {}
                    Act::Press => self.writer.push_submit(id.clone(), self.harness.submit.raw.as_bytes()),
                    Act::Say(step) => self.say(id.clone(), step),
                }
            }
            if !done {
                return;
            }
        }
    }

    /// Sees to it that an injection is under way; false when nothing waits.
    fn begin_next(&mut self, now: Instant) -> bool {
        let Lane::Composer(lane) = &mut self.lane else { return false };
        while lane.current.is_none() {
            let Some(id) = lane.waiting.pop_front() else { return false };
            let Some(ticket) = self.tickets.get(&id) else { continue };
            let sent = lane.sent_before.iter().position(|sent| sent.id == id);
            let submit = &self.harness.submit;
            lane.current = Some(match sent.map(|at| lane.sent_before.swap_remove(at)) {
                Some(Sent { wording, flat, as_line, .. }) => {
                    Injection::new(id, wording, submit, now).sent_before(flat, as_line)
                }
                None => {
                    let frame = frame(self.harness, &mut self.framed, ticket);
                    let wording = Wording { lines: frame.lines(), flat: frame.flat() };
                    Injection::new(id, wording, submit, now)
                }
            });
        }
        true
    }

    /// The text as this program takes it at this moment.
    fn paste(&self, text: String) -> Vec<u8> {
        if self.screen.bracketed_paste() {
            [b"\x1b[200~", text.as_bytes(), b"\x1b[201~"].concat()
        } else {
            text.into_bytes()
        }
    }

    fn judge(&mut self, now: Instant) -> Gate {
        if let Lane::Plain(_) = self.lane {
            return self.readiness.plain(&self.harness.ready, now);
        }
        if self.screen.is_complete() {
            self.working = self.first_match(&self.harness.working);
            self.blocked = self.first_match(&self.harness.blocked);
        }
        let look = Look {
            complete: self.readiness.is_frame(self.screen.is_complete(), now),
            pastes: self.screen.bracketed_paste(),
            pastes_seen: self.screen.bracketed_paste_seen(),
            alternate: self.screen.alternate(),
            working: self.working,
            blocked: self.blocked,
        };
        self.readiness.composer(&self.harness.ready, look, now)
    }

    fn first_match(&self, rules: &'static [Rule]) -> Option<&'static str> {
        let look = |place| self.screen.text(region(place));
        rules
            .iter()
            .find(|rule| !(rule.fresh && self.typed) && rule.matches(look))
            .map(|rule| rule.id.as_str())
    }

    fn update_state(&mut self, now: Instant) {
        let (state, because) = self.state_now(now);
        if because != self.because {
            self.because = because;
        }
        if state != self.state {
            let from = std::mem::replace(&mut self.state, state);
            self.effects.push(Effect::State { from, to: state });
        }
    }

    fn state_now(&self, now: Instant) -> (AgentState, String) {
        let ignored = match &self.lane {
            Lane::Plain(lane) => lane.is_ignored(now),
            Lane::Composer(lane) => lane.current.as_ref().is_some_and(|current| current.is_ignored(now)),
        };
        if ignored {
            return (AgentState::NotReading, "it does not read its input".to_owned());
        }
        let composer = matches!(self.lane, Lane::Composer(_));
        let state = if !self.readiness.was_ready() {
            let overdue = self.readiness.is_overdue(&self.harness.ready, now);
            let asks = self.blocked.is_some();
            if composer && (overdue || asks) { AgentState::Blocked } else { AgentState::Starting }
        } else if !composer {
            AgentState::Idle
        } else if self.blocked.is_some() {
            AgentState::Blocked
        } else if self.is_working() {
            AgentState::Working
        } else {
            AgentState::Idle
        };
        let because = match &self.gate {
            // A screen that is being drawn closes the gate for moments, which is no reason to show.
            _ if state == AgentState::Idle => "it takes messages",
            Gate::Open => "it takes messages",
            Gate::Closed { why, .. } => why,
        };
        (state, because.to_owned())
    }

    fn is_working(&self) -> bool {
        let closed = self.screen.bracketed_paste_seen() && !self.screen.bracketed_paste();
        closed || (self.gate != Gate::Open && self.working.is_some())
    }

    /// A program taken for plain shows a composer. What was written to it before may have been read by
    /// nobody: it is looked for on the screen before it is typed again.
    fn become_composer(&mut self) {
        self.harness = self.harness.with_composer();
        self.readiness.mark_starting();
        let mut composer = ComposerLane::default();
        if let Lane::Plain(plain) = std::mem::replace(&mut self.lane, Lane::Plain(PlainLane::default())) {
            let (begun, not_begun) = plain.give_up();
            for id in &begun {
                if let Some(ticket) = self.tickets.get(id) {
                    let body_max = self.harness.text.body_max;
                    let frame = match &ticket.text {
                        Text::Message(note) => Frame::new(note, Framing { body_max, ..Framing::default() }),
                        Text::Task(task) => Frame::task(task, body_max),
                    };
                    let wording = Wording { lines: frame.lines(), flat: frame.flat() };
                    let sent = Sent { id: id.clone(), wording, flat: true, as_line: true };
                    composer.sent_before.push(sent);
                }
            }
            composer.waiting.extend(begun);
            composer.waiting.extend(not_begun);
        }
        self.lane = Lane::Composer(Box::new(composer));
    }

    fn say(&mut self, id: DeliveryId, step: InjectStep) {
        if id.as_str() == TASK {
            return self.say_of_task(id, step);
        }
        let attempt = self.tickets.get(&id).map_or(0, |ticket| ticket.attempt);
        match &step {
            InjectStep::Proven(rung) => {
                self.tickets.remove(&id);
                if self.proven.len() == PROVEN_KEPT {
                    self.proven.pop_front();
                }
                self.proven.push_back((id.clone(), *rung));
            }
            InjectStep::Failed { .. } => {
                self.tickets.remove(&id);
            }
            InjectStep::Reached(_) | InjectStep::Waiting(_) | InjectStep::Stuck(_) => {}
        }
        self.effects.push(Effect::Report { id, attempt, step });
    }

    fn say_of_task(&mut self, id: DeliveryId, step: InjectStep) {
        let ended = match step {
            InjectStep::Proven(rung) => Ok(rung),
            InjectStep::Failed { reason, .. } => Err(reason),
            InjectStep::Reached(_) | InjectStep::Waiting(_) | InjectStep::Stuck(_) => return,
        };
        self.tickets.remove(&id);
        self.task = None;
        self.effects.push(Effect::Task(ended));
    }
}

fn empty_lane(harness: &Harness) -> Lane {
    match harness.composer {
        Composer::Never | Composer::Seen => Lane::Plain(PlainLane::default()),
        Composer::Always => Lane::Composer(Box::default()),
    }
}

fn frame(harness: &Harness, framed: &mut u64, ticket: &Ticket) -> Frame {
    let note = match &ticket.text {
        Text::Message(note) => note,
        Text::Task(task) => return Frame::task(task, harness.text.body_max),
    };
    let framing = Framing {
        nth: *framed,
        redelivered: ticket.redelivered,
        hints: harness.text.hints,
        body_max: harness.text.body_max,
    };
    *framed += 1;
    Frame::new(note, framing)
}

fn region(place: Place) -> Region {
    match place {
        Place::Screen => Region::All,
        Place::Bottom(rows) => Region::Bottom(rows),
        Place::Cursor { above, below } => Region::Cursor { above, below },
        Place::Title => Region::Title,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A desk, a clock, and a kernel and child that take and read everything at once unless told not to.
    struct World {
        desk: Desk,
        now: Instant,
        typed: Vec<u8>,
        reads: bool,
        effects: Vec<Effect>,
        attempt: u32,
    }

    impl World {
        fn new(harness: &str) -> Self {
            let now = Instant::now();
            let desk = Desk::new(Harness::by_name(harness).unwrap(), TermSize::default(), now);
            let effects = Vec::new();
            Self { desk, now, typed: Vec::new(), reads: true, effects, attempt: 0 }
        }

        fn ready(harness: &str, output: &str) -> Self {
            let mut world = Self::new(harness);
            world.output(output);
            world.pass(2000);
            assert!(world.desk.was_ready());
            world
        }

        fn output(&mut self, text: &str) {
            self.desk.output(text.as_bytes(), || false, self.now);
            self.turn();
        }

        fn turn(&mut self) {
            for _ in 0..4 {
                self.desk.work(false, self.now);
                while let Some(offer) = self.desk.offer() {
                    self.typed.extend_from_slice(offer);
                    let len = offer.len();
                    self.desk.took(len, self.now);
                }
                let waits = self.desk.look_after(self.now).is_some();
                if waits {
                    self.desk.looked(if self.reads { 0 } else { 1 }, self.now);
                }
            }
            self.effects.extend(self.desk.take_effects());
        }

        fn pass(&mut self, ms: u64) {
            for _ in 0..ms.div_ceil(10) {
                self.now += Duration::from_millis(10);
                self.turn();
            }
        }

        fn inject_with(&mut self, id: &str, reached: Option<Rung>) {
            self.attempt += 1;
            let note = Note {
                from: "Alice".into(),
                target: "Bob".into(),
                thread: None,
                msg_id: id.into(),
                body: format!("the body of {id}, long enough to be told from others"),
                sent_at: None,
                system: false,
            };
            let (delivery_id, attempt) = (id.into(), self.attempt);
            let mode = crate::messages::delivery::Mode::Wait;
            let redelivered = reached.is_some();
            self.desk.inject(Inject { delivery_id, attempt, mode, note, reached, redelivered });
            self.turn();
        }

        fn inject(&mut self, id: &str) {
            self.inject_with(id, None);
        }

        fn steps(&self, wanted: &str) -> Vec<InjectStep> {
            let step = |effect: &Effect| match effect {
                Effect::Report { id, step, .. } if id.as_str() == wanted => Some(step.clone()),
                _ => None,
            };
            self.effects.iter().filter_map(step).collect()
        }

        /// The program shows what it was sent, as a composer does.
        fn echo(&mut self) {
            let typed = String::from_utf8_lossy(&self.typed).replace('\n', "\r\n");
            self.output(&typed.replace("\x1b[200~", "").replace("\x1b[201~", ""));
        }

        fn typed(&self) -> String {
            String::from_utf8_lossy(&self.typed).into_owned()
        }

        fn times_typed(&self, id: &str) -> usize {
            self.typed().matches(&format!("the body of {id},")).count()
        }
    }

    const PROVEN: InjectStep = InjectStep::Proven(Rung::Consumed);
    const COMPOSER: &str = "\x1b[?2004hwelcome\r\n> ";

    #[test]
    fn a_proven_message_that_is_handed_over_again_is_answered_and_not_typed() {
        let mut world = World::ready("plain", "ready");
        world.inject("d1");
        world.inject("d1");
        assert_eq!(world.steps("d1"), [PROVEN, PROVEN]);
        assert_eq!(world.times_typed("d1"), 1);
        assert_eq!(world.desk.queued(), 0);
    }

    #[test]
    fn a_report_names_the_newest_attempt_and_an_older_one_is_dropped() {
        let mut world = World::ready("plain", "ready");
        world.reads = false;
        world.inject("d1");
        world.inject("d1");
        world.attempt = 0;
        world.inject("d1");
        assert_eq!(world.desk.stale, 1);
        world.reads = true;
        world.pass(50);
        let proof = Effect::Report { id: "d1".into(), attempt: 2, step: PROVEN };
        assert!(world.effects.contains(&proof), "{:?}", world.effects);
        assert_eq!(world.times_typed("d1"), 1);
    }

    #[test]
    fn what_landed_in_a_process_that_is_gone_is_not_typed_into_the_next_one() {
        let mut world = World::ready("generic", COMPOSER);
        world.inject_with("d1", Some(Rung::Landed));
        assert!(matches!(world.steps("d1")[..], [InjectStep::Failed { landed: true, .. }]));
        world.inject_with("d2", Some(Rung::Written));
        assert_eq!(world.times_typed("d2"), 1);
    }

    #[test]
    fn a_cancel_forgets_what_is_not_begun_alone() {
        let mut world = World::new("plain");
        world.inject("d1");
        world.desk.cancel();
        world.pass(3000);
        assert_eq!((world.times_typed("d1"), world.desk.queued()), (0, 0));
        world.inject("d1");
        assert_eq!(world.times_typed("d1"), 1);

        let mut world = World::ready("generic", COMPOSER);
        world.inject("d1");
        world.inject("d2");
        world.desk.cancel();
        assert_eq!(world.desk.injecting().unwrap().delivery_id, DeliveryId::from("d1"));
        assert_eq!(world.desk.queued(), 1);
    }

    #[test]
    fn the_first_task_is_typed_once_bare_and_before_every_message() {
        for (harness, screen) in [("plain", "ready"), ("generic", COMPOSER)] {
            let mut world = World::new(harness);
            world.desk.assign("count the boats in the harbour".to_owned());
            world.inject("d1");
            // Nobody but the desk knows of it: neither a cancel nor a new life may lose it.
            world.desk.cancel();
            world.desk.begin_next_life();
            world.inject("d1");
            world.output(screen);
            world.pass(2000);
            let typed = world.typed();
            assert_eq!(typed.matches("count the boats").count(), 1, "{harness}: {typed}");
            let begin = if harness == "plain" { "count" } else { "\x1b[200~count" };
            assert!(typed.starts_with(begin), "{harness}: {typed}");
            if harness == "generic" {
                assert_eq!(world.times_typed("d1"), 0, "it waits for the task");
                world.echo();
                world.pass(600);
                world.output("\r\n\r\nthinking\r\n> ");
                world.pass(1500);
            }
            let ended = world.effects.iter().filter(|effect| matches!(effect, Effect::Task(Ok(_))));
            assert_eq!(ended.count(), 1, "{harness}: {:?}", world.effects);
            assert_eq!(world.times_typed("d1"), 1, "{harness}");
            world.desk.begin_next_life();
            world.pass(2000);
            assert_eq!(world.typed().matches("count the boats").count(), 1, "{harness}");
        }
    }

    #[test]
    fn a_start_up_dialog_holds_messages_back_and_a_quoted_one_does_not() {
        let mut world = World::new("generic");
        world.output("\x1b[?2004hWelcome\r\n> 1. Sign in\r\n  2. Leave\r\nPress enter to continue");
        world.pass(2000);
        world.inject("d1");
        world.pass(5000);
        assert_eq!((world.times_typed("d1"), world.desk.state().0), (0, AgentState::Blocked));
        world.output("\x1b[2J\x1b[H\r\n> ");
        world.pass(1500);
        assert_eq!(world.times_typed("d1"), 1, "it was answered");
        world.echo();
        world.pass(600);
        world.output("\x1b[2J\x1b[H Alice quotes:\r\n> 1. Sign in\r\nPress enter to continue\r\n> ");
        world.pass(1500);
        world.inject("d2");
        world.pass(1500);
        assert_eq!(world.times_typed("d2"), 1);
    }

    #[test]
    fn a_new_life_of_the_worker_types_nothing_twice() {
        let mut world = World::ready("plain", "ready");
        world.reads = false;
        world.inject("d1");
        world.desk.begin_next_life();
        world.inject("d1");
        world.reads = true;
        world.pass(50);
        assert_eq!((world.times_typed("d1"), world.steps("d1")), (1, vec![PROVEN]));

        let mut world = World::ready("generic", COMPOSER);
        world.inject("d1");
        assert_eq!(world.times_typed("d1"), 1);
        world.echo();
        world.desk.begin_next_life();
        world.inject_with("d1", Some(Rung::Landed));
        world.pass(600);
        assert_eq!(world.times_typed("d1"), 1);
        assert!(world.typed.ends_with(b"\r"), "it was looked for, found, and submitted");
        world.output("\r\n\r\nthinking\r\n> ");
        world.pass(100);
        assert_eq!(world.steps("d1").last(), Some(&InjectStep::Proven(Rung::Submitted)));
    }

    #[test]
    fn an_unknown_program_that_shows_a_composer_gets_the_rules_of_one() {
        let mut world = World::new("auto");
        world.output("loading");
        world.inject("d1");
        assert_eq!(world.times_typed("d1"), 0, "it is still starting");
        world.pass(500);
        world.output(COMPOSER);
        world.pass(700);
        assert_eq!(world.desk.harness().name, "generic");
        assert_eq!(world.times_typed("d1"), 1);
        assert!(world.typed.starts_with(b"\x1b[200~[relay DM from Alice"));
    }

    #[test]
    fn what_a_program_was_sent_before_it_showed_a_composer_is_looked_for_first() {
        let mut world = World::ready("auto", "loading");
        world.reads = false;
        world.inject("d1");
        world.reads = true;
        assert_eq!(world.times_typed("d1"), 1);
        world.output("\r\n");
        let mut swallowed = World::ready("auto", "loading");
        swallowed.reads = false;
        swallowed.inject("d1");
        swallowed.reads = true;

        // It shows the text: that was its proof. It shows nothing of it: typed once more.
        world.desk.output(
            b"the body of d1, long enough to be told from others\r\n\x1b[?2004h> ",
            || false,
            world.now,
        );
        world.pass(4000);
        assert_eq!((world.times_typed("d1"), world.steps("d1").last()), (1, Some(&PROVEN)));
        swallowed.desk.output(b"\x1b[?2004h> ", || false, swallowed.now);
        swallowed.pass(4000);
        assert_eq!(swallowed.times_typed("d1"), 2);
    }

    #[test]
    fn a_shell_that_runs_a_command_is_working_and_gets_nothing() {
        let mut world = World::ready("auto", COMPOSER);
        assert_eq!(world.desk.state().0, AgentState::Idle);
        world.output("\x1b[?2004l\r\nbuilding");
        assert_eq!(world.desk.state().0, AgentState::Working);
        world.inject("d1");
        world.pass(5000);
        assert_eq!(world.times_typed("d1"), 0);
        assert!(matches!(&world.steps("d1")[..], [InjectStep::Waiting(why)] if why.contains("working")));
        world.output("\r\n\x1b[?2004h> ");
        world.pass(300);
        assert_eq!(world.times_typed("d1"), 1);
    }

    #[test]
    fn a_program_that_never_shows_its_composer_is_blocked_and_gets_nothing() {
        let mut world = World::new("generic");
        world.output("What now? (y/n) ");
        world.inject("d1");
        world.now += Duration::from_secs(121);
        world.turn();
        assert_eq!(world.desk.state().0, AgentState::Blocked);
        assert!(world.typed.is_empty());
    }

    #[test]
    fn an_idle_desk_wants_no_timer() {
        for (harness, output) in [("plain", "ready"), ("generic", COMPOSER), ("auto", COMPOSER)] {
            let world = World::ready(harness, output);
            assert_eq!(world.desk.wake(world.now), None, "{harness}");
            assert_eq!(world.desk.look_after(world.now), None, "{harness}");
        }
    }
}
