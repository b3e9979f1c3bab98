//! Spawns that are slow, and many at once.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{House, Proxy, TestEngine, Verdict, agents};

const SLOW: Duration = Duration::from_secs(10);

#[test]
fn a_registration_that_takes_ten_seconds_delays_that_spawn_alone() {
    let engine = TestEngine::start();
    let proxy = Proxy::judging(engine.addr(), |frame| {
        let frame: Value = serde_json::from_str(frame).unwrap_or_default();
        let is_slow = frame["type"] == "reply" && frame["data"]["name"] == "slow";
        if is_slow { Verdict::Late(SLOW) } else { Verdict::Pass }
    });
    let house = Arc::new(House::behind(&proxy, &engine).start());
    let began = Instant::now();
    let slow = thread::spawn({
        let house = Arc::clone(&house);
        move || {
            house.listener("slow");
            began.elapsed()
        }
    });

    for n in 1..=5 {
        let asked = Instant::now();
        let quick = house.listener(&format!("quick-{n}"));
        house.send(&quick.name, "hello");
        assert_eq!(quick.hears(1), ["hello"]);
        assert!(asked.elapsed() < Duration::from_secs(4), "spawn {n} took {:?}", asked.elapsed());
        let asked = Instant::now();
        house.get("/health");
        house.get("/api/spawned");
        assert!(asked.elapsed() < Duration::from_secs(1), "the API took {:?}", asked.elapsed());
        if began.elapsed() > SLOW / 2 {
            break;
        }
    }
    assert!(began.elapsed() < SLOW, "the test was too slow to tell");
    let took = slow.join().unwrap();
    assert!(took >= SLOW, "it was not delayed: {took:?}");
    house.send("slow", "at last");
    assert_eq!(house.notes("slow").hears(1), ["at last"]);
}

#[test]
fn ten_spawns_at_once_take_about_as_long_as_one() {
    let engine = TestEngine::start();
    let house = Arc::new(House::at(&engine).period("survival", 1000).start());
    let began = Instant::now();
    house.spawn("first", agents::READER);
    let one = began.elapsed();

    let began = Instant::now();
    let spawns: Vec<_> = (0..10)
        .map(|n| {
            let house = Arc::clone(&house);
            thread::spawn(move || house.spawn(&format!("agent-{n}"), agents::READER))
        })
        .collect();
    let pids: std::collections::BTreeSet<u32> =
        spawns.into_iter().map(|spawn| spawn.join().unwrap()).collect();
    let ten = began.elapsed();
    assert_eq!(pids.len(), 10);
    assert_eq!(house.agents().len(), 11);
    // One after the other would be ten times as long.
    assert!(ten < one * 3, "one took {one:?}, ten took {ten:?}");
}
