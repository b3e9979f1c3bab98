//! The supervisor: the tree, who is wired to whom, and what follows when an actor ends.
//!
//! ```text
//! supervisor ─ event_hub, token_mint, node_session, agent_registry       (core arbiter)
//!            └ per agent: delivery_cursor (core arbiter), pty_worker (one of the pty arbiters)
//! ```
//!
//! It alone knows which actor is behind which `Post`. Restarting is its runners' work (see
//! [`supervision`](crate::supervision)); here the consequences are drawn: the registry hears of a lost
//! session and of a given-up agent, and an escalation or a `Shutdown` goes to the house, which ends it.
//!
//! A restart forgets nothing: the tree stays with the instance.

mod tree;

use std::{collections::HashMap, sync::Arc, time::Instant};

use actix::{Actor, ArbiterHandle, Context, Handler, Supervised};
use tokio::sync::mpsc;
use tracing::{error, warn};

pub use self::tree::{Blueprint, Posts, Rooms as PermanentRooms, Settled, Tree, Waiting, reserve};
use crate::{
    actors::{
        delivery_cursor::{CursorConfig, CursorDoors, DeliveryCursor},
        pty_worker::{PtyWorker, WorkerConfig, WorkerDoors},
    },
    ids::{AgentName, Birth},
    messages::{
        delivery::Lane,
        hold::HoldDoors,
        lifecycle::{ActorId, ActorKind, ChildNotice, ChildStep, Decision, ExitReason, Resume, Shutdown},
        observe::{Event, Publish},
        release::WorkerLost,
        session::{Absent, Route, SessionDown, Unroute},
        spawn::{BuildRooms, CloseRooms, Rooms},
    },
    supervision::{ChildHandle, Directory, Lifeline, Post, Seat},
};

/// Why the house ends.
#[derive(Debug)]
pub enum Ending {
    /// Somebody asked for it.
    Asked(Shutdown),
    /// An actor failed beyond repair.
    Failed {
        /// Which.
        actor: ActorId,
        /// Its last reason.
        reason: ExitReason,
    },
}

/// The supervisor.
pub struct Supervisor {
    life: Lifeline,
    directory: Directory,
    blueprint: Arc<Blueprint>,
    posts: Posts,
    /// The actors that are there from start to end.
    permanent: Vec<ChildHandle>,
    agents: HashMap<AgentName, AgentActors>,
    arbiters: Vec<ArbiterHandle>,
    next_arbiter: usize,
    endings: mpsc::UnboundedSender<Ending>,
}

/// The two actors of one agent.
struct AgentActors {
    cursor: ChildHandle,
    worker: ChildHandle,
}

impl Supervisor {
    /// The supervisor of a tree whose permanent actors are already seated. Workers are spread over
    /// `arbiters`, which live as long as the process.
    pub fn new(
        life: Lifeline,
        directory: Directory,
        blueprint: Arc<Blueprint>,
        posts: Posts,
        permanent: Vec<ChildHandle>,
        arbiters: Vec<ArbiterHandle>,
        endings: mpsc::UnboundedSender<Ending>,
    ) -> Self {
        Self {
            life,
            directory,
            blueprint,
            posts,
            permanent,
            agents: HashMap::new(),
            arbiters,
            next_arbiter: 0,
            endings,
        }
    }

    /// Builds and wires the rooms of one agent. The cursor is there before the child is, so that frames
    /// which follow the registration at once already find their place.
    fn build(&mut self, build: BuildRooms) {
        let BuildRooms { agent_id, birth, spec, relay_env, ack_seq, started, reply } = build;
        let name = spec.name.clone();
        let lane = Lane::new(self.blueprint.room.clone());
        let (cursor, cursor_seat) =
            Seat::<DeliveryCursor>::reserve_for(ActorKind::DeliveryCursor, &name, birth, &self.directory);
        let (worker, worker_seat) =
            Seat::<PtyWorker>::reserve_for(ActorKind::PtyWorker, &name, birth, &self.directory);

        let config = CursorConfig { agent_id: agent_id.clone(), name: name.clone(), ack_seq };
        let doors = CursorDoors {
            inject: worker.post(),
            cancel: worker.post(),
            ack: self.posts.ack.clone(),
            read: self.posts.read.clone(),
            replay: self.posts.replay.clone(),
            publish: self.posts.publish.clone(),
        };
        let (journal, cursor_lane) = (self.blueprint.journal.clone(), lane.clone());
        let notices = Some(self.posts.notices.clone());
        cursor_seat.start(notices.clone(), move |_, life| {
            DeliveryCursor::new(life, config, journal, doors, cursor_lane)
        });

        let view = Arc::default();
        let files = self.blueprint.files.of(&agent_id);
        let config = WorkerConfig {
            name: name.clone(),
            birth,
            spec,
            relay_env,
            timings: self.blueprint.timings.clone(),
            stream_wanted: self.blueprint.stream_wanted.clone(),
            files,
            tools: self.blueprint.tools.clone(),
            guard: self.blueprint.guard.clone(),
            view: Arc::clone(&view),
        };
        let doors = WorkerDoors {
            report: cursor.post(),
            up: cursor.post(),
            gone: cursor.post(),
            flush: cursor.post(),
            exited: self.posts.exited.clone(),
            state: self.posts.state.clone(),
            session: self.posts.session_known.clone(),
            output: self.posts.output.clone(),
        };
        let arbiter = &self.arbiters[self.next_arbiter % self.arbiters.len()];
        self.next_arbiter = self.next_arbiter.wrapping_add(1);
        worker_seat.start_on(arbiter, notices, move |_, life| PtyWorker::new(life, config, doors, started));

        let route =
            Route { agent_id, name: name.clone(), cursor: cursor.post(), epochs: cursor.post(), lane };
        tell(&self.posts.route, route);
        let rooms = Rooms {
            view,
            cursor: cursor.post(),
            redeliver: cursor.post(),
            hold: HoldDoors {
                set: cursor.post(),
                get: cursor.post(),
                pending: cursor.post(),
                flush: cursor.post(),
            },
            input: worker.post(),
            resize: worker.post(),
            snapshot: worker.post(),
            answer: worker.post(),
            terminate: worker.post(),
        };
        let actors = AgentActors { cursor: cursor.handle().clone(), worker: worker.handle().clone() };
        self.agents.insert(name, actors);
        // When the registry restarted meanwhile nobody waits; it closes the rooms by the agent's name.
        reply.send(rooms);
        self.report();
    }

    fn report(&self) {
        self.life.state(format!("{} agents", self.agents.len()));
    }

    /// Draws the consequences of an actor's end.
    fn ended(&self, id: ActorId, agent: Option<(AgentName, Birth)>, reason: ExitReason, decision: Decision) {
        if id.kind == ActorKind::NodeSession {
            let retry_at = match decision {
                Decision::Restart { after } => Some(Instant::now() + after),
                _ => None,
            };
            tell(&self.posts.session_down, SessionDown { why: reason.to_string(), retry_at });
        }
        match decision {
            Decision::Escalate => {
                error!(actor = %id, %reason, "an actor failed beyond repair, closing the house");
                // The house listens until it has ended.
                self.endings.send(Ending::Failed { actor: id, reason }).ok();
            }
            Decision::Quarantine => {
                let Some((name, birth)) = agent else { return };
                let lost = WorkerLost { name, birth, actor: id.kind, why: reason.to_string() };
                tell(&self.posts.worker_lost, lost);
            }
            Decision::Restart { .. } | Decision::Park { .. } | Decision::Stop => {}
        }
    }

    fn publish_life(&self, notice: &ChildNotice) {
        let (step, detail) = match &notice.step {
            ChildStep::Started => ("started", String::new()),
            ChildStep::Healthy => ("healthy", String::new()),
            ChildStep::Ended { reason, decision } => ("ended", format!("{reason}; {decision:?}")),
        };
        tell(
            &self.posts.publish,
            Publish(Event::ActorLife {
                actor: notice.id.clone(),
                generation: notice.generation.0,
                step,
                detail,
            }),
        );
    }
}

/// Tells a permanent actor. It can only be gone while the house is ending.
fn tell<M: actix::Message<Result = ()> + Send + 'static>(post: &Post<M>, message: M) {
    if post.tell(message).is_err() {
        warn!(to = ?post, "not told: the actor has ended");
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.life.started();
        self.report();
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.life.stopped();
    }
}

impl Supervised for Supervisor {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.life.restarting();
    }
}

impl Handler<BuildRooms> for Supervisor {
    type Result = ();

    fn handle(&mut self, build: BuildRooms, _: &mut Self::Context) {
        let _turn = self.life.turn();
        self.build(build);
    }
}

impl Handler<CloseRooms> for Supervisor {
    type Result = ();

    fn handle(&mut self, close: CloseRooms, _: &mut Self::Context) {
        let _turn = self.life.turn();
        if close.returns {
            tell(&self.posts.absent, Absent { agent_id: close.agent_id, name: close.name.clone() });
        } else {
            tell(&self.posts.unroute, Unroute { agent_id: close.agent_id });
        }
        if let Some(actors) = self.agents.remove(&close.name) {
            actors.cursor.stop();
            actors.worker.stop();
        }
        self.report();
    }
}

impl Handler<ChildNotice> for Supervisor {
    type Result = ();

    fn handle(&mut self, notice: ChildNotice, _: &mut Self::Context) {
        let _turn = self.life.turn();
        self.publish_life(&notice);
        if let ChildStep::Ended { reason, decision } = notice.step {
            self.ended(notice.id, notice.agent, reason, decision);
        }
    }
}

impl Handler<Resume> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Resume, _: &mut Self::Context) {
        let _turn = self.life.turn();
        self.permanent.iter().for_each(ChildHandle::resume);
    }
}

impl Handler<Shutdown> for Supervisor {
    type Result = ();

    fn handle(&mut self, shutdown: Shutdown, _: &mut Self::Context) {
        let _turn = self.life.turn();
        // The house listens until it has ended.
        self.endings.send(Ending::Asked(shutdown)).ok();
    }
}
