//! Programs in the middle of a turn.

use nix::sys::signal::Signal;

use crate::{
    stage::{Stage, Tui},
    support::processes,
};

/// gemini and codex say it in the title.
const BY_TITLE: &str = r#"
name = "by-title"
inherits = "generic"
composer = { kind = "always" }

[[working]]
id = "title"
region = "title"
any = ["Working"]
"#;

#[test]
fn title_only_state_is_not_typed_into_during_a_turn() {
    let stage = Stage::with_rules("by-title", BY_TITLE);
    let tui = stage.start_as("title_only_state", &[], "by-title");
    let told = ["first", "second"].map(|body| tui.tell(body));
    for told in &told {
        tui.acks(told);
    }
    assert!(tui.noted("while busy").is_empty(), "{:?}", tui.notes());
    tui.got_each_in_a_paste(&told.each_ref());
    // The second one was typed when the first one's turn had ended, and not before.
    let notes = tui.notes();
    let ended = notes.iter().position(|note| note.kind == "turn ended").unwrap();
    let read = |note: &&crate::stage::Note| note.kind == "read";
    assert_eq!(notes[..ended].iter().filter(read).count(), 2, "one paste and one Enter: {notes:?}");
    drop(tui);
    stage.over();
}

fn end_turn(tui: &Tui<'_>, turns: usize) {
    processes::signal(tui.pid, Signal::SIGUSR1);
    tui.until_noted("turn ended", turns);
}

#[test]
fn steer_vs_tab_is_given_nothing_during_a_turn_by_rules_that_know_no_key_for_it() {
    let stage = Stage::new();
    let tui = stage.start("steer_vs_tab", &[]);
    let (first, _) = tui.takes("begin");
    tui.until_state("working");
    let second = tui.tell("and then this");
    stage.house.get("/health");
    end_turn(&tui, 1);
    tui.acks(&second);
    tui.got_each_in_a_paste(&[&first, &second]);
    assert!(tui.noted("steered").is_empty() && tui.noted("queued").is_empty());
    drop(tui);
    stage.over();
}
