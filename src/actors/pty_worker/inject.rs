//! One message into a composer: the closed loop of spec/pty 7, as a state machine without clock or terminal.
//!
//! ```text
//! Gate --open--> Write --taken--> Consume --read--> Land --seen--> Settle --quiet--> Submit --left--> done
//!   ^                                                 | not seen, nothing of it on the screen: once more
//!   +-------------------------------------------------+
//!                            of a program that writes its turns down:  Submit --left--> Record --there--> done
//! ```
//!
//! What has landed is never typed again. Enter is pressed at most a few times, and only while the text stands
//! in the composer. Nothing here succeeds because time has passed: time only decides when to press again, to
//! try again once, or to say that it is stuck.

use std::time::{Duration, Instant};

use super::{
    plain::{STUCK, stuck},
    readiness::Gate,
    sight::{Place, Trace},
};
use crate::{
    harness::{Harness, Proof, Submit},
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

/// What the machine sees.
pub(super) struct Sight<'a> {
    /// May a message be typed now?
    pub gate: &'a Gate,
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
    /// Press the submit key.
    Press,
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

/// One message on its way. See the module.
#[derive(Debug)]
pub(super) struct Injection {
    id: DeliveryId,
    wording: Wording,
    /// The form that was typed: the flat one.
    flat: bool,
    trace: Trace,
    rules: Submit,
    paste_marks: Vec<String>,
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
}

impl Injection {
    /// A message that was never typed.
    pub(super) fn new(id: DeliveryId, wording: Wording, harness: &Harness, now: Instant) -> Self {
        Self {
            trace: Trace::new(&wording.lines, &harness.composer.paste_marks),
            id,
            wording,
            flat: false,
            rules: harness.submit.clone(),
            paste_marks: harness.composer.paste_marks.clone(),
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
        }
    }

    /// The same where no record is to be had, although the program is known to keep one.
    pub(super) fn without_record(mut self) -> Self {
        self.wants_record = false;
        self
    }

    /// A message that this very child was sent before, perhaps without reading it: it is looked for before
    /// it is typed again. `as_line` says that the end of a line was sent with it.
    pub(super) fn sent_before(mut self, flat: bool, as_line: bool) -> Self {
        self.choose(flat);
        self.phase = Phase::Write;
        self.typed = 1;
        self.as_line = as_line;
        self
    }

    /// Which.
    pub(super) fn id(&self) -> &DeliveryId {
        &self.id
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
        self.trace = Trace::new(self.text(), &self.paste_marks);
    }

    /// True before the first byte.
    pub(super) fn is_untouched(&self) -> bool {
        self.typed == 0
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
            Phase::Settle => "the composer to settle".to_owned(),
            Phase::Submit => format!("the text to leave the composer (submit key pressed {}×)", self.presses),
            Phase::Record => "the agent to write the turn down".to_owned(),
            Phase::Done => String::new(),
        }
    }

    /// Looks once and does what follows; several steps when they follow at once.
    pub(super) fn look(&mut self, sight: &Sight<'_>, now: Instant) -> Vec<Act> {
        let mut acts = Vec::new();
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
            Phase::Done => None,
            Phase::Gate => {
                let again = self.typed_at.map(|_| self.since + DRAWS_AGAIN);
                [Some(self.since + WAITING_TOLD), again].into_iter().flatten().filter(|at| *at > now).min()
            }
            Phase::Write | Phase::Consume => stuck,
            Phase::Land => {
                let landed = self.since + self.rules.landed;
                if landed > now { soonest(landed) } else { stuck }
            }
            Phase::Settle => {
                let still = now + self.rules.settle_quiet.saturating_sub(quiet);
                let at = still.max(self.since + self.rules.settle);
                soonest(at.min(self.since + self.rules.settle_max).max(now + Duration::from_millis(1)))
            }
            Phase::Submit => {
                let again = self.since + self.rules.submitted * u32::from(self.presses);
                let again = (self.presses < self.rules.presses && again > now).then_some(again);
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
        if self.typed > 0 && self.trace.place(sight.screen, 0) == Place::Composer {
            return self.reach(Rung::Landed, Phase::Settle, now, acts);
        }
        let why = match sight.gate {
            Gate::Closed { why, .. } => why,
            Gate::Open if self.is_swallowed(sight, now) => {
                "the agent to draw again: it read the text and showed nothing"
            }
            Gate::Open => {
                self.choose(!sight.screen.bracketed_paste());
                self.trace.note_before(sight.screen);
                self.typed += 1;
                self.typed_at = Some(now);
                self.waiting = None;
                self.enter(Phase::Write, now);
                self.progress = now;
                return acts.push(Act::Type);
            }
        };
        if self.waiting.as_deref() != Some(why) {
            self.waiting = Some(why.to_owned());
            self.waiting_told = false;
        }
        if !self.waiting_told && self.since + WAITING_TOLD <= now {
            self.waiting_told = true;
            acts.push(Act::Say(InjectStep::Waiting(why.to_owned())));
        }
    }

    /// True while a program that swallowed the text has shown no sign that it would now do otherwise.
    fn is_swallowed(&self, sight: &Sight<'_>, now: Instant) -> bool {
        let is_silent = self.typed_at.is_some_and(|at| sight.quiet >= now.saturating_duration_since(at));
        is_silent && self.since + DRAWS_AGAIN > now
    }

    fn step_land(&mut self, sight: &Sight<'_>, now: Instant, acts: &mut Vec<Act>) {
        match self.trace.place(sight.screen, 0) {
            Place::Composer => self.reach(Rung::Landed, Phase::Settle, now, acts),
            // The program read it as a line before it showed a composer, and shows it: that was its proof.
            Place::Elsewhere if self.as_line && self.since + self.rules.landed <= now => {
                self.phase = Phase::Done;
                acts.push(Act::Say(InjectStep::Proven(Rung::Consumed)));
            }
            Place::Nowhere if self.since + self.rules.landed <= now => {
                if self.typed < TYPED_MAX {
                    self.as_line = false;
                    self.enter(Phase::Gate, now);
                } else {
                    self.phase = Phase::Done;
                    let reason = "the agent read the text twice and never showed it".to_owned();
                    acts.push(Act::Say(InjectStep::Failed { reason, landed: false }));
                }
            }
            Place::Nowhere | Place::Elsewhere => {}
        }
    }

    fn step_settle(&mut self, sight: &Sight<'_>, now: Instant, acts: &mut Vec<Act>) {
        let waited = now.saturating_duration_since(self.since);
        let settled = waited >= self.rules.settle && sight.quiet >= self.rules.settle_quiet;
        if self.trace.place(sight.screen, 0) != Place::Composer {
            // Somebody else submitted it, or took it away: watched like our own submit, without a press.
            self.pasted = false;
            self.enter(Phase::Submit, now);
        } else if settled || waited >= self.rules.settle_max {
            self.pasted = sight.screen.bracketed_paste();
            self.press(acts);
            self.enter(Phase::Submit, now);
        }
    }

    fn step_submit(&mut self, sight: &Sight<'_>, now: Instant, acts: &mut Vec<Act>) {
        let closed = self.pasted && !sight.screen.bracketed_paste();
        if closed || self.trace.place(sight.screen, self.presses) != Place::Composer {
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
        let again = self.since + self.rules.submitted * u32::from(self.presses);
        if self.presses < self.rules.presses && again <= now {
            self.press(acts);
            self.since = now;
        }
    }

    fn finish_submitted(&mut self, acts: &mut Vec<Act>) {
        self.rung = Rung::Submitted;
        self.phase = Phase::Done;
        acts.push(Act::Say(InjectStep::Proven(Rung::Submitted)));
    }

    fn press(&mut self, acts: &mut Vec<Act>) {
        self.presses += 1;
        acts.push(Act::Press);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::pty::TermSize;

    const TEXT: &str = "[relay DM from Alice · msg 1]\nplease look at the failing build";

    fn wording() -> Wording {
        Wording { lines: TEXT.to_owned(), flat: TEXT.replace('\n', " ") }
    }

    /// A composer program, moved by hand.
    struct Rig {
        injection: Injection,
        screen: Screen,
        gate: Gate,
        taken: bool,
        consumed: Option<bool>,
        now: Instant,
        last_output: Instant,
        acts: Vec<Act>,
    }

    impl Rig {
        fn new() -> Self {
            Self::of(Harness::by_name("generic").unwrap())
        }

        /// A program that writes its turns down.
        fn recording() -> Self {
            const RULES: &str = r#"
                name = "recording"
                proof = "accepted"
                composer = { kind = "always" }
                records = { dirs = ["~/x"], file = "*", format = "jsonl" }
            "#;
            Self::of(&toml::from_str(RULES).unwrap())
        }

        fn of(rules: &Harness) -> Self {
            let now = Instant::now();
            let mut screen = Screen::new(TermSize { rows: 20, cols: 60 });
            screen.feed(b"\x1b[?2004hwelcome\r\n\r\n> ");
            Self {
                injection: Injection::new("d1".into(), wording(), rules, now),
                screen,
                gate: Gate::Open,
                taken: true,
                consumed: Some(true),
                now,
                last_output: now,
                acts: Vec::new(),
            }
        }

        fn output(&mut self, text: &str) {
            self.screen.feed(text.as_bytes());
            self.last_output = self.now;
        }

        fn look(&mut self) -> Vec<Act> {
            let sight = Sight {
                gate: &self.gate,
                taken: self.taken,
                consumed: self.consumed,
                screen: &self.screen,
                complete: self.screen.is_complete(),
                quiet: self.now - self.last_output,
            };
            let acts = self.injection.look(&sight, self.now);
            self.acts.extend(acts.clone());
            acts
        }

        /// Lets time pass, looking whenever the machine wants to.
        fn pass(&mut self, ms: u64) {
            let until = self.now + Duration::from_millis(ms);
            for _ in 0..10_000 {
                let quiet = self.now - self.last_output;
                match self.injection.wake(quiet, self.now).filter(|at| *at <= until) {
                    Some(at) => {
                        self.now = at.max(self.now + Duration::from_micros(100));
                        self.look();
                    }
                    None => break,
                }
            }
            self.now = until;
        }

        fn count(&self, act: &Act) -> usize {
            self.acts.iter().filter(|a| *a == act).count()
        }

        fn steps(&self) -> Vec<InjectStep> {
            let step = |act: &Act| if let Act::Say(step) = act { Some(step.clone()) } else { None };
            self.acts.iter().filter_map(step).collect()
        }

        fn type_text(&mut self) {
            self.look();
            self.output("[relay DM from Alice · msg 1]\r\nplease look at the failing build");
            self.look();
        }
    }

    fn reached(rung: Rung) -> InjectStep {
        InjectStep::Reached(rung)
    }

    #[test]
    fn a_message_climbs_every_rung_and_is_submitted_by_one_press() {
        let mut rig = Rig::new();
        rig.type_text();
        assert_eq!(rig.count(&Act::Press), 0, "not before the paste has settled");
        rig.pass(290);
        assert_eq!(rig.count(&Act::Press), 0);
        rig.pass(20);
        assert_eq!(rig.count(&Act::Press), 1);
        rig.output("\r\nok\r\n> ");
        rig.look();
        rig.pass(40);
        assert!(rig.injection.is_done());
        assert_eq!((rig.count(&Act::Type), rig.count(&Act::Press)), (1, 1));
        assert_eq!(
            rig.steps(),
            [
                reached(Rung::Written),
                reached(Rung::Consumed),
                reached(Rung::Landed),
                InjectStep::Proven(Rung::Submitted)
            ]
        );
    }

    #[test]
    fn a_program_that_writes_its_turns_down_is_asked_for_its_record() {
        let mut rig = Rig::recording();
        rig.type_text();
        assert!(!rig.injection.awaits_record(), "nothing is submitted yet");
        rig.pass(400);
        assert!(rig.injection.awaits_record());
        rig.output("\r\n\r\n> ");
        rig.look();
        rig.pass(1900);
        assert_eq!(rig.steps().last(), Some(&reached(Rung::Submitted)), "not yet the proof");
        assert_eq!(rig.injection.recorded(), Some(InjectStep::Proven(Rung::Accepted)));
        assert!(rig.injection.is_done() && !rig.injection.is_unrecorded());
    }

    #[test]
    fn what_was_submitted_counts_where_no_record_shows_it() {
        let mut rig = Rig::recording();
        rig.type_text();
        rig.pass(400);
        rig.output("\r\n\r\n> ");
        rig.look();
        rig.pass(2100);
        let steps = rig.steps();
        let end = [reached(Rung::Submitted), InjectStep::Proven(Rung::Submitted)];
        assert_eq!(steps[steps.len() - 2..], end, "{steps:?}");
        assert!(rig.injection.is_unrecorded());
        assert_eq!(rig.injection.recorded(), None, "a proof is a proof");
        let mut rig = Rig::recording();
        rig.injection = rig.injection.without_record();
        rig.type_text();
        rig.pass(400);
        rig.output("\r\n\r\n> ");
        rig.look();
        rig.pass(100);
        assert_eq!(rig.steps().last(), Some(&InjectStep::Proven(Rung::Submitted)));
        assert!(!rig.injection.is_unrecorded());
    }

    #[test]
    fn an_enter_that_was_ignored_is_pressed_again_and_the_text_is_not_typed_again() {
        let mut rig = Rig::new();
        rig.type_text();
        rig.pass(2_000);
        assert_eq!(rig.count(&Act::Press), 2);
        rig.output("\r\n\r\n\r\nthinking\r\n> ");
        rig.look();
        rig.pass(100);
        assert!(rig.injection.is_done());
        assert_eq!((rig.count(&Act::Type), rig.count(&Act::Press)), (1, 2));
    }

    #[test]
    fn a_composer_that_never_lets_go_is_stuck_once_after_three_presses_and_never_proven() {
        let mut rig = Rig::new();
        rig.type_text();
        rig.pass(120_000);
        assert_eq!((rig.count(&Act::Type), rig.count(&Act::Press)), (1, 3));
        assert_eq!(rig.steps().last(), Some(&stuck(Rung::Landed)));
        assert!(!rig.injection.is_done());
        rig.output("\r\n\r\n\r\nat last\r\n> ");
        rig.look();
        rig.pass(100);
        assert_eq!(rig.steps().last(), Some(&InjectStep::Proven(Rung::Submitted)));
    }

    #[test]
    fn text_that_was_swallowed_is_typed_once_more_when_the_program_draws_and_then_given_up() {
        let mut rig = Rig::new();
        rig.look();
        rig.pass(1_900);
        assert_eq!(rig.count(&Act::Type), 1);
        rig.pass(2_000);
        assert_eq!(rig.count(&Act::Type), 1, "nothing says that it listens now");
        rig.gate = Gate::Closed { why: "booting".into(), until: None };
        rig.output("welcome");
        rig.pass(1_500);
        assert_eq!(rig.count(&Act::Type), 1, "only after the gate has opened again");
        rig.gate = Gate::Open;
        rig.look();
        assert_eq!(rig.count(&Act::Type), 2);
        rig.pass(5_000);
        assert_eq!((rig.count(&Act::Type), rig.count(&Act::Press)), (2, 0));
        assert!(matches!(rig.steps().last(), Some(InjectStep::Failed { landed: false, .. })));
        assert!(rig.injection.is_done());
    }

    #[test]
    fn text_that_was_swallowed_in_silence_is_typed_once_more_after_a_while() {
        let mut rig = Rig::new();
        rig.look();
        rig.pass(11_900);
        assert_eq!(rig.count(&Act::Type), 1);
        rig.pass(200);
        assert_eq!(rig.count(&Act::Type), 2);
    }

    #[test]
    fn text_that_shows_late_is_not_typed_twice() {
        let mut rig = Rig::new();
        rig.look();
        rig.gate = Gate::Closed { why: "busy".into(), until: None };
        rig.pass(2_500);
        rig.output("please look at the failing build");
        rig.gate = Gate::Open;
        rig.look();
        assert_eq!(rig.count(&Act::Type), 1);
        assert_eq!(rig.injection.rung(), Rung::Landed);
    }

    #[test]
    fn a_child_that_does_not_read_gets_no_enter() {
        let mut rig = Rig::new();
        rig.consumed = Some(false);
        rig.look();
        rig.pass(60_000);
        assert_eq!((rig.count(&Act::Type), rig.count(&Act::Press)), (1, 0));
        assert_eq!(rig.steps(), [reached(Rung::Written), stuck(Rung::Written)]);
        assert!(rig.injection.is_ignored(rig.now));
    }

    #[test]
    fn a_closed_gate_is_explained_once_per_reason() {
        let mut rig = Rig::new();
        rig.gate = Gate::Closed { why: "the agent is working".into(), until: None };
        rig.look();
        rig.pass(60_000);
        rig.look();
        rig.look();
        assert_eq!(rig.steps(), [InjectStep::Waiting("the agent is working".into())]);
        assert_eq!(rig.count(&Act::Type), 0);
        assert!(rig.injection.is_untouched());
    }

    #[test]
    fn half_a_frame_decides_nothing() {
        let mut rig = Rig::new();
        rig.type_text();
        rig.pass(310);
        rig.output("\x1b[?2026h\x1b[2J\x1b[H");
        rig.look();
        rig.pass(500);
        assert!(!rig.injection.is_done());
        rig.output("\x1b[1;1H> please look at the failing build\x1b[?2026l");
        rig.look();
        rig.pass(100);
        assert!(!rig.injection.is_done());
    }

    #[test]
    fn a_closed_composer_after_enter_is_proof() {
        let mut rig = Rig::new();
        rig.type_text();
        rig.pass(310);
        rig.output("\x1b[?2004l\r\n");
        rig.look();
        assert_eq!(rig.steps().last(), Some(&InjectStep::Proven(Rung::Submitted)));
    }

    #[test]
    fn a_record_is_proof_of_what_was_typed_alone() {
        let mut rig = Rig::new();
        assert_eq!(rig.injection.recorded(), None, "it quotes an older message");
        rig.type_text();
        assert_eq!(rig.injection.recorded(), Some(InjectStep::Proven(Rung::Accepted)));
        assert!(rig.injection.is_done());
        assert_eq!(rig.injection.recorded(), None);
    }

    #[test]
    fn what_was_sent_before_is_looked_for_before_it_is_typed() {
        let mut rig = Rig::new();
        let rules = Harness::by_name("generic").unwrap();
        rig.output("please look at the failing build");
        rig.injection = Injection::new("d1".into(), wording(), rules, rig.now).sent_before(false, false);
        rig.look();
        rig.pass(400);
        assert_eq!((rig.count(&Act::Type), rig.count(&Act::Press)), (0, 1));
    }
}
