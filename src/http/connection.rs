//! Ends connections that stand still between requests.
//!
//! The framework times the first head of a connection, and idling on a kept one; but not a second head that
//! never ends, nor the rest of a body that nobody wants any more. So each connection is watched: without a
//! request in hand for [`STILL_MAX`] it is shut down. An event stream is exempt; it has its own limits.

use std::{
    any::Any,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{dev::Extensions, rt};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

/// The longest that a connection may be without a request in hand.
pub(super) const STILL_MAX: Duration = Duration::from_secs(10);

/// One connection.
pub(super) struct Connection {
    /// A second handle on the socket. It goes with the connection, which therefore is closed by nobody else.
    socket: TcpStream,
    in_hand: AtomicUsize,
    streaming: AtomicBool,
    still_since: Mutex<Instant>,
}

/// A request in hand, until it is dropped.
pub(super) struct InHand(Arc<Connection>);

impl Connection {
    /// Begins to watch a connection; the server calls this for each.
    pub(super) fn accept(io: &dyn Any, extensions: &mut Extensions) {
        let Some(io) = io.downcast_ref::<rt::net::TcpStream>() else { return };
        let socket = match io.as_fd().try_clone_to_owned() {
            Ok(socket) => TcpStream::from(socket),
            Err(error) => {
                warn!(%error, "connection is not watched");
                return;
            }
        };
        let connection = Arc::new(Self {
            socket,
            in_hand: AtomicUsize::new(0),
            streaming: AtomicBool::new(false),
            still_since: Mutex::new(Instant::now()),
        });
        let watched = Arc::downgrade(&connection);
        extensions.insert(connection);
        rt::spawn(async move {
            let mut look = Instant::now() + STILL_MAX;
            loop {
                sleep_until(look).await;
                let Some(connection) = watched.upgrade() else { return };
                match connection.still_until() {
                    None if connection.streaming.load(Ordering::Acquire) => return,
                    None => look = Instant::now() + STILL_MAX,
                    Some(end) if end > Instant::now() => look = end,
                    Some(_) => {
                        debug!("connection stood still, closed");
                        // It may have been closed from the other side at the same time.
                        connection.socket.shutdown(Shutdown::Both).ok();
                        return;
                    }
                }
            }
        });
    }

    /// Takes a request in hand.
    pub(super) fn take(self: &Arc<Self>) -> InHand {
        self.in_hand.fetch_add(1, Ordering::AcqRel);
        InHand(self.clone())
    }

    /// When it has stood still for too long; `None` while it does not.
    fn still_until(&self) -> Option<Instant> {
        let busy = self.in_hand.load(Ordering::Acquire) > 0 || self.streaming.load(Ordering::Acquire);
        let since = *self.still_since.lock().unwrap_or_else(PoisonError::into_inner);
        (!busy).then(|| since + STILL_MAX)
    }
}

impl InHand {
    /// From now on it is an event stream.
    pub(super) fn streams(&self) {
        self.0.streaming.store(true, Ordering::Release);
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        *self.0.still_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.in_hand.fetch_sub(1, Ordering::AcqRel);
    }
}
