//! The broker's tools in real CLIs: their model is shown them, and what it calls is done in the agent's own name.

use std::fs;

use serde_json::{Value, json};

use super::{codex::CODEX, gemini, gemini::GEMINI, opencode::OPENCODE};
use crate::{
    stage::{Cli, NAME, Place, Stage},
    support::{agents::text, expect, until},
};

const TOOLS: [&str; 4] = ["list_agents", "reply_to_thread", "send_message", "submit_result"];

/// The tools arrive, one is called, and the message arrives. `is_told` of them: the hint names one.
fn a_message_by_tool(cli: &Cli, is_told: bool) {
    let stage = Stage::start(cli);
    let bob = stage.house.listener("bob");
    let first = stage.send("say nothing yet", "wait");
    stage.proof(&first);
    stage.hears(&first, "say nothing yet");
    let asked = stage.model.asked().pop().unwrap();
    let header = asked.texts.iter().find(|text| text.contains(&first)).unwrap();
    assert_eq!(header.contains("tool: send_message"), is_told, "{header}");
    let names = TOOLS.map(|tool| {
        let name = asked.tools.iter().find(|name| name.ends_with(tool));
        name.unwrap_or_else(|| panic!("no {tool} among {:?}\n{}", asked.tools, stage.screen())).clone()
    });
    eprintln!("{}: {names:?}", cli.program);

    stage.until_rests();
    stage.model.call(&names[2], json!({ "to": "bob", "text": text("by tool") }));
    let second = stage.send("tell bob", "wait");
    stage.proof(&second);
    assert_eq!(bob.hears(1), ["by tool"]);
    let (_, line) = &bob.heard_lines()[0];
    assert!(line.contains(&format!("DM from {NAME}")), "{line}");
    until("the model is sent the tool's answer", || {
        let results = stage.model.asked().pop().map(|asked| asked.results).unwrap_or_default();
        expect(results.iter().any(|result| result.contains("sent to bob as ")), || format!("{results:?}"))
    });
    no_secret_on_a_command_line(&stage);
}

/// Reads the agent's secrets in its own environment, and looks for them where `ps` does.
fn no_secret_on_a_command_line(stage: &Stage) {
    let pid = stage.agent()["pid"].as_u64().unwrap();
    let environment =
        String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/environ")).unwrap()).into_owned();
    let is_secret = |name: &str| matches!(name, "RELAY_AGENT_TOKEN" | "AGENT_RELAY_RESULT_TOKEN");
    let pairs = environment.split('\0').filter_map(|pair| pair.split_once('='));
    let secrets: Vec<_> = pairs.filter(|(name, _)| is_secret(name)).map(|(_, value)| value).collect();
    assert_eq!(secrets.len(), 2);
    // Of every process: some CLIs clear the environment by which a test finds its own.
    let lines: Vec<_> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .collect();
    assert!(lines.iter().any(|line| line.ends_with("relay-broker\0mcp\0")), "{lines:#?}");
    assert!(!lines.iter().any(|line| secrets.iter().any(|secret| line.contains(secret))), "{lines:#?}");
}

#[test]
fn codex_tells_its_model_of_the_tools() {
    a_message_by_tool(&CODEX, true);
}

#[test]
fn opencode_tells_its_model_of_the_tools() {
    a_message_by_tool(&OPENCODE, true);
}

/// Its user has added the server, as docs/operations.md says.
#[test]
fn gemini_tells_its_model_of_the_tools_that_its_user_has_added() {
    fn configure(place: &Place<'_>) -> Vec<(&'static str, String)> {
        let env = gemini::configure(place);
        let path = place.home.join(".gemini/settings.json");
        let mut settings: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        settings["mcpServers"]["relay"] = json!({
            "command": env!("CARGO_BIN_EXE_relay-broker"), "args": ["mcp"], "trust": true,
            "env": {
                "RELAY_AGENT_TOKEN": "$RELAY_AGENT_TOKEN", "AGENT_RELAY_RESULT_TOKEN": "$AGENT_RELAY_RESULT_TOKEN",
            },
        });
        fs::write(path, settings.to_string()).unwrap();
        env
    }
    a_message_by_tool(&Cli { configure, ..GEMINI }, false);
}
