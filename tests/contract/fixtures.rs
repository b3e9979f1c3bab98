//! Every file of `fixtures/frames` and `fixtures/http` means to the published schemas what its folder says.

use std::{fs, path::Path};

use serde_json::Value;

use crate::judge::{Case, all_accepted, all_refused, judge};

/// The files of a folder below `fixtures/`, each to be judged by one schema.
fn folder(folder: &str, schema: &'static str) -> Vec<Case> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder);
    let mut cases: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| Case {
            name: format!("{folder}/{}", path.file_stem().unwrap().to_str().unwrap()),
            schema,
            value: serde_json::from_slice(&fs::read(&path).unwrap()).unwrap(),
        })
        .collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!cases.is_empty(), "{} is empty", dir.display());
    cases
}

#[test]
fn frames_of_the_baseline_are_accepted() {
    let mut cases = folder("frames/broker", "frame/broker");
    cases.extend(folder("frames/engine", "frame/engine"));
    all_accepted(&cases);
}

#[test]
fn frames_that_must_be_refused_are_refused() {
    let mut cases = folder("frames/neg/broker", "frame/broker");
    cases.extend(folder("frames/neg/engine", "frame/engine"));
    all_refused(&cases);
}

/// Here the product goes beyond the baseline on purpose: what newer engines take, and what a broker reads
/// from them.
#[test]
fn frames_of_newer_engines_are_beyond_the_baseline() {
    let mut cases = folder("frames/newer", "frame/broker");
    cases.extend(folder("frames/tolerated", "frame/engine"));
    all_refused(&cases);
}

#[test]
fn what_a_reply_carries_is_what_its_request_promised() {
    let data = |name: &str, schema| {
        let reply =
            folder("frames/engine", schema).into_iter().find(|case| case.name.ends_with(name)).unwrap();
        Case { value: reply.value["data"].clone(), ..reply }
    };
    all_accepted(&[
        data("/reply.agent-register", "data/agent.register"),
        data("/reply.node-register", "data/node.register"),
        data("/reply.node-register.newer", "data/node.register"),
        data("/reply.inventory-sync", "data/inventory.sync"),
    ]);
    // A mailbox's position is a gift of newer engines.
    all_refused(&[data("/reply.agent-register.newer", "data/agent.register")]);
}

/// The schema of a body by the name of its file.
fn answer_schema(name: &str) -> &'static str {
    match name.rsplit_once('/').unwrap().1.rsplit_once(".res").unwrap().0 {
        "agent-create" => "answer/agent-create",
        "agent-get" => "answer/agent-get",
        "agent-release" => "answer/agent-release",
        "agent-rotate" => "answer/agent-rotate",
        "agent-spawn" => "answer/agent-spawn",
        "channel-create" => "answer/channel-create",
        "channel-join" => "answer/channel-join",
        "channel-members" => "answer/channel-members",
        "deliveries-list" => "answer/deliveries",
        "dm-send" => "answer/dm-send",
        "inbox" => "answer/inbox",
        "mark-read" => "answer/mark-read",
        "message-list" => "answer/message-list",
        "message-post" => "answer/message-post",
        "node-bind" => "answer/node-bind",
        "node-create" => "answer/node-create",
        "node-list" => "answer/node-list",
        "reaction-add" => "answer/reaction-add",
        "workspace-create" => "answer/workspace-create",
        "workspace-get" => "answer/workspace-get",
        other => panic!("fixtures/http/{other} has no schema yet"),
    }
}

#[test]
fn bodies_of_the_engine_are_accepted() {
    let cases: Vec<_> = folder("http", "")
        .into_iter()
        .map(|case| Case { schema: answer_schema(&case.name), ..case })
        .collect();
    all_accepted(&cases);
}

#[test]
fn the_judge_knows_right_from_wrong() {
    let ack =
        folder("frames/broker", "frame/broker").into_iter().find(|case| case.name.ends_with("delivery.ack"));
    let ack = ack.unwrap();
    let mut wrong = ack.clone();
    wrong.value["up_to_seq"] = Value::from(-1);
    let unknown = Case { schema: "no such schema", ..ack.clone() };
    let verdicts = judge(&[ack, wrong, unknown]);
    assert_eq!(verdicts[0], None);
    assert!(verdicts[1].as_ref().unwrap().contains("up_to_seq"), "{verdicts:?}");
    assert!(verdicts[2].as_ref().unwrap().contains("no such schema"), "{verdicts:?}");
}
