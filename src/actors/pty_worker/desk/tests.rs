//! The work against a kernel and a child that are moved by hand.

mod closing;
mod dialogs;
mod kinds;
mod ways;

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
/// The program takes what stands in its composer.
const TAKEN: &str = "\x1b[2J\x1b[Hthinking\r\n> ";

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
fn an_idle_desk_wants_no_timer() {
    for (harness, output) in [("plain", "ready"), ("generic", COMPOSER), ("auto", COMPOSER)] {
        let world = World::ready(harness, output);
        assert_eq!(world.desk.wake(world.now), None, "{harness}");
        assert_eq!(world.desk.look_after(world.now), None, "{harness}");
    }
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
