//! A bounded memory of ids: the oldest is forgotten first.

use std::{
    collections::{HashSet, VecDeque},
    hash::Hash,
};

use serde::{Deserialize, Serialize};

/// Ids remembered per agent and kind (mission S36).
pub const SEEN_MAX: usize = 512;

/// The last [`SEEN_MAX`] distinct ids, in the order of their first appearance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<T>", into = "Vec<T>")]
#[serde(bound(
    serialize = "T: Serialize + Clone + Eq + Hash",
    deserialize = "T: Deserialize<'de> + Clone + Eq + Hash"
))]
pub struct Seen<T: Clone + Eq + Hash> {
    order: VecDeque<T>,
    members: HashSet<T>,
}

impl<T: Clone + Eq + Hash> Seen<T> {
    /// Remembers an id; false when it was known already (which does not refresh it).
    pub fn insert(&mut self, id: T) -> bool {
        if !self.members.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.members.remove(&oldest);
        }
        true
    }

    /// True when the id is remembered.
    pub fn contains(&self, id: &T) -> bool {
        self.members.contains(id)
    }

    /// Forgets an id.
    pub fn remove(&mut self, id: &T) {
        if self.members.remove(id) {
            self.order.retain(|known| known != id);
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// True when none is remembered.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl<T: Clone + Eq + Hash> Default for Seen<T> {
    fn default() -> Self {
        Self { order: VecDeque::new(), members: HashSet::new() }
    }
}

/// Two memories are equal when they remember the same and would forget in the same order.
impl<T: Clone + Eq + Hash> PartialEq for Seen<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<T: Clone + Eq + Hash> From<Vec<T>> for Seen<T> {
    fn from(ids: Vec<T>) -> Self {
        let mut seen = Self::default();
        for id in ids {
            seen.insert(id);
        }
        seen
    }
}

impl<T: Clone + Eq + Hash> From<Seen<T>> for Vec<T> {
    fn from(seen: Seen<T>) -> Self {
        seen.order.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_ids_leave_the_last_512_in_memory() {
        let mut seen = Seen::default();
        for n in 0..10_000 {
            assert!(seen.insert(n));
            assert!(!seen.insert(n), "re-insertion is idempotent");
        }
        assert_eq!((seen.len(), seen.members.len()), (SEEN_MAX, SEEN_MAX));
        assert!(!seen.contains(&(9_999 - SEEN_MAX)) && seen.contains(&(10_000 - SEEN_MAX)));
    }

    #[test]
    fn a_removed_id_is_new_again() {
        let mut seen = Seen::from(vec![1, 2, 3]);
        seen.remove(&2);
        assert!(!seen.contains(&2));
        assert!(seen.insert(2));
        assert_eq!(Vec::from(seen), [1, 3, 2]);
    }
}
