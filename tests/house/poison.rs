//! Messages that end the program they are typed into.

use serde_json::{Value, json};

use crate::support::{House, TestEngine, expect, until};

/// Starts a composer that a text with the word `poison` ends, and that is started again after this long.
fn spawn(house: &House, backoff_ms: u64) {
    let mut body = house.spawn_request("taster", "", &[]);
    let file = format!("{}/tests/fixtures/programs/dies.py", env!("CARGO_MANIFEST_DIR"));
    body["command"] = "python3".into();
    body["args"] = json!(["-B", file]);
    body["harness"] = "generic".into();
    body["restart"] = json!({ "when": "on_failure", "backoff_ms": backoff_ms });
    let answer = house.call("POST", "/api/spawn", Some(&body));
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// The letter that is left, once there is one.
fn letter(house: &House) -> Value {
    until("the message is a dead letter", || {
        let letters = house.get("/api/dead-letters");
        letters["dead_letters"].get(0).cloned().ok_or_else(|| letters.to_string())
    })
}

#[test]
fn a_message_that_ends_two_programs_is_a_dead_letter_and_those_behind_it_are_read() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    house.until_live();
    let notes = house.notes("taster");
    spawn(&house, 50);
    house.send("taster", "one");
    assert_eq!(notes.hears(1), ["one"]);
    for text in ["poison", "two", "three"] {
        house.send("taster", text);
    }
    let letter = letter(&house);
    assert!(letter["body"].as_str().unwrap().contains("poison"), "{letter}");
    let reason = letter["reason"].as_str().unwrap();
    assert!(reason.starts_with("the program ended 2 times while it had this message"), "{letter}");
    assert_eq!(notes.hears(3), ["one", "two", "three"], "also what shared its paste");
    assert_eq!(house.get("/api/metrics")["broker"]["total_restarts"], 2);
    assert_eq!(house.get("/api/dead-letters")["dead_letters"].as_array().unwrap().len(), 1);
}

#[test]
fn the_ends_of_programs_are_counted_over_a_kill_of_the_broker() {
    let engine = TestEngine::start();
    let mut house = House::at(&engine).start();
    house.until_live();
    let events = house.events();
    let notes = house.notes("taster");
    spawn(&house, 60_000);
    house.send("taster", "one");
    assert_eq!(notes.hears(1), ["one"]);
    house.send("taster", "poison");
    events.wait("agent_restarting", "taster");
    house.kill();
    house.start_again();
    house.until_live();
    spawn(&house, 50);
    letter(&house);
    until("one more program was enough", || {
        let broker = house.get("/api/metrics")["broker"].clone();
        expect(broker["total_restarts"] == 1, || broker.to_string())
    });
    house.send("taster", "two");
    assert_eq!(notes.hears(2), ["one", "two"]);
}
