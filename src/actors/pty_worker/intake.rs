//! Messages on their way to the desk. Each waits until the mark of its attempt has reached the kernel, and one whose
//! body is too long to be typed until the whole of it is in a file. What comes after it waits behind it: nothing
//! overtakes.

use std::collections::VecDeque;

use super::frame::Whole;
use crate::{
    ids::DeliveryId,
    messages::{
        Answer,
        delivery::{Inject, Note},
    },
};

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Intake {
    waiting: VecDeque<Inject>,
    /// Something is waited for before the first one may go on.
    held_up: bool,
}

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Next {
    /// To the desk.
    Pass(Inject),
    /// Wait for this, then say [`Intake::marked`].
    Mark(Answer<()>),
    /// Keep this text, then say [`Intake::kept`].
    Keep(DeliveryId, String),
    /// Nothing now.
    Wait,
}

/// What was waited for.
#[derive(Debug)]
pub(super) enum Cleared {
    /// The mark of the first one has reached the kernel.
    Marked,
    /// The body of this one is there.
    Kept(DeliveryId, Whole),
}

impl Intake {
    /// Takes a message.
    pub(super) fn push(&mut self, inject: Inject) {
        self.waiting.push_back(inject);
    }

    /// What is next. `to_keep` says what to keep of a body that is too long.
    pub(super) fn next(&mut self, to_keep: impl FnOnce(&Note) -> Option<String>) -> Next {
        if self.held_up {
            return Next::Wait;
        }
        let Some(first) = self.waiting.front_mut() else { return Next::Wait };
        if let Some(marked) = first.marked.take() {
            self.held_up = true;
            return Next::Mark(marked);
        }
        if let Some(text) = to_keep(&first.note) {
            self.held_up = true;
            return Next::Keep(first.delivery_id.clone(), text);
        }
        self.waiting.pop_front().map_or(Next::Wait, Next::Pass)
    }

    /// The mark has reached the kernel.
    pub(super) fn marked(&mut self) {
        self.held_up = false;
    }

    /// The body is kept, or could not be: the message it belongs to, unless it was taken back meanwhile.
    pub(super) fn kept(&mut self, id: &DeliveryId) -> Option<Inject> {
        self.held_up = false;
        self.waiting.pop_front_if(|first| first.delivery_id == *id)
    }

    /// Forgets what waits, and says which deliveries and attempts: whoever handed it over takes it back.
    pub(super) fn cancel(&mut self) -> Vec<(DeliveryId, u32)> {
        self.waiting.drain(..).map(|inject| (inject.delivery_id, inject.attempt)).collect()
    }

    /// Forgets everything: nothing is waited for in a life that has ended.
    pub(super) fn begin_next_life(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{Reply, delivery::Mode};

    fn inject(id: &str, body: &str) -> Inject {
        let note = Note {
            from: "Alice".into(),
            target: "Bob".into(),
            thread: None,
            msg_id: id.into(),
            body: body.into(),
            sent_at: None,
            system: false,
        };
        let (mode, marked) = (Mode::Wait, None);
        Inject { delivery_id: id.into(), attempt: 1, mode, note, reached: None, redelivered: false, marked }
    }

    fn step(intake: &mut Intake) -> String {
        let long = |note: &Note| (note.body.len() > 3).then(|| note.body.clone());
        match intake.next(long) {
            Next::Pass(inject) => format!("pass {}", inject.delivery_id),
            Next::Mark(_) => "mark".into(),
            Next::Keep(id, text) => format!("keep {text} of {id}"),
            Next::Wait => "wait".into(),
        }
    }

    #[test]
    fn nothing_overtakes_a_message_whose_body_is_being_kept() {
        let mut intake = Intake::default();
        for (id, body) in [("d1", "hi"), ("d2", "long one"), ("d3", "hi"), ("d4", "long too")] {
            intake.push(inject(id, body));
        }
        assert_eq!(step(&mut intake), "pass d1");
        assert_eq!(step(&mut intake), "keep long one of d2");
        assert_eq!(step(&mut intake), "wait");
        assert_eq!(intake.kept(&"d2".into()).unwrap().delivery_id.as_str(), "d2");
        assert_eq!(step(&mut intake), "pass d3");
        assert_eq!(step(&mut intake), "keep long too of d4");
    }

    #[test]
    fn nothing_is_passed_on_or_overtakes_before_its_mark_is_in_the_kernel() {
        let mut intake = Intake::default();
        intake.push(Inject { marked: Some(Reply::channel().1), ..inject("d1", "long one") });
        intake.push(inject("d2", "hi"));
        assert_eq!(step(&mut intake), "mark");
        assert_eq!(step(&mut intake), "wait");
        intake.marked();
        assert_eq!(step(&mut intake), "keep long one of d1", "one wait at a time");
        assert_eq!(intake.cancel().len(), 2, "neither is begun");
    }

    #[test]
    fn what_was_taken_back_is_not_passed_on() {
        let mut intake = Intake::default();
        intake.push(inject("d1", "long one"));
        assert_eq!(step(&mut intake), "keep long one of d1");
        assert_eq!(intake.cancel(), [("d1".into(), 1)]);
        intake.push(inject("d2", "hi"));
        assert_eq!(step(&mut intake), "wait", "the file of d1 is still being written");
        assert!(intake.kept(&"d1".into()).is_none());
        assert_eq!(step(&mut intake), "pass d2");
    }
}
