//! Cgroups for brokers that are to be apart from those of other tests.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::PATIENCE;

/// Between looks.
const PAUSE: Duration = Duration::from_millis(5);
/// Where version 2 is mounted, alone or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// The group of the house in this directory, whether there is one or not.
fn of(house: &Path) -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let places = MOUNTS.map(|mount| Path::new(mount).join(own));
    let place = places.into_iter().find(|place| place.join("cgroup.procs").exists())?;
    Some(place.join(house.file_name()?))
}

/// Makes it, if that can be.
pub(crate) fn make(house: &Path) -> Option<PathBuf> {
    let group = of(house)?;
    (group.is_dir() || fs::create_dir(&group).is_ok()).then_some(group)
}

/// Ends it with all that is in it.
pub(crate) fn end(house: &Path) {
    let Some(group) = of(house).filter(|group| group.is_dir()) else { return };
    fs::write(group.join("cgroup.kill"), "1").ok();
    // No panic where a test that has failed is being cleared away.
    let end = Instant::now() + PATIENCE;
    while remove(&group).is_err() && Instant::now() < end {
        thread::sleep(PAUSE);
    }
}

fn remove(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
