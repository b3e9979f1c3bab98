//! The processes of one test, found by a mark in their environment, whoever is their parent by now.

use std::fs;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The variable that holds the mark.
pub(crate) const MARK: &str = "HOUSE_MARK";

/// The living processes with this mark (zombies have no environment).
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let wanted = format!("{MARK}={mark}");
    let is_marked = |pid: &u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    all().filter(is_marked).collect()
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// What is known of processes, for a failed assertion.
pub(crate) fn describe(pids: &[u32]) -> String {
    let line = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!("{pid}: {}", String::from_utf8_lossy(&command).replace('\0', " "))
    };
    pids.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// Resident bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// Sends a signal; a process that is gone needs none.
pub(crate) fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).ok();
}

/// State and parent; nothing when it is gone.
fn standing(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state ppid ...`, and a name may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// Whether it is there and no zombie.
pub(crate) fn runs(pid: u32) -> bool {
    standing(pid).is_some_and(|(state, _)| state != "Z")
}

/// Processes that have ended and wait for this one to take their status.
pub(crate) fn zombies_of(parent: u32) -> Vec<u32> {
    all().filter(|pid| standing(*pid) == Some(("Z".to_owned(), parent))).collect()
}

/// The living guards that a broker has started.
pub(crate) fn guards_of(broker: u32) -> Vec<u32> {
    let is_guard = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command == b"relay-broker\0guard\0" && standing(*pid).is_some_and(|(_, parent)| parent == broker)
    };
    all().filter(is_guard).collect()
}

/// What a process has open.
pub(crate) fn descriptors(pid: u32) -> Vec<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    // One that was closed meanwhile is not open.
    let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.map(|target| target.display().to_string()).collect()
}

/// How many threads it has.
pub(crate) fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}
