//! Enrolment, presence, and who may hold a node or an agent.

use std::time::Duration;

use awc::error::WsClientError;
use relay_broker::engine::Limits;
use serde_json::json;

use crate::harbour::{Harbour, register};

#[actix::test]
async fn an_unknown_node_token_is_refused_at_the_handshake() {
    let harbour = Harbour::open().await;
    for token in ["nt_live_000000000000000000000000000000000000000000000000", &harbour.key, "nonsense"] {
        match harbour.dial(token).await.err() {
            Some(WsClientError::InvalidResponseStatus(status)) => assert_eq!(status, 401),
            other => panic!("{other:?}"),
        }
    }
}

#[actix::test]
async fn rotating_a_node_kills_the_former_token_at_once() {
    let harbour = Harbour::open().await;
    let first = harbour.enrol("node_1", "quay").await;
    let second = harbour.enrol("node_1", "quay").await;
    assert!(harbour.dial(&first).await.is_err());
    assert!(harbour.dial(&second).await.is_ok());
}

#[actix::test]
async fn a_second_socket_takes_over_and_the_first_is_told() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut first = harbour.moor(&token, "node_1", "quay").await;
    let mut second = harbour.moor(&token, "node_1", "quay").await;
    assert_eq!(first.next().await, json!({"close": [1000, "superseded"]}));
    drop(first);
    second.until_quiet().await;
    let (_, body) = harbour.get("/v1/nodes/quay", &harbour.key).await;
    assert_eq!(body["data"]["status"], "online", "the old socket's end put the node offline");
}

#[actix::test]
async fn a_name_is_never_taken_from_another_node() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let (status, body) =
        harbour.post("/v1/nodes", &harbour.key, json!({"node_id": "node_2", "name": "quay"})).await;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("node_name_conflict")));
    assert!(harbour.dial(&token).await.is_ok(), "the refused enrolment killed a token");

    harbour.enrol("node_2", "pier").await;
    let mut socket = harbour.dial(&token).await.unwrap();
    socket.send(register("node_1", "pier")).await;
    assert_eq!(socket.next().await["code"], "node_name_conflict");
    socket.send(register("node_2", "pier")).await;
    assert_eq!(socket.next().await["code"], "node_id_mismatch");
}

#[actix::test]
async fn a_node_without_heartbeat_is_offline_with_its_agents() {
    let limits = Limits {
        liveness: Duration::from_millis(100),
        sweep: Duration::from_millis(10),
        ..Limits::default()
    };
    let harbour = Harbour::with(limits).await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let (id, _) = socket.agent("skipper").await;
    let mut status = String::new();
    for _ in 0..500 {
        let (_, body) = harbour.get("/v1/agents/skipper", &harbour.key).await;
        body["data"]["status"].as_str().unwrap().clone_into(&mut status);
        if status == "offline" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status, "offline");
    let (_, body) = harbour.get("/v1/nodes/quay", &harbour.key).await;
    assert_eq!((&body["data"]["live"], &body["data"]["status"]), (&json!(false), &json!("offline")));

    socket
        .send(json!({"v":1,"type":"node.heartbeat","load":0.5,"active_agents":1,"handlers_live":true}))
        .await;
    socket.sync(&[(&id, "skipper")]).await;
    let (_, body) = harbour.get("/v1/agents/skipper", &harbour.key).await;
    assert_eq!(body["data"]["status"], "active");
}

#[actix::test]
async fn a_sync_is_refused_whole_for_an_agent_that_is_active_elsewhere() {
    let harbour = Harbour::open().await;
    let one = harbour.enrol("node_1", "quay").await;
    let two = harbour.enrol("node_2", "pier").await;
    let mut quay = harbour.moor(&one, "node_1", "quay").await;
    let mut pier = harbour.moor(&two, "node_2", "pier").await;
    let (skipper, _) = quay.agent("skipper").await;
    let (cook, _) = pier.agent("cook").await;
    let reply = pier.sync(&[(&skipper, "skipper")]).await;
    assert_eq!(reply["code"], "agent_location_conflict");
    let (_, body) = harbour.get("/v1/agents/cook", &harbour.key).await;
    assert_eq!(body["data"]["status"], "active", "a refused sync was half applied");
    pier.send(json!({"v":1,"type":"agent.register","id":"r","name":"skipper"})).await;
    assert_eq!(pier.next().await["code"], "agent_location_conflict");

    // What a sync does not list is offline; what is gone from its node is free for another.
    pier.sync(&[]).await;
    let (_, body) = harbour.get("/v1/agents/cook", &harbour.key).await;
    assert_eq!(body["data"]["status"], "offline");
    let reply = quay.sync(&[(&skipper, "skipper"), (&cook, "cook"), ("1", "nobody")]).await;
    assert_eq!(reply["data"]["rebound_agents"], 3);
    let (_, body) = harbour.get("/v1/nodes/quay/agents", &harbour.key).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
}

#[actix::test]
async fn a_full_node_takes_no_more_agents() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.dial(&token).await.unwrap();
    let mut frame = register("node_1", "quay");
    frame["max_agents"] = json!(1);
    socket.send(frame).await;
    socket.next().await;
    let (id, _) = socket.agent("skipper").await;
    socket.send(json!({"v":1,"type":"agent.register","id":"r","name":"cook"})).await;
    assert_eq!(socket.next().await["code"], "node_capacity_exceeded");
    let (status, _) = harbour.get("/v1/agents/cook", &harbour.key).await;
    assert_eq!(status, 404, "a refused registration left an agent behind");
    socket.agent("skipper").await;

    socket.send(json!({"v":1,"type":"agent.deregister","id":"gone","agent_id":id})).await;
    let reply = socket.next().await;
    assert_eq!(reply["data"], json!({"agent_id": id, "deregistered": true}));
    socket.agent("cook").await;
}

#[actix::test]
async fn a_cursor_is_told_to_a_node_that_asked_for_it() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.dial(&token).await.unwrap();
    let mut frame = register("node_1", "quay");
    frame["provider"] = json!({"name": "broker", "instance_id": "b-1"});
    frame["capabilities"] = json!([{"name": "relay:delivery-cursor-v1", "kind": "capacity"}]);
    socket.send(frame).await;
    let reply = socket.next().await;
    assert_eq!(reply["data"]["provider"], json!({"name": "broker", "instance_id": "b-1"}));
    assert_eq!(reply["data"]["accepted_capabilities"][0]["accepted"], true);
    socket.agent("skipper").await;
    let human = harbour.agent("harbormaster").await;
    harbour.dm(&human, "skipper", "one").await;
    socket.ack("skipper", 1).await;
    socket.until_quiet().await;
    socket.send(json!({"v":1,"type":"agent.register","id":"r","name":"skipper"})).await;
    assert_eq!(socket.next().await["data"]["delivery_ack_seq"], 1);
}
