//! What all records together say: a pure fold.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{DeadLetter, LiveAgent, Outcome, Record, Seen, Spans};
use crate::{
    ids::{AgentId, AgentName, DeliveryId, InvocationId, MsgId, Seq},
    messages::{
        delivery::Rung,
        invoke::InvocationResult,
        process::{EndedBy, KnownSession, PastExit},
    },
};

/// Dead letters kept; the oldest is dropped first.
pub const DEAD_LETTERS_MAX: usize = 500;
/// Cursors kept of agents that do not run; the one that ended first is dropped first.
pub const ABSENT_CURSORS_MAX: usize = 1024;
/// Ids kept of agents that have ended; the one that ended first is dropped first.
pub const AGENTS_KNOWN_MAX: usize = 500;
/// Ends of programs kept; the oldest is dropped first (spec/pty 12).
pub const EXITS_MAX: usize = 500;
/// Results of invocations are kept at least this long...
pub const INVOCATION_KEPT_MS: u64 = 60 * 60 * 1000;
/// ...unless there are more than this.
pub const INVOCATIONS_MAX: usize = 4096;

/// An agent's mailbox as the journal knows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CursorState {
    /// Everything up to here is settled; `None` before anything is known.
    pub position: Option<Seq>,
    /// What is settled above it.
    pub ahead: Spans,
    /// Handed over and not settled: each may have been typed.
    pub unfinished: BTreeMap<DeliveryId, Attempt>,
    /// Messages that stand in the terminal.
    pub messages: Seen<MsgId>,
    /// Frames outside the mailbox that are settled.
    pub fanout: Seen<DeliveryId>,
}

/// A try whose end is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The place of the delivery.
    pub seq: Seq,
    /// Which try.
    pub attempt: u32,
    /// How far it came, as far as is known.
    pub rung: Option<Rung>,
    /// Programs that ended by themselves while they had it, without a proof.
    #[serde(default)]
    pub deaths: u32,
}

impl CursorState {
    /// Takes in a record about this mailbox; others change nothing.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Seeded { at, .. } => {
                self.move_to(self.position.map_or(at.0, |here| here.0.max(at.0)));
            }
            Record::Handed { delivery, seq, attempt, .. } => {
                let before = self.unfinished.get(delivery);
                let (rung, deaths) = before.map_or((None, 0), |before| (before.rung, before.deaths));
                let attempt = Attempt { seq: *seq, attempt: *attempt, rung, deaths };
                self.unfinished.insert(delivery.clone(), attempt);
            }
            Record::ReaderDied { deliveries, .. } => {
                for delivery in deliveries {
                    if let Some(attempt) = self.unfinished.get_mut(delivery) {
                        attempt.deaths += 1;
                    }
                }
            }
            Record::Reached { delivery, rung, .. } => {
                if let Some(attempt) = self.unfinished.get_mut(delivery) {
                    attempt.rung = attempt.rung.max(Some(*rung));
                }
            }
            Record::Settled { delivery, msg, seq, outcome, .. } => {
                if matches!(outcome, Outcome::Proven(_)) && seq.0 != 0 {
                    self.messages.insert(msg.clone());
                }
                self.finish(delivery, *seq);
            }
            Record::DeadLettered(letter) => {
                if letter.landed && letter.seq.0 != 0 {
                    self.messages.insert(letter.note.msg_id.clone());
                }
                self.finish(&letter.delivery, letter.seq);
            }
            Record::GapSkipped { from, to, .. } => self.settle(*from, *to),
            Record::AgentGone { .. } => {
                // Its place stays: the engine may offer what was settled once more to the next of that
                // identity. What the terminal showed is gone with the terminal.
                self.messages = Seen::default();
                self.fanout = Seen::default();
            }
            Record::Cursor { state, .. } => *self = (**state).clone(),
            Record::KeptLetter(_)
            | Record::DeadLetterCleared { .. }
            | Record::AgentLive(_)
            | Record::AgentKnown { .. }
            | Record::AgentExited(_)
            | Record::InvocationEnded { .. } => {}
        }
    }

    fn settle(&mut self, from: Seq, to: Seq) {
        let position = self.position.map_or(0, |at| at.0);
        self.ahead.insert(from.0.max(position + 1), to.0);
        if self.position.is_some() {
            self.move_to(position);
        }
    }

    fn move_to(&mut self, at: u64) {
        let position = Seq(self.ahead.absorb(at));
        self.position = Some(position);
        // What a skip or a seed has passed is not coming back.
        self.unfinished.retain(|_, attempt| attempt.seq > position);
    }

    fn finish(&mut self, delivery: &DeliveryId, seq: Seq) {
        // Two places in a mailbox may carry one delivery id: only the one that was handed over ends here.
        if self.unfinished.get(delivery).is_some_and(|attempt| attempt.seq == seq) {
            self.unfinished.remove(delivery);
        }
        if seq.0 == 0 {
            self.fanout.insert(delivery.clone());
        } else {
            self.settle(seq, seq);
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Ended {
    invocation: InvocationId,
    result: InvocationResult,
    at_ms: u64,
}

/// Everything that the journal knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    cursors: HashMap<AgentId, CursorState>,
    live: BTreeMap<AgentId, LiveAgent>,
    /// Agents with a cursor and without a process, the longest absent first.
    absent: VecDeque<AgentId>,
    dead: VecDeque<DeadLetter>,
    /// Agents that ended, oldest first, each name once.
    known: VecDeque<(AgentName, AgentId)>,
    ended: VecDeque<Ended>,
    /// Ends of programs, oldest first.
    exits: VecDeque<PastExit>,
}

impl State {
    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Seeded { agent, .. }
            | Record::Handed { agent, .. }
            | Record::Reached { agent, .. }
            | Record::ReaderDied { agent, .. }
            | Record::Settled { agent, .. }
            | Record::GapSkipped { agent, .. }
            | Record::Cursor { agent, .. } => self.cursor_mut(agent).apply(record),
            Record::DeadLettered(letter) => {
                self.cursor_mut(&letter.agent).apply(record);
                self.keep(letter);
            }
            Record::KeptLetter(letter) => self.keep(letter),
            Record::DeadLetterCleared { agent, delivery } => {
                self.dead.retain(|letter| letter.agent != *agent || letter.delivery != *delivery);
            }
            Record::AgentLive(agent) => {
                self.absent.retain(|id| *id != agent.agent);
                self.live.insert(agent.agent.clone(), agent.clone());
            }
            Record::AgentGone { agent } => {
                self.live.remove(agent);
                if let Some(cursor) = self.cursors.get_mut(agent) {
                    cursor.apply(record);
                    self.is_absent(agent.clone());
                }
            }
            Record::AgentExited(exit) => {
                self.exits.push_back((**exit).clone());
                if self.exits.len() > EXITS_MAX {
                    self.exits.pop_front();
                }
            }
            Record::AgentKnown { agent, name } => {
                self.known.retain(|(known, _)| known != name);
                self.known.push_back((name.clone(), agent.clone()));
                if self.known.len() > AGENTS_KNOWN_MAX {
                    self.known.pop_front();
                }
            }
            Record::InvocationEnded { invocation, result, at_ms } => {
                self.ended.retain(|ended| ended.invocation != *invocation);
                self.ended.push_back(Ended {
                    invocation: invocation.clone(),
                    result: result.clone(),
                    at_ms: *at_ms,
                });
                if self.ended.len() > INVOCATIONS_MAX {
                    self.ended.pop_front();
                }
            }
        }
    }

    fn keep(&mut self, letter: &DeadLetter) {
        self.dead.push_back(letter.clone());
        if self.dead.len() > DEAD_LETTERS_MAX {
            self.dead.pop_front();
        }
    }

    fn cursor_mut(&mut self, agent: &AgentId) -> &mut CursorState {
        if !self.cursors.contains_key(agent) && !self.live.contains_key(agent) {
            self.is_absent(agent.clone());
        }
        self.cursors.entry(agent.clone()).or_default()
    }

    fn is_absent(&mut self, agent: AgentId) {
        self.absent.retain(|id| *id != agent);
        self.absent.push_back(agent);
        if self.absent.len() > ABSENT_CURSORS_MAX
            && let Some(longest) = self.absent.pop_front()
        {
            self.cursors.remove(&longest);
        }
    }

    /// Drops results that are older than anybody may still ask for. Stamps from the future (the clock was
    /// set back) start to age now.
    pub(super) fn forget_old(&mut self, now_ms: u64) {
        for ended in &mut self.ended {
            ended.at_ms = ended.at_ms.min(now_ms);
        }
        self.ended.retain(|ended| now_ms - ended.at_ms <= INVOCATION_KEPT_MS);
    }

    /// Few records that say the same as all that were applied.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let absent = self.absent.iter().filter_map(|agent| Some((agent, self.cursors.get(agent)?)));
        let live = self.live.keys().filter_map(|agent| Some((agent, self.cursors.get(agent)?)));
        let agents = self.live.values().cloned().map(Record::AgentLive);
        let cursors = absent
            .chain(live)
            .map(|(agent, state)| Record::Cursor { agent: agent.clone(), state: Box::new(state.clone()) });
        let dead = self.dead.iter().cloned().map(|letter| Record::KeptLetter(Box::new(letter)));
        let ended = self.ended.iter().map(|ended| Record::InvocationEnded {
            invocation: ended.invocation.clone(),
            result: ended.result.clone(),
            at_ms: ended.at_ms,
        });
        let known = self.known.iter();
        let known =
            known.map(|(name, agent)| Record::AgentKnown { agent: agent.clone(), name: name.clone() });
        let exits = self.exits.iter().cloned().map(|exit| Record::AgentExited(Box::new(exit)));
        agents.chain(cursors).chain(dead).chain(known).chain(ended).chain(exits)
    }

    pub(super) fn cursor(&self, agent: &AgentId) -> CursorState {
        self.cursors.get(agent).cloned().unwrap_or_default()
    }

    pub(super) fn agents(&self) -> Vec<LiveAgent> {
        self.live.values().cloned().collect()
    }

    pub(super) fn left_session(&self, name: &AgentName) -> Option<KnownSession> {
        if let Some(live) = self.live.values().find(|live| live.name == *name) {
            return live.session.clone();
        }
        let last = self.exits.iter().rev().find(|past| past.name == *name)?;
        last.session.clone().filter(|_| last.exit.by == EndedBy::Shutdown)
    }

    pub(super) fn exits(&self) -> Vec<PastExit> {
        self.exits.iter().cloned().collect()
    }

    pub(super) fn known_agents(&self) -> Vec<(AgentName, AgentId)> {
        self.known.iter().cloned().collect()
    }

    pub(super) fn dead_letters(&self) -> Vec<DeadLetter> {
        self.dead.iter().cloned().collect()
    }

    pub(super) fn dead_letter_count(&self) -> usize {
        self.dead.len()
    }

    pub(super) fn invocation(&self, id: &InvocationId) -> Option<InvocationResult> {
        self.ended.iter().find(|ended| ended.invocation == *id).map(|ended| ended.result.clone())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ids::{AgentName, SpawnId},
        messages::{
            delivery::Note,
            process::{EndedBy, ExitRecord},
        },
    };

    fn agent(n: u8) -> AgentId {
        AgentId::from(format!("agent_{n}"))
    }

    fn letter(n: u8, seq: u64) -> DeadLetter {
        DeadLetter {
            agent: agent(n),
            name: AgentName::parse("skipper").unwrap(),
            delivery: format!("del_{seq}").into(),
            seq: Seq(seq),
            note: Note {
                from: "harbormaster".into(),
                target: "#dock".into(),
                thread: None,
                msg_id: format!("msg_{seq}").into(),
                body: "moor".into(),
                sent_at: None,
                system: false,
            },
            reason: "refused twice".into(),
            attempts: 2,
            landed: seq.is_multiple_of(2),
            at_ms: 7,
        }
    }

    fn exit(code: i32) -> PastExit {
        PastExit {
            name: AgentName::parse("skipper").unwrap(),
            program: "helm".into(),
            at_ms: 7,
            exit: ExitRecord::with_code(EndedBy::Itself, code),
            session: None,
        }
    }

    /// Any record that a running house may append.
    pub(in crate::store) fn record() -> impl Strategy<Value = Record> {
        let seq = || 0u64..30;
        let outcome = prop_oneof![
            Just(Outcome::Proven(Rung::Submitted)),
            Just(Outcome::AckOnly),
            Just(Outcome::Duplicate),
            Just(Outcome::Unusable)
        ];
        prop_oneof![
            1 => (0u8..3, seq()).prop_map(|(n, at)| Record::Seeded { agent: agent(n), at: Seq(at) }),
            3 => (0u8..3, seq(), 1u32..4).prop_map(|(n, seq, attempt)| Record::Handed {
                agent: agent(n),
                delivery: format!("del_{seq}").into(),
                seq: Seq(seq),
                attempt,
            }),
            2 => (0u8..3, seq()).prop_map(|(n, seq)| Record::Reached {
                agent: agent(n),
                delivery: format!("del_{seq}").into(),
                rung: Rung::Landed,
            }),
            1 => (0u8..3, seq()).prop_map(|(n, seq)| Record::ReaderDied {
                agent: agent(n),
                deliveries: vec![format!("del_{seq}").into()],
            }),
            6 => (0u8..3, seq(), outcome).prop_map(|(n, seq, outcome)| Record::Settled {
                agent: agent(n),
                delivery: format!("del_{seq}").into(),
                msg: format!("msg_{seq}").into(),
                seq: Seq(seq),
                outcome,
            }),
            1 => (0u8..3, seq()).prop_map(|(n, seq)| Record::DeadLettered(Box::new(letter(n, seq)))),
            1 => (0u8..3, seq()).prop_map(|(n, seq)| Record::DeadLetterCleared {
                agent: agent(n),
                delivery: format!("del_{seq}").into(),
            }),
            1 => (0u8..3, seq(), 0u64..4).prop_map(|(n, from, len)| Record::GapSkipped {
                agent: agent(n),
                from: Seq(from),
                to: Seq(from + len),
            }),
            1 => (0u8..3).prop_map(|n| Record::AgentLive(LiveAgent {
                agent: agent(n),
                name: AgentName::parse("skipper").unwrap(),
                spawn: SpawnId::from("spawn"),
                pid: 42,
                started: 4242,
                keep_daemons: false,
                session: None,
            })),
            1 => (0u8..3, 0u8..2).prop_map(|(n, name)| Record::AgentKnown {
                agent: agent(n),
                name: AgentName::parse(&format!("skipper-{name}")).unwrap(),
            }),
            1 => (0u8..3).prop_map(|n| Record::AgentGone { agent: agent(n) }),
            1 => (0u8..5, 0u64..3).prop_map(|(n, at_ms)| Record::InvocationEnded {
                invocation: format!("inv_{n}").into(),
                result: InvocationResult::Failed("spawn_failed".into()),
                at_ms,
            }),
            1 => (0i32..3).prop_map(|n| Record::AgentExited(Box::new(exit(n)))),
        ]
    }

    pub(in crate::store) fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> State {
        let mut state = State::default();
        records.into_iter().for_each(|record| state.apply(record));
        state
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_compacted_records_say_the_same_as_all_of_them(records in prop::collection::vec(record(), 0..200)) {
            let state = fold(&records);
            let few: Vec<_> = state.records().collect();
            prop_assert_eq!(fold(&few), state);
        }
    }

    #[test]
    fn what_is_settled_out_of_order_is_the_past_once_the_rest_is() {
        let settled = |seq| Record::GapSkipped { agent: agent(1), from: Seq(seq), to: Seq(seq) };
        let mut state = fold(&[Record::Seeded { agent: agent(1), at: Seq(42) }, settled(44), settled(46)]);
        assert_eq!(state.cursor(&agent(1)).position, Some(Seq(42)));
        state.apply(&settled(43));
        assert_eq!(state.cursor(&agent(1)).position, Some(Seq(44)));
        state.apply(&settled(45));
        let cursor = state.cursor(&agent(1));
        assert!(cursor.position == Some(Seq(46)) && cursor.ahead.is_empty());
    }

    #[test]
    fn a_released_agent_keeps_its_place_and_nothing_else() {
        let records = [
            Record::Seeded { agent: agent(1), at: Seq(0) },
            Record::Settled {
                agent: agent(1),
                delivery: "del_1".into(),
                msg: "msg_1".into(),
                seq: Seq(1),
                outcome: Outcome::Proven(Rung::Submitted),
            },
            Record::AgentGone { agent: agent(1) },
        ];
        let cursor = fold(&records).cursor(&agent(1));
        assert_eq!(cursor, CursorState { position: Some(Seq(1)), ..CursorState::default() });
    }

    #[test]
    fn everything_that_could_grow_is_bounded() {
        let mut state = State::default();
        for n in 0..2 * ABSENT_CURSORS_MAX {
            state.apply(&Record::Seeded { agent: AgentId::from(format!("a{n}")), at: Seq(1) });
        }
        assert_eq!(state.cursors.len(), ABSENT_CURSORS_MAX);
        for n in 0..2 * DEAD_LETTERS_MAX as u64 {
            state.apply(&Record::KeptLetter(Box::new(letter(1, n))));
        }
        assert_eq!(state.dead.len(), DEAD_LETTERS_MAX);
        assert_eq!(state.dead[0].seq, Seq(DEAD_LETTERS_MAX as u64), "the oldest went first");
        for n in 0..INVOCATIONS_MAX + 10 {
            state.apply(&Record::InvocationEnded {
                invocation: format!("inv_{n}").into(),
                result: InvocationResult::Failed("spawn_failed".into()),
                at_ms: 0,
            });
        }
        assert_eq!(state.ended.len(), INVOCATIONS_MAX);
        for n in 0..2 * EXITS_MAX as i32 {
            state.apply(&Record::AgentExited(Box::new(exit(n))));
        }
        assert_eq!(state.exits.len(), EXITS_MAX);
        assert_eq!(state.exits[0].exit.code, Some(EXITS_MAX as i32), "the oldest went first");
    }

    #[test]
    fn a_session_is_left_by_the_end_of_the_broker_and_by_no_release() {
        let skipper = AgentName::parse("skipper").unwrap();
        let session = |id: &str| KnownSession { id: id.into(), harness: "helm".into(), cwd: "/bay".into() };
        let live = |id: &str| {
            Record::AgentLive(LiveAgent {
                agent: agent(1),
                name: skipper.clone(),
                spawn: SpawnId::from("spawn"),
                pid: 42,
                started: 4242,
                keep_daemons: false,
                session: Some(session(id)),
            })
        };
        let gone = || Record::AgentGone { agent: agent(1) };
        let ended = |by| {
            let (exit, session) = (ExitRecord::with_code(by, 0), Some(session("s-1")));
            Record::AgentExited(Box::new(PastExit { exit, session, ..self::exit(0) }))
        };
        for (records, left) in [
            (vec![], None),
            (vec![live("s-1")], Some("s-1")),
            (vec![live("s-1"), live("s-2")], Some("s-2")),
            (vec![live("s-1"), gone()], None),
            (vec![live("s-1"), gone(), ended(EndedBy::Shutdown)], Some("s-1")),
            (vec![live("s-1"), gone(), ended(EndedBy::Release)], None),
            (vec![ended(EndedBy::Shutdown), ended(EndedBy::Itself)], None),
        ] {
            let state = fold(&records);
            let found = state.left_session(&skipper).map(|session| session.id);
            assert_eq!(found, left.map(Into::into), "{records:?}");
            let kept: Vec<_> = state.records().collect();
            assert_eq!(fold(&kept).left_session(&skipper).map(|session| session.id), left.map(Into::into));
        }
    }

    #[test]
    fn a_result_is_kept_for_an_hour_and_a_clock_set_back_does_not_keep_it_for_ever() {
        let ended = |n: u8, at_ms| Record::InvocationEnded {
            invocation: format!("inv_{n}").into(),
            result: InvocationResult::Failed("spawn_failed".into()),
            at_ms,
        };
        let now = 10 * INVOCATION_KEPT_MS;
        let mut state = fold(&[
            ended(1, now - INVOCATION_KEPT_MS - 1),
            ended(2, now - INVOCATION_KEPT_MS),
            ended(3, u64::MAX),
        ]);
        state.forget_old(now);
        let kept = |state: &State, n: u8| state.invocation(&format!("inv_{n}").into()).is_some();
        assert!(!kept(&state, 1) && kept(&state, 2) && kept(&state, 3));
        state.forget_old(now + INVOCATION_KEPT_MS + 1);
        assert!(!kept(&state, 3));
    }
}
