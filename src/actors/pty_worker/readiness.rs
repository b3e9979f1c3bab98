//! When a program takes a message: never while it starts, draws, works or asks something (spec/pty 11).

use std::time::{Duration, Instant};

use crate::harness::Ready;

/// A program that shows a busy text but has been silent for this long only quotes it: whoever works, moves.
const BUSY_SILENCE_MAX: Duration = Duration::from_secs(5);
/// A synchronised update that is not finished for this long was forgotten.
const FRAME_MAX: Duration = Duration::from_secs(1);
/// Between looks at the line mode of a program that starts: the kernel does not tell when it changes.
const MODE_LOOK: Duration = Duration::from_millis(50);

/// May a message be typed now?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Yes.
    Open,
    /// No.
    Closed {
        /// Why, in words.
        why: String,
        /// When to ask again although nothing happened.
        until: Option<Instant>,
    },
}

impl Gate {
    pub(super) fn closed(why: impl Into<String>, until: Option<Instant>) -> Self {
        Self::Closed { why: why.into(), until }
    }

    /// The gate, when it is open and `other` is not: `other`.
    pub(super) fn unless(self, other: Option<&Self>) -> Self {
        match other {
            Some(other) if self == Self::Open => other.clone(),
            _ => self,
        }
    }
}

/// What is seen of a program with a composer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look<'a> {
    /// The screen shows a whole frame.
    pub complete: bool,
    /// It takes pastes now.
    pub pastes: bool,
    /// It has ever taken pastes.
    pub pastes_seen: bool,
    /// It owns the whole screen.
    pub alternate: bool,
    /// Its prompt is where it must be, as far as its rules know one.
    pub prompt: bool,
    /// The busy rule that matches.
    pub working: Option<&'a str>,
    /// The dialog rule that matches.
    pub blocked: Option<&'a str>,
}

/// The times that readiness depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readiness {
    born: Instant,
    last_output: Option<Instant>,
    /// Since when it reads keys instead of lines.
    raw_since: Option<Instant>,
    was_ready: bool,
    flushed: Option<Instant>,
}

impl Readiness {
    /// A program that starts now.
    pub(super) fn new(now: Instant) -> Self {
        Self { born: now, last_output: None, raw_since: None, was_ready: false, flushed: None }
    }

    /// It wrote something.
    pub(super) fn output(&mut self, now: Instant) {
        self.last_output = Some(now);
    }

    /// It threw unread input away: whatever it is setting up, it is not done.
    pub(super) fn flushed(&mut self, now: Instant) {
        self.flushed = Some(now);
    }

    /// The kernel says how it reads.
    pub(super) fn line_mode(&mut self, canonical: bool, now: Instant) {
        if canonical {
            self.raw_since = None;
        } else {
            self.raw_since.get_or_insert(now);
        }
    }

    /// It has taken, or could have taken, its first message.
    pub(super) fn was_ready(&self) -> bool {
        self.was_ready
    }

    /// It is ready for the first time.
    pub(super) fn mark_ready(&mut self) {
        self.was_ready = true;
    }

    /// A composer appeared, or is gone for good: what was ready as another kind of program starts anew, and has its
    /// whole time to do so.
    pub(super) fn mark_starting(&mut self, now: Instant) {
        self.was_ready = false;
        self.born = now;
    }

    /// Silence so far.
    pub(super) fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_output.unwrap_or(self.born))
    }

    /// True when the screen shows a whole frame, or one that nobody finishes any more.
    pub(super) fn is_frame(&self, complete: bool, now: Instant) -> bool {
        complete || self.quiet(now) >= FRAME_MAX
    }

    /// True when a program that is still starting has used up its time.
    pub(super) fn is_overdue(&self, rules: &Ready, now: Instant) -> bool {
        !self.was_ready && self.born + rules.startup_timeout <= now
    }

    /// The gate of a program without a composer. Once open it stays open: the kernel queues for it.
    pub(super) fn plain(&self, rules: &Ready, now: Instant) -> Gate {
        let signs_of_life = self.last_output.max(self.raw_since);
        let quiet = signs_of_life.map_or(self.born + rules.silent, |since| since + rules.quiet);
        let open_at = quiet.min(self.born + rules.life);
        if let Some(until) = self.flushed.map(|at| at + rules.quiet).filter(|until| *until > now) {
            return Gate::closed("the program has just thrown its input away unread", Some(until));
        }
        if self.was_ready || open_at <= now {
            return Gate::Open;
        }
        let look = if self.raw_since.is_none() { open_at.min(now + MODE_LOOK) } else { open_at };
        Gate::closed("the program is starting", Some(look))
    }

    /// The gate of a program with a composer.
    pub(super) fn composer(&self, rules: &Ready, look: Look<'_>, now: Instant) -> Gate {
        let silent_at = |silence: Duration| self.last_output.unwrap_or(self.born) + silence;
        let starting = (!self.was_ready).then(|| self.born + rules.startup_timeout);
        if !look.complete {
            return Gate::closed("the screen is being drawn", Some(silent_at(FRAME_MAX)));
        }
        if let Some(dialog) = look.blocked {
            return Gate::closed(format!("a dialog is open: {dialog}"), starting);
        }
        if look.pastes_seen && !look.pastes {
            return Gate::closed("the agent is working: its composer is closed", starting);
        }
        if !look.pastes_seen && (rules.needs_paste || !look.alternate) {
            return Gate::closed("no composer has appeared yet", starting);
        }
        if !look.prompt {
            return Gate::closed("its prompt is not on the screen", starting);
        }
        let silence = if self.was_ready { rules.quiet } else { rules.first_quiet };
        if silent_at(silence) > now {
            return Gate::closed("the screen is changing", Some(silent_at(silence)));
        }
        if let Some(rule) = look.working
            && silent_at(BUSY_SILENCE_MAX) > now
        {
            return Gate::closed(format!("the agent is working: {rule}"), Some(silent_at(BUSY_SILENCE_MAX)));
        }
        Gate::Open
    }

    /// When a program that was ready and hides its prompt counts as asking something that no rule knows: whoever works
    /// moves before then.
    pub(super) fn unknown_at(&self, look: Look<'_>) -> Option<Instant> {
        let hides = !look.prompt && look.blocked.is_none() && look.working.is_none();
        (self.was_ready && hides).then(|| self.last_output.unwrap_or(self.born) + BUSY_SILENCE_MAX)
    }

    /// The gate of a message that does not wait for rest: there is a composer, whatever else runs.
    pub(super) fn busy(&self, look: Look<'_>, now: Instant) -> Gate {
        if !look.complete {
            let forgotten = self.last_output.unwrap_or(self.born) + FRAME_MAX;
            return Gate::closed("the screen is being drawn", Some(forgotten).filter(|at| *at > now));
        }
        if let Some(dialog) = look.blocked {
            return Gate::closed(format!("a dialog is open: {dialog}"), None);
        }
        if !self.was_ready || (look.pastes_seen && !look.pastes) {
            return Gate::closed("the agent is working: its composer is closed", None);
        }
        Gate::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Harness;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn why(gate: Gate) -> String {
        match gate {
            Gate::Open => String::new(),
            Gate::Closed { why, .. } => why,
        }
    }

    #[test]
    fn a_plain_program_is_ready_when_it_has_settled() {
        let rules = &Harness::by_name("plain").unwrap().ready;
        let born = Instant::now();
        let silent = Readiness::new(born);
        assert_ne!(silent.plain(rules, born + ms(999)), Gate::Open);
        assert_eq!(silent.plain(rules, born + ms(1000)), Gate::Open);

        let mut talking = Readiness::new(born);
        talking.output(born + ms(400));
        assert_ne!(talking.plain(rules, born + ms(499)), Gate::Open);
        assert_eq!(talking.plain(rules, born + ms(500)), Gate::Open);
        talking.output(born + ms(2950));
        assert_eq!(talking.plain(rules, born + ms(3000)), Gate::Open, "its age is enough");

        let mut raw = Readiness::new(born);
        raw.line_mode(false, born + ms(30));
        raw.line_mode(false, born + ms(90));
        assert_eq!(raw.plain(rules, born + ms(130)), Gate::Open);
        raw.line_mode(true, born + ms(130));
        assert_ne!(raw.plain(rules, born + ms(130)), Gate::Open, "it went back to lines");
    }

    #[test]
    fn a_plain_program_that_was_ready_stays_so_while_it_talks() {
        let rules = &Harness::by_name("plain").unwrap().ready;
        let mut readiness = Readiness::new(Instant::now());
        let now = readiness.born + ms(600);
        readiness.mark_ready();
        readiness.output(now);
        assert_eq!(readiness.plain(rules, now), Gate::Open);
    }

    #[test]
    fn a_plain_program_that_threw_its_input_away_gets_a_moment() {
        let rules = &Harness::by_name("plain").unwrap().ready;
        let mut readiness = Readiness::new(Instant::now());
        let now = readiness.born + ms(5000);
        readiness.mark_ready();
        readiness.flushed(now);
        assert_ne!(readiness.plain(rules, now + ms(99)), Gate::Open);
        assert_eq!(readiness.plain(rules, now + ms(100)), Gate::Open);
    }

    #[test]
    fn a_composer_is_typed_into_only_when_it_is_there_and_still() {
        let rules = &Harness::by_name("generic").unwrap().ready;
        let born = Instant::now();
        let mut readiness = Readiness::new(born);
        readiness.output(born + ms(100));
        let now = born + ms(800);
        let open = Look { complete: true, pastes: true, pastes_seen: true, prompt: true, ..Look::default() };
        let gate = |look| why(readiness.composer(rules, look, now));
        assert_eq!(gate(open), "");
        assert_eq!(gate(Look { pastes: false, ..open }), "the agent is working: its composer is closed");
        assert_eq!(gate(Look { pastes: false, pastes_seen: false, ..open }), "no composer has appeared yet");
        let whole_screen = Look { alternate: true, complete: true, prompt: true, ..Look::default() };
        assert_eq!(gate(whole_screen), "");
        let pasting = &Ready { needs_paste: true, ..rules.clone() };
        let gate_of_pasting = |look| why(readiness.composer(pasting, look, now));
        assert_eq!(gate_of_pasting(whole_screen), "no composer has appeared yet");
        assert_eq!(gate_of_pasting(open), "");
        assert_eq!(gate(Look { prompt: false, ..open }), "its prompt is not on the screen");
        assert_eq!(gate(Look { complete: false, ..open }), "the screen is being drawn");
        assert_eq!(gate(Look { blocked: Some("trust"), ..open }), "a dialog is open: trust");
        assert_eq!(gate(Look { working: Some("spinner"), ..open }), "the agent is working: spinner");
        let later = readiness.composer(rules, Look { working: Some("spinner"), ..open }, born + ms(5100));
        assert_eq!(later, Gate::Open, "a busy text that does not move is a quotation");
    }

    #[test]
    fn the_first_message_waits_for_a_longer_silence() {
        let rules = &Harness::by_name("generic").unwrap().ready;
        let born = Instant::now();
        let mut readiness = Readiness::new(born);
        readiness.output(born);
        let open = Look { complete: true, pastes: true, pastes_seen: true, prompt: true, ..Look::default() };
        let until = Some(born + ms(600));
        assert_eq!(
            readiness.composer(rules, open, born + ms(300)),
            Gate::closed("the screen is changing", until)
        );
        readiness.mark_ready();
        assert_eq!(readiness.composer(rules, open, born + ms(300)), Gate::Open);
        assert!(!readiness.is_overdue(rules, born + ms(999_999)));
    }

    #[test]
    fn a_message_that_does_not_wait_for_rest_needs_a_composer_and_no_dialog() {
        let born = Instant::now();
        let mut readiness = Readiness::new(born);
        let open = Look { complete: true, pastes: true, pastes_seen: true, prompt: true, ..Look::default() };
        let working = Look { working: Some("spinner"), prompt: false, ..open };
        assert_ne!(readiness.busy(working, born), Gate::Open, "it has never been ready");
        readiness.mark_ready();
        readiness.output(born);
        assert_eq!(readiness.busy(working, born), Gate::Open);
        assert_ne!(readiness.busy(Look { blocked: Some("trust"), ..working }, born), Gate::Open);
        assert_ne!(readiness.busy(Look { pastes: false, ..working }, born), Gate::Open);
        assert_ne!(readiness.busy(Look { complete: false, ..working }, born), Gate::Open);
    }
}
