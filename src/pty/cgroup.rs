//! A cgroup for each agent, where the kernel and whoever manages its cgroups let us: what is in one can not get
//! out by a new session, another parent or an empty environment, and is killed whole.
//!
//! ```text
//! <our own cgroup>/relay-broker-<pid namespace>-<pid>-<start tick>/<spawn id>
//! ```
//!
//! Version 2 alone, and no controller is enabled: the groups gather processes and limit nothing (cgroups(7)).
//! `cgroup.kill` came with Linux 5.14; without it there are no groups.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek},
    os::{
        fd::AsFd,
        unix::{ffi::OsStringExt, fs::MetadataExt},
    },
    path::{Component, Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use nix::{libc, poll::PollFlags};
use tracing::{info, warn};

use super::{sweep, sys};
use crate::ids::SpawnId;

const PREFIX: &str = "relay-broker-";

/// For the processes of one group to end, once they are killed.
const KILL_TIME: Duration = Duration::from_secs(1);

/// There where systemd runs the machine (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

/// The directory of one broker, in which its agents' groups are made.
#[derive(Debug)]
pub(super) struct Groups {
    dir: PathBuf,
}

impl Groups {
    /// Makes the directory and tries it. What brokers that were killed have left beside it is ended first,
    /// which takes a second for each at the most.
    ///
    /// # Errors
    /// Why there are no groups here.
    pub(super) fn make() -> io::Result<Self> {
        let own = own_directory()?;
        if Path::new(SYSTEMD).is_dir() && !is_delegated(&own) {
            return Err(io::Error::other("systemd has not delegated the broker's cgroup"));
        }
        let namespace = fs::metadata("/proc/self/ns/pid")?.ino();
        end_leftovers(&own, namespace)?;
        let pid = process::id();
        let started = sweep::start_tick(pid).ok_or_else(|| io::Error::other("/proc does not show us"))?;
        let dir = own.join(directory_name(namespace, pid, started));
        fs::create_dir(&dir)?;
        let groups = Self { dir };
        groups.probe().inspect_err(|_| {
            fs::remove_dir(&groups.dir).ok();
        })?;
        Ok(groups)
    }

    fn probe(&self) -> io::Result<()> {
        if !self.dir.join("cgroup.kill").exists() {
            return Err(io::Error::other("this kernel does not kill cgroups"));
        }
        let probe = self.dir.join("probe");
        fs::create_dir(&probe)?;
        let moved = entrance(&probe).and_then(sys::try_to_move);
        clear(&probe, Instant::now() + KILL_TIME)?;
        moved
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the group of an agent.
    pub(super) fn make_one(&self, spawn_id: &SpawnId) -> io::Result<PathBuf> {
        let dir = self.dir.join(spawn_id.as_str());
        fs::create_dir(&dir)?;
        Ok(dir)
    }
}

/// Where a process that is to be moved into a group writes.
pub(super) fn entrance(dir: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(dir.join("cgroup.procs"))
}

/// The living processes of a group and of all below it, as far as our pid namespace shows them.
pub(super) fn members(dir: &Path) -> Vec<i32> {
    let own = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let own = own.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0);
    own.chain(below(dir).iter().flat_map(|dir| members(dir))).collect()
}

/// Kills all that are in a group and below it, also those that are just being forked.
pub(super) fn kill(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("cgroup.kill"), "1")
}

/// Waits until nobody is in a group any more, and removes it.
///
/// # Errors
/// The system's; `TimedOut` when somebody is left at `until`.
pub(super) fn clear(dir: &Path, until: Instant) -> io::Result<()> {
    let mut events = File::open(dir.join("cgroup.events"))?;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "populated 0") {
            return remove(dir);
        }
        // The kernel tells a change of the file as an exceptional condition.
        if !sweep::wait_until(events.as_fd(), PollFlags::POLLPRI, until) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// Removes a group in which nobody is any more. Its files are the kernel's and go with it.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    below(dir).iter().try_for_each(|dir| remove(dir))?;
    fs::remove_dir(dir)
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.flatten().filter(is_dir).map(|entry| entry.path()).collect()
}

fn directory_name(namespace: u64, pid: u32, started: u64) -> String {
    format!("{PREFIX}{namespace}-{pid}-{started}")
}

/// True for the directory of a broker of our pid namespace that does not live any more. In another namespace
/// the numbers mean somebody else.
fn is_left(name: &str, namespace: u64, lives: impl Fn(u32, u64) -> bool) -> bool {
    let Some(numbers) = name.strip_prefix(PREFIX) else { return false };
    let mut numbers = numbers.split('-');
    let mut number = || numbers.next()?.parse::<u64>().ok();
    let (Some(of), Some(pid), Some(started)) = (number(), number(), number()) else { return false };
    of == namespace && u32::try_from(pid).is_ok_and(|pid| !lives(pid, started))
}

fn end_leftovers(own: &Path, namespace: u64) -> io::Result<()> {
    for entry in fs::read_dir(own)?.flatten() {
        if !entry.file_name().to_str().is_some_and(|name| is_left(name, namespace, sweep::lives)) {
            continue;
        }
        let dir = entry.path();
        let killed = members(&dir);
        match kill(&dir).and_then(|()| clear(&dir, Instant::now() + KILL_TIME)) {
            Ok(()) if killed.is_empty() => {}
            Ok(()) => info!(?killed, "cgroups of a killed broker ended"),
            // Its guard is at work on it too.
            Err(error) if is_gone(&error) => {}
            Err(error) => warn!(%error, dir = %dir.display(), "cgroups of a killed broker cannot be ended"),
        }
    }
    Ok(())
}

/// True for what the kernel says of a group that was removed, also of its open files.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// True for a cgroup that systemd has given away: it says so by an attribute (systemd 251 and later, and
/// earlier ones for the system's own units).
fn is_delegated(dir: &Path) -> bool {
    [c"user.delegate", c"trusted.delegate"].iter().any(|name| sys::has_attribute(dir, name))
}

/// This process's group.
///
/// # Errors
/// The system's; another one where no group of version 2 is to be seen.
pub(super) fn own_directory() -> io::Result<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read("/proc/self/mountinfo")?;
    find_directory(&groups, &mounts).ok_or_else(|| io::Error::other("no cgroup of version 2 is to be seen"))
}

/// Our directory, by `/proc/self/cgroup` (cgroups(7)) and the mounts of `/proc/self/mountinfo` (proc(5)).
fn find_directory(groups: &str, mounts: &[u8]) -> Option<PathBuf> {
    let group = Path::new(groups.lines().find_map(|line| line.strip_prefix("0::"))?);
    mounts.split(|byte| *byte == b'\n').find_map(|mount| {
        let mut fields = mount.split(|byte| *byte == b' ');
        let root = unescaped(fields.nth(3)?);
        let point = unescaped(fields.next()?);
        // Any number of optional fields, a dash, and the type.
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        // A group outside of what is mounted, or of our namespace, begins with `/..`.
        let inside = group.strip_prefix(root).ok().filter(|inside| !climbs(inside))?;
        (kind == b"cgroup2").then(|| point.join(inside))
    })
}

fn climbs(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// A path as mountinfo writes it: space, tab, line feed and backslash are three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_directory_is_found_wherever_version_2_is_mounted() {
        let unified = "24 1 0:22 / /proc rw - proc proc rw\n\
                       31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw\n";
        let hybrid = "30 1 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 30 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let container = "50 1 0:27 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let odd = "50 1 0:27 / /mnt/my\\040groups\\134 rw - cgroup2 cgroup rw\n";
        let scope = "0::/user.slice/app.scope\n";
        let of_hybrid = "12:memory:/elsewhere\n1:name=systemd:/user.slice\n0::/\n";
        for (groups, mounts, found) in [
            (scope, unified, Some("/sys/fs/cgroup/user.slice/app.scope")),
            (of_hybrid, hybrid, Some("/sys/fs/cgroup/unified/")),
            ("0::/docker/ab/agents", container, Some("/sys/fs/cgroup/agents")),
            ("0::/docker/abc", container, None),
            ("0::/../elsewhere", unified, None),
            (scope, odd, Some("/mnt/my groups\\/user.slice/app.scope")),
            ("12:memory:/elsewhere\n", unified, None),
            (scope, "30 1 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory", None),
            (scope, "", None),
        ] {
            let expected = found.map(PathBuf::from);
            assert_eq!(find_directory(groups, mounts.as_bytes()), expected, "{groups} {mounts}");
        }
    }

    #[test]
    fn only_directories_of_dead_brokers_of_our_own_namespace_are_left() {
        let lives = |pid, started| (pid, started) == (7, 100);
        for (name, left) in [
            (directory_name(1, 7, 100), false),
            (directory_name(1, 7, 99), true),
            (directory_name(1, 8, 100), true),
            (directory_name(2, 8, 100), false),
            ("relay-broker-1-8".to_owned(), false),
            ("relay-broker-1-x-100".to_owned(), false),
            ("user.slice".to_owned(), false),
        ] {
            assert_eq!(is_left(&name, 1, lives), left, "{name}");
        }
    }
}
