//! The worker's side: what is handed over to it, and what it reports.

use super::*;

impl Book {
    pub(super) fn hand_over(&mut self, at: Moment, out: &mut Vec<Effect>) {
        let Some(worker) = self.worker else { return };
        let mut is_to_come_back = false;
        while self.in_flight.len() < worker.window {
            let Some(key) = self.next_ready() else { break };
            let Some(one) = self.held.get_mut(&key) else { continue };
            if let Some(reason) = one.given_up() {
                let landed = one.rung >= Some(Rung::Landed);
                self.settle(at, key, Ending::DeadLetter { reason, landed }, out);
                continue;
            }
            let redelivered = one.uncertain || one.tries() > 0;
            is_to_come_back |= one.hand_over(self.mode);
            one.attempts += 1;
            let (delivery, attempt, reached) = (one.delivery.clone(), one.attempts, one.rung);
            let Some(note) = note_of(&delivery) else { continue };
            self.in_flight.push(key);
            if delivery.seq.0 != 0 {
                // Before the first byte can be typed, so that a crash in the middle leaves a trace.
                out.push(Effect::Trace(Record::Handed {
                    agent: self.agent.clone(),
                    delivery: delivery.delivery_id.clone(),
                    seq: delivery.seq,
                    attempt,
                }));
            }
            out.push(Effect::Inject(Inject {
                delivery_id: delivery.delivery_id.clone(),
                attempt,
                mode: delivery.mode,
                note: note.clone(),
                reached,
                redelivered,
                marked: None,
            }));
        }
        if is_to_come_back {
            out.push(Effect::TakeBack);
        }
    }

    pub(super) fn worker_up(&mut self, worker: WorkerUp) {
        if self.gone {
            return;
        }
        self.worker = Some(worker);
        for key in std::mem::take(&mut self.in_flight) {
            if let Some(one) = self.held.get_mut(&key) {
                one.may_be_begun();
            }
            self.put_back(key);
        }
    }

    pub(super) fn worker_gone(&mut self, reason: String, out: &mut Vec<Effect>) {
        self.worker = None;
        self.gone = true;
        self.gap = Gap::default();
        self.ready.clear();
        self.in_flight.clear();
        let open = self.held.values().filter(|one| one.end.is_none()).count();
        let count = open + self.ahead.len();
        self.ahead.clear();
        self.held.retain(|_, one| one.end.is_some());
        // No ack may pass what was dropped; what is settled behind it is in the journal all the same.
        let kept = self.slots.iter().take_while(|slot| match slot {
            Slot::Held(key) => self.held.contains_key(key),
            Slot::Past { .. } => true,
        });
        let kept = kept.count();
        for slot in self.slots.drain(kept..) {
            if let Slot::Held(key) = slot {
                self.held.remove(&key);
            }
        }
        self.lead = self.lead.min(kept);
        if count > 0 {
            out.push(Effect::Dropped { count, reason });
        }
    }

    pub(super) fn in_flight_key(&self, delivery: &DeliveryId) -> Option<u64> {
        let is_it = |key: &u64| self.held.get(key).is_some_and(|one| one.delivery.delivery_id == *delivery);
        self.in_flight.iter().copied().find(is_it)
    }

    pub(super) fn report(&mut self, at: Moment, report: InjectReport, out: &mut Vec<Effect>) {
        let current = self.worker.is_some_and(|worker| worker.worker == report.worker);
        let key = self.in_flight_key(&report.delivery_id).filter(|_| current);
        let Some((key, one)) = key.and_then(|key| Some((key, self.held.get_mut(&key)?))) else {
            self.counts.stale_reports += 1;
            return;
        };
        if one.attempts != report.attempt {
            self.counts.stale_reports += 1;
            return;
        }
        let delivery = one.delivery.clone();
        let (InjectStep::Reached(rung) | InjectStep::Proven(rung) | InjectStep::Stuck { rung, .. }) =
            report.step
        else {
            match report.step {
                InjectStep::Waiting(reason) => one.waiting = reason,
                InjectStep::Failed { reason, landed } => {
                    let landed = landed || one.rung >= Some(Rung::Landed);
                    self.settle(at, key, Ending::DeadLetter { reason, landed }, out);
                }
                _ => {}
            }
            return;
        };
        let proven = matches!(report.step, InjectStep::Proven(_));
        let landed_before = one.rung >= Some(Rung::Landed);
        one.rung = one.rung.max(Some(rung));
        if let Some(last) = &mut self.last
            && Arc::ptr_eq(&last.delivery, &delivery)
        {
            *last = Last::of(one);
        }
        let is_in = proven || rung >= Rung::Landed;
        if is_in && !std::mem::replace(&mut one.told.injected, true) {
            out.push(Effect::Tell(delivery.clone(), Fact::Injected(rung)));
        } else if !is_in && matches!(report.step, InjectStep::Reached(_)) {
            one.waiting.clear();
        }
        match report.step {
            InjectStep::Stuck { screen, .. } => {
                one.waiting = "no progress for 30 s".to_owned();
                if !std::mem::replace(&mut one.told.stuck, true) {
                    out.push(Effect::Tell(delivery, Fact::Stuck { rung, screen }));
                }
            }
            InjectStep::Proven(_) => {
                out.push(Effect::Tell(delivery, Fact::Verified(rung)));
                self.settle(at, key, Ending::Outcome(Outcome::Proven(rung)), out);
            }
            _ if rung >= Rung::Landed && !landed_before && delivery.seq.0 != 0 => {
                let (agent, delivery) = (self.agent.clone(), delivery.delivery_id.clone());
                out.push(Effect::Trace(Record::Reached { agent, delivery, rung }));
            }
            _ => {}
        }
    }
}
