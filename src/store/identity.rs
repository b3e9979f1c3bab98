//! Who this node is: the machine's seed, and the node id that follows from it.
//!
//! `node_` + 32 hex of sha256(seed ‖ 0 ‖ canonical directory ‖ 0 ‖ workspace). Node ids are a global key at the
//! engine, so each machine, directory and workspace needs its own (spec/wire 1.5, 5.4). A pinned id is used
//! as it is.

use std::{
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::private_file::{create_private, private_dir, read_private};
use crate::ids::{NodeId, WorkspaceId};

/// The seed's file in the data directory.
pub const SEED_FILE: &str = "machine-id";
/// Hex digits of a derived id.
const ID_HEX: usize = 32;
/// Longer seeds are not seeds.
const SEED_MAX: usize = 256;

/// The machine's seed: a random word that is written once and never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSeed(String);

/// Why there is no identity. The start fails then: a guessed identity could be somebody else's.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refused.
    #[error("cannot use {path}: {source}; fix its permissions or set XDG_DATA_HOME")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The file is there and holds no seed.
    #[error("{path} holds no machine id; restore it, or delete it to become a new machine")]
    BadSeed {
        /// Which file.
        path: PathBuf,
    },
}

impl MachineSeed {
    /// Reads the seed of this machine, or makes it. Any number of brokers that start at once agree on one.
    /// Blocks.
    ///
    /// # Errors
    /// [`IdentityError`] on anything but a seed, or a file that is not there yet.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, IdentityError> {
        let path = data_dir.join(SEED_FILE);
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { path, source }
        };
        if let Some(bytes) = read_private(&path).map_err(io_error(&path))? {
            return Self::parse(&bytes).ok_or(IdentityError::BadSeed { path });
        }
        private_dir(data_dir).map_err(io_error(data_dir))?;
        let fresh = format!("node_{}\n", uuid::Uuid::new_v4().simple());
        create_private(&path, fresh.as_bytes()).map_err(io_error(&path))?;
        // Whoever won, the file is what counts.
        let bytes = read_private(&path).map_err(io_error(&path))?.unwrap_or_default();
        Self::parse(&bytes).ok_or(IdentityError::BadSeed { path })
    }

    /// One word of printable ASCII, alone on its line.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = std::str::from_utf8(bytes).ok()?.trim();
        let fits = (1..=SEED_MAX).contains(&word.len()) && word.chars().all(|c| c.is_ascii_graphic());
        fits.then(|| Self(word.to_owned()))
    }

    /// The node id of this directory in this workspace. `cwd` must be canonical: two spellings of one
    /// directory would be two nodes.
    pub fn node_id(&self, cwd: &Path, workspace: &WorkspaceId) -> NodeId {
        let mut hash = Sha256::new();
        hash.update(self.0.as_bytes());
        hash.update([0]);
        hash.update(cwd.as_os_str().as_bytes());
        hash.update([0]);
        hash.update(workspace.as_str().as_bytes());
        NodeId::from(format!("node_{}", hex_prefix(&hash.finalize(), ID_HEX)))
    }

    /// The seed itself as an id: what a node token that was given without an id belongs to (spec/wire 5.4).
    pub fn verbatim(&self) -> NodeId {
        NodeId::from(self.0.as_str())
    }
}

/// The first `digits` lowercase hex digits of these bytes.
pub(crate) fn hex_prefix(bytes: &[u8], digits: usize) -> String {
    let mut hex: String = bytes.iter().take(digits.div_ceil(2)).map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(digits);
    hex
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn seed(word: &str) -> MachineSeed {
        MachineSeed::parse(word.as_bytes()).unwrap()
    }

    #[test]
    fn the_id_depends_on_machine_directory_and_workspace_and_on_nothing_else() {
        let id = |s: &str, cwd: &str, ws: &str| seed(s).node_id(Path::new(cwd), &ws.into());
        let base = id("node_1", "/srv/a", "ws1");
        assert_eq!(base, id("node_1\n", "/srv/a", "ws1"));
        for other in
            [id("node_2", "/srv/a", "ws1"), id("node_1", "/srv/b", "ws1"), id("node_1", "/srv/a", "ws2")]
        {
            assert_ne!(base, other);
        }
        // The separators keep the parts apart.
        assert_ne!(id("x", "/a", "b"), id("x", "/ab", ""));
        let hex = base.as_str().strip_prefix("node_").unwrap();
        assert_eq!(hex.len(), 32);
        assert!(hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')));
    }

    #[test]
    fn the_id_is_the_one_that_other_programs_compute() {
        // printf 'node_0\0/srv\0ws_1' | sha256sum
        assert_eq!(
            seed("node_0").node_id(Path::new("/srv"), &"ws_1".into()).as_str(),
            "node_678deb7ffe6e67f086f32c139d66c735"
        );
    }

    #[test]
    fn the_seed_is_made_once_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("agent-relay");
        let first = MachineSeed::load_or_create(&data).unwrap();
        let bytes = fs::read(data.join(SEED_FILE)).unwrap();
        assert_eq!(MachineSeed::load_or_create(&data).unwrap(), first);
        assert_eq!(fs::read(data.join(SEED_FILE)).unwrap(), bytes);
        assert_eq!(fs::metadata(data.join(SEED_FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(first.verbatim().as_str().starts_with("node_"));
    }

    #[test]
    fn twenty_first_starts_make_one_seed() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("agent-relay");
        let start = std::sync::Barrier::new(20);
        let seeds: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..20)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        MachineSeed::load_or_create(&data).unwrap()
                    })
                })
                .collect();
            starts.into_iter().map(|s| s.join().unwrap()).collect()
        });
        assert!(seeds.iter().all(|s| *s == seeds[0]));
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_no_seed_is_an_error_and_is_left_alone() {
        for bad in [&b""[..], b"\n", b"\xff\xfe", b"two words", &[b'x'; 300]] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(SEED_FILE);
            fs::write(&path, bad).unwrap();
            let error = MachineSeed::load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, IdentityError::BadSeed { .. }), "{bad:?}: {error}");
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(SEED_FILE)).unwrap();
        assert!(matches!(MachineSeed::load_or_create(dir.path()), Err(IdentityError::Io { .. })));
    }
}
