//! What stands between a broker and a real engine and, when told to, answers in its stead or says things that no
//! engine says.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use relay_broker::config::env;

use crate::support::{
    House, expect,
    frames::{Frame, read_head},
    house::Builder,
    until, until_within,
};

/// How a request is answered.
#[derive(Clone, Debug)]
pub(crate) enum Treat {
    /// By the engine.
    Pass,
    /// By the engine, with this in the `Date` header.
    Dated(&'static str),
    /// With these bytes, and then the connection ends.
    Answer(String),
    /// Not at all, and the connection stays open.
    Hang,
    /// Not at all, and the connection ends.
    HangUp,
}

/// Which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Handshakes of node sockets.
    Socket,
    /// Everything else.
    Calls,
}

/// The meddler. Dropping it ends every connection.
pub(crate) struct Meddler {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    engine: SocketAddr,
    ending: AtomicBool,
    treats: Mutex<(Treat, Treat)>,
    /// The first line of every request, and when it came.
    heard: Mutex<Vec<(Instant, String)>>,
    open: Mutex<Vec<TcpStream>>,
    /// The broker's end of the newest node socket, and how many there have been.
    node: Mutex<(Option<TcpStream>, usize)>,
    /// The words of the pongs that the broker sent.
    pongs: Mutex<Vec<Vec<u8>>>,
    heartbeats: AtomicUsize,
}

impl Meddler {
    /// One that lets everything pass.
    pub(crate) fn before(engine: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            engine,
            ending: AtomicBool::new(false),
            treats: Mutex::new((Treat::Pass, Treat::Pass)),
            heard: Mutex::default(),
            open: Mutex::default(),
            node: Mutex::default(),
            pongs: Mutex::default(),
            heartbeats: AtomicUsize::new(0),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for broker in listener.incoming().flatten() {
                    if shared.ending.load(SeqCst) {
                        return;
                    }
                    let shared = Arc::clone(&shared);
                    // How a connection ends is the test's doing.
                    thread::spawn(move || serve(broker, &shared).ok());
                }
            }
        });
        Self { addr, shared, acceptor: Some(acceptor) }
    }

    /// A broker whose engine it is.
    pub(crate) fn house(&self, key: &str) -> Builder {
        let url = format!("http://{}", self.addr);
        House::command(&["up"]).arg("--engine").arg(&url).env(env::WORKSPACE_KEY, key)
    }

    /// From now on.
    pub(crate) fn treat(&self, door: Door, treat: Treat) {
        let mut treats = self.shared.treats.lock().unwrap();
        match door {
            Door::Socket => treats.0 = treat,
            Door::Calls => treats.1 = treat,
        }
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        self.shared.cut();
    }

    /// Node sockets that have been open so far.
    pub(crate) fn sockets(&self) -> usize {
        self.shared.node.lock().unwrap().1
    }

    /// Waits until more than `before` node sockets have been open.
    pub(crate) fn reconnected(&self, before: usize) {
        until("another node socket", || {
            let sockets = self.sockets();
            expect(sockets > before, || format!("{sockets} sockets so far"))
        });
    }

    /// Waits for so many more heartbeats of the broker.
    pub(crate) fn beats(&self, more: usize) {
        let before = self.shared.heartbeats.load(SeqCst);
        until("heartbeats", || {
            let now = self.shared.heartbeats.load(SeqCst);
            expect(now >= before + more, || format!("{} of {more}", now - before))
        });
    }

    /// When requests whose first line begins so came.
    pub(crate) fn heard(&self, start: &str) -> Vec<Instant> {
        let heard = self.shared.heard.lock().unwrap();
        heard.iter().filter(|(_, line)| line.starts_with(start)).map(|(at, _)| *at).collect()
    }

    /// Says something to the broker on its node socket: whole WebSocket frames.
    pub(crate) fn say(&self, frames: &[u8]) -> io::Result<()> {
        self.shared.say(frames)
    }

    /// Waits until the broker has read everything that was said: it answers a ping in its turn.
    pub(crate) fn until_read(&self, nth: usize) {
        let question = [QUESTION, nth.to_string().as_bytes()].concat();
        self.say(&frame(PING, &question)).unwrap();
        until_within(Duration::from_secs(120), "everything is read", || {
            let pongs = self.shared.pongs.lock().unwrap();
            expect(pongs.contains(&question), || format!("{} pongs", pongs.len()))
        });
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.shared.ending.store(true, SeqCst);
        self.cut();
        // Wakes the acceptor; when it has ended already there is nobody to wake.
        TcpStream::connect(self.addr).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
    }
}

impl Shared {
    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            // One that has ended is cut already.
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Passes frames of the engine on.
    fn to_broker(&self, engine: &mut BufReader<TcpStream>, nth: usize) -> io::Result<()> {
        loop {
            let frame = Frame::read(engine)?;
            let mut node = self.node.lock().unwrap();
            match &mut *node {
                (Some(broker), newest) if *newest == nth => broker.write_all(&frame.raw)?,
                _ => return Ok(()),
            }
        }
    }

    /// Passes frames of the broker on.
    fn to_engine(&self, broker: &mut TcpStream, engine: &mut TcpStream) -> io::Result<()> {
        loop {
            let (raw, words) = read_masked(broker)?;
            if raw[0] & 0x0f == PONG && words.starts_with(QUESTION) {
                // The engine has not asked.
                self.pongs.lock().unwrap().push(words);
                continue;
            }
            if String::from_utf8_lossy(&words).contains("\"node.heartbeat\"") {
                self.heartbeats.fetch_add(1, SeqCst);
            }
            engine.write_all(&raw)?;
        }
    }

    fn say(&self, frames: &[u8]) -> io::Result<()> {
        let mut node = self.node.lock().unwrap();
        node.0.as_mut().ok_or(io::ErrorKind::NotConnected)?.write_all(frames)
    }
}

fn serve(mut broker: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    broker.set_nodelay(true)?;
    shared.open.lock().unwrap().push(broker.try_clone()?);
    let head = read_head(&mut broker)?;
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let door = if line.starts_with("GET /v1/node/ws") { Door::Socket } else { Door::Calls };
    shared.heard.lock().unwrap().push((Instant::now(), line));
    let treat = {
        let treats = shared.treats.lock().unwrap();
        if door == Door::Socket { treats.0.clone() } else { treats.1.clone() }
    };
    let date = match treat {
        Treat::Pass => None,
        Treat::Dated(date) => Some(date),
        Treat::Answer(answer) => {
            broker.write_all(answer.as_bytes())?;
            return broker.shutdown(Shutdown::Write);
        }
        // Whoever asked gives up, or the test ends.
        Treat::Hang => return broker.read(&mut [0; 1]).map(drop),
        Treat::HangUp => return broker.shutdown(Shutdown::Both),
    };
    let mut engine = TcpStream::connect(shared.engine)?;
    engine.set_nodelay(true)?;
    shared.open.lock().unwrap().push(engine.try_clone()?);
    match door {
        Door::Socket => {
            engine.write_all(&head)?;
            socket(broker, engine, date, shared)
        }
        // One call, one connection: whatever comes next is looked at too.
        Door::Calls => {
            engine.write_all(&with(&head, "Connection", "close"))?;
            call(broker, engine, date)
        }
    }
}

fn call(mut broker: TcpStream, mut engine: TcpStream, date: Option<&str>) -> io::Result<()> {
    let up = thread::spawn({
        let (mut broker, mut engine) = (broker.try_clone()?, engine.try_clone()?);
        move || {
            // The end of either is the end of both.
            io::copy(&mut broker, &mut engine).ok();
            engine.shutdown(Shutdown::Both).ok();
        }
    });
    if let Some(date) = date {
        let head = read_head(&mut engine)?;
        broker.write_all(&with(&head, "Date", date))?;
    }
    io::copy(&mut engine, &mut broker).ok();
    broker.shutdown(Shutdown::Both).ok();
    up.join().map_err(|_| io::Error::other("the way up failed"))
}

fn socket(
    mut broker: TcpStream,
    mut engine: TcpStream,
    date: Option<&str>,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    let mut incoming = BufReader::with_capacity(64 << 10, engine.try_clone()?);
    let head = read_head(&mut incoming)?;
    broker.write_all(&date.map_or(head.clone(), |date| with(&head, "Date", date)))?;
    let nth = {
        let mut node = shared.node.lock().unwrap();
        *node = (Some(broker.try_clone()?), node.1 + 1);
        node.1
    };
    let up = thread::spawn({
        let (mut broker, shared) = (broker.try_clone()?, Arc::clone(shared));
        move || {
            // The end of either is the end of both.
            shared.to_engine(&mut broker, &mut engine).ok();
            engine.shutdown(Shutdown::Both).ok();
        }
    });
    shared.to_broker(&mut incoming, nth).ok();
    broker.shutdown(Shutdown::Both).ok();
    up.join().map_err(|_| io::Error::other("the way up failed"))
}

/// A head with another value of one header.
fn with(head: &[u8], name: &str, value: &str) -> Vec<u8> {
    let head = String::from_utf8_lossy(head);
    let start = format!("{}:", name.to_ascii_lowercase());
    let lines = head.trim_end().split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with(&start));
    format!("{}\r\n{name}: {value}\r\n\r\n", lines.collect::<Vec<_>>().join("\r\n")).into_bytes()
}

const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
const PING: u8 = 9;
const PONG: u8 = 10;
/// How the words of our own pings begin.
const QUESTION: &[u8] = b"read? ";

/// A whole message as a server sends it.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    part(0x80 | opcode, payload)
}

/// A text message in parts.
pub(crate) fn parts(payload: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, piece) in payload.chunks(size).enumerate() {
        let opcode = if i == 0 { TEXT } else { CONTINUATION };
        let last = (i + 1) * size >= payload.len();
        out.extend(part(if last { 0x80 | opcode } else { opcode }, piece));
    }
    out
}

fn part(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(short.try_into().unwrap()),
        length => {
            out.push(127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(payload);
    out
}

/// A frame of a client as it came, and its words.
fn read_masked(from: &mut impl Read) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut raw = vec![0; 2];
    from.read_exact(&mut raw)?;
    let extra = match raw[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    raw.resize(2 + extra + 4, 0);
    from.read_exact(&mut raw[2..])?;
    let size = match extra {
        0 => u64::from(raw[1] & 0x7f),
        _ => raw[2..2 + extra].iter().fold(0, |size, byte| size << 8 | u64::from(*byte)),
    };
    let header = raw.len();
    let mask: [u8; 4] = raw[header - 4..].try_into().map_err(io::Error::other)?;
    raw.resize(header + usize::try_from(size).map_err(io::Error::other)?, 0);
    from.read_exact(&mut raw[header..])?;
    let words = raw[header..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Ok((raw, words))
}
