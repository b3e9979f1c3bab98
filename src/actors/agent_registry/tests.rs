//! The room with ears at its doors: what it says to whom, and in which order.

mod names;
mod sessions;
mod sidecar;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::Handler;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

use super::*;
use crate::{
    ids::{AgentToken, Epoch},
    messages::{
        Answer,
        dead_letter::{Letters, Redeliver, RedeliverLetters, RedeliverRefused},
        delivery::{MarkRead, ObserveCursor},
        hold::{Flush, GetDeliveryMode, HoldDoors, ListPending, SetDeliveryMode},
        invoke::{Action, InvocationResult, Invoke, InvokedSpawn},
        lifecycle::{ActorId, ActorKind},
        process::{EndedBy, ExitRecord},
        pty::{
            AgentState, AnswerDialog, ChildExited, Input, Resize, StateChanged, TakeSnapshot, Terminate,
            WorkerView,
        },
        release::{Release, WorkerLost},
        session::{Dialect, InventoryItem, LocationConflict, RegisterRefused, SessionDown, SessionUp},
        spawn::{AgentEnv, AgentPhase, AgentView, FindAgent, ListAgents, Spawn},
    },
    store::{DeadLetter, Record},
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

#[actix::test]
async fn a_client_and_the_engine_get_the_same_agent_by_the_same_way() {
    let mut by_client = House::new();
    by_client.up();
    let answer = by_client.spawn();
    let (spec, env) = by_client.bring_up().await;
    assert_eq!(answer.await.unwrap().unwrap().agent_id, "7".into());

    let mut by_engine = House::over(by_client.dir, by_client.journal, "http://127.0.0.1:9");
    by_engine.up();
    by_engine.invoke("inv_1", asked());
    let (engine_spec, engine_env) = by_engine.bring_up().await;
    assert_eq!(by_engine.ended().await.result, InvocationResult::Spawned { name: name("ann") });

    assert_eq!(engine_spec, spec);
    let told = |env: &AgentEnv| (env.token.expose().to_owned(), env.base_url.clone(), env.workspace.clone());
    assert_eq!(told(&engine_env), told(&env));
    assert_eq!(env.token.expose(), "at_live_7", "the token of its own registration");
}

#[actix::test]
async fn the_registration_carries_invocation_and_session_and_comes_before_the_process() {
    let mut house = House::new();
    house.up();
    house.invoke("inv_1", InvokedSpawn { session_ref: Some("s-1".into()), ..asked() });
    let register = house.asked_to_register().await;
    assert_eq!(register.invocation, Some("inv_1".into()));
    assert_eq!(register.session_ref, Some("s-1".into()));
    assert!(matches!(house.told.try_recv(), Err(_) | Ok(Told::Inventory(_))), "nothing starts meanwhile");
    register.reply.send(Ok(registration()));
    assert_eq!(house.asked_to_build().await.spec.session_ref, Some("s-1".into()));

    let mut house = House::new();
    house.up();
    house.spawn();
    let register = house.asked_to_register().await;
    assert_eq!((register.invocation, register.session_ref), (None, None));
}

#[actix::test]
async fn an_agent_is_in_the_inventory_while_it_lives_and_out_of_it_at_its_end() {
    let mut house = House::new();
    house.up();
    house.invoke("inv_1", asked());
    house.bring_up().await;
    assert_eq!(house.listed(&["ann"]).await[0].agent_id, "7".into());
    house.tell(ChildExited { name: name("ann"), birth: Birth(1), exit: exit(EndedBy::Itself) });
    let mut seen = Vec::new();
    loop {
        match timeout(PATIENCE, house.told.recv()).await.unwrap().unwrap() {
            Told::Inventory(set) if set.agents.is_empty() => break,
            Told::Close => seen.push("closed"),
            Told::Deregister(gone) => {
                assert_eq!(gone.agent_id, "7".into());
                seen.push("deregistered");
            }
            _ => {}
        }
    }
    assert_eq!(seen, ["closed", "deregistered"]);
}

#[actix::test]
async fn a_start_that_fails_is_undone_whoever_asked() {
    let refused = || SpawnRefused::BadProgram { program: "cat".into(), why: "gone".into() };
    for by_engine in [false, true] {
        let mut house = House::new();
        house.up();
        let answer = if by_engine {
            house.invoke("inv_1", asked());
            None
        } else {
            Some(house.spawn())
        };
        house.asked_to_register().await.reply.send(Ok(registration()));
        let build = house.asked_to_build().await;
        build.reply.send(rooms(&house.ears));
        build.started.send(Err(refused()));
        assert!(matches!(house.next().await, Told::Close));
        assert!(matches!(house.next().await, Told::Deregister(gone) if gone.agent_id == "7".into()));
        match answer {
            Some(answer) => assert_eq!(answer.await.unwrap().unwrap_err(), refused()),
            None => {
                let InvocationResult::Failed(why) = house.ended().await.result else { panic!("a success") };
                assert!(why.starts_with("spawn_failed: "), "{why}");
            }
        }
        house.listed(&[]).await;
    }
}

#[actix::test]
async fn releasing_an_agent_that_never_was_is_an_error_to_the_engine_and_one_that_has_ended_is_not() {
    let mut house = House::new();
    house.up();
    house.release("inv_0", "ghost");
    let InvocationResult::Failed(why) = house.ended().await.result else { panic!("a success") };
    assert!(why.starts_with("release_failed: "), "{why}");

    house.invoke("inv_1", asked());
    house.bring_up().await;
    house.ended().await;
    house.release("inv_2", "ann");
    assert!(matches!(house.next().await, Told::Terminate), "the process first");
    house.tell(ChildExited { name: name("ann"), birth: Birth(1), exit: exit(EndedBy::Release) });
    assert!(matches!(house.next().await, Told::Close));
    assert!(matches!(house.next().await, Told::Deregister(_)));
    let released = InvocationResult::Released { name: name("ann") };
    assert_eq!(house.ended().await.result, released);

    house.release("inv_3", "ann");
    assert_eq!(house.ended().await.result, released, "the same end, and nothing is done twice");
    let answer = house.registry.post::<Release>().ask(|reply| Release {
        name: name("ann"),
        reason: None,
        force: false,
        reply,
    });
    assert!(matches!(answer.await.unwrap(), Released::AlreadyGone));
}

#[actix::test]
async fn an_invocation_that_comes_again_is_answered_and_not_run_even_after_a_restart() {
    let mut house = House::new();
    house.up();
    house.invoke("inv_1", asked());
    house.invoke("inv_1", asked());
    house.bring_up().await;
    let result = house.ended().await;
    house.invoke("inv_1", asked());
    assert_eq!(house.ended().await, result);

    let mut house = house.again();
    house.up();
    house.invoke("inv_1", asked());
    assert_eq!(house.ended().await, result, "from the journal");
}

// Over HTTP, when the socket is down.

/// An engine's HTTP side that answers agents and bindings, and remembers what it was asked.
async fn engine(binding: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    let server = HttpServer::new(move || {
        let log = log.clone();
        App::new().default_service(web::to(move |request: HttpRequest, body: web::Bytes| {
            let line = format!("{} {}", request.method(), request.path());
            log.lock().unwrap().push(line.clone());
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            async move {
                let ok = |data: Value| HttpResponse::Ok().json(json!({"ok": true, "data": data}));
                match line.as_str() {
                    "POST /v1/agents" => ok(json!({
                        "id": "7", "name": body["name"], "token": "at_live_7", "status": "online",
                        "created_at": "2026-01-01T00:00:00.000Z"
                    })),
                    "POST /v1/messages/m1/read" => ok(json!({"message_id": "m1", "agent_id": "7"})),
                    "GET /v1/nodes/quay/agents" => ok(json!([])),
                    "POST /v1/nodes/quay/agents" if binding == 200 => ok(json!({
                        "agent_id": "7", "agent_name": "ann", "node_id": "node_1", "node_name": "quay",
                        "status": "active", "name": "ann"
                    })),
                    _ => {
                        let status = actix_web::http::StatusCode::from_u16(binding.max(400)).unwrap();
                        let error = json!({"code": "node_not_found", "message": "words"});
                        HttpResponse::build(status).json(json!({"ok": false, "error": error}))
                    }
                }
            }
        }))
    });
    let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    actix_rt::spawn(server.run());
    (url, seen)
}

/// A house whose session was live and is down.
async fn cut_off(binding: u16) -> (House, Arc<Mutex<Vec<String>>>) {
    let (url, seen) = engine(binding).await;
    let house = House::at(&url);
    house.up();
    house.down();
    (house, seen)
}

#[actix::test]
async fn without_a_session_an_agent_is_registered_over_http_and_bound_to_this_node() {
    let (mut house, seen) = cut_off(200).await;
    let answer = house.spawn();
    let build = house.asked_to_build().await;
    assert_eq!(build.relay_env.token.expose(), "at_live_7");
    build.reply.send(rooms(&house.ears));
    build.started.send(Ok(started()));
    assert_eq!(answer.await.unwrap().unwrap().warning, None);
    let asked = seen.lock().unwrap()[..2].to_vec();
    assert_eq!(asked, ["POST /v1/agents", "POST /v1/nodes/quay/agents"]);
}

#[actix::test]
async fn an_agent_that_could_not_be_bound_is_a_warning_to_a_client_and_a_failure_to_the_engine() {
    let (mut house, _) = cut_off(404).await;
    let answer = house.spawn();
    let build = house.asked_to_build().await;
    build.reply.send(rooms(&house.ears));
    build.started.send(Ok(started()));
    let warning = answer.await.unwrap().unwrap().warning.unwrap();
    assert!(warning.contains("not bound"), "{warning}");

    let (mut house, _) = cut_off(404).await;
    house.invoke("inv_1", asked());
    assert!(matches!(house.next().await, Told::Deregister(gone) if gone.agent_id == "7".into()));
    let InvocationResult::Failed(why) = house.ended().await.result else { panic!("a success") };
    assert!(why.contains("not bound"), "{why}");
    house.listed(&[]).await;
}

#[actix::test]
async fn a_session_that_is_up_is_the_only_way_to_register() {
    let (url, seen) = engine(200).await;
    let mut house = House::at(&url);
    house.up();
    let answer = house.spawn();
    let register = house.asked_to_register().await;
    let refused = RegisterRefused::Engine { code: "node_capacity_exceeded".into(), message: "full".into() };
    register.reply.send(Err(refused.clone()));
    assert_eq!(answer.await.unwrap().unwrap_err(), SpawnRefused::NotRegistered(refused));
    assert_eq!(*seen.lock().unwrap(), Vec::<String>::new(), "a refusal is no reason to go over HTTP");
}

fn letter(delivery: &str, of: &str) -> DeadLetter {
    let note = crate::messages::delivery::Note {
        from: "bob".into(),
        target: of.into(),
        thread: None,
        msg_id: "m1".into(),
        body: "hello".into(),
        sent_at: None,
        system: false,
    };
    DeadLetter {
        agent: "3".into(),
        name: name(of),
        delivery: delivery.into(),
        seq: crate::ids::Seq(1),
        note,
        reason: "no".into(),
        attempts: 1,
        landed: false,
        at_ms: 1,
    }
}

#[actix::test]
async fn dead_letters_go_to_the_agent_that_has_the_name_now() {
    let mut house = House::new();
    house.up();
    let spawned = house.spawn();
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    for (delivery, of) in [("d1", "ann"), ("d2", "ben")] {
        house.journal.append(Record::KeptLetter(Box::new(letter(delivery, of))));
    }
    let ask =
        |which| house.registry.post::<RedeliverLetters>().ask(|reply| RedeliverLetters { which, reply });
    let (all, none) = (ask(Letters::All), ask(Letters::Of("d9".into())));
    match house.next().await {
        Told::Redeliver(Redeliver { letter, reply }) => {
            assert_eq!(letter.delivery, "d1".into());
            reply.send(Ok(()));
        }
        other => panic!("{} instead of a dead letter", what(&other)),
    }
    let outcomes: Vec<_> =
        all.await.unwrap().into_iter().map(|tried| (tried.delivery, tried.outcome)).collect();
    assert_eq!(outcomes, [("d1".into(), Ok(())), ("d2".into(), Err(RedeliverRefused::NotLive))]);
    assert_eq!(none.await.unwrap(), []);
}

#[actix::test]
async fn an_agent_that_another_node_has_claimed_is_ended_here_and_not_there() {
    let (url, seen) = engine(200).await;
    let mut house = House::at(&url);
    house.up();
    let spawned = house.spawn();
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    house.listed(&["ann"]).await;

    house.tell(LocationConflict);
    house.listed(&[]).await;
    assert!(matches!(house.next().await, Told::Terminate));
    house.tell(ChildExited { name: name("ann"), birth: Birth(1), exit: exit(EndedBy::Release) });
    assert!(matches!(house.next().await, Told::Close), "and no deregistration before it");
    assert!(seen.lock().unwrap().contains(&"GET /v1/nodes/quay/agents".to_owned()));

    // The name is free here, and nothing claims that the id was ever ours.
    let _again = house.spawn();
    assert_eq!(house.asked_to_register().await.known_id, None, "no deregistration after it either");
}

#[actix::test]
async fn the_id_of_an_agent_that_ended_is_known_after_a_restart() {
    let mut house = House::new();
    house.up();
    let spawned = house.spawn();
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    house.tell(ChildExited { name: name("ann"), birth: Birth(1), exit: exit(EndedBy::Itself) });
    house.listed(&[]).await;

    let mut house = house.again();
    house.up();
    let _spawned = house.spawn();
    assert_eq!(house.asked_to_register().await.known_id, Some("7".into()));
}

impl House {
    /// What became of the next read receipt.
    async fn receipt(&mut self) -> (&'static str, Option<String>) {
        loop {
            let told = timeout(PATIENCE, self.told.recv()).await.expect("no receipt").unwrap();
            if let Told::Event(Event::DeliveryReadAck { status, reason, .. }) = told {
                return (status, reason);
            }
        }
    }

    fn read(&self, msg: &str) {
        self.tell(MarkRead { name: name("ann"), delivery_id: "d1".into(), msg_id: msg.into() });
    }
}

#[actix::test]
async fn a_read_message_is_marked_with_the_agents_own_token_where_the_ack_does_not_say_it() {
    let (url, seen) = engine(200).await;
    let mut house = House::at(&url);
    house.up();
    let spawned = house.spawn();
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    house.read("m1");
    assert_eq!(house.receipt().await, ("suppressed_duplicate", None), "the ack says it");

    house.tell(SessionUp {
        epoch: Epoch(2),
        node_id: "node_1".into(),
        node_name: "quay".into(),
        dialect: Dialect::V6,
    });
    house.read("m1");
    assert_eq!(house.receipt().await, ("marked", None));
    house.read("m2");
    let (status, reason) = house.receipt().await;
    assert!(status == "failed" && reason.is_some(), "{status}");
    let asked = seen.lock().unwrap().clone();
    let reads = asked.iter().filter(|line| line.ends_with("/read")).count();
    assert_eq!(reads, 2, "never on the old engine, once each on the new one");
    assert!(!asked.iter().any(|line| line == "POST /v1/agents"), "nothing is registered again: {asked:?}");
}

impl House {
    /// Waits for an event like this one.
    async fn event(&mut self, is_it: impl Fn(&Event) -> bool) {
        loop {
            let told = timeout(PATIENCE, self.told.recv()).await.expect("no such event").unwrap();
            if matches!(&told, Told::Event(event) if is_it(event)) {
                return;
            }
        }
    }
}

#[actix::test]
async fn an_agent_that_stays_idle_is_told_about_each_time() {
    let mut house = House::new();
    house.up();
    let spec = SpawnSpec { idle_after: Some(Duration::from_millis(1)), ..house.spec() };
    let spawned = house.registry.post::<Spawn>().ask(|reply| Spawn { spec, origin: Origin::Api, reply });
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    let change = |from, to| StateChanged {
        name: name("ann"),
        birth: Birth(1),
        from,
        to,
        because: String::new(),
        dialog: None,
    };
    for _ in 0..2 {
        house.tell(change(AgentState::Working, AgentState::Idle));
        house.event(|event| matches!(event, Event::AgentIdle { name, .. } if name.as_str() == "ann")).await;
        house.tell(change(AgentState::Idle, AgentState::Working));
    }
}

// What the journal has to have first.

impl House {
    async fn agents(&self) -> Vec<AgentView> {
        self.registry.post().ask(ListAgents).await.unwrap()
    }

    /// Waits until its agent has a process.
    async fn until_survived(&self) {
        let look = async {
            while self.agents().await[0].pid.is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, look).await.expect("no process");
    }

    /// True when the world was told of an agent; whatever else was told is passed over.
    fn is_spawn_told(&mut self) -> bool {
        std::iter::from_fn(|| self.told.try_recv().ok())
            .any(|told| matches!(told, Told::Event(Event::AgentSpawned { .. })))
    }

    /// True when this invocation's result was told; whatever else was told is passed over.
    fn has_ended(&mut self, invocation: &str) -> bool {
        std::iter::from_fn(|| self.told.try_recv().ok())
            .any(|told| matches!(told, Told::Ended(ended) if ended.invocation.as_str() == invocation))
    }
}

#[actix::test]
async fn nobody_hears_of_an_agent_before_it_is_written_down_also_over_a_restart_of_the_registry() {
    for by_engine in [false, true] {
        let mut house = House::new();
        house.up();
        house.journal.stall(true);
        let mut answer = None;
        if by_engine {
            house.invoke("inv_1", asked());
        } else {
            answer = Some(house.spawn());
        }
        house.bring_up().await;
        house.until_survived().await;
        assert_eq!(house.agents().await[0].phase, AgentPhase::Starting, "it could be lost");
        assert!(!house.is_spawn_told(), "it could be lost");
        assert!(answer.as_mut().is_none_or(|answer| answer.now_or_never().is_none()), "it could be lost");
        assert!(!house.has_ended("inv_1"), "it could be lost");

        house.registry.probe().arm(FaultPoint::Handler);
        house.read("m1");
        assert_eq!(house.agents().await.len(), 1, "the registry has restarted");
        assert!(answer.as_mut().is_none_or(|answer| answer.now_or_never().is_none()), "it could be lost");
        assert!(!house.has_ended("inv_1"), "it could be lost");

        house.journal.stall(false);
        match answer {
            Some(answer) => assert_eq!(answer.await.unwrap().unwrap().agent_id, "7".into()),
            None => {
                assert_eq!(house.ended().await.result, InvocationResult::Spawned { name: name("ann") });
            }
        }
    }
}

#[actix::test]
async fn the_command_of_an_action_waits_for_the_record_that_it_was_begun() {
    let mut house = House::new();
    house.up();
    house.journal.stall(true);
    let action = Action::Other { name: "nod".to_owned(), input: "{}".to_owned() };
    house.tell(Invoke { invocation: "inv_1".into(), action });
    let early = timeout(Duration::from_millis(500), house.ended()).await;
    assert!(early.is_err(), "it ran, and would run again after a kill of the broker");
    house.journal.stall(false);
    assert_eq!(house.ended().await.result, InvocationResult::Output("{}".to_owned()));
}

// Ends that come late, or never.

#[actix::test]
async fn a_release_that_nothing_comes_of_is_said_to_be_overdue_and_the_late_end_hits_no_later_agent() {
    let mut house = House::new();
    house.up();
    let spawned = house.spawn();
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    let released = house.registry.post::<Release>().ask(|reply| Release {
        name: name("ann"),
        reason: None,
        force: false,
        reply,
    });
    house.release("inv_1", "ann");
    assert!(matches!(house.next().await, Told::Terminate));
    // The clock moves on when nothing else does.
    tokio::time::pause();
    assert!(matches!(released.await.unwrap(), Released::Overdue));
    tokio::time::resume();
    assert!(matches!(house.next().await, Told::Close));
    assert!(matches!(house.next().await, Told::Deregister(_)));
    let InvocationResult::Failed(why) = house.ended().await.result else { panic!("a success") };
    assert!(why.starts_with("release_failed: it did not end in time"), "{why}");

    let spawned = house.spawn();
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    house.tell(ChildExited { name: name("ann"), birth: Birth(1), exit: exit(EndedBy::Release) });
    let agents = house.agents().await;
    assert_eq!(agents.iter().map(|agent| agent.phase).collect::<Vec<_>>(), [AgentPhase::Live]);
    house.tell(ChildExited { name: name("ann"), birth: Birth(2), exit: exit(EndedBy::Itself) });
    assert!(house.agents().await.is_empty());
}
