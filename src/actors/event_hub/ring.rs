//! The numbered events that are kept for replay, and the rule of what a reader who comes back is owed.
//!
//! Numbers are dense and start at 1 with the process. A reader is a position: the seq it has. It is owed
//! every event after it. What has left the ring is owed as a [`Gap`], never silently skipped.

use std::{collections::VecDeque, sync::Arc};

use crate::ids::EventSeq;

/// The last events, at most `cap`.
#[derive(Debug)]
pub(super) struct Ring {
    cap: usize,
    current: EventSeq,
    /// The texts of the events up to `current`, newest last.
    texts: VecDeque<Arc<str>>,
}

/// Events that a reader was owed and that are gone: everything after `since` and before `oldest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// What the reader had.
    pub(super) since: EventSeq,
    /// The first that it can still have.
    pub(super) oldest: EventSeq,
}

impl Ring {
    /// An empty ring.
    pub(super) fn new(cap: usize) -> Self {
        Self { cap: cap.max(1), current: EventSeq::default(), texts: VecDeque::new() }
    }

    /// The number that the next event will have.
    pub(super) fn next(&self) -> EventSeq {
        self.current.next()
    }

    /// The newest number given out; 0 before any.
    pub(super) fn current(&self) -> EventSeq {
        self.current
    }

    /// The oldest number still held; [`Ring::next`] while none is.
    pub(super) fn oldest(&self) -> EventSeq {
        EventSeq(self.next().0.saturating_sub(self.texts.len() as u64))
    }

    /// Takes the text of the event numbered [`Ring::next`]; the oldest one leaves when the ring is full.
    pub(super) fn push(&mut self, text: Arc<str>) {
        if self.texts.len() == self.cap {
            self.texts.pop_front();
        }
        self.texts.push_back(text);
        self.current = self.current.next();
    }

    /// What a reader that has `since` is owed: a gap, if events after `since` are gone, or if `since` is
    /// not a number of this process; then the position from which to read on.
    pub(super) fn resume(&self, since: EventSeq) -> (Option<Gap>, EventSeq) {
        let oldest = self.oldest();
        let gone = since.next() < oldest || since > self.current;
        if gone { self.resume_foreign(since) } else { (None, since) }
    }

    /// What a reader is owed whose `since` was numbered by another process: everything, after a gap.
    pub(super) fn resume_foreign(&self, since: EventSeq) -> (Option<Gap>, EventSeq) {
        (Some(Gap { since, oldest: self.oldest() }), self.before_oldest())
    }

    /// The position of a reader that has nothing of what is held.
    fn before_oldest(&self) -> EventSeq {
        EventSeq(self.oldest().0.saturating_sub(1))
    }

    /// The event with this number, while it is held.
    pub(super) fn get(&self, seq: EventSeq) -> Option<&Arc<str>> {
        let index = seq.0.checked_sub(self.oldest().0)?;
        self.texts.get(usize::try_from(index).ok()?)
    }

    /// Every event held after this position.
    pub(super) fn after(&self, position: EventSeq) -> impl Iterator<Item = &Arc<str>> {
        let skip = (position.0 + 1).saturating_sub(self.oldest().0);
        self.texts.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring_of(cap: usize, events: u64) -> Ring {
        let mut ring = Ring::new(cap);
        for seq in 1..=events {
            assert_eq!(ring.next(), EventSeq(seq));
            ring.push(seq.to_string().into());
        }
        ring
    }

    fn texts(ring: &Ring, since: u64) -> (bool, Vec<String>) {
        let (gap, position) = ring.resume(EventSeq(since));
        (gap.is_some(), ring.after(position).map(|text| text.to_string()).collect())
    }

    #[test]
    fn a_gap_is_reported_only_when_events_after_since_have_left_the_ring() {
        let owed = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        for (cap, events, since, gap, expected) in [
            (3, 0, 0, false, owed(&[])),
            (3, 2, 0, false, owed(&["1", "2"])),
            (3, 3, 0, false, owed(&["1", "2", "3"])),
            (3, 4, 0, true, owed(&["2", "3", "4"])),
            (3, 4, 1, false, owed(&["2", "3", "4"])),
            (3, 5, 1, true, owed(&["3", "4", "5"])),
            (3, 5, 5, false, owed(&[])),
            // A number that this process never gave out.
            (3, 5, 6, true, owed(&["3", "4", "5"])),
            (3, 0, 9, true, owed(&[])),
        ] {
            let ring = ring_of(cap, events);
            assert_eq!(texts(&ring, since), (gap, expected), "cap {cap}, {events} events, since {since}");
        }
    }

    #[test]
    fn a_gap_names_exactly_what_is_missing() {
        let (gap, position) = ring_of(3, 10).resume(EventSeq(4));
        assert_eq!(gap, Some(Gap { since: EventSeq(4), oldest: EventSeq(8) }));
        assert_eq!(position, EventSeq(7));
    }

    #[test]
    fn an_event_is_found_by_its_number_while_it_is_held() {
        let ring = ring_of(3, 5);
        assert_eq!(ring.get(EventSeq(2)), None);
        assert_eq!(ring.get(EventSeq(3)).map(|text| &**text), Some("3"));
        assert_eq!(ring.get(EventSeq(5)).map(|text| &**text), Some("5"));
        assert_eq!(ring.get(EventSeq(6)), None);
        assert_eq!(ring.get(EventSeq(0)), None);
    }
}
