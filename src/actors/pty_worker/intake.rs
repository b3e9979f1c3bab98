//! Messages on their way to the desk. One whose body is too long to be typed waits until the whole of it is in
//! a file, and what comes after it waits behind it: nothing overtakes.

use std::collections::VecDeque;

use crate::{
    ids::DeliveryId,
    messages::delivery::{Inject, Note},
};

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Intake {
    waiting: VecDeque<Inject>,
    /// The first one's body is being kept.
    keeping: bool,
}

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Next {
    /// To the desk.
    Pass(Inject),
    /// Keep this text, then say [`Intake::kept`].
    Keep(DeliveryId, String),
    /// Nothing now.
    Wait,
}

impl Intake {
    /// Takes a message.
    pub(super) fn push(&mut self, inject: Inject) {
        self.waiting.push_back(inject);
    }

    /// What is next. `to_keep` says what to keep of a body that is too long.
    pub(super) fn next(&mut self, to_keep: impl FnOnce(&Note) -> Option<String>) -> Next {
        if self.keeping {
            return Next::Wait;
        }
        let Some(first) = self.waiting.front() else { return Next::Wait };
        if let Some(text) = to_keep(&first.note) {
            self.keeping = true;
            return Next::Keep(first.delivery_id.clone(), text);
        }
        self.waiting.pop_front().map_or(Next::Wait, Next::Pass)
    }

    /// The body is kept, or could not be: the message it belongs to, unless it was taken back meanwhile.
    pub(super) fn kept(&mut self, id: &DeliveryId) -> Option<Inject> {
        self.keeping = false;
        self.waiting.pop_front_if(|first| first.delivery_id == *id)
    }

    /// Forgets what waits, and says which deliveries and attempts: whoever handed it over takes it back.
    pub(super) fn cancel(&mut self) -> Vec<(DeliveryId, u32)> {
        self.waiting.drain(..).map(|inject| (inject.delivery_id, inject.attempt)).collect()
    }

    /// Forgets everything: nothing is being kept for a life that has ended.
    pub(super) fn begin_next_life(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::delivery::Mode;

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
        let mode = Mode::Wait;
        Inject { delivery_id: id.into(), attempt: 1, mode, note, reached: None, redelivered: false }
    }

    fn step(intake: &mut Intake) -> String {
        let long = |note: &Note| (note.body.len() > 3).then(|| note.body.clone());
        match intake.next(long) {
            Next::Pass(inject) => format!("pass {}", inject.delivery_id),
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
