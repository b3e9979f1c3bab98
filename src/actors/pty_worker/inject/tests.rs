//! The machine against a screen that is moved by hand.

use super::*;
use crate::messages::pty::TermSize;

const TEXT: &str = "[relay DM from Alice · msg 1]\nplease look at the failing build";

fn wording() -> Wording {
    Wording { lines: TEXT.to_owned(), flat: TEXT.replace('\n', " ") }
}

/// A program that can do all that one can, told by a rule set of its own.
fn otter() -> &'static Harness {
    let text = r#"
        name = "otter"
        proof = "accepted"
        [composer]
        kind = "always"
        [busy]
        queue = "tab"
        steer = "interrupt"
        interrupt = "esc"
        [records]
        dirs = ["~/otter"]
        file = "*"
        turns = [{ all = ["user"] }]
    "#;
    Box::leak(Box::new(toml::from_str(text).unwrap()))
}

fn injection(way: Way, now: Instant) -> Injection {
    Injection::new("d1".into(), Vec::new(), wording(), way, Harness::by_name("generic").unwrap(), now)
}

/// A composer program, moved by hand.
struct Rig {
    injection: Injection,
    screen: Screen,
    gate: Gate,
    busy: Gate,
    working: bool,
    dialog: bool,
    person: Beside,
    taken: bool,
    consumed: Option<bool>,
    now: Instant,
    last_output: Instant,
    acts: Vec<Act>,
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        let mut screen = Screen::new(TermSize { rows: 20, cols: 60 });
        screen.feed(b"\x1b[?2004hwelcome\r\n\r\n> ");
        Self {
            injection: injection(Way::Rest, now),
            screen,
            gate: Gate::Open,
            busy: Gate::Open,
            working: false,
            dialog: false,
            person: Beside::default(),
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
            busy: &self.busy,
            working: self.working,
            dialog: self.dialog,
            person: self.person,
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
fn a_frame_that_is_still_being_drawn_around_the_text_is_no_submission() {
    let mut rig = Rig::new();
    rig.output("\x1b[?25l");
    assert_eq!(rig.look().first(), Some(&Act::Type));
    // One frame of the program, read in two pieces.
    let text = TEXT.replace('\n', "\r\n");
    rig.output(&format!("\x1b[2J\x1b[H╭───╮\r\n│ > {text}"));
    rig.look();
    assert_eq!(rig.acts.last(), Some(&Act::Say(InjectStep::Reached(Rung::Landed))));
    rig.output("\r\n╰───╯\r\n  project\r\n  model");
    rig.look();
    rig.pass(1000);
    assert_eq!(rig.acts.last(), Some(&Act::Press), "{:?}", rig.acts);
    rig.output(&format!(
        "\x1b[2J\x1b[H{text}\r\n\r\nthinking\r\n╭───╮\r\n│ >\r\n╰───╯\r\n  project\r\n  model"
    ));
    rig.look();
    rig.pass(100);
    assert_eq!(rig.acts.last(), Some(&Act::Say(InjectStep::Proven(Rung::Submitted))));
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
    rig.output("please look at the failing build");
    rig.injection = injection(Way::Rest, rig.now).sent_before(false, false);
    rig.look();
    rig.pass(400);
    assert_eq!((rig.count(&Act::Type), rig.count(&Act::Press)), (0, 1));
}

fn of_otter(way: Way) -> Rig {
    let mut rig = Rig::new();
    rig.injection = Injection::new("d1".into(), Vec::new(), wording(), way, otter(), rig.now);
    rig.gate = Gate::Closed { why: "the agent is working".into(), until: None };
    rig.working = true;
    rig
}

#[test]
fn a_turn_is_stopped_once_and_the_text_follows_when_it_rests_or_after_two_seconds() {
    for rests in [true, false] {
        let mut rig = of_otter(Way::Interrupt);
        rig.look();
        assert_eq!((rig.count(&Act::Interrupt), rig.count(&Act::Type)), (1, 0));
        assert!(!rig.injection.is_open() && rig.injection.is_untouched());
        rig.pass(1_900);
        assert_eq!(rig.count(&Act::Type), 0);
        if rests {
            rig.gate = Gate::Open;
            rig.working = false;
            rig.look();
            assert_eq!(rig.count(&Act::Type), 1);
        }
        rig.pass(200);
        assert_eq!((rig.count(&Act::Interrupt), rig.count(&Act::Type)), (1, 1));
    }
}

#[test]
fn a_turn_that_cannot_be_typed_into_is_not_stopped() {
    let mut rig = of_otter(Way::Interrupt);
    rig.busy = Gate::Closed { why: "a dialog is open: permission".into(), until: None };
    rig.look();
    rig.pass(10_000);
    assert_eq!(rig.acts, [Act::Say(InjectStep::Waiting("a dialog is open: permission".into()))]);
}

#[test]
fn a_message_for_the_programs_own_queue_gets_its_key_while_the_turn_runs_alone() {
    for runs in [true, false] {
        let mut rig = of_otter(Way::Queue);
        rig.type_text();
        rig.working = runs;
        rig.pass(400);
        assert_eq!((rig.count(&Act::Queue), rig.count(&Act::Press)), if runs { (1, 0) } else { (0, 1) });
    }
}

#[test]
fn a_program_that_writes_its_turns_down_is_asked_for_its_record() {
    let mut rig = of_otter(Way::Rest);
    rig.gate = Gate::Open;
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
    for wanted in [true, false] {
        let mut rig = of_otter(Way::Rest);
        rig.gate = Gate::Open;
        if !wanted {
            let plain = Injection::new("d1".into(), Vec::new(), wording(), Way::Rest, otter(), rig.now);
            rig.injection = plain.without_record();
        }
        rig.type_text();
        rig.pass(400);
        rig.output("\r\n\r\n> ");
        rig.look();
        rig.pass(if wanted { 2_100 } else { 100 });
        assert_eq!(rig.steps().last(), Some(&InjectStep::Proven(Rung::Submitted)));
        assert_eq!(rig.injection.is_unrecorded(), wanted);
        assert_eq!(rig.injection.recorded(), None, "a proof is a proof");
    }
}

#[test]
fn what_was_submitted_counts_at_the_end_and_nothing_less_does() {
    let mut rig = of_otter(Way::Rest);
    rig.gate = Gate::Open;
    rig.type_text();
    assert_eq!((rig.injection.conclude(), rig.injection.is_moving(rig.now)), (None, true), "it stands there");
    rig.pass(400);
    assert_eq!(rig.injection.conclude(), None, "Enter was pressed, and it stands there");
    rig.output("\r\n\r\n> ");
    rig.look();
    rig.pass(100);
    assert!(rig.injection.is_moving(rig.now), "its record may still come");
    assert_eq!(rig.injection.conclude(), Some(InjectStep::Proven(Rung::Submitted)));
    assert_eq!((rig.injection.conclude(), rig.injection.is_moving(rig.now)), (None, false));
}

#[test]
fn a_persons_words_are_never_submitted_with_ours() {
    let mut rig = Rig::new();
    rig.type_text();
    rig.person = Beside { typing: true, bytes: 3, entered: false };
    rig.output(" no");
    rig.look();
    rig.pass(8_000);
    rig.person.typing = false;
    rig.look();
    rig.pass(60_000);
    assert_eq!(rig.count(&Act::Press), 0);
    let waits = |why: &str| InjectStep::Waiting(why.to_owned());
    assert_eq!(rig.steps().split_off(3), [waits(TYPING), waits(MIXED)], "and it is not called stuck");
    rig.person.bytes += 3;
    rig.output("\x08 \x08\x08 \x08\x08 \x08");
    rig.look();
    rig.pass(400);
    assert_eq!(rig.count(&Act::Press), 1, "they took them away");
}

#[test]
fn what_a_person_submits_or_takes_away_is_told_as_what_it_is() {
    let mut sent = Rig::new();
    sent.type_text();
    sent.person = Beside { typing: true, bytes: 1, entered: true };
    sent.output("\r\nthinking\r\n> ");
    sent.look();
    sent.pass(100);
    assert_eq!((sent.count(&Act::Press), sent.steps().pop()), (0, Some(InjectStep::Proven(Rung::Submitted))));

    let mut gone = Rig::new();
    gone.type_text();
    gone.person = Beside { typing: true, bytes: 1, entered: false };
    gone.output("\x1b[2J\x1b[H> ");
    gone.look();
    gone.pass(100);
    assert!(!gone.injection.is_done());
    gone.person.typing = false;
    gone.look();
    assert!(matches!(gone.steps().last(), Some(InjectStep::Failed { landed: true, .. })));
    assert_eq!((gone.count(&Act::Press), gone.count(&Act::Type)), (0, 1));
}

#[test]
fn behind_a_dialog_nothing_is_pressed_typed_again_or_called_done() {
    for phase in [Phase::Land, Phase::Settle, Phase::Submit] {
        let mut rig = Rig::new();
        rig.look();
        if phase != Phase::Land {
            rig.type_text();
        }
        if phase == Phase::Submit {
            rig.pass(310);
        }
        let acts = rig.acts.len();
        let screen = rig.screen.ansi();
        rig.dialog = true;
        rig.gate = Gate::Closed { why: "a dialog is open".into(), until: None };
        rig.output("\x1b[2J\x1b[HTrust this folder?\r\n> 1. Yes");
        rig.look();
        rig.pass(60_000);
        rig.look();
        assert_eq!(rig.acts[acts..], [Act::Say(InjectStep::Waiting(DIALOG.into()))], "{phase:?}");
        assert!(!rig.injection.is_moving(rig.now), "{phase:?}: somebody else must act");
        rig.dialog = false;
        rig.gate = Gate::Open;
        rig.screen.feed(b"\x1b[2J\x1b[H");
        rig.screen.feed(&screen);
        rig.last_output = rig.now;
        rig.look();
        rig.pass(1_900);
        assert_eq!(rig.count(&Act::Type), 1, "{phase:?}");
    }
}
