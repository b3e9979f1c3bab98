//! Holding back: which of the ready frames may be handed over.
//!
//! What the worker has not begun is taken back when holding begins. Whatever was in the worker's hands and may
//! have been begun (its life or the cursor's ended meanwhile) is handed over all the same and then taken back,
//! because only the worker knows how far it came.

use super::{Book, Effect, Held, Moment, note_of};
use crate::{
    ids::DeliveryId,
    messages::{
        delivery::Delivery,
        hold::{DeliveryMode, ModeConflict, ModeSet, Pending},
    },
};

/// Why a frame is handed over although messages are held back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pass {
    /// A person let it through.
    flushed: bool,
    /// The worker may have begun it; used up by being handed over.
    begun: bool,
}

impl Pass {
    fn is_open(self) -> bool {
        self.flushed || self.begun
    }
}

impl Held {
    /// It leaves the hands of a worker that will not say how far it came.
    pub(super) fn may_be_begun(&mut self) {
        self.pass.begun = true;
    }

    /// It goes to the worker; true when it is to come back if it was not begun.
    pub(super) fn hand_over(&mut self, mode: DeliveryMode) -> bool {
        let begun = std::mem::take(&mut self.pass.begun);
        begun && !self.pass.flushed && mode == DeliveryMode::ManualFlush
    }
}

impl Book {
    /// Sets the mode, if it is the expected one.
    ///
    /// # Errors
    /// [`ModeConflict`] if not.
    pub(in super::super) fn set_mode(
        &mut self,
        at: Moment,
        mode: DeliveryMode,
        expect: Option<DeliveryMode>,
        out: &mut Vec<Effect>,
    ) -> Result<ModeSet, ModeConflict> {
        let previous = self.mode;
        if let Some(expected) = expect.filter(|expected| *expected != previous) {
            return Err(ModeConflict { mode: previous, expected });
        }
        let flushed = match mode {
            DeliveryMode::AutoInject => self.kept_back().count(),
            DeliveryMode::ManualFlush => {
                if previous == DeliveryMode::AutoInject {
                    self.held.values_mut().for_each(|one| one.pass.flushed = false);
                }
                // Also when it is the mode already: the worker may still owe an answer to whoever set it.
                if self.worker.is_some() && !self.in_flight.is_empty() {
                    out.push(Effect::TakeBack);
                }
                0
            }
        };
        self.mode = mode;
        self.hand_over(at, out);
        self.finish_step(out);
        Ok(ModeSet { previous, mode, flushed })
    }

    /// The mode.
    pub(in super::super) fn mode(&self) -> DeliveryMode {
        self.mode
    }

    /// Lets through what is held back now, or only this one, and says how many that is.
    pub(in super::super) fn flush(
        &mut self,
        at: Moment,
        only: Option<&DeliveryId>,
        out: &mut Vec<Effect>,
    ) -> usize {
        if self.mode == DeliveryMode::AutoInject {
            return 0;
        }
        let is_meant = |delivery: &Delivery| only.is_none_or(|only| delivery.delivery_id == *only);
        let mut flushed = 0;
        for key in &self.ready {
            if let Some(one) = self.held.get_mut(key)
                && !one.pass.is_open()
                && is_meant(&one.delivery)
            {
                one.pass.flushed = true;
                flushed += 1;
            }
        }
        // The worker may be about to give these back: they are held at this moment, too.
        for key in &self.in_flight {
            if let Some(one) = self.held.get_mut(key).filter(|one| is_meant(&one.delivery)) {
                one.pass.flushed = true;
            }
        }
        self.hand_over(at, out);
        self.finish_step(out);
        flushed
    }

    /// What is held back, in the order in which it will go in.
    pub(in super::super) fn pending(&self) -> Vec<Pending> {
        let pending = |one: &Held| {
            Some(Pending {
                delivery: one.delivery.delivery_id.clone(),
                note: note_of(&one.delivery)?.clone(),
                mode: one.delivery.mode,
                queued_at_ms: one.since_ms,
            })
        };
        self.kept_back().filter_map(pending).collect()
    }

    /// The frames that wait for a person alone.
    pub(super) fn kept_back(&self) -> impl Iterator<Item = &Held> {
        let ready = self.ready.iter().filter(|_| self.mode == DeliveryMode::ManualFlush);
        ready.filter_map(|key| self.held.get(key)).filter(|one| !one.pass.is_open())
    }

    /// The next frame that may be handed over.
    pub(super) fn next_ready(&mut self) -> Option<u64> {
        match self.mode {
            DeliveryMode::AutoInject => self.ready.pop_front(),
            DeliveryMode::ManualFlush => {
                let may_go = |key: &u64| self.held.get(key).is_some_and(|one| one.pass.is_open());
                let at = self.ready.iter().position(may_go)?;
                self.ready.remove(at)
            }
        }
    }

    /// Puts a frame back to its place among those that are ready.
    pub(super) fn put_back(&mut self, key: u64) {
        if let Some(one) = self.held.get_mut(&key) {
            one.waiting.clear();
        }
        let place = self.ready.partition_point(|other| *other < key);
        self.ready.insert(place, key);
    }

    /// The worker has forgotten these attempts before it began them.
    pub(super) fn taken_back(&mut self, forgotten: &[(DeliveryId, u32)]) {
        for (delivery, attempt) in forgotten {
            let Some(key) = self.in_flight_key(delivery) else { continue };
            let Some(one) = self.held.get_mut(&key).filter(|one| one.attempts == *attempt) else { continue };
            one.taken_back += 1;
            self.in_flight.retain(|other| *other != key);
            self.put_back(key);
        }
    }
}
