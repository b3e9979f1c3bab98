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
use tracing::debug;

use super::{Environment, Guard, Process, Slave, cgroup, guard::Ward, process, sys};
use crate::ids::SpawnId;

/// The variable that marks every process of one agent: its descendants inherit it, wherever they flee to.
pub const SPAWN_ID_VAR: &str = "RELAY_SPAWN_ID";

/// Where programs are looked for when the child has no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Another process that is just forking can hold a program open for writing until its own exec: a few
/// milliseconds, so the pauses 5, 10, 20, 40 and 80 ms are plenty.
const BUSY_RETRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

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

/// Starts a child as the leader of a new session on this terminal, and returns when its program runs. From before
/// the fork to the end of its [`sweep`](super::sweep()) it is under that guard; the default one lets it be.
///
/// Must be called on a thread that lives as long as the process, see [`super`]: the child is killed when
/// that thread ends.
///
/// # Errors
/// [`LaunchError`]; nothing is left behind then.
pub async fn launch(launch: &Launch, slave: Slave, guard: &Guard) -> Result<Process, LaunchError> {
    check_cwd(&launch.cwd)?;
    let path = find_program(launch)?;
    let ward = guard.take(&launch.spawn_id);
    let mut pause = BUSY_PAUSE;
    let mut started = start(launch, &path, &slave, &ward);
    for _ in 0..BUSY_RETRIES {
        match &started {
            Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) => {
                tokio::time::sleep(pause).await;
                pause *= 2;
                started = start(launch, &path, &slave, &ward);
            }
            _ => break,
        }
    }
    match started {
        Ok(process) => {
            if let Some(leader) = process.leader() {
                ward.has_leader(leader);
            }
            Ok(process)
        }
        Err(e) => {
            ward.never_began();
            Err(refused(launch, &e))
        }
    }
}

fn start(launch: &Launch, path: &Path, slave: &Slave, ward: &Ward) -> io::Result<Process> {
    let [stdin, stdout, stderr] = slave.stdio()?;
    let mut command = Command::new(path);
    command
        .arg0(&launch.program)
        .args(&launch.args)
        .current_dir(&launch.cwd)
        .env_clear()
        .envs(&launch.env)
        .env(SPAWN_ID_VAR, launch.spawn_id.as_str())
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    match ward.group().map(cgroup::entrance) {
        Some(Ok(procs)) => sys::move_into(&mut command, procs),
        Some(Err(error)) => debug!(%error, "an agent is not in its cgroup"),
        None => {}
    }
    sys::lead_a_session(&mut command);
    sys::exec_itself(&mut command, &launch.program)?;
    let mut held = process::held();
    let mut child = command.spawn()?;
    let pid = child.id().cast_signed();
    match Process::adopt(Pid::from_raw(pid), ward.clone()) {
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
        Some(libc::EACCES) => {
            let why = format!("{error}; it has to be a file that may be run (`chmod +x`)");
            LaunchError::NotExecutable { program, why }
        }
        Some(libc::ENOEXEC) => {
            let why = "it is no program of this machine; a script begins with `#!` and its interpreter";
            LaunchError::NotExecutable { program, why: why.to_owned() }
        }
        Some(libc::ETXTBSY | libc::ELIBBAD) => LaunchError::NotExecutable { program, why: error.to_string() },
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
            .field("spawn_id", &self.spawn_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{
        messages::pty::TermSize,
        pty::{
            Terminal,
            fixture::{Agent, leaky_fd, shell},
        },
    };

    fn write_script(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[tokio::test]
    async fn a_child_has_its_terminal_three_times_and_no_other_descriptor() {
        let sibling = Agent::run("exec sleep 1000").await;
        let leaky = leaky_fd();
        // The shell stays: a program that starts opens its libraries for a moment.
        let agent = Agent::run("echo READY; read -r x").await;
        agent.until("READY").await;
        let mut open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", agent.process.pid()))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name(), fs::read_link(entry.path()).unwrap())
            })
            .collect();
        open.sort();
        let [(_, terminal), ..] = &open[..] else { panic!("nothing open") };
        assert!(terminal.starts_with("/dev/pts"), "{open:?}");
        let expected = ["0", "1", "2"].map(|fd| (OsString::from(fd), terminal.clone()));
        assert_eq!(open, expected);
        drop((sibling, leaky));
    }

    #[tokio::test]
    async fn our_descriptors_are_close_on_exec_from_birth() {
        let agent = Agent::run("exec sleep 1000").await;
        let (_terminal, _slave) = Terminal::open(TermSize::default()).unwrap();
        let ours = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
            let entry = entry.unwrap();
            let link = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            let kernel = link.contains("ptmx") || link.starts_with("/dev/pts/") || link.contains("pidfd");
            kernel.then(|| (entry.file_name().into_string().unwrap(), link))
        });
        let mut seen = 0;
        for (fd, link) in ours {
            // A descriptor of another test may be gone by now.
            let Ok(info) = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else { continue };
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            let flags = i32::from_str_radix(flags, 8).unwrap();
            // The test program's own standard streams may be a terminal.
            if fd.parse::<i32>().unwrap() > 2 {
                assert_ne!(flags & libc::O_CLOEXEC, 0, "{fd} {link}");
                seen += 1;
            }
        }
        assert!(seen >= 4, "{seen}");
        drop(agent);
    }

    #[tokio::test]
    async fn a_child_leads_a_session_on_a_controlling_terminal_of_its_own() {
        let agent =
            Agent::run("cut -d' ' -f5-7 </proc/$$/stat; tty; echo open </dev/tty; exec sleep 1000").await;
        let output = agent.until("open").await;
        let pid = agent.process.pid();
        assert!(output.starts_with(&format!("{pid} {pid} ")), "{output}");
        assert!(output.contains("/dev/pts/"), "{output}");
        assert_eq!(agent.terminal.foreground_group(), Some(pid));
    }

    #[tokio::test]
    async fn signals_have_their_default_meaning_in_the_child_and_none_is_blocked() {
        let agent = Agent::run("exec grep -E '^Sig(Blk|Ign)' /proc/self/status").await;
        let output = agent.rest().await;
        let sets: Vec<_> = output.lines().filter_map(|line| line.split_once(":\t")).collect();
        let [("SigBlk", blocked), ("SigIgn", ignored)] = sets[..] else { panic!("{output}") };
        let standard = |set| u64::from_str_radix(set, 16).unwrap() & 0x7fff_ffff;
        // Above 31 the C library keeps two to itself and lets nobody reset them.
        assert_eq!((blocked, standard(ignored)), ("0000000000000000", 0));
    }

    #[tokio::test]
    async fn a_child_sees_the_given_environment_its_mark_and_nothing_else() {
        let mut what = shell("");
        what.program = "env".into();
        what.args.clear();
        what.env = [("PATH", "/usr/bin:/bin"), ("WORD", "two words")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        let agent = Agent::launch(&what).await.unwrap();
        let output = agent.rest().await;
        let mut lines: Vec<_> = output.lines().collect();
        lines.sort_unstable();
        let mark = format!("RELAY_SPAWN_ID={}", what.spawn_id);
        assert_eq!(lines, ["PATH=/usr/bin:/bin", &mark, "WORD=two words"]);
    }

    #[tokio::test]
    async fn a_program_is_found_on_the_childs_path_and_keeps_the_name_it_was_called_by() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::create_dir_all(path.join("first/shim")).unwrap();
        fs::create_dir(path.join("second")).unwrap();
        write_script(&path.join("first/plain"), "no program", 0o644);
        std::os::unix::fs::symlink("/bin/sh", path.join("second/shim")).unwrap();
        std::os::unix::fs::symlink("/bin/sh", path.join("second/plain")).unwrap();

        let mut what = shell("tr '\\0' ' ' </proc/$$/cmdline; pwd");
        what.cwd = path.canonicalize().unwrap();
        let search = format!("{}:{}:/usr/bin:/bin", path.join("first").display(), "second");
        what.env.insert("PATH".into(), search.into());
        for program in ["shim", "plain", "second/shim", "./second/plain", "/bin/sh"] {
            what.program = program.into();
            let output = Agent::launch(&what).await.unwrap().rest().await;
            assert!(output.starts_with(&format!("{program} -c ")), "{output}");
            assert!(output.trim_end().ends_with(what.cwd.to_str().unwrap()), "{output}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        write_script(&path.join("data"), "no program", 0o644);
        // A shell would run this one, or try to.
        write_script(&path.join("words"), "echo I run", 0o755);
        write_script(&path.join("binary"), "\x7fELFxx", 0o755);
        write_script(&path.join("orphan"), "#!/no/such/interpreter\n", 0o755);
        fs::create_dir(path.join("folder")).unwrap();
        for (program, kind, words) in [
            ("", "NotFound", "PATH"),
            ("no-such-program", "NotFound", "`no-such-program` is not on the agent's PATH"),
            ("./no-such-program", "NotFound", "./no-such-program"),
            (
                "./data",
                "NotExecutable",
                "Permission denied (os error 13); it has to be a file that may be run",
            ),
            ("./words", "NotExecutable", "a script begins with `#!`"),
            ("./binary", "NotExecutable", "no program of this machine"),
            ("data", "NotExecutable", "Permission denied (os error 13)"),
            ("./folder", "NotExecutable", "Permission denied"),
            ("orphan", "NotExecutable", "interpreter is missing"),
            ("./nul\0", "Io", "NUL byte"),
        ] {
            let mut what = shell("");
            what.program = program.into();
            what.cwd = path.to_owned();
            what.env.insert("PATH".into(), path.into());
            let error = Agent::launch(&what).await.err().unwrap_or_else(|| panic!("{program} was started"));
            assert!(format!("{error:?}").starts_with(kind), "{program}: {error:?}");
            assert!(error.to_string().contains(words), "{program}: {error}");
        }
    }

    #[tokio::test]
    async fn there_is_no_other_directory_to_fall_back_to() {
        for cwd in ["relative", "/no/such/directory", "/dev/null", ""] {
            let mut what = shell("");
            what.cwd = cwd.into();
            let error = Agent::launch(&what).await.err().unwrap_or_else(|| panic!("started in {cwd:?}"));
            assert!(matches!(error, LaunchError::BadCwd { .. }), "{cwd}: {error:?}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_just_being_written_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("copy");
        fs::copy("/bin/true", &program).unwrap();
        let writer = fs::OpenOptions::new().append(true).open(&program).unwrap();
        let mut what = shell("");
        what.program = program.to_str().unwrap().into();
        what.args.clear();
        let close_soon = async {
            tokio::time::sleep(BUSY_PAUSE).await;
            drop(writer);
        };
        let (started, ()) = tokio::join!(Agent::launch(&what), close_soon);
        assert_eq!(started.unwrap().process.exited().await.code(), Some(0));

        let writer = fs::OpenOptions::new().append(true).open(&program).unwrap();
        let error = Agent::launch(&what).await.err().unwrap();
        assert!(error.to_string().contains("Text file busy"), "{error}");
        drop(writer);
    }

    #[test]
    fn a_launch_shows_no_secret() {
        let mut what = shell("token-in-args");
        what.env.insert("RELAY_AGENT_TOKEN".into(), "token-in-env".into());
        assert!(!format!("{what:?}").contains("token"));
    }
}
