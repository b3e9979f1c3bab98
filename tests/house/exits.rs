//! Agents that end by themselves, or are ended by others.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{House, TestEngine, agents, expect, processes, until};

fn gone(house: &House, engine: &TestEngine, node: &str, name: &str) {
    until(&format!("{name} is gone from the list and from the engine"), || {
        let (listed, bound) = (house.agents(), engine.inventory(node));
        let there = listed.iter().any(|listed| listed == name);
        let known = bound.iter().any(|bound| bound["agent_name"] == name);
        expect(!there && !known, || format!("{listed:?} {bound:?}"))
    });
}

#[test]
fn an_exit_code_is_reported_and_the_agent_leaves_the_engine() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    let (_, node) = house.until_live();
    let events = house.events();
    house.spawn("quitter", agents::QUITTER);
    assert_eq!(engine.inventory(&node)[0]["agent_name"], "quitter");
    house.send("quitter", "7");
    let exited = events.wait("agent_exited", "quitter");
    assert_eq!((&exited["code"], &exited["signal"]), (&7.into(), &serde_json::Value::Null), "{exited}");
    assert_eq!(exited["reason"], "child_exited");
    gone(&house, &engine, &node, "quitter");
    // Its name is free again.
    house.spawn("quitter", agents::READER);
}

#[test]
fn a_release_types_the_quit_keys_apart_before_any_signal() {
    let house = House::embedded()
        .rules("otter", "name = 'otter'\nquit = 'q w'\ncomposer = { kind = 'never' }\nproof = 'consumed'\n")
        .start();
    house.until_live();
    let events = house.events();
    // Deaf to signals; a read each for two keys, then a code of its own.
    let script = "trap '' HUP TERM; stty -icanon -echo; echo here
        one=$(dd bs=8 count=1 2>/dev/null); two=$(dd bs=8 count=1 2>/dev/null)
        [ \"$one $two\" = 'q w' ] && exit 9; exec sleep 1000";
    let mut body = house.spawn_request("quitter", script, &[]);
    body["harness"] = json!("otter");
    let answer = house.call("POST", "/api/spawn", Some(&body));
    assert_eq!(answer.status, 200, "{}", answer.text);
    house.release("quitter");
    let exited = events.wait("agent_exited", "quitter");
    assert_eq!((&exited["code"], &exited["signal"]), (&9.into(), &serde_json::Value::Null), "{exited}");
}

#[test]
fn a_killed_agent_is_reported_with_its_signal() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    let (_, node) = house.until_live();
    let events = house.events();
    let pid = house.spawn("victim", agents::DEAF);
    processes::signal(pid, Signal::SIGKILL);
    let exited = events.wait("agent_exited", "victim");
    assert_eq!(exited["signal"], "SIGKILL", "{exited}");
    assert!(exited["code"].is_null(), "{exited}");
    gone(&house, &engine, &node, "victim");
}

#[test]
fn an_agent_that_dies_at_once_was_never_there() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    let (_, node) = house.until_live();
    // Without a word: the first output would have been taken for a sign of life.
    let answer = house.try_spawn("mayfly", "exit 3", &[]);
    assert_eq!(answer.status, 422, "{}", answer.text);
    let error = answer.json();
    assert_eq!(error["code"], "exited_at_once");
    assert!(error["message"].as_str().unwrap().contains("code 3"), "{error}");
    gone(&house, &engine, &node, "mayfly");
}
