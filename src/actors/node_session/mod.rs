//! The socket: this node's presence at the engine. It owns the way to a live session, the routing of frames to
//! cursors, the outgoing frames and the replies to what it asked.
//!
//! ```text
//! asking --token--> connecting --101--> registering --reply--> live --close, silence--> exit
//!    |                  |                    `--id or name refused--> asking, once
//!    `--key refused     `--401 and other refusals--> exit
//! any --Leave--> acks, node.deregister, close 1000 --> exit Finished
//! ```
//!
//! A life is one socket: every end is an exit, and the runner decides when the next life begins.
//!
//! The socket is always read, and nothing here waits for room: a frame that finds none is dropped unacked and
//! asked for again when there is some; what the writer does not take stays in the outbox, where acks shrink to
//! one per agent; heartbeats have a lane of their own in the socket.
//!
//! A restart forgets the socket, the token, the outbox, the open registrations (answered as offline) and the
//! timers. It keeps: the routes, the inventory, who waits for a replay, what is owed to the engine
//! (deregistrations, results), the dialect, the refused token generation, the epoch, and the counters.

#[cfg(test)]
mod model;
mod outbox;
mod pending;
mod phase;
mod pulse;
mod replay;
mod routes;
mod tally;
#[cfg(test)]
mod tests;
mod words;

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context as Task, Poll},
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, StreamHandler, Supervised, WrapFuture,
};
use futures_util::Stream;
use tracing::{debug, info, warn};
use uuid::Uuid;

use self::{
    outbox::Outbox,
    pending::{Match, Pending},
    phase::{Effect, Event, Handshake, Machine},
    pulse::Pulse,
    replay::{Facts, Replay},
    routes::{Destination, Routes},
    tally::Tally,
    words::Words,
};
use crate::{
    config::Timings,
    ids::{AgentName, Epoch},
    messages::{
        Reply, Unanswered,
        delivery::{Ack, Deliver, Delivery, EpochStarted, RequestReplay},
        invoke::{InvocationEnded, Invoke},
        lifecycle::ExitReason,
        observe::{self, Publish},
        session::{
            Absent, DeregisterAgent, Dialect, InventoryItem, Leave, LocationConflict, RegisterAgent,
            RegisterRefused, Registration, Route, SessionUp, SetInventory, Unroute,
        },
        token::{EnrolAgain, GetToken, TokenGrant, TokenRefused},
    },
    supervision::{Detail, Lifeline, Post},
    wire::{
        client::{EngineClient, EngineEndpoint},
        frames::{
            AgentRegistered, BrokerFrame, DeliverFrame, EngineError, EngineFrame, INVALID_MESSAGE,
            Reply as EngineReply,
        },
        invoke, payload,
        socket::{self, Closed, ConnectError, FrameSink, FrameStream, SinkRefused, SocketEvent},
    },
};

/// What a delivery takes beside its payload, for the room it is accounted.
const DELIVERY_OVERHEAD: usize = 512;
/// Between looks whether there is room again, while frames are owed.
const ROOM_CHECK: Duration = Duration::from_millis(100);
/// Before the writer is offered again what it refused.
const WRITER_RETRY: Duration = Duration::from_millis(20);
/// The debug page is this old at most.
const SHOW_DELAY: Duration = Duration::from_millis(250);
/// What is kept for the engine while it is away; beyond it the oldest is forgotten.
const OWED_MAX: usize = 256;
/// The engine's time to answer our goodbye.
const PARTING: Duration = Duration::from_millis(300);
/// For the engine to say its version, while a socket is opened.
const VERSION_TIME: Duration = Duration::from_secs(1);
/// Close code of an orderly end.
const CLOSE_NORMAL: u16 = 1000;
/// One agent of the inventory is active on another node, and the whole is refused (spec/wire 4.6).
const LOCATION_CONFLICT: &str = "agent_location_conflict";
/// The engine keys these events by the action alone (spec/wire 4.1).
const REPEATING_DELIVERY: &str = "evt_action_denied_";

/// What the session was told.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Where the engine is.
    pub endpoint: EngineEndpoint,
    /// Harness names; each is advertised as `spawn:<harness>`.
    pub harnesses: Vec<String>,
    /// Other actions that this node runs; each is advertised by its name.
    pub actions: Vec<String>,
    /// Most agents at once; 0 is unlimited.
    pub max_agents: u32,
    /// Free words about the node.
    pub tags: Vec<String>,
    /// The protocol's periods.
    pub timings: Timings,
}

/// Whom the session talks to.
#[derive(Clone, Debug)]
pub struct SessionDoors {
    /// The mint.
    pub get_token: Post<GetToken>,
    /// The mint.
    pub enrol: Post<EnrolAgain>,
    /// The registry.
    pub session_up: Post<SessionUp>,
    /// The registry.
    pub invoke: Post<Invoke>,
    /// The registry.
    pub conflict: Post<LocationConflict>,
    /// The event hub.
    pub publish: Post<Publish>,
}

/// The actor.
pub struct NodeSession {
    life: Lifeline,
    endpoint: EngineEndpoint,
    timings: Timings,
    doors: SessionDoors,
    words: Words,
    machine: Machine,
    routes: Routes,
    inventory: Vec<InventoryItem>,
    invoking: bool,
    replay_askers: Vec<Reply<Epoch>>,
    owed: VecDeque<BrokerFrame>,
    epoch: Epoch,
    /// The engine's, while it speaks the baseline and says it.
    version: Option<String>,
    requests: u64,
    tally: Tally,
    // Of one life.
    grant: Option<TokenGrant>,
    link: Option<Link>,
    timer: Option<(Instant, SpawnHandle)>,
    show_at: Option<Instant>,
    leaving: Vec<Reply<()>>,
}

/// One socket.
struct Link {
    sink: FrameSink,
    reading: Reading,
    outbox: Outbox,
    pulse: Pulse,
    replay: Replay,
    pending: Pending<Waiter>,
    /// A flush is under way at the end of this turn of the actor.
    flushing: bool,
    /// When the writer is offered again what it refused.
    retry_at: Option<Instant>,
    /// When to look for room again.
    room_at: Option<Instant>,
}

/// A registration that waits for its reply.
struct Waiter {
    asked: RegisterAgent,
    recovering: bool,
}

impl NodeSession {
    /// The session of one node.
    pub fn new(life: Lifeline, config: SessionConfig, doors: SessionDoors) -> Self {
        let SessionConfig { endpoint, harnesses, actions, max_agents, tags, timings } = config;
        let instance = format!("broker_{}", Uuid::new_v4().simple());
        Self {
            life,
            endpoint,
            doors,
            words: Words::new(harnesses, actions, max_agents, tags, instance),
            machine: Machine::new(timings.clone()),
            timings,
            routes: Routes::default(),
            inventory: Vec::new(),
            invoking: false,
            replay_askers: Vec::new(),
            owed: VecDeque::new(),
            epoch: Epoch::default(),
            version: None,
            requests: 0,
            tally: Tally::default(),
            grant: None,
            link: None,
            timer: None,
            show_at: None,
            leaving: Vec::new(),
        }
    }

    /// Takes an event to its effects.
    fn step(&mut self, ctx: &mut Context<Self>, event: Event<'_>) {
        let before = self.machine.describe();
        for effect in self.machine.step(Instant::now(), event) {
            self.apply(ctx, effect);
        }
        if self.machine.describe() != before {
            self.show();
        }
        self.arm(ctx);
    }

    fn apply(&mut self, ctx: &mut Context<Self>, effect: Effect) {
        match effect {
            Effect::AskToken { rejected } => {
                let answer = self.doors.get_token.ask(|reply| GetToken { rejected, reply });
                ctx.spawn(answer.into_actor(self).map(|answer, this, ctx| this.token(ctx, answer)));
            }
            Effect::EnrolAgain { code } => {
                warn!(code, "the engine does not accept this node's id or name, enrolling again");
                self.life.error(format!("the engine answered node.register with {code}"));
                self.drop_link();
                let answer = self.doors.enrol.ask(|reply| EnrolAgain { code, reply });
                ctx.spawn(answer.into_actor(self).map(|answer, this, ctx| this.token(ctx, answer)));
            }
            Effect::Connect => self.connect(ctx),
            Effect::Register { id, form } => {
                if let Some(grant) = &self.grant {
                    let frame = self.words.register(id, form, grant);
                    self.send(frame);
                }
            }
            Effect::GoLive(dialect) => {
                self.go_live(dialect);
                self.note_version(ctx);
            }
            Effect::Healthy => self.life.healthy(),
            Effect::Exit(reason) => self.end(ctx, reason),
        }
    }

    fn token(
        &mut self,
        ctx: &mut Context<Self>,
        answer: Result<Result<TokenGrant, TokenRefused>, Unanswered>,
    ) {
        let event = match answer {
            Ok(Ok(grant)) => {
                let generation = grant.generation;
                self.grant = Some(grant);
                Event::Granted(generation)
            }
            Ok(Err(TokenRefused::Retry { why, after })) => {
                self.life.error(why);
                Event::NotYet { after }
            }
            Ok(Err(TokenRefused::KeyRefused { why })) => Event::KeyRefused { why },
            Err(Unanswered) => Event::MintGone,
        };
        self.step(ctx, event);
    }

    fn connect(&mut self, ctx: &mut Context<Self>) {
        let Some(grant) = &self.grant else { return };
        let (endpoint, token) = (self.endpoint.clone(), grant.token.clone());
        let known = self.version.clone().filter(|_| self.machine.dialect() == Some(Dialect::V5));
        let connecting = async move {
            let version = async { if known.is_some() { version_of(&endpoint).await } else { None } };
            let (connected, version) = futures_util::join!(socket::connect(&endpoint, &token), version);
            (connected, version.filter(|version| known.as_ref() != Some(version)))
        };
        ctx.spawn(connecting.into_actor(self).map(|(connected, another), this, ctx| {
            if let Some(version) = another {
                info!(version, "the engine is of another version now, asking anew what it speaks");
                this.machine.forget_dialect();
            }
            match connected {
                Ok((sink, stream)) => this.connected(ctx, sink, stream),
                Err(why) => this.step(ctx, Event::HandshakeFailed(handshake(&why))),
            }
        }));
    }

    /// Notes the version of an engine that speaks the baseline: when it changes, so may what it speaks.
    fn note_version(&mut self, ctx: &mut Context<Self>) {
        self.version = None;
        if self.machine.dialect() != Some(Dialect::V5) {
            return;
        }
        let (endpoint, epoch) = (self.endpoint.clone(), self.epoch);
        let asked = async move { version_of(&endpoint).await };
        ctx.spawn(asked.into_actor(self).map(move |version, this, _| {
            if this.epoch == epoch {
                this.version = version;
                this.show();
            }
        }));
    }

    fn connected(&mut self, ctx: &mut Context<Self>, sink: FrameSink, stream: FrameStream) {
        let now = Instant::now();
        let reading = Reading::new(stream);
        ctx.add_stream(reading.clone());
        self.link = Some(Link {
            sink,
            reading,
            outbox: Outbox::default(),
            pulse: Pulse::new(now, self.timings.heartbeat, self.timings.silence),
            replay: Replay::new(now, self.timings.sync),
            pending: Pending::default(),
            flushing: false,
            retry_at: None,
            room_at: None,
        });
        self.step(ctx, Event::Connected);
    }

    /// In the order of the contract: the inventory, a heartbeat, everything else (spec/wire 2.5).
    fn go_live(&mut self, dialect: Dialect) {
        let Some(grant) = &self.grant else { return };
        let now = Instant::now();
        let (node_id, node_name) = (grant.node_id.clone(), grant.node_name.clone());
        self.epoch = self.epoch.next();
        self.tally.sessions += 1;
        info!(epoch = %self.epoch, node = %node_id, name = %node_name, ?dialect, "node session is live");
        if let Some(link) = &mut self.link {
            link.replay = Replay::new(now, self.timings.sync);
            link.pulse.beat(now);
        }
        self.sync(now);
        let beat = self.words.heartbeat(dialect, self.inventory.len());
        self.send(beat);
        for frame in std::mem::take(&mut self.owed) {
            self.send(frame);
        }
        let epoch = self.epoch;
        self.publish("live", format!("node {node_id} as {node_name}"));
        // A registry that has ended is ending the house.
        self.doors.session_up.tell(SessionUp { epoch, node_id, node_name, dialect }).ok();
        self.routes.epoch_started(epoch);
    }

    /// Ends this life; everybody who waits for something that only this socket could bring is answered.
    fn end(&mut self, ctx: &mut Context<Self>, reason: ExitReason) {
        self.drop_link();
        for left in self.leaving.drain(..) {
            left.send(());
        }
        self.publish("down", reason.to_string());
        self.show();
        self.life.exit(ctx, reason);
    }

    fn drop_link(&mut self) {
        if let Some(mut link) = self.link.take() {
            link.reading.stop();
            for waiter in link.pending.close() {
                waiter.asked.reply.send(Err(RegisterRefused::Offline));
            }
        }
    }

    fn publish(&self, state: &'static str, detail: String) {
        // Without a hub nobody watches.
        self.doors.publish.tell(Publish(observe::Event::SessionState { state, detail })).ok();
    }

    // Outgoing.

    fn send(&mut self, frame: BrokerFrame) {
        if let Some(link) = &mut self.link {
            link.outbox.control(frame);
            self.flush();
        }
    }

    /// Sends when live, else keeps it for the next session.
    fn send_or_owe(&mut self, frame: BrokerFrame) {
        if self.machine.is_live() {
            self.send(frame);
            return;
        }
        if self.owed.len() == OWED_MAX {
            self.owed.pop_front();
            self.tally.stale += 1;
        }
        self.owed.push_back(frame);
    }

    /// Offers the writer what waits.
    fn flush(&mut self) {
        let Some(link) = &mut self.link else { return };
        let (sink, tally) = (&link.sink, &mut self.tally);
        let handed = link.outbox.drain(|frame| {
            sink.try_send(frame.encode())?;
            tally.sent(frame.kind());
            Ok(())
        });
        link.retry_at = match handed {
            Ok(()) => None,
            Err(SinkRefused::Full) => Some(Instant::now() + WRITER_RETRY),
            // The stream says how it ended.
            Err(SinkRefused::Closed) => None,
        };
    }

    /// Flushes once this turn's messages are through, so that their acks merge.
    fn flush_soon(&mut self, ctx: &mut Context<Self>) {
        if let Some(link) = &mut self.link
            && !std::mem::replace(&mut link.flushing, true)
        {
            ctx.spawn(std::future::ready(()).into_actor(self).map(|(), this, ctx| {
                if let Some(link) = &mut this.link {
                    link.flushing = false;
                }
                this.flush();
                this.arm(ctx);
            }));
        }
    }

    fn beat(&mut self) {
        let Some(dialect) = self.machine.dialect() else { return };
        let Some(link) = &self.link else { return };
        let frame = self.words.heartbeat(dialect, self.inventory.len());
        // Both fail only when the writer is stuck or gone, which ends the session by itself.
        if link.sink.try_send_urgent(frame.encode()).is_ok() {
            self.tally.sent(frame.kind());
        }
        link.sink.ping().ok();
    }

    fn sync(&mut self, now: Instant) {
        let id = self.request_id("inventory_sync");
        let Some(link) = &mut self.link else { return };
        link.replay.sent(now, id.clone());
        let frame = words::inventory(id, &self.inventory);
        self.send(frame);
        for asker in self.replay_askers.drain(..) {
            asker.send(self.epoch);
        }
    }

    fn request_id(&mut self, what: &str) -> String {
        self.requests += 1;
        format!("{what}_{}", self.requests)
    }

    // Incoming.

    fn text(&mut self, ctx: &mut Context<Self>, text: &str) {
        let frame = match EngineFrame::decode_tolerant(text) {
            Ok(frame) => frame,
            Err(error) => {
                self.tally.unreadable += 1;
                debug!(%error, bytes = text.len(), "frame cannot be read");
                return;
            }
        };
        self.tally.received(frame.kind());
        if let Some(link) = &mut self.link {
            link.replay.heard(Instant::now());
        }
        match frame {
            EngineFrame::Deliver(frame) => self.deliver(ctx, frame),
            EngineFrame::Reply(reply) => self.replied(ctx, &reply),
            EngineFrame::Error(error) => self.errored(ctx, error),
            EngineFrame::ActionInvoke(frame) => {
                let invoked =
                    Invoke { invocation: frame.invocation_id.clone(), action: invoke::action(&frame) };
                // A registry that has ended is ending the house; the engine will try another node.
                self.doors.invoke.tell(invoked).ok();
            }
            EngineFrame::ContextUpdate(_) | EngineFrame::Ping => {}
            EngineFrame::Unknown { kind } => debug!(kind, "frame of an unknown type"),
        }
    }

    fn deliver(&mut self, ctx: &mut Context<Self>, frame: DeliverFrame) {
        if !self.machine.is_live() {
            // The inventory.sync at the start of the session brings it back.
            self.tally.early += 1;
            return;
        }
        match self.routes.find(&frame.agent_id, &frame.agent) {
            Destination::Cursor(route) => {
                let bytes = frame.payload.get().len() + DELIVERY_OVERHEAD;
                let Some(credit) = route.lane.take(frame.seq, bytes) else {
                    self.tally.refused += 1;
                    self.watch_for_room(ctx);
                    return;
                };
                let content = payload::content(&frame.payload, route.name.as_str(), &frame.msg_id);
                let delivery = Delivery {
                    repeats: frame.delivery_id.as_str().starts_with(REPEATING_DELIVERY),
                    delivery_id: frame.delivery_id,
                    msg_id: frame.msg_id,
                    seq: frame.seq,
                    mode: frame.mode,
                    content,
                };
                if route.cursor.tell(Deliver { epoch: self.epoch, delivery, credit }).is_err() {
                    self.tally.quarantined += 1;
                }
            }
            Destination::Absent => self.tally.left += 1,
            Destination::Stranger { first } => {
                self.tally.strangers += 1;
                if first {
                    warn!(agent = %frame.agent_id, "frame for an agent that is not here, acked and dropped");
                }
                if frame.seq.0 > 0
                    && !frame.agent.is_empty()
                    && let Some(link) = &mut self.link
                {
                    link.outbox.ack(&frame.agent, frame.seq);
                    self.flush_soon(ctx);
                }
            }
        }
    }

    fn watch_for_room(&mut self, ctx: &mut Context<Self>) {
        let Some(link) = &mut self.link else { return };
        link.replay.refused();
        if link.room_at.is_none() {
            link.room_at = Some(Instant::now() + ROOM_CHECK);
            self.arm(ctx);
        }
    }

    fn replied(&mut self, ctx: &mut Context<Self>, reply: &EngineReply) {
        if !self.machine.is_live() {
            self.step(ctx, Event::Replied { id: &reply.id });
            return;
        }
        let Some(link) = &mut self.link else { return };
        if link.replay.answered(&reply.id) {
            self.pump(ctx);
            return;
        }
        let registered = reply.data::<AgentRegistered>();
        let name = registered.as_ref().ok().and_then(|registered| registered.name.as_deref());
        let name_of = name.and_then(|name| AgentName::parse(name).ok());
        match (link.pending.answered(&reply.id, name), registered) {
            (Match::For(name, waiter), Ok(registered)) => self.registered(name, waiter, registered),
            (Match::For(name, waiter), Err(error)) => {
                warn!(agent = %name, %error, "the reply to a registration cannot be read");
                let (code, message) = ("unreadable_reply".to_owned(), error.to_string());
                waiter.asked.reply.send(Err(RegisterRefused::Engine { code, message }));
            }
            (Match::GivenUp(name), Ok(registered)) => self.registered_late(registered, Some(name)),
            (Match::Nobody, Ok(registered)) => self.registered_late(registered, name_of),
            (Match::GivenUp(_) | Match::Nobody, Err(_)) => {
                self.tally.unmatched += 1;
                debug!(id = reply.id, "reply for nobody");
            }
        }
    }

    fn registered(&mut self, name: AgentName, waiter: Waiter, registered: AgentRegistered) {
        let agent_id = registered.agent_id;
        self.routes.expect(agent_id.clone(), name.clone());
        let registration = Registration {
            agent_id: agent_id.clone(),
            token: registered.token,
            ack_seq: registered.delivery_ack_seq,
        };
        if !waiter.asked.reply.send(Ok(registration)) {
            self.undo_registration(DeregisterAgent { agent_id, name });
        }
    }

    /// An agent exists at the engine that nobody here waits for any more.
    fn registered_late(&mut self, registered: AgentRegistered, name: Option<AgentName>) {
        self.tally.late += 1;
        let Some(link) = &self.link else { return };
        // The id is the same for a name that was registered again: a newer one must not be undone.
        let wanted = self.routes.knows(&registered.agent_id)
            || name.as_ref().is_some_and(|name| link.pending.has(name));
        if !wanted && let Some(name) = name {
            self.undo_registration(DeregisterAgent { agent_id: registered.agent_id, name });
        }
    }

    fn undo_registration(&mut self, gone: DeregisterAgent) {
        info!(agent = %gone.name, id = %gone.agent_id, "registration was given up, deregistering");
        self.routes.forget_absent(&gone.agent_id);
        self.send_or_owe(words::deregister_agent(&gone));
    }

    fn errored(&mut self, ctx: &mut Context<Self>, error: EngineError) {
        if !self.machine.is_live() {
            let EngineError { id, code, message, .. } = &error;
            self.step(ctx, Event::Errored { id, code, message });
            return;
        }
        let Some(link) = &mut self.link else { return };
        if link.replay.answered(&error.id) {
            warn!(code = error.code, message = error.message, "the engine refused the inventory");
            self.life.error(format!("inventory.sync: {}: {}", error.code, error.message));
            if error.code == LOCATION_CONFLICT {
                // A registry that has ended is ending the house.
                self.doors.conflict.tell(LocationConflict).ok();
            }
            self.pump(ctx);
            return;
        }
        match link.pending.answered(&error.id, None) {
            Match::For(name, waiter) => self.registration_refused(ctx, name, waiter, error),
            Match::GivenUp(_) => self.tally.late += 1,
            Match::Nobody if error.code == INVALID_MESSAGE => {
                self.tally.not_understood += 1;
                warn!(message = error.message, "the engine could not read a frame of ours");
                self.life.error(format!("the engine could not read a frame of ours: {}", error.message));
            }
            Match::Nobody => {
                self.tally.unmatched += 1;
                debug!(id = error.id, code = error.code, "error for nobody");
            }
        }
    }

    /// Newer engines create only; an agent that we know the id of is taken back instead (spec/wire 7).
    fn registration_refused(
        &mut self,
        ctx: &mut Context<Self>,
        name: AgentName,
        waiter: Waiter,
        error: EngineError,
    ) {
        if error.code == "agent_already_exists" && !waiter.recovering && waiter.asked.known_id.is_some() {
            let id = self.request_id("agent_recover");
            if let Some(frame) = words::recover_agent(id.clone(), &waiter.asked) {
                self.open_registration(ctx, id, name, frame, Waiter { recovering: true, ..waiter });
                return;
            }
        }
        let EngineError { code, message, .. } = error;
        waiter.asked.reply.send(Err(RegisterRefused::Engine { code, message }));
    }

    fn open_registration(
        &mut self,
        ctx: &mut Context<Self>,
        id: String,
        name: AgentName,
        frame: BrokerFrame,
        waiter: Waiter,
    ) {
        let Some(link) = &mut self.link else {
            waiter.asked.reply.send(Err(RegisterRefused::Offline));
            return;
        };
        link.pending.open(id, name, Instant::now() + self.timings.agent_register, waiter);
        self.send(frame);
        self.arm(ctx);
    }

    // Time.

    fn facts(&self) -> Facts {
        Facts { outstanding: self.routes.outstanding(), invoking: self.invoking }
    }

    /// Sends a sync if one is due.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let facts = self.facts();
        if self.machine.is_live() && self.link.as_ref().is_some_and(|link| link.replay.is_due(now, facts)) {
            self.sync(now);
        }
        self.arm(ctx);
    }

    fn on_time(&mut self, ctx: &mut Context<Self>) {
        self.timer = None;
        self.step(ctx, Event::Time);
        let now = Instant::now();
        if self.machine.is_live() {
            self.live_on_time(ctx, now);
        }
        if self.show_at.is_some_and(|at| at <= now) {
            self.show();
        }
        self.pump(ctx);
    }

    fn live_on_time(&mut self, ctx: &mut Context<Self>, now: Instant) {
        let Some(link) = &mut self.link else { return };
        if link.pulse.is_silent(now) {
            let why = format!("nothing was heard for {:?}", self.timings.silence);
            self.step(ctx, Event::Closed { reason: None, why });
            return;
        }
        if link.replay.is_dead(now) {
            let why = "the engine answers pings but not inventory.sync".to_owned();
            self.step(ctx, Event::Closed { reason: None, why });
            return;
        }
        for (name, waiter) in link.pending.expire(now) {
            warn!(agent = %name, "registration was not answered in time");
            waiter.asked.reply.send(Err(RegisterRefused::TimedOut));
        }
        if link.retry_at.is_some_and(|at| at <= now) {
            self.flush();
        }
        let Some(link) = &mut self.link else { return };
        if link.pulse.beat(now) {
            // A cursor may have dropped a frame unacked on its own.
            link.room_at.get_or_insert(now);
            self.beat();
        }
        self.look_for_room(now);
    }

    fn look_for_room(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        if link.room_at.is_none_or(|at| at > now) {
            return;
        }
        // Every lane is asked: each says yes once.
        let wants = self.routes.lanes().filter(|lane| lane.wants_replay()).count() > 0;
        if wants {
            link.replay.room(now);
        }
        let owed = self.routes.lanes().any(|lane| lane.owes_replay());
        link.room_at = owed.then_some(now + ROOM_CHECK);
    }

    /// Sets the one timer to whatever comes first.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let live = self.machine.is_live();
        let of_link = self.link.as_ref().filter(|_| live).map(|link| {
            let facts = self.facts();
            [link.pending.deadline(), link.retry_at, link.room_at]
                .into_iter()
                .flatten()
                .fold(link.pulse.deadline().min(link.replay.deadline(now, facts)), Instant::min)
        });
        let Some(at) = [self.machine.deadline(), of_link, self.show_at].into_iter().flatten().min() else {
            return;
        };
        if let Some((set, handle)) = self.timer {
            if set <= at {
                // It fires early at worst, and sets itself anew.
                return;
            }
            ctx.cancel_future(handle);
        }
        let handle = ctx.run_later(at.saturating_duration_since(now), |this, ctx| this.on_time(ctx));
        self.timer = Some((at, handle));
    }

    // The debug page.

    fn show(&mut self) {
        self.show_at = None;
        self.life.state(self.machine.describe());
        let mut facts = vec![("epoch", self.epoch.to_string())];
        if let Some(dialect) = self.machine.dialect() {
            let dialect = match dialect {
                Dialect::V5 => "5",
                Dialect::V6 => "6+",
            };
            facts.push(("dialect", dialect.to_owned()));
        }
        if let Some(grant) = &self.grant {
            facts.push(("node_id", grant.node_id.to_string()));
            facts.push(("node_name", grant.node_name.to_string()));
            facts.push(("token_generation", grant.generation.to_string()));
        }
        facts.push(("engine", self.endpoint.base_url().to_owned()));
        if let Some(version) = &self.version {
            facts.push(("engine_version", version.clone()));
        }
        facts.push(("inventory", self.inventory.len().to_string()));
        facts.push(("routes", self.routes.len().to_string()));
        if let Some(link) = &self.link {
            facts.push(("registrations_open", link.pending.len().to_string()));
            facts.push(("outbox", link.outbox.len().to_string()));
        }
        facts.extend(self.tally.facts());
        self.life.detail(Detail::Facts(facts));
    }

    /// Shows the numbers soon, not at every frame.
    fn show_soon(&mut self, ctx: &mut Context<Self>) {
        if self.show_at.is_none() {
            self.show_at = Some(Instant::now() + SHOW_DELAY);
            self.arm(ctx);
        }
    }

    // The way out.

    fn leave(&mut self, ctx: &mut Context<Self>, reply: Reply<()>) {
        self.leaving.push(reply);
        if self.leaving.len() > 1 {
            return;
        }
        let Some(dialect) = self.machine.dialect().filter(|_| self.machine.is_live()) else {
            self.end(ctx, ExitReason::Finished);
            return;
        };
        self.flush();
        let goodbye = self.words.deregister(dialect);
        self.send(goodbye);
        self.life.state("leaving");
        match &self.link {
            Some(link) => {
                let closing = link.sink.close(CLOSE_NORMAL, "leaving");
                let closing = closing.into_actor(self);
                // The engine's answer ends this life, see `closed`. Hanging up before it would reset the
                // connection when something of the engine's is still unread, and a reset may overtake what we
                // said last.
                ctx.spawn(closing.map(|(), _, ctx| {
                    ctx.run_later(PARTING, |this, ctx| this.end(ctx, ExitReason::Finished));
                }));
            }
            None => self.end(ctx, ExitReason::Finished),
        }
    }
}

/// The engine's version, if it says so soon.
async fn version_of(endpoint: &EngineEndpoint) -> Option<String> {
    let client = EngineClient::new(endpoint.clone());
    tokio::time::timeout(VERSION_TIME, client.health())
        .await
        .ok()?
        .ok()
        .map(|health| health.version)
        .filter(|version| !version.is_empty())
}

/// What the machine needs to know of a failed handshake.
fn handshake(why: &ConnectError) -> Handshake {
    match why {
        ConnectError::Refused { status, retry_after } => {
            Handshake::Status { status: *status, why: why.to_string(), retry_after: *retry_after }
        }
        other => Handshake::Transport(other.to_string()),
    }
}

impl Actor for NodeSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.life.started();
        self.step(ctx, Event::Started);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.life.stopped();
    }
}

impl Supervised for NodeSession {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        self.life.restarting();
        // After a panic the old life's socket and waiters are still there.
        self.drop_link();
        self.machine.reset();
        self.grant = None;
        self.timer = None;
        self.show_at = None;
        self.leaving.clear();
    }
}

impl Handler<Ack> for NodeSession {
    type Result = ();

    fn handle(&mut self, ack: Ack, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        if !self.machine.is_live() {
            // The cursor repeats its ack at the next epoch.
            self.tally.stale += 1;
            return;
        }
        if let Some(link) = &mut self.link {
            link.outbox.ack(ack.agent.as_str(), ack.up_to);
            self.flush_soon(ctx);
            self.show_soon(ctx);
        }
    }
}

impl Handler<RequestReplay> for NodeSession {
    type Result = ();

    fn handle(&mut self, asked: RequestReplay, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        debug!(agent = %asked.agent_id, "replay wanted");
        self.replay_askers.retain(|asker| !asker.is_abandoned());
        self.replay_askers.push(asked.reply);
        if let Some(link) = &mut self.link {
            // A cursor drops frames as well (too many beyond a gap), which only its lane tells.
            if self.routes.lane(&asked.agent_id).is_some_and(|lane| lane.lowest_refused().is_some()) {
                link.replay.refused();
            }
            link.replay.missing(Instant::now());
            self.pump(ctx);
        }
    }
}

impl Handler<RegisterAgent> for NodeSession {
    type Result = ();

    fn handle(&mut self, asked: RegisterAgent, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let open = self.link.as_ref().filter(|_| self.machine.is_live());
        let refused = match open {
            None => Some(RegisterRefused::Offline),
            Some(link) if link.pending.has(&asked.name) => Some(RegisterRefused::InProgress),
            Some(_) => None,
        };
        if let Some(refused) = refused {
            asked.reply.send(Err(refused));
            return;
        }
        let id = self.request_id("agent_register");
        let frame = words::register_agent(id.clone(), &asked);
        let name = asked.name.clone();
        self.open_registration(ctx, id, name, frame, Waiter { asked, recovering: false });
    }
}

impl Handler<DeregisterAgent> for NodeSession {
    type Result = ();

    fn handle(&mut self, gone: DeregisterAgent, _ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.routes.forget_absent(&gone.agent_id);
        self.send_or_owe(words::deregister_agent(&gone));
    }
}

impl Handler<SetInventory> for NodeSession {
    type Result = ();

    fn handle(&mut self, set: SetInventory, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let changed = self.inventory != set.agents;
        let count_changed = self.inventory.len() != set.agents.len();
        self.inventory = set.agents;
        self.invoking = set.invoking;
        if !self.machine.is_live() {
            return;
        }
        if changed && let Some(link) = &mut self.link {
            link.replay.changed(Instant::now());
        }
        self.pump(ctx);
        if count_changed {
            self.beat();
        }
    }
}

impl Handler<Route> for NodeSession {
    type Result = ();

    fn handle(&mut self, route: Route, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let epochs = route.epochs.clone();
        let left_some = self.routes.put(route);
        if !self.machine.is_live() {
            return;
        }
        // A cursor that is gone again already will be unrouted.
        epochs.tell(EpochStarted { epoch: self.epoch }).ok();
        if left_some && let Some(link) = &mut self.link {
            link.replay.room(Instant::now());
            self.pump(ctx);
        }
    }
}

impl Handler<Absent> for NodeSession {
    type Result = ();

    fn handle(&mut self, absent: Absent, _ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.routes.absent(absent.agent_id, absent.name);
    }
}

impl Handler<Unroute> for NodeSession {
    type Result = ();

    fn handle(&mut self, gone: Unroute, _ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.routes.remove(&gone.agent_id);
    }
}

impl Handler<InvocationEnded> for NodeSession {
    type Result = ();

    fn handle(&mut self, ended: InvocationEnded, _ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.send_or_owe(words::result(ended));
    }
}

impl Handler<Leave> for NodeSession {
    type Result = ();

    fn handle(&mut self, leave: Leave, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.leave(ctx, leave.0);
    }
}

impl StreamHandler<SocketEvent> for NodeSession {
    fn handle(&mut self, event: SocketEvent, ctx: &mut Self::Context) {
        // A stream may hand over what it had read before it was stopped.
        let Some(link) = &mut self.link else {
            self.tally.stale += 1;
            return;
        };
        link.pulse.heard(Instant::now());
        match event {
            SocketEvent::Text(text) => {
                self.text(ctx, &text);
                self.show_soon(ctx);
            }
            SocketEvent::Ping | SocketEvent::Pong | SocketEvent::Binary => {}
            SocketEvent::Closed(how) => self.closed(ctx, how),
        }
    }

    /// The stream ends after its last event, which has ended the life already.
    fn finished(&mut self, _ctx: &mut Self::Context) {}
}

impl NodeSession {
    fn closed(&mut self, ctx: &mut Context<Self>, how: Closed) {
        if !self.leaving.is_empty() {
            self.end(ctx, ExitReason::Finished);
            return;
        }
        let event = match how {
            Closed::ByPeer { code, reason } => {
                let code = code.map_or("no code".to_owned(), |code| code.to_string());
                let why = format!("the engine closed the socket ({code} {reason})");
                Event::Closed { reason: Some(reason), why }
            }
            Closed::Lost(why) => Event::Closed { reason: None, why },
            Closed::WriteStalled => {
                Event::Closed { reason: None, why: "the engine stopped reading".to_owned() }
            }
        };
        self.step(ctx, event);
    }
}

/// A stream that can be stopped from outside: dropping it drops the socket at once, where the actor's context
/// would keep it until the next life begins.
#[derive(Clone)]
struct Reading(Rc<RefCell<Option<FrameStream>>>);

impl Reading {
    fn new(stream: FrameStream) -> Self {
        Self(Rc::new(RefCell::new(Some(stream))))
    }

    fn stop(&self) {
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
