//! Programs without a composer: what they have read is the proof.

use nix::sys::signal::Signal;

use crate::{
    stage::{Piece, Stage, assert_shows, shows_flat},
    support::processes,
};

const BY_READING: [&str; 2] = ["consumed", "consumed"];

#[test]
fn never_reads_gets_no_ack_until_it_reads() {
    for (args, end) in [(&[][..], "\r"), (&["canonical"], "\n")] {
        let stage = Stage::new();
        let tui = stage.start("never_reads", args);
        tui.until_state("idle");
        let told = tui.tell("are you there?");
        tui.until_state("not_reading");
        tui.has_nothing();
        processes::signal(tui.pid, Signal::SIGUSR1);
        assert_eq!(tui.acks(&told), BY_READING);
        let read = String::from_utf8(tui.read()).unwrap();
        let line = read.strip_suffix(end).unwrap();
        assert!(shows_flat(line, &told), "{read:?}");
        drop(tui);
        stage.over();
    }
}

#[test]
fn slow_reader_is_acked_for_when_it_has_read_the_last_byte() {
    let stage = Stage::new();
    let tui = stage.start("slow_reader", &[]);
    let (told, rungs) = tui.takes("all of this must be read. ".repeat(80).trim());
    assert_eq!(rungs, BY_READING);
    let pieces = tui.pieces();
    let [Piece::Keys(text), Piece::Enter] = &pieces[..] else { panic!("{pieces:?}") };
    assert!(shows_flat(text, &told), "{text:?}");
    let notes = tui.notes();
    tui.acked_after(notes.last().unwrap(), &told);
    drop(tui);
    stage.over();
}

#[test]
fn echo_raw_is_given_one_line_for_each_message() {
    let stage = Stage::new();
    let tui = stage.start("echo_raw", &[]);
    let told = ["first", "second\nof two lines"].map(|body| {
        let (told, rungs) = tui.takes(body);
        assert_eq!(rungs, BY_READING);
        told
    });
    let pieces = tui.pieces();
    let [Piece::Keys(first), Piece::Enter, Piece::Keys(second), Piece::Enter] = &pieces[..] else {
        panic!("{pieces:?}")
    };
    assert!(shows_flat(first, &told[0]) && shows_flat(second, &told[1]), "{pieces:?}");
    drop(tui);
    stage.over();
}

#[test]
fn canonical_cat_gets_long_text_in_lines_that_the_kernel_keeps() {
    let stage = Stage::new();
    let tui = stage.start("canonical_cat", &[]);
    let (short, rungs) = tui.takes("one\ntwo");
    assert_eq!(rungs, BY_READING);
    // Longer than the 4095 bytes that the kernel keeps of a line, and cut inside its three-byte characters.
    let (long, rungs) = tui.takes(&"€".repeat(4000));
    assert_eq!(rungs, BY_READING);
    let lines = tui.turns();
    assert_shows(&lines[0], &short);
    assert!(lines[1..].iter().all(|line| line.len() < 4095), "{:?}", lines.iter().map(String::len));
    let whole: String = lines[1..].iter().map(|line| line.trim_matches('…')).collect();
    assert_shows(&whole, &long);
    assert!(tui.noted("end of input").is_empty());
    drop(tui);
    stage.over();
}

#[test]
fn no_2004_repl_is_given_one_statement_and_no_paste_markers() {
    let stage = Stage::new();
    let tui = stage.start("no_2004_repl", &[]);
    let told = ["first\nof two lines", "second"].map(|body| {
        let (told, rungs) = tui.takes(body);
        assert_eq!(rungs, BY_READING);
        told
    });
    let turns = tui.until_noted("turn", 2);
    assert_eq!(turns.len(), 2, "{turns:?}");
    for (turn, told) in turns.iter().zip(&told) {
        assert!(shows_flat(turn, told), "{turn:?}");
    }
    assert!(!tui.read().contains(&0x1b));
    drop(tui);
    stage.over();
}
