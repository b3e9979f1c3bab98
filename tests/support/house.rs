//! A running broker: the real binary in directories of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use relay_broker::config::env;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    agents::{self, Listener, spawn_body},
    cgroup,
    engine::TestEngine,
    events::Events,
    expect,
    http::{self, Answer},
    processes::{MARK, describe, guards_of, marked, signal},
    proxy::Proxy,
    until, until_within,
};

const BROKER: &str = env!("CARGO_BIN_EXE_relay-broker");
/// Lines of the log that a failed test shows.
const LOG_SHOWN: usize = 60;
/// What the periods of the protocol are in tests, in milliseconds: quick, and still in proportion.
const TIMINGS: [(&str, u64); 4] = [("heartbeat", 500), ("silence", 8000), ("sync", 3000), ("healthy", 100)];

/// What to start.
pub(crate) struct Builder {
    args: Vec<String>,
    env: Vec<(String, String)>,
    timings: BTreeMap<&'static str, u64>,
    /// Rule sets of the user's own: name and text.
    rules: Vec<(String, String)>,
    stdin: Stdio,
    /// Tables of its configuration file.
    handlers: String,
    /// A signal that it hears nothing of.
    ignored: Option<&'static str>,
    /// In a cgroup of its own.
    apart: bool,
}

/// A broker. Dropping it ends it and everything that it has started.
pub(crate) struct House {
    dir: TempDir,
    builder: Builder,
    child: Child,
    addr: SocketAddr,
    key: String,
}

impl House {
    /// `up` with its own engine.
    pub(crate) fn embedded() -> Builder {
        Builder::new(&["up", "--embedded"])
    }

    /// `up` at an engine.
    pub(crate) fn at(engine: &TestEngine) -> Builder {
        Builder::new(&["up"]).arg("--engine").arg(&format!("http://{}", engine.addr())).key(&engine.key)
    }

    /// `up` at an engine behind a proxy.
    pub(crate) fn behind(proxy: &Proxy, engine: &TestEngine) -> Builder {
        Builder::new(&["up"]).arg("--engine").arg(&proxy.url()).key(&engine.key)
    }

    /// A command of one's own.
    pub(crate) fn command(args: &[&str]) -> Builder {
        Builder::new(args)
    }

    // The process.

    /// The broker's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its directory. The state is below it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `connection.json`.
    pub(crate) fn connection_file(&self) -> PathBuf {
        state_dir(self.dir()).join("connection.json")
    }

    /// Its journal.
    pub(crate) fn journal_file(&self) -> PathBuf {
        state_dir(self.dir()).join("journal.log")
    }

    /// What it has said on standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir().join("broker.log")).unwrap_or_default()
    }

    /// What it has said on standard output.
    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(self.dir().join("stdout.log")).unwrap_or_default()
    }

    /// The living processes of this test: the broker, its agents, and whatever these have started.
    pub(crate) fn processes(&self) -> Vec<u32> {
        marked(&mark(self.dir()))
    }

    /// Its guard, which carries no mark: it has nothing of the broker's environment.
    pub(crate) fn guard(&self) -> u32 {
        until("the broker has one guard", || {
            let guards = guards_of(self.pid());
            if let [guard] = guards[..] { Ok(guard) } else { Err(format!("{guards:?}")) }
        })
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the broker's end", || self.child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()))
    }

    /// Waits for its end, which must come by itself, and answers how long that took.
    pub(crate) fn ends(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        (self.wait(), began.elapsed())
    }

    /// Files of the broker can no longer grow beyond one byte, as if the disk were full; or they can again.
    pub(crate) fn fill_disk(&self, full: bool) {
        let limit = if full { "1:unlimited" } else { "unlimited" };
        let mut prlimit = Command::new("prlimit");
        let set =
            prlimit.arg(format!("--pid={}", self.pid())).arg(format!("--fsize={limit}")).status().unwrap();
        assert!(set.success(), "prlimit: {set}");
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Starts it again after its end, in the same directories.
    pub(crate) fn start_again(&mut self) {
        self.child = self.builder.launch(self.dir.path());
        self.find();
        self.until_live();
    }

    // The local API.

    /// Where the API listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Any request.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_call(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Any request, to a broker that may be gone.
    pub(crate) fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Answer> {
        http::call(self.addr, method, path, &[("X-API-Key", &self.key)], body)
    }

    /// A GET that must succeed.
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, None);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    }

    /// Waits until the engine has confirmed the node; its id and name.
    pub(crate) fn until_live(&self) -> (String, String) {
        until("the node is live", || {
            let answer = self.call("GET", "/readyz", None);
            expect(answer.status == 200, || answer.text.clone())?;
            let session = answer.json()["session"].take();
            let part = |key: &str| session[key].as_str().unwrap().to_owned();
            Ok((part("node_id"), part("node_name")))
        })
    }

    /// Asks for an agent.
    pub(crate) fn try_spawn(&self, name: &str, script: &str, env: &[(&str, &str)]) -> Answer {
        self.call("POST", "/api/spawn", Some(&self.spawn_request(name, script, env)))
    }

    /// The body of a spawn, with what every agent of a test is given.
    pub(crate) fn spawn_request(&self, name: &str, script: &str, env: &[(&str, &str)]) -> Value {
        let mut body = spawn_body(name, script);
        let mut all = json!({ "LOG": self.notes_of(name), MARK: mark(self.dir()) });
        for (key, value) in env {
            all[*key] = json!(value);
        }
        body["env"] = all;
        body
    }

    /// Starts an agent; its pid.
    pub(crate) fn spawn(&self, name: &str, script: &str) -> u32 {
        let answer = self.try_spawn(name, script, &[]);
        assert_eq!(answer.status, 200, "{name}: {}", answer.text);
        answer.json()["pid"].as_u64().unwrap().try_into().unwrap()
    }

    /// Starts a program of `tests/fixtures/programs` as an agent, under the rules for programs that nobody knows.
    pub(crate) fn spawn_program(&self, name: &str, program: &str, args: &[&str]) {
        let file = format!("{}/tests/fixtures/programs/{program}.py", env!("CARGO_MANIFEST_DIR"));
        let mut body = self.spawn_request(name, "", &[]);
        body["command"] = json!("python3");
        body["args"] = [&["-B", &file], args].concat().into();
        body["harness"] = json!("auto");
        let answer = self.call("POST", "/api/spawn", Some(&body));
        assert_eq!(answer.status, 200, "{name}: {}", answer.text);
    }

    /// Starts an agent that reads as fast as it can.
    pub(crate) fn listener(&self, name: &str) -> Listener {
        self.spawn(name, agents::READER);
        self.notes(name)
    }

    /// What an agent of this name has written down.
    pub(crate) fn notes(&self, name: &str) -> Listener {
        Listener::new(name, self.notes_of(name))
    }

    fn notes_of(&self, name: &str) -> PathBuf {
        self.dir().join(format!("{name}.notes"))
    }

    /// Ends an agent.
    pub(crate) fn release(&self, name: &str) {
        let answer = self.call("DELETE", &format!("/api/spawned/{name}"), None);
        assert_eq!(answer.status, 200, "{name}: {}", answer.text);
    }

    /// The agents of the list, by name.
    pub(crate) fn agents(&self) -> Vec<String> {
        let list = self.get("/api/spawned");
        let names = list["agents"].as_array().unwrap().iter();
        names.map(|agent| agent["name"].as_str().unwrap().to_owned()).collect()
    }

    /// A message, as the person in front of the broker.
    pub(crate) fn try_send(&self, to: &str, inner: &str) -> Answer {
        self.call("POST", "/api/send", Some(&json!({ "to": to, "text": agents::text(inner) })))
    }

    /// A message that is accepted.
    pub(crate) fn send(&self, to: &str, inner: &str) {
        let answer = self.try_send(to, inner);
        assert_eq!(answer.status, 200, "{to}: {}", answer.text);
    }

    /// Listens to the event stream from now on.
    pub(crate) fn events(&self) -> Events {
        Events::listen(self.addr, &self.key)
    }

    /// An actor of the debug page.
    pub(crate) fn actor(&self, id: &str) -> Value {
        let page = self.get("/debug/actors");
        let found = page["actors"].as_array().unwrap().iter().find(|actor| actor["id"] == id);
        found.unwrap_or_else(|| panic!("no actor {id}")).clone()
    }

    fn find(&mut self) {
        let file = self.connection_file();
        let (addr, key) = until("the broker can be found", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the broker ended ({status}):\n{}", self.log());
            }
            let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
            let connection: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            expect(connection["pid"] == self.pid(), || format!("a file of another process: {text}"))?;
            let url = connection["url"].as_str().unwrap().trim_start_matches("http://").to_owned();
            Ok((url.parse().unwrap(), connection["api_key"].as_str().unwrap().to_owned()))
        });
        (self.addr, self.key) = (addr, key);
    }

    fn testify(&self) {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        eprintln!("--- the broker's log, in {}:", self.dir().display());
        for line in &lines[lines.len().saturating_sub(LOG_SHOWN)..] {
            eprintln!("{line}");
        }
        match self.try_call("GET", "/debug/actors?deep=1", None) {
            Ok(answer) => eprintln!("--- its actors: {}", answer.text),
            Err(error) => eprintln!("--- its actors: {error}"),
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.testify();
        }
        // Its agents die with it, and what they left behind is found by its mark.
        self.child.kill().ok();
        self.child.wait().ok();
        for pid in self.processes() {
            signal(pid, Signal::SIGKILL);
        }
        if self.builder.apart {
            cgroup::end(self.dir());
        }
    }
}

impl Builder {
    fn new(args: &[&str]) -> Self {
        Self {
            args: args.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
            timings: BTreeMap::from(TIMINGS),
            rules: Vec::new(),
            stdin: Stdio::null(),
            handlers: String::new(),
            ignored: None,
            apart: false,
        }
    }

    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn key(self, key: &str) -> Self {
        self.env(env::WORKSPACE_KEY, key)
    }

    /// Standard input is a pipe that nobody writes to and nobody closes.
    pub(crate) fn with_open_stdin(mut self) -> Self {
        self.stdin = Stdio::piped();
        self
    }

    /// A declared handler, with the lines of its table.
    pub(crate) fn handler(mut self, capability: &str, lines: &str) -> Self {
        self.handlers.push_str(&format!("[handlers.'{capability}']\n{lines}\n"));
        self
    }

    /// It starts with this signal ignored, as a shell may have left it.
    pub(crate) fn ignoring(mut self, signal: &'static str) -> Self {
        self.ignored = Some(signal);
        self
    }

    /// In a cgroup of its own, where one can be had: there no broker of another test looks for what was left.
    pub(crate) fn apart(mut self) -> Self {
        self.apart = true;
        self
    }

    /// One of the periods, in milliseconds.
    pub(crate) fn period(mut self, name: &'static str, ms: u64) -> Self {
        self.timings.insert(name, ms);
        self
    }

    /// A rule set of the user's own.
    pub(crate) fn rules(mut self, name: &str, toml: &str) -> Self {
        self.rules.push((name.to_owned(), toml.to_owned()));
        self
    }

    /// Deliberate panics are allowed.
    pub(crate) fn faulty(self) -> Self {
        self.env(env::FAULTS, "1")
    }

    /// Starts it, and returns when its API listens.
    pub(crate) fn listening(mut self) -> House {
        let dir = tempfile::Builder::new().prefix("house-").tempdir().unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        let child = self.launch(dir.path());
        let mut house =
            House { dir, builder: self, child, addr: ([127, 0, 0, 1], 0).into(), key: String::new() };
        house.find();
        house
    }

    /// Starts it, and returns when its node is live.
    pub(crate) fn start(self) -> House {
        let house = self.listening();
        house.until_live();
        house
    }

    fn launch(&mut self, dir: &Path) -> Child {
        let config = dir.join("relay-broker.toml");
        let periods: String = self.timings.iter().map(|(name, ms)| format!("{name}_ms = {ms}\n")).collect();
        fs::write(&config, format!("[timings]\n{periods}{}", self.handlers)).unwrap();
        let rules = dir.join("relay-broker").join("harness");
        for (name, toml) in &self.rules {
            fs::create_dir_all(&rules).unwrap();
            fs::write(rules.join(format!("{name}.toml")), toml).unwrap();
        }
        let ignore = self.ignored.map(|signal| format!("trap '' {signal}; "));
        let group = if self.apart { cgroup::make(dir) } else { None };
        let enter = group.map(|group| format!("echo $$ > '{}/cgroup.procs'; ", group.display()));
        let mut command = match ignore.into_iter().chain(enter).collect::<String>() {
            first if first.is_empty() => program(dir),
            first => {
                let mut shell = in_house(dir, "sh");
                shell.arg("-c").arg(format!("{first}exec \"$0\" \"$@\"")).arg(BROKER);
                shell
            }
        };
        command.args(&self.args).arg("--config").arg(config);
        if !self.args.iter().any(|arg| arg == "--state-dir") {
            command.arg("--state-dir").arg(state_dir(dir));
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let out = |name: &str| File::create(dir.join(name)).unwrap();
        command.stdin(std::mem::replace(&mut self.stdin, Stdio::null()));
        command.stdout(out("stdout.log")).stderr(out("broker.log"));
        command.spawn().unwrap()
    }
}

/// The program in a directory of its own, with none of our variables set.
pub(crate) fn program(dir: &Path) -> Command {
    in_house(dir, BROKER)
}

fn in_house(dir: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap());
    for name in [env::HOME, env::XDG_DATA_HOME, env::XDG_CONFIG_HOME, "XDG_STATE_HOME"] {
        command.env(name, dir);
    }
    command.env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()));
    command.env(MARK, mark(dir)).current_dir(dir.join("work"));
    // A terminal's Ctrl-C is not for the brokers under test.
    command.process_group(0);
    command
}

fn state_dir(dir: &Path) -> PathBuf {
    dir.join("state")
}

fn mark(dir: &Path) -> String {
    dir.display().to_string()
}

/// Asserts that nothing of a test is left running.
pub(crate) fn nothing_runs(house: &House) {
    until_within(Duration::from_secs(2), "nothing is left running", || {
        let left = house.processes();
        expect(left.is_empty(), || describe(&left))
    });
}

/// Runs a command that must end by itself; its code and what it said.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let drain = std::thread::spawn(move || {
        let mut said = String::new();
        err.read_to_string(&mut said).map(|_| said)
    });
    let status = until("the command's end", || {
        let ended = child.try_wait().unwrap();
        ended.ok_or_else(|| "it runs".to_owned()).inspect_err(|_| ())
    });
    let mut stdout = String::new();
    out.read_to_string(&mut stdout).unwrap();
    (status.code(), stdout, drain.join().unwrap().unwrap())
}
