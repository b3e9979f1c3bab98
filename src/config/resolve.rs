//! From what was asked, the environment and the file to a [`Config`], or to everything that is wrong.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use actix_web::http::Uri;
use rand::RngExt;

use super::{ApiConfig, CommandLine, Config, DeclaredAction, EngineChoice, Env, Timings, env, file::File};
use crate::{
    harness::{BadFile, Catalogue},
    ids::{AgentName, ApiKey, NodeId, NodeName, NodeToken, WorkspaceKey},
};

/// For a declared action. An engine that has had no answer for 30 s asks another node too (spec/wire 4.7).
const ACTION_TIMEOUT: Duration = Duration::from_secs(25);
/// Where `init` finds its engine when it is not told (spec/wire 1.1).
const HOSTED_ENGINE: &str = "https://cast.agentrelay.com";
/// A broker that `init` started without `--persist` ends when nobody renews for this long (spec/api 1.5).
const LEASE: Duration = Duration::from_secs(120);
/// The state directory, below the directory the broker works for.
pub(crate) const STATE_BELOW_CWD: &str = ".agentworkforce/relay";
/// The configuration file's name.
const FILE_NAME: &str = "relay-broker.toml";
/// Longest name of a node or a broker.
const NAME_MAX: usize = 64;

/// Which command asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// For a person: embedded engine, state below the directory, no lease, strict names.
    #[default]
    Up,
    /// For a program: the form and defaults of spec/api 1.
    Init {
        /// Outlives its clients, and keeps its state.
        persist: bool,
    },
}

/// What the command line said; `None` where it said nothing.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "each field is the flag of its name; the help text says what it does")]
pub struct Asked {
    pub form: Form,
    /// `--instance-name` of `init`, `--name` of `up`.
    pub instance: Option<String>,
    /// `--name` of `init`: names the instance when `--instance-name` does not, and the node.
    pub legacy_name: Option<String>,
    pub node_name: Option<String>,
    pub workspace_key: Option<String>,
    pub engine: Option<String>,
    pub embedded: bool,
    pub channels: Option<String>,
    pub harnesses: Option<String>,
    pub port: Option<u16>,
    pub bind: Option<IpAddr>,
    pub allow_remote_api: bool,
    pub state_dir: Option<PathBuf>,
    pub config: Option<PathBuf>,
    pub max_agents: Option<u32>,
}

/// One bad value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    source: String,
    said: String,
}

impl Problem {
    pub(super) fn new(source: impl Into<String>, said: impl Into<String>) -> Self {
        Self { source: source.into(), said: said.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both may quote a file, and whatever is in a file must not act on a terminal.
        let shown = format!("{}: {}", self.source, self.said);
        f.write_str(&shown.replace(char::is_control, "\u{fffd}"))
    }
}

/// Everything that is wrong with a configuration, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(f, "bad configuration: {only}");
        }
        write!(f, "bad configuration, {} problems:", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads the configuration file, looks at the directory, and resolves.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(asked: &Asked, env: &Env) -> Result<Config, ConfigErrors> {
    let cwd = std::env::current_dir().and_then(std::fs::canonicalize).map_err(|error| {
        let said = format!("cannot be read ({error}); go to a directory that exists");
        ConfigErrors(vec![Problem::new("the working directory", said)])
    })?;
    let mut problems = Vec::new();
    let file = find_file(asked, env, &cwd, &mut problems);
    let catalogue = load_catalogue(env).unwrap_or_else(|bad| {
        problems.extend(bad);
        Catalogue::default()
    });
    let place = Place { cwd, temp: std::env::temp_dir(), pid: std::process::id() };
    Ok(Config { catalogue, ..resolve(asked, env, &file, &place, problems)? })
}

/// The broker's own rule sets, and over them the files in `relay-broker/harness` of the user's configuration.
///
/// # Errors
/// Everything that is wrong with any of the files.
pub fn load_catalogue(env: &Env) -> Result<Catalogue, Vec<Problem>> {
    let Some(dir) = user_dir(env) else { return Ok(Catalogue::built_in()) };
    let said = |bad: BadFile| Problem::new(bad.place(), bad.said);
    Catalogue::load(&dir.join("harness")).map_err(|bad| bad.into_iter().map(said).collect())
}

/// Where a user keeps what is the broker's.
fn user_dir(env: &Env) -> Option<PathBuf> {
    env.xdg(env::XDG_CONFIG_HOME, ".config").map(|dir| dir.join("relay-broker"))
}

/// What `up` would make of a file's text, looking at nothing else. Only for tests that feed it hostile files.
///
/// # Errors
/// Everything that is wrong, at once.
#[doc(hidden)]
pub fn check(path: &Path, text: &str) -> Result<Config, ConfigErrors> {
    let mut problems = Vec::new();
    let file = File::parse(path, text, &mut problems);
    let root = PathBuf::from("/");
    let place = Place { cwd: root.clone(), temp: root, pid: 1 };
    resolve(&Asked::default(), &Env::from([(env::HOME, "/")]), &file, &place, problems)
}

/// The first of `--config`, the variable, the state directory and the user's configuration that exists.
/// Only a file that was named must exist.
fn find_file(asked: &Asked, env: &Env, cwd: &Path, problems: &mut Vec<Problem>) -> File {
    let named = asked.config.clone().or_else(|| env.path(env::CONFIG_FILE));
    let must_exist = named.is_some();
    let candidates = match named {
        Some(path) => vec![path],
        None => {
            let state = lasting_state_dir(asked, env, cwd).map(|dir| dir.join(FILE_NAME));
            let user = user_dir(env).map(|dir| dir.join(FILE_NAME));
            state.into_iter().chain(user).collect()
        }
    };
    for path in candidates {
        match std::fs::read_to_string(&path) {
            Ok(text) => return File::parse(&path, &text, problems),
            Err(error) if is_absent(&error) && !must_exist => {}
            Err(error) => {
                problems.push(Problem::new(path.display().to_string(), format!("cannot be read: {error}")));
            }
        }
    }
    File::default()
}

/// There is no such file, or no directory it could be in.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What resolving needs to know of the machine.
struct Place {
    cwd: PathBuf,
    temp: PathBuf,
    pid: u32,
}

/// Where the state stays between runs; `None` for a state that does not.
fn lasting_state_dir(asked: &Asked, env: &Env, cwd: &Path) -> Option<PathBuf> {
    let below = || cwd.join(STATE_BELOW_CWD);
    let said = asked.state_dir.clone();
    match asked.form {
        Form::Up => Some(said.or_else(|| env.path(env::STATE_DIR)).unwrap_or_else(below)),
        Form::Init { persist } => said.or_else(|| persist.then(below)),
    }
    .map(|dir| cwd.join(dir))
}

fn resolve(
    asked: &Asked,
    env: &Env,
    file: &File,
    place: &Place,
    problems: Vec<Problem>,
) -> Result<Config, ConfigErrors> {
    let mut all = Sources { asked, env, file, problems };
    for name in env.not_text() {
        all.wrong(name, "is not UTF-8");
    }
    if env.has(env::DISABLED) {
        all.wrong(env::DISABLED, "is set, but a broker is nothing without an engine; unset it");
    }

    let instance = all.instance(&place.cwd);
    let engine = all.engine();
    let workspace_key = all.workspace_key();
    let node_name = all.node_name();
    let node_id = all.node_id();
    let node_token = all.node_token();
    let api = all.api();
    let channels = all.channels();
    let (handlers, actions) = all.handlers();
    let mut harnesses = all.harnesses();
    for name in handlers.keys() {
        if !harnesses.contains(name) {
            harnesses.push(name.clone());
        }
    }
    let max_agents = all.max_agents();
    let timings = all.timings();

    let lasting = lasting_state_dir(asked, env, &place.cwd);
    let ephemeral = lasting.is_none();
    let state_dir = lasting.unwrap_or_else(|| {
        let tail = uuid::Uuid::new_v4();
        place.temp.join(format!("agent-relay-ephemeral-{}-{instance}-{tail}", place.pid))
    });
    let data_dir = env.xdg(env::XDG_DATA_HOME, ".local/share").unwrap_or_else(|| {
        all.wrong(env::HOME, "is not set; set it, or XDG_DATA_HOME, to an absolute path");
        PathBuf::new()
    });

    if !all.problems.is_empty() {
        return Err(ConfigErrors(all.problems));
    }
    Ok(Config {
        instance,
        cwd: place.cwd.clone(),
        state_dir,
        ephemeral,
        data_dir: data_dir.join("agent-relay"),
        engine,
        workspace_key,
        node_token,
        node_id,
        node_name,
        api,
        channels,
        harnesses,
        catalogue: Catalogue::built_in(),
        handlers,
        actions,
        max_agents,
        lease: (asked.form == Form::Init { persist: false }).then_some(LEASE),
        agent_type: env.text(env::AGENT_TYPE).unwrap_or("human").to_owned(),
        mcp: file.flag("mcp"),
        record_output: file.flag("record_output").unwrap_or(true),
        faults: env.text(env::FAULTS) == Some("1"),
        timings,
    })
}

/// A value and who said it.
struct Said<'a> {
    value: &'a str,
    source: String,
}

/// The three sources, and what was found wrong in them so far.
struct Sources<'a> {
    asked: &'a Asked,
    env: &'a Env,
    file: &'a File,
    problems: Vec<Problem>,
}

impl<'a> Sources<'a> {
    fn wrong(&mut self, source: impl Into<String>, said: impl Into<String>) {
        self.problems.push(Problem::new(source, said));
    }

    /// The first that says something: the flag, the variables in their order, the file's key.
    fn first(&self, flag: (&str, &'a Option<String>), names: &[&str], key: &str) -> Option<Said<'a>> {
        let said = |value, source: &str| Said { value, source: source.to_owned() };
        if let Some(value) = flag.1 {
            return Some(said(value.as_str(), flag.0));
        }
        let env = self.env;
        let of_env = names.iter().find_map(|name| Some(said(env.text(name)?, name)));
        of_env.or_else(|| Some(Said { value: self.file.text(key)?, source: self.file.source(key) }))
    }

    fn instance(&mut self, cwd: &Path) -> String {
        let asked = self.asked;
        let flag = match asked.form {
            Form::Up => ("--name", &asked.instance),
            Form::Init { .. } if asked.instance.is_some() => ("--instance-name", &asked.instance),
            Form::Init { .. } => ("--name", &asked.legacy_name),
        };
        let Some(said) = self.first(flag, &[env::INSTANCE], "name") else {
            return clean(&cwd.file_name().unwrap_or_default().to_string_lossy());
        };
        match asked.form {
            // Programs pass the name of a directory here, whatever it is called.
            Form::Init { .. } => clean(said.value),
            Form::Up => {
                if let Err(error) = check_instance(said.value) {
                    self.wrong(said.source, error);
                }
                said.value.to_owned()
            }
        }
    }

    fn engine(&mut self) -> EngineChoice {
        let asked = self.asked;
        let names = [env::BASE_URL, env::BASE_URL_FALLBACK];
        let said = self.first(("--engine", &asked.engine), &names, "engine");
        let ws = self.first(("", &None), &[env::WS_URL], "engine_ws");
        if asked.embedded {
            if asked.engine.is_some() {
                self.wrong(
                    "--engine",
                    "contradicts the embedded engine that was asked for; drop one of them",
                );
            }
            return EngineChoice::Embedded;
        }
        let base = match (said, asked.form) {
            (Some(said), _) if said.value == "embedded" => return EngineChoice::Embedded,
            (Some(said), _) => self.url(said, &["http", "https"]),
            (None, Form::Up) => return EngineChoice::Embedded,
            (None, Form::Init { .. }) => HOSTED_ENGINE.to_owned(),
        };
        let ws_url = ws.map(|said| self.url(said, &["ws", "wss", "http", "https"]));
        EngineChoice::Remote { base_url: base, ws_url }
    }

    fn url(&mut self, said: Said<'_>, schemes: &[&str]) -> String {
        let trimmed = said.value.trim_end_matches('/');
        if let Err(why) = check_url(trimmed, schemes) {
            self.wrong(said.source, why);
        }
        trimmed.to_owned()
    }

    fn workspace_key(&mut self) -> Option<WorkspaceKey> {
        let asked = self.asked;
        let names = [env::WORKSPACE_KEY, env::WORKSPACE_KEY_FALLBACK];
        let Some(said) = self.first(("--workspace-key", &asked.workspace_key), &names, "workspace_key")
        else {
            let old = self.env.text(env::WORKSPACE_KEY_OLD).filter(|key| is_workspace_key(key));
            return old.map(WorkspaceKey::from);
        };
        if !is_workspace_key(said.value) {
            self.wrong(said.source, "is not a workspace key: one starts with `rk_`");
        }
        Some(WorkspaceKey::from(said.value))
    }

    fn node_name(&mut self) -> Option<NodeName> {
        let asked = self.asked;
        let flag = match asked.form {
            Form::Init { .. } => ("--name", &asked.legacy_name),
            Form::Up => ("--node-name", &asked.node_name),
        };
        let said = self.first(flag, &[], "node_name")?;
        let name = match asked.form {
            Form::Init { .. } => clean(said.value),
            Form::Up => {
                if let Err(error) = check_instance(said.value) {
                    self.wrong(said.source, error);
                }
                said.value.to_owned()
            }
        };
        Some(NodeName::from(name))
    }

    fn node_id(&mut self) -> Option<NodeId> {
        let said = self.first(("", &None), &[env::NODE_ID], "node_id")?;
        if !is_token(said.value) {
            self.wrong(said.source, "is not a node id: it has blanks or control characters");
        }
        Some(NodeId::from(said.value))
    }

    fn node_token(&mut self) -> Option<NodeToken> {
        let token = self.env.text(env::NODE_TOKEN)?;
        if !is_token(token) {
            self.wrong(env::NODE_TOKEN, "is not a token: it has blanks or control characters");
        }
        Some(NodeToken::from(token))
    }

    fn api(&mut self) -> ApiConfig {
        let asked = self.asked;
        let mut bind_source = "--api-bind".to_owned();
        let bind = asked.bind.unwrap_or_else(|| {
            let Some(text) = self.file.text("api.bind") else { return IpAddr::V4(Ipv4Addr::LOCALHOST) };
            bind_source = self.file.source("api.bind");
            text.parse().unwrap_or_else(|_| {
                self.problems.push(Problem::new(&bind_source, "is not an IP address"));
                IpAddr::V4(Ipv4Addr::LOCALHOST)
            })
        });
        let allowed = asked.allow_remote_api || self.file.flag("api.allow_remote").unwrap_or(false);
        if !bind.is_loopback() && !allowed {
            let said = format!(
                "{bind} can be reached from other machines, over plain HTTP; add --allow-remote-api if \
                 that is what you want"
            );
            self.wrong(bind_source, said);
        }
        let port = asked.port.or_else(|| u16::try_from(self.file.number("api.port")?).ok());
        let key = match self.first(("", &None), &[env::API_KEY], "api.key") {
            Some(said) => {
                if !is_token(said.value) {
                    self.wrong(said.source, "is not a key: it has blanks or control characters");
                }
                said.value.to_owned()
            }
            None => generate_key(),
        };
        ApiConfig { bind, port: port.unwrap_or(0), key: ApiKey::from(key) }
    }

    /// A list: the flag or the variable separated by commas, or the file's own list.
    fn list(&self, flag: (&str, &'a Option<String>), name: &str, key: &str) -> Option<(Vec<String>, String)> {
        match self.first(flag, &[name], "") {
            Some(said) => {
                let items = said.value.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some((items.map(str::to_owned).collect(), said.source))
            }
            None => {
                let items = self.file.texts(key)?;
                Some((items.into_iter().map(str::to_owned).collect(), self.file.source(key)))
            }
        }
    }

    fn channels(&mut self) -> Vec<String> {
        let Some((channels, source)) =
            self.list(("--channels", &self.asked.channels), env::CHANNELS, "channels")
        else {
            return vec!["general".to_owned()];
        };
        let channels: Vec<_> = channels.iter().map(|name| name.trim_start_matches('#').to_owned()).collect();
        for bad in channels.iter().filter(|name| !is_channel(name)) {
            let said = format!("`{bad}` is not a channel: use lower-case letters, digits and dashes");
            self.problems.push(Problem::new(&source, said));
        }
        channels
    }

    fn harnesses(&mut self) -> Vec<String> {
        let Some((harnesses, source)) =
            self.list(("--harnesses", &self.asked.harnesses), env::HARNESSES, "harnesses")
        else {
            return Vec::new();
        };
        // A bare `spawn` would promise the engine that this node runs anything.
        for bad in harnesses.iter().filter(|name| AgentName::parse(name).is_err() || *name == "spawn") {
            let said = format!("`{bad}` is not a harness; name the programs that this node runs");
            self.problems.push(Problem::new(&source, said));
        }
        harnesses
    }

    /// What runs for `spawn:<harness>`, and what for other actions.
    fn handlers(&mut self) -> (BTreeMap<String, CommandLine>, BTreeMap<String, DeclaredAction>) {
        let (mut handlers, mut actions) = (BTreeMap::new(), BTreeMap::new());
        for (name, handler) in self.file.handlers() {
            let source = self.file.source(&format!("handlers.\"{name}\""));
            let command = match handler.command.as_slice() {
                [program, args @ ..] if !program.trim().is_empty() => {
                    CommandLine { program: program.clone(), args: args.to_vec() }
                }
                _ => {
                    self.wrong(source, "has an empty `command`; name a program");
                    continue;
                }
            };
            let said = match (name.as_str(), name.strip_prefix("spawn:")) {
                ("spawn", _) => {
                    "would draw every spawn of the workspace to this node; declare `spawn:<harness>`"
                        .to_owned()
                }
                ("release", _) => "is the broker's own and cannot be declared".to_owned(),
                (_, Some(harness)) if AgentName::parse(harness).is_err() => {
                    format!("`{harness}` is not a harness: use letters, digits, dots, dashes or underscores")
                }
                (_, Some(_)) if handler.timeout.is_some() => {
                    "has a `timeout_ms`, but an agent runs as long as it likes; only actions have one"
                        .to_owned()
                }
                (_, Some(harness)) => {
                    handlers.insert(harness.to_owned(), command);
                    continue;
                }
                (_, None) if AgentName::parse(name).is_err() => {
                    "is not the name of an action: use letters, digits, dots, dashes or underscores"
                        .to_owned()
                }
                (_, None) => {
                    let timeout = handler.timeout.map_or(ACTION_TIMEOUT, Duration::from_millis);
                    actions.insert(name.clone(), DeclaredAction { command, timeout });
                    continue;
                }
            };
            self.wrong(source, said);
        }
        (handlers, actions)
    }

    fn max_agents(&mut self) -> u32 {
        if let Some(max) = self.asked.max_agents {
            return max;
        }
        if let Some(text) = self.env.text(env::MAX_AGENTS) {
            return text.trim().parse().unwrap_or_else(|_| {
                self.wrong(env::MAX_AGENTS, "is not a whole number from 0 (no limit) up");
                0
            });
        }
        self.file.number("max_agents").and_then(|max| u32::try_from(max).ok()).unwrap_or(0)
    }

    fn timings(&self) -> Timings {
        let usual = Timings::default();
        let period =
            |key, usual| self.file.number(key).map_or(usual, |millis: u64| Duration::from_millis(millis));
        Timings {
            heartbeat: period("timings.heartbeat_ms", usual.heartbeat),
            silence: period("timings.silence_ms", usual.silence),
            sync: period("timings.sync_ms", usual.sync),
            register: period("timings.register_ms", usual.register),
            agent_register: period("timings.agent_register_ms", usual.agent_register),
            healthy: period("timings.healthy_ms", usual.healthy),
            survival: period("timings.survival_ms", usual.survival),
        }
    }
}

/// Checks a name that a person chose for a broker or a node.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_instance(name: &str) -> Result<(), String> {
    match AgentName::parse(name) {
        Ok(_) => Ok(()),
        Err(_) => {
            Err(format!("`{name}` is not a name: use 1 to 64 letters, digits, dots, dashes or underscores"))
        }
    }
}

/// A name out of any text: what is not a letter, a digit or a dash becomes a dash.
fn clean(text: &str) -> String {
    let dashed = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let name: String = dashed.take(NAME_MAX).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "broker".to_owned() } else { name.to_owned() }
}

fn check_url(text: &str, schemes: &[&str]) -> Result<(), String> {
    if text.contains('@') {
        return Err("must not hold a user name or password; give the workspace key instead".to_owned());
    }
    let wanted = || format!("`{text}` is not a URL of the form {}://host[:port]", schemes[0]);
    let uri: Uri = text.parse().map_err(|_| wanted())?;
    let scheme_fits = uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme));
    let authority = uri.authority().ok_or_else(wanted)?;
    if !scheme_fits || authority.host().is_empty() || uri.query().is_some() {
        return Err(wanted());
    }
    Ok(())
}

fn is_workspace_key(key: &str) -> bool {
    key.len() > "rk_".len() && key.starts_with("rk_") && is_token(key)
}

/// Visible ASCII alone: what can stand in a header.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Spec/wire 1.7.
fn is_channel(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && !name.starts_with('-') && name.chars().all(allowed)
}

/// `br_` and 32 hexadecimal digits.
fn generate_key() -> String {
    format!("br_{:032x}", rand::rng().random::<u128>())
}

#[cfg(test)]
mod tests;
