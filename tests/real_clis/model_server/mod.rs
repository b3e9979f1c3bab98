//! A model on loopback: as much of four APIs as a coding CLI needs to have a turn answered.
//!
//! ```text
//! POST …/responses                       OpenAI responses, streamed   (codex)
//! POST …/chat/completions                OpenAI chat, streamed or not (opencode)
//! POST …:streamGenerateContent           Gemini, streamed             (gemini)
//! POST …:generateContent, :countTokens   Gemini, whole                (gemini, beside the turn)
//! POST …/messages                        Anthropic, streamed or not   (claude)
//! POST …/messages/count_tokens           Anthropic, whole             (claude, beside the turn)
//! ```
//!
//! It writes down what every turn was asked with: the user's texts, the tools there are, what tools answered. A
//! turn is answered with a word, or with the call of a tool that the test wants; at once, or, while the test
//! holds it back, when the test lets go: slow without a clock.

mod dialect;

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use dialect::{Dialect, Event};

/// The longest that a turn is held back, whatever the test forgets.
const HELD_MAX: Duration = Duration::from_secs(60);
/// The largest request that is read: a history of a few messages of 16 KiB and a CLI's own instructions.
const BODY_MAX: usize = 8 << 20;

/// One request for a turn.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Every text of the user in it, oldest first: the whole conversation so far.
    pub(crate) texts: Vec<String>,
    /// The names of the tools that the model may call; one that stands in a namespace is `NAMESPACE.NAME`.
    pub(crate) tools: Vec<String>,
    /// What the tools that were called have answered, oldest first.
    pub(crate) results: Vec<String>,
}

/// What a turn is answered with.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A word that ends the turn.
    Text,
    /// The call of a tool. The CLI sends the tool's answer, which is the next request.
    Call {
        /// Its own in this conversation.
        id: String,
        /// The tool, by one of the names in [`Asked::tools`].
        tool: String,
        /// Its arguments, as the tool wants them.
        arguments: Value,
    },
}

/// The server. Its threads end with the test's process; what is held back is let go when it is dropped.
pub(crate) struct ModelServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    /// Requests that nothing here answers: a CLI wants more than it is given.
    strange: Vec<String>,
    /// The calls that the next turns are answered with.
    calls: VecDeque<Reply>,
    /// Calls so far.
    called: usize,
    is_holding: bool,
    held: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModelServer {
    /// Listens on a port of its own.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        thread::spawn({
            let shared = shared.clone();
            move || {
                for stream in listener.incoming().flatten() {
                    let shared = shared.clone();
                    // A client that goes away in the middle of a turn is what steering looks like.
                    thread::spawn(move || serve(stream, &shared).ok());
                }
            }
        });
        Self { addr, shared }
    }

    /// Where it listens, without a path.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// From now on a turn waits.
    pub(crate) fn hold(&self) {
        self.shared.state().is_holding = true;
    }

    /// Everything that waits is answered, and what comes later is too.
    pub(crate) fn let_go(&self) {
        self.shared.state().is_holding = false;
        self.shared.changed.notify_all();
    }

    /// The next turn that is answered calls this tool; so does the one after it with the next call.
    pub(crate) fn call(&self, tool: &str, arguments: Value) {
        let mut state = self.shared.state();
        state.called += 1;
        let id = format!("call_{}", state.called);
        state.calls.push_back(Reply::Call { id, tool: tool.to_owned(), arguments });
    }

    /// Turns that wait now.
    pub(crate) fn held(&self) -> usize {
        self.shared.state().held
    }

    /// The requests for turns so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.state().asked.clone()
    }

    /// Requests that were not understood.
    pub(crate) fn strange(&self) -> Vec<String> {
        self.shared.state().strange.clone()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// One request; the connection is closed after it.
fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let (path, body) = read_request(&mut reader)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let Some(dialect) = Dialect::of(path) else {
        return beside(&mut stream, shared, path);
    };
    match (dialect.is_streamed(path, &body), dialect.is_turn(&body)) {
        (true, true) => turn(&mut stream, shared, dialect, &body),
        (true, false) => events(&mut stream, &dialect.streamed(&Reply::Text)),
        (false, _) => whole(&mut stream, &dialect.whole()),
    }
}

/// What a CLI asks beside its turns.
fn beside(stream: &mut TcpStream, shared: &Shared, path: &str) -> io::Result<()> {
    if path.ends_with(":countTokens") {
        return whole(stream, &json!({ "totalTokens": 100 }));
    }
    if path.ends_with("/count_tokens") {
        return whole(stream, &json!({ "input_tokens": 100 }));
    }
    shared.state().strange.push(path.to_owned());
    stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// Notes a turn, waits as long as the test wants, answers.
fn turn(stream: &mut TcpStream, shared: &Shared, dialect: Dialect, body: &Value) -> io::Result<()> {
    head(stream, "text/event-stream")?;
    let mut state = shared.state();
    state.asked.push(dialect.asked(body));
    state.held += 1;
    let (mut state, _) = shared
        .changed
        .wait_timeout_while(state, HELD_MAX, |state| state.is_holding)
        .unwrap_or_else(PoisonError::into_inner);
    state.held -= 1;
    let reply = state.calls.pop_front().unwrap_or(Reply::Text);
    drop(state);
    dialect.streamed(&reply).iter().try_for_each(|event| event.write(stream))
}

fn events(stream: &mut TcpStream, answer: &[Event]) -> io::Result<()> {
    head(stream, "text/event-stream")?;
    answer.iter().try_for_each(|event| event.write(stream))
}

fn whole(stream: &mut TcpStream, answer: &Value) -> io::Result<()> {
    head(stream, "application/json")?;
    stream.write_all(answer.to_string().as_bytes())
}

fn head(stream: &mut TcpStream, content: &str) -> io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {content}\r\nConnection: close\r\n\r\n")
}

fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<(String, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut is_chunked) = (0, false);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "transfer-encoding" => is_chunked = value.contains("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if !is_chunked {
        reader.take(length.min(BODY_MAX as u64)).read_to_end(&mut body)?;
        return Ok((path, body));
    }
    while body.len() < BODY_MAX {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        reader.by_ref().take(size).read_to_end(&mut body)?;
        reader.read_line(&mut String::new())?;
    }
    Ok((path, body))
}
