//! One CLI in one broker with one model: what the tests of all CLIs are written with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};

use crate::{
    model_server::ModelServer,
    npm::{self, Optional},
    support::{House, events::Events, expect, house, until_within},
};

/// The agent's name.
pub(crate) const NAME: &str = "agent";
/// The slowest of them draws its composer after 17 s on a loaded machine.
pub(crate) const STARTUP: Duration = Duration::from_secs(90);
/// For anything that a running CLI does.
const STEP: Duration = Duration::from_secs(40);

/// Longer than the silence that rule sets ask for.
const STILL_MS: u64 = 400;

/// What is known of a CLI before it runs.
pub(crate) struct Cli {
    /// Its command in `node_modules/.bin`.
    pub(crate) program: &'static str,
    /// Its arguments.
    pub(crate) args: &'static [&'static str],
    /// Writes its configuration into the private home: trust in the project, the model's address, nothing that
    /// calls out. Answers the environment that it needs.
    pub(crate) configure: fn(&Place<'_>) -> Vec<(&'static str, String)>,
    /// The rung that proves a message to it.
    pub(crate) proof: &'static str,
    /// What it says when Ctrl-C has to be pressed again to quit.
    pub(crate) quit_asks: Option<&'static str>,
    /// Takes its turn to the next step, where it hears what it was steered with; none is needed where that ends the
    /// turn.
    pub(crate) step: Option<fn(&Stage)>,
}

/// Where a CLI runs.
pub(crate) struct Place<'a> {
    /// Its home.
    pub(crate) home: &'a Path,
    /// Its working directory.
    pub(crate) project: &'a Path,
    /// Its model, as `http://host:port`.
    pub(crate) model: &'a str,
}

impl Place<'_> {
    /// Writes a file of the home.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.home.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Makes a repository of the working directory.
    pub(crate) fn init_repository(&self) {
        let (code, _, said) =
            house::run(Command::new("git").args(["init", "--quiet"]).current_dir(self.project));
        assert_eq!(code, Some(0), "{said}");
    }
}

/// A running CLI.
pub(crate) struct Stage {
    pub(crate) house: House,
    pub(crate) model: ModelServer,
    events: Events,
    /// How it was started.
    request: Value,
}

/// A delivery with its proof.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// The rung that proved it.
    pub(crate) rung: String,
    /// From the frame's arrival to the landed text, ms.
    pub(crate) landed_ms: u64,
    /// From the frame's arrival to the text's leaving the composer, ms; seen from outside, so it may be somewhat
    /// earlier.
    pub(crate) submitted_ms: u64,
    /// From the frame's arrival to the proof on disk, ms.
    pub(crate) proven_ms: u64,
}

impl Stage {
    /// Starts the CLI and waits until the broker takes it for ready.
    pub(crate) fn start(cli: &Cli) -> Self {
        let stage = Self::spawn(cli);
        stage.until_state("idle", STARTUP);
        stage
    }

    /// Starts the CLI.
    pub(crate) fn spawn(cli: &Cli) -> Self {
        Self::spawn_with(cli, &json!({}))
    }

    /// Starts the CLI, with these further fields of the request.
    pub(crate) fn spawn_with(cli: &Cli, wishes: &Value) -> Self {
        let model = ModelServer::start();
        let house = House::embedded().start();
        let events = house.events();
        let (home, project) = (house.dir().join("home"), house.dir().join("project"));
        fs::create_dir_all(&home).unwrap();
        fs::create_dir_all(&project).unwrap();
        let url = model.url();
        let env = (cli.configure)(&Place { home: &home, project: &project, model: &url });
        let mut body = house.spawn_request(NAME, "", &[]);
        body["command"] = json!(bin().join(cli.program));
        body["args"] = json!(cli.args);
        body["cwd"] = json!(project);
        body["harness"] = Value::Null;
        let env_of = body["env"].as_object_mut().unwrap();
        let own = ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "TMPDIR"];
        for name in own {
            let dir = home.join(name.to_ascii_lowercase());
            fs::create_dir_all(&dir).unwrap();
            env_of.insert(name.to_owned(), json!(dir));
        }
        env_of.insert("HOME".to_owned(), json!(home));
        // Whatever still calls out finds nobody: port 9 of loopback discards, and nobody listens there.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            env_of.insert(name.to_owned(), json!("http://127.0.0.1:9"));
        }
        for name in ["NO_PROXY", "no_proxy"] {
            env_of.insert(name.to_owned(), json!("127.0.0.1,localhost"));
        }
        env_of.extend(env.into_iter().map(|(name, value)| (name.to_owned(), json!(value))));
        body.as_object_mut().unwrap().extend(wishes.as_object().unwrap().clone());
        let answer = house.call("POST", "/api/spawn", Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text);
        Self { house, model, events, request: body }
    }

    /// Starts another one of it, in the same home and directory.
    pub(crate) fn spawn_another(&self, name: &str) {
        let mut body = self.request.clone();
        body["name"] = json!(name);
        let answer = self.house.call("POST", "/api/spawn", Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// The agent as the broker lists it.
    pub(crate) fn agent(&self) -> Value {
        self.agent_of(NAME)
    }

    /// The same of another one.
    pub(crate) fn agent_of(&self, name: &str) -> Value {
        let list = self.house.get("/api/spawned");
        let found = list["agents"].as_array().unwrap().iter().find(|agent| agent["name"] == name);
        found.cloned().unwrap_or_default()
    }

    /// Waits for a state of the agent.
    pub(crate) fn until_state(&self, state: &str, limit: Duration) {
        until_within(limit, &format!("the agent is {state}"), || {
            let agent = self.agent();
            expect(agent["state"] == state, || format!("{agent}\n{}", self.screen()))
        });
    }

    /// The question that is open, once it is this one by its rule.
    pub(crate) fn asks(&self, rule: &str) -> Value {
        until_within(STARTUP, &format!("the agent asks: {rule}"), || {
            let agent = self.agent();
            let is_open = agent["state"] == "blocked" && agent["dialog"]["rule"] == rule;
            expect(is_open, || format!("{agent}\n{}", self.screen())).map(|()| agent["dialog"].clone())
        })
    }

    /// Answers a question that is open.
    pub(crate) fn answer(&self, dialog: &Value, choice: &str) {
        let body = json!({ "choice": choice, "expect": dialog["id"] });
        let answer = self.house.call("POST", &format!("/api/spawned/{NAME}/answer"), Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// The screen.
    pub(crate) fn screen(&self) -> String {
        self.house.call("GET", &format!("/api/spawned/{NAME}/snapshot?format=plain"), None).text
    }

    /// Sends a message; its id.
    pub(crate) fn send(&self, text: &str, mode: &str) -> String {
        let answer =
            self.house.call("POST", "/api/send", Some(&json!({ "to": NAME, "text": text, "mode": mode })));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["event_id"].as_str().unwrap().to_owned()
    }

    /// Waits for the proof of a message.
    pub(crate) fn proof(&self, id: &str) -> Delivered {
        let mut submitted = None;
        until_within(STEP, &format!("a proof of {id}"), || {
            if submitted.is_none() && self.has_left_the_composer(id) {
                submitted = Some(now_ms());
            }
            let of = |kind: &str| self.events.of(kind).into_iter().find(|event| event["event_id"] == id);
            let at = |event: &Value| event["timestamp"].as_u64().unwrap();
            if let Some(failed) = of("message_delivery_failed") {
                panic!("not delivered: {failed}\n{}", self.screen());
            }
            let seen = || format!("{}\n{}", self.house.get(&format!("/debug/agents/{NAME}")), self.screen());
            let (queued, landed, acked) =
                (of("delivery_queued"), of("delivery_injected"), of("delivery_ack"));
            let (Some(queued), Some(landed), Some(acked)) = (queued, landed, acked) else {
                return Err(seen());
            };
            let since = |time: u64| time.saturating_sub(at(&queued));
            let proven = at(&acked);
            Ok(Delivered {
                rung: acked["evidence"].as_str().unwrap().to_owned(),
                landed_ms: since(at(&landed)),
                submitted_ms: since(submitted.map_or(proven, |submitted| submitted.min(proven))),
                proven_ms: since(proven),
            })
        })
    }

    /// True when the screen has shown that the composer took this message.
    fn has_left_the_composer(&self, id: &str) -> bool {
        let last = &self.house.get(&format!("/debug/agents/{NAME}"))["last_message"];
        last["msg_id"] == id && matches!(last["rung"].as_str(), Some("submitted" | "accepted"))
    }

    /// What proves this message to an agent, if anything does yet.
    pub(crate) fn evidence(&self, id: &str, name: &str) -> Option<String> {
        let acked = self.events.of("delivery_ack");
        let acked = acked.iter().find(|event| event["event_id"] == id && event["name"] == name)?;
        Some(acked["evidence"].as_str().unwrap().to_owned())
    }

    /// True when there is a proof of a message.
    pub(crate) fn is_proven(&self, id: &str) -> bool {
        self.events.of("delivery_ack").iter().any(|event| event["event_id"] == id)
    }

    /// Waits until nothing is under way, and the screen has been still for longer than the broker wants it to be
    /// before it types.
    pub(crate) fn until_rests(&self) {
        until_within(STEP, "the agent is at rest", || {
            let agent = self.agent();
            let still = agent["last_activity_ms"].as_u64().is_some_and(|ms| ms >= STILL_MS);
            expect(agent["state"] == "idle" && still && self.model.held() == 0, || agent.to_string())
        });
    }

    /// Begins a turn that ends only when the model lets go; the message's id.
    pub(crate) fn begin_turn(&self, body: &str) -> String {
        self.model.hold();
        let id = self.send(body, "wait");
        self.proof(&id);
        self.hears(&id, body);
        self.until_state("working", STEP);
        id
    }

    /// In how many places of the conversation, as the model was last sent it, this message is.
    ///
    /// # Errors
    /// It is there and not as it was sent.
    pub(crate) fn heard(&self, id: &str, body: &str) -> Result<usize, String> {
        let texts = self.model.asked().pop().map(|asked| asked.texts).unwrap_or_default();
        let ours: Vec<_> = texts.iter().filter(|text| text.contains(id)).collect();
        let damaged = ours.iter().find(|text| !says(text, id, body));
        damaged.map_or(Ok(ours.len()), |text| Err(format!("{text:?} is not {body:?}")))
    }

    /// Waits until the model was sent this message, once and not a character more or less.
    pub(crate) fn hears(&self, id: &str, body: &str) {
        until_within(STEP, &format!("the model is sent {id}"), || {
            let heard = self.heard(id, body);
            let asked = || self.model.asked().last().map(|asked| asked.texts.clone());
            expect(heard == Ok(1), || format!("{heard:?} in {:#?}\n{}", asked(), self.screen()))
        });
    }

    /// True when this stands on the screen within this time.
    pub(crate) fn shows(&self, text: &str, limit: Duration) -> bool {
        holds_within(limit, || self.screen().contains(text))
    }

    /// True when the agent ends within this time.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        holds_within(limit, || self.house.agents().is_empty())
    }

    /// How the agent ended.
    pub(crate) fn exit(&self) -> Value {
        self.events.wait("agent_exited", NAME)
    }
}

/// Since the Unix epoch, as events count.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

fn holds_within(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < limit {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- requests that the model did not understand: {:?}", self.model.strange());
        }
        self.model.let_go();
    }
}

/// True when what the model was sent holds this message: a header with its id, then exactly the body, then
/// nothing, the reply hint, the next message, or what claude tells its model: where a paste ends, or that the message
/// came while a turn ran.
fn says(text: &str, id: &str, body: &str) -> bool {
    let headed = text.split_once(id).and_then(|(_, after)| after.split_once("]\n"));
    let ends = ["\n[re", "\n</pasted_content id=", "\n\nThis is how Claude Code surfaces messages"];
    headed.and_then(|(_, after)| after.strip_prefix(body)).is_some_and(|rest| {
        let rest = rest.trim_end();
        rest.is_empty() || ends.iter().any(|end| rest.starts_with(end))
    })
}

/// Where the commands are, installed.
pub(crate) fn bin() -> PathBuf {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        let modules = npm::installed("real_clis", Optional::In).join("node_modules");
        // The packages whose script must run: it puts the program of this platform in its place.
        for (package, script) in
            [("opencode-ai", "postinstall.mjs"), ("@anthropic-ai/claude-code", "install.cjs")]
        {
            let linked = modules.join(package).join("linked");
            if linked.exists() {
                continue;
            }
            let mut command = Command::new("node");
            let (code, _, said) = house::run(command.arg(script).current_dir(modules.join(package)));
            assert_eq!(code, Some(0), "{said}");
            fs::write(linked, "").unwrap();
        }
        modules.join(".bin")
    })
    .clone()
}
