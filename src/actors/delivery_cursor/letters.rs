//! Dead letters that are tried again, as frames outside the mailbox: no ack depends on them.

use std::sync::Arc;

use actix::{Context, Handler};
use tracing::info;

use super::{DeliveryCursor, book::Event};
use crate::{
    ids::Seq,
    messages::{
        dead_letter::{DeadLetter, Redeliver, RedeliverRefused},
        delivery::{Content, Delivery, Mode},
        observe,
    },
    store::Record,
};

/// What a dead letter takes beside its text, for the room it is accounted.
const LETTER_OVERHEAD: usize = 512;

impl Handler<Redeliver> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, redeliver: Redeliver, ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        let Redeliver { letter, reply } = redeliver;
        // One who gave up waiting finds what came of it in the list.
        reply.send(self.try_again(letter, ctx));
    }
}

impl DeliveryCursor {
    /// Tries a dead letter again, as a frame outside the mailbox: no ack depends on it.
    fn try_again(&mut self, letter: DeadLetter, ctx: &mut Context<Self>) -> Result<(), RedeliverRefused> {
        if self.gone.is_some() {
            return Err(RedeliverRefused::NotLive);
        }
        let delivery_id = letter.again();
        if self.again.contains_key(&delivery_id) {
            return Err(RedeliverRefused::UnderWay);
        }
        let bytes = letter.note.body.len() + LETTER_OVERHEAD;
        let credit = self.lane.take(Seq(0), bytes).ok_or(RedeliverRefused::NoRoom)?;
        let delivery = Arc::new(Delivery {
            delivery_id: delivery_id.clone(),
            msg_id: letter.note.msg_id.clone(),
            seq: Seq(0),
            mode: Mode::Wait,
            content: Content::Inject(letter.note.clone()),
            repeats: false,
        });
        info!(agent = %self.config.name, delivery = %letter.delivery, "dead letter is tried again");
        self.again.insert(delivery_id, letter);
        self.in_hand = Some(delivery.clone());
        self.step(Event::Again { delivery, credit }, ctx);
        Ok(())
    }

    /// The new attempt has come to its end: it is in, or it is a letter of its own.
    pub(super) fn tried_again(&self, letter: DeadLetter, proven: bool) {
        let DeadLetter { agent, delivery, note, .. } = letter;
        self.journal.append(Record::DeadLetterCleared { agent, delivery: delivery.clone() });
        if proven {
            let (name, event_id) = (self.config.name.clone(), note.msg_id);
            self.publish(observe::Event::DeadLetterRedelivered { name, delivery_id: delivery, event_id });
        }
    }
}
