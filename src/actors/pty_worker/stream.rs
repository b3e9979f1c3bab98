//! Live output in pieces: the first bytes at once, then at most one chunk per 16 ms or 4 KiB.
//!
//! A chunk holds whole characters and whole control sequences, and carries the numbers of output bytes at its
//! beginning and end, so that a snapshot and the stream after it join without a gap or a repeat. What has
//! begun and is not complete waits for the rest.

use std::time::{Duration, Instant};

/// At least this long between two chunks, unless one is full.
pub(super) const PAUSE: Duration = Duration::from_millis(16);
/// A chunk of this many bytes is not held back.
const FULL: usize = 4 << 10;

/// A piece of output to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The text.
    pub text: String,
    /// Output bytes in all at its beginning.
    pub start: u64,
    /// Output bytes in all at its end.
    pub end: u64,
}

/// The collector.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pending: Vec<u8>,
    /// Output bytes in all at the beginning of `pending`.
    start: u64,
    /// Bytes of `pending` that are whole.
    whole: usize,
    last: Option<Instant>,
}

impl Stream {
    /// Takes output in. `settled` is the number of output bytes, in all, that are whole units now.
    pub(super) fn push(&mut self, bytes: &[u8], settled: u64, now: Instant) -> Option<Chunk> {
        self.take_in(bytes, settled);
        if self.pending.len() >= FULL { self.cut(now) } else { self.due(now) }
    }

    /// Takes in what nobody wants to see.
    pub(super) fn skip(&mut self, bytes: &[u8], settled: u64) {
        self.take_in(bytes, settled);
        self.pending.drain(..self.whole);
        self.start += self.whole as u64;
        self.whole = 0;
        self.last = None;
    }

    fn take_in(&mut self, bytes: &[u8], settled: u64) {
        self.pending.extend_from_slice(bytes);
        let whole = usize::try_from(settled.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.whole = whole.min(self.pending.len());
    }

    /// The chunk that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Chunk> {
        if self.last.is_some_and(|last| last + PAUSE > now) { None } else { self.cut(now) }
    }

    /// When one will be due.
    pub(super) fn wake(&self) -> Option<Instant> {
        if self.whole == 0 { None } else { self.last.map(|last| last + PAUSE) }
    }

    /// Everything that is whole, due or not.
    pub(super) fn cut(&mut self, now: Instant) -> Option<Chunk> {
        let chunk = self.emit(self.whole);
        if chunk.is_some() {
            self.last = Some(now);
        }
        chunk
    }

    /// Everything, at the end of the output: also half a character.
    pub(super) fn finish(&mut self) -> Option<Chunk> {
        self.emit(self.pending.len())
    }

    /// Goes on from `start` output bytes: what was before is lost.
    pub(super) fn begin_at(&mut self, start: u64) {
        *self = Self { start, ..Self::default() };
    }

    fn emit(&mut self, len: usize) -> Option<Chunk> {
        if len == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&self.pending[..len]).into_owned();
        self.pending.drain(..len);
        let start = self.start;
        self.start += len as u64;
        self.whole = 0;
        Some(Chunk { text, start, end: self.start })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::escape;

    fn chunk(text: &str, start: u64, end: u64) -> Option<Chunk> {
        Some(Chunk { text: text.into(), start, end })
    }

    #[test]
    fn the_first_bytes_go_at_once_and_the_next_ones_together() {
        let mut stream = Stream::default();
        let now = Instant::now();
        assert_eq!(stream.push(b"a", 1, now), chunk("a", 0, 1));
        assert_eq!(stream.push(b"b", 2, now), None);
        assert_eq!(stream.push(b"c", 3, now + Duration::from_millis(10)), None);
        assert_eq!(stream.wake(), Some(now + PAUSE));
        assert_eq!(stream.due(now + PAUSE), chunk("bc", 1, 3));
        assert_eq!(stream.wake(), None, "no timer while nothing waits");
        let full = stream.push(&[b'x'; FULL], 3 + FULL as u64, now + PAUSE);
        assert_eq!(full.unwrap().end, 3 + FULL as u64);
    }

    #[test]
    fn what_has_begun_waits_for_its_other_half() {
        let mut stream = Stream::default();
        let mut now = Instant::now();
        assert_eq!(stream.push("é".as_bytes().split_at(1).0, 0, now), None);
        assert_eq!(stream.wake(), None);
        now += PAUSE;
        assert_eq!(stream.push(b"\xa9!\x1b[", 3, now), chunk("é!", 0, 3));
        now += PAUSE;
        assert_eq!(stream.push(b"m\xf0\x9f", 6, now), chunk("\x1b[m", 3, 6));
        assert_eq!(stream.finish(), chunk("\u{fffd}", 6, 8));
    }

    #[test]
    fn what_was_skipped_is_missing_and_nothing_else() {
        let mut stream = Stream::default();
        let now = Instant::now();
        stream.skip(b"unseen\x1b[3", 6);
        assert_eq!(stream.push(b"1mseen", 15, now), chunk("\x1b[31mseen", 6, 15));
        stream.begin_at(20);
        assert_eq!(stream.push(b"x", 21, now), chunk("x", 20, 21));
    }

    proptest! {
        #[test]
        fn all_text_arrives_once_with_the_right_offsets(text in "(\\PC|\x1b\\[[0-9;]{0,3}m){0,200}", cut in 1usize..7) {
            let mut stream = Stream::default();
            let mut now = Instant::now();
            let mut chunks = Vec::new();
            let mut end = 0;
            for piece in text.as_bytes().chunks(cut) {
                end += piece.len();
                now += Duration::from_millis(7);
                let settled = escape::units(&text.as_bytes()[..end]).map(|(_, len)| len as u64).sum();
                chunks.extend(stream.push(piece, settled, now));
            }
            chunks.extend(stream.finish());
            let mut got = String::new();
            for chunk in chunks {
                prop_assert_eq!(chunk.start, got.len() as u64);
                got.push_str(&chunk.text);
                prop_assert_eq!(chunk.end, got.len() as u64);
            }
            prop_assert_eq!(got, text);
        }
    }
}
