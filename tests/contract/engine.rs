//! An embedded engine in a directory of its own, and its HTTP client.

use std::time::Duration;

use awc::http::Method;
use relay_broker::engine::{Engine, EngineConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running engine with one workspace.
pub(crate) struct House {
    engine: Engine,
    /// The workspace's key.
    pub(crate) key: String,
    // Dropped after the engine, which writes in it until it ends.
    _dir: TempDir,
}

/// A status and a body.
pub(crate) type Answer = (u16, Value);

impl House {
    pub(crate) async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start(EngineConfig::new(dir.path().join("engine.db"))).unwrap();
        let mut house = Self { engine, key: String::new(), _dir: dir };
        let made = house.expect(201, Method::POST, "/v1/workspaces", "", json!({"name": "harbor"})).await;
        house.key = made["data"]["api_key"].as_str().unwrap().to_owned();
        house
    }

    pub(crate) fn base_url(&self) -> &str {
        self.engine.base_url()
    }

    /// One request; a `null` body is none.
    pub(crate) async fn call(&self, method: Method, path: &str, token: &str, body: Value) -> Answer {
        http(method, &format!("{}{path}", self.base_url()), token, body).await
    }

    /// One request that must be answered with this status.
    pub(crate) async fn expect(
        &self,
        status: u16,
        method: Method,
        path: &str,
        token: &str,
        body: Value,
    ) -> Value {
        let (answered, answer) = self.call(method.clone(), path, token, body).await;
        assert_eq!(answered, status, "{method} {path}: {answer}");
        answer
    }

    /// Creates an agent and answers its token.
    pub(crate) async fn agent(&self, name: &str, kind: &str) -> String {
        let body = json!({"name": name, "type": kind});
        let made = self.expect(201, Method::POST, "/v1/agents", &self.key, body).await;
        made["data"]["token"].as_str().unwrap().to_owned()
    }
}

/// One request to anybody; a `null` body is none.
pub(crate) async fn http(method: Method, url: &str, token: &str, body: Value) -> Answer {
    let mut request = awc::Client::new().request(method, url).timeout(PATIENCE);
    if !token.is_empty() {
        request = request.insert_header(("Authorization", format!("Bearer {token}")));
    }
    let sent = if body.is_null() { request.send() } else { request.send_json(&body) };
    let mut response = sent.await.unwrap_or_else(|why| panic!("{url}: {why}"));
    let bytes = response.body().limit(8 << 20).await.unwrap();
    (response.status().as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}
