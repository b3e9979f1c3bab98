//! The socket: this node's presence at the engine.

use actix::{Actor, Context, Handler, Supervised};

use crate::{
    config::Timings,
    messages::{
        delivery::{Ack, RequestReplay},
        invoke::{InvocationEnded, Invoke},
        observe::Publish,
        session::{
            Absent, DeregisterAgent, Leave, RegisterAgent, RegisterRefused, Route, SessionUp, SetInventory,
            Unroute,
        },
        token::{EnrolAgain, GetToken},
    },
    supervision::{Lifeline, Post},
};

/// What the session was told.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The engine's HTTP base; the socket is below it unless `ws_url` says otherwise.
    pub base_url: String,
    /// Replaces the base for the socket.
    pub ws_url: Option<String>,
    /// Harness names; each is advertised as `spawn:<harness>`.
    pub harnesses: Vec<String>,
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
    /// The event hub.
    pub publish: Post<Publish>,
}

/// The actor.
pub struct NodeSession {
    life: Lifeline,
    config: SessionConfig,
    doors: SessionDoors,
}

impl NodeSession {
    /// The session of one node.
    pub fn new(life: Lifeline, config: SessionConfig, doors: SessionDoors) -> Self {
        Self { life, config, doors }
    }
}

impl Actor for NodeSession {
    type Context = Context<Self>;

    fn started(&mut self, _ctx: &mut Self::Context) {
        self.life.started();
        self.life.state(format!("for {} {:?}", self.config.base_url, self.doors.get_token));
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.life.stopped();
    }
}

impl Supervised for NodeSession {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        self.life.restarting();
    }
}

macro_rules! ignored {
    ($($message:ty),+) => {
        $(impl Handler<$message> for NodeSession {
            type Result = ();

            fn handle(&mut self, _message: $message, _ctx: &mut Self::Context) {
                let _turn = self.life.turn();
            }
        })+
    };
}
ignored!(Ack, RequestReplay, DeregisterAgent, SetInventory, Route, Unroute, Absent, InvocationEnded);

impl Handler<RegisterAgent> for NodeSession {
    type Result = ();

    fn handle(&mut self, asked: RegisterAgent, _ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        asked.reply.send(Err(RegisterRefused::Offline));
    }
}

impl Handler<Leave> for NodeSession {
    type Result = ();

    fn handle(&mut self, asked: Leave, _ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        asked.0.send(());
    }
}
