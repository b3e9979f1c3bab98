//! What a terminal answers when a program asks: a pure rule from the question to bytes.
//!
//! A program that gets no answer waits and then draws without knowledge (codex: 0.73 s instead of 0.23 s,
//! spec/pty 4.1). Nothing here repeats a part of the question, so that no output can choose what is typed.

/// What the answers depend on.
pub(super) struct Terminal<'a> {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
    /// Cursor row and column, first is 0.
    pub cursor: (u16, u16),
    /// Private modes that are known, and whether they are on.
    pub modes: &'a [(u16, bool)],
}

/// The most bytes of answers to one piece of output.
const ANSWERS_MAX: usize = 4 << 10;
/// A cell's size in pixels, for programs that ask for the window's.
const CELL: (u32, u32) = (16, 8);

/// Answers a control sequence `CSI first param second end`.
pub(super) fn csi(
    marks: [Option<u8>; 2],
    param: u16,
    end: char,
    terminal: &Terminal<'_>,
    answers: &mut Vec<u8>,
) {
    let (row, col) = (terminal.cursor.0 + 1, terminal.cursor.1 + 1);
    let answer = match (marks, end, param) {
        // Primary attributes: a VT220 with colour.
        ([None, None], 'c', 0) => "\x1b[?62;22c".to_owned(),
        // Secondary attributes: no model, no version.
        ([Some(b'>'), None], 'c', 0) => "\x1b[>0;0;0c".to_owned(),
        ([None, None], 'n', 5) => "\x1b[0n".to_owned(),
        ([None, None], 'n', 6) => format!("\x1b[{row};{col}R"),
        ([Some(b'?'), None], 'n', 6) => format!("\x1b[?{row};{col}R"),
        // No kitty keyboard flags are set: keys are sent in the old way.
        ([Some(b'?'), None], 'u', _) => "\x1b[?0u".to_owned(),
        ([Some(b'>'), None], 'q', 0) => {
            concat!("\x1bP>|relay-broker(", env!("CARGO_PKG_VERSION"), ")\x1b\\").to_owned()
        }
        ([None, None], 't', 14) => {
            let (height, width) = (u32::from(terminal.rows) * CELL.0, u32::from(terminal.cols) * CELL.1);
            format!("\x1b[4;{height};{width}t")
        }
        ([None, None], 't', 16) => format!("\x1b[6;{};{}t", CELL.0, CELL.1),
        ([None, None], 't', 18) => format!("\x1b[8;{};{}t", terminal.rows, terminal.cols),
        ([Some(b'?'), Some(b'$')], 'p', mode) => {
            let known = terminal.modes.iter().find(|(number, _)| *number == mode);
            let state = known.map_or(0, |(_, on)| if *on { 1 } else { 2 });
            format!("\x1b[?{mode};{state}$y")
        }
        _ => return,
    };
    push(answers, &answer);
}

/// Answers a question for a colour: a dark theme.
pub(super) fn osc(code: &[u8], answers: &mut Vec<u8>) {
    match code {
        b"10" => push(answers, "\x1b]10;rgb:e0e0/e0e0/e0e0\x1b\\"),
        b"11" => push(answers, "\x1b]11;rgb:1010/1010/1010\x1b\\"),
        b"12" => push(answers, "\x1b]12;rgb:e0e0/e0e0/e0e0\x1b\\"),
        _ => {}
    }
}

fn push(answers: &mut Vec<u8>, answer: &str) {
    if answers.len() + answer.len() <= ANSWERS_MAX {
        answers.extend_from_slice(answer.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMINAL: Terminal<'_> =
        Terminal { rows: 40, cols: 120, cursor: (3, 7), modes: &[(2004, true), (1049, false)] };

    #[test]
    fn each_question_has_its_answer() {
        let table: [([Option<u8>; 2], u16, char, &str); 12] = [
            ([None, None], 0, 'c', "\x1b[?62;22c"),
            ([Some(b'>'), None], 0, 'c', "\x1b[>0;0;0c"),
            ([None, None], 5, 'n', "\x1b[0n"),
            ([None, None], 6, 'n', "\x1b[4;8R"),
            ([Some(b'?'), None], 6, 'n', "\x1b[?4;8R"),
            ([Some(b'?'), None], 0, 'u', "\x1b[?0u"),
            ([None, None], 14, 't', "\x1b[4;640;960t"),
            ([None, None], 18, 't', "\x1b[8;40;120t"),
            ([Some(b'?'), Some(b'$')], 2004, 'p', "\x1b[?2004;1$y"),
            ([Some(b'?'), Some(b'$')], 1049, 'p', "\x1b[?1049;2$y"),
            ([Some(b'?'), Some(b'$')], 9999, 'p', "\x1b[?9999;0$y"),
            ([Some(b'>'), None], 7, 'u', ""),
        ];
        for (marks, param, end, wanted) in table {
            let mut answers = Vec::new();
            csi(marks, param, end, &TERMINAL, &mut answers);
            assert_eq!(String::from_utf8(answers).unwrap(), wanted, "{marks:?} {param} {end}");
        }
        let mut answers = Vec::new();
        csi([Some(b'>'), None], 0, 'q', &TERMINAL, &mut answers);
        assert!(answers.starts_with(b"\x1bP>|relay-broker(") && answers.ends_with(b")\x1b\\"));
        for code in [b"10", b"11", b"12"] {
            answers.clear();
            osc(code, &mut answers);
            assert!(answers.starts_with(&[b"\x1b]", &code[..], b";rgb:"].concat()));
        }
    }

    #[test]
    fn a_flood_of_questions_is_not_answered_without_end() {
        let mut answers = Vec::new();
        for _ in 0..10_000 {
            csi([None, None], 6, 'n', &TERMINAL, &mut answers);
        }
        assert!(answers.len() <= ANSWERS_MAX);
    }
}
