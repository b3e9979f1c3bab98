//! What an agent leaves behind: processes that fled its groups, and zombies nobody waits for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{Pid, getpid, getsid},
};
use tracing::{debug, error, warn};

use super::{Process, SPAWN_ID_VAR, cgroup, guard::Ward, process, sys};
use crate::ids::SpawnId;

/// A killed process may have forked a moment before, so one look is not enough; a tree that keeps ahead of
/// this many is not stopped by looking.
const ROUNDS: usize = 8;

/// For a cgroup, and once more for all rounds together.
const SWEEP_TIME: Duration = Duration::from_secs(1);

/// How much of a process's environment is searched for the mark. The kernel allows more; who has more than
/// this is found by session or descent.
const ENVIRON_MAX: u64 = 1024 * 1024;

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Processes that it killed.
    pub killed: Vec<u32>,
    /// Processes that could not be killed in time (another user's, or stuck in the kernel).
    pub left: Vec<u32>,
}

/// Makes orphans of agents children of this process instead of PID 1's, so that they can be found and
/// reaped. Once, at start.
///
/// # Errors
/// The system's.
pub fn become_subreaper() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(Into::into)
}

/// Kills every process of an agent that has ended: those in its cgroup, where it has one, those that carry its
/// mark, those of its session, and their descendants. Takes two seconds at the most, on a blocking thread; 3 ms
/// when there is nobody among a hundred processes. Goes on to its end when nobody waits for it any more.
///
/// Out of reach, without a cgroup, are processes of another user, and one that gave up mark and session
/// (`env -i setsid`) and whose parent has ended.
pub async fn sweep(process: &Process) -> Swept {
    let (ward, leader) = (process.ward().clone(), process.leader());
    sweep_on_a_thread(move || sweep_ward(&ward, leader)).await
}

/// The same for an agent that nobody serves any more, on a thread of its own: whoever gives it up may have no
/// runtime left. A broker that ends meanwhile leaves the rest to the guard.
pub fn sweep_abandoned(process: &Process) {
    let (ward, leader) = (process.ward().clone(), process.leader());
    let work = move || {
        let Swept { killed, left } = sweep_ward(&ward, leader);
        warn!(spawn = %ward.spawn_id(), ?killed, ?left, "abandoned agent ended");
    };
    if let Err(error) = std::thread::Builder::new().name("sweep".to_owned()).spawn(work) {
        error!(%error, "abandoned agent cannot be swept");
    }
}

fn sweep_ward(ward: &Ward, leader: Option<Leader>) -> Swept {
    let agents = BTreeMap::from([(ward.spawn_id().clone(), leader)]);
    let swept = Sweep::of(&agents, ward.group()).run();
    ward.is_over();
    swept
}

/// The same for an agent of an earlier broker process, whose leader may be long gone and its number another's:
/// its session counts only while `/proc` still shows the leader that was started at that tick.
pub async fn sweep_leftover(spawn_id: &SpawnId, leader: u32, started: u64) -> Swept {
    let leader = Leader { pid: leader.cast_signed(), started };
    let leader = (Leader::of(leader.pid) == Some(leader)).then_some(leader);
    let sweep = Sweep::of(&BTreeMap::from([(spawn_id.clone(), leader)]), None);
    sweep_on_a_thread(move || sweep.run()).await
}

/// When the kernel started a process, in clock ticks since boot; `None` when there is none of that number.
pub fn start_tick(pid: u32) -> Option<u64> {
    inspect(pid.cast_signed()).map(|found| found.started)
}

/// True while the process that was started at that tick is no zombie.
pub(super) fn lives(pid: u32, started: u64) -> bool {
    inspect(pid.cast_signed()).is_some_and(|found| found.started == started && !found.zombie)
}

async fn sweep_on_a_thread(sweep: impl FnOnce() -> Swept + Send + 'static) -> Swept {
    match tokio::task::spawn_blocking(sweep).await {
        Ok(swept) => swept,
        Err(failure) => {
            error!(error = %failure, "sweep did not run");
            Swept::default()
        }
    }
}

/// Reaps children that the broker did not start: orphans that it adopted as a subreaper and that ended on
/// their own. Returns how many. To be called every few seconds: one system call when no child has ended,
/// else one look through `/proc`.
pub fn reap_adopted() -> usize {
    if !sys::any_zombie() {
        return 0;
    }
    let me = getpid().as_raw();
    // Children that other parts of the broker start (and wait for) stay in its session; agents and all
    // their descendants never are in it.
    let own_session = getsid(None).map_or(0, Pid::as_raw);
    processes()
        .iter()
        .filter(|found| found.zombie && found.parent == me && found.session != own_session)
        .filter(|found| reap_unheld(sys::Child::ByPid(found.pid), found.pid))
        .count()
}

/// Reaps an adopted child; false when it is not a child, lives, or belongs to a `Process`.
fn reap_unheld(child: sys::Child<'_>, pid: i32) -> bool {
    let held = process::held();
    !held.contains(&pid) && matches!(sys::reap(child), Ok(Some(_)))
}

/// The first process of an agent, whose pid is its session, too. The start tick tells it from a later one with
/// its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) pid: i32,
    pub(super) started: u64,
}

impl Leader {
    /// The process that has this pid now.
    pub(super) fn of(pid: i32) -> Option<Self> {
        inspect(pid).map(|found| Self { pid, started: found.started })
    }
}

/// Whom to kill.
pub(super) struct Sweep {
    marks: BTreeSet<Vec<u8>>,
    leaders: Vec<Leader>,
    /// A cgroup that goes whole.
    group: Option<PathBuf>,
}

impl Sweep {
    /// Everything of these agents, each with its leader where that is known, and all of a cgroup.
    pub(super) fn of(agents: &BTreeMap<SpawnId, Option<Leader>>, group: Option<&Path>) -> Self {
        Self {
            marks: agents.keys().map(mark).collect(),
            leaders: agents.values().flatten().copied().collect(),
            group: group.map(Path::to_owned),
        }
    }

    pub(super) fn run(&self) -> Swept {
        let end = || Instant::now() + SWEEP_TIME;
        let group = self.group.as_deref();
        let mut killed = group.map_or_else(BTreeSet::new, |group| end_group(group, end()));
        // One in the group that cannot be killed takes none of the time for the others.
        let end = end();
        let mut left = BTreeSet::new();
        for _ in 0..ROUNDS {
            left = self.find();
            if left.is_empty() || Instant::now() >= end {
                break;
            }
            let dying: Vec<_> = left.iter().filter_map(|found| Some((found.pid, kill(found)?))).collect();
            killed.extend(dying.iter().map(|(pid, _)| *pid));
            bury(&dying, end);
        }
        // A marked child of a child that we have just killed is a zombie of ours by now.
        reap_adopted();
        let unsigned = |pid: i32| pid.cast_unsigned();
        let mut left: BTreeSet<i32> = left.iter().map(|found| found.pid).collect();
        left.extend(group.into_iter().flat_map(cgroup::members));
        Swept {
            killed: killed.into_iter().map(unsigned).collect(),
            left: left.into_iter().map(unsigned).collect(),
        }
    }

    /// The living processes of the agents that their marks, sessions or parents show.
    fn find(&self) -> BTreeSet<Found> {
        let me = getpid().as_raw();
        let all: Vec<_> = processes().into_iter().filter(|found| found.pid > 1 && found.pid != me).collect();
        // A session's number is free once all of it is gone, and then a stranger may lead one with it.
        let stranger = |leader: &Leader| {
            all.iter().any(|found| found.pid == leader.pid && found.started != leader.started)
        };
        let leaders = self.leaders.iter().filter(|leader| !stranger(leader));
        let sessions: BTreeSet<i32> = leaders.map(|leader| leader.pid).collect();
        family(&all, |found| sessions.contains(&found.session) || self.marked(found.pid))
    }

    fn marked(&self, pid: i32) -> bool {
        let mut environ = Vec::new();
        let Ok(file) = fs::File::open(format!("/proc/{pid}/environ")) else { return false };
        file.take(ENVIRON_MAX).read_to_end(&mut environ).is_ok()
            && environ.split(|byte| *byte == 0).any(|variable| self.marks.contains(variable))
    }
}

/// Ends a cgroup; those who were killed.
fn end_group(group: &Path, end: Instant) -> BTreeSet<i32> {
    let hold = |pid: i32| Some((pid, sys::pidfd_open(pid).ok()?));
    let dying: Vec<_> = cgroup::members(group).into_iter().filter_map(hold).collect();
    if let Err(error) = cgroup::kill(group) {
        // What is in it is found by its marks, as far as it carries them.
        debug!(%error, group = %group.display(), "a cgroup cannot be killed");
        return BTreeSet::new();
    }
    bury(&dying, end);
    if let Err(error) = cgroup::clear(group, end) {
        debug!(%error, group = %group.display(), "a cgroup is left");
    }
    dying.into_iter().map(|(pid, _)| pid).collect()
}

/// Waits for the ends of those who were killed, and reaps those whom nobody else does.
fn bury(dying: &[(i32, OwnedFd)], end: Instant) {
    for (pid, pidfd) in dying {
        if wait_until(pidfd.as_fd(), PollFlags::POLLIN, end) {
            reap_unheld(sys::Child::ByFd(pidfd.as_fd()), *pid);
        }
    }
}

fn mark(spawn_id: &SpawnId) -> Vec<u8> {
    format!("{SPAWN_ID_VAR}={spawn_id}").into_bytes()
}

/// One process, as `/proc/<pid>/stat` shows it. The start time tells it from a later one with its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    pid: i32,
    parent: i32,
    session: i32,
    started: u64,
    zombie: bool,
}

/// The living seeds and their living descendants.
fn family(all: &[Found], seed: impl Fn(&Found) -> bool) -> BTreeSet<Found> {
    let living = || all.iter().filter(|found| !found.zombie);
    let mut family: BTreeSet<Found> = living().filter(|found| seed(found)).copied().collect();
    let mut pids: BTreeSet<i32> = family.iter().map(|found| found.pid).collect();
    loop {
        let more: Vec<_> =
            living().filter(|f| pids.contains(&f.parent) && !pids.contains(&f.pid)).copied().collect();
        if more.is_empty() {
            return family;
        }
        pids.extend(more.iter().map(|found| found.pid));
        family.extend(more);
    }
}

/// Kills exactly the process that was found, never one that took its pid since; `None` when it is gone or
/// not ours to kill.
fn kill(found: &Found) -> Option<OwnedFd> {
    let pidfd = sys::pidfd_open(found.pid).ok()?;
    // It still is the same one after the pidfd was opened: then the pidfd names it.
    let same = inspect(found.pid).is_some_and(|now| now.started == found.started);
    (same && sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL).is_ok()).then_some(pidfd)
}

/// Waits for an event of a descriptor; false when it did not come in time.
pub(super) fn wait_until(fd: BorrowedFd<'_>, event: PollFlags, end: Instant) -> bool {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(fd, event)], timeout) {
            // A signal of the broker's that this thread was given to handle.
            Err(Errno::EINTR) => {}
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
}

fn processes() -> Vec<Found> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| inspect(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn inspect(pid: i32) -> Option<Found> {
    parse_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of `/proc/<pid>/stat` (proc(5)). The name in it is the process's own choice and may hold
/// spaces and brackets: the fields start after the last bracket.
fn parse_stat(pid: i32, line: &str) -> Option<Found> {
    let (_, fields) = line.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(15)?.parse().ok()?;
    Some(Found { pid, parent, session, started, zombie: matches!(state, "Z" | "X") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pty::{
        Signal,
        fixture::{Agent, ended, pid_after},
    };

    #[test]
    fn a_process_name_cannot_forge_the_fields_behind_it() {
        let line = "42 (a) Z 1 1 1 (b) S 7 8 9 0 -1 1 2 3 4 5 6 7 8 9 10 11 1 0 256003 99";
        let found = Found { pid: 42, parent: 7, session: 9, started: 256_003, zombie: false };
        assert_eq!(parse_stat(42, line), Some(found));
        assert_eq!(parse_stat(42, "42 (cut"), None);
    }

    #[test]
    fn a_family_is_its_seeds_and_all_who_descend_from_them() {
        let process = |pid, parent, session, zombie| Found { pid, parent, session, started: 0, zombie };
        let all = [
            process(14, 13, 99, false),
            process(10, 1, 10, false),
            process(11, 10, 11, false),
            process(12, 11, 12, true),
            process(13, 11, 13, false),
            process(20, 1, 20, false),
        ];
        let found: Vec<_> = family(&all, |found| found.session == 10).iter().map(|f| f.pid).collect();
        assert_eq!(found, [10, 11, 13, 14]);
    }

    /// Says its name and pid once it is what it is meant to be, and stays.
    const STAY: &str = r#"stay='echo $0 $$.; exec sleep 1000'; "#;

    async fn run(script: &str, processes: usize) -> (Agent, String) {
        become_subreaper().unwrap();
        let agent = Agent::run(&format!("{STAY}{script}")).await;
        let output = agent.read(|seen| seen.matches('.').count() == processes).await;
        (agent, output)
    }

    #[tokio::test]
    async fn processes_that_fled_by_nohup_setsid_and_double_fork_are_swept() {
        let (agent, output) = run(
            r#"nohup sh -c "$stay" nohup 2>&1 | cat &
               sh -c "trap '' HUP TERM; $stay" trap &
               setsid sh -c "$stay" setsid &
               (setsid sh -c "sh -c '$stay' double &" &)
               setsid env -i /bin/sh -c "$stay" noenv &
               wait"#,
            5,
        )
        .await;

        let swept = sweep(&agent.process).await;

        assert!(swept.left.is_empty(), "{swept:?}");
        for who in ["nohup", "trap", "setsid", "double", "noenv"] {
            let pid = pid_after(&output, who);
            assert!(swept.killed.contains(&pid.cast_unsigned()), "{who} not in {swept:?}, {output}");
            assert!(ended(pid).await, "{who} still runs");
        }
        assert_eq!(agent.process.exited().await.signal_name().as_deref(), Some("SIGKILL"));
    }

    #[tokio::test]
    async fn a_sweep_after_the_exit_finds_orphans_and_leaves_other_agents_alone() {
        let (bystander, _) = run(r#"sh -c "$stay" bystander"#, 1).await;
        let (agent, output) = run(r#"setsid sh -c "$stay" fled & read -r end; exit 6"#, 1).await;
        let fled = pid_after(&output, "fled");
        agent.terminal.try_write(b"\n").unwrap();
        assert_eq!(agent.process.exited().await.code(), Some(6));

        let swept = sweep(&agent.process).await;

        assert_eq!(swept, Swept { killed: vec![fled.cast_unsigned()], left: vec![] });
        assert!(!fs::exists(format!("/proc/{fled}")).unwrap(), "it was killed but not reaped");
        assert_eq!(bystander.process.try_exited(), None);
    }

    #[tokio::test]
    async fn an_abandoned_agent_is_swept_while_nobody_waits() {
        let (agent, output) = run(r#"setsid sh -c "$stay" fled & sh -c "$stay" near"#, 2).await;
        sweep_abandoned(&agent.process);
        drop(agent);
        for who in ["fled", "near"] {
            assert!(ended(pid_after(&output, who)).await, "{who} still runs");
        }
    }

    #[tokio::test]
    async fn who_is_left_in_a_group_that_cannot_be_killed_is_told_and_the_marked_are_killed() {
        let (agent, output) = run(r#"setsid sh -c "$stay" fled & sh -c "$stay" near"#, 2).await;
        // A directory that looks like a group, with somebody in it on whom no kill has an effect.
        let group = tempfile::tempdir().unwrap();
        fs::write(group.path().join("cgroup.procs"), format!("{}\n", getpid())).unwrap();
        fs::write(group.path().join("cgroup.events"), "populated 1\n").unwrap();
        let agents = BTreeMap::from([(agent.process.spawn_id().clone(), agent.process.leader())]);
        let sweep = Sweep::of(&agents, Some(group.path()));

        let swept = tokio::task::spawn_blocking(move || sweep.run()).await.unwrap();

        assert_eq!(swept.left, [getpid().as_raw().cast_unsigned()]);
        assert!(ended(pid_after(&output, "fled")).await);
    }

    #[tokio::test]
    async fn orphans_that_end_on_their_own_are_reaped_and_children_with_a_handle_are_not() {
        let (agent, output) = run(r#"(setsid sh -c "$stay" fled &); read -r end"#, 1).await;
        let fled = pid_after(&output, "fled");
        let handled = Agent::run("exit 5").await;
        nix::sys::signal::kill(Pid::from_raw(fled), Signal::SIGKILL).unwrap();
        assert!(ended(fled).await);
        assert!(ended(handled.process.pid().as_raw()).await);

        // Another test may reap it first; either way nobody takes the status that has an owner.
        reap_adopted();

        assert!(!fs::exists(format!("/proc/{fled}")).unwrap(), "a zombie was left");
        assert_eq!(handled.process.exited().await.code(), Some(5));
        assert_eq!(agent.process.try_exited(), None);
    }
}
