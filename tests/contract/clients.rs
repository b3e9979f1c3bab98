//! Upstream's published clients drive our binary, unchanged: the driver as a library, and their command line.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    engine::House,
    npm::{self, Optional},
};

/// Longer than any client here takes, start of node and of the broker included.
const PATIENCE: Duration = Duration::from_secs(120);

const BROKER: &str = env!("CARGO_BIN_EXE_relay-broker");

/// Where clients run: a project directory, a home, the installed packages, and an engine.
pub(crate) struct Site {
    pub(crate) house: House,
    pub(crate) packages: PathBuf,
    dir: TempDir,
}

impl Site {
    pub(crate) async fn open() -> Self {
        let packages = npm::installed("contract/clients", Optional::Out);
        let dir = tempfile::tempdir().unwrap();
        for sub in ["home", "project"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        Self { house: House::open().await, packages, dir }
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.dir.path().join("project").canonicalize().unwrap()
    }

    fn violations(&self) -> PathBuf {
        self.dir.path().join("violations")
    }

    /// A script in node that reaches nothing but this machine and reports nothing to anybody.
    fn node(&self, script: &Path) -> Command {
        let guard = self.packages.join("loopback.mjs");
        let mut node = Command::new("node");
        node.arg(script)
            .env_clear()
            .envs([
                ("AGENT_RELAY_BIN", BROKER),
                ("AGENT_RELAY_SKIP_UPDATE_CHECK", "1"),
                ("AGENT_RELAY_TELEMETRY_DISABLED", "1"),
                ("BROKER_BINARY_PATH", BROKER),
                ("CLOUD_API_URL", "http://127.0.0.1:9"),
                ("DO_NOT_TRACK", "1"),
                ("HTTPS_PROXY", "http://127.0.0.1:9"),
                ("HTTP_PROXY", "http://127.0.0.1:9"),
                ("NO_PROXY", "127.0.0.1,localhost"),
                ("RELAYCAST_BASE_URL", self.house.base_url()),
                ("RELAY_BASE_URL", self.house.base_url()),
                ("RELAY_WORKSPACE_KEY", &self.house.key),
                ("RUST_LOG", "warn"),
            ])
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.dir.path().join("home"))
            .env("NODE_OPTIONS", format!("--import=file://{}", guard.display()))
            .env("LOOPBACK_VIOLATIONS", self.violations())
            .current_dir(self.project())
            .stdin(Stdio::null());
        node
    }

    /// Upstream's command line.
    fn cli(&self) -> PathBuf {
        self.packages.join("node_modules/agent-relay/dist/cli/index.js")
    }

    /// Runs a command of it that must succeed, as this agent, and answers what it printed.
    pub(crate) fn relay(&self, agent: &str, args: &[&str]) -> String {
        let (status, said) = self.run(&self.cli(), args, agent);
        assert!(status.success(), "agent-relay {args:?}: {status}: {said}");
        said
    }

    /// The same of a command that prints JSON.
    pub(crate) fn relay_json(&self, agent: &str, args: &[&str]) -> Value {
        let said = self.relay(agent, args);
        serde_json::from_str(&said).unwrap_or_else(|why| panic!("agent-relay {args:?}: {why}: {said}"))
    }

    /// Runs a client to its end, and answers what it printed.
    fn run<S: AsRef<OsStr>>(
        &self,
        script: &Path,
        args: impl IntoIterator<Item = S>,
        agent: &str,
    ) -> (ExitStatus, String) {
        let log = self.dir.path().join("log");
        let out = File::create(&log).unwrap();
        let mut client = self.node(script);
        if !agent.is_empty() {
            client.env("RELAY_AGENT_TOKEN", agent);
        }
        client.args(args).stdout(out.try_clone().unwrap()).stderr(out);
        let status = wait(client.spawn().unwrap(), &log);
        (status, fs::read_to_string(&log).unwrap())
    }

    /// That nobody tried to leave this machine.
    pub(crate) fn assert_quiet(&self) {
        let violations = fs::read_to_string(self.violations()).unwrap_or_default();
        assert!(violations.is_empty(), "connections were tried to {violations}");
    }
}

/// Waits for a client's end; one that takes for ever is killed.
fn wait(mut client: Child, log: &Path) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = client.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > PATIENCE {
            client.kill().unwrap();
            client.wait().unwrap();
            panic!("the client does not end; it said: {}", fs::read_to_string(log).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[actix::test]
async fn the_published_driver_runs_our_broker() {
    let site = Site::open().await;
    let project = site.project();
    let args = [BROKER.as_ref(), project.as_os_str(), site.house.key.as_ref()];
    // It is to end its broker itself, and does not when it is killed for taking too long.
    let _started = Started { connection: project.join(".agentworkforce/relay/connection.json") };
    let (status, said) = site.run(&site.packages.join("driver.mjs"), args, "");
    assert!(status.success(), "{status}: {said}");
    site.assert_quiet();
}

/// A client that runs until it is ended; killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a command of upstream's command line. `port` is where a broker's is looked for.
    pub(crate) fn start(site: &Site, args: &[&str], port: u16) -> Self {
        let log = site.dir.path().join(format!("{}.log", args.join("-").replace('/', "-")));
        let out = File::create(&log).unwrap();
        let mut client = site.node(&site.cli());
        client
            .args(args)
            .env("AGENT_RELAY_BROKER_PORT", port.to_string())
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        Self { child: client.spawn().unwrap(), log }
    }

    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    }

    /// Ends it in good order.
    fn end(mut self) -> ExitStatus {
        self.terminate();
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end; it said: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it has said all of these.
    pub(crate) fn until_said(&self, texts: &[&str]) {
        let began = Instant::now();
        loop {
            let said = self.said();
            if texts.iter().all(|text| said.contains(text)) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "it never said {texts:?}, but: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// A port below a free one: the command line looks for a broker's from the next one on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().saturating_sub(1)
}

/// A broker that a client has started, by its connection file; killed when dropped.
pub(crate) struct Started {
    pub(crate) connection: PathBuf,
}

impl Started {
    /// Its process, while it can be found.
    pub(crate) fn pid(&self) -> Option<i32> {
        let connection: Value = serde_json::from_slice(&fs::read(&self.connection).ok()?).ok()?;
        i32::try_from(connection["pid"].as_i64()?).ok()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // One that has ended in this moment is what is wanted.
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}

pub(crate) fn is_running(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}

#[actix::test]
async fn the_published_command_line_runs_our_broker() {
    let site = Site::open().await;
    let started = Started { connection: site.project().join(".agentworkforce/relay/connection.json") };
    let free = free_port();
    let up = Running::start(&site, &["local", "up"], free);
    up.until_said(&["Broker started."]);
    let broker = started.pid().expect("a broker that can be found");
    assert!(site.relay("", &["local", "status"]).contains("Status: RUNNING"));
    assert_eq!(site.relay_json("", &["local", "agent", "list"]), json!([]));
    assert!(site.relay("", &["local", "agent", "spawn", "cat", "--name", "otter"]).contains("Spawned otter"));
    let agents = site.relay_json("", &["local", "agent", "list"]);
    assert_eq!((agents[0]["name"].as_str(), agents[1].is_null()), (Some("otter"), true), "{agents}");
    let (status, said) = site.run(&site.cli(), ["local", "agent", "spawn", "cat", "--name", "otter"], "");
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("an agent named `otter` already exists"), "{said}");
    assert_eq!(site.relay_json("", &["local", "metrics"])["broker"]["active_agents"], 1);

    // The engine's clients, to an agent of this broker.
    let bosun = site.relay_json("", &["agent", "register", "bosun"])["token"].as_str().unwrap().to_owned();
    let relay = |args: &[&str]| site.relay_json(&bosun, args);
    let said = relay(&["message", "post", "general", "the tide turns"]);
    let said = said["id"].as_str().unwrap();
    assert_eq!(relay(&["message", "reply", said, "at five"])["kind"], "thread_reply");
    assert_eq!(relay(&["message", "reaction", "add", said, "anchor"])["emoji"], "anchor");
    assert_eq!(relay(&["message", "dm", "send", "otter", "fuel is low"])["kind"], "dm");
    assert_eq!(relay(&["message", "get_thread", said])["parent"]["text"], "the tide turns");
    assert_eq!(relay(&["message", "inbox", "check"])["unreadDms"], json!([]));
    assert_eq!(relay(&["channel", "create", "dockyard"])["name"], "dockyard");
    let agents = relay(&["agent", "list"]);
    let names = agents.as_array().unwrap().iter().map(|agent| agent["name"].as_str().unwrap());
    assert!(names.clone().any(|name| name == "otter"), "{:?}", names.collect::<Vec<_>>());
    let view = Running::start(&site, &["local", "agent", "attach", "otter", "--mode", "view"], free);
    view.until_said(&["the tide turns", "at five", "fuel is low"]);
    drop(view);

    // Messages held back by hand, and while a person drives.
    let hold = |verb: &str| site.relay_json("", &["local", "agent", "message", verb, "otter"]);
    assert_eq!(hold("hold"), json!({"name": "otter", "mode": "manual_flush", "flushed": 0}));
    relay(&["message", "dm", "send", "otter", "the crane is stuck"]);
    let began = Instant::now();
    while hold("flush")["flushed"] == 0 {
        assert!(began.elapsed() < PATIENCE, "the message never came");
    }
    assert_eq!(hold("auto")["mode"], "auto_inject");
    let drive = Running::start(&site, &["local", "agent", "attach", "otter", "--mode", "drive"], free);
    drive.until_said(&["the crane is stuck", "delivery=manual_flush | pending=0"]);
    relay(&["message", "dm", "send", "otter", "the lock is open"]);
    drive.until_said(&["pending=1"]);
    assert!(!drive.said().contains("the lock is open"), "it was held back from nobody");
    assert!(drive.end().success());
    let view = Running::start(&site, &["local", "agent", "attach", "otter", "--mode", "view"], free);
    view.until_said(&["the lock is open"]);
    drop(view);

    assert!(site.relay("", &["local", "agent", "release", "otter"]).contains("Released otter"));
    assert_eq!(site.relay_json("", &["local", "agent", "list"]), json!([]));
    assert!(site.relay("", &["local", "down"]).contains("Stopped"));
    assert!(!is_running(broker), "the broker outlived `down`");
    assert_eq!(started.pid(), None, "connection.json was left behind");
    site.assert_quiet();
}
