//! The parser leaves U+FFFD out, and with it the column that every terminal gives it: what a program draws after one
//! would stand in the wrong place. Another character of the same width goes in for it, and comes out as U+FFFD again.

use std::borrow::Cow;

/// What the parser gets for U+FFFD: a noncharacter, which no program may draw (Unicode 23.7).
const STAND_IN: char = '\u{fdd0}';

const REPLACEMENT: [u8; 3] = [0xef, 0xbf, 0xbd];
const STAND_IN_BYTES: [u8; 3] = [0xef, 0xb7, 0x90];

/// Output on its way to the parser.
#[derive(Debug, Default)]
pub(super) struct StandIn {
    /// Bytes of a U+FFFD, or of another character that begins like one, that the last piece ended with.
    held: usize,
}

impl StandIn {
    /// The piece with the stand-in, without what may be the beginning of a U+FFFD at its end.
    pub(super) fn pass<'a>(&mut self, piece: &'a [u8]) -> Cow<'a, [u8]> {
        if self.held == 0 && !piece.contains(&REPLACEMENT[0]) {
            return Cow::Borrowed(piece);
        }
        let mut all = [&REPLACEMENT[..self.held], piece].concat();
        self.held = [2, 1].into_iter().find(|held| all.ends_with(&REPLACEMENT[..*held])).unwrap_or(0);
        all.truncate(all.len() - self.held);
        let mut at = 0;
        while let Some(rest) = all.get_mut(at..at + REPLACEMENT.len()) {
            if rest == REPLACEMENT {
                rest.copy_from_slice(&STAND_IN_BYTES);
            }
            at += 1;
        }
        Cow::Owned(all)
    }
}

/// Text from the parser, with U+FFFD where the program has drawn it.
pub(super) fn restored(text: String) -> String {
    if text.contains(STAND_IN) { text.replace(STAND_IN, "\u{fffd}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_replacement_character_is_replaced_however_the_output_is_cut() {
        let given = "a\u{fffd}\u{fffd}b\u{fffc}\u{ffe6}\u{ef}c\u{fffd}";
        let wanted = given.replace(char::REPLACEMENT_CHARACTER, "\u{fdd0}");
        for size in 1..=given.len() {
            let mut stand_in = StandIn::default();
            let shown: Vec<u8> =
                given.as_bytes().chunks(size).flat_map(|piece| stand_in.pass(piece).into_owned()).collect();
            let shown = String::from_utf8(shown).unwrap();
            assert_eq!(shown, wanted, "in pieces of {size}");
            assert_eq!(restored(shown), given);
        }
        assert_eq!(STAND_IN.to_string().as_bytes(), STAND_IN_BYTES);
    }

    #[test]
    fn output_without_one_is_not_copied() {
        assert!(matches!(StandIn::default().pass("plain é €".as_bytes()), Cow::Borrowed(_)));
    }
}
