//! Whether an agent whose program has ended gets another one, and when (spec/pty 5.8).
//!
//! ```text
//! ended: as wanted, or no policy -------------------------> over
//!        failed --> in a loop, too often, wants a login --> given up
//!               \-> restart after 2 s, 4 s, 8 s ... 60 s, each ± 20 %
//! ```
//!
//! Restarts are forgotten after five minutes of life, ends in a row after ten seconds. What a restart itself
//! does to the numbers is nothing: a program that fails every minute is given up too.

use std::time::Duration;

use crate::messages::process::{ExitClass, ExitRecord, RestartPolicy, RestartWhen};

/// Longest delay before a restart, jitter left aside.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Jitter, as a part of the delay, to either side.
const JITTER: f64 = 0.2;
/// A program that lived for so long is well: what was before does not count any more.
const WELL: Duration = Duration::from_mins(5);
/// A program that lived for less has ended at its start.
const AT_START: Duration = Duration::from_secs(10);

/// The restarts of one agent that still count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    restarts: u32,
    /// Ends in a row right after the start.
    quick: u32,
}

/// What follows from an end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Nothing: it was meant to end, or nobody wants a restart.
    Over,
    /// Another program after this long; it is the so-and-so-many-th that counts.
    Restart {
        /// The delay.
        after: Duration,
        /// 1 for the first.
        count: u32,
    },
    /// It should have been started again, and will not be.
    GiveUp(GaveUp),
}

/// Why an agent is not started again although its policy says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GaveUp {
    /// It ends right after every start.
    #[error("crash loop: it ended {0} times in a row within 10 s of its start")]
    CrashLoop(u32),
    /// It has had all its restarts.
    #[error("it failed again after {0} restarts")]
    TooOften(u32),
    /// It waits for a person.
    #[error("it asks for a login, which no restart can give it")]
    WantsLogin,
}

impl History {
    /// Takes an end in. `jitter` is drawn by the caller from -1.0..=1.0.
    pub(super) fn step(&mut self, policy: &RestartPolicy, exit: &ExitRecord, jitter: f64) -> Verdict {
        if policy.when == RestartWhen::Never || !exit.is_failure() {
            return Verdict::Over;
        }
        let uptime = Duration::from_millis(exit.uptime_ms);
        if uptime >= WELL {
            self.restarts = 0;
        }
        self.quick = if uptime < AT_START { self.quick.saturating_add(1) } else { 0 };
        if exit.class == ExitClass::AuthNeeded {
            return Verdict::GiveUp(GaveUp::WantsLogin);
        }
        if self.quick >= policy.loop_after.max(1) {
            return Verdict::GiveUp(GaveUp::CrashLoop(self.quick));
        }
        if self.restarts >= policy.max {
            return Verdict::GiveUp(GaveUp::TooOften(self.restarts));
        }
        let doubled = policy.backoff.saturating_mul(1 << self.restarts.min(16));
        self.restarts += 1;
        let after = doubled.min(BACKOFF_MAX).mul_f64(1.0 + JITTER * jitter.clamp(-1.0, 1.0));
        Verdict::Restart { after, count: self.restarts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::process::EndedBy;

    fn on_failure() -> RestartPolicy {
        RestartPolicy { when: RestartWhen::OnFailure, ..RestartPolicy::default() }
    }

    fn failed_after(seconds: u64) -> ExitRecord {
        ExitRecord { uptime_ms: seconds * 1000, ..ExitRecord::with_code(EndedBy::Itself, 1) }
    }

    /// What comes of ends after so many seconds of life each: delays in seconds, then `None`.
    fn delays(policy: &RestartPolicy, uptimes: &[u64]) -> Vec<Option<u64>> {
        let mut history = History::default();
        let delay = |uptime: &u64| match history.step(policy, &failed_after(*uptime), 0.0) {
            Verdict::Restart { after, .. } => Some(after.as_secs()),
            _ => None,
        };
        uptimes.iter().map(delay).collect()
    }

    #[test]
    fn delays_double_up_to_a_minute_and_end_after_the_fifth() {
        let five = [Some(2), Some(4), Some(8), Some(16), Some(32)];
        assert_eq!(delays(&on_failure(), &[60; 6]), [&five[..], &[None]].concat());
        let many = RestartPolicy { max: 8, ..on_failure() };
        assert_eq!(delays(&many, &[60; 7])[5..], [Some(60), Some(60)]);
    }

    #[test]
    fn a_quiet_spell_is_forgiven_and_a_restart_alone_is_not() {
        assert_eq!(delays(&on_failure(), &[60, 60, 300, 60])[2..], [Some(2), Some(4)]);
        let mut history = History::default();
        let last = (0..6).map(|_| history.step(&on_failure(), &failed_after(299), 0.0)).last();
        assert_eq!(last, Some(Verdict::GiveUp(GaveUp::TooOften(5))));
    }

    #[test]
    fn three_ends_at_the_start_in_a_row_are_a_loop() {
        let mut history = History::default();
        let mut step = |uptime| history.step(&on_failure(), &failed_after(uptime), 0.0);
        assert!(matches!(step(1), Verdict::Restart { count: 1, .. }));
        assert!(matches!(step(9), Verdict::Restart { count: 2, .. }));
        assert!(matches!(step(10), Verdict::Restart { count: 3, .. }), "it was not at its start");
        assert!(matches!(step(1), Verdict::Restart { .. }));
        assert!(matches!(step(1), Verdict::Restart { .. }));
        assert_eq!(step(1), Verdict::GiveUp(GaveUp::CrashLoop(3)));
    }

    #[test]
    fn only_a_failure_by_itself_is_followed_by_another_program() {
        let step = |policy: &RestartPolicy, exit| History::default().step(policy, &exit, 0.0);
        assert_eq!(step(&RestartPolicy::default(), failed_after(60)), Verdict::Over);
        for by in [EndedBy::Release, EndedBy::Shutdown, EndedBy::IdleLimit, EndedBy::MaxRuntime] {
            assert_eq!(step(&on_failure(), ExitRecord { by, ..failed_after(60) }), Verdict::Over, "{by:?}");
        }
        assert_eq!(step(&on_failure(), ExitRecord::with_code(EndedBy::Itself, 0)), Verdict::Over);
        let killed = ExitRecord { code: None, signal: Some("SIGKILL".into()), ..failed_after(60) };
        assert!(matches!(step(&on_failure(), killed), Verdict::Restart { .. }));
        let login = ExitRecord { class: ExitClass::AuthNeeded, ..failed_after(60) };
        assert_eq!(step(&on_failure(), login), Verdict::GiveUp(GaveUp::WantsLogin));
    }

    #[test]
    fn jitter_moves_a_delay_by_a_fifth_at_the_most() {
        for (jitter, ms) in [(-1.0, 1600), (0.0, 2000), (1.0, 2400), (9.0, 2400)] {
            let verdict = History::default().step(&on_failure(), &failed_after(60), jitter);
            assert_eq!(verdict, Verdict::Restart { after: Duration::from_millis(ms), count: 1 });
        }
    }
}
