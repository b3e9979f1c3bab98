//! Starting and stopping a broker, and its refusals to start: the real binary with its embedded engine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program in a directory of its own, with none of our variables set.
fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay-broker"));
    command.env_clear().env("HOME", dir).env("PATH", std::env::var_os("PATH").unwrap()).current_dir(dir);
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    program(dir).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Runs a command that must succeed, and answers what it printed.
fn succeed(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A broker that runs; killed when dropped.
struct Broker {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    /// The line that says where it listens.
    line: String,
}

impl Broker {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = program(dir);
        command.args(args);
        Self::launch(command)
    }

    fn launch(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            child.wait().unwrap();
            panic!("it did not start: {said}");
        }
        Self { child, stdout, line }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
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

fn state(dir: &Path) -> PathBuf {
    dir.join(".agentworkforce/relay")
}

#[test]
fn a_program_starts_a_broker_reads_one_line_and_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &["init", "--local-only", "--persist"]);
    let url = broker.line.strip_prefix("API listening on ").expect(&broker.line).trim_end().to_owned();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");

    let path = state(dir.path()).join("connection.json");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let connection = fs::read_to_string(&path).unwrap();
    for wanted in [
        format!(r#""url":"{url}""#),
        format!(r#""port":{}"#, url.rsplit(':').next().unwrap()),
        format!(r#""pid":{}"#, broker.child.id()),
        r#""api_key":"br_"#.to_owned(),
    ] {
        assert!(connection.contains(&wanted), "{wanted}: {connection}");
    }

    assert_eq!(succeed(dir.path(), &["ps", "--json"]).trim(), r#"{"agents":[]}"#);

    broker.signal(Signal::SIGTERM);
    assert_eq!(broker.wait().code(), Some(0));
    assert!(!path.exists(), "connection.json was left behind");
    let mut rest = String::new();
    broker.stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "more than one line on standard output");
}

#[test]
fn a_machine_without_room_for_the_agents_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for (files, warns) in [("100", true), ("400", false)] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={files}")).arg(env!("CARGO_BIN_EXE_relay-broker"));
        command.args(["up", "--max-agents", "20"]).env_clear().env("HOME", dir.path());
        command.env("PATH", std::env::var_os("PATH").unwrap()).current_dir(dir.path());
        let mut broker = Broker::launch(command);
        broker.signal(Signal::SIGTERM);
        assert_eq!(broker.wait().code(), Some(0));
        let mut said = String::new();
        broker.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said.contains("no room for that many agents"), warns, "{said}");
        assert_eq!(said.contains("ulimit -n"), warns, "{said}");
    }
}

#[test]
fn a_second_broker_in_one_directory_is_told_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["up"]);
    let before = fs::read(state(dir.path()).join("connection.json")).unwrap();
    let phrase = format!(
        "another broker instance is already running in this directory ({}), pid {}",
        state(&dir.path().canonicalize().unwrap()).display(),
        broker.child.id()
    );
    for (args, code) in
        [(&["up"][..], 5), (&["up", "--name", "other"], 5), (&["init", "--local-only", "--persist"], 1)]
    {
        let second = run(dir.path(), args);
        assert_eq!(second.status.code(), Some(code), "{args:?}");
        assert!(text(&second.stderr).contains(&phrase), "{args:?}: {}", text(&second.stderr));
    }
    assert_eq!(fs::read(state(dir.path()).join("connection.json")).unwrap(), before);
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(dir.path(), &["up", "--port", &port]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&port), "{}", text(&output.stderr));
    assert!(!state(dir.path()).join("connection.json").exists());
    assert!(output.stdout.is_empty());
}

#[test]
fn a_killed_broker_is_called_stale_and_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &["up"]);
    broker.signal(Signal::SIGKILL);
    broker.wait();
    let listed = run(dir.path(), &["ps"]);
    assert_eq!(listed.status.code(), Some(6));
    assert!(text(&listed.stderr).contains("no longer running"), "{}", text(&listed.stderr));
    let mut again = Broker::start(dir.path(), &["up"]);
    succeed(dir.path(), &["ps"]);
    succeed(dir.path(), &["down"]);
    assert_eq!(again.wait().code(), Some(0));
}

#[test]
fn a_directory_is_one_node_by_whatever_path_it_is_reached_and_another_one_is_another() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    fs::create_dir(at("one")).unwrap();
    fs::create_dir(at("two")).unwrap();
    std::os::unix::fs::symlink("one", at("link")).unwrap();
    let tokens = || fs::read_dir(at(".local/share/agent-relay/node-tokens")).map_or(0, Iterator::count);
    // One state directory, so that the workspace is the same: nodes of two workspaces differ anyhow.
    let place = at("state").to_str().unwrap().to_owned();
    for (cwd, nodes) in [("one", 1), ("one", 1), ("link", 1), ("two", 2)] {
        let mut command = program(home.path());
        command.args(["up", "--embedded", "--state-dir", &place]).current_dir(at(cwd)).env("PWD", at(cwd));
        let mut broker = Broker::launch(command);
        let began = Instant::now();
        // A node is live once it has a token.
        while !String::from_utf8_lossy(&run(home.path(), &["actors", "--state-dir", &place]).stdout)
            .lines()
            .any(|line| line.trim_start().starts_with("node_session") && line.contains("live"))
        {
            assert!(began.elapsed() < PATIENCE, "never live in {cwd}");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(tokens(), nodes, "{cwd}");
        succeed(home.path(), &["down", "--state-dir", &place]);
        assert_eq!(broker.wait().code(), Some(0));
    }
}

#[test]
fn a_working_directory_that_cannot_be_read_ends_the_start_and_makes_no_identity() {
    let home = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.env_clear().env("HOME", home.path()).env("PATH", std::env::var_os("PATH").unwrap());
    shell.current_dir(home.path()).env("BROKER", env!("CARGO_BIN_EXE_relay-broker"));
    let gone = r#"mkdir gone && cd gone && rmdir ../gone && exec "$BROKER" up --state-dir "$HOME/state""#;
    let output = shell.args(["-c", gone]).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("working directory"), "{said}");
    assert!(!home.path().join(".local").exists(), "an identity was made");
}

#[test]
fn clients_are_refused_with_the_code_that_fits() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["up"]);
    let url = broker.line.strip_prefix("API listening on ").unwrap().trim_end().to_owned();
    succeed(dir.path(), &["spawn", "a", "--", "sleep", "60"]);

    let cases: [(&[&str], i32, &str); 8] = [
        (&["spawn", "b", "--", ""], 2, "empty"),
        (&["spawn", "a", "--", "sleep", "60"], 4, "already exists"),
        (&["spawn", "b", "--cwd", "nowhere", "--", "sh"], 4, "nowhere"),
        (&["spawn", "b", "--", "no-such-program"], 4, "no-such-program"),
        (&["release", "nobody"], 6, "nobody"),
        (&["explain", "nobody"], 6, "relay-broker crashes"),
        (&["snapshot", "nobody"], 6, "nobody"),
        (&["send", "nobody", "hello"], 6, "nobody"),
    ];
    for (args, code, words) in cases {
        let output = run(dir.path(), args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    }
    let wrong = program(dir.path())
        .args(["ps"])
        .env("RELAY_BROKER_URL", url)
        .env("RELAY_BROKER_API_KEY", "wrong")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(4), "{}", text(&wrong.stderr));
    succeed(dir.path(), &["release", "a"]);
}

#[test]
fn a_program_is_run_as_it_was_named_whatever_is_in_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let _broker = Broker::start(dir.path(), &["up"]);
    let named = dir.path().join("it's my program");
    std::os::unix::fs::symlink("/bin/sleep", &named).unwrap();
    succeed(dir.path(), &["spawn", "a", "--", "./it's my program", "60"]);
    succeed(dir.path(), &["release", "a"]);
}

#[test]
fn the_demonstration_shows_every_hop_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let output = program(dir.path()).arg("demo").env("TMPDIR", dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(began.elapsed() < Duration::from_secs(10));
    let shown = text(&output.stdout);
    for words in ["queued for ping", "injected into pong", "proven: ", "acked", "delivery_cursor"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn an_interrupted_demonstration_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program(dir.path());
    command.arg("demo").env("TMPDIR", dir.path()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("runs in a terminal")).expect("no agent").unwrap();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    for line in lines {
        line.unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
}
