//! The journal's file: framed, checksummed records, and the way to replace them all at once.
//!
//! A record is `FF FA`, the length and the CRC-32 of length and payload (both little-endian `u32`), and the
//! payload, which is JSON. The payload is UTF-8, which has no `FF`: after a damaged record the next one is
//! found by its mark, so that damage costs the record it hit and no other.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::Record;

const MARK: [u8; 2] = [0xFF, 0xFA];
const HEADER: usize = 10;
/// The longest payload, in bytes. A longer one is damage: no frame of the engine's is that long.
const PAYLOAD_MAX: usize = 16 << 20;

/// An open journal file.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: Arc<File>,
    len: u64,
}

/// A file that has taken the journal's name.
#[derive(Debug)]
pub(super) struct Replaced {
    /// The file in use from now on.
    pub(super) segment: Segment,
    /// Whether its name is on disk: after a power cut the old file may be back otherwise.
    pub(super) named: io::Result<()>,
}

/// A stretch of a file that holds no readable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// Where it begins.
    pub(super) offset: usize,
    /// How long it is, in bytes.
    pub(super) len: usize,
    /// What is wrong with it.
    pub(super) what: &'static str,
}

/// Appends one framed record.
///
/// # Errors
/// When the record has no JSON form, or one that is too long; nothing is appended then.
pub(super) fn encode(record: &Record, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&[0; HEADER - MARK.len()]);
    let payload = start + HEADER;
    let written = serde_json::to_writer(&mut *out, record).map_err(io::Error::from);
    let len = out.len() - payload;
    if written.is_err() || len > PAYLOAD_MAX {
        out.truncate(start);
        return written.and(Err(io::Error::from(ErrorKind::FileTooLarge)));
    }
    let len = (len as u32).to_le_bytes();
    let crc = checksum(&len, &out[payload..]);
    out[start + 2..start + 6].copy_from_slice(&len);
    out[start + 6..payload].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

fn checksum(len: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(len);
    hasher.update(payload);
    hasher.finalize()
}

/// Reads every record that can be read, and says where none could.
pub(super) fn scan(bytes: &[u8], mut each: impl FnMut(Record)) -> Vec<Damage> {
    let mut damage: Vec<Damage> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match read_one(&bytes[at..]) {
            Ok((record, len)) => {
                each(record);
                at += len;
            }
            Err((what, skip)) => {
                let offset = at;
                at += skip.max(1);
                match damage.last_mut() {
                    Some(last) if last.offset + last.len == offset => last.len += at - offset,
                    _ => damage.push(Damage { offset, len: at - offset, what }),
                }
            }
        }
    }
    damage
}

/// The record at the start of `bytes` and its whole length, or what is wrong and how far the next mark is.
fn read_one(bytes: &[u8]) -> Result<(Record, usize), (&'static str, usize)> {
    let next_mark = || {
        let mut marks = bytes.windows(MARK.len()).skip(1);
        marks.position(|pair| pair == MARK).map_or(bytes.len(), |at| at + 1)
    };
    if !bytes.starts_with(&MARK) {
        return Err(("no record begins here", next_mark()));
    }
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else {
        return Err(("torn in its header", next_mark()));
    };
    let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
    let len = u32::from_le_bytes(word(2)) as usize;
    if len > PAYLOAD_MAX {
        return Err(("impossible length", next_mark()));
    }
    let Some(payload) = rest.get(..len) else {
        return Err(("torn", next_mark()));
    };
    if checksum(&word(2), payload) != u32::from_le_bytes(word(6)) {
        return Err(("checksum does not match", next_mark()));
    }
    match serde_json::from_slice(payload) {
        Ok(record) => Ok((record, HEADER + len)),
        // The frame is whole: its content is what this version does not know.
        Err(_) => Err(("a record of an unknown kind", HEADER + len)),
    }
}

impl Segment {
    /// The bytes of an existing file; none when there is no file.
    ///
    /// # Errors
    /// Any error of the file system other than "not found"; a symbolic link is one.
    pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
            Ok(mut file) => file.read_to_end(&mut bytes).map(|_| bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(bytes),
            Err(error) => Err(error),
        }
    }

    /// Puts a file with these records in place of the one at `path`: written beside it (0600), on disk
    /// before it takes the name, the name on disk before this returns.
    ///
    /// # Errors
    /// Any error of the file system; the old file is untouched then.
    pub(super) fn replace(path: &Path, records: impl Iterator<Item = Record>) -> io::Result<Replaced> {
        let mut bytes = Vec::new();
        for record in records {
            encode(&record, &mut bytes)?;
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let file = Self::write_beside(&beside, &bytes).and_then(|file| {
            fs::rename(&beside, path)?;
            Ok(file)
        });
        match file {
            Ok(file) => {
                let segment = Self { path: path.to_owned(), file: Arc::new(file), len: bytes.len() as u64 };
                let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
                let named = File::open(dir.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
                Ok(Replaced { segment, named })
            }
            Err(error) => {
                // The half-written file is of no use; when it cannot be removed the next try will.
                fs::remove_file(&beside).ok();
                Err(error)
            }
        }
    }

    fn write_beside(beside: &Path, bytes: &[u8]) -> io::Result<File> {
        match fs::remove_file(beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(file)
    }

    /// Hands bytes to the kernel. They survive the end of the process, but not that of the machine.
    ///
    /// # Errors
    /// Any error of the file system. A repeated call writes at the same place, over what a failed one left.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{AgentId, Seq},
        store::Outcome,
    };

    fn records(count: u64) -> Vec<Record> {
        let settled = |seq| Record::Settled {
            agent: AgentId::from("agent_1"),
            delivery: format!("del_{seq}").into(),
            msg: format!("msg_{seq} ☃").into(),
            seq: Seq(seq),
            outcome: Outcome::AckOnly,
        };
        (1..=count).map(settled).collect()
    }

    fn encoded(records: &[Record]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for record in records {
            starts.push(bytes.len());
            encode(record, &mut bytes).unwrap();
        }
        (bytes, starts)
    }

    fn read(bytes: &[u8]) -> (Vec<Record>, Vec<Damage>) {
        let mut read = Vec::new();
        let damage = scan(bytes, |record| read.push(record));
        (read, damage)
    }

    #[test]
    fn a_tail_torn_at_any_byte_costs_that_record_alone() {
        let records = records(3);
        let (bytes, starts) = encoded(&records);
        assert_eq!(read(&bytes), (records.clone(), vec![]));
        for end in starts[2] + 1..bytes.len() {
            let (read, damage) = read(&bytes[..end]);
            assert_eq!(read, records[..2], "torn at {end}");
            assert_eq!(damage.len(), 1);
            assert_eq!((damage[0].offset, damage[0].len), (starts[2], end - starts[2]));
        }
    }

    #[test]
    fn any_flipped_bit_costs_the_record_it_is_in_and_is_reported_with_its_offset() {
        let records = records(3);
        let (bytes, starts) = encoded(&records);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let hit = starts.iter().rposition(|start| *start <= at).unwrap();
                let (read, damage) = read(&flipped);
                let mut expected = records.clone();
                expected.remove(hit);
                assert_eq!(read, expected, "byte {at}, bit {bit}");
                assert_eq!(damage.len(), 1, "byte {at}, bit {bit}: {damage:?}");
                assert_eq!(damage[0].offset, starts[hit]);
            }
        }
    }

    #[test]
    fn a_record_of_a_later_version_is_passed_over_whole() {
        let (mut bytes, _) = encoded(&records(1));
        let payload = br#"{"from_the_future":{"x":1}}"#;
        let len = (payload.len() as u32).to_le_bytes();
        bytes.extend_from_slice(&MARK);
        bytes.extend_from_slice(&len);
        bytes.extend_from_slice(&checksum(&len, payload).to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(&encoded(&records(1)).0);
        let (read, damage) = read(&bytes);
        assert_eq!(read.len(), 2);
        assert_eq!(damage[0].what, "a record of an unknown kind");
    }
}
