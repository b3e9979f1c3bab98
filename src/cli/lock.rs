//! One broker per state directory. The lock is held by the process, not by the file: a file that a killed
//! broker left behind locks nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// The lock, for as long as this value.
pub(super) struct Lock {
    _file: Flock<File>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLocked {
    /// Somebody has it. Other programs look for the words up to the bracket.
    #[error(
        "another broker instance is already running in this directory ({}){}; stop it with `relay-broker \
         down`, or use another --state-dir",
        .dir.display(),
        .pid.map(|pid| format!(", pid {pid}")).unwrap_or_default()
    )]
    Taken {
        /// Where.
        dir: PathBuf,
        /// By whom, when they said so.
        pid: Option<u32>,
    },
    /// The directory does not allow it.
    #[error("cannot write to the state directory {}: {source}; choose another with --state-dir", .dir.display())]
    Io {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock of this instance, unless any broker has one in the same directory.
    pub(super) fn take(dir: &Path, instance: &str) -> Result<Self, NotLocked> {
        let failed = |source| NotLocked::Io { dir: dir.to_owned(), source };
        let path = dir.join(format!("broker-{instance}.lock"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = match lock(options.open(&path).map_err(failed)?) {
            Ok(file) => file,
            Err(LockError::Held(file)) => return Err(taken(dir, file)),
            Err(LockError::Os(errno)) => return Err(failed(errno.into())),
        };
        // Ours is held before the others are looked at, so of two that start at once one sees the other.
        for other in others(dir, &path).map_err(failed)? {
            if let Ok(file) = File::open(&other)
                && let Err(LockError::Held(file)) = lock(file)
            {
                return Err(taken(dir, file));
            }
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

enum LockError {
    Held(File),
    Os(Errno),
}

fn lock(file: File) -> Result<Flock<File>, LockError> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, errno)| match errno {
        Errno::EWOULDBLOCK => LockError::Held(file),
        errno => LockError::Os(errno),
    })
}

fn taken(dir: &Path, mut file: File) -> NotLocked {
    let mut text = String::new();
    let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
    NotLocked::Taken { dir: dir.to_owned(), pid }
}

/// The lock files of other instances.
fn others(dir: &Path, ours: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("broker-") && name.ends_with(".lock") && path != ours {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_broker_is_told_who_is_there_whatever_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path(), "a").unwrap();
        for name in ["a", "b"] {
            let said = Lock::take(dir.path(), name).err().unwrap().to_string();
            let phrase = format!(
                "another broker instance is already running in this directory ({}), pid {}",
                dir.path().display(),
                std::process::id()
            );
            assert!(said.starts_with(&phrase), "{said}");
        }
        drop(first);
        Lock::take(dir.path(), "b").unwrap();
    }

    #[test]
    fn a_lock_file_left_behind_locks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("broker-a.lock"), "1\n").unwrap();
        Lock::take(dir.path(), "a").unwrap();
    }

    #[test]
    fn a_directory_that_is_none_is_named_in_the_refusal() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("none");
        let said = Lock::take(&none, "a").err().unwrap().to_string();
        assert!(said.contains("--state-dir") && said.contains("none"), "{said}");
    }
}
