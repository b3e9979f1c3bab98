//! What happens by the clock alone.

use std::time::Duration;

use tracing::info;

use crate::engine::{core::Core, error::Failure, rules::millis};

/// How long an idempotency key is remembered (spec/wire 1.2).
const KEY_MEMORY: Duration = Duration::from_secs(24 * 3600);
/// Rows that one sweep expires; the next one goes on.
const EXPIRED_AT_ONCE: usize = 1000;

impl Core {
    /// Silent nodes go offline, old mail becomes dead letters, overdue invocations are dispatched again.
    pub(in crate::engine) fn sweep(&mut self) -> Result<(), Failure> {
        let now = self.store.now();
        self.full.clear();
        for node in self.store.silent_nodes(now - millis(self.limits.liveness))? {
            self.node_offline(&node.id)?;
        }
        let expired = self.store.expire(EXPIRED_AT_ONCE)?;
        if expired > 0 {
            info!(expired, "messages became dead letters");
        }
        self.sweep_invocations()?;
        self.store.forget_before(now - millis(KEY_MEMORY))?;
        Ok(())
    }

    /// The oldest answer that an idempotency key still recalls.
    pub(in crate::engine) fn oldest_key(&self) -> i64 {
        self.store.now() - millis(KEY_MEMORY)
    }
}
