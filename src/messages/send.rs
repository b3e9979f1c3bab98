//! A person (or a program on their behalf) speaks: http -> registry, which sends it through the engine like
//! anyone's, with the broker's own identity there.

use super::{Reply, delivery::Mode, told};
use crate::ids::MsgId;

/// http -> registry: send this.
#[derive(Debug)]
pub struct SendMessage {
    /// To whom.
    pub to: Recipient,
    /// The text, as it is.
    pub text: String,
    /// Wait or steer.
    pub mode: Mode,
    /// Reply in this thread.
    pub thread: Option<MsgId>,
    /// Answered when the engine took it.
    pub reply: Reply<Result<Sent, SendRefused>>,
}

/// To whom a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// One agent or person, by name.
    Direct(String),
    /// Everybody in a channel, by its name without `#`.
    Channel(String),
}

/// A message that the engine took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its id there.
    pub msg_id: MsgId,
    /// The name it was sent under.
    pub from: String,
}

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendRefused {
    /// Nobody of that name, or no such channel, at the engine.
    #[error("{0}")]
    NoSuchRecipient(String),
    /// The engine cannot be reached now.
    #[error("not sent, the engine cannot be reached: {0}")]
    Unreachable(String),
    /// The engine said no.
    #[error("not sent, the engine refused: {code}: {message}")]
    Engine {
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
}

told!(SendMessage);
