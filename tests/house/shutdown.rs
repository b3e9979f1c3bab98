//! The end, however it is asked for.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    House, TestEngine, agents, agents::text, expect, house::nothing_runs, processes::runs, until,
};

/// Clients wait this long.
const LIMIT: Duration = Duration::from_secs(5);

/// Ends a house full of agents that do not want to end.
fn ends_well(ask: impl FnOnce(&House)) {
    let engine = TestEngine::start();
    let mut house = House::at(&engine).with_open_stdin().start();
    let (_, node) = house.until_live();
    house.spawn("reader", agents::READER);
    house.spawn("deaf", agents::DEAF);
    house.spawn("mule", agents::STUBBORN);
    until("all of them run", || {
        let running = house.processes().len();
        expect(running >= 6, || format!("{running} processes"))
    });
    let file = house.connection_file();
    assert!(file.exists());
    let guard = house.guard();

    ask(&house);
    let (status, took) = house.ends();
    assert_eq!(status.code(), Some(0), "{}", house.log());
    assert!(took <= LIMIT, "it took {took:?}");
    assert!(!file.exists(), "connection.json is still there");
    nothing_runs(&house);
    until("the guard is gone", || expect(!runs(guard), || format!("{guard} runs")));
    until("the engine knows that they are gone", || {
        let known = engine.inventory(&node);
        expect(known.is_empty(), || format!("{known:?}"))
    });
}

#[test]
fn sigterm_ends_broker_and_agents_within_five_seconds() {
    ends_well(|house| house.signal(Signal::SIGTERM));
}

#[test]
fn ctrl_c_ends_broker_and_agents_within_five_seconds() {
    ends_well(|house| house.signal(Signal::SIGINT));
}

#[test]
fn a_client_ends_broker_and_agents_within_five_seconds() {
    ends_well(|house| {
        let answer = house.call("POST", "/api/shutdown", None);
        assert_eq!(answer.status, 200, "{}", answer.text);
    });
}

/// Many times what may be unread in a terminal at once (4 KiB): a slow reader is given it for seconds.
const LONG: usize = 20_000;

#[test]
fn an_end_in_the_middle_of_an_injection_loses_nothing_and_what_comes_twice_is_marked() {
    let engine = TestEngine::start();
    let mut house = House::at(&engine).start();
    let (_, node) = house.until_live();
    let sender = engine.person("sender");
    let alice = house.notes("alice");
    house.spawn("alice", agents::SLOW_READER);
    engine.dm(&sender, "alice", &format!("{}{} the end", text(0), "x".repeat(LONG)));
    for n in 1..5 {
        engine.dm(&sender, "alice", &text(n));
    }
    until("it is being typed", || expect(alice.has("<<0>>"), || format!("{:?}", alice.heard())));

    house.signal(Signal::SIGTERM);
    let (status, took) = house.ends();
    assert_eq!(status.code(), Some(0), "{}", house.log());
    assert!(took <= LIMIT, "it took {took:?}");
    assert!(!alice.has("the end"), "it had been typed: nothing is tested");
    let acked = engine.acked(&node, "alice");
    assert!(matches!(acked, None | Some(0)), "acked without a proof: {acked:?}");

    house.start_again();
    house.spawn("alice", agents::READER);
    engine.dm(&sender, "alice", &text(5));
    until("all is acked", || {
        let acked = engine.acked(&node, "alice");
        expect(acked == Some(6), || format!("{acked:?}"))
    });
    assert!(alice.has("the end"));
    assert_eq!(alice.repeats(6), 1);
}
