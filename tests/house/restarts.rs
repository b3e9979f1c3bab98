//! Agents whose program fails and is started again.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{House, TestEngine, expect, processes, until};

/// Writes down what it reads, and ends with code 9 some time after the word `die`, when that has its proof. Each
/// life of it begins with a line.
const MORTAL: &str = r#"echo "<<life>>" >> "$LOG"
while IFS= read -r line; do
    case $line in *'<<die>>'*) printf '%s\n' "$line" >> "$LOG"; sleep 1; exit 9;; esac
    printf '%s\n' "$line" >> "$LOG"
done"#;

fn spawn(house: &House, name: &str, script: &str, process: Value) {
    let mut body = house.spawn_request(name, script, &[]);
    body.as_object_mut().unwrap().extend(process.as_object().unwrap().clone());
    let answer = house.call("POST", "/api/spawn", Some(&body));
    assert_eq!(answer.status, 200, "{}", answer.text);
}

fn again(backoff_ms: u64) -> Value {
    json!({ "restart": { "when": "on_failure", "backoff_ms": backoff_ms } })
}

#[test]
fn a_failed_agent_keeps_its_mailbox_and_nothing_is_lost_or_typed_twice() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    let (_, node) = house.until_live();
    let events = house.events();
    spawn(&house, "phoenix", MORTAL, again(1500));
    let notes = house.notes("phoenix");
    let id = engine.inventory(&node)[0]["agent_id"].clone();
    house.send("phoenix", "one");
    assert_eq!(notes.hears(2), ["life", "one"]);
    house.send("phoenix", "die");
    let restarting = events.wait("agent_restarting", "phoenix");
    assert_eq!((&restarting["code"], &restarting["restart_count"]), (&9.into(), &1.into()), "{restarting}");
    // While nobody is there to hear it.
    house.send("phoenix", "two");
    house.send("phoenix", "three");
    assert_eq!(engine.inventory(&node)[0]["agent_id"], id, "it stays where it is");
    events.wait("agent_restarted", "phoenix");
    house.send("phoenix", "four");
    assert_eq!(notes.hears(7), ["life", "one", "die", "life", "two", "three", "four"]);
    assert_eq!(engine.inventory(&node)[0]["agent_id"], id);
    let metrics = house.get("/api/metrics");
    assert_eq!(metrics["broker"]["total_restarts"], 1, "{metrics}");
    let crashes = house.get("/api/crash-insights");
    let last = &crashes["recent"][0];
    assert_eq!((&last["exit_code"], &last["agent_name"]), (&9.into(), &"phoenix".into()), "{crashes}");
}

#[test]
fn an_agent_that_dies_at_every_start_is_given_up_and_says_why() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    house.until_live();
    let events = house.events();
    spawn(&house, "moth", "echo hello; sleep 0.5; exit 4", again(50));
    let dead = events.wait("agent_permanently_dead", "moth");
    assert!(dead["reason"].as_str().unwrap().starts_with("crash loop: it ended 3 times"), "{dead}");
    until("it is gone", || expect(house.agents().is_empty(), || format!("{:?}", house.agents())));
    let crashes = house.get("/api/crash-insights");
    assert_eq!(crashes["recent"][0]["class"], "crash_loop", "{crashes}");
    assert_eq!(crashes["total_crashes"], 3, "{crashes}");
}

#[test]
fn a_release_ends_the_wait_for_the_next_program() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    let (_, node) = house.until_live();
    let events = house.events();
    spawn(&house, "sisyphus", "echo hello; exec sleep 1000", again(60_000));
    let listed = house.get("/api/spawned");
    let pid: u32 = listed["agents"][0]["pid"].as_u64().unwrap().try_into().unwrap();
    processes::signal(pid, Signal::SIGKILL);
    let restarting = events.wait("agent_restarting", "sisyphus");
    assert_eq!(restarting["signal"], "SIGKILL", "{restarting}");
    assert_eq!(house.get("/api/spawned")["agents"][0]["phase"], "restarting");
    house.release("sisyphus");
    assert!(house.agents().is_empty());
    until("the engine has forgotten it", || {
        let bound = engine.inventory(&node);
        expect(bound.is_empty(), || format!("{bound:?}"))
    });
    // Its name is free, and what it left behind survives the broker.
    spawn(&house, "sisyphus", "exec sleep 1000", json!({}));
}
