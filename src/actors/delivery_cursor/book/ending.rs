//! The end of a delivery: its record goes to the disk, and once that is there and everything before it is too, the
//! frame is let go and the engine is told.

use super::*;

impl Book {
    /// A delivery is at its end; it is let go once that is on disk and everything before it is.
    pub(super) fn settle(&mut self, at: Moment, key: u64, how: Ending, out: &mut Vec<Effect>) {
        let Some(one) = self.held.get(&key) else { return };
        let delivery = one.delivery.clone();
        let record = match (&how, note_of(&delivery)) {
            (Ending::DeadLetter { reason, landed }, Some(note)) => {
                Record::DeadLettered(Box::new(DeadLetter {
                    agent: self.agent.clone(),
                    name: self.name.clone(),
                    delivery: delivery.delivery_id.clone(),
                    seq: delivery.seq,
                    note: note.clone(),
                    reason: reason.clone(),
                    attempts: one.attempts,
                    landed: *landed,
                    at_ms: at.wall_ms,
                }))
            }
            (ending, _) => Record::Settled {
                agent: self.agent.clone(),
                delivery: delivery.delivery_id.clone(),
                msg: delivery.msg_id.clone(),
                seq: delivery.seq,
                outcome: match ending {
                    Ending::Outcome(outcome) => *outcome,
                    // A frame without a text is never handed over, so it cannot fail.
                    Ending::DeadLetter { .. } => Outcome::Unusable,
                },
            },
        };
        if let Ending::DeadLetter { landed, .. } = how {
            self.counts.dead_letters += 1;
            if !landed {
                self.messages.remove(&delivery.msg_id);
            }
        }
        let mark = self.append(record, out);
        if let Some(one) = self.held.get_mut(&key) {
            one.end = Some(End { how, mark });
            one.waiting.clear();
        }
        self.in_flight.retain(|other| *other != key);
        if delivery.seq.0 == 0 {
            self.fanout_ends.push_back((mark, key));
        }
        self.advance_lead();
    }

    pub(super) fn append(&mut self, record: Record, out: &mut Vec<Effect>) -> u64 {
        out.push(Effect::Append(record));
        self.marks += 1;
        self.marks
    }

    pub(super) fn advance_lead(&mut self) {
        while let Some(slot) = self.slots.get(self.lead) {
            self.injected = match slot {
                Slot::Past { to, .. } => self.injected.max(*to),
                Slot::Held(key) => match self.held.get(key) {
                    Some(one) if one.end.is_some() => one.delivery.seq.0,
                    _ => return,
                },
            };
            self.lead += 1;
        }
    }

    /// Lets go of what is on disk, acks, and asks for what was refused when there is room again.
    pub(super) fn finish_step(&mut self, out: &mut Vec<Effect>) {
        while let Some((mark, key)) = self.fanout_ends.front().copied()
            && mark <= self.on_disk
        {
            self.fanout_ends.pop_front();
            self.ack_due = true;
            self.let_go(key, out);
        }
        while let Some(slot) = self.slots.front() {
            let (to, key) = match slot {
                Slot::Past { to, mark } if *mark <= self.on_disk => (*to, None),
                Slot::Held(key) => match self.held.get(key) {
                    Some(Held { end: Some(end), delivery, .. }) if end.mark <= self.on_disk => {
                        (delivery.seq.0, Some(*key))
                    }
                    _ => break,
                },
                Slot::Past { .. } => break,
            };
            self.slots.pop_front();
            self.lead = self.lead.saturating_sub(1);
            self.journalled = self.journalled.max(to);
            if let Some(key) = key {
                self.let_go(key, out);
            }
        }
        if self.on_disk >= self.base && (self.ack_due || self.journalled > self.acked) {
            self.ack_due = false;
            self.acked = self.journalled;
            out.push(Effect::Ack(Seq(self.acked)));
        }
        if !self.gone && self.lane.wants_replay() && self.gap.ask() {
            out.push(Effect::RequestReplay);
        }
    }

    fn let_go(&mut self, key: u64, out: &mut Vec<Effect>) {
        let Some(one) = self.held.remove(&key) else { return };
        let fact = match one.end.map(|end| end.how) {
            Some(Ending::Outcome(Outcome::Proven(rung))) => Fact::Acked(rung),
            Some(Ending::DeadLetter { reason, .. }) => Fact::DeadLettered { reason, attempts: one.attempts },
            _ => return,
        };
        out.push(Effect::Tell(one.delivery, fact));
    }
}
