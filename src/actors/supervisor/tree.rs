//! The tree of permanent actors: first every seat is reserved, then all are wired, then they start.
//!
//! Two steps, because the local API must listen before the engine is known: its doors lead to seats that
//! are taken later, and what is said to them meanwhile waits in their mailboxes.

use std::sync::{Arc, atomic::AtomicUsize};

use actix::ArbiterHandle;
use tokio::sync::mpsc;

use super::{Ending, Supervisor};
use crate::{
    actors::{
        agent_registry::{AgentRegistry, RegistryConfig, RegistryDoors},
        event_hub::EventHub,
        node_session::{NodeSession, SessionConfig, SessionDoors},
        token_mint::{MintConfig, TokenMint},
    },
    config::{Timings, ToolServer},
    messages::{
        delivery::{Ack, House, MarkRead, RequestReplay},
        lifecycle::{ActorId, ActorKind, ChildNotice},
        observe::{Output, Publish},
        pty::{ChildExited, SessionKnown, StateChanged},
        readiness::ReadinessBoard,
        release::WorkerLost,
        session::{Absent, Route, SessionDown, Unroute},
    },
    pty::Guard,
    store::{AgentFiles, Journal},
    supervision::{Child, ChildHandle, Directory, Post, Seat},
};

/// What every agent's rooms are built from.
#[derive(Debug)]
pub struct Blueprint {
    /// The durable copy of every cursor.
    pub journal: Journal,
    /// The protocol's periods.
    pub timings: Timings,
    /// Number of readers of the live output; workers stay silent at 0.
    pub stream_wanted: Arc<AtomicUsize>,
    /// What is kept of agents on disk.
    pub files: AgentFiles,
    /// The tools that agents are handed.
    pub tools: ToolServer,
    /// Who ends what is left of agents if the broker is killed.
    pub guard: Guard,
    /// The room for deliveries of the whole house.
    pub room: Arc<House>,
}

/// What the supervisor itself says, and what it hands to the rooms of an agent.
#[derive(Clone, Debug)]
pub struct Posts {
    pub(super) notices: Post<ChildNotice>,
    pub(super) publish: Post<Publish>,
    pub(super) output: Post<Output>,
    pub(super) ack: Post<Ack>,
    pub(super) read: Post<MarkRead>,
    pub(super) replay: Post<RequestReplay>,
    pub(super) route: Post<Route>,
    pub(super) unroute: Post<Unroute>,
    pub(super) absent: Post<Absent>,
    pub(super) exited: Post<ChildExited>,
    pub(super) state: Post<StateChanged>,
    pub(super) session_known: Post<SessionKnown>,
    pub(super) session_down: Post<SessionDown>,
    pub(super) worker_lost: Post<WorkerLost>,
}

/// The permanent actors' addresses.
pub struct Rooms {
    /// The root.
    pub supervisor: Child<Supervisor>,
    /// The event stream.
    pub hub: Child<EventHub>,
    /// The node token.
    pub mint: Child<TokenMint>,
    /// The socket.
    pub session: Child<NodeSession>,
    /// Spawns and releases.
    pub registry: Child<AgentRegistry>,
}

/// Seats that wait for their actors.
pub struct Tree {
    supervisor: Seat<Supervisor>,
    hub: Seat<EventHub>,
    mint: Seat<TokenMint>,
    session: Seat<NodeSession>,
    registry: Seat<AgentRegistry>,
    posts: Posts,
    directory: Directory,
}

/// What is known once the engine and the workspace are.
pub struct Settled {
    /// The mint's part.
    pub mint: MintConfig,
    /// The session's part.
    pub session: SessionConfig,
    /// The registry's part.
    pub registry: RegistryConfig,
}

/// Reserves a seat for every permanent actor.
pub fn reserve(directory: &Directory) -> (Rooms, Tree) {
    let sole = |kind| ActorId::sole(kind);
    let (supervisor, supervisor_seat) = Seat::reserve(sole(ActorKind::Supervisor), directory);
    let (hub, hub_seat) = Seat::reserve(sole(ActorKind::EventHub), directory);
    let (mint, mint_seat) = Seat::reserve(sole(ActorKind::TokenMint), directory);
    let (session, session_seat) = Seat::reserve(sole(ActorKind::NodeSession), directory);
    let (registry, registry_seat) = Seat::reserve(sole(ActorKind::AgentRegistry), directory);
    let rooms = Rooms { supervisor, hub, mint, session, registry };
    let posts = Posts {
        notices: rooms.supervisor.post(),
        publish: rooms.hub.post(),
        output: rooms.hub.post(),
        ack: rooms.session.post(),
        read: rooms.registry.post(),
        replay: rooms.session.post(),
        route: rooms.session.post(),
        unroute: rooms.session.post(),
        absent: rooms.session.post(),
        exited: rooms.registry.post(),
        state: rooms.registry.post(),
        session_known: rooms.registry.post(),
        session_down: rooms.registry.post(),
        worker_lost: rooms.registry.post(),
    };
    let tree = Tree {
        supervisor: supervisor_seat,
        hub: hub_seat,
        mint: mint_seat,
        session: session_seat,
        registry: registry_seat,
        posts,
        directory: directory.clone(),
    };
    (rooms, tree)
}

/// The seats that are left for the moment when the engine is known.
pub struct Waiting {
    mint: Seat<TokenMint>,
    session: Seat<NodeSession>,
    registry: Seat<AgentRegistry>,
    notices: Post<ChildNotice>,
}

impl Tree {
    /// Starts the root and the event stream: from here on the house can be watched and ended.
    pub fn start(
        self,
        rooms: &Rooms,
        blueprint: Arc<Blueprint>,
        boot_id: Arc<str>,
        arbiters: Vec<ArbiterHandle>,
        endings: mpsc::UnboundedSender<Ending>,
    ) -> Waiting {
        let notices = self.posts.notices.clone();
        let permanent: Vec<ChildHandle> = vec![
            rooms.hub.handle().clone(),
            rooms.mint.handle().clone(),
            rooms.session.handle().clone(),
            rooms.registry.handle().clone(),
        ];
        let stream_wanted = blueprint.stream_wanted.clone();
        let (directory, posts) = (self.directory, self.posts);
        self.supervisor.start(None, move |_, life| {
            Supervisor::new(life, directory, blueprint, posts, permanent, arbiters, endings)
        });
        self.hub.start(Some(notices.clone()), move |_, life| EventHub::new(life, stream_wanted, boot_id));
        Waiting { mint: self.mint, session: self.session, registry: self.registry, notices }
    }
}

impl Waiting {
    /// Starts the rest: the node goes to the engine.
    pub fn start(self, rooms: &Rooms, settled: Settled, journal: Journal, readiness: ReadinessBoard) {
        let notices = Some(self.notices);
        let Settled { mint, session, registry } = settled;
        let doors = RegistryDoors {
            register: rooms.session.post(),
            deregister: rooms.session.post(),
            inventory: rooms.session.post(),
            absent: rooms.session.post(),
            invocation_ended: rooms.session.post(),
            offer: rooms.session.post(),
            build: rooms.supervisor.post(),
            close: rooms.supervisor.post(),
            publish: rooms.hub.post(),
        };
        self.registry.start(notices.clone(), move |_, life| {
            AgentRegistry::new(life, registry, doors, journal, readiness)
        });
        self.mint.start(notices.clone(), move |_, life| TokenMint::new(life, mint));
        let doors = SessionDoors {
            get_token: rooms.mint.post(),
            enrol: rooms.mint.post(),
            session_up: rooms.registry.post(),
            invoke: rooms.registry.post(),
            conflict: rooms.registry.post(),
            publish: rooms.hub.post(),
        };
        self.session.start(notices, move |_, life| NodeSession::new(life, session, doors));
    }
}
