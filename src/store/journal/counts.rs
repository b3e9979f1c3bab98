//! The journal's numbers since start, as its probe shows them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::supervision::Detail;

/// Counted by both threads.
#[derive(Debug, Default)]
pub(super) struct Counts {
    records: AtomicU64,
    bytes: AtomicU64,
    file_bytes: AtomicU64,
    fsyncs: AtomicU64,
    last_batch: AtomicU64,
    largest_batch: AtomicU64,
    compactions: AtomicU64,
    damaged: AtomicU64,
}

impl Counts {
    /// Those of a journal in whose file so many stretches could not be read.
    pub(super) fn of_damaged(damaged: usize) -> Self {
        Self { damaged: AtomicU64::new(damaged as u64), ..Self::default() }
    }

    /// So many records, of so many bytes, have reached the kernel.
    pub(super) fn wrote(&self, records: usize, bytes: usize) {
        self.records.fetch_add(records as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// The file is so long now, in bytes.
    pub(super) fn file_is(&self, bytes: u64) {
        self.file_bytes.store(bytes, Relaxed);
    }

    /// The disk was waited for once.
    pub(super) fn synced(&self) {
        self.fsyncs.fetch_add(1, Relaxed);
    }

    /// The file was written anew, and is on disk.
    pub(super) fn compacted(&self) {
        self.compactions.fetch_add(1, Relaxed);
        self.synced();
    }

    /// So many records came to be on disk at once.
    pub(super) fn batch(&self, records: u64) {
        self.last_batch.store(records, Relaxed);
        self.largest_batch.fetch_max(records, Relaxed);
    }

    /// For the debug page.
    pub(super) fn facts(&self, dead_letters: usize) -> Detail {
        let count = |number: &AtomicU64| number.load(Relaxed).to_string();
        Detail::Facts(vec![
            ("records", count(&self.records)),
            ("bytes", count(&self.bytes)),
            ("file_bytes", count(&self.file_bytes)),
            ("fsyncs", count(&self.fsyncs)),
            ("dead_letters", dead_letters.to_string()),
            ("last_batch", count(&self.last_batch)),
            ("largest_batch", count(&self.largest_batch)),
            ("compactions", count(&self.compactions)),
            ("damaged", count(&self.damaged)),
        ])
    }
}
