//! One text into a composer: the closed loop of spec/pty 7, as a state machine without clock or terminal. The
//! text is one message, or several that wait together and then share every step.
//!
//! ```text
//! Gate --open--> Write --taken--> Consume --read--> Land --seen--> Settle --quiet--> Submit --left--> done
//!   ^                                                 | not seen, nothing of it on the screen: once more |
//!   +-------------------------------------------------+                      Record <--where one is kept-+
//! ```
//!
//! What has landed is never typed again. Enter is pressed at most a few times, and only while the text stands
//! in the composer, and nothing else with it: with a person's words, or behind a dialog, it waits. Nothing here
//! succeeds because time has passed: time only decides when to press again, to try again once, or to say that
//! it is stuck.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::{
    frame::{Frame, LINE_BREAK},
    person::Beside,
    plain::{STUCK, stuck},
    readiness::Gate,
    sight::{Place, Trace},
    turn::Way,
};
use crate::{
    harness::{Harness, Newline, Proof},
    ids::DeliveryId,
    messages::delivery::{InjectStep, Rung},
    screen::Screen,
};

/// Text that has left the composer counts when it stays away this long: a redraw may pass through anything.
const LEFT_FOR: Duration = Duration::from_millis(30);
/// Between looks at what the child has read.
const LOOK: Duration = Duration::from_millis(10);
/// The same when it has not read for long.
const LOOK_IGNORED: Duration = Duration::from_millis(250);
/// How long it waits before it says what for.
const WAITING_TOLD: Duration = Duration::from_secs(1);
/// Times the text is typed at most.
const TYPED_MAX: u8 = 2;
/// A program that read the text and has drawn nothing since is still starting: it gets the text again when it
/// draws, or after this long.
const DRAWS_AGAIN: Duration = Duration::from_secs(10);

/// Within this a program that writes its turns down has done so (measured: 0.1 to 0.4 s). Later, what the screen
/// shows is all the proof there is.
const RECORDED: Duration = Duration::from_secs(2);

/// What it waits for beyond the gate, in words.
const DIALOG: &str = "a dialog to be answered";
const TYPING: &str = "a person who is typing";
const MIXED: &str = "a person's words in the composer to be sent or taken away";
const TAKEN: &str = "a person changed the text in the composer, or took it away";

/// What the machine sees.
pub(super) struct Sight<'a> {
    /// May a message be typed now that waits for rest?
    pub gate: &'a Gate,
    /// And one that does not?
    pub busy: &'a Gate,
    /// A turn runs.
    pub working: bool,
    /// A dialog is open: what stands behind it cannot be seen.
    pub dialog: bool,
    /// What a person did since the text was typed.
    pub person: Beside,
    /// The kernel has taken everything of ours.
    pub taken: bool,
    /// The child has read everything; `None` when nobody has looked since the last byte.
    pub consumed: Option<bool>,
    /// The screen.
    pub screen: &'a Screen,
    /// It shows a whole frame.
    pub complete: bool,
    /// Silence so far.
    pub quiet: Duration,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Type the text, between paste markers if the program takes pastes now.
    Type,
    /// Press the key that submits.
    Press,
    /// Press the key of the program's own queue.
    Queue,
    /// Press the key that stops the turn.
    Interrupt,
    /// Tell the cursor.
    Say(InjectStep),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Gate,
    Write,
    Consume,
    Land,
    Settle,
    Submit,
    Record,
    Done,
}

/// A message in the forms that it may be typed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wording {
    /// Between paste markers.
    pub lines: String,
    /// Where no paste is taken: each line would be submitted on its own.
    pub flat: String,
}

impl Wording {
    /// Of one message, or of several one below the other, each with its own header.
    pub(super) fn of(frames: &[Frame]) -> Self {
        let lines: Vec<_> = frames.iter().map(Frame::lines).collect();
        let flat: Vec<_> = frames.iter().map(Frame::flat).collect();
        Self { lines: lines.join("\n\n"), flat: flat.join(LINE_BREAK) }
    }
}

/// One text on its way. See the module.
#[derive(Debug)]
pub(super) struct Injection {
    /// Its first message, by which the writer knows it.
    lead: DeliveryId,
    /// Those that share the text with it, in their order.
    others: Vec<DeliveryId>,
    wording: Wording,
    way: Way,
    /// When the turn was stopped for it.
    interrupted: Option<Instant>,
    /// The form that was typed: the flat one.
    flat: bool,
    trace: Trace,
    harness: &'static Harness,
    phase: Phase,
    since: Instant,
    rung: Rung,
    progress: Instant,
    typed: u8,
    /// When this machine typed it last.
    typed_at: Option<Instant>,
    /// It was sent to a plain program, with the end of a line.
    as_line: bool,
    presses: u8,
    /// Bracketed paste was on at the first press.
    pasted: bool,
    left_since: Option<Instant>,
    /// The program's own record is the proof that is wanted.
    wants_record: bool,
    stuck: bool,
    waiting: Option<String>,
    waiting_told: bool,
    /// Somebody else must act first.
    yields: bool,
}

impl Injection {
    /// A text that was never typed, of one message or of several.
    pub(super) fn new(
        lead: DeliveryId,
        others: Vec<DeliveryId>,
        wording: Wording,
        way: Way,
        harness: &'static Harness,
        now: Instant,
    ) -> Self {
        Self {
            trace: Trace::new(&wording.lines, &harness.composer.paste_marks),
            lead,
            others,
            wording,
            way,
            interrupted: None,
            flat: false,
            harness,
            phase: Phase::Gate,
            since: now,
            rung: Rung::Queued,
            progress: now,
            typed: 0,
            typed_at: None,
            as_line: false,
            presses: 0,
            pasted: false,
            left_since: None,
            wants_record: harness.proof == Proof::Accepted && harness.records.is_some(),
            stuck: false,
            waiting: None,
            waiting_told: false,
            yields: false,
        }
    }

    /// The same where no record is to be had, although the program is known to keep one.
    pub(super) fn without_record(mut self) -> Self {
        self.wants_record = false;
        self
    }

    /// Takes the place of a text for which nothing was done yet, and of its patience.
    pub(super) fn instead_of(mut self, before: Self) -> Self {
        self.since = before.since;
        self.waiting = before.waiting;
        self
    }

    /// A text that this very child was sent before, perhaps without reading it: it is looked for before it is
    /// typed again. `as_line` says that the end of a line was sent with it.
    pub(super) fn sent_before(mut self, flat: bool, as_line: bool) -> Self {
        self.choose(flat);
        self.phase = Phase::Write;
        self.typed = 1;
        self.as_line = as_line;
        self
    }

    /// Its first message, by which the writer knows it.
    pub(super) fn lead(&self) -> &DeliveryId {
        &self.lead
    }

    /// All its messages, in their order.
    pub(super) fn ids(&self) -> impl Iterator<Item = &DeliveryId> {
        std::iter::once(&self.lead).chain(&self.others)
    }

    /// How it meets what the program does.
    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// How far.
    pub(super) fn rung(&self) -> Rung {
        self.rung
    }

    /// The text to type.
    pub(super) fn text(&self) -> &str {
        if self.flat { &self.wording.flat } else { &self.wording.lines }
    }

    /// All its forms, and whether the flat one was chosen.
    pub(super) fn wording(&self) -> (&Wording, bool) {
        (&self.wording, self.flat)
    }

    fn choose(&mut self, flat: bool) {
        self.flat = flat;
        self.trace = Trace::new(self.text(), &self.harness.composer.paste_marks);
    }

    /// True before the first byte.
    pub(super) fn is_untouched(&self) -> bool {
        self.typed == 0
    }

    /// True while another text may take its place: nothing was done for it.
    pub(super) fn is_open(&self) -> bool {
        self.typed == 0 && self.interrupted.is_none()
    }

    /// True while nothing of it is with the child: it was never typed, or was read and shows nowhere.
    pub(super) fn is_at_gate(&self) -> bool {
        self.phase == Phase::Gate && self.interrupted.is_none()
    }

    /// True when nothing more will come.
    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// True while the program's record may show the text: it was submitted, or an earlier life may have done it.
    pub(super) fn awaits_record(&self) -> bool {
        let may_be_in = match self.phase {
            Phase::Submit | Phase::Record => true,
            Phase::Land => self.typed_at.is_none(),
            _ => false,
        };
        self.wants_record && may_be_in
    }

    /// True when it ended without the record that was wanted.
    pub(super) fn is_unrecorded(&self) -> bool {
        self.wants_record && self.is_done() && self.rung == Rung::Submitted
    }

    /// True while it comes to its proof by itself: the child has, or is being given, its text, and nobody else must
    /// act first.
    pub(super) fn is_moving(&self, now: Instant) -> bool {
        let is_half_way = !matches!(self.phase, Phase::Gate | Phase::Done);
        is_half_way && !self.yields && !self.stuck && !self.is_ignored(now)
    }

    /// No better proof will come than the one that was seen: the text was submitted, and its record waited for.
    pub(super) fn conclude(&mut self) -> Option<InjectStep> {
        (self.phase == Phase::Record).then(|| self.submitted())
    }

    /// True when the kernel took the text long ago and the child has not read it.
    pub(super) fn is_ignored(&self, now: Instant) -> bool {
        self.phase == Phase::Consume && self.since + super::plain::NOT_READING <= now
    }

    /// What it waits for, in words.
    pub(super) fn waiting_for(&self) -> String {
        match self.phase {
            Phase::Gate => self.waiting.clone().unwrap_or_else(|| "the agent to be ready".to_owned()),
            Phase::Write => "the terminal to take the text".to_owned(),
            Phase::Consume => "the agent to read the text".to_owned(),
            Phase::Land => "the text to show in the composer".to_owned(),
            Phase::Settle => self.waiting.clone().unwrap_or_else(|| "the composer to settle".to_owned()),
            Phase::Submit => self.waiting.clone().unwrap_or_else(|| {
                format!("the text to leave the composer (submit key pressed {}×)", self.presses)
            }),
            Phase::Record => "the agent to write the turn down".to_owned(),
            Phase::Done => String::new(),
        }
    }

    /// Looks once and does what follows; several steps when they follow at once.
    pub(super) fn look(&mut self, sight: &Sight<'_>, now: Instant) -> Vec<Act> {
        let mut acts = Vec::new();
        self.yields = false;
        // Bounded by the number of phases: each turn goes on or stops.
        for _ in 0..9 {
            let before = self.phase;
            self.step(sight, now, &mut acts);
            if self.phase == before || self.phase == Phase::Done {
                break;
            }
        }
        let moving = matches!(self.phase, Phase::Gate | Phase::Done);
        if !moving && !self.stuck && self.progress + STUCK <= now {
            self.stuck = true;
            acts.push(Act::Say(stuck(self.rung)));
        }
        acts
    }

    /// The program's own record shows the text as a turn of its user: the best proof there is, whatever the
    /// screen shows. Nothing when the text was never typed.
    pub(super) fn recorded(&mut self) -> Option<InjectStep> {
        if self.is_untouched() || self.is_done() {
            return None;
        }
        self.rung = Rung::Accepted;
        self.phase = Phase::Done;
        Some(InjectStep::Proven(Rung::Accepted))
    }

    /// How long to wait before the next look at what the child has read.
    pub(super) fn look_after(&self, now: Instant) -> Option<Duration> {
        let pause = if self.is_ignored(now) { LOOK_IGNORED } else { LOOK };
        (self.phase == Phase::Consume).then_some(pause)
    }

    /// When to step again although nothing happened; the gate's own time is not in it.
    pub(super) fn wake(&self, quiet: Duration, now: Instant) -> Option<Instant> {
        let stuck = (!self.stuck).then(|| self.progress + STUCK);
        let soonest = |at: Instant| Some(stuck.map_or(at, |stuck| stuck.min(at)));
        match self.phase {
            _ if self.yields => Some(self.since + WAITING_TOLD).filter(|at| *at > now),
            Phase::Done => None,
            Phase::Gate => {
                let again = self.typed_at.map(|_| self.since + DRAWS_AGAIN);
                let stopped = self.interrupted.map(|at| at + self.harness.busy.interrupt_wait);
                let times = [Some(self.since + WAITING_TOLD), again, stopped];
                times.into_iter().flatten().filter(|at| *at > now).min()
            }
            Phase::Write | Phase::Consume => stuck,
            Phase::Land => {
                let landed = self.progress + self.harness.submit.landed;
                if landed > now { soonest(landed) } else { stuck }
            }
            Phase::Settle => {
                let still = now + self.harness.submit.settle_quiet.saturating_sub(quiet);
                let at = still.max(self.since + self.harness.submit.settle);
                soonest(
                    at.min(self.since + self.harness.submit.settle_max).max(now + Duration::from_millis(1)),
                )
            }
            Phase::Submit => {
                let again = self.since + self.harness.submit.submitted * u32::from(self.presses);
                let again = (self.presses < self.harness.submit.presses && again > now).then_some(again);
                let left = self.left_since.map(|since| since + LEFT_FOR);
                [again, left, stuck].into_iter().flatten().min()
            }
            Phase::Record => Some(self.since + RECORDED),
        }
    }

    fn step(&mut self, sight: &Sight<'_>, now: Instant, acts: &mut Vec<Act>) {
        match self.phase {
            Phase::Gate => self.step_gate(sight, now, acts),
            Phase::Write if sight.taken => {
                self.reach(Rung::Written, Phase::Consume, now, acts);
            }
            Phase::Consume if sight.consumed == Some(true) => {
                self.reach(Rung::Consumed, Phase::Land, now, acts);
            }
            Phase::Land if sight.complete => self.step_land(sight, now, acts),
            Phase::Settle if sight.complete => self.step_settle(sight, now, acts),
            Phase::Submit if sight.complete => self.step_submit(sight, now, acts),
            Phase::Record if self.since + RECORDED <= now => self.finish_submitted(acts),
            _ => {}
        }
    }

    fn step_gate(&mut self, sight: &Sight<'_>, now: Instant, acts: &mut Vec<Act>) {
        // A text given up for swallowed may show after all.
        if self.typed > 0 && !sight.dialog && self.place(sight, 0) == Place::Composer {
            return self.reach(Rung::Landed, Phase::Settle, now, acts);
        }
        let gate = match (self.way, self.interrupted) {
            (Way::Rest, _) => sight.gate,
            (Way::Queue | Way::Steer, _) => sight.busy,
            (Way::Interrupt, None) if *sight.busy == Gate::Open => {
                self.interrupted = Some(now);
                self.since = now;
                return acts.push(Act::Interrupt);
            }
            (Way::Interrupt, None) => sight.busy,
            // A program that does not stop gets the text all the same, and the key never again.
            (Way::Interrupt, Some(at)) if at + self.harness.busy.interrupt_wait <= now => sight.busy,
            (Way::Interrupt, Some(_)) => sight.gate,
        };
        let why = match gate {
            Gate::Closed { why, .. } => why,
            Gate::Open if self.is_swallowed(sight, now) => {
                "the agent to draw again: it read the text and showed nothing"
            }
            Gate::Open => {
                self.choose(self.is_flat(sight.screen));
                self.trace.note_before(sight.screen);
                self.typed += 1;
                self.typed_at = Some(now);
                self.waiting = None;
                self.enter(Phase::Write, now);
                self.progress = now;
                return acts.push(Act::Type);
            }
        };
        self.wait(why, now, acts);
    }

    fn is_flat(&self, screen: &Screen) -> bool {
        match self.harness.submit.newline {
            Newline::Paste => !screen.bracketed_paste(),
            Newline::CtrlJ => false,
            Newline::Flatten => true,
        }
    }

    /// Says what it waits for, once for each reason.
    fn wait(&mut self, why: &str, now: Instant, acts: &mut Vec<Act>) {
        if self.waiting.as_deref() != Some(why) {
            self.waiting = Some(why.to_owned());
            self.waiting_told = false;
        }
        if !self.waiting_told && self.since + WAITING_TOLD <= now {
            self.waiting_told = true;
            acts.push(Act::Say(InjectStep::Waiting(why.to_owned())));
        }
    }

    /// The same beyond the gate, where somebody else must act before anything can follow: not stuck.
    fn yield_to(&mut self, why: &str, now: Instant, acts: &mut Vec<Act>) {
        self.progress = now;
        self.left_since = None;
        self.yields = true;
        self.wait(why, now, acts);
    }

    fn place(&mut self, sight: &Sight<'_>, presses: u8) -> Place {
        self.trace.place(sight.screen, presses, sight.person.bytes)
    }

    /// True while a program that swallowed the text has shown no sign that it would now do otherwise.
    fn is_swallowed(&self, sight: &Sight<'_>, now: Instant) -> bool {
        let is_silent = self.typed_at.is_some_and(|at| sight.quiet >= now.saturating_duration_since(at));
        is_silent && self.since + DRAWS_AGAIN > now
    }

    fn step_land(&mut self, sight: &Sight<'_>, now: Instant, acts: &mut Vec<Act>) {
        if sight.dialog {
            return self.yield_to(DIALOG, now, acts);
        }
        // Behind a dialog there was no progress to be seen: the text has its time from when it closed.
        let shows_by = self.progress + self.harness.submit.landed;
        match self.place(sight, 0) {
            Place::Composer | Place::Mixed => self.reach(Rung::Landed, Phase::Settle, now, acts),
            // The program read it as a line before it showed a composer, and shows it: that was its proof.
            Place::Elsewhere if self.as_line && shows_by <= now => {
                self.phase = Phase::Done;
                acts.push(Act::Say(InjectStep::Proven(Rung::Consumed)));
            }
            Place::Nowhere if shows_by <= now => {
                if self.typed < TYPED_MAX {
                    self.as_line = false;
                    self.enter(Phase::Gate, now);
                } else {
                    self.fail("the agent read the text twice and never showed it", false, acts);
                }
            }
            Place::Nowhere | Place::Elsewhere => {}
        }
    }

    fn step_settle(&mut self, sight: &Sight<'_>, now: Instant, acts: &mut Vec<Act>) {
        if sight.dialog {
            return self.yield_to(DIALOG, now, acts);
        }
        let person = sight.person;
        if person.bytes == 0 {
            self.trace.follow(sight.screen);
        }
        let place = self.place(sight, 0);
        if place != Place::Composer && (person.bytes == 0 || person.entered) {
            // Somebody else submitted it, or took it away: watched like our own submit, without a press.
            self.pasted = false;
            return self.enter(Phase::Submit, now);
        }
        if person.typing {
            return self.yield_to(TYPING, now, acts);
        }
        match place {
            Place::Composer => {
                let waited = now.saturating_duration_since(self.since);
                let submit = &self.harness.submit;
                let settled = waited >= submit.settle && sight.quiet >= submit.settle_quiet;
                if settled || waited >= submit.settle_max {
                    self.pasted = sight.screen.bracketed_paste();
                    self.press(sight, acts);
                    self.enter(Phase::Submit, now);
                }
            }
            Place::Mixed | Place::Elsewhere => self.yield_to(MIXED, now, acts),
            Place::Nowhere => self.fail(TAKEN, true, acts),
        }
    }

    fn step_submit(&mut self, sight: &Sight<'_>, now: Instant, acts: &mut Vec<Act>) {
        let closed = self.pasted && !sight.screen.bracketed_paste();
        let place = self.place(sight, self.presses);
        if sight.dialog && !(self.presses > 0 && place == Place::Elsewhere) {
            return self.yield_to(DIALOG, now, acts);
        }
        if closed || matches!(place, Place::Elsewhere | Place::Nowhere) {
            let since = *self.left_since.get_or_insert(now);
            if closed || since + LEFT_FOR <= now {
                if self.wants_record {
                    self.reach(Rung::Submitted, Phase::Record, now, acts);
                } else {
                    self.finish_submitted(acts);
                }
            }
            return;
        }
        self.left_since = None;
        if sight.person.typing {
            return self.yield_to(TYPING, now, acts);
        }
        if place == Place::Mixed {
            return self.yield_to(MIXED, now, acts);
        }
        self.waiting = None;
        let again = self.since + self.harness.submit.submitted * u32::from(self.presses);
        if self.presses < self.harness.submit.presses && again <= now {
            self.press(sight, acts);
            self.since = now;
        }
    }

    fn finish_submitted(&mut self, acts: &mut Vec<Act>) {
        acts.push(Act::Say(self.submitted()));
    }

    fn submitted(&mut self) -> InjectStep {
        self.rung = Rung::Submitted;
        self.phase = Phase::Done;
        InjectStep::Proven(Rung::Submitted)
    }

    fn fail(&mut self, reason: &str, landed: bool, acts: &mut Vec<Act>) {
        self.phase = Phase::Done;
        acts.push(Act::Say(InjectStep::Failed { reason: reason.to_owned(), landed }));
    }

    fn press(&mut self, sight: &Sight<'_>, acts: &mut Vec<Act>) {
        self.presses += 1;
        // A program whose turn has ended meanwhile has nothing to queue behind.
        let queues = self.way == Way::Queue && sight.working;
        acts.push(if queues { Act::Queue } else { Act::Press });
    }

    fn reach(&mut self, rung: Rung, next: Phase, now: Instant, acts: &mut Vec<Act>) {
        if rung > self.rung {
            self.rung = rung;
            acts.push(Act::Say(InjectStep::Reached(rung)));
        }
        self.progress = now;
        self.enter(next, now);
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
    }
}
