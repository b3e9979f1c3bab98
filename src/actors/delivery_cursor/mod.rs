//! One agent's mailbox position.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Supervised};

use crate::{
    ids::{AgentId, AgentName, Seq},
    messages::{
        delivery::{
            Ack, CancelInjections, CursorView, Deliver, EpochStarted, Inject, InjectReport, Journalled, Lane,
            ObserveCursor, RequestReplay, WorkerGone, WorkerUp,
        },
        observe::Publish,
    },
    store::Journal,
    supervision::{Lifeline, Post},
};

/// Whose mailbox.
#[derive(Clone, Debug)]
pub struct CursorConfig {
    /// The agent.
    pub agent_id: AgentId,
    /// Its name: acks select by it.
    pub name: AgentName,
    /// Where its mailbox stands, when the engine said so.
    pub ack_seq: Option<Seq>,
}

/// Whom a cursor speaks to.
#[derive(Clone, Debug)]
pub struct CursorDoors {
    /// Into the terminal.
    pub inject: Post<Inject>,
    /// What is queued there and not begun is to be forgotten.
    pub cancel: Post<CancelInjections>,
    /// To the engine.
    pub ack: Post<Ack>,
    /// Frames are missing.
    pub replay: Post<RequestReplay>,
    /// For everybody.
    pub publish: Post<Publish>,
}

/// One agent's mailbox position.
pub struct DeliveryCursor {
    life: Lifeline,
    config: CursorConfig,
    journal: Journal,
    doors: CursorDoors,
    lane: Arc<Lane>,
}

impl DeliveryCursor {
    /// A cursor for a fresh process of this agent. Frames come through `lane`.
    pub fn new(
        life: Lifeline,
        config: CursorConfig,
        journal: Journal,
        doors: CursorDoors,
        lane: Arc<Lane>,
    ) -> Self {
        Self { life, config, journal, doors, lane }
    }
}

impl Actor for DeliveryCursor {
    type Context = Context<Self>;

    fn started(&mut self, _ctx: &mut Context<Self>) {
        self.life.started();
        self.life.state("running");
    }

    fn stopped(&mut self, _ctx: &mut Context<Self>) {
        self.life.stopped();
    }
}

impl Supervised for DeliveryCursor {
    fn restarting(&mut self, _ctx: &mut Context<Self>) {
        self.life.restarting();
    }
}

macro_rules! unfurnished {
    ($($message:ty),+) => {
        $(impl Handler<$message> for DeliveryCursor {
            type Result = ();
            fn handle(&mut self, _message: $message, _ctx: &mut Context<Self>) {
                let _turn = self.life.turn();
            }
        })+
    };
}
unfurnished!(Deliver, EpochStarted, InjectReport, WorkerUp, WorkerGone, Journalled);

impl Handler<ObserveCursor> for DeliveryCursor {
    type Result = ();

    fn handle(&mut self, ask: ObserveCursor, _ctx: &mut Context<Self>) {
        let _turn = self.life.turn();
        ask.0.send(CursorView::default());
    }
}
