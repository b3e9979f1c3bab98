//! What is typed next, and how: one message or several at once, after the running turn or into it.
//!
//! - At rest, messages go in their order. Up to eight that wait one after the other go in one paste: one turn
//!   of the agent instead of eight. The first task, a steering message and one that may have been
//!   typed before go alone.
//! - While a turn runs, a message waits for its end, or goes into the program's own queue where it has one: at
//!   once, or when it has waited too long, as the rules say. A steering message overtakes those that wait, but
//!   never the first task, and steers where the program is known to let itself be steered. At rest it is a message
//!   like any other: nothing is interrupted.
//!
//! A steering message that overtook others is proven before them. Their mailbox is acked up to the first one
//! that has no proof, so the engine offers it again after a reconnect, and the journal knows it.

use std::time::Duration;

use crate::harness::{Busy, Queue, Steer};

/// Messages in one paste, and their bytes together (spec/pty 7).
const BATCH_MAX: usize = 8;
const BATCH_BYTES_MAX: usize = 8 << 10;

/// A message that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// It is to change the course of the turn that runs.
    pub steers: bool,
    /// It is the first task.
    pub task: bool,
    /// Nobody knows how an earlier try ended. It takes no other message along, should it end the program.
    pub again: bool,
    /// How long its text is.
    pub bytes: usize,
    /// For how long it waits.
    pub waited: Duration,
}

/// How a message meets what the program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// When it is at rest.
    Rest,
    /// While it works, into its own queue.
    Queue,
    /// While it works, into the turn that runs.
    Steer,
    /// While it works: the turn is stopped first.
    Interrupt,
}

/// The next thing to type: so many messages from this one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// The first, counted from the one that waits longest.
    pub from: usize,
    /// How many; at least one.
    pub count: usize,
    /// How.
    pub way: Way,
}

/// Chooses among the messages that wait, oldest first. `working` says that a turn runs.
pub(super) fn next(waiting: &[Waiting], working: bool, busy: &Busy) -> Option<Turn> {
    let first = waiting.first()?;
    if working
        && !first.task
        && let Some(way) = steering(busy)
        && let Some(from) = waiting.iter().position(|one| one.steers)
    {
        return Some(Turn { from, count: 1, way });
    }
    let at_once = busy.queue != Queue::Hold && !first.steers;
    let way = if working && (at_once || is_overdue(first, busy)) { Way::Queue } else { Way::Rest };
    let mut bytes = 0;
    let fits = |one: &&Waiting| {
        bytes += one.bytes;
        let goes = way == Way::Rest || at_once || is_overdue(one, busy);
        goes && !one.steers && !one.task && !one.again && bytes <= BATCH_BYTES_MAX
    };
    let count = waiting.iter().take(BATCH_MAX).take_while(fits).count().max(1);
    Some(Turn { from: 0, count, way })
}

/// How much longer the first one has to wait until it is overdue, if it is going to be.
pub(super) fn overdue_in(first: &Waiting, busy: &Busy) -> Option<Duration> {
    busy.overdue.as_ref()?;
    busy.max_wait.checked_sub(first.waited).filter(|rest| !rest.is_zero())
}

fn is_overdue(one: &Waiting, busy: &Busy) -> bool {
    busy.overdue.is_some() && busy.max_wait <= one.waited
}

fn steering(busy: &Busy) -> Option<Way> {
    match busy.steer {
        Steer::None => None,
        Steer::Enter => Some(Way::Steer),
        Steer::Interrupt => busy.interrupt.is_some().then_some(Way::Interrupt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Waiting =
        Waiting { steers: false, task: false, again: false, bytes: 100, waited: Duration::ZERO };
    const STEER: Waiting = Waiting { steers: true, ..WAIT };
    const TASK: Waiting = Waiting { task: true, ..WAIT };
    const AGAIN: Waiting = Waiting { again: true, ..WAIT };

    fn turn(from: usize, count: usize, way: Way) -> Option<Turn> {
        Some(Turn { from, count, way })
    }

    fn busy(queue: &str, steer: Steer) -> Busy {
        let queue = if queue == "hold" { Queue::Hold } else { Queue::Key(queue.parse().unwrap()) };
        Busy { queue, steer, interrupt: "esc".parse().ok(), ..Busy::default() }
    }

    #[test]
    fn at_rest_what_waits_goes_together_and_in_order() {
        let busy = busy("tab", Steer::Enter);
        let at_rest = |waiting: &[Waiting]| next(waiting, false, &busy);
        assert_eq!(at_rest(&[]), None);
        assert_eq!(at_rest(&[WAIT]), turn(0, 1, Way::Rest));
        assert_eq!(at_rest(&[WAIT; 20]), turn(0, BATCH_MAX, Way::Rest));
        assert_eq!(at_rest(&[TASK, WAIT, WAIT]), turn(0, 1, Way::Rest));
        assert_eq!(at_rest(&[AGAIN, WAIT, WAIT]), turn(0, 1, Way::Rest));
        assert_eq!(at_rest(&[WAIT, WAIT, AGAIN]), turn(0, 2, Way::Rest));
        assert_eq!(at_rest(&[WAIT, WAIT, STEER, WAIT]), turn(0, 2, Way::Rest));
        assert_eq!(at_rest(&[STEER, WAIT]), turn(0, 1, Way::Rest), "nothing runs that it could steer");
        let long = Waiting { bytes: BATCH_BYTES_MAX, ..WAIT };
        assert_eq!(at_rest(&[long, WAIT]), turn(0, 1, Way::Rest));
        assert_eq!(at_rest(&[WAIT, long]), turn(0, 1, Way::Rest));
        assert_eq!(at_rest(&[Waiting { bytes: 1 << 20, ..WAIT }]), turn(0, 1, Way::Rest));
    }

    #[test]
    fn a_running_turn_is_steered_as_the_program_knows_it_and_never_before_the_first_task() {
        let steered = |waiting: &[Waiting], steer| next(waiting, true, &busy("hold", steer));
        assert_eq!(steered(&[WAIT, STEER, STEER], Steer::Enter), turn(1, 1, Way::Steer));
        assert_eq!(steered(&[WAIT, STEER], Steer::Interrupt), turn(1, 1, Way::Interrupt));
        assert_eq!(steered(&[WAIT, STEER], Steer::None), turn(0, 1, Way::Rest));
        assert_eq!(steered(&[STEER, WAIT], Steer::None), turn(0, 1, Way::Rest));
        assert_eq!(steered(&[TASK, STEER], Steer::Enter), turn(0, 1, Way::Rest));
        let no_key = Busy { interrupt: None, ..busy("hold", Steer::Interrupt) };
        assert_eq!(next(&[STEER], true, &no_key), turn(0, 1, Way::Rest), "no key is known to stop it");
    }

    #[test]
    fn a_running_turn_holds_back_what_waits_unless_the_program_has_a_queue() {
        assert_eq!(next(&[WAIT, WAIT], true, &busy("hold", Steer::None)), turn(0, 2, Way::Rest));
        assert_eq!(next(&[WAIT, WAIT], true, &busy("tab", Steer::None)), turn(0, 2, Way::Queue));
        assert_eq!(next(&[STEER], true, &busy("tab", Steer::None)), turn(0, 1, Way::Rest));
    }

    #[test]
    fn what_has_waited_too_long_goes_into_the_programs_queue_where_a_key_is_known_for_it() {
        let limit = Duration::from_mins(10);
        let busy = Busy { overdue: "enter".parse().ok(), max_wait: limit, ..busy("hold", Steer::None) };
        let after = |minutes| Waiting { waited: Duration::from_mins(minutes), ..WAIT };
        let (young, old) = (after(9), after(10));
        assert_eq!(next(&[young], true, &busy), turn(0, 1, Way::Rest));
        assert_eq!(next(&[old, after(11), young], true, &busy), turn(0, 2, Way::Queue), "each at its time");
        assert_eq!(next(&[old, young], false, &busy), turn(0, 2, Way::Rest), "nothing runs");
        assert_eq!(next(&[Waiting { steers: true, ..old }, old], true, &busy), turn(0, 1, Way::Queue));
        assert_eq!(next(&[Waiting { task: true, ..old }, old], true, &busy), turn(0, 1, Way::Queue));
        assert_eq!(overdue_in(&young, &busy), Some(Duration::from_mins(1)));
        assert_eq!(overdue_in(&old, &busy), None, "it is");

        let no_key = Busy { overdue: None, ..busy };
        let for_days = after(10_000);
        assert_eq!(next(&[for_days], true, &no_key), turn(0, 1, Way::Rest));
        assert_eq!(overdue_in(&young, &no_key), None);
    }
}
