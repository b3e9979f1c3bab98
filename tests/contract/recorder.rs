//! A listener between a broker and its engine, on their socket: it passes everything on and writes it down,
//! HTTP exchanges and the frames of node sockets alike.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use actix_http::ws::{OpCode, Parser};
use bytes::BytesMut;
use relay_broker::wire::frames::BrokerFrame;
use serde_json::{Value, json};

/// Larger than any frame or body here.
const LARGEST: usize = 8 << 20;

/// Which end said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Broker,
    Engine,
}

/// A frame of a node socket.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Counts sockets in the order in which they were opened.
    pub(crate) socket: usize,
    pub(crate) from: Side,
    pub(crate) value: Value,
    /// The recorder answered it itself, as an engine of the 5.0 baseline does with what it cannot read.
    pub(crate) refused: bool,
}

impl Frame {
    pub(crate) fn kind(&self) -> &str {
        self.value["type"].as_str().unwrap_or("(untyped)")
    }
}

/// A request over HTTP with its answer.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// `POST /v1/nodes`
    pub(crate) place: String,
    pub(crate) request: Value,
    pub(crate) status: u16,
    pub(crate) answer: Value,
}

/// Everything that was said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tape {
    pub(crate) frames: Vec<Frame>,
    pub(crate) exchanges: Vec<Exchange>,
    /// What was no HTTP or no frame; a run with any has failed.
    pub(crate) faults: Vec<String>,
    /// How sockets were closed: by whom and with what code.
    pub(crate) closes: Vec<(Side, Option<u16>)>,
}

struct Shared {
    engine: SocketAddr,
    baseline: bool,
    tape: Mutex<Tape>,
    node_sockets: AtomicUsize,
    ending: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// A running recorder; ended when dropped.
pub(crate) struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Listens before the engine at `http://<address>`. With `baseline`, frames that a 5.0 engine cannot read
    /// are answered as it would, and never reach ours.
    pub(crate) fn before(engine: &str, baseline: bool) -> Self {
        let engine = engine.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            engine,
            baseline,
            tape: Mutex::default(),
            node_sockets: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let listening = std::thread::spawn({
            let shared = shared.clone();
            move || {
                for client in listener.incoming().map_while(Result::ok) {
                    if shared.ending.load(Ordering::SeqCst) {
                        return;
                    }
                    let shared = shared.clone();
                    // Ends with its connection, which the recorder's drop ends.
                    std::thread::spawn(move || shared.attend(client));
                }
            }
        });
        Self { address, shared, listener: Some(listening) }
    }

    /// Where the engine seems to be.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that was said so far.
    pub(crate) fn tape(&self) -> Tape {
        self.shared.tape().clone()
    }

    /// Cuts every connection, as a network does.
    pub(crate) fn cut(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            // One that has ended by itself is cut already.
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the listener; if even that fails it has ended already.
        TcpStream::connect(self.address).ok();
        if let Some(listener) = self.listener.take() {
            listener.join().unwrap();
        }
    }
}

impl Shared {
    fn tape(&self) -> MutexGuard<'_, Tape> {
        self.tape.lock().unwrap()
    }

    fn attend(&self, client: TcpStream) {
        // A connection that breaks is the business of its two ends.
        if let Err(error) = self.pass_on(client)
            && error.kind() == io::ErrorKind::InvalidData
        {
            self.tape().faults.push(error.to_string());
        }
    }

    fn pass_on(&self, mut client: TcpStream) -> io::Result<()> {
        let mut engine = TcpStream::connect(self.engine)?;
        for stream in [&client, &engine] {
            stream.set_nodelay(true)?;
            self.open.lock().unwrap().push(stream.try_clone()?);
        }
        let (mut from_client, mut from_engine) = (BytesMut::new(), BytesMut::new());
        while let Some(request) = Message::read(&mut client, &mut from_client)? {
            engine.write_all(&request.bytes)?;
            let answer = Message::read(&mut engine, &mut from_engine)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let mut line = request.start.split(' ');
            let place = format!("{} {}", line.next().unwrap_or(""), line.next().unwrap_or(""));
            let status = answer.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            let switched = status == 101;
            self.tape().exchanges.push(Exchange {
                place,
                request: request.body,
                status,
                answer: answer.body,
            });
            client.write_all(&answer.bytes)?;
            if switched {
                let socket = self.node_sockets.fetch_add(1, Ordering::SeqCst);
                return self.frames(socket, client, from_client, engine, from_engine);
            }
        }
        Ok(())
    }

    /// Passes on the frames of a socket in both directions until one ends.
    fn frames(
        &self,
        socket: usize,
        mut client: TcpStream,
        from_client: BytesMut,
        mut engine: TcpStream,
        from_engine: BytesMut,
    ) -> io::Result<()> {
        // Both the engine's frames and our refusals go to the client.
        let to_client = Mutex::new(client.try_clone()?);
        let to_engine = engine.try_clone()?;
        std::thread::scope(|scope| {
            let answers = scope.spawn(|| {
                let ended = self.flow(socket, Side::Engine, &mut engine, from_engine, |bytes, _| {
                    to_client.lock().unwrap().write_all(bytes).map(|()| false)
                });
                // The other direction has nobody to talk to any more.
                engine.shutdown(Shutdown::Both).ok();
                to_client.lock().unwrap().shutdown(Shutdown::Both).ok();
                ended
            });
            let mut out = &to_engine;
            let asked = self.flow(socket, Side::Broker, &mut client, from_client, |bytes, text| {
                if self.baseline && text.is_some_and(|text| BrokerFrame::decode_strict(text).is_err()) {
                    to_client.lock().unwrap().write_all(&refusal())?;
                    return Ok(true);
                }
                out.write_all(bytes).map(|()| false)
            });
            to_engine.shutdown(Shutdown::Write).ok();
            let answered = answers.join().map_err(|_| io::Error::other("a direction panicked"))?;
            asked.and(answered)
        })
    }

    /// Passes on frames in one direction. `pass` gets each frame's bytes, and its text if it ends one; it
    /// answers whether it refused it.
    fn flow(
        &self,
        socket: usize,
        from: Side,
        stream: &mut TcpStream,
        mut buffer: BytesMut,
        mut pass: impl FnMut(&[u8], Option<&str>) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut text = Vec::new();
        loop {
            let before = buffer.clone();
            let parsed = Parser::parse(&mut buffer, from == Side::Broker, LARGEST);
            let Some((last, code, payload)) = parsed.map_err(invalid)? else {
                buffer = before;
                if fill(stream, &mut buffer)? == 0 {
                    return Ok(());
                }
                continue;
            };
            let bytes = &before[..before.len() - buffer.len()];
            let payload = payload.unwrap_or_default();
            match code {
                OpCode::Text | OpCode::Continue => {
                    text.extend_from_slice(&payload);
                    if !last {
                        pass(bytes, None)?;
                        continue;
                    }
                    let whole = String::from_utf8(std::mem::take(&mut text)).map_err(invalid)?;
                    let value = serde_json::from_str(&whole).map_err(invalid)?;
                    // Written down before it is passed on: an answer never stands before its question.
                    let place = {
                        let mut tape = self.tape();
                        tape.frames.push(Frame { socket, from, value, refused: false });
                        tape.frames.len() - 1
                    };
                    if pass(bytes, Some(&whole))? {
                        self.tape().frames[place].refused = true;
                    }
                }
                OpCode::Close => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    self.tape().closes.push((from, code));
                    pass(bytes, None)?;
                }
                OpCode::Ping | OpCode::Pong => drop(pass(bytes, None)?),
                OpCode::Binary | OpCode::Bad => return Err(invalid(format!("a {code:?} frame"))),
            }
        }
    }
}

/// What a 5.0 engine says to a frame that it cannot read: under an id of its own, whatever the frame's was.
fn refusal() -> BytesMut {
    let error = json!({
        "v": 1, "type": "error", "id": "178000000000000000", "ok": false,
        "code": "invalid_message", "message": "Invalid node message",
    });
    let mut bytes = BytesMut::new();
    Parser::write_message(&mut bytes, error.to_string(), OpCode::Text, true, false);
    bytes
}

/// A request or an answer.
struct Message {
    /// Its first line.
    start: String,
    /// Null when there is none, text when it is no JSON.
    body: Value,
    /// All of it, as it came.
    bytes: BytesMut,
}

impl Message {
    /// Reads one; `None` at an orderly end.
    fn read(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Option<Self>> {
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if fill(stream, buffer)? == 0 {
                return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
        let header = |wanted: &str| {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
        };
        if header("transfer-encoding").is_some() {
            return Err(invalid(format!("a body of unknown length: {text}")));
        }
        let length = header("content-length").map_or(Ok(0), str::parse::<usize>).map_err(invalid)?;
        while buffer.len() < head + length {
            if fill(stream, buffer)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let bytes = buffer.split_to(head + length);
        let body = &bytes[head..];
        let body = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(_) if body.is_empty() => Value::Null,
            Err(_) => Value::String(String::from_utf8_lossy(body).into_owned()),
        };
        Ok(Some(Self { start: text.lines().next().unwrap_or_default().to_owned(), body, bytes }))
    }
}

/// Reads what there is; 0 at the end.
fn fill(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
    let mut chunk = [0; 16 << 10];
    let read = stream.read(&mut chunk)?;
    buffer.extend_from_slice(&chunk[..read]);
    Ok(read)
}

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}
