//! The event stream: `/ws`, and what it has kept, `/api/events/replay`.

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    rt,
    web::{Data, Payload, Query},
};
use actix_ws::{CloseCode, Message, MessageStream, Session};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tracing::debug;

use super::{
    api::{Api, OpenStream, ROOM_TIME, within},
    error::ApiError,
    socket::{self, Accepted, End, ended, hand_over},
};
use crate::{
    ids::{AgentName, EventSeq},
    messages::observe::{Feed, Replay, Subscribe},
};

#[derive(Deserialize)]
pub(super) struct Since {
    #[serde(default, rename = "sinceSeq")]
    since_camel: Option<u64>,
    #[serde(default, rename = "since_seq")]
    since_snake: Option<u64>,
    #[serde(default, rename = "bootId")]
    boot_camel: Option<String>,
    #[serde(default, rename = "boot_id")]
    boot_snake: Option<String>,
    /// Terminal output of this agent alone.
    #[serde(default)]
    output: Option<String>,
}

impl Since {
    fn read(self) -> (Option<EventSeq>, Option<String>) {
        let since = self.since_camel.or(self.since_snake).map(EventSeq);
        (since, self.boot_camel.or(self.boot_snake))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplayReply<'a> {
    events: Vec<&'a RawValue>,
    gap: bool,
    oldest_available: EventSeq,
    current_seq: EventSeq,
    #[serde(rename = "boot_id")]
    boot_id: &'a str,
}

/// `GET /api/events/replay?sinceSeq=`
pub(super) async fn replay(api: Data<Api>, since: Query<Since>) -> Result<HttpResponse, ApiError> {
    let (since, boot) = since.into_inner().read();
    let since = since.unwrap_or_default();
    let replayed = within(ROOM_TIME, api.doors.replay.ask(|reply| Replay { since, boot, reply })).await?;
    let events = replayed.events.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>();
    let events = events.map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("an event is not JSON: {error}"))
    })?;
    Ok(HttpResponse::Ok().json(ReplayReply {
        events,
        gap: replayed.gap,
        oldest_available: replayed.oldest,
        current_seq: replayed.current,
        boot_id: &api.config.boot_id,
    }))
}

/// `WS /ws?sinceSeq=&output=`
pub(super) async fn stream(
    api: Data<Api>,
    since: Query<Since>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let Accepted { response, session, incoming, closing } = socket::accept(&api.streams, &req, payload)?;
    let mut since = since.into_inner();
    let output_of = since.output.take().map(|name| AgentName::parse(&name)).transpose()?;
    let (since, boot) = since.read();
    let subscribed = api.doors.subscribe.ask(|reply| Subscribe { since, boot, output_of, reply });
    let feed = within(ROOM_TIME, subscribed).await?;
    let client = Client { session, closing, _open: api.streams.open() };
    rt::spawn(client.run(feed, incoming));
    Ok(response)
}

/// A client of the stream.
struct Client {
    session: Session,
    closing: watch::Receiver<bool>,
    _open: OpenStream,
}

impl Client {
    async fn run(mut self, mut feed: Feed, mut incoming: MessageStream) {
        let end = self.relay(&mut feed, &mut incoming).await;
        // Stop being counted, and stop being fed, before the last words.
        drop(feed);
        end.say(self.session).await;
    }

    async fn relay(&mut self, feed: &mut Feed, incoming: &mut MessageStream) -> End {
        let mut pings = socket::pings();
        let Self { session, closing, .. } = self;
        loop {
            let step = tokio::select! {
                biased;
                _ = ended(closing) => return End::SHUTDOWN,
                message = incoming.next() => match message {
                    Some(Ok(Message::Ping(bytes))) => {
                        let mut session = session.clone();
                        hand_over(closing, async move { session.pong(&bytes).await }).await
                    }
                    Some(Ok(Message::Close(_))) => return End::Left,
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => {
                        debug!(%error, "event stream broke");
                        return End::Gone;
                    }
                    None => return End::Gone,
                },
                _ = pings.tick() => hand_over(closing, session.ping(b"")).await,
                frame = feed.frames.recv() => match frame {
                    // Its room is given back when the client has taken it.
                    Some(frame) => hand_over(closing, session.text(&*frame.text)).await,
                    None => return End::Ours(CloseCode::Restart, "the event hub has ended"),
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }
}
