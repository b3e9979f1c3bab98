//! What is kept on disk of each agent: `<state>/agents/<agent>/`, 0700, every file 0600.
//!
//! ```text
//! output.cast     what its terminal has shown, an asciicast (at most 10 MiB)
//! output.1.cast   the same before that
//! bodies/*.txt    messages that were too long to be typed, whole
//! ```
//!
//! One thread writes all of it, in order. Nobody waits for it but a message whose body is being kept: output
//! that comes faster than the disk takes it is refused, never queued without end.
//!
//! Bodies go when their agent ends, and the oldest ones before that when there are more than 64. Recordings
//! of the last 16 agents that have ended are kept. A directory has the agent's id for a name, so that an
//! agent that is started anew, or a message that comes again, finds the same place.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::SystemTime,
};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::{
    identity::hex_prefix,
    private_file::{FILE_MODE, private_dir, publish_private},
};
use crate::{
    ids::{AgentId, AgentName, DeliveryId},
    messages::{
        Answer, Reply,
        allowance::{Allowance, Allowed},
    },
};

/// The recording under way.
const RECORDING: &str = "output.cast";
/// The one before it.
const RECORDING_BEFORE: &str = "output.1.cast";
const BODIES: &str = "bodies";
/// A body is kept up to this many bytes (spec/pty 7.12).
pub const BODY_MAX: usize = 1 << 20;
/// Bodies kept of one agent.
const BODIES_MAX: usize = 64;
/// Agents that have ended and whose recordings are kept.
const ENDED_KEPT: usize = 16;
/// Bytes of one agent's output that may wait for the disk.
const WAITING_MAX: usize = 1 << 20;
/// Hex digits of a name that stands for an id.
const NAME_HEX: usize = 32;
/// The first line of a recording is shorter than this.
const HEADER_MAX: u64 = 4 << 10;

/// The files of all agents.
#[derive(Clone, Debug)]
pub struct AgentFiles {
    root: PathBuf,
    records: bool,
    jobs: Sender<Job>,
}

/// The files of one agent.
#[derive(Clone, Debug)]
pub struct AgentDir {
    path: PathBuf,
    records: bool,
    jobs: Sender<Job>,
    waiting: Allowance,
}

#[derive(Debug)]
enum Job {
    Begin { dir: PathBuf, header: Vec<u8> },
    Append { dir: PathBuf, bytes: Vec<u8>, _waiting: Allowed },
    Keep { dir: PathBuf, file: String, text: String, reply: Reply<io::Result<PathBuf>> },
    End { dir: PathBuf },
    Close { reply: Reply<()> },
}

impl AgentFiles {
    /// The files below `root`, which is made if need be; what agents of an earlier process left is thinned
    /// out. With `records` their output is recorded.
    ///
    /// # Errors
    /// Whatever the system says about the directory or the thread.
    pub fn open(root: PathBuf, records: bool) -> io::Result<Self> {
        private_dir(&root)?;
        let (jobs, inbox) = mpsc::channel();
        let desk = Desk { root: root.clone(), open: HashMap::new(), living: BTreeSet::new() };
        desk.prune();
        thread::Builder::new().name("agent-files".to_owned()).spawn(move || desk.work(&inbox))?;
        Ok(Self { root, records, jobs })
    }

    /// The files of an agent. Nothing is made before there is something to write.
    pub fn of(&self, agent: &AgentId) -> AgentDir {
        AgentDir {
            path: self.root.join(dir_name(agent)),
            records: self.records,
            jobs: self.jobs.clone(),
            waiting: Allowance::new(WAITING_MAX),
        }
    }

    /// Everything that was given before is written when this is answered; what comes later is not.
    pub fn close(&self) -> Answer<()> {
        let (reply, answer) = Reply::channel();
        // Without a thread there is nothing to wait for, which the answer reports.
        self.jobs.send(Job::Close { reply }).ok();
        answer
    }
}

impl AgentDir {
    /// Whether output is to be recorded.
    pub fn records(&self) -> bool {
        self.records
    }

    /// Begins a recording; the one before it is kept, and the one before that is not.
    pub fn begin(&self, header: Vec<u8>) {
        self.tell(Job::Begin { dir: self.path.clone(), header });
    }

    /// Adds to the recording; says whether there was room for it.
    pub fn append(&self, bytes: Vec<u8>) -> bool {
        let Some(waiting) = self.waiting.take(bytes.len()) else { return false };
        self.tell(Job::Append { dir: self.path.clone(), bytes, _waiting: waiting });
        true
    }

    /// Keeps the body of a delivery, up to [`BODY_MAX`] bytes, and answers where. The same delivery has the
    /// same place every time.
    pub fn keep(&self, delivery: &DeliveryId, mut text: String) -> Answer<io::Result<PathBuf>> {
        let (reply, answer) = Reply::channel();
        text.truncate(text.floor_char_boundary(BODY_MAX));
        let file = format!("{}.txt", digest(delivery.as_str()));
        self.tell(Job::Keep { dir: self.path.clone(), file, text, reply });
        answer
    }

    /// The agent has ended.
    pub fn end(&self) {
        self.tell(Job::End { dir: self.path.clone() });
    }

    fn tell(&self, job: Job) {
        // The thread lives as long as the house; after its end there is nothing to keep.
        self.jobs.send(job).ok();
    }
}

/// A name without anything that a file system, a shell or a person could misunderstand.
fn dir_name(agent: &AgentId) -> String {
    let id = agent.as_str();
    let safe = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=64).contains(&id.len()) && id.chars().all(safe) { id.to_owned() } else { digest(id) }
}

fn digest(text: &str) -> String {
    hex_prefix(&Sha256::digest(text.as_bytes()), NAME_HEX)
}

/// What the thread knows.
struct Desk {
    root: PathBuf,
    /// Recordings under way; `None` after one that could not be written.
    open: HashMap<PathBuf, Option<File>>,
    /// Directories of agents that have not ended.
    living: BTreeSet<PathBuf>,
}

impl Desk {
    fn work(mut self, inbox: &Receiver<Job>) {
        for job in inbox {
            match job {
                Job::Begin { dir, header } => self.begin(dir, &header),
                Job::Append { dir, bytes, .. } => self.append(&dir, &bytes),
                Job::Keep { dir, file, text, reply } => {
                    let kept = keep(&dir, &file, &text);
                    self.living.insert(dir);
                    // The worker may have been released meanwhile.
                    reply.send(kept);
                }
                Job::End { dir } => {
                    self.open.remove(&dir);
                    self.living.remove(&dir);
                    self.prune();
                }
                Job::Close { reply } => {
                    // The house may have given up on it.
                    reply.send(());
                    return;
                }
            }
        }
    }

    fn begin(&mut self, dir: PathBuf, header: &[u8]) {
        let file = begin(&dir, header)
            .inspect_err(|error| warn!(dir = %dir.display(), %error, "output is not recorded"))
            .ok();
        self.living.insert(dir.clone());
        self.open.insert(dir, file);
    }

    fn append(&mut self, dir: &Path, bytes: &[u8]) {
        let Some(file) = self.open.get_mut(dir) else { return };
        let Some(Err(error)) = file.as_mut().map(|file| file.write_all(bytes)) else { return };
        warn!(dir = %dir.display(), %error, "output is no longer recorded");
        // A line may have been cut: nothing can follow it.
        *file = None;
    }

    /// Removes what agents that have ended need no more.
    fn prune(&self) {
        if let Err(error) = prune(&self.root, &self.living) {
            warn!(dir = %self.root.display(), %error, "files of ended agents are left behind");
        }
    }
}

fn begin(dir: &Path, header: &[u8]) -> io::Result<File> {
    private_dir(dir)?;
    let path = dir.join(RECORDING);
    absent_is_fine(fs::rename(&path, dir.join(RECORDING_BEFORE)))?;
    let mut options = OpenOptions::new();
    options.append(true).create_new(true).mode(FILE_MODE).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(path)?;
    file.write_all(header)?;
    Ok(file)
}

fn keep(dir: &Path, file: &str, text: &str) -> io::Result<PathBuf> {
    let bodies = dir.join(BODIES);
    private_dir(dir)?;
    private_dir(&bodies)?;
    let path = bodies.join(file);
    publish_private(&path, text.as_bytes())?;
    let mut kept = by_age(&bodies)?;
    kept.truncate(kept.len().saturating_sub(BODIES_MAX));
    for old in kept.iter().filter(|old| **old != path) {
        absent_is_fine(fs::remove_file(old))?;
    }
    Ok(path)
}

fn prune(root: &Path, living: &BTreeSet<PathBuf>) -> io::Result<()> {
    let mut recorded = Vec::new();
    for dir in by_age(root)?.into_iter().filter(|dir| !living.contains(dir)) {
        absent_is_fine(fs::remove_dir_all(dir.join(BODIES)))?;
        match fs::metadata(dir.join(RECORDING)).and_then(|meta| meta.modified()) {
            Ok(modified) => recorded.push((modified, dir)),
            Err(_) => fs::remove_dir_all(dir)?,
        }
    }
    recorded.sort();
    recorded.truncate(recorded.len().saturating_sub(ENDED_KEPT));
    recorded.into_iter().try_for_each(|(_, dir)| fs::remove_dir_all(dir))
}

/// What is in a directory, oldest first.
fn by_age(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        found.push((entry.metadata()?.modified()?, entry.path()));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The recordings of the newest agent of this name, the older one first; empty when there is none. Blocks.
///
/// # Errors
/// Whatever the system says about the directory.
pub fn recordings(root: &Path, name: &AgentName) -> io::Result<Vec<PathBuf>> {
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    for entry in fs::read_dir(root)? {
        let dir = entry?.path();
        let current = dir.join(RECORDING);
        // One that goes while it is looked at is none.
        let Ok(modified) = fs::metadata(&current).and_then(|meta| meta.modified()) else { continue };
        let is_newer = newest.as_ref().is_none_or(|(than, _)| modified >= *than);
        if is_newer && titled(&current).is_some_and(|title| title == name.as_str()) {
            newest = Some((modified, dir));
        }
    }
    let files = |(_, dir): (SystemTime, PathBuf)| [dir.join(RECORDING_BEFORE), dir.join(RECORDING)];
    Ok(newest.map(files).into_iter().flatten().filter(|file| file.exists()).collect())
}

fn titled(recording: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Header {
        title: String,
    }
    let mut line = String::new();
    io::Read::take(BufReader::new(File::open(recording).ok()?), HEADER_MAX).read_line(&mut line).ok()?;
    Some(serde_json::from_str::<Header>(&line).ok()?.title)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Rig {
        dir: tempfile::TempDir,
        files: AgentFiles,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let files = AgentFiles::open(dir.path().join("agents"), true).unwrap();
            Self { dir, files }
        }

        fn root(&self) -> PathBuf {
            self.dir.path().join("agents")
        }

        fn of(&self, id: &str) -> AgentDir {
            self.files.of(&AgentId::from(id))
        }

        /// What is in a directory below the root, once everything has been done.
        async fn found(&self, below: &str) -> Vec<String> {
            let (reply, answer) = Reply::channel();
            let dir = self.dir.path().join("probe");
            let (file, text) = ("x".to_owned(), String::new());
            self.files.jobs.send(Job::Keep { dir, file, text, reply }).unwrap();
            answer.await.unwrap().unwrap();
            let entries = fs::read_dir(self.root().join(below)).into_iter().flatten();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn header(title: &str) -> Vec<u8> {
        format!("{{\"version\":3,\"title\":\"{title}\"}}\n").into_bytes()
    }

    #[tokio::test]
    async fn a_body_has_one_private_place_and_goes_with_its_agent() {
        let rig = Rig::new();
        let agent = rig.of("ag_1");
        let delivery = DeliveryId::from("../../del/1");
        let path = agent.keep(&delivery, "first".into()).await.unwrap().unwrap();
        assert_eq!(agent.keep(&delivery, "again".into()).await.unwrap().unwrap(), path);
        assert!(path.starts_with(rig.root().join("ag_1/bodies")), "{}", path.display());
        assert_eq!(fs::read_to_string(&path).unwrap(), "again");
        for (path, mode) in [(&*path, 0o600), (path.parent().unwrap(), 0o700), (&rig.root(), 0o700)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
        agent.end();
        assert!(rig.found("").await.is_empty(), "nothing else was kept of it");
    }

    #[tokio::test]
    async fn bodies_are_bounded_in_number_and_size() {
        let rig = Rig::new();
        let agent = rig.of("ag_1");
        let mut last = PathBuf::new();
        for n in 0..BODIES_MAX + 5 {
            last = agent.keep(&DeliveryId::from(n.to_string()), "x".into()).await.unwrap().unwrap();
        }
        assert_eq!(rig.found("ag_1/bodies").await.len(), BODIES_MAX);
        assert!(last.exists());
        let huge = agent.keep(&"huge".into(), "é".repeat(BODY_MAX)).await.unwrap().unwrap();
        assert_eq!(fs::metadata(huge).unwrap().len(), BODY_MAX as u64);
    }

    #[tokio::test]
    async fn a_new_recording_keeps_the_one_before_it() {
        let rig = Rig::new();
        let agent = rig.of("ag_1");
        for n in 1..=3 {
            agent.begin(header("bob"));
            assert!(agent.append(format!("{n}\n").into_bytes()));
        }
        assert_eq!(rig.found("ag_1").await, ["output.1.cast", "output.cast"]);
        let name = AgentName::parse("bob").unwrap();
        let [before, current] = &recordings(&rig.root(), &name).unwrap()[..] else { panic!("not two") };
        assert!(fs::read_to_string(before).unwrap().ends_with("}\n2\n"));
        assert!(fs::read_to_string(current).unwrap().ends_with("}\n3\n"));
        assert_eq!(fs::metadata(current).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(recordings(&rig.root(), &AgentName::parse("eve").unwrap()).unwrap().is_empty());
    }

    #[tokio::test]
    async fn recordings_of_the_last_agents_are_kept_also_over_a_restart() {
        let rig = Rig::new();
        for n in 0..ENDED_KEPT + 3 {
            let agent = rig.of(&format!("ag_{n:02}"));
            agent.begin(header("bob"));
            agent.keep(&"d".into(), "body".into()).await.unwrap().unwrap();
            agent.end();
        }
        let left = rig.found("").await;
        assert_eq!(left.len(), ENDED_KEPT);
        assert_eq!(left[0], "ag_03", "the oldest went");
        assert_eq!(rig.found(&left[0]).await, ["output.cast"]);
        // One that was never ended belongs to a process that was killed.
        let killed = rig.of("ag_99");
        killed.begin(header("bob"));
        killed.keep(&"d".into(), "body".into()).await.unwrap().unwrap();
        AgentFiles::open(rig.root(), true).unwrap();
        assert_eq!(rig.found("ag_99").await, ["output.cast"]);
        assert_eq!(rig.found("").await.len(), ENDED_KEPT);
    }

    #[test]
    fn an_id_cannot_name_a_place_elsewhere() {
        assert_eq!(dir_name(&AgentId::from("ag_0-Z")), "ag_0-Z");
        for evil in ["../x", "", ".", "a/b", "a b", &"x".repeat(65), "ä"] {
            let name = dir_name(&AgentId::from(evil));
            assert_eq!((name.len(), name.contains(['/', '.'])), (32, false), "{evil}");
        }
    }

    #[test]
    fn output_that_the_disk_does_not_take_is_refused() {
        let (jobs, inbox) = mpsc::channel();
        let waiting = Allowance::new(WAITING_MAX);
        let dir = AgentDir { path: PathBuf::new(), records: true, jobs, waiting };
        assert!(dir.append(vec![0; WAITING_MAX]));
        assert!(!dir.append(vec![0]));
        drop(inbox.recv());
        assert!(dir.append(vec![0]));
    }
}
