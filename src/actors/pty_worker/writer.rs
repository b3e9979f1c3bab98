//! The one way into a terminal: a FIFO of whole items, so that nothing splices into anything else.
//!
//! Messages, answers to terminal queries and keystrokes of a person all go through here; an item that has
//! begun is finished before the next one begins, however often the kernel takes only a part of it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::ids::DeliveryId;

/// The most keystrokes that may wait (spec/api: input beyond it is refused, not queued).
pub(super) const INPUT_MAX: usize = 256 << 10;
/// The most answers that may wait: a program that asks and never reads gets no more.
const ANSWERS_MAX: usize = 4 << 10;
/// The most bytes offered to the kernel at once (spec/pty 7.3).
const OFFER_MAX: usize = 1024;

/// What an item is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A part of a message.
    Message(DeliveryId),
    /// The key that submits a message.
    Submit(DeliveryId),
    /// An answer to a query of the program.
    Answer,
    /// A person's keystrokes, with the number that [`Writer::push_input`] gave.
    Input(u64),
}

/// An item that the kernel has taken whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// What.
    pub kind: Kind,
    /// Its size.
    pub len: usize,
    /// Bytes taken in all, this item included.
    pub end: u64,
}

#[derive(Debug)]
struct Item {
    kind: Kind,
    bytes: Vec<u8>,
    /// It begins no sooner than this after the end of the one before it.
    gap: Duration,
}

/// The FIFO.
#[derive(Debug, Default)]
pub(super) struct Writer {
    queue: VecDeque<Item>,
    /// Bytes of the first item that the kernel has.
    begun: usize,
    /// When the kernel had the last item whole.
    ended: Option<Instant>,
    /// Bytes that the kernel has taken in all.
    taken: u64,
    /// Bytes queued in all, taken or not.
    queued: u64,
    input_waiting: usize,
    answers_waiting: usize,
    inputs: u64,
}

impl Writer {
    /// Queues a part of a message.
    pub(super) fn push_message(&mut self, id: DeliveryId, bytes: Vec<u8>) {
        self.push(Kind::Message(id), bytes, Duration::ZERO);
    }

    /// Queues a key that submits it, no sooner than `gap` after what goes before it.
    pub(super) fn push_submit(&mut self, id: DeliveryId, key: &[u8], gap: Duration) {
        self.push(Kind::Submit(id), key.to_vec(), gap);
    }

    /// Queues an answer; says whether there was room.
    pub(super) fn push_answer(&mut self, bytes: Vec<u8>) -> bool {
        if self.answers_waiting + bytes.len() > ANSWERS_MAX {
            return false;
        }
        self.answers_waiting += bytes.len();
        self.push(Kind::Answer, bytes, Duration::ZERO);
        true
    }

    /// Queues keystrokes, no sooner than `gap` after what goes before them, and gives them a number; or says how many
    /// bytes wait already.
    pub(super) fn push_input(&mut self, bytes: Vec<u8>, gap: Duration) -> Result<u64, usize> {
        self.push_strokes(vec![(bytes, gap)])
    }

    /// The same for several, all or none: the number of the last one.
    pub(super) fn push_strokes(&mut self, strokes: Vec<(Vec<u8>, Duration)>) -> Result<u64, usize> {
        let len: usize = strokes.iter().map(|(bytes, _)| bytes.len()).sum();
        if self.input_waiting + len > INPUT_MAX {
            return Err(self.input_waiting);
        }
        self.input_waiting += len;
        for (bytes, gap) in strokes {
            self.inputs += 1;
            self.push(Kind::Input(self.inputs), bytes, gap);
        }
        Ok(self.inputs)
    }

    /// Gaps count from here at the earliest, as if something had been written then.
    pub(super) fn count_gaps_from(&mut self, since: Instant) {
        self.ended = self.ended.max(Some(since));
    }

    fn push(&mut self, kind: Kind, bytes: Vec<u8>, gap: Duration) {
        // An empty item could never be reported as taken.
        if !bytes.is_empty() {
            self.queued += bytes.len() as u64;
            self.queue.push_back(Item { kind, bytes, gap });
        }
    }

    /// The next bytes for the kernel; none before [`due`](Self::due).
    pub(super) fn offer(&self, now: Instant) -> Option<&[u8]> {
        if self.due().is_some_and(|due| due > now) {
            return None;
        }
        let rest = self.queue.front()?.bytes.get(self.begun..)?;
        Some(&rest[..rest.len().min(OFFER_MAX)])
    }

    /// When the next item may begin, if it has to keep its distance.
    pub(super) fn due(&self) -> Option<Instant> {
        let next = self.queue.front().filter(|next| self.begun == 0 && !next.gap.is_zero())?;
        Some(self.ended? + next.gap)
    }

    /// The kernel took so many of the offered bytes. Says so when the item is complete.
    pub(super) fn took(&mut self, bytes: usize, now: Instant) -> Option<Taken> {
        self.begun += bytes;
        self.taken += bytes as u64;
        let len = self.queue.front()?.bytes.len();
        if self.begun < len {
            return None;
        }
        self.begun = 0;
        self.ended = Some(now);
        let Item { kind, .. } = self.queue.pop_front()?;
        match kind {
            Kind::Answer => self.answers_waiting -= len,
            Kind::Input(_) => self.input_waiting -= len,
            Kind::Message(_) | Kind::Submit(_) => {}
        }
        Some(Taken { kind, len, end: self.taken })
    }

    /// Bytes that the kernel has taken in all.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes queued in all: where the next item will begin.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// The message of which the kernel has a part.
    pub(super) fn begun(&self) -> Option<&DeliveryId> {
        match &self.queue.front()?.kind {
            Kind::Message(id) | Kind::Submit(id) if self.begun > 0 => Some(id),
            _ => None,
        }
    }

    /// True when nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// True when a part of this message waits, begun or not.
    pub(super) fn holds(&self, id: &DeliveryId) -> bool {
        self.queue.iter().any(|item| matches!(&item.kind, Kind::Message(m) | Kind::Submit(m) if m == id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(writer: &mut Writer, at_most: usize) -> (Vec<u8>, Vec<Taken>) {
        let (mut out, mut taken) = (Vec::new(), Vec::new());
        let now = Instant::now();
        while let Some(offer) = writer.offer(now) {
            let n = offer.len().min(at_most);
            out.extend_from_slice(&offer[..n]);
            taken.extend(writer.took(n, now));
        }
        (out, taken)
    }

    #[test]
    fn items_go_out_whole_and_in_order_however_little_the_kernel_takes() {
        for at_most in [1, 3, 1024] {
            let mut writer = Writer::default();
            writer.push_message("d1".into(), vec![b'a'; 5000]);
            assert!(writer.push_answer(b"bb".to_vec()));
            let input = writer.push_input(b"ccc".to_vec(), Duration::ZERO).unwrap();
            writer.push_submit("d1".into(), b"\r", Duration::ZERO);
            assert!(writer.holds(&"d1".into()));
            let (out, taken) = drain(&mut writer, at_most);
            assert_eq!(out, [vec![b'a'; 5000], b"bbccc\r".to_vec()].concat());
            let ends: Vec<_> = taken.iter().map(|t| (t.kind.clone(), t.len, t.end)).collect();
            assert_eq!(
                ends,
                [
                    (Kind::Message("d1".into()), 5000, 5000),
                    (Kind::Answer, 2, 5002),
                    (Kind::Input(input), 3, 5005),
                    (Kind::Submit("d1".into()), 1, 5006),
                ]
            );
            assert_eq!(writer.queued(), 5006);
            assert!(writer.is_idle() && !writer.holds(&"d1".into()));
        }
    }

    #[test]
    fn what_waits_is_bounded_and_the_bound_opens_again() {
        let mut writer = Writer::default();
        assert!(writer.push_input(vec![0; INPUT_MAX], Duration::ZERO).is_ok());
        assert_eq!(writer.push_input(vec![0], Duration::ZERO), Err(INPUT_MAX));
        let mut nearly = Writer::default();
        assert!(nearly.push_input(vec![0; INPUT_MAX - 1], Duration::ZERO).is_ok());
        let two = vec![(vec![1], Duration::ZERO), (vec![2], Duration::ZERO)];
        assert_eq!(
            nearly.push_strokes(two),
            Err(INPUT_MAX - 1),
            "the keys of one answer go together or not at all"
        );
        assert!(nearly.push_input(vec![0], Duration::ZERO).is_ok());
        assert!(writer.push_answer(vec![0; ANSWERS_MAX]));
        assert!(!writer.push_answer(vec![0]));
        drain(&mut writer, 1024);
        assert!(writer.push_input(vec![0], Duration::ZERO).is_ok() && writer.push_answer(vec![0]));
    }

    #[test]
    fn an_item_keeps_its_distance_from_the_one_before_it() {
        let (mut writer, mut now) = (Writer::default(), Instant::now());
        let gap = Duration::from_millis(100);
        // Nothing went before the first one.
        for key in [b"a", b"b"] {
            writer.push_submit("d1".into(), key, gap);
        }
        assert!(writer.push_answer(b"c".to_vec()));
        assert_eq!(writer.offer(now), Some(&b"a"[..]));
        assert!(writer.took(1, now).is_some());
        now += gap / 2;
        assert_eq!(
            (writer.offer(now), writer.due()),
            (None, Some(now + gap / 2)),
            "and nothing overtakes it"
        );
        now += gap / 2;
        assert_eq!(writer.offer(now), Some(&b"b"[..]));
        assert!(writer.took(1, now).is_some());
        assert_eq!((writer.offer(now), writer.due()), (Some(&b"c"[..]), None));
    }

    #[test]
    fn an_empty_item_is_not_queued() {
        let mut writer = Writer::default();
        writer.push_message("d1".into(), Vec::new());
        assert!(writer.is_idle());
    }
}
