//! How a child ended, as a record: true facts from the kernel and the last screen (spec/pty 5.2).

use std::time::Duration;

use crate::messages::pty::{EndedBy, ExitRecord};

/// The last screen in a record, in characters.
pub(super) const LAST_OUTPUT_MAX: usize = 2000;
/// The last screen in a refusal of a start, in characters.
pub(super) const REFUSAL_OUTPUT_MAX: usize = 500;

/// The kernel's part of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// Exit code.
    pub code: Option<i32>,
    /// Signal name.
    pub signal: Option<String>,
    /// A core was dumped.
    pub core_dumped: bool,
}

/// The record.
pub(super) fn record(
    ended: Ended,
    by: Option<EndedBy>,
    uptime: Duration,
    last_output: String,
    swept: Vec<u32>,
) -> ExitRecord {
    ExitRecord {
        code: ended.code,
        signal: ended.signal,
        core_dumped: ended.core_dumped,
        by: by.unwrap_or(EndedBy::Itself),
        uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        last_output,
        swept,
    }
}

/// Why no injection can succeed any more, in words.
pub(super) fn gone_reason(record: &ExitRecord) -> String {
    match record.by {
        EndedBy::Itself => format!("the agent exited ({})", record.how()),
        EndedBy::Release => format!("the agent was released ({})", record.how()),
        EndedBy::Shutdown => format!("the broker was shut down ({})", record.how()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_who_ended_it_and_how() {
        let ended = Ended { code: Some(7), ..Ended::default() };
        let uptime = Duration::from_millis(1500);
        let own = record(ended.clone(), None, uptime, "bye".into(), vec![]);
        assert_eq!((own.code, own.by, own.uptime_ms), (Some(7), EndedBy::Itself, 1500));
        assert_eq!(gone_reason(&own), "the agent exited (code 7)");
        let killed = Ended { signal: Some("SIGHUP".into()), ..Ended::default() };
        let released = record(killed, Some(EndedBy::Release), uptime, String::new(), vec![4]);
        assert_eq!(gone_reason(&released), "the agent was released (signal SIGHUP)");
    }
}
