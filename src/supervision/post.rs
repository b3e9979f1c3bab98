//! A sender of one message type into one mailbox, which keeps the count that actix does not.

use std::{fmt, sync::Arc};

use actix::{Message, Recipient};

use super::Probe;
use crate::messages::{Answer, Reply};

/// Sends messages of one type to one actor. Cheap to clone, usable from any thread, and outlives restarts.
///
/// actix mailboxes bound nothing (`do_send` ignores their capacity), so every conversation bounds itself:
/// deliveries by credits, the event stream by its rings, requests by the number of HTTP workers.
pub struct Post<M: Message<Result = ()> + Send + 'static> {
    to: Recipient<M>,
    probe: Arc<Probe>,
}

/// The actor has ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the actor has ended")]
pub struct Gone;

impl<M: Message<Result = ()> + Send + 'static> Post<M> {
    /// A post to the mailbox that this probe counts.
    pub fn new(to: Recipient<M>, probe: Arc<Probe>) -> Self {
        Self { to, probe }
    }

    /// Puts a message into the mailbox.
    ///
    /// # Errors
    /// [`Gone`] when the actor has ended for good; the message is dropped.
    #[allow(clippy::disallowed_methods, reason = "this is the one counted place")]
    pub fn tell(&self, message: M) -> Result<(), Gone> {
        if self.is_gone() {
            return Err(Gone);
        }
        self.probe.posted();
        self.to.do_send(message);
        Ok(())
    }

    /// True when the actor has ended for good.
    pub fn is_gone(&self) -> bool {
        !self.to.connected()
    }

    /// Puts a question into the mailbox: `make` builds it around the reply. The answer fails when the actor
    /// ends, or drops the question; giving up on the answer never takes the question back.
    pub fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> M) -> Answer<T> {
        let (reply, answer) = Reply::channel();
        // When the actor is gone the reply is dropped here, which the answer reports.
        self.tell(make(reply)).ok();
        answer
    }
}

impl<M: Message<Result = ()> + Send + 'static> Clone for Post<M> {
    fn clone(&self) -> Self {
        Self { to: self.to.clone(), probe: self.probe.clone() }
    }
}

impl<M: Message<Result = ()> + Send + 'static> fmt::Debug for Post<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Post<{}> to {}", std::any::type_name::<M>(), self.probe.id())
    }
}
