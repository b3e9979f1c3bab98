//! How a child ended, as a record: true facts from the kernel and the last screen (spec/pty 5.2, 12).

use std::time::Duration;

use crate::messages::{
    process::{EndedBy, ExitClass, ExitRecord},
    pty::AgentState,
};

/// The last screen in a record, in characters and in lines.
pub(super) const LAST_OUTPUT_MAX: usize = 2000;
pub(super) const LAST_LINES_MAX: usize = 40;
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
    /// The kernel is known to have killed for want of memory just then.
    pub oom: bool,
}

/// What the broker knows of the agent at its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Who ended it, if not it itself.
    pub by: Option<EndedBy>,
    /// What it did.
    pub state: AgentState,
    /// It was ready once.
    pub was_ready: bool,
    /// It asked for a login.
    pub wants_login: bool,
    /// Since its start.
    pub uptime: Duration,
}

/// The record, without what the terminal's books add.
pub(super) fn record(ended: Ended, standing: Standing) -> ExitRecord {
    let by = standing.by.unwrap_or(EndedBy::Itself);
    ExitRecord {
        class: classify(&ended, by, standing),
        code: ended.code,
        signal: ended.signal,
        core_dumped: ended.core_dumped,
        by,
        uptime_ms: u64::try_from(standing.uptime.as_millis()).unwrap_or(u64::MAX),
        state: standing.state,
        last_output: String::new(),
        last_delivery: None,
        pending: 0,
        peak_memory: None,
        unproven: Vec::new(),
        swept: Vec::new(),
    }
}

/// What it comes to. Whoever ended it comes first; a kill says "memory" only with evidence.
fn classify(ended: &Ended, by: EndedBy, standing: Standing) -> ExitClass {
    match (by, ended.code) {
        (EndedBy::Release | EndedBy::Shutdown, _) => ExitClass::KilledByUs,
        (EndedBy::MaxRuntime | EndedBy::IdleLimit | EndedBy::OutputLimit, _) => ExitClass::Limit,
        (EndedBy::Itself, Some(0)) => ExitClass::Clean,
        (EndedBy::Itself, _) if standing.wants_login => ExitClass::AuthNeeded,
        (EndedBy::Itself, None) if ended.oom && ended.signal.as_deref() == Some("SIGKILL") => ExitClass::Oom,
        (EndedBy::Itself, None) => ExitClass::Signal,
        (EndedBy::Itself, Some(_)) if !standing.was_ready => ExitClass::NeverReady,
        (EndedBy::Itself, Some(_)) => ExitClass::Error,
    }
}

/// Why no injection can succeed any more, in words.
pub(super) fn gone_reason(record: &ExitRecord) -> String {
    format!("{} ({})", record.by.in_words(), record.how())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDING: Standing = Standing {
        by: None,
        state: AgentState::Idle,
        was_ready: true,
        wants_login: false,
        uptime: Duration::from_millis(1500),
    };

    fn code(code: i32) -> Ended {
        Ended { code: Some(code), ..Ended::default() }
    }

    fn signal(name: &str) -> Ended {
        Ended { signal: Some(name.into()), ..Ended::default() }
    }

    #[test]
    fn a_record_says_who_ended_it_and_how() {
        let own = record(code(7), STANDING);
        assert_eq!((own.code, own.by, own.uptime_ms), (Some(7), EndedBy::Itself, 1500));
        assert_eq!(gone_reason(&own), "the agent exited (code 7)");
        let released = record(signal("SIGHUP"), Standing { by: Some(EndedBy::Release), ..STANDING });
        assert_eq!(gone_reason(&released), "the agent was released (signal SIGHUP)");
    }

    #[test]
    fn an_end_comes_to_what_its_facts_say_and_no_more() {
        let by = |by| Standing { by: Some(by), ..STANDING };
        let oom = |name| Ended { oom: true, ..signal(name) };
        for (ended, standing, class) in [
            (code(0), STANDING, ExitClass::Clean),
            (code(0), Standing { was_ready: false, ..STANDING }, ExitClass::Clean),
            (code(3), STANDING, ExitClass::Error),
            (code(3), Standing { was_ready: false, ..STANDING }, ExitClass::NeverReady),
            (code(3), Standing { wants_login: true, ..STANDING }, ExitClass::AuthNeeded),
            (signal("SIGSEGV"), Standing { was_ready: false, ..STANDING }, ExitClass::Signal),
            (signal("SIGKILL"), STANDING, ExitClass::Signal),
            (oom("SIGKILL"), STANDING, ExitClass::Oom),
            (oom("SIGTERM"), STANDING, ExitClass::Signal),
            (oom("SIGKILL"), by(EndedBy::Release), ExitClass::KilledByUs),
            (code(0), by(EndedBy::Shutdown), ExitClass::KilledByUs),
            (code(0), by(EndedBy::IdleLimit), ExitClass::Limit),
            (signal("SIGKILL"), by(EndedBy::OutputLimit), ExitClass::Limit),
            (signal("SIGHUP"), by(EndedBy::MaxRuntime), ExitClass::Limit),
            (Ended::default(), STANDING, ExitClass::Signal),
        ] {
            assert_eq!(record(ended.clone(), standing).class, class, "{ended:?} {standing:?}");
        }
    }
}
