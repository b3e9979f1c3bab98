//! What the program asks: told, held back for, and answered.

use super::*;

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
