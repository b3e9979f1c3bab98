//! The journal: what must not happen twice, and what must not be forgotten, on disk.
//!
//! ```text
//! append --> pending --write(2)--> written --fdatasync--> on disk --> Journalled
//!            (journal)            (journal-sync)
//! ```
//!
//! What is promised at which moment:
//!
//! | moment | how one hears of it | what a record survives from then on |
//! |---|---|---|
//! | appended | [`append`](Journal::append) returns its [`Ticket`] | nothing yet, though every question here is answered with it |
//! | written | the answer of [`written`](Journal::written) | a SIGKILL of this process |
//! | on disk | [`Journalled`], asked for by [`notify`](Journal::notify) | a power cut: what depends on it may be acked |
//!
//! Nobody ever blocks on the journal but who closes it. When the disk refuses, the tickets stay open, so no ack
//! goes out; the journal tries again every [`writer::RETRY`], for ever, and says so in its [`Probe`]. Whoever
//! waits for "written" goes on then: nobody knows how long it would take. After a failed sync the kernel may
//! have dropped what it held, so the whole journal is written anew.
//!
//! Two plain threads, so that what is appended while the disk is busy still reaches the kernel at once: the
//! [`writer`] and the [`syncer`]. What they and the callers share stands in [`shared`].

mod counts;
mod shared;
mod syncer;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use tracing::{error, info, warn};

use self::{
    shared::{Inner, tell},
    writer::{COMPACT_AT, Writer},
};
use super::{CursorState, DeadLetter, LiveAgent, Record, segment, segment::Segment, state::State};
use crate::{
    ids::{AgentId, AgentName, InvocationId},
    messages::{
        Answer, Reply,
        delivery::Journalled,
        invoke::InvocationResult,
        process::{KnownSession, PastExit},
    },
    supervision::{Post, Probe, lock, now_ms},
};

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

        let file = segment.file().clone();
        let inner = Arc::new(Inner::new(path.to_owned(), state.clone(), file, damage.len()));
        inner.counts.file_is(segment.len());
        inner.probe.set_state("running");
        inner.show();
        let hold = Hold { inner, threads: Mutex::default() };
        let writer = Writer::new(hold.inner.clone(), segment, state, compact_at);
        hold.start("journal", move || writer.run())?;
        let inner = hold.inner.clone();
        hold.start("journal-sync", move || syncer::run(&inner))?;
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
