//! An actor's own end of its supervision.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use actix::ActorContext;

use super::{
    Detail, Probe,
    probe::{FaultPoint, lock},
};
use crate::{ids::Generation, messages::lifecycle::ExitReason};

/// What an actor uses to end on purpose, to say how it is, and to count its turns. Shared with its runner.
#[derive(Clone, Debug)]
pub struct Lifeline {
    probe: Arc<Probe>,
    said: Arc<Mutex<Said>>,
}

#[derive(Debug, Default)]
struct Said {
    exit: Option<ExitReason>,
    healthy: bool,
}

impl Lifeline {
    pub(super) fn new(probe: Arc<Probe>) -> Self {
        Self { probe, said: Arc::default() }
    }

    /// Ends this life for this reason. The first reason given in a life counts. The actor must return from
    /// its handler right after.
    pub fn exit(&self, ctx: &mut impl ActorContext, reason: ExitReason) {
        lock(&self.said).exit.get_or_insert(reason);
        ctx.stop();
    }

    /// The healthy spell is reached: past failures no longer count.
    pub fn healthy(&self) {
        lock(&self.said).healthy = true;
    }

    /// Opens a handler's turn: the first line of every handler. Counts the message out of the mailbox and
    /// the time until the guard is dropped.
    pub fn turn(&self) -> Turn {
        self.probe.taken();
        let turn = Turn { probe: self.probe.clone(), began: Instant::now() };
        self.probe.pass(FaultPoint::Handler);
        turn
    }

    /// The first line of `Actor::started`.
    pub fn started(&self) {
        self.probe.pass(FaultPoint::Started);
    }

    /// The first line of `Supervised::restarting`.
    pub fn restarting(&self) {
        self.probe.pass(FaultPoint::Restarting);
    }

    /// The first line of `Actor::stopped`, which does nothing else: it also runs after a panic.
    pub fn stopped(&self) {
        self.probe.pass(FaultPoint::Stopped);
    }

    /// This life.
    pub fn generation(&self) -> Generation {
        self.probe.generation()
    }

    /// The actor's probe.
    pub fn probe(&self) -> &Arc<Probe> {
        &self.probe
    }

    /// Says what the actor does, in a word or two.
    pub fn state(&self, state: impl Into<String>) {
        self.probe.set_state(state);
    }

    /// Records a failure that does not end the actor.
    pub fn error(&self, error: impl Into<String>) {
        self.probe.set_error(error);
    }

    /// Shows what only this kind has.
    pub fn detail(&self, detail: Detail) {
        self.probe.set_detail(detail);
    }

    pub(super) fn take_exit(&self) -> Option<ExitReason> {
        lock(&self.said).exit.take()
    }

    pub(super) fn take_healthy(&self) -> bool {
        std::mem::take(&mut lock(&self.said).healthy)
    }
}

/// A handler's turn.
#[derive(Debug)]
#[must_use = "hold it for the whole handler: `let _turn = self.life.turn();`"]
pub struct Turn {
    probe: Arc<Probe>,
    began: Instant,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.probe.turned(self.began);
    }
}
