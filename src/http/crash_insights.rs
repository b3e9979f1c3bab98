//! `GET /api/crash-insights`: how programs ended, in upstream's shape (spec/api 2.8) with the true facts beside.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{HttpResponse, web::Data};
use serde::Serialize;

use super::{
    agents::rfc3339,
    api::{Api, ROOM_TIME, within},
    error::ApiError,
};
use crate::{
    command_line,
    harness::Harness,
    ids::{AgentName, SessionRef},
    messages::process::{ExitClass, ExitRecord, KnownSession, ListExits, PastExit},
};

/// Ends in the answer; upstream's clients expect no more.
const RECENT_MAX: usize = 20;

#[derive(Debug, Serialize)]
struct Insights {
    total_crashes: usize,
    recent: Vec<Recent>,
    patterns: Vec<Pattern>,
    /// Of the ends that are kept, the share that was no crash, in percent; 100 without any.
    health_score: usize,
    total_exits: usize,
}

#[derive(Debug, Serialize)]
struct Recent {
    agent_name: AgentName,
    exit_code: Option<i32>,
    signal: Option<String>,
    /// Seconds since the Unix epoch.
    timestamp: u64,
    at: Option<String>,
    uptime_secs: u64,
    /// In upstream's words.
    category: &'static str,
    description: String,
    program: String,
    session_id: Option<SessionRef>,
    /// The command by which a person takes that session up.
    go_on: Option<String>,
    #[serde(flatten)]
    exit: Facts,
}

/// What upstream's fields leave out.
#[derive(Debug, Serialize)]
struct Facts {
    class: ExitClass,
    by: crate::messages::process::EndedBy,
    core_dumped: bool,
    uptime_ms: u64,
    state: crate::messages::pty::AgentState,
    last_output: String,
    last_delivery: Option<crate::ids::DeliveryId>,
    pending: usize,
    peak_memory_bytes: Option<u64>,
    swept: Vec<u32>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Pattern {
    /// In upstream's words.
    category: &'static str,
    count: usize,
    agents: BTreeSet<AgentName>,
}

/// The newest ends first, and what many have in common.
pub(super) async fn list(api: Data<Api>) -> Result<HttpResponse, ApiError> {
    let exits = within(ROOM_TIME, api.doors.exits.ask(ListExits)).await?;
    Ok(HttpResponse::Ok().json(insights(exits)))
}

fn insights(exits: Vec<PastExit>) -> Insights {
    let total_exits = exits.len();
    let crashes: Vec<_> = exits.iter().filter(|past| past.exit.class.is_crash()).collect();
    let mut by_category: BTreeMap<&'static str, Vec<&AgentName>> = BTreeMap::new();
    for past in &crashes {
        by_category.entry(category(&past.exit)).or_default().push(&past.name);
    }
    let patterns = by_category.into_iter().map(|(category, names)| Pattern {
        category,
        count: names.len(),
        agents: names.into_iter().cloned().collect(),
    });
    let (total_crashes, patterns) = (crashes.len(), patterns.collect());
    let health_score = match total_exits {
        0 => 100,
        all => (all - total_crashes) * 100 / all,
    };
    let recent = exits.into_iter().rev().take(RECENT_MAX).map(recent).collect();
    Insights { total_crashes, recent, patterns, health_score, total_exits }
}

fn recent(past: PastExit) -> Recent {
    let PastExit { name, program, at_ms, exit, session } = past;
    let go_on = session.as_ref().and_then(|session| go_on(&program, session));
    Recent {
        agent_name: name,
        timestamp: at_ms / 1000,
        at: rfc3339(at_ms),
        uptime_secs: exit.uptime_ms / 1000,
        category: category(&exit),
        description: format!("{} ({})", exit.by.in_words(), exit.how()),
        program,
        session_id: session.map(|session| session.id),
        go_on,
        exit_code: exit.code,
        signal: exit.signal,
        exit: Facts {
            class: exit.class,
            by: exit.by,
            core_dumped: exit.core_dumped,
            uptime_ms: exit.uptime_ms,
            state: exit.state,
            last_output: exit.last_output,
            last_delivery: exit.last_delivery,
            pending: exit.pending,
            peak_memory_bytes: exit.peak_memory,
            swept: exit.swept,
        },
    }
}

/// `cd /bay && helm resume s-1`
fn go_on(program: &str, session: &KnownSession) -> Option<String> {
    let command = Harness::by_name(&session.harness)?.resume_command(program, session.id.as_str())?;
    let cwd = command_line::quoted(session.cwd.to_str()?);
    let words: Vec<_> = command.iter().map(|word| command_line::quoted(word)).collect();
    Some(format!("cd {cwd} && {}", words.join(" ")))
}

/// One of upstream's five words.
fn category(exit: &ExitRecord) -> &'static str {
    match (exit.class, exit.signal.as_deref(), exit.code) {
        (ExitClass::Oom, ..) => "oom",
        (_, Some("SIGSEGV" | "SIGBUS"), _) => "segfault",
        (_, Some(_), _) => "signal",
        (ExitClass::ExecFailed, ..) => "error",
        (_, None, Some(code)) if code != 0 => "error",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::process::EndedBy;

    fn past(name: &str, exit: ExitRecord) -> PastExit {
        let name = AgentName::parse(name).unwrap();
        PastExit { name, program: "cat".into(), at_ms: 5000, exit, session: None }
    }

    fn killed(class: ExitClass, signal: &str) -> ExitRecord {
        let exit = ExitRecord::with_code(EndedBy::Itself, 0);
        ExitRecord { code: None, signal: Some(signal.into()), class, ..exit }
    }

    #[test]
    fn the_newest_come_first_and_crashes_are_counted_by_what_they_are() {
        let failed = || ExitRecord::with_code(EndedBy::Itself, 3);
        let released = ExitRecord::with_code(EndedBy::Release, 0);
        let told = insights(vec![
            past("a", failed()),
            past("b", released),
            past("c", failed()),
            past("a", killed(ExitClass::Oom, "SIGKILL")),
        ]);
        assert_eq!((told.total_crashes, told.total_exits, told.health_score), (3, 4, 25));
        let names: Vec<_> = told.recent.iter().map(|one| one.agent_name.as_str()).collect();
        assert_eq!(names, ["a", "c", "b", "a"]);
        let counted: Vec<_> = told.patterns.iter().map(|one| (one.category, one.count)).collect();
        assert_eq!(counted, [("error", 2), ("oom", 1)]);
        assert_eq!(told.recent[1].description, "the agent exited (code 3)");
        assert_eq!(insights(Vec::new()).health_score, 100);
        assert_eq!(insights((0..30).map(|_| past("a", failed())).collect()).recent.len(), RECENT_MAX);
    }

    #[test]
    fn an_end_says_how_a_person_goes_on_with_its_session() {
        let session = |id: &str, harness: &str, cwd: &str| {
            let session = KnownSession { id: id.into(), harness: harness.into(), cwd: cwd.into() };
            let exit = ExitRecord::with_code(EndedBy::Itself, 3);
            let told = recent(PastExit { session: Some(session), ..past("a", exit) });
            (told.session_id.map(|id| id.to_string()), told.go_on)
        };
        let known = |id: &str, line: &str| (Some(id.to_owned()), Some(line.to_owned()));
        assert_eq!(session("s-1", "codex", "/bay"), known("s-1", "cd /bay && cat resume s-1"));
        let quoted = r"cd '/bay of '\''s' && cat --resume s-2";
        assert_eq!(session("s-2", "claude", "/bay of 's"), known("s-2", quoted));
        assert_eq!(session("s-3", "plain", "/bay"), (Some("s-3".to_owned()), None));
        assert_eq!(recent(past("a", ExitRecord::with_code(EndedBy::Itself, 3))).go_on, None);
    }

    #[test]
    fn upstreams_words_are_used_for_what_they_mean_and_a_kill_alone_is_not_oom() {
        for (exit, word) in [
            (killed(ExitClass::Oom, "SIGKILL"), "oom"),
            (killed(ExitClass::Signal, "SIGKILL"), "signal"),
            (killed(ExitClass::Signal, "SIGSEGV"), "segfault"),
            (ExitRecord::with_code(EndedBy::Itself, 3), "error"),
            (ExitRecord::with_code(EndedBy::Itself, 0), "unknown"),
        ] {
            assert_eq!(category(&exit), word, "{exit:?}");
        }
    }
}
