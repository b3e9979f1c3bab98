//! The tools of an agent: `relay-broker mcp` as a real child, spoken to line by line, with the environment of a real
//! agent in a real house.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    House,
    agents::{self, text},
    expect, until,
};

const BROKER: &str = env!("CARGO_BIN_EXE_relay-broker");
/// For any answer.
const ANSWER: Duration = Duration::from_secs(30);

/// The server, and what it has printed.
struct Tools {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    asked: u64,
}

impl Tools {
    /// Started by an agent's program, as far as the server can tell: with all of that process's environment.
    fn of(pid: u32) -> Self {
        Self::with(pid, &[])
    }

    /// The same, with some variables changed.
    fn with(pid: u32, changed: &[(&str, &str)]) -> Self {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let pairs = environment.split(|byte| *byte == 0).filter_map(|pair| {
            let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        let mut tools = Self::run(Command::new(BROKER).env_clear().envs(pairs).envs(changed.iter().copied()));
        let hello = json!({
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "0" },
        });
        let hello = tools.ask("initialize", hello);
        assert_eq!(hello["result"]["serverInfo"]["name"], "relay-broker", "{hello}");
        assert!(hello["result"]["capabilities"]["tools"].is_object(), "{hello}");
        tools.tell(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        tools
    }

    fn run(command: &mut Command) -> Self {
        command.arg("mcp").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        let (say, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| say.send(line))
        });
        Self { child, stdin, lines, asked: 0 }
    }

    fn tell(&mut self, message: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    /// The answer to a request; every line of standard output must be a message of the protocol.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        self.tell(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        let line = self.lines.recv_timeout(ANSWER).unwrap_or_else(|error| panic!("{method}: {error}"));
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    /// What a tool says, and whether it calls that an error.
    fn call(&mut self, tool: &str, arguments: Value) -> (String, bool) {
        let answer = self.ask("tools/call", json!({ "name": tool, "arguments": arguments }));
        let said = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
        (said.to_owned(), answer["result"]["isError"] == true)
    }

    /// The same of a tool that must do it.
    fn done(&mut self, tool: &str, arguments: Value) -> String {
        let (said, is_error) = self.call(tool, arguments);
        assert!(!is_error, "{tool}: {said}");
        said
    }

    /// Its end, once nobody speaks to it any more.
    fn ends(mut self) -> Option<i32> {
        self.stdin = None;
        let child = &mut self.child;
        until("its end", || child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())).code()
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn an_agent_speaks_lists_and_answers_in_its_own_name() {
    let house = House::embedded().start();
    let alice = house.spawn("alice", agents::READER);
    let bob = house.listener("bob");
    let mut tools = Tools::of(alice);
    let listed = tools.ask("tools/list", json!({}));
    let mut names: Vec<_> = listed["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["list_agents", "reply_to_thread", "send_message", "submit_result"]);

    let said = tools.done("send_message", json!({ "to": "bob", "text": text("the tide turns") }));
    let id = said.rsplit(' ').next().unwrap().to_owned();
    let (heard, line) = until("bob hears it", || {
        let heard = bob.heard_lines();
        heard.into_iter().next().ok_or_else(|| "nothing".to_owned())
    });
    assert_eq!(heard, "the tide turns");
    assert!(line.contains("DM from alice") && line.contains(&id), "{line}");

    tools.done("send_message", json!({ "to": "#general", "text": text("to all") }));
    assert_eq!(bob.hears(2)[1], "to all");
    tools.done("reply_to_thread", json!({ "message_id": id, "text": text("and again") }));
    assert_eq!(bob.hears(3)[2], "and again");
    let (_, line) = &bob.heard_lines()[2];
    assert!(line.contains(&format!("thread {id}")), "{line}");

    let all = tools.done("list_agents", json!({}));
    assert!(all.lines().any(|line| line.starts_with("alice (agent, ") && line.ends_with(", you)")), "{all}");
    assert!(all.lines().any(|line| line.starts_with("bob (agent, ") && !line.contains("you")), "{all}");
    assert_eq!(tools.ends(), Some(0));
}

#[test]
fn an_agent_hands_in_its_result_as_it_was_asked_to() {
    let house = House::embedded().start();
    let events = house.events();
    let mut spawn = house.spawn_request("alice", agents::READER, &[]);
    spawn["agentResultSchema"] = json!({ "type": "object", "required": ["boats"] });
    let answer = house.call("POST", "/api/spawn", Some(&spawn));
    let alice = answer.json()["pid"].as_u64().unwrap_or_else(|| panic!("{}", answer.text));
    let alice = alice.try_into().unwrap();
    let mut tools = Tools::of(alice);
    let listed = tools.ask("tools/list", json!({}));
    let submit =
        listed["result"]["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == "submit_result");
    assert!(submit.unwrap()["description"].as_str().unwrap().contains(r#""required":["boats"]"#), "{listed}");

    let said = tools.done("submit_result", json!({ "data": { "boats": [1, "two"] } }));
    let event = events.wait("agent_result", "alice");
    assert_eq!(event["data"], json!({ "boats": [1, "two"] }));
    assert!(said.ends_with(event["result_id"].as_str().unwrap()), "{said} is not of {event}");

    let mut others = Tools::with(alice, &[("AGENT_RELAY_RESULT_TOKEN", "ar_of_an_earlier_life")]);
    let (said, is_error) = others.call("submit_result", json!({ "data": {} }));
    assert!(is_error && said.contains("started anew"), "{said}");
    house.release("alice");
    let child = &mut tools.child;
    until("it ends with its agent", || child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
}

#[test]
fn what_cannot_be_done_is_told_in_words_and_ends_nothing() {
    let mut house = House::embedded().start();
    // Without the agent's mark it is not ended with what is left of the agent.
    let mut tools = Tools::with(house.spawn("alice", agents::READER), &[("RELAY_SPAWN_ID", "")]);
    for (tool, arguments, words) in [
        ("send_message", json!({ "to": "nobody", "text": "hi" }), "knows no `nobody`"),
        ("send_message", json!({ "to": " ", "text": "hi" }), "list_agents"),
        ("send_message", json!({ "to": "alice", "text": " \n" }), "no text"),
        ("reply_to_thread", json!({ "message_id": "999", "text": "hi" }), "knows no `999`"),
        ("reply_to_thread", json!({ "message_id": "", "text": "hi" }), "after `msg` in the header"),
        ("send_message", json!({ "to": "bob" }), "missing field `text`"),
        ("send_message", json!({ "to": 7, "text": "hi" }), "expected a string"),
    ] {
        let (said, is_error) = tools.call(tool, arguments);
        assert!(is_error && said.contains(words), "{tool}: {said}");
    }
    let answer = tools.ask("tools/call", json!({ "name": "shout", "arguments": {} }));
    assert!(
        answer["error"]["message"].as_str().is_some_and(|said| said.contains("tool not found")),
        "{answer}"
    );
    house.kill();
    for (tool, arguments) in [
        ("send_message", json!({ "to": "bob", "text": "hi" })),
        ("list_agents", json!({})),
        ("submit_result", json!({ "data": {} })),
    ] {
        let (said, is_error) = tools.call(tool, arguments);
        assert!(is_error && !said.is_empty(), "{tool}: {said}");
    }
    assert_eq!(tools.ends(), Some(0));
}

#[test]
fn outside_of_an_agent_it_says_so_and_prints_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) =
        crate::support::house::run(Command::new(BROKER).arg("mcp").env_clear().current_dir(&dir));
    assert_eq!((code, stdout.as_str()), (Some(3), ""));
    assert!(stderr.contains("RELAY_AGENT_TOKEN is not set"), "{stderr}");
}

#[test]
fn input_that_ends_at_once_or_is_no_message_ends_it_quietly() {
    let house = House::embedded().start();
    let alice = house.spawn("alice", agents::READER);
    assert_eq!(Tools::of(alice).ends(), Some(0));
    let mut tools = Tools::of(alice);
    writeln!(tools.stdin.as_mut().unwrap(), "this is no message").unwrap();
    let listed = tools.ask("tools/list", json!({}));
    expect(listed["result"]["tools"].is_array(), || listed.to_string()).unwrap();
    assert_eq!(tools.ends(), Some(0));
}
