//! The thread that hands records to the kernel, and writes the whole file anew: when it has grown past its
//! bounds, and after a failed sync.

use std::{
    io,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tracing::{error, warn};

use super::{
    Ticket,
    shared::{Inner, wait},
};
use crate::{
    store::{
        Record,
        segment::{self, Segment},
        state::State,
    },
    supervision::now_ms,
};

/// Between tries after the disk refused.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// What nobody waits for is synced after this long; it has survived the end of the process since it was
/// appended, and an earlier sync for somebody else takes it along.
const LAZY_SYNC: Duration = Duration::from_secs(1);
/// The file is compacted when it has grown past this many bytes...
pub(super) const COMPACT_AT: u64 = 16 << 20;
/// ...and past this many times its compacted size.
const COMPACT_GROWTH: u64 = 4;

/// The thread that writes. Its mirror is the state as of what it has taken, so that the whole can be written
/// anew without holding anybody up.
pub(super) struct Writer {
    inner: Arc<Inner>,
    segment: Segment,
    mirror: State,
    /// The size of the file when it was last compacted.
    compacted: u64,
    /// The size below which it is not compacted.
    compact_at: u64,
}

impl Writer {
    /// Goes on with a file that was just written from this state.
    pub(super) fn new(inner: Arc<Inner>, segment: Segment, state: State, compact_at: u64) -> Self {
        Self { inner, compacted: segment.len(), segment, mirror: state, compact_at }
    }

    /// The writer's life: ends once the journal closes and everything is written, or cannot be.
    pub(super) fn run(mut self) {
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
            self.inner.counts.wrote(batch.len(), bytes.len());
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
                shared = wait(&self.inner.to_write, shared);
            }
            if !shared.pending.is_empty() || shared.rewrite {
                return Some((std::mem::take(&mut shared.pending), shared.appended));
            }
            if shared.closing {
                return None;
            }
            if shared.written <= shared.synced.max(shared.overdue) {
                shared = wait(&self.inner.to_write, shared);
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
                    self.inner.counts.file_is(self.segment.len());
                    let mut shared = self.inner.lock();
                    shared.reached_kernel(upto);
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
        shared.reached_kernel(upto);
        shared.rewrite = replaced.named.is_err();
        replaced.named?;
        shared.state.forget_old(now_ms());
        drop(shared);
        self.inner.counts.compacted();
        self.inner.counts.file_is(self.segment.len());
        self.inner.on_disk(upto);
        self.inner.show();
        Ok(())
    }
}
