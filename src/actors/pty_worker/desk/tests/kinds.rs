//! Programs that turn out to be something else than they seemed.

use super::*;

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
