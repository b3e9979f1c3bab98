//! Programs in the middle of a turn.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::{
    stage::{Piece, Stage, Tui, assert_shows},
    support::{expect, processes, until},
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
    let told = ["first", "second"].map(|body| tui.takes(body).0);
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
    until("it waits in the worker", || {
        let agent = tui.explained();
        expect(agent["state"]["queued"] == 1, || agent.to_string())
    });
    end_turn(&tui, 1);
    tui.acks(&second);
    tui.got_each_in_a_paste(&[&first, &second]);
    assert!(tui.noted("steered").is_empty() && tui.noted("queued").is_empty());
    drop(tui);
    stage.over();
}

/// codex: Tab queues and Enter steers.
const BY_KEYS: &str = r#"
name = "by-keys"
inherits = "generic"
composer = { kind = "always" }

[busy]
queue = "tab"
steer = "enter"
"#;

#[test]
fn steer_vs_tab_is_steered_with_enter_and_queued_for_with_tab() {
    let stage = Stage::with_rules("by-keys", BY_KEYS);
    let tui = stage.start_as("steer_vs_tab", &[], "by-keys");
    let (first, _) = tui.takes("begin");
    tui.until_state("working");
    let steer = tui.tell_in_mode("the other way", "steer");
    tui.acks(&steer);
    let later = tui.tell("and then this");
    tui.acks(&later);
    let (steered, queued) = (tui.noted("steered"), tui.noted("queued"));
    assert_eq!((steered.len(), queued.len(), tui.turns().len()), (1, 1, 1), "{:?}", tui.notes());
    assert_shows(&steered[0], &steer);
    assert_shows(&queued[0], &later);
    end_turn(&tui, 1);
    let turns = tui.until_noted("turn", 2);
    assert_shows(&turns[0], &first);
    assert_eq!(turns[1], queued[0]);
    let pieces = tui.pieces();
    let [Piece::Paste(_), Piece::Enter, Piece::Paste(_), Piece::Enter, Piece::Paste(_), Piece::Keys(tab)] =
        &pieces[..]
    else {
        panic!("{pieces:?}")
    };
    assert_eq!(tab, "\t");
    drop(tui);
    stage.over();
}

/// A queue of the program's own that is used when a turn is long.
const WHEN_OVERDUE: &str = r#"
name = "when-overdue"
inherits = "generic"
composer = { kind = "always" }

[busy]
overdue = "tab"
max_wait_ms = 1500
"#;

#[test]
fn steer_vs_tab_gets_a_message_into_its_queue_when_it_has_waited_too_long_and_not_before() {
    let stage = Stage::with_rules("when-overdue", WHEN_OVERDUE);
    let tui = stage.start_as("steer_vs_tab", &[], "when-overdue");
    let (first, _) = tui.takes("begin");
    tui.until_state("working");
    let sent = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let later = tui.tell("and then this");
    tui.acks(&later);
    let queued = tui.notes().into_iter().find(|note| note.kind == "queued").unwrap();
    assert_shows(&queued.what, &later);
    assert!(Duration::from_millis(queued.at) >= sent + Duration::from_millis(1500), "{queued:?} of {sent:?}");
    assert!(tui.noted("steered").is_empty(), "{:?}", tui.notes());
    // At rest it goes in by Enter, as ever.
    end_turn(&tui, 1);
    assert_eq!(tui.until_noted("turn", 2)[1], queued.what);
    end_turn(&tui, 2);
    let third = tui.tell("at rest");
    tui.acks(&third);
    let turns = tui.turns();
    assert_shows(&turns[0], &first);
    assert_shows(&turns[2], &third);
    assert_eq!((turns.len(), tui.noted("queued").len()), (3, 1), "{:?}", tui.notes());
    drop(tui);
    stage.over();
}
