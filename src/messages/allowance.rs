//! How many bytes of one kind may be on their way at once. Mailboxes and channels bound nothing by
//! themselves, so what fills them is counted: taken when it is sent, given back when it is dropped.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// So many bytes, shared by all clones.
#[derive(Clone, Debug)]
pub struct Allowance {
    max: usize,
    taken: Arc<AtomicUsize>,
}

/// Bytes on their way; given back by being dropped.
#[derive(Debug)]
pub struct Allowed {
    from: Allowance,
    bytes: usize,
}

impl Allowance {
    /// An allowance of `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, taken: Arc::default() }
    }

    /// So many of them, unless too many are on their way.
    pub fn take(&self, bytes: usize) -> Option<Allowed> {
        let room = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok()?;
        Some(Allowed { from: self.clone(), bytes })
    }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        self.from.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_missing_until_it_is_dropped() {
        let allowance = Allowance::new(10);
        let first = allowance.take(7).unwrap();
        assert!(allowance.clone().take(4).is_none());
        assert!(allowance.take(usize::MAX).is_none());
        let second = allowance.take(3).unwrap();
        drop(first);
        assert!(allowance.take(7).is_some());
        drop(second);
        assert!(allowance.take(10).is_some());
    }
}
