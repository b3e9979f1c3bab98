//! What a book shows of itself.

use std::sync::Arc;

use super::{Book, Held, Last, Position, note_of};
use crate::{
    ids::Seq,
    messages::delivery::{CursorView, LastDelivery},
};

impl Book {
    /// The numbers.
    pub(in super::super) fn view(&self) -> CursorView {
        let (held, held_bytes) = self.lane.held();
        let highest = self.ahead.last_key_value().map(|(seq, _)| *seq);
        let gaps = match (self.position, highest) {
            (Position::At(position), Some(highest)) => highest - position - self.ahead.len() as u64,
            _ => 0,
        };
        CursorView {
            received: Seq(self.received),
            injected: Seq(self.injected),
            journalled: Seq(self.journalled),
            acked: Seq(self.acked),
            delivery_mode: self.mode(),
            waiting: self.ready.len(),
            held_back: self.kept_back().count(),
            held,
            held_bytes,
            gaps,
            gaps_skipped: self.counts.gaps_skipped,
            duplicates: self.counts.duplicates,
            refused: self.lane.refusals(),
            dead_letters: self.counts.dead_letters,
            stale_reports: self.counts.stale_reports,
            last: self.last.as_ref().map(|last| self.view_last(last)),
        }
    }

    fn view_last(&self, last: &Last) -> LastDelivery {
        let delivery = &last.delivery;
        let held = self.held.values().next_back().filter(|one| Arc::ptr_eq(&one.delivery, delivery));
        let waiting_for = if self.ahead.contains_key(&delivery.seq.0) {
            "earlier messages that have not arrived"
        } else {
            match held {
                None => "",
                Some(one) if one.end.is_some() => "the journal",
                Some(one) if !one.waiting.is_empty() => &one.waiting,
                Some(one) if self.kept_back().any(|kept| std::ptr::eq(kept, one)) => {
                    "a person to let it through, because messages are held"
                }
                Some(one) if one.tries() > 0 => "the terminal",
                Some(_) if self.worker.is_none() => "the agent to start",
                Some(_) => "earlier messages",
            }
        };
        LastDelivery {
            delivery_id: delivery.delivery_id.clone(),
            msg_id: delivery.msg_id.clone(),
            seq: delivery.seq,
            from: note_of(delivery).map(|note| note.from.clone()).unwrap_or_default(),
            queued_at_ms: last.since_ms,
            attempts: held.map_or(last.tries, Held::tries),
            rung: last.rung,
            waiting_for: waiting_for.to_owned(),
        }
    }
}
