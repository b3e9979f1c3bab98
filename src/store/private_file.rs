//! Files that nobody else may read: tokens, state, `connection.json`.
//!
//! A private file is written beside its place and moved in, so a reader sees the old bytes or the new ones
//! and never a part. It has mode 0600 from the first byte on, whatever the umask, in a directory that is made
//! 0700. A symbolic link at the path is refused, never followed. When a write fails, the old file stands and
//! nothing is left beside it.
//!
//! All of this blocks: an actor calls it on a helper thread.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tracing::warn;

/// Mode of every private file.
pub const FILE_MODE: u32 = 0o600;
/// Mode of every private directory.
pub const DIR_MODE: u32 = 0o700;
/// More than any private file holds; a larger one is not ours.
const READ_MAX: u64 = 4 << 20;
/// Names tried for the file beside the place: each is random, so a second try is already rare.
const NAME_TRIES: usize = 8;
const STICKY: u32 = 0o1000;
const OTHERS: u32 = 0o077;

/// Makes a directory that only its owner can enter, with any missing parents, and narrows one that is there
/// already. A directory that is shared by design (sticky, like `/tmp`) is refused rather than narrowed.
///
/// # Errors
/// Whatever the system says; `PermissionDenied` for a shared directory.
pub fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)?;
    let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
    let mode = dir.metadata()?.permissions().mode();
    if mode & STICKY != 0 {
        let why = format!("{} is a shared directory; name one of your own", path.display());
        return Err(io::Error::new(ErrorKind::PermissionDenied, why));
    }
    if mode & OTHERS != 0 || mode & DIR_MODE != DIR_MODE {
        dir.set_permissions(Permissions::from_mode(DIR_MODE))?;
    }
    Ok(())
}

/// Replaces a file whole, on disk when this returns. A missing directory is made (see [`private_dir`]); one
/// that is there is left as it is.
///
/// # Errors
/// Whatever the system says; the old file is intact then. `InvalidInput` when something other than a regular
/// file is at the path.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = replace(path, bytes, Durable::Yes)?;
    sync_dir(&dir)
}

/// Replaces a file whole, like [`write_private`], without waiting for the disk: for what nobody misses after
/// a power cut.
///
/// # Errors
/// As [`write_private`].
pub fn publish_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, Durable::No).map(drop)
}

/// Whether the bytes are on disk before the file takes its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durable {
    Yes,
    No,
}

fn replace(path: &Path, bytes: &[u8], durable: Durable) -> io::Result<PathBuf> {
    refuse_irregular(path)?;
    let dir = directory_of(path)?;
    let beside = Beside::write(&dir, path, bytes, durable)?;
    fs::rename(&beside.path, path)?;
    beside.moved();
    Ok(dir)
}

/// Writes a file unless one is there. Of many who try at once, one succeeds, and everybody can read its
/// whole content as soon as the call returns. Says whether this call was the one.
///
/// # Errors
/// Whatever the system says, except that a file is already there.
pub fn create_private(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let dir = directory_of(path)?;
    let beside = Beside::write(&dir, path, bytes, Durable::Yes)?;
    // Unlike a rename, a link fails when the name is taken, and unlike O_EXCL on the name itself it shows
    // no empty file to those who come second.
    let created = match fs::hard_link(&beside.path, path) {
        Ok(()) => true,
        Err(taken) if taken.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    drop(beside);
    sync_dir(&dir)?;
    Ok(created)
}

/// Reads a private file, `None` when there is none. A file that others could read is narrowed to 0600.
///
/// # Errors
/// Whatever the system says; `InvalidInput` when it is a symbolic link or no regular file, `InvalidData` when it
/// is absurdly large.
pub fn read_private(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Without O_NONBLOCK a FIFO in this place would hold the caller for ever.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(None),
        Err(link) if link.raw_os_error() == Some(libc::ELOOP) => return Err(irregular(path)),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(irregular(path));
    }
    if meta.mode() & OTHERS != 0 {
        // A read-only file system, or a file of another owner: worth saying, not worth failing.
        if let Err(error) = file.set_permissions(Permissions::from_mode(FILE_MODE)) {
            warn!(path = %path.display(), %error, "private file is readable by others and cannot be narrowed");
        }
    }
    let mut bytes = Vec::new();
    file.take(READ_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > READ_MAX {
        let why = format!("{} is larger than {READ_MAX} bytes", path.display());
        return Err(io::Error::new(ErrorKind::InvalidData, why));
    }
    Ok(Some(bytes))
}

/// A complete file beside its place; removed again unless it is moved in.
struct Beside {
    path: PathBuf,
    moved: bool,
}

impl Beside {
    fn write(dir: &Path, place: &Path, bytes: &[u8], durable: Durable) -> io::Result<Self> {
        let (mut file, beside) = Self::create(dir, place)?;
        // The umask may have taken bits away, never added any.
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        file.write_all(bytes)?;
        if durable == Durable::Yes {
            file.sync_all()?;
        }
        Ok(beside)
    }

    fn create(dir: &Path, place: &Path) -> io::Result<(File, Self)> {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(FILE_MODE).custom_flags(libc::O_NOFOLLOW);
        let mut taken = None;
        for _ in 0..NAME_TRIES {
            let path = dir.join(format!(".{name}.{:016x}.tmp", rand::random::<u64>()));
            match options.open(&path) {
                Ok(file) => return Ok((file, Self { path, moved: false })),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => taken = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(taken.unwrap_or_else(|| ErrorKind::AlreadyExists.into()))
    }

    fn moved(mut self) {
        self.moved = true;
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.moved {
            // Nothing more can be done about a file that cannot be removed; it is 0600.
            fs::remove_file(&self.path).ok();
        }
    }
}

fn directory_of(path: &Path) -> io::Result<PathBuf> {
    let dir = match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => PathBuf::from("."),
        Some(dir) => dir.to_owned(),
        None => return Err(irregular(path)),
    };
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(&dir)?;
    Ok(dir)
}

fn refuse_irregular(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => Err(irregular(path)),
        Ok(_) => Ok(()),
        Err(missing) if missing.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn irregular(path: &Path) -> io::Error {
    let why = format!("{} is not a regular file; remove it or name another place", path.display());
    io::Error::new(ErrorKind::InvalidInput, why)
}

/// Makes a new name in the directory survive a power cut.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, sync::Barrier};

    use nix::sys::stat::{Mode, umask};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_modes_are_0600_and_0700_under_any_umask_for_new_and_old_files() {
        // The umask belongs to the whole process. These masks take nothing away that another test needs.
        for mask in [0o000, 0o022] {
            let root = tempfile::tempdir().unwrap();
            let old = umask(Mode::from_bits_truncate(mask));
            let place = root.path().join("a/b/token.json");
            let written = write_private(&place, b"1").and_then(|()| {
                fs::set_permissions(&place, Permissions::from_mode(0o644))?;
                write_private(&place, b"2")
            });
            umask(old);
            written.unwrap();
            assert_eq!(mode(&place), 0o600, "umask {mask:o}");
            assert_eq!(mode(&root.path().join("a")), 0o700, "umask {mask:o}");
            assert_eq!(mode(&root.path().join("a/b")), 0o700, "umask {mask:o}");
            assert_eq!(read_private(&place).unwrap().unwrap(), b"2");
            assert_eq!(names(&root.path().join("a/b")), ["token.json"]);
        }
    }

    #[test]
    fn a_file_and_a_directory_that_others_could_read_are_narrowed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("wide");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        private_dir(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        let place = dir.join("machine-id");
        fs::write(&place, "x").unwrap();
        fs::set_permissions(&place, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_private(&place).unwrap().unwrap(), b"x");
        assert_eq!(mode(&place), 0o600);
    }

    #[test]
    fn a_shared_directory_is_not_narrowed_for_everybody() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(private_dir(root.path()).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(mode(root.path()), 0o1777);
    }

    #[test]
    fn a_symbolic_link_is_neither_read_nor_written_through() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        fs::write(&target, "theirs").unwrap();
        let link = root.path().join("link");
        symlink(&target, &link).unwrap();
        assert_eq!(read_private(&link).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(write_private(&link, b"ours").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(!create_private(&link, b"ours").unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        assert_eq!(names(root.path()), ["link", "target"]);
    }

    #[test]
    fn only_a_missing_file_reads_as_none() {
        let root = tempfile::tempdir().unwrap();
        assert!(read_private(&root.path().join("no")).unwrap().is_none());
        fs::write(root.path().join("file"), "").unwrap();
        assert!(read_private(&root.path().join("file/below")).is_err());
        assert!(read_private(root.path()).is_err(), "a directory is no file");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("taken");
        fs::create_dir_all(dir.join("token.json")).unwrap();
        assert!(write_private(&dir.join("token.json"), b"new").is_err());
        assert_eq!(names(&dir), ["token.json"]);
        // /dev/full would need a file in /dev; a directory that is not one is as good a refusal.
        fs::write(root.path().join("file"), "old").unwrap();
        assert!(write_private(&root.path().join("file/x"), b"new").is_err());
        assert_eq!(fs::read(root.path().join("file")).unwrap(), b"old");
    }

    #[test]
    fn of_many_who_create_one_succeeds_and_all_read_the_same() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("seed");
        let start = Barrier::new(20);
        let seen: Vec<(bool, Vec<u8>)> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..20)
                .map(|n: u8| {
                    let (place, start) = (&place, &start);
                    scope.spawn(move || {
                        start.wait();
                        let made = create_private(place, &[n; 64]).unwrap();
                        (made, read_private(place).unwrap().unwrap())
                    })
                })
                .collect();
            tries.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(seen.iter().filter(|(made, _)| *made).count(), 1);
        assert!(seen.iter().all(|(_, bytes)| *bytes == seen[0].1 && bytes.len() == 64));
        assert_eq!(names(root.path()), ["seed"]);
        assert_eq!(mode(&place), 0o600);
    }
}
