//! What could not be put in, and what a person does about it: http -> registry, registry -> the cursor of the
//! live agent of that name.
//!
//! ```text
//! http --ListDeadLetters----> registry   (from the journal)
//! http --RedeliverLetters---> registry --Redeliver--> delivery_cursor --Inject--> ...
//! ```
//!
//! The engine was told long ago: redelivery is a new attempt outside the mailbox and changes no ack.

use serde::{Deserialize, Serialize};

use super::{Reply, delivery::Note, told};
use crate::ids::{AgentId, AgentName, DeliveryId, Seq};

/// Between a delivery's id and the stamp of the letter, in the id of a new attempt.
const AGAIN: &str = "~again-";

/// A delivery that could not be put in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Whose.
    pub agent: AgentId,
    /// Its name at that time.
    pub name: AgentName,
    /// Which delivery.
    pub delivery: DeliveryId,
    /// Its place; 0 for a frame outside the mailbox.
    pub seq: Seq,
    /// What it said.
    pub note: Note,
    /// Why, in words for a person.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// True when the text stands in the agent's composer all the same.
    pub landed: bool,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl DeadLetter {
    /// The id of a new attempt: another one for each letter, and the same however often it is asked for.
    pub fn again(&self) -> DeliveryId {
        let id = self.delivery.as_str();
        let first = id.split_once(AGAIN).map_or(id, |(first, _)| first);
        DeliveryId::from(format!("{first}{AGAIN}{:x}", self.at_ms))
    }
}

/// http -> registry: all of them, oldest first.
#[derive(Debug)]
pub struct ListDeadLetters(pub Reply<Vec<DeadLetter>>);

/// http -> registry: try these again.
#[derive(Debug)]
pub struct RedeliverLetters {
    /// Which.
    pub which: Letters,
    /// Answered when every cursor has taken its letters or refused them; empty when there is none such.
    pub reply: Reply<Vec<Redelivery>>,
}

/// Which letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letters {
    /// Every one.
    All,
    /// That of this delivery.
    Of(DeliveryId),
}

/// What became of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redelivery {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// Whose.
    pub name: AgentName,
    /// Taken, or why not.
    pub outcome: Result<(), RedeliverRefused>,
}

/// registry -> delivery_cursor: try this again. The letter is kept until the new attempt is proven, or has
/// become a letter of its own.
#[derive(Debug)]
pub struct Redeliver {
    /// Which.
    pub letter: DeadLetter,
    /// Taken, or why not.
    pub reply: Reply<Result<(), RedeliverRefused>>,
}

/// Why a letter is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedeliverRefused {
    /// Nobody of that name has a terminal.
    #[error("the agent is not running; spawn it again under the same name first")]
    NotLive,
    /// It is being tried already.
    #[error("it is being tried already; `relay-broker explain` says what it waits for")]
    UnderWay,
    /// The agent has as much mail as it can hold.
    #[error("the agent's mailbox is full; try again when it has read some")]
    NoRoom,
}

told!(ListDeadLetters, RedeliverLetters, Redeliver);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_has_one_id_for_its_next_attempt_and_ids_do_not_grow() {
        let note = Note {
            from: "bob".into(),
            target: "ann".into(),
            thread: None,
            msg_id: "m1".into(),
            body: "hello".into(),
            sent_at: None,
            system: false,
        };
        let first = DeadLetter {
            agent: "7".into(),
            name: AgentName::parse("ann").unwrap(),
            delivery: "del_1".into(),
            seq: Seq(4),
            note,
            reason: "no".into(),
            attempts: 1,
            landed: false,
            at_ms: 255,
        };
        assert_eq!(first.again().as_str(), "del_1~again-ff");
        let second = DeadLetter { delivery: first.again(), at_ms: 256, ..first };
        assert_eq!(second.again().as_str(), "del_1~again-100");
    }
}
