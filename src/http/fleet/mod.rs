//! `WS /api/fleet/ws`: a sidecar, a program that handles what the engine asks of this node.
//!
//! ```text
//! hello, register_node, register_handlers -> ok
//! (invoke_handler -> handler_result -> ok)*      and whatever else it asks for, as the routes answer it
//! deregister_node -> ok -> close
//! ```
//!
//! Requests are answered as they are done, not in their order. However the socket ends, the registry hears that
//! this sidecar handles nothing any more; the session of the node and its agents go on.

mod frame;

use std::{cell::Cell, rc::Rc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    rt,
    web::{Data, Payload},
};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, Session};
use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::Duration,
};
use tracing::{debug, info};

use self::frame::{Asked, HandlerResult, RegisterHandlers, RegisterNode, Request, SpawnAgent};
use super::{
    agents,
    api::{Api, OpenStream, ROOM_TIME, within},
    body::BODY_MAX,
    channels,
    error::ApiError,
    socket::{self, Accepted, End, ended, hand_over},
    status,
};
use crate::{
    ids::SidecarId,
    messages::{
        Reply,
        channels::Membership,
        session::OfferRefused,
        sidecar::{CALLS_MAX, Call, EndCall, OfferHandlers, RegisterSidecar, SidecarGone, SidecarRefused},
        spawn::Origin,
    },
};

/// Requests of one sidecar that are under way at once; more are left in the socket.
const REQUESTS_MAX: usize = 64;
/// For the engine to take the handlers: more than the session waits for it.
const OFFER_TIME: Duration = Duration::from_secs(15);

/// `WS /api/fleet/ws`
pub(super) async fn open(
    api: Data<Api>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let Accepted { response, session, incoming, closing } = socket::accept(&api.streams, &req, payload)?;
    let incoming =
        incoming.max_frame_size(BODY_MAX).aggregate_continuations().max_continuation_size(BODY_MAX);
    let (calls, called) = mpsc::channel(CALLS_MAX);
    let talk = Talk { api: api.clone(), calls, registered: Rc::default() };
    let sidecar = Sidecar { session, closing, talk, called, _open: api.streams.open() };
    rt::spawn(sidecar.run(incoming));
    Ok(response)
}

/// A sidecar's socket.
struct Sidecar {
    session: Session,
    closing: watch::Receiver<bool>,
    talk: Talk,
    called: mpsc::Receiver<Call>,
    _open: OpenStream,
}

/// What its requests are answered from.
#[derive(Clone)]
struct Talk {
    api: Data<Api>,
    calls: mpsc::Sender<Call>,
    /// Who it is to the registry, from `register_node` on.
    registered: Rc<Cell<Option<SidecarId>>>,
}

/// An answer, and whether it is the last.
struct Answer {
    text: String,
    leaves: bool,
}

impl Sidecar {
    async fn run(mut self, mut incoming: AggregatedMessageStream) {
        let end = self.attend(&mut incoming).await;
        if let Some(sidecar) = self.talk.registered.take() {
            info!(%sidecar, "the socket of the sidecar has ended");
            // Nobody waits for the answer; a registry that is gone has ended the house.
            self.talk.api.doors.sidecar.gone.tell(SidecarGone { sidecar, reply: Reply::channel().0 }).ok();
        }
        end.say(self.session).await;
    }

    async fn attend(&mut self, incoming: &mut AggregatedMessageStream) -> End {
        let mut pings = socket::pings();
        let mut requests = FuturesUnordered::new();
        loop {
            let said = tokio::select! {
                biased;
                () = ended(&mut self.closing) => return End::SHUTDOWN,
                Some(answer) = requests.next() => {
                    let Answer { text, leaves } = answer;
                    let said = self.tell(text).await;
                    if leaves && said.is_ok() {
                        return End::Ours(CloseCode::Normal, "deregistered");
                    }
                    said
                }
                Some(call) = self.called.recv() => self.tell(frame::invoke(&call)).await,
                message = incoming.next(), if requests.len() < REQUESTS_MAX => match message {
                    Some(Ok(AggregatedMessage::Text(text))) => {
                        requests.push(self.talk.clone().answer(Asked::read(&text)));
                        continue;
                    }
                    Some(Ok(AggregatedMessage::Ping(bytes))) => {
                        let mut session = self.session.clone();
                        hand_over(&mut self.closing, async move { session.pong(&bytes).await }).await
                    }
                    Some(Ok(AggregatedMessage::Pong(_))) => continue,
                    Some(Ok(AggregatedMessage::Binary(_))) => {
                        return End::Ours(CloseCode::Unsupported, "frames are text");
                    }
                    Some(Ok(AggregatedMessage::Close(_))) => return End::Left,
                    Some(Err(error)) => {
                        debug!(%error, "the socket of a sidecar broke");
                        return End::Ours(CloseCode::Size, "a frame that cannot be read");
                    }
                    None => return End::Gone,
                },
                _ = pings.tick() => {
                    let mut session = self.session.clone();
                    hand_over(&mut self.closing, async move { session.ping(b"").await }).await
                }
            };
            if let Err(end) = said {
                return end;
            }
        }
    }

    async fn tell(&mut self, text: String) -> Result<(), End> {
        let mut session = self.session.clone();
        hand_over(&mut self.closing, async move { session.text(text).await }).await
    }
}

impl Talk {
    fn answer(self, asked: Asked) -> LocalBoxFuture<'static, Answer> {
        async move {
            let leaves = matches!(asked.request, Ok(Request::DeregisterNode));
            let answer = match asked.request {
                Ok(request) => self.act(request).await,
                Err(refused) => Err(refused),
            };
            Answer { leaves: leaves && answer.is_ok(), text: frame::answer(asked.id.as_deref(), &answer) }
        }
        .boxed_local()
    }

    async fn act(&self, request: Request) -> Result<Value, ApiError> {
        let api = &*self.api;
        match request {
            Request::Hello => {
                Ok(json!({ "broker_version": api.config.version, "protocol_version": frame::VERSION }))
            }
            Request::RegisterNode(node) => self.register(*node).await,
            Request::RegisterHandlers(RegisterHandlers { names }) => {
                let sidecar = self.registered()?;
                let taken = api.doors.sidecar.offer.ask(|reply| OfferHandlers { sidecar, names, reply });
                if let Err(refused) = within(OFFER_TIME, taken).await? {
                    if let SidecarRefused::NotTaken(_) = refused {
                        // It may register again, with other handlers.
                        self.registered.set(None);
                    }
                    return Err(refused.into());
                }
                Ok(json!({ "handlers_live": true }))
            }
            Request::HandlerResult(result) => self.end_call(result).await,
            Request::SpawnAgent(spawn) => {
                let SpawnAgent { agent, initial_task, invocation_id } = *spawn;
                let origin = invocation_id.map_or(Origin::Api, Origin::Sidecar);
                let spawned = agents::spawn_for(api, agent.with_task(initial_task), origin).await?;
                Ok(json!(spawned))
            }
            Request::SendMessage(body) => agents::send_for(api, body).await,
            Request::SendInput(asked) => agents::type_into(api, &asked.name, asked.body).await,
            Request::ReleaseAgent(asked) => agents::release_named(api, &asked.name, asked.body).await,
            Request::SubscribeChannels(asked) => {
                channels::change(api, &asked.name, Membership::Join, asked.body).await
            }
            Request::UnsubscribeChannels(asked) => {
                channels::change(api, &asked.name, Membership::Leave, asked.body).await
            }
            Request::ListAgents => Ok(json!({ "agents": agents::listed(api).await? })),
            Request::Shutdown => status::shut_down(api),
            Request::DeregisterNode => {
                let sidecar = self.registered()?;
                let gone = api.doors.sidecar.gone.ask(|reply| SidecarGone { sidecar, reply });
                within(ROOM_TIME, gone).await?;
                self.registered.set(None);
                Ok(json!({ "deregistered": true }))
            }
        }
    }

    async fn register(&self, node: RegisterNode) -> Result<Value, ApiError> {
        let supervised = node.supervision.is_some();
        let (manifest, calls) = (node.manifest(), self.calls.clone());
        let asked = self.api.doors.sidecar.register.ask(|reply| RegisterSidecar { manifest, calls, reply });
        let id = within(ROOM_TIME, asked).await??;
        self.registered.set(Some(id));
        let mut answer = json!({ "registered": true });
        if supervised {
            // Whoever started it starts it again.
            answer["supervised"] = json!(false);
        }
        Ok(answer)
    }

    async fn end_call(&self, result: HandlerResult) -> Result<Value, ApiError> {
        let (sidecar, invocation) = (self.registered()?, result.invocation_id.clone());
        let outcome = result.outcome()?;
        let end = |reply| EndCall { sidecar, invocation, outcome, reply };
        within(ROOM_TIME, self.api.doors.sidecar.end.ask(end)).await??;
        Ok(json!({ "completed": true }))
    }

    fn registered(&self) -> Result<SidecarId, ApiError> {
        self.registered.get().ok_or_else(|| SidecarRefused::NotRegistered.into())
    }
}

impl From<SidecarRefused> for ApiError {
    fn from(refused: SidecarRefused) -> Self {
        let message = refused.to_string();
        let (status, code) = match &refused {
            // The one that is there may go.
            SidecarRefused::Occupied { .. } => {
                return Self::new(StatusCode::CONFLICT, "sidecar_connected", message).retryable();
            }
            SidecarRefused::NotTaken(OfferRefused::TimedOut) => {
                return Self::timed_out("engine_timeout", message);
            }
            SidecarRefused::NotTaken(OfferRefused::Engine { .. }) => {
                (StatusCode::BAD_GATEWAY, "engine_refused")
            }
            SidecarRefused::InvalidHandler { .. } => (StatusCode::BAD_REQUEST, "invalid_handler"),
            SidecarRefused::InvalidManifest(_) => (StatusCode::BAD_REQUEST, "invalid_manifest"),
            SidecarRefused::Duplicate(_) => (StatusCode::BAD_REQUEST, "duplicate_handler"),
            SidecarRefused::Declared(_) => (StatusCode::CONFLICT, "handler_declared"),
            SidecarRefused::NotInManifest(_) => (StatusCode::BAD_REQUEST, "unknown_handler"),
            SidecarRefused::NotRegistered => (StatusCode::CONFLICT, "node_not_registered"),
            SidecarRefused::UnknownInvocation(_) => (StatusCode::NOT_FOUND, "unknown_invocation"),
            SidecarRefused::OutputTooLong(..) => (StatusCode::PAYLOAD_TOO_LARGE, "output_too_large"),
        };
        Self::new(status, code, message)
    }
}
