//! Sessions outlive their processes: the next program of an agent knows what the last one was told.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{codex::CODEX, gemini::GEMINI};
use crate::{
    stage::{Cli, NAME, STARTUP, Stage},
    support::{expect, processes, until_within},
};

#[test]
fn codex_takes_up_the_session_that_its_record_tells_of() {
    takes_up_its_session(&CODEX, "resume");
}

#[test]
fn gemini_takes_up_the_session_that_it_was_told_to_begin() {
    takes_up_its_session(&GEMINI, "--resume");
}

fn takes_up_its_session(cli: &Cli, word: &str) {
    let policy = json!({ "restart": { "when": "resume", "backoff_ms": 100 } });
    let stage = Stage::spawn_with(cli, &policy);
    stage.until_state("idle", STARTUP);
    assert_eq!(stage.agent()["sessionId"], Value::Null, "nothing is in it yet");
    let first = stage.send("remember the heron", "wait");
    stage.proof(&first);
    stage.hears(&first, "remember the heron");
    let session = until_within(STARTUP, "the session is known", || {
        let agent = stage.agent();
        agent["sessionId"].as_str().map(str::to_owned).ok_or_else(|| agent.to_string())
    });
    stage.until_rests();
    let pid = stage.agent()["pid"].as_u64().unwrap().try_into().unwrap();
    processes::signal(pid, Signal::SIGKILL);
    until_within(STARTUP, "its next program is ready", || {
        let agent = stage.agent();
        let is_next = agent["pid"].as_u64().is_some_and(|next| next != u64::from(pid));
        expect(is_next && agent["state"] == "idle", || format!("{agent}\n{}", stage.screen()))
    });
    assert_eq!(stage.agent()["sessionId"], session.as_str());
    let second = stage.send("what was it?", "wait");
    stage.proof(&second);
    stage.hears(&second, "what was it?");
    assert_eq!(stage.heard(&first, "remember the heron"), Ok(1), "the earlier turn is in the same request");
    assert_eq!(stage.agent()["sessionId"], session.as_str(), "it goes on under the same id");
    let crashes = stage.house.get("/api/crash-insights");
    let end = &crashes["recent"][0];
    assert_eq!((&end["agent_name"], &end["session_id"]), (&NAME.into(), &session.as_str().into()), "{end}");
    let go_on = end["go_on"].as_str().unwrap();
    assert!(go_on.ends_with(&format!("{word} {session}")), "{go_on}");
}
