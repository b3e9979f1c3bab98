//! The real binary, in a directory of its own.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::Instant,
};

use awc::http::Method;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::engine::{Answer, PATIENCE, http};

/// The periods of the protocol, short enough for a test.
const CONFIG: &str = "harnesses = ['cat', 'no-such-program']

[timings]
heartbeat_ms = 250
sync_ms = 400
";

/// A broker that runs; killed when dropped.
pub(crate) struct Broker {
    child: Child,
    url: String,
    key: String,
    dir: TempDir,
}

impl Broker {
    /// Starts it as other programs do, joins the workspace, and waits until the engine confirms the node.
    pub(crate) async fn join(engine: &str, workspace_key: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("contract.toml"), CONFIG).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_relay-broker"))
            .args(["init", "--instance-name", "quay", "--channels", "general", "--persist"])
            .args(["--config", "contract.toml", "--workspace-key", workspace_key])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", dir.path())
            .env("RELAYCAST_BASE_URL", engine)
            .env("RUST_LOG", "warn")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap().by_ref()).read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("API listening on ").unwrap_or_else(|| panic!("{line}"));
        let mut broker = Self { url: url.to_owned(), key: String::new(), child, dir };
        broker.key = broker.connection()["api_key"].as_str().unwrap().to_owned();
        broker.until("the engine confirms the node", async || broker.get("/readyz").await.0 == 200).await;
        broker
    }

    fn connection(&self) -> Value {
        let file = self.dir.path().join(".agentworkforce/relay/connection.json");
        let began = Instant::now();
        loop {
            // Written right after the line on standard output.
            if let Ok(text) = fs::read(&file) {
                return serde_json::from_slice(&text).unwrap();
            }
            assert!(began.elapsed() < PATIENCE, "no {}", file.display());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Waits for something that must come to be.
    pub(crate) async fn until(&self, what: &str, mut is: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !is().await {
            assert!(began.elapsed() < PATIENCE, "never: {what}");
            actix_rt::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Value::Null).await
    }

    /// One request to the local API; a `null` body is none.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        http(method, &format!("{}{path}", self.url), &self.key, body).await
    }

    /// Spawns a program under this name.
    pub(crate) async fn spawn(&self, name: &str, program: &str) {
        let body = json!({"name": name, "cli": program, "channels": ["general"]});
        let (status, answer) = self.call(Method::POST, "/api/spawn", body).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// What an agent's terminal shows.
    pub(crate) async fn screen(&self, name: &str) -> String {
        let (status, answer) = self.get(&format!("/api/spawned/{name}/snapshot")).await;
        assert_eq!(status, 200, "{answer}");
        answer["screen"].as_str().unwrap().to_owned()
    }

    /// The names of the agents.
    pub(crate) async fn agents(&self) -> Vec<String> {
        let (_, answer) = self.get("/api/spawned").await;
        let agents = answer["agents"].as_array().unwrap().iter();
        agents.map(|agent| agent["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Ends it in good order.
    pub(crate) fn end(mut self) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}
