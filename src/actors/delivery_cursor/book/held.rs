//! One frame that is held: what is known of it from its coming until it is let go.

use std::sync::Arc;

use super::{Moment, hold::Pass};
use crate::{
    messages::delivery::{Credit, Delivery, Rung},
    store::Outcome,
};

/// Times a delivery is handed over before it is a dead letter. Waiting for a busy agent is not a try.
pub(in super::super) const ATTEMPTS_MAX: u32 = 20;

/// Programs that end by themselves with a delivery in their composer before it is a dead letter. One such end may be
/// chance, and may be the work of another message in the same paste; the second try goes alone. A third would make
/// three ends in a row at the start, which are a crash loop and cost the agent its life.
pub(in super::super) const DEATHS_MAX: u32 = 2;

/// A frame that is held.
#[derive(Debug)]
pub(in super::super) struct Held {
    pub(super) delivery: Arc<Delivery>,
    #[expect(dead_code, reason = "gives the frame's room back when it is let go")]
    pub(super) credit: Credit,
    /// When it came, in milliseconds since the Unix epoch.
    pub(super) since_ms: u64,
    pub(super) attempts: u32,
    /// Attempts of this life of the broker that the worker gave back before it began them.
    pub(super) taken_back: u32,
    /// Programs of this agent that ended by themselves while they had it, without a proof.
    pub(super) deaths: u32,
    pub(super) rung: Option<Rung>,
    /// An earlier try ended nobody knows how.
    pub(super) uncertain: bool,
    pub(super) pass: Pass,
    pub(super) told: Told,
    pub(super) waiting: String,
    pub(super) end: Option<End>,
}

impl Held {
    pub(super) fn new(delivery: Arc<Delivery>, credit: Credit, at: Moment) -> Self {
        Self {
            delivery,
            credit,
            since_ms: at.wall_ms,
            attempts: 0,
            taken_back: 0,
            deaths: 0,
            rung: None,
            uncertain: false,
            pass: Pass::default(),
            told: Told::default(),
            waiting: String::new(),
            end: None,
        }
    }

    /// How often it was really tried.
    pub(super) fn tries(&self) -> u32 {
        self.attempts.saturating_sub(self.taken_back)
    }

    /// Why it is not tried again, if it is not.
    pub(super) fn given_up(&self) -> Option<String> {
        if self.deaths >= DEATHS_MAX {
            let how = "before it had shown that it took it";
            return Some(format!("the program ended {DEATHS_MAX} times while it had this message, {how}"));
        }
        let is_hopeless = self.tries() >= ATTEMPTS_MAX;
        is_hopeless.then(|| format!("handed to the terminal {ATTEMPTS_MAX} times without a proof"))
    }
}

/// What everybody was told of it; each is told once.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) received: bool,
    pub(super) injected: bool,
    pub(super) stuck: bool,
}

/// How it ended, and the mark of the record that says so.
#[derive(Debug)]
pub(super) struct End {
    pub(super) how: Ending,
    pub(super) mark: u64,
}

/// How a delivery can end.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    Outcome(Outcome),
    DeadLetter { reason: String, landed: bool },
}

/// What is shown of the newest frame, also when it is held no more.
#[derive(Debug)]
pub(super) struct Last {
    pub(super) delivery: Arc<Delivery>,
    pub(super) since_ms: u64,
    pub(super) tries: u32,
    pub(super) rung: Option<Rung>,
}

impl Last {
    pub(super) fn of(one: &Held) -> Self {
        Self { delivery: one.delivery.clone(), since_ms: one.since_ms, tries: one.tries(), rung: one.rung }
    }
}
