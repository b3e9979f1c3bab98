//! What is kept of a running child for its limits and for its record.
//!
//! Memory is looked at when something happens anyway, so that an idle agent costs no timer: what grows without
//! a sign of life is in the kernel's account at the exit.

use std::time::{Duration, Instant};

use crate::{
    ids::DeliveryId,
    messages::process::{EndedBy, Limits},
};

/// From the start to the first look at the memory; doubled for each further one, since programs grow at first.
const FIRST_SAMPLE: Duration = Duration::from_millis(250);
/// Between two looks at the memory at the most (spec/pty 12).
const SAMPLE_MAX: Duration = Duration::from_secs(10);

/// One child's books.
#[derive(Debug)]
pub(super) struct Watch {
    limits: Limits,
    born: Instant,
    /// The last output, input or message.
    active: Instant,
    /// When to look at the memory next, and how long after the look before.
    sample: (Instant, Duration),
    peak: Option<u64>,
    /// Kills for want of memory that were counted at the last look.
    kills: Option<u64>,
    last: Option<DeliveryId>,
}

impl Watch {
    /// The books of a child that was started just now.
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            born: now,
            active: now,
            sample: (now + FIRST_SAMPLE, FIRST_SAMPLE),
            peak: None,
            kills: None,
            last: None,
        }
    }

    /// There was output, input or a message.
    pub(super) fn stirred(&mut self, now: Instant) {
        self.active = now;
    }

    /// This delivery was put in.
    pub(super) fn put_in(&mut self, delivery: DeliveryId) {
        self.last = Some(delivery);
    }

    /// The last delivery that was put in.
    pub(super) fn last(&self) -> Option<&DeliveryId> {
        self.last.as_ref()
    }

    /// The limit that is reached, if any, after so much output.
    pub(super) fn reached(&self, output: u64, now: Instant) -> Option<EndedBy> {
        let Limits { max_runtime, idle, output_bytes } = &self.limits;
        let over = |limit: &Option<Duration>, since| {
            limit.is_some_and(|limit| now.saturating_duration_since(since) >= limit)
        };
        if output_bytes.is_some_and(|limit| output >= limit) {
            Some(EndedBy::OutputLimit)
        } else if over(max_runtime, self.born) {
            Some(EndedBy::MaxRuntime)
        } else if over(idle, self.active) {
            Some(EndedBy::IdleLimit)
        } else {
            None
        }
    }

    /// When a limit of time is reached if nothing happens.
    pub(super) fn wake(&self) -> Option<Instant> {
        let at = |limit: &Option<Duration>, since: Instant| limit.and_then(|limit| since.checked_add(limit));
        let (runtime, idle) = (at(&self.limits.max_runtime, self.born), at(&self.limits.idle, self.active));
        [runtime, idle].into_iter().flatten().min()
    }

    /// True when it is time for a look at the memory.
    pub(super) fn wants_sample(&self, now: Instant) -> bool {
        now >= self.sample.0
    }

    /// What a look at the memory has shown.
    pub(super) fn sample(&mut self, peak: Option<u64>, kills: Option<u64>, now: Instant) {
        let pause = (self.sample.1 * 2).min(SAMPLE_MAX);
        self.sample = (now + pause, pause);
        self.peak = self.peak.max(peak);
        self.kills = kills;
    }

    /// The most memory that is known of, with what the kernel's account says at the exit.
    pub(super) fn peak(&self, account: Option<u64>) -> Option<u64> {
        self.peak.max(account)
    }

    /// True when the kernel has killed for want of memory since the last look.
    pub(super) fn killed_since(&self, kills: Option<u64>) -> bool {
        matches!((self.kills, kills), (Some(before), Some(after)) if after > before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_limit_ends_it_at_its_time_and_by_its_name() {
        let start = Instant::now();
        let limits =
            Limits { max_runtime: Some(seconds(100)), idle: Some(seconds(30)), output_bytes: Some(1000) };
        let mut watch = Watch::new(limits, start);
        assert_eq!(watch.wake(), Some(start + seconds(30)));
        assert_eq!(watch.reached(0, start + seconds(29)), None);
        assert_eq!(watch.reached(0, start + seconds(30)), Some(EndedBy::IdleLimit));
        watch.stirred(start + seconds(29));
        assert_eq!(watch.reached(999, start + seconds(30)), None);
        assert_eq!(watch.reached(1000, start + seconds(30)), Some(EndedBy::OutputLimit));
        watch.stirred(start + seconds(90));
        assert_eq!(watch.wake(), Some(start + seconds(100)));
        assert_eq!(watch.reached(0, start + seconds(100)), Some(EndedBy::MaxRuntime));
    }

    #[test]
    fn without_limits_nothing_ends_it_and_nothing_wakes() {
        let start = Instant::now();
        let watch = Watch::new(Limits::default(), start);
        assert_eq!(watch.wake(), None);
        assert_eq!(watch.reached(u64::MAX, start + seconds(1 << 30)), None);
        let longest = Limits { idle: Some(Duration::MAX), ..Limits::default() };
        assert_eq!(Watch::new(longest, start).wake(), None);
    }

    #[test]
    fn memory_is_looked_at_ever_more_rarely_and_a_kill_needs_a_count_before_and_after() {
        let start = Instant::now();
        let mut watch = Watch::new(Limits::default(), start);
        let mut looks = Vec::new();
        for ms in 0..40_000 {
            if watch.wants_sample(start + Duration::from_millis(ms)) {
                watch.sample(Some(ms), Some(1), start + Duration::from_millis(ms));
                looks.push(ms);
            }
        }
        assert_eq!(looks, [250, 750, 1750, 3750, 7750, 15_750, 25_750, 35_750]);
        watch.sample(Some(3), Some(1), start + seconds(40));
        assert_eq!((watch.peak(None), watch.peak(Some(90_000))), (Some(35_750), Some(90_000)));
        assert!(!watch.killed_since(Some(1)) && watch.killed_since(Some(2)) && !watch.killed_since(None));
        assert!(!Watch::new(Limits::default(), start).killed_since(Some(1)));
    }
}
