//! Programs with a composer, each hard to type into in a way of its own.

use crate::stage::{Piece, Stage, assert_shows, shows_flat};

const SHORT: &str = "please look at the failing build";
const LINES: &str = "three things:\n\n  1. the log\n\t2. the tests\n3. naïve “quotes” — and 🦀";

/// What is told of a message into a composer.
const BY_SCREEN: [&str; 2] = ["landed", "submitted"];

const DIALOG: &str = "Action Required\nAllow once\nEXECUTE rm -rf build, impact: high\n❯ 1. Yes, allow\n  2. No (y/n)\nEnter to confirm";

fn takes_three(program: &str) {
    let stage = Stage::new();
    let tui = stage.start(program, &[]);
    let told = [SHORT, LINES, "once more"].map(|body| {
        let (told, rungs) = tui.takes(body);
        assert_eq!(rungs, BY_SCREEN);
        told
    });
    tui.got_each_in_a_paste(&told.each_ref());
    drop(tui);
    stage.over();
}

#[test]
fn ink_guard_takes_every_message_although_it_ignores_early_enters() {
    takes_three("ink_guard");
}

#[test]
fn utf8_split_takes_every_message_byte_by_byte() {
    takes_three("utf8_split");
}

#[test]
fn prompt_rows_takes_every_message_with_its_prompt_before_each_row() {
    takes_three("prompt_rows");
}

#[test]
fn prints_slash_exit_lives_on_and_takes_the_next_message() {
    takes_three("prints_slash_exit");
}

#[test]
fn burst_guard_takes_text_without_paste_markers() {
    let stage = Stage::new();
    // It owns the screen and takes no pastes: only whoever names it has it typed into.
    let tui = stage.start_as("burst_guard", &[], "generic");
    let told = [SHORT, LINES].map(|body| {
        let (told, rungs) = tui.takes(body);
        assert_eq!(rungs, BY_SCREEN);
        told
    });
    let pieces = tui.pieces();
    let [Piece::Keys(first), Piece::Enter, Piece::Keys(second), Piece::Enter] = &pieces[..] else {
        panic!("{pieces:?}")
    };
    assert!(shows_flat(first, &told[0]), "{first:?}");
    assert!(shows_flat(second, &told[1]), "{second:?}");
    assert_eq!(tui.turns(), [first.as_str(), second]);
    drop(tui);
    stage.over();
}

#[test]
fn boot_eater_takes_a_message_that_came_while_it_was_starting() {
    let stage = Stage::new();
    let tui = stage.start("boot_eater", &[]);
    let (told, rungs) = tui.takes(SHORT);
    assert_eq!(rungs, BY_SCREEN);
    let turns = tui.turns();
    assert_eq!(turns.len(), 1, "{turns:?}");
    assert_shows(&turns[0], &told);
    assert_eq!(tui.enters(), 1, "no Enter was pressed for a text that did not show");
    drop(tui);
    stage.over();
}

#[test]
fn asks_queries_is_answered_between_messages_and_never_inside_of_one() {
    let stage = Stage::new();
    let tui = stage.start("asks_queries", &[]);
    let told = [SHORT, LINES].map(|body| tui.takes(body).0);
    let turns = tui.turns();
    assert_eq!(turns.len(), 2, "{turns:?}");
    for (turn, told) in turns.iter().zip(&told) {
        assert_shows(turn, told);
    }
    // Six questions at the start, and at least as many for each text and each turn.
    let answers = tui.until_noted("answer", 18);
    assert!(answers.len().is_multiple_of(6), "{answers:?}");
    // What is neither an answer nor a message nor its Enter was sent by nobody.
    let pieces = tui.pieces();
    let pastes = pieces.iter().filter(|piece| matches!(piece, Piece::Paste(_))).count();
    let keys: String = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Keys(keys) => Some(keys.as_str()),
            Piece::Paste(_) | Piece::Enter => None,
        })
        .collect();
    let answered: usize = answers.iter().map(|hex| hex.len() / 2).sum();
    assert_eq!((pastes, tui.enters(), keys.len()), (2, 2, answered), "{pieces:?}");
    drop(tui);
    stage.over();
}

#[test]
fn quotes_dialog_text_is_answered_by_nobody() {
    let stage = Stage::new();
    let tui = stage.start("quotes_dialog_text", &[]);
    let told = [DIALOG, SHORT, DIALOG].map(|body| tui.takes(body).0);
    tui.got_each_in_a_paste(&told.each_ref());
    drop(tui);
    stage.over();
}

#[test]
fn bash_takes_a_message_that_is_taller_than_its_screen() {
    let stage = Stage::new();
    let args = ["--norc", "--noprofile", "-i"].map(str::to_owned);
    let tui = stage.run("bash", "bash", &args, "auto", &[("HISTFILE", "/dev/null"), ("PS1", "$ ")]);
    tui.until_state("idle");
    // The first message ends with a hint, which identifies it alone.
    for body in [SHORT.to_owned(), (0..90).map(|n| format!(": {n}\n")).collect()] {
        let (_, rungs) = tui.takes(&body);
        assert_eq!(rungs, BY_SCREEN);
    }
    drop(tui);
    stage.over();
}

#[test]
fn a_shell_without_pastes_takes_messages_again_after_a_program_had_its_screen() {
    let stage = Stage::new();
    let script = r#"printf '\033[?1049hpages'; sleep 0.3; printf '\033[?1049l$ '; exec cat"#;
    let args = ["-c", script].map(str::to_owned);
    let tui = stage.run("pager", "sh", &args, "auto", &[]);
    assert_eq!(tui.takes(SHORT).1, ["consumed", "consumed"]);
    drop(tui);
    stage.over();
}
