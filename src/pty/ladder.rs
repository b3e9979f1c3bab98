//! The ladder by which a child is ended: the CLI's own way, then HUP, TERM, KILL (spec/pty 5.3).
//!
//! A pure rule. The caller tells how long the ladder has been running and climbs only while the child lives.

use std::time::Duration;

/// What to do to the child now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Type the CLI's own quit keys.
    Quit,
    /// SIGHUP to the groups.
    Hangup,
    /// SIGTERM to the groups.
    Terminate,
    /// SIGKILL to the groups; after it only [`sweep`](super::sweep()) is left.
    Kill,
}

/// How hard and how fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The CLI has quit keys.
    pub polite: bool,
    /// KILL at once.
    pub force: bool,
    /// KILL after this long (ten minutes at the most) instead of the default, which is 5 s and 7 s with
    /// quit keys; the other steps move in proportion.
    pub within: Option<Duration>,
}

/// What the ladder asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Take this step, then ask again.
    Take(Step),
    /// Nothing before this much time of the ladder has passed.
    At(Duration),
    /// All steps are taken.
    Top,
}

/// One ending under way.
#[derive(Clone, Debug)]
pub struct Ladder {
    steps: std::vec::IntoIter<(Duration, Step)>,
}

/// Whoever waits for a release waits for the ladder.
const LONGEST: Duration = Duration::from_mins(10);

/// How long each step gets before the next one.
const PATIENCE: [(Step, Duration); 3] = [
    (Step::Quit, Duration::from_secs(2)),
    (Step::Hangup, Duration::from_secs(2)),
    (Step::Terminate, Duration::from_secs(3)),
];

impl Ladder {
    /// The steps of this policy.
    pub fn new(policy: Policy) -> Self {
        let mut steps = Vec::with_capacity(4);
        let mut at = Duration::ZERO;
        if !policy.force {
            for (step, patience) in PATIENCE {
                if step != Step::Quit || policy.polite {
                    steps.push((at, step));
                    at += patience;
                }
            }
        }
        steps.push((at, Step::Kill));
        if let (Some(within), false) = (policy.within, at.is_zero()) {
            let scale = within.min(LONGEST).as_secs_f64() / at.as_secs_f64();
            for (due, _) in &mut steps {
                *due = due.mul_f64(scale);
            }
        }
        Self { steps: steps.into_iter() }
    }

    /// What to do when the ladder has been running for `elapsed`. A step that is due is given once; after
    /// a delay the steps that were missed are skipped in favour of the last one that is due.
    pub fn next(&mut self, elapsed: Duration) -> Next {
        let mut due = None;
        while let Some(&(at, step)) = self.steps.as_slice().first() {
            if at > elapsed {
                return due.map_or(Next::At(at), Next::Take);
            }
            due = Some(step);
            self.steps.next();
        }
        due.map_or(Next::Top, Next::Take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn climb(policy: Policy) -> Vec<(u64, Step)> {
        let mut ladder = Ladder::new(policy);
        let mut now = Duration::ZERO;
        let mut taken = Vec::new();
        loop {
            match ladder.next(now) {
                Next::Take(step) => taken.push((now.as_millis().try_into().unwrap(), step)),
                Next::At(at) => now = at,
                Next::Top => return taken,
            }
        }
    }

    #[test]
    fn each_policy_has_its_times() {
        use Step::{Hangup, Kill, Quit, Terminate};
        let within = |ms| Some(Duration::from_millis(ms));
        for (polite, force, within, steps) in [
            (true, false, None, vec![(0, Quit), (2000, Hangup), (4000, Terminate), (7000, Kill)]),
            (false, false, None, vec![(0, Hangup), (2000, Terminate), (5000, Kill)]),
            (true, true, None, vec![(0, Kill)]),
            (true, true, within(9000), vec![(0, Kill)]),
            (false, false, within(1000), vec![(0, Hangup), (400, Terminate), (1000, Kill)]),
            (true, false, within(14000), vec![(0, Quit), (4000, Hangup), (8000, Terminate), (14000, Kill)]),
            (false, false, within(0), vec![(0, Kill)]),
            (false, false, Some(Duration::MAX), vec![(0, Hangup), (240_000, Terminate), (600_000, Kill)]),
        ] {
            assert_eq!(climb(Policy { polite, force, within }), steps, "{polite} {force} {within:?}");
        }
    }

    #[test]
    fn a_late_caller_takes_the_last_step_that_is_due() {
        let mut ladder = Ladder::new(Policy { polite: true, ..Policy::default() });
        assert_eq!(ladder.next(Duration::ZERO), Next::Take(Step::Quit));
        assert_eq!(ladder.next(Duration::ZERO), Next::At(Duration::from_secs(2)));
        assert_eq!(ladder.next(Duration::from_secs(60)), Next::Take(Step::Kill));
        assert_eq!(ladder.next(Duration::from_secs(60)), Next::Top);
    }
}
