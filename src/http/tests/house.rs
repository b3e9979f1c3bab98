//! The server over those rooms, and requests to it byte by byte.

use super::*;

pub(super) struct House {
    pub(super) server: HttpServer,
    script: Shared,
    pub(super) hub: Child<EventHub>,
    pub(super) readiness: ReadinessBoard,
    pub(super) ends: mpsc::UnboundedReceiver<String>,
}

#[derive(Default)]
pub(super) struct Options {
    pub(super) starting: bool,
    pub(super) faults: bool,
    pub(super) lease: Option<Duration>,
    pub(super) port: u16,
}

pub(super) fn house() -> House {
    house_with(Options::default())
}

pub(super) fn house_with(options: Options) -> House {
    try_house(options).unwrap()
}

pub(super) fn try_house(options: Options) -> Result<House, HttpError> {
    let directory = Directory::default();
    let script = Shared::default();
    let (ends_tx, ends) = mpsc::unbounded_channel();
    let (hub, hub_seat) = Seat::reserve(ActorId::sole(ActorKind::EventHub), &directory);
    let wanted = Arc::new(AtomicUsize::new(0));
    hub_seat.start(None, move |_, life| EventHub::new(life, wanted, "boot-a".into()));
    let (rooms, seat) = Seat::<Rooms>::reserve(ActorId::sole(ActorKind::AgentRegistry), &directory);
    let worker = Arc::new(WorkerView::default());
    worker.detail.lock().unwrap().state = Some(AgentState::Idle);
    let agent = agent(&rooms, worker.clone());
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
        sidecar: SidecarDoors {
            register: rooms.post(),
            offer: rooms.post(),
            end: rooms.post(),
            gone: rooms.post(),
        },
    };
    let server = serve(config, doors, directory, readiness.clone())?;
    Ok(House { server, script, hub, readiness, ends })
}

/// The one agent that is known; all its doors lead to the rooms.
fn agent(rooms: &Child<Rooms>, worker: Arc<WorkerView>) -> AgentDoors {
    let spec = SpawnSpec {
        env: BTreeMap::from([("PASSWORD".into(), "hunter2-env".into())]),
        channels: vec!["general".into()],
        ..SpawnSpec::new(name("al"), "/bin/sh", vec!["hunter2-arg".into()], "/tmp".as_ref())
    };
    let view = AgentView {
        spec,
        agent_id: Some("ag_al".into()),
        phase: AgentPhase::Live,
        pid: Some(std::process::id()),
        session: None,
        since: std::time::SystemTime::now(),
        worker: Some(worker),
    };
    AgentDoors {
        view,
        input: rooms.post(),
        resize: rooms.post(),
        snapshot: rooms.post(),
        answer: rooms.post(),
        cursor: rooms.post(),
        hold: HoldDoors { set: rooms.post(), get: rooms.post(), pending: rooms.post(), flush: rooms.post() },
    }
}

/// A WebSocket of a client.
pub(super) type Socket = actix_codec::Framed<awc::BoxedSocket, awc::ws::Codec>;

/// An answer.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Got {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// The lines of a request that has the key, and these.
pub(super) fn keyed(more: &str) -> String {
    format!("host: localhost\r\nx-api-key: {KEY}\r\n{more}")
}

impl House {
    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.script)
    }

    /// Sends these bytes, and reads until the server closes.
    pub(super) async fn raw(&self, bytes: &[u8]) -> Got {
        let mut socket = TcpStream::connect(self.server.addr()).await.unwrap();
        // The server may answer and close before it has read everything.
        socket.write_all(bytes).await.ok();
        let mut answer = Vec::new();
        let reading = socket.read_to_end(&mut answer);
        within("an answer", reading).await.ok();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Got { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    pub(super) async fn with(&self, method: &str, path: &str, headers: &str, body: &str) -> Got {
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let head = format!("{method} {path} HTTP/1.1\r\n{headers}{length}connection: close\r\n\r\n");
        self.raw((head + body).as_bytes()).await
    }

    pub(super) async fn get(&self, path: &str) -> Got {
        self.with("GET", path, &keyed(""), "").await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Got {
        let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
        self.with("POST", path, &keyed(kind), body).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> Got {
        let head = keyed("content-type: application/json\r\n");
        self.with("PUT", path, &head, &body.to_string()).await
    }

    pub(super) fn publish(&self, detail: impl ToString) {
        let event = Event::SessionState { state: "test", detail: detail.to_string() };
        self.hub.post().tell(Publish(event)).unwrap();
    }

    pub(super) async fn ws(&self, query: &str) -> Socket {
        self.socket(&format!("/ws{query}")).await
    }

    pub(super) async fn socket(&self, path: &str) -> Socket {
        let url = format!("http://{}{path}", self.server.addr());
        let opening = awc::Client::new().ws(url).set_header("x-api-key", KEY).connect();
        opening.await.expect("a WebSocket").1
    }
}

pub(super) async fn frame(ws: &mut Socket) -> Frame {
    within("a frame", ws.next()).await.expect("an open stream").unwrap()
}

pub(super) async fn event(ws: &mut Socket) -> Value {
    match frame(ws).await {
        Frame::Text(text) => serde_json::from_slice(&text).unwrap(),
        other => panic!("not an event: {other:?}"),
    }
}
