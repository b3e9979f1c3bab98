//! The worker's work without its terminal: output in, bytes to type out, reports and states as effects.
//!
//! ```text
//! output --> screen --> readiness --> state
//! Inject --> frame --> lane (plain or composer) --> writer --> kernel --> proof --> report
//! ```
//!
//! It never reads a clock and never touches a descriptor; [`PtyWorker`](super::PtyWorker) does both and asks.

mod closing;
mod composer;
mod state;
mod tickets;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use closing::Closing;
use composer::{ComposerLane, Sent};
use tickets::{Task, Ticket};

use super::{
    dialog::Dialogs,
    person::Person,
    plain::{LineEnd, PlainLane},
    readiness::{Gate, Readiness},
    sight::before_cursor,
    writer::{Kind, Taken, Writer},
};
use crate::{
    harness::{self, ComposerKind, Harness, Rule},
    ids::{AgentName, DeliveryId, DialogId},
    messages::{
        delivery::{InjectStep, Rung},
        pty::{AgentState, AnswerRefused, Dialog, InjectionView, PtyRefused, TermSize},
        spawn::Autonomy,
    },
    screen::Screen,
};

/// Proven deliveries remembered: one that is handed over again after its proof is answered, not typed.
const PROVEN_KEPT: usize = 256;
/// Injections held without a composer, and with one.
const WINDOW_PLAIN: usize = 64;
const WINDOW_COMPOSER: usize = 8;

/// The first task among the deliveries. Ids of engines begin with `del_` or `evt_`.
pub(super) const TASK: &str = "task";

/// Rows of the screen in a report of an injection that is stuck.
const STUCK_ROWS: u16 = 12;

/// Shortest time to the next step, and while a frame is being drawn.
const STEP_MIN: Duration = Duration::from_millis(1);
const FRAME_STEP: Duration = Duration::from_millis(50);

/// From a question to the first key of its answer: claude draws one before it listens, and an Enter whose Down was
/// lost takes the wrong choice.
const HEARS_AFTER: Duration = Duration::from_millis(600);

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
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
        /// Why.
        because: String,
        /// What it asks.
        dialog: Option<Dialog>,
    },
    /// A dialog was answered with this choice, which the spawn had made.
    Granted(DialogId, &'static str),
    /// The kernel has taken these keystrokes.
    InputTaken(u64),
    /// The first task is in, or never will be, and why.
    Task(Result<Rung, String>),
}

#[derive(Debug)]
enum Lane {
    Plain(PlainLane),
    Composer(Box<ComposerLane>),
}

/// The work. See the module.
#[derive(Debug)]
pub(crate) struct Desk {
    harness: &'static Harness,
    /// The rule set before it showed a composer, if it was taken for a program without one.
    before: Option<&'static Harness>,
    agent: AgentName,
    /// The program was handed the broker's tools.
    has_tools: bool,
    /// What it may do without asking.
    autonomy: Autonomy,
    screen: Screen,
    writer: Writer,
    readiness: Readiness,
    lane: Lane,
    tickets: HashMap<DeliveryId, Ticket>,
    /// The first task, until it is in.
    task: Option<Task>,
    proven: VecDeque<(DeliveryId, Rung)>,
    framed: u64,
    state: AgentState,
    because: String,
    gate: Gate,
    /// The same for a message that does not wait for rest.
    busy: Gate,
    person: Person,
    /// Their words stand in the composer, as far as the last look could tell.
    drafts: bool,
    /// It asks something that no rule knows, in place of its prompt.
    unknown: bool,
    /// When it will count as doing so.
    unknown_at: Option<Instant>,
    /// The busy rule and the dialog rule that match the last whole frame.
    working: Option<&'static Rule>,
    blocked: Option<&'static harness::Dialog>,
    dialogs: Dialogs,
    /// When the open dialog was first seen.
    asked_at: Option<Instant>,
    /// The dialog that somebody has answered last: the spawn's autonomy does not do so again.
    answered: Option<DialogId>,
    /// It was ready once, whatever it has become.
    ever_ready: bool,
    /// A message or a person's words were read as lines: then it is one that reads such.
    lines_read: bool,
    /// A message was typed into this child: its screen may show what others wrote.
    typed: bool,
    /// The child had read everything at the last look, if that was after the last byte.
    consumed: Option<bool>,
    /// The last rows of the screen when the injection under way was found stuck.
    stuck: Option<String>,
    /// Messages in a row that were submitted and not found in the program's record.
    unrecorded: u8,
    closing: Closing,
    effects: Vec<Effect>,
    /// Handed over with an attempt that is older than one already seen.
    pub(crate) stale: u64,
}

impl Desk {
    /// The desk of this agent, whose program starts now.
    pub(crate) fn new(harness: &'static Harness, agent: AgentName, size: TermSize, now: Instant) -> Self {
        Self {
            harness,
            before: None,
            agent,
            has_tools: false,
            autonomy: Autonomy::Ask,
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
            busy: Gate::Closed { why: "the program is starting".to_owned(), until: None },
            person: Person::default(),
            drafts: false,
            unknown: false,
            unknown_at: None,
            working: None,
            blocked: None,
            dialogs: Dialogs::default(),
            asked_at: None,
            answered: None,
            ever_ready: false,
            lines_read: false,
            typed: false,
            consumed: None,
            stuck: None,
            unrecorded: 0,
            closing: Closing::No,
            effects: Vec::new(),
            stale: 0,
        }
    }

    /// The program was handed the broker's tools, and may be told of them.
    pub(crate) fn with_tools(self, has_tools: bool) -> Self {
        Self { has_tools, ..self }
    }

    /// The spawn said how much the program may do without asking.
    pub(crate) fn with_autonomy(self, autonomy: Autonomy) -> Self {
        Self { autonomy, ..self }
    }

    /// Begins the next life of the worker around the same child. Kept is what the child has or may have of
    /// ours: the writer's queue, flights, the text in the composer. Forgotten is what was not begun: the
    /// cursor hands it over again.
    pub(crate) fn begin_next_life(&mut self) {
        self.effects.clear();
        match &mut self.lane {
            Lane::Plain(lane) => lane.cancel_waiting(),
            Lane::Composer(lane) => {
                lane.cancel_waiting();
                lane.waiting.clear();
                lane.sent_before.extend(lane.current.take().map(|begun| {
                    let (wording, flat) = begun.wording();
                    let ids = begun.ids().cloned().collect();
                    Sent { ids, wording: wording.clone(), flat, as_line: false }
                }));
            }
        }
        self.drop_loose_tickets();
        self.offer_task();
    }

    /// The screen.
    pub(crate) fn screen(&self) -> &Screen {
        &self.screen
    }

    /// The rule set in use now.
    #[cfg(test)]
    pub(crate) fn harness(&self) -> &'static Harness {
        self.harness
    }

    /// What the agent does, and why in words.
    pub(crate) fn state(&self) -> (AgentState, &str) {
        (self.state, &self.because)
    }

    /// True once it has been ready.
    pub(crate) fn was_ready(&self) -> bool {
        self.ever_ready
    }

    /// The longest body, in bytes, that is sure to be typed whole.
    pub(crate) fn typed_max(&self) -> usize {
        self.harness.typed_max()
    }

    /// How many injections it holds at once.
    pub(crate) fn window(&self) -> usize {
        if self.harness.composer.kind == ComposerKind::Always { WINDOW_COMPOSER } else { WINDOW_PLAIN }
    }

    /// Injections held and not done.
    pub(crate) fn queued(&self) -> usize {
        match &self.lane {
            Lane::Plain(lane) => lane.len(),
            Lane::Composer(lane) => lane.len(),
        }
    }

    /// Messages that stand in the composer or are on their way into it. What a program without one has read has its
    /// proof.
    pub(crate) fn half_way(&self) -> Vec<DeliveryId> {
        let Lane::Composer(lane) = &self.lane else { return Vec::new() };
        let begun = lane.begun().into_iter().flat_map(|begun| begun.ids());
        begun.filter(|id| id.as_str() != TASK).cloned().collect()
    }

    /// The injection that is furthest.
    pub(crate) fn injecting(&self) -> Option<InjectionView> {
        match &self.lane {
            Lane::Plain(lane) => lane.front().map(|(id, rung)| InjectionView {
                delivery_id: id.clone(),
                rung,
                waiting_for: match (&self.gate, rung) {
                    (Gate::Closed { why, .. }, Rung::Queued) => why.clone(),
                    _ => "the agent to read its input".to_owned(),
                },
                stuck: self.stuck.clone(),
            }),
            Lane::Composer(lane) => lane.current.as_ref().map(|injection| InjectionView {
                delivery_id: injection.lead().clone(),
                rung: injection.rung(),
                waiting_for: injection.waiting_for(),
                stuck: self.stuck.clone(),
            }),
        }
    }

    /// What has happened since the last call.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The program wrote something. `canonical` says whether it reads lines now: then nobody waits for an
    /// answer to a query in it, and one would only spoil the next line.
    pub(crate) fn output(&mut self, bytes: &[u8], canonical: impl FnOnce() -> bool, now: Instant) {
        self.readiness.output(now);
        let answers = self.screen.feed(bytes);
        if !answers.is_empty() && !canonical() {
            // A program that asks without end and never reads gets no more answers.
            self.writer.push_answer(answers);
        }
        let shows_composer = self.screen.bracketed_paste() || self.screen.alternate();
        if self.harness.composer.kind == ComposerKind::Seen && shows_composer {
            self.become_composer(now);
        }
    }

    /// A new size.
    pub(crate) fn resize(&mut self, size: TermSize) {
        self.screen.resize(size);
    }

    /// A person's keystrokes: their number, or how many bytes wait already.
    pub(crate) fn input(&mut self, bytes: Vec<u8>, now: Instant) -> Result<u64, usize> {
        // A person who is answering a dialog, or typing into what has no composer open, leaves nothing there.
        let into_composer = matches!(self.lane, Lane::Composer(_))
            && self.blocked.is_none()
            && (self.screen.bracketed_paste() || !self.screen.bracketed_paste_seen());
        let resting = into_composer.then(|| before_cursor(&self.screen));
        self.lines_read |= matches!(self.lane, Lane::Plain(_));
        let keys = bytes.clone();
        self.consumed = None;
        let number = self.writer.push_input(bytes, Duration::ZERO)?;
        self.person.types(&keys, resting, now);
        Ok(number)
    }

    /// Strokes of the broker's own, apart from each other: the number of the last one, or how many bytes wait
    /// already.
    pub(crate) fn strokes(&mut self, strokes: impl Iterator<Item = Vec<u8>>) -> Result<u64, usize> {
        self.consumed = None;
        self.writer.push_strokes(strokes.zip(self.harness.submit.gaps()).collect())
    }

    /// The dialog that is open.
    pub(crate) fn dialog(&self) -> Option<&Dialog> {
        self.dialogs.view()
    }

    /// Answers the dialog that is open: the number of the last keystroke, and which dialog gets them. A program that
    /// has just drawn its question is given a moment before the first key.
    pub(crate) fn answer(
        &mut self,
        choice: &str,
        expected: Option<&DialogId>,
    ) -> Result<(u64, DialogId), AnswerRefused> {
        let (id, keys) = self.dialogs.keys(choice, expected, self.screen.application_cursor())?;
        if let Some(asked_at) = self.asked_at {
            self.writer.count_gaps_from(asked_at);
        }
        let gaps = std::iter::once(HEARS_AFTER).chain(std::iter::repeat(self.harness.submit.stroke_gap));
        self.consumed = None;
        let last = self.writer.push_strokes(keys.into_iter().zip(gaps).collect());
        let last = last.map_err(PtyRefused::InputFull)?;
        self.answered = Some(id.clone());
        Ok((last, id))
    }

    /// The next bytes for the kernel.
    pub(crate) fn offer(&self, now: Instant) -> Option<&[u8]> {
        self.writer.offer(now)
    }

    /// The kernel took so many of them.
    pub(crate) fn took(&mut self, bytes: usize, now: Instant) {
        self.consumed = None;
        let Some(taken) = self.writer.took(bytes, now) else { return };
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
    pub(crate) fn looked(&mut self, unread: usize, now: Instant) {
        self.consumed = Some(unread == 0 && self.writer.is_idle());
        if let Lane::Plain(lane) = &mut self.lane {
            for (id, step) in lane.looked(unread, self.writer.taken(), now) {
                self.say(id, step);
            }
        }
    }

    /// The child has thrown its unread input away.
    pub(crate) fn flushed(&mut self, now: Instant) {
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
    pub(crate) fn work(&mut self, canonical: bool, now: Instant) {
        self.readiness.line_mode(canonical, now);
        self.become_plain_again(now);
        self.judge(now);
        self.work_lane(canonical, now);
        self.update_state(now);
        self.answer_as_granted(now);
    }

    /// When to work again although nothing happened.
    pub(crate) fn wake(&self, now: Instant) -> Option<Instant> {
        let gate_matters =
            !self.readiness.was_ready() || self.queued() > 0 || self.state == AgentState::Working;
        let gate = match &self.gate {
            Gate::Closed { until, .. } if gate_matters => until.filter(|at| *at > now),
            _ => None,
        };
        let lane = match &self.lane {
            Lane::Composer(lane) if self.closing != Closing::Over => {
                let quiet = self.readiness.quiet(now);
                lane.current.as_ref().and_then(|injection| injection.wake(quiet, now))
            }
            Lane::Plain(_) | Lane::Composer(_) => None,
        };
        // A step may wait for a whole frame although its time has come.
        let person = self.person.typing_until(now);
        let overdue = self.overdue_at(now);
        // What is due and not taken waits for room, not for a time.
        let stroke = self.writer.due().filter(|at| *at > now);
        let unknown = self.unknown_at.filter(|at| *at > now);
        let granted = self.granted_at().filter(|at| *at > now);
        let next = [gate, lane, overdue, person, stroke, unknown, granted].into_iter().flatten().min();
        next.map(|at| at.max(now + if self.screen.is_complete() { STEP_MIN } else { FRAME_STEP }))
    }

    /// How long to wait before the next look at what the child has read; `None` when it has read all that
    /// matters.
    pub(crate) fn look_after(&self, now: Instant) -> Option<Duration> {
        match &self.lane {
            Lane::Plain(lane) => lane.look_after(self.writer.taken(), now),
            Lane::Composer(lane) => lane.current.as_ref().and_then(|injection| injection.look_after(now)),
        }
    }

    fn work_lane(&mut self, canonical: bool, now: Instant) {
        match &mut self.lane {
            Lane::Plain(lane) => {
                if self.closing != Closing::No {
                    // Also what the program has thrown away meanwhile.
                    lane.cancel_waiting();
                }
                if self.gate == Gate::Open {
                    // A terminal that collects lines ends them with a line feed.
                    let key = if canonical { "\n".to_owned() } else { self.harness.submit.key.sent() };
                    lane.fill(&mut self.writer, LineEnd { canonical, key: &key }, now);
                }
            }
            Lane::Composer(_) if self.closing == Closing::Over => {}
            Lane::Composer(_) => self.work_composer(now),
        }
    }
}

fn empty_lane(harness: &Harness) -> Lane {
    match harness.composer.kind {
        ComposerKind::Never | ComposerKind::Seen => Lane::Plain(PlainLane::default()),
        ComposerKind::Always => Lane::Composer(Box::default()),
    }
}
