//! Programs that end, or ought to.

use std::time::Duration;

use serde_json::Value;

use crate::{
    stage::{Stage, Tui},
    support::{expect, figure, processes, until, until_within},
};

/// Megabytes of the flood: a parser that was not optimised takes its time, and the limit is for the whole.
const FLOOD: (usize, usize) = (8, 100);
const FLOOD_LIMIT: Duration = Duration::from_secs(600);

fn ended(tui: &Tui<'_>) -> Value {
    let exited = tui.stage.events.wait("agent_exited", &tui.name);
    until("it is gone from the list", || {
        let agents = tui.stage.house.agents();
        expect(!agents.contains(&tui.name), || format!("{agents:?}"))
    });
    exited
}

#[test]
fn exit3_and_segv_end_with_their_true_code_and_signal_after_a_turn() {
    let stage = Stage::new();
    let ends = [("exit3", Value::from(3), Value::Null), ("segv", Value::Null, "SIGSEGV".into())];
    for (how, code, signal) in ends {
        let tui = stage.start("ends", &[how]);
        tui.tell("go on");
        let exited = ended(&tui);
        assert_eq!((&exited["code"], &exited["signal"]), (&code, &signal), "{exited}");
        assert_eq!(exited["reason"], "child_exited");
        assert_eq!(tui.turns().len(), 1);
    }
    stage.over();
}

#[test]
fn flood_then_exit_is_read_to_its_last_line() {
    let stage = Stage::new();
    let before = processes::resident(stage.house.pid());
    let megabytes = figure(FLOOD.0, FLOOD.1);
    let tui = stage.start("flood_then_exit", &[&megabytes.to_string()]);
    let exited = until_within(FLOOD_LIMIT, "its end", || {
        let exited = stage.events.of("agent_exited").into_iter().next();
        exited.ok_or_else(|| format!("{} pieces of output", stage.events.of("worker_stream").len()))
    });
    assert_eq!(exited["code"], 0, "{exited}");
    let shown = stage.events.of("worker_stream");
    let last = shown.last().unwrap();
    assert!(last["chunk"].as_str().unwrap().ends_with("the last line\r\n"), "{last}");
    assert!(last["offset"].as_u64().unwrap() > megabytes as u64 * 990_000, "{last}");
    let grown = processes::resident(stage.house.pid()).saturating_sub(before);
    assert!(grown < 20 << 20, "{grown} bytes more");
    drop(tui);
    stage.over();
}

#[test]
fn grandchildren_end_with_a_released_agent_and_with_one_that_ends_by_itself() {
    let stage = Stage::new();
    let tui = stage.start("grandchildren", &[]);
    tui.until_noted("started", 4);
    tui.until_state("idle");
    assert!(stage.house.processes().len() > 4, "too few to mean anything");
    stage.house.release(&tui.name);
    until("only the broker is left", || {
        let left = stage.house.processes();
        expect(left == [stage.house.pid()], || processes::describe(&left))
    });
    let tui = stage.start("grandchildren", &["exit"]);
    tui.until_noted("started", 4);
    tui.tell("you may go");
    assert_eq!(ended(&tui)["code"], 4);
    drop(tui);
    stage.over();
}

#[test]
fn ignores_hup_is_ended_all_the_same() {
    let stage = Stage::new();
    let tui = stage.start("ignores_hup", &[]);
    tui.until_noted("ignores", 1);
    let events = &stage.events;
    stage.house.release(&tui.name);
    let exited = events.wait("agent_exited", &tui.name);
    assert_eq!((&exited["signal"], &exited["code"]), (&"SIGKILL".into(), &Value::Null), "{exited}");
    drop(tui);
    stage.over();
}

#[test]
fn a_program_that_has_closed_its_terminal_is_not_reading_and_can_be_released() {
    let stage = Stage::new();
    let args = ["-c", "exec <&- >&- 2>&-; exec sleep 600"].map(str::to_owned);
    let tui = stage.run("closer", "sh", &args, "auto", &[]);
    let told = tui.tell("are you there?");
    tui.until_state("not_reading");
    tui.until_because("the program has closed its terminal");
    assert_eq!(stage.acked("closer"), 0, "of {told:?}");
    drop(tui);
    stage.over();
}
