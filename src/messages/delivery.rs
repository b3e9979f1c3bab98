//! The conversation of one delivery:
//! node_session -> delivery_cursor -> pty_worker, back as rungs of proof, and as an ack to node_session.
//!
//! ```text
//! node_session --Deliver--> delivery_cursor --Inject--> pty_worker
//!                           delivery_cursor <--InjectReport-- pty_worker
//! node_session <--Ack------ delivery_cursor   (only once the proof is in the journal)
//! node_session <--RequestReplay
//! ```

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};

use super::{Answer, Reply, hold::DeliveryMode, told};
use crate::ids::{AgentId, AgentName, DeliveryId, Epoch, Generation, MsgId, Seq};

/// How the sender wants a message to reach a busy agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// After the current turn.
    #[default]
    Wait,
    /// Into the current turn.
    Steer,
}

/// What a message says and where it comes from; everything an agent is shown, already taken out of the
/// engine's payload. Nothing in here is trusted text: the worker sanitises before it types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Who says it, from the engine's data, never from the body.
    pub from: String,
    /// `#channel`, or the recipient's name for a direct message.
    pub target: String,
    /// The thread it belongs to.
    pub thread: Option<MsgId>,
    /// The message.
    pub msg_id: MsgId,
    /// The text.
    pub body: String,
    /// When the engine took it, RFC 3339, if it said so.
    pub sent_at: Option<String>,
    /// True for results of actions and the like, which nobody answers.
    pub system: bool,
}

/// What a frame is good for (spec/wire 5.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Goes into the terminal.
    Inject(Note),
    /// Receipts and reactions: acked and counted, never shown. Names the engine's payload type.
    AckOnly(String),
    /// A payload type this broker does not know, or a payload it cannot read: acked, recorded, never shown.
    Unusable(String),
}

/// One frame of an agent's mailbox.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its own id, the key of deduplication and of the journal.
    pub delivery_id: DeliveryId,
    /// The message it carries. Another delivery may carry the same one.
    pub msg_id: MsgId,
    /// Its place in the mailbox; 0 for a frame outside it.
    pub seq: Seq,
    /// Wait or steer.
    pub mode: Mode,
    /// What to do with it.
    pub content: Content,
    /// The engine gives this `delivery_id` to other events too (`action.denied` is keyed by the action's
    /// name alone, spec/wire 4.1), so that having seen it says nothing: never deduplicated.
    pub repeats: bool,
}

/// node_session -> delivery_cursor: a frame arrived for this agent.
#[derive(Debug)]
pub struct Deliver {
    /// The socket life it arrived in.
    pub epoch: Epoch,
    /// The frame.
    pub delivery: Delivery,
    /// The room it takes. Returned by being dropped, on whatever path the delivery ends.
    pub credit: Credit,
}

/// node_session -> delivery_cursor: a new socket is live; repeat the current ack.
#[derive(Clone, Copy, Debug)]
pub struct EpochStarted {
    /// The life that began.
    pub epoch: Epoch,
}

/// delivery_cursor -> node_session: everything up to `up_to` has its proof on disk.
#[derive(Clone, Debug)]
pub struct Ack {
    /// Whose mailbox.
    pub agent_id: AgentId,
    /// The name that the wire wants (acks select by name, spec/wire 3.6).
    pub agent: AgentName,
    /// Cumulative.
    pub up_to: Seq,
}

/// delivery_cursor -> registry: a message of this agent's mailbox is in and the engine was told; it may want to
/// be told that it was read, too.
#[derive(Clone, Debug)]
pub struct MarkRead {
    /// Whose.
    pub name: AgentName,
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Its message.
    pub msg_id: MsgId,
}

/// delivery_cursor -> node_session: frames are missing (a gap, or some were refused for want of room);
/// ask the engine for everything unacked.
#[derive(Debug)]
pub struct RequestReplay {
    /// Who misses frames.
    pub agent_id: AgentId,
    /// Answered once the engine has been asked, with the socket life it was asked in: numbers that do not
    /// come within 5 s from then are gone for good. Kept while the socket is down, so that a broker which
    /// is offline gives nothing up.
    pub reply: Reply<Epoch>,
}

/// How far a message has come into a program (spec/pty 8). Ordered: a later rung implies the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// In the worker's queue.
    Queued,
    /// The kernel took all bytes.
    Written,
    /// The child has read them.
    Consumed,
    /// The text stands in the composer. From here on it is never typed again.
    Landed,
    /// The composer took it.
    Submitted,
    /// The CLI's own record shows it as a user turn.
    Accepted,
}

/// delivery_cursor -> pty_worker: put this into the terminal. Refused silently (and counted) when its
/// attempt is older than one already seen.
#[derive(Debug)]
pub struct Inject {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Counts the times this delivery was handed over; a report names the attempt it is about.
    pub attempt: u32,
    /// Wait or steer.
    pub mode: Mode,
    /// What to show.
    pub note: Note,
    /// The rung that an earlier attempt reached, if any: at `Landed` or above nothing is typed again.
    pub reached: Option<Rung>,
    /// The journal shows an earlier attempt whose end is unknown: say so in the header.
    pub redelivered: bool,
    /// To be waited for before the first byte is typed: the mark of this attempt has reached the kernel, so that a
    /// kill of this process leaves it. `None` when it has.
    pub marked: Option<Answer<()>>,
}

/// delivery_cursor -> pty_worker: forget what is queued and not begun.
#[derive(Debug)]
pub struct CancelInjections {
    /// Answered with what was forgotten: which delivery and which attempt. Everything else that was handed
    /// over is under way and goes on.
    pub reply: Reply<Vec<(DeliveryId, u32)>>,
}

/// What happened to an injection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectStep {
    /// It climbed, and is still under way.
    Reached(Rung),
    /// It is in: the rung that this harness demands was reached.
    Proven(Rung),
    /// It waits, and why in words for a person (`agent is working`, `a dialog is open`, ...).
    Waiting(String),
    /// No progress for 30 s past `Written`; the worker keeps watching.
    Stuck {
        /// How far it came.
        rung: Rung,
        /// The last rows of the screen.
        screen: String,
    },
    /// It cannot be put in; dead-letter it.
    Failed {
        /// In words for a person.
        reason: String,
        /// True when the text stands in the composer all the same: it must not be typed again.
        landed: bool,
    },
}

/// pty_worker -> delivery_cursor: how an injection goes.
#[derive(Clone, Debug)]
pub struct InjectReport {
    /// The worker's life; a report of an older one is dropped.
    pub worker: Generation,
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Which attempt.
    pub attempt: u32,
    /// What happened.
    pub step: InjectStep,
}

/// pty_worker -> delivery_cursor: a (new) life of the worker takes messages. The cursor hands over again
/// whatever has no proof yet.
#[derive(Clone, Copy, Debug)]
pub struct WorkerUp {
    /// The worker's life.
    pub worker: Generation,
    /// How many injections it will hold at once.
    pub window: usize,
}

/// The child is gone: no injection can succeed any more. What is held and has no proof is dropped *unacked*
/// and its room given back: the engine keeps it and offers it again to the next agent of that identity.
#[derive(Clone, Debug)]
pub struct WorkerGone {
    /// In words for a person.
    pub reason: String,
}

/// pty_worker -> delivery_cursor: the child is gone. Answered when all proofs that were reported are on disk and the
/// session has their acks, as far as there may be any.
#[derive(Debug)]
pub struct FlushAcks(pub Reply<()>);

/// journal -> delivery_cursor: everything up to and including this ticket is on disk.
#[derive(Clone, Copy, Debug)]
pub struct Journalled {
    /// The ticket that the append returned.
    pub ticket: u64,
}

/// Asks a cursor for its numbers (the debug page's `deep` view).
#[derive(Debug)]
pub struct ObserveCursor(pub Reply<CursorView>);

/// A cursor's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CursorView {
    /// Highest seq seen in a frame, or where this life of the cursor began.
    pub received: Seq,
    /// Highest seq below which everything is in the terminal or settled otherwise.
    pub injected: Seq,
    /// Highest seq below which everything is on disk.
    pub journalled: Seq,
    /// What the engine has been told.
    pub acked: Seq,
    /// Whether messages are held back.
    pub delivery_mode: DeliveryMode,
    /// Messages in their turn that the worker does not have yet: held back, or beyond its window.
    pub waiting: usize,
    /// Those of them that wait for a person to let them through.
    pub held_back: usize,
    /// Frames held now.
    pub held: usize,
    /// Bytes held now.
    pub held_bytes: usize,
    /// Numbers missing between the cursor and the highest frame held.
    pub gaps: u64,
    /// Numbers given up as gone for good, since start.
    pub gaps_skipped: u64,
    /// Frames dropped as already handled, since start.
    pub duplicates: u64,
    /// Frames dropped unacked for want of room, since start.
    pub refused: u64,
    /// Deliveries that ended as dead letters, since start.
    pub dead_letters: u64,
    /// Reports dropped as being about an older attempt or an older life of the worker, since start.
    pub stale_reports: u64,
    /// The last message that was received: its id and how far it came.
    pub last: Option<LastDelivery>,
}

/// The newest delivery of an agent, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastDelivery {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Its message.
    pub msg_id: MsgId,
    /// Its place.
    pub seq: Seq,
    /// From whom.
    pub from: String,
    /// When it came, in milliseconds since the Unix epoch.
    pub queued_at_ms: u64,
    /// How often it was handed to the terminal's worker and begun.
    pub attempts: u32,
    /// The rung reached, `None` while it waits in the cursor.
    pub rung: Option<Rung>,
    /// What it waits for, in words; empty when done.
    pub waiting_for: String,
}

/// Frames held per agent before further ones are dropped unacked. The engine's own mailbox is capped at
/// 1000 rows (spec/wire 4.2), so a real backlog fits whole and is never replayed for want of room.
pub const LANE_FRAMES_MAX: usize = 1024;
/// Bytes held for all agents together before further frames are dropped unacked.
pub const HOUSE_BYTES_MAX: usize = 16 << 20;
/// Bytes of one agent that are taken even when the house is full, so that nobody starves because somebody
/// else does not read. One frame is always taken.
pub const LANE_BYTES_RESERVED: usize = 64 << 10;

/// The room of the whole house: bytes held for all agents.
#[derive(Debug, Default)]
pub struct House {
    bytes: AtomicUsize,
}

/// The room of one agent. Shared by node_session, which takes a credit for each frame, and the agent's cursor,
/// which takes one for a dead letter that is tried again.
#[derive(Debug)]
pub struct Lane {
    house: Arc<House>,
    frames: AtomicUsize,
    bytes: AtomicUsize,
    refused: AtomicBool,
    refusals: AtomicU64,
    /// `u64::MAX` when none was.
    lowest_refused: AtomicU64,
}

impl Lane {
    /// A lane in this house.
    pub fn new(house: Arc<House>) -> Arc<Self> {
        Arc::new(Self {
            house,
            frames: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
            refusals: AtomicU64::new(0),
            lowest_refused: AtomicU64::new(u64::MAX),
        })
    }

    /// Takes room for a frame of this many bytes, or notes that this place of the mailbox was refused.
    pub fn take(self: &Arc<Self>, seq: Seq, bytes: usize) -> Option<Credit> {
        let frames = self.frames.load(Ordering::Acquire);
        let mine = self.bytes.load(Ordering::Acquire);
        let house = self.house.bytes.load(Ordering::Acquire);
        let reserved = frames == 0 || mine + bytes <= LANE_BYTES_RESERVED;
        if frames >= LANE_FRAMES_MAX || !(reserved || house + bytes <= HOUSE_BYTES_MAX) {
            self.refuse(seq);
            return None;
        }
        self.frames.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.house.bytes.fetch_add(bytes, Ordering::AcqRel);
        Some(Credit { lane: self.clone(), bytes })
    }

    /// Notes that a frame was dropped unacked for want of room: a replay is owed.
    pub fn refuse(&self, seq: Seq) {
        self.refused.store(true, Ordering::Release);
        self.refusals.fetch_add(1, Ordering::AcqRel);
        if seq.0 != 0 {
            self.lowest_refused.fetch_min(seq.0, Ordering::AcqRel);
        }
    }

    /// The lowest place that was refused since it was last forgotten: numbers from there on are missing
    /// because of us.
    pub fn lowest_refused(&self) -> Option<Seq> {
        Some(self.lowest_refused.load(Ordering::Acquire)).filter(|seq| *seq != u64::MAX).map(Seq)
    }

    /// Forgets what was refused so far: a replay was asked for that brings it.
    pub fn forget_lowest_refused(&self) {
        self.lowest_refused.store(u64::MAX, Ordering::Release);
    }

    /// True while a replay is owed for refused frames.
    pub fn owes_replay(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    /// Frames refused since start.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Acquire)
    }

    /// True once, when frames were refused since the last call and there is room again: half of the lane's
    /// frames, and half of the house's bytes or of this agent's own.
    pub fn wants_replay(&self) -> bool {
        let has_bytes = self.bytes.load(Ordering::Acquire) <= LANE_BYTES_RESERVED / 2
            || self.house.bytes.load(Ordering::Acquire) <= HOUSE_BYTES_MAX / 2;
        has_bytes
            && self.frames.load(Ordering::Acquire) <= LANE_FRAMES_MAX / 2
            && self.refused.swap(false, Ordering::AcqRel)
    }

    /// Frames and bytes held now.
    pub fn held(&self) -> (usize, usize) {
        (self.frames.load(Ordering::Acquire), self.bytes.load(Ordering::Acquire))
    }
}

/// The room one delivery takes; given back when dropped.
#[derive(Debug)]
pub struct Credit {
    lane: Arc<Lane>,
    bytes: usize,
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.lane.frames.fetch_sub(1, Ordering::AcqRel);
        self.lane.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.lane.house.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

told!(
    Deliver,
    EpochStarted,
    Ack,
    MarkRead,
    RequestReplay,
    Inject,
    CancelInjections,
    InjectReport,
    WorkerUp,
    WorkerGone,
    FlushAcks,
    Journalled,
    ObserveCursor,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_credit_gives_its_room_back_and_asks_for_the_replay_once() {
        let lane = Lane::new(Arc::default());
        let mut credits: Vec<_> = (0..LANE_FRAMES_MAX).map(|_| lane.take(Seq(1), 10).unwrap()).collect();
        assert!(lane.take(Seq(1), 10).is_none());
        assert!(!lane.wants_replay(), "no room yet");
        credits.truncate(LANE_FRAMES_MAX / 2);
        assert!(lane.wants_replay());
        assert!(!lane.wants_replay());
        drop(credits);
        assert_eq!(lane.held(), (0, 0));
    }

    #[test]
    fn a_full_house_still_takes_a_frame_from_each_agent() {
        let house = Arc::new(House::default());
        let hog = Lane::new(house.clone());
        let _full: Vec<_> = (0..16).map(|_| hog.take(Seq(1), 1 << 20).unwrap()).collect();
        assert!(hog.take(Seq(1), 1 << 20).is_none());
        let other = Lane::new(house);
        let _one = other.take(Seq(1), 1 << 20).unwrap();
        assert!(other.take(Seq(1), 1 << 20).is_none());
    }
}
