//! The desk of a program that is being ended: nothing new is begun, and what stands half-way is finished while
//! there is time. Then the keys and signals that end the program are at work, and they clear composers as well as an
//! Enter does: from there on nothing is pressed, and no composer proves anything.

use std::time::Instant;

use super::{Desk, Lane};
use crate::actors::pty_worker::readiness::Gate;

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Closing {
    /// Nobody wants one.
    #[default]
    No,
    /// What is half-way is finished.
    Finishing,
    /// The program is being ended.
    Over,
}

impl Desk {
    /// From here on only what the child may have of ours is worked on. The rest is forgotten; that nothing came of it
    /// the cursor learns with the child's end.
    pub(crate) fn begin_nothing_new(&mut self) {
        if self.closing == Closing::No {
            self.closing = Closing::Finishing;
        }
        self.cancel();
    }

    /// True while something half-way is coming to its proof, and nobody else must act first.
    pub(crate) fn is_moving(&self, now: Instant) -> bool {
        match &self.lane {
            Lane::Plain(lane) => lane.is_moving(now),
            Lane::Composer(lane) => lane.current.as_ref().is_some_and(|current| current.is_moving(now)),
        }
    }

    /// The program is being ended now. What was submitted and waits for a better proof has the one that it has.
    pub(crate) fn conclude(&mut self) {
        self.closing = Closing::Over;
        let Lane::Composer(lane) = &mut self.lane else { return };
        let Some(step) = lane.current.as_mut().and_then(|current| current.conclude()) else { return };
        let Some(current) = lane.current.take() else { return };
        current.ids().for_each(|id| self.say(id.clone(), step.clone()));
    }

    /// The gate of what is being ended: it keeps back what is not typed yet.
    pub(super) fn shut(&self) -> Option<Gate> {
        (self.closing != Closing::No).then(|| Gate::closed("the agent is being ended", None))
    }
}
