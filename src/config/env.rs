//! The environment: every variable that the broker or its command line reads, by name.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

/// Guards the local API; generated when unset.
pub const API_KEY: &str = "RELAY_BROKER_API_KEY";
/// The engine's base URL.
pub const BASE_URL: &str = "RELAYCAST_BASE_URL";
/// The engine's base URL, when [`BASE_URL`] is unset; also what an agent is told.
pub const BASE_URL_FALLBACK: &str = "RELAY_BASE_URL";
/// Replaces the base URL for the node socket.
pub const WS_URL: &str = "RELAYCAST_WS_URL";
/// The workspace key.
pub const WORKSPACE_KEY: &str = "AGENT_RELAY_WORKSPACE_KEY";
/// The workspace key, when [`WORKSPACE_KEY`] is unset.
pub const WORKSPACE_KEY_FALLBACK: &str = "RELAY_WORKSPACE_KEY";
/// The workspace key in its oldest form; anything but an `rk_…` is not for us and is ignored.
pub const WORKSPACE_KEY_OLD: &str = "RELAY_API_KEY";
/// A node token that was enrolled elsewhere.
pub const NODE_TOKEN: &str = "RELAY_NODE_TOKEN";
/// A pinned node id.
pub const NODE_ID: &str = "RELAY_NODE_ID";
/// The broker's instance name, below the flags.
pub const INSTANCE: &str = "AGENT_RELAY_BROKER_NAME";
/// Channels for spawns that name none, separated by commas.
pub const CHANNELS: &str = "RELAY_DEFAULT_CHANNELS";
/// `spawn:<harness>` capabilities to advertise, separated by commas.
pub const HARNESSES: &str = "AGENT_RELAY_NODE_HARNESSES";
/// Most agents at once.
pub const MAX_AGENTS: &str = "AGENT_RELAY_NODE_MAX_AGENTS";
/// Where `up` keeps its state and clients look for a broker.
pub const STATE_DIR: &str = "AGENT_RELAY_STATE_DIR";
/// A configuration file, when no `--config` is given.
pub const CONFIG_FILE: &str = "RELAY_BROKER_CONFIG";
/// What the broker itself is at the engine (default `human`).
pub const AGENT_TYPE: &str = "RELAY_AGENT_TYPE";
/// Allows deliberate panics, for tests.
pub const FAULTS: &str = "RELAY_BROKER_FAULTS";
/// Set by a caller who wants no engine at all, which this program cannot be without.
pub const DISABLED: &str = "AGENT_RELAY_DISABLE_RELAYCAST";
/// Where clients find a broker, together with [`API_KEY`].
pub const BROKER_URL: &str = "RELAY_BROKER_URL";
/// Set in an agent's environment: it speaks as that agent.
pub const AGENT_TOKEN: &str = "RELAY_AGENT_TOKEN";
/// Set in an agent's environment: its name.
pub const AGENT_NAME: &str = "RELAY_AGENT_NAME";
/// Set in an agent's environment: where it hands in results.
pub const RESULT_URL: &str = "AGENT_RELAY_RESULT_URL";
/// Set in an agent's environment: opens [`RESULT_URL`], in its name.
pub const RESULT_TOKEN: &str = "AGENT_RELAY_RESULT_TOKEN";
/// Set in an agent's environment when its spawn said what its result is to be like: a JSON schema.
pub const RESULT_SCHEMA: &str = "AGENT_RELAY_RESULT_SCHEMA";
/// Set for the command of a declared action: the action's name.
pub const ACTION: &str = "RELAY_ACTION";
/// Set for the command of a declared action: the same for the same invocation, whoever runs it.
pub const INVOCATION: &str = "RELAY_INVOCATION_ID";
/// What is logged (the syntax of tracing-subscriber's `EnvFilter`).
pub const LOG_FILTER: &str = "RUST_LOG";
/// Base of the per-user data directory.
pub const XDG_DATA_HOME: &str = "XDG_DATA_HOME";
/// Base of the per-user configuration directory.
pub const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
/// Where both of these are when they are not named.
pub const HOME: &str = "HOME";

/// Every variable of ours, so that a child can be started without any of them.
pub const ALL: &[&str] = &[
    API_KEY,
    BASE_URL,
    BASE_URL_FALLBACK,
    WS_URL,
    WORKSPACE_KEY,
    WORKSPACE_KEY_FALLBACK,
    WORKSPACE_KEY_OLD,
    NODE_TOKEN,
    NODE_ID,
    INSTANCE,
    CHANNELS,
    HARNESSES,
    MAX_AGENTS,
    STATE_DIR,
    CONFIG_FILE,
    AGENT_TYPE,
    FAULTS,
    DISABLED,
    BROKER_URL,
    AGENT_TOKEN,
    AGENT_NAME,
    RESULT_URL,
    RESULT_TOKEN,
    RESULT_SCHEMA,
    ACTION,
    INVOCATION,
];

/// An environment as a value, so that nothing below `main` depends on the process's own.
#[derive(Clone, Debug, Default)]
pub struct Env(BTreeMap<OsString, OsString>);

impl Env {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// The variable's value; a variable that is set to nothing counts as unset.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The variable as text; `None` also when it is not UTF-8 (see [`Env::not_text`]).
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.to_str()
    }

    /// The variable as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// True when the variable is set at all, even to nothing.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(OsStr::new(name))
    }

    /// Our variables whose value is not UTF-8.
    pub fn not_text(&self) -> impl Iterator<Item = &'static str> {
        ALL.iter().copied().filter(|name| self.get(name).is_some_and(|value| value.to_str().is_none()))
    }

    /// A directory of the XDG base directory specification: the variable when it is an absolute path,
    /// else this path below the home directory.
    pub fn xdg(&self, name: &str, below_home: &str) -> Option<PathBuf> {
        let named = self.path(name).filter(|path| path.is_absolute());
        named.or_else(|| Some(self.path(HOME).filter(|home| home.is_absolute())?.join(below_home)))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Env {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}
