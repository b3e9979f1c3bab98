//! The composer's lane: one message at a time, looked for before it is typed when the child may have it.

use std::{collections::VecDeque, time::Instant};

use super::{
    Desk, Lane,
    tickets::{Text, frame},
};
use crate::{
    actors::pty_worker::{
        frame::{Frame, Framing, marker},
        inject::{Act, Injection, Sight, Wording},
        plain::PlainLane,
    },
    ids::DeliveryId,
};

/// So many messages in a row without the record that was wanted: this program keeps none where it is looked for,
/// and what the screen shows is all the proof there will be.
const UNRECORDED_MAX: u8 = 3;

/// One message at a time into a composer.
#[derive(Debug, Default)]
pub(super) struct ComposerLane {
    pub(super) waiting: VecDeque<DeliveryId>,
    pub(super) current: Option<Injection>,
    /// Sent to this very child in an earlier life of the worker, or while it seemed plain.
    pub(super) sent_before: Vec<Sent>,
}

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: DeliveryId,
    pub(super) wording: Wording,
    pub(super) flat: bool,
    pub(super) as_line: bool,
}

impl Desk {
    pub(super) fn work_composer(&mut self, now: Instant) {
        // As many as wait: each turn ends one injection or stops.
        for _ in 0..=self.queued() {
            if !self.begin_next(now) {
                return;
            }
            let Lane::Composer(lane) = &mut self.lane else { return };
            let Some(injection) = &mut lane.current else { return };
            let sight = Sight {
                gate: &self.gate,
                taken: !self.writer.holds(injection.id()),
                consumed: self.consumed,
                screen: &self.screen,
                complete: self.readiness.is_frame(self.screen.is_complete(), now),
                quiet: self.readiness.quiet(now),
            };
            let acts = injection.look(&sight, now);
            let id = injection.id().clone();
            let done = injection.is_done();
            let typed = acts.contains(&Act::Type).then(|| injection.text().to_owned());
            if done {
                self.unrecorded += u8::from(injection.is_unrecorded());
                lane.current = None;
            }
            if let Some(text) = typed {
                self.typed = true;
                self.consumed = None;
                let bytes = self.paste(text);
                self.writer.push_message(id.clone(), bytes);
            }
            for act in acts {
                match act {
                    Act::Type => {}
                    Act::Press => {
                        self.writer.push_submit(id.clone(), self.harness.submit.key.sent().as_bytes())
                    }
                    Act::Say(step) => self.say(id.clone(), step),
                }
            }
            if !done {
                return;
            }
        }
    }

    /// The delivery that a record of the program would prove now, and the text by which to know it there: it
    /// stands in the header, so that it is in every form in which the message may have been typed.
    pub(crate) fn awaits_record(&self) -> Option<(DeliveryId, String)> {
        let Lane::Composer(lane) = &self.lane else { return None };
        let current = lane.current.as_ref().filter(|current| current.awaits_record())?;
        match &self.tickets.get(current.id())?.text {
            Text::Message(note) => Some((current.id().clone(), marker(note))),
            Text::Task(_) => None,
        }
    }

    /// The program's record shows this delivery as a turn of its user.
    pub(crate) fn recorded(&mut self, id: &DeliveryId) {
        self.unrecorded = 0;
        let Lane::Composer(lane) = &mut self.lane else { return };
        let Some(current) = lane.current.as_mut().filter(|current| current.id() == id) else { return };
        if let Some(step) = current.recorded() {
            lane.current = None;
            self.say(id.clone(), step);
        }
    }

    /// Sees to it that an injection is under way; false when nothing waits.
    fn begin_next(&mut self, now: Instant) -> bool {
        let Lane::Composer(lane) = &mut self.lane else { return false };
        while lane.current.is_none() {
            let Some(id) = lane.waiting.pop_front() else { return false };
            let Some(ticket) = self.tickets.get(&id) else { continue };
            let sent = lane.sent_before.iter().position(|sent| sent.id == id);
            let harness = self.harness;
            // A first task has no header to be known by.
            let is_recorded = matches!(ticket.text, Text::Message(_)) && self.unrecorded < UNRECORDED_MAX;
            let injection = match sent.map(|at| lane.sent_before.swap_remove(at)) {
                Some(Sent { wording, flat, as_line, .. }) => {
                    Injection::new(id, wording, harness, now).sent_before(flat, as_line)
                }
                None => {
                    let frame = frame(self.harness, &mut self.framed, ticket);
                    let wording = Wording { lines: frame.lines(), flat: frame.flat() };
                    Injection::new(id, wording, harness, now)
                }
            };
            lane.current = Some(if is_recorded { injection } else { injection.without_record() });
        }
        true
    }

    /// The text as this program takes it at this moment.
    fn paste(&self, text: String) -> Vec<u8> {
        if self.screen.bracketed_paste() {
            [b"\x1b[200~", text.as_bytes(), b"\x1b[201~"].concat()
        } else {
            text.into_bytes()
        }
    }

    /// A program taken for plain shows a composer. What was written to it before may have been read by
    /// nobody: it is looked for on the screen before it is typed again.
    pub(super) fn become_composer(&mut self) {
        self.harness = self.harness.with_composer();
        self.readiness.mark_starting();
        let mut composer = ComposerLane::default();
        if let Lane::Plain(plain) = std::mem::replace(&mut self.lane, Lane::Plain(PlainLane::default())) {
            let (begun, not_begun) = plain.give_up();
            for id in &begun {
                if let Some(ticket) = self.tickets.get(id) {
                    let body_max = self.harness.text.body_max;
                    let frame = match &ticket.text {
                        Text::Message(note) => {
                            Frame::new(note, Framing { body_max, ..Framing::default() }, &ticket.whole)
                        }
                        Text::Task(task) => Frame::task(task, body_max, &ticket.whole),
                    };
                    let wording = Wording { lines: frame.lines(), flat: frame.flat() };
                    let sent = Sent { id: id.clone(), wording, flat: true, as_line: true };
                    composer.sent_before.push(sent);
                }
            }
            composer.waiting.extend(begun);
            composer.waiting.extend(not_begun);
        }
        self.lane = Lane::Composer(Box::new(composer));
    }
}
