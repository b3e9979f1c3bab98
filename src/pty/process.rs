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

use super::{SpawnId, Terminal, sys};

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
    spawn_id: SpawnId,
    pidfd: AsyncFd<OwnedFd>,
    exit: OnceLock<ExitStatus>,
}

impl Process {
    /// Takes over a child that was just forked by this thread and is already on the list of held ones.
    pub(super) fn adopt(pid: Pid, spawn_id: SpawnId) -> io::Result<Self> {
        let pidfd = sys::watch(sys::pidfd_open(pid.as_raw())?)?;
        Ok(Self { pid, spawn_id, pidfd, exit: OnceLock::new() })
    }

    /// Its pid, which is also its session and its process group.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The mark in its environment, by which its descendants are found.
    pub fn spawn_id(&self) -> SpawnId {
        self.spawn_id
    }

    /// How it ended, if it has. Does not wait.
    pub fn try_exited(&self) -> Option<ExitStatus> {
        if self.exit.get().is_none() {
            // Under the lock from before the pid becomes free until it is off the list: a new child with
            // the same pid must not be struck off.
            let mut held = held();
            let status = match sys::reap(sys::Child::ByFd(self.pidfd.get_ref().as_fd())) {
                Ok(None) => return None,
                Ok(Some(raw)) => raw.into(),
                Err(_) => ExitStatus::Lost,
            };
            held.remove(&self.pid.as_raw());
            return Some(*self.exit.get_or_init(|| status));
        }
        self.exit.get().copied()
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
    /// known: from then on its number may belong to somebody else, and [`sweep`](super::sweep) finds what is
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
