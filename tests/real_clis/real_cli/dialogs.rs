//! The questions that the CLIs ask: whether they may work here, whether they may run a command, who pays.
//!
//! While one is open nothing is typed. It is answered over HTTP by the name of a choice, and what waited meanwhile
//! arrives once and whole.

use std::{fs, time::Duration};

use relay_broker::harness::{Dialog, Harness, Severity};
use serde_json::{Value, json};

use super::{claude::CLAUDE, codex::CODEX, gemini::GEMINI, opencode::OPENCODE};
use crate::{
    stage::{Cli, Place, STARTUP, Stage},
    support::{expect, until_within},
};

/// What waits while a question is open. Its lines would answer one if they were typed as keys.
const WAITS: &str = "2\ny\nn\nthis waits for an answer";
/// The file that a command makes if it is allowed to.
const MADE: &str = "made-by-the-tool";

/// For a command that was allowed.
const COMMAND: Duration = Duration::from_secs(40);

/// In a directory that it does not trust a CLI asks first.
fn trust(cli: &Cli, words: &str) {
    let stage = Stage::spawn(cli);
    let dialog = stage.asks("trust");
    assert!(dialog["text"].as_str().unwrap().contains(words), "{dialog}");
    let id = waits(&stage);
    stage.answer(&stage.asks("trust"), "trust");
    arrives(&stage, &id);
}

/// The model wants a command run that needs somebody's word.
fn approval(cli: &Cli, rule: &str, tool: &str, arguments: Value, choice: &str) {
    let stage = Stage::start(cli);
    let made = stage.house.dir().join("project").join(MADE);
    stage.model.call(tool, arguments);
    let first = stage.send("run it", "wait");
    let dialog = stage.asks(rule);
    assert!(dialog["text"].as_str().unwrap().contains(MADE), "{dialog}");
    assert!(!made.exists(), "it asks, and does it without an answer");
    let id = waits(&stage);
    stage.answer(&dialog, choice);
    if choice == "yes" {
        until_within(COMMAND, "the command has run", || expect(made.exists(), || stage.screen()));
    }
    arrives(&stage, &id);
    assert_eq!(stage.heard(&first, "run it"), Ok(1));
    assert_eq!(made.exists(), choice == "yes");
}

/// The same directory under a spawn that trusts it: nobody has to answer.
fn trusted(cli: &Cli) {
    let stage = Stage::spawn_with(cli, &json!({ "autonomy": "trust_cwd" }));
    stage.until_state("idle", STARTUP);
    arrives(&stage, &stage.send(WAITS, "wait"));
}

/// The same command under a spawn that lets it ask nothing.
fn unasked(cli: &Cli, tool: &str, arguments: Value) {
    let stage = Stage::spawn_with(cli, &json!({ "autonomy": "full" }));
    stage.until_state("idle", STARTUP);
    let made = stage.house.dir().join("project").join(MADE);
    stage.model.call(tool, arguments);
    let first = stage.send("run it", "wait");
    stage.proof(&first);
    until_within(COMMAND, "the command has run", || expect(made.exists(), || stage.screen()));
    arrives(&stage, &stage.send(WAITS, "wait"));
}

/// Sends what has to wait; its id.
fn waits(stage: &Stage) -> String {
    let id = stage.send(WAITS, "wait");
    until_within(COMMAND, "the message waits", || {
        let agent = stage.agent();
        expect(agent["pending_messages"].as_u64() >= Some(1), || agent.to_string())
    });
    assert_eq!(stage.heard(&id, WAITS), Ok(0));
    assert_eq!(stage.agent()["state"], "blocked", "{}", stage.screen());
    id
}

/// What has waited arrives.
fn arrives(stage: &Stage, id: &str) {
    stage.proof(id);
    stage.hears(id, WAITS);
}

fn command() -> String {
    format!("touch {MADE}")
}

mod claude {
    use super::*;

    fn untrusted(place: &Place<'_>) -> Vec<(&'static str, String)> {
        let env = (CLAUDE.configure)(place);
        let config = place.home.join(".claude.json");
        let mut written: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
        written["projects"] = json!({});
        fs::write(&config, written.to_string()).unwrap();
        env
    }

    /// Its own default lets a model decide what has to be asked.
    fn asking(place: &Place<'_>) -> Vec<(&'static str, String)> {
        let env = (CLAUDE.configure)(place);
        place.write(".claude/settings.json", &json!({ "permissions": { "ask": ["Bash"] } }).to_string());
        env
    }

    fn with_a_mode_of_its_own(place: &Place<'_>) -> Vec<(&'static str, String)> {
        let env = (CLAUDE.configure)(place);
        place.write(
            ".claude/settings.json",
            &json!({ "permissions": { "defaultMode": "default" } }).to_string(),
        );
        env
    }

    fn in_a_sandbox(place: &Place<'_>) -> Vec<(&'static str, String)> {
        let mut env = (CLAUDE.configure)(place);
        // Without it, root is refused what `full` asks for.
        env.push(("IS_SANDBOX", "1".to_owned()));
        env
    }

    fn arguments() -> Value {
        json!({ "command": command(), "description": "Makes a file" })
    }

    fn asked(choice: &str) {
        approval(&Cli { configure: asking, ..CLAUDE }, "permission", "Bash", arguments(), choice);
    }

    #[test]
    fn trusts_the_directory_as_its_spawn_has_said() {
        trusted(&Cli { configure: untrusted, ..CLAUDE });
    }

    #[test]
    fn asks_nothing_where_its_spawn_has_said_so() {
        unasked(&Cli { configure: in_a_sandbox, ..CLAUDE }, "Bash", arguments());
    }

    #[test]
    fn asks_for_its_default_mode_and_takes_no_message_for_an_answer() {
        let stage = Stage::spawn(&Cli { configure: with_a_mode_of_its_own, ..CLAUDE });
        let dialog = stage.asks("auto-mode");
        assert!(dialog["text"].as_str().unwrap().contains("default permission mode?"), "{dialog}");
        let id = waits(&stage);
        stage.answer(&dialog, "later");
        arrives(&stage, &id);
    }

    #[test]
    fn asks_whether_to_trust_the_directory() {
        trust(&Cli { configure: untrusted, ..CLAUDE }, "Yes, I trust this folder");
    }

    #[test]
    fn runs_a_command_that_was_approved() {
        asked("yes");
    }

    #[test]
    fn does_not_run_a_command_that_was_refused() {
        asked("no");
    }
}

mod codex {
    use super::*;

    fn untrusted(place: &Place<'_>) -> Vec<(&'static str, String)> {
        let env = (CODEX.configure)(place);
        let config = place.home.join(".codex/config.toml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.split("[projects.").next().unwrap()).unwrap();
        place.init_repository();
        env
    }

    fn without_account(place: &Place<'_>) -> Vec<(&'static str, String)> {
        place.write(".codex/config.toml", "[analytics]\nenabled = false\n");
        Vec::new()
    }

    fn arguments() -> Value {
        json!({ "cmd": command(), "sandbox_permissions": "require_escalated", "justification": "May I?" })
    }

    fn asked(choice: &str) {
        approval(&CODEX, "approval", "exec_command", arguments(), choice);
    }

    #[test]
    fn trusts_the_directory_as_its_spawn_has_said() {
        trusted(&Cli { configure: untrusted, ..CODEX });
    }

    #[test]
    fn asks_nothing_where_its_spawn_has_said_so() {
        unasked(&Cli { configure: untrusted, ..CODEX }, "exec_command", json!({ "cmd": command() }));
    }

    #[test]
    fn asks_whether_to_trust_the_directory() {
        trust(&Cli { configure: untrusted, ..CODEX }, "Trust this folder?");
    }

    #[test]
    fn runs_a_command_that_was_approved() {
        asked("yes");
    }

    #[test]
    fn does_not_run_a_command_that_was_refused() {
        asked("no");
    }

    #[test]
    fn wants_an_account() {
        let stage = Stage::spawn(&Cli { configure: without_account, ..CODEX });
        let dialog = stage.asks("sign-in");
        assert!(dialog["text"].as_str().unwrap().contains("Sign in with ChatGPT"), "{dialog}");
        let mut known = Harness::by_name("codex").unwrap().blocked.iter();
        let asks_for_login =
            |known: &Dialog| known.rule.id == dialog["rule"] && known.severity == Severity::Auth;
        assert!(known.any(asks_for_login), "{dialog}");
    }
}

mod gemini {
    use super::*;

    fn untrusted(place: &Place<'_>) -> Vec<(&'static str, String)> {
        let env = (GEMINI.configure)(place);
        fs::remove_file(place.home.join(".gemini/trustedFolders.json")).unwrap();
        env
    }

    fn arguments() -> Value {
        json!({ "command": command(), "description": "Makes a file" })
    }

    fn asked(choice: &str) {
        approval(&GEMINI, "approval", "run_shell_command", arguments(), choice);
    }

    #[test]
    fn trusts_the_directory_as_its_spawn_has_said() {
        trusted(&Cli { configure: untrusted, ..GEMINI });
    }

    #[test]
    fn asks_nothing_where_its_spawn_has_said_so() {
        unasked(&Cli { configure: untrusted, ..GEMINI }, "run_shell_command", arguments());
    }

    #[test]
    fn asks_whether_to_trust_the_directory() {
        trust(&Cli { configure: untrusted, ..GEMINI }, "Do you trust the files in this folder?");
    }

    #[test]
    fn runs_a_command_that_was_approved() {
        asked("yes");
    }

    #[test]
    fn does_not_run_a_command_that_was_refused() {
        asked("no");
    }
}

mod opencode {
    use super::*;

    fn asking(place: &Place<'_>) -> Vec<(&'static str, String)> {
        let env = (OPENCODE.configure)(place);
        let config = place.home.join("opencode.json");
        let mut written: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
        written["permission"] = json!({ "bash": "ask" });
        fs::write(&config, written.to_string()).unwrap();
        env
    }

    fn arguments() -> Value {
        json!({ "command": command(), "description": "Makes a file" })
    }

    fn asked(choice: &str) {
        approval(&Cli { configure: asking, ..OPENCODE }, "permission", "bash", arguments(), choice);
    }

    #[test]
    fn asks_nothing_where_its_spawn_has_said_so() {
        unasked(&Cli { configure: asking, ..OPENCODE }, "bash", arguments());
    }

    #[test]
    fn runs_a_command_that_was_approved() {
        asked("yes");
    }

    #[test]
    fn does_not_run_a_command_that_was_refused() {
        asked("no");
    }
}
