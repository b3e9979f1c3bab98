//! What all records together say: a pure fold.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{DeadLetter, LiveAgent, Outcome, Record, Seen, Spans};
use crate::{
    ids::{AgentId, DeliveryId, InvocationId, MsgId, Seq},
    messages::{delivery::Rung, invoke::InvocationResult},
};

/// Dead letters kept; the oldest is dropped first.
pub const DEAD_LETTERS_MAX: usize = 500;
/// Cursors kept of agents that do not run; the one that ended first is dropped first.
pub const ABSENT_CURSORS_MAX: usize = 1024;
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
}

impl CursorState {
    /// Takes in a record about this mailbox; others change nothing.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Seeded { at, .. } => {
                self.move_to(self.position.map_or(at.0, |here| here.0.max(at.0)));
            }
            Record::Handed { delivery, seq, attempt, .. } => {
                let rung = self.unfinished.get(delivery).and_then(|before| before.rung);
                self.unfinished.insert(delivery.clone(), Attempt { seq: *seq, attempt: *attempt, rung });
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
    ended: VecDeque<Ended>,
}

impl State {
    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Seeded { agent, .. }
            | Record::Handed { agent, .. }
            | Record::Reached { agent, .. }
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
        agents.chain(cursors).chain(dead).chain(ended)
    }

    pub(super) fn cursor(&self, agent: &AgentId) -> CursorState {
        self.cursors.get(agent).cloned().unwrap_or_default()
    }

    pub(super) fn agents(&self) -> Vec<LiveAgent> {
        self.live.values().cloned().collect()
    }

    pub(super) fn dead_letters(&self) -> Vec<DeadLetter> {
        self.dead.iter().cloned().collect()
    }

    pub(super) fn invocation(&self, id: &InvocationId) -> Option<InvocationResult> {
        self.ended.iter().find(|ended| ended.invocation == *id).map(|ended| ended.result.clone())
    }
}
