//! One text or several, after the running turn or into it, and a person beside them.

use super::*;

const WORKING: &str = "\x1b[2J\x1b[Hworking (esc to interrupt)\r\n> ";

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
