//! `kill -9`, and the end of the machine, at each system call that takes a message one step further.
//!
//! Whatever was killed where: nothing is lost, nothing is acked before its proof is on disk, nothing whose proof is left
//! is typed again, and what is typed again says so as long as the note of the first try is left.

use std::fs;

use relay_broker::store::{CursorState, Journal};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Chance, House, Listener, TestEngine, agents,
    agents::text,
    expect, figure,
    trap::{Boundary, Loss, Side, Step, Trap},
    until,
};

const NAME: &str = "alice";

/// The program that is written to.
#[derive(Clone, Copy, Debug)]
enum Program {
    /// Reads lines.
    Reader,
    /// Has a composer: a paste, then Enter.
    Composer,
}

impl Program {
    fn spawn(self, house: &House) {
        let mut body = house.spawn_request(NAME, agents::SURVIVOR, &[]);
        if matches!(self, Self::Composer) {
            let programs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/programs");
            let script =
                format!("import sys; sys.path.insert(0, '{programs}'); import tui; tui.Composer().run()");
            body["command"] = json!("python3");
            body["args"] = json!(["-B", "-c", script]);
            body["harness"] = json!("generic");
        }
        let answer = house.call("POST", "/api/spawn", Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// Writes to the terminal that a short message takes.
    fn writes(self) -> usize {
        match self {
            Self::Reader => 1,
            Self::Composer => 2,
        }
    }

    /// Every boundary on the way of the `nth` message, in order.
    fn boundaries(self, nth: usize) -> Vec<Boundary> {
        let first = (nth - 1) * self.writes();
        let types = (1..=self.writes()).map(|write| (Step::Type, first + write));
        let others = [(Step::Prove, nth), (Step::Sync, nth), (Step::Ack, nth)];
        let steps = [(Step::Note, nth)].into_iter().chain(types).chain(others);
        let sides = |(step, nth)| [Side::Before, Side::After].map(|side| Boundary { step, side, nth });
        steps.flat_map(sides).collect()
    }

    /// True where the message may stand in the terminal without a proof in the journal: nobody could know.
    fn may_repeat(self, boundary: Boundary) -> bool {
        match (boundary.step, boundary.side) {
            (Step::Type, Side::After) | (Step::Prove, Side::Before) => true,
            // Before the first of its writes nothing of it has been typed.
            (Step::Type, Side::Before) => !(boundary.nth - 1).is_multiple_of(self.writes()),
            _ => false,
        }
    }
}

/// What is there, and what has happened so far.
struct Stage {
    engine: TestEngine,
    house: House,
    node: String,
    sender: String,
    program: Program,
    chance: Chance,
    sent: usize,
}

/// What a journal says of the agent.
fn read(journal: &[u8]) -> CursorState {
    let dir = TempDir::new().unwrap();
    let copy = dir.path().join("journal.log");
    fs::write(&copy, journal).unwrap();
    let journal = Journal::open(&copy).unwrap();
    let agent = journal.agents().into_iter().find(|agent| agent.name.as_str() == NAME);
    agent.map(|agent| journal.cursor(&agent.agent)).unwrap_or_default()
}

fn position(cursor: &CursorState) -> usize {
    cursor.position.map_or(0, |at| at.0.try_into().unwrap())
}

impl Stage {
    fn new(program: Program) -> Self {
        let engine = TestEngine::start();
        let house = House::at(&engine).start();
        let (_, node) = house.until_live();
        let sender = engine.person("sender");
        program.spawn(&house);
        Self { engine, house, node, sender, program, chance: Chance::new(), sent: 0 }
    }

    fn acked(&self) -> usize {
        self.engine.acked(&self.node, NAME).unwrap_or(0).try_into().unwrap()
    }

    fn send(&mut self, tail: &str) {
        self.engine.dm(&self.sender, NAME, &format!("{}{tail}", text(self.sent)));
        self.sent += 1;
    }

    fn notes(&self) -> Listener {
        self.house.notes(NAME)
    }

    /// Sends the bodies, at once, again and again until the broker is killed at the boundary; takes away what the end
    /// of a machine would, starts again, and looks. Answers how many messages came again.
    fn kill(&mut self, boundary: Boundary, loss: Loss, tails: &[&str]) -> usize {
        let what = format!("{:?} killed at {boundary:?} with the loss of {loss:?}", self.program);
        // Once it has taken one message, the program takes the next without delay.
        self.send("");
        until("it is acked", || {
            expect(self.acked() == self.sent, || format!("{} of {}", self.acked(), self.sent))
        });
        let (first, before) = (self.sent, self.notes().heard_lines().len());
        let trap = Trap::set(&self.house, boundary);
        while !trap.is_over() {
            for tail in tails {
                self.send(tail);
            }
            until("all is acked, or the trap has sprung", || {
                let acked = self.acked();
                expect(trap.is_over() || acked == self.sent, || format!("{acked} of {}", self.sent))
            });
        }
        let remains = trap.sprung();
        self.house.wait();
        let (acked, on_disk) = (self.acked(), position(&read(&remains.on_disk())));
        assert!(acked <= on_disk, "{what}: {acked} are acked, and {on_disk} proven on disk");
        remains.lose(loss, &mut self.chance);
        let left = read(&fs::read(self.house.journal_file()).unwrap());

        self.house.start_again();
        self.program.spawn(&self.house);
        until("all is acked", || {
            let acked = self.acked();
            expect(acked == self.sent, || format!("{what}: {acked} of {}", self.sent))
        });
        self.judge(first, before, &left, loss, &what)
    }

    /// Of the messages from `first` on, which stand in the notes behind the first `before` lines: how many came again.
    fn judge(&self, first: usize, before: usize, left: &CursorState, loss: Loss, what: &str) -> usize {
        let heard = self.notes().heard_lines().split_off(before);
        let mut seen = first;
        let mut again = 0;
        for (inner, line) in &heard {
            let n: usize = inner.parse().unwrap();
            if n >= seen {
                assert_eq!(n, seen, "{what}: {seen} is lost or out of order: {heard:?}");
                seen += 1;
                continue;
            }
            again += 1;
            let seq = n as u64 + 1;
            assert!(seq > position(left) as u64, "{what}: {n} had its proof and came again: {heard:?}");
            let is_noted = left.unfinished.values().any(|attempt| attempt.seq.0 == seq);
            assert!(is_noted || loss != Loss::Nothing, "{what}: {n} was typed without a note");
            assert!(!is_noted || line.contains("redelivered"), "{what}: {n} came again unmarked: {line}");
        }
        assert_eq!(seen, self.sent, "{what}: the last ones are lost: {heard:?}");
        again
    }
}

fn each_call(program: Program) {
    let mut stage = Stage::new(program);
    for nth in 1..=figure(1, 5) {
        for boundary in program.boundaries(nth) {
            let again = stage.kill(boundary, Loss::Nothing, &[""]);
            let most = usize::from(program.may_repeat(boundary));
            assert!(again <= most, "{program:?}: {again} came again after {boundary:?}");
        }
    }
}

#[test]
fn a_kill_at_each_call_for_a_reader_loses_nothing_and_repeats_only_what_has_no_proof() {
    each_call(Program::Reader);
}

#[test]
fn a_kill_at_each_call_for_a_composer_loses_nothing_and_repeats_only_what_has_no_proof() {
    each_call(Program::Composer);
}

#[test]
fn what_was_written_and_not_synced_may_be_lost_or_torn() {
    let program = Program::Reader;
    let mut stage = Stage::new(program);
    let nothing_synced = [(Step::Type, Side::After), (Step::Prove, Side::After), (Step::Sync, Side::Before)];
    for nth in 1..=figure(1, 5) {
        for (step, side) in nothing_synced {
            for loss in [Loss::Unsynced, Loss::Torn, Loss::Hole] {
                let again = stage.kill(Boundary { step, side, nth }, loss, &[""]);
                assert!(again <= 1, "{again} came again");
            }
        }
    }
}

/// Several writes to a terminal.
const LONG: usize = 12_000;

#[test]
fn kills_among_many_messages_at_any_call_with_any_loss_lose_nothing() {
    let long = "x".repeat(LONG);
    for program in [Program::Reader, Program::Composer] {
        let mut stage = Stage::new(program);
        let mut repeats = 0;
        let kills = figure(2, 50);
        for _ in 0..kills {
            let mut any = |of: usize| usize::try_from(stage.chance.below(of as u64)).unwrap();
            let boundaries = program.boundaries(1 + any(4));
            let boundary = boundaries[any(boundaries.len())];
            let loss = [Loss::Nothing, Loss::Unsynced, Loss::Torn, Loss::Hole][any(4)];
            repeats += stage.kill(boundary, loss, &["", &long, "", ""]);
        }
        eprintln!("{program:?}: {kills} kills, {} messages, {repeats} came again", stage.sent);
    }
}
