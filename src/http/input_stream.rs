//! `WS /api/input/{name}/stream`: a person's keystrokes, as they come.
//!
//! ```text
//! handshake -> pty_input_ready -> (keys -> pty_input_ack | size -> pty_resized)* -> close
//!           `-> pty_input_error -> close
//! ```
//!
//! An open stream is the lease to type: there is one for each terminal. A client that asks to `drive` has the
//! terminal to itself: the agent's messages are held back, and its size is the client's affair. However the
//! stream ends, both are as they were before.
//!
//! Keys are handed to the terminal as they arrive and acked in their order, each when the kernel has taken
//! it. A terminal that takes nothing fills its own queue (256 KiB) and then refuses; it never holds up the
//! socket.

use actix_web::{
    HttpRequest, HttpResponse, rt,
    web::{Data, Path, Payload, Query},
};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, Session};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesOrdered};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Duration, MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use super::{
    api::{Api, OpenStream, ROOM_TIME, disappeared, of_worker, within},
    error::ApiError,
    socket::{self, Accepted, End, ended, hand_over},
    writers::WriterLease,
};
use crate::messages::{
    hold::{DeliveryMode, GetDeliveryMode, SetDeliveryMode},
    pty::{Input, Resize, TakeSnapshot, TermSize},
    spawn::AgentDoors,
};

/// The largest frame, in bytes: what a terminal's queue can take at once.
const FRAME_MAX: usize = 256 << 10;
/// Most frames that wait for their ack; more are left in the socket.
const UNACKED_MAX: usize = 256;
/// Between two looks whether the agent is still there.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub(super) struct StreamQuery {
    /// Have the terminal alone.
    #[serde(default)]
    drive: bool,
    /// How the client describes itself to others who want to type.
    who: Option<String>,
}

/// What we say.
#[derive(Serialize)]
#[serde(tag = "type")]
enum Said<'a> {
    #[serde(rename = "pty_input_ready")]
    Ready { name: &'a str },
    #[serde(rename = "pty_input_ack")]
    Written { name: &'a str, bytes_written: usize },
    #[serde(rename = "pty_resized")]
    Resized { name: &'a str, rows: u16, cols: u16 },
}

/// What was done with a frame.
enum Done {
    Written(usize),
    Resized(TermSize),
}

/// Keys in an envelope, which most clients send bare, or a new size.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Enveloped {
    PtyInput { data: String },
    PtyResize { rows: u16, cols: u16 },
}

/// `WS /api/input/{name}/stream`
pub(super) async fn open(
    api: Data<Api>,
    name: Path<String>,
    query: Query<StreamQuery>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let Accepted { response, session, incoming, closing } = socket::accept(&api.streams, &req, payload)?;
    let incoming =
        incoming.max_frame_size(FRAME_MAX).aggregate_continuations().max_continuation_size(FRAME_MAX);
    let StreamQuery { drive, who } = query.into_inner();
    let typist = Typist {
        name: name.into_inner(),
        who: who.unwrap_or_else(|| "another client".to_owned()),
        drives: drive,
        session,
        closing,
        lease: None,
        driving: None,
        _open: api.streams.open(),
    };
    rt::spawn(typist.run(api, incoming));
    Ok(response)
}

/// Somebody who types.
struct Typist {
    name: String,
    who: String,
    drives: bool,
    session: Session,
    closing: watch::Receiver<bool>,
    lease: Option<WriterLease>,
    driving: Option<Driving>,
    _open: OpenStream,
}

/// What a terminal was before somebody had it alone.
struct Driving {
    agent: AgentDoors,
    mode: DeliveryMode,
    size: TermSize,
}

impl Driving {
    /// Looks what the terminal is now, and changes nothing.
    async fn look(agent: &AgentDoors) -> Result<Self, ApiError> {
        let name = agent.view.spec.name.as_str();
        let size = of_worker(name, agent.snapshot.ask(TakeSnapshot)).await?.size;
        let mode = within(ROOM_TIME, agent.hold.get.ask(GetDeliveryMode)).await?;
        Ok(Self { agent: agent.clone(), mode, size })
    }

    /// Holds the agent's messages back. After an error they may be held all the same: to be ended either way.
    async fn begin(&mut self) -> Result<(), ApiError> {
        let hold = |reply| SetDeliveryMode { mode: DeliveryMode::ManualFlush, expect: None, reply };
        // Without an expectation there is no conflict.
        if let Ok(set) = within(ROOM_TIME, self.agent.hold.set.ask(hold)).await? {
            self.mode = set.previous;
        }
        info!(agent = %self.agent.view.spec.name, "driven by a person, messages are held");
        Ok(())
    }

    /// Leaves the terminal as it was. A mode that somebody else has set meanwhile stays.
    async fn end(self) {
        let Self { agent, mode, size } = self;
        let name = &agent.view.spec.name;
        let back = |reply| SetDeliveryMode { mode, expect: Some(DeliveryMode::ManualFlush), reply };
        match within(ROOM_TIME, agent.hold.set.ask(back)).await {
            Ok(Ok(_)) => info!(agent = %name, "no longer driven"),
            Ok(Err(conflict)) => info!(agent = %name, %conflict, "no longer driven"),
            Err(error) if agent.hold.set.is_gone() => {
                debug!(agent = %name, %error, "ended while it was driven")
            }
            Err(error) => warn!(agent = %name, %error, "messages may still be held; see `relay-broker hold`"),
        }
        // An agent that has ended has no size.
        within(ROOM_TIME, agent.resize.ask(|reply| Resize { size, reply })).await.map(drop).ok();
    }
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
        if let Some(driving) = self.driving.take() {
            driving.end().await;
        }
        self.lease = None;
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
        self.lease = Some(api.writers.take(&agent.view.spec.name, &self.who, self.drives)?);
        if self.drives {
            // Kept before anything is changed: an answer that comes too late leaves no messages held.
            self.driving.insert(Driving::look(&agent).await?).begin().await?;
        }
        self.say(&Said::Ready { name: &self.name.clone() }).await?;
        let mut pings = socket::pings();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unacked = FuturesOrdered::new();
        loop {
            tokio::select! {
                biased;
                () = ended(&mut self.closing) => return Err(End::SHUTDOWN.into()),
                Some(done) = unacked.next() => {
                    let name = &self.name.clone();
                    match done? {
                        Done::Written(bytes_written) => self.say(&Said::Written { name, bytes_written }).await?,
                        Done::Resized(TermSize { rows, cols }) => {
                            self.say(&Said::Resized { name, rows, cols }).await?;
                        }
                    }
                }
                message = incoming.next(), if unacked.len() < UNACKED_MAX => {
                    let keys = match message {
                        Some(Ok(AggregatedMessage::Text(text))) => Asked::read(text.into_bytes()),
                        Some(Ok(AggregatedMessage::Binary(bytes))) => Asked::Type(bytes),
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
                    unacked.push_back(self.act(&agent, keys));
                }
                _ = looks.tick() => if agent.input.is_gone() {
                    return Err(End::Ours(CloseCode::Normal, "the agent has ended").into());
                },
                _ = pings.tick() => {
                    let mut session = self.session.clone();
                    hand_over(&mut self.closing, async move { session.ping(b"").await }).await?;
                }
            }
        }
    }

    /// Hands keys or a size to the terminal at once; the future is only the wait for the kernel.
    fn act(&self, agent: &AgentDoors, asked: Asked) -> LocalBoxFuture<'static, Result<Done, ApiError>> {
        let name = self.name.clone();
        match asked {
            Asked::Type(keys) => {
                let answer = agent.input.ask(|reply| Input { bytes: keys.to_vec(), reply });
                let done = answer.map(move |answer| {
                    let written = answer.map_err(|_| disappeared(&name))?;
                    written.map(Done::Written).map_err(|refused| ApiError::from(refused).about(name))
                });
                done.boxed_local()
            }
            Asked::Resize { rows, cols } => match TermSize::new(rows, cols) {
                Ok(size) => {
                    let answer = agent.resize.ask(|reply| Resize { size, reply });
                    let done = answer.map(move |answer| {
                        let resized = answer.map_err(|_| disappeared(&name))?;
                        resized
                            .map(|()| Done::Resized(size))
                            .map_err(|refused| ApiError::from(refused).about(name))
                    });
                    done.boxed_local()
                }
                Err(bad) => std::future::ready(Err(ApiError::from(bad).about(name))).boxed_local(),
            },
        }
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

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Type(Bytes),
    Resize { rows: u16, cols: u16 },
}

impl Asked {
    /// Out of its envelope, if it is in one.
    fn read(text: Bytes) -> Self {
        match serde_json::from_slice(&text) {
            Ok(Enveloped::PtyInput { data }) => Self::Type(data.into()),
            Ok(Enveloped::PtyResize { rows, cols }) => Self::Resize { rows, cols },
            Err(_) => Self::Type(text),
        }
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
            (r#"{"type":"pty_resize","rows":"x"}"#, r#"{"type":"pty_resize","rows":"x"}"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("", ""),
        ] {
            assert_eq!(Asked::read(Bytes::from_static(text.as_bytes())), Asked::Type(keys.into()), "{text}");
        }
        let size = Bytes::from_static(br#"{"type":"pty_resize","rows":30,"cols":90}"#);
        assert_eq!(Asked::read(size), Asked::Resize { rows: 30, cols: 90 });
    }
}
