//! A model on loopback: as much of three APIs as a coding CLI needs to have a turn answered.
//!
//! ```text
//! POST …/responses                       OpenAI responses, streamed   (codex)
//! POST …/chat/completions                OpenAI chat, streamed or not (opencode)
//! POST …:streamGenerateContent           Gemini, streamed             (gemini)
//! POST …:generateContent, :countTokens   Gemini, whole                (gemini, beside the turn)
//! ```
//!
//! It writes down the user's texts of every request. A turn is answered at once, or, while the test holds it
//! back, when the test lets go: slow without a clock.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// The longest that a turn is held back, whatever the test forgets.
const HELD_MAX: Duration = Duration::from_secs(60);
/// The largest request that is read: a history of a few messages of 16 KiB and a CLI's own instructions.
const BODY_MAX: usize = 8 << 20;
/// What every turn is answered with.
const ANSWER: &str = "Understood.";

/// One request for a turn.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Every text of the user in it, oldest first: the whole conversation so far.
    pub(crate) texts: Vec<String>,
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
    // Without tools it is no turn: the CLI asks for a title.
    let is_turn = body["tools"].as_array().is_some_and(|tools| !tools.is_empty());
    if path.ends_with("/responses") && is_turn {
        turn(&mut stream, shared, responses_texts(&body), &responses_answer())
    } else if path.ends_with("/responses") {
        events(&mut stream, &responses_answer())
    } else if path.ends_with("/chat/completions") {
        match (body["stream"] == true, is_turn) {
            (false, _) => whole(&mut stream, &chat_whole()),
            (true, false) => events(&mut stream, &chat_answer()),
            (true, true) => turn(&mut stream, shared, chat_texts(&body), &chat_answer()),
        }
    } else if path.ends_with(":streamGenerateContent") {
        turn(&mut stream, shared, gemini_texts(&body), &gemini_answer())
    } else if path.ends_with(":generateContent") {
        whole(&mut stream, &gemini_whole())
    } else if path.ends_with(":countTokens") {
        whole(&mut stream, &json!({ "totalTokens": 100 }))
    } else {
        shared.state().strange.push(path.to_owned());
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    }
}

/// Notes a turn, waits as long as the test wants, answers.
fn turn(stream: &mut TcpStream, shared: &Shared, texts: Vec<String>, answer: &[Event]) -> io::Result<()> {
    head(stream, "text/event-stream")?;
    let mut state = shared.state();
    state.asked.push(Asked { texts });
    state.held += 1;
    let (mut state, _) = shared
        .changed
        .wait_timeout_while(state, HELD_MAX, |state| state.is_holding)
        .unwrap_or_else(PoisonError::into_inner);
    state.held -= 1;
    drop(state);
    answer.iter().try_for_each(|event| event.write(stream))
}

/// An event of a stream; only some APIs name theirs.
struct Event {
    name: Option<&'static str>,
    data: String,
}

impl Event {
    fn of(data: &Value) -> Self {
        Self { name: None, data: data.to_string() }
    }

    fn write(&self, stream: &mut TcpStream) -> io::Result<()> {
        if let Some(name) = self.name {
            writeln!(stream, "event: {name}")?;
        }
        write!(stream, "data: {}\n\n", self.data)
    }
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

// What each API calls the user's texts, and what it takes for an answer.

fn responses_texts(body: &Value) -> Vec<String> {
    let items = body["input"].as_array().into_iter().flatten();
    items.filter(|item| item["role"] == "user").map(|item| parts(&item["content"])).collect()
}

fn chat_texts(body: &Value) -> Vec<String> {
    let messages = body["messages"].as_array().into_iter().flatten();
    messages.filter(|message| message["role"] == "user").map(|message| parts(&message["content"])).collect()
}

fn gemini_texts(body: &Value) -> Vec<String> {
    let contents = body["contents"].as_array().into_iter().flatten();
    contents.filter(|content| content["role"] == "user").map(|content| parts(&content["parts"])).collect()
}

/// A text, or the texts of its parts joined.
fn parts(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

fn responses_answer() -> Vec<Event> {
    let message = json!({
        "type": "message", "role": "assistant", "id": "msg_1",
        "content": [{ "type": "output_text", "text": ANSWER, "annotations": [] }],
    });
    let usage = json!({
        "input_tokens": 10, "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": 2, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 12,
    });
    let events = [
        ("response.created", json!({ "response": { "id": "resp_1" } })),
        ("response.output_item.done", json!({ "output_index": 0, "item": message })),
        ("response.completed", json!({ "response": { "id": "resp_1", "output": [], "usage": usage } })),
    ];
    let named = |(name, mut data): (&'static str, Value)| {
        data["type"] = json!(name);
        Event { name: Some(name), data: data.to_string() }
    };
    events.into_iter().map(named).collect()
}

fn chat_answer() -> Vec<Event> {
    let chunk = |delta: Value, finish: Value| {
        Event::of(&json!({
            "id": "chat_1", "object": "chat.completion.chunk", "created": 1, "model": "fake",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        }))
    };
    vec![
        chunk(json!({ "role": "assistant", "content": ANSWER }), Value::Null),
        chunk(json!({}), json!("stop")),
        Event { name: None, data: "[DONE]".to_owned() },
    ]
}

fn chat_whole() -> Value {
    json!({
        "id": "chat_1", "object": "chat.completion", "created": 1, "model": "fake",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": ANSWER }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12 },
    })
}

fn gemini_candidate(text: &str) -> Value {
    json!({
        "candidates": [{
            "content": { "role": "model", "parts": [{ "text": text }] }, "finishReason": "STOP", "index": 0,
        }],
        "usageMetadata": { "promptTokenCount": 10, "candidatesTokenCount": 2, "totalTokenCount": 12 },
    })
}

fn gemini_answer() -> Vec<Event> {
    vec![Event::of(&gemini_candidate(ANSWER))]
}

fn gemini_whole() -> Value {
    // What it asks beside the turn wants an object.
    gemini_candidate(r#"{"reasoning":"done","next_speaker":"user"}"#)
}
