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
//! (deregistrations, results), what the sidecar handles, the dialect, the refused token generation, the epoch, and the counters.

mod clock;
mod incoming;
#[cfg(test)]
mod model;
mod offering;
mod outbox;
mod outgoing;
mod page;
mod pending;
mod phase;
mod pulse;
mod reading;
mod replay;
mod routes;
mod tally;
#[cfg(test)]
mod tests;
mod words;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, StreamHandler, Supervised, WrapFuture,
};
use tracing::{debug, info, warn};
use uuid::Uuid;

use self::{
    offering::Offering,
    outbox::Outbox,
    pending::Pending,
    phase::{Effect, Event, Handshake, Machine},
    pulse::Pulse,
    reading::Reading,
    replay::Replay,
    routes::Routes,
    tally::Tally,
    words::Words,
};
use crate::{
    config::Timings,
    ids::Epoch,
    messages::{
        Reply, Unanswered,
        delivery::{Ack, EpochStarted, RequestReplay},
        invoke::{InvocationEnded, Invoke},
        lifecycle::ExitReason,
        observe::{self, Publish},
        session::{
            Absent, DeregisterAgent, Dialect, InventoryItem, Leave, LocationConflict, RegisterAgent,
            RegisterRefused, Route, SessionUp, SetInventory, Unroute,
        },
        token::{EnrolAgain, GetToken, TokenGrant, TokenRefused},
    },
    supervision::{Lifeline, Post},
    wire::{
        client::{EngineClient, EngineEndpoint},
        frames::BrokerFrame,
        socket::{self, ConnectError, FrameSink, FrameStream, SocketEvent},
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
    offering: Option<Offering>,
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
            offering: None,
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
        if self.words.offered() > 0 {
            self.make_offer(None);
        }
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
        let goodbye = words::deregister_agent(&gone);
        match &mut self.link {
            Some(link) if self.machine.is_live() => {
                link.outbox.part(gone.name.as_str(), goodbye);
                self.flush();
            }
            _ => self.send_or_owe(goodbye),
        }
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
