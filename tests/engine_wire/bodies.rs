//! Bodies have exactly the keys of the contract, and failures its codes.

use std::{collections::BTreeSet, fs, path::Path};

use awc::http::Method;
use serde_json::{Value, json};

use crate::harbour::{Answer, Harbour};

/// Every key of a body with its path; of an array, those of its first element.
fn shape(value: &Value, path: &str, keys: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = format!("{path}.{key}");
                shape(value, &path, keys);
                keys.insert(path);
            }
        }
        Value::Array(items) => {
            if let Some(first) = items.first() {
                shape(first, &format!("{path}[]"), keys);
            }
        }
        _ => {}
    }
}

/// Checks an answer against `fixtures/http/<name>.json`. `free` are paths below which a body is open.
fn check(name: &str, answer: Answer, free: &[&str]) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/http/{name}.json"));
    let known: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let status = name.rsplit(".res").next().unwrap().parse::<u16>().unwrap();
    assert_eq!(answer.0, status, "{name}: {}", answer.1);
    let keys = |value: &Value| {
        let mut keys = BTreeSet::new();
        shape(value, "", &mut keys);
        keys.retain(|key| !free.iter().any(|open| key.starts_with(&format!("{open}."))));
        keys
    };
    assert_eq!(keys(&answer.1), keys(&known), "{name}");
    answer.1["data"].clone()
}

#[actix::test]
async fn every_body_has_the_keys_of_its_fixture() {
    let harbour = Harbour::open().await;
    let key = harbour.key.as_str();
    check("workspace-create.res201", harbour.post("/v1/workspaces", "", json!({"name": "two"})).await, &[]);
    check("workspace-get.res200", harbour.get("/v1/workspace", key).await, &[]);
    let node = json!({"node_id": "node_1", "name": "quay", "kind": "ws", "role": "broker", "version": "t/1"});
    let node = check("node-create.res201", harbour.post("/v1/nodes", key, node).await, &[]);
    let mut socket = harbour.moor(node["token"].as_str().unwrap(), "node_1", "quay").await;
    check("node-list.res200", harbour.get("/v1/nodes?capability=spawn:claude", key).await, &[]);
    let human = json!({"name": "harbormaster", "type": "human", "metadata": {"cli": "berth"}});
    let human = check("agent-create.res201", harbour.post("/v1/agents", key, human).await, &[]);
    let human = human["token"].as_str().unwrap();
    harbour.agent("skipper").await;
    check("agent-get.res200", harbour.get("/v1/agents/skipper", key).await, &[]);
    let rotated = check(
        "agent-rotate.res200",
        harbour.post("/v1/agents/skipper/rotate-token", key, json!({})).await,
        &[],
    );
    let skipper = rotated["token"].as_str().unwrap();
    let bind = json!({"agent_name": "skipper"});
    let (status, mut body) = harbour.post("/v1/nodes/quay/agents", key, bind).await;
    // A later addition of the contract that every client takes (spec/wire 1.5).
    assert_eq!(body["data"].as_object_mut().unwrap().remove("delivery_ack_seq"), Some(json!(0)));
    check("node-bind.res201", (status, body), &[]);

    let channel = json!({"name": "dockyard", "topic": "berths and tides"});
    check("channel-create.res201", harbour.post("/v1/channels", human, channel).await, &[]);
    check("channel-join.res200", harbour.post("/v1/channels/dockyard/join", skipper, json!({})).await, &[]);
    check("channel-members.res200", harbour.get("/v1/channels/dockyard/members", key).await, &[]);
    let text = json!({"text": "@skipper please moor at berth 4", "mode": "wait"});
    let sent =
        check("message-post.res201", harbour.post("/v1/channels/dockyard/messages", human, text).await, &[]);
    let id = sent["id"].as_str().unwrap();
    assert_eq!(sent["mentions"], json!(["skipper"]));
    let emoji = harbour.post(&format!("/v1/messages/{id}/reactions"), human, json!({"emoji": "eyes"})).await;
    check("reaction-add.res201", emoji, &[]);
    check("message-list.res200", harbour.get("/v1/channels/dockyard/messages", key).await, &[]);
    let dm = json!({"to": "skipper", "text": "between us: fuel is low", "mode": "wait"});
    check("dm-send.res201", harbour.post("/v1/dm", human, dm).await, &[]);
    check("inbox.res200", harbour.get("/v1/inbox", skipper).await, &[]);
    let deliveries = check("deliveries-list.res200", harbour.get("/v1/deliveries", skipper).await, &[]);
    assert_eq!(deliveries.as_array().unwrap().len(), 2);
    check(
        "mark-read.res200",
        harbour.post(&format!("/v1/messages/{id}/read"), skipper, json!({})).await,
        &[],
    );
    let spawn = json!({"name": "mate", "cli": "claude", "task": "survey the harbor", "channel": "dockyard"});
    check("agent-spawn.res201", harbour.post("/v1/agents/spawn", key, spawn).await, &[]);
    let release = json!({"name": "skipper", "reason": "shift over", "delete_agent": false});
    check("agent-release.res201", harbour.post("/v1/agents/release", key, release).await, &[]);
    socket.until_quiet().await;
}

#[actix::test]
async fn the_inbox_is_empty_once_everything_is_acked() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let (_, skipper) = socket.agent("skipper").await;
    let human = harbour.agent("harbormaster").await;
    harbour.dm(&human, "skipper", "one").await;
    harbour.post("/v1/channels/general/messages", &human, json!({"text": "@skipper two"})).await;
    let (_, body) = harbour.get("/v1/inbox", &skipper).await;
    assert_eq!(body["data"]["unread_channels"], json!([{"channel_name": "general", "unread_count": 1}]));
    assert_eq!(body["data"]["unread_dms"][0]["from"], "harbormaster");
    assert_eq!(body["data"]["mentions"][0]["text"], "@skipper two");
    socket.ack("skipper", 2).await;
    socket.until_quiet().await;
    let (_, body) = harbour.get("/v1/inbox", &skipper).await;
    for list in ["unread_channels", "unread_dms", "mentions", "recent_reactions"] {
        assert_eq!(body["data"][list], json!([]), "{list}");
    }
}

#[actix::test]
async fn a_note_to_oneself_is_kept_and_delivered_to_nobody() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let (_, skipper) = socket.agent("skipper").await;
    let sent = harbour.dm(&skipper, "@self", "buy rope").await;
    assert!(socket.until_quiet().await.is_empty());
    let conversation = sent["conversation_id"].as_str().unwrap();
    let (_, body) = harbour.get(&format!("/v1/dm/{conversation}/messages"), &skipper).await;
    assert_eq!(body["data"][0]["text"], "buy rope");
    let stranger = harbour.agent("stranger").await;
    let (status, _) = harbour.get(&format!("/v1/dm/{conversation}/messages"), &stranger).await;
    assert_eq!(status, 404);
    let (status, _) = harbour.get(&format!("/v1/messages/{}", sent["id"].as_str().unwrap()), &stranger).await;
    assert_eq!(status, 404);
}

#[actix::test]
async fn refusals_have_the_codes_of_the_contract() {
    let harbour = Harbour::open().await;
    let key = harbour.key.as_str();
    let node = harbour.enrol("node_1", "quay").await;
    let agent = harbour.agent("skipper").await;
    let dm = |to: &str| Some(json!({"to": to, "text": "x"}));
    let cases = [
        (Method::GET, "/v1/agents", "", None, 401, "unauthorized"),
        (Method::GET, "/v1/agents", "rk_live_00", None, 401, "unauthorized"),
        (Method::GET, "/v1/agents", "at_live_00", None, 401, "agent_token_invalid"),
        (Method::GET, "/v1/agents", node.as_str(), None, 401, "node_token_forbidden"),
        (Method::POST, "/v1/nodes", agent.as_str(), Some(json!({"name": "x"})), 401, "unauthorized"),
        (Method::POST, "/v1/dm", key, dm("skipper"), 403, "agent_token_required"),
        (Method::POST, "/v1/dm", agent.as_str(), dm("nobody"), 404, "agent_not_found"),
        (Method::POST, "/v1/dm", agent.as_str(), Some(json!({"to": "skipper"})), 400, "invalid_request"),
        (
            Method::POST,
            "/v1/dm",
            agent.as_str(),
            Some(json!({"to": "skipper", "text": ""})),
            400,
            "invalid_request",
        ),
        (Method::POST, "/v1/agents", key, Some(json!({"name": "skipper"})), 409, "agent_already_exists"),
        (Method::POST, "/v1/agents", key, Some(json!({"name": "a/b"})), 400, "invalid_request"),
        (
            Method::POST,
            "/v1/channels",
            agent.as_str(),
            Some(json!({"name": "general"})),
            409,
            "channel_already_exists",
        ),
        (
            Method::POST,
            "/v1/channels",
            agent.as_str(),
            Some(json!({"name": "No"})),
            400,
            "invalid_channel_name",
        ),
        (Method::POST, "/v1/channels/void/join", agent.as_str(), None, 404, "channel_not_found"),
        (Method::POST, "/v1/messages/77/read", agent.as_str(), None, 404, "message_not_found"),
        (Method::GET, "/v1/messages/nonsense", agent.as_str(), None, 404, "message_not_found"),
        (Method::GET, "/v1/nodes/void", key, None, 404, "node_not_found"),
        (Method::DELETE, "/v1/nodes/quay/agents/skipper", key, None, 404, "node_agent_binding_not_found"),
        (
            Method::POST,
            "/v1/agents/release",
            key,
            Some(json!({"name": "skipper"})),
            409,
            "agent_not_node_bound",
        ),
        (
            Method::POST,
            "/v1/agents/spawn",
            key,
            Some(json!({"name": "x", "cli": "y"})),
            409,
            "capability_mismatch",
        ),
        (
            Method::POST,
            "/v1/workspaces",
            "",
            Some(json!({"name": "harbor"})),
            409,
            "workspace_already_exists",
        ),
        (Method::GET, "/v1/no/such/route", key, None, 404, "not_found"),
    ];
    for (method, path, token, body, status, code) in cases {
        let place = format!("{method} {path} {code}");
        let answer = harbour.call(method, path, token, body, &[]).await;
        assert_eq!(answer.0, status, "{place}: {}", answer.1);
        assert_eq!(answer.1["ok"], false, "{place}");
        assert_eq!(answer.1["error"]["code"], code, "{place}");
        assert!(answer.1["error"]["message"].is_string(), "{place}");
    }
    let (status, body) = harbour.get("/health", "").await;
    assert_eq!((status, &body["ok"]), (200, &json!(true)));
    assert!(body.get("data").is_none());
}

#[actix::test]
async fn a_workspace_is_given_again_to_whoever_has_its_key() {
    let harbour = Harbour::open().await;
    let (status, body) = harbour.post("/v1/workspaces", &harbour.key, json!({"name": "harbor"})).await;
    assert_eq!((status, body["data"]["api_key"].as_str()), (200, Some(harbour.key.as_str())));
}
