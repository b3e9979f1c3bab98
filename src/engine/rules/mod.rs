//! What the engine decides, as pure functions: no clock, no store, no socket.

pub(super) mod cursor;
pub(super) mod placement;
pub(super) mod text;

use std::time::Duration;

/// Is a node live: marked online, and heard of within the liveness period? Instants in Unix milliseconds.
pub(super) fn is_live(online: bool, last_heartbeat_at: Option<i64>, now: i64, period: Duration) -> bool {
    online && last_heartbeat_at.is_some_and(|at| now.saturating_sub(at) <= millis(period))
}

/// The pause before dispatch number `attempts + 1`: doubles from `first` up to a minute (spec/wire 4.7).
pub(super) fn retry_pause(first: Duration, attempts: i64) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1).clamp(0, 16)).unwrap_or(0);
    first.saturating_mul(1 << doublings).min(Duration::from_secs(60).max(first))
}

/// A duration as the store counts time.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_live_while_its_last_heartbeat_is_young() {
        let period = Duration::from_secs(45);
        assert!(is_live(true, Some(10_000), 55_000, period));
        assert!(!is_live(true, Some(10_000), 55_001, period));
        assert!(!is_live(false, Some(10_000), 10_000, period));
        assert!(!is_live(true, None, 10_000, period));
    }

    #[test]
    fn pauses_double_and_end_at_a_minute() {
        let pauses: Vec<u64> =
            (1..=6).map(|attempts| retry_pause(Duration::from_secs(5), attempts).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        assert_eq!(retry_pause(Duration::from_secs(5), i64::MAX).as_secs(), 60);
    }
}
