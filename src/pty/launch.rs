//! Starting a child on a terminal.

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    libc,
    unistd::{AccessFlags, Pid, access},
};
use uuid::Uuid;

use super::{Environment, Process, Slave, process, sys};

/// The variable that marks every process of one agent: its descendants inherit it, wherever they flee to.
pub const SPAWN_ID_VAR: &str = "RELAY_SPAWN_ID";

/// Where programs are looked for when the child has no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Another process that is just forking can hold a program open for writing until its own exec: a few
/// milliseconds, so the pauses 5, 10, 20, 40 and 80 ms are plenty.
const BUSY_RETRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// One start of one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpawnId(pub Uuid);

impl SpawnId {
    /// A new one.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for SpawnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What to start.
#[derive(Clone)]
pub struct Launch {
    /// As the user wrote it; becomes `argv[0]` unchanged, since shims look at it. Searched on the PATH of
    /// `env`; with a slash in it, relative to `cwd`.
    pub program: String,
    /// The arguments after it.
    pub args: Vec<String>,
    /// Absolute and existing.
    pub cwd: PathBuf,
    /// All of the environment, see [`clean_env`](super::clean_env); the spawn mark is added.
    pub env: Environment,
    /// The mark.
    pub spawn_id: SpawnId,
}

/// Why nothing runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// No such program.
    #[error("`{0}` is not on the agent's PATH; install it or give its absolute path")]
    NotFound(String),
    /// It is there, but it cannot be run.
    #[error("`{program}` cannot be run: {why}")]
    NotExecutable {
        /// As given.
        program: String,
        /// The system's words.
        why: String,
    },
    /// There is no other directory that would do instead.
    #[error("working directory `{}` {why}", cwd.display())]
    BadCwd {
        /// As given.
        cwd: PathBuf,
        /// In words.
        why: String,
    },
    /// The system refused.
    #[error("the system could not start it: {0}")]
    Io(String),
}

/// Starts a child as the leader of a new session on this terminal, and returns when its program runs.
///
/// Must be called on a thread that lives as long as the process, see [`super`]: the child is killed when
/// that thread ends.
///
/// # Errors
/// [`LaunchError`]; nothing is left behind then.
pub async fn launch(launch: &Launch, slave: Slave) -> Result<Process, LaunchError> {
    check_cwd(&launch.cwd)?;
    let path = find_program(launch)?;
    let mut pause = BUSY_PAUSE;
    for _ in 0..BUSY_RETRIES {
        match start(launch, &path, &slave) {
            Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            done => return done.map_err(|e| refused(launch, &e)),
        }
    }
    start(launch, &path, &slave).map_err(|e| refused(launch, &e))
}

fn start(launch: &Launch, path: &Path, slave: &Slave) -> io::Result<Process> {
    let [stdin, stdout, stderr] = slave.stdio()?;
    let mut command = Command::new(path);
    command
        .arg0(&launch.program)
        .args(&launch.args)
        .current_dir(&launch.cwd)
        .env_clear()
        .envs(&launch.env)
        .env(SPAWN_ID_VAR, launch.spawn_id.to_string())
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    sys::lead_a_session(&mut command);
    let mut held = process::held();
    let mut child = command.spawn()?;
    let pid = child.id().cast_signed();
    match Process::adopt(Pid::from_raw(pid), launch.spawn_id) {
        Ok(process) => {
            held.insert(pid);
            Ok(process)
        }
        Err(e) => {
            child.kill().and_then(|()| child.wait()).map_err(|_| io::Error::other("child not reaped"))?;
            Err(e)
        }
    }
}

fn check_cwd(cwd: &Path) -> Result<(), LaunchError> {
    let bad = |why: &str| Err(LaunchError::BadCwd { cwd: cwd.to_owned(), why: why.to_owned() });
    if !cwd.is_absolute() {
        return bad("is not absolute");
    }
    match cwd.metadata() {
        Ok(found) if !found.is_dir() => bad("is not a directory"),
        Ok(_) => access(cwd, AccessFlags::X_OK).or_else(|e| bad(&format!("cannot be entered: {}", e.desc()))),
        Err(e) => bad(&format!("cannot be used: {e}")),
    }
}

/// The file to run, absolute.
fn find_program(launch: &Launch) -> Result<PathBuf, LaunchError> {
    let program = Path::new(&launch.program);
    if launch.program.is_empty() {
        return Err(LaunchError::NotFound(String::new()));
    }
    if launch.program.contains('/') {
        let path = launch.cwd.join(program);
        return match runnable(&path) {
            Ok(()) => Ok(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(LaunchError::NotFound(launch.program.clone()))
            }
            Err(e) => Err(refused(launch, &e)),
        };
    }
    let default = OsString::from(DEFAULT_PATH);
    let search = launch.env.get(OsStr::new("PATH")).unwrap_or(&default);
    let mut obstacle = None;
    for directory in std::env::split_paths(search) {
        // An empty or relative entry means the child's directory, not the broker's.
        let path = launch.cwd.join(directory).join(program);
        match runnable(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => obstacle = Some(e),
            Err(_) => {}
        }
    }
    Err(obstacle.map_or_else(|| LaunchError::NotFound(launch.program.clone()), |e| refused(launch, &e)))
}

fn runnable(path: &Path) -> io::Result<()> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    access(path, AccessFlags::X_OK).map_err(Into::into)
}

fn refused(launch: &Launch, error: &io::Error) -> LaunchError {
    let program = launch.program.clone();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::ENOEXEC | libc::ETXTBSY | libc::ELIBBAD) => {
            LaunchError::NotExecutable { program, why: error.to_string() }
        }
        // The file itself was there a moment ago.
        Some(libc::ENOENT) => {
            LaunchError::NotExecutable { program, why: format!("its interpreter is missing: {error}") }
        }
        _ => LaunchError::Io(error.to_string()),
    }
}

impl fmt::Debug for Launch {
    /// Without the environment and the arguments, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("program", &self.program)
            .field("cwd", &self.cwd)
            .field("spawn_id", &self.spawn_id.0)
            .finish_non_exhaustive()
    }
}
