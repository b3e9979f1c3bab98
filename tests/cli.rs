//! The command line against no broker at all: usage, configuration, discovery. Exit codes are those of
//! docs/operations.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::Path, process::Output};

use assert_cmd::Command;

const USAGE: i32 = 2;
const CONFIG: i32 = 3;
const NOT_FOUND: i32 = 6;

/// The program in a directory of its own, with none of our variables set.
fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay-broker"));
    command.env_clear().env("HOME", dir).env("PATH", std::env::var_os("PATH").unwrap()).current_dir(dir);
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    program(dir).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_version_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["--version"]);
    assert!(output.status.success());
    let wanted = format!("relay-broker {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
}

#[test]
fn bad_usage_is_refused_before_anything_happens() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(65);
    let cases: [&[&str]; 10] = [
        &[],
        &["fly"],
        &["up", "--port", "70000"],
        &["init", "--api-port", "many"],
        &["init", "--api-bind", "here"],
        &["spawn", "a"],
        &["spawn", "../evil", "--", "sh"],
        &["spawn", &long, "--", "sh"],
        &["spawn", "a", "--env", "NOVALUE", "--", "sh"],
        &["send", "a"],
    ];
    for args in cases {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(USAGE), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn every_client_says_that_no_broker_runs_and_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [&[&str]; 11] = [
        &["ps"],
        &["harness", "record", "a"],
        &["actors"],
        &["spawn", "a", "--", "sh"],
        &["send", "a", "hello"],
        &["release", "a"],
        &["explain", "a"],
        &["snapshot", "a"],
        &["dump-pty", "a"],
        &["resume"],
        &["down"],
    ];
    for args in cases {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(NOT_FOUND), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let said = stderr(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("no broker runs here") && said.contains("relay-broker up"), "{said}");
    }
}

#[test]
fn a_connection_file_whose_broker_is_gone_is_called_stale() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join(".agentworkforce/relay");
    fs::create_dir_all(&state).unwrap();
    // Linux gives no process a number this high (PID_MAX_LIMIT is 2^22).
    let text = r#"{"url":"http://127.0.0.1:9","port":9,"api_key":"k","pid":4194305}"#;
    fs::write(state.join("connection.json"), text).unwrap();
    let output = run(dir.path(), &["ps"]);
    assert_eq!(output.status.code(), Some(NOT_FOUND));
    assert!(stderr(&output).contains("(pid 4194305) is no longer running"), "{}", stderr(&output));
}

#[test]
fn a_connection_file_of_something_else_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("connection.json"), "[]").unwrap();
    let output = run(dir.path(), &["ps", "--state-dir", "."]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("connection.json is not a connection file"), "{}", stderr(&output));
}

#[test]
fn the_broker_is_named_before_or_after_the_verb_of_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let place = ["--state-dir", "elsewhere"];
    for (command, verb) in [
        (&["dead-letters"][..], &["redeliver", "d1"][..]),
        (&["dead-letters"], &["redeliver", "--all"]),
        (&["dead-letters"], &["list"]),
        (&["dead-letters"], &[]),
        (&["harness", "record"], &["a"]),
    ] {
        for args in [[command, &place, verb].concat(), [command, verb, &place].concat()] {
            let output = run(dir.path(), &args);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(NOT_FOUND), "{args:?}: {said}");
            assert!(said.contains("elsewhere"), "{args:?}: {said}");
        }
    }
}

#[test]
fn an_address_where_nobody_listens_is_named() {
    let dir = tempfile::tempdir().unwrap();
    // Bound and dropped: free, and nobody else is given it at once.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let output = program(dir.path())
        .arg("ps")
        .env("RELAY_BROKER_URL", &url)
        .env("RELAY_BROKER_API_KEY", "k")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(NOT_FOUND), "{}", stderr(&output));
    assert!(stderr(&output).contains(&url), "{}", stderr(&output));
}

#[test]
fn all_mistakes_of_a_configuration_are_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rb.toml"), "colour = 'red'\nmax_agents = -1\n").unwrap();
    let output = program(dir.path())
        .args(["up", "--name", "a b", "--engine", "ftp://x", "--api-bind", "0.0.0.0"])
        .args(["--config", "rb.toml"])
        .env("RELAY_WORKSPACE_KEY", "not-a-key")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(CONFIG));
    let said = stderr(&output);
    let sources = [
        "`colour` in rb.toml",
        "`max_agents` in rb.toml",
        "--name",
        "--engine",
        "--api-bind",
        "RELAY_WORKSPACE_KEY",
    ];
    for source in sources {
        assert!(said.lines().any(|line| line.trim_start().starts_with(source)), "{source}: {said}");
    }
    assert_eq!(said.lines().count(), 1 + sources.len(), "{said}");
    assert!(!dir.path().join(".agentworkforce").exists(), "a refused start left a directory");
}

#[test]
fn bad_rule_sets_of_the_user_keep_a_broker_from_starting_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let harness = dir.path().join(".config/relay-broker/harness");
    fs::create_dir_all(&harness).unwrap();
    fs::write(harness.join("otter.toml"), "name = 'otter'\ncolour = 'red'\n").unwrap();
    fs::write(harness.join("heron.toml"), "name = 'crane'\n[composer]\nkind = 'always'\n").unwrap();
    let output = run(dir.path(), &["up", "--engine", "ftp://x"]);
    assert_eq!(output.status.code(), Some(CONFIG));
    let said = stderr(&output);
    for words in ["--engine", "otter.toml:2: unknown field `colour`", "heron.toml:1: "] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!dir.path().join(".agentworkforce").exists(), "a refused start left a directory");
}

#[test]
fn rule_sets_are_listed_and_shown_with_where_they_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let harness = dir.path().join(".config/relay-broker/harness");
    fs::create_dir_all(&harness).unwrap();
    let text = "name = 'otter'\nmatch = ['otter']\n[composer]\nkind = 'always'\n";
    fs::write(harness.join("otter.toml"), text).unwrap();
    let output = run(dir.path(), &["harness", "list"]);
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = |name: &str| listed.lines().find(|row| row.starts_with(name)).unwrap().to_owned();
    assert!(row("plain ").ends_with("built in") && row("plain ").contains("consumed"), "{listed}");
    assert!(row("otter ").ends_with("harness/otter.toml") && row("otter ").contains("submitted"), "{listed}");
    let output = run(dir.path(), &["harness", "show", "otter"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), text);
    let output = run(dir.path(), &["harness", "show", "heron"]);
    assert_eq!(output.status.code(), Some(NOT_FOUND));
    assert!(stderr(&output).contains("harness list"), "{}", stderr(&output));
}

#[test]
fn a_rule_set_is_checked_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let good = "name = 'otter'\n[composer]\nkind = 'always'\n";
    fs::write(dir.path().join("otter.toml"), good).unwrap();
    assert_eq!(run(dir.path(), &["harness", "check", "otter.toml"]).status.code(), Some(0));
    let bad = format!("{good}[busy]\nsteer = 'interrupt'\n[records]\ndirs = []\nfile = 'x'\n");
    fs::write(dir.path().join("otter.toml"), bad).unwrap();
    let output = run(dir.path(), &["harness", "check", "otter.toml"]);
    assert_eq!(output.status.code(), Some(CONFIG));
    let said = stderr(&output);
    assert!(said.contains("otter.toml:5: ") && said.contains("otter.toml:7: "), "{said}");
    assert_eq!(run(dir.path(), &["harness", "check", "none.toml"]).status.code(), Some(1));
}

#[test]
fn a_named_configuration_file_must_exist() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["up", "--config", "none.toml"]);
    assert_eq!(output.status.code(), Some(CONFIG));
    assert!(stderr(&output).contains("none.toml: cannot be read"), "{}", stderr(&output));
}

#[test]
fn a_program_that_starts_a_broker_meets_one_code_for_every_failure() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let cases: [&[&str]; 3] = [
        &["init", "--workspace-key", "not-a-key"],
        &["init", "--api-bind", "0.0.0.0"],
        &["init", "--local-only", "--state-dir", "file/below"],
    ];
    for args in cases {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let said = stderr(&output);
        assert!((1..=8).contains(&said.lines().count()), "{said}");
    }
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let output = run(dir.path(), &["up", "--state-dir", "file/below"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("file/below") && said.contains("--state-dir"), "{said}");
}

#[test]
fn every_command_has_help_on_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["--help"]);
    assert!(output.status.success());
    for command in ["up", "spawn", "ps", "send", "release", "explain", "actors", "demo", "init", "down"] {
        let output = run(dir.path(), &[command, "--help"]);
        assert!(output.status.success(), "{command}");
        assert!(output.stderr.is_empty(), "{command}");
    }
}
