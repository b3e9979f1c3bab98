//! A set of numbers kept as spans: what is settled above the place up to which everything is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A set of numbers. As large as the number of holes in it, not as its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spans {
    /// First to last, both inclusive; never touching each other.
    spans: BTreeMap<u64, u64>,
}

impl Spans {
    /// Adds `from..=to`. An empty span adds nothing.
    pub fn insert(&mut self, mut from: u64, mut to: u64) {
        if from > to {
            return;
        }
        while let Some((&first, &last)) = self.spans.range(..=to.saturating_add(1)).next_back() {
            if last.saturating_add(1) < from {
                break;
            }
            self.spans.remove(&first);
            from = from.min(first);
            to = to.max(last);
        }
        self.spans.insert(from, to);
    }

    /// True when the number is in the set.
    #[cfg(test)]
    pub fn contains(&self, number: u64) -> bool {
        self.spans.range(..=number).next_back().is_some_and(|(_, &last)| number <= last)
    }

    /// With everything up to `at` settled: how far that reaches when this set is added. What it took in
    /// leaves the set.
    pub fn absorb(&mut self, mut at: u64) -> u64 {
        while let Some((&first, &last)) = self.spans.first_key_value() {
            if first > at.saturating_add(1) {
                break;
            }
            self.spans.remove(&first);
            at = at.max(last);
        }
        at
    }

    /// True when no number is in the set.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn spans_hold_what_a_plain_set_holds(ranges in prop::collection::vec((0u64..60, 0u64..8), 0..30), at in 0u64..60) {
            let mut spans = Spans::default();
            let mut plain = BTreeSet::new();
            for (from, len) in ranges {
                spans.insert(from, from + len);
                plain.extend(from..=from + len);
            }
            for n in 0..80 {
                prop_assert_eq!(spans.contains(n), plain.contains(&n), "{}", n);
            }
            let touching = spans.spans.iter().zip(spans.spans.iter().skip(1)).any(|(a, b)| a.1 + 1 >= *b.0);
            prop_assert!(!touching);
            let mut expected = at;
            while plain.contains(&(expected + 1)) {
                expected += 1;
            }
            prop_assert_eq!(spans.absorb(at), expected);
            for n in 0..80 {
                prop_assert_eq!(spans.contains(n), n > expected && plain.contains(&n), "{} after", n);
            }
        }
    }

    #[test]
    fn the_largest_number_does_not_overflow() {
        let mut spans = Spans::default();
        spans.insert(5, u64::MAX);
        spans.insert(1, 3);
        assert!(spans.contains(u64::MAX) && !spans.contains(4));
        spans.insert(4, 4);
        assert_eq!(spans.absorb(0), u64::MAX);
        assert!(spans.is_empty());
    }
}
