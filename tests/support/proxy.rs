//! What stands between a broker and its engine: a real TCP proxy that can cut, stall, refuse, and look at
//! every frame that the engine sends.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    expect,
    frames::{Frame, read_head},
    until,
};

/// What becomes of a frame that the engine sends.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// It goes on at once.
    Pass,
    /// It goes on after this time; what follows it does not wait.
    Late(Duration),
    /// Another text goes on in its stead.
    Instead(String),
}

type Judge = Box<dyn Fn(&str) -> Verdict + Send + Sync>;

/// A proxy. Dropping it cuts everything.
pub(crate) struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    engine: SocketAddr,
    ending: AtomicBool,
    blocked: AtomicBool,
    unauthorized: AtomicUsize,
    mute: AtomicBool,
    stalled: AtomicBool,
    /// Bytes that the engine's sockets may still send before all are cut; negative: no limit.
    budget: AtomicI64,
    sockets: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
    judge: Judge,
}

impl Proxy {
    /// A proxy that does nothing yet.
    pub(crate) fn to(engine: SocketAddr) -> Self {
        Self::judging(engine, |_| Verdict::Pass)
    }

    /// A proxy that asks about every text frame of the engine.
    pub(crate) fn judging(
        engine: SocketAddr,
        judge: impl Fn(&str) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            engine,
            ending: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            unauthorized: AtomicUsize::new(0),
            mute: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            budget: AtomicI64::new(-1),
            sockets: AtomicUsize::new(0),
            open: Mutex::default(),
            judge: Box::new(judge),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { addr, shared, acceptor: Some(acceptor) }
    }

    /// What the broker is told is its engine.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Node sockets that have been opened so far.
    pub(crate) fn sockets(&self) -> usize {
        self.shared.sockets.load(SeqCst)
    }

    /// Waits until more than `before` node sockets have been opened.
    pub(crate) fn reconnected(&self, before: usize) {
        until("another node socket", || {
            let sockets = self.sockets();
            expect(sockets > before, || format!("{sockets} sockets so far"))
        });
    }

    /// Cuts every connection now.
    pub(crate) fn cut(&self) {
        self.shared.cut();
    }

    /// Cuts every connection once the engine has sent so many bytes more on its sockets: mid-frame, mostly.
    pub(crate) fn cut_after(&self, bytes: u32) {
        self.shared.budget.store(i64::from(bytes), SeqCst);
    }

    /// True when [`Proxy::cut_after`] waits for its bytes.
    pub(crate) fn is_armed(&self) -> bool {
        self.shared.budget.load(SeqCst) >= 0
    }

    /// Takes no connection and cuts what is open, or takes them again.
    pub(crate) fn block(&self, blocked: bool) {
        self.shared.blocked.store(blocked, SeqCst);
        if blocked {
            self.cut();
        }
    }

    /// Lets nothing of what the broker says on a socket through to the engine, for good on the sockets that
    /// are open now: it is read and thrown away.
    pub(crate) fn mute_broker(&self, mute: bool) {
        self.shared.mute.store(mute, SeqCst);
    }

    /// Passes nothing on in either direction and closes nothing, as a dead line does; or goes on.
    pub(crate) fn stall(&self, stalled: bool) {
        self.shared.stalled.store(stalled, SeqCst);
    }

    /// Answers the next so many socket handshakes with 401.
    pub(crate) fn refuse(&self, handshakes: usize) {
        self.shared.unauthorized.store(handshakes, SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ending.store(true, SeqCst);
        self.shared.cut();
        // Wakes the acceptor; when it has ended already there is nobody to wake.
        TcpStream::connect(self.addr).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
    }
}

impl Shared {
    fn cut(&self) {
        self.budget.store(-1, SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            // One that has ended is cut already.
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    fn keep(&self, stream: &TcpStream) -> io::Result<()> {
        self.open.lock().unwrap().push(stream.try_clone()?);
        Ok(())
    }

    /// Writes what the engine sent, as far as the budget goes.
    fn to_broker(&self, broker: &Mutex<TcpStream>, bytes: &[u8]) -> io::Result<()> {
        let mut broker = broker.lock().unwrap();
        let length = i64::try_from(bytes.len()).map_err(io::Error::other)?;
        let budget = self.budget.load(SeqCst);
        if budget < 0 || self.budget.fetch_sub(length, SeqCst) > length {
            return broker.write_all(bytes);
        }
        broker.write_all(&bytes[..usize::try_from(budget.min(length)).unwrap_or(0)])?;
        drop(broker);
        self.cut();
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Waits while the line is dead.
    fn pass(&self) -> io::Result<()> {
        while self.stalled.load(SeqCst) {
            if self.ending.load(SeqCst) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn take_refusal(&self) -> bool {
        self.unauthorized.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for broker in listener.incoming() {
        if shared.ending.load(SeqCst) {
            return;
        }
        let Ok(broker) = broker else { continue };
        if shared.blocked.load(SeqCst) {
            continue;
        }
        let shared = Arc::clone(shared);
        // How a connection ends is the test's doing.
        thread::spawn(move || serve(broker, &shared).ok());
    }
}

fn serve(mut broker: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    broker.set_nodelay(true)?;
    let head = read_head(&mut broker)?;
    let is_socket = head.starts_with(b"GET /v1/node/ws");
    if is_socket && shared.take_refusal() {
        return broker
            .write_all(b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    }
    let mut engine = TcpStream::connect(shared.engine)?;
    engine.set_nodelay(true)?;
    shared.keep(&broker)?;
    shared.keep(&engine)?;
    engine.write_all(&head)?;
    let upstream = thread::spawn({
        let (mut broker, mut engine, shared) = (broker.try_clone()?, engine.try_clone()?, Arc::clone(shared));
        move || {
            // Either side's end is the other's.
            pump(&mut broker, &mut engine, &shared, is_socket).ok();
            engine.shutdown(Shutdown::Both).ok();
        }
    });
    // The end of either is the end of both.
    if is_socket {
        socket(&engine, &broker, shared).ok();
    } else {
        pump(&mut engine, &mut broker, shared, false).ok();
    }
    broker.shutdown(Shutdown::Both).ok();
    upstream.join().map_err(|_| io::Error::other("the pump failed"))
}

fn pump(from: &mut TcpStream, to: &mut TcpStream, shared: &Shared, can_mute: bool) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    // What is cut out of a stream of frames leaves it unreadable, so a muted one stays so.
    let mut muted = false;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        shared.pass()?;
        muted |= can_mute && shared.mute.load(SeqCst);
        if !muted {
            to.write_all(&buffer[..read])?;
        }
    }
}

fn socket(engine: &TcpStream, broker: &TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let mut engine = BufReader::with_capacity(64 << 10, engine.try_clone()?);
    let broker = Arc::new(Mutex::new(broker.try_clone()?));
    let head = read_head(&mut engine)?;
    broker.lock().unwrap().write_all(&head)?;
    shared.sockets.fetch_add(1, SeqCst);
    loop {
        let frame = Frame::read(&mut engine)?;
        shared.pass()?;
        match frame.text().map_or(Verdict::Pass, &shared.judge) {
            Verdict::Pass => shared.to_broker(&broker, &frame.raw)?,
            Verdict::Instead(text) => shared.to_broker(&broker, &Frame::of_text(&text).raw)?,
            Verdict::Late(after) => {
                let (broker, shared) = (Arc::clone(&broker), Arc::clone(shared));
                thread::spawn(move || {
                    thread::sleep(after);
                    // The connection may have ended meanwhile.
                    shared.to_broker(&broker, &frame.raw).ok();
                });
            }
        }
    }
}
