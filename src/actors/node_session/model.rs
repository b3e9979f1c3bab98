//! The way to a live session under any engine and mint: random events in any order and at any time, with the
//! restart policy deciding what follows each end.
//!
//! `MODEL_CASES` sets the number of schedules; a failure prints the schedule, and proptest's seed file repeats
//! it.

use std::time::{Duration, Instant};

use proptest::{prelude::*, test_runner::RngAlgorithm};

use super::phase::{Effect, Event, Handshake, Machine};
use crate::{
    config::Timings,
    ids::Generation,
    messages::{
        lifecycle::{ActorKind, Decision, ExitReason},
        session::Dialect,
    },
    supervision::policy::{self, History},
};

/// What the world does next. What does not fit the phase is what a late or confused world does.
#[derive(Clone, Debug)]
enum Op {
    Granted,
    NotYet(u16),
    KeyRefused,
    MintGone,
    Connected,
    Status(u16),
    Unreachable,
    /// A reply to the registration so many before the newest.
    Replied(usize),
    /// An error for it, with this code.
    Errored(usize, usize),
    Closed(bool),
    /// Milliseconds.
    Pass(u32),
}

const CODES: [&str; 6] = [
    "invalid_message",
    "provider_instance_conflict",
    "node_id_mismatch",
    "node_not_found",
    "node_name_conflict",
    "internal_error",
];
/// Longer than any wait of the machine.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// Forms that one socket is sent at most: a conflict is retried every five seconds for a minute, and each try
/// may fall back.
const FORMS_MAX: usize = 30;

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Granted),
        1 => (1u16..60_000).prop_map(Op::NotYet),
        1 => Just(Op::KeyRefused),
        1 => Just(Op::MintGone),
        6 => Just(Op::Connected),
        3 => prop::sample::select(vec![401, 401, 401, 403, 404, 426, 429, 500, 503]).prop_map(Op::Status),
        1 => Just(Op::Unreachable),
        4 => (0usize..3).prop_map(Op::Replied),
        4 => (0usize..2, 0..CODES.len()).prop_map(|(back, code)| Op::Errored(back, code)),
        2 => any::<bool>().prop_map(Op::Closed),
        6 => (1u32..70_000).prop_map(Op::Pass),
    ]
}

struct Run {
    machine: Machine,
    now: Instant,
    history: History,
    /// The newest token that the mint gave; one that came too late is not taken.
    offered: Generation,
    /// The one that the session took.
    token: Generation,
    /// Request ids since the socket opened.
    sent: Vec<String>,
    refused: Option<Generation>,
    enrolled_again: u32,
    /// 401s since a healthy spell.
    unauthorized: u32,
    parked: bool,
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            machine: Machine::new(Timings::default()),
            now: Instant::now(),
            history: History::default(),
            offered: Generation::default(),
            token: Generation::default(),
            sent: Vec::new(),
            refused: None,
            enrolled_again: 0,
            unauthorized: 0,
            parked: false,
        };
        run.step(Event::Started);
        run
    }

    fn apply(&mut self, op: Op) {
        let sent =
            |back: usize| self.sent.iter().rev().nth(back).cloned().unwrap_or_else(|| "other".to_owned());
        match op {
            Op::Granted => {
                self.offered = Generation(self.offered.0 + 1);
                self.step(Event::Granted(self.offered));
            }
            Op::NotYet(ms) => self.step(Event::NotYet { after: Duration::from_millis(ms.into()) }),
            Op::KeyRefused => self.step(Event::KeyRefused { why: "no".to_owned() }),
            Op::MintGone => self.step(Event::MintGone),
            Op::Connected => self.step(Event::Connected),
            Op::Status(status) => {
                let retry_after = (status == 429).then_some(Duration::from_secs(3));
                let how = Handshake::Status { status, why: "no".to_owned(), retry_after };
                self.step(Event::HandshakeFailed(how));
            }
            Op::Unreachable => self.step(Event::HandshakeFailed(Handshake::Transport("no".to_owned()))),
            Op::Replied(back) => {
                let id = sent(back);
                self.step(Event::Replied { id: &id });
            }
            Op::Errored(back, code) => {
                let id = sent(back);
                self.step(Event::Errored { id: &id, code: CODES[code], message: "no" });
            }
            Op::Closed(superseded) => {
                let reason = superseded.then(|| "superseded".to_owned());
                self.step(Event::Closed { reason, why: "gone".to_owned() });
            }
            Op::Pass(ms) => {
                self.now += Duration::from_millis(ms.into());
                self.step(Event::Time);
            }
        }
    }

    fn step(&mut self, event: Event<'_>) {
        let effects = self.machine.step(self.now, event);
        let ends = effects.iter().filter(|effect| matches!(effect, Effect::Exit(_))).count();
        assert!(ends == 0 || effects.len() == 1, "an end is all there is: {effects:?}");
        for effect in effects {
            self.take(effect);
        }
        match self.machine.deadline() {
            Some(until) => assert!(until <= self.now + WAIT_MAX, "it waits for {:?}", until - self.now),
            None => assert!(self.machine.is_live(), "nothing would ever happen: {}", self.machine.describe()),
        }
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::AskToken { rejected } => {
                assert_eq!(rejected, self.refused, "the mint hears which token is dead, and of no other");
                self.sent.clear();
            }
            Effect::EnrolAgain { .. } => {
                self.enrolled_again += 1;
                assert_eq!(self.enrolled_again, 1, "once, until a session is live");
                self.sent.clear();
            }
            Effect::Connect => self.token = self.offered,
            Effect::Register { id, form } => {
                let is_first = self.sent.is_empty();
                let known = self.machine.dialect() == Some(Dialect::V5);
                assert!(!is_first || known || form == Dialect::V6, "an unknown engine is asked for the most");
                assert!(!self.sent.contains(&id), "{id} twice");
                self.sent.push(id);
                assert!(self.sent.len() <= FORMS_MAX, "{} forms", self.sent.len());
            }
            Effect::GoLive(_) => {
                assert!(!self.sent.is_empty(), "live without having registered");
                self.enrolled_again = 0;
            }
            Effect::Healthy => {
                assert!(self.machine.is_live());
                self.unauthorized = 0;
                self.history.healthy();
            }
            Effect::Exit(reason) => self.end(&reason),
        }
    }

    /// Life after this one, as the runner leads it.
    fn end(&mut self, reason: &ExitReason) {
        if let ExitReason::Unauthorized { token } = reason {
            assert_eq!(*token, self.token);
            self.refused = Some(*token);
            self.unauthorized += 1;
        }
        let decision = policy::decide(ActorKind::NodeSession, reason, &mut self.history, self.now, 0.0);
        self.parked = matches!(decision, Decision::Park { .. });
        let wait = match decision {
            Decision::Restart { after } => after,
            Decision::Park { retry, .. } => retry,
            other => panic!("a session is never given up: {other:?}"),
        };
        if self.unauthorized >= policy::UNAUTHORIZED_MAX && matches!(reason, ExitReason::Unauthorized { .. })
        {
            assert!(self.parked, "{} tokens were refused and it goes on", self.unauthorized);
        }
        assert!(wait >= policy::BACKOFF_FIRST && wait <= policy::PARK_RETRY);
        self.now += wait;
        self.machine.reset();
        self.sent.clear();
        let effects = self.machine.step(self.now, Event::Started);
        assert_eq!(effects, [Effect::AskToken { rejected: self.refused }]);
    }

    /// With an engine and a mint that oblige, it is live before long.
    fn finish(&mut self) {
        for _ in 0..8 {
            if self.machine.is_live() {
                return;
            }
            match self.machine.describe() {
                "asking for a token" => self.apply(Op::Granted),
                "waiting for a token" => self.apply(Op::Pass(70_000)),
                "connecting" => self.apply(Op::Connected),
                "registering" => self.apply(Op::Replied(0)),
                other => panic!("it is {other}"),
            }
        }
        panic!("stuck: {}", self.machine.describe());
    }
}

fn cases() -> u32 {
    std::env::var("MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        // Drawing a schedule with the default's cipher costs several times as much as running it.
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_wait_ends_and_every_end_leads_back_to_a_live_session(ops in prop::collection::vec(op(), 0..40)) {
        let mut run = Run::new();
        for op in ops {
            run.apply(op);
        }
        run.finish();
    }
}
