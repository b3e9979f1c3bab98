//! The way to a live session: events in, effects out.
//!
//! ```text
//! Asking --Granted--> Connecting --Connected--> Registering --Accepted--> Live
//!   |  ^--NotYet, time--|                          | id or name refused: EnrolAgain, once --> Asking
//!   `--KeyRefused--> exit                          | extended form not understood: the 5.0 form, same socket
//! any --Closed, time--> exit
//! ```
//!
//! There is no phase between the engine's "yes" and Live: the inventory and the first heartbeat are sent in
//! the same breath, and behind a large replay their reply may come late. Whether it comes at all is watched
//! by [`super::replay`].
//!
//! What outlives a socket: the dialect that this engine was found to speak, the token generation that was
//! refused, and that enrolment was already repeated in vain.

use std::time::{Duration, Instant};

use crate::{
    config::Timings,
    ids::Generation,
    messages::{lifecycle::ExitReason, session::Dialect},
    wire::codes::{INSTANCE_CONFLICT, INVALID_MESSAGE},
};

/// A mint answers or drops the question; this only guards against one that does neither.
const TOKEN_PATIENCE: Duration = Duration::from_secs(120);
/// The socket client has limits of its own, which are shorter.
const CONNECT_PATIENCE: Duration = Duration::from_secs(40);
/// An engine is asked again for the extended form after this long (spec/wire 7).
const DIALECT_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Between registrations while another instance holds our provider (spec/wire 7).
const CONFLICT_RETRY: Duration = Duration::from_secs(5);
/// How long another instance may take to time out before it counts as another broker (spec/wire 7).
const CONFLICT_PATIENCE: Duration = Duration::from_secs(60);

/// Codes that say: this id, or this name, is not yours (spec/wire 4.4).
const ENROL_AGAIN: [&str; 3] = ["node_id_mismatch", "node_not_found", "node_name_conflict"];

/// Where the session stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    /// No life has begun.
    Idle,
    /// The mint has been asked.
    Asking {
        /// When we give up on it.
        until: Instant,
    },
    /// The mint has no token yet.
    Waiting {
        /// When to ask again.
        until: Instant,
    },
    /// The handshake is under way.
    Connecting {
        /// When we give up on it.
        until: Instant,
    },
    /// `node.register` was sent.
    Registering(Registering),
    /// The engine has confirmed the node.
    Live {
        /// When the healthy spell is reached; `None` once it was.
        healthy_at: Option<Instant>,
    },
}

/// A registration under way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Registering {
    /// Each form that was sent, with its request id. An engine that took its time with the first may answer
    /// it after the second went out.
    sent: Vec<(String, Dialect)>,
    /// When the next step is taken: fall back, repeat, or give up.
    until: Instant,
    /// Set while another instance holds our provider: when that stops being a quick restart.
    conflict_until: Option<Instant>,
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Event<'a> {
    /// A life begins.
    Started,
    /// The mint gave this token.
    Granted(Generation),
    /// The mint has none yet.
    NotYet {
        /// Ask again after this.
        after: Duration,
    },
    /// The mint will have none until a person acts.
    KeyRefused {
        /// In words.
        why: String,
    },
    /// The mint ended before it answered.
    MintGone,
    /// The socket is open.
    Connected,
    /// The handshake failed.
    HandshakeFailed(Handshake),
    /// A reply arrived that may be for the registration.
    Replied {
        /// Its id.
        id: &'a str,
    },
    /// An error arrived that may be for the registration.
    Errored {
        /// Its id.
        id: &'a str,
        /// Its code.
        code: &'a str,
        /// Its words.
        message: &'a str,
    },
    /// The socket ended.
    Closed {
        /// The close frame's reason, if one came.
        reason: Option<String>,
        /// In words.
        why: String,
    },
    /// A deadline may have passed.
    Time,
}

/// How a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Handshake {
    /// The engine answered with this status instead of 101.
    Status {
        /// The status.
        status: u16,
        /// In words.
        why: String,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// It did not come to an answer.
    Transport(String),
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// Ask the mint.
    AskToken {
        /// The generation that was refused, if one was.
        rejected: Option<Generation>,
    },
    /// Ask the mint to enrol again; drop the socket.
    EnrolAgain {
        /// The engine's code.
        code: String,
    },
    /// Open the socket with the token at hand.
    Connect,
    /// Send `node.register` in this form.
    Register {
        /// Its request id.
        id: String,
        /// The form.
        form: Dialect,
    },
    /// The session is live.
    GoLive(Dialect),
    /// The healthy spell is reached.
    Healthy,
    /// This life ends.
    Exit(ExitReason),
}

/// The machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    phase: Phase,
    timings: Timings,
    token: Generation,
    requests: u64,
    rejected: Option<Generation>,
    dialect: Option<(Dialect, Instant)>,
    enrolled_again: bool,
}

impl Machine {
    /// A machine that has not begun.
    pub(super) fn new(timings: Timings) -> Self {
        Self {
            phase: Phase::Idle,
            timings,
            token: Generation::default(),
            requests: 0,
            rejected: None,
            dialect: None,
            enrolled_again: false,
        }
    }

    /// Forgets the socket and keeps what outlives it.
    pub(super) fn reset(&mut self) {
        self.phase = Phase::Idle;
    }

    /// True once the engine has confirmed the node.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live { .. })
    }

    /// What this engine was found to speak.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        self.dialect.map(|(dialect, _)| dialect)
    }

    /// Forgets what this engine was found to speak: it is another one now.
    pub(super) fn forget_dialect(&mut self) {
        self.dialect = None;
    }

    /// The phase in words, for the debug page.
    pub(super) fn describe(&self) -> &'static str {
        match self.phase {
            Phase::Idle => "starting",
            Phase::Asking { .. } => "asking for a token",
            Phase::Waiting { .. } => "waiting for a token",
            Phase::Connecting { .. } => "connecting",
            Phase::Registering(_) => "registering",
            Phase::Live { .. } => "live",
        }
    }

    /// When [`Event::Time`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Asking { until } | Phase::Waiting { until } | Phase::Connecting { until } => Some(*until),
            Phase::Registering(registering) => Some(registering.until),
            Phase::Live { healthy_at } => *healthy_at,
        }
    }

    /// Takes an event in. An event that does not belong to the phase changes nothing.
    pub(super) fn step(&mut self, now: Instant, event: Event<'_>) -> Vec<Effect> {
        match (event, &self.phase) {
            (Event::Started, _) => self.ask(now),
            (Event::Granted(generation), Phase::Asking { .. }) => {
                self.token = generation;
                self.phase = Phase::Connecting { until: now + CONNECT_PATIENCE };
                vec![Effect::Connect]
            }
            (Event::NotYet { after }, Phase::Asking { .. }) => {
                self.phase = Phase::Waiting { until: now + after };
                vec![]
            }
            (Event::KeyRefused { why }, Phase::Asking { .. }) => vec![self.exit(ExitReason::KeyRefused(why))],
            (Event::MintGone, Phase::Asking { .. }) => {
                vec![self.lost("the token mint ended before it answered")]
            }
            (Event::Connected, Phase::Connecting { .. }) => self.register(now, self.first_form(now)),
            (Event::HandshakeFailed(how), Phase::Connecting { .. }) => vec![self.refused_at_the_door(how)],
            (Event::Replied { id }, Phase::Registering(_)) => self.replied(now, id),
            (Event::Errored { id, code, message }, Phase::Registering(_)) => {
                self.errored(now, id, code, message)
            }
            (Event::Closed { reason, why }, _) => {
                vec![if reason.as_deref() == Some("superseded") {
                    self.exit(ExitReason::Superseded)
                } else {
                    self.lost(why)
                }]
            }
            (Event::Time, _) if self.deadline().is_some_and(|at| at <= now) => self.timed_out(now),
            _ => vec![],
        }
    }

    fn ask(&mut self, now: Instant) -> Vec<Effect> {
        self.phase = Phase::Asking { until: now + TOKEN_PATIENCE };
        vec![Effect::AskToken { rejected: self.rejected }]
    }

    fn first_form(&self, now: Instant) -> Dialect {
        match self.dialect {
            Some((Dialect::V5, learnt)) if now.duration_since(learnt) < DIALECT_KEPT => Dialect::V5,
            // The extended form has no effect on an engine that does not read it; the other order would
            // leave a stale provider behind on one that does.
            _ => Dialect::V6,
        }
    }

    fn register(&mut self, now: Instant, form: Dialect) -> Vec<Effect> {
        self.requests += 1;
        let id = format!("node_register_{}", self.requests);
        let until = now + self.timings.register;
        let sent = (id.clone(), form);
        match &mut self.phase {
            Phase::Registering(registering) => {
                registering.sent.push(sent);
                registering.until = until;
            }
            phase => {
                *phase = Phase::Registering(Registering { sent: vec![sent], until, conflict_until: None });
            }
        }
        vec![Effect::Register { id, form }]
    }

    fn replied(&mut self, now: Instant, id: &str) -> Vec<Effect> {
        let Phase::Registering(registering) = &self.phase else { return vec![] };
        let Some((_, dialect)) = registering.sent.iter().find(|(sent, _)| sent == id) else { return vec![] };
        let dialect = *dialect;
        self.dialect = Some((dialect, now));
        self.enrolled_again = false;
        self.phase = Phase::Live { healthy_at: Some(now + self.timings.healthy) };
        vec![Effect::GoLive(dialect)]
    }

    fn errored(&mut self, now: Instant, id: &str, code: &str, message: &str) -> Vec<Effect> {
        let Phase::Registering(registering) = &mut self.phase else { return vec![] };
        let Some((last, form)) = registering.sent.last().cloned() else { return vec![] };
        if code == INVALID_MESSAGE {
            // It never carries our id, and nothing else was sent yet that it could be about.
            return self.not_understood(now, form);
        }
        if id != last {
            return vec![];
        }
        if code == INSTANCE_CONFLICT {
            registering.conflict_until.get_or_insert(now + CONFLICT_PATIENCE);
            registering.until = now + CONFLICT_RETRY;
            return vec![];
        }
        let story = format!("{code}: {message}");
        if !ENROL_AGAIN.contains(&code) {
            return vec![self.exit(ExitReason::Refused(story))];
        }
        if self.enrolled_again {
            let why = format!("{story} (still so after enrolling again; set another node name or node id)");
            return vec![self.exit(ExitReason::Refused(why))];
        }
        self.enrolled_again = true;
        self.phase = Phase::Asking { until: now + TOKEN_PATIENCE };
        vec![Effect::EnrolAgain { code: code.to_owned() }]
    }

    fn not_understood(&mut self, now: Instant, form: Dialect) -> Vec<Effect> {
        match form {
            Dialect::V6 => self.register(now, Dialect::V5),
            Dialect::V5 => {
                self.dialect = None;
                vec![self.exit(ExitReason::Refused("the engine does not read our node.register".to_owned()))]
            }
        }
    }

    fn timed_out(&mut self, now: Instant) -> Vec<Effect> {
        match &mut self.phase {
            Phase::Idle => vec![],
            Phase::Asking { .. } => vec![self.lost("the token mint did not answer")],
            Phase::Waiting { .. } => self.ask(now),
            Phase::Connecting { .. } => vec![self.lost("the handshake took too long")],
            Phase::Registering(registering) => match registering.conflict_until {
                Some(until) if now >= until => vec![self.exit(ExitReason::Superseded)],
                Some(_) => self.register(now, Dialect::V6),
                None if registering.sent.last().is_some_and(|(_, form)| *form == Dialect::V6) => {
                    self.register(now, Dialect::V5)
                }
                None => {
                    self.dialect = None;
                    let limit = self.timings.register;
                    vec![self.lost(format!("no reply to node.register within {limit:?}"))]
                }
            },
            Phase::Live { healthy_at } => {
                *healthy_at = None;
                vec![Effect::Healthy]
            }
        }
    }

    fn refused_at_the_door(&mut self, how: Handshake) -> Effect {
        let reason = match how {
            // Only this status says that the token is dead (spec/wire 2.3).
            Handshake::Status { status: 401, .. } => {
                self.rejected = Some(self.token);
                ExitReason::Unauthorized { token: self.token }
            }
            Handshake::Status { status: 429 | 503, why, retry_after: Some(wait) } => {
                ExitReason::AskedToWait { why, wait }
            }
            Handshake::Status { status: 400..=499, why, .. } => ExitReason::Refused(why),
            Handshake::Status { why, .. } | Handshake::Transport(why) => ExitReason::Disconnected(why),
        };
        self.exit(reason)
    }

    fn lost(&mut self, why: impl Into<String>) -> Effect {
        self.exit(ExitReason::Disconnected(why.into()))
    }

    fn exit(&mut self, reason: ExitReason) -> Effect {
        self.phase = Phase::Idle;
        Effect::Exit(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        machine: Machine,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { machine: Machine::new(Timings::default()), now: Instant::now() }
        }

        fn step(&mut self, event: Event<'_>) -> Vec<Effect> {
            self.machine.step(self.now, event)
        }

        fn after(&mut self, wait: Duration) -> Vec<Effect> {
            self.now += wait;
            self.step(Event::Time)
        }

        /// Up to the sent registration; answers its id and form.
        fn register(&mut self) -> (String, Dialect) {
            self.machine.reset();
            self.step(Event::Started);
            assert_eq!(self.step(Event::Granted(Generation(3))), [Effect::Connect]);
            sent(&self.step(Event::Connected))
        }

        fn live(&mut self) -> Dialect {
            let (id, form) = self.register();
            assert_eq!(self.step(Event::Replied { id: &id }), [Effect::GoLive(form)]);
            form
        }
    }

    fn sent(effects: &[Effect]) -> (String, Dialect) {
        match effects {
            [Effect::Register { id, form }] => (id.clone(), *form),
            other => panic!("not one registration: {other:?}"),
        }
    }

    fn exit(effects: &[Effect]) -> ExitReason {
        match effects {
            [Effect::Exit(reason)] => reason.clone(),
            other => panic!("not an exit: {other:?}"),
        }
    }

    fn error<'a>(id: &'a str, code: &'a str) -> Event<'a> {
        Event::Errored { id, code, message: "words" }
    }

    #[test]
    fn the_way_to_live_begins_with_the_extended_form() {
        let mut bench = Bench::new();
        assert_eq!(bench.step(Event::Started), [Effect::AskToken { rejected: None }]);
        assert_eq!(bench.step(Event::Granted(Generation(0))), [Effect::Connect]);
        let (id, form) = sent(&bench.step(Event::Connected));
        assert_eq!(form, Dialect::V6);
        assert_eq!(bench.step(Event::Replied { id: "another" }), []);
        assert_eq!(bench.step(Event::Replied { id: &id }), [Effect::GoLive(Dialect::V6)]);
        assert_eq!(bench.after(Duration::from_secs(9)), []);
        assert_eq!(bench.after(Duration::from_secs(1)), [Effect::Healthy]);
        assert_eq!(bench.after(Duration::from_secs(100)), [], "said once");
    }

    #[test]
    fn an_engine_that_does_not_read_the_extended_form_gets_the_baseline_and_is_remembered() {
        for by_silence in [false, true] {
            let mut bench = Bench::new();
            let (first, _) = bench.register();
            let effects = if by_silence {
                bench.after(Duration::from_secs(5))
            } else {
                bench.step(error("invented", "invalid_message"))
            };
            let (second, form) = sent(&effects);
            assert_eq!(form, Dialect::V5);
            assert_ne!(first, second);
            assert_eq!(bench.step(Event::Replied { id: &second }), [Effect::GoLive(Dialect::V5)]);
            assert_eq!(bench.register().1, Dialect::V5, "the next socket does not ask again");
            bench.now += DIALECT_KEPT;
            assert_eq!(bench.register().1, Dialect::V6, "a day later it does");
        }
    }

    #[test]
    fn a_slow_engine_may_answer_the_first_form_after_the_second_went_out() {
        let mut bench = Bench::new();
        let (first, _) = bench.register();
        sent(&bench.after(Duration::from_secs(5)));
        assert_eq!(bench.step(Event::Replied { id: &first }), [Effect::GoLive(Dialect::V6)]);
    }

    #[test]
    fn an_engine_that_reads_neither_form_ends_the_life_and_is_asked_from_the_start_again() {
        let mut bench = Bench::new();
        bench.register();
        bench.after(Duration::from_secs(5));
        assert!(matches!(exit(&bench.after(Duration::from_secs(5))), ExitReason::Disconnected(_)));
        assert_eq!(bench.register().1, Dialect::V6);
        bench.step(error("x", "invalid_message"));
        assert!(matches!(exit(&bench.step(error("y", "invalid_message"))), ExitReason::Refused(_)));
    }

    #[test]
    fn enrolment_is_repeated_once_until_a_session_is_live() {
        for code in ENROL_AGAIN {
            let mut bench = Bench::new();
            let (id, _) = bench.register();
            assert_eq!(bench.step(error(&id, code)), [Effect::EnrolAgain { code: code.to_owned() }]);
            assert_eq!(bench.step(Event::Granted(Generation(4))), [Effect::Connect]);
            let (id, _) = sent(&bench.step(Event::Connected));
            assert!(matches!(exit(&bench.step(error(&id, code))), ExitReason::Refused(_)));
            // Nor does the next life mint for the same complaint.
            let (id, _) = bench.register();
            assert!(matches!(exit(&bench.step(error(&id, code))), ExitReason::Refused(_)));
            bench.live();
            let (id, _) = bench.register();
            assert!(matches!(bench.step(error(&id, code))[..], [Effect::EnrolAgain { .. }]));
        }
    }

    #[test]
    fn another_instance_is_waited_out_for_a_minute_and_then_counts_as_another_broker() {
        let mut bench = Bench::new();
        let (mut id, _) = bench.register();
        let mut tries = 0;
        let reason = loop {
            assert_eq!(bench.step(error(&id, INSTANCE_CONFLICT)), []);
            match &bench.after(CONFLICT_RETRY)[..] {
                [Effect::Register { id: next, form: Dialect::V6 }] => id = next.clone(),
                [Effect::Exit(reason)] => break reason.clone(),
                other => panic!("{other:?}"),
            }
            tries += 1;
            assert!(tries < 20);
        };
        assert_eq!(reason, ExitReason::Superseded);
        assert_eq!(tries, 11, "every 5 s within 60 s");
    }

    #[test]
    fn only_a_401_condemns_the_token() {
        let status = |status, retry_after| {
            let why = format!("status {status}");
            Handshake::Status { status, why, retry_after }
        };
        let wait = Duration::from_secs(9);
        let table = [
            (status(401, None), ExitReason::Unauthorized { token: Generation(7) }),
            (status(403, None), ExitReason::Refused("status 403".into())),
            (status(404, None), ExitReason::Refused("status 404".into())),
            (status(426, None), ExitReason::Refused("status 426".into())),
            (status(418, None), ExitReason::Refused("status 418".into())),
            (status(429, Some(wait)), ExitReason::AskedToWait { why: "status 429".into(), wait }),
            (status(503, Some(wait)), ExitReason::AskedToWait { why: "status 503".into(), wait }),
            (status(503, None), ExitReason::Disconnected("status 503".into())),
            (status(500, Some(wait)), ExitReason::Disconnected("status 500".into())),
            (status(200, None), ExitReason::Disconnected("status 200".into())),
            (Handshake::Transport("dns".into()), ExitReason::Disconnected("dns".into())),
        ];
        for (how, expected) in table {
            let mut bench = Bench::new();
            bench.step(Event::Started);
            bench.step(Event::Granted(Generation(7)));
            assert_eq!(exit(&bench.step(Event::HandshakeFailed(how.clone()))), expected);
            let rejected = matches!(expected, ExitReason::Unauthorized { .. }).then_some(Generation(7));
            assert_eq!(bench.step(Event::Started), [Effect::AskToken { rejected }], "{how:?}");
        }
    }

    #[test]
    fn a_mint_without_a_token_is_asked_again_in_time() {
        let mut bench = Bench::new();
        bench.step(Event::Started);
        assert_eq!(bench.step(Event::NotYet { after: Duration::from_secs(4) }), []);
        assert_eq!(bench.after(Duration::from_secs(3)), []);
        assert_eq!(bench.after(Duration::from_secs(1)), [Effect::AskToken { rejected: None }]);
        let refused = bench.step(Event::KeyRefused { why: "no".into() });
        assert_eq!(exit(&refused), ExitReason::KeyRefused("no".into()));
    }

    #[test]
    fn every_wait_ends() {
        let mut bench = Bench::new();
        bench.step(Event::Started);
        assert!(matches!(exit(&bench.after(TOKEN_PATIENCE)), ExitReason::Disconnected(_)));
        bench.step(Event::Started);
        bench.step(Event::Granted(Generation(1)));
        assert!(matches!(exit(&bench.after(CONNECT_PATIENCE)), ExitReason::Disconnected(_)));
    }

    #[test]
    fn a_close_says_whether_another_broker_took_over() {
        let close = |reason: &str| Event::Closed { reason: Some(reason.to_owned()), why: "closed".into() };
        let mut bench = Bench::new();
        bench.live();
        assert_eq!(exit(&bench.step(close("superseded"))), ExitReason::Superseded);
        bench.live();
        assert_eq!(exit(&bench.step(close("force-disconnect"))), ExitReason::Disconnected("closed".into()));
        bench.register();
        let eof = Event::Closed { reason: None, why: "eof".into() };
        assert_eq!(exit(&bench.step(eof)), ExitReason::Disconnected("eof".into()));
    }
}
