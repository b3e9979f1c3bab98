//! What every CLI must do, whichever it is.

use std::time::Duration;

use serde_json::json;

use crate::{
    stage::{Cli, Delivered, NAME, Stage},
    support::{expect, processes, until, until_within},
};

/// Deliveries of the measured run.
const DELIVERIES: usize = 10;
/// The longest message that is typed whole.
const LONG: usize = 16 << 10;
/// How often it is asked to quit.
const QUIT_TRIES: usize = 3;
/// For what it says to that, and for its end.
const QUIT_WITHIN: Duration = Duration::from_secs(10);

/// The tests of one CLI.
macro_rules! scenarios {
    ($cli:expr) => {
        #[test]
        fn ten_messages_arrive_whole_and_once() {
            crate::scenario::ten_messages(&$cli);
        }

        #[test]
        fn a_message_to_a_busy_agent_becomes_a_turn_of_its_own() {
            crate::scenario::a_busy_agent(&$cli);
        }

        #[test]
        fn a_steered_message_does_not_wait_for_the_end_of_the_turn() {
            crate::scenario::a_steered_turn(&$cli);
        }

        #[test]
        fn it_ends_with_its_code_and_leaves_nothing_behind() {
            crate::scenario::an_end(&$cli);
        }
    };
}
pub(crate) use scenarios;

/// Ten deliveries, one after the other, to an agent at rest: each is exactly once in what the model was sent.
pub(crate) fn ten_messages(cli: &Cli) {
    let stage = Stage::start(cli);
    let bodies: Vec<_> = (0..DELIVERIES).map(body).collect();
    let mut sent = Vec::new();
    let mut times = Vec::new();
    for body in &bodies {
        stage.until_rests();
        let id = stage.send(body, "wait");
        let delivered = stage.proof(&id);
        eprintln!("{}: {:>5} bytes, {delivered:?}", cli.program, body.len());
        assert_eq!(delivered.rung, cli.proof);
        stage.hears(&id, body);
        sent.push((id, body));
        times.push(delivered);
    }
    // A CLI tells its model the whole conversation each time: what came twice would be there twice.
    for (id, body) in &sent {
        assert_eq!(stage.heard(id, body), Ok(1), "{id}");
    }
    eprintln!("{}: median of {}: {}", cli.program, times.len(), medians(&times));
}

/// A message comes while a turn runs, and does not disturb it.
pub(crate) fn a_busy_agent(cli: &Cli) {
    let stage = Stage::start(cli);
    let first = stage.begin_turn("the first turn\ntakes its time");
    let second = stage.send("not now\nbut next", "wait");
    until("the second one waits, or is in the queue of the CLI", || {
        let agent = stage.house.get(&format!("/debug/agents/{NAME}"));
        let waits = agent["state"]["queued"].as_u64() >= Some(1);
        expect(waits || stage.is_proven(&second), || agent.to_string())
    });
    assert_eq!(stage.heard(&second, "not now\nbut next"), Ok(0), "in the middle of a turn");
    stage.model.let_go();
    stage.proof(&second);
    stage.hears(&second, "not now\nbut next");
    assert_eq!(stage.heard(&first, "the first turn\ntakes its time"), Ok(1));
}

/// A message goes into a turn that runs: the model hears it in what it is asked next, although nobody has let it end
/// the turn.
pub(crate) fn a_steered_turn(cli: &Cli) {
    let stage = Stage::start(cli);
    stage.begin_turn("go on\nuntil somebody stops you");
    let steer = stage.send("stop\nand do this instead", "steer");
    stage.proof(&steer);
    let next = stage.model.asked().len();
    if let Some(step) = cli.step {
        step(&stage);
        until_within(QUIT_WITHIN, "the turn goes on", || {
            expect(stage.model.asked().len() > next, String::new)
        });
        let asked = &stage.model.asked()[next];
        assert!(asked.texts.iter().any(|text| text.contains(&steer)), "{asked:?}");
    }
    stage.hears(&steer, "stop\nand do this instead");
}

/// It quits by its own key, and is released.
pub(crate) fn an_end(cli: &Cli) {
    let stage = Stage::start(cli);
    let press = || {
        stage.house.call("POST", &format!("/api/input/{NAME}"), Some(&json!({ "data": "\u{3}" })));
    };
    for _ in 0..QUIT_TRIES {
        press();
        // The question stands for a second, which a loaded machine may miss.
        if cli.quit_asks.is_some_and(|asks| stage.shows(asks, QUIT_WITHIN)) {
            press();
        }
        if stage.ends_within(QUIT_WITHIN) {
            break;
        }
    }
    let exited = stage.exit();
    assert_eq!((&exited["code"], &exited["signal"]), (&0.into(), &serde_json::Value::Null), "{exited}");
    until_within(QUIT_WITHIN, "nothing of it runs", || {
        let left: Vec<_> =
            stage.house.processes().into_iter().filter(|pid| *pid != stage.house.pid()).collect();
        expect(left.is_empty(), || processes::describe(&left))
    });
}

/// Multi-line texts with what is easily damaged on the way, one of them as long as it may be.
fn body(nth: usize) -> String {
    if nth == DELIVERIES / 2 {
        let lines = (0..).map(|line| format!("line {line:04} of a long message, kept as it is\n"));
        let mut long: String = lines.take(LONG / 40).collect();
        long.truncate(LONG - 4);
        return long.trim_end().to_owned() + "\nend";
    }
    format!(
        "message {nth}: “quoted”, ünïcode, 漢字\n\n    indented by four\n- a list\n/not a command\nlast line {nth}"
    )
}

fn medians(times: &[Delivered]) -> String {
    let median = |of: fn(&Delivered) -> u64| {
        let mut all: Vec<_> = times.iter().map(of).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    let (landed, submitted) = (median(|one| one.landed_ms), median(|one| one.submitted_ms));
    format!("landed {landed} ms, submitted {submitted} ms, proven {} ms", median(|one| one.proven_ms))
}
