//! A program that is to end.

use super::*;

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
