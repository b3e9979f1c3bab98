//! The end, however it is asked for.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{House, TestEngine, agents, expect, house::nothing_runs, until};

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

    ask(&house);
    let (status, took) = house.ends();
    assert_eq!(status.code(), Some(0), "{}", house.log());
    assert!(took <= LIMIT, "it took {took:?}");
    assert!(!file.exists(), "connection.json is still there");
    nothing_runs(&house);
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
