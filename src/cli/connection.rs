//! `connection.json`: where a running broker listens, for clients that look below the same directory
//! (spec/api 1.4). Readable by its owner alone; removed when the broker ends, and stale when its process is
//! gone without having done so.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, sys::signal, unistd::Pid};
use serde::{Deserialize, Serialize};

use crate::{house::Listening, store::private_file::publish_private};

/// The file's name, in the state directory.
pub(super) const FILE_NAME: &str = "connection.json";

/// What the file says. Other programs add keys; they are ignored.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct Connection {
    /// `http://<bind>:<port>`.
    pub(super) url: String,
    /// The port again, for those who want it alone.
    pub(super) port: u16,
    /// Guards the API.
    pub(super) api_key: String,
    /// The broker's process.
    pub(super) pid: u32,
}

/// Why a file told nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// There is none.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is not a connection file: {source}", .path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl Connection {
    /// Reads the file of a state directory.
    pub(super) fn read(state_dir: &Path) -> Result<Self, Unreadable> {
        let path = state_dir.join(FILE_NAME);
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| Unreadable::Foreign { path, source })
            }
            Err(source) => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Err(Unreadable::Missing(path)),
                _ => Err(Unreadable::Io { path, source }),
            },
        }
    }

    /// True when the process it names is there.
    pub(super) fn is_alive(&self) -> bool {
        is_alive(self.pid)
    }
}

/// True when there is such a process. One that has ended and waits for its parent to notice is not there.
pub(super) fn is_alive(pid: u32) -> bool {
    // 0 and negative numbers would ask about whole process groups.
    let Some(raw) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else { return false };
    let exists = !matches!(signal::kill(Pid::from_raw(raw), None), Err(Errno::ESRCH));
    exists && !is_zombie(pid)
}

/// The state follows the command's name, which stands in brackets and may hold anything (proc_pid_stat(5)).
fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

/// The file of this process, there for as long as this value.
pub(super) struct Published {
    path: PathBuf,
}

impl Published {
    /// Writes the file: whole, and private from the first byte.
    pub(super) fn write(state_dir: &Path, listening: &Listening) -> io::Result<Self> {
        let path = state_dir.join(FILE_NAME);
        let connection = Connection {
            url: listening.url.clone(),
            port: listening.port,
            api_key: listening.api_key.expose().to_owned(),
            pid: std::process::id(),
        };
        // It means nothing after a power cut: the process it names is gone then.
        publish_private(&path, serde_json::to_string(&connection)?.as_bytes())?;
        Ok(Self { path })
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Somebody who took our place (a removed lock file) keeps theirs.
        let state_dir = self.path.parent().unwrap_or(Path::new("."));
        let is_ours = Connection::read(state_dir).is_ok_and(|found| found.pid == std::process::id());
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "connection file not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::ids::ApiKey;

    fn listening() -> Listening {
        Listening { url: "http://127.0.0.1:1".to_owned(), port: 1, api_key: ApiKey::from("k") }
    }

    #[test]
    fn the_file_is_private_and_goes_with_the_broker() {
        let dir = tempfile::tempdir().unwrap();
        let published = Published::write(dir.path(), &listening()).unwrap();
        let path = dir.path().join(FILE_NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Connection::read(dir.path()).unwrap();
        assert_eq!((read.url.as_str(), read.port, read.api_key.as_str()), ("http://127.0.0.1:1", 1, "k"));
        assert!(read.is_alive());
        drop(published);
        assert!(!path.exists());
    }

    #[test]
    fn the_file_of_another_broker_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let published = Published::write(dir.path(), &listening()).unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::write(&path, r#"{"url":"http://x","port":2,"api_key":"o","pid":1}"#).unwrap();
        drop(published);
        assert!(path.exists());
    }

    #[test]
    fn a_process_that_ended_unnoticed_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let began = std::time::Instant::now();
        while is_alive(child.id()) {
            assert!(began.elapsed() < std::time::Duration::from_secs(10), "still called alive");
            std::thread::yield_now();
        }
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn no_process_has_number_zero() {
        assert!(!is_alive(0));
        assert!(!is_alive(u32::MAX));
    }
}
