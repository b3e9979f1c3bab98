//! `WS /api/input/{name}/stream`: a person's keystrokes, as they come.
//!
//! ```text
//! handshake -> pty_input_ready -> (keys -> pty_input_ack)* -> close
//!           `-> pty_input_error -> close
//! ```
//!
//! Keys are handed to the terminal as they arrive and acked in their order, each when the kernel has taken
//! it. A terminal that takes nothing fills its own queue (256 KiB) and then refuses; it never holds up the
//! socket.

use actix_web::{
    HttpRequest, HttpResponse, rt,
    web::{Data, Path, Payload},
};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, Session};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesOrdered};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::debug;

use super::{
    api::{Api, OpenStream},
    error::ApiError,
    socket::{self, End, PING, ended, hand_over},
};
use crate::messages::{pty::Input, spawn::AgentDoors};

/// The largest frame, in bytes: what a terminal's queue can take at once.
const FRAME_MAX: usize = 256 << 10;
/// Most frames that wait for their ack; more are left in the socket.
const UNACKED_MAX: usize = 256;

/// What we say.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said<'a> {
    PtyInputReady { name: &'a str },
    PtyInputAck { name: &'a str, bytes_written: usize },
}

/// Keys in an envelope; most clients send them bare.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Enveloped {
    PtyInput { data: String },
}

/// `WS /api/input/{name}/stream`
pub(super) async fn open(
    api: Data<Api>,
    name: Path<String>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let (response, session, incoming) =
        actix_ws::handle(&req, payload).map_err(|error| socket::no_handshake(&error))?;
    let closing = api.streams.closing();
    socket::still_open(&closing)?;
    let incoming =
        incoming.max_frame_size(FRAME_MAX).aggregate_continuations().max_continuation_size(FRAME_MAX);
    let typist = Typist { name: name.into_inner(), session, closing, _open: api.streams.open() };
    rt::spawn(typist.run(api, incoming));
    Ok(response)
}

/// Somebody who types.
struct Typist {
    name: String,
    session: Session,
    closing: watch::Receiver<bool>,
    _open: OpenStream,
}

/// Why it is over.
enum Over {
    /// With the last word to be said as a close frame.
    Ended(End),
    /// With a refusal to be said first.
    Refused(ApiError),
}

impl From<End> for Over {
    fn from(end: End) -> Self {
        Self::Ended(end)
    }
}

impl From<ApiError> for Over {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl Typist {
    async fn run(mut self, api: Data<Api>, mut incoming: AggregatedMessageStream) {
        let Err(over) = self.attend(&api, &mut incoming).await;
        let end = match over {
            Over::Ended(end) => end,
            Over::Refused(error) => {
                let said = self.tell(error.as_frame("pty_input_error")).await;
                said.err().unwrap_or(End::Ours(CloseCode::Policy, "no input is taken"))
            }
        };
        end.say(self.session).await;
    }

    async fn attend(
        &mut self,
        api: &Api,
        incoming: &mut AggregatedMessageStream,
    ) -> Result<std::convert::Infallible, Over> {
        // A client learns who is missing from a frame: a refused handshake has no body that it could read.
        let agent = api.agent(&self.name).await?;
        self.say(&Said::PtyInputReady { name: &self.name.clone() }).await?;
        let mut pings = interval_at(Instant::now() + PING, PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unacked = FuturesOrdered::new();
        loop {
            tokio::select! {
                biased;
                () = ended(&mut self.closing) => return Err(End::SHUTDOWN.into()),
                Some(written) = unacked.next() => {
                    let bytes_written = written?;
                    self.say(&Said::PtyInputAck { name: &self.name.clone(), bytes_written }).await?;
                }
                message = incoming.next(), if unacked.len() < UNACKED_MAX => {
                    let keys = match message {
                        Some(Ok(AggregatedMessage::Text(text))) => bare(text.into_bytes()),
                        Some(Ok(AggregatedMessage::Binary(bytes))) => bytes,
                        Some(Ok(AggregatedMessage::Ping(bytes))) => {
                            let mut session = self.session.clone();
                            hand_over(&mut self.closing, async move { session.pong(&bytes).await }).await?;
                            continue;
                        }
                        Some(Ok(AggregatedMessage::Pong(_))) => continue,
                        Some(Ok(AggregatedMessage::Close(_))) => return Err(End::Left.into()),
                        Some(Err(error)) => {
                            debug!(%error, "input stream broke");
                            return Err(End::Ours(CloseCode::Size, "a frame that cannot be read").into());
                        }
                        None => return Err(End::Gone.into()),
                    };
                    unacked.push_back(self.type_in(&agent, &keys));
                }
                _ = pings.tick() => {
                    let mut session = self.session.clone();
                    hand_over(&mut self.closing, async move { session.ping(b"").await }).await?;
                }
            }
        }
    }

    /// Hands keys to the terminal at once; the future is only the wait for the kernel.
    fn type_in(
        &self,
        agent: &AgentDoors,
        keys: &Bytes,
    ) -> impl Future<Output = Result<usize, ApiError>> + use<> {
        let name = self.name.clone();
        agent.input.ask(|reply| Input { bytes: keys.to_vec(), reply }).map(move |answer| {
            let written = answer.map_err(|_| super::agents::disappeared(&name))?;
            written.map_err(|refused| ApiError::from(refused).about(name))
        })
    }

    async fn say(&mut self, said: &Said<'_>) -> Result<(), End> {
        // Two strings and a number always serialise.
        self.tell(serde_json::to_string(said).unwrap_or_default()).await
    }

    async fn tell(&mut self, text: String) -> Result<(), End> {
        let mut session = self.session.clone();
        hand_over(&mut self.closing, async move { session.text(text).await }).await
    }
}

/// Keys out of their envelope, if they are in one.
fn bare(text: Bytes) -> Bytes {
    match serde_json::from_slice(&text) {
        Ok(Enveloped::PtyInput { data }) => data.into(),
        Err(_) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_envelope_is_opened() {
        for (text, keys) in [
            (r#"{"type":"pty_input","data":"ls\r"}"#, "ls\r"),
            ("ls\r", "ls\r"),
            (r#"{"type":"other","data":"x"}"#, r#"{"type":"other","data":"x"}"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("", ""),
        ] {
            assert_eq!(bare(Bytes::from_static(text.as_bytes())), keys, "{text}");
        }
    }
}
