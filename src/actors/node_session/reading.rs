//! A socket that can be hung up on at once.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context as Task, Poll},
};

use futures_util::Stream;

use crate::wire::socket::{FrameStream, SocketEvent};

/// A stream that can be stopped from outside: dropping it drops the socket at once, where the actor's context
/// would keep it until the next life begins.
#[derive(Clone)]
pub(super) struct Reading(Rc<RefCell<Option<FrameStream>>>);

impl Reading {
    pub(super) fn new(stream: FrameStream) -> Self {
        Self(Rc::new(RefCell::new(Some(stream))))
    }

    pub(super) fn stop(&self) {
        self.0.borrow_mut().take();
    }
}

impl Stream for Reading {
    type Item = SocketEvent;

    fn poll_next(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<SocketEvent>> {
        match self.0.borrow_mut().as_mut() {
            Some(stream) => Pin::new(stream).poll_next(task),
            None => Poll::Ready(None),
        }
    }
}
