//! The broker dies by SIGKILL in the middle of its work and is started again.

use std::collections::BTreeSet;

use crate::support::{House, Proxy, TestEngine, agents, agents::text, expect, until};

const SENT: usize = 120;
/// Proofs that are waited for before the kill.
const PROVEN: usize = 25;

#[test]
fn what_had_its_proof_before_a_kill_is_never_typed_again_and_the_rest_is() {
    let engine = TestEngine::start();
    let proxy = Proxy::to(engine.addr());
    let mut house = House::behind(&proxy, &engine).start();
    let (_, node) = house.until_live();
    house.spawn("alice", agents::SLOW_READER);
    let listener = house.notes("alice");
    let events = house.events();
    // The engine is not told of most of the proofs: only the broker's own journal knows them.
    let sender = engine.person("sender");
    for n in 0..SENT {
        engine.dm(&sender, "alice", &text(n));
    }
    until("some proofs", || {
        let proven = events.of("delivery_ack").len();
        expect(proven >= PROVEN / 2, || format!("{proven} proofs"))
    });
    proxy.mute_broker(true);
    let acked_then = events.of("delivery_ack").len();
    until("more proofs, which the engine does not hear of", || {
        let proven = events.of("delivery_ack").len();
        expect(proven >= acked_then + PROVEN, || format!("{proven} proofs"))
    });
    house.kill();
    let proven = events.finish("delivery_ack").len();
    let told = engine.acked(&node, "alice").unwrap();
    assert!(told < proven as u64, "the engine knows of {told} of {proven} proofs: nothing is tested");
    assert!(proven < SENT, "everything was proven: nothing is tested");

    proxy.mute_broker(false);
    proxy.cut();
    house.start_again();
    let first_life = listener.heard();
    house.spawn("alice", agents::READER);
    let heard = listener.hears(first_life.len() + SENT - proven - 1);
    until("all mail is acked", || {
        let acked = engine.acked(&node, "alice");
        expect(acked == Some(SENT as u64), || format!("{acked:?}"))
    });
    let second_life: Vec<usize> =
        listener.heard()[first_life.len()..].iter().map(|n| n.parse().unwrap()).collect();
    assert!(heard.len() >= first_life.len());

    // A message may have been proven in the moment between the last event that was seen and the kill; what is
    // certain is the order, that no proven one came back, and that no unproven one is missing.
    let from = second_life[0];
    assert!(from >= proven, "message {from} of {proven} proven ones was typed again");
    assert_eq!(second_life, (from..SENT).collect::<Vec<_>>(), "something is missing or repeated");
    let everything: BTreeSet<usize> =
        first_life.iter().map(|n| n.parse().unwrap()).chain(second_life).collect();
    let missing: Vec<_> = (proven..SENT).filter(|n| !everything.contains(n)).collect();
    assert_eq!(missing, [0; 0], "never reached a program");
}

#[test]
fn the_next_broker_ends_what_a_killed_one_left_behind() {
    let engine = TestEngine::start();
    let mut house = House::at(&engine).start();
    let agent = house.spawn("mule", agents::STUBBORN);
    until("the agent's daemon runs", || {
        let running = house.processes().len();
        expect(running >= 4, || format!("{running} processes"))
    });
    let old: BTreeSet<u32> = house.processes().into_iter().collect();
    assert!(old.contains(&agent));
    house.kill();
    house.start_again();
    until("the old processes are gone", || {
        let left: Vec<u32> = house.processes().into_iter().filter(|pid| old.contains(pid)).collect();
        expect(left.is_empty(), || crate::support::processes::describe(&left))
    });
    assert_eq!(house.agents(), [""; 0]);
    house.spawn("mule", agents::READER);
}
