//! The hallway: the typed messages by which the rooms talk, one file per conversation.
//!
//! Requests are commands (`Inject`), facts are past tense (`ChildExited`). Every message has the unit
//! result; a question carries a [`Reply`] to be answered through, so that an asker who gives up never
//! cancels a message that is still queued. Nothing here knows actix beyond `Message`, or the wire at all.

pub mod allowance;
pub mod channels;
pub mod dead_letter;
pub mod delivery;
pub mod hold;
pub mod invoke;
pub mod lifecycle;
pub mod observe;
pub mod process;
pub mod pty;
pub mod readiness;
pub mod release;
pub mod result;
pub mod send;
pub mod session;
pub mod sidecar;
pub mod spawn;
pub mod token;

use tokio::sync::oneshot;

/// Declares messages that are told, not awaited.
macro_rules! told {
    ($($message:ty),+ $(,)?) => {
        $(impl actix::Message for $message { type Result = (); })+
    };
}
pub(crate) use told;

/// The way back of a question. Dropping it unanswered is seen by the asker as [`Unanswered`].
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<T>);

/// The answer to a question, to be awaited.
#[derive(Debug)]
pub struct Answer<T>(oneshot::Receiver<T>);

/// The one who was asked ended, or dropped the question, before answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the actor that was asked ended before it could answer")]
pub struct Unanswered;

impl<T> Reply<T> {
    /// A reply and the answer that it completes.
    pub fn channel() -> (Self, Answer<T>) {
        let (tx, rx) = oneshot::channel();
        (Self(tx), Answer(rx))
    }

    /// Answers. Says whether anybody still waits: an answer that allocates something (a registration, a
    /// process) must be undone by the answerer when nobody does.
    pub fn send(self, answer: T) -> bool {
        self.0.send(answer).is_ok()
    }

    /// True when the asker gave up.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, Unanswered>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx).map_err(|_| Unanswered)
    }
}
