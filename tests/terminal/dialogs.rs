//! Programs that want an answer which no message is.

use std::{fs, os::unix::fs::PermissionsExt};

use relay_broker::harness::Recording;
use serde_json::json;

use crate::{
    stage::Stage,
    support::house::{program, run},
};

#[test]
fn dialog_then_prompt_is_blocked_until_somebody_answers() {
    let stage = Stage::new();
    let tui = stage.start("dialog_then_prompt", &[]);
    tui.until_state("blocked");
    let told = tui.tell("now count the boats");
    stage.events.wait("delivery_queued", &tui.name);
    assert!(tui.read().is_empty(), "{:?}", tui.notes());
    tui.has_nothing();

    tui.types("1");
    assert_eq!(tui.acks(&told), ["landed", "submitted"]);
    assert_eq!(tui.noted("chosen"), ["Trust this folder and go on"]);
    let (answer, rest) = tui.read().split_first().map(|(first, rest)| (*first, rest.to_vec())).unwrap();
    assert_eq!(answer, b'1');
    assert!(rest.starts_with(b"\x1b[200~[relay DM"), "{:?}", tui.pieces());
    assert_eq!((tui.turns().len(), tui.enters()), (1, 1));
    drop(tui);
    stage.over();
}

/// What is known of the question, and which keys answer it.
const TRUSTER: &str = r#"
name = "truster"
inherits = "generic"
composer = { kind = "always" }

[[blocked]]
id = "trust"
region = "bottom:16"
all = ["Do you trust the files in this folder?"]
severity = "setup"
answer = { trust = "1", leave = "down enter" }
"#;

#[test]
fn dialog_then_prompt_is_answered_by_the_name_of_a_choice() {
    let stage = Stage::with_rules("truster", TRUSTER);
    let tui = stage.start_as("dialog_then_prompt", &[], "truster");
    tui.until_state("blocked");
    let told = tui.tell("now count the boats");
    stage.events.wait("delivery_queued", &tui.name);
    let path = format!("/api/spawned/{}/answer", tui.name);
    let answer = |choice: &str| stage.house.call("POST", &path, Some(&json!({ "choice": choice })));
    assert_eq!(answer("whatever").status, 400);
    assert!(tui.read().is_empty(), "{:?}", tui.notes());
    tui.has_nothing();

    let answered = answer("trust");
    assert_eq!(answered.status, 200, "{}", answered.text);
    tui.acks(&told);
    assert_eq!(tui.noted("chosen"), ["Trust this folder and go on"]);
    assert_eq!((tui.read()[0], tui.turns().len(), tui.enters()), (b'1', 1, 1));
    let again = answer("trust");
    assert_eq!((again.status, again.json()["code"].as_str()), (409, Some("no_dialog")), "{}", again.text);
    drop(tui);
    stage.over();
}

#[test]
fn a_dialog_is_recorded_from_the_screen_of_the_agent_that_asks() {
    let stage = Stage::with_rules("truster", TRUSTER);
    let known = stage.start_as("dialog_then_prompt", &[], "truster");
    let unknown = stage.start_as("dialog_then_prompt", &["unknown"], "auto");
    let dir = tempfile::tempdir().unwrap();
    let state = stage.house.connection_file();
    let record = |name: &str| {
        let mut command = program(stage.house.dir());
        command.args(["harness", "record", name, "--state", "blocked:trust", "--dir"]).arg(dir.path());
        run(command.arg("--state-dir").arg(state.parent().unwrap()))
    };
    for (tui, judged_by) in [(&known, "truster"), (&unknown, "unknown")] {
        tui.until_state("blocked");
        let (code, said, failed) = record(&tui.name);
        assert_eq!(code, Some(0), "{failed}");
        let file = said.split_whitespace().next().unwrap();
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        let recording: Recording = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(recording.harness, judged_by);
        assert_eq!((recording.version.as_str(), recording.state.as_str()), ("?", "blocked:trust"));
        assert!(!recording.typed && recording.modes.contains(&"bracketed_paste".to_owned()), "{recording:?}");
        let screen = recording.screen.join("\n");
        assert!(screen.contains("Do you trust the files in this folder?"), "{screen}");
        assert_ne!(recording.screen.last().map(|row| row.trim()), Some(""), "{recording:?}");
    }
    let (code, _, failed) = record(&known.name);
    assert_eq!(code, Some(1), "the same screen again");
    assert!(failed.contains("exists already"), "{failed}");
    let (code, _, failed) = record("nobody");
    assert_eq!(code, Some(6), "{failed}");
    drop((known, unknown));
    stage.over();
}
