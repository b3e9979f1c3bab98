//! What all our WebSockets share: they end together, and a client that takes nothing does not hold them up.

use std::{future::Future, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Payload};
use actix_ws::{CloseCode, CloseReason, Closed, MessageStream, Session};
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout},
};
use tracing::debug;

use super::{api::Streams, error::ApiError};

/// Between pings (spec/api 2.6).
const PING: Duration = Duration::from_secs(30);
/// A client that takes no frame for this long is gone. It may read slowly; it may not stand still.
const STALLED: Duration = Duration::from_secs(120);
/// For the last words to a client.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a socket ends.
pub(super) enum End {
    /// The client went, or stood still.
    Gone,
    /// The client said goodbye.
    Left,
    /// We end it, and say so.
    Ours(CloseCode, &'static str),
}

impl End {
    /// The house is closing.
    pub(super) const SHUTDOWN: Self = Self::Ours(CloseCode::Away, "the broker is shutting down");

    /// Closes the socket with the words that fit.
    pub(super) async fn say(self, session: Session) {
        let reason = match self {
            Self::Gone => return,
            Self::Left => None,
            Self::Ours(code, why) => Some(CloseReason { code, description: Some(why.to_owned()) }),
        };
        // A client that takes no last word has none.
        timeout(FAREWELL, session.close(reason)).await.ok();
    }
}

/// A handshake that was made.
pub(super) struct Accepted {
    /// To be returned by the route; the socket is open once it is.
    pub(super) response: HttpResponse,
    pub(super) session: Session,
    pub(super) incoming: MessageStream,
    /// Becomes true when the socket is to end.
    pub(super) closing: watch::Receiver<bool>,
}

/// Makes the handshake of a new socket, unless the house is closing.
///
/// # Errors
/// 400 `websocket_expected`, 503 `shutting_down`.
pub(super) fn accept(streams: &Streams, req: &HttpRequest, payload: Payload) -> Result<Accepted, ApiError> {
    let (response, session, incoming) = actix_ws::handle(req, payload).map_err(|error| {
        let message = format!("open it as a WebSocket: {error}");
        ApiError::new(StatusCode::BAD_REQUEST, "websocket_expected", message)
    })?;
    let closing = streams.closing();
    still_open(&closing)?;
    Ok(Accepted { response, session, incoming, closing })
}

/// Refuses what would go on for long while the house is closing.
///
/// # Errors
/// 503 `shutting_down`.
pub(super) fn still_open(closing: &watch::Receiver<bool>) -> Result<(), ApiError> {
    if !*closing.borrow() {
        return Ok(());
    }
    let message = "the broker is shutting down";
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message))
}

/// When to ping a client, the first time after a while.
pub(super) fn pings() -> Interval {
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

/// Resolves when all sockets are to end.
pub(super) async fn ended(closing: &mut watch::Receiver<bool>) {
    // The sender lives as long as the server; were it gone, the sockets should end too.
    closing.wait_for(|closing| *closing).await.map(drop).ok();
}

/// Gives the client a frame. It may take its time, but not for ever, and not into a shutdown.
///
/// # Errors
/// How the socket ends instead.
pub(super) async fn hand_over(
    closing: &mut watch::Receiver<bool>,
    frame: impl Future<Output = Result<(), Closed>>,
) -> Result<(), End> {
    tokio::select! {
        taken = timeout(STALLED, frame) => match taken {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Closed)) => Err(End::Gone),
            Err(_) => {
                debug!("socket stalled, closed");
                Err(End::Gone)
            }
        },
        () = ended(closing) => Err(End::SHUTDOWN),
    }
}
