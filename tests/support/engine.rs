//! The real engine, in this process, in a directory of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use relay_broker::engine::{Engine, EngineConfig, Limits};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{self, Answer};

/// An engine with one workspace.
pub(crate) struct TestEngine {
    dir: TempDir,
    limits: Limits,
    engine: Option<Engine>,
    port: u16,
    /// The workspace's key.
    pub(crate) key: String,
}

impl TestEngine {
    pub(crate) fn start() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut engine = Self { dir, limits, engine: None, port: 0, key: String::new() };
        engine.resume();
        let made = engine.post("/v1/workspaces", "", json!({ "name": "harbor" }));
        engine.key = made["api_key"].as_str().unwrap().to_owned();
        engine
    }

    /// Starts it (again), on its port of before.
    pub(crate) fn resume(&mut self) {
        let mut config = EngineConfig::new(self.database());
        config.port = self.port;
        config.limits = self.limits.clone();
        let engine = Engine::start(config).unwrap();
        self.port = engine.port();
        self.engine = Some(engine);
    }

    /// Stops it. What it has stored stays.
    pub(crate) fn stop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.stop();
        }
    }

    /// Its SQLite file.
    pub(crate) fn database(&self) -> PathBuf {
        self.dir.path().join("engine.db")
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn call(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        let headers = if token.is_empty() { &headers[..0] } else { &headers[..] };
        http::call(self.addr(), method, path, headers, body).unwrap()
    }

    /// A POST that must succeed; its `data`.
    pub(crate) fn post(&self, path: &str, token: &str, body: Value) -> Value {
        let answer = self.call("POST", path, token, Some(&body));
        assert_eq!(answer.status, 201, "{path}: {}", answer.text);
        answer.json()["data"].take()
    }

    /// A GET with the workspace key that must succeed; its `data`.
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, &self.key, None);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()["data"].take()
    }

    /// Somebody who can send; their token.
    pub(crate) fn person(&self, name: &str) -> String {
        let made = self.post("/v1/agents", &self.key, json!({ "name": name, "type": "human" }));
        made["token"].as_str().unwrap().to_owned()
    }

    /// A direct message; its id.
    pub(crate) fn dm(&self, from: &str, to: &str, text: &str) -> String {
        let sent = self.post("/v1/dm", from, json!({ "to": to, "text": text }));
        sent["id"].as_str().unwrap().to_owned()
    }

    /// The agents that the engine has on a node.
    pub(crate) fn inventory(&self, node: &str) -> Vec<Value> {
        self.get(&format!("/v1/nodes/{node}/agents")).as_array().unwrap().clone()
    }

    /// Up to where an agent's mailbox has been acked, while the agent is on that node.
    pub(crate) fn acked(&self, node: &str, agent: &str) -> Option<u64> {
        let bound = self.inventory(node).into_iter().find(|bound| bound["agent_name"] == agent)?;
        bound["delivery_ack_seq"].as_u64()
    }

    /// Up to where an agent's mailbox has been acked, wherever the agent is.
    pub(crate) fn acked_in_all(&self, agent: &str) -> u64 {
        let database = rusqlite::Connection::open(self.database()).unwrap();
        let acked = "SELECT ack_seq FROM agents WHERE name = ?1";
        let acked: i64 = database.query_row(acked, [agent], |row| row.get(0)).unwrap();
        acked.try_into().unwrap()
    }

    /// Writes an agent's only message, whose text is `<<0>>`, into its mailbox `count` times more, as `<<1>>`,
    /// `<<2>>` and so on. The engine is stopped meanwhile: posting so many would take the test's time.
    pub(crate) fn multiply(&mut self, agent: &str, count: usize) {
        self.stop();
        let mut database = rusqlite::Connection::open(self.database()).unwrap();
        let all = database.transaction().unwrap();
        const NUMBERS: &str =
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?2)";
        let messages = format!(
            "{NUMBERS} INSERT INTO messages
             SELECT m.id + n, m.channel_id, m.agent_id, m.agent_name, m.thread_id,
                    replace(m.text, '<<0>>', '<<' || n || '>>'), m.blocks, m.metadata, m.mentions, m.attachments,
                    m.mode, replace(replace(m.payload, m.id, m.id + n), '<<0>>', '<<' || n || '>>'), m.created_at
             FROM messages m JOIN deliveries d ON d.message_id = m.id JOIN agents a ON a.id = d.agent_id, numbers
             WHERE a.name = ?1"
        );
        let deliveries = format!(
            "{NUMBERS} INSERT INTO deliveries
                 (agent_id, seq, message_id, channel_id, status, reason, expires_at, created_at)
             SELECT d.agent_id, d.seq + n, d.message_id + n, d.channel_id, 0, d.reason, d.expires_at, d.created_at
             FROM deliveries d JOIN agents a ON a.id = d.agent_id, numbers WHERE a.name = ?1"
        );
        for statement in [
            &messages,
            &deliveries,
            "UPDATE agents SET last_seq = last_seq + ?2, unacked = unacked + ?2 WHERE name = ?1",
        ] {
            all.execute(statement, rusqlite::params![agent, i64::try_from(count).unwrap()]).unwrap();
        }
        all.commit().unwrap();
        drop(database);
        self.resume();
    }
}
