//! One agent, explained: where it stands, where its last message is and what that waits for, in one
//! sentence, and what a person can do about it. Pure: the page gathers the facts, this finds the words.

use std::time::Duration;

use crate::messages::{
    delivery::{CursorView, LastDelivery, Rung},
    hold::DeliveryMode,
    process::ExitRecord,
    pty::{AgentState, WorkerDetail},
    readiness::Readiness,
    spawn::AgentPhase,
};

/// What is known of an agent.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    pub(super) name: &'a str,
    /// `None` when the registry did not say: it is busy, or does not know the agent any more.
    pub(super) phase: Option<AgentPhase>,
    pub(super) worker: Option<&'a WorkerDetail>,
    pub(super) cursor: Option<&'a CursorView>,
    /// Actors of this agent that do not run, and what they do instead (`delivery_cursor` is `restarting`).
    pub(super) down: &'a [(&'a str, String)],
    pub(super) session: &'a Readiness,
    /// Its messages that could not be put in.
    pub(super) dead_letters: usize,
    /// Since the last output; `None` before any.
    pub(super) quiet_for: Option<Duration>,
}

/// The words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// One sentence: state, last message, next step.
    pub(super) summary: String,
    /// The next step alone, when there is one.
    pub(super) next: Option<String>,
}

/// Finds the words for the facts.
pub(super) fn explain(facts: &Facts<'_>) -> Verdict {
    let Finding { state, next: state_next, settles } = state_of(facts);
    let mut clauses = vec![state];
    let mut next = state_next;
    if !settles {
        let message = message_of(facts);
        clauses.push(message.text);
        next = next.or(message.next);
        if let Some(hold) = facts.cursor.and_then(|cursor| hold_of(facts.name, cursor)) {
            clauses.push(hold.text);
            next = next.or(hold.next);
        }
        if let Some(letters) = letters_of(facts.dead_letters) {
            clauses.push(letters);
            next = next.or_else(|| Some("see why with `relay-broker dead-letters`".to_owned()));
        }
        if let Readiness::Offline { why, next: retry } = facts.session {
            clauses.push(format!("the node is offline ({why}), so new messages wait at the engine"));
            next = next.or_else(|| Some(retry.clone()));
        }
    }
    let clauses = clauses.join("; ");
    let step = next.as_deref().map_or_else(|| "nothing to do".to_owned(), |next| format!("next: {next}"));
    Verdict { summary: format!("{} {clauses}; {step}", facts.name), next }
}

struct Finding {
    state: String,
    next: Option<String>,
    /// True when the agent's messages need no further word.
    settles: bool,
}

impl Finding {
    fn last_word(state: impl Into<String>, next: Option<String>) -> Self {
        Self { state: state.into(), next, settles: true }
    }

    fn and_more(state: impl Into<String>, next: Option<String>) -> Self {
        Self { state: state.into(), next, settles: false }
    }
}

fn state_of(facts: &Facts<'_>) -> Finding {
    let name = facts.name;
    if let Some(exit) = facts.worker.and_then(|worker| worker.exit.as_ref()) {
        return exited(name, exit);
    }
    if let Some((kind, state)) = facts.down.first() {
        let next = Some("see why with `relay-broker actors`".to_owned());
        return Finding::and_more(format!("has a {kind} that does not run now ({state})"), next);
    }
    match facts.phase {
        None => Finding::and_more(
            "is not answered for by the agent registry, which is busy or has let it go",
            Some("ask again, then look at the registry with `relay-broker actors`".to_owned()),
        ),
        Some(AgentPhase::Registering) => match facts.session {
            Readiness::Offline { why, next } => Finding::last_word(
                format!("waits to be registered at the engine, which is not connected ({why})"),
                Some(next.clone()),
            ),
            _ => Finding::last_word("is being registered at the engine", None),
        },
        Some(AgentPhase::Starting) => Finding::last_word("is being started", None),
        Some(AgentPhase::Restarting) => Finding::last_word(
            "has failed and is started again soon; its mail waits at the engine",
            Some("`relay-broker crashes` shows how it ended".to_owned()),
        ),
        Some(AgentPhase::Releasing) => Finding::last_word("is being released", None),
        Some(AgentPhase::Quarantined) => Finding::last_word(
            "is quarantined: its delivery cursor failed again and again, so nothing is acked and the engine \
             keeps its mail",
            Some(format!("release it and spawn it again: `relay-broker release {name}`")),
        ),
        Some(AgentPhase::Live) => facts.worker.map_or_else(
            || Finding::and_more("runs, and shows nothing of its terminal yet", None),
            |worker| live(name, worker, facts.quiet_for),
        ),
    }
}

fn exited(name: &str, exit: &ExitRecord) -> Finding {
    let last = exit.last_output.lines().rev().find(|line| !line.trim().is_empty());
    let said = last.map(|line| format!(", its last line was `{}`", line.trim())).unwrap_or_default();
    let seconds = exit.uptime_ms / 1000;
    Finding::last_word(
        format!("has exited with {} after {seconds} s{said}", exit.how()),
        Some(format!("spawn it again: `relay-broker spawn {name} -- COMMAND`")),
    )
}

fn live(name: &str, worker: &WorkerDetail, quiet_for: Option<Duration>) -> Finding {
    let because = if worker.because.is_empty() { String::new() } else { format!(" ({})", worker.because) };
    let quiet = quiet_for
        .map_or_else(|| ", no output yet".to_owned(), |quiet| format!(", last output {} ago", rough(quiet)));
    match worker.state {
        None | Some(AgentState::Starting) => {
            Finding::and_more(format!("has not shown yet that it is ready{because}{quiet}"), None)
        }
        Some(AgentState::Blocked) => Finding::and_more(
            format!("is blocked{because}{quiet}"),
            Some(match &worker.dialog {
                Some(dialog) => format!(
                    "answer it with `relay-broker answer {name} CHOICE`, where CHOICE is one of: {}",
                    dialog.choices.join(", ")
                ),
                None => format!("look at its screen below and answer it: POST /api/input/{name}"),
            }),
        ),
        Some(AgentState::Idle) => Finding::and_more(format!("is idle{because}{quiet}"), None),
        Some(AgentState::Working) => Finding::and_more(format!("is working{because}{quiet}"), None),
        Some(AgentState::NotReading) => Finding::and_more(
            format!("does not read its input{because}{quiet}"),
            Some(format!("wait until it reads, or release it: `relay-broker release {name}`")),
        ),
        Some(AgentState::Human) => {
            Finding::and_more(format!("is being typed to by a person{because}{quiet}"), None)
        }
        Some(AgentState::Exited) => Finding::and_more(
            format!("has exited{quiet}"),
            Some(format!("spawn it again: `relay-broker spawn {name} -- COMMAND`")),
        ),
    }
}

struct Message {
    text: String,
    next: Option<String>,
}

fn message_of(facts: &Facts<'_>) -> Message {
    let Some(cursor) = facts.cursor else {
        return Message { text: "its mailbox shows nothing yet".to_owned(), next: None };
    };
    let Some(last) = &cursor.last else {
        return Message { text: "no message has come for it yet".to_owned(), next: None };
    };
    let what = format!("its last message (seq {} from {})", last.seq, last.from);
    let mut message = if last.waiting_for.is_empty() {
        Message { text: settled(&what, last, cursor), next: None }
    } else {
        let so_far = last.rung.map_or("has not begun", so_far);
        let text = format!("{what} {so_far} and waits for: {}", last.waiting_for);
        Message { text, next: stuck_next(last, facts) }
    };
    let behind = cursor.held.saturating_sub(usize::from(cursor.held > 0 && last.seq > cursor.acked));
    if behind > 0 {
        message.text.push_str(&format!("; {behind} other {} held", if behind == 1 { "is" } else { "are" }));
    }
    if cursor.gaps > 0 {
        let missing = format!("; {} before it have not come and the engine was asked for them", cursor.gaps);
        message.text.push_str(&missing);
    }
    message
}

/// What a person holds back. Nothing to do while nothing waits.
fn hold_of(name: &str, cursor: &CursorView) -> Option<Message> {
    if cursor.delivery_mode == DeliveryMode::AutoInject {
        return None;
    }
    let waiting = match cursor.held_back {
        0 => "none is waiting".to_owned(),
        1 => "1 is waiting".to_owned(),
        n => format!("{n} are waiting"),
    };
    let text = format!("its messages are held until a person lets them through, {waiting}");
    let flush = format!(
        "let them through with `relay-broker flush {name}`, or for good with `relay-broker auto {name}`"
    );
    Some(Message { text, next: (cursor.held_back > 0).then_some(flush) })
}

fn letters_of(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 message could not be put in".to_owned()),
        n => Some(format!("{n} messages could not be put in")),
    }
}

fn settled(what: &str, last: &LastDelivery, cursor: &CursorView) -> String {
    let reached = last.rung.map_or("was set aside", so_far);
    let acked = last.seq.0 == 0 || cursor.acked >= last.seq;
    match (acked, cursor.journalled >= last.seq) {
        (true, _) => format!("{what} {reached} and is acked"),
        (false, true) => format!("{what} {reached}, its proof is on disk, and the ack is on its way"),
        (false, false) => format!("{what} {reached}, and its proof is being written"),
    }
}

/// What only a person can help with.
fn stuck_next(last: &LastDelivery, facts: &Facts<'_>) -> Option<String> {
    let state = facts.worker.and_then(|worker| worker.state);
    let busy = matches!(state, Some(AgentState::Working | AgentState::Starting | AgentState::Human));
    let landed = last.rung.is_some_and(|rung| rung >= Rung::Landed);
    (landed && !busy).then(|| {
        format!(
            "its text stands in the composer: look at the screen, POST /api/input/{} if it needs a key",
            facts.name
        )
    })
}

fn so_far(rung: Rung) -> &'static str {
    match rung {
        Rung::Queued => "is queued for the terminal",
        Rung::Written => "is written to the terminal",
        Rung::Consumed => "was read by the program",
        Rung::Landed => "stands in the composer",
        Rung::Submitted => "was submitted",
        Rung::Accepted => "was accepted as a turn",
    }
}

/// A time that a person can take in.
fn rough(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        s @ 1..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{NodeId, NodeName, Seq},
        messages::{process::EndedBy, pty::Dialog},
    };

    struct Case {
        phase: Option<AgentPhase>,
        worker: Option<WorkerDetail>,
        cursor: Option<CursorView>,
        down: Vec<(&'static str, String)>,
        session: Readiness,
        dead_letters: usize,
    }

    fn live_session() -> Readiness {
        Readiness::Live { node_id: NodeId::from("node_1"), node_name: NodeName::from("n") }
    }

    fn idle() -> Case {
        Case {
            phase: Some(AgentPhase::Live),
            worker: Some(worker(AgentState::Idle, "prompt at row 3")),
            cursor: Some(CursorView::default()),
            down: Vec::new(),
            session: live_session(),
            dead_letters: 0,
        }
    }

    fn worker(state: AgentState, because: &str) -> WorkerDetail {
        WorkerDetail { state: Some(state), because: because.into(), ..WorkerDetail::default() }
    }

    fn cursor(rung: Option<Rung>, waiting_for: &str, acked: u64) -> CursorView {
        let last = LastDelivery {
            delivery_id: "d3".into(),
            msg_id: "m3".into(),
            seq: Seq(3),
            from: "bob".into(),
            queued_at_ms: 1_000,
            attempts: 1,
            rung,
            waiting_for: waiting_for.into(),
        };
        CursorView {
            received: Seq(3),
            acked: Seq(acked),
            journalled: Seq(acked),
            held: usize::from(acked < 3),
            last: Some(last),
            ..CursorView::default()
        }
    }

    fn exit(code: i32) -> ExitRecord {
        ExitRecord {
            uptime_ms: 4200,
            last_output: "boom\n\n".into(),
            ..ExitRecord::with_code(EndedBy::Itself, code)
        }
    }

    fn said(case: &Case) -> Verdict {
        explain(&Facts {
            name: "alice",
            phase: case.phase,
            worker: case.worker.as_ref(),
            cursor: case.cursor.as_ref(),
            down: &case.down,
            session: &case.session,
            dead_letters: case.dead_letters,
            quiet_for: Some(Duration::from_secs(4)),
        })
    }

    #[test]
    fn every_standing_of_an_agent_has_its_sentence() {
        let offline = Readiness::Offline { why: "refused".into(), next: "trying again in 4 s".into() };
        let gone = WorkerDetail { exit: Some(exit(7)), ..WorkerDetail::default() };
        let table = [
            (
                idle(),
                "alice is idle (prompt at row 3), last output 4 s ago; no message has come for it yet; nothing to do",
            ),
            (
                Case { cursor: Some(cursor(Some(Rung::Submitted), "", 3)), ..idle() },
                "alice is idle (prompt at row 3), last output 4 s ago; its last message (seq 3 from bob) was submitted and is acked; nothing to do",
            ),
            (
                Case { cursor: Some(cursor(Some(Rung::Consumed), "", 2)), ..idle() },
                "alice is idle (prompt at row 3), last output 4 s ago; its last message (seq 3 from bob) was read by the program, and its proof is being written; nothing to do",
            ),
            (
                Case {
                    worker: Some(worker(AgentState::Working, "")),
                    cursor: Some(cursor(None, "the current turn to end", 2)),
                    ..idle()
                },
                "alice is working, last output 4 s ago; its last message (seq 3 from bob) has not begun and waits for: the current turn to end; nothing to do",
            ),
            (
                Case {
                    worker: Some(worker(AgentState::Blocked, "dialog: Trust this folder?")),
                    cursor: Some(cursor(Some(Rung::Queued), "the dialog to be answered", 2)),
                    ..idle()
                },
                "alice is blocked (dialog: Trust this folder?), last output 4 s ago; its last message (seq 3 from bob) is queued for the terminal and waits for: the dialog to be answered; next: look at its screen below and answer it: POST /api/input/alice",
            ),
            (
                Case {
                    worker: Some(WorkerDetail {
                        dialog: Some(Dialog {
                            id: "q".into(),
                            rule: "trust".into(),
                            text: "Trust this folder?".into(),
                            choices: vec!["yes".into(), "no".into()],
                        }),
                        ..worker(AgentState::Blocked, "dialog")
                    }),
                    ..idle()
                },
                "alice is blocked (dialog), last output 4 s ago; no message has come for it yet; next: answer it with `relay-broker answer alice CHOICE`, where CHOICE is one of: yes, no",
            ),
            (
                Case {
                    cursor: Some(CursorView {
                        delivery_mode: DeliveryMode::ManualFlush,
                        ..CursorView::default()
                    }),
                    ..idle()
                },
                "alice is idle (prompt at row 3), last output 4 s ago; no message has come for it yet; its messages are held until a person lets them through, none is waiting; nothing to do",
            ),
            (
                Case {
                    cursor: Some(CursorView {
                        delivery_mode: DeliveryMode::ManualFlush,
                        held_back: 1,
                        ..cursor(None, "a person", 2)
                    }),
                    ..idle()
                },
                "alice is idle (prompt at row 3), last output 4 s ago; its last message (seq 3 from bob) has not begun and waits for: a person; its messages are held until a person lets them through, 1 is waiting; next: let them through with `relay-broker flush alice`, or for good with `relay-broker auto alice`",
            ),
            (
                Case { cursor: Some(cursor(Some(Rung::Landed), "the composer to take it", 2)), ..idle() },
                "alice is idle (prompt at row 3), last output 4 s ago; its last message (seq 3 from bob) stands in the composer and waits for: the composer to take it; next: its text stands in the composer: look at the screen, POST /api/input/alice if it needs a key",
            ),
            (
                Case { dead_letters: 2, ..idle() },
                "alice is idle (prompt at row 3), last output 4 s ago; no message has come for it yet; 2 messages could not be put in; next: see why with `relay-broker dead-letters`",
            ),
            (
                Case { session: offline.clone(), ..idle() },
                "alice is idle (prompt at row 3), last output 4 s ago; no message has come for it yet; the node is offline (refused), so new messages wait at the engine; next: trying again in 4 s",
            ),
            (
                Case { phase: Some(AgentPhase::Registering), worker: None, session: offline, ..idle() },
                "alice waits to be registered at the engine, which is not connected (refused); next: trying again in 4 s",
            ),
            (
                Case { worker: Some(gone), ..idle() },
                "alice has exited with code 7 after 4 s, its last line was `boom`; next: spawn it again: `relay-broker spawn alice -- COMMAND`",
            ),
            (
                Case { phase: Some(AgentPhase::Quarantined), ..idle() },
                "alice is quarantined: its delivery cursor failed again and again, so nothing is acked and the engine keeps its mail; next: release it and spawn it again: `relay-broker release alice`",
            ),
            (
                Case { down: vec![("pty_worker", "restarting".into())], ..idle() },
                "alice has a pty_worker that does not run now (restarting); no message has come for it yet; next: see why with `relay-broker actors`",
            ),
            (Case { phase: Some(AgentPhase::Releasing), ..idle() }, "alice is being released; nothing to do"),
        ];
        for (case, sentence) in table {
            assert_eq!(said(&case).summary, sentence);
        }
    }

    #[test]
    fn what_is_held_and_what_is_missing_is_counted() {
        let view = CursorView { held: 5, gaps: 2, ..cursor(None, "an earlier message", 0) };
        let summary = said(&Case { cursor: Some(view), ..idle() }).summary;
        assert!(summary.contains("4 other are held"), "{summary}");
        assert!(summary.contains("2 before it have not come"), "{summary}");
    }

    #[test]
    fn an_agent_that_only_its_probes_know_is_explained_too() {
        let verdict = said(&Case { phase: None, worker: None, cursor: None, ..idle() });
        assert!(verdict.summary.contains("not answered for"), "{}", verdict.summary);
        assert!(verdict.next.is_some());
    }
}
