//! Configuration: file < environment < flags. Every variable's name stands in [`mod@env`], and all bad values
//! are reported at once.
//!
//! [`load`] looks at the world (the directory, the files) and [`resolve`] decides: a pure function of what
//! was asked, the environment and the file's text.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use crate::{
    harness::Catalogue,
    ids::{ApiKey, NodeId, NodeName, NodeToken, WorkspaceKey},
};

pub mod env;
mod file;
mod resolve;

pub use env::Env;
pub(crate) use resolve::STATE_BELOW_CWD;
pub use resolve::{Asked, ConfigErrors, Form, Problem, check, check_instance, load, load_catalogue};

/// Everything that a running broker was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// This broker's name: in file names, and as its own (human) identity at the engine.
    pub instance: String,
    /// The canonical directory the broker works for.
    pub cwd: PathBuf,
    /// Where connection.json, the lock, the journal and the embedded engine's database are. 0700.
    pub state_dir: PathBuf,
    /// The state directory was made for this run alone and is removed when it ends.
    pub ephemeral: bool,
    /// Per-user data: the machine seed and the token cache (`$XDG_DATA_HOME/agent-relay`). 0700.
    pub data_dir: PathBuf,
    /// Which engine.
    pub engine: EngineChoice,
    /// Administers the workspace; `None` makes one (embedded, or where the engine allows it).
    pub workspace_key: Option<WorkspaceKey>,
    /// A node token that was enrolled elsewhere (`RELAY_NODE_TOKEN`), used verbatim.
    pub node_token: Option<NodeToken>,
    /// A pinned node id (`RELAY_NODE_ID`).
    pub node_id: Option<NodeId>,
    /// The node's name; `<host>-<6 hex of the node id>` when absent.
    pub node_name: Option<NodeName>,
    /// The local API.
    pub api: ApiConfig,
    /// What the broker itself is at the engine: `human` unless `RELAY_AGENT_TYPE` says otherwise.
    pub agent_type: String,
    /// Channels for spawns that name none.
    pub channels: Vec<String>,
    /// Harnesses to advertise as `spawn:<harness>`: those that are programs by themselves, and those of
    /// [`Config::handlers`].
    pub harnesses: Vec<String>,
    /// What is known of programs: the broker's own rule sets, and the user's in
    /// `$XDG_CONFIG_HOME/relay-broker/harness`.
    pub catalogue: Catalogue,
    /// What runs for a harness that is declared, whatever command line the engine sends along.
    pub handlers: BTreeMap<String, CommandLine>,
    /// Other actions that this node runs, by name.
    pub actions: BTreeMap<String, DeclaredAction>,
    /// Most agents at once; 0 is unlimited.
    pub max_agents: u32,
    /// Ends the broker when no client renews its session for this long; `None` with `--persist` and `up`.
    pub lease: Option<Duration>,
    /// Record what agents' terminals show, in the state directory.
    pub record_output: bool,
    /// Hand agents the broker's tools: always where it is known how, or never; by the rule set when absent.
    pub mcp: Option<bool>,
    /// Accept deliberate panics on `/debug/fault` (`RELAY_BROKER_FAULTS=1`). For tests alone.
    pub faults: bool,
    /// The protocol's periods.
    pub timings: Timings,
}

/// The MCP server that agents' programs are told to start.
#[derive(Clone, Debug)]
pub struct ToolServer {
    /// The program, which is the broker's own; its one argument is `mcp`. Without it nothing is handed over.
    pub program: Option<String>,
    /// Hand it over: always where it is known how, or never; by the rule set when absent.
    pub wanted: Option<bool>,
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Resolved on the child's PATH.
    pub program: String,
    /// As they are.
    pub args: Vec<String>,
}

/// An action of this node: a command that reads its input as JSON and prints its output as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredAction {
    /// Run without a shell.
    pub command: CommandLine,
    /// Then it is killed, and the action has failed.
    pub timeout: Duration,
}

/// Which engine the node belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// The one in this binary, on loopback.
    Embedded,
    /// Another one.
    Remote {
        /// Without a trailing slash.
        base_url: String,
        /// Replaces the base for the socket (`RELAYCAST_WS_URL`).
        ws_url: Option<String>,
    },
}

/// The local API's place and key.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Loopback unless the user insisted.
    pub bind: IpAddr,
    /// 0 lets the system pick.
    pub port: u16,
    /// Generated when not given.
    pub key: ApiKey,
}

/// The protocol's periods; the defaults are the engine's contract, tests shorten them.
#[derive(Clone, Debug, PartialEq)]
pub struct Timings {
    /// Between heartbeats and pings (spec/wire 4.4: 12 s).
    pub heartbeat: Duration,
    /// Silence after which the socket is dead (spec/wire 2.6: 48 s).
    pub silence: Duration,
    /// Between periodic inventory syncs (spec/wire 4.2: 60 s).
    pub sync: Duration,
    /// For a reply to `node.register` (spec/wire 2.5: 5 s).
    pub register: Duration,
    /// For a reply to `agent.register` (spec/wire 5.1: 30 s).
    pub agent_register: Duration,
    /// How long a session must be live to count as healthy (design: 10 s).
    pub healthy: Duration,
    /// Survival check of a fresh child (spec/pty 2.9: 250 ms).
    pub survival: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(12),
            silence: Duration::from_secs(48),
            sync: Duration::from_secs(60),
            register: Duration::from_secs(5),
            agent_register: Duration::from_secs(30),
            healthy: Duration::from_secs(10),
            survival: Duration::from_millis(250),
        }
    }
}
