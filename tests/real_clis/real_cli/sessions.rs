//! Sessions outlive their processes: the next program of an agent knows what the last one was told.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{claude::CLAUDE, codex::CODEX, gemini::GEMINI, opencode::OPENCODE};
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

#[test]
fn claude_takes_up_the_session_that_it_was_told_to_begin() {
    takes_up_its_session(&CLAUDE, "--resume");
}

#[test]
fn opencode_takes_up_the_session_that_its_database_tells_of() {
    takes_up_its_session(&OPENCODE, "--session");
}

/// Both write into the same place, and both get the same message.
#[test]
fn of_two_agents_in_one_home_each_is_known_by_its_own_record() {
    const OTHER: &str = "agent-2";
    let stage = Stage::start(&CODEX);
    stage.spawn_another(OTHER);
    let both = [NAME, OTHER];
    until_within(STARTUP, "both are ready", || {
        let states = both.map(|name| stage.agent_of(name)["state"].clone());
        expect(states == ["idle", "idle"], || format!("{states:?}"))
    });
    let sent = json!({ "to": "#general", "text": "count the herons" });
    let id = stage.house.call("POST", "/api/send", Some(&sent)).json()["event_id"].clone();
    let id = id.as_str().unwrap();
    until_within(STARTUP, "both have it, by their records", || {
        let evidence = both.map(|name| stage.evidence(id, name).unwrap_or_default());
        expect(evidence == ["accepted"; 2], || format!("{evidence:?}\n{}", stage.screen()))
    });
    let sessions = until_within(STARTUP, "both sessions are known", || {
        let sessions = both.map(|name| stage.agent_of(name)["sessionId"].as_str().map(str::to_owned));
        expect(sessions.iter().all(Option::is_some), || format!("{sessions:?}")).map(|()| sessions.clone())
    });
    assert_ne!(sessions[0], sessions[1]);
    for name in both {
        let mark = format!("msg {id} to {name} ");
        until_within(STARTUP, &mark, || {
            let asked = stage.model.asked();
            let is_marked = asked.iter().any(|asked| asked.texts.iter().any(|text| text.contains(&mark)));
            expect(is_marked, || format!("{asked:?}"))
        });
    }
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
