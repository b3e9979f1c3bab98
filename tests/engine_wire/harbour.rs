//! An engine in a directory of its own, and a broker's end of a socket.

use std::{path::PathBuf, time::Duration};

use awc::{
    BoxedSocket,
    error::WsClientError,
    http::Method,
    ws::{Codec, Frame, Message},
};
use futures_util::{SinkExt, StreamExt};
use relay_broker::engine::{Engine, EngineConfig, Limits};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

/// Longer than anything here takes, shorter than a person's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// An engine with one workspace.
pub(crate) struct Harbour {
    dir: TempDir,
    limits: Limits,
    engine: Option<Engine>,
    pub(crate) key: String,
}

/// A status and a body.
pub(crate) type Answer = (u16, Value);

impl Harbour {
    pub(crate) async fn open() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut harbour = Self { dir, limits, engine: None, key: String::new() };
        harbour.start(0);
        let (status, body) = harbour.post("/v1/workspaces", "", json!({"name": "harbor"})).await;
        assert_eq!(status, 201, "{body}");
        harbour.key = body["data"]["api_key"].as_str().unwrap().to_owned();
        harbour
    }

    fn start(&mut self, port: u16) {
        let config = EngineConfig { port, limits: self.limits.clone(), ..EngineConfig::new(self.database()) };
        self.engine = Some(Engine::start(config).unwrap());
    }

    /// Stops the engine and starts it again on the same port and file.
    pub(crate) fn restart(&mut self) {
        let port = self.engine().port();
        self.stop();
        self.start(port);
    }

    pub(crate) fn stop(&mut self) {
        self.engine.take().unwrap().stop();
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.path().join("state/engine.db")
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.call(Method::GET, path, token, None, &[]).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call(Method::POST, path, token, Some(body), &[]).await
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let url = format!("{}{path}", self.engine().base_url());
        let mut request = awc::Client::new().request(method, url).timeout(PATIENCE);
        if !token.is_empty() {
            request = request.insert_header(("Authorization", format!("Bearer {token}")));
        }
        for header in headers {
            request = request.insert_header(*header);
        }
        let mut response = match body {
            Some(body) => request.send_json(&body).await,
            None => request.send().await,
        }
        .unwrap();
        let bytes = response.body().limit(8 << 20).await.unwrap();
        (response.status().as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Enrols a node and answers its token.
    pub(crate) async fn enrol(&self, id: &str, name: &str) -> String {
        let (status, body) = self.post("/v1/nodes", &self.key, json!({"node_id": id, "name": name})).await;
        assert_eq!(status, 201, "{body}");
        body["data"]["token"].as_str().unwrap().to_owned()
    }

    /// Creates an agent over HTTP and answers its token.
    pub(crate) async fn agent(&self, name: &str) -> String {
        let (status, body) = self.post("/v1/agents", &self.key, json!({"name": name})).await;
        assert_eq!(status, 201, "{body}");
        body["data"]["token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn dm(&self, from: &str, to: &str, text: &str) -> Value {
        let (status, body) = self.post("/v1/dm", from, json!({"to": to, "text": text})).await;
        assert_eq!(status, 201, "{body}");
        body["data"].clone()
    }

    /// Opens a node's socket.
    pub(crate) async fn dial(&self, token: &str) -> Result<Socket, WsClientError> {
        let url = format!("{}/v1/node/ws", self.engine().base_url());
        let (_, framed) = awc::Client::builder()
            .max_http_version(awc::http::Version::HTTP_11)
            .finish()
            .ws(url)
            .set_header("Authorization", format!("Bearer {token}"))
            .max_frame_size(4 << 20)
            .connect()
            .await?;
        Ok(Socket { framed })
    }

    /// Opens a node's socket and registers the node.
    pub(crate) async fn moor(&self, token: &str, id: &str, name: &str) -> Socket {
        let mut socket = self.dial(token).await.unwrap();
        socket.send(register(id, name)).await;
        let reply = socket.next().await;
        assert_eq!(reply["id"], "register", "{reply}");
        socket
    }
}

/// `node.register` of a node that can spawn.
pub(crate) fn register(id: &str, name: &str) -> Value {
    json!({
        "v": 1, "type": "node.register", "id": "register", "name": name, "node_id": id,
        "capabilities": [{"name": "spawn:claude"}], "max_agents": 0, "tags": [], "version": "test/1",
    })
}

/// A broker's end of a node socket.
pub(crate) struct Socket {
    framed: actix_codec::Framed<BoxedSocket, Codec>,
}

impl Socket {
    pub(crate) async fn send(&mut self, frame: Value) {
        self.send_text(frame.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: String) {
        self.framed.send(Message::Text(text.into())).await.unwrap();
    }

    /// The next frame; a close is `{"close": reason}`.
    pub(crate) async fn next(&mut self) -> Value {
        match timeout(PATIENCE, self.framed.next()).await.expect("the engine said nothing") {
            Some(Ok(Frame::Text(text))) => serde_json::from_slice(&text).unwrap(),
            Some(Ok(Frame::Close(reason))) => {
                json!({"close": reason.map(|reason| (u16::from(reason.code), reason.description))})
            }
            Some(Ok(other)) => panic!("an unexpected frame: {other:?}"),
            Some(Err(error)) => panic!("the socket failed: {error}"),
            None => json!({"close": null}),
        }
    }

    /// Registers an agent and answers its id and token.
    pub(crate) async fn agent(&mut self, name: &str) -> (String, String) {
        self.send(json!({"v": 1, "type": "agent.register", "id": "agent", "name": name})).await;
        let reply = self.next().await;
        assert_eq!(reply["id"], "agent", "{reply}");
        let text = |key: &str| reply["data"][key].as_str().unwrap().to_owned();
        (text("agent_id"), text("token"))
    }

    pub(crate) async fn ack(&mut self, agent: &str, up_to_seq: u64) {
        self.send(json!({"v": 1, "type": "delivery.ack", "agent": agent, "up_to_seq": up_to_seq})).await;
    }

    /// Everything that arrives before the engine has done all that came before this call.
    pub(crate) async fn until_quiet(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        // Mail is handed over at the end of a batch: what the first fence caused is out before the second's
        // answer.
        for fence in ["fence-1", "fence-2"] {
            self.send(json!({"v": 1, "type": "agent.deregister", "id": fence, "agent_id": "0"})).await;
            loop {
                let frame = self.next().await;
                if frame["id"] == fence {
                    break;
                }
                frames.push(frame);
            }
        }
        frames
    }

    pub(crate) async fn sync(&mut self, agents: &[(&str, &str)]) -> Value {
        let agents: Vec<_> = agents.iter().map(|(id, name)| json!({"agent_id": id, "name": name})).collect();
        self.send(json!({"v": 1, "type": "inventory.sync", "id": "sync", "agents": agents})).await;
        loop {
            let frame = self.next().await;
            if frame["id"] == "sync" || frame["type"] == "error" {
                return frame;
            }
        }
    }
}

/// The seqs of deliver frames.
pub(crate) fn seqs(frames: &[Value]) -> Vec<u64> {
    frames
        .iter()
        .filter(|frame| frame["type"] == "deliver")
        .map(|frame| frame["seq"].as_u64().unwrap())
        .collect()
}
