//! A snapshot and the stream after it, joined without a gap or a repeat: a pure rule over offsets.

/// Where the picture on the terminal is in the agent's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Join {
    /// Output bytes that it shows; `None` before the first snapshot, and when it is no longer true.
    at: Option<u64>,
}

/// What to do with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Show it.
    Show,
    /// It is a part of the picture.
    Skip,
    /// Something before it is missing: a snapshot is needed.
    Resync,
}

impl Join {
    /// A snapshot that shows so much output is painted.
    pub(super) fn painted(&mut self, offset: u64) {
        self.at = Some(offset);
    }

    /// Output was lost on the way.
    pub(super) fn lost(&mut self) {
        self.at = None;
    }

    /// A chunk from `start` to `end` has come.
    pub(super) fn chunk(&mut self, start: u64, end: u64) -> Step {
        match self.at {
            Some(at) if end <= at => Step::Skip,
            Some(at) if start == at => {
                self.at = Some(end);
                Step::Show
            }
            Some(_) | None => {
                self.at = None;
                Step::Resync
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_shown_once_whatever_came_before_the_snapshot() {
        let mut join = Join::default();
        assert_eq!(join.chunk(0, 10), Step::Resync, "there is no picture yet");
        join.painted(20);
        assert_eq!(join.chunk(0, 10), Step::Skip);
        assert_eq!(join.chunk(10, 20), Step::Skip);
        assert_eq!(join.chunk(20, 25), Step::Show);
        assert_eq!(join.chunk(25, 30), Step::Show);
        assert_eq!(join.chunk(31, 40), Step::Resync, "a byte is missing");
        assert_eq!(join.chunk(40, 50), Step::Resync, "and still is");
        join.painted(50);
        assert_eq!(join.chunk(50, 51), Step::Show);
        // The mark of a loss at the end is an empty chunk.
        assert_eq!(join.chunk(60, 60), Step::Resync);
        join.painted(60);
        join.lost();
        assert_eq!(join.chunk(60, 61), Step::Resync);
    }
}
