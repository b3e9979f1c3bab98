//! The guard: a process of its own that ends what is left of agents when their broker was killed.
//!
//! ```text
//! broker --start--> guard: reads lines (`book`) until the pipe ends, sweeps what is left, exits
//!   |  agent <spawn>, leader <spawn> <pid> <start tick>, over <spawn>
//!   +--it has died--> another one, which is told the whole book
//! ```
//!
//! One for all agents of a broker. It is this very program, with nothing of the broker's but that pipe: so the pipe
//! ends with the broker, however that ends, and in good order nothing is left to be swept by then.
//!
//! Also of the agents' [cgroups](super::cgroup), which end with the guard.

mod book;

use std::{
    collections::VecDeque,
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tracing::{debug, info, warn};

use self::book::{Book, Line};
use super::{
    cgroup::{self, Groups},
    process,
    sweep::{Leader, Sweep},
    sys,
};
use crate::ids::SpawnId;

/// The guard is this program with this word.
const WORD: &str = "guard";

/// Room for the lines of 15,000 agents, should a guard be told of all at once; more is a privilege.
const PIPE_BYTES: i32 = 1 << 20;

/// Sweeps at the end, as long as somebody is left: each takes two seconds at the most.
const SWEEPS: usize = 5;

/// The broker's end. Clones are the same guard; the default guards nobody.
#[derive(Clone, Default)]
pub struct Guard(Option<Arc<Inner>>);

struct Inner {
    groups: Option<Groups>,
    post: Mutex<Post>,
}

impl Guard {
    /// Starts the guard: `program` with one word, its subcommand. Agents' cgroups are made where that can be.
    /// To be called once, before there are agents; takes a few milliseconds, and a second for each broker that
    /// was killed together with its guard and has left processes in cgroups.
    pub fn start(program: &Path) -> Self {
        let groups = match Groups::make() {
            Ok(groups) => {
                info!(dir = %groups.dir().display(), "agents have cgroups of their own");
                Some(groups)
            }
            Err(error) => {
                info!(%error, "agents have no cgroups of their own");
                None
            }
        };
        Self::with(program, groups)
    }

    fn with(program: &Path, groups: Option<Groups>) -> Self {
        let mut post = Post::new(program.to_owned());
        if let Some(groups) = &groups {
            post.book.note(Line::Groups(groups.dir().to_owned()));
        }
        post.replace();
        Self(Some(Arc::new(Inner { groups, post: Mutex::new(post) })))
    }

    /// Starts another one if this one has died. To be called every few seconds: one system call when it lives.
    pub fn look_after(&self) {
        if let Some(mut post) = self.post() {
            post.look_after();
        }
    }

    /// Takes an agent under guard before it is forked.
    pub(super) fn take(&self, spawn_id: &SpawnId) -> Ward {
        let groups = self.0.as_ref().and_then(|inner| inner.groups.as_ref());
        let group = groups.and_then(|groups| {
            let made = groups.make_one(spawn_id);
            made.inspect_err(|error| debug!(%error, "an agent has no cgroup of its own")).ok()
        });
        let ward = Ward { guard: self.clone(), spawn_id: spawn_id.clone(), group };
        ward.tell(Line::Agent);
        ward
    }

    fn post(&self) -> Option<MutexGuard<'_, Post>> {
        // Whoever panicked has told half a book at the worst, and the next one who finds the guard dead tells all.
        Some(self.0.as_ref()?.post.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.post().and_then(|post| post.pid())).finish()
    }
}

/// An agent under guard.
#[derive(Clone, Debug)]
pub(super) struct Ward {
    guard: Guard,
    spawn_id: SpawnId,
    group: Option<PathBuf>,
}

impl Ward {
    /// The mark of its processes.
    pub(super) fn spawn_id(&self) -> &SpawnId {
        &self.spawn_id
    }

    /// Its cgroup.
    pub(super) fn group(&self) -> Option<&Path> {
        self.group.as_deref()
    }

    /// It was forked.
    pub(super) fn has_leader(&self, leader: Leader) {
        self.tell(|spawn| Line::Leader(spawn, leader));
    }

    /// It was swept.
    pub(super) fn is_over(&self) {
        self.tell(Line::Over);
    }

    /// Nothing was started.
    pub(super) fn never_began(&self) {
        if let Some(Err(error)) = self.group.as_deref().map(cgroup::remove) {
            debug!(%error, "an agent's cgroup is left until the end");
        }
        self.is_over();
    }

    fn tell(&self, line: impl FnOnce(SpawnId) -> Line) {
        if let Some(mut post) = self.guard.post() {
            post.tell(line(self.spawn_id.clone()));
        }
    }
}

/// The way to the guard's process.
struct Post {
    program: PathBuf,
    book: Book,
    /// Its standard input is the pipe.
    guard: Option<Child>,
    /// What it was not told yet, for want of room in the pipe.
    untold: VecDeque<Line>,
    /// That one has died was said in the log.
    mourned: bool,
    /// That there is none was said in the log.
    missed: bool,
}

impl Post {
    fn new(program: PathBuf) -> Self {
        Self {
            program,
            book: Book::default(),
            guard: None,
            untold: VecDeque::new(),
            mourned: false,
            missed: false,
        }
    }

    fn pid(&self) -> Option<u32> {
        self.guard.as_ref().map(Child::id)
    }

    fn tell(&mut self, line: Line) {
        self.book.note(line.clone());
        self.untold.push_back(line);
        if self.tell_rest().is_err() {
            self.replace();
        }
    }

    fn look_after(&mut self) {
        let lives = self.guard.as_ref().is_some_and(|guard| !sys::has_ended(guard.id()));
        let waiting = self.untold.len();
        // One that has read nothing since the last look does not read.
        if !lives || self.tell_rest().is_err() || (waiting > 0 && self.untold.len() == waiting) {
            self.replace();
        }
    }

    /// Tells what the pipe has room for.
    fn tell_rest(&mut self) -> io::Result<()> {
        let guard = self.guard.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        while let Some(line) = self.untold.front() {
            match say(guard, line) {
                Ok(()) => drop(self.untold.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Starts a guard and tells it the whole book. A spawn goes on without one.
    fn replace(&mut self) {
        let old = self.guard.take().map(|old| {
            let pid = old.id();
            dismiss(old);
            pid
        });
        self.untold.clear();
        match begin(&self.program) {
            Ok(guard) => {
                self.guard = Some(guard);
                self.untold.extend(self.book.lines());
                if let Err(error) = self.tell_rest() {
                    debug!(%error, "the guard could not be told everything");
                }
                self.say_replaced(old);
            }
            Err(error) if self.missed => debug!(%error, "no guard can be started"),
            Err(error) => {
                warn!(%error, "no guard can be started: what agents leave behind outlives a killed broker");
                self.missed = true;
            }
        }
    }

    fn say_replaced(&mut self, old: Option<u32>) {
        match old {
            _ if self.missed => warn!("there is a guard again"),
            Some(pid) if self.mourned => {
                debug!(pid, "the guard has died or does not read, another one takes its place");
            }
            Some(pid) => {
                warn!(pid, "the guard has died or does not read, another one takes its place");
                self.mourned = true;
            }
            None => {}
        }
        self.missed = false;
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            process::held().remove(&guard.id().cast_signed());
        }
    }
}

fn begin(program: &Path) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .arg0(env!("CARGO_PKG_NAME"))
        .arg(WORD)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    sys::outlive_the_parent(&mut command);
    let mut held = process::held();
    let guard = command.spawn()?;
    held.insert(guard.id().cast_signed());
    drop(held);
    match guard.stdin.as_ref().map(prepare) {
        Some(Err(error)) => {
            dismiss(guard);
            Err(error)
        }
        _ => Ok(guard),
    }
}

/// Nobody ever waits for room in the pipe.
fn prepare(pipe: &ChildStdin) -> io::Result<()> {
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    if let Err(error) = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)) {
        debug!(%error, "the pipe to the guard stays small");
    }
    Ok(())
}

/// Writes a line, at once or not at all.
fn say(guard: &mut Child, line: &Line) -> io::Result<()> {
    let pipe = guard.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
    pipe.write_all(format!("{line}\n").as_bytes())
}

/// Ends a guard without waiting for its end: then it is reaped like an agent's orphan.
fn dismiss(mut guard: Child) {
    let pid = guard.id().cast_signed();
    // A signal reaches it or its zombie: nobody else reaps who is held.
    if let Err(error) = guard.kill() {
        debug!(%error, "a guard cannot be ended");
    }
    // Under the lock from before the pid becomes free until it is off the list: a new child with the same pid
    // must not be struck off.
    let mut held = process::held();
    guard.try_wait().ok();
    held.remove(&pid);
}

/// The guard's own life: hears lines until the input ends, then sweeps what is left.
pub fn stand_guard(input: impl Read) {
    let mut book = Book::default();
    // An input that cannot be read has ended.
    for line in BufReader::new(input).split(b'\n').map_while(Result::ok) {
        if let Some(line) = str::from_utf8(&line).ok().and_then(|line| line.parse().ok()) {
            book.note(line);
        }
    }
    let sweep = Sweep::of(book.agents(), book.groups());
    for _ in 0..SWEEPS {
        if sweep.run().left.is_empty() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::pty::{
        Signal, become_subreaper,
        fixture::{Agent, ended, pid_after, shell, within},
        sweep,
    };

    /// Stays, once it has said who it is.
    const STAY: &str = r#"stay='echo $0 $$.; exec sleep 1000'; "#;

    /// A guard that writes down what it is told.
    struct Scribe {
        dir: tempfile::TempDir,
        guard: Guard,
    }

    impl Scribe {
        fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let program = dir.path().join("scribe");
            fs::write(&program, "#!/bin/sh\necho \"$0 $*\" > ${0%/*}/called; exec cat > ${0%/*}/told\n")
                .unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            let guard = Guard::with(&program, None);
            Self { dir, guard }
        }

        async fn was_told(&self, lines: &[String]) {
            let expected = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            within(async {
                while fs::read_to_string(self.dir.path().join("told")).unwrap_or_default() != expected {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }

        fn pid(&self) -> i32 {
            self.guard.post().unwrap().pid().unwrap().cast_signed()
        }
    }

    async fn agent(guard: &Guard, script: &str, processes: usize) -> (Agent, String) {
        become_subreaper().unwrap();
        let agent = Agent::guarded(&shell(&format!("{STAY}{script}")), guard).await.unwrap();
        let output = agent.read(|seen| seen.matches('.').count() == processes).await;
        (agent, output)
    }

    #[tokio::test]
    async fn a_guard_hears_of_an_agent_before_its_start_then_of_its_leader_and_of_its_end() {
        let scribe = Scribe::start();
        let (agent, _) = agent(&scribe.guard, r#"sh -c "$stay" here"#, 1).await;
        let spawn = agent.process.spawn_id();
        let mut lines = vec![format!("agent {spawn}"), leader(&agent)];
        scribe.was_told(&lines).await;
        sweep(&agent.process).await;
        lines.push(format!("over {spawn}"));
        scribe.was_told(&lines).await;
        let called = fs::read_to_string(scribe.dir.path().join("called")).unwrap();
        assert!(called.ends_with("scribe guard\n"), "{called}");

        let mut what = shell("");
        what.program = "no-such-program".into();
        assert!(Agent::guarded(&what, &scribe.guard).await.is_err());
        scribe.was_told(&lines).await;
        what.program = "/dev/null/x".into();
        assert!(Agent::guarded(&what, &scribe.guard).await.is_err());
        scribe.was_told(&lines).await;
    }

    #[tokio::test]
    async fn a_guard_that_died_has_a_successor_that_knows_all_and_no_agent_suffers() {
        let scribe = Scribe::start();
        let (one, _) = agent(&scribe.guard, r#"sh -c "$stay" one"#, 1).await;
        for by_use in [true, false] {
            let old = scribe.pid();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), Signal::SIGKILL).unwrap();
            assert!(ended(old).await);
            let mut told: Vec<_> = vec![leader(&one)];
            let two = if by_use {
                let (two, _) = agent(&scribe.guard, r#"sh -c "$stay" two"#, 1).await;
                // Who found it dead was about to tell of itself.
                told.push(format!("agent {}", two.process.spawn_id()));
                told.sort_by_key(|line| line.split(' ').nth(1).map(str::to_owned));
                told.push(leader(&two));
                Some(two)
            } else {
                scribe.guard.look_after();
                None
            };
            assert_ne!(scribe.pid(), old);
            scribe.was_told(&told).await;
            if let Some(two) = two {
                sweep(&two.process).await;
            }
            assert_eq!(one.process.try_exited(), None);
        }
    }

    #[tokio::test]
    async fn a_guard_whose_pipe_is_full_is_told_the_rest_once_it_reads_and_is_replaced_while_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (program, go, told) = (dir.path().join("late"), dir.path().join("go"), dir.path().join("told"));
        fs::write(&program, "#!/bin/sh\ncd ${0%/*}; until [ -e go ]; do sleep 0.01; done; exec cat > told\n")
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut post = Post::new(program);
        for number in 0..40_000 {
            post.book.note(Line::Agent(format!("{number:040}").into()));
        }
        post.replace();
        assert!(!post.untold.is_empty());
        let idle = post.pid();
        post.look_after();
        assert_ne!(post.pid(), idle);
        let late = post.pid();

        fs::write(go, "").unwrap();
        let expected: String = post.book.lines().map(|line| format!("{line}\n")).collect();
        within(async {
            while fs::read_to_string(&told).unwrap_or_default() != expected {
                post.tell_rest().unwrap();
                tokio::task::yield_now().await;
            }
        })
        .await;

        post.look_after();
        assert_eq!(post.pid(), late);
        dismiss(post.guard.take().unwrap());
    }

    #[tokio::test]
    async fn a_guard_hears_of_the_end_of_a_sweep_that_nobody_waits_for() {
        let scribe = Scribe::start();
        let mut lines = Vec::new();
        for abandoned in [false, true] {
            let (agent, _) = agent(&scribe.guard, r#"setsid sh -c "$stay" fled & wait"#, 1).await;
            lines.extend([format!("agent {}", agent.process.spawn_id()), leader(&agent)]);
            lines.push(format!("over {}", agent.process.spawn_id()));
            if abandoned {
                crate::pty::sweep_abandoned(&agent.process);
            } else {
                let given_up = tokio::time::timeout(std::time::Duration::ZERO, sweep(&agent.process)).await;
                assert!(given_up.is_err());
            }
            scribe.was_told(&lines).await;
        }
    }

    fn leader(agent: &Agent) -> String {
        let pid = agent.process.pid();
        let started = crate::pty::start_tick(pid.as_raw().cast_unsigned()).unwrap();
        format!("leader {} {pid} {started}", agent.process.spawn_id())
    }

    #[tokio::test]
    async fn no_guard_at_all_is_no_obstacle() {
        let guard = Guard::with("/no/such/program".as_ref(), None);
        let (agent, _) = agent(&guard, r#"sh -c "$stay" alone"#, 1).await;
        guard.look_after();
        assert_eq!(sweep(&agent.process).await.left, [0; 0]);
    }

    #[tokio::test]
    async fn at_the_end_of_its_input_a_guard_ends_those_that_are_not_over() {
        let nobody = Guard::default();
        let escape =
            r#"setsid sh -c "$stay" fled & setsid env -i /bin/sh -c "$stay" bare & sh -c "$stay" near"#;
        let (left, output) = agent(&nobody, escape, 3).await;
        let (marked, fled) = agent(&nobody, r#"setsid sh -c "$stay" fled & sh -c "$stay" near"#, 2).await;
        // Neither the program nor its child has the mark, and the program lives still.
        let bare = r#"exec env -i /bin/sh -c 'sh -c "echo child \$\$.; exec sleep 1000"; echo'"#;
        let (unmarked, child) = agent(&nobody, bare, 1).await;
        let (over, _) = agent(&nobody, r#"sh -c "$stay" here"#, 1).await;
        let lines = [
            leader(&left),
            // Its broker was killed before it could say more.
            format!("agent {}", marked.process.spawn_id()),
            leader(&unmarked),
            leader(&over),
            format!("over {}", over.process.spawn_id()),
            "what is this".to_owned(),
        ];
        let input = io::Cursor::new(lines.join("\n").into_bytes());
        tokio::task::spawn_blocking(move || stand_guard(input)).await.unwrap();
        for (output, who) in [
            (&output, "fled"),
            (&output, "bare"),
            (&output, "near"),
            (&fled, "fled"),
            (&fled, "near"),
            (&child, "child"),
        ] {
            assert!(ended(pid_after(output, who)).await, "{who}");
        }
        assert_eq!(over.process.try_exited(), None);
    }

    /// `env -i setsid`, forked twice: neither mark nor session nor parent are left.
    const GHOST: &str = r#"(setsid env -i /bin/sh -c "sh -c '$stay' ghost &" &); "#;

    #[tokio::test]
    async fn a_cgroup_holds_who_gave_up_mark_session_and_parent() {
        let groups = match Groups::make() {
            Ok(groups) => groups,
            Err(error) => return eprintln!("nothing is tested: {error}"),
        };
        let dir = groups.dir().to_owned();
        let guard = Guard::with("/bin/cat".as_ref(), Some(groups));
        let (swept, output) = agent(&guard, &format!(r#"{GHOST} sh -c "$stay" near"#), 2).await;
        let ghost = pid_after(&output, "ghost");
        let group = swept.process.ward().group().unwrap().to_owned();
        assert!(cgroup::members(&group).contains(&ghost));
        let killed = sweep(&swept.process).await;
        assert!(killed.killed.contains(&ghost.cast_unsigned()), "{killed:?} without {ghost}");
        assert_eq!(killed.left, [0; 0]);
        assert!(!fs::exists(format!("/proc/{ghost}")).unwrap(), "it runs, or nobody has reaped it");
        assert!(!group.exists());

        // The same in the guard's hands.
        let (left, output) = agent(&guard, &format!(r#"{GHOST} sh -c "$stay" near"#), 2).await;
        let input = io::Cursor::new(format!("groups {}\n{}\n", dir.display(), leader(&left)));
        tokio::task::spawn_blocking(move || stand_guard(input)).await.unwrap();
        assert!(ended(pid_after(&output, "ghost")).await);
        assert!(!dir.exists());
    }

    #[tokio::test]
    async fn an_agent_without_a_program_leaves_no_cgroup() {
        let Ok(groups) = Groups::make() else { return eprintln!("nothing is tested: no cgroups") };
        let dir = groups.dir().to_owned();
        let guard = Guard::with("/bin/cat".as_ref(), Some(groups));
        let program = tempfile::NamedTempFile::new().unwrap();
        fs::write(&program, "#!/no/such/interpreter\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut what = shell("");
        what.program = program.path().to_str().unwrap().into();
        assert!(Agent::guarded(&what, &guard).await.is_err());
        // Which the kernel refuses while there is another one in it.
        fs::remove_dir(&dir).unwrap();
    }
}
