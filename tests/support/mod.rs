//! A broker, its engine, what stands between them, and the agents: enough to make a test ten lines.
//!
//! Nothing here sleeps in the hope that something has happened by then: [`until`] looks again and again, up to
//! a limit, and says what it saw last. Everything that is started is ended when its value is dropped.

pub(crate) mod agents;
pub(crate) mod cgroup;
pub(crate) mod chance;
pub(crate) mod engine;
pub(crate) mod events;
pub(crate) mod frames;
pub(crate) mod house;
pub(crate) mod http;
pub(crate) mod processes;
pub(crate) mod proxy;
pub(crate) mod trap;

use std::time::{Duration, Instant};

pub(crate) use self::{
    agents::Listener,
    chance::Chance,
    engine::TestEngine,
    house::House,
    proxy::{Proxy, Verdict},
};

/// Longer than anything that is waited for takes on a loaded machine; shorter than a person's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until there is a `T`. `look` says what it sees instead as long as there is none.
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    until_within(PATIENCE, what, look)
}

/// [`until`] with a limit of its own.
pub(crate) fn until_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if began.elapsed() >= limit => {
                panic!("not within {limit:?}: {what}; seen last: {seen}")
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// How much of a figure of docs/reliability.md a test does: in the suite what takes seconds, and all of it where
/// `RELAY_FIGURES` is set, as `just figures` does.
pub(crate) fn figure(suite: usize, full: usize) -> usize {
    if std::env::var_os("RELAY_FIGURES").is_some() { full } else { suite }
}

/// `Ok` when it holds, else what was seen.
pub(crate) fn expect(holds: bool, seen: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(seen()) }
}
