//! How many agents the system has room for.

use std::{fs, io};

use nix::sys::resource::{Resource, getrlimit};

/// Descriptors that an agent needs at the most: its terminal, its pidfd, and a slave for a moment.
const PER_AGENT: u64 = 3;

/// Descriptors for everything else: sockets, the journal, the database.
const RESERVED: u64 = 64;

/// What bounds the number of agents (spec/pty 2.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Descriptors this process may have (`RLIMIT_NOFILE`, soft).
    pub descriptors: u64,
    /// Terminals the system may have (`/proc/sys/kernel/pty/max`); `None` where it does not say.
    pub terminals: Option<u64>,
}

impl Limits {
    /// The limits now.
    ///
    /// # Errors
    /// The system's.
    pub fn read() -> io::Result<Self> {
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let terminals = fs::read_to_string("/proc/sys/kernel/pty/max").ok();
        Ok(Self { descriptors, terminals: terminals.and_then(|max| max.trim().parse().ok()) })
    }

    /// Agents that fit.
    #[must_use]
    pub fn agents(&self) -> u64 {
        let by_descriptors = self.descriptors.saturating_sub(RESERVED) / PER_AGENT;
        by_descriptors.min(self.terminals.unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcer_of_descriptors_and_terminals_decides() {
        for (descriptors, terminals, agents) in
            [(1024, Some(4096), 320), (1_000_000, Some(4096), 4096), (1024, None, 320), (50, Some(4096), 0)]
        {
            assert_eq!(Limits { descriptors, terminals }.agents(), agents);
        }
    }

    #[test]
    fn this_system_has_room_for_an_agent() {
        assert!(Limits::read().unwrap().agents() > 0);
    }
}
