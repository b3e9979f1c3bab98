//! What `up` and `init` share: from a configuration to a running broker and back, leaving nothing behind.

use std::{fs, io, path::Path};

use super::{
    Exit, Failure,
    connection::Published,
    lock::{Lock, NotLocked},
};
use crate::{
    config::Config,
    house::{self, EXIT_ESCALATED, Listening},
    store::private_file::private_dir,
};

/// Runs a broker until it ends. `announce` is called once it listens and can be found.
pub(super) fn run(
    config: Config,
    announce: impl FnOnce(&Listening) -> io::Result<()>,
) -> Result<Exit, Failure> {
    let state_dir = config.state_dir.clone();
    let ephemeral = config.ephemeral;
    let outcome = run_locked(config, announce);
    // After giving up, what is there may explain why.
    if ephemeral && !matches!(outcome, Ok(Exit::Escalated)) {
        remove(&state_dir);
    }
    outcome
}

fn run_locked(config: Config, announce: impl FnOnce(&Listening) -> io::Result<()>) -> Result<Exit, Failure> {
    let state_dir = config.state_dir.clone();
    private_dir(&state_dir).map_err(|source| NotLocked::Io { dir: state_dir.clone(), source })?;
    let _lock = Lock::take(&state_dir, &config.instance)?;
    let mut published = None;
    let code = house::run(config, |listening| {
        published = Some(Published::write(&state_dir, listening)?);
        match announce(listening) {
            // Nobody reads it; whoever looks for the broker finds connection.json.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            told => Ok(told?),
        }
    })?;
    drop(published);
    match code {
        0 => Ok(Exit::Ok),
        EXIT_ESCALATED => Ok(Exit::Escalated),
        _ => Ok(Exit::Failed),
    }
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, dir = %dir.display(), "ephemeral state not removed");
    }
}

impl From<NotLocked> for Failure {
    fn from(error: NotLocked) -> Self {
        let exit = match error {
            NotLocked::Taken { .. } => Exit::Locked,
            NotLocked::Io { .. } => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}
