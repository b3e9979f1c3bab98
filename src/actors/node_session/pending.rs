//! Which reply answers which registration.
//!
//! A reply is matched by the id of its request. Some engines invent ids; then the name decides, but only when
//! a single registration of that name is open. A registration that was given up stays on the books for a
//! while: its late reply says that an agent exists which nobody wants, and it must never be taken for the
//! reply to a newer registration of the same name.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::ids::AgentName;

/// How long a late reply is still recognised (spec/wire 5.1).
const GIVEN_UP_KEPT: Duration = Duration::from_secs(300);
/// Given-up registrations remembered; beyond it the oldest is forgotten.
const GIVEN_UP_MAX: usize = 256;

/// The open registrations of one socket. `W` is what waits for the answer.
#[derive(Debug)]
pub(super) struct Pending<W> {
    open: HashMap<String, Open<W>>,
    given_up: VecDeque<GivenUp>,
}

#[derive(Debug)]
struct Open<W> {
    name: AgentName,
    until: Instant,
    waiter: W,
}

#[derive(Debug)]
struct GivenUp {
    id: String,
    name: AgentName,
    forget_at: Instant,
}

/// Whom a reply is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Match<W> {
    /// This registration.
    For(AgentName, W),
    /// One that was given up. If the engine registered an agent, it has to go.
    GivenUp(AgentName),
    /// None that we know of, or it cannot be told which.
    Nobody,
}

impl<W> Default for Pending<W> {
    fn default() -> Self {
        Self { open: HashMap::new(), given_up: VecDeque::new() }
    }
}

impl<W> Pending<W> {
    /// True while a registration of this name is open.
    pub(super) fn has(&self, name: &AgentName) -> bool {
        self.open.values().any(|open| open.name == *name)
    }

    /// Books a registration. The caller has checked that no other of its name is open ([`Self::has`]).
    pub(super) fn open(&mut self, id: String, name: AgentName, until: Instant, waiter: W) {
        self.open.insert(id, Open { name, until, waiter });
    }

    /// Finds whom a reply is for, and takes that registration off the books. `name` is the one in the reply's
    /// data, if there was one.
    pub(super) fn answered(&mut self, id: &str, name: Option<&str>) -> Match<W> {
        if let Some(open) = self.open.remove(id) {
            return Match::For(open.name, open.waiter);
        }
        if let Some(at) = self.given_up.iter().position(|late| late.id == id)
            && let Some(late) = self.given_up.remove(at)
        {
            return Match::GivenUp(late.name);
        }
        name.map_or(Match::Nobody, |name| self.by_name(name))
    }

    fn by_name(&mut self, name: &str) -> Match<W> {
        let mut open = self.open.iter().filter(|(_, open)| open.name.as_str() == name).map(|(id, _)| id);
        let (first, second) = (open.next().cloned(), open.next());
        let late = self.given_up.iter().filter(|late| late.name.as_str() == name).count();
        match (first, second, late) {
            (Some(id), None, 0) => match self.open.remove(&id) {
                Some(open) => Match::For(open.name, open.waiter),
                None => Match::Nobody,
            },
            (None, None, 1) => {
                let at = self.given_up.iter().position(|late| late.name.as_str() == name);
                match at.and_then(|at| self.given_up.remove(at)) {
                    Some(late) => Match::GivenUp(late.name),
                    None => Match::Nobody,
                }
            }
            _ => Match::Nobody,
        }
    }

    /// Gives up what was not answered in time, and answers who waited for it.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(AgentName, W)> {
        self.given_up.retain(|late| late.forget_at > now);
        let overdue: Vec<String> =
            self.open.iter().filter(|(_, open)| open.until <= now).map(|(id, _)| id.clone()).collect();
        overdue
            .into_iter()
            .filter_map(|id| {
                let open = self.open.remove(&id)?;
                if self.given_up.len() == GIVEN_UP_MAX {
                    self.given_up.pop_front();
                }
                let forget_at = now + GIVEN_UP_KEPT;
                self.given_up.push_back(GivenUp { id, name: open.name.clone(), forget_at });
                Some((open.name, open.waiter))
            })
            .collect()
    }

    /// Closes the books: no reply can come any more. Answers who still waited.
    pub(super) fn close(&mut self) -> Vec<W> {
        self.given_up.clear();
        self.open.drain().map(|(_, open)| open.waiter).collect()
    }

    /// When the next one is overdue.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|open| open.until).min()
    }

    /// Registrations that wait for their reply.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn name(name: &str) -> AgentName {
        AgentName::parse(name).unwrap()
    }

    fn book(entries: &[(&str, &str, u32)]) -> (Pending<u32>, Instant) {
        let now = Instant::now();
        let mut pending = Pending::default();
        for (id, agent, waiter) in entries {
            pending.open((*id).to_owned(), name(agent), now + LIMIT, *waiter);
        }
        (pending, now)
    }

    #[test]
    fn a_reply_goes_to_the_request_whose_id_it_carries_whatever_name_it_says() {
        let (mut pending, _) = book(&[("r1", "ann", 1), ("r2", "bob", 2)]);
        assert_eq!(pending.answered("r2", Some("ann")), Match::For(name("bob"), 2));
        assert_eq!(pending.answered("r1", None), Match::For(name("ann"), 1));
        assert_eq!(pending.answered("r1", Some("ann")), Match::Nobody, "answered once");
    }

    #[test]
    fn a_reply_under_an_invented_id_goes_by_its_name() {
        let (mut pending, _) = book(&[("r1", "ann", 1), ("r2", "bob", 2)]);
        assert_eq!(pending.answered("77", Some("bob")), Match::For(name("bob"), 2));
        assert_eq!(pending.answered("77", Some("eve")), Match::Nobody);
        assert_eq!(pending.answered("77", None), Match::Nobody);
        assert!(pending.has(&name("ann")));
    }

    #[test]
    fn a_late_reply_is_recognised_and_never_given_to_a_newer_registration() {
        let (mut pending, now) = book(&[("r1", "ann", 1)]);
        assert_eq!(pending.deadline(), Some(now + LIMIT));
        assert!(pending.expire(now + LIMIT - Duration::from_millis(1)).is_empty());
        let now = now + LIMIT;
        assert_eq!(pending.expire(now), [(name("ann"), 1)]);
        pending.open("r2".to_owned(), name("ann"), now + LIMIT, 2);
        assert_eq!(pending.answered("77", Some("ann")), Match::Nobody, "either could be meant");
        assert_eq!(pending.answered("r1", Some("ann")), Match::GivenUp(name("ann")));
        assert_eq!(pending.answered("77", Some("ann")), Match::For(name("ann"), 2));
    }

    #[test]
    fn a_late_reply_under_an_invented_id_is_recognised_by_its_name() {
        let (mut pending, now) = book(&[("r1", "ann", 1)]);
        pending.expire(now + LIMIT);
        assert_eq!(pending.answered("77", Some("ann")), Match::GivenUp(name("ann")));
        assert_eq!(pending.answered("77", Some("ann")), Match::Nobody);
    }

    #[test]
    fn what_was_given_up_is_forgotten_in_the_end() {
        let (mut pending, now) = book(&[("r1", "ann", 1)]);
        pending.expire(now + LIMIT);
        pending.expire(now + LIMIT + GIVEN_UP_KEPT);
        assert_eq!(pending.answered("r1", Some("ann")), Match::Nobody);
        for n in 0..GIVEN_UP_MAX as u64 + 10 {
            pending.open(format!("x{n}"), name(&format!("a{n}")), now, 0);
        }
        pending.expire(now);
        assert_eq!(pending.given_up.len(), GIVEN_UP_MAX);
    }

    #[test]
    fn closing_the_books_answers_everybody() {
        let (mut pending, _) = book(&[("r1", "ann", 1), ("r2", "bob", 2)]);
        let mut left = pending.close();
        left.sort_unstable();
        assert_eq!(left, [1, 2]);
        assert_eq!((pending.len(), pending.deadline()), (0, None));
    }
}
