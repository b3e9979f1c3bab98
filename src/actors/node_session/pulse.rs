//! When to give a sign of life, and when the other side has given none for too long.
//!
//! Any inbound byte counts, a pong as well: that is the transport's life. That the engine behind it still
//! works is watched by the answers to `inventory.sync` (see [`super::replay`]).

use std::time::{Duration, Instant};

/// The pulse of one socket.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    period: Duration,
    silence: Duration,
    next_beat: Instant,
    heard: Instant,
}

impl Pulse {
    /// A pulse whose first beat is due at once.
    pub(super) fn new(now: Instant, period: Duration, silence: Duration) -> Self {
        Self { period, silence, next_beat: now, heard: now }
    }

    /// Something arrived.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// True when a heartbeat and a ping are due; the next one is due a period later.
    pub(super) fn beat(&mut self, now: Instant) -> bool {
        let due = now >= self.next_beat;
        if due {
            // After a stall (a suspended machine) one beat is enough: none is made up for.
            self.next_beat = now + self.period;
        }
        due
    }

    /// True when nothing has arrived for too long.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now.duration_since(self.heard) >= self.silence
    }

    /// When one of the two has something to do.
    pub(super) fn deadline(&self) -> Instant {
        self.next_beat.min(self.heard + self.silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_beats_every_period_and_never_twice_for_one_stall() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start, Duration::from_secs(12), Duration::from_secs(48));
        assert!(pulse.beat(start));
        assert!(!pulse.beat(start + Duration::from_secs(11)));
        assert!(pulse.beat(start + Duration::from_secs(100)));
        assert!(!pulse.beat(start + Duration::from_secs(100)));
        assert!(pulse.beat(start + Duration::from_secs(112)));
    }

    #[test]
    fn any_sign_of_the_other_side_puts_its_death_off() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start, Duration::from_secs(12), Duration::from_secs(48));
        pulse.beat(start);
        assert!(!pulse.is_silent(start + Duration::from_secs(47)));
        pulse.heard(start + Duration::from_secs(47));
        assert!(!pulse.is_silent(start + Duration::from_secs(94)));
        assert!(pulse.is_silent(start + Duration::from_secs(95)));
        assert_eq!(pulse.deadline(), start + Duration::from_secs(12));
    }
}
