//! What the embedded engine answers over HTTP, judged by the published schemas.

use awc::http::Method;
use serde_json::{Value, json};

use crate::{
    engine::House,
    judge::{Case, all_accepted, all_refused},
};

/// Asks, and keeps every answer for the judge.
struct Asker {
    house: House,
    cases: Vec<Case>,
}

impl Asker {
    async fn ask(
        &mut self,
        schema: &'static str,
        status: u16,
        method: Method,
        path: &str,
        token: &str,
        body: Value,
    ) -> Value {
        let name = format!("{method} {path}");
        let value = self.house.expect(status, method, path, token, body).await;
        let data = value["data"].clone();
        self.cases.push(Case { name, schema, value });
        data
    }

    async fn get(&mut self, schema: &'static str, path: &str, token: &str) -> Value {
        self.ask(schema, 200, Method::GET, path, token, Value::Null).await
    }

    async fn post(
        &mut self,
        schema: &'static str,
        status: u16,
        path: &str,
        token: &str,
        body: Value,
    ) -> Value {
        self.ask(schema, status, Method::POST, path, token, body).await
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

#[actix::test]
async fn every_answer_of_the_engine_is_one_that_published_clients_read() {
    let house = House::open().await;
    let key = house.key.clone();
    let key = key.as_str();
    let mut asker = Asker { house, cases: Vec::new() };

    asker.post("answer/workspace-create", 201, "/v1/workspaces", "", json!({"name": "two"})).await;
    asker.get("answer/workspace-get", "/v1/workspace", key).await;
    asker.get("answer/workspace-by-name", "/v1/workspaces/by-name/harbor", key).await;

    let node = json!({"node_id": "node_1", "name": "quay", "kind": "ws", "role": "broker", "version": "t/1"});
    asker.post("answer/node-create", 201, "/v1/nodes", key, node).await;
    asker.get("answer/node-list", "/v1/nodes", key).await;
    asker.get("answer/node-get", "/v1/nodes/quay", key).await;

    let human = json!({"name": "harbormaster", "type": "human", "metadata": {"cli": "berth"}});
    let human = asker.post("answer/agent-create", 201, "/v1/agents", key, human).await;
    let human = text(&human["token"]);
    let skipper = json!({"name": "skipper", "persona": "calm"});
    asker.post("answer/agent-create", 201, "/v1/agents", key, skipper).await;
    let rotated =
        asker.post("answer/agent-rotate", 200, "/v1/agents/skipper/rotate-token", key, json!({})).await;
    let skipper = text(&rotated["token"]);
    asker.get("answer/agent-list", "/v1/agents", key).await;
    asker.get("answer/agent-get", "/v1/agents/skipper", key).await;
    asker.get("answer/agent-get", "/v1/agent", &skipper).await;
    let patch = json!({"status": "offline", "metadata": {"rank": 1}});
    asker.ask("answer/agent-get", 200, Method::PATCH, "/v1/agents/skipper", key, patch).await;
    let bind = json!({"agent_name": "skipper", "session_ref": "s-1"});
    asker.post("answer/node-bind", 201, "/v1/nodes/quay/agents", key, bind).await;
    asker.get("answer/node-agents", "/v1/nodes/quay/agents", key).await;

    let channel = json!({"name": "dockyard", "topic": "berths and tides"});
    asker.post("answer/channel-create", 201, "/v1/channels", &human, channel).await;
    asker.post("answer/channel-join", 200, "/v1/channels/dockyard/join", &skipper, Value::Null).await;
    asker.get("answer/channel-list", "/v1/channels", key).await;
    asker.get("answer/channel-get", "/v1/channels/dockyard", key).await;
    asker.get("answer/channel-members", "/v1/channels/dockyard/members", key).await;
    asker.post("answer/channel-mute", 200, "/v1/channels/dockyard/mute", &skipper, Value::Null).await;
    asker.post("answer/channel-mute", 200, "/v1/channels/dockyard/unmute", &skipper, Value::Null).await;
    let mate = json!({"name": "mate"});
    asker.post("answer/agent-create", 201, "/v1/agents", key, mate).await;
    let invite = json!({"agent_name": "mate"});
    asker.post("answer/channel-invite", 200, "/v1/channels/dockyard/invite", &human, invite).await;

    let message = json!({"text": "@skipper please moor at berth 4", "mode": "steer"});
    let sent =
        asker.post("answer/message-post", 201, "/v1/channels/dockyard/messages", &human, message).await;
    let about = format!("/v1/messages/{}", text(&sent["id"]));
    let replies = format!("{about}/replies");
    asker.post("answer/reply-post", 201, &replies, &skipper, json!({"text": "aye"})).await;
    asker.get("answer/reply-list", &replies, key).await;
    let reactions = format!("{about}/reactions");
    asker.post("answer/reaction-add", 201, &reactions, &skipper, json!({"emoji": "anchor"})).await;
    asker.get("answer/message-get", &about, key).await;
    asker.get("answer/message-list", "/v1/channels/dockyard/messages?limit=10", key).await;
    let dm = json!({"to": "skipper", "text": "between us: fuel is low"});
    let dm = asker.post("answer/dm-send", 201, "/v1/dm", &human, dm).await;
    let conversation = format!("/v1/dm/{}/messages", text(&dm["conversation_id"]));
    asker.get("answer/dm-messages", &conversation, &skipper).await;
    asker.get("answer/dm-conversations", "/v1/dm/conversations", &skipper).await;
    asker.get("answer/inbox", "/v1/inbox", &skipper).await;
    asker.get("answer/deliveries", "/v1/deliveries?limit=5", &skipper).await;
    asker.post("answer/mark-read", 200, &format!("{about}/read"), &skipper, Value::Null).await;

    let target =
        json!({"name": "hand", "cli": "claude", "task": "swab", "metadata": {"target_node": "quay"}});
    let refused = asker.house.call(Method::POST, "/v1/agents/spawn", key, target).await;
    assert_eq!(refused.0, 409, "nobody here spawns claude: {}", refused.1);
    asker.cases.push(Case { name: "a refused spawn".to_owned(), schema: "answer/error", value: refused.1 });
    let release = json!({"name": "skipper", "reason": "shift over"});
    asker.post("answer/agent-release", 201, "/v1/agents/release", key, release).await;
    all_accepted(&asker.cases);

    // Whoever follows the published enum to the letter must know that engines do not.
    let published: Vec<_> = asker
        .cases
        .into_iter()
        .filter(|case| case.schema == "answer/agent-create")
        .map(|case| Case { schema: "answer/agent-create/published", ..case })
        .collect();
    all_refused(&published);
}

#[actix::test]
async fn every_refusal_of_the_engine_is_in_the_published_envelope() {
    let house = House::open().await;
    let (key, agent) = (house.key.clone(), house.agent("skipper", "agent").await);
    let mut cases = Vec::new();
    for (method, path, token, body) in [
        (Method::GET, "/v1/agents", "", Value::Null),
        (Method::GET, "/v1/agents", "rk_live_00", Value::Null),
        (Method::GET, "/v1/agents/nobody", key.as_str(), Value::Null),
        (Method::POST, "/v1/agents", key.as_str(), json!({"name": "skipper"})),
        (Method::POST, "/v1/agents", key.as_str(), json!({"name": 7})),
        (Method::POST, "/v1/agents", key.as_str(), json!("no object")),
        (Method::POST, "/v1/dm", key.as_str(), json!({"to": "skipper", "text": "x"})),
        (Method::POST, "/v1/channels", agent.as_str(), json!({"name": "general"})),
        (Method::PUT, "/v1/agents", key.as_str(), Value::Null),
        (Method::GET, "/v1/no/such/route", key.as_str(), Value::Null),
        (Method::GET, "/v1/node/ws", "", Value::Null),
    ] {
        let name = format!("{method} {path}");
        let (status, value) = house.call(method, path, token, body).await;
        assert!((400..500).contains(&status), "{name}: {status} {value}");
        // The handshake is refused with an empty body, like upstream's.
        if path != "/v1/node/ws" {
            cases.push(Case { name, schema: "answer/error", value });
        }
    }
    all_accepted(&cases);
}
