//! The thread that waits for the disk.
//!
//! It begins as soon as something is written that somebody waits for; everything that arrives meanwhile goes
//! into its next round (natural group commit). What nobody waits for becomes due after a while: the writer sees
//! to that. After a failed sync nobody knows what the kernel still holds, so nothing is synced before the
//! writer has written everything anew.

use super::shared::{Inner, wait};

/// The syncer's life: ends once the writer has ended and everything written is on disk, or cannot be.
pub(super) fn run(inner: &Inner) {
    loop {
        let mut shared = inner.lock();
        while !shared.sealed && !shared.is_sync_due() {
            shared = wait(&inner.to_sync, shared);
        }
        if shared.rewrite || shared.synced >= shared.written {
            return;
        }
        let (file, upto) = (shared.file.clone(), shared.written);
        drop(shared);
        match file.sync_data() {
            Ok(()) => {
                inner.counts.synced();
                inner.on_disk(upto);
                inner.show();
            }
            Err(error) => {
                inner.failed("sync", &error);
                inner.lock().rewrite = true;
                inner.to_write.notify_one();
            }
        }
    }
}
