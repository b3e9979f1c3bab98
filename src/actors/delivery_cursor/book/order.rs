//! The order of the mailbox: what is next, what waits beyond a gap, and when a gap is given up.

use super::*;

impl Book {
    /// A frame of the mailbox: in order, behind, or beyond a gap. `epoch` is absent for one taken back.
    pub(super) fn sequenced(&mut self, at: Moment, epoch: Option<Epoch>, one: Held, out: &mut Vec<Effect>) {
        let seq = one.delivery.seq.0;
        self.received = self.received.max(seq);
        if self.position == Position::Unknown && seq == 1 {
            self.seed(0, out);
        }
        match self.position {
            Position::At(position) if seq <= position => {
                self.counts.duplicates += 1;
                self.ack_due = true;
            }
            Position::At(position) if seq == position + 1 => {
                self.admit(at, one, out);
                self.drain_ahead(at, out);
            }
            _ => self.hold_ahead(at, epoch, one, out),
        }
    }

    fn hold_ahead(&mut self, at: Moment, epoch: Option<Epoch>, one: Held, out: &mut Vec<Effect>) {
        let seq = one.delivery.seq.0;
        self.ack_due |= self.position != Position::Unknown;
        if self.ahead.contains_key(&seq) {
            self.counts.duplicates += 1;
            // A replay ascends: when it shows the lowest frame held, it had nothing below it, unless that
            // found no room here.
            let is_lowest = self.ahead.first_key_value().is_some_and(|(lowest, _)| *lowest == seq);
            let is_replay = epoch.is_some_and(|epoch| self.gap.replays_in(epoch));
            if is_lowest && is_replay && self.lane.refusals() == 0 {
                self.give_up(at, out);
            }
            return;
        }
        self.last = Some(Last::of(&one));
        self.ahead.insert(seq, one);
        if self.ahead.len() > AHEAD_MAX {
            let farthest = self.ahead.pop_last().map_or(seq, |(farthest, _)| farthest);
            self.lane.refuse(Seq(farthest));
        }
        self.gap.open(at.now);
    }

    fn drain_ahead(&mut self, at: Moment, out: &mut Vec<Effect>) {
        while let (Position::At(position), Some(lowest)) = (self.position, self.ahead.first_entry()) {
            if *lowest.key() > position + 1 {
                return;
            }
            let one = lowest.remove();
            if one.delivery.seq.0 == position + 1 {
                self.admit(at, one, out);
            }
        }
        self.gap.close();
    }

    /// The missing numbers stay missing, unless we dropped them ourselves: then what is held beyond them
    /// makes room for the replay that brings them.
    pub(super) fn give_up(&mut self, at: Moment, out: &mut Vec<Effect>) {
        let Some((&lowest, _)) = self.ahead.first_key_value() else {
            return self.gap.close();
        };
        if self.lane.lowest_refused().is_some_and(|refused| refused.0 < lowest) {
            for seq in std::mem::take(&mut self.ahead).into_keys() {
                self.lane.refuse(Seq(seq));
            }
            return self.gap.close();
        }
        match self.position {
            Position::Unknown => self.seed(lowest - 1, out),
            Position::At(position) => {
                let (from, to) = (Seq(position + 1), Seq(lowest - 1));
                self.counts.gaps_skipped += to.0 - position;
                let mark = self.append(Record::GapSkipped { agent: self.agent.clone(), from, to }, out);
                out.push(Effect::Skipped { from, to });
                self.pass(to.0, mark);
            }
        }
        self.drain_ahead(at, out);
    }

    pub(super) fn seed(&mut self, at: u64, out: &mut Vec<Effect>) {
        let mark = self.append(Record::Seeded { agent: self.agent.clone(), at: Seq(at) }, out);
        self.pass(at, mark);
    }

    /// Moves the position to `to`, and on over what the journal knows as settled.
    pub(super) fn pass(&mut self, to: u64, mark: u64) {
        let to = self.settled.absorb(to);
        self.position = Position::At(to);
        self.received = self.received.max(to);
        self.slots.push_back(Slot::Past { to, mark });
        self.advance_lead();
    }
}
