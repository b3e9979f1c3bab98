//! An engine on loopback that says what a test makes it say.

use super::*;

/// What the next handshake meets.
enum Door {
    Refuse(u16),
}

/// What the broker said.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    Frame(Value),
    Ping,
    Closed(Option<(u16, String)>),
}

/// What the engine does.
pub(super) enum Do {
    Say(Value),
    Close(&'static str),
    /// Stops reading and answering, and keeps the connection.
    FallSilent,
}

pub(super) struct Engine {
    pub(super) endpoint: EngineEndpoint,
    doors: Arc<Mutex<VecDeque<Door>>>,
    sockets: UnboundedReceiver<Socket>,
    /// What `/health` says.
    pub(super) version: Arc<Mutex<&'static str>>,
}

pub(super) struct Socket {
    pub(super) token: String,
    pub(super) from: UnboundedReceiver<Said>,
    pub(super) to: UnboundedSender<Do>,
}

impl Engine {
    pub(super) async fn start() -> Self {
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

    pub(super) fn refuse(&self, status: u16) {
        self.doors.lock().unwrap().push_back(Door::Refuse(status));
    }

    pub(super) async fn socket(&mut self) -> Socket {
        within("a socket", self.sockets.recv()).await.unwrap()
    }

    /// A socket on which the session has become live, in the baseline dialect.
    pub(super) async fn live(&mut self) -> Socket {
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
    pub(super) fn say(&self, frame: Value) {
        self.to.send(Do::Say(frame)).unwrap();
    }

    /// Ends the connection, and says why.
    pub(super) fn close(&self, reason: &'static str) {
        self.to.send(Do::Close(reason)).unwrap();
    }

    /// See [`Do::FallSilent`].
    pub(super) fn fall_silent(&self) {
        self.to.send(Do::FallSilent).unwrap();
    }

    pub(super) fn reply(&self, to: &Value, data: &Value) {
        self.say(json!({"v": 1, "type": "reply", "id": to["id"], "ok": true, "data": data}));
    }

    pub(super) fn error(&self, id: &str, code: &str) {
        let (kind, message) = ("error", "words");
        self.say(json!({"v": 1, "type": kind, "id": id, "ok": false, "code": code, "message": message}));
    }

    pub(super) fn deliver(&self, agent_id: &str, agent: &str, seq: u64) {
        self.say(json!({
            "v": 1, "type": "deliver", "delivery_id": format!("del_{seq}_{agent_id}"), "agent_id": agent_id,
            "agent": agent, "msg_id": format!("m{seq}"), "seq": seq, "mode": "wait",
            "payload": {"type": "message.created", "data": {"text": "hello", "agent_name": "eve"}}
        }));
    }

    pub(super) async fn said(&mut self) -> Said {
        within("the broker says something", self.from.recv()).await.unwrap()
    }

    /// The next frame, heartbeats left out; it must be of this type.
    pub(super) async fn frame(&mut self, kind: &str) -> Value {
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
    pub(super) fn so_far(&mut self) -> Vec<Value> {
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

    pub(super) async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            if let Said::Closed(how) = self.said().await {
                return how;
            }
        }
    }
}
