//! When to ask the engine for missing numbers, and when to stop waiting for them (spec/wire 4.2).
//!
//! ```text
//! Closed --a number is missing--> Reordering --250 ms--> Asking --the engine was asked--> Asked
//!   ^                                                      ^                                |
//!   +--it came, or was given up------------- new epoch ----+---------------- 5 s: give up --+
//! ```
//!
//! The 5 s run from the moment the engine was really asked on a live socket: a broker that is offline gives
//! nothing up.

use std::time::{Duration, Instant};

use crate::ids::Epoch;

/// Live frames of one mailbox may overtake each other by this much (spec/wire 4.1).
pub(super) const REORDER_WAIT: Duration = Duration::from_millis(250);
/// What a replay has not brought by then is gone for good (spec/wire 4.2).
pub(super) const REPLAY_WAIT: Duration = Duration::from_secs(5);

/// The wait for missing numbers, and the one question to the engine that may be open.
#[derive(Debug, Default)]
pub(super) struct Gap {
    phase: Phase,
    question: Question,
}

#[derive(Debug, Default, PartialEq)]
enum Phase {
    #[default]
    Closed,
    Reordering {
        until: Instant,
    },
    Asking,
    Asked {
        epoch: Epoch,
        until: Instant,
    },
}

#[derive(Debug, Default, PartialEq)]
enum Question {
    #[default]
    None,
    Open,
    /// The session ended before it could ask.
    Again {
        at: Instant,
    },
}

/// What is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Ask the engine for a replay.
    pub(super) ask: bool,
    /// The time is up: what is missing now stays missing.
    pub(super) give_up: bool,
}

impl Gap {
    /// A number is missing. Nothing happens when that was known.
    pub(super) fn open(&mut self, now: Instant) {
        if self.phase == Phase::Closed {
            self.phase = Phase::Reordering { until: now + REORDER_WAIT };
        }
    }

    /// Nothing is missing any more.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    /// Asks, unless a question is open already; true when it is to be sent.
    pub(super) fn ask(&mut self) -> bool {
        if self.question == Question::Open {
            return false;
        }
        self.question = Question::Open;
        true
    }

    /// The engine was asked in this epoch, or (`None`) the session ended before it could. True when the wait
    /// for this gap's numbers begins with it.
    pub(super) fn answered(&mut self, epoch: Option<Epoch>, now: Instant) -> bool {
        self.question = match epoch {
            Some(_) => Question::None,
            None => Question::Again { at: now + REPLAY_WAIT },
        };
        let (Phase::Asking, Some(epoch)) = (&self.phase, epoch) else { return false };
        self.phase = Phase::Asked { epoch, until: now + REPLAY_WAIT };
        true
    }

    /// A new socket: an answer to what the old one was asked is lost. True when to ask again.
    pub(super) fn epoch_started(&mut self) -> bool {
        if !matches!(self.phase, Phase::Asked { .. }) {
            return false;
        }
        self.phase = Phase::Asking;
        self.ask()
    }

    /// True when a frame of this epoch may belong to the replay that was asked for.
    pub(super) fn replays_in(&self, epoch: Epoch) -> bool {
        matches!(self.phase, Phase::Asked { epoch: asked, .. } if asked <= epoch)
    }

    /// What is due now. `may_ask` is false while the lower bound of the gap is unknown: nothing can be asked
    /// for then, and the reorder wait alone decides.
    pub(super) fn tick(&mut self, now: Instant, may_ask: bool) -> Due {
        let mut due = Due::default();
        match self.phase {
            Phase::Reordering { until } if now >= until && may_ask => {
                self.phase = Phase::Asking;
                due.ask = self.ask();
            }
            Phase::Reordering { until } | Phase::Asked { until, .. } if now >= until => due.give_up = true,
            _ => {}
        }
        if matches!(self.question, Question::Again { at } if now >= at) {
            due.ask = self.ask();
        }
        due
    }

    /// When `tick` has something to say next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Closed | Phase::Asking => None,
            Phase::Reordering { until } | Phase::Asked { until, .. } => Some(until),
        };
        let again = match self.question {
            Question::Again { at } => Some(at),
            _ => None,
        };
        phase.into_iter().chain(again).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_seconds_run_from_the_moment_the_engine_was_asked() {
        let start = Instant::now();
        let mut gap = Gap::default();
        gap.open(start);
        assert_eq!(gap.tick(start, true), Due::default());
        assert_eq!(gap.tick(start + REORDER_WAIT, true), Due { ask: true, give_up: false });
        let hour = start + Duration::from_secs(3600);
        assert_eq!((gap.tick(hour, true), gap.deadline()), (Due::default(), None), "offline");
        gap.answered(Some(Epoch(2)), hour);
        assert!(gap.replays_in(Epoch(2)) && !gap.replays_in(Epoch(1)));
        assert_eq!(gap.tick(hour + REPLAY_WAIT - Duration::from_millis(1), true), Due::default());
        assert!(gap.tick(hour + REPLAY_WAIT, true).give_up);
    }

    #[test]
    fn a_new_socket_asks_again_and_the_time_starts_over() {
        let start = Instant::now();
        let mut gap = Gap::default();
        gap.open(start);
        gap.tick(start + REORDER_WAIT, true);
        gap.answered(Some(Epoch(1)), start);
        assert!(gap.epoch_started());
        assert!(!gap.tick(start + Duration::from_secs(60), true).give_up);
        assert!(!gap.ask(), "one question at a time");
    }

    #[test]
    fn a_question_that_died_with_the_session_is_asked_again() {
        let start = Instant::now();
        let mut gap = Gap::default();
        assert!(gap.ask());
        gap.answered(None, start);
        assert_eq!(gap.deadline(), Some(start + REPLAY_WAIT));
        assert!(gap.tick(start + REPLAY_WAIT, true).ask);
    }

    #[test]
    fn without_a_lower_bound_the_reorder_wait_decides() {
        let start = Instant::now();
        let mut gap = Gap::default();
        gap.open(start);
        assert_eq!(gap.tick(start + REORDER_WAIT, false), Due { ask: false, give_up: true });
    }
}
