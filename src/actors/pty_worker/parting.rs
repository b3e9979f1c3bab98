//! An end that was asked for: what stands half-way may still come to its proof, then the ladder is climbed.
//!
//! ```text
//! Finishing --nothing moves any more, or the time is up--> Climbing (quit keys, HUP, TERM, KILL)
//! ```
//!
//! Only an end that somebody asked for in an ordinary way waits: a limit that was reached, `force`, and whoever
//! asks a second time do not. The wait is a part of the time that was given for the whole.

use std::time::{Duration, Instant};

use crate::{
    messages::{process::EndedBy, pty::Terminate},
    pty::ladder::{Ladder, Next, Policy, Step},
};

/// So long an injection has to come to its proof; where there is a time for the whole end, half of that at most. A
/// slow composer needs less, and one that needs more is nothing that whoever waits for the end would wait for.
const PATIENCE: Duration = Duration::from_secs(2);

/// One end under way. See the module.
#[derive(Clone, Debug)]
pub(super) struct Parting {
    by: EndedBy,
    policy: Policy,
    asked: Instant,
    patience: Duration,
    /// The ladder, and since when it is climbed.
    climb: Option<(Ladder, Instant)>,
}

impl Parting {
    /// An end that is asked for now. `polite` says that the program has quit keys.
    pub(super) fn new(terminate: Terminate, polite: bool, now: Instant) -> Self {
        let Terminate { by, force, within } = terminate;
        let policy = Policy { polite, force, within };
        Self { by, policy, asked: now, patience: patience(&terminate), climb: None }
    }

    /// The same end is asked for once more, in another way: it waits no longer. Who asked first counts as the one who
    /// ended it.
    pub(super) fn again(&self, terminate: Terminate, polite: bool, now: Instant) -> Self {
        Self { by: self.by, patience: Duration::ZERO, ..Self::new(terminate, polite, now) }
    }

    /// Who ended it.
    pub(super) fn by(&self) -> EndedBy {
        self.by
    }

    /// The step to take now, once. `moving` says that something half-way is coming to its proof.
    pub(super) fn step(&mut self, moving: bool, now: Instant) -> Option<Step> {
        if self.climb.is_none() {
            if moving && now < self.asked + self.patience {
                return None;
            }
            let spent = now.saturating_duration_since(self.asked);
            let within = self.policy.within.map(|within| within.saturating_sub(spent));
            self.climb = Some((Ladder::new(Policy { within, ..self.policy }), now));
        }
        let (ladder, began) = self.climb.as_mut()?;
        match ladder.next(now.saturating_duration_since(*began)) {
            Next::Take(step) => Some(step),
            Next::At(_) | Next::Top => None,
        }
    }

    /// When the next step is due, if there is one.
    pub(super) fn wake(&self, moving: bool, now: Instant) -> Option<Instant> {
        let Some((ladder, began)) = &self.climb else {
            return Some(if moving { self.asked + self.patience } else { now });
        };
        match ladder.clone().next(now.saturating_duration_since(*began)) {
            Next::At(after) => Some(*began + after),
            Next::Take(_) => Some(now),
            Next::Top => None,
        }
    }
}

fn patience(Terminate { by, force, within }: &Terminate) -> Duration {
    match by {
        EndedBy::Release | EndedBy::Shutdown if !force => {
            within.map_or(PATIENCE, |within| PATIENCE.min(within / 2))
        }
        EndedBy::Release | EndedBy::Shutdown | EndedBy::Itself => Duration::ZERO,
        EndedBy::MaxRuntime | EndedBy::IdleLimit | EndedBy::OutputLimit => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn asked(by: EndedBy, force: bool, within: Option<u64>) -> Terminate {
        Terminate { by, force, within: within.map(ms) }
    }

    /// The steps with their times, in milliseconds, when what is under way is in after `proven`.
    fn climb(terminate: Terminate, polite: bool, proven: u64) -> Vec<(u64, Step)> {
        let start = Instant::now();
        let mut parting = Parting::new(terminate, polite, start);
        let (mut now, mut taken) = (start, Vec::new());
        for _ in 0..100 {
            let moving = now < start + ms(proven);
            let at = u64::try_from((now - start).as_millis()).unwrap();
            taken.extend(parting.step(moving, now).map(|step| (at, step)));
            let Some(wake) = parting.wake(moving, now) else { return taken };
            now = if moving { wake.min(start + ms(proven)) } else { wake };
        }
        panic!("it polls: {taken:?}");
    }

    #[test]
    fn an_end_waits_for_what_is_half_way_and_no_longer_than_it_may() {
        use EndedBy::{IdleLimit, MaxRuntime, OutputLimit, Release, Shutdown};
        use Step::{Hangup, Kill, Quit, Terminate};
        for (terminate, polite, proven, steps) in [
            // Nothing is half-way: at once.
            (asked(Release, false, None), false, 0, vec![(0, Hangup), (2000, Terminate), (5000, Kill)]),
            // It comes to its proof.
            (asked(Release, false, None), false, 300, vec![(300, Hangup), (2300, Terminate), (5300, Kill)]),
            (
                asked(Release, false, None),
                true,
                300,
                vec![(300, Quit), (2300, Hangup), (4300, Terminate), (7300, Kill)],
            ),
            // It never does.
            (
                asked(Release, false, None),
                false,
                60_000,
                vec![(2000, Hangup), (4000, Terminate), (7000, Kill)],
            ),
            // The time for the whole is kept, however much of it was waited.
            (
                asked(Shutdown, false, Some(2000)),
                false,
                60_000,
                vec![(1000, Hangup), (1400, Terminate), (2000, Kill)],
            ),
            (
                asked(Shutdown, false, Some(2000)),
                false,
                500,
                vec![(500, Hangup), (1100, Terminate), (2000, Kill)],
            ),
            (
                asked(Release, false, Some(60_000)),
                false,
                60_000,
                vec![(2000, Hangup), (25_200, Terminate), (60_000, Kill)],
            ),
            (asked(Release, false, Some(0)), false, 60_000, vec![(0, Kill)]),
            // These wait for nothing.
            (asked(Release, true, None), true, 60_000, vec![(0, Kill)]),
            (asked(Shutdown, true, Some(2000)), false, 60_000, vec![(0, Kill)]),
            (
                asked(MaxRuntime, false, None),
                false,
                60_000,
                vec![(0, Hangup), (2000, Terminate), (5000, Kill)],
            ),
            (
                asked(IdleLimit, false, None),
                false,
                60_000,
                vec![(0, Hangup), (2000, Terminate), (5000, Kill)],
            ),
            (
                asked(OutputLimit, false, None),
                false,
                60_000,
                vec![(0, Hangup), (2000, Terminate), (5000, Kill)],
            ),
        ] {
            assert_eq!(climb(terminate, polite, proven), steps, "{terminate:?} {polite} {proven}");
        }
    }

    #[test]
    fn what_begins_to_move_on_the_ladder_is_not_waited_for() {
        let start = Instant::now();
        let mut parting = Parting::new(asked(EndedBy::Release, false, None), false, start);
        assert_eq!(parting.step(false, start), Some(Step::Hangup));
        assert_eq!(parting.step(true, start + ms(2000)), Some(Step::Terminate));
    }

    #[test]
    fn whoever_asks_again_waits_for_nothing_and_the_first_one_has_ended_it() {
        let start = Instant::now();
        let mut parting = Parting::new(asked(EndedBy::Release, false, None), false, start);
        assert_eq!(parting.step(true, start), None);
        let mut again = parting.again(asked(EndedBy::Shutdown, false, Some(1000)), false, start + ms(100));
        assert_eq!(again.step(true, start + ms(100)), Some(Step::Hangup));
        assert_eq!(again.by(), EndedBy::Release);
        let mut forced = parting.again(asked(EndedBy::Release, true, None), false, start + ms(100));
        assert_eq!(forced.step(true, start + ms(100)), Some(Step::Kill));
    }
}
