//! What the agent is seen to do, and whether a message may be typed now.

use std::time::Instant;

use super::{Desk, Effect, HEARS_AFTER, Lane};
use crate::{
    actors::pty_worker::{
        dialog::Found,
        readiness::{Gate, Look},
        sight::before_cursor,
    },
    harness::{self, Place},
    messages::pty::AgentState,
    screen::Region,
};

/// The question of a program that has shown no composer in time, or shows it no more, whatever it is.
const UNKNOWN: &str = "unknown screen";

/// Why a message waits for a person, in words.
const TYPING: &str = "a person is typing";
const DRAFT: &str = "the composer holds a person's words";
/// Why a program without a terminal gets nothing, in words.
const CLOSED: &str = "the program has closed its terminal";

impl Desk {
    /// Looks at the screen and decides whether a message may be typed.
    pub(super) fn judge(&mut self, now: Instant) {
        if let Lane::Plain(_) = self.lane {
            let gate = self.readiness.plain(&self.harness.ready, now);
            self.mark_ready(&gate);
            self.gate = gate.unless(self.person_in_the_way(now).as_ref());
            return;
        }
        let verdict = self.harness.judge(!self.typed, |place| self.screen.text(region(place)));
        let complete = self.readiness.is_frame(self.screen.is_complete(), now);
        if complete {
            self.working = verdict.working;
            self.blocked = verdict.blocked;
        }
        let ready = &self.harness.ready;
        let look = Look {
            complete,
            pastes: self.screen.bracketed_paste(),
            pastes_seen: self.screen.bracketed_paste_seen(),
            alternate: self.screen.alternate(),
            prompt: verdict.ready,
            working: self.working.map(|rule| rule.id.as_str()),
            blocked: self.blocked.map(|dialog| dialog.rule.id.as_str()),
        };
        let gate = self.readiness.composer(ready, look, now);
        self.mark_ready(&gate);
        if complete {
            let since = self.readiness.unknown_at(look);
            // It stays so while it goes on moving now and then.
            self.unknown = since.is_some_and(|at| self.unknown || at <= now);
            self.unknown_at = since.filter(|_| !self.unknown);
        }
        let busy = self.readiness.busy(look, now);
        let is_at_rest = gate == Gate::Open;
        let may_type = is_at_rest || busy == Gate::Open;
        self.drafts = false;
        let person = may_type.then(|| self.person_in_the_way(now)).flatten();
        // While a turn runs, that is what the agent does, whatever stands in its composer.
        self.drafts &= is_at_rest;
        self.gate = gate.unless(person.as_ref());
        self.busy = busy.unless(person.as_ref());
    }

    fn mark_ready(&mut self, gate: &Gate) {
        if *gate == Gate::Open {
            self.ever_ready = true;
            self.readiness.mark_ready();
        }
    }

    /// A person at the keyboard comes first, and so do the words that they have not sent yet.
    fn person_in_the_way(&mut self, now: Instant) -> Option<Gate> {
        if let Some(until) = self.person.typing_until(now) {
            return Some(Gate::closed(TYPING, Some(until)));
        }
        // Nearly always there are no such words, and then nothing needs to be read off the screen.
        if !self.person.may_have_draft() || matches!(self.lane, Lane::Plain(_)) {
            return None;
        }
        let empty = self.composer_is_empty();
        self.drafts = self.person.has_draft(&before_cursor(&self.screen), empty);
        self.drafts.then(|| Gate::closed(DRAFT, None))
    }

    /// What the rule set says of the composer, if it says how an empty one looks.
    fn composer_is_empty(&self) -> Option<bool> {
        let composer = &self.harness.composer;
        let region = composer.region.filter(|_| !composer.empty.is_empty())?;
        let seen = self.screen.text(self::region(region));
        Some(composer.empty.iter().any(|text| seen.contains(text)))
    }

    /// True while a dialog is open that asks for a login.
    pub(crate) fn wants_login(&self) -> bool {
        self.blocked.is_some_and(|dialog| dialog.severity == harness::Severity::Auth)
    }

    pub(super) fn update_state(&mut self, now: Instant) {
        let (state, because) = self.state_now(now);
        if because != self.because {
            self.because = because;
        }
        let asks = (state == AgentState::Blocked).then(|| self.question());
        let asks_anew = self.dialogs.see(asks, self.screen.offset());
        if asks_anew {
            self.asked_at = Some(now);
        }
        if state != self.state || asks_anew {
            let from = std::mem::replace(&mut self.state, state);
            let (because, dialog) = (self.because.clone(), self.dialogs.view().cloned());
            self.effects.push(Effect::State { from, to: state, because, dialog });
        }
    }

    /// The program has no terminal any more, although it lives: nothing that waits will be read.
    pub(crate) fn lose_terminal(&mut self) {
        if self.because == CLOSED {
            return;
        }
        CLOSED.clone_into(&mut self.because);
        (self.gate, self.busy) = (Gate::closed(CLOSED, None), Gate::closed(CLOSED, None));
        self.dialogs.see(None, self.screen.offset());
        let from = std::mem::replace(&mut self.state, AgentState::NotReading);
        let because = self.because.clone();
        self.effects.push(Effect::State { from, to: self.state, because, dialog: None });
    }

    /// When the open dialog is answered as the spawn has said, if it is one for which that was said: it may be drawn
    /// in pieces before, and it hears nothing yet.
    pub(super) fn granted_at(&self) -> Option<Instant> {
        let dialog = self.blocked.filter(|_| self.state == AgentState::Blocked)?;
        let is_answered = self.answered.as_ref() == self.dialogs.view().map(|open| &open.id);
        let is_open = !is_answered && self.shut().is_none() && dialog.granted(self.autonomy).is_some();
        self.asked_at.filter(|_| is_open).map(|at| at + HEARS_AFTER)
    }

    /// Answers the open dialog if the spawn has made the choice, each once, and unless a person is at it.
    pub(super) fn answer_as_granted(&mut self, now: Instant) {
        let Some(dialog) = self.blocked else { return };
        let is_due = self.granted_at().is_some_and(|at| at <= now) && self.person.typing_until(now).is_none();
        if let Some(choice) = dialog.granted(self.autonomy).filter(|_| is_due)
            && let Ok((_, id)) = self.answer(choice, None)
        {
            self.effects.push(Effect::Granted(id, choice));
        }
    }

    /// What stands on the screen of an agent that is blocked.
    fn question(&self) -> Found<'static> {
        let (rule, place, answers) = match self.blocked {
            Some(dialog @ harness::Dialog { rule, answer, .. }) => {
                let answers = answer.iter().map(|(choice, keys)| (choice.clone(), keys.clone()));
                (rule.id.as_str(), region(dialog.shown()), answers.collect())
            }
            None => (UNKNOWN, Region::Bottom(u16::MAX), Vec::new()),
        };
        Found { rule, text: self.screen.text(place), answers }
    }

    fn state_now(&self, now: Instant) -> (AgentState, String) {
        let ignored = match &self.lane {
            Lane::Plain(lane) => lane.is_ignored(now),
            Lane::Composer(lane) => lane.current.as_ref().is_some_and(|current| current.is_ignored(now)),
        };
        if ignored {
            return (AgentState::NotReading, "it does not read its input".to_owned());
        }
        let composer = matches!(self.lane, Lane::Composer(_));
        let state = if !self.readiness.was_ready() {
            let overdue = self.readiness.is_overdue(&self.harness.ready, now);
            let asks = self.blocked.is_some();
            if composer && (overdue || asks) { AgentState::Blocked } else { AgentState::Starting }
        } else if !composer {
            AgentState::Idle
        } else if self.blocked.is_some() {
            AgentState::Blocked
        } else if self.has_person(now) {
            AgentState::Human
        } else if self.is_working() {
            AgentState::Working
        } else if self.unknown {
            AgentState::Blocked
        } else {
            AgentState::Idle
        };
        let because = match &self.gate {
            // A screen that is being drawn closes the gate for moments, which is no reason to show.
            _ if state == AgentState::Idle => "it takes messages",
            _ if state == AgentState::Human && self.person.typing_until(now).is_some() => TYPING,
            _ if state == AgentState::Human => DRAFT,
            Gate::Open => "it takes messages",
            Gate::Closed { why, .. } => why,
        };
        (state, because.to_owned())
    }

    /// A person is typing, or has left words behind.
    fn has_person(&self, now: Instant) -> bool {
        self.drafts || self.person.typing_until(now).is_some()
    }

    pub(super) fn is_working(&self) -> bool {
        let closed = self.screen.bracketed_paste_seen() && !self.screen.bracketed_paste();
        closed || (self.gate != Gate::Open && self.working.is_some())
    }
}

fn region(place: Place) -> Region {
    match place {
        Place::Screen => Region::All,
        Place::Bottom(rows) => Region::Bottom(rows),
        Place::Cursor { above, below } => Region::Cursor { above, below },
        Place::Title => Region::Title,
    }
}
