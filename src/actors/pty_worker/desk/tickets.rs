//! What the desk has been given to type, and what it says of each to whoever gave it.

use std::time::Instant;

use super::{Desk, Effect, Lane, PROVEN_KEPT, STUCK_ROWS, TASK, closing::Closing};
use crate::{
    actors::pty_worker::{
        frame::{Frame, Framing, Hints, Whole},
        turn::Waiting,
    },
    harness::Harness,
    ids::{AgentName, DeliveryId},
    messages::delivery::{Inject, InjectStep, Mode, Note, Rung},
    screen::Region,
};

/// A delivery that is held.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) attempt: u32,
    pub(super) mode: Mode,
    pub(super) text: Text,
    pub(super) redelivered: bool,
    /// Where its body is, if that is too long to be typed.
    pub(super) whole: Whole,
    /// When it came.
    pub(super) since: Instant,
}

/// The first task, until it is in.
#[derive(Clone, Debug)]
pub(super) struct Task {
    text: String,
    whole: Whole,
    since: Instant,
}

/// What is to be typed.
#[derive(Debug)]
pub(super) enum Text {
    Message(Note),
    Task(String),
}

impl Ticket {
    /// What the choice of the next text goes by.
    pub(super) fn waiting(&self, now: Instant) -> Waiting {
        let (task, bytes) = match &self.text {
            Text::Message(note) => (false, note.body.len()),
            Text::Task(task) => (true, task.len()),
        };
        let (steers, again) = (self.mode == Mode::Steer, self.redelivered);
        Waiting { steers, task, again, bytes, waited: now.saturating_duration_since(self.since) }
    }
}

impl Desk {
    /// A message is handed over, with the place of its body if that is too long to be typed.
    pub(crate) fn inject(&mut self, inject: Inject, whole: Whole, now: Instant) {
        let Inject { delivery_id: id, attempt, mode, note, reached, redelivered, marked: _ } = inject;
        if let Some(ticket) = self.tickets.get_mut(&id) {
            if attempt < ticket.attempt {
                self.stale += 1;
            } else {
                ticket.attempt = attempt;
            }
            return;
        }
        let proven = self.proven.iter().find(|(known, _)| *known == id).map(|(_, rung)| *rung);
        if let Some(rung) = proven {
            return self.effects.push(Effect::Report { id, attempt, step: InjectStep::Proven(rung) });
        }
        let text = Text::Message(note);
        self.hold(id, Ticket { attempt, mode, text, redelivered, whole, since: now }, reached);
    }

    /// Gives the agent its first task: typed before every message that is not under way.
    pub(crate) fn assign(&mut self, text: String, whole: Whole, now: Instant) {
        self.task = Some(Task { text, whole, since: now });
        self.offer_task();
    }

    /// No cursor hands the task over again, so whatever makes the desk forget it is followed by this.
    pub(super) fn offer_task(&mut self) {
        let id = DeliveryId::from(TASK);
        if let Some(Task { text, whole, since }) = self.task.clone()
            && !self.tickets.contains_key(&id)
        {
            let (mode, text) = (Mode::Wait, Text::Task(text));
            self.hold(id, Ticket { attempt: 0, mode, text, redelivered: false, whole, since }, None);
        }
    }

    fn hold(&mut self, id: DeliveryId, ticket: Ticket, reached: Option<Rung>) {
        let may_have_it = match &self.lane {
            Lane::Composer(lane) => lane.was_sent(&id) || lane.has_begun(&id),
            Lane::Plain(_) => false,
        };
        if !may_have_it && self.closing != Closing::No {
            return;
        }
        if !may_have_it && reached >= Some(Rung::Landed) {
            // Not by this child: it stood in the composer of one that has ended.
            let reason = "it stood in the composer of an earlier process of this agent, which has ended";
            let step = InjectStep::Failed { reason: reason.to_owned(), landed: true };
            return self.effects.push(Effect::Report { id, attempt: ticket.attempt, step });
        }
        self.tickets.insert(id.clone(), ticket);
        self.lay_out(id);
    }

    /// Gives the lane a message that is held.
    pub(super) fn lay_out(&mut self, id: DeliveryId) {
        match &mut self.lane {
            Lane::Composer(lane) => lane.offer(id),
            Lane::Plain(lane) => {
                let Some(ticket) = self.tickets.get(&id) else { return };
                let text = frame(self.harness, &self.agent, self.has_tools, self.framed, ticket);
                lane.offer(id, text.flat());
                self.framed += 1;
            }
        }
    }

    /// Forgets what is not begun, and says what that is.
    pub(crate) fn cancel(&mut self) -> Vec<(DeliveryId, u32)> {
        match &mut self.lane {
            Lane::Plain(lane) => lane.cancel_waiting(),
            Lane::Composer(lane) => lane.cancel_waiting(),
        }
        let forgotten = self.drop_loose_tickets();
        self.offer_task();
        forgotten
    }

    /// Drops the tickets of what the lane does not hold, and says which.
    pub(super) fn drop_loose_tickets(&mut self) -> Vec<(DeliveryId, u32)> {
        let lane = &self.lane;
        let is_loose = |id: &DeliveryId| match lane {
            Lane::Plain(lane) => !lane.holds(id),
            Lane::Composer(lane) => !lane.has_begun(id) && !lane.waiting.contains(id),
        };
        let loose = self.tickets.extract_if(|id, _| is_loose(id));
        loose.map(|(id, ticket)| (id, ticket.attempt)).collect()
    }

    pub(super) fn say(&mut self, id: DeliveryId, mut step: InjectStep) {
        if let InjectStep::Stuck { screen, .. } = &mut step {
            *screen = self.screen.text(Region::Bottom(STUCK_ROWS));
            self.stuck = Some(screen.clone());
        } else if !matches!(step, InjectStep::Waiting(_)) {
            self.stuck = None;
        }
        if id.as_str() == TASK {
            return self.say_of_task(id, step);
        }
        if let InjectStep::Proven(rung) = step {
            self.lines_read |= matches!(self.lane, Lane::Plain(_));
            if self.proven.len() == PROVEN_KEPT {
                self.proven.pop_front();
            }
            self.proven.push_back((id.clone(), rung));
        }
        // Without a ticket it belongs to a text of an earlier life and was not handed over again yet: it will
        // be, and is answered then.
        let Some(attempt) = self.tickets.get(&id).map(|ticket| ticket.attempt) else { return };
        if matches!(step, InjectStep::Proven(_) | InjectStep::Failed { .. }) {
            self.tickets.remove(&id);
        }
        self.effects.push(Effect::Report { id, attempt, step });
    }

    fn say_of_task(&mut self, id: DeliveryId, step: InjectStep) {
        let ended = match step {
            InjectStep::Proven(rung) => Ok(rung),
            InjectStep::Failed { reason, .. } => Err(reason),
            InjectStep::Reached(_) | InjectStep::Waiting(_) | InjectStep::Stuck { .. } => return,
        };
        self.tickets.remove(&id);
        self.task = None;
        self.effects.push(Effect::Task(ended));
    }
}

/// The ticket as this agent of this program sees it, with the broker's tools or without; `nth` messages were shown to
/// it before.
pub(super) fn frame(
    harness: &Harness,
    reader: &AgentName,
    has_tools: bool,
    nth: u64,
    ticket: &Ticket,
) -> Frame {
    let body_max = harness.text.body_max;
    let hints = match (harness.text.hints, has_tools) {
        (false, _) => Hints::Never,
        (true, false) => Hints::Command,
        (true, true) => Hints::CommandAndTool,
    };
    match &ticket.text {
        Text::Message(note) => {
            let framing = Framing { reader, nth, redelivered: ticket.redelivered, hints, body_max };
            Frame::new(note, framing, &ticket.whole)
        }
        Text::Task(task) => Frame::task(task, harness.composer.is_always(), body_max, &ticket.whole),
    }
}
