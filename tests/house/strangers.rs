//! Mail for an agent that this node does not have, and an agent that takes none.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{House, Proxy, TestEngine, Verdict, agents, agents::text, expect, until};

/// Agents that the engine has on this node and the broker does not know.
const GHOSTS: usize = 20;
/// For each of them.
const BOOS: usize = 50;

#[test]
fn a_thousand_frames_for_unknown_agents_are_acked_and_none_comes_back() {
    let engine = TestEngine::start();
    let seen = Arc::new(Mutex::new(0));
    let proxy = Proxy::judging(engine.addr(), {
        let seen = Arc::clone(&seen);
        move |frame| {
            let frame: Value = serde_json::from_str(frame).unwrap_or_default();
            if frame["type"] == "deliver"
                && frame["agent"].as_str().is_some_and(|name| name.starts_with("ghost"))
            {
                *seen.lock().unwrap() += 1;
            }
            Verdict::Pass
        }
    });
    // No replay but the one that is provoked: what comes again in it was not acked.
    let house = House::behind(&proxy, &engine).period("sync", 600_000).start();
    let (_, node) = house.until_live();
    let listener = house.listener("alice");
    let sender = engine.person("sender");
    let ghosts: Vec<_> = (0..GHOSTS).map(|n| format!("ghost-{n}")).collect();
    for ghost in &ghosts {
        engine.person(ghost);
        engine.post(&format!("/v1/nodes/{node}/agents"), &engine.key, json!({ "agent_name": ghost }));
    }
    for n in 0..BOOS {
        for ghost in &ghosts {
            engine.dm(&sender, ghost, &text(n));
        }
    }
    for ghost in &ghosts {
        until("the ghost's mail is settled", || {
            let acked = engine.acked(&node, ghost);
            expect(acked == Some(BOOS as u64), || format!("{ghost}: {acked:?}"))
        });
    }
    assert_eq!(*seen.lock().unwrap(), GHOSTS * BOOS);

    let before = proxy.sockets();
    proxy.cut();
    proxy.reconnected(before);
    // Mail to somebody else proves that the replay after the reconnection is through.
    engine.dm(&sender, "alice", &text("hello"));
    listener.hears(1);
    assert_eq!(*seen.lock().unwrap(), GHOSTS * BOOS);
}

#[test]
fn an_agent_that_never_reads_blocks_nobody_else() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    house.spawn("deaf", agents::DEAF);
    let listener = house.listener("alice");
    let sender = engine.person("sender");
    let long = "x".repeat(3000);
    for n in 0..150 {
        engine.dm(&sender, "deaf", &text(format_args!("{n} {long}")));
    }
    let began = Instant::now();
    for n in 1..=20 {
        engine.dm(&sender, "alice", &text(n));
        listener.hears(n);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "twenty messages took {took:?}");
    assert_eq!(house.get("/health")["status"], "ok");
    // And the one that does not read can still be ended.
    house.release("deaf");
    assert_eq!(house.agents(), ["alice"]);
}
