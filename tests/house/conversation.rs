//! Two agents talk to each other, through the engine and back into their terminals.

use serde_json::json;

use crate::support::{House, Proxy, TestEngine, Verdict, agents::text, expect, until};

/// Answers "ball N" with "ball N+1" until the last one, as a program that calls our own command line.
const PLAYER: &str = r#"
while IFS= read -r line; do
    printf '%s\n' "$line" >> "$LOG"
    ball=${line##*<<ball }; ball=${ball%%>>*}
    [ "$ball" -lt "$LAST" ] && "$BROKER" send "$PEER" "<<ball $((ball + 1))>>" >> "$LOG.err" 2>&1
done"#;

#[test]
fn two_agents_converse_through_the_engine() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    for (name, peer) in [("alice", "bob"), ("bob", "alice")] {
        let env = [("PEER", peer), ("LAST", "10"), ("BROKER", env!("CARGO_BIN_EXE_relay-broker"))];
        let answer = house.try_spawn(name, PLAYER, &env);
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let referee = engine.person("referee");
    engine.dm(&referee, "alice", &text("ball 1"));

    let ball = |n: usize| format!("ball {n}");
    assert_eq!(house.notes("bob").hears(5), [2, 4, 6, 8, 10].map(ball));
    assert_eq!(house.notes("alice").hears(5), [1, 3, 5, 7, 9].map(ball));
}

#[test]
fn a_message_that_will_not_arrive_is_told_to_whoever_watches() {
    let engine = TestEngine::start();
    // Our engine refuses such a message at once; newer ones take it, and say so later on the sender's node.
    let proxy = Proxy::judging(engine.addr(), |frame| {
        let failed = json!({
            "v": 1, "type": "delivery.failed", "message_id": "178", "delivery_id": null,
            "reason": "depth_cap", "retryable": false, "agent": "cook"
        });
        if frame.contains("<<doomed>>") { Verdict::Instead(failed.to_string()) } else { Verdict::Pass }
    });
    let house = House::behind(&proxy, &engine).start();
    house.listener("alice");
    let events = house.events();
    house.send("alice", "doomed");
    let told = until("it is told", || events.of("send_failed").pop().ok_or_else(|| "not yet".to_owned()));
    let said = ["event_id", "delivery_id", "reason", "retryable"].map(|key| told[key].clone());
    assert_eq!(said, [json!("178"), json!(null), json!("depth_cap"), json!(false)], "{told}");
    until("it is counted", || {
        let panel = house.actor("node_session").to_string();
        expect(panel.contains("delivery.failed="), || panel.clone())
    });
}
