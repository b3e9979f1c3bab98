//! One agent's terminal: http and registry -> pty_worker, and pty_worker -> registry.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Reply,
    process::{EndedBy, ExitRecord, KnownSession},
    told,
};
use crate::ids::{AgentName, Birth, DeliveryId, DialogId};

/// A terminal's size in character cells, within 20×10 and 500×200 (spec/pty 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermSize {
    /// Rows, 10 to 200.
    pub rows: u16,
    /// Columns, 20 to 500.
    pub cols: u16,
}

impl Default for TermSize {
    /// 120×40: wide enough that no composer folds (spec/pty 2.6).
    fn default() -> Self {
        Self { rows: 40, cols: 120 }
    }
}

/// A size that no terminal should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a terminal has 10 to 200 rows and 20 to 500 columns, not {rows} and {cols}")]
pub struct BadSize {
    /// As asked.
    pub rows: u16,
    /// As asked.
    pub cols: u16,
}

impl TermSize {
    /// Checks a size.
    ///
    /// # Errors
    /// [`BadSize`] outside the bounds.
    pub fn new(rows: u16, cols: u16) -> Result<Self, BadSize> {
        if (10..=200).contains(&rows) && (20..=500).contains(&cols) {
            Ok(Self { rows, cols })
        } else {
            Err(BadSize { rows, cols })
        }
    }
}

/// What an agent is doing, read off its screen and its process (spec/pty 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// Not ready for its first message.
    Starting,
    /// A dialog is open, or the start-up time ran out on an unknown screen.
    Blocked,
    /// Takes messages.
    Idle,
    /// A turn runs.
    Working,
    /// Has bytes in its input that it does not read.
    NotReading,
    /// A person is typing.
    Human,
    /// The process has ended.
    Exited,
}

/// pty_worker -> registry: the child has ended and its output is drained.
#[derive(Clone, Debug)]
pub struct ChildExited {
    /// Whose.
    pub name: AgentName,
    /// Of the agents that have had this name; nothing is done about one that is no more.
    pub birth: Birth,
    /// How.
    pub exit: ExitRecord,
}

/// pty_worker -> registry: what the agent does has changed.
#[derive(Clone, Debug)]
pub struct StateChanged {
    /// Whose.
    pub name: AgentName,
    /// Of the agents that have had this name; nothing is said of one that is no more.
    pub birth: Birth,
    /// Before.
    pub from: AgentState,
    /// Now.
    pub to: AgentState,
    /// Why, in words.
    pub because: String,
    /// The dialog that is open.
    pub dialog: Option<Dialog>,
}

/// pty_worker -> registry: the program's own name for what it talks about with this agent is known, or is another
/// one by now.
#[derive(Clone, Debug)]
pub struct SessionKnown {
    /// Whose.
    pub name: AgentName,
    /// Of the agents that have had this name.
    pub birth: Birth,
    /// Which session.
    pub session: KnownSession,
}

/// A question of a program that no message answers (spec/pty 9, 10). It stays open until a person answers it,
/// in the terminal or by [`AnswerDialog`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dialog {
    /// This question and no other: an answer that names it never reaches a later one.
    pub id: DialogId,
    /// The rule that found it.
    pub rule: String,
    /// What the program asks: the rows that the rule looked at, at most 2000 characters.
    pub text: String,
    /// What it may be answered with: the rule's own words, else the names of single keys.
    pub choices: Vec<String>,
}

/// http -> pty_worker: press the keys that this choice stands for.
#[derive(Debug)]
pub struct AnswerDialog {
    /// One of [`Dialog::choices`].
    pub choice: String,
    /// The dialog that was seen; whatever is open now when `None`.
    pub dialog: Option<DialogId>,
    /// Answered when the kernel took the keys, with the dialog that got them.
    pub reply: Reply<Result<DialogId, AnswerRefused>>,
}

/// Why no key was pressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerRefused {
    /// Nothing is asked.
    #[error("no dialog is open in this agent's terminal")]
    NoDialog,
    /// Something else is asked by now.
    #[error("the dialog has changed; look at `{now}` before you answer it")]
    Changed {
        /// The one that is open.
        now: DialogId,
    },
    /// The dialog has no such answer.
    #[error("this dialog has no choice `{choice}`; it takes: {}", .choices.join(", "))]
    UnknownChoice {
        /// As asked.
        choice: String,
        /// What there is.
        choices: Vec<String>,
    },
    /// The terminal takes no keys.
    #[error(transparent)]
    Terminal(#[from] PtyRefused),
}

/// http -> pty_worker: keystrokes of a person.
#[derive(Debug)]
pub struct Input {
    /// Raw bytes.
    pub bytes: Vec<u8>,
    /// Answered when the kernel took them all.
    pub reply: Reply<Result<usize, PtyRefused>>,
}

/// http -> pty_worker: a new window size.
#[derive(Debug)]
pub struct Resize {
    /// The size.
    pub size: TermSize,
    /// Answered when kernel and screen model have it.
    pub reply: Reply<Result<(), PtyRefused>>,
}

/// Why the terminal did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PtyRefused {
    /// The child has ended.
    #[error("the agent has exited")]
    Exited,
    /// More input is queued than one agent may have (256 KiB).
    #[error("the agent does not read its input; {0} bytes are waiting")]
    InputFull(usize),
    /// The kernel refused.
    #[error("terminal error: {0}")]
    Io(String),
}

/// http -> pty_worker: the screen, please.
#[derive(Debug)]
pub struct TakeSnapshot(pub Reply<Snapshot>);

/// A screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its size.
    pub size: TermSize,
    /// Cursor row and column, first is 1.
    pub cursor: (u16, u16),
    /// One line per row, trailing blanks cut, each ended by a line feed.
    pub plain: String,
    /// Bytes that repaint it, modes included.
    pub ansi: Vec<u8>,
    /// Window title.
    pub title: String,
    /// Total output bytes up to this screen: a stream joined from here has no gap and no repeat.
    pub offset: u64,
    /// What the agent does.
    pub state: AgentState,
    /// Terminal modes that are on (`bracketed_paste`, `alternate_screen`, ...).
    pub modes: Vec<&'static str>,
}

/// registry -> pty_worker: finish what is half-way, then end the child and its tree (HUP, TERM, KILL, sweep);
/// `ChildExited` follows.
#[derive(Clone, Copy, Debug)]
pub struct Terminate {
    /// Who asks.
    pub by: EndedBy,
    /// KILL at once, and finish nothing.
    pub force: bool,
    /// Time for all of it before KILL; the default ladder when `None`.
    pub within: Option<Duration>,
}

/// What a worker shows of itself without being asked: read by lists and debug pages while the actor may be
/// busy, stuck or dead. Owned and written by the worker alone.
#[derive(Debug, Default)]
pub struct WorkerView {
    /// Its process; 0 before it runs.
    pub pid: AtomicU32,
    /// Total bytes of output.
    pub output_bytes: AtomicU64,
    /// Milliseconds since the Unix epoch of the last output; 0 before any.
    pub last_output_ms: AtomicU64,
    /// True once it has been ready for the first time.
    pub was_ready: AtomicBool,
    /// The parts that are not plain numbers.
    pub detail: Mutex<WorkerDetail>,
}

impl WorkerView {
    /// The parts that are not plain numbers, as they are now.
    pub fn detail(&self) -> WorkerDetail {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The changing parts of a worker's view.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WorkerDetail {
    /// What it does.
    pub state: Option<AgentState>,
    /// Since when, milliseconds since the Unix epoch.
    pub state_since_ms: u64,
    /// Why it is in that state, in words (`prompt at row 3`, `dialog: Trust this folder?`).
    pub because: String,
    /// The dialog that is open.
    pub dialog: Option<Dialog>,
    /// The injection under way.
    pub injecting: Option<InjectionView>,
    /// Injections that have no proof yet, the one under way included.
    pub queued: usize,
    /// Window title.
    pub title: String,
    /// Terminal modes that are on.
    pub modes: Vec<&'static str>,
    /// How the child ended, once it has.
    pub exit: Option<ExitRecord>,
}

/// The injection under way.
#[derive(Clone, Debug, Serialize)]
pub struct InjectionView {
    /// Which.
    pub delivery_id: DeliveryId,
    /// How far.
    pub rung: super::delivery::Rung,
    /// What it waits for.
    pub waiting_for: String,
    /// The last rows of the screen when it was found not to move any more.
    pub stuck: Option<String>,
}

told!(ChildExited, StateChanged, SessionKnown, AnswerDialog, Input, Resize, TakeSnapshot, Terminate);
