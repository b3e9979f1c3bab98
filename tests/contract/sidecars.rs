//! Upstream's published sidecars, unchanged: what their handlers do is run for the workspace, through our broker.

use std::{fs, time::Instant};

use awc::http::Method;
use serde_json::{Value, json};

use crate::{
    clients::{Running, Site, Started, free_port, is_running},
    engine::{PATIENCE, http},
};

/// A workspace, one who invokes, and the broker of a client.
struct Harbour {
    /// Ended before its directory goes, where it is found.
    broker: Started,
    site: Site,
    caller: String,
    port: u16,
}

impl Harbour {
    async fn open() -> Self {
        let site = Site::open().await;
        let caller = site.house.agent("bosun", "human").await;
        let broker = Started { connection: site.project().join(".agentworkforce/relay/connection.json") };
        Self { site, caller, broker, port: free_port() }
    }

    fn serve(&self) -> Running {
        let pier = self.site.packages.join("pier.mjs");
        let served = Running::start(&self.site, &["fleet", "serve", &pier.display().to_string()], self.port);
        served.until_said(&["registered with 5 capabilities"]);
        served
    }

    async fn invoke(&self, action: &str, input: Value) -> String {
        let path = format!("/v1/actions/{action}/invoke");
        let body = json!({ "input": input });
        let made = self.site.house.expect(201, Method::POST, &path, &self.caller, body).await;
        made["data"]["invocation_id"].as_str().unwrap().to_owned()
    }

    async fn invocation(&self, id: &str) -> Value {
        let path = format!("/v1/actions/any/invocations/{id}");
        self.site.house.expect(200, Method::GET, &path, &self.caller, Value::Null).await["data"].take()
    }

    /// Waits until it has this status.
    async fn ended(&self, id: &str, status: &str) -> Value {
        self.until(status, async || {
            let seen = self.invocation(id).await;
            if seen["status"] == status { Ok(seen) } else { Err(seen.to_string()) }
        })
        .await
    }

    async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Result<T, String>) -> T {
        let began = Instant::now();
        loop {
            match look().await {
                Ok(found) => return found,
                Err(seen) => assert!(began.elapsed() < PATIENCE, "never {what}: {seen}"),
            }
            actix_rt::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// What the engine shows of the broker's node.
    async fn node(&self) -> Value {
        let nodes =
            self.site.house.expect(200, Method::GET, "/v1/nodes", &self.site.house.key, Value::Null).await;
        nodes["data"][0].clone()
    }

    /// Waits until the engine shows these handlers of the sidecar, and no others.
    async fn offers(&self, wanted: &[&str]) {
        self.until("offered", async || {
            let handlers = self.handlers().await;
            if handlers == wanted { Ok(()) } else { Err(format!("{handlers:?}")) }
        })
        .await;
    }

    async fn handlers(&self) -> Vec<String> {
        let node = self.node().await;
        let names = node["capabilities"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap());
        names
            .filter(|name| name.starts_with("pier.") || name.starts_with("spawn:"))
            .map(str::to_owned)
            .collect()
    }

    fn runs(&self) -> String {
        fs::read_to_string(self.site.project().join("runs")).unwrap_or_default()
    }

    /// Waits until this agent's terminal shows a text.
    async fn shows(&self, agent: &str, text: &str) {
        let connection: Value = serde_json::from_slice(&fs::read(&self.broker.connection).unwrap()).unwrap();
        let [url, key] = ["url", "api_key"].map(|field| connection[field].as_str().unwrap().to_owned());
        self.until(text, async || {
            let (_, shown) =
                http(Method::GET, &format!("{url}/api/spawned/{agent}/snapshot"), &key, Value::Null).await;
            let screen = shown["screen"].as_str().unwrap_or_default();
            if screen.contains(text) { Ok(()) } else { Err(shown.to_string()) }
        })
        .await
    }

    fn dm(&self, to: &str, text: &str) {
        self.site.relay(&self.caller, &["message", "dm", "send", to, text]);
    }
}

#[actix::test]
async fn the_published_fleet_node_answers_what_the_workspace_asks() {
    let harbour = Harbour::open().await;
    let served = harbour.serve();
    harbour.offers(&["pier.echo", "pier.storm", "pier.ebb", "pier.greet", "spawn:otter"]).await;
    assert_eq!(harbour.node().await["max_agents"], 5);

    let asked = harbour.invoke("pier.echo", json!({"port": "Łeba"})).await;
    let done = harbour.ended(&asked, "completed").await;
    assert_eq!(done["output"], json!({"said": {"port": "Łeba"}}));
    assert_eq!(harbour.runs(), format!("{asked}\n"), "it ran once, for this invocation");
    let asked = harbour.invoke("pier.storm", json!({})).await;
    assert_eq!(harbour.ended(&asked, "failed").await["error"], "the boats are out");

    let asked = harbour.invoke("spawn:otter", json!({"name": "otter", "task": "count the boats"})).await;
    let done = harbour.ended(&asked, "completed").await;
    assert_eq!(
        (&done["output"]["name"], &done["output"]["runtime"]),
        (&json!("otter"), &json!("pty")),
        "{done}"
    );
    harbour.shows("otter", "count the boats").await;
    let asked = harbour.invoke("pier.greet", json!({"to": "otter"})).await;
    harbour.ended(&asked, "completed").await;
    harbour.shows("otter", "greetings from the pier").await;

    // It says goodbye (and does not end, for reasons of its own); the broker's session and its agents go on.
    served.terminate();
    harbour.offers(&[]).await;
    harbour.dm("otter", "the tide turns");
    harbour.shows("otter", "the tide turns").await;
    harbour.site.assert_quiet();
}

#[actix::test]
async fn a_fleet_node_that_is_killed_in_the_middle_of_a_call_has_it_run_once_and_leaves_the_agents() {
    let harbour = Harbour::open().await;
    let mut served = harbour.serve();
    let spawned = harbour.invoke("spawn:otter", json!({"name": "otter"})).await;
    harbour.ended(&spawned, "completed").await;
    let asked = harbour.invoke("pier.ebb", json!({})).await;
    harbour
        .until("it runs", async || match harbour.runs() {
            ran if ran.is_empty() => Err("not yet".to_owned()),
            _ => Ok(()),
        })
        .await;
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    // The engine hears that it has no handler here, and asks whoever comes.
    harbour.ended(&asked, "pending").await;
    harbour.dm("otter", "the tide turns");
    harbour.shows("otter", "the tide turns").await;
}

#[actix::test]
async fn the_node_that_local_up_brings_along_is_taken_and_its_broker_ends_with_it() {
    let harbour = Harbour::open().await;
    let up = Running::start(&harbour.site, &["local", "up"], harbour.port);
    up.until_said(&["Broker started."]);
    harbour.offers(&["spawn:claude", "spawn:codex", "spawn:gemini"]).await;
    assert!(!up.said().contains("Fleet sidecar disconnected"), "{}", up.said());
    let broker = harbour.broker.pid().unwrap();
    assert!(harbour.site.relay("", &["local", "down"]).contains("Stopped"));
    assert!(!is_running(broker), "the broker outlived `down`");
    harbour.site.assert_quiet();
}
