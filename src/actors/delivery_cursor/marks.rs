//! Which of a book's records are on disk: the book counts marks, the journal tickets.

use std::collections::VecDeque;

use crate::store::Ticket;

/// What has to reach the disk yet, oldest first.
#[derive(Debug)]
pub(super) struct Marks {
    newest: u64,
    open: VecDeque<(u64, Ticket)>,
}

impl Marks {
    /// Those of a book that begins now: mark 1 stands for all that the journal took before, up to this ticket.
    pub(super) fn after(ticket: Ticket) -> Self {
        Self { newest: 1, open: VecDeque::from([(1, ticket)]) }
    }

    /// The book's next record has this ticket.
    pub(super) fn appended(&mut self, ticket: Ticket) {
        self.newest += 1;
        self.open.push_back((self.newest, ticket));
    }

    /// The first that is to be waited for; `None` when everything is on disk.
    pub(super) fn oldest(&self) -> Option<Ticket> {
        self.open.front().map(|(_, ticket)| *ticket)
    }

    /// Everything up to this ticket is on disk: the highest mark that is by that, unless it is none of the book's.
    pub(super) fn on_disk(&mut self, upto: Ticket) -> Option<u64> {
        let mut reached = None;
        while let Some((mark, _)) = self.open.pop_front_if(|(_, ticket)| *ticket <= upto) {
            reached = Some(mark);
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_of_the_journal_covers_every_record_up_to_its_ticket() {
        let mut marks = Marks::after(Ticket(7));
        marks.appended(Ticket(9));
        marks.appended(Ticket(12));
        assert_eq!(marks.oldest(), Some(Ticket(7)));
        assert_eq!(marks.on_disk(Ticket(6)), None);
        assert_eq!(marks.on_disk(Ticket(11)), Some(2));
        assert_eq!(marks.on_disk(Ticket(11)), None, "known already");
        assert_eq!(marks.oldest(), Some(Ticket(12)));
        assert_eq!(marks.on_disk(Ticket(12)), Some(3));
        assert_eq!(marks.oldest(), None);
    }
}
