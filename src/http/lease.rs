//! The lease of a broker that was started for one client: when nobody renews it, the client is gone and
//! the broker ends.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use crate::{messages::lifecycle::Shutdown, supervision::Post};

/// The lease, held by the API.
#[derive(Debug)]
pub(super) struct Lease {
    period: Duration,
    ends: watch::Sender<Instant>,
}

impl Lease {
    /// A lease that begins now.
    pub(super) fn new(period: Duration) -> Self {
        Self { period, ends: watch::Sender::new(Instant::now() + period) }
    }

    /// Somebody is still there. Returns how long that counts.
    pub(super) fn renew(&self) -> Duration {
        self.ends.send_replace(Instant::now() + self.period);
        self.period
    }

    /// Ends the house when the lease runs out. Ends itself when the API goes first.
    pub(super) fn watch(&self, shutdown: Post<Shutdown>) -> impl Future<Output = ()> + 'static {
        let mut ends = self.ends.subscribe();
        async move {
            loop {
                let end = *ends.borrow_and_update();
                tokio::select! {
                    () = tokio::time::sleep_until(end) => {}
                    changed = ends.changed() => if changed.is_err() { return },
                }
                if *ends.borrow() <= Instant::now() {
                    break;
                }
            }
            let reason = "no client renewed its session in time".to_owned();
            // A supervisor that is gone is ending the house already.
            shutdown.tell(Shutdown { reason, reply: None }).ok();
        }
    }
}
