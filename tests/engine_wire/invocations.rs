//! Spawn and release through the engine.

use std::time::Duration;

use relay_broker::engine::Limits;
use serde_json::{Value, json};

use crate::harbour::Harbour;

async fn invocation(harbour: &Harbour, id: &str) -> Value {
    let (status, body) = harbour.get(&format!("/v1/actions/spawn/invocations/{id}"), &harbour.key).await;
    assert_eq!(status, 200, "{body}");
    body["data"].clone()
}

#[actix::test]
async fn a_spawn_is_placed_run_and_reported_to_its_caller() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let (_, captain) = socket.agent("captain").await;
    let (status, body) = harbour
        .post("/v1/agents/spawn", &captain, json!({"name": "mate", "cli": "claude", "task": "t"}))
        .await;
    assert_eq!((status, &body["data"]["status"]), (201, &json!("dispatched")), "{body}");
    let id = body["data"]["invocation_id"].as_str().unwrap().to_owned();
    let frame = socket.next().await;
    assert_eq!((&frame["type"], &frame["action"]), (&json!("action.invoke"), &json!("spawn:claude")));
    assert_eq!(frame["invocation_id"], id.as_str());
    assert_eq!(frame["input"], json!({"name": "mate", "cli": "claude", "task": "t"}));

    socket.send(json!({"v":1,"type":"action.result","invocation_id":id,"output":{"spawned":true}})).await;
    let told = socket.next().await;
    assert_eq!((&told["seq"], &told["agent"]), (&json!(0), &json!("captain")));
    assert_eq!(told["payload"]["type"], "action.completed");
    assert_eq!(told["payload"]["data"]["output"], json!({"spawned": true}));
    let row = invocation(&harbour, &id).await;
    assert_eq!((&row["status"], &row["caller_name"]), (&json!("completed"), &json!("captain")));

    // Final is final.
    socket.send(json!({"v":1,"type":"action.result","invocation_id":id,"error":"late"})).await;
    assert!(socket.until_quiet().await.is_empty());
    assert_eq!(invocation(&harbour, &id).await["status"], "completed");
}

#[actix::test]
async fn an_unanswered_spawn_is_repeated_under_its_id() {
    let limits = Limits {
        dispatch_timeout: Duration::from_millis(30),
        retry_delay: Duration::from_millis(10),
        sweep: Duration::from_millis(10),
        ..Limits::default()
    };
    let harbour = Harbour::with(limits).await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let (_, body) =
        harbour.post("/v1/agents/spawn", &harbour.key, json!({"name": "mate", "cli": "claude"})).await;
    let id = body["data"]["invocation_id"].clone();
    let first = socket.next().await;
    let second = socket.next().await;
    assert_eq!((&first["invocation_id"], &first["action"]), (&id, &json!("spawn:claude")));
    assert_eq!((&second["invocation_id"], &second["action"]), (&id, &json!("spawn")));
    socket.send(json!({"v":1,"type":"action.result","invocation_id":id,"error":"spawn_failed"})).await;
    socket.until_quiet().await;
    let row = invocation(&harbour, id.as_str().unwrap()).await;
    assert_eq!((&row["status"], &row["error"]), (&json!("failed"), &json!("spawn_failed")));
}

#[actix::test]
async fn a_spawn_moves_to_another_node_when_its_own_goes_away() {
    let harbour = Harbour::open().await;
    let one = harbour.enrol("node_1", "a-quay").await;
    let two = harbour.enrol("node_2", "b-pier").await;
    let mut quay = harbour.moor(&one, "node_1", "a-quay").await;
    let mut pier = harbour.moor(&two, "node_2", "b-pier").await;
    let (_, body) =
        harbour.post("/v1/agents/spawn", &harbour.key, json!({"name": "mate", "cli": "claude"})).await;
    assert_eq!(body["data"]["dispatched_node_id"], "node_1");
    assert_eq!(quay.next().await["type"], "action.invoke");
    quay.send(json!({"v":1,"type":"node.deregister","id":"bye"})).await;
    let moved = pier.next().await;
    assert_eq!(moved["invocation_id"], body["data"]["invocation_id"]);
    assert_eq!(moved["action"], "spawn");
}

#[actix::test]
async fn a_targeted_spawn_waits_for_its_node() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    drop(harbour.moor(&token, "node_1", "quay").await);
    let wish = json!({"name": "mate", "cli": "claude", "target_node": "quay"});
    let (status, body) = harbour.post("/v1/agents/spawn", &harbour.key, wish).await;
    assert_eq!(status, 201, "{body}");
    // The old socket's end may come before or after the request; either way the next one is asked.
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let mut asked = socket.next().await;
    while asked["type"] != "action.invoke" {
        asked = socket.next().await;
    }
    assert_eq!(asked["invocation_id"], body["data"]["invocation_id"]);
}

#[actix::test]
async fn what_a_superseded_socket_was_asked_is_asked_of_its_successor() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut first = harbour.moor(&token, "node_1", "quay").await;
    let wish = json!({"name": "mate", "cli": "claude", "target_node": "quay"});
    let (_, body) = harbour.post("/v1/agents/spawn", &harbour.key, wish).await;
    assert_eq!(first.next().await["action"], "spawn:claude");
    let mut second = harbour.moor(&token, "node_1", "quay").await;
    let repeated = second.next().await;
    assert_eq!(repeated["invocation_id"], body["data"]["invocation_id"]);
    assert_eq!(repeated["action"], "spawn");
}

#[actix::test]
async fn a_released_agent_is_offline_or_deleted() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    for (delete, status) in [(false, 200), (true, 404)] {
        socket.agent("skipper").await;
        let wish = json!({"name": "skipper", "delete_agent": delete});
        let (code, body) = harbour.post("/v1/agents/release", &harbour.key, wish).await;
        assert_eq!(code, 201, "{body}");
        let frame = socket.next().await;
        assert_eq!((&frame["action"], &frame["input"]["name"]), (&json!("release"), &json!("skipper")));
        let id = &frame["invocation_id"];
        socket
            .send(json!({"v":1,"type":"action.result","invocation_id":id,"output":{"released":true}}))
            .await;
        socket.until_quiet().await;
        let (code, body) = harbour.get("/v1/agents/skipper", &harbour.key).await;
        assert_eq!(code, status, "{body}");
        if code == 200 {
            assert_eq!(body["data"]["status"], "offline");
        }
        let (_, body) = harbour.get("/v1/nodes/quay/agents", &harbour.key).await;
        assert_eq!(body["data"], json!([]));
    }
}

#[actix::test]
async fn a_node_that_cannot_handle_anything_gets_no_more_until_it_says_so() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let spawn = || harbour.post("/v1/agents/spawn", &harbour.key, json!({"name": "mate", "cli": "claude"}));
    let (_, body) = spawn().await;
    let id = body["data"]["invocation_id"].clone();
    socket.next().await;
    socket.send(json!({"v":1,"type":"action.result","invocation_id":id,"error":"handler_unavailable"})).await;
    socket.until_quiet().await;
    assert_eq!(invocation(&harbour, id.as_str().unwrap()).await["status"], "pending");
    let (status, body) = spawn().await;
    assert_eq!((status, &body["error"]["code"]), (503, &json!("handler_unavailable")));
    socket.send(json!({"v":1,"type":"node.heartbeat","load":0,"active_agents":0,"handlers_live":true})).await;
    socket.until_quiet().await;
    assert_eq!(spawn().await.0, 201);
}
