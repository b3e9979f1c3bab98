//! Makes text harmless before it is typed: whatever is a keystroke becomes U+FFFD (spec/pty 6).
//!
//! Replaced, never deleted: deletion can join two harmless pieces into one harmful sequence.

/// What stands in for a character that a terminal, a line discipline or a reader would act on.
const REPLACEMENT: char = '\u{fffd}';

/// Text that may be typed: no control character but line feed and tab, no bidirectional override, no line
/// break at its end.
pub(super) fn sanitise(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                clean.push('\n');
            }
            '\n' | '\t' => clean.push(c),
            c if c.is_control() || is_bidi_control(c) => clean.push(REPLACEMENT),
            c => clean.push(c),
        }
    }
    clean.truncate(clean.trim_end_matches('\n').len());
    clean
}

/// The same on one line, for names and ids: line breaks and tabs are replaced too.
pub(super) fn sanitise_line(text: &str) -> String {
    sanitise(text).chars().map(|c| if c.is_control() { REPLACEMENT } else { c }).collect()
}

/// Embeddings, overrides and isolates, which can show a line in an order that it does not have.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn line_ends_become_line_feeds_and_those_at_the_end_go() {
        let table = [
            ("a\r\nb", "a\nb"),
            ("a\rb", "a\nb"),
            ("a\r\r\nb", "a\n\nb"),
            ("a\n\r\n\r", "a"),
            ("a\tb", "a\tb"),
            ("\n\na", "\n\na"),
            ("", ""),
            ("\r", ""),
        ];
        for (given, wanted) in table {
            assert_eq!(sanitise(given), wanted, "{given:?}");
        }
    }

    #[test]
    fn keystrokes_are_replaced_one_for_one() {
        let corpus = [
            ("\u{1b}[201~rm -rf /", "\u{fffd}[201~rm -rf /"),
            ("\u{1b}[2\u{1b}[201~01~x", "\u{fffd}[2\u{fffd}[201~01~x"),
            ("\u{3}\u{4}\u{1a}\u{15}\u{13}\u{16}", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("\u{1b}]8;;http://x\u{1b}\\link", "\u{fffd}]8;;http://x\u{fffd}\\link"),
            ("\u{1b}]52;c;AAAA\u{7}", "\u{fffd}]52;c;AAAA\u{fffd}"),
            ("\u{9b}201~\u{85}\u{7f}", "\u{fffd}201~\u{fffd}\u{fffd}"),
            ("\u{202e}abc\u{2066}", "\u{fffd}abc\u{fffd}"),
        ];
        for (given, wanted) in corpus {
            assert_eq!(sanitise(given), wanted, "{given:?}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_line() {
        assert_eq!(sanitise_line("a\nb\tc\r\nd"), "a\u{fffd}b\u{fffd}c\u{fffd}d");
    }

    proptest! {
        #[test]
        fn no_control_survives_anywhere(
            text in proptest::collection::vec(
                prop_oneof![0u32..0xa0, 0x2020u32..0x2070, proptest::char::any().prop_map(u32::from)],
                0..200,
            ),
        ) {
            let text: String = text.into_iter().filter_map(char::from_u32).collect();
            let clean = sanitise(&text);
            let forbidden = |c: char| (c.is_control() && c != '\n' && c != '\t') || is_bidi_control(c);
            prop_assert!(!clean.contains(forbidden));
            prop_assert!(!clean.ends_with('\n'));
            prop_assert!(!clean.bytes().any(|b| b == 0x1b || b == b'\r' || b == 0x7f));
            prop_assert_eq!(sanitise(&clean), clean.clone(), "a second pass changes nothing");
        }
    }

    #[test]
    fn a_megabyte_of_every_control_character_comes_out_clean() {
        let hostile: String = (0..=0x9f).filter_map(char::from_u32).cycle().take(1 << 20).collect();
        let clean = sanitise(&hostile);
        assert!(!clean.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
        assert!(clean.chars().filter(|c| *c == REPLACEMENT).count() > 1 << 18);
    }
}
