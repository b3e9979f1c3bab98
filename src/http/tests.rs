//! The real server on loopback, with probe actors for the rooms behind it.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, atomic::AtomicUsize},
};

use actix::{Actor, Context, Handler, Supervised};
use awc::ws::{Frame, Message};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use super::*;
use crate::{
    actors::event_hub::EventHub,
    ids::{AgentName, EventSeq, MsgId, Seq},
    messages::{
        channels::{ChannelsRefused, Membership},
        dead_letter::{DeadLetter, Letters, RedeliverRefused, Redelivery},
        delivery::{CursorView, LastDelivery, Mode, Note, ObserveCursor, Rung},
        hold::{
            DeliveryMode, Flush, GetDeliveryMode, HoldDoors, ListPending, ModeConflict, ModeSet, Pending,
            SetDeliveryMode,
        },
        lifecycle::{ActorId, ActorKind},
        observe::{Event, FEED_CAP, Publish, RING_CAP},
        process::ListExits,
        pty::{
            AgentState, AnswerDialog, AnswerRefused, Input, Resize, Snapshot, TakeSnapshot, TermSize,
            WorkerView,
        },
        readiness::Readiness,
        release::Released,
        result::{ResultTaken, SubmitResult},
        send::{SendRefused, Sent},
        spawn::{AgentDoors, AgentPhase, AgentView, Autonomy, SpawnRefused, SpawnSpec, Spawned},
    },
    supervision::{Child, Detail, Lifeline, Seat},
};

const KEY: &str = "br_0123456789abcdef";
const RESULT_TOKEN: &str = "ar_fedcba9876543210";
const SECRETS: [&str; 4] = ["br_0123456789abcdef", "rk_live_planted", "hunter2-env", "hunter2-arg"];

/// What the rooms behind the API were asked, and what they shall say.
#[derive(Default)]
struct Script {
    spawns: Vec<SpawnSpec>,
    releases: Vec<(String, bool)>,
    sends: Vec<SendMessage>,
    inputs: Vec<Vec<u8>>,
    refuse_spawn: Option<SpawnRefused>,
    refuse_send: Option<SendRefused>,
    refuse_channels: Option<ChannelsRefused>,
    letters: Vec<DeadLetter>,
    delivery_mode: DeliveryMode,
    pending: Vec<Pending>,
    /// Registry and worker take questions and never answer.
    silent: bool,
    /// To hold messages back is done, and never answered.
    hold_unanswered: bool,
    /// What the agent of [`RESULT_TOKEN`] handed in: data, final, metadata.
    results: Vec<(String, bool, Option<String>)>,
}

type Shared = Arc<Mutex<Script>>;

fn lock(script: &Shared) -> std::sync::MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stands for every room but the event hub.
struct Rooms {
    life: Lifeline,
    script: Shared,
    kept: Vec<Box<dyn std::any::Any>>,
    agent: Option<AgentDoors>,
    ends: mpsc::UnboundedSender<String>,
}

impl Actor for Rooms {
    type Context = Context<Self>;
}
impl Supervised for Rooms {}

macro_rules! handles {
    ($message:ty, |$rooms:ident, $asked:pat_param| $answer:expr) => {
        impl Handler<$message> for Rooms {
            type Result = ();
            fn handle(&mut self, $asked: $message, _: &mut Context<Self>) {
                let _turn = self.life.turn();
                let $rooms = self;
                $answer
            }
        }
    };
}

handles!(Spawn, |rooms, asked| {
    let refused = lock(&rooms.script).refuse_spawn.clone();
    let spawned = Spawned {
        name: asked.spec.name.clone(),
        agent_id: "ag_1".into(),
        pid: 4242,
        harness: "plain".into(),
        warning: None,
    };
    lock(&rooms.script).spawns.push(asked.spec);
    asked.reply.send(refused.map_or(Ok(spawned), Err));
});
handles!(Release, |rooms, asked| {
    lock(&rooms.script).releases.push((asked.name.to_string(), asked.force));
    asked.reply.send(Released::Unknown);
});
handles!(SendMessage, |rooms, mut asked| {
    let refused = lock(&rooms.script).refuse_send.clone();
    let reply = std::mem::replace(&mut asked.reply, crate::messages::Reply::channel().0);
    lock(&rooms.script).sends.push(asked);
    reply.send(refused.map_or(Ok(Sent { msg_id: MsgId::from("m1"), from: "me".into() }), Err));
});
handles!(ListAgents, |rooms, asked| {
    if lock(&rooms.script).silent {
        rooms.kept.push(Box::new(asked));
    } else {
        asked.0.send(rooms.agent.iter().map(|doors| doors.view.clone()).collect());
    }
});
handles!(FindAgent, |rooms, asked| {
    if lock(&rooms.script).silent {
        rooms.kept.push(Box::new(asked));
    } else {
        asked.reply.send(rooms.agent.clone().filter(|doors| doors.view.spec.name == asked.name));
    }
});
handles!(ChangeChannels, |rooms, asked| {
    let refused = lock(&rooms.script).refuse_channels.clone();
    let change = if asked.change == Membership::Join { "join" } else { "leave" };
    let channels = [&[change.to_owned()], &asked.channels[..]].concat();
    asked.reply.send(refused.map_or(Ok(channels), Err));
});
handles!(SubmitResult, |rooms, asked| {
    let is_its = asked.token.is(RESULT_TOKEN.as_bytes()) && asked.agent.is_none_or(|agent| agent == "al");
    let taken = is_its.then(|| {
        let metadata = asked.metadata.map(|metadata| metadata.get().to_owned());
        lock(&rooms.script).results.push((asked.data.get().to_owned(), asked.is_final, metadata));
        ResultTaken { name: AgentName::parse("al").unwrap(), id: "r1".into() }
    });
    asked.reply.send(taken);
});
handles!(ListExits, |_rooms, asked| {
    asked.0.send(Vec::new());
});
handles!(ListDeadLetters, |rooms, asked| {
    asked.0.send(lock(&rooms.script).letters.clone());
});
handles!(RedeliverLetters, |rooms, asked| {
    let wanted = |letter: &&DeadLetter| match &asked.which {
        Letters::All => true,
        Letters::Of(id) => letter.delivery == *id,
    };
    let tried = |letter: &DeadLetter| Redelivery {
        delivery: letter.delivery.clone(),
        name: letter.name.clone(),
        outcome: if letter.name.as_str() == "al" { Ok(()) } else { Err(RedeliverRefused::NotLive) },
    };
    let tried = lock(&rooms.script).letters.iter().filter(wanted).map(tried).collect();
    asked.reply.send(tried);
});
handles!(Input, |rooms, asked| {
    let taken = asked.bytes.len();
    lock(&rooms.script).inputs.push(asked.bytes);
    asked.reply.send(Ok(taken));
});
handles!(Resize, |_rooms, asked| {
    asked.reply.send(Ok(()));
});
handles!(AnswerDialog, |_rooms, asked| {
    asked.reply.send(Err(AnswerRefused::NoDialog));
});
handles!(TakeSnapshot, |_rooms, asked| {
    asked.0.send(Snapshot {
        size: TermSize::default(),
        cursor: (2, 1),
        plain: "$ hello\nworld\n".into(),
        ansi: b"\x1b[Hx".to_vec(),
        title: "t".into(),
        offset: 99,
        state: AgentState::Idle,
        modes: vec!["bracketed_paste"],
    });
});
handles!(ObserveCursor, |_rooms, asked| {
    asked.0.send(cursor());
});
handles!(SetDeliveryMode, |rooms, asked| {
    let mut script = lock(&rooms.script);
    let (previous, mode) = (script.delivery_mode, asked.mode);
    let conflict = asked.expect.filter(|expected| *expected != previous);
    let set = conflict.map_or(Ok(ModeSet { previous, mode, flushed: 2 }), |expected| {
        Err(ModeConflict { mode: previous, expected })
    });
    if set.is_ok() {
        script.delivery_mode = mode;
    }
    if script.hold_unanswered && mode == DeliveryMode::ManualFlush {
        rooms.kept.push(Box::new(asked));
    } else {
        asked.reply.send(set);
    }
});
handles!(GetDeliveryMode, |rooms, asked| {
    asked.0.send(lock(&rooms.script).delivery_mode);
});
handles!(ListPending, |rooms, asked| {
    asked.0.send(lock(&rooms.script).pending.clone());
});
handles!(Flush, |rooms, asked| {
    let pending = &lock(&rooms.script).pending;
    let is_meant = |one: &&Pending| asked.only.as_ref().is_none_or(|only| one.delivery == *only);
    asked.reply.send(pending.iter().filter(is_meant).count());
});
handles!(Shutdown, |rooms, asked| {
    rooms.ends.send(asked.reason).unwrap();
});
handles!(Resume, |rooms, _asked| {
    rooms.ends.send("resume".to_owned()).unwrap();
});

fn cursor() -> CursorView {
    let last = LastDelivery {
        delivery_id: "d1".into(),
        msg_id: "m1".into(),
        seq: Seq(7),
        from: "bob".into(),
        queued_at_ms: 1_000,
        attempts: 2,
        rung: Some(Rung::Written),
        waiting_for: "the text to show in the composer".into(),
    };
    CursorView { received: Seq(7), acked: Seq(6), held: 1, last: Some(last), ..CursorView::default() }
}

struct House {
    server: HttpServer,
    script: Shared,
    hub: Child<EventHub>,
    readiness: ReadinessBoard,
    ends: mpsc::UnboundedReceiver<String>,
}

#[derive(Default)]
struct Options {
    starting: bool,
    faults: bool,
    lease: Option<Duration>,
    port: u16,
}

fn house() -> House {
    house_with(Options::default())
}

fn house_with(options: Options) -> House {
    try_house(options).unwrap()
}

fn try_house(options: Options) -> Result<House, HttpError> {
    let directory = Directory::default();
    let script = Shared::default();
    let (ends_tx, ends) = mpsc::unbounded_channel();
    let (hub, hub_seat) = Seat::reserve(ActorId::sole(ActorKind::EventHub), &directory);
    let wanted = Arc::new(AtomicUsize::new(0));
    hub_seat.start(None, move |_, life| EventHub::new(life, wanted, "boot-a".into()));
    let (rooms, seat) = Seat::<Rooms>::reserve(ActorId::sole(ActorKind::AgentRegistry), &directory);
    let worker = Arc::new(WorkerView::default());
    worker.detail.lock().unwrap().state = Some(AgentState::Idle);
    let spec = SpawnSpec {
        name: AgentName::parse("al").unwrap(),
        program: "/bin/sh".into(),
        args: vec!["hunter2-arg".into()],
        cwd: "/tmp".into(),
        env: BTreeMap::from([("PASSWORD".into(), "hunter2-env".into())]),
        channels: vec!["general".into()],
        task: None,
        harness: None,
        model: None,
        size: TermSize::default(),
        session_ref: None,
        idle_after: None,
        autonomy: Autonomy::Ask,
        process: Default::default(),
    };
    let view = AgentView {
        spec,
        agent_id: Some("ag_al".into()),
        phase: AgentPhase::Live,
        pid: Some(std::process::id()),
        since: std::time::SystemTime::now(),
        worker: Some(worker.clone()),
    };
    let agent = AgentDoors {
        view,
        input: rooms.post(),
        resize: rooms.post(),
        snapshot: rooms.post(),
        answer: rooms.post(),
        cursor: rooms.post(),
        hold: HoldDoors { set: rooms.post(), get: rooms.post(), pending: rooms.post(), flush: rooms.post() },
    };
    for (kind, detail) in [
        (ActorKind::PtyWorker, Detail::Worker(worker)),
        (ActorKind::DeliveryCursor, Detail::Cursor(cursor())),
    ] {
        let probe = crate::supervision::Probe::new(ActorId::of(kind, "al"));
        probe.set_state("running");
        probe.set_detail(detail);
        directory.enter(probe);
    }
    let shared = script.clone();
    seat.start(None, move |_, life| Rooms {
        life,
        script: shared,
        kept: Vec::new(),
        agent: Some(agent),
        ends: ends_tx,
    });
    let readiness = ReadinessBoard::default();
    if !options.starting {
        readiness.set(Readiness::Live { node_id: "node_1".into(), node_name: "n".into() });
    }
    let workspace = Workspace {
        id: Some("ws_1".into()),
        key: Some(WorkspaceKey::from("rk_live_planted")),
        base_url: "http://127.0.0.1:1".into(),
        self_name: "me".into(),
        self_agent_id: None,
    };
    let config = HttpConfig {
        bind: [127, 0, 0, 1].into(),
        port: options.port,
        key: ApiKey::from(KEY),
        version: "0.1.0",
        instance: "test".into(),
        boot_id: "boot-a".into(),
        mode: SessionMode::Persist,
        lease: options.lease,
        agents_dir: "/nonexistent".into(),
        faults: options.faults,
        cwd: "/home".into(),
        channels: vec!["general".into()],
        workspace: Arc::new(OnceLock::from(workspace)),
    };
    let doors = HttpDoors {
        spawn: rooms.post(),
        release: rooms.post(),
        list: rooms.post(),
        find: rooms.post(),
        send: rooms.post(),
        channels: rooms.post(),
        subscribe: hub.post(),
        replay: hub.post(),
        shutdown: rooms.post(),
        resume: rooms.post(),
        dead_letters: rooms.post(),
        exits: rooms.post(),
        redeliver: rooms.post(),
        result: rooms.post(),
    };
    let server = serve(config, doors, directory, readiness.clone())?;
    Ok(House { server, script, hub, readiness, ends })
}

/// An answer.
#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

impl House {
    /// Sends these bytes, and reads until the server closes.
    async fn raw(&self, bytes: &[u8]) -> Got {
        let mut socket = TcpStream::connect(self.server.addr()).await.unwrap();
        // The server may answer and close before it has read everything.
        socket.write_all(bytes).await.ok();
        let mut answer = Vec::new();
        let reading = socket.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(20), reading).await.expect("an answer in time").ok();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Got { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    async fn with(&self, method: &str, path: &str, headers: &str, body: &str) -> Got {
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let head = format!("{method} {path} HTTP/1.1\r\n{headers}{length}connection: close\r\n\r\n");
        self.raw((head + body).as_bytes()).await
    }

    async fn get(&self, path: &str) -> Got {
        self.with("GET", path, &format!("host: localhost\r\nx-api-key: {KEY}\r\n"), "").await
    }

    async fn post(&self, path: &str, body: &str) -> Got {
        let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
        self.with("POST", path, &format!("host: localhost\r\nx-api-key: {KEY}\r\n{kind}"), body).await
    }

    async fn put(&self, path: &str, body: &Value) -> Got {
        let head = format!("host: localhost\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\n");
        self.with("PUT", path, &head, &body.to_string()).await
    }

    fn publish(&self, detail: impl ToString) {
        let event = Event::SessionState { state: "test", detail: detail.to_string() };
        self.hub.post().tell(Publish(event)).unwrap();
    }

    async fn ws(&self, query: &str) -> actix_codec::Framed<awc::BoxedSocket, awc::ws::Codec> {
        self.socket(&format!("/ws{query}")).await
    }

    async fn socket(&self, path: &str) -> actix_codec::Framed<awc::BoxedSocket, awc::ws::Codec> {
        let url = format!("http://{}{path}", self.server.addr());
        let opening = awc::Client::new().ws(url).set_header("x-api-key", KEY).connect();
        opening.await.expect("a WebSocket").1
    }
}

async fn frame(ws: &mut actix_codec::Framed<awc::BoxedSocket, awc::ws::Codec>) -> Frame {
    let next = tokio::time::timeout(Duration::from_secs(10), ws.next()).await;
    next.expect("a frame in time").expect("an open stream").unwrap()
}

async fn event(ws: &mut actix_codec::Framed<awc::BoxedSocket, awc::ws::Codec>) -> Value {
    match frame(ws).await {
        Frame::Text(text) => serde_json::from_slice(&text).unwrap(),
        other => panic!("not an event: {other:?}"),
    }
}

/// Every field that some client reads, and the code.
fn is_envelope(got: &Got, status: u16, code: &str) {
    let body = got.json();
    assert_eq!((got.status, body["code"].as_str()), (status, Some(code)), "{got:?}");
    assert_eq!(body["success"], false, "{got:?}");
    assert_eq!(body["statusCode"], status, "{got:?}");
    assert!(body["retryable"].is_boolean() && body["message"] == body["error"], "{got:?}");
    assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{got:?}");
    assert!(got.head.contains("x-request-id: "), "{got:?}");
}

#[actix::test]
async fn everything_but_health_and_readyz_wants_the_key() {
    let house = house();
    let host = "host: localhost\r\n";
    for path in ["/health", "/readyz"] {
        assert_eq!(house.with("GET", path, host, "").await.status, 200, "{path}");
    }
    for path in ["/api/session", "/api/spawned", "/ws", "/debug/actors", "/no/such/path", "/health/"] {
        is_envelope(&house.with("GET", path, host, "").await, 401, "unauthorized");
    }
    for (header, status) in [
        (format!("x-api-key: {KEY}"), 200),
        (format!("authorization: Bearer {KEY}"), 200),
        (format!("authorization: bearer {KEY}"), 200),
        (format!("x-api-key: wrong\r\nauthorization: Bearer {KEY}"), 200),
        (format!("authorization: Basic {KEY}"), 401),
        ("x-api-key: br_0123456789abcde".to_owned(), 401),
        ("x-api-key:".to_owned(), 401),
        (format!("x-api-key: {KEY}0"), 401),
    ] {
        let got = house.with("GET", "/api/session", &format!("{host}{header}\r\n"), "").await;
        assert_eq!(got.status, status, "{header}");
    }
}

#[actix::test]
async fn a_lured_browser_gets_no_further_than_its_host_and_origin() {
    let house = house();
    let port = house.server.addr().port();
    let key = format!("x-api-key: {KEY}\r\n");
    for (host, status) in [
        ("host: localhost\r\n".to_owned(), 200),
        (format!("host: 127.0.0.1:{port}\r\n"), 200),
        ("host: [::1]\r\n".to_owned(), 200),
        (String::new(), 421),
        ("host: evil.example\r\n".to_owned(), 421),
        (format!("host: evil.example:{port}\r\n"), 421),
        ("host: localhost.\r\n".to_owned(), 421),
        ("host: 127.0.0.1.evil.example\r\n".to_owned(), 421),
        ("host: localhost\r\nhost: evil.example\r\n".to_owned(), 421),
    ] {
        for path in ["/api/session", "/health", "/no/such/path"] {
            let got = house.with("GET", path, &format!("{host}{key}"), "").await;
            let expected = if status == 200 && path == "/no/such/path" { 404 } else { status };
            // The HTTP parser itself refuses some of them, which is as good.
            assert!(
                got.status == expected || (status == 421 && got.status == 400),
                "{host:?} {path}: {got:?}"
            );
        }
    }
    let headers = format!("host: localhost\r\n{key}");
    let absolute = house.with("GET", "http://evil.example/api/session", &headers, "").await;
    is_envelope(&absolute, 421, "misdirected_request");
    for (origin, status) in [
        (format!("http://localhost:{port}"), 200),
        (format!("http://127.0.0.1:{port}"), 200),
        ("null".to_owned(), 403),
        ("http://evil.example".to_owned(), 403),
        ("http://localhost:1".to_owned(), 403),
    ] {
        let headers = format!("host: localhost\r\norigin: {origin}\r\n{key}");
        for method in ["GET", "POST", "OPTIONS"] {
            let got = house.with(method, "/api/session", &headers, "").await;
            let expected = if status == 200 && method != "GET" { 405 } else { status };
            assert_eq!(got.status, expected, "{method} {origin}");
            assert!(!got.head.contains("access-control"), "{got:?}");
        }
        let upgrade = "upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        if status == 403 {
            let got = house.with("GET", "/ws", &format!("{headers}{upgrade}"), "").await;
            assert_eq!(got.status, 403, "WebSocket from {origin}");
        }
    }
}

#[actix::test]
async fn every_bad_request_is_answered_in_the_one_envelope() {
    let house = house();
    for (path, body, status, code) in [
        ("/api/spawn", "{", 400, "invalid_json"),
        ("/api/spawn", "[]", 400, "invalid_json"),
        ("/api/spawn", "null", 400, "invalid_json"),
        ("/api/spawn", "{}", 400, "invalid_request"),
        ("/api/spawn", r#"{"name":7}"#, 400, "invalid_request"),
        ("/api/spawn", r#"{"name":"../evil"}"#, 400, "invalid_name"),
        ("/api/spawn", r#"{"name":"a","cwd":"relative"}"#, 400, "invalid_cwd"),
        ("/api/spawn", r#"{"name":"a","runtime":"headless"}"#, 400, "unsupported_runtime"),
        ("/api/send", r#"{"text":"x"}"#, 400, "invalid_request"),
        ("/api/send", r#"{"to":"al"}"#, 400, "invalid_request"),
        ("/api/send", r##"{"to":"#","text":"x"}"##, 400, "invalid_request"),
        ("/api/send", r#"{"to":"al","text":"x","mode":"soon"}"#, 400, "invalid_request"),
        ("/api/input/nobody", r#"{"data":"x"}"#, 404, "agent_not_found"),
        ("/api/input/al", r#"{}"#, 400, "invalid_request"),
        ("/api/input/a%2Fb", r#"{"data":"x"}"#, 400, "invalid_name"),
        ("/api/input/%ff", r#"{"data":"x"}"#, 400, "invalid_name"),
        ("/api/resize/al", r#"{"rows":0,"cols":0}"#, 400, "invalid_request"),
        ("/api/resize/al", r#"{"rows":70000,"cols":80}"#, 400, "invalid_request"),
        ("/no/such/path", "{}", 404, "not_found"),
        ("/health", "{}", 405, "method_not_allowed"),
        ("/api/spawned", "{}", 405, "method_not_allowed"),
        ("/debug/fault/event_hub/handler", "{}", 404, "not_found"),
    ] {
        is_envelope(&house.post(path, body).await, status, code);
    }
    is_envelope(&house.post("/api/spawn", "").await, 415, "unsupported_media_type");
    let headers = format!("host: localhost\r\nx-api-key: {KEY}\r\ncontent-type: text/plain\r\n");
    let plain = house.with("POST", "/api/spawn", &headers, r#"{"name":"a"}"#).await;
    is_envelope(&plain, 415, "unsupported_media_type");
    is_envelope(&house.get("/api/spawned/al/snapshot?format=png").await, 400, "invalid_format");
    is_envelope(&house.get("/api/events/replay?sinceSeq=x").await, 400, "invalid_request");
    is_envelope(&house.get("/ws").await, 400, "websocket_expected");
    is_envelope(&house.get("/debug/agents/nobody").await, 404, "agent_not_found");
    assert!(lock(&house.script).spawns.is_empty(), "a bad request reached the registry");
}

#[actix::test]
async fn a_body_over_1_mib_is_refused_announced_or_not() {
    let house = house();
    let head = format!(
        "POST /api/send HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\n\
         connection: close\r\n"
    );
    let announced = format!("{head}content-length: {}\r\n\r\n", (1 << 20) + 1);
    is_envelope(&house.raw(announced.as_bytes()).await, 413, "payload_too_large");
    let mut chunked = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..17 {
        chunked.extend(format!("{:x}\r\n", 1 << 16).bytes());
        chunked.extend(std::iter::repeat_n(b'x', 1 << 16));
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    is_envelope(&house.raw(&chunked).await, 413, "payload_too_large");
}

#[actix::test]
async fn until_the_house_is_built_only_health_answers_and_the_rest_says_503_in_words() {
    let house = house_with(Options { starting: true, ..Options::default() });
    let health = house.with("GET", "/health", "host: localhost\r\n", "").await;
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("degraded")));
    assert_eq!(health.json()["relaycastConnected"], false);
    for path in ["/api/session", "/readyz", "/api/spawned", "/no/such/path"] {
        let got = house.get(path).await;
        assert_eq!(got.status, 503, "{path}");
        assert!(got.head.contains("content-type: text/plain"), "{got:?}");
        assert!(got.body.contains("503 Service Unavailable"), "{got:?}");
    }
    house.readiness.set(Readiness::Offline { why: "refused".into(), next: "again in 2 s".into() });
    assert_eq!(house.get("/api/session").await.status, 200);
    let ready = house.get("/readyz").await;
    assert_eq!((ready.status, ready.json()["next"].as_str()), (503, Some("again in 2 s")));
    house.readiness.set(Readiness::Live { node_id: "node_1".into(), node_name: "n".into() });
    assert_eq!(house.get("/readyz").await.status, 200);
    assert_eq!(house.get("/health").await.json()["status"], "ok");
}

#[actix::test]
async fn a_spawn_is_handed_over_and_its_agent_described() {
    let house = house();
    let body = json!({"name": "bo", "cli": "sh -c 'sleep 9'", "args": ["x"], "cwd": "/tmp",
        "spawnMode": "interactive", "model": "m"});
    let got = house.post("/api/spawn", &body.to_string()).await;
    let reply = got.json();
    assert_eq!((got.status, &reply["name"], &reply["runtime"]), (200, &"bo".into(), &"pty".into()));
    assert_eq!((&reply["pid"], &reply["success"]), (&4242.into(), &true.into()));
    assert_eq!((&reply["model"], &reply["agent_id"]), (&"m".into(), &"ag_1".into()));
    let spec = lock(&house.script).spawns.remove(0);
    assert_eq!((spec.program.as_str(), spec.args), ("sh", vec!["-c".into(), "sleep 9".into(), "x".into()]));
}

#[actix::test]
async fn a_refused_spawn_keeps_its_meaning() {
    let house = house();
    let name = AgentName::parse("a").unwrap();
    for (refused, status, code) in [
        (SpawnRefused::NameTaken(name), 409, "agent_exists"),
        (SpawnRefused::BadCwd("no such directory".into()), 400, "invalid_cwd"),
        (SpawnRefused::BadProgram { program: "x".into(), why: "not found".into() }, 400, "program_not_found"),
        (SpawnRefused::NodeOffline { why: "refused".into(), next: "wait".into() }, 503, "node_offline"),
    ] {
        lock(&house.script).refuse_spawn = Some(refused);
        let got = house.post("/api/spawn", r#"{"name":"a"}"#).await;
        is_envelope(&got, status, code);
        assert_eq!(got.json()["name"], "a");
        assert_eq!(got.json()["retryable"], status == 503);
    }
}

#[actix::test]
async fn a_release_needs_no_body_and_an_unknown_agent_is_success() {
    let house = house();
    let headers = format!("host: localhost\r\nx-api-key: {KEY}\r\n");
    for (path, extra, body) in [
        ("/api/spawned/ghost", "", ""),
        ("/api/spawned/gh%6Fst?force=true", "", ""),
        ("/api/spawned/ghost", "content-type: application/json\r\n", r#"{"reason":"done"}"#),
    ] {
        let got = house.with("DELETE", path, &format!("{headers}{extra}"), body).await;
        assert_eq!((got.status, got.json()["success"].as_bool()), (200, Some(true)), "{got:?}");
        assert_eq!(got.json()["name"], "ghost");
    }
    let asked = std::mem::take(&mut lock(&house.script).releases);
    assert_eq!(asked, [("ghost".into(), false), ("ghost".into(), true), ("ghost".into(), false)]);
}

#[actix::test]
async fn a_message_is_sent_through_the_engine_and_its_refusal_is_said() {
    let house = house();
    let got = house.post("/api/send", r#"{"to":"@al","message":"hi","mode":"steer","threadId":"t"}"#).await;
    assert_eq!((got.status, &got.json()["event_id"]), (200, &"m1".into()), "{got:?}");
    let sent = lock(&house.script).sends.remove(0);
    assert_eq!(sent.to, crate::messages::send::Recipient::Direct("al".into()));
    assert_eq!((sent.text.as_str(), sent.mode), ("hi", crate::messages::delivery::Mode::Steer));
    assert_eq!(sent.thread, Some(MsgId::from("t")));
    for (refused, status, code, retryable) in [
        (SendRefused::NoSuchRecipient("no agent al".into()), 404, "agent_not_found", false),
        (SendRefused::Unreachable("refused".into()), 503, "engine_unreachable", true),
    ] {
        lock(&house.script).refuse_send = Some(refused);
        let got = house.post("/api/send", r#"{"to":"al","text":"hi"}"#).await;
        is_envelope(&got, status, code);
        assert_eq!(got.json()["retryable"], retryable);
    }
}

#[actix::test]
async fn a_terminal_is_typed_to_resized_and_shown() {
    let house = house();
    let typed = house.post("/api/input/al", r#"{"data":"l\r"}"#).await;
    assert_eq!(typed.json(), json!({"name": "al", "bytes_written": 2}));
    assert_eq!(lock(&house.script).inputs, [b"l\r".to_vec()]);
    let resized = house.post("/api/resize/al", r#"{"rows":30,"cols":100}"#).await;
    assert_eq!(resized.json(), json!({"name": "al", "rows": 30, "cols": 100}));
    let plain = house.get("/api/spawned/al/snapshot").await.json();
    assert_eq!((&plain["format"], &plain["screen"]), (&"plain".into(), &"$ hello\nworld\n".into()));
    assert_eq!((&plain["rows"], &plain["cols"], &plain["cursor"]), (&40.into(), &120.into(), &json!([2, 1])));
    let ansi = house.get("/api/spawned/al/snapshot?format=ansi").await.json();
    assert_eq!(ansi["screen"], "G1tIeA==");
    let lines = house.get("/api/spawned/al/snapshot?format=json").await.json();
    assert_eq!(lines["screen"], json!(["$ hello", "world"]));
}

#[actix::test]
async fn the_lists_have_the_fields_that_clients_read() {
    let house = house();
    let agents = house.get("/api/spawned").await.json();
    let al = &agents["agents"][0];
    assert_eq!((&al["name"], &al["provider"], &al["cli"]), (&"al".into(), &"sh".into(), &"/bin/sh".into()));
    assert_eq!((&al["current_state"], &al["runtime"]), (&"idle".into(), &"pty".into()));
    for key in ["model", "sessionId", "team", "channels", "parent", "pid", "workerPid", "last_activity_ms"] {
        assert!(al.get(key).is_some(), "{key}");
    }
    let status = house.get("/api/status").await.json();
    assert_eq!((&status["agent_count"], &status["pending_delivery_count"]), (&1.into(), &1.into()));
    let pending = &status["pending_deliveries"][0];
    assert_eq!(pending["delivery_id"], "d1");
    assert_eq!((pending["attempts"].as_u64(), pending["queued_at_ms"].as_u64()), (Some(2), Some(1_000)));
    assert!(pending["age_ms"].as_u64().is_some_and(|age| age > 1_000_000_000_000), "{pending}");
    assert_eq!(status["auth"]["workspaces"][0]["workspace_id"], "ws_1");
    let session = house.get("/api/session").await.json();
    assert_eq!((&session["protocol_version"], &session["mode"]), (&2.into(), &"persist".into()));
    assert_eq!(session["workspace_key"], "rk_live_planted");
    let metrics = house.get("/api/metrics").await.json();
    assert_eq!(metrics["broker"]["active_agents"], 1);
    assert!(metrics["agents"][0]["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    assert_eq!(metrics["broker"]["total_crashes"], Value::Null, "nobody counted, so it is not 0");
    let renewed = house.post("/api/session/renew", "").await.json();
    assert_eq!(renewed, json!({"renewed": true, "expires_in_secs": 0, "persist": true}));
}

#[actix::test]
async fn the_stream_replays_then_goes_on_live_and_ends_when_asked() {
    let house = house();
    house.publish("one");
    house.publish("two");
    let mut ws = house.ws("?sinceSeq=1").await;
    assert_eq!(event(&mut ws).await["seq"], 2);
    house.publish("three");
    assert_eq!(event(&mut ws).await["seq"], 3);
    assert_eq!(house.get("/health").await.json()["wsConnections"], 1);
    house.server.close_streams();
    assert!(matches!(frame(&mut ws).await, Frame::Close(Some(_))));
    drop(ws);
    let stopping = tokio::time::Instant::now();
    house.server.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(STOP_TIME), "an ended stream held the server up");
}

#[actix::test]
async fn a_stream_finds_a_gap_only_for_what_is_gone() {
    let house = house();
    let total = RING_CAP + 5;
    for n in 1..=total {
        house.publish(n);
    }
    let mut fresh = house.ws("?sinceSeq=5").await;
    assert_eq!(event(&mut fresh).await["seq"], 6);
    let mut late = house.ws("?since_seq=3").await;
    let gap = event(&mut late).await;
    assert_eq!((&gap["kind"], &gap["oldestAvailable"]), (&"replay_gap".into(), &6.into()));
    assert_eq!(event(&mut late).await["seq"], 6);
    let mut foreign = house.ws("?sinceSeq=900&bootId=another").await;
    assert_eq!(event(&mut foreign).await["kind"], "replay_gap");
    let replayed = house.get(&format!("/api/events/replay?sinceSeq={}", total - 1)).await.json();
    assert_eq!((&replayed["gap"], &replayed["currentSeq"]), (&false.into(), &json!(total)));
    assert_eq!(replayed["events"].as_array().unwrap().len(), 1);
}

#[actix::test]
async fn a_result_is_taken_by_the_agents_own_token_and_by_no_other_key() {
    let house = house();
    let submit = async |headers: &str, body: &str| {
        let head = format!("host: localhost\r\ncontent-type: application/json\r\n{headers}");
        house.with("POST", "/api/agent-result", &head, body).await
    };
    let own = format!("x-agent-result-token: {RESULT_TOKEN}\r\n");
    let bearer = format!("authorization: Bearer {RESULT_TOKEN}\r\n");
    let full = r#"{"agent":"al","data":{"n":[1,null]},"final":false,"metadata":{"m":1}}"#;
    let taken = submit(&bearer, full).await;
    assert_eq!(taken.json(), json!({ "success": true, "name": "al", "result_id": "r1" }));
    for short in [r#"{"name":"al","result":"text"}"#, r#"{"data":null,"metadata":null}"#] {
        assert_eq!(submit(&own, short).await.status, 200, "{short}");
    }
    let results = std::mem::take(&mut lock(&house.script).results);
    let kept =
        |data: &str, is_final, metadata: Option<&str>| (data.into(), is_final, metadata.map(Into::into));
    assert_eq!(
        results,
        [
            kept(r#"{"n":[1,null]}"#, false, Some(r#"{"m":1}"#)),
            kept(r#""text""#, true, None),
            kept("null", true, None),
        ]
    );

    let api_key = format!("x-api-key: {KEY}\r\n");
    let as_token = format!("x-agent-result-token: {KEY}\r\n");
    for (headers, body) in [
        ("", full),
        (&api_key, full),
        (&as_token, full),
        (&own[..own.len() - 3], full),
        (&own, r#"{"agent":"bo","data":1}"#),
    ] {
        let headers = headers.trim_end();
        let headers = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
        is_envelope(&submit(&headers, body).await, 401, "unauthorized");
    }
    is_envelope(&submit(&own, r#"{"agent":"al"}"#).await, 400, "invalid_request");
    let long = json!({ "data": "x".repeat(agent_result::RESULT_MAX) }).to_string();
    is_envelope(&submit(&own, &long).await, 413, "payload_too_large");
    assert!(lock(&house.script).results.is_empty());
    let token_as_key = house.with("GET", "/api/status", &format!("host: localhost\r\n{bearer}"), "").await;
    is_envelope(&token_as_key, 401, "unauthorized");
}

#[actix::test]
async fn keys_are_typed_in_their_order_and_each_is_acked() {
    let house = house();
    let mut ws = house.socket("/api/input/al/stream").await;
    assert_eq!(event(&mut ws).await, json!({"type": "pty_input_ready", "name": "al"}));
    let keys = [
        Message::Text("ls".into()),
        Message::Binary("\u{e4}".into()),
        Message::Text(r#"{"type":"pty_input","data":"\r"}"#.into()),
    ];
    for key in keys {
        ws.send(key).await.unwrap();
    }
    for bytes in [2, 2, 1] {
        let ack = json!({"type": "pty_input_ack", "name": "al", "bytes_written": bytes});
        assert_eq!(event(&mut ws).await, ack);
    }
    assert_eq!(lock(&house.script).inputs.concat(), "ls\u{e4}\r".as_bytes());
    house.server.close_streams();
    assert!(matches!(frame(&mut ws).await, Frame::Close(Some(_))));
}

#[actix::test]
async fn whoever_types_to_nobody_is_told_in_a_frame() {
    let house = house();
    for (name, code, status) in [("nobody", "agent_not_found", 404), ("a%20b", "invalid_name", 400)] {
        let mut ws = house.socket(&format!("/api/input/{name}/stream")).await;
        let refused = event(&mut ws).await;
        assert_eq!(refused["type"], "pty_input_error");
        assert_eq!((&refused["code"], &refused["statusCode"]), (&json!(code), &json!(status)));
        assert!(matches!(frame(&mut ws).await, Frame::Close(Some(_))));
    }
    let got = house.get("/api/input/al/stream").await;
    is_envelope(&got, 400, "websocket_expected");
}

#[actix::test]
async fn whoever_drives_holds_messages_back_until_the_stream_ends_also_when_it_never_began() {
    let house = house();
    for before in [DeliveryMode::AutoInject, DeliveryMode::ManualFlush] {
        lock(&house.script).delivery_mode = before;
        let mut ws = house.socket("/api/input/al/stream?drive=true").await;
        assert_eq!(event(&mut ws).await["type"], "pty_input_ready");
        assert_eq!(lock(&house.script).delivery_mode, DeliveryMode::ManualFlush);
        ws.send(Message::Close(None)).await.unwrap();
        assert!(matches!(frame(&mut ws).await, Frame::Close(_)));
        assert_eq!(lock(&house.script).delivery_mode, before);
    }
    lock(&house.script).delivery_mode = DeliveryMode::AutoInject;
    lock(&house.script).hold_unanswered = true;
    let mut ws = house.socket("/api/input/al/stream?drive=true").await;
    assert_eq!(event(&mut ws).await["code"], "room_timeout");
    assert!(matches!(frame(&mut ws).await, Frame::Close(Some(_))));
    assert_eq!(lock(&house.script).delivery_mode, DeliveryMode::AutoInject);
    assert_eq!(house.post("/api/input/al", r#"{"data":"x"}"#).await.status, 200, "the lease is back");
}

#[actix::test]
async fn a_client_that_does_not_read_holds_nobody_up_and_learns_what_it_lost() {
    let house = house();
    let mut slow = house.ws("?sinceSeq=0").await;
    let filler = "x".repeat(4096);
    let total = 3 * (FEED_CAP + RING_CAP) as u64;
    for n in 1..total {
        house.publish(format!("{n} {filler}"));
    }
    house.publish("end");
    let current = house.hub.post().ask(|reply| Replay { since: EventSeq(0), boot: None, reply });
    assert_eq!(current.await.unwrap().current, EventSeq(total));
    assert_eq!(house.get("/health").await.status, 200);
    let (mut expected, mut gaps) = (1, 0);
    loop {
        let event = event(&mut slow).await;
        if event["kind"] == "replay_gap" {
            assert_eq!(event["requestedSinceSeq"], expected - 1);
            expected = event["oldestAvailable"].as_u64().unwrap();
            gaps += 1;
        } else {
            assert_eq!(event["seq"], expected);
            expected += 1;
            if event["detail"] == "end" {
                break;
            }
        }
    }
    assert!(gaps > 0, "nothing was lost, so nothing was tested");
    assert_eq!(expected, total + 1);
}

#[actix::test]
async fn debug_pages_answer_without_the_rooms_and_never_hold_a_secret() {
    let house = house();
    for path in ["/debug/actors", "/debug/actors?deep=1", "/debug/agents/al", "/health", "/api/status"] {
        let got = house.get(path).await;
        assert_eq!(got.status, 200, "{path}");
        for secret in SECRETS {
            assert!(!got.body.contains(secret), "{path} shows {secret}");
        }
    }
    let deep = house.get("/debug/actors?deep=1").await.json();
    assert_eq!(deep["cursors"]["al"]["received"], 7);
    lock(&house.script).silent = true;
    let actors = house.get("/debug/actors?deep=1").await.json();
    let ids: Vec<_> = actors["actors"].as_array().unwrap().iter().map(|a| a["id"].clone()).collect();
    assert_eq!(ids, ["agent_registry", "delivery_cursor/al", "pty_worker/al", "event_hub"]);
    let explained = house.get("/debug/agents/al").await.json();
    assert!(explained["summary"].as_str().is_some_and(|s| s.contains("agent registry")), "{explained}");
    is_envelope(&house.get("/api/spawned").await, 504, "room_timeout");
}

#[actix::test]
async fn an_agent_is_explained_in_a_sentence() {
    let house = house();
    let got = house.get("/debug/agents/al").await.json();
    assert_eq!(
        got["summary"],
        "al is idle, no output yet; its last message (seq 7 from bob) is written to the terminal and waits for: \
         the text to show in the composer; nothing to do"
    );
    assert_eq!((&got["last_message"]["rung"], &got["cursor"]["acked"]), (&"written".into(), &6.into()));
    assert_eq!(got["screen"]["lines"], json!(["$ hello", "world"]));
}

#[actix::test]
async fn a_fault_is_placed_only_where_faults_are_served() {
    let house = house_with(Options { faults: true, ..Options::default() });
    let got = house.post("/debug/fault/pty_worker%2Fal/handler", "").await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(house.post("/debug/fault/pty_worker/al/stopped", "").await.status, 200);
    is_envelope(&house.post("/debug/fault/pty_worker/no/handler", "").await, 404, "actor_not_found");
    is_envelope(&house.post("/debug/fault/event_hub/nowhere", "").await, 400, "invalid_request");
}

#[actix::test]
async fn a_shutdown_is_answered_before_it_begins() {
    let mut house = house();
    let got = house.post("/api/shutdown", "").await;
    assert_eq!(got.json(), json!({"status": "shutting_down"}));
    assert!(house.ends.recv().await.is_some());
    assert_eq!(house.post("/api/resume", "").await.status, 200);
    assert_eq!(house.ends.recv().await.as_deref(), Some("resume"));
}

#[actix::test]
async fn a_lease_that_is_renewed_lasts_and_one_that_is_not_ends_the_house() {
    let period = Duration::from_secs(1);
    let mut house = house_with(Options { lease: Some(period), ..Options::default() });
    let began = tokio::time::Instant::now();
    tokio::time::sleep(period / 2).await;
    assert_eq!(house.post("/api/session/renew", "").await.json()["expires_in_secs"], 1);
    house.ends.recv().await.unwrap();
    assert!(began.elapsed() >= period + period / 2);
}

#[actix::test]
async fn a_request_id_is_kept_when_harmless_and_made_otherwise() {
    let house = house();
    let head = "host: localhost\r\n";
    let kept = house.with("GET", "/health", &format!("{head}x-request-id: abc-1.2\r\n"), "").await;
    assert!(kept.head.contains("x-request-id: abc-1.2"), "{kept:?}");
    let made = house.with("GET", "/health", &format!("{head}x-request-id: a b\r\n"), "").await;
    assert!(!made.head.contains("x-request-id: a b"), "{made:?}");
}

#[actix::test]
async fn half_open_requests_are_closed_and_hold_nobody_up() {
    let house = house();
    let mut open = Vec::new();
    for n in 0..300 {
        let mut socket = TcpStream::connect(house.server.addr()).await.unwrap();
        // Half a first request, half a second one, and a refused body that never ends.
        let half = match n % 3 {
            0 => "GET /health HTTP/1.1\r\nhost: loc",
            1 => "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /health HTTP/1.1\r\nhost: loc",
            _ => "POST /x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        };
        socket.write_all(half.as_bytes()).await.unwrap();
        open.push(socket);
    }
    let began = tokio::time::Instant::now();
    assert_eq!(house.get("/health").await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(1));
    for mut socket in open {
        let mut rest = Vec::new();
        let closed = socket.read_to_end(&mut rest);
        let left = Duration::from_secs(15).saturating_sub(began.elapsed());
        tokio::time::timeout(left, closed).await.expect("a half-open request is closed in 15 s").ok();
    }
}

#[actix::test]
async fn a_taken_port_is_said_with_the_next_step() {
    let house = house();
    let taken = Options { port: house.server.addr().port(), ..Options::default() };
    let error = try_house(taken).err().expect("a taken port is refused");
    assert!(error.to_string().contains("--api-port"), "{error}");
}

fn letter(id: &str, name: &str) -> DeadLetter {
    DeadLetter {
        agent: "7".into(),
        name: AgentName::parse(name).unwrap(),
        delivery: id.into(),
        seq: Seq(3),
        note: crate::messages::delivery::Note {
            from: "bob".into(),
            target: name.into(),
            thread: None,
            msg_id: "m3".into(),
            body: "mind the tide".into(),
            sent_at: None,
            system: false,
        },
        reason: "the composer refused it".into(),
        attempts: 2,
        landed: false,
        at_ms: 0,
    }
}

#[actix::test]
async fn dead_letters_are_listed_and_tried_again_one_or_all() {
    let house = house();
    lock(&house.script).letters = vec![letter("d1", "al"), letter("d2", "gone")];
    let got = house.get("/api/dead-letters").await.json();
    assert_eq!(got["count"], 2);
    let first = &got["dead_letters"][0];
    for (key, value) in [
        ("id", json!("d1")),
        ("name", json!("al")),
        ("event_id", json!("m3")),
        ("body", json!("mind the tide")),
        ("reason", json!("the composer refused it")),
        ("at", json!("1970-01-01T00:00:00Z")),
    ] {
        assert_eq!(first[key], value, "{key}");
    }

    let path = "/api/dead-letters/redeliver";
    let one = house.post(path, r#"{"id":"d1"}"#).await;
    assert_eq!((one.status, one.json()["redelivered"].clone()), (200, json!(["d1"])));
    let all = house.post(path, r#"{"all":true}"#).await.json();
    assert_eq!((all["success"].clone(), all["redelivered"].clone()), (json!(false), json!(["d1"])));
    assert_eq!(all["failed"][0]["code"], "agent_not_running");
    for (body, status, code) in [
        (r#"{"id":"d2"}"#, 409, "agent_not_running"),
        (r#"{"id":"d9"}"#, 404, "dead_letter_not_found"),
        ("{}", 400, "invalid_request"),
        (r#"{"id":"d1","all":true}"#, 400, "invalid_request"),
    ] {
        let got = house.post(path, body).await;
        assert_eq!((got.status, got.json()["code"].clone()), (status, json!(code)), "{body}");
    }
    lock(&house.script).letters.clear();
    let none = house.post(path, r#"{"all":true}"#).await;
    assert_eq!((none.status, none.json()["success"].clone()), (200, json!(true)));
}

#[actix::test]
async fn messages_are_held_listed_and_let_through_in_the_shapes_that_clients_read() {
    let house = house();
    let at = "/api/spawned/al/delivery-mode";
    assert_eq!(house.get(at).await.json(), json!({"mode": "auto_inject"}));
    let held = house.put(at, &json!({"mode": "manual_flush", "previous": "auto_inject"})).await;
    assert_eq!(held.json(), json!({"mode": "manual_flush", "previous": "auto_inject", "flushed": 2}));
    for (mode, path, status, code) in [
        (json!({"mode": "auto_inject", "expect": "auto_inject"}), at, 409, "delivery_mode_conflict"),
        (json!({"mode": "sometimes"}), at, 400, "invalid_mode"),
        (json!({}), at, 400, "invalid_mode"),
        (json!({"mode": "auto_inject"}), "/api/spawned/nobody/delivery-mode", 404, "agent_not_found"),
    ] {
        let refused = house.put(path, &mode).await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (status, Some(code)),
            "{}",
            refused.body
        );
    }
    let note = Note {
        from: "bob".into(),
        target: "al".into(),
        thread: None,
        msg_id: MsgId::from("m1"),
        body: "fuel is low".into(),
        sent_at: None,
        system: false,
    };
    let pending =
        |id: &str| Pending { delivery: id.into(), note: note.clone(), mode: Mode::Steer, queued_at_ms: 7 };
    lock(&house.script).pending = vec![pending("d1"), pending("d2")];
    assert_eq!(
        house.get("/api/spawned/al/pending").await.json()["pending"][0],
        json!({"from": "bob", "body": "fuel is low", "target": "al", "priority": 0, "mode": "steer",
            "queued_at_ms": 7, "event_id": "m1", "delivery_id": "d1"})
    );
    assert_eq!(house.post("/api/spawned/al/flush", "").await.json(), json!({"flushed": 2}));
    assert_eq!(house.post("/api/spawned/al/flush", r#"{"id":"d2"}"#).await.json(), json!({"flushed": 1}));
    let refused = house.post("/api/spawned/al/answer", r#"{"choice":"yes"}"#).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("no_dialog")));
}

#[actix::test]
async fn what_upstream_has_routes_for_is_done_or_refused_in_words_and_never_pretended() {
    let house = house();
    let post = async |path: &str, body: &str| {
        let answer = house.post(path, body).await;
        (answer.status, answer.json())
    };
    let joined = post("/api/spawned/al/subscribe", r##"{"channels":["#dock","pier"]}"##).await;
    assert_eq!(joined, (200, json!({"name": "al", "channels": ["join", "#dock", "pier"]})));
    let (status, left) = post("/api/spawned/al/unsubscribe", r#"{"channels":["dock"]}"#).await;
    assert_eq!((status, &left["channels"]), (200, &json!(["leave", "dock"])));
    let engine = ChannelsRefused::Unreachable { channel: "dock".into(), why: "refused".into() };
    lock(&house.script).refuse_channels = Some(engine);
    for (path, body, status, code) in [
        ("/api/spawned/al/subscribe", r#"{"channels":["dock"]}"#, 503, "engine_unreachable"),
        ("/api/spawned/al/subscribe", r##"{"channels":["#"]}"##, 400, "invalid_request"),
        ("/api/spawned/../subscribe", r#"{"channels":["dock"]}"#, 400, "invalid_name"),
        ("/api/spawned/al/model", r#"{"model":"opus","timeout_ms":1}"#, 409, "model_not_changeable"),
        ("/api/spawned/nobody/model", r#"{"model":"opus"}"#, 404, "agent_not_found"),
        ("/api/preflight", r#"{"agents":[{"name":"../evil","cli":"cat"}]}"#, 400, "invalid_name"),
    ] {
        let (got, refused) = post(path, body).await;
        assert_eq!((got, refused["code"].as_str()), (status, Some(code)), "{path} {body}: {refused}");
    }
    let ready = post("/api/preflight", r#"{"agents":[{"name":"bo","cli":"cat"}]}"#).await;
    assert_eq!(ready, (200, json!({"queued": 0})));
}
