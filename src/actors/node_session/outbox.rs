//! What waits to be handed to the writer: control frames in order, then one ack per agent. Only the ack of an agent that
//! leaves goes among the control frames, right before its goodbye.
//!
//! Acks are cumulative, so a newer one replaces an older one of the same agent in its place: while the writer is
//! busy any number of acks shrinks to one per agent, and the box stays as small as the house. Heartbeats do not
//! pass through here; they have a lane of their own in the socket.

use std::collections::{HashMap, VecDeque};

use crate::{
    ids::Seq,
    wire::frames::{BrokerFrame, DeliveryAck},
};

/// The outgoing side of one socket.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    control: VecDeque<BrokerFrame>,
    /// Names in the order in which their ack became due.
    due: VecDeque<String>,
    acks: HashMap<String, Seq>,
}

impl Outbox {
    /// Puts a frame behind the control frames that wait already.
    pub(super) fn control(&mut self, frame: BrokerFrame) {
        self.control.push_back(frame);
    }

    /// Notes that everything of this agent up to this number is to be acked.
    pub(super) fn ack(&mut self, agent: &str, up_to: Seq) {
        if let Some(waiting) = self.acks.get_mut(agent) {
            *waiting = (*waiting).max(up_to);
        } else {
            self.acks.insert(agent.to_owned(), up_to);
            self.due.push_back(agent.to_owned());
        }
    }

    /// Puts the goodbye of an agent behind the control frames, and its ack before that: to an engine, an ack for an agent
    /// that is not there means nothing.
    pub(super) fn part(&mut self, agent: &str, goodbye: BrokerFrame) {
        if let Some(up_to) = self.acks.remove(agent) {
            self.due.retain(|due| due != agent);
            self.control(ack(agent.to_owned(), up_to));
        }
        self.control(goodbye);
    }

    /// Hands frames over, control frames first, until none is left or `take` refuses one; that one stays.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn drain<E>(&mut self, mut take: impl FnMut(&BrokerFrame) -> Result<(), E>) -> Result<(), E> {
        while let Some(frame) = self.control.front() {
            take(frame)?;
            self.control.pop_front();
        }
        while let Some(agent) = self.due.front() {
            if let Some(up_to) = self.acks.get(agent) {
                take(&ack(agent.clone(), *up_to))?;
                self.acks.remove(agent);
            }
            self.due.pop_front();
        }
        Ok(())
    }

    /// Frames that wait.
    pub(super) fn len(&self) -> usize {
        self.control.len() + self.due.len()
    }
}

fn ack(agent: String, up_to_seq: Seq) -> BrokerFrame {
    BrokerFrame::DeliveryAck(DeliveryAck { id: None, agent, up_to_seq })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frames::NodeDeregister;

    fn taken(outbox: &mut Outbox, room: usize) -> Vec<String> {
        let mut frames = Vec::new();
        let refused = outbox.drain(|frame| {
            if frames.len() == room {
                return Err(());
            }
            frames.push(match frame {
                BrokerFrame::DeliveryAck(ack) => format!("{} {}", ack.agent, ack.up_to_seq),
                other => other.kind().to_owned(),
            });
            Ok(())
        });
        assert_eq!(refused.is_err(), outbox.len() > 0);
        frames
    }

    #[test]
    fn acks_of_one_agent_merge_into_the_highest() {
        let mut outbox = Outbox::default();
        for (agent, seq) in [("ann", 4), ("bob", 1), ("ann", 9), ("ann", 7)] {
            outbox.ack(agent, Seq(seq));
        }
        assert_eq!(outbox.len(), 2);
        assert_eq!(taken(&mut outbox, 9), ["ann 9", "bob 1"]);
        assert_eq!(taken(&mut outbox, 9), Vec::<String>::new());
    }

    #[test]
    fn control_frames_go_first_and_what_is_refused_stays_and_still_merges() {
        let mut outbox = Outbox::default();
        outbox.ack("ann", Seq(1));
        outbox.control(BrokerFrame::NodeDeregister(NodeDeregister::default()));
        outbox.ack("bob", Seq(2));
        assert_eq!(taken(&mut outbox, 1), ["node.deregister"]);
        outbox.ack("ann", Seq(5));
        assert_eq!(taken(&mut outbox, 1), ["ann 5"]);
        assert_eq!(taken(&mut outbox, 0), Vec::<String>::new());
        assert_eq!(taken(&mut outbox, 9), ["bob 2"]);
    }

    #[test]
    fn an_agents_ack_goes_before_its_goodbye_and_is_not_sent_twice() {
        let mut outbox = Outbox::default();
        outbox.ack("bob", Seq(2));
        outbox.ack("ann", Seq(5));
        outbox.part("ann", BrokerFrame::NodeDeregister(NodeDeregister::default()));
        assert_eq!(taken(&mut outbox, 9), ["ann 5", "node.deregister", "bob 2"]);
        outbox.part("ann", BrokerFrame::NodeDeregister(NodeDeregister::default()));
        assert_eq!(taken(&mut outbox, 9), ["node.deregister"]);
    }
}
