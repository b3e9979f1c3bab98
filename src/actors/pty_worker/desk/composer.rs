//! The composer's lane: one text at a time, looked for before it is typed when the child may have it.

use std::{collections::VecDeque, time::Instant};

use super::{
    Desk, Lane, TASK,
    tickets::{Text, frame},
};
use crate::{
    actors::pty_worker::{
        frame::marker,
        inject::{Act, Injection, Sight, Wording},
        plain::PlainLane,
        turn::{self, Turn, Way},
    },
    harness::Keys,
    ids::DeliveryId,
};

/// So many texts in a row without the record that was wanted: this program keeps none where it is looked for,
/// and what the screen shows is all the proof there will be.
const UNRECORDED_MAX: u8 = 3;

/// One text at a time into a composer.
#[derive(Debug, Default)]
pub(super) struct ComposerLane {
    /// Messages that were not typed yet; what the current text is made of is among them until it is typed.
    pub(super) waiting: VecDeque<DeliveryId>,
    pub(super) current: Option<Injection>,
    /// Sent to this very child in an earlier life of the worker, or while it seemed plain.
    pub(super) sent_before: Vec<Sent>,
}

/// A text that the child may have.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) ids: Vec<DeliveryId>,
    pub(super) wording: Wording,
    pub(super) flat: bool,
    pub(super) as_line: bool,
}

impl ComposerLane {
    /// The text that the child has, or may have, a part of.
    pub(super) fn begun(&self) -> Option<&Injection> {
        self.current.as_ref().filter(|current| !current.is_untouched())
    }

    /// Messages held.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.begun().map_or(0, |begun| begun.ids().count())
    }

    /// True when the child may have this message, as a part of the text that is under way.
    pub(super) fn has_begun(&self, id: &DeliveryId) -> bool {
        self.begun().is_some_and(|begun| begun.ids().any(|one| one == id))
    }

    /// True when the child may have this message from before.
    pub(super) fn was_sent(&self, id: &DeliveryId) -> bool {
        self.sent_before.iter().any(|sent| sent.ids.contains(id))
    }

    /// Takes a message. One that was under way goes before all that came later.
    pub(super) fn offer(&mut self, id: DeliveryId) {
        if self.has_begun(&id) {
            return;
        }
        if !self.was_sent(&id) {
            return self.waiting.push_back(id);
        }
        self.current.take_if(|current| current.is_untouched());
        let at = self.waiting.iter().take_while(|one| self.was_sent(one)).count();
        self.waiting.insert(at, id);
    }

    /// Forgets what the child cannot have.
    pub(super) fn cancel_waiting(&mut self) {
        let sent_before = &self.sent_before;
        self.waiting.retain(|id| sent_before.iter().any(|sent| sent.ids.contains(id)));
        self.current.take_if(|current| current.is_untouched());
    }
}

impl Desk {
    pub(super) fn work_composer(&mut self, now: Instant) {
        // As many as wait: each turn ends one injection or stops.
        for _ in 0..=self.queued() {
            self.plan(now);
            let working = self.is_working();
            let shut = self.shut();
            let Lane::Composer(lane) = &mut self.lane else { return };
            let Some(injection) = &mut lane.current else { return };
            let sight = Sight {
                gate: shut.as_ref().unwrap_or(&self.gate),
                busy: shut.as_ref().unwrap_or(&self.busy),
                working,
                dialog: self.blocked.is_some(),
                person: self.person.beside(now),
                taken: !self.writer.holds(injection.lead()),
                consumed: self.consumed,
                screen: &self.screen,
                complete: self.readiness.is_frame(self.screen.is_complete(), now),
                quiet: self.readiness.quiet(now),
            };
            let acts = injection.look(&sight, now);
            let ids: Vec<_> = injection.ids().cloned().collect();
            let lead = injection.lead().clone();
            let done = injection.is_done();
            let typed = acts.contains(&Act::Type).then(|| injection.text().to_owned());
            if done {
                self.unrecorded += u8::from(injection.is_unrecorded());
                lane.current = None;
            }
            if let Some(text) = typed {
                let before = lane.waiting.len();
                lane.waiting.retain(|id| !ids.contains(id));
                self.framed += (before - lane.waiting.len()) as u64;
                self.typed = true;
                self.consumed = None;
                self.person.step_aside();
                let bytes = self.paste(text);
                self.writer.push_message(lead.clone(), bytes);
            }
            for act in acts {
                match act {
                    Act::Type => {}
                    Act::Press => self.press(&lead, Some(&self.harness.submit.key)),
                    Act::Queue => self.press(&lead, self.harness.busy.queue_key()),
                    Act::Interrupt => self.press(&lead, self.harness.busy.interrupt.as_ref()),
                    Act::Say(step) => ids.iter().for_each(|id| self.say(id.clone(), step.clone())),
                }
            }
            if !done {
                return;
            }
        }
    }

    fn press(&mut self, lead: &DeliveryId, keys: Option<&Keys>) {
        self.consumed = None;
        let strokes = keys.into_iter().flat_map(Keys::strokes);
        for (stroke, gap) in strokes.zip(self.harness.submit.gaps()) {
            self.writer.push_submit(lead.clone(), stroke.as_bytes(), gap);
        }
    }

    /// The delivery that a record of the program would prove now, and the text by which to know it there: it
    /// stands in the header, so that it is in every form in which the message may have been typed. Of several
    /// in one text it is the first, with whose header the text begins.
    pub(crate) fn awaits_record(&self) -> Option<(DeliveryId, String)> {
        let Lane::Composer(lane) = &self.lane else { return None };
        let current = lane.current.as_ref().filter(|current| current.awaits_record())?;
        let Text::Message(note) = &self.tickets.get(current.lead())?.text else { return None };
        // As it was typed: perhaps before anybody thought that it might come twice.
        let marks = [true, false].map(|redelivered| marker(note, &self.agent, redelivered));
        let mark = marks.into_iter().find(|mark| current.text().contains(mark.as_str()))?;
        Some((current.lead().clone(), mark))
    }

    /// The program's record shows this delivery as a turn of its user, and with it those of the same text.
    pub(crate) fn recorded(&mut self, id: &DeliveryId) {
        self.unrecorded = 0;
        let Lane::Composer(lane) = &mut self.lane else { return };
        if !lane.has_begun(id) {
            return;
        }
        let Some(mut current) = lane.current.take() else { return };
        if let Some(step) = current.recorded() {
            current.ids().for_each(|id| self.say(id.clone(), step.clone()));
        }
    }

    /// Sees to it that the right text is next, as long as nothing was done for the one that is.
    fn plan(&mut self, now: Instant) {
        let working = self.is_working();
        let Lane::Composer(lane) = &mut self.lane else { return };
        if lane.current.as_ref().is_some_and(|current| !current.is_open()) {
            return;
        }
        let unrecorded = self.unrecorded;
        // A first task has no header to be known by.
        let is_recorded = |lead: &DeliveryId| unrecorded < UNRECORDED_MAX && lead.as_str() != TASK;
        if let Some(first) = lane.waiting.front()
            && let Some(at) = lane.sent_before.iter().position(|sent| sent.ids.contains(first))
        {
            let Sent { mut ids, wording, flat, as_line } = lane.sent_before.swap_remove(at);
            lane.waiting.retain(|id| !ids.contains(id));
            let lead = ids.remove(0);
            let again = Injection::new(lead, ids, wording, Way::Rest, self.harness, now);
            let again = again.sent_before(flat, as_line);
            lane.current = Some(if is_recorded(again.lead()) { again } else { again.without_record() });
            return;
        }
        let tickets = &self.tickets;
        let ticket = |id: &DeliveryId| tickets.get(id);
        let waiting: Vec<_> = lane.waiting.iter().filter_map(ticket).map(|one| one.waiting(now)).collect();
        let Some(Turn { from, count, way }) = turn::next(&waiting, working, &self.harness.busy) else {
            lane.current = None;
            return;
        };
        let ids = || lane.waiting.iter().skip(from).take(count);
        let same = |current: &Injection| current.way() == way && current.ids().eq(ids());
        if lane.current.as_ref().is_some_and(same) {
            return;
        }
        let texts = ids()
            .zip(self.framed..)
            .filter_map(|(id, nth)| Some(frame(self.harness, &self.agent, self.has_tools, nth, ticket(id)?)));
        let wording = Wording::of(&texts.collect::<Vec<_>>());
        let mut ids = ids().cloned();
        let Some(lead) = ids.next() else { return };
        let others = ids.collect();
        let next = Injection::new(lead, others, wording, way, self.harness, now);
        let next = if is_recorded(next.lead()) { next } else { next.without_record() };
        lane.current = Some(match lane.current.take() {
            Some(before) => next.instead_of(before),
            None => next,
        });
    }

    /// When a message that waits for the end of a turn has waited too long.
    pub(super) fn overdue_at(&self, now: Instant) -> Option<Instant> {
        let Lane::Composer(lane) = &self.lane else { return None };
        let first = self.tickets.get(lane.waiting.front()?).filter(|_| self.is_working())?;
        Some(now + turn::overdue_in(&first.waiting(now), &self.harness.busy)?)
    }

    /// The text as this program takes it at this moment.
    fn paste(&self, text: String) -> Vec<u8> {
        if self.screen.bracketed_paste() {
            [b"\x1b[200~", text.as_bytes(), b"\x1b[201~"].concat()
        } else {
            // Outside a paste, Tab is a key; a line feed is Ctrl-J, which is typed on purpose.
            text.replace('\t', "    ").into_bytes()
        }
    }

    /// A program taken for plain shows a composer. What was written to it before may have been read by
    /// nobody: it is looked for on the screen before it is typed again.
    pub(super) fn become_composer(&mut self, now: Instant) {
        let plain_rules = self.harness;
        self.before = Some(plain_rules);
        self.harness = plain_rules.with_composer();
        self.readiness.mark_starting(now);
        let mut composer = ComposerLane::default();
        if let Lane::Plain(plain) = std::mem::replace(&mut self.lane, Lane::Plain(PlainLane::default())) {
            let (begun, not_begun) = plain.give_up();
            self.typed |= !begun.is_empty() || !self.proven.is_empty();
            for id in &begun {
                if let Some(ticket) = self.tickets.get(id) {
                    // As it was written: no hint, and no count of its own.
                    let wording = Wording::of(&[frame(plain_rules, &self.agent, self.has_tools, 1, ticket)]);
                    let sent = Sent { ids: vec![id.clone()], wording, flat: true, as_line: true };
                    composer.sent_before.push(sent);
                }
            }
            composer.waiting.extend(begun);
            composer.waiting.extend(not_begun);
        }
        self.lane = Lane::Composer(Box::new(composer));
    }

    /// A program that had the whole screen for a while reads lines again: a pager or an editor was all there was. It
    /// gets what waits as it did before, once what is under way is done. A program that took pastes there was such an
    /// editor only if lines were read before it.
    pub(super) fn become_plain_again(&mut self, now: Instant) {
        let (Some(before), Lane::Composer(lane)) = (self.before, &mut self.lane) else { return };
        let screen = &self.screen;
        let took_pastes = screen.shared_paste_seen() || (screen.bracketed_paste_seen() && !self.lines_read);
        if screen.alternate() || screen.bracketed_paste() || took_pastes {
            return;
        }
        // What the child may have from before it showed its screen is looked for there.
        if !lane.sent_before.is_empty() || lane.current.as_ref().is_some_and(|current| !current.is_at_gate())
        {
            return;
        }
        let swallowed = lane.begun().into_iter().flat_map(Injection::ids).cloned();
        let ids: Vec<_> = swallowed.chain(lane.waiting.iter().cloned()).collect();
        (self.harness, self.before) = (before, None);
        (self.working, self.blocked) = (None, None);
        (self.unknown, self.unknown_at, self.drafts) = (false, None, false);
        self.readiness.mark_starting(now);
        self.lane = Lane::Plain(PlainLane::after(self.writer.taken()));
        for id in ids {
            self.lay_out(id);
        }
    }
}
