//! The live node sockets, and how mail gets into them.
//!
//! The mailbox in SQLite is the queue. A link only remembers how far into each agent's mailbox it has read;
//! live messages and replays take the same path: pages are pulled while the socket has room, agents in turn,
//! each in seq order. A slow broker therefore costs the engine one bounded buffer, however long the backlog.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{frames, store::Store};

/// Frames and bytes that wait in one socket before the mailboxes are left alone.
const ROOM_FRAMES: usize = 256;
const ROOM_BYTES: usize = 1 << 20;
/// What may wait in one socket in all; beyond it events are dropped (they are sent at most once by
/// contract) and a link that does not even take its replies is closed.
const CROWDED_FRAMES: usize = 16 * ROOM_FRAMES;
const CROWDED_BYTES: usize = 16 * ROOM_BYTES;
/// Rows taken from one agent's mailbox before the next agent has its turn.
const PAGE: usize = 32;

/// One socket, among all that this engine has had since it started.
pub(super) type LinkId = u64;

/// What must happen outside the store once a batch is on disk.
pub(super) enum Effect {
    /// A node's socket is open; an older one of that node is closed as superseded.
    Attach { link: LinkId, node: Arc<str>, outbox: Outbox, since: i64 },
    /// A socket is gone.
    Detach { link: LinkId },
    /// The node has spoken its first word: its mail may flow.
    Ready { node: Arc<str> },
    /// The node signed off, its socket stays.
    Silent { node: Arc<str> },
    /// An answer to a frame, to the socket that sent it.
    Answer { link: LinkId, frame: String },
    /// A frame that the store will repeat if it gets lost (`action.invoke`).
    Command { node: String, frame: String },
    /// A seq-0 frame: at most once, never again.
    Event { node: String, frame: String },
    /// There is new mail for an agent.
    Mail { node: String, agent: i64 },
    /// These mailboxes are to be read again from their first unacked row.
    Replay { node: Arc<str>, agents: Vec<i64> },
    /// The engine is going away.
    CloseAll,
}

/// What a socket's task is told to write.
pub(super) enum Outgoing {
    Text(String),
    /// Close 1000 with this reason and end.
    Close(&'static str),
}

/// The link's end of a socket's write queue.
pub(super) struct Outbox {
    frames: mpsc::UnboundedSender<Outgoing>,
    gauge: Arc<Gauge>,
}

/// The socket's end of its write queue.
pub(super) struct Outflow {
    frames: mpsc::UnboundedReceiver<Outgoing>,
    gauge: Arc<Gauge>,
}

#[derive(Default)]
struct Gauge {
    frames: AtomicUsize,
    bytes: AtomicUsize,
    starved: AtomicBool,
}

/// A socket's write queue. Its bound is the gauge, which the hub asks before it adds mail.
pub(super) fn write_queue() -> (Outbox, Outflow) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let gauge = Arc::new(Gauge::default());
    (Outbox { frames: sender, gauge: Arc::clone(&gauge) }, Outflow { frames: receiver, gauge })
}

impl Gauge {
    fn within(&self, frames: usize, bytes: usize) -> bool {
        self.frames.load(SeqCst) < frames && self.bytes.load(SeqCst) < bytes
    }
}

impl Outbox {
    fn push(&self, frame: String) {
        self.gauge.frames.fetch_add(1, SeqCst);
        self.gauge.bytes.fetch_add(frame.len(), SeqCst);
        // A socket that has just ended has no use for it; what matters is repeated from the store.
        self.frames.send(Outgoing::Text(frame)).ok();
    }

    fn close(&self, reason: &'static str) {
        self.frames.send(Outgoing::Close(reason)).ok(); // an ended socket is closed already
    }

    fn has_room(&self) -> bool {
        if self.gauge.within(ROOM_FRAMES, ROOM_BYTES) {
            return true;
        }
        // Ask to be woken first, then look again: the writer may have drained in between.
        self.gauge.starved.store(true, SeqCst);
        self.gauge.within(ROOM_FRAMES, ROOM_BYTES)
    }

    fn crowded(&self) -> bool {
        !self.gauge.within(CROWDED_FRAMES, CROWDED_BYTES)
    }
}

impl Outflow {
    /// The next thing to write; `None` once the link is gone.
    pub(super) async fn next(&mut self) -> Option<Outgoing> {
        self.frames.recv().await
    }

    /// Says that a frame of `bytes` bytes is out. True when the hub waits to hear of room.
    pub(super) fn written(&self, bytes: usize) -> bool {
        self.gauge.frames.fetch_sub(1, SeqCst);
        self.gauge.bytes.fetch_sub(bytes, SeqCst);
        self.gauge.within(ROOM_FRAMES / 2, ROOM_BYTES / 2) && self.gauge.starved.swap(false, SeqCst)
    }
}

/// Rows that went into a socket: the seqs of `agent` from `from` to `to`.
pub(super) struct Handed {
    pub(super) agent: i64,
    pub(super) from: i64,
    pub(super) to: i64,
}

/// Every live link, by node.
#[derive(Default)]
pub(super) struct Hub {
    links: HashMap<Arc<str>, Link>,
    handed: Vec<Handed>,
}

struct Link {
    id: LinkId,
    outbox: Outbox,
    /// When it was opened, in Unix milliseconds.
    since: i64,
    ready: bool,
    /// The last seq of each agent that went into this socket.
    sent: HashMap<i64, i64>,
    /// Agents with mail that has not, each once.
    backlog: VecDeque<i64>,
    waiting: HashSet<i64>,
}

impl Hub {
    /// Is `link` the socket that speaks for `node`?
    pub(super) fn is_current(&self, node: &str, link: LinkId) -> bool {
        self.links.get(node).is_some_and(|current| current.id == link)
    }

    /// Does `node` have a socket that has registered?
    pub(super) fn is_ready(&self, node: &str) -> bool {
        self.links.get(node).is_some_and(|link| link.ready)
    }

    /// When the current socket of `node` was opened, in Unix milliseconds.
    pub(super) fn since(&self, node: &str) -> Option<i64> {
        self.links.get(node).map(|link| link.since)
    }

    /// What went into sockets since the last call.
    pub(super) fn take_handed(&mut self) -> Vec<Handed> {
        std::mem::take(&mut self.handed)
    }

    pub(super) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Attach { link, node, outbox, since } => self.attach(link, node, outbox, since),
            Effect::Detach { link } => self.links.retain(|_, current| current.id != link),
            Effect::Ready { node } => self.with(&node, |link| link.ready = true),
            Effect::Silent { node } => self.with(&node, |link| link.ready = false),
            Effect::Answer { link, frame } => {
                if let Some(link) = self.links.values().find(|current| current.id == link) {
                    link.control(frame);
                }
            }
            Effect::Command { node, frame } => self.with(&node, |link| link.control(frame)),
            Effect::Event { node, frame } => self.with(&node, |link| link.event(frame)),
            Effect::Mail { node, agent } => self.with(&node, |link| link.enqueue(agent)),
            Effect::Replay { node, agents } => self.with(&node, |link| link.replay(agents)),
            Effect::CloseAll => {
                for (_, link) in self.links.drain() {
                    link.outbox.close("engine stopping");
                }
            }
        }
    }

    /// Fills every link that has room from the mailboxes.
    pub(super) fn feed(&mut self, store: &Store) -> rusqlite::Result<()> {
        for (node, link) in &mut self.links {
            if link.ready {
                link.feed(store, node, &mut self.handed)?;
            }
        }
        Ok(())
    }

    fn attach(&mut self, id: LinkId, node: Arc<str>, outbox: Outbox, since: i64) {
        let link = Link {
            id,
            outbox,
            since,
            ready: false,
            sent: HashMap::new(),
            backlog: VecDeque::new(),
            waiting: HashSet::new(),
        };
        if let Some(older) = self.links.insert(Arc::clone(&node), link) {
            warn!(node = &*node, "a second socket took this node over");
            older.outbox.close("superseded");
        }
    }

    fn with(&mut self, node: &str, act: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.get_mut(node) {
            act(link);
        }
    }
}

impl Link {
    fn control(&self, frame: String) {
        if self.outbox.crowded() {
            self.outbox.close("too slow");
        } else {
            self.outbox.push(frame);
        }
    }

    fn event(&self, frame: String) {
        if self.outbox.crowded() {
            debug!("an event was dropped: its node reads too slowly");
        } else {
            self.outbox.push(frame);
        }
    }

    fn enqueue(&mut self, agent: i64) {
        if self.waiting.insert(agent) {
            self.backlog.push_back(agent);
        }
    }

    fn replay(&mut self, agents: Vec<i64>) {
        for agent in agents {
            self.sent.remove(&agent);
            self.enqueue(agent);
        }
    }

    fn feed(&mut self, store: &Store, node: &str, handed: &mut Vec<Handed>) -> rusqlite::Result<()> {
        while self.outbox.has_room() {
            let Some(agent) = self.backlog.pop_front() else { return Ok(()) };
            let after = self.sent.get(&agent).copied().unwrap_or(0);
            let (mut first, mut last) = (None, after);
            let outbox = &self.outbox;
            let emptied = store.each_open(agent, node, after, PAGE, |row| {
                first.get_or_insert(row.seq);
                last = row.seq;
                outbox.push(frames::deliver(agent, &row));
                outbox.gauge.within(ROOM_FRAMES, ROOM_BYTES)
            })?;
            if let Some(from) = first {
                handed.push(Handed { agent, from, to: last });
                self.sent.insert(agent, last);
            }
            if emptied {
                self.waiting.remove(&agent);
            } else {
                // Back in the line, behind the other agents.
                self.backlog.push_back(agent);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn a_full_queue_asks_to_be_woken_and_is_woken_once_when_half_empty() {
        let (outbox, mut outflow) = write_queue();
        let mut filled = 0;
        while outbox.has_room() {
            outbox.push("frame".to_owned());
            filled += 1;
        }
        assert_eq!(filled, ROOM_FRAMES);
        let mut woken_at = Vec::new();
        for written in 1..=filled {
            assert!(matches!(outflow.next().await, Some(Outgoing::Text(_))));
            if outflow.written("frame".len()) {
                woken_at.push(written);
            }
        }
        assert_eq!(woken_at, [ROOM_FRAMES / 2 + 1]);
    }

    #[test]
    fn few_large_frames_fill_a_queue_as_well_as_many_small_ones() {
        let (outbox, _outflow) = write_queue();
        outbox.push("x".repeat(ROOM_BYTES));
        assert!(!outbox.has_room());
        assert!(!outbox.crowded());
    }
}
