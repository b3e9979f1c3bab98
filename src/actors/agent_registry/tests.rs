//! The room with ears at its doors: what it says to whom, and in which order.

mod conflict;
mod engine;
mod errands;
mod invoking;
mod letters;
mod names;
mod registering;
mod releasing;
mod sessions;
mod sidecar;
mod spawning;
mod stillness;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::Handler;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

use super::*;
use crate::{
    ids::{AgentToken, Epoch},
    messages::{
        Answer,
        dead_letter::Redeliver,
        delivery::{MarkRead, ObserveCursor},
        hold::{Flush, GetDeliveryMode, HoldDoors, ListPending, SetDeliveryMode},
        invoke::{Action, InvocationResult, Invoke, InvokedSpawn},
        lifecycle::{ActorId, ActorKind},
        process::{EndedBy, ExitRecord},
        pty::{
            AgentState, AnswerDialog, ChildExited, Input, Resize, StateChanged, TakeSnapshot, Terminate,
            WorkerView,
        },
        release::Release,
        session::{Dialect, InventoryItem, SessionDown, SessionUp},
        spawn::{AgentEnv, AgentPhase, AgentView, ListAgents, Spawn},
    },
    supervision::{Child, Directory, FaultPoint, Probe, Seat},
    testing::{PATIENCE, name},
};

/// Stands at every door and passes on what it hears, in its order.
struct Ears(UnboundedSender<Told>);

enum Told {
    Register(RegisterAgent),
    Deregister(DeregisterAgent),
    Inventory(SetInventory),
    Ended(InvocationEnded),
    Offer(SetOffer),
    Build(Box<BuildRooms>),
    Close,
    Terminate,
    Redeliver(Redeliver),
    Event(Event),
    Other,
}

impl Actor for Ears {
    type Context = Context<Self>;
}

macro_rules! hears {
    ($($message:ty => |$said:ident| $told:expr;)+) => {
        $(impl Handler<$message> for Ears {
            type Result = ();

            fn handle(&mut self, $said: $message, _: &mut Self::Context) {
                self.0.send($told).ok();
            }
        })+
    };
}
hears! {
    RegisterAgent => |said| Told::Register(said);
    DeregisterAgent => |said| Told::Deregister(said);
    SetInventory => |said| Told::Inventory(said);
    InvocationEnded => |said| Told::Ended(said);
    SetOffer => |said| Told::Offer(said);
    BuildRooms => |said| Told::Build(Box::new(said));
    CloseRooms => |_said| Told::Close;
    Terminate => |_said| Told::Terminate;
    Absent => |_said| Told::Other;
    Publish => |said| Told::Event(said.0);
    ObserveCursor => |_said| Told::Other;
    AnswerDialog => |_said| Told::Other;
    Input => |_said| Told::Other;
    Resize => |_said| Told::Other;
    TakeSnapshot => |_said| Told::Other;
    SetDeliveryMode => |_said| Told::Other;
    GetDeliveryMode => |_said| Told::Other;
    ListPending => |_said| Told::Other;
    Flush => |_said| Told::Other;
    Redeliver => |said| Told::Redeliver(said);
}

fn post<M>(ears: &actix::Addr<Ears>) -> Post<M>
where
    M: actix::Message<Result = ()> + Send + 'static,
    Ears: Handler<M>,
{
    Post::new(ears.clone().recipient(), Probe::new(ActorId::of(ActorKind::EventHub, "ears")))
}

struct House {
    dir: tempfile::TempDir,
    journal: Journal,
    registry: Child<AgentRegistry>,
    ears: actix::Addr<Ears>,
    told: UnboundedReceiver<Told>,
}

impl House {
    /// A house whose engine is at an address where nobody listens.
    fn new() -> Self {
        Self::at("http://127.0.0.1:9")
    }

    fn at(engine: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().join("journal")).unwrap();
        Self::over(dir, journal, engine)
    }

    /// A house after a restart: a new registry over the same journal.
    fn again(self) -> Self {
        self.registry.handle().stop();
        self.journal.close().unwrap();
        let journal = Journal::open(self.dir.path().join("journal")).unwrap();
        Self::over(self.dir, journal, "http://127.0.0.1:9")
    }

    fn over(dir: tempfile::TempDir, journal: Journal, engine: &str) -> Self {
        let action = |program: &str| DeclaredAction {
            command: CommandLine { program: program.to_owned(), args: Vec::new() },
            timeout: PATIENCE,
        };
        let (tx, told) = unbounded_channel();
        let ears = Ears(tx).start();
        let config = RegistryConfig {
            endpoint: EngineEndpoint::parse(engine, None).unwrap(),
            workspace_key: Some("rk_live_1".into()),
            workspace: Some("ws1".into()),
            instance: "quay".to_owned(),
            agent_type: "human".to_owned(),
            identity_file: dir.path().join("identity.json"),
            cwd: dir.path().to_owned(),
            channels: vec!["general".to_owned()],
            embedded: false,
            handlers: BTreeMap::new(),
            actions: BTreeMap::from([("nod".to_owned(), action("true"))]),
            result_url: "http://broker/api/agent-result".to_owned(),
        };
        let doors = RegistryDoors {
            register: post(&ears),
            deregister: post(&ears),
            inventory: post(&ears),
            absent: post(&ears),
            invocation_ended: post(&ears),
            offer: post(&ears),
            build: post(&ears),
            close: post(&ears),
            publish: post(&ears),
        };
        let id = ActorId::sole(ActorKind::AgentRegistry);
        let (registry, seat) = Seat::reserve(id, &Directory::default());
        let kept = journal.clone();
        seat.start(None, move |_, life| {
            AgentRegistry::new(life, config, doors, kept, ReadinessBoard::default())
        });
        Self { dir, journal, registry, ears, told }
    }

    fn tell<M>(&self, message: M)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        AgentRegistry: Handler<M>,
    {
        self.registry.post().tell(message).unwrap();
    }

    fn up(&self) {
        self.tell(SessionUp {
            epoch: Epoch(1),
            node_id: "node_1".into(),
            node_name: "quay".into(),
            dialect: Dialect::V5,
        });
    }

    fn down(&self) {
        self.tell(SessionDown { why: "eof".to_owned(), retry_at: None });
    }

    /// What a client asks for when it asks for the same as [`House::invoke`].
    fn spec(&self) -> SpawnSpec {
        let spec = SpawnSpec::new(name("ann"), "cat", vec!["-u".to_owned()], self.dir.path());
        SpawnSpec { channels: vec!["general".to_owned()], ..spec }
    }

    fn spawn(&self) -> Answer<Result<Spawned, SpawnRefused>> {
        let spec = self.spec();
        self.registry.post::<Spawn>().ask(|reply| Spawn { spec, origin: Origin::Api, reply })
    }

    fn invoke(&self, invocation: &str, spawn: InvokedSpawn) {
        self.tell(Invoke { invocation: invocation.into(), action: Action::Spawn(spawn) });
    }

    fn release(&self, invocation: &str, agent: &str) {
        let action = Action::Release { name: Some(agent.to_owned()), reason: None };
        self.tell(Invoke { invocation: invocation.into(), action });
    }

    async fn agents(&self) -> Vec<AgentView> {
        self.registry.post().ask(ListAgents).await.unwrap()
    }

    fn read(&self, msg: &str) {
        self.tell(MarkRead { name: name("ann"), delivery_id: "d1".into(), msg_id: msg.into() });
    }

    /// The next thing that is said to anybody, but for events and the inventory.
    async fn next(&mut self) -> Told {
        loop {
            match timeout(PATIENCE, self.told.recv()).await.expect("nothing is said").unwrap() {
                Told::Other | Told::Event(_) | Told::Inventory(_) => {}
                told => return told,
            }
        }
    }

    /// The next inventory that is as wanted.
    async fn listed(&mut self, wanted: &[&str]) -> Vec<InventoryItem> {
        loop {
            let told = timeout(PATIENCE, self.told.recv()).await;
            let told = told.unwrap_or_else(|_| panic!("never listed: {wanted:?}")).unwrap();
            if let Told::Inventory(set) = told
                && set.agents.iter().map(|item| item.name.as_str()).eq(wanted.iter().copied())
            {
                return set.agents;
            }
        }
    }

    /// Waits for an event like this one.
    async fn event(&mut self, is_it: impl Fn(&Event) -> bool) {
        loop {
            let told = timeout(PATIENCE, self.told.recv()).await.expect("no such event").unwrap();
            if matches!(&told, Told::Event(event) if is_it(event)) {
                return;
            }
        }
    }

    /// True when this invocation's result was told; whatever else was told is passed over.
    fn has_ended(&mut self, invocation: &str) -> bool {
        std::iter::from_fn(|| self.told.try_recv().ok())
            .any(|told| matches!(told, Told::Ended(ended) if ended.invocation.as_str() == invocation))
    }

    async fn asked_to_register(&mut self) -> RegisterAgent {
        match self.next().await {
            Told::Register(asked) => asked,
            other => panic!("{} before the registration", what(&other)),
        }
    }

    async fn asked_to_build(&mut self) -> BuildRooms {
        match self.next().await {
            Told::Build(build) => *build,
            other => panic!("{} instead of rooms", what(&other)),
        }
    }

    async fn ended(&mut self) -> InvocationEnded {
        match self.next().await {
            Told::Ended(ended) => ended,
            other => panic!("{} instead of a result", what(&other)),
        }
    }

    /// Brings an agent to life that was asked for, and answers what its rooms were built from.
    async fn bring_up(&mut self) -> (SpawnSpec, AgentEnv) {
        self.asked_to_register().await.reply.send(Ok(registration()));
        let build = self.asked_to_build().await;
        build.reply.send(rooms(&self.ears));
        build.started.send(Ok(started()));
        (build.spec, build.relay_env)
    }
}

fn what(told: &Told) -> &'static str {
    match told {
        Told::Register(_) => "a registration",
        Told::Deregister(_) => "a deregistration",
        Told::Inventory(_) => "an inventory",
        Told::Ended(_) => "a result",
        Told::Offer(_) => "an offer",
        Told::Build(_) => "rooms",
        Told::Close => "the closing of rooms",
        Told::Terminate => "the end of a process",
        Told::Redeliver(_) => "a dead letter",
        Told::Event(_) => "an event",
        Told::Other => "something else",
    }
}

fn asked() -> InvokedSpawn {
    InvokedSpawn { name: Some("ann".into()), cli: Some("cat -u".into()), ..InvokedSpawn::default() }
}

fn registration() -> Registration {
    Registration { agent_id: "7".into(), token: AgentToken::from("at_live_7".to_owned()), ack_seq: None }
}

fn started() -> Started {
    Started { pid: 4242, harness: "plain".into(), spawn: "s".into(), at_tick: 1 }
}

fn rooms(ears: &actix::Addr<Ears>) -> Rooms {
    Rooms {
        view: Arc::new(WorkerView::default()),
        cursor: post(ears),
        redeliver: post(ears),
        hold: HoldDoors { set: post(ears), get: post(ears), pending: post(ears), flush: post(ears) },
        input: post(ears),
        resize: post(ears),
        snapshot: post(ears),
        answer: post(ears),
        terminate: post(ears),
    }
}

fn exit(by: EndedBy) -> ExitRecord {
    ExitRecord::with_code(by, 0)
}
