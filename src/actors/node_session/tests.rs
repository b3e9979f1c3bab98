//! The session against an engine on loopback that says what each test makes it say, and ears in place of the other
//! rooms.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::StatusCode, web};
use actix_ws::{CloseReason, Message};
use futures_util::{StreamExt, future::Either};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{sleep, timeout},
};

use super::*;
use crate::{
    ids::{AgentId, AgentName, Generation, NodeToken, Seq},
    messages::{
        Answer,
        delivery::{Content, Deliver, LANE_FRAMES_MAX, Lane},
        invoke::{Action, InvocationResult},
        lifecycle::{ActorId, ActorKind},
        session::Registration,
    },
    supervision::{Child, Detail, Directory, Probe, Seat},
};

/// Nothing here takes longer, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(20);

// The engine.

/// What the next handshake meets.
enum Door {
    Refuse(u16),
}

/// What the broker said.
#[derive(Debug, PartialEq)]
enum Said {
    Frame(Value),
    Ping,
    Closed(Option<(u16, String)>),
}

/// What the engine does.
enum Do {
    Say(Value),
    Close(&'static str),
    /// Stops reading and answering, and keeps the connection.
    FallSilent,
}

struct Engine {
    endpoint: EngineEndpoint,
    doors: Arc<Mutex<VecDeque<Door>>>,
    sockets: UnboundedReceiver<Socket>,
    /// What `/health` says.
    version: Arc<Mutex<&'static str>>,
}

struct Socket {
    token: String,
    from: UnboundedReceiver<Said>,
    to: UnboundedSender<Do>,
}

impl Engine {
    async fn start() -> Self {
        let doors: Arc<Mutex<VecDeque<Door>>> = Arc::default();
        let (opened, sockets) = unbounded_channel();
        let waiting = doors.clone();
        let version = Arc::new(Mutex::new("5.0.7"));
        let said = version.clone();
        let server = HttpServer::new(move || {
            let (doors, opened, said) = (waiting.clone(), opened.clone(), said.clone());
            let health = move || {
                let version = *said.lock().unwrap();
                async move { HttpResponse::Ok().json(json!({"ok": true, "version": version})) }
            };
            App::new().route("/health", web::get().to(health)).route(
                "/v1/node/ws",
                web::get().to(move |request: HttpRequest, body: web::Payload| {
                    let door = doors.lock().unwrap().pop_front();
                    let opened = opened.clone();
                    async move {
                        if let Some(Door::Refuse(status)) = door {
                            let status = StatusCode::from_u16(status).unwrap();
                            return Ok(HttpResponse::build(status).finish());
                        }
                        let token = request.headers().get("authorization").unwrap();
                        let token = token.to_str().unwrap().to_owned();
                        let (response, session, stream) = actix_ws::handle(&request, body)?;
                        let (heard, from) = unbounded_channel();
                        let (to, orders) = unbounded_channel();
                        actix_rt::spawn(serve(session, stream, heard, orders));
                        opened.send(Socket { token, from, to }).unwrap();
                        Ok::<_, actix_web::Error>(response)
                    }
                }),
            )
        });
        let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        actix_rt::spawn(server.run());
        Self { endpoint: EngineEndpoint::parse(&url, None).unwrap(), doors, sockets, version }
    }

    fn refuse(&self, status: u16) {
        self.doors.lock().unwrap().push_back(Door::Refuse(status));
    }

    async fn socket(&mut self) -> Socket {
        timeout(PATIENCE, self.sockets.recv()).await.expect("no socket").unwrap()
    }

    /// A socket on which the session has become live, in the baseline dialect.
    async fn live(&mut self) -> Socket {
        let mut socket = self.socket().await;
        let register = socket.frame("node.register").await;
        if register["provider"].is_null() {
            socket.reply(&register, &json!({"id": "node_1", "name": "quay"}));
        } else {
            socket.error("invented", "invalid_message");
            let register = socket.frame("node.register").await;
            socket.reply(&register, &json!({"id": "node_1", "name": "quay"}));
        }
        let sync = socket.frame("inventory.sync").await;
        socket.reply(&sync, &json!({"rebound_agents": 0}));
        socket.frame("node.heartbeat").await;
        socket
    }
}

async fn serve(
    mut session: actix_ws::Session,
    mut stream: actix_ws::MessageStream,
    heard: UnboundedSender<Said>,
    mut orders: UnboundedReceiver<Do>,
) {
    loop {
        let next = futures_util::future::select(Box::pin(orders.recv()), stream.next()).await;
        match next {
            Either::Left((Some(Do::Say(frame)), _)) => {
                if session.text(frame.to_string()).await.is_err() {
                    return;
                }
            }
            Either::Left((Some(Do::Close(reason)), _)) => {
                let reason = CloseReason { code: 1000.into(), description: Some(reason.to_owned()) };
                session.close(Some(reason)).await.ok();
                return;
            }
            Either::Left((Some(Do::FallSilent), _)) => sleep(PATIENCE * 2).await,
            Either::Left((None, _)) => return,
            Either::Right((Some(Ok(message)), _)) => {
                let said = match message {
                    Message::Text(text) => Said::Frame(serde_json::from_str(&text).unwrap()),
                    Message::Ping(bytes) => {
                        session.pong(&bytes).await.ok();
                        Said::Ping
                    }
                    Message::Close(reason) => Said::Closed(
                        reason.map(|reason| (reason.code.into(), reason.description.unwrap_or_default())),
                    ),
                    _ => continue,
                };
                heard.send(said).ok();
            }
            Either::Right((_, _)) => {
                heard.send(Said::Closed(None)).ok();
                return;
            }
        }
    }
}

impl Socket {
    fn say(&self, frame: Value) {
        self.to.send(Do::Say(frame)).unwrap();
    }

    fn reply(&self, to: &Value, data: &Value) {
        self.say(json!({"v": 1, "type": "reply", "id": to["id"], "ok": true, "data": data}));
    }

    fn error(&self, id: &str, code: &str) {
        let (kind, message) = ("error", "words");
        self.say(json!({"v": 1, "type": kind, "id": id, "ok": false, "code": code, "message": message}));
    }

    fn deliver(&self, agent_id: &str, agent: &str, seq: u64) {
        self.say(json!({
            "v": 1, "type": "deliver", "delivery_id": format!("del_{seq}_{agent_id}"), "agent_id": agent_id,
            "agent": agent, "msg_id": format!("m{seq}"), "seq": seq, "mode": "wait",
            "payload": {"type": "message.created", "data": {"text": "hello", "agent_name": "eve"}}
        }));
    }

    async fn said(&mut self) -> Said {
        timeout(PATIENCE, self.from.recv()).await.expect("the broker says nothing").unwrap()
    }

    /// The next frame, heartbeats left out; it must be of this type.
    async fn frame(&mut self, kind: &str) -> Value {
        loop {
            match self.said().await {
                Said::Ping => {}
                Said::Frame(frame) if frame["type"] == json!(kind) => return frame,
                Said::Frame(frame) if frame["type"] == json!("node.heartbeat") => {}
                other => panic!("{other:?} instead of {kind}"),
            }
        }
    }

    /// Everything that was said so far, heartbeats left out.
    fn so_far(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Ok(said) = self.from.try_recv() {
            if let Said::Frame(frame) = said
                && frame["type"] != json!("node.heartbeat")
            {
                frames.push(frame);
            }
        }
        frames
    }

    async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            if let Said::Closed(how) = self.said().await {
                return how;
            }
        }
    }
}

// The other rooms.

/// Hears what the session tells, and answers as the mint would.
struct Ears {
    told: UnboundedSender<Told>,
    tokens: u64,
}

enum Told {
    Token(Option<Generation>),
    Enrol(String),
    Up(SessionUp),
    Invoked(Invoke),
    Conflict,
    Delivered(Deliver),
    Epoch(Epoch),
}

impl Actor for Ears {
    type Context = Context<Self>;
}

impl Ears {
    fn grant(&mut self) -> TokenGrant {
        let generation = Generation(self.tokens);
        self.tokens += 1;
        TokenGrant {
            token: NodeToken::from(format!("nt_live_{generation}")),
            generation,
            node_id: "node_1".into(),
            node_name: "quay".into(),
        }
    }
}

macro_rules! hears {
    ($($message:ty, $self:ident, $told:ident => $heard:expr;)+) => {
        $(impl Handler<$message> for Ears {
            type Result = ();

            fn handle(&mut $self, $told: $message, _: &mut Self::Context) {
                let heard = $heard;
                $self.told.send(heard).ok();
            }
        })+
    };
}
hears! {
    GetToken, self, asked => { asked.reply.send(Ok(self.grant())); Told::Token(asked.rejected) };
    EnrolAgain, self, asked => { asked.reply.send(Ok(self.grant())); Told::Enrol(asked.code) };
    SessionUp, self, up => Told::Up(up);
    Invoke, self, invoke => Told::Invoked(invoke);
    LocationConflict, self, _conflict => Told::Conflict;
    Deliver, self, deliver => Told::Delivered(deliver);
    EpochStarted, self, started => Told::Epoch(started.epoch);
}

impl Handler<Publish> for Ears {
    type Result = ();

    fn handle(&mut self, _: Publish, _: &mut Self::Context) {}
}

struct House {
    engine: Engine,
    session: Child<NodeSession>,
    ears: actix::Addr<Ears>,
    told: UnboundedReceiver<Told>,
}

fn quick() -> Timings {
    Timings {
        heartbeat: Duration::from_millis(100),
        silence: Duration::from_secs(30),
        sync: Duration::from_secs(30),
        register: Duration::from_secs(10),
        agent_register: Duration::from_secs(10),
        healthy: Duration::from_millis(100),
        ..Timings::default()
    }
}

fn post<M>(ears: &actix::Addr<Ears>) -> Post<M>
where
    M: actix::Message<Result = ()> + Send + 'static,
    Ears: Handler<M>,
{
    Post::new(ears.clone().recipient(), Probe::new(ActorId::of(ActorKind::EventHub, "ears")))
}

impl House {
    async fn start(timings: Timings) -> Self {
        Self::at(Engine::start().await, timings)
    }

    fn at(engine: Engine, timings: Timings) -> Self {
        let (tx, told) = unbounded_channel();
        let ears = Ears { told: tx, tokens: 0 }.start();
        let (session, seat) = Seat::reserve(ActorId::sole(ActorKind::NodeSession), &Directory::default());
        let config = SessionConfig {
            endpoint: engine.endpoint.clone(),
            harnesses: vec!["plain".to_owned()],
            actions: vec![],
            max_agents: 4,
            tags: vec![],
            timings,
        };
        let doors = SessionDoors {
            get_token: post(&ears),
            enrol: post(&ears),
            session_up: post(&ears),
            invoke: post(&ears),
            conflict: post(&ears),
            publish: post(&ears),
        };
        seat.start(None, move |_, life| NodeSession::new(life, config, doors));
        Self { engine, session, ears, told }
    }

    fn tell<M>(&self, message: M)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        NodeSession: Handler<M>,
    {
        self.session.post().tell(message).unwrap();
    }

    fn route(&self, id: &str, agent: &str) -> Arc<Lane> {
        let lane = Lane::new(Arc::default());
        self.tell(Route {
            agent_id: id.into(),
            name: name(agent),
            cursor: post(&self.ears),
            epochs: post(&self.ears),
            lane: lane.clone(),
        });
        lane
    }

    fn register(
        &self,
        agent: &str,
        known_id: Option<AgentId>,
    ) -> Answer<Result<Registration, RegisterRefused>> {
        let name = name(agent);
        self.session.post::<RegisterAgent>().ask(|reply| RegisterAgent {
            name,
            invocation: None,
            session_ref: None,
            known_id,
            reply,
        })
    }

    async fn told(&mut self) -> Told {
        timeout(PATIENCE, self.told.recv()).await.expect("nothing is told").unwrap()
    }

    async fn up(&mut self) -> SessionUp {
        loop {
            if let Told::Up(up) = self.told().await {
                return up;
            }
        }
    }

    async fn delivered(&mut self) -> Deliver {
        loop {
            if let Told::Delivered(deliver) = self.told().await {
                return deliver;
            }
        }
    }

    async fn epoch(&mut self) -> Epoch {
        loop {
            if let Told::Epoch(epoch) = self.told().await {
                return epoch;
            }
        }
    }

    /// Waits until the debug page shows this, and answers the value.
    async fn shows(&self, fact: &str, want: impl Fn(&str) -> bool) -> String {
        let found = timeout(PATIENCE, async {
            loop {
                if let Detail::Facts(facts) = self.session.probe().view().detail
                    && let Some((_, value)) = facts.iter().find(|(name, _)| *name == fact)
                    && want(value)
                {
                    return value.clone();
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("{fact} is never so: {:?}", self.session.probe().view()))
    }

    /// Waits for the next end of a life and answers its reason.
    async fn ended(&self, before: usize) -> String {
        let found = timeout(PATIENCE, async {
            loop {
                if let Some(end) = self.session.probe().view().restarts.get(before) {
                    return end.reason.clone();
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        found.await.expect("the life does not end")
    }
}

fn name(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

fn registered(id: &str, agent: &str) -> Value {
    json!({"agent_id": id, "token": "at_live_1", "name": agent})
}

// The way to a live session.

#[actix::test]
async fn the_register_is_the_first_frame_then_the_inventory_then_a_heartbeat() {
    let mut house = House::start(quick()).await;
    house.route("7", "ann");
    house.tell(SetInventory {
        agents: vec![InventoryItem {
            agent_id: "7".into(),
            name: name("ann"),
            invocation: None,
            session_ref: None,
        }],
        invoking: false,
    });
    let mut socket = house.engine.socket().await;
    assert_eq!(socket.token, "Bearer nt_live_0");
    let Said::Frame(register) = socket.said().await else { panic!("not a frame") };
    assert_eq!(register["type"], json!("node.register"));
    assert_eq!((&register["name"], &register["node_id"]), (&json!("quay"), &json!("node_1")));
    assert_eq!(register["provider"]["name"], json!("broker"));
    socket.reply(&register, &json!({"id": "node_1", "name": "quay"}));

    let Said::Frame(sync) = socket.said().await else { panic!("not a frame") };
    assert_eq!(sync["type"], json!("inventory.sync"));
    assert_eq!(sync["agents"], json!([{"agent_id": "7", "name": "ann"}]));
    let Said::Frame(beat) = socket.said().await else { panic!("not a frame") };
    assert_eq!((&beat["type"], &beat["active_agents"]), (&json!("node.heartbeat"), &json!(1)));
    assert_eq!(beat["provider"], register["provider"]);

    let up = house.up().await;
    assert_eq!((up.epoch, up.dialect, up.node_name.as_str()), (Epoch(1), Dialect::V6, "quay"));
    assert_eq!(house.epoch().await, Epoch(1));
    house.shows("dialect", |dialect| dialect == "6+").await;
    assert_eq!(house.session.probe().view().state, "live");
}

#[actix::test]
async fn a_401_asks_for_another_token_than_the_refused_one_and_bumps_the_epoch() {
    let engine = Engine::start().await;
    engine.refuse(401);
    let mut house = House::at(engine, quick());
    let refused = house.ended(0).await;
    assert!(refused.contains("refused the node token (generation 0)"), "{refused}");
    house.session.handle().resume();
    let socket = house.engine.live().await;
    assert_eq!(socket.token, "Bearer nt_live_1");
    let Told::Token(None) = house.told().await else { panic!("asked for a token first") };
    let Told::Token(Some(Generation(0))) = house.told().await else { panic!("says which was refused") };
    assert_eq!(house.up().await.epoch, Epoch(1));

    socket.to.send(Do::Close("force-disconnect")).unwrap();
    house.ended(1).await;
    house.session.handle().resume();
    house.engine.live().await;
    assert_eq!(house.up().await.epoch, Epoch(2));
}

#[actix::test]
async fn five_401s_in_a_row_park_the_session_and_no_more_tokens_are_asked_for() {
    let engine = Engine::start().await;
    for _ in 0..5 {
        engine.refuse(401);
    }
    let mut house = House::at(engine, quick());
    for life in 0..4 {
        assert!(house.ended(life).await.contains("refused"));
        house.session.handle().resume();
    }
    house.ended(4).await;
    let parked = &house.session.probe().view().restarts[4].decision;
    assert!(parked.starts_with("park"), "{parked}");
    let mut asked = 0;
    while let Ok(told) = house.told.try_recv() {
        asked += u64::from(matches!(told, Told::Token(_)));
    }
    assert_eq!(asked, 5, "one token for each try");
    // It heals by itself once it is woken, and the count begins anew.
    house.session.handle().resume();
    let socket = house.engine.live().await;
    house.up().await;
    house.shows("epoch", |n| n == "1").await;
    sleep(Duration::from_millis(200)).await;
    socket.to.send(Do::Close("bye")).unwrap();
    house.ended(5).await;
    house.engine.refuse(401);
    house.session.handle().resume();
    house.ended(6).await;
    let decision = &house.session.probe().view().restarts[6].decision;
    assert!(decision.starts_with("restart"), "{decision}");
}

#[actix::test]
async fn a_403_and_a_500_do_not_condemn_the_token() {
    for status in [403, 404, 426, 500] {
        let engine = Engine::start().await;
        engine.refuse(status);
        let mut house = House::at(engine, quick());
        let ended = house.ended(0).await;
        assert!(ended.contains(&status.to_string()), "{ended}");
        house.session.handle().resume();
        house.engine.live().await;
        for _ in 0..2 {
            let Told::Token(None) = house.told().await else { panic!("{status} condemned the token") };
        }
    }
}

#[actix::test]
async fn an_old_engine_gets_the_baseline_form_and_next_time_nothing_else() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.socket().await;
    let extended = socket.frame("node.register").await;
    assert!(extended["provider"].is_object());
    socket.error("invented", "invalid_message");
    let baseline = socket.frame("node.register").await;
    assert!(baseline.get("provider").is_none());
    assert_eq!(baseline["capabilities"], json!([{"name": "spawn:plain"}]));
    socket.reply(&baseline, &json!({"id": "node_1", "name": "quay"}));
    assert_eq!(house.up().await.dialect, Dialect::V5);
    let sync = socket.frame("inventory.sync").await;
    socket.reply(&sync, &json!({}));
    socket.to.send(Do::Close("bye")).unwrap();
    house.ended(0).await;
    house.session.handle().resume();
    let mut socket = house.engine.socket().await;
    assert!(socket.frame("node.register").await.get("provider").is_none());
}

#[actix::test]
async fn an_engine_that_was_replaced_by_another_version_is_asked_anew_what_it_speaks() {
    let mut house = House::start(quick()).await;
    let mut registered_as_extended = Vec::new();
    for (life, version) in ["5.0.7", "5.0.7", "6.2.0"].into_iter().enumerate() {
        *house.engine.version.lock().unwrap() = version;
        if life > 0 {
            house.session.handle().resume();
        }
        let mut socket = house.engine.socket().await;
        let mut register = socket.frame("node.register").await;
        registered_as_extended.push(register["provider"].is_object());
        if life == 0 {
            socket.error("invented", "invalid_message");
            register = socket.frame("node.register").await;
        }
        socket.reply(&register, &json!({"id": "node_1", "name": "quay"}));
        house.up().await;
        if life < 2 {
            house.shows("engine_version", |shown| shown == version).await;
        }
        socket.to.send(Do::Close("bye")).unwrap();
        house.ended(life).await;
    }
    assert_eq!(registered_as_extended, [true, false, true]);
}

#[actix::test]
async fn a_node_that_the_engine_does_not_accept_is_enrolled_again_once() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.socket().await;
    let register = socket.frame("node.register").await;
    socket.error(register["id"].as_str().unwrap(), "node_id_mismatch");
    let mut again = house.engine.socket().await;
    assert_eq!(again.token, "Bearer nt_live_1", "on a new socket with the new token");
    let register = again.frame("node.register").await;
    again.error(register["id"].as_str().unwrap(), "node_id_mismatch");
    let ended = house.ended(0).await;
    assert!(ended.contains("node_id_mismatch") && ended.contains("enrolling again"), "{ended}");
    let mut enrolled = 0;
    while let Ok(told) = house.told.try_recv() {
        enrolled += usize::from(matches!(told, Told::Enrol(code) if code == "node_id_mismatch"));
    }
    assert_eq!(enrolled, 1);
}

#[actix::test]
async fn a_session_that_another_broker_took_over_says_so_and_waits() {
    let mut house = House::start(quick()).await;
    let socket = house.engine.live().await;
    socket.to.send(Do::Close("superseded")).unwrap();
    assert_eq!(house.ended(0).await, "another broker holds this node");
    let decision = house.session.probe().view().restarts[0].decision.clone();
    assert!(decision.contains("30s"), "{decision}");
}

// Deliveries.

#[actix::test]
async fn a_frame_goes_to_the_cursor_of_its_id_and_by_name_only_when_the_id_is_unknown() {
    let mut house = House::start(quick()).await;
    let socket = house.engine.live().await;
    house.route("7", "ann");
    house.route("8", "bob");
    house.epoch().await;
    house.epoch().await;
    socket.deliver("7", "bob", 1);
    socket.deliver("99", "bob", 2);
    let first = house.delivered().await;
    assert_eq!((first.epoch, first.delivery.seq), (Epoch(1), Seq(1)));
    let Content::Inject(note) = &first.delivery.content else { panic!("{:?}", first.delivery) };
    assert_eq!((note.target.as_str(), note.from.as_str()), ("ann", "eve"));
    let Content::Inject(note) = house.delivered().await.delivery.content else { panic!() };
    assert_eq!(note.target, "bob");
}

#[actix::test]
async fn a_frame_for_an_unknown_agent_is_acked_exactly_once() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    socket.deliver("99", "ghost", 5);
    let ack = socket.frame("delivery.ack").await;
    assert_eq!(ack, json!({"v": 1, "type": "delivery.ack", "agent": "ghost", "up_to_seq": 5}));
    socket.deliver("99", "ghost", 0);
    house.shows("frames_for_strangers", |n| n == "2").await;
    // A question that is answered behind everything that was said before.
    let answer = house.register("probe", None);
    let last = socket.frame("agent.register").await;
    socket.reply(&last, &registered("1", "probe"));
    answer.await.unwrap().unwrap();
    assert_eq!(socket.so_far(), Vec::<Value>::new());
}

#[actix::test]
async fn a_field_that_nobody_knows_costs_neither_a_delivery_nor_an_invocation() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    house.route("7", "ann");
    house.epoch().await;
    socket.say(json!({
        "v": 1, "type": "deliver", "delivery_id": "del_1", "agent_id": "7", "agent": "ann", "msg_id": "m1",
        "seq": 1, "mode": "wait", "payload": {"type": "message.created", "data": {"text": "hello"}},
        "added_later": {"deep": [1, null]}
    }));
    assert_eq!(house.delivered().await.delivery.delivery_id, "del_1".into());
    house.tell(Ack { agent_id: "7".into(), agent: name("ann"), up_to: Seq(1) });
    assert_eq!(socket.frame("delivery.ack").await["up_to_seq"], json!(1));
    socket.say(json!({
        "v": 1, "type": "action.invoke", "invocation_id": "inv_1", "action": "release",
        "input": {"name": "ann"}, "added_later": [true]
    }));
    loop {
        if let Told::Invoked(invoked) = house.told().await {
            assert_eq!(invoked.action, Action::Release { name: Some("ann".into()), reason: None });
            break;
        }
    }
}

#[actix::test]
async fn frames_that_found_no_room_are_dropped_unacked_and_asked_for_when_there_is_room() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    let lane = house.route("7", "ann");
    house.epoch().await;
    let sent = LANE_FRAMES_MAX as u64 + 20;
    for seq in 1..=sent {
        socket.deliver("7", "ann", seq);
    }
    let mut held = Vec::new();
    while held.len() < LANE_FRAMES_MAX {
        held.push(house.delivered().await);
    }
    house.shows("frames_refused", |n| n == "20").await;
    assert!(lane.owes_replay());
    sleep(ROOM_CHECK * 3).await;
    assert_eq!(socket.so_far(), Vec::<Value>::new(), "neither acked nor asked for while there is no room");
    held.truncate(LANE_FRAMES_MAX / 2);
    let sync = socket.frame("inventory.sync").await;
    socket.reply(&sync, &json!({}));
    sleep(ROOM_CHECK * 3).await;
    assert_eq!(socket.so_far(), Vec::<Value>::new(), "asked once");
}

#[actix::test]
async fn frames_before_the_route_are_left_unacked_and_asked_for_at_the_route() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    let answer = house.register("ann", None);
    let register = socket.frame("agent.register").await;
    socket.reply(&register, &registered("7", "ann"));
    socket.deliver("7", "ann", 1);
    assert_eq!(answer.await.unwrap().unwrap().agent_id.as_str(), "7");
    house.shows("frames_left", |n| n == "1").await;
    house.route("7", "ann");
    assert_eq!(house.epoch().await, Epoch(1));
    socket.frame("inventory.sync").await;
}

#[actix::test]
async fn a_frame_for_a_cursor_that_was_given_up_is_dropped_unacked() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    let (tx, _) = unbounded_channel();
    let gone = Ears { told: tx, tokens: 0 }.start();
    let lane = Lane::new(Arc::default());
    house.tell(Route {
        agent_id: "7".into(),
        name: name("ann"),
        cursor: post(&gone),
        epochs: post(&gone),
        lane: lane.clone(),
    });
    post::<Die>(&gone).tell(Die).unwrap();
    while gone.connected() {
        tokio::task::yield_now().await;
    }
    socket.deliver("7", "ann", 1);
    house.shows("frames_quarantined", |n| n == "1").await;
    assert_eq!(lane.held(), (0, 0), "its room is free again");
    assert_eq!(socket.so_far(), Vec::<Value>::new());
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Die;

impl Handler<Die> for Ears {
    type Result = ();

    fn handle(&mut self, _: Die, ctx: &mut Self::Context) {
        actix::ActorContext::stop(ctx);
    }
}

#[actix::test]
async fn heartbeats_keep_their_pace_while_fifty_thousand_frames_pour_in() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    house.route("7", "ann");
    house.epoch().await;
    let to = socket.to.clone();
    let frame = |seq: u64| {
        json!({
            "v": 1, "type": "deliver", "delivery_id": format!("d{seq}"), "agent_id": "7", "agent": "ann",
            "msg_id": format!("m{seq}"), "seq": seq, "payload": {"type": "message.created", "data": {"text": "x"}}
        })
    };
    for seq in 1..=50_000 {
        to.send(Do::Say(frame(seq))).unwrap();
    }
    // The ears drop what they hear: the deliveries' room comes back as fast as they take it.
    let began = Instant::now();
    let mut beats = Vec::new();
    let mut seen = 0;
    while seen < 50_000 && began.elapsed() < PATIENCE {
        while let Ok(told) = house.told.try_recv() {
            seen += u64::from(matches!(told, Told::Delivered(_)));
        }
        while let Ok(said) = socket.from.try_recv() {
            if matches!(&said, Said::Frame(frame) if frame["type"] == json!("node.heartbeat")) {
                beats.push(began.elapsed());
            }
        }
        sleep(Duration::from_millis(1)).await;
        if house.tally("frames_refused") + seen >= 50_000 {
            break;
        }
    }
    let took = began.elapsed();
    assert!(took < PATIENCE, "the frames are not through");
    beats.push(took);
    let longest = beats.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(took);
    assert!(longest < Duration::from_secs(2), "no heartbeat for {longest:?}, within {took:?}");
}

impl House {
    fn tally(&self, fact: &str) -> u64 {
        let Detail::Facts(facts) = self.session.probe().view().detail else { return 0 };
        facts.iter().find(|(name, _)| *name == fact).map_or(0, |(_, value)| value.parse().unwrap())
    }
}

// Registrations.

#[actix::test]
async fn registrations_are_answered_by_id_and_one_name_has_one_at_a_time() {
    let mut house = House::start(quick()).await;
    assert_eq!(
        house.register("early", None).await.unwrap().unwrap_err(),
        RegisterRefused::Offline,
        "not live yet"
    );
    let mut socket = house.engine.live().await;
    house.up().await;
    let (ann, bob) = (house.register("ann", None), house.register("bob", None));
    assert_eq!(house.register("ann", None).await.unwrap().unwrap_err(), RegisterRefused::InProgress);
    let first = socket.frame("agent.register").await;
    let second = socket.frame("agent.register").await;
    assert_eq!((&first["name"], &second["name"]), (&json!("ann"), &json!("bob")));
    let mut data = registered("8", "bob");
    data["delivery_ack_seq"] = json!(41);
    socket.reply(&second, &data);
    socket.error(first["id"].as_str().unwrap(), "node_capacity_exceeded");
    let bob = bob.await.unwrap().unwrap();
    assert_eq!((bob.agent_id.as_str(), bob.ack_seq), ("8", Some(Seq(41))));
    let refused = RegisterRefused::Engine { code: "node_capacity_exceeded".into(), message: "words".into() };
    assert_eq!(ann.await.unwrap().unwrap_err(), refused);
}

#[actix::test]
async fn a_registration_is_recovered_when_the_engine_creates_only_and_we_know_the_id() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    house.up().await;
    let answer = house.register("ann", Some("7".into()));
    let register = socket.frame("agent.register").await;
    socket.error(register["id"].as_str().unwrap(), "agent_already_exists");
    let recover = socket.frame("agent.recover").await;
    assert_eq!(recover["expected_agent_id"], json!("7"));
    socket.reply(&recover, &registered("7", "ann"));
    assert_eq!(answer.await.unwrap().unwrap().agent_id.as_str(), "7");
}

#[actix::test]
async fn a_registration_that_is_answered_too_late_is_undone() {
    let timings = Timings { agent_register: Duration::from_millis(100), ..quick() };
    let mut house = House::start(timings).await;
    let mut socket = house.engine.live().await;
    house.up().await;
    let answer = house.register("ann", None);
    let register = socket.frame("agent.register").await;
    assert_eq!(answer.await.unwrap().unwrap_err(), RegisterRefused::TimedOut);
    socket.reply(&register, &registered("7", "ann"));
    let gone = socket.frame("agent.deregister").await;
    assert_eq!((&gone["agent_id"], &gone["name"]), (&json!("7"), &json!("ann")));
}

#[actix::test]
async fn a_registration_that_nobody_waits_for_any_more_is_undone() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    house.up().await;
    drop(house.register("ann", None));
    let register = socket.frame("agent.register").await;
    socket.reply(&register, &registered("7", "ann"));
    socket.frame("agent.deregister").await;
}

#[actix::test]
async fn a_lost_socket_answers_who_waited_and_what_is_owed_goes_out_with_the_next() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    house.up().await;
    let answer = house.register("ann", None);
    socket.frame("agent.register").await;
    socket.to.send(Do::Close("bye")).unwrap();
    assert_eq!(answer.await.unwrap().unwrap_err(), RegisterRefused::Offline);
    house.ended(0).await;
    let (agent_id, name) = ("7".into(), name("ann"));
    house.tell(DeregisterAgent { agent_id, name });
    let result = InvocationResult::Failed("spawn_failed".into());
    house.tell(InvocationEnded { invocation: "inv_1".into(), result });
    house.session.handle().resume();
    let mut socket = house.engine.live().await;
    assert_eq!(socket.frame("agent.deregister").await["agent_id"], json!("7"));
    assert_eq!(socket.frame("action.result").await["error"], json!("spawn_failed"));
}

/// Counts what is logged at `WARN` and above while it is set.
#[derive(Clone, Default)]
struct Warnings(Arc<std::sync::atomic::AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[actix::test]
async fn a_reply_that_nobody_waits_for_is_counted_and_no_cause_for_a_warning() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    house.up().await;
    let warnings = Warnings::default();
    let _listening = tracing::subscriber::set_default(warnings.clone());
    let reply = |data: Value| json!({"v": 1, "type": "reply", "id": "invented", "ok": true, "data": data});
    socket.say(reply(json!({"id": "node_1", "name": "quay"})));
    socket.say(reply(json!({"rebound_agents": 0})));
    house.shows("replies_unmatched", |n| n == "2").await;
    assert_eq!(warnings.0.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(socket.so_far(), Vec::<Value>::new(), "nothing is undone for them");
    // The listening itself can hear.
    socket.deliver("99", "ghost", 1);
    socket.frame("delivery.ack").await;
    assert_eq!(warnings.0.load(std::sync::atomic::Ordering::Relaxed), 1);
}

// Syncs and liveness.

#[actix::test]
async fn a_replay_is_asked_for_at_most_every_five_seconds_and_its_asker_told_the_epoch() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    house.up().await;
    let ask = || {
        let agent_id = AgentId::from("7");
        house.session.post::<RequestReplay>().ask(|reply| RequestReplay { agent_id, reply })
    };
    let began = Instant::now();
    let answers = (ask(), ask());
    let sync = socket.frame("inventory.sync").await;
    assert!(began.elapsed() > Duration::from_secs(4), "the one at connect counts");
    socket.reply(&sync, &json!({}));
    assert_eq!((answers.0.await.unwrap(), answers.1.await.unwrap()), (Epoch(1), Epoch(1)));
    assert_eq!(socket.so_far(), Vec::<Value>::new(), "one for both");
}

#[actix::test]
async fn a_replay_for_frames_that_the_cursor_dropped_itself_is_asked_for_soon() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    let lane = house.route("7", "ann");
    house.up().await;
    lane.refuse(Seq(9));
    let agent_id = AgentId::from("7");
    let began = Instant::now();
    let answer = house.session.post::<RequestReplay>().ask(|reply| RequestReplay { agent_id, reply });
    let sync = socket.frame("inventory.sync").await;
    assert!(began.elapsed() < Duration::from_secs(4), "not as late as one for a gap");
    socket.reply(&sync, &json!({}));
    assert_eq!(answer.await.unwrap(), Epoch(1));
}

#[actix::test]
async fn a_change_of_the_inventory_is_synced_at_once_and_heard_in_a_heartbeat() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    house.up().await;
    let item = InventoryItem { agent_id: "7".into(), name: name("ann"), invocation: None, session_ref: None };
    for _ in 0..2 {
        house.tell(SetInventory { agents: vec![item.clone()], invoking: false });
    }
    let sync = socket.frame("inventory.sync").await;
    assert_eq!(sync["agents"][0]["name"], json!("ann"));
    socket.reply(&sync, &json!({}));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(socket.so_far(), Vec::<Value>::new(), "the second changes nothing");
}

#[actix::test]
async fn an_inventory_with_an_agent_that_lives_elsewhere_is_looked_into_and_synced_again_without_it() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    house.up().await;
    let item = |id: &str, agent| InventoryItem {
        agent_id: id.into(),
        name: name(agent),
        invocation: None,
        session_ref: None,
    };
    let agents = vec![item("7", "ann"), item("8", "ben")];
    house.tell(SetInventory { agents: agents.clone(), invoking: false });
    let sync = socket.frame("inventory.sync").await;
    socket.error(sync["id"].as_str().unwrap(), "agent_location_conflict");
    loop {
        let told = timeout(PATIENCE, house.told.recv()).await.expect("nobody is told").unwrap();
        if matches!(told, Told::Conflict) {
            break;
        }
    }
    house.tell(SetInventory { agents: agents[..1].to_vec(), invoking: false });
    let sync = socket.frame("inventory.sync").await;
    assert_eq!(sync["agents"].as_array().unwrap().len(), 1);
    socket.reply(&sync, &json!({}));
}

#[actix::test]
async fn an_engine_that_falls_silent_is_given_up_within_four_intervals() {
    let timings = Timings { silence: Duration::from_millis(400), ..quick() };
    let mut house = House::start(timings).await;
    let socket = house.engine.live().await;
    house.up().await;
    sleep(Duration::from_millis(1000)).await;
    assert_eq!(house.session.probe().view().restart_count, 0, "pongs keep it alive");
    let began = Instant::now();
    socket.to.send(Do::FallSilent).unwrap();
    assert!(house.ended(0).await.contains("nothing was heard"));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[actix::test]
async fn an_engine_that_only_pongs_is_given_up_within_two_periods() {
    let timings = Timings { sync: Duration::from_millis(300), ..quick() };
    let mut house = House::start(timings).await;
    let mut socket = house.engine.live().await;
    socket.frame("inventory.sync").await;
    assert!(house.ended(0).await.contains("inventory.sync"));
}

#[actix::test]
async fn a_session_that_stays_live_is_healthy() {
    let mut house = House::start(quick()).await;
    for life in 0..3 {
        let socket = house.engine.live().await;
        house.up().await;
        sleep(Duration::from_millis(200)).await;
        socket.to.send(Do::Close("bye")).unwrap();
        house.ended(life).await;
        let decision = house.session.probe().view().restarts[life].decision.clone();
        let after: f64 = decision
            .trim_start_matches("restart after ")
            .trim_end_matches("ms")
            .parse()
            .unwrap_or_else(|_| panic!("{decision}"));
        assert!((400.0..=600.0).contains(&after), "the backoff begins anew: {decision}");
        house.session.handle().resume();
    }
}

// Actions, and the way out.

#[actix::test]
async fn an_invocation_goes_to_the_registry_and_its_result_back() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    house.up().await;
    socket.say(json!({
        "v": 1, "type": "action.invoke", "invocation_id": "inv_1", "action": "spawn:plain",
        "input": {"name": "ann"}
    }));
    socket.say(json!({"v": 1, "type": "tide.turned", "height": 3}));
    socket.say(json!("not a frame"));
    let invoked = loop {
        if let Told::Invoked(invoked) = house.told().await {
            break invoked;
        }
    };
    let Action::Spawn(spawn) = invoked.action else { panic!("{invoked:?}") };
    assert_eq!((spawn.name.as_deref(), spawn.cli.as_deref()), (Some("ann"), Some("plain")));
    let result = InvocationResult::Spawned { name: name("ann") };
    house.tell(InvocationEnded { invocation: invoked.invocation, result });
    let result = socket.frame("action.result").await;
    assert_eq!(result["output"], json!({"spawned": true, "name": "ann"}));
    assert!(result.get("error").is_none());
    house.shows("frames_in", |kinds| kinds.contains("unknown=1")).await;
    house.shows("frames_unreadable", |n| n == "1").await;
}

#[actix::test]
async fn leaving_flushes_the_acks_deregisters_the_node_and_closes() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    house.up().await;
    for up_to in 1..=9 {
        house.tell(Ack { agent_id: "7".into(), agent: name("ann"), up_to: Seq(up_to) });
    }
    let left = house.session.post::<Leave>().ask(Leave);
    let ack = socket.frame("delivery.ack").await;
    assert_eq!(ack["up_to_seq"], json!(9), "acks of one turn are one");
    socket.frame("node.deregister").await;
    assert_eq!(socket.closed().await, Some((1000, "leaving".to_owned())));
    left.await.unwrap();
    assert_eq!(house.ended(0).await, "finished");
    assert!(house.session.handle().is_gone());
}

#[actix::test]
async fn leaving_without_a_session_ends_at_once() {
    let engine = Engine::start().await;
    engine.refuse(500);
    let house = House::at(engine, quick());
    house.ended(0).await;
    let left = house.session.post::<Leave>().ask(Leave);
    house.session.handle().resume();
    left.await.unwrap();
    assert!(house.session.handle().is_gone() || house.ended(1).await == "finished");
}
