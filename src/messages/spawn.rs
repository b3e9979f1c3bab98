//! Spawning: http, cli and node_session -> registry; ONE path, whoever asks.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    Reply,
    dead_letter::Redeliver,
    delivery::*,
    hold::HoldDoors,
    process::{ExitRecord, ProcessSpec},
    pty::*,
    told,
};
use crate::{
    ids::{AgentId, AgentName, Birth, InvocationId, SessionRef, SpawnId},
    supervision::Post,
};

/// What to start and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpawnSpec {
    /// The agent's name.
    pub name: AgentName,
    /// The program as the user wrote it, resolved on the child's PATH.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Absolute, existing; the broker's own directory when the caller named none.
    pub cwd: PathBuf,
    /// Additions to the clean environment. Values may be secrets: never logged.
    pub env: BTreeMap<String, String>,
    /// Channels the agent joins.
    pub channels: Vec<String>,
    /// First task, typed once the agent is ready.
    pub task: Option<String>,
    /// Rule set to use; by the program's name when absent.
    pub harness: Option<String>,
    /// Model, passed on for display.
    pub model: Option<String>,
    /// Terminal size.
    pub size: TermSize,
    /// The session of the program that it takes up.
    pub session_ref: Option<SessionRef>,
    /// How long it is idle before that is told (`agent_idle`); 30 s when absent.
    pub idle_after: Option<Duration>,
    /// What it may do without asking.
    #[serde(default)]
    pub autonomy: Autonomy,
    /// It is handed the broker's tools: wherever that is known, or not at all; as the broker is configured when
    /// absent.
    #[serde(default)]
    pub mcp: Option<bool>,
    /// How its process is run.
    #[serde(default)]
    pub process: ProcessSpec,
}

impl SpawnSpec {
    /// This program with these arguments, there, and nothing else asked for.
    pub fn new(name: AgentName, program: &str, args: Vec<String>, cwd: &Path) -> Self {
        Self {
            name,
            program: program.to_owned(),
            args,
            cwd: cwd.to_owned(),
            env: BTreeMap::new(),
            channels: Vec::new(),
            task: None,
            harness: None,
            model: None,
            size: TermSize::default(),
            session_ref: None,
            idle_after: None,
            autonomy: Autonomy::default(),
            mcp: None,
            process: ProcessSpec::default(),
        }
    }
}

/// What an agent may do without asking a person. The rule set of its program says how it is told so; a program
/// of which nothing is known is told nothing. Each grants what those before it do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Autonomy {
    /// Nothing: its questions show as dialogs, and somebody answers them.
    #[default]
    Ask,
    /// It trusts the directory it starts in, and asks about the rest.
    TrustCwd,
    /// It asks nothing.
    Full,
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The local API.
    Api,
    /// The engine.
    Engine(InvocationId),
    /// The sidecar, for an invocation that it handles: its own answer is the result of that.
    Sidecar(InvocationId),
}

/// http or node_session -> registry: start an agent.
#[derive(Debug)]
pub struct Spawn {
    /// What.
    pub spec: SpawnSpec,
    /// For whom.
    pub origin: Origin,
    /// Answered when it lives or has failed.
    pub reply: Reply<Result<Spawned, SpawnRefused>>,
}

/// A live agent.
#[derive(Clone, Debug)]
pub struct Spawned {
    /// Its name.
    pub name: AgentName,
    /// Its id at the engine.
    pub agent_id: AgentId,
    /// Its process.
    pub pid: u32,
    /// The rule set in use.
    pub harness: String,
    /// Something the caller should know although the spawn succeeded.
    pub warning: Option<String>,
}

/// Why nothing was started. Whatever had been begun has been undone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpawnRefused {
    /// The name is taken by a live agent or by a spawn under way.
    #[error("an agent named `{0}` already exists; release it first or choose another name")]
    NameTaken(AgentName),
    /// The working directory is relative, missing or not a directory.
    #[error("{0}")]
    BadCwd(String),
    /// The program is not on the child's PATH, or cannot be run.
    #[error("cannot run `{program}`: {why}")]
    BadProgram {
        /// As given.
        program: String,
        /// The system's words.
        why: String,
    },
    /// The child ended within the survival check.
    #[error("the program ended at once ({}); its last output was: {}", .0.how(), .0.last_output)]
    DiedAtOnce(Box<ExitRecord>),
    /// The engine did not register it.
    #[error("not registered at the engine: {0}")]
    NotRegistered(super::session::RegisterRefused),
    /// The node is offline and the fallback failed too.
    #[error("the node is offline ({why}); {next}")]
    NodeOffline {
        /// In words.
        why: String,
        /// The next step or the time of the next try.
        next: String,
    },
    /// No such rule set.
    #[error("no harness named `{0}`; `relay-broker harness list` shows them")]
    UnknownHarness(String),
    /// The broker is ending, or the spawn was released while starting.
    #[error("the spawn was abandoned: {0}")]
    Abandoned(String),
}

/// http -> registry: all agents.
#[derive(Debug)]
pub struct ListAgents(pub Reply<Vec<AgentView>>);

/// http -> registry: one agent and the ways to its rooms.
#[derive(Debug)]
pub struct FindAgent {
    /// Exact name.
    pub name: AgentName,
    /// What there is.
    pub reply: Reply<Found>,
}

/// What there is of an agent that was looked for.
#[derive(Clone, Debug)]
pub enum Found {
    /// Its program, and the ways to it.
    Doors(Box<AgentDoors>),
    /// The agent, without a program at this moment.
    NoProgram(AgentPhase),
    /// No such agent.
    Nobody,
}

/// An agent's place in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentPhase {
    /// Being registered.
    Registering,
    /// Its process is being started.
    Starting,
    /// It runs.
    Live,
    /// Its program has failed; the next one is started after a while.
    Restarting,
    /// It is being ended.
    Releasing,
    /// Its cursor was given up after repeated panics; the engine keeps its mail.
    Quarantined,
}

/// One agent as the list shows it.
#[derive(Clone, Debug)]
pub struct AgentView {
    /// What was asked for.
    pub spec: SpawnSpec,
    /// Its id at the engine, once registered.
    pub agent_id: Option<AgentId>,
    /// Where it is in its life.
    pub phase: AgentPhase,
    /// Its process, once started.
    pub pid: Option<u32>,
    /// The session of its program, once it is known.
    pub session: Option<SessionRef>,
    /// When it was asked for.
    pub since: SystemTime,
    /// Its worker's shared view, once started.
    pub worker: Option<Arc<WorkerView>>,
}

/// The ways to one agent's rooms, handed out by the registry.
#[derive(Clone, Debug)]
pub struct AgentDoors {
    /// The list entry.
    pub view: AgentView,
    /// Keystrokes.
    pub input: Post<Input>,
    /// Window size.
    pub resize: Post<Resize>,
    /// The screen.
    pub snapshot: Post<TakeSnapshot>,
    /// An answer to the dialog that is open.
    pub answer: Post<AnswerDialog>,
    /// The cursor's numbers.
    pub cursor: Post<ObserveCursor>,
    /// Its messages, held back or not.
    pub hold: HoldDoors,
}

/// registry -> supervisor: build the two rooms of an agent, and route its frames to them.
#[derive(Debug)]
pub struct BuildRooms {
    /// The agent.
    pub agent_id: AgentId,
    /// Told again when its child has ended.
    pub birth: Birth,
    /// What to run.
    pub spec: SpawnSpec,
    /// The environment beyond the spec's own: the agent's token and addresses.
    pub relay_env: AgentEnv,
    /// Where its mailbox stands, if the engine said so.
    pub ack_seq: Option<crate::ids::Seq>,
    /// Handed to the worker, which answers when the child survived its first moments or did not start.
    pub started: Reply<Result<Started, SpawnRefused>>,
    /// Answered at once.
    pub reply: Reply<Rooms>,
}

/// A child that survived its first moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Its process.
    pub pid: u32,
    /// The rule set in use.
    pub harness: String,
    /// The mark that its whole process tree carries.
    pub spawn: SpawnId,
    /// When the kernel started it, in clock ticks since boot (field 22 of `/proc/<pid>/stat`): with the pid
    /// it names this process and no later one.
    pub at_tick: u64,
}

/// The rooms of one agent.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// The worker's shared view.
    pub view: Arc<WorkerView>,
    /// The cursor's numbers.
    pub cursor: Post<ObserveCursor>,
    /// A dead letter, once more.
    pub redeliver: Post<Redeliver>,
    /// Its messages, held back or not.
    pub hold: HoldDoors,
    /// Keystrokes.
    pub input: Post<Input>,
    /// Window size.
    pub resize: Post<Resize>,
    /// The screen.
    pub snapshot: Post<TakeSnapshot>,
    /// An answer to the dialog that is open.
    pub answer: Post<AnswerDialog>,
    /// The end.
    pub terminate: Post<Terminate>,
}

/// registry -> supervisor: this agent's rooms are to be closed and its frames no longer routed; its child
/// has ended or never started.
#[derive(Clone, Debug)]
pub struct CloseRooms {
    /// Whose.
    pub name: AgentName,
    /// Its id.
    pub agent_id: AgentId,
    /// Its next program comes soon: until then its frames are left to the engine, unacked.
    pub returns: bool,
}

/// What an agent is told about itself through its environment.
#[derive(Clone, Debug)]
pub struct AgentEnv {
    /// Its own token, and no other.
    pub token: crate::ids::AgentToken,
    /// Hands in its results, and no other's.
    pub result_token: crate::ids::ResultToken,
    /// Where it hands them in.
    pub result_url: String,
    /// The engine.
    pub base_url: String,
    /// Its workspace, if known.
    pub workspace: Option<crate::ids::WorkspaceId>,
}

told!(Spawn, ListAgents, FindAgent, BuildRooms, CloseRooms);
