//! What became of a delivery, in the words of the event stream.

use super::book::{Fact, note_of};
use crate::{
    ids::AgentName,
    messages::{delivery::Delivery, hold::DeliveryMode, observe::Event},
};

/// Publishes the events of one fact.
pub(super) fn publish(
    name: &AgentName,
    delivery: &Delivery,
    fact: Fact,
    timestamp: u64,
    mut event: impl FnMut(Event),
) {
    let name = name.clone();
    let delivery_id = delivery.delivery_id.clone();
    let event_id = delivery.msg_id.clone();
    let from = || note_of(delivery).map(|note| note.from.clone()).unwrap_or_default();
    match fact {
        Fact::Received { held_back } => {
            let mut target = String::new();
            if let Some(note) = note_of(delivery) {
                target.clone_from(&note.target);
                event(Event::RelayInbound {
                    event_id: event_id.clone(),
                    from: note.from.clone(),
                    target: note.target.clone(),
                    body: note.body.clone(),
                    thread_id: note.thread.clone(),
                });
            }
            let reason = held_back.then_some(DeliveryMode::ManualFlush.as_str());
            let from = from();
            event(Event::DeliveryQueued { name, delivery_id, event_id, from, target, timestamp, reason });
        }
        Fact::Injected(rung) => {
            event(Event::DeliveryInjected { name, delivery_id, event_id, timestamp, rung });
        }
        Fact::Verified(verification) => {
            event(Event::DeliveryVerified { name, delivery_id, event_id, verification });
        }
        Fact::Stuck { rung, screen } => {
            event(Event::DeliveryStuck { name, delivery_id, event_id, rung, screen: screen.clone() })
        }
        Fact::Acked(evidence) => {
            event(Event::DeliveryAck {
                name: name.clone(),
                delivery_id: delivery_id.clone(),
                event_id: event_id.clone(),
                timestamp,
                evidence,
            });
            let to = name.to_string();
            event(Event::MessageDeliveryConfirmed { name, delivery_id, event_id, from: from(), to });
        }
        Fact::DeadLettered { reason, attempts } => {
            event(Event::DeadLetterAdded {
                name: name.clone(),
                delivery_id: delivery_id.clone(),
                event_id: event_id.clone(),
                reason: reason.clone(),
            });
            event(Event::MessageDeliveryFailed {
                to: name.to_string(),
                name,
                delivery_id,
                event_id,
                from: from(),
                attempts,
                last_error: reason,
            });
        }
    }
}
