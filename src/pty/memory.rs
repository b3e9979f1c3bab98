//! What a process has had of memory, and whether the kernel kills for want of it.
//!
//! Two sources, for neither is enough. `VmHWM` of a living process is exact for that process and gone with it,
//! so it is looked at now and then. The kernel's account at the exit has the peak of the whole life, and of
//! those that the process has waited for; but a child is born as a copy of the broker, and that copy counts as
//! its own. So the account says something only when it is above what the broker itself had at that time.

use std::fs;

use super::cgroup;

/// Most resident memory that a living process ever had, in bytes. 20 µs; procfs does not block.
pub fn peak_memory(pid: u32) -> Option<u64> {
    kib_line(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmHWM:")
}

/// What this process has resident now, in bytes: what a child's account begins with.
pub(super) fn own_memory() -> Option<u64> {
    kib_line(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// How often the kernel has killed for want of memory in this process's control group, where its agents are, or
/// in groups below it. `None` outside of a group that counts.
pub fn oom_kills() -> Option<u64> {
    let events = cgroup::own_directory().ok()?.join("memory.events");
    count(&fs::read_to_string(events).ok()?)
}

/// `VmHWM:   1234 kB` in bytes. A zombie has no such line.
fn kib_line(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn count(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read_in_bytes_and_what_is_not_there_is_nothing() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kib_line(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(kib_line("Name:\tx\nState:\tZ (zombie)\n", "VmHWM:"), None);
        assert_eq!(count("low 0\nhigh 0\nmax 0\noom 4\noom_kill 3\noom_group_kill 1\n"), Some(3));
        assert_eq!(count("low 0\n"), None);
    }

    #[test]
    fn this_very_process_has_had_at_least_what_it_has() {
        let now = own_memory().unwrap();
        assert!(peak_memory(std::process::id()).unwrap() >= now && now > 1 << 20);
    }
}
