//! A running child: its terminal, its process and its desk.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use super::{
    ROUNDS, desk::Desk, pace::Pace, parting::Parting, session::Session, transcript::Transcript, watch::Watch,
};
use crate::{
    harness::{Harness, Keys},
    ids::AgentName,
    messages::pty::Terminate,
    pty::{self, ExitStatus, Process, Signal, Terminal, ladder},
};

/// After the exit, output is read until it has been quiet for two looks, or for this long.
const DRAIN: Duration = Duration::from_millis(200);
pub(super) const DRAIN_LOOK: Duration = Duration::from_millis(2);
const DRAIN_QUIET: u8 = 2;
/// A program that says why it cannot run ends right after that.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// A child whose terminal has ended this long ago has closed it, and lives on without: an exit is seen sooner.
const CLOSED: Duration = Duration::from_secs(1);

/// A running child.
pub(super) struct Live {
    pub(super) terminal: Rc<Terminal>,
    pub(super) process: Rc<Process>,
    /// The rule set it was started with.
    pub(super) chosen: &'static Harness,
    pub(super) desk: Desk,
    pub(super) born: Instant,
    /// Nobody has the terminal open any more, and all output is read.
    pub(super) hung_up: bool,
    /// The kernel takes no more input.
    pub(super) deaf: bool,
    /// Since when it is one of both.
    lost_at: Option<Instant>,
    /// Its first output.
    spoke_at: Option<Instant>,
    /// The start was answered.
    pub(super) survived: bool,
    pub(super) ending: Option<Parting>,
    /// For its limits and its record.
    pub(super) watch: Watch,
    pub(super) exit: Option<Drain>,
    /// How fast its output is read while it runs.
    pub(super) pace: Pace,
    /// When to look at what the child has read, unless the kernel hints at it sooner.
    pub(super) look_at: Option<Instant>,
    /// The program's own record of its turns, where it keeps one.
    pub(super) transcript: Option<Transcript>,
    pub(super) session: Session,
    /// What it has started stays when it ends.
    keeps_daemons: bool,
}

/// The child has exited; its last output is being read.
pub(super) struct Drain {
    pub(super) status: ExitStatus,
    pub(super) until: Instant,
    pub(super) look_at: Instant,
    pub(super) quiet: u8,
    pub(super) swept: bool,
}

impl Drain {
    /// A child that has ended just now.
    pub(super) fn new(status: ExitStatus, now: Instant) -> Self {
        Self { status, until: now + DRAIN, look_at: now, quiet: 0, swept: false }
    }

    /// True when there is nothing more to read, or it has taken too long.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        self.quiet >= DRAIN_QUIET || self.until <= now
    }
}

impl Live {
    /// A child that was started just now under the rule set `chosen`.
    pub(super) fn new(
        terminal: Terminal,
        process: Process,
        chosen: &'static Harness,
        desk: Desk,
        watch: Watch,
        keeps_daemons: bool,
        now: Instant,
    ) -> Self {
        Self {
            terminal: Rc::new(terminal),
            process: Rc::new(process),
            chosen,
            desk,
            born: now,
            hung_up: false,
            deaf: false,
            lost_at: None,
            spoke_at: None,
            survived: false,
            ending: None,
            watch,
            exit: None,
            pace: Pace::new(now),
            look_at: None,
            transcript: None,
            session: Session::default(),
            keeps_daemons,
        }
    }

    /// When it counts as started: after the time of the check (spec/pty 2.9), or soon after its first output.
    pub(super) fn survived_at(&self, check: Duration) -> Instant {
        let silent = self.born + check;
        self.spoke_at.map_or(silent, |spoke_at| silent.min(spoke_at + LAST_WORDS))
    }

    fn canonical(&self) -> bool {
        self.terminal.line_mode().is_ok_and(|mode| mode.canonical)
    }

    pub(super) fn take_output(&mut self, bytes: &[u8], now: Instant) {
        let terminal = &self.terminal;
        let canonical = || terminal.line_mode().is_ok_and(|mode| mode.canonical);
        self.watch.stirred(now);
        self.spoke_at.get_or_insert(now);
        self.desk.output(bytes, canonical, now);
    }

    /// Decides, writes and looks, until nothing follows any more.
    pub(super) fn work(&mut self, now: Instant) {
        if self.exit.is_some() || self.hung_up || self.deaf {
            self.look_at = None;
            self.miss_terminal(now);
            return;
        }
        for _ in 0..ROUNDS {
            let canonical = self.canonical();
            self.desk.work(canonical, now);
            let wrote = self.write(now);
            let looked = self.look_at.is_some_and(|at| at <= now) && self.look(now);
            if !wrote && !looked {
                break;
            }
        }
        self.look_at = match (self.desk.look_after(now), self.look_at) {
            (None, _) => None,
            (Some(pause), None) => Some(now + pause),
            // A pause that became shorter counts from now; a longer one does not postpone the next look.
            (Some(pause), Some(at)) => Some(at.min(now + pause)),
        };
    }

    /// A child that lives on without its terminal reads nothing any more.
    fn miss_terminal(&mut self, now: Instant) {
        let lost_at = *self.lost_at.get_or_insert(now);
        if self.exit.is_none() && lost_at + CLOSED <= now {
            self.desk.conclude();
            self.desk.lose_terminal();
        }
    }

    /// The child was seen to read, or may have, before what it writes now: that may change what it is taken for.
    pub(super) fn look_first(&mut self, now: Instant) {
        if self.desk.look_after(now).is_some() {
            self.look(now);
        }
    }

    /// When a child that has lost its terminal counts as living on.
    pub(super) fn closed_at(&self, now: Instant) -> Option<Instant> {
        self.lost_at.map(|at| at + CLOSED).filter(|at| *at > now)
    }

    /// Writes what the kernel takes.
    fn write(&mut self, now: Instant) -> bool {
        let mut wrote = false;
        while let Some(offer) = self.desk.offer(now) {
            match self.terminal.try_write(offer) {
                Ok(0) => break,
                Ok(taken) => {
                    self.desk.took(taken, now);
                    wrote = true;
                }
                Err(error) => {
                    // Its end, if it is one, is told by the process.
                    debug!(%error, "terminal cannot be written");
                    self.deaf = true;
                    break;
                }
            }
        }
        wrote
    }

    /// Looks at what the child has read.
    fn look(&mut self, now: Instant) -> bool {
        self.look_at = None;
        let seen = self.terminal.unread().and_then(|unread| Ok((unread, self.terminal.has_news()?)));
        match seen {
            // An empty queue may be the work of a flush: that news is read first.
            Ok((_, true)) => false,
            Ok((unread, false)) => {
                self.desk.looked(unread, now);
                true
            }
            Err(error) => {
                warn!(%error, "unread input cannot be counted");
                false
            }
        }
    }

    /// The kernel hints that the child has read.
    pub(super) fn hinted(&mut self, now: Instant) {
        if self.desk.look_after(now).is_some() {
            self.look_at = Some(now);
        }
    }

    /// Looks at the memory, if it is time to.
    pub(super) fn keep_books(&mut self, now: Instant) {
        if self.exit.is_none() && self.watch.wants_sample(now) {
            self.sample(now);
        }
    }

    fn sample(&mut self, now: Instant) {
        let peak = pty::peak_memory(self.process.pid().as_raw().cast_unsigned());
        self.watch.sample(peak, pty::oom_kills(), now);
    }

    /// Ends it when it has reached one of its limits.
    pub(super) fn enforce(&mut self, agent: &AgentName, now: Instant) {
        // Whoever spawned it is told first that it runs.
        if !self.survived || self.exit.is_some() || self.ending.is_some() {
            return;
        }
        if let Some(by) = self.watch.reached(self.desk.screen().offset(), now) {
            warn!(%agent, limit = by.reason(), "agent has reached a limit, ending it");
            self.end(Terminate { by, force: false, within: None }, now);
        }
    }

    /// Begins its end, or begins it again in another way. Nothing new is typed from here on.
    pub(super) fn end(&mut self, terminate: Terminate, now: Instant) {
        // The last chance to see what it had.
        self.sample(now);
        self.desk.begin_nothing_new();
        let polite = self.chosen.quit.is_some();
        self.ending = Some(match &self.ending {
            Some(parting) => parting.again(terminate, polite, now),
            None => Parting::new(terminate, polite, now),
        });
    }

    /// True while something half-way is coming to its proof.
    fn is_moving(&self, now: Instant) -> bool {
        !self.hung_up && !self.deaf && self.desk.is_moving(now)
    }

    /// When the next step of its end is due.
    pub(super) fn end_wake(&self, now: Instant) -> Option<Instant> {
        self.ending.as_ref()?.wake(self.is_moving(now), now)
    }

    /// Types the quit keys behind what is being typed.
    fn type_quit_keys(&mut self) {
        let strokes = self.chosen.quit.iter().flat_map(Keys::strokes);
        if let Err(waiting) = self.desk.strokes(strokes.map(|stroke| stroke.as_bytes().to_vec())) {
            // A full queue is read by nobody: the signals come next.
            debug!(waiting, "quit keys find no room");
        }
    }

    /// Takes the step of its end that is due.
    pub(super) fn step_end(&mut self, agent: &AgentName, now: Instant) {
        if self.exit.is_some() {
            return;
        }
        let moving = self.is_moving(now);
        let Some(parting) = &mut self.ending else { return };
        let Some(step) = parting.step(moving, now) else { return };
        self.desk.conclude();
        let signal = match step {
            ladder::Step::Quit => return self.type_quit_keys(),
            ladder::Step::Hangup => Signal::SIGHUP,
            ladder::Step::Terminate => Signal::SIGTERM,
            ladder::Step::Kill => Signal::SIGKILL,
        };
        if let Err(error) = self.process.signal_groups(&self.terminal, signal) {
            warn!(%agent, %signal, %error, "agent cannot be signalled");
        }
    }

    /// True while the child has something to read, or the kernel no room for more.
    pub(super) fn awaits_reader(&self, now: Instant) -> bool {
        !self.hung_up && !self.deaf && (self.desk.offer(now).is_some() || self.desk.look_after(now).is_some())
    }
}

impl Drop for Live {
    /// An actor that is given up must not leave a child that nobody serves, nor what that has started.
    fn drop(&mut self) {
        if self.exit.is_none()
            && let Err(error) = self.process.signal_groups(&self.terminal, Signal::SIGKILL)
        {
            warn!(%error, "abandoned agent cannot be killed");
        }
        if !self.keeps_daemons && !self.exit.as_ref().is_some_and(|drain| drain.swept) {
            pty::sweep_abandoned(&self.process);
        }
    }
}
