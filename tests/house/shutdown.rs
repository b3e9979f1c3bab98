//! The end, however it is asked for.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    House, Listener, TestEngine, agents, agents::text, expect, house::nothing_runs, processes::runs, until,
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

/// A composer that has heard the Enter of message 0, and holds it still; message 1 waits behind it.
fn half_way(house: &House, engine: &TestEngine, sender: &str, args: &[&str]) -> Listener {
    let alice = house.notes("alice");
    house.spawn_program("alice", "slow_submit", args);
    engine.dm(sender, "alice", &text(0));
    until("Enter was heard", || expect(alice.has("\"enter\""), || format!("{:?}", house.agents())));
    engine.dm(sender, "alice", &text(1));
    alice
}

fn ends_half_way(ask: impl FnOnce(&House)) {
    let engine = TestEngine::start();
    let mut house = House::at(&engine).start();
    house.until_live();
    let sender = engine.person("sender");
    let alice = half_way(&house, &engine, &sender, &[]);
    ask(&house);
    let (status, took) = house.ends();
    assert_eq!(status.code(), Some(0), "{}", house.log());
    assert!(took <= LIMIT, "it took {took:?}");
    assert_eq!(alice.turns(), ["0"], "{:?}", alice.heard());
    assert_eq!(engine.acked_in_all("alice"), 1, "what was half-way has its ack, and nothing else");

    house.start_again();
    house.spawn_program("alice", "slow_submit", &[]);
    until("the rest comes after it", || {
        let turns = alice.turns();
        expect(turns.len() >= 2, || format!("{turns:?}"))
    });
    until("all is acked", || {
        let acked = engine.acked_in_all("alice");
        expect(acked == 2, || format!("{acked}"))
    });
    assert_eq!(alice.turns(), ["0", "1"], "typed again");
}

#[test]
fn a_signal_finishes_what_stands_half_way_in_a_composer_and_begins_nothing() {
    ends_half_way(|house| house.signal(Signal::SIGTERM));
}

#[test]
fn so_does_a_client_that_ends_the_broker() {
    ends_half_way(|house| {
        let answer = house.call("POST", "/api/shutdown", None);
        assert_eq!(answer.status, 200, "{}", answer.text);
    });
}

#[test]
fn a_release_finishes_what_stands_half_way_and_the_next_of_that_name_gets_the_rest() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    house.until_live();
    let sender = engine.person("sender");
    let alice = half_way(&house, &engine, &sender, &[]);
    house.release("alice");
    assert_eq!(alice.turns(), ["0"]);
    until("the engine has its ack", || {
        let acked = engine.acked_in_all("alice");
        expect(acked == 1, || format!("{acked}"))
    });
    house.spawn_program("alice", "slow_submit", &[]);
    until("the rest is acked", || {
        let acked = engine.acked_in_all("alice");
        expect(acked == 2, || format!("{acked}; {:?}", alice.turns()))
    });
    assert_eq!(alice.turns(), ["0", "1"]);
}

#[test]
fn an_injection_that_never_comes_to_its_proof_holds_no_end_up_and_is_not_acked() {
    let engine = TestEngine::start();
    let mut house = House::at(&engine).start();
    house.until_live();
    let sender = engine.person("sender");
    let alice = half_way(&house, &engine, &sender, &["never"]);
    house.release("alice");
    assert_eq!((alice.turns().len(), engine.acked_in_all("alice")), (0, 0));

    let bob = house.notes("bob");
    house.spawn_program("bob", "slow_submit", &["never"]);
    engine.dm(&sender, "bob", &text(0));
    until("Enter was heard", || expect(bob.has("\"enter\""), || format!("{:?}", house.agents())));
    house.signal(Signal::SIGTERM);
    let (status, took) = house.ends();
    assert_eq!((status.code(), took <= LIMIT), (Some(0), true), "{took:?} {}", house.log());
    assert_eq!((bob.turns().len(), engine.acked_in_all("bob")), (0, 0));
}

#[test]
fn a_second_signal_ends_the_broker_in_the_middle_of_an_injection_and_nothing_is_acked_early() {
    let engine = TestEngine::start();
    let mut house = House::at(&engine).start();
    house.until_live();
    let sender = engine.person("sender");
    let alice = half_way(&house, &engine, &sender, &["never"]);
    house.signal(Signal::SIGTERM);
    until("the house is closing", || expect(house.log().contains("closing the house"), || house.log()));
    house.signal(Signal::SIGTERM);
    assert_eq!(house.wait().code(), Some(70), "{}", house.log());
    assert_eq!((alice.turns().len(), engine.acked_in_all("alice")), (0, 0));

    house.start_again();
    house.spawn_program("alice", "slow_submit", &[]);
    until("all is acked", || {
        let acked = engine.acked_in_all("alice");
        expect(acked == 2, || format!("{acked}; {:?}", alice.turns()))
    });
    // In one paste or in two: what may have been typed before goes alone, and says so.
    let first = alice.turn_lines().remove(0);
    assert!(first.contains("redelivered"), "{first}");
    assert_eq!(alice.turns(), ["0", "1"]);
}

/// Many times what may be unread in a terminal at once (4 KiB): of a reader that stops, a part of it.
const LONG: usize = 20_000;

#[test]
fn an_end_in_the_middle_of_an_injection_that_does_not_go_on_loses_nothing_and_what_comes_twice_is_marked() {
    let engine = TestEngine::start();
    let mut house = House::at(&engine).start();
    let (_, node) = house.until_live();
    let sender = engine.person("sender");
    let alice = house.notes("alice");
    alice.allow(1);
    house.spawn("alice", agents::RATIONED);
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
    assert_eq!(engine.acked_in_all("alice"), 0, "acked without a proof");

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

#[test]
fn a_line_reader_that_goes_on_reading_is_given_the_whole_text_before_the_end() {
    let engine = TestEngine::start();
    let mut house = House::at(&engine).start();
    house.until_live();
    let sender = engine.person("sender");
    let alice = house.notes("alice");
    alice.allow(1);
    // It has read all before it has written that down.
    house.spawn("alice", &format!("trap '' HUP TERM; {}", agents::RATIONED));
    engine.dm(&sender, "alice", &format!("{}{} the end", text(0), "x".repeat(LONG / 2)));
    until("it is being typed", || expect(alice.has("<<0>>"), || format!("{:?}", alice.heard())));
    house.signal(Signal::SIGTERM);
    until("the house is closing", || expect(house.log().contains("closing the house"), || house.log()));
    alice.allow(100);
    let (status, _) = house.ends();
    assert_eq!(status.code(), Some(0), "{}", house.log());
    assert_eq!((alice.has("the end"), engine.acked_in_all("alice")), (true, 1));
}
