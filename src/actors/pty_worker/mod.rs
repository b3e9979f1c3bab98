//! One agent's terminal: it starts the program, types messages into it with proof, and tells how it ended.

use std::sync::{Arc, atomic::AtomicUsize};

use actix::{Actor, Context, Handler, Supervised};

use crate::{
    config::Timings,
    ids::AgentName,
    messages::{
        Reply,
        delivery::{CancelInjections, Inject, InjectReport, WorkerGone, WorkerUp},
        observe::Publish,
        pty::{ChildExited, Input, Resize, StateChanged, TakeSnapshot, Terminate, WorkerView},
        spawn::{AgentEnv, SpawnRefused, SpawnSpec, Started},
    },
    supervision::{Detail, Lifeline, Post},
};

/// What a worker is told at its birth. It keeps for all its lives.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The agent.
    pub name: AgentName,
    /// What to run.
    pub spec: SpawnSpec,
    /// What the agent is told about itself.
    pub relay_env: AgentEnv,
    /// Periods; tests shorten them.
    pub timings: Timings,
    /// How many want the live output; at 0 none is sent.
    pub stream_wanted: Arc<AtomicUsize>,
    /// What the worker shows of itself; made by the parent, which hands it out too.
    pub view: Arc<WorkerView>,
}

/// Whom a worker may write to.
#[derive(Clone, Debug)]
pub struct WorkerDoors {
    /// Rungs of proof, to the agent's cursor.
    pub report: Post<InjectReport>,
    /// A life that takes messages, to the cursor.
    pub up: Post<WorkerUp>,
    /// The end, to the cursor.
    pub gone: Post<WorkerGone>,
    /// The end, to the registry.
    pub exited: Post<ChildExited>,
    /// Changes of what the agent does, to the registry.
    pub state: Post<StateChanged>,
    /// The live output, to the event hub.
    pub publish: Post<Publish>,
}

/// The actor. See the module.
pub struct PtyWorker {
    life: Lifeline,
    config: WorkerConfig,
    doors: WorkerDoors,
    starting: Option<Reply<Result<Started, SpawnRefused>>>,
}

impl PtyWorker {
    /// A worker that starts its program in its first life and answers through `starting`, once.
    pub fn new(
        life: Lifeline,
        config: WorkerConfig,
        doors: WorkerDoors,
        starting: Reply<Result<Started, SpawnRefused>>,
    ) -> Self {
        life.detail(Detail::Worker(config.view.clone()));
        Self { life, config, doors, starting: Some(starting) }
    }
}

impl Actor for PtyWorker {
    type Context = Context<Self>;

    fn started(&mut self, _ctx: &mut Context<Self>) {
        self.life.started();
        let _ = (&self.config, &self.doors, &self.starting);
    }

    fn stopped(&mut self, _ctx: &mut Context<Self>) {
        self.life.stopped();
    }
}

impl Supervised for PtyWorker {
    fn restarting(&mut self, _ctx: &mut Context<Self>) {
        self.life.restarting();
    }
}

macro_rules! handlers {
    ($($message:ty),+) => {
        $(impl Handler<$message> for PtyWorker {
            type Result = ();
            fn handle(&mut self, _message: $message, _ctx: &mut Context<Self>) {
                let _turn = self.life.turn();
            }
        })+
    };
}
handlers!(Inject, CancelInjections, Input, Resize, TakeSnapshot, Terminate);
mod frame;
mod plain;
mod sanitise;
mod writer;
