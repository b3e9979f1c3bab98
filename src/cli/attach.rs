//! `attach`: an agent's terminal on one's own, to watch or to drive.
//!
//! ```text
//! subscribe -> (lease, size) -> snapshot -> stream from its offset -> ... -> the terminal as it was
//!                                  ^------- output was lost, or the size has changed
//! ```
//!
//! Whoever drives has the agent's terminal alone: messages for the agent wait, and its size follows the window.
//! Both end with the connection, also when this process is killed.

mod filter;
mod join;
mod terminal;

use std::time::{Duration, Instant};

use actix_codec::Framed;
use actix_http::ws;
use awc::BoxedSocket;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::debug;

use self::{
    filter::Filter,
    join::{Join, Step},
    terminal::{Gone, INPUT_RESET, PICTURE_RESET, Terminal},
};
use super::{
    Exit, Failure, agent_name,
    client::{Api, block_on},
    find::Where,
    ui,
};
use crate::{config::Env, ids::AgentName, messages::pty::TermSize};

/// A broker that says nothing for this long has gone: it pings every 30 s.
const SILENCE: Duration = Duration::from_secs(75);
/// How long the first line tells how to leave.
const NOTICE: Duration = Duration::from_secs(3);
/// Between two tries to get a picture.
const AGAIN: Duration = Duration::from_millis(500);
const CTRL_C: u8 = 0x03;

/// `relay-broker attach`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which agent.
    #[arg(value_parser = agent_name)]
    name: AgentName,
    /// Type into it. Messages for the agent wait meanwhile, and its terminal has the size of this window.
    #[arg(long)]
    drive: bool,
    /// The key that leaves, as ctrl-LETTER or ctrl-].
    #[arg(long, value_name = "KEY", default_value = "ctrl-]", value_parser = detach_key)]
    detach_key: DetachKey,
    #[command(flatten)]
    place: Where,
}

/// A control key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DetachKey(u8);

fn detach_key(text: &str) -> Result<DetachKey, String> {
    let key = text.to_ascii_lowercase();
    match key.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([key @ (b'a'..=b'z' | b'[' | b'\\' | b']' | b'^' | b'_')]) => {
            Ok(DetachKey(key.to_ascii_uppercase() & 0x1f))
        }
        _ => Err("name it like ctrl-] or ctrl-q".to_owned()),
    }
}

impl std::fmt::Display for DetachKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ctrl-{}", char::from(self.0 | 0x40).to_ascii_lowercase())
    }
}

/// How it ended.
enum End {
    Detached,
    /// The agent's own end, in words.
    Agent(String),
    /// Why there is no connection.
    Lost(String),
    /// The person's terminal is gone, or this process was asked to end.
    Asked,
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> Self {
        Self::Asked
    }
}

/// Attaches, until the person or the agent leaves.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    let name = &args.name;
    let end = block_on(async {
        let mut attached = Attached::begin(Api::new(broker), args).await?;
        Ok::<_, Failure>(attached.relay().await)
    })?;
    match end {
        End::Detached => ui::line(&format!("detached from {name}"))?,
        End::Agent(how) => ui::line(&format!("{name} {how}"))?,
        End::Lost(why) => {
            let said = format!("the connection to the broker is lost: {why}; attach again when it runs");
            return Err(Failure::new(Exit::Failed, said));
        }
        End::Asked => return Ok(Exit::Interrupted),
    }
    Ok(Exit::Ok)
}

type Socket = Framed<BoxedSocket, ws::Codec>;

/// What the event stream says of an agent.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Event {
    WorkerStream {
        name: String,
        chunk: String,
        start: u64,
        offset: u64,
    },
    StreamGap,
    AgentExited {
        name: String,
        code: Option<i32>,
        signal: Option<String>,
    },
    AgentReleased {
        name: String,
    },
    #[serde(other)]
    Other,
}

/// What the stream of keystrokes says.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    PtyInputError {
        message: String,
    },
    PtyResized,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Snapshot {
    screen: String,
    offset: u64,
    rows: u16,
    cols: u16,
}

/// An agent's terminal on this one.
struct Attached<'a> {
    api: Api,
    args: &'a Args,
    events: Socket,
    /// Open while driving.
    keys: Option<Socket>,
    terminal: Terminal,
    signals: Signals,
    filter: Filter,
    join: Join,
    /// The picture is to be painted anew then: over the first line, or because it could not be had.
    repaint_at: Option<Instant>,
    heard: Instant,
}

impl<'a> Attached<'a> {
    async fn begin(api: Api, args: &'a Args) -> Result<Self, Failure> {
        let name = &args.name;
        // Before the terminal is touched: an agent that is not there is a plain refusal.
        let _: Snapshot = api.get(&format!("/api/spawned/{name}/snapshot?format=ansi")).await?.read()?;
        let events = api.socket(&format!("/ws?output={name}")).await?;
        let keys = match args.drive {
            true => Some(lease(&api, name).await?),
            false => None,
        };
        let signals = Signals::install()?;
        let terminal = Terminal::take()?;
        let mut attached = Self {
            api,
            args,
            events,
            keys,
            terminal,
            signals,
            filter: Filter::new(args.drive),
            join: Join::default(),
            repaint_at: None,
            heard: Instant::now(),
        };
        attached.first_picture().await?;
        Ok(attached)
    }

    async fn first_picture(&mut self) -> Result<(), Failure> {
        let gone = |Gone| Failure::new(Exit::Failed, "the terminal is gone");
        self.terminal.show(Terminal::room()).await.map_err(gone)?;
        self.send_size()
            .await
            .map_err(|_| Failure::new(Exit::Failed, "the broker has closed the connection"))?;
        let snapshot = self.paint().await?;
        let mut notice = format!(
            " {} {}: {} detaches ",
            if self.args.drive { "driving" } else { "watching" },
            self.args.name,
            self.args.detach_key
        );
        let own = Terminal::size();
        if !self.args.drive && own.is_some_and(|own| own.rows < snapshot.rows || own.cols < snapshot.cols) {
            notice.push_str(&format!(
                "(its terminal is {}x{}, larger than this one) ",
                snapshot.cols, snapshot.rows
            ));
        }
        let over = format!("\x1b7\x1b[1;1H\x1b[0;7m{notice}\x1b[m\x1b8");
        self.terminal.show(over.into_bytes()).await.map_err(gone)?;
        self.repaint_at = Some(Instant::now() + NOTICE);
        Ok(())
    }

    /// Paints the agent's screen as it is.
    async fn paint(&mut self) -> Result<Snapshot, Failure> {
        let path = format!("/api/spawned/{}/snapshot?format=ansi", self.args.name);
        let snapshot: Snapshot = self.api.get(&path).await?.read()?;
        let picture = BASE64_STANDARD.decode(&snapshot.screen).map_err(|error| {
            Failure::new(Exit::Failed, format!("the broker's answer is not understood ({error})"))
        })?;
        let mut bytes = format!("{INPUT_RESET}{PICTURE_RESET}").into_bytes();
        bytes.extend(self.filter.pass(&picture));
        self.terminal.on_other_screen = self.filter.is_on_other_screen();
        let shown = self.terminal.show(bytes).await;
        shown.map_err(|Gone| Failure::new(Exit::Failed, "the terminal is gone"))?;
        self.join.painted(snapshot.offset);
        self.repaint_at = None;
        Ok(snapshot)
    }

    /// Relays until the end.
    async fn relay(&mut self) -> End {
        loop {
            if let Err(end) = self.step().await {
                return end;
            }
        }
    }

    async fn step(&mut self) -> Result<(), End> {
        let repaint = self.repaint_at.map(|until| until.saturating_duration_since(Instant::now()));
        let silence = (self.heard + SILENCE).saturating_duration_since(Instant::now());
        tokio::select! {
            biased;
            told = self.signals.next() => match told {
                Told::End => Err(End::Asked),
                Told::Window => self.send_size().await,
            },
            typed = self.terminal.input.recv() => match typed {
                Some(typed) => self.typed(&typed).await,
                None => Err(End::Asked),
            },
            said = said(&mut self.keys) => self.answered(said?).await,
            frame = self.events.next() => {
                self.heard = Instant::now();
                match frame {
                    Some(Ok(ws::Frame::Text(text))) => self.happened(&text).await,
                    Some(Ok(ws::Frame::Ping(bytes))) => pong(&mut self.events, bytes).await,
                    Some(Ok(ws::Frame::Close(reason))) => Err(closed(reason)),
                    Some(Ok(_)) => Ok(()),
                    Some(Err(error)) => Err(End::Lost(error.to_string())),
                    None => Err(End::Lost("it was closed".to_owned())),
                }
            }
            () = tokio::time::sleep(repaint.unwrap_or_default()), if repaint.is_some() => self.repaint().await,
            () = tokio::time::sleep(silence) => Err(End::Lost("the broker says nothing".to_owned())),
        }
    }

    async fn typed(&mut self, typed: &[u8]) -> Result<(), End> {
        let DetachKey(key) = self.args.detach_key;
        let leaves = |byte: &u8| *byte == key || (self.keys.is_none() && *byte == CTRL_C);
        let end = typed.iter().position(leaves);
        if let Some(keys) = &mut self.keys {
            let before = &typed[..end.unwrap_or(typed.len())];
            if !before.is_empty() {
                let frame = ws::Message::Binary(Bytes::copy_from_slice(before));
                keys.send(frame).await.map_err(|error| End::Lost(error.to_string()))?;
            }
        }
        if end.is_some() { Err(End::Detached) } else { Ok(()) }
    }

    async fn happened(&mut self, text: &[u8]) -> Result<(), End> {
        let own = |name: &str| name == self.args.name.as_str();
        // What this version does not know is nothing that it waits for.
        let Ok(event) = serde_json::from_slice(text) else { return Ok(()) };
        match event {
            Event::WorkerStream { name, chunk, start, offset } if own(&name) => {
                match self.join.chunk(start, offset) {
                    Step::Show => {
                        let shown = self.filter.pass(chunk.as_bytes());
                        self.terminal.on_other_screen = self.filter.is_on_other_screen();
                        tokio::select! {
                            biased;
                            () = self.signals.end() => Err(End::Asked),
                            shown = self.terminal.show(shown) => Ok(shown?),
                        }
                    }
                    Step::Skip => Ok(()),
                    Step::Resync => self.repaint().await,
                }
            }
            Event::StreamGap => self.repaint().await,
            Event::AgentExited { name, code, signal } if own(&name) => {
                Err(End::Agent(match (code, signal) {
                    (_, Some(signal)) => format!("was ended by {}", ui::plain(&signal)),
                    (Some(code), None) => format!("has ended with code {code}"),
                    (None, None) => "has ended".to_owned(),
                }))
            }
            Event::AgentReleased { name } if own(&name) => Err(End::Agent("was released".to_owned())),
            _ => Ok(()),
        }
    }

    async fn repaint(&mut self) -> Result<(), End> {
        self.join.lost();
        self.repaint_at = None;
        match self.paint().await {
            Ok(_) => Ok(()),
            Err(_) if self.terminal.is_gone() => Err(End::Asked),
            Err(failure) => {
                // If the agent or the broker has gone, the event stream says so.
                debug!(%failure, "no picture now, trying again");
                self.repaint_at = Some(Instant::now() + AGAIN);
                Ok(())
            }
        }
    }

    /// Tells the agent's terminal the size of this one.
    async fn send_size(&mut self) -> Result<(), End> {
        let (Some(keys), Some(TermSize { rows, cols })) = (&mut self.keys, Terminal::size()) else {
            return Ok(());
        };
        let resize = format!(r#"{{"type":"pty_resize","rows":{rows},"cols":{cols}}}"#);
        keys.send(ws::Message::Text(resize.into())).await.map_err(|error| End::Lost(error.to_string()))
    }

    async fn answered(&mut self, said: Said) -> Result<(), End> {
        match said {
            Said::PtyResized => self.repaint().await,
            Said::PtyInputError { message } => {
                Err(End::Agent(format!("takes no input: {}", ui::plain(&message))))
            }
            Said::Other => Ok(()),
        }
    }
}

/// Opens the stream of keystrokes: the lease to type.
async fn lease(api: &Api, name: &AgentName) -> Result<Socket, Failure> {
    let who = format!("pid {} of {}", std::process::id(), whoami());
    let mut keys = api.socket(&format!("/api/input/{name}/stream?drive=true&who={}", encoded(&who))).await?;
    loop {
        let frame = keys.next().await.transpose();
        match frame
            .map_err(|error| Failure::new(Exit::Failed, format!("the broker is not understood: {error}")))?
        {
            Some(ws::Frame::Text(text)) => {
                return match serde_json::from_slice(&text) {
                    Ok(Said::PtyInputError { message }) => {
                        Err(Failure::new(Exit::Refused, ui::plain(&message)))
                    }
                    _ => Ok(keys),
                };
            }
            Some(ws::Frame::Close(_)) | None => {
                return Err(Failure::new(Exit::Failed, "the broker has closed the connection; try again"));
            }
            Some(_) => {}
        }
    }
}

/// The next word of the stream of keystrokes; never comes while there is no stream.
async fn said(keys: &mut Option<Socket>) -> Result<Said, End> {
    let Some(keys) = keys else { return std::future::pending().await };
    match keys.next().await {
        Some(Ok(ws::Frame::Text(text))) => Ok(serde_json::from_slice(&text).unwrap_or(Said::Other)),
        Some(Ok(ws::Frame::Ping(bytes))) => pong(keys, bytes).await.map(|()| Said::Other),
        Some(Ok(ws::Frame::Close(reason))) => Err(closed(reason)),
        Some(Ok(_)) => Ok(Said::Other),
        Some(Err(error)) => Err(End::Lost(error.to_string())),
        None => Err(End::Lost("it was closed".to_owned())),
    }
}

fn closed(reason: Option<ws::CloseReason>) -> End {
    let why = reason.and_then(|reason| reason.description).unwrap_or_else(|| "it was closed".to_owned());
    if why == "the agent has ended" { End::Agent("has ended".to_owned()) } else { End::Lost(ui::plain(&why)) }
}

async fn pong(socket: &mut Socket, bytes: Bytes) -> Result<(), End> {
    socket.send(ws::Message::Pong(bytes)).await.map_err(|error| End::Lost(error.to_string()))
}

/// Who this is, for others who want to type.
fn whoami() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    user.map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name)
}

/// A query's value.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let code = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(code).collect()
}

/// What the system tells this process.
struct Signals {
    ends: [Signal; 4],
    window: Signal,
}

impl Signals {
    fn install() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::new(Exit::Failed, error.to_string()));
        Ok(Self {
            ends: [
                on(SignalKind::terminate())?,
                on(SignalKind::hangup())?,
                on(SignalKind::interrupt())?,
                on(SignalKind::quit())?,
            ],
            window: on(SignalKind::window_change())?,
        })
    }

    /// This process is to end.
    async fn end(&mut self) {
        let [terminate, hangup, interrupt, quit] = &mut self.ends;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }

    async fn next(&mut self) -> Told {
        let Self { ends: [terminate, hangup, interrupt, quit], window } = self;
        tokio::select! {
            _ = terminate.recv() => Told::End,
            _ = hangup.recv() => Told::End,
            _ = interrupt.recv() => Told::End,
            _ = quit.recv() => Told::End,
            _ = window.recv() => Told::Window,
        }
    }
}

/// What the system tells.
enum Told {
    /// This process is to end.
    End,
    /// The window has another size.
    Window,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detach_key_is_a_control_key() {
        for (text, byte, shown) in
            [("ctrl-]", 0x1d, "ctrl-]"), ("Ctrl-Q", 0x11, "ctrl-q"), ("ctrl-\\", 0x1c, "ctrl-\\")]
        {
            let key = detach_key(text).unwrap();
            assert_eq!((key, key.to_string().as_str()), (DetachKey(byte), shown));
        }
        for text in ["", "x", "ctrl-", "ctrl-1", "ctrl-ab"] {
            assert!(detach_key(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_query_holds_anything() {
        assert_eq!(encoded("a b&c=é"), "a%20b%26c%3D%C3%A9");
    }
}
