//! The journal: what must not happen twice, and what must not be forgotten, on disk.
//!
//! ```text
//! append --> pending --write(2)--> written --fdatasync--> on disk --> Journalled
//!            (journal)            (journal-sync)
//! ```
//!
//! Two plain threads, so that what is appended while the disk is busy still reaches the kernel at once (and
//! survives a SIGKILL of this process): `journal` writes, `journal-sync` syncs. The syncer begins as soon as
//! something is written that somebody waits for; everything that arrives meanwhile goes into its next round
//! (natural group commit). What nobody waits for wakes it later: the writer sees to that.
//!
//! Nobody ever blocks on the journal: `append` changes the state in memory and returns a ticket, and
//! [`Journalled`] tells when that ticket is on disk. When the disk refuses, the tickets stay open, so no ack
//! goes out; the journal tries again every [`RETRY`], for ever, and says so in its [`Probe`]. After a failed
//! sync the kernel may have dropped what it held, so the whole journal is written anew.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::{error, info, warn};

use super::{CursorState, DeadLetter, LiveAgent, Record, segment, segment::Segment, state::State};
use crate::{
    ids::{AgentId, AgentName, InvocationId},
    messages::{
        Answer, Reply,
        delivery::Journalled,
        invoke::InvocationResult,
        lifecycle::{ActorId, ActorKind},
        process::{KnownSession, PastExit},
    },
    supervision::{Detail, Post, Probe, lock, now_ms},
};

/// Between tries after the disk refused.
const RETRY: Duration = Duration::from_secs(1);
/// What nobody waits for is synced after this long; it has survived the end of the process since it was
/// appended, and an earlier sync for somebody else takes it along.
const LAZY_SYNC: Duration = Duration::from_secs(1);
/// The file is compacted when it has grown past this many bytes...
const COMPACT_AT: u64 = 16 << 20;
/// ...and past this many times its compacted size.
const COMPACT_GROWTH: u64 = 4;

/// Names one appended record; grows by one with each. Not durable: counts from 1 in each process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error(
        "cannot use the journal {path}: {source}; check the permissions and the free space of its directory"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The system has no thread left for it.
    #[error("cannot start the journal's threads: {0}")]
    Thread(io::Error),
    /// It was closed while the disk refused.
    #[error("{records} records could not be written to the journal {path}: {why}")]
    Unwritten {
        /// The file.
        path: PathBuf,
        /// How many.
        records: u64,
        /// The last error.
        why: String,
    },
}

/// A hold on the journal. Cheap to clone, usable from any thread; the last one to go closes it.
#[derive(Clone)]
pub struct Journal {
    hold: Arc<Hold>,
}

struct Hold {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Inner {
    path: PathBuf,
    shared: Mutex<Shared>,
    to_write: Condvar,
    to_sync: Condvar,
    probe: Arc<Probe>,
    counts: Counts,
}

struct Shared {
    state: State,
    pending: Vec<Record>,
    appended: Ticket,
    written: Ticket,
    synced: Ticket,
    /// Nobody waits for what was written up to here, and still it is time to sync it.
    overdue: Ticket,
    waiting: Vec<(Ticket, Post<Journalled>)>,
    /// Who waits until a record has reached the kernel.
    writing: Vec<(Ticket, Reply<()>)>,
    file: Arc<std::fs::File>,
    /// A sync failed: the file must be written anew.
    rewrite: bool,
    /// The last error, while it lasts.
    failure: Option<String>,
    closing: bool,
    /// The writer has ended: nothing more will be written.
    sealed: bool,
    /// Nothing is handed to the kernel for now.
    #[cfg(test)]
    stalled: bool,
}

/// The journal's numbers since start.
#[derive(Debug, Default)]
struct Counts {
    records: AtomicU64,
    bytes: AtomicU64,
    file_bytes: AtomicU64,
    fsyncs: AtomicU64,
    last_batch: AtomicU64,
    largest_batch: AtomicU64,
    compactions: AtomicU64,
    damaged: AtomicU64,
}

impl Journal {
    /// Reads what is there, writes it compacted, and starts the threads. Damage costs the records it hit,
    /// each with a warning that names its offset.
    ///
    /// # Errors
    /// [`JournalError`] when the file cannot be read or replaced, or no thread can be started.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        Self::open_bounded(path.as_ref(), COMPACT_AT)
    }

    fn open_bounded(path: &Path, compact_at: u64) -> Result<Self, JournalError> {
        let refused = |source| JournalError::Io { path: path.to_owned(), source };
        let mut state = State::default();
        let mut records = 0u64;
        let bytes = Segment::read(path).map_err(refused)?;
        let damage = segment::scan(&bytes, |record| {
            state.apply(&record);
            records += 1;
        });
        for spot in &damage {
            warn!(
                path = %path.display(), offset = spot.offset, bytes = spot.len, why = spot.what,
                "unreadable record in the journal skipped"
            );
        }
        state.forget_old(now_ms());
        let replaced = Segment::replace(path, state.records()).map_err(refused)?;
        replaced.named.map_err(refused)?;
        let segment = replaced.segment;
        info!(path = %path.display(), records, damaged = damage.len(), "journal opened");

        let inner = Arc::new(Inner {
            path: path.to_owned(),
            shared: Mutex::new(Shared {
                state: state.clone(),
                pending: Vec::new(),
                appended: Ticket(0),
                written: Ticket(0),
                synced: Ticket(0),
                overdue: Ticket(0),
                waiting: Vec::new(),
                writing: Vec::new(),
                file: segment.file().clone(),
                rewrite: false,
                failure: None,
                closing: false,
                sealed: false,
                #[cfg(test)]
                stalled: false,
            }),
            to_write: Condvar::new(),
            to_sync: Condvar::new(),
            probe: Probe::new(ActorId::sole(ActorKind::Journal)),
            counts: Counts::default(),
        });
        inner.counts.damaged.store(damage.len() as u64, Ordering::Relaxed);
        inner.counts.file_bytes.store(segment.len(), Ordering::Relaxed);
        inner.probe.set_state("running");
        inner.show();
        let hold = Hold { inner, threads: Mutex::default() };
        let writer = Writer {
            inner: hold.inner.clone(),
            compacted: segment.len(),
            compact_at,
            segment,
            mirror: state,
        };
        hold.start("journal", move || writer.run())?;
        let inner = hold.inner.clone();
        hold.start("journal-sync", move || inner.sync())?;
        Ok(Self { hold: Arc::new(hold) })
    }

    /// Takes a record: from now on it is part of the state. Never waits for the disk. How much can be
    /// outstanding is bounded by what the callers hold until they are told.
    pub fn append(&self, record: Record) -> Ticket {
        let inner = &self.hold.inner;
        let mut shared = inner.lock();
        shared.state.apply(&record);
        shared.pending.push(record);
        shared.appended.0 += 1;
        let ticket = shared.appended;
        drop(shared);
        inner.to_write.notify_one();
        ticket
    }

    /// Tells the post once this ticket is on disk; the message names the highest ticket that is.
    pub fn notify(&self, ticket: Ticket, post: Post<Journalled>) {
        let mut shared = self.hold.inner.lock();
        if ticket > shared.synced {
            shared.waiting.push((ticket, post));
            let is_due = shared.is_sync_due();
            drop(shared);
            if is_due {
                self.hold.inner.to_sync.notify_one();
            }
            return;
        }
        let synced = shared.synced;
        drop(shared);
        tell(&post, synced);
    }

    /// Resolves once this ticket's record has reached the kernel: a SIGKILL of this process no longer takes it along.
    /// `None` when it has, and while the disk refuses, for then nobody knows how long that would take.
    pub fn written(&self, ticket: Ticket) -> Option<Answer<()>> {
        let mut shared = self.hold.inner.lock();
        if ticket <= shared.written || shared.failure.is_some() {
            return None;
        }
        let (reply, written) = Reply::channel();
        shared.writing.push((ticket, reply));
        Some(written)
    }

    /// The ticket of the newest record: once it is on disk, everything is.
    pub fn last_ticket(&self) -> Ticket {
        self.hold.inner.lock().appended
    }

    /// An agent's mailbox as of all appended records, on disk or not.
    pub fn cursor(&self, agent: &AgentId) -> CursorState {
        self.hold.inner.lock().state.cursor(agent)
    }

    /// The agents whose processes run, or ran when an earlier broker ended without a goodbye.
    pub fn agents(&self) -> Vec<LiveAgent> {
        self.hold.inner.lock().state.agents()
    }

    /// The ids of agents that have ended, oldest first, each name once.
    pub fn known_agents(&self) -> Vec<(AgentName, AgentId)> {
        self.hold.inner.lock().state.known_agents()
    }

    /// The result of an invocation that ended within the last hour.
    pub fn invocation(&self, id: &InvocationId) -> Option<InvocationResult> {
        self.hold.inner.lock().state.invocation(id)
    }

    /// The session that the last agent of this name was in when the broker ended below it.
    pub fn left_session(&self, name: &AgentName) -> Option<KnownSession> {
        self.hold.inner.lock().state.left_session(name)
    }

    /// How programs ended, oldest first.
    pub fn exits(&self) -> Vec<PastExit> {
        self.hold.inner.lock().state.exits()
    }

    /// What could not be put in, oldest first.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.hold.inner.lock().state.dead_letters()
    }

    /// What the disk refuses with now, if it does.
    pub fn failure(&self) -> Option<String> {
        self.hold.inner.lock().failure.clone()
    }

    /// The journal's probe, to be entered into the directory.
    pub fn probe(&self) -> &Arc<Probe> {
        &self.hold.inner.probe
    }

    /// Writes and syncs what is outstanding and ends the threads. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`JournalError::Unwritten`] when the disk refuses: what is named there is lost.
    pub fn close(&self) -> Result<(), JournalError> {
        let inner = &self.hold.inner;
        inner.begin_close();
        let threads = std::mem::take(&mut *lock(&self.hold.threads));
        for thread in threads {
            if thread.join().is_err() {
                error!(path = %inner.path.display(), "the journal's thread panicked");
            }
        }
        inner.probe.set_state("closed");
        let shared = inner.lock();
        if shared.synced >= shared.appended {
            return Ok(());
        }
        Err(JournalError::Unwritten {
            path: inner.path.clone(),
            records: shared.appended.0 - shared.synced.0,
            why: shared.failure.clone().unwrap_or_else(|| "the journal was closed before".to_owned()),
        })
    }
}

#[cfg(test)]
impl Journal {
    /// Holds up the writer between two batches until it is let go on, or the journal closes.
    pub(crate) fn stall(&self, stalled: bool) {
        self.hold.inner.lock().stalled = stalled;
        self.hold.inner.to_write.notify_one();
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("path", &self.hold.inner.path).finish_non_exhaustive()
    }
}

impl Hold {
    fn start(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), JournalError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run).map_err(JournalError::Thread)?;
        lock(&self.threads).push(thread);
        Ok(())
    }
}

impl Drop for Hold {
    /// The threads finish what is outstanding by themselves.
    fn drop(&mut self) {
        self.inner.begin_close();
    }
}

impl Shared {
    /// True when something is written that somebody waits for. A sync that satisfies nobody would only hold up
    /// the next one.
    fn is_sync_due(&self) -> bool {
        let is_awaited = || self.waiting.iter().any(|(ticket, _)| *ticket <= self.written);
        !self.rewrite && self.synced < self.written && (self.synced < self.overdue || is_awaited())
    }
}

impl Shared {
    /// Lets those go on who wait for what is written up to here.
    fn release(&mut self, upto: Ticket) {
        let (due, rest) =
            std::mem::take(&mut self.writing).into_iter().partition(|(ticket, _)| *ticket <= upto);
        self.writing = rest;
        let due: Vec<(Ticket, Reply<()>)> = due;
        for (_, reply) in due {
            // Whoever waited may be gone.
            reply.send(());
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    fn begin_close(&self) {
        self.lock().closing = true;
        self.to_write.notify_one();
        self.to_sync.notify_one();
    }

    /// Records that the disk refused. Logged when it begins, not at each try.
    fn failed(&self, what: &'static str, error: &io::Error) {
        let text = format!("{what}: {error}");
        let mut shared = self.lock();
        let first = shared.failure.replace(text.clone()).is_none();
        shared.release(Ticket(u64::MAX));
        drop(shared);
        self.probe.set_state("failed");
        self.probe.set_error(text);
        if first {
            error!(
                path = %self.path.display(), what, %error,
                "the journal cannot be written; acks are withheld until it can"
            );
        }
    }

    fn recovered(&self) {
        if self.lock().failure.take().is_some() {
            self.probe.set_state("running");
            info!(path = %self.path.display(), "the journal can be written again");
        }
    }

    /// Marks everything up to here as on disk and tells those who wait for it.
    fn on_disk(&self, upto: Ticket) {
        let mut shared = self.lock();
        if upto <= shared.synced {
            return;
        }
        let batch = upto.0 - shared.synced.0;
        shared.synced = upto;
        let mut due = Vec::new();
        shared.waiting.retain(|(ticket, post)| {
            let is_due = *ticket <= upto;
            if is_due {
                due.push(post.clone());
            }
            !is_due
        });
        drop(shared);
        self.counts.last_batch.store(batch, Ordering::Relaxed);
        self.counts.largest_batch.fetch_max(batch, Ordering::Relaxed);
        for post in &due {
            tell(post, upto);
        }
    }

    /// The syncer's life.
    fn sync(&self) {
        loop {
            let mut shared = self.lock();
            while !shared.sealed && !shared.is_sync_due() {
                shared = self.to_sync.wait(shared).unwrap_or_else(PoisonError::into_inner);
            }
            if shared.rewrite || shared.synced >= shared.written {
                return;
            }
            let (file, upto) = (shared.file.clone(), shared.written);
            drop(shared);
            match file.sync_data() {
                Ok(()) => {
                    self.counts.fsyncs.fetch_add(1, Ordering::Relaxed);
                    self.on_disk(upto);
                    self.show();
                }
                Err(error) => {
                    self.failed("sync", &error);
                    self.lock().rewrite = true;
                    self.to_write.notify_one();
                }
            }
        }
    }

    fn show(&self) {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed).to_string();
        let counts = &self.counts;
        let dead_letters = self.lock().state.dead_letter_count();
        self.probe.set_detail(Detail::Facts(vec![
            ("records", count(&counts.records)),
            ("bytes", count(&counts.bytes)),
            ("file_bytes", count(&counts.file_bytes)),
            ("fsyncs", count(&counts.fsyncs)),
            ("dead_letters", dead_letters.to_string()),
            ("last_batch", count(&counts.last_batch)),
            ("largest_batch", count(&counts.largest_batch)),
            ("compactions", count(&counts.compactions)),
            ("damaged", count(&counts.damaged)),
        ]));
    }
}

/// The thread that writes. Its mirror is the state as of what it has taken, so that the whole can be written
/// anew without holding anybody up.
struct Writer {
    inner: Arc<Inner>,
    segment: Segment,
    mirror: State,
    /// The size of the file when it was last compacted.
    compacted: u64,
    /// The size below which it is not compacted.
    compact_at: u64,
}

impl Writer {
    fn run(mut self) {
        let mut bytes = Vec::new();
        while let Some((batch, upto)) = self.next() {
            bytes.clear();
            for record in &batch {
                self.mirror.apply(record);
                if let Err(error) = segment::encode(record, &mut bytes) {
                    error!(path = %self.inner.path.display(), %error, "a record cannot be written");
                }
            }
            if !self.write(&bytes, upto) {
                break;
            }
            self.inner.counts.records.fetch_add(batch.len() as u64, Ordering::Relaxed);
            self.inner.counts.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if self.segment.len() > self.compact_at.max(self.compacted * COMPACT_GROWTH)
                && let Err(error) = self.compact(upto)
            {
                // The old file is whole and goes on; it may grow as much again before the next try.
                self.compacted = self.segment.len();
                warn!(path = %self.inner.path.display(), %error, "the journal cannot be compacted");
            }
        }
        self.inner.lock().sealed = true;
        self.inner.to_sync.notify_one();
    }

    /// Waits for records, or for an order to write everything anew; `None` at the end.
    fn next(&self) -> Option<(Vec<Record>, Ticket)> {
        let mut shared = self.inner.lock();
        loop {
            #[cfg(test)]
            while shared.stalled && !shared.closing {
                shared = self.inner.to_write.wait(shared).unwrap_or_else(PoisonError::into_inner);
            }
            if !shared.pending.is_empty() || shared.rewrite {
                return Some((std::mem::take(&mut shared.pending), shared.appended));
            }
            if shared.closing {
                return None;
            }
            if shared.written <= shared.synced.max(shared.overdue) {
                shared = self.inner.to_write.wait(shared).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let woken = self.inner.to_write.wait_timeout(shared, LAZY_SYNC);
            let (woken, wait) = woken.unwrap_or_else(PoisonError::into_inner);
            shared = woken;
            if wait.timed_out() {
                shared.overdue = shared.written;
                self.inner.to_sync.notify_one();
            }
        }
    }

    /// Gets a batch to the kernel, however long that takes; false when the journal closes before it could.
    fn write(&mut self, bytes: &[u8], upto: Ticket) -> bool {
        loop {
            let anew = self.inner.lock().rewrite;
            let done = if anew { self.compact(upto) } else { self.segment.append(bytes) };
            match done {
                Ok(()) => {
                    self.inner.recovered();
                    self.inner.counts.file_bytes.store(self.segment.len(), Ordering::Relaxed);
                    let mut shared = self.inner.lock();
                    shared.written = upto;
                    shared.release(upto);
                    let is_due = shared.is_sync_due();
                    drop(shared);
                    // The syncer takes a core of whoever waits for this record, so it is not woken for nothing.
                    if is_due {
                        self.inner.to_sync.notify_one();
                    }
                    return true;
                }
                Err(error) => self.inner.failed("write", &error),
            }
            let shared = self.inner.lock();
            if shared.closing {
                return false;
            }
            // Woken early by a further record, it merely tries early.
            drop(self.inner.to_write.wait_timeout(shared, RETRY));
        }
    }

    /// Writes everything taken so far into a new file, which is then on disk.
    fn compact(&mut self, upto: Ticket) -> io::Result<()> {
        self.mirror.forget_old(now_ms());
        let replaced = Segment::replace(self.segment.path(), self.mirror.records())?;
        self.segment = replaced.segment;
        self.compacted = self.segment.len();
        let mut shared = self.inner.lock();
        shared.file = self.segment.file().clone();
        shared.written = upto;
        shared.release(upto);
        shared.rewrite = replaced.named.is_err();
        replaced.named?;
        shared.state.forget_old(now_ms());
        drop(shared);
        self.inner.counts.compactions.fetch_add(1, Ordering::Relaxed);
        self.inner.counts.fsyncs.fetch_add(1, Ordering::Relaxed);
        self.inner.counts.file_bytes.store(self.segment.len(), Ordering::Relaxed);
        self.inner.on_disk(upto);
        self.inner.show();
        Ok(())
    }
}

fn tell(post: &Post<Journalled>, ticket: Ticket) {
    // An actor that ended meanwhile needs no news.
    post.tell(Journalled { ticket: ticket.0 }).ok();
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command, time::Instant};

    use actix::{Actor, Context, Handler};
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use proptest::prelude::*;

    use super::{
        super::state::tests::{fold, record},
        *,
    };
    use crate::{
        ids::Seq,
        store::{Outcome, Seen},
    };

    fn settled(seq: u64) -> Record {
        Record::Settled {
            agent: agent(),
            delivery: format!("del_{seq}").into(),
            msg: format!("msg_{seq}").into(),
            seq: Seq(seq),
            outcome: Outcome::Proven(crate::messages::delivery::Rung::Submitted),
        }
    }

    fn agent() -> AgentId {
        AgentId::from("agent_1")
    }

    fn seeded() -> Record {
        Record::Seeded { agent: agent(), at: Seq(0) }
    }

    fn state(journal: &Journal) -> State {
        journal.hold.inner.lock().state.clone()
    }

    fn fact(journal: &Journal, name: &str) -> u64 {
        let Detail::Facts(facts) = journal.probe().view().detail else { panic!("no facts") };
        facts.iter().find(|(fact, _)| *fact == name).unwrap().1.parse().unwrap()
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(10), "never: {what}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Hears [`Journalled`].
    struct Ear(Arc<Mutex<Vec<u64>>>);
    impl Actor for Ear {
        type Context = Context<Self>;
    }
    impl Handler<Journalled> for Ear {
        type Result = ();
        fn handle(&mut self, heard: Journalled, _ctx: &mut Context<Self>) {
            lock(&self.0).push(heard.ticket);
        }
    }

    fn ear() -> (Post<Journalled>, Arc<Mutex<Vec<u64>>>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let probe = Probe::new(ActorId::of(ActorKind::DeliveryCursor, "ear"));
        (Post::new(Ear(heard.clone()).start().recipient(), probe), heard)
    }

    #[actix::test]
    async fn a_sync_that_would_satisfy_nobody_is_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().join("journal")).unwrap();
        let (post, _heard) = ear();
        let mut shared = journal.hold.inner.lock();
        (shared.appended, shared.written) = (Ticket(2), Ticket(1));
        shared.waiting.push((Ticket(2), post));
        assert!(!shared.is_sync_due(), "what is waited for is not written yet");
        shared.written = Ticket(2);
        assert!(shared.is_sync_due());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_reopened_journal_knows_what_it_knew_compacted_or_not(
            records in prop::collection::vec(record(), 0..120),
            compact_at in prop_oneof![Just(0u64), Just(u64::MAX / 8)],
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("journal");
            let journal = Journal::open_bounded(&path, compact_at).unwrap();
            for record in &records {
                journal.append(record.clone());
            }
            journal.close().unwrap();
            let mut expected = fold(&records);
            prop_assert_eq!(fold(&expected.records().collect::<Vec<_>>()), expected.clone());
            let reopened = Journal::open(&path).unwrap();
            // The stamps of these results are decades old.
            expected.forget_old(now_ms());
            prop_assert_eq!(state(&reopened), expected);
        }
    }

    #[actix::test]
    async fn records_that_arrive_together_share_a_sync_and_everybody_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().join("journal")).unwrap();
        let (post, heard) = ear();
        for seq in 1..=2000 {
            let ticket = journal.append(settled(seq));
            journal.notify(ticket, post.clone());
        }
        let last = journal.last_ticket();
        for _ in 0..2000 {
            if lock(&heard).len() == 2000 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let heard = lock(&heard).clone();
        assert_eq!(heard.len(), 2000);
        assert!(heard.is_sorted() && heard.last() == Some(&last.0), "told in order, the last at the end");
        journal.close().unwrap();
        assert_eq!(fact(&journal, "records"), 2000);
        let fsyncs = fact(&journal, "fsyncs");
        assert!((1..400).contains(&fsyncs), "{fsyncs} syncs for 2000 records");
        assert!(fact(&journal, "largest_batch") > 10);
    }

    #[actix::test]
    async fn a_ticket_that_is_on_disk_already_is_answered_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().join("journal")).unwrap();
        let (post, heard) = ear();
        journal.notify(journal.last_ticket(), post);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(*lock(&heard), [0]);
    }

    #[test]
    fn a_record_reaches_the_kernel_at_once_though_nobody_waits_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        journal.append(seeded());
        until("written", || fs::metadata(&path).unwrap().len() > 0);
        // What a SIGKILL leaves is what another reader sees now.
        let mut seen = State::default();
        until("readable", || {
            seen = State::default();
            segment::scan(&fs::read(&path).unwrap(), |record| seen.apply(&record));
            seen.cursor(&agent()).position == Some(Seq(0))
        });
        assert_eq!(journal.hold.inner.lock().synced, Ticket(0));
        until("synced after a while all the same", || journal.hold.inner.lock().synced == Ticket(1));
    }

    #[test]
    fn a_file_that_grows_past_its_bound_is_compacted_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::open_bounded(&path, 64 << 10).unwrap();
        journal.append(seeded());
        for seq in 1..=20_000 {
            journal.append(settled(seq));
            if seq % 500 == 0 {
                let last = journal.last_ticket();
                until("written", || journal.hold.inner.lock().written == last);
            }
        }
        let before = state(&journal);
        journal.close().unwrap();
        assert!(fact(&journal, "compactions") >= 2);
        assert!(fs::metadata(&path).unwrap().len() < 512 << 10);
        let reopened = Journal::open(&path).unwrap();
        assert_eq!(state(&reopened), before);
        assert_eq!(reopened.cursor(&agent()).position, Some(Seq(20_000)));
        assert_eq!(reopened.cursor(&agent()).messages.len(), crate::store::SEEN_MAX);
        assert_ne!(reopened.cursor(&agent()).messages, Seen::default());
    }

    #[test]
    fn damage_is_counted_and_the_rest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        for seq in 1..=3 {
            journal.append(Record::GapSkipped { agent: agent(), from: Seq(seq), to: Seq(seq) });
        }
        journal.append(seeded());
        journal.close().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let third = bytes.windows(2).enumerate().filter(|(_, mark)| *mark == [0xFF, 0xFA]).nth(2).unwrap().0;
        bytes[third + 20] ^= 4;
        bytes.extend_from_slice(&[0xFF, 0xFA, 9, 0]);
        fs::write(&path, bytes).unwrap();
        let reopened = Journal::open(&path).unwrap();
        assert_eq!(reopened.cursor(&agent()).position, Some(Seq(2)), "the third record alone is lost");
        reopened.close().unwrap();
        assert_eq!(reopened.hold.inner.counts.damaged.load(Ordering::Relaxed), 2);
        assert_eq!(Journal::open(&path).unwrap().cursor(&agent()).position, Some(Seq(2)));
    }

    #[test]
    fn the_file_is_private_whatever_it_was_before_and_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        Journal::open(&path).unwrap().close().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(Journal::open(&link), Err(JournalError::Io { .. })));
    }

    const FULL_DISK: &str = "JOURNAL_TEST_FULL_DISK";

    /// The limit on file sizes is the process's own, so this test runs itself again under one.
    #[test]
    fn on_a_full_disk_nobody_is_told_nothing_panics_and_it_goes_on_once_there_is_room() {
        if std::env::var_os(FULL_DISK).is_some() {
            return on_a_full_disk();
        }
        let name = "store::journal::tests::on_a_full_disk_nobody_is_told_nothing_panics_and_it_goes_on_once_there_is_room";
        let run = "trap '' XFSZ; ulimit -S -f 16; exec \"$0\" --exact \"$1\" --nocapture";
        let test = std::env::current_exe().unwrap();
        let output =
            Command::new("sh").args(["-c", run]).arg(test).arg(name).env(FULL_DISK, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}{:?}", output.stderr);
    }

    fn on_a_full_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        journal.append(seeded());
        for seq in 1..=1000 {
            journal.append(settled(seq));
        }
        until("it says so", || journal.probe().view().state == "failed");
        assert!(journal.failure().unwrap().starts_with("write: "));
        let last = journal.last_ticket();
        assert!(journal.hold.inner.lock().synced < last);
        assert_eq!(journal.cursor(&agent()).position, Some(Seq(1000)), "the state goes on");
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
        until("it recovers", || journal.failure().is_none());
        journal.close().unwrap();
        assert_eq!(Journal::open(&path).unwrap().cursor(&agent()).position, Some(Seq(1000)));

        let other = dir.path().join("other");
        let journal = Journal::open(&other).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, 100, hard).unwrap();
        for seq in 1..=10 {
            journal.append(settled(seq));
        }
        assert!(matches!(journal.close(), Err(JournalError::Unwritten { .. })), "closing never hangs");
        setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    }

    #[test]
    fn a_failed_sync_is_mended_by_writing_everything_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        journal.append(settled(1));
        until("synced", || journal.hold.inner.lock().synced == Ticket(1));
        // A pipe takes no sync.
        let (_reader, writer) = std::io::pipe().unwrap();
        let pipe: std::os::fd::OwnedFd = writer.into();
        journal.hold.inner.lock().file = Arc::new(pipe.into());
        journal.append(settled(2));
        until("mended", || journal.hold.inner.lock().synced == Ticket(2));
        until("and said so", || journal.failure().is_none());
        assert_eq!(fact(&journal, "compactions"), 1);
        journal.close().unwrap();
        let messages = Journal::open(&path).unwrap().cursor(&agent()).messages;
        assert_eq!(Vec::from(messages), ["msg_1".into(), "msg_2".into()]);
    }

    #[actix::test]
    async fn a_record_is_in_the_file_once_it_is_said_to_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.log");
        let journal = Journal::open(&path).unwrap();
        for n in 0..50u64 {
            let ticket =
                journal.append(Record::Seeded { agent: format!("a{n}").as_str().into(), at: Seq(n) });
            if let Some(written) = journal.written(ticket) {
                written.await.unwrap();
            }
            let mut seen = 0;
            assert!(segment::scan(&Segment::read(&path).unwrap(), |_| seen += 1).is_empty());
            assert!(seen > n, "{seen} records of {}", n + 1);
            assert!(journal.written(ticket).is_none(), "it is still waited for");
        }
    }
}
