//! The work against a kernel and a child that are moved by hand.

use super::*;
use crate::{
    actors::pty_worker::frame::Whole,
    harness::Steer,
    messages::{
        delivery::{Inject, Mode, Note},
        spawn::Autonomy,
    },
};

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
        Self::of(Harness::by_name(harness).unwrap())
    }

    /// A program that can be steered and has a queue of its own.
    fn otter() -> Self {
        let rules = r#"
            name = "otter"
            composer = { kind = "always" }
            busy = { queue = "tab", steer = "interrupt", interrupt = "esc" }
            [[working]]
            id = "spinner"
            region = "bottom:5"
            any = ["esc to interrupt"]
        "#;
        let mut world = Self::of(Box::leak(Box::new(toml::from_str(rules).unwrap())));
        world.output(COMPOSER);
        world.pass(2000);
        world
    }

    fn of(harness: &'static Harness) -> Self {
        let now = Instant::now();
        let desk = Desk::new(harness, "Bob".to_owned().try_into().unwrap(), TermSize::default(), now);
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
            while let Some(offer) = self.desk.offer(self.now) {
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
        let mode = if id.starts_with("steer") { Mode::Steer } else { Mode::Wait };
        let redelivered = reached.is_some();
        let inject = Inject { delivery_id, attempt, mode, note, reached, redelivered, marked: None };
        self.desk.inject(inject, Whole::Nowhere, self.now);
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
        world.desk.assign("count the boats in the harbour".to_owned(), Whole::Nowhere, world.now);
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
fn a_dialog_in_a_frame_that_nobody_ends_holds_messages_back() {
    let mut world = World::new("generic");
    world.output(COMPOSER);
    world.pass(2000);
    world.output("\x1b[?2026h\x1b[2J\x1b[H> 1. Sign in\r\n  2. Leave\r\nPress enter to continue");
    world.pass(3000);
    assert_eq!(world.desk.state().0, AgentState::Blocked);
    world.inject("d1");
    world.pass(3000);
    assert_eq!(world.times_typed("d1"), 0);
}

#[test]
fn a_program_that_was_told_something_before_its_composer_may_show_a_quoted_dialog() {
    let mut world = World::ready("auto", "loading");
    world.inject("d1");
    assert_eq!(world.steps("d1"), [PROVEN]);
    world.output("\r\n> 1. Sign in\r\nPress enter to continue\r\n\x1b[?2004h> ");
    world.pass(2000);
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
    assert_eq!(world.desk.harness().name, "unknown");
    assert_eq!(world.times_typed("d1"), 1);
    assert!(world.typed.starts_with(b"\x1b[200~[relay DM from Alice"));
}

#[test]
fn a_program_that_had_the_screen_for_a_while_is_given_lines_again() {
    let mut world = World::ready("auto", "$ ");
    world.output("man\r\n\x1b[?1049h\x1b[2J\x1b[Hpages");
    assert_eq!(world.desk.harness().name, "unknown");
    world.now += Duration::from_secs(300);
    world.output("\x1b[H\x1b[2Jmore pages\x1b[?25l");
    world.output("\x1b[?25h\x1b[?1049l$ ");
    world.inject("d1");
    world.pass(2000);
    assert_eq!(world.desk.state().0, AgentState::Idle);
    assert_eq!((world.times_typed("d1"), world.steps("d1").last()), (1, Some(&PROVEN)));
    world.inject("d2");
    assert_eq!((world.times_typed("d2"), world.steps("d2").last()), (1, Some(&PROVEN)));

    // An editor takes pastes. That is no composer which the shell has closed.
    let editor = "\x1b[?1049h\x1b[?2004h\x1b[2J\x1b[Htext";
    world.output(editor);
    world.inject("d3");
    world.output("\x1b[?2004l\x1b[?1049l$ ");
    world.pass(2000);
    assert_eq!((world.times_typed("d3"), world.steps("d3").last()), (1, Some(&PROVEN)));
    let mut own = World::new("auto");
    own.output(editor);
    own.pass(700);
    own.output("\x1b[?2004l\x1b[?1049lrunning a command");
    own.inject("d1");
    own.pass(5000);
    assert_eq!((own.desk.state().0, own.times_typed("d1")), (AgentState::Working, 0));

    // One that follows at once, in a program that has read lines.
    world.output(editor);
    world.output("\x1b[?2004l\x1b[?1049l$ ");
    world.output(editor);
    world.output("\x1b[?2004l\x1b[?1049l$ ");
    world.inject("d4");
    world.pass(3000);
    assert_eq!((world.times_typed("d4"), world.steps("d4").last()), (1, Some(&PROVEN)));
    assert!(world.desk.was_ready());

    // A screen of its own is no composer: its letters are commands there.
    let mut world = World::ready("auto", "$ ");
    world.output("\x1b[?1049h\x1b[2J\x1b[Hpages");
    world.inject("d1");
    world.pass(200_000);
    assert_eq!((world.desk.state().0, world.typed()), (AgentState::Blocked, String::new()));
    world.output("\x1b[?1049l$ ");
    world.inject("d2");
    world.pass(6000);
    for id in ["d1", "d2"] {
        assert_eq!((world.times_typed(id), world.steps(id).last()), (1, Some(&PROVEN)), "{id}");
    }
}

#[test]
fn a_composer_that_appears_late_has_its_time_to_start() {
    let mut world = World::ready("auto", "loading");
    world.now += Duration::from_secs(600);
    world.output("\x1b[?2004hdrawing");
    assert_eq!(world.desk.state().0, AgentState::Starting);
    world.output("\r\n> ");
    world.pass(700);
    assert_eq!(world.desk.state().0, AgentState::Idle);
    let blocked = |effect: &Effect| matches!(effect, Effect::State { to: AgentState::Blocked, .. });
    assert!(!world.effects.iter().any(blocked));
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
fn a_question_that_no_rule_knows_in_place_of_the_prompt_blocks_and_gets_nothing() {
    let mut world = World::ready("codex", "\x1b[?2004h› ");
    world.output("\x1b[2J\x1b[HThe moon is full. Press h to howl");
    world.inject("d1");
    world.pass(4000);
    assert_eq!(world.desk.state().0, AgentState::Idle, "it may be drawing");
    let wake = world.desk.wake(world.now).unwrap();
    world.pass(1500);
    assert!(wake <= world.now);
    assert_eq!(world.desk.state().0, AgentState::Blocked);
    let dialog = world.desk.dialog().unwrap();
    assert_eq!((dialog.rule.as_str(), dialog.text.contains("howl")), ("unknown screen", true));
    world.output("\x1b[3;1H(the cursor blinks)");
    assert_eq!(world.desk.state().0, AgentState::Blocked, "moving does not answer it");
    assert!(world.typed.is_empty());
    world.output("\x1b[2J\x1b[H› ");
    world.pass(600);
    assert_eq!((world.times_typed("d1"), world.desk.dialog()), (1, None));
}

#[test]
fn an_idle_desk_wants_no_timer() {
    for (harness, output) in [("plain", "ready"), ("generic", COMPOSER), ("auto", COMPOSER)] {
        let world = World::ready(harness, output);
        assert_eq!(world.desk.wake(world.now), None, "{harness}");
        assert_eq!(world.desk.look_after(world.now), None, "{harness}");
    }
}

#[test]
fn a_dialog_is_told_with_its_words_and_answered_by_a_person_alone() {
    let mut world = World::new("generic");
    world.output("\x1b[?2004hRun `ls`?\r\n> 1. Yes\r\n  2. No");
    world.pass(2000);
    let told = world.effects.iter().find_map(|effect| match effect {
        Effect::State { to: AgentState::Blocked, dialog, .. } => dialog.clone(),
        _ => None,
    });
    let dialog = told.unwrap();
    assert_eq!((dialog.rule.as_str(), dialog.text.contains("Run `ls`?")), ("menu", true));
    world.output("\x1b[2J\x1b[HRun `rm`?\r\n> 1. Yes\r\n  2. No");
    world.pass(2000);
    assert!(world.typed.is_empty());
    let late = world.desk.answer("1", Some(&dialog.id)).unwrap_err();
    assert!(matches!(late, AnswerRefused::Changed { .. }), "it was meant for the other one");
    let (_, answered) = world.desk.answer("1", None).unwrap();
    world.turn();
    assert_eq!(
        (world.typed(), world.desk.dialog().map(|open| open.id.clone())),
        ("1".into(), Some(answered))
    );
    world.output("\x1b[2J\x1b[H\r\n> ");
    world.pass(2000);
    assert_eq!((world.desk.state().0, world.desk.dialog()), (AgentState::Idle, None));
    assert_eq!(world.desk.answer("1", None).unwrap_err(), AnswerRefused::NoDialog);
}

#[test]
fn a_question_that_was_just_drawn_is_given_a_moment_before_it_is_answered() {
    let mut world = World::new("generic");
    world.output("\x1b[?2004hRun `ls`?\r\n> 1. Yes\r\n  2. No");
    world.turn();
    assert_eq!(world.desk.state().0, AgentState::Blocked);
    world.desk.answer("1", None).unwrap();
    world.turn();
    assert_eq!(world.typed(), "", "it may not listen yet");
    world.pass(600);
    assert_eq!(world.typed(), "1");
}

/// A program that asks at its start, under a spawn that said so much.
fn asking(autonomy: Autonomy) -> World {
    let rules = r#"
        name = "otter"
        composer = { kind = "always" }
        [[blocked]]
        id = "trust"
        region = "bottom:3"
        all = ["Trust it?"]
        answer = { yes = "down enter", no = "enter" }
        granted = { trust_cwd = "yes" }
        [[blocked]]
        id = "run"
        region = "bottom:3"
        all = ["Run it?"]
        answer = { yes = "y", no = "n" }
        granted = { full = "yes" }
    "#;
    let mut world = World::of(Box::leak(Box::new(toml::from_str(rules).unwrap())));
    world.desk = std::mem::replace(&mut world.desk, World::new("plain").desk).with_autonomy(autonomy);
    world.output("\x1b[?2004hTrust it?");
    world
}

#[test]
fn a_question_is_answered_once_where_the_spawn_has_said_so() {
    for (autonomy, typed) in
        [(Autonomy::Ask, ""), (Autonomy::TrustCwd, "\x1b[B\r"), (Autonomy::Full, "\x1b[B\r")]
    {
        let mut world = asking(autonomy);
        world.pass(500);
        // Drawn in two pieces, it is the same question.
        world.output("\r\n> 1. No\r\n  2. Yes");
        world.pass(590);
        assert_eq!(world.typed(), "", "{autonomy:?}: it may not listen yet");
        world.pass(5000);
        assert_eq!(world.typed(), typed, "{autonomy:?}");
        let told = world.effects.iter().filter(|effect| matches!(effect, Effect::Granted(_, "yes"))).count();
        assert_eq!(told, usize::from(!typed.is_empty()));
        assert_eq!(world.desk.state().0, AgentState::Blocked, "whatever it does with that");
    }
}

#[test]
fn autonomy_answers_what_it_covers_and_again_when_it_is_asked_again() {
    for (autonomy, typed) in [(Autonomy::TrustCwd, "\x1b[B\r"), (Autonomy::Full, "\x1b[B\ryy")] {
        let mut world = asking(autonomy);
        world.pass(2000);
        for _ in 0..2 {
            world.output("\x1b[2J\x1b[H> ");
            world.pass(2000);
            world.output("\x1b[2J\x1b[HRun it?");
            world.pass(2000);
        }
        assert_eq!(world.typed(), typed, "{autonomy:?}");
    }
}

#[test]
fn a_second_question_in_the_place_of_the_first_is_answered_too() {
    let mut world = asking(Autonomy::Full);
    world.pass(2000);
    world.output("\x1b[2J\x1b[HRun it? ls");
    world.pass(2000);
    world.output("\x1b[2J\x1b[HRun it? rm");
    world.pass(590);
    assert_eq!(world.typed(), "\x1b[B\ry");
    world.pass(2000);
    assert_eq!(world.typed(), "\x1b[B\ryy");
}

#[test]
fn a_question_that_a_person_is_at_is_left_to_them() {
    let mut world = asking(Autonomy::Full);
    world.desk.input(b"\x1b[B".to_vec(), world.now).unwrap();
    world.pass(2000);
    assert_eq!(world.typed(), "\x1b[B");
    let mut world = asking(Autonomy::Full);
    world.desk.answer("no", None).unwrap();
    world.pass(2000);
    assert_eq!(world.typed(), "\r", "somebody has answered");
}

#[test]
fn what_is_stuck_shows_the_screen_until_it_moves_again() {
    let mut world = World::ready("generic", COMPOSER);
    world.inject("d1");
    world.echo();
    world.pass(60_000);
    let stuck = world.steps("d1").into_iter().find_map(|step| match step {
        InjectStep::Stuck { rung, screen } => Some((rung, screen)),
        _ => None,
    });
    let (rung, screen) = stuck.unwrap();
    assert_eq!((rung, screen.contains("the body of d1")), (Rung::Landed, true));
    assert_eq!(world.desk.injecting().unwrap().stuck, Some(screen));
    world.output("\r\n\r\n\r\nthinking\r\n> ");
    world.pass(100);
    world.inject("d2");
    assert_eq!(world.desk.injecting().unwrap().stuck, None);
}

/// The program takes what stands in its composer.
const TAKEN: &str = "\x1b[2J\x1b[Hthinking\r\n> ";
const WORKING: &str = "\x1b[2J\x1b[Hworking (esc to interrupt)\r\n> ";

#[test]
fn what_waits_for_an_idle_agent_goes_in_one_paste_and_each_is_reported() {
    let mut world = World::new("generic");
    for n in 0..10 {
        world.inject(&format!("d{n}"));
    }
    world.output(COMPOSER);
    world.pass(1000);
    assert_eq!(world.typed().matches("\x1b[200~").count(), 1);
    assert_eq!(world.typed().matches("[relay DM from Alice").count(), 8, "{}", world.typed());
    assert_eq!(world.desk.queued(), 10);
    world.echo();
    world.pass(600);
    world.output(TAKEN);
    world.pass(100);
    for n in 0..8 {
        assert_eq!(world.steps(&format!("d{n}")).last(), Some(&InjectStep::Proven(Rung::Submitted)), "{n}");
    }
    world.pass(1000);
    assert_eq!(world.typed().matches("\x1b[200~").count(), 2, "the other two follow together");
    assert_eq!((world.times_typed("d8"), world.times_typed("d9")), (1, 1));
}

#[test]
fn of_a_batch_nothing_is_typed_again_in_a_new_life() {
    let mut world = World::new("generic");
    for id in ["d1", "d2", "d3"] {
        world.inject(id);
    }
    world.output(COMPOSER);
    world.pass(1000);
    world.echo();
    world.desk.begin_next_life();
    // The cursor hands over one after the other; the first is looked for, found and submitted meanwhile.
    world.inject_with("d1", Some(Rung::Landed));
    world.inject_with("d2", Some(Rung::Landed));
    world.pass(600);
    world.output(TAKEN);
    world.pass(1000);
    world.inject_with("d3", Some(Rung::Written));
    world.pass(1000);
    for id in ["d1", "d2", "d3"] {
        assert_eq!(world.steps(id).last(), Some(&InjectStep::Proven(Rung::Submitted)), "{id}");
        assert_eq!(world.times_typed(id), 1, "{id}");
    }
}

#[test]
fn a_steering_message_stops_the_turn_once_and_goes_before_those_that_wait() {
    let mut world = World::otter();
    world.output(WORKING);
    world.inject("steer1");
    assert_eq!(world.typed(), "\x1b", "the key, and not yet the text");
    world.inject("d1");
    world.output(TAKEN);
    world.pass(400);
    assert_eq!((world.times_typed("steer1"), world.times_typed("d1")), (1, 0), "never in one paste");
    let text = world.typed().split_off(1);
    world.output(&text.replace('\n', "\r\n").replace("\x1b[200~", "").replace("\x1b[201~", ""));
    world.pass(600);
    world.output(TAKEN);
    world.pass(500);
    assert_eq!(world.steps("steer1").last(), Some(&InjectStep::Proven(Rung::Submitted)));
    assert_eq!(world.times_typed("d1"), 1);
    assert_eq!(world.typed().matches("\x1b").count(), 5, "two pastes and one interrupt: {:?}", world.typed());
}

#[test]
fn keys_of_two_strokes_go_out_apart() {
    let mut rules = Harness::by_name("generic").unwrap().clone();
    rules.busy.steer = Steer::Interrupt;
    rules.busy.interrupt = "esc esc".parse().ok();
    let mut world = World::of(Box::leak(Box::new(rules)));
    world.output(COMPOSER);
    world.pass(2000);
    world.output(WORKING);
    world.inject("steer1");
    assert_eq!(world.typed(), "\x1b");
    assert!(
        world.desk.wake(world.now).is_some_and(|at| at <= world.now + world.desk.harness.submit.stroke_gap)
    );
    // What follows stays behind the second stroke.
    world.desk.input(b"x".to_vec(), world.now).unwrap();
    world.pass(90);
    assert_eq!(world.typed(), "\x1b");
    world.pass(10);
    assert_eq!(world.typed(), "\x1b\x1bx");
}

#[test]
fn nothing_is_interrupted_at_rest() {
    let mut world = World::otter();
    world.inject("steer1");
    world.pass(400);
    assert!(world.typed.starts_with(b"\x1b[200~[relay"), "{:?}", world.typed());
}

#[test]
fn a_program_with_a_queue_of_its_own_gets_a_message_while_it_works() {
    let mut world = World::otter();
    world.output(WORKING);
    world.inject("d1");
    assert_eq!(world.times_typed("d1"), 1);
    world.echo();
    world.output("\x1b7\x1b[1;1Hworking (esc to interrupt)\x1b8");
    world.pass(1600);
    assert_eq!(world.typed.last(), Some(&b'\t'));
    world.output(WORKING);
    world.pass(100);
    assert_eq!(world.steps("d1").last(), Some(&InjectStep::Proven(Rung::Submitted)));
}

#[test]
fn a_message_that_waits_too_long_for_a_turns_end_goes_into_the_programs_queue_and_nobody_polls_for_it() {
    for key in [Some("enter"), None] {
        let mut rules = Harness::by_name("generic").unwrap().clone();
        rules.busy.overdue = key.map(|key| key.parse().unwrap());
        let mut world = World::of(Box::leak(Box::new(rules)));
        world.output(COMPOSER);
        world.pass(2000);
        world.output(WORKING);
        world.inject("d1");
        let due = world.now + Duration::from_mins(10);
        // Whoever works, moves.
        let tick = |world: &mut World, to: Instant| {
            while world.now + Duration::from_secs(4) < to {
                world.now += Duration::from_secs(4);
                world.output("\x1b7\x1b[1;1Hworking\x1b8");
            }
            world.now = to;
            world.output("\x1b7\x1b[1;1Hworking\x1b8");
        };
        tick(&mut world, due - Duration::from_secs(1));
        assert_eq!(world.times_typed("d1"), 0, "{key:?}");
        world.pass(400);
        let wake = world.desk.wake(world.now).unwrap();
        assert_eq!(wake == due, key.is_some(), "it sleeps until then, or until the program counts as silent");
        assert!(wake >= due);
        tick(&mut world, due);
        assert_eq!(world.times_typed("d1"), usize::from(key.is_some()));
    }
}

#[test]
fn a_person_at_the_keyboard_comes_first_and_their_words_are_theirs() {
    let mut world = World::ready("generic", COMPOSER);
    world.desk.input(b"half".to_vec(), world.now).unwrap();
    world.turn();
    world.output("half");
    assert_eq!(world.desk.state(), (AgentState::Human, "a person is typing"));
    world.inject("d1");
    world.pass(9_000);
    assert_eq!(world.desk.state(), (AgentState::Human, "the composer holds a person's words"));
    assert_eq!(world.typed(), "half");
    let waits: Vec<_> = world.steps("d1");
    assert!(
        matches!(&waits[..], [InjectStep::Waiting(_), InjectStep::Waiting(why)] if why.contains("words"))
    );
    world.output("\x08\x08\x08\x08\x1b[K");
    world.pass(1000);
    assert_eq!((world.times_typed("d1"), world.desk.state().0), (1, AgentState::Idle));
}

#[test]
fn keys_that_answer_a_dialog_leave_no_words_behind() {
    let mut world = World::new("generic");
    world.output("\x1b[?2004hWelcome\r\n> 1. Sign in\r\n  2. Leave\r\nPress enter to continue");
    world.pass(1000);
    world.desk.input(b"1".to_vec(), world.now).unwrap();
    world.output("\x1b[2J\x1b[H\r\n> ");
    world.inject("d1");
    world.pass(9_000);
    assert_eq!(world.times_typed("d1"), 1);
}

#[test]
fn a_line_reader_gets_nothing_while_a_person_types() {
    let mut world = World::ready("plain", "ready");
    world.desk.input(b"ec".to_vec(), world.now).unwrap();
    world.inject("d1");
    assert_eq!(
        (world.times_typed("d1"), world.desk.injecting().unwrap().waiting_for.as_str()),
        (0, "a person is typing")
    );
    world.pass(8_100);
    assert_eq!(world.times_typed("d1"), 1);
}

#[test]
fn of_a_program_that_is_to_end_what_is_half_way_is_finished_and_nothing_is_begun() {
    let mut world = World::ready("generic", COMPOSER);
    world.inject("d1");
    world.inject("d2");
    world.desk.begin_nothing_new();
    world.inject("d3");
    assert_eq!((world.desk.is_moving(world.now), world.desk.queued()), (true, 1));
    world.echo();
    world.pass(600);
    world.output(TAKEN);
    world.pass(1000);
    assert_eq!(world.steps("d1").last(), Some(&InjectStep::Proven(Rung::Submitted)));
    assert!(!world.desk.is_moving(world.now));
    assert_eq!((world.times_typed("d1"), world.times_typed("d2"), world.times_typed("d3")), (1, 0, 0));

    let mut world = World::ready("plain", "ready");
    world.reads = false;
    world.inject("d1");
    world.desk.begin_nothing_new();
    assert!(world.desk.is_moving(world.now));
    world.reads = true;
    world.pass(10);
    assert_eq!((world.steps("d1").last(), world.desk.is_moving(world.now)), (Some(&PROVEN), false));
    world.inject("d2");
    assert_eq!(world.times_typed("d2"), 0);
}

#[test]
fn a_first_task_that_is_not_begun_is_not_typed_into_what_is_to_end() {
    for (harness, screen) in [("plain", "ready"), ("generic", COMPOSER)] {
        let mut world = World::new(harness);
        world.desk.assign("count the boats in the harbour".to_owned(), Whole::Nowhere, world.now);
        world.desk.begin_nothing_new();
        world.output(screen);
        world.pass(2000);
        assert_eq!((world.typed(), world.desk.is_moving(world.now)), (String::new(), false), "{harness}");
    }
}

#[test]
fn what_somebody_else_must_act_for_or_nobody_takes_is_not_moving() {
    // A program that does not read.
    for harness in ["plain", "generic"] {
        let mut world = World::ready(harness, COMPOSER);
        world.reads = false;
        world.inject("d1");
        assert!(world.desk.is_moving(world.now), "{harness}");
        world.pass(5_000);
        assert!(!world.desk.is_moving(world.now), "{harness}");
    }
    // One that read it and shows nothing: it would have to be typed again.
    let mut world = World::ready("generic", COMPOSER);
    world.inject("d1");
    world.desk.begin_nothing_new();
    world.pass(2_500);
    world.output("\r\n> ");
    world.pass(60_000);
    assert_eq!((world.desk.is_moving(world.now), world.times_typed("d1")), (false, 1));
    // A person types beside it.
    let mut world = World::ready("generic", COMPOSER);
    world.inject("d1");
    world.echo();
    world.desk.input(b"no".to_vec(), world.now).unwrap();
    world.turn();
    assert!(!world.desk.is_moving(world.now));
    // It is stuck.
    let mut world = World::ready("generic", COMPOSER);
    world.inject("d1");
    world.echo();
    world.pass(20_000);
    assert!(world.desk.is_moving(world.now));
    world.pass(20_000);
    assert!(!world.desk.is_moving(world.now));
}

#[test]
fn what_a_program_throws_away_unread_is_not_typed_again_into_what_is_to_end() {
    let mut world = World::ready("plain", "ready");
    world.reads = false;
    world.inject("d1");
    world.desk.begin_nothing_new();
    world.desk.flushed(world.now);
    world.pass(3000);
    assert_eq!((world.times_typed("d1"), world.desk.is_moving(world.now)), (1, false));
    assert_eq!(world.steps("d1").last(), None);
}

#[test]
fn a_composer_that_is_cleared_by_the_keys_that_end_its_program_proves_nothing() {
    let mut world = World::ready("generic", COMPOSER);
    world.inject("d1");
    world.echo();
    world.pass(600);
    assert!(world.typed.ends_with(b"\r"));
    world.desk.begin_nothing_new();
    world.desk.conclude();
    world.desk.strokes([b"\x03".to_vec()].into_iter()).unwrap();
    world.output(TAKEN);
    world.pass(5000);
    assert_eq!(world.steps("d1").last(), Some(&InjectStep::Reached(Rung::Landed)));
    assert!(world.typed.ends_with(b"\r\x03"), "and nothing more is pressed");
    assert_eq!(world.desk.wake(world.now), None);
}

#[test]
fn a_new_life_of_the_worker_finishes_what_the_child_has_although_it_is_to_end() {
    let mut world = World::ready("generic", COMPOSER);
    world.inject("d1");
    world.echo();
    world.desk.begin_nothing_new();
    world.desk.begin_next_life();
    world.inject_with("d1", Some(Rung::Landed));
    world.inject("d2");
    assert!(world.desk.is_moving(world.now));
    world.pass(600);
    world.output(TAKEN);
    world.pass(500);
    assert_eq!(world.steps("d1").last(), Some(&InjectStep::Proven(Rung::Submitted)));
    assert_eq!((world.times_typed("d1"), world.times_typed("d2")), (1, 0));
}
