//! What the session has seen, in numbers, for the debug page.

use std::collections::BTreeMap;

/// Counters since the process started.
#[derive(Debug, Default)]
pub(super) struct Tally {
    received: BTreeMap<&'static str, u64>,
    sent: BTreeMap<&'static str, u64>,
    /// Sockets that became live.
    pub(super) sessions: u64,
    /// Frames that cannot be read.
    pub(super) unreadable: u64,
    /// Frames for agents that nobody here knows; acked.
    pub(super) strangers: u64,
    /// Frames dropped unacked for want of room.
    pub(super) refused: u64,
    /// Frames left unacked for an agent without a cursor.
    pub(super) left: u64,
    /// Frames dropped unacked because the agent's cursor was given up.
    pub(super) quarantined: u64,
    /// Frames that came before the session was live; dropped unacked.
    pub(super) early: u64,
    /// Replies and errors for nobody.
    pub(super) unmatched: u64,
    /// Replies to registrations that had been given up.
    pub(super) late: u64,
    /// Frames that the engine could not read.
    pub(super) not_understood: u64,
    /// Answers and frames of our own rooms for a socket that is gone; dropped.
    pub(super) stale: u64,
}

impl Tally {
    /// A frame of this type came in. Types that no engine is known to send count as one.
    pub(super) fn received(&mut self, kind: &str) {
        const KINDS: [&str; 7] =
            ["deliver", "reply", "error", "action.invoke", "context.update", "delivery.failed", "ping"];
        let kind = KINDS.into_iter().find(|known| *known == kind).unwrap_or("unknown");
        *self.received.entry(kind).or_default() += 1;
    }

    /// A frame of this type was handed to the socket.
    pub(super) fn sent(&mut self, kind: &'static str) {
        *self.sent.entry(kind).or_default() += 1;
    }

    /// The numbers that are not zero, by name.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("frames_in", listed(&self.received)), ("frames_out", listed(&self.sent))];
        let counters = [
            ("sessions", self.sessions),
            ("frames_unreadable", self.unreadable),
            ("frames_for_strangers", self.strangers),
            ("frames_refused", self.refused),
            ("frames_left", self.left),
            ("frames_quarantined", self.quarantined),
            ("frames_early", self.early),
            ("replies_unmatched", self.unmatched),
            ("replies_late", self.late),
            ("frames_not_understood", self.not_understood),
            ("stale", self.stale),
        ];
        facts.extend(counters.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name, n.to_string())));
        facts
    }
}

fn listed(counts: &BTreeMap<&'static str, u64>) -> String {
    let words: Vec<_> = counts.iter().map(|(kind, count)| format!("{kind}={count}")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_counted_by_name_and_unknown_ones_together() {
        let mut tally = Tally::default();
        for kind in ["deliver", "delivery.failed", "deliver", "x", "y", "ping"] {
            tally.received(kind);
        }
        tally.sent("node.heartbeat");
        tally.late = 2;
        assert_eq!(
            tally.facts(),
            [
                ("frames_in", "deliver=2 delivery.failed=1 ping=1 unknown=2".to_owned()),
                ("frames_out", "node.heartbeat=1".to_owned()),
                ("replies_late", "2".to_owned()),
            ]
        );
    }
}
