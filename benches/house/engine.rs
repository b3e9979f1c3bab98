//! An engine that does what the bench says and no more: no storage, no rights, no rules, so that what is
//! measured is the broker. It enrols anybody, numbers each agent's mail, keeps it until it is acked and sends
//! the unacked again after an `inventory.sync`, as engines do.

use std::{
    collections::{HashMap, VecDeque},
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use relay_broker::{
    ids::{AgentId, AgentToken, NodeToken, Seq, WorkspaceId},
    messages::delivery::Mode,
    wire::{
        api::{CreateNode, CreatedNode, PublicNode, Success, Workspace},
        frames::{
            AgentRegistered, BrokerFrame, DeliverFrame, EngineFrame, InventorySync, InventorySynced,
            NodeRegistered, Reply,
        },
    },
};
use serde_json::{json, value::to_raw_value};

use crate::{clock, socket};

/// What the engine hears, with the time it heard it.
#[derive(Debug)]
pub(crate) enum Heard {
    /// `node.register`
    Node,
    /// `agent.register`
    Agent,
    /// An ack: the agent has everything up to this.
    Acked {
        /// Whose.
        agent: String,
        /// Cumulative.
        up_to: u64,
    },
}

/// The engine.
pub(crate) struct Engine {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    heard: Receiver<(u64, Heard)>,
}

#[derive(Default)]
struct Shared {
    node: Option<TcpStream>,
    mailboxes: HashMap<String, Mailbox>,
}

#[derive(Default)]
struct Mailbox {
    sent: u64,
    acked: u64,
    unacked: VecDeque<(u64, String)>,
}

impl Engine {
    /// An engine on a free port.
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let (tell, heard) = channel();
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, tell) = (serving.clone(), tell.clone());
                thread::spawn(move || {
                    if let Err(error) = serve(stream, &shared, &tell) {
                        eprintln!("engine: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, shared, heard })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was heard next, and when.
    pub(crate) fn next(&self, patience: Duration) -> Result<(u64, Heard)> {
        self.heard.recv_timeout(patience).context("the engine hears nothing")
    }

    /// Delivers these texts, all at once. Answers when the first byte went out.
    pub(crate) fn deliver<'a>(&self, mail: impl Iterator<Item = (&'a str, String)>) -> Result<u64> {
        let mut shared = lock(&self.shared);
        let mut out = Vec::new();
        for (agent, text) in mail {
            let mailbox = shared.mailboxes.entry(agent.to_owned()).or_default();
            mailbox.sent += 1;
            let frame = frame(agent, mailbox.sent, &text)?;
            socket::put(&mut out, socket::TEXT, false, frame.as_bytes());
            mailbox.unacked.push_back((mailbox.sent, frame));
        }
        let Some(node) = &mut shared.node else { bail!("no node is connected") };
        let at = clock::now();
        node.write_all(&out)?;
        Ok(at)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn agent_id(agent: &str) -> AgentId {
    AgentId::from(format!("id_{agent}"))
}

fn frame(agent: &str, seq: u64, text: &str) -> Result<String> {
    let payload = json!({"type": "dm.received", "data": {"text": text, "agent_name": "harbourmaster"}});
    let frame = DeliverFrame {
        delivery_id: format!("del_{seq}_{agent}").as_str().into(),
        agent_id: agent_id(agent),
        agent: agent.to_owned(),
        msg_id: format!("{seq:018}").as_str().into(),
        seq: Seq(seq),
        mode: Mode::Wait,
        payload: to_raw_value(&payload)?,
    };
    Ok(EngineFrame::Deliver(frame).encode())
}

/// One connection: HTTP requests, or a node's socket.
fn serve(stream: TcpStream, shared: &Mutex<Shared>, tell: &Sender<(u64, Heard)>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut writing = stream.try_clone()?;
    let mut reading = BufReader::with_capacity(64 << 10, stream);
    // The end of the stream ends a connection that is kept alive.
    while let Ok(head) = socket::http_head(&mut reading) {
        if let Some(key) = socket::header(&head, "sec-websocket-key") {
            let accept = actix_http::ws::hash_key(key.as_bytes());
            writing.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ")?;
            writing.write_all(&accept)?;
            writing.write_all(b"\r\n\r\n")?;
            lock(shared).node = Some(writing);
            return node(&mut reading, shared, tell);
        }
        let length = socket::header(&head, "content-length").map_or(Ok(0), str::parse)?;
        let mut body = vec![0; length];
        reading.read_exact(&mut body)?;
        let (status, answer) = answer(head.lines().next().unwrap_or_default(), &body)?;
        write!(
            writing,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
    }
    Ok(())
}

/// The few answers that a broker cannot start without.
fn answer(request: &str, body: &[u8]) -> Result<(&'static str, String)> {
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let ok = |data: serde_json::Value| Ok(("200 OK", json!({"ok": true, "data": data}).to_string()));
    match (method, path) {
        ("GET", "/v1/workspace") => {
            let id = WorkspaceId::from("ws_bench");
            let workspace: Workspace = serde_json::from_value(json!({"id": id, "name": "bench"}))?;
            Ok(("200 OK", serde_json::to_string(&Success::new(workspace))?))
        }
        ("GET", path) if path.starts_with("/v1/nodes?") => ok(json!([])),
        ("POST", "/v1/nodes") => {
            let asked: CreateNode = serde_json::from_slice(body)?;
            let id = asked.node_id.context("the broker names no node id")?;
            let node: PublicNode = serde_json::from_value(json!({"id": id, "name": asked.name}))?;
            let created = CreatedNode { node, token: NodeToken::from("nt_bench") };
            Ok(("201 Created", serde_json::to_string(&Success::new(created))?))
        }
        ("POST", "/v1/channels") => ok(json!({"id": "1", "name": "general"})),
        ("POST", path) if path.ends_with("/join") => ok(json!({"channel": "general", "agent_id": "1"})),
        _ => {
            let error = json!({"ok": false, "error": {"code": "not_found", "message": request}});
            Ok(("404 Not Found", error.to_string()))
        }
    }
}

fn node(reading: &mut impl Read, shared: &Mutex<Shared>, tell: &Sender<(u64, Heard)>) -> Result<()> {
    let mut payload = Vec::new();
    loop {
        // A broker that was killed ends the stream without a word.
        let Ok(opcode) = socket::next(reading, &mut payload) else { return Ok(()) };
        let at = clock::now();
        match opcode {
            socket::TEXT => {
                let frame = BrokerFrame::decode_extended(std::str::from_utf8(&payload)?)?;
                said(frame, at, shared, tell)?;
            }
            socket::PING => reply(&mut lock(shared), socket::PONG, &payload)?,
            socket::CLOSE => return Ok(()),
            _ => {}
        }
    }
}

fn reply(shared: &mut Shared, opcode: u8, payload: &[u8]) -> Result<()> {
    let Some(node) = &mut shared.node else { return Ok(()) };
    Ok(socket::send(node, opcode, false, payload)?)
}

fn said(frame: BrokerFrame, at: u64, shared: &Mutex<Shared>, tell: &Sender<(u64, Heard)>) -> Result<()> {
    let mut shared = lock(shared);
    let (heard, answer) = match frame {
        BrokerFrame::NodeRegister(asked) => {
            let node = NodeRegistered {
                id: asked.node_id.into(),
                name: asked.name,
                accepted_capabilities: Vec::new(),
            };
            (Some(Heard::Node), asked.id.map(|id| Reply::new(id, &node)))
        }
        BrokerFrame::AgentRegister(asked) => {
            let mailbox = shared.mailboxes.entry(asked.name.clone()).or_default();
            let agent = AgentRegistered {
                agent_id: agent_id(&asked.name),
                token: AgentToken::from("at_bench"),
                name: Some(asked.name.clone()),
                delivery_ack_seq: Some(Seq(mailbox.acked)),
            };
            (Some(Heard::Agent), asked.id.map(|id| Reply::new(id, &agent)))
        }
        BrokerFrame::DeliveryAck(ack) => {
            let up_to = ack.up_to_seq.0;
            let mailbox = shared.mailboxes.entry(ack.agent.clone()).or_default();
            mailbox.acked = mailbox.acked.max(up_to);
            let covered = mailbox.unacked.partition_point(|(seq, _)| *seq <= up_to);
            mailbox.unacked.drain(..covered);
            (Some(Heard::Acked { agent: ack.agent, up_to }), None)
        }
        BrokerFrame::InventorySync(sync) => {
            let answer = sync.id.clone().map(|id| Reply::new(id, &InventorySynced::default()));
            replay(&mut shared, &sync)?;
            (None, answer)
        }
        _ => (None, None),
    };
    if let Some(answer) = answer {
        reply(&mut shared, socket::TEXT, EngineFrame::Reply(answer).encode().as_bytes())?;
    }
    if let Some(heard) = heard {
        // The run may be over.
        tell.send((at, heard)).ok();
    }
    Ok(())
}

/// Everything unacked, once more.
fn replay(shared: &mut Shared, sync: &InventorySync) -> Result<()> {
    let mut out = Vec::new();
    for agent in &sync.agents {
        if let Some(mailbox) = shared.mailboxes.get(agent.name.as_str()) {
            for (_, frame) in &mailbox.unacked {
                socket::put(&mut out, socket::TEXT, false, frame.as_bytes());
            }
        }
    }
    let Some(node) = &mut shared.node else { return Ok(()) };
    Ok(node.write_all(&out)?)
}
