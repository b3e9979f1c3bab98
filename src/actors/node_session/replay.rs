//! When to send `inventory.sync`: to tell the engine who lives here, and to have it send everything unacked
//! again (spec/wire 4.2, 4.6).
//!
//! | wanted because | sent |
//! |---|---|
//! | the session is live | at once |
//! | the inventory changed | at once; while an invocation runs or a sync is on its way, after it, but soon |
//! | frames are missing (a gap) | at most once in 5 s |
//! | frames were refused and there is room again | at most once in 200 ms, and only when none is on its way |
//! | time passed | once a period, unless deliveries are outstanding (a 5.0 engine would repeat them all) or an invocation runs (the engine would hand it to another node) |
//!
//! Its reply is the engine's sign of life: a pong only says that the transport works. A sync that is not
//! answered within two periods means that the engine behind the socket is dead.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Between syncs for gaps (spec/wire 4.2).
const GAP_SPACING: Duration = Duration::from_secs(5);
/// Between syncs for room.
const ROOM_SPACING: Duration = Duration::from_millis(200);
/// A change of the inventory waits this long for the sync before it to be answered, and no longer.
const CHANGE_PATIENCE: Duration = Duration::from_secs(1);
/// A wanted sync waits this long for a running invocation to end, and no longer.
const INVOKING_PATIENCE: Duration = Duration::from_secs(5);
/// A dead engine is found out within this many periods.
const DEAD_AFTER: u32 = 2;

/// The syncs of one socket.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    period: Duration,
    /// Sent and not answered, oldest first.
    sent: VecDeque<(String, Instant)>,
    last: Option<Instant>,
    /// When the periodic one is due.
    periodic: Instant,
    /// When the engine last showed life by an application frame.
    heard: Instant,
    changed: Option<Instant>,
    gap: Option<Instant>,
    room: Option<Instant>,
    /// Frames were refused since the last one was sent: what a cursor misses may be just those.
    refused: bool,
}

/// What the decision depends on beside time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// Deliveries are held that have not been settled.
    pub(super) outstanding: bool,
    /// An invocation runs.
    pub(super) invoking: bool,
}

impl Replay {
    /// The syncs of a socket that becomes live now: the first is due at once.
    pub(super) fn new(now: Instant, period: Duration) -> Self {
        Self {
            period,
            sent: VecDeque::new(),
            last: None,
            periodic: now + period,
            heard: now,
            changed: None,
            gap: None,
            room: None,
            refused: false,
        }
    }

    /// The inventory changed.
    pub(super) fn changed(&mut self, now: Instant) {
        self.changed.get_or_insert(now);
    }

    /// A frame was refused for want of room.
    pub(super) fn refused(&mut self) {
        self.refused = true;
    }

    /// A cursor misses frames. When some were refused it has found room for them, else there is a gap.
    pub(super) fn missing(&mut self, now: Instant) {
        let wish = if self.refused { &mut self.room } else { &mut self.gap };
        wish.get_or_insert(now);
    }

    /// There is room for frames that were refused.
    pub(super) fn room(&mut self, now: Instant) {
        self.room.get_or_insert(now);
    }

    /// The engine said something that only the engine itself can say.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// True when a sync is due now: the caller sends it and says so with [`Self::sent`].
    pub(super) fn is_due(&self, now: Instant, facts: Facts) -> bool {
        self.due_at(now, facts) <= now
    }

    /// A sync goes out under this id. It serves every wish.
    pub(super) fn sent(&mut self, now: Instant, id: String) {
        self.sent.push_back((id, now));
        self.last = Some(now);
        self.periodic = now + self.period;
        (self.changed, self.gap, self.room) = (None, None, None);
        self.refused = false;
    }

    /// True when this id is one of ours; what was sent before it is settled as well.
    pub(super) fn answered(&mut self, id: &str) -> bool {
        let Some(at) = self.sent.iter().position(|(sent, _)| sent == id) else { return false };
        self.sent.drain(..=at);
        true
    }

    /// True when the engine owes an answer for too long.
    pub(super) fn is_dead(&self, now: Instant) -> bool {
        self.sent.front().is_some_and(|(_, at)| now >= *at + self.period * DEAD_AFTER)
    }

    /// When there is something to do again, for facts that stay as they are.
    pub(super) fn deadline(&self, now: Instant, facts: Facts) -> Instant {
        let due = self.due_at(now, facts);
        match self.sent.front() {
            Some((_, at)) => due.min(*at + self.period * DEAD_AFTER),
            None => due,
        }
    }

    fn due_at(&self, now: Instant, facts: Facts) -> Instant {
        let Some(last) = self.last else { return now };
        let patience = if facts.invoking { INVOKING_PATIENCE } else { Duration::ZERO };
        let on_its_way = self.sent.back().map(|(_, at)| *at);
        let changed = self.changed.map(|since| {
            let after_answer = on_its_way.map_or(since, |at| at + CHANGE_PATIENCE);
            after_answer.max(since + patience)
        });
        let gap = self.gap.map(|since| (last + GAP_SPACING).max(since + patience));
        let room = match on_its_way {
            None => self.room.map(|since| (last + ROOM_SPACING).max(since + patience)),
            Some(_) => None,
        };
        let blocked = facts.invoking || facts.outstanding;
        // Outstanding deliveries put the periodic one off only while the engine is seen to live.
        let periodic =
            if blocked { self.periodic.max(self.heard + self.period * DEAD_AFTER) } else { self.periodic };
        [changed, gap, room].into_iter().flatten().fold(periodic, Instant::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(60);
    const QUIET: Facts = Facts { outstanding: false, invoking: false };
    const BUSY: Facts = Facts { outstanding: true, invoking: false };
    const INVOKING: Facts = Facts { outstanding: false, invoking: true };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A socket whose first sync went out at the returned time and was answered.
    fn synced() -> (Replay, Instant) {
        let now = Instant::now();
        let mut replay = Replay::new(now, PERIOD);
        assert!(replay.is_due(now, INVOKING), "the one at connect waits for nothing");
        replay.sent(now, "s1".to_owned());
        assert!(replay.answered("s1"));
        (replay, now)
    }

    #[test]
    fn a_period_after_the_last_one_another_is_due() {
        let (mut replay, start) = synced();
        assert_eq!(replay.deadline(start, QUIET), start + PERIOD);
        assert!(!replay.is_due(start + PERIOD - ms(1), QUIET));
        assert!(replay.is_due(start + PERIOD, QUIET));
        replay.sent(start + PERIOD, "s2".to_owned());
        assert!(!replay.is_due(start + PERIOD + ms(1), QUIET));
    }

    #[test]
    fn the_periodic_one_is_skipped_while_deliveries_are_outstanding_or_an_invocation_runs() {
        let (mut replay, start) = synced();
        for minute in 1..10 {
            let now = start + PERIOD * minute;
            replay.heard(now);
            assert!(!replay.is_due(now, BUSY));
            assert!(!replay.is_due(now, INVOKING));
        }
        let last_heard = start + PERIOD * 9;
        assert!(!replay.is_due(last_heard + PERIOD, BUSY));
        assert!(replay.is_due(last_heard + PERIOD * 2, BUSY), "an engine that says nothing is asked");
        assert!(replay.is_due(last_heard, QUIET));
    }

    #[test]
    fn gaps_are_asked_for_once_in_five_seconds() {
        let (mut replay, start) = synced();
        replay.missing(start + ms(10));
        replay.missing(start + ms(20));
        assert!(!replay.is_due(start + ms(4_999), QUIET));
        assert!(replay.is_due(start + ms(5_000), BUSY));
        replay.sent(start + ms(5_000), "s2".to_owned());
        replay.missing(start + ms(5_100));
        assert!(!replay.is_due(start + ms(9_900), QUIET));
        assert_eq!(replay.deadline(start + ms(5_100), QUIET), start + ms(10_000));
        let (mut idle, start) = synced();
        idle.missing(start + ms(30_000));
        assert!(idle.is_due(start + ms(30_000), QUIET), "the first after a pause goes at once");
    }

    #[test]
    fn room_is_used_soon_and_never_while_a_replay_is_on_its_way() {
        let (mut replay, start) = synced();
        replay.room(start + ms(50));
        assert!(!replay.is_due(start + ms(199), BUSY));
        assert!(replay.is_due(start + ms(200), BUSY));
        replay.sent(start + ms(200), "s2".to_owned());
        replay.room(start + ms(300));
        assert!(!replay.is_due(start + ms(20_000), BUSY));
        assert!(replay.answered("s2"));
        assert!(replay.is_due(start + ms(20_000), BUSY));
    }

    #[test]
    fn a_cursor_that_misses_refused_frames_does_not_wait_as_for_a_gap() {
        let (mut replay, start) = synced();
        replay.refused();
        replay.missing(start + ms(100));
        assert!(replay.is_due(start + ms(200), BUSY));
        replay.sent(start + ms(200), "s2".to_owned());
        assert!(replay.answered("s2"));
        replay.missing(start + ms(300));
        assert!(!replay.is_due(start + ms(5_199), BUSY), "nothing was refused since");
    }

    #[test]
    fn a_change_goes_out_at_once_and_changes_in_a_row_go_out_together() {
        let (mut replay, start) = synced();
        replay.changed(start + ms(1));
        assert!(replay.is_due(start + ms(1), BUSY));
        replay.sent(start + ms(1), "s2".to_owned());
        replay.changed(start + ms(2));
        replay.changed(start + ms(3));
        assert!(!replay.is_due(start + ms(4), QUIET), "one is on its way");
        assert!(replay.is_due(start + ms(1_001), QUIET), "but not for long");
        assert!(replay.answered("s2"));
        assert!(replay.is_due(start + ms(4), QUIET));
    }

    #[test]
    fn a_running_invocation_puts_wishes_off_but_not_for_ever() {
        let (mut replay, start) = synced();
        let wished = start + ms(10_000);
        replay.changed(wished);
        replay.missing(wished);
        replay.room(wished);
        assert!(!replay.is_due(wished + ms(4_999), INVOKING));
        assert!(replay.is_due(wished + ms(5_000), INVOKING));
        assert!(replay.is_due(wished, QUIET), "it has ended");
    }

    #[test]
    fn an_engine_that_does_not_answer_is_dead_after_two_periods() {
        let (mut replay, start) = synced();
        let sent = start + PERIOD;
        replay.sent(sent, "s2".to_owned());
        assert!(!replay.answered("unknown"));
        assert!(!replay.is_dead(sent + PERIOD * 2 - ms(1)));
        replay.sent(sent + PERIOD, "s3".to_owned());
        assert!(replay.is_dead(sent + PERIOD * 2), "by the oldest unanswered one");
        assert_eq!(replay.deadline(sent + PERIOD, QUIET), sent + PERIOD * 2);
        assert!(replay.answered("s3"), "an answer settles the older ones");
        assert!(!replay.is_dead(sent + PERIOD * 9));
    }
}
