//! From one life of the cursor to the next: what the book held is given out, and taken back by its successor.

use super::*;

impl Book {
    /// Ends the life of this book and takes what it holds, oldest first.
    pub(in super::super) fn into_held(mut self) -> Vec<Held> {
        for key in &self.in_flight {
            if let Some(one) = self.held.get_mut(key) {
                one.may_be_begun();
            }
        }
        self.held.into_values().chain(self.ahead.into_values()).collect()
    }

    /// Takes back what a former life of this cursor held. What the journal knows as settled only waits for
    /// the disk; everything else is handed over again.
    pub(in super::super) fn recall(&mut self, at: Moment, held: Vec<Held>, out: &mut Vec<Effect>) {
        let position = match self.position {
            Position::At(position) => position,
            Position::Unknown => 0,
        };
        let is_past = |one: &Held| (1..=position).contains(&one.delivery.seq.0);
        let (past, open): (Vec<_>, Vec<_>) = held.into_iter().partition(is_past);
        // The engine waits for acks of these, and everybody for the news: they go before the place where
        // the journal stands, which is the last slot.
        let stands = self.slots.drain(..).next_back();
        self.lead = 0;
        for mut one in past {
            let Some(end) = one.end.as_mut() else { continue };
            end.mark = 1;
            let seq = one.delivery.seq.0;
            self.slots.push_back(Slot::Past { to: seq - 1, mark: 1 });
            let key = self.keep(one);
            self.slots.push_back(Slot::Held(key));
        }
        self.slots.extend(stands);
        self.advance_lead();
        for one in open {
            self.take_back(at, one, out);
        }
        // A message that was in the mailbox's hand when the former life ended is gone with it.
        if self.gap.ask() {
            out.push(Effect::RequestReplay);
        }
        self.hand_over(at, out);
        self.finish_step(out);
    }

    fn take_back(&mut self, at: Moment, mut one: Held, out: &mut Vec<Effect>) {
        one.uncertain |= one.tries() > 0;
        one.waiting.clear();
        // The journal knows nothing of its tries that this does not, and not which of them were taken back.
        self.unfinished.remove(&one.delivery.delivery_id);
        if one.delivery.seq.0 != 0 {
            return self.sequenced(at, None, one, out);
        }
        let is_known = !self.fanout.insert(one.delivery.delivery_id.clone());
        match one.end.as_mut() {
            Some(end) if is_known => {
                end.mark = 1;
                let key = self.keep(one);
                self.fanout_ends.push_back((1, key));
            }
            _ => self.enter(at, one, out),
        }
    }
}
