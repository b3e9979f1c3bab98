//! Messages into a program without a composer: several in flight, each proven when its last byte was read.
//!
//! ```text
//! waiting --room in the window--> in flight --kernel has all--> written --child has read all--> proven
//! ```
//!
//! What the child has read is what has arrived in the line discipline less what is unread there. Its buffer
//! holds 4 KiB, so the window is smaller than that. How much has arrived the kernel does not tell: bytes need
//! a moment from the master to that buffer, and on a loaded machine a long one. So it is reckoned: at least
//! what was read plus what is unread has arrived. That proves too little rather than too much, and an empty
//! queue, which the kernel does vouch for, puts it right; so does a pause of the child that is longer than any
//! way into the buffer. A person's keystrokes can be edited away (`^H`, `^U`) and an unfinished line is not counted by the
//! kernel: after those, only an empty queue is proof, and puts the count right again.
//!
//! A child can empty the queue without reading it (a mode switch with a flush, as programs do when they start).
//! The kernel tells; what was in flight then has no proof and is written again.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::writer::{Kind, Taken, Writer};
use crate::{
    ids::DeliveryId,
    messages::delivery::{InjectStep, Rung},
};

/// Unread bytes that may be on their way at once.
const WINDOW: u64 = 3500;
/// A canonical line, its end included; the kernel keeps 4095 bytes of one and drops the rest in silence.
const LINE_MAX: usize = 4000;
/// No byte is on its way into the line discipline for this long: milliseconds are seen on a loaded machine.
/// Were one, its message would count as read a moment before it can be.
const ARRIVAL: Duration = Duration::from_secs(2);
/// Marks a line that goes on, and the one that goes it on. The second keeps a body from beginning a line.
const CONTINUES: &str = "\u{2026}";
/// A message that is not read for this long is reported as written; a faster one needs no such report.
const WRITTEN_TOLD: Duration = Duration::from_millis(20);
/// First and longest pause between looks while the child reads.
const LOOK_FIRST: Duration = Duration::from_micros(200);
const LOOK_MAX: Duration = Duration::from_millis(10);
/// Pause between looks at a child that does not read.
const LOOK_IDLE: Duration = Duration::from_millis(250);
/// Bytes unread for this long: the child does not read (spec/pty 7.4).
pub(super) const NOT_READING: Duration = Duration::from_secs(2);
/// No progress for this long: stuck (spec/pty 8).
pub(super) const STUCK: Duration = Duration::from_secs(30);

/// No progress since this rung; the desk, which knows the screen, adds it.
pub(super) fn stuck(rung: Rung) -> InjectStep {
    InjectStep::Stuck { rung, screen: String::new() }
}

/// A program that throws a message away this often does not want it.
const LOSSES_MAX: u8 = 5;

/// What the lane has to say about a message.
pub(super) type Said = (DeliveryId, InjectStep);

/// How lines end for this child at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineEnd<'a> {
    /// Input goes line by line.
    pub canonical: bool,
    /// What ends one.
    pub key: &'a str,
}

/// The lane. See the module.
#[derive(Debug, Default)]
pub(super) struct PlainLane {
    waiting: VecDeque<Waiting>,
    flights: VecDeque<Flight>,
    /// Items taken by the kernel less than [`ARRIVAL`] ago: when, and where they end.
    arriving: VecDeque<(Instant, u64)>,
    /// Everything up to here has reached the line discipline; more may have.
    arrived: u64,
    /// Everything up to here has been read; more may have been.
    consumed: u64,
    /// Edited or uncounted bytes may be in the queue.
    inexact: bool,
    last_unread: usize,
    /// When the child last read something, or began to have something to read.
    progress: Option<Instant>,
    looks: u32,
}

#[derive(Debug)]
struct Waiting {
    id: DeliveryId,
    line: String,
    /// Times it was written and thrown away unread.
    losses: u8,
}

#[derive(Debug)]
struct Flight {
    id: DeliveryId,
    line: String,
    losses: u8,
    /// The kernel has a piece of it.
    begun: bool,
    /// A piece of it was, or may have been, thrown away.
    lost: bool,
    /// Pieces not yet given to the writer.
    pieces: VecDeque<Vec<u8>>,
    /// Pieces in the writer.
    in_writer: usize,
    /// Where it ends, and when the kernel had it all.
    written: Option<(u64, Instant)>,
    told: Option<Rung>,
    stuck: bool,
}

impl PlainLane {
    /// The lane of a child that the kernel has taken so many bytes for already: what of them is unread nobody knows.
    pub(super) fn after(taken: u64) -> Self {
        Self { arrived: taken, consumed: taken, inexact: true, ..Self::default() }
    }

    /// Takes a message, laid out on one line.
    pub(super) fn offer(&mut self, id: DeliveryId, line: String) {
        self.waiting.push_back(Waiting { id, line, losses: 0 });
    }

    /// True when the message waits or is in flight.
    pub(super) fn holds(&self, id: &DeliveryId) -> bool {
        self.waiting.iter().any(|w| w.id == *id) || self.flights.iter().any(|f| f.id == *id)
    }

    /// How many messages it holds.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.flights.len()
    }

    /// The message that is furthest and not done, and its rung.
    pub(super) fn front(&self) -> Option<(&DeliveryId, Rung)> {
        match self.flights.front() {
            Some(flight) => Some((&flight.id, flight.written.map_or(Rung::Queued, |_| Rung::Written))),
            None => self.waiting.front().map(|waiting| (&waiting.id, Rung::Queued)),
        }
    }

    /// Forgets what is not begun.
    pub(super) fn cancel_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Gives the lane up: what was begun (and may have been read), and what was not.
    pub(super) fn give_up(self) -> (Vec<DeliveryId>, Vec<DeliveryId>) {
        let begun = self.flights.into_iter().map(|flight| flight.id).collect();
        (begun, self.waiting.into_iter().map(|waiting| waiting.id).collect())
    }

    /// Moves what the window allows into the writer.
    pub(super) fn fill(&mut self, writer: &mut Writer, end: LineEnd<'_>, now: Instant) {
        loop {
            if self.flights.back().is_none_or(|flight| flight.pieces.is_empty()) {
                let Some(Waiting { id, line, losses }) = self.waiting.pop_front() else { return };
                let pieces = pieces(&line, end);
                self.flights.push_back(Flight {
                    id,
                    line,
                    losses,
                    begun: false,
                    lost: false,
                    pieces,
                    in_writer: 0,
                    written: None,
                    told: None,
                    stuck: false,
                });
            }
            let out = writer.queued().saturating_sub(self.consumed);
            let Some(flight) = self.flights.back_mut() else { return };
            let Some(piece) = flight.pieces.front() else { return };
            if out > 0 && out + piece.len() as u64 > WINDOW {
                return;
            }
            let Some(piece) = flight.pieces.pop_front() else { return };
            if out == 0 {
                self.progress = Some(now);
                self.looks = 0;
            }
            flight.in_writer += 1;
            writer.push_message(flight.id.clone(), piece);
        }
    }

    /// The kernel has taken an item whole.
    pub(super) fn took(&mut self, taken: &Taken, now: Instant) {
        self.arriving.push_back((now, taken.end));
        self.looks = 0;
        match &taken.kind {
            Kind::Message(id) | Kind::Submit(id) => {
                if let Some(flight) = self.flights.iter_mut().find(|flight| flight.id == *id) {
                    flight.begun = true;
                    flight.in_writer = flight.in_writer.saturating_sub(1);
                    if flight.in_writer == 0 && flight.pieces.is_empty() {
                        flight.written = Some((taken.end, now));
                    }
                }
            }
            Kind::Answer | Kind::Input(_) => {
                self.inexact = true;
                self.progress.get_or_insert(now);
            }
        }
    }

    /// A look found so many unread bytes, when the kernel had taken `taken` in all.
    pub(super) fn looked(&mut self, unread: usize, taken: u64, now: Instant) -> Vec<Said> {
        while let Some((_, end)) = self.arriving.front().filter(|(at, _)| *at + ARRIVAL <= now) {
            self.arrived = self.arrived.max(*end);
            self.arriving.pop_front();
        }
        let before = self.consumed;
        if unread == 0 {
            self.arriving.clear();
            (self.arrived, self.consumed) = (taken, taken);
            self.inexact = false;
        } else if !self.inexact {
            let unread = unread as u64;
            self.arrived = self.arrived.max(self.consumed + unread);
            self.consumed = self.consumed.max(self.arrived.saturating_sub(unread));
        }
        if self.consumed > before || unread < self.last_unread {
            self.progress = Some(now);
            self.looks = 0;
        } else {
            self.looks = self.looks.saturating_add(1);
        }
        self.last_unread = unread;
        if unread == 0 {
            self.progress = None;
        }
        self.settle(now)
    }

    /// The child has thrown away what it had not read of the first `taken` bytes. `begun` is the message
    /// that the kernel has in part.
    pub(super) fn flushed(&mut self, taken: u64, begun: Option<&DeliveryId>, now: Instant) -> Vec<Said> {
        for flight in &mut self.flights {
            flight.lost |= flight.begun || begun == Some(&flight.id);
        }
        self.arriving.clear();
        (self.arrived, self.consumed) = (taken, taken);
        (self.inexact, self.last_unread, self.looks, self.progress) = (false, 0, 0, None);
        self.settle(now)
    }

    fn settle(&mut self, now: Instant) -> Vec<Said> {
        let mut said = Vec::new();
        let consumed = self.consumed;
        let read = |flight: &Flight| flight.written.is_some_and(|(end, _)| end <= consumed);
        let done = self.flights.iter().take_while(|flight| read(flight)).count();
        let mut lost = Vec::new();
        for Flight { id, line, losses, lost: is_lost, .. } in self.flights.drain(..done) {
            if !is_lost {
                said.push((id, InjectStep::Proven(Rung::Consumed)));
            } else if losses < LOSSES_MAX {
                lost.push(Waiting { id, line, losses: losses + 1 });
            } else {
                let reason = "the program keeps throwing its input away unread".to_owned();
                said.push((id, InjectStep::Failed { reason, landed: false }));
            }
        }
        for waiting in lost.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
        for flight in &mut self.flights {
            let Some((_, at)) = flight.written else { break };
            if flight.told.is_none() && at + WRITTEN_TOLD <= now {
                flight.told = Some(Rung::Written);
                said.push((flight.id.clone(), InjectStep::Reached(Rung::Written)));
            }
        }
        if let (Some(flight), Some(progress)) = (self.flights.front_mut(), self.progress)
            && !flight.stuck
            && progress + STUCK <= now
        {
            flight.stuck = true;
            said.push((flight.id.clone(), stuck(flight.written.map_or(Rung::Queued, |_| Rung::Written))));
        }
        said
    }

    /// How long to wait before the next look at what the child has read; `None` when it has read everything.
    pub(super) fn look_after(&self, taken: u64, now: Instant) -> Option<Duration> {
        if taken == self.consumed {
            None
        } else if self.is_ignored(now) {
            Some(LOOK_IDLE)
        } else {
            Some(LOOK_FIRST.saturating_mul(1 << self.looks.min(6)).min(LOOK_MAX))
        }
    }

    /// True while the child reads what it was given.
    pub(super) fn is_moving(&self, now: Instant) -> bool {
        !self.flights.is_empty() && !self.is_ignored(now)
    }

    /// True when the child has had something to read for longer than [`NOT_READING`] and read nothing.
    pub(super) fn is_ignored(&self, now: Instant) -> bool {
        self.progress.is_some_and(|progress| progress + NOT_READING <= now)
    }
}

/// A line in pieces that may be written one after the other.
fn pieces(line: &str, end: LineEnd<'_>) -> VecDeque<Vec<u8>> {
    let whole = [line, end.key].concat();
    if end.canonical {
        canonical_lines(line, end.key)
    } else {
        whole.as_bytes().chunks(WINDOW as usize).map(<[u8]>::to_vec).collect()
    }
}

fn canonical_lines(mut line: &str, key: &str) -> VecDeque<Vec<u8>> {
    let mut lines = VecDeque::new();
    let mut start = "";
    while start.len() + line.len() + key.len() > LINE_MAX {
        let room = LINE_MAX - start.len() - CONTINUES.len() - key.len();
        let (now, later) = line.split_at(line.floor_char_boundary(room));
        lines.push_back([start, now, CONTINUES, key].concat().into_bytes());
        (line, start) = (later, CONTINUES);
    }
    lines.push_back([start, line, key].concat().into_bytes());
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RAW: LineEnd<'_> = LineEnd { canonical: false, key: "\r" };
    const LINES: LineEnd<'_> = LineEnd { canonical: true, key: "\n" };

    fn id(n: usize) -> DeliveryId {
        DeliveryId::from(n.to_string())
    }

    /// A kernel that takes everything and a child that reads when told.
    struct World {
        lane: PlainLane,
        writer: Writer,
        now: Instant,
        /// What the line discipline has; the rest is on its way there.
        arrived: u64,
        read: u64,
        said: Vec<Said>,
    }

    impl World {
        fn new() -> Self {
            let lane = PlainLane::default();
            let writer = Writer::default();
            Self { lane, writer, now: Instant::now(), arrived: 0, read: 0, said: Vec::new() }
        }

        /// Writes what the window allows, and all of it arrives.
        fn write(&mut self, end: LineEnd<'_>) {
            self.send(end);
            self.arrived = self.writer.taken();
        }

        /// Writes what the window allows; none of it arrives yet.
        fn send(&mut self, end: LineEnd<'_>) {
            self.lane.fill(&mut self.writer, end, self.now);
            while let Some(offer) = self.writer.offer(self.now) {
                let n = offer.len();
                if let Some(taken) = self.writer.took(n, self.now) {
                    self.lane.took(&taken, self.now);
                }
            }
        }

        /// What the kernel answers: it waits for what is on its way only when it has nothing.
        fn unread(&mut self) -> usize {
            if self.arrived == self.read {
                self.arrived = self.writer.taken();
            }
            (self.arrived - self.read) as usize
        }

        fn look(&mut self) {
            let unread = self.unread();
            let said = self.lane.looked(unread, self.writer.taken(), self.now);
            self.said.extend(said);
        }

        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        fn proven(&self) -> Vec<DeliveryId> {
            let proven = |said: &&Said| matches!(said.1, InjectStep::Proven(Rung::Consumed));
            self.said.iter().filter(proven).map(|said| said.0.clone()).collect()
        }
    }

    #[test]
    fn a_message_is_proven_when_its_last_byte_was_read_and_not_before() {
        let mut world = World::new();
        world.lane.offer(id(1), "hello".into());
        world.lane.offer(id(2), "world!".into());
        world.write(RAW);
        assert_eq!(world.unread(), 13);
        world.look();
        world.read = 5;
        world.look();
        assert!(world.proven().is_empty());
        world.read = 6;
        world.look();
        assert_eq!(world.proven(), [id(1)]);
        world.read = 13;
        world.look();
        assert_eq!(world.proven(), [id(1), id(2)]);
        assert_eq!(world.lane.look_after(13, world.now), None, "nothing is left to look for");
    }

    #[test]
    fn bytes_that_have_not_arrived_prove_nothing() {
        let mut world = World::new();
        world.lane.offer(id(1), "hello".into());
        world.lane.offer(id(2), "world".into());
        world.send(RAW);
        world.arrived = 6;
        for _ in 0..100 {
            world.pass(10);
            world.look();
        }
        // Six bytes are unread, and six are on their way: the first message only looks as if it had been read.
        assert!(world.proven().is_empty());
        world.arrived = 12;
        world.look();
        world.read = 6;
        world.look();
        assert_eq!(world.proven(), [id(1)]);
    }

    #[test]
    fn what_was_read_before_it_was_counted_is_proven_by_an_empty_queue_or_a_pause() {
        for paused in [false, true] {
            let mut world = World::new();
            world.lane.offer(id(1), "hello".into());
            world.lane.offer(id(2), "world".into());
            world.write(RAW);
            world.read = 6;
            world.look();
            assert!(world.proven().is_empty(), "it may be the first one that is unread");
            if paused {
                world.pass(2000);
                world.look();
                assert_eq!(world.proven(), [id(1)]);
            }
            world.read = 12;
            world.look();
            assert_eq!(world.proven(), [id(1), id(2)]);
        }
    }

    #[test]
    fn the_window_holds_back_what_would_make_the_count_inexact() {
        let mut world = World::new();
        for n in 0..100 {
            world.lane.offer(id(n), "x".repeat(99));
        }
        world.write(RAW);
        assert_eq!(world.unread(), 3500);
        world.read = 3500;
        world.look();
        assert_eq!(world.proven().len(), 35);
        world.write(RAW);
        assert_eq!(world.unread(), 3500);
    }

    #[test]
    fn a_long_message_goes_piece_by_piece_and_is_proven_once() {
        for end in [RAW, LINES] {
            let mut world = World::new();
            world.lane.offer(id(1), "é".repeat(10_000));
            let mut rounds = 0;
            while world.proven().is_empty() {
                world.write(end);
                assert!(world.unread() <= 4000);
                world.read = world.writer.taken();
                world.pass(1);
                world.look();
                rounds += 1;
                assert!(rounds < 20);
            }
            assert_eq!(world.proven(), [id(1)]);
            assert!(rounds > 4);
        }
    }

    #[test]
    fn a_persons_keystrokes_make_only_an_empty_queue_a_proof() {
        let mut world = World::new();
        world.lane.offer(id(1), "hello".into());
        world.writer.push_input(b"oops\x15".to_vec(), Duration::ZERO).unwrap();
        world.write(LINES);
        world.pass(50);
        // The line editor ate the person's five bytes, so the kernel counts six.
        world.said.extend(world.lane.looked(6, 11, world.now));
        assert!(world.proven().is_empty());
        world.said.extend(world.lane.looked(0, 11, world.now));
        assert_eq!(world.proven(), [id(1)]);
    }

    #[test]
    fn a_child_that_never_reads_is_reported_stuck_once_and_proven_never() {
        let mut world = World::new();
        world.lane.offer(id(1), "hello".into());
        world.write(RAW);
        for _ in 0..200 {
            world.pass(250);
            world.look();
        }
        assert!(world.lane.is_ignored(world.now));
        let steps: Vec<_> = world.said.into_iter().map(|said| said.1).collect();
        assert_eq!(steps, [InjectStep::Reached(Rung::Written), stuck(Rung::Written)]);
        assert_eq!(world.lane.look_after(6, world.now), Some(LOOK_IDLE));
    }

    #[test]
    fn a_slow_child_is_neither_stuck_nor_ignored() {
        let mut world = World::new();
        world.lane.offer(id(1), "x".repeat(3000));
        world.write(RAW);
        for _ in 0..50 {
            world.pass(1000);
            world.read += 10;
            world.look();
            assert!(!world.lane.is_ignored(world.now));
        }
        assert_eq!(world.said.len(), 1);
    }

    #[test]
    fn what_the_child_throws_away_unread_is_written_again_in_order_and_given_up_in_the_end() {
        let mut world = World::new();
        for n in 0..3 {
            world.lane.offer(id(n), "hello".into());
        }
        world.write(RAW);
        world.look();
        world.read = 6;
        world.look();
        for _ in 0..LOSSES_MAX {
            world.said.extend(world.lane.flushed(world.writer.taken(), None, world.now));
            assert_eq!(world.proven(), [id(0)]);
            assert_eq!(world.lane.front(), Some((&id(1), Rung::Queued)));
            world.read = world.writer.taken();
            world.write(RAW);
        }
        world.look();
        world.read += 6;
        world.look();
        assert_eq!(world.proven(), [id(0), id(1)]);
        world.said.extend(world.lane.flushed(world.writer.taken(), None, world.now));
        assert!(
            matches!(world.said.last(), Some((last, InjectStep::Failed { landed: false, .. })) if *last == id(2))
        );
        assert_eq!(world.lane.len(), 0);
    }

    #[test]
    fn a_canonical_line_is_never_longer_than_the_kernel_keeps() {
        let long = "aé".repeat(5000);
        let lines = canonical_lines(&long, "\n");
        let mut joined = String::new();
        for (i, line) in lines.iter().enumerate() {
            assert!(line.len() <= LINE_MAX && line.ends_with(b"\n"));
            let text = std::str::from_utf8(line).unwrap().trim_end();
            assert_eq!(text.starts_with(CONTINUES), i > 0);
            joined.push_str(text.trim_matches('\u{2026}'));
        }
        assert_eq!(joined, long);
        assert_eq!(canonical_lines("short", "\n"), [b"short\n".to_vec()]);
    }

    proptest! {
        #[test]
        fn whatever_is_proven_was_read_in_full_and_in_order(
            sizes in proptest::collection::vec(1usize..5000, 1..30),
            steps in proptest::collection::vec((0u64..6, 0u64..4000, 0u64..4000), 1..300),
            canonical: bool,
        ) {
            let end = if canonical { LINES } else { RAW };
            let mut world = World::new();
            let mut ends = Vec::new();
            for (n, size) in sizes.iter().enumerate() {
                world.lane.offer(id(n), "x".repeat(*size));
                let len: usize = pieces(&"x".repeat(*size), end).iter().map(Vec::len).sum();
                ends.push(ends.last().unwrap_or(&0) + len as u64);
            }
            for (ms, arriving, bytes) in steps {
                world.send(end);
                world.pass(ms);
                world.arrived = (world.arrived + arriving).min(world.writer.taken());
                world.read = (world.read + bytes).min(world.arrived);
                world.look();
                let proven = world.proven();
                let wanted: Vec<_> = (0..proven.len()).map(id).collect();
                prop_assert_eq!(&proven, &wanted);
                if let Some(last) = proven.len().checked_sub(1) {
                    prop_assert!(ends[last] <= world.read);
                }
            }
        }
    }
}
