//! The ladder by which a child is ended: the CLI's own way, then HUP, TERM, KILL (spec/pty 5.3).
//!
//! A pure rule. The caller tells how long the ladder has been running and climbs only while the child lives.

use std::time::Duration;

/// What to do to the child now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Type the CLI's own quit keys.
    Quit,
    /// SIGHUP to the groups.
    Hangup,
    /// SIGTERM to the groups.
    Terminate,
    /// SIGKILL to the groups; after it only [`sweep`](super::sweep) is left.
    Kill,
}

/// How hard and how fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The CLI has quit keys.
    pub polite: bool,
    /// KILL at once.
    pub force: bool,
    /// KILL after this long instead of the default; the other steps move in proportion.
    pub within: Option<Duration>,
}

/// What the ladder asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Take this step, then ask again.
    Take(Rung),
    /// Nothing before this much time of the ladder has passed.
    At(Duration),
    /// All steps are taken.
    Top,
}

/// One ending under way.
#[derive(Clone, Debug)]
pub struct Ladder {
    steps: std::vec::IntoIter<(Duration, Rung)>,
}

/// How long each step gets before the next one.
const PATIENCE: [(Rung, Duration); 3] = [
    (Rung::Quit, Duration::from_secs(2)),
    (Rung::Hangup, Duration::from_secs(2)),
    (Rung::Terminate, Duration::from_secs(3)),
];

impl Ladder {
    /// The steps of this policy.
    pub fn new(policy: Policy) -> Self {
        let mut steps = Vec::with_capacity(4);
        let mut at = Duration::ZERO;
        if !policy.force {
            for (rung, patience) in PATIENCE {
                if rung != Rung::Quit || policy.polite {
                    steps.push((at, rung));
                    at += patience;
                }
            }
        }
        steps.push((at, Rung::Kill));
        if let (Some(within), false) = (policy.within, at.is_zero()) {
            let scale = within.as_secs_f64() / at.as_secs_f64();
            for (step, _) in &mut steps {
                *step = step.mul_f64(scale);
            }
        }
        Self { steps: steps.into_iter() }
    }

    /// What to do when the ladder has been running for `elapsed`. A step that is due is given once; after
    /// a delay the steps that were missed are skipped in favour of the last one that is due.
    pub fn next(&mut self, elapsed: Duration) -> Next {
        let mut due = None;
        while let Some(&(at, rung)) = self.steps.as_slice().first() {
            if at > elapsed {
                return due.map_or(Next::At(at), Next::Take);
            }
            due = Some(rung);
            self.steps.next();
        }
        due.map_or(Next::Top, Next::Take)
    }
}
