//! What the callers and the two threads share: how far the records have come, who waits for which of them, and
//! what the disk refuses with.
//!
//! `synced <= written <= appended`, and each only grows. Whoever moves one of them lets those go on who waited for
//! it. Nothing slow happens under the lock: every caller needs it.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use tracing::{error, info};

use super::{Ticket, counts::Counts};
use crate::{
    messages::{
        Reply,
        delivery::Journalled,
        lifecycle::{ActorId, ActorKind},
    },
    store::{Record, state::State},
    supervision::{Post, Probe, lock},
};

/// One journal.
pub(super) struct Inner {
    pub(super) path: PathBuf,
    shared: Mutex<Shared>,
    /// Rung for the writer.
    pub(super) to_write: Condvar,
    /// Rung for the syncer.
    pub(super) to_sync: Condvar,
    pub(super) probe: Arc<Probe>,
    pub(super) counts: Counts,
}

/// What stands under the lock.
pub(super) struct Shared {
    /// As of all appended records.
    pub(super) state: State,
    /// Appended and not yet taken by the writer.
    pub(super) pending: Vec<Record>,
    pub(super) appended: Ticket,
    pub(super) written: Ticket,
    pub(super) synced: Ticket,
    /// Nobody waits for what was written up to here, and still it is time to sync it.
    pub(super) overdue: Ticket,
    /// Who waits until a record is on disk.
    pub(super) waiting: Vec<(Ticket, Post<Journalled>)>,
    /// Who waits until a record has reached the kernel.
    pub(super) writing: Vec<(Ticket, Reply<()>)>,
    /// What is to be synced.
    pub(super) file: Arc<File>,
    /// A sync failed: the file must be written anew.
    pub(super) rewrite: bool,
    /// The last error, while it lasts.
    pub(super) failure: Option<String>,
    pub(super) closing: bool,
    /// The writer has ended: nothing more will be written.
    pub(super) sealed: bool,
    /// Nothing is handed to the kernel for now.
    #[cfg(test)]
    pub(super) stalled: bool,
}

impl Shared {
    fn new(state: State, file: Arc<File>) -> Self {
        Self {
            state,
            pending: Vec::new(),
            appended: Ticket(0),
            written: Ticket(0),
            synced: Ticket(0),
            overdue: Ticket(0),
            waiting: Vec::new(),
            writing: Vec::new(),
            file,
            rewrite: false,
            failure: None,
            closing: false,
            sealed: false,
            #[cfg(test)]
            stalled: false,
        }
    }

    /// True when something is written that somebody waits for. A sync that satisfies nobody would only hold up
    /// the next one.
    pub(super) fn is_sync_due(&self) -> bool {
        let is_awaited = || self.waiting.iter().any(|(ticket, _)| *ticket <= self.written);
        !self.rewrite && self.synced < self.written && (self.synced < self.overdue || is_awaited())
    }

    /// Everything up to here has reached the kernel; lets those go on who wait for that.
    pub(super) fn reached_kernel(&mut self, upto: Ticket) {
        self.written = upto;
        self.release(upto);
    }

    fn release(&mut self, upto: Ticket) {
        let (due, rest): (Vec<_>, _) =
            std::mem::take(&mut self.writing).into_iter().partition(|(ticket, _)| *ticket <= upto);
        self.writing = rest;
        for (_, reply) in due {
            // Whoever waited may be gone.
            reply.send(());
        }
    }

    /// Everything up to here is on disk: how many records that is, and who waits for that; nothing when it was
    /// known before.
    fn reached_disk(&mut self, upto: Ticket) -> Option<(u64, Vec<Post<Journalled>>)> {
        let batch = upto.0.checked_sub(self.synced.0).filter(|batch| *batch > 0)?;
        self.synced = upto;
        let (due, rest): (Vec<_>, _) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(ticket, _)| *ticket <= upto);
        self.waiting = rest;
        Some((batch, due.into_iter().map(|(_, post)| post).collect()))
    }
}

impl Inner {
    /// A journal whose file holds this state, after so many stretches of the old one could not be read.
    pub(super) fn new(path: PathBuf, state: State, file: Arc<File>, damaged: usize) -> Self {
        Self {
            path,
            shared: Mutex::new(Shared::new(state, file)),
            to_write: Condvar::new(),
            to_sync: Condvar::new(),
            probe: Probe::new(ActorId::sole(ActorKind::Journal)),
            counts: Counts::of_damaged(damaged),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    pub(super) fn begin_close(&self) {
        self.lock().closing = true;
        self.to_write.notify_one();
        self.to_sync.notify_one();
    }

    /// Records that the disk refused. Logged when it begins, not at each try.
    pub(super) fn failed(&self, what: &'static str, error: &io::Error) {
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

    pub(super) fn recovered(&self) {
        if self.lock().failure.take().is_some() {
            self.probe.set_state("running");
            info!(path = %self.path.display(), "the journal can be written again");
        }
    }

    /// Marks everything up to here as on disk and tells those who wait for it.
    pub(super) fn on_disk(&self, upto: Ticket) {
        let reached = self.lock().reached_disk(upto);
        let Some((batch, due)) = reached else { return };
        self.counts.batch(batch);
        for post in &due {
            tell(post, upto);
        }
    }

    /// Brings the debug page up to date.
    pub(super) fn show(&self) {
        let dead_letters = self.lock().state.dead_letter_count();
        self.probe.set_detail(self.counts.facts(dead_letters));
    }
}

/// Waits at a bell with the lock let go.
pub(super) fn wait<'a>(bell: &Condvar, shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
    bell.wait(shared).unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn tell(post: &Post<Journalled>, ticket: Ticket) {
    // An actor that ended meanwhile needs no news.
    post.tell(Journalled { ticket: ticket.0 }).ok();
}
