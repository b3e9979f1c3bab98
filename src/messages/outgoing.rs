//! A message that a client of the local API sends: http -> whoever holds the engine's HTTP client and the
//! broker's own identity. It goes through the engine like anybody's, also to an agent of this node.

use tokio::sync::mpsc;

use super::{Answer, Reply, delivery::Mode};
use crate::ids::MsgId;

/// Messages that may wait for the engine at once; further ones are refused, not queued.
pub const OUTGOING_CAP: usize = 256;

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// `#channel`, or an agent's name without the `@`.
    pub to: String,
    /// A local agent to speak as; the broker's own human identity when absent or not an agent of ours.
    pub from: Option<String>,
    /// The message.
    pub text: String,
    /// Wait or steer.
    pub mode: Mode,
    /// The thread it answers.
    pub thread: Option<MsgId>,
}

/// The engine took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentMessage {
    /// Its id.
    pub msg_id: MsgId,
    /// What the engine says about the delivery (`delivered`, `queued`, ...), if it does.
    pub delivery_status: Option<String>,
    /// Whether the recipient is connected, if the engine says so.
    pub recipient_live: Option<bool>,
    /// The recipient's status in the engine's words, if it says so.
    pub recipient_status: Option<String>,
}

/// Why it was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendRefused {
    /// No agent or channel of that name in the workspace.
    #[error("`{0}` is neither an agent nor a channel of this workspace; `relay-broker ps` lists the agents")]
    NotFound(String),
    /// The engine cannot be reached.
    #[error("the engine cannot be reached: {0}")]
    Offline(String),
    /// No answer in time: it may have been sent.
    #[error("the engine did not answer in time; the message may or may not have been sent")]
    TimedOut,
    /// Too many messages wait for the engine.
    #[error("too many messages wait for the engine; try again")]
    Busy,
    /// The engine said no.
    #[error("the engine refused the message: {code}: {message}")]
    Engine {
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
}

/// A message on its way to the engine, as the serving end receives it.
#[derive(Debug)]
pub struct SendMessage {
    /// What to send.
    pub message: OutgoingMessage,
    /// Answered when the engine has taken or refused it.
    pub reply: Reply<Result<SentMessage, SendRefused>>,
}

/// The sending end.
#[derive(Clone, Debug)]
pub struct Outgoing(mpsc::Sender<SendMessage>);

impl Outgoing {
    /// Both ends. The receiver is served by whoever holds the engine's HTTP client; each message should be
    /// served on its own, so that a slow one delays no other.
    pub fn channel() -> (Self, mpsc::Receiver<SendMessage>) {
        let (tx, rx) = mpsc::channel(OUTGOING_CAP);
        (Self(tx), rx)
    }

    /// Hands a message over. The answer comes when the engine has taken it.
    ///
    /// # Errors
    /// [`SendRefused::Busy`] when [`OUTGOING_CAP`] messages wait already, [`SendRefused::Offline`] when the
    /// house is closing.
    pub fn send(
        &self,
        message: OutgoingMessage,
    ) -> Result<Answer<Result<SentMessage, SendRefused>>, SendRefused> {
        let (reply, answer) = Reply::channel();
        self.0.try_send(SendMessage { message, reply }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => SendRefused::Busy,
            mpsc::error::TrySendError::Closed(_) => {
                SendRefused::Offline("the broker is shutting down".to_owned())
            }
        })?;
        Ok(answer)
    }
}
