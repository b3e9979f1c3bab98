//! What of an agent's output may act on the terminal of a person who watches it.
//!
//! Pictures may. Questions may not: the answers would be typed into the agent, which has them from the broker
//! already. The clipboard and the window are the person's own. Who only watches also keeps the keyboard and the
//! mouse as they are.

use crate::escape::{self, Unit};

/// A sequence that is longer than this is dropped.
const SEQUENCE_MAX: usize = 1 << 20;
/// Private modes that change what the keyboard and the mouse send: cursor keys, keypad, mouse reports, focus
/// reports, pastes.
const INPUT_MODES: [&[u8]; 14] = [
    b"1", b"9", b"66", b"1000", b"1001", b"1002", b"1003", b"1004", b"1005", b"1006", b"1007", b"1015",
    b"1016", b"2004",
];
/// Private modes by which a terminal reports on its own: colour scheme, size.
const REPORT_MODES: [&[u8]; 2] = [b"2031", b"2048"];
/// Private modes that show another screen.
const OTHER_SCREEN: [&[u8]; 3] = [b"47", b"1047", b"1049"];
const ENQ: u8 = 0x05;

/// The filter, between two pieces of output.
#[derive(Debug)]
pub(super) struct Filter {
    /// The keyboard is the agent's, too.
    drives: bool,
    begun: Vec<u8>,
    on_other_screen: bool,
}

impl Filter {
    /// For somebody who watches, or drives.
    pub(super) fn new(drives: bool) -> Self {
        Self { drives, begun: Vec::new(), on_other_screen: false }
    }

    /// True when the terminal shows its other screen.
    pub(super) fn is_on_other_screen(&self) -> bool {
        self.on_other_screen
    }

    /// What may be shown of this output.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut held = std::mem::take(&mut self.begun);
        held.extend_from_slice(bytes);
        let mut shown = Vec::with_capacity(held.len());
        let mut whole = 0;
        for (unit, len) in escape::units(&held) {
            self.take(unit, &held[whole..whole + len], &mut shown);
            whole += len;
        }
        held.drain(..whole);
        if held.len() <= SEQUENCE_MAX {
            self.begun = held;
        }
        shown
    }

    fn take(&mut self, unit: Unit<'_>, raw: &[u8], shown: &mut Vec<u8>) {
        let passes = match unit {
            Unit::Text(_) => true,
            Unit::Control(control) => control != ENQ,
            Unit::Csi(inside, end @ (b'h' | b'l')) if inside.starts_with(b"?") => {
                return self.take_modes(&inside[1..], end, shown);
            }
            Unit::Csi(inside, end) => may_act(inside, end),
            Unit::String(b']', inside) => !inside.starts_with(b"52;") && !inside.ends_with(b"?"),
            Unit::String(b'P', inside) => !inside.starts_with(b"$q") && !inside.starts_with(b"+q"),
            Unit::String(..) => true,
            // DECID asks; the keypad is the keyboard's.
            Unit::Escape(b"\x1bZ") => false,
            Unit::Escape(b"\x1b=" | b"\x1b>") => self.drives,
            Unit::Escape(_) => true,
        };
        if passes {
            shown.extend_from_slice(raw);
        }
    }

    fn take_modes(&mut self, modes: &[u8], end: u8, shown: &mut Vec<u8>) {
        // Leaving the other screen without being there moves the cursor.
        let leaves_nothing = end == b'l' && !self.on_other_screen;
        let passes = |mode: &&[u8]| {
            let held_back = REPORT_MODES.contains(mode)
                || (!self.drives && INPUT_MODES.contains(mode))
                || (leaves_nothing && OTHER_SCREEN.contains(mode));
            !held_back
        };
        let passed: Vec<&[u8]> = modes.split(|byte| *byte == b';').filter(passes).collect();
        if passed.iter().any(|mode| OTHER_SCREEN.contains(mode)) {
            self.on_other_screen = end == b'h';
        }
        if !passed.is_empty() {
            shown.extend_from_slice(b"\x1b[?");
            shown.extend_from_slice(&passed.join(&b';'));
            shown.push(end);
        }
    }
}

/// Whether a control sequence is neither a question nor about the person's window or keyboard.
fn may_act(inside: &[u8], end: u8) -> bool {
    let marked = inside.first().is_some_and(|first| (b'<'..=b'?').contains(first));
    match end {
        // Broken off; attributes, status, parameters and window questions.
        0 | b'c' | b'n' | b'x' | b't' => false,
        // The version; the cursor's style may be set.
        b'q' => !marked,
        // The protocols of the keyboard, as against colours and the saved cursor.
        b'm' | b'u' => !marked,
        // Questions for a mode.
        b'p' => !inside.contains(&b'$'),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(drives: bool, output: &str) -> String {
        String::from_utf8(Filter::new(drives).pass(output.as_bytes())).unwrap()
    }

    #[test]
    fn pictures_pass_and_questions_do_not() {
        for picture in [
            "plain é\r\n\t\x08",
            "\x1b[1;31mred\x1b[m\x1b[2J\x1b[3;4H\x1b[K\x1b[2;5r\x1b[?25l\x1b[?2026h\x1b[4 q",
            "\x1b]2;title\x1b\\\x1b]8;;http://x\x07link\x1b]8;;\x07\x1b7\x1b8\x1b(B\x1b[u\x1b[!p",
        ] {
            for drives in [true, false] {
                assert_eq!(passed(drives, picture), picture);
            }
        }
        for question in [
            "\x1b[c",
            "\x1b[>c",
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[14t",
            "\x1b[>q",
            "\x1b[?2026$p",
            "\x1b[?u",
            "\x1b]10;?\x1b\\",
            "\x1b]11;?\x07",
            "\x1b]4;1;?\x07",
            "\x1bP+q544e\x1b\\",
            "\x1bP$qm\x1b\\",
            "\x1bZ",
            "\x05",
            "\x1b[x",
            "\x1b]52;c;?\x07",
            "\x1b]52;c;aGk=\x07",
            "\x1b[>1u",
            "\x1b[>4;2m",
            "\x1b[8;10;10t",
            "\x1b[?2031h",
        ] {
            for drives in [true, false] {
                assert_eq!(passed(drives, &format!("a{question}b")), "ab", "{question:?}");
            }
        }
    }

    #[test]
    fn who_only_watches_keeps_keyboard_and_mouse() {
        let output = "\x1b[?1000;25;1006h\x1b[?2004h\x1b=\x1b[?1h";
        assert_eq!(passed(false, output), "\x1b[?25h");
        assert_eq!(passed(true, output), output);
    }

    #[test]
    fn a_sequence_in_pieces_is_one_and_the_other_screen_is_known() {
        let mut filter = Filter::new(false);
        assert_eq!(filter.pass(b"\x1b[?1049l"), b"", "it is not there");
        assert_eq!(filter.pass(b"a\x1b[?10"), b"a");
        assert_eq!(filter.pass(b"49h\xe2\x82"), b"\x1b[?1049h");
        assert!(filter.is_on_other_screen());
        assert_eq!(filter.pass(b"\xac\x1b[6"), "€".as_bytes());
        assert_eq!(filter.pass(b"nb\x1b[?1049l"), b"b\x1b[?1049l");
        assert!(!filter.is_on_other_screen());
        filter.pass(b"\x1b]52;c;");
        assert!(filter.pass(&vec![b'x'; SEQUENCE_MAX + 1]).is_empty());
    }
}
