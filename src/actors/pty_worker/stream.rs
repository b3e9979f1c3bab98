//! Live output for those who watch: the first bytes at once, then at most one chunk per 16 ms or 4 KiB.
//!
//! Each chunk is valid UTF-8 and carries the number of output bytes at its end, so that a snapshot and the
//! stream after it join without a gap or a repeat. A character that is split between two reads is carried
//! over.

use std::time::{Duration, Instant};

/// At least this long between two chunks, unless one is full.
const PAUSE: Duration = Duration::from_millis(16);
/// A chunk of this many bytes is not held back.
const FULL: usize = 4 << 10;

/// A piece of output to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The text.
    pub text: String,
    /// Output bytes in all at its end.
    pub offset: u64,
}

/// The collector.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pending: Vec<u8>,
    /// Output bytes in all at the end of `pending`.
    end: u64,
    last: Option<Instant>,
}

impl Stream {
    /// Takes output in; `end` is the number of output bytes at its end.
    pub(super) fn push(&mut self, bytes: &[u8], end: u64, now: Instant) -> Option<Chunk> {
        self.pending.extend_from_slice(bytes);
        self.end = end;
        if self.pending.len() >= FULL { self.cut(now) } else { self.due(now) }
    }

    /// The chunk that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Chunk> {
        if self.last.is_some_and(|last| last + PAUSE > now) { None } else { self.cut(now) }
    }

    /// When one will be due.
    pub(super) fn wake(&self) -> Option<Instant> {
        if whole(&self.pending) == 0 { None } else { self.last.map(|last| last + PAUSE) }
    }

    /// Everything, at the end of the output: also half a character.
    pub(super) fn finish(&mut self) -> Option<Chunk> {
        self.emit(self.pending.len())
    }

    /// Nobody watches.
    pub(super) fn forget(&mut self) {
        // The memory too: most agents are never watched.
        self.pending = Vec::new();
        self.last = None;
    }

    fn cut(&mut self, now: Instant) -> Option<Chunk> {
        let chunk = self.emit(whole(&self.pending));
        if chunk.is_some() {
            self.last = Some(now);
        }
        chunk
    }

    fn emit(&mut self, len: usize) -> Option<Chunk> {
        if len == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&self.pending[..len]).into_owned();
        self.pending.drain(..len);
        Some(Chunk { text, offset: self.end - self.pending.len() as u64 })
    }
}

/// The length without a character that has begun and may still be completed.
fn whole(bytes: &[u8]) -> usize {
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

    #[test]
    fn the_first_bytes_go_at_once_and_the_next_ones_together() {
        let mut stream = Stream::default();
        let now = Instant::now();
        assert_eq!(stream.push(b"a", 1, now), Some(Chunk { text: "a".into(), offset: 1 }));
        assert_eq!(stream.push(b"b", 2, now), None);
        assert_eq!(stream.push(b"c", 3, now + Duration::from_millis(10)), None);
        assert_eq!(stream.wake(), Some(now + PAUSE));
        assert_eq!(stream.due(now + PAUSE), Some(Chunk { text: "bc".into(), offset: 3 }));
        assert_eq!(stream.wake(), None, "no timer while nothing waits");
        let full = stream.push(&[b'x'; FULL], 3 + FULL as u64, now + PAUSE);
        assert_eq!(full.unwrap().offset, 3 + FULL as u64);
    }

    #[test]
    fn half_a_character_waits_for_its_other_half() {
        let mut stream = Stream::default();
        let mut now = Instant::now();
        assert_eq!(stream.push("é".as_bytes().split_at(1).0, 1, now), None);
        assert_eq!(stream.wake(), None);
        now += PAUSE;
        assert_eq!(stream.push(b"\xa9!", 3, now).unwrap(), Chunk { text: "é!".into(), offset: 3 });
        now += PAUSE;
        assert_eq!(stream.push(b"\xf0\x9f", 5, now), None);
        assert_eq!(stream.finish().unwrap().text, "\u{fffd}");
    }

    proptest! {
        #[test]
        fn all_text_arrives_once_with_the_right_offsets(text in "\\PC{0,200}", cut in 1usize..7) {
            let mut stream = Stream::default();
            let mut now = Instant::now();
            let (mut got, mut end) = (String::new(), 0);
            let mut chunks = Vec::new();
            for piece in text.as_bytes().chunks(cut) {
                end += piece.len() as u64;
                now += Duration::from_millis(7);
                chunks.extend(stream.push(piece, end, now));
            }
            chunks.extend(stream.finish());
            for chunk in chunks {
                got.push_str(&chunk.text);
                prop_assert_eq!(chunk.offset, got.len() as u64);
            }
            prop_assert_eq!(got, text);
        }

        #[test]
        fn any_bytes_are_cut_somewhere(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            prop_assert!(bytes.len() - whole(&bytes) <= 3);
        }
    }
}
