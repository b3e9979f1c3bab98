//! Two agents talk to each other, through the engine and back into their terminals.

use crate::support::{House, TestEngine, agents::text};

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
