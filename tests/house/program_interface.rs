//! What programs that start a broker rely on: `init`.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{House, TestEngine, agents, expect, house::nothing_runs, http, until};

#[test]
fn init_says_one_line_and_writes_one_private_file() {
    let mut house = House::command(&["init", "--persist", "--local-only"]).start();
    let said = house.stdout();
    assert_eq!(said, format!("API listening on http://{}\n", house.addr()));

    let file = house.connection_file();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    let connection: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let keys: BTreeSet<_> = connection.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["api_key", "pid", "port", "url"]));
    assert_eq!(connection["port"], house.addr().port());

    let session = house.get("/api/session");
    assert_eq!(session["protocol_version"], 2);
    assert!(session["workspace_key"].as_str().unwrap().starts_with("rk_"));
    assert_eq!(house.get("/health")["service"], "agent-relay-listen");
    assert_eq!(http::call(house.addr(), "GET", "/api/spawned", &[], None).unwrap().status, 401);
    house.listener("alice");
    house.signal(Signal::SIGTERM);
    assert_eq!(house.wait().code(), Some(0));
    assert_eq!(house.stdout(), said, "more than the one line");
}

#[test]
fn everything_it_writes_is_private() {
    let mut house = House::command(&["init", "--persist", "--local-only"]).start();
    house.listener("alice");
    house.send("alice", "hello");
    house.notes("alice").hears(1);
    house.signal(Signal::SIGTERM);
    house.wait();
    let mut unseen = vec![house.dir().join("state"), house.dir().join("agent-relay")];
    let mut files = 0;
    while let Some(path) = unseen.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!(found.mode() & 0o077, 0, "{} is for others, too", path.display());
        files += 1;
        if found.is_dir() {
            unseen.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(files > 5, "too few to mean anything: {files}");
}

/// Hands in a result as the tools of an agent do, writes down its token, and stays.
const SUBMITS: &str = r#"exec python3 -c '
import json, os, sys, urllib.request
env = os.environ
body = {"agent": env["RELAY_AGENT_NAME"], "data": {"schema": json.loads(env["AGENT_RELAY_RESULT_SCHEMA"])}}
token = env["AGENT_RELAY_RESULT_TOKEN"]
head = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
asked = urllib.request.Request(env["AGENT_RELAY_RESULT_URL"], json.dumps(body).encode(), head)
answer = json.load(urllib.request.urlopen(asked, timeout=10))
open(env["LOG"], "w").write(token + " " + answer["result_id"])
sys.stdin.read()
'"#;

#[test]
fn an_agent_hands_in_its_result_with_a_token_that_ends_with_it() {
    let house = House::command(&["init", "--persist", "--local-only"]).start();
    let events = house.events();
    let mut spawn = house.spawn_request("alice", SUBMITS, &[]);
    spawn["agentResultSchema"] = json!({ "type": "object" });
    let spawned = house.call("POST", "/api/spawn", Some(&spawn));
    assert_eq!(spawned.status, 200, "{}", spawned.text);
    let event = events.wait("agent_result", "alice");
    assert_eq!(event["data"], json!({ "schema": { "type": "object" } }));
    assert_eq!((&event["final"], &event["metadata"]), (&json!(true), &json!(null)));
    assert!(event["seq"].is_u64(), "it is kept: {event}");

    let notes = house.dir().join("alice.notes");
    let token = until("the agent has its answer", || {
        let said = fs::read_to_string(&notes).unwrap_or_default();
        let (token, id) = said.split_once(' ').ok_or("nothing yet")?;
        expect(event["result_id"] == id, || format!("{id} in {event}"))?;
        Ok(token.to_owned())
    });
    let submit = || {
        let key = [("X-Agent-Result-Token", token.as_str())];
        http::call(house.addr(), "POST", "/api/agent-result", &key, Some(&json!({ "data": 2 }))).unwrap()
    };
    assert_eq!(submit().status, 200);
    house.release("alice");
    assert_eq!(submit().status, 401);
}

#[test]
fn a_broker_that_waits_for_its_engine_says_503_in_plain_words() {
    let engine = TestEngine::start();
    let proxy = crate::support::Proxy::to(engine.addr());
    proxy.block(true);
    let house = House::command(&["init", "--persist"])
        .env("RELAYCAST_BASE_URL", &proxy.url())
        .env("RELAY_WORKSPACE_KEY", &engine.key)
        .listening();
    let health = http::call(house.addr(), "GET", "/health", &[], None).unwrap();
    assert_eq!(health.status, 200, "{}", health.text);
    assert_eq!(health.json()["status"], "degraded");
    for path in ["/api/spawned", "/api/session", "/readyz"] {
        let answer = house.call("GET", path, None);
        assert_eq!(answer.status, 503, "{path}");
        // Clients know a broker that is still starting by these words, and by its not being JSON.
        assert!(answer.text.contains("503 Service Unavailable"), "{path}: {}", answer.text);
        assert!(answer.json().is_null(), "{path}: {}", answer.text);
    }

    proxy.block(false);
    house.until_live();
    house.spawn("alice", agents::READER);
}

#[test]
fn without_persist_it_leaves_no_file_and_no_process() {
    let tmp = tempfile::tempdir().unwrap();
    let state = |said: &str| {
        let found = fs::read_dir(tmp.path()).unwrap().next();
        found.map(|entry| entry.unwrap().path()).ok_or_else(|| said.to_owned())
    };
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("work")).unwrap();
    let mut command = crate::support::house::program(dir.path());
    command.args(["init", "--local-only"]).env("TMPDIR", tmp.path());
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let state = until("its temporary state", || state("none yet"));
    until("it can be found there", || {
        expect(state.join("connection.json").exists(), || "no connection.json".to_owned())
    });
    crate::support::processes::signal(child.id(), Signal::SIGTERM);
    let status = until("its end", || child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
    assert_eq!(status.code(), Some(0));
    assert!(!state.exists(), "{} was left behind", state.display());
}

#[test]
fn a_second_start_in_the_directory_is_refused_with_the_phrase_that_programs_know() {
    let mut house = House::command(&["init", "--persist", "--local-only"]).start();
    let state = house.dir().join("state").canonicalize().unwrap();
    let mut second = crate::support::house::program(house.dir());
    second.args(["init", "--persist", "--local-only", "--state-dir"]).arg(&state);
    let (code, stdout, stderr) = crate::support::house::run(&mut second);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(stdout, "");
    let phrase =
        format!("another broker instance is already running in this directory ({})", state.display());
    assert!(stderr.contains(&phrase), "{stderr}");
    // The first one did not notice.
    house.listener("alice");
    house.signal(Signal::SIGTERM);
    assert_eq!(house.wait().code(), Some(0));
    nothing_runs(&house);
}
