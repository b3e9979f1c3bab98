//! A child, by its pidfd: how it ended, and signals to its groups.

use std::{
    collections::BTreeSet,
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use nix::{
    errno::Errno,
    libc,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::io::unix::AsyncFd;

use super::{Terminal, guard::Ward, memory, sweep::Leader, sys};
use crate::ids::SpawnId;

/// The children whose exit status belongs to a [`Process`]. A broker that is a child subreaper has other
/// children too (orphans of agents), and whoever reaps those must keep off these. Held while forking, so
/// that a child which ends at once is on the list before anybody can look.
static HELD: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

pub(super) fn held() -> MutexGuard<'static, BTreeSet<i32>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Exited(i32),
    /// A signal ended it.
    Killed {
        /// Its number.
        signal: i32,
        /// A core was dumped.
        core_dumped: bool,
    },
    /// Somebody else took the status (a library that waits for all children).
    Lost,
}

impl ExitStatus {
    /// The exit code, when it exited.
    pub fn code(self) -> Option<i32> {
        if let Self::Exited(code) = self { Some(code) } else { None }
    }

    /// The signal's name (`SIGTERM`, `SIG34` for a real-time one), when a signal ended it.
    pub fn signal_name(self) -> Option<String> {
        let Self::Killed { signal, .. } = self else { return None };
        Some(Signal::try_from(signal).map_or_else(|_| format!("SIG{signal}"), |known| known.to_string()))
    }

    /// True when a core was dumped.
    pub fn core_dumped(self) -> bool {
        matches!(self, Self::Killed { core_dumped: true, .. })
    }
}

impl From<sys::RawExit> for ExitStatus {
    fn from(raw: sys::RawExit) -> Self {
        if raw.code == libc::CLD_EXITED {
            Self::Exited(raw.status)
        } else {
            Self::Killed { signal: raw.status, core_dumped: raw.code == libc::CLD_DUMPED }
        }
    }
}

/// A child that leads a session of its own. Dropping it neither ends nor reaps the child: a later
/// [`reap_adopted`](super::reap_adopted) does the latter.
pub struct Process {
    pid: Pid,
    /// Nothing where `/proc` shows no processes.
    leader: Option<Leader>,
    ward: Ward,
    pidfd: AsyncFd<OwnedFd>,
    exit: OnceLock<ExitStatus>,
    /// What the broker had of memory when it was forked, in bytes.
    begun_with: Option<u64>,
    /// What the kernel's account said at the exit, in bytes.
    account: OnceLock<u64>,
}

impl Process {
    /// Takes over a child that was just forked by this thread and is already on the list of held ones.
    pub(super) fn adopt(pid: Pid, ward: Ward) -> io::Result<Self> {
        let pidfd = sys::watch(sys::pidfd_open(pid.as_raw())?)?;
        Ok(Self {
            pid,
            leader: Leader::of(pid.as_raw()),
            ward,
            pidfd,
            exit: OnceLock::new(),
            begun_with: memory::own_memory(),
            account: OnceLock::new(),
        })
    }

    /// Its pid, which is also its session and its process group.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The mark in its environment, by which its descendants are found.
    pub fn spawn_id(&self) -> &SpawnId {
        self.ward.spawn_id()
    }

    pub(super) fn leader(&self) -> Option<Leader> {
        self.leader
    }

    pub(super) fn ward(&self) -> &Ward {
        &self.ward
    }

    /// How it ended, if it has. Does not wait.
    pub fn try_exited(&self) -> Option<ExitStatus> {
        if self.exit.get().is_none() {
            // Under the lock from before the pid becomes free until it is off the list: a new child with
            // the same pid must not be struck off.
            let mut held = held();
            let status = match sys::reap(sys::Child::ByFd(self.pidfd.get_ref().as_fd())) {
                Ok(None) => return None,
                Ok(Some(raw)) => {
                    let bytes = u64::try_from(raw.peak_kib).unwrap_or(0).saturating_mul(1024);
                    self.account.get_or_init(|| bytes);
                    raw.into()
                }
                Err(_) => ExitStatus::Lost,
            };
            held.remove(&self.pid.as_raw());
            return Some(*self.exit.get_or_init(|| status));
        }
        self.exit.get().copied()
    }

    /// The most resident memory that it, or one that it has waited for, ever had, in bytes. Known after the
    /// end alone, and only where it is above what the broker had itself: every child begins as a copy of it.
    pub fn peak_memory(&self) -> Option<u64> {
        self.account.get().copied().filter(|peak| self.begun_with.is_some_and(|begun| *peak > begun))
    }

    /// Waits for the end. May be called any number of times, also after the end, and dropped at any time.
    pub async fn exited(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.try_exited() {
                return status;
            }
            match self.pidfd.readable().await {
                Ok(mut ready) => {
                    if let Some(status) = self.try_exited() {
                        return status;
                    }
                    ready.clear_ready();
                }
                // The runtime is ending, and with it whoever waits here.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Signals its process group and the terminal's foreground group. Nothing is sent once its end is
    /// known: from then on its number may belong to somebody else, and [`sweep`](super::sweep()) finds what is
    /// left. Groups that are stopped are continued, since they could not act on the signal.
    ///
    /// # Errors
    /// `EPERM` when the group consists of processes of another user alone.
    pub fn signal_groups(&self, terminal: &Terminal, signal: Signal) -> io::Result<()> {
        if self.try_exited().is_some() {
            return Ok(());
        }
        let foreground = terminal.foreground_group().filter(|group| *group != self.pid);
        for group in std::iter::once(self.pid).chain(foreground) {
            send(group, signal)?;
            if signal != Signal::SIGKILL {
                send(group, Signal::SIGCONT)?;
            }
        }
        Ok(())
    }
}

fn send(group: Pid, signal: Signal) -> io::Result<()> {
    match killpg(group, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.get().is_none() {
            held().remove(&self.pid.as_raw());
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("pid", &self.pid.as_raw()).field("exit", &self.exit.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{BufRead, BufReader},
        process::Stdio,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::pty::{
        fixture::{Agent, alone, ended, is_alone, pid_after, within},
        ladder::{Ladder, Next, Policy, Step},
        sweep_leftover,
    };

    #[tokio::test]
    async fn exit_codes_and_signals_are_told_apart_and_told_again() {
        let core_free = "ulimit -c 0;";
        for (script, code, signal) in [
            ("exit 0", Some(0), None),
            ("exit 7", Some(7), None),
            ("exit 255", Some(255), None),
            ("exit 137", Some(137), None),
            ("kill -TERM $$", None, Some("SIGTERM")),
            ("kill -KILL $$", None, Some("SIGKILL")),
            ("kill -SEGV $$", None, Some("SIGSEGV")),
            ("kill -35 $$", None, Some("SIG35")),
        ] {
            let agent = Agent::run(&format!("{core_free} {script}")).await;
            for _ in 0..2 {
                let exit = within(agent.process.exited()).await;
                assert_eq!((exit.code(), exit.signal_name().as_deref()), (code, signal), "{script}");
                assert!(!exit.core_dumped(), "{script}");
            }
        }
    }

    #[tokio::test]
    async fn an_exit_may_be_waited_for_twice_at_once_and_given_up() {
        let agent = Agent::run("read -r x; exit 9").await;
        let given_up = tokio::time::timeout(Duration::ZERO, agent.process.exited()).await;
        assert!(given_up.is_err());
        agent.terminal.try_write(b"\n").unwrap();
        let (one, two) = within(async { tokio::join!(agent.process.exited(), agent.process.exited()) }).await;
        assert_eq!((one.code(), two.code()), (Some(9), Some(9)));
    }

    #[tokio::test]
    async fn signals_reach_the_group_and_the_foreground_group_stopped_or_not() {
        // Job control: the job runs in a group of its own, in the foreground, and has stopped itself.
        let agent = Agent::run(
            "set -m; trap '' HUP; sh -c 'echo job $$.; kill -STOP $$' ; echo code $?.; sleep 1000",
        )
        .await;
        let job = pid_after(&agent.until(".").await, "job");
        assert_ne!(job, agent.process.pid().as_raw());
        agent.send(Signal::SIGTERM);
        assert!(ended(job).await);
    }

    #[tokio::test]
    async fn a_tree_that_ignores_hup_and_term_dies_on_the_ladder() {
        let agent = Agent::run(
            "trap '' HUP TERM; sh -c 'while :; do sleep 1000; done' & echo child $!.
             while :; do sleep 1001; done",
        )
        .await;
        let child = pid_after(&agent.until(".").await, "child");
        let mut ladder =
            Ladder::new(Policy { within: Some(Duration::from_millis(300)), ..Policy::default() });
        let start = Instant::now();
        let mut taken = Vec::new();
        let exit = loop {
            match ladder.next(start.elapsed()) {
                Next::Take(step) => {
                    taken.push(step);
                    agent.send(match step {
                        Step::Quit | Step::Hangup => Signal::SIGHUP,
                        Step::Terminate => Signal::SIGTERM,
                        Step::Kill => Signal::SIGKILL,
                    });
                }
                Next::At(at) => {
                    let wait = at.saturating_sub(start.elapsed());
                    if let Ok(exit) = tokio::time::timeout(wait, agent.process.exited()).await {
                        break exit;
                    }
                }
                Next::Top => break within(agent.process.exited()).await,
            }
        };
        assert_eq!(exit.signal_name().as_deref(), Some("SIGKILL"));
        assert_eq!(taken.last(), Some(&Step::Kill));
        assert!(ended(child).await, "the child in its group still runs");
    }

    #[tokio::test]
    async fn two_hundred_children_are_reaped_with_their_codes_and_leave_nothing() {
        if !is_alone() {
            let test = "process::tests::two_hundred_children_are_reaped_with_their_codes_and_leave_nothing";
            assert!(alone(test).status().unwrap().success());
            return;
        }
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        for _ in 0..4 {
            let mut agents = Vec::new();
            for code in 0..50 {
                agents.push((code, Agent::run(&format!("exit {code}")).await));
            }
            assert_eq!(descriptors(), before + 2 * agents.len());
            for (code, agent) in &agents {
                assert_eq!(within(agent.process.exited()).await.code(), Some(*code));
                let pid = agent.process.pid();
                assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "{pid} is a zombie");
            }
        }
        assert_eq!(descriptors(), before);
        assert!(held().is_empty());
    }

    #[tokio::test]
    async fn an_agent_that_ignores_hup_dies_with_a_killed_broker_and_the_next_one_finds_its_children() {
        if is_alone() {
            let agent = Agent::run("trap '' HUP; sleep 1000 & echo agent $$ child $!.; wait").await;
            println!("{} mark {}", agent.until(".").await.trim_end(), agent.process.spawn_id());
            std::future::pending::<()>().await;
        }
        let test = "process::tests::\
            an_agent_that_ignores_hup_dies_with_a_killed_broker_and_the_next_one_finds_its_children";
        let mut broker = alone(test).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(broker.stdout.take().unwrap()).lines();
        let said =
            lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("mark "))).unwrap().unwrap();
        let (agent, child) = (pid_after(&said, "agent"), pid_after(&said, "child"));
        let spawn_id = SpawnId::from(said.rsplit_once(' ').unwrap().1);
        broker.kill().unwrap();
        broker.wait().unwrap();
        assert!(ended(agent).await);

        // The parent-death signal reaches the agent alone; its mark outlives the broker.
        let swept = sweep_leftover(&spawn_id, agent.cast_unsigned(), 0).await;
        assert_eq!(swept.killed, [child.cast_unsigned()]);
        assert!(ended(child).await);
    }
}
