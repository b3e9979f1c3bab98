//! How many agents the limits of this process and of the machine have room for.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

/// Descriptors of one agent: its terminal, its process, and one while it is spawned or its output is written
/// (spec/pty 2.10).
const PER_AGENT: u64 = 3;
/// Descriptors of everything else: sockets, clients, journal, threads (spec/pty 2.10).
const RESERVE: u64 = 64;

/// Room for agents, and the limit that comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// So many at once.
    pub agents: u64,
    /// What has to be raised for more, in words.
    pub raise: &'static str,
}

/// What there is room for now. Terminals that other programs of this machine have open are counted off.
pub fn capacity() -> Capacity {
    // A limit that cannot be read does not come first.
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let ptys =
        |name: &str| fs::read_to_string(format!("/proc/sys/kernel/pty/{name}")).ok()?.trim().parse().ok();
    smallest(descriptors, ptys("max").unwrap_or(u64::MAX), ptys("nr").unwrap_or(0))
}

fn smallest(descriptors: u64, ptys: u64, ptys_open: u64) -> Capacity {
    let by_descriptors = descriptors.saturating_sub(RESERVE) / PER_AGENT;
    let by_ptys = ptys.saturating_sub(ptys_open);
    if by_descriptors <= by_ptys {
        Capacity { agents: by_descriptors, raise: "the limit of open files (`ulimit -n`)" }
    } else {
        Capacity { agents: by_ptys, raise: "the limit of terminals (`sysctl kernel.pty.max`)" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_comes_first_is_named() {
        for (descriptors, ptys, open, agents, raise) in [
            (1024, 4096, 10, 320, "ulimit"),
            (65536, 4096, 96, 4000, "pty.max"),
            (64, 4096, 0, 0, "ulimit"),
            (10, 4096, 0, 0, "ulimit"),
            (u64::MAX, 10, 20, 0, "pty.max"),
        ] {
            let found = smallest(descriptors, ptys, open);
            assert!(found.agents == agents && found.raise.contains(raise), "{descriptors} {ptys}: {found:?}");
        }
        assert!(capacity().agents > 0, "the tests themselves need some");
    }
}
