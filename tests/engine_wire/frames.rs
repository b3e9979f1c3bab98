//! What the engine accepts on the node socket, and that what it sends is strict.

use std::{fs, path::Path};

use relay_broker::wire::frames::EngineFrame;
use serde_json::json;

use crate::harbour::{Harbour, register};

fn fixtures(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/frames").join(folder);
    let mut found: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

#[actix::test]
async fn a_frame_that_breaks_a_rule_is_refused_under_an_invented_id() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let mut frames = fixtures("neg/broker");
    frames.push(("no json".to_owned(), "{".to_owned()));
    for (name, frame) in frames {
        socket.send_text(frame.clone()).await;
        let error = socket.next().await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("invalid_message")), "{name}");
        let id = error["id"].as_str().unwrap();
        assert!(!id.is_empty() && !frame.contains(id), "{name}: the id is the frame's own");
    }
    // The socket is none the worse for it.
    socket.agent("skipper").await;
}

#[actix::test]
async fn frames_of_newer_brokers_are_understood() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    for (name, frame) in fixtures("newer") {
        socket.send_text(frame).await;
        for frame in socket.until_quiet().await {
            assert_ne!(frame["code"], "invalid_message", "{name}");
        }
    }
}

#[actix::test]
async fn everything_that_the_engine_sends_is_strict() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.dial(&token).await.unwrap();
    socket.send(register("node_1", "quay")).await;
    let mut sent = vec![socket.next().await];
    socket.send(json!({"v":1,"type":"agent.register","name":"skipper"})).await;
    let reply = socket.next().await;
    let skipper = reply["data"]["token"].as_str().unwrap().to_owned();
    let keys: Vec<_> = reply["data"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["agent_id", "name", "token"], "5.0 brokers refuse one key more");
    sent.push(reply);
    socket.agent("lookout").await;
    let human = harbour.agent("harbormaster").await;
    harbour.dm(&human, "skipper", "one").await;
    let (_, body) = harbour.post("/v1/channels/general/messages", &human, json!({"text": "all hands"})).await;
    let message = body["data"]["id"].as_str().unwrap().to_owned();
    harbour.post(&format!("/v1/messages/{message}/replies"), &skipper, json!({"text": "aye"})).await;
    harbour.post(&format!("/v1/messages/{message}/read"), &skipper, json!({})).await;
    harbour.post(&format!("/v1/messages/{message}/reactions"), &skipper, json!({"emoji": "👀"})).await;
    harbour.post("/v1/agents/release", &harbour.key, json!({"name": "lookout"})).await;
    socket.send(json!({"v":1,"type":"inventory.sync","agents":[]})).await;
    socket.send(json!({"v":1,"type":"node.deregister","id":"bye"})).await;
    loop {
        let frame = socket.next().await;
        let last = frame["id"] == "bye";
        sent.push(frame);
        if last {
            break;
        }
    }
    for frame in &sent {
        EngineFrame::decode_strict(&frame.to_string()).unwrap_or_else(|error| panic!("{error}: {frame}"));
    }
    for kind in ["dm.received", "message.created", "thread.reply", "message.read", "message.reacted"] {
        let known = fixtures("engine")
            .into_iter()
            .map(|(_, text)| serde_json::from_str::<serde_json::Value>(&text).unwrap())
            .find(|frame| frame["payload"]["type"] == kind)
            .unwrap();
        let ours =
            sent.iter().find(|frame| frame["payload"]["type"] == kind).unwrap_or_else(|| panic!("no {kind}"));
        let keys = |frame: &serde_json::Value| -> Vec<String> {
            frame["payload"]["data"].as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(keys(ours), keys(&known), "{kind}");
    }
}
