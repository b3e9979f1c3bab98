//! Where control sequences of terminal output begin and end (ECMA-48 5.4, and xterm's string sequences).
//!
//! Output is cut between its [`Unit`]s alone: half a character or half a sequence means something else to
//! whoever reads on from there.

/// The smallest piece of output that means the same to every reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    /// Characters to be shown. Bytes that are no UTF-8 are in it as they came.
    Text(&'a [u8]),
    /// A control character (C0 or DEL).
    Control(u8),
    /// `ESC [`, parameters, a final byte: the parts between the two, and the final byte. 0 for a sequence
    /// that was broken off.
    Csi(&'a [u8], u8),
    /// A string: OSC, DCS, SOS, PM or APC by its introducer (`]`, `P`, `X`, `^`, `_`), and what is in it.
    String(u8, &'a [u8]),
    /// Any other escape sequence, whole.
    Escape(&'a [u8]),
}

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
/// CAN and SUB break a sequence off.
const BREAKERS: [u8; 2] = [0x18, 0x1a];
const DEL: u8 = 0x7f;

/// The first unit and its length in bytes; `None` when the bytes end before it does.
pub fn first(bytes: &[u8]) -> Option<(Unit<'_>, usize)> {
    match *bytes {
        [] => None,
        [ESC] => None,
        [ESC, b'[', ref rest @ ..] => csi(rest),
        [ESC, kind @ (b']' | b'P' | b'X' | b'^' | b'_'), ref rest @ ..] => string(kind, rest),
        [ESC, ref rest @ ..] => {
            let shape = rest.iter().position(|byte| !(0x20..0x30).contains(byte))?;
            let ends_it = (0x30..DEL).contains(&rest[shape]);
            // Anything else breaks the sequence off and is a unit of its own.
            let len = 1 + shape + usize::from(ends_it);
            Some((Unit::Escape(&bytes[..len]), len))
        }
        [control @ (0..0x20 | DEL), ..] => Some((Unit::Control(control), 1)),
        _ => {
            let control = |byte: &u8| *byte < 0x20 || *byte == DEL;
            let len = bytes.iter().position(control).unwrap_or_else(|| without_begun_character(bytes));
            (len > 0).then(|| (Unit::Text(&bytes[..len]), len))
        }
    }
}

/// The units of output, in order, up to the one that is not complete.
pub fn units(mut bytes: &[u8]) -> impl Iterator<Item = (Unit<'_>, usize)> {
    std::iter::from_fn(move || {
        let (unit, len) = first(bytes)?;
        bytes = &bytes[len..];
        Some((unit, len))
    })
}

/// `rest` follows `ESC [`.
fn csi(rest: &[u8]) -> Option<(Unit<'_>, usize)> {
    let end =
        rest.iter().position(|byte| (0x40..DEL).contains(byte) || BREAKERS.contains(byte) || *byte == ESC)?;
    let (inside, last) = (&rest[..end], rest[end]);
    match last {
        // The next sequence begins here.
        ESC => Some((Unit::Csi(inside, 0), 2 + end)),
        last if BREAKERS.contains(&last) => Some((Unit::Csi(inside, 0), 3 + end)),
        last => Some((Unit::Csi(inside, last), 3 + end)),
    }
}

/// `rest` follows the introducer.
fn string(kind: u8, rest: &[u8]) -> Option<(Unit<'_>, usize)> {
    let end = rest
        .iter()
        .position(|byte| *byte == ESC || BREAKERS.contains(byte) || (kind == b']' && *byte == BEL))?;
    let inside = Unit::String(kind, &rest[..end]);
    match (rest[end], rest.get(end + 1)) {
        (ESC, None) => None,
        (ESC, Some(b'\\')) => Some((inside, 4 + end)),
        // Broken off by the next sequence.
        (ESC, Some(_)) => Some((inside, 2 + end)),
        _ => Some((inside, 3 + end)),
    }
}

/// The length without a character that has begun and may still be completed.
fn without_begun_character(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    for (i, byte) in bytes.iter().enumerate().skip(from).rev() {
        let needs = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return bytes.len(),
        };
        return if i + needs > bytes.len() { i } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many of these bytes are whole units.
    fn whole(bytes: &[u8]) -> usize {
        units(bytes).map(|(_, len)| len).sum()
    }

    fn all(bytes: &[u8]) -> Vec<Unit<'_>> {
        units(bytes).map(|(unit, _)| unit).collect()
    }

    #[test]
    fn units_are_what_a_terminal_takes_for_one() {
        use Unit::{Control, Csi, Escape, String, Text};
        let table: [(&[u8], &[Unit<'_>]); 12] = [
            (b"abc\r\n", &[Text(b"abc"), Control(13), Control(10)]),
            ("é€😀x".as_bytes(), &[Text("é€😀x".as_bytes())]),
            (b"\x1b[1;31mred\x1b[m", &[Csi(b"1;31", b'm'), Text(b"red"), Csi(b"", b'm')]),
            (b"\x1b[?2026$p", &[Csi(b"?2026$", b'p')]),
            (b"\x1b]0;title\x07x", &[String(b']', b"0;title"), Text(b"x")]),
            (b"\x1b]0;title\x1b\\x", &[String(b']', b"0;title"), Text(b"x")]),
            // In a device control string a bell is data.
            (b"\x1bP+q\x07\x1b\\x", &[String(b'P', b"+q\x07"), Text(b"x")]),
            (b"\x1b7\x1b(B\x1b=", &[Escape(b"\x1b7"), Escape(b"\x1b(B"), Escape(b"\x1b=")]),
            (b"\x1b[31\x1b[m", &[Csi(b"31", 0), Csi(b"", b'm')]),
            (b"\x1b[31\x18m", &[Csi(b"31", 0), Text(b"m")]),
            (b"\x1b]8;\x1b[mx", &[String(b']', b"8;"), Csi(b"", b'm'), Text(b"x")]),
            (b"\x1b\x1b[A\xff\x7f", &[Escape(b"\x1b"), Csi(b"", b'A'), Text(b"\xff"), Control(0x7f)]),
        ];
        for (bytes, wanted) in table {
            assert_eq!(all(bytes), wanted, "{:?}", std::string::String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_is_not_complete_is_left() {
        for (bytes, complete) in [
            (&b"a\x1b"[..], 1),
            (b"a\x1b[", 1),
            (b"a\x1b[?20", 1),
            (b"a\x1b]0;t", 1),
            (b"a\x1b]0;t\x1b", 1),
            (b"a\x1b(", 1),
            (b"a\xe2\x82", 1),
            (b"\xf0\x9f", 0),
            (b"a\xe2\x82b", 4),
            (b"a\xff", 2),
            (b"", 0),
        ] {
            assert_eq!(whole(bytes), complete, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn however_output_is_cut_its_units_are_the_same(
            bytes in proptest::collection::vec(
                prop_oneof![
                    2 => any::<u8>(),
                    5 => proptest::sample::select(b"\x1b\x1b[]P\\;?0129hlmHr\x07\x18a\xe2\x82\xac".to_vec()),
                ],
                0..300,
            ),
            cut in 1usize..9,
        ) {
            let (mut held, mut cuts, mut done) = (Vec::new(), Vec::new(), 0);
            for piece in bytes.chunks(cut) {
                held.extend_from_slice(piece);
                let ends = units(&held).scan(done, |at, (unit, len)| {
                    *at += len;
                    // Text may be handed out in any number of pieces.
                    Some((*at, matches!(unit, Unit::Text(_))))
                });
                cuts.extend(ends.filter(|(_, text)| !text).map(|(at, _)| at));
                let n = whole(&held);
                done += n;
                held.drain(..n);
            }
            let at_once = units(&bytes).scan(0, |at, (unit, len)| {
                *at += len;
                Some((*at, matches!(unit, Unit::Text(_))))
            });
            prop_assert_eq!(cuts, at_once.filter(|(_, text)| !text).map(|(at, _)| at).collect::<Vec<_>>());
            prop_assert_eq!(done, whole(&bytes));
        }
    }
}
