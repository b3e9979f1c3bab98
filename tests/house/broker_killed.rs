//! The broker dies by SIGKILL in the middle of its work and is started again.

use std::collections::BTreeSet;

use crate::support::{House, Proxy, TestEngine, agents, agents::text, expect, until};

const SENT: usize = 120;
/// Proofs that the engine hears of.
const TOLD: usize = 12;
/// Proofs that it does not hear of before the broker dies.
const UNTOLD: usize = 25;
const PROVEN: usize = TOLD + UNTOLD;

#[test]
fn what_had_its_proof_before_a_kill_is_never_typed_again_and_the_rest_is() {
    let engine = TestEngine::start();
    let proxy = Proxy::to(engine.addr());
    let mut house = House::behind(&proxy, &engine).start();
    let (_, node) = house.until_live();
    let listener = house.notes("alice");
    listener.allow(TOLD);
    house.spawn("alice", agents::RATIONED);
    let events = house.events();
    let sender = engine.person("sender");
    for n in 0..SENT {
        engine.dm(&sender, "alice", &text(n));
    }
    until("the engine knows of some proofs", || {
        let acked = engine.acked(&node, "alice");
        expect(acked == Some(TOLD as u64), || format!("{acked:?}, read {}", listener.heard().len()))
    });
    // From here on only the broker's own journal knows.
    proxy.mute_broker(true);
    listener.allow(PROVEN);
    until("more proofs", || {
        let proven = events.of("delivery_ack").len();
        expect(proven == PROVEN, || format!("{proven} proofs"))
    });
    house.kill();
    assert_eq!(events.finish("delivery_ack").len(), PROVEN);
    assert_eq!(engine.acked(&node, "alice"), Some(TOLD as u64), "the engine heard of it: nothing is tested");

    proxy.mute_broker(false);
    proxy.cut();
    house.start_again();
    house.spawn("alice", agents::READER);
    let heard: Vec<usize> = listener.hears(SENT).iter().map(|n| n.parse().unwrap()).collect();
    assert_eq!(heard, (0..SENT).collect::<Vec<_>>(), "something is lost, repeated or out of order");
    until("all mail is acked", || {
        let acked = engine.acked(&node, "alice");
        expect(acked == Some(SENT as u64), || format!("{acked:?}"))
    });
    assert_eq!(listener.heard().len(), SENT);
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
