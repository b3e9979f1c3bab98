//! What the node declares: the engine asks, and a command of the configuration runs.

use std::fs;

use serde_json::{Value, json};

use crate::support::{House, Listener, TestEngine, agents, agents::text, expect, until};

/// Answers with what it was asked, and notes each time it ran.
const TIDE: &str = r#"['sh', '-c', 'echo ran >> "$HOME/runs"; printf "{\"asked\":"; cat; printf "}"']"#;
const ANGRY: &str = "['sh', '-c', 'echo no water >&2; exit 7']";
const SLOW: &str = r#"['sh', '-c', 'echo $$ > "$HOME/slow"; sleep 1000']"#;

fn invocation(engine: &TestEngine, id: &str) -> Value {
    engine.get(&format!("/v1/actions/any/invocations/{id}"))
}

fn invoke(engine: &TestEngine, caller: &str, action: &str, input: &Value) -> String {
    let path = format!("/v1/actions/{action}/invoke");
    let made = engine.post(&path, caller, json!({ "input": input }));
    made["invocation_id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

fn ended(engine: &TestEngine, id: &str, status: &str) -> Value {
    until("the invocation ends", || {
        let seen = invocation(engine, id);
        expect(seen["status"] == status, || seen.to_string())?;
        Ok(seen)
    })
}

#[test]
fn a_declared_action_runs_its_command_and_the_caller_gets_what_it_says() {
    let engine = TestEngine::start();
    let mut house = House::at(&engine)
        .handler("tide.table", &format!("command = {TIDE}"))
        .handler("angry", &format!("command = {ANGRY}"))
        .handler("slow", &format!("command = {SLOW}\ntimeout_ms = 60000"))
        .start();
    let caller = engine.person("caller");

    let asked = invoke(&engine, &caller, "tide.table", &json!({ "port": "Łeba" }));
    let done = ended(&engine, &asked, "completed");
    assert_eq!(done["output"], json!({ "asked": { "port": "Łeba" } }), "{done}");
    assert_eq!(fs::read_to_string(house.dir().join("runs")).unwrap(), "ran\n");

    let asked = invoke(&engine, &caller, "angry", &json!({}));
    let failed = ended(&engine, &asked, "failed");
    assert_eq!(failed["error"], "action_failed: exit code 7: no water", "{failed}");
    assert!(failed["output"].is_null(), "{failed}");

    let path = "/v1/actions/unheard.of/invoke";
    let refused = engine.call("POST", path, &caller, Some(&json!({ "input": {} })));
    assert_eq!(refused.status, 404, "{}", refused.text);

    // A command that a kill of the broker interrupts has failed for good: nobody knows how far it came.
    let asked = invoke(&engine, &caller, "slow", &json!({}));
    until("it runs", || {
        let pid = fs::read_to_string(house.dir().join("slow")).unwrap_or_default();
        expect(!pid.is_empty(), || "not yet".to_owned())
    });
    house.kill();
    fs::remove_file(house.dir().join("slow")).unwrap();
    house.start_again();
    let failed = ended(&engine, &asked, "failed");
    assert!(failed["error"].as_str().unwrap().contains("interrupted"), "{failed}");
    assert!(!house.dir().join("slow").exists(), "it ran again");
}

#[test]
fn a_declared_spawn_runs_its_command_and_not_what_the_engine_names() {
    let engine = TestEngine::start();
    let reader = format!(
        "command = ['sh', '-c', '{} # \"$@\"', 'reviewer']",
        agents::READER.replace("$LOG", "$HOME/reviewer")
    );
    let house = House::at(&engine).handler("spawn:claude", &reader).start();
    let caller = engine.person("caller");
    let literal = house.dir().join("literal");
    let cli = format!("touch {}", literal.display());

    let input = json!({ "name": "mate", "cli": "claude", "args": ["--literal"], "command": cli });
    let made = engine.post("/v1/agents/spawn", &caller, input);
    let done = ended(&engine, made["invocation_id"].as_str().unwrap(), "completed");
    assert_eq!(done["output"]["name"], "mate", "{done}");
    let pid = house.get("/api/spawned")["agents"][0]["pid"].as_u64().unwrap();
    let runs = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!runs.contains("claude"), "{runs}");
    engine.dm(&caller, "mate", &text("review this"));
    assert_eq!(Listener::new("mate", house.dir().join("reviewer")).hears(1), ["review this"]);
    assert!(!literal.exists(), "what the engine named has run");

    // What is not declared is no harness of this node.
    let path = "/v1/agents/spawn";
    let input = json!({ "name": "cook", "cli": "whale" });
    let refused = engine.call("POST", path, &caller, Some(&input));
    assert_ne!(refused.json()["data"]["status"], "dispatched", "{}", refused.text);
}
