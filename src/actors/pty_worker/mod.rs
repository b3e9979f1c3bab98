//! One agent's terminal: it starts the program, types messages into it with proof, shows its screen, and
//! tells how it ended.
//!
//! ```text
//! Starting --survived--> Live --child exited--> Draining --> Sweeping --> exits (Finished)
//!    |                    |  Inject, Input, Resize, TakeSnapshot
//!    +--refused--> exits  +--Terminate--> Live, on the ladder (HUP, TERM, KILL)
//! ```
//!
//! No thread and, while nothing is under way, no timer: one future ([`Drive`]) waits for output, for room or
//! a drained queue, for the exit, and for the one deadline that comes first. All decisions are in the [`desk`].
//!
//! A restart keeps the terminal, the child, the screen and what the child may have of ours (bytes in the
//! writer, flights, the text in its composer); it forgets what was not begun, which the cursor hands over
//! again, and keystrokes that wait for their answer. What was wholly written is never written again.

mod desk;
mod exit;
mod frame;
mod inject;
mod plain;
mod readiness;
mod sanitise;
mod sight;
mod stream;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    path::PathBuf,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context as Task, Poll},
    time::{Duration, Instant},
};

use actix::{Actor, ActorFuture, ActorFutureExt, AsyncContext, Context, Handler, Supervised, WrapFuture};
use tokio::time::Sleep;
use tracing::{debug, info, warn};

use crate::{
    config::Timings,
    harness::Harness,
    ids::{AgentName, SpawnId},
    messages::{
        Reply,
        delivery::{CancelInjections, Inject, InjectReport, Note, WorkerGone, WorkerUp},
        lifecycle::ExitReason,
        observe::{Event, Publish},
        pty::{
            AgentState, ChildExited, EndedBy, Input, PtyRefused, Resize, Snapshot, StateChanged,
            TakeSnapshot, Terminate, WorkerView,
        },
        spawn::{AgentEnv, SpawnRefused, SpawnSpec, Started},
    },
    pty::{
        self, ExitStatus, Launch, LaunchError, Process, ReadOutcome, Signal, Swept, Terminal,
        ladder::{self, Ladder},
    },
    supervision::{Detail, Lifeline, Post, lock, now_ms},
};

use desk::{Desk, Effect};
use stream::{Chunk, Stream};

/// What a program is shown of a note, on several lines and on one. Only for tests that feed it hostile notes.
#[doc(hidden)]
pub fn shown(note: &Note, nth: u64, body_max: usize) -> (String, String) {
    let framing = frame::Framing { nth, body_max, redelivered: false, hints: true };
    let frame = frame::Frame::new(note, framing);
    (frame.lines(), frame.flat())
}

/// Most reads, and most bytes, before other agents of this thread get their turn (spec/pty 3.3).
const READS: usize = 16;
const READ_BYTES: usize = 64 << 10;
/// One read returns at most about 4 KiB.
const READ_BUFFER: usize = 8 << 10;
/// Most rounds of work in one turn: each writes, looks and does what follows from it.
const ROUNDS: usize = 8;
/// After the exit, output is read until it has been quiet for two looks, or for this long.
const DRAIN: Duration = Duration::from_millis(200);
const DRAIN_LOOK: Duration = Duration::from_millis(2);
const DRAIN_QUIET: u8 = 2;

/// What a worker is told at its birth. It keeps for all its lives.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The agent.
    pub name: AgentName,
    /// What to run.
    pub spec: SpawnSpec,
    /// What the agent is told about itself.
    pub relay_env: AgentEnv,
    /// Periods; tests shorten them.
    pub timings: Timings,
    /// How many want the live output; at 0 none is sent.
    pub stream_wanted: Arc<AtomicUsize>,
    /// What the worker shows of itself; made by the parent, which hands it out too.
    pub view: Arc<WorkerView>,
}

/// Whom a worker may write to.
#[derive(Clone, Debug)]
pub struct WorkerDoors {
    /// Rungs of proof, to the agent's cursor.
    pub report: Post<InjectReport>,
    /// A life that takes messages, to the cursor.
    pub up: Post<WorkerUp>,
    /// The end, to the cursor.
    pub gone: Post<WorkerGone>,
    /// The end, to the registry.
    pub exited: Post<ChildExited>,
    /// Changes of what the agent does, to the registry.
    pub state: Post<StateChanged>,
    /// The live output, to the event hub.
    pub publish: Post<Publish>,
}

/// The actor. See the module.
pub struct PtyWorker {
    life: Lifeline,
    config: WorkerConfig,
    doors: WorkerDoors,
    /// Whoever waits for the start.
    starting: Option<Reply<Result<Started, SpawnRefused>>>,
    /// An end that was asked for before the child ran.
    condemned: Option<Terminate>,
    /// The child, from its start to its end, across restarts.
    live: Option<Live>,
    inputs: HashMap<u64, (usize, Reply<Result<usize, PtyRefused>>)>,
    stream: Stream,
}

/// A running child.
struct Live {
    terminal: Rc<Terminal>,
    process: Rc<Process>,
    /// The rule set it was started with.
    chosen: &'static Harness,
    desk: Desk,
    born: Instant,
    /// Nobody has the terminal open any more, and all output is read.
    hung_up: bool,
    /// The kernel takes no more input.
    deaf: bool,
    /// The start was answered.
    survived: bool,
    ending: Option<(Ladder, Instant, EndedBy)>,
    exit: Option<Drain>,
    /// When to look at what the child has read, unless the kernel hints at it sooner.
    look_at: Option<Instant>,
}

/// The child has exited; its last output is being read.
struct Drain {
    status: ExitStatus,
    until: Instant,
    look_at: Instant,
    quiet: u8,
    swept: bool,
}

impl PtyWorker {
    /// A worker that starts its program in its first life and answers through `starting`, once.
    pub fn new(
        life: Lifeline,
        config: WorkerConfig,
        doors: WorkerDoors,
        starting: Reply<Result<Started, SpawnRefused>>,
    ) -> Self {
        life.detail(Detail::Worker(config.view.clone()));
        Self {
            life,
            config,
            doors,
            starting: Some(starting),
            condemned: None,
            live: None,
            inputs: HashMap::new(),
            stream: Stream::default(),
        }
    }

    fn harness(&self) -> Result<&'static Harness, SpawnRefused> {
        let spec = &self.config.spec;
        let (found, name) = match &spec.harness {
            Some(name) => (Harness::by_name(name), name),
            None => (Harness::for_program(&spec.program), &spec.program),
        };
        found.ok_or_else(|| SpawnRefused::UnknownHarness(name.clone()))
    }

    fn launch(&mut self, ctx: &mut Context<Self>) {
        let harness = match self.harness() {
            Ok(harness) => harness,
            Err(refused) => return self.refuse(refused, ctx),
        };
        let launch = launch_of(&self.config);
        let size = self.config.spec.size;
        let start = async move {
            let (terminal, slave) = Terminal::open(size).map_err(|e| LaunchError::Io(e.to_string()))?;
            let process = pty::launch(&launch, slave).await?;
            Ok((terminal, process))
        };
        ctx.spawn(start.into_actor(self).map(move |done, worker, ctx| match done {
            Ok((terminal, process)) => worker.launched(harness, terminal, process, ctx),
            Err(error) => {
                let refused = refusal(&worker.config.spec, error);
                worker.refuse(refused, ctx);
            }
        }));
    }

    fn launched(
        &mut self,
        harness: &'static Harness,
        terminal: Terminal,
        process: Process,
        ctx: &mut Context<Self>,
    ) {
        let now = Instant::now();
        let pid = process.pid().as_raw().cast_unsigned();
        info!(agent = %self.config.name, pid, harness = harness.name, "program started");
        self.config.view.pid.store(pid, Ordering::Relaxed);
        let mut desk = Desk::new(harness, self.config.spec.size, now);
        if let Some(task) = self.config.spec.task.clone() {
            desk.assign(task);
        }
        self.live = Some(Live {
            terminal: Rc::new(terminal),
            process: Rc::new(process),
            chosen: harness,
            desk,
            born: now,
            hung_up: false,
            deaf: false,
            survived: false,
            ending: None,
            exit: None,
            look_at: None,
        });
        if let Some(terminate) = self.condemned.take() {
            self.climb(terminate, now);
        }
        self.show();
        self.attend(ctx);
    }

    /// Starts the future that serves the terminal in this life.
    fn attend(&mut self, ctx: &mut Context<Self>) {
        if let Some(live) = &self.live {
            ctx.spawn(Drive::new(live));
        }
    }

    fn refuse(&mut self, refused: SpawnRefused, ctx: &mut Context<Self>) {
        info!(agent = %self.config.name, %refused, "program not started");
        if let Some(starting) = self.starting.take() {
            starting.send(Err(refused));
        }
        self.life.exit(ctx, ExitReason::Finished);
    }

    /// The first output, or the end of the survival check: the start is answered.
    fn survive(&mut self, now: Instant) {
        let Some(live) = &mut self.live else { return };
        let due = live.desk.screen().offset() > 0 || live.born + self.config.timings.survival <= now;
        if live.survived || live.exit.is_some() || !due {
            return;
        }
        live.survived = true;
        let pid = live.process.pid().as_raw().cast_unsigned();
        let started = Started {
            pid,
            // The one that was chosen, also when the program has already shown what it is.
            harness: live.chosen.name.clone(),
            spawn: live.process.spawn_id().clone(),
            // A child that has just ended has no tick, and then it needs none.
            at_tick: pty::start_tick(pid).unwrap_or(0),
        };
        let wanted = self.starting.take().is_some_and(|starting| starting.send(Ok(started)));
        if !wanted {
            // Whoever asked has given up, and nobody else knows of this child.
            warn!(agent = %self.config.name, pid, "nobody waits for this program any more, ending it");
            self.climb(Terminate { by: EndedBy::Release, force: false, within: None }, now);
        }
        self.life.healthy();
        self.announce();
    }

    /// Tells the cursor that this life takes messages.
    fn announce(&self) {
        if let Some(live) = &self.live {
            let up = WorkerUp { worker: self.life.generation(), window: live.desk.window() };
            // A cursor that is gone needs no worker.
            self.doors.up.tell(up).ok();
        }
    }

    fn climb(&mut self, terminate: Terminate, now: Instant) {
        let Some(live) = &mut self.live else {
            self.condemned = Some(terminate);
            return;
        };
        let Terminate { by, force, within } = terminate;
        let by = live.ending.as_ref().map_or(by, |(_, _, first)| *first);
        let ladder = Ladder::new(ladder::Policy { polite: false, force, within });
        live.ending = Some((ladder, now, by));
    }

    /// One turn: everything that can be done now. Says whether the child is gone and its output read.
    fn turn(&mut self, now: Instant) -> Turn {
        self.survive(now);
        let Some(live) = &mut self.live else { return Turn::Wait };
        live.step_ladder(&self.config.name, now);
        live.work(now);
        self.stream_due(now);
        self.settle();
        let Some(live) = &mut self.live else { return Turn::Wait };
        match &mut live.exit {
            Some(drain) if !drain.swept && (live.hung_up || drain.is_done(now)) => {
                drain.swept = true;
                Turn::Sweep
            }
            _ => Turn::Wait,
        }
    }

    /// Does what the desk has asked for.
    fn settle(&mut self) {
        let Some(live) = &mut self.live else { return };
        let effects = live.desk.take_effects();
        for effect in effects {
            match effect {
                Effect::Report { id, attempt, step } => {
                    let worker = self.life.generation();
                    let report = InjectReport { worker, delivery_id: id, attempt, step };
                    // A cursor that is gone keeps no books.
                    self.doors.report.tell(report).ok();
                }
                Effect::State { from, to } => self.tell_state(from, to),
                Effect::Task(Ok(rung)) => {
                    info!(agent = %self.config.name, ?rung, "first task is in");
                }
                Effect::Task(Err(reason)) => {
                    warn!(agent = %self.config.name, reason, "first task could not be typed");
                }
                Effect::InputTaken(number) => {
                    if let Some((len, reply)) = self.inputs.remove(&number) {
                        reply.send(Ok(len));
                    }
                }
            }
        }
        self.show();
    }

    fn tell_state(&self, from: AgentState, to: AgentState) {
        debug!(agent = %self.config.name, ?from, ?to, "agent state");
        // A registry that is gone lists no agents.
        self.doors.state.tell(StateChanged { name: self.config.name.clone(), from, to }).ok();
    }

    /// Brings the shared view up to date.
    fn show(&self) {
        let Some(live) = &self.live else { return };
        let view = &self.config.view;
        view.output_bytes.store(live.desk.screen().offset(), Ordering::Relaxed);
        view.was_ready.store(live.desk.was_ready(), Ordering::Relaxed);
        let (state, because) = live.desk.state();
        let state = if live.exit.is_some() { AgentState::Exited } else { state };
        let mut detail = lock(&view.detail);
        if detail.state != Some(state) {
            detail.state = Some(state);
            detail.state_since_ms = now_ms();
            self.life.state(state_word(state));
        }
        if detail.because != because {
            because.clone_into(&mut detail.because);
        }
        if detail.title != live.desk.screen().title() {
            live.desk.screen().title().clone_into(&mut detail.title);
        }
        detail.modes = live.desk.screen().modes();
        detail.queued = live.desk.queued();
        detail.injecting = live.desk.injecting();
    }

    /// Reads what the terminal has, within the budget. Says whether there may be more.
    fn read(&mut self, now: Instant) -> bool {
        let mut buffer = [0; READ_BUFFER];
        let mut bytes = 0;
        for _ in 0..READS {
            let Some(live) = &mut self.live else { return false };
            match live.terminal.try_read(&mut buffer) {
                Ok(ReadOutcome::Bytes(read)) => {
                    bytes += read;
                    let chunk = &buffer[..read];
                    live.take_output(chunk, now);
                    let end = live.desk.screen().offset();
                    self.stream_output(chunk, end, now);
                    if bytes >= READ_BYTES {
                        break;
                    }
                }
                Ok(ReadOutcome::Flushed) => live.desk.flushed(now),
                Ok(ReadOutcome::WouldBlock) => {
                    if let Some(drain) = &mut live.exit {
                        drain.quiet += 1;
                        drain.look_at = now + DRAIN_LOOK;
                    }
                    self.note_output(bytes);
                    return false;
                }
                Ok(ReadOutcome::Hangup) => {
                    live.hung_up = true;
                    self.note_output(bytes);
                    return false;
                }
                Err(error) => {
                    warn!(agent = %self.config.name, %error, "terminal cannot be read");
                    live.hung_up = true;
                    return false;
                }
            }
        }
        self.note_output(bytes);
        true
    }

    fn note_output(&self, bytes: usize) {
        if bytes > 0 {
            self.config.view.last_output_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    fn stream_output(&mut self, bytes: &[u8], end: u64, now: Instant) {
        if self.config.stream_wanted.load(Ordering::Relaxed) == 0 {
            return self.stream.forget();
        }
        let chunk = self.stream.push(bytes, end, now);
        self.publish(chunk);
    }

    fn stream_due(&mut self, now: Instant) {
        if self.stream.wake().is_some_and(|at| at <= now) {
            let chunk = self.stream.due(now);
            self.publish(chunk);
        }
    }

    fn publish(&self, chunk: Option<Chunk>) {
        if let Some(Chunk { text, offset }) = chunk {
            let name = self.config.name.clone();
            let event = Event::WorkerStream { name, stream: "stdout", chunk: text, offset };
            // Without a hub nobody watches.
            self.doors.publish.tell(Publish(event)).ok();
        }
    }

    /// The earliest moment at which something is due although nothing happens.
    fn wake(&self, now: Instant) -> Option<Instant> {
        let live = self.live.as_ref()?;
        if let Some(drain) = &live.exit {
            return (!drain.swept).then(|| drain.look_at.min(drain.until));
        }
        let survival = (!live.survived).then(|| live.born + self.config.timings.survival);
        let ladder = live.ending.as_ref().and_then(|(ladder, began, _)| {
            let mut ahead = ladder.clone();
            match ahead.next(now.saturating_duration_since(*began)) {
                ladder::Next::At(after) => Some(*began + after),
                ladder::Next::Take(_) => Some(now),
                ladder::Next::Top => None,
            }
        });
        let desk = live.desk.wake(now).filter(|_| !live.hung_up && !live.deaf);
        [survival, ladder, live.look_at, desk, self.stream.wake()].into_iter().flatten().min()
    }

    fn child_exited(&mut self, status: ExitStatus, now: Instant) {
        if let Some(live) = &mut self.live {
            live.exit.get_or_insert(Drain {
                status,
                until: now + DRAIN,
                look_at: now,
                quiet: 0,
                swept: false,
            });
        }
    }

    /// Ends what the child left behind, then says goodbye.
    fn sweep(&mut self, ctx: &mut Context<Self>) {
        let Some(live) = &self.live else { return };
        let process = live.process.clone();
        let sweep = async move { pty::sweep(process.spawn_id(), process.pid()).await };
        ctx.spawn(sweep.into_actor(self).map(|swept, worker, ctx| worker.bury(swept, ctx)));
    }

    fn bury(&mut self, swept: Swept, ctx: &mut Context<Self>) {
        let last = self.stream.finish().filter(|_| self.config.stream_wanted.load(Ordering::Relaxed) > 0);
        self.publish(last);
        let Some(live) = self.live.take() else { return };
        let Some(drain) = &live.exit else { return };
        let ended = exit::Ended {
            code: drain.status.code(),
            signal: drain.status.signal_name(),
            core_dumped: drain.status.core_dumped(),
        };
        let by = live.ending.as_ref().map(|(_, _, by)| *by);
        let words = live.desk.screen().last_words(exit::LAST_OUTPUT_MAX);
        let record = exit::record(ended, by, live.born.elapsed(), words, swept.killed);
        info!(agent = %self.config.name, how = record.how(), by = ?record.by, swept = record.swept.len(),
            left = swept.left.len(), "program ended");
        for (_, (_, reply)) in self.inputs.drain() {
            reply.send(Err(PtyRefused::Exited));
        }
        if self.starting.is_some() {
            let output = live.desk.screen().last_words(exit::REFUSAL_OUTPUT_MAX);
            let refused = match by {
                Some(_) => SpawnRefused::Abandoned("it was released while it started".to_owned()),
                None => SpawnRefused::DiedAtOnce { exit: record.how(), output },
            };
            return self.refuse(refused, ctx);
        }
        let from = live.desk.state().0;
        lock(&self.config.view.detail).exit = Some(record.clone());
        self.tell_state(from, AgentState::Exited);
        let reason = exit::gone_reason(&record);
        let worker = self.life.generation();
        // Those who are gone already need not be told.
        self.doors.exited.tell(ChildExited { name: self.config.name.clone(), worker, exit: record }).ok();
        self.doors.gone.tell(WorkerGone { reason }).ok();
        self.life.exit(ctx, ExitReason::Finished);
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let live = self.live.as_ref()?;
        let screen = live.desk.screen();
        let (row, col) = screen.cursor();
        Some(Snapshot {
            size: screen.size(),
            cursor: (row + 1, col + 1),
            plain: screen.plain(),
            ansi: screen.ansi(),
            title: screen.title().to_owned(),
            offset: screen.offset(),
            state: if live.exit.is_some() { AgentState::Exited } else { live.desk.state().0 },
            modes: screen.modes(),
        })
    }
}

/// What a turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Something must happen first.
    Wait,
    /// The child is gone and its output is read.
    Sweep,
}

impl Drain {
    fn is_done(&self, now: Instant) -> bool {
        self.quiet >= DRAIN_QUIET || self.until <= now
    }
}

impl Live {
    fn canonical(&self) -> bool {
        self.terminal.line_mode().is_ok_and(|mode| mode.canonical)
    }

    fn take_output(&mut self, bytes: &[u8], now: Instant) {
        let terminal = &self.terminal;
        let canonical = || terminal.line_mode().is_ok_and(|mode| mode.canonical);
        self.desk.output(bytes, canonical, now);
    }

    /// Decides, writes and looks, until nothing follows any more.
    fn work(&mut self, now: Instant) {
        if self.exit.is_some() || self.hung_up || self.deaf {
            self.look_at = None;
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

    /// Writes what the kernel takes.
    fn write(&mut self, now: Instant) -> bool {
        let mut wrote = false;
        while let Some(offer) = self.desk.offer() {
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
    fn hinted(&mut self, now: Instant) {
        if self.desk.look_after(now).is_some() {
            self.look_at = Some(now);
        }
    }

    fn step_ladder(&mut self, agent: &AgentName, now: Instant) {
        if self.exit.is_some() {
            return;
        }
        let Some((ladder, began, _)) = &mut self.ending else { return };
        if let ladder::Next::Take(rung) = ladder.next(now.saturating_duration_since(*began)) {
            let signal = match rung {
                ladder::Step::Quit => return,
                ladder::Step::Hangup => Signal::SIGHUP,
                ladder::Step::Terminate => Signal::SIGTERM,
                ladder::Step::Kill => Signal::SIGKILL,
            };
            if let Err(error) = self.process.signal_groups(&self.terminal, signal) {
                warn!(%agent, %signal, %error, "agent cannot be signalled");
            }
        }
    }
}

impl Drop for Live {
    /// An actor that is given up must not leave a child that nobody serves.
    fn drop(&mut self) {
        if self.exit.is_none()
            && let Err(error) = self.process.signal_groups(&self.terminal, Signal::SIGKILL)
        {
            warn!(%error, "abandoned agent cannot be killed");
        }
    }
}

type Wait<T> = Pin<Box<dyn Future<Output = T>>>;

/// The future that serves one terminal for one life of the worker.
struct Drive {
    terminal: Rc<Terminal>,
    readable: Option<Wait<io::Result<()>>>,
    drained: Option<Wait<io::Result<()>>>,
    exited: Option<Wait<ExitStatus>>,
    sleep: Pin<Box<Sleep>>,
}

impl Drive {
    fn new(live: &Live) -> Self {
        let process = live.process.clone();
        Self {
            terminal: live.terminal.clone(),
            readable: None,
            drained: None,
            exited: Some(Box::pin(async move { process.exited().await })),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    fn poll_readable(&mut self, task: &mut Task<'_>) -> bool {
        let terminal = &self.terminal;
        let wait = self.readable.get_or_insert_with(|| {
            let terminal = terminal.clone();
            Box::pin(async move { terminal.readable().await })
        });
        let ready = wait.as_mut().poll(task).is_ready();
        if ready {
            self.readable = None;
        }
        ready
    }

    fn poll_drained(&mut self, task: &mut Task<'_>) -> bool {
        let terminal = &self.terminal;
        let wait = self.drained.get_or_insert_with(|| {
            let terminal = terminal.clone();
            Box::pin(async move { terminal.drained().await })
        });
        let ready = wait.as_mut().poll(task).is_ready();
        if ready {
            self.drained = None;
        }
        ready
    }

    fn poll_exited(&mut self, task: &mut Task<'_>) -> Option<ExitStatus> {
        match self.exited.as_mut()?.as_mut().poll(task) {
            Poll::Ready(status) => {
                self.exited = None;
                Some(status)
            }
            Poll::Pending => None,
        }
    }
}

impl ActorFuture<PtyWorker> for Drive {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        worker: &mut PtyWorker,
        ctx: &mut Context<PtyWorker>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        let drive = self.get_mut();
        // Each round does what became possible and registers for what comes next.
        for _ in 0..ROUNDS {
            let now = Instant::now();
            let mut again = false;
            if let Some(status) = drive.poll_exited(task) {
                worker.child_exited(status, now);
            }
            let Some(live) = &worker.live else { return Poll::Ready(()) };
            let draining = live.exit.as_ref().is_some_and(|drain| !drain.swept && drain.look_at <= now);
            let mut more = false;
            if !live.hung_up && (draining || drive.poll_readable(task)) {
                again = true;
                more = worker.read(now);
            }
            if worker.turn(now) == Turn::Sweep {
                worker.sweep(ctx);
                return Poll::Ready(());
            }
            if more {
                // The budget is used up: other agents of this thread come first.
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(live) = &mut worker.live else { return Poll::Ready(()) };
            if live.exit.is_none() && live.awaits_reader(now) && drive.poll_drained(task) {
                live.hinted(now);
                again = true;
            }
            if let Some(at) = worker.wake(now) {
                if at <= now {
                    again = true;
                } else {
                    drive.sleep.as_mut().reset(at.into());
                    again |= drive.sleep.as_mut().poll(task).is_ready();
                }
            }
            if !again {
                return Poll::Pending;
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Live {
    /// True while the child has something to read, or the kernel no room for more.
    fn awaits_reader(&self, now: Instant) -> bool {
        !self.hung_up && !self.deaf && (self.desk.offer().is_some() || self.desk.look_after(now).is_some())
    }
}

impl Actor for PtyWorker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.life.started();
        if self.live.is_some() {
            self.attend(ctx);
        } else if self.starting.is_some() {
            self.launch(ctx);
        } else {
            self.life.exit(ctx, ExitReason::Finished);
        }
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.life.stopped();
    }
}

impl Supervised for PtyWorker {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.life.restarting();
        self.inputs.clear();
        self.stream.forget();
        if let Some(live) = &mut self.live {
            live.desk.begin_next_life();
            live.look_at = None;
            if let Some(drain) = &mut live.exit {
                drain.swept = false;
            }
            if live.survived {
                self.announce();
            }
        }
    }
}

impl Handler<Inject> for PtyWorker {
    type Result = ();

    fn handle(&mut self, inject: Inject, _: &mut Context<Self>) {
        let _turn = self.life.turn();
        // Before the start and after the end the cursor is not told to hand anything over; what it sent
        // meanwhile it learns by `WorkerUp` or `WorkerGone`.
        if let Some(live) = &mut self.live {
            live.desk.inject(inject);
        }
    }
}

impl Handler<CancelInjections> for PtyWorker {
    type Result = ();

    fn handle(&mut self, _: CancelInjections, _: &mut Context<Self>) {
        let _turn = self.life.turn();
        if let Some(live) = &mut self.live {
            live.desk.cancel();
        }
    }
}

impl Handler<Input> for PtyWorker {
    type Result = ();

    fn handle(&mut self, input: Input, _: &mut Context<Self>) {
        let _turn = self.life.turn();
        let Input { bytes, reply } = input;
        let len = bytes.len();
        let refused = match &mut self.live {
            None => PtyRefused::Io("the agent has not started yet".to_owned()),
            Some(live) if live.exit.is_some() || live.hung_up || live.deaf => PtyRefused::Exited,
            Some(_) if len == 0 => {
                reply.send(Ok(0));
                return;
            }
            Some(live) => match live.desk.input(bytes) {
                Ok(number) => {
                    self.inputs.insert(number, (len, reply));
                    return;
                }
                Err(waiting) => PtyRefused::InputFull(waiting),
            },
        };
        reply.send(Err(refused));
    }
}

impl Handler<Resize> for PtyWorker {
    type Result = ();

    fn handle(&mut self, resize: Resize, _: &mut Context<Self>) {
        let _turn = self.life.turn();
        let Resize { size, reply } = resize;
        let done = match &mut self.live {
            None => Err(PtyRefused::Io("the agent has not started yet".to_owned())),
            Some(live) if live.exit.is_some() => Err(PtyRefused::Exited),
            Some(live) => match live.terminal.resize(size) {
                Ok(()) => {
                    live.desk.resize(size);
                    Ok(())
                }
                Err(error) => Err(PtyRefused::Io(error.to_string())),
            },
        };
        reply.send(done);
    }
}

impl Handler<TakeSnapshot> for PtyWorker {
    type Result = ();

    fn handle(&mut self, TakeSnapshot(reply): TakeSnapshot, _: &mut Context<Self>) {
        let _turn = self.life.turn();
        // Without a screen the question stays unanswered, which the asker sees.
        if let Some(snapshot) = self.snapshot() {
            reply.send(snapshot);
        }
    }
}

impl Handler<Terminate> for PtyWorker {
    type Result = ();

    fn handle(&mut self, terminate: Terminate, _: &mut Context<Self>) {
        let _turn = self.life.turn();
        self.climb(terminate, Instant::now());
    }
}

fn launch_of(config: &WorkerConfig) -> Launch {
    let WorkerConfig { name, spec, relay_env, .. } = config;
    let relay = [
        ("RELAY_AGENT_TOKEN", Some(relay_env.token.expose())),
        ("RELAY_AGENT_NAME", Some(name.as_str())),
        ("RELAY_BASE_URL", Some(relay_env.base_url.as_str())),
        ("RELAY_WORKSPACE_ID", relay_env.workspace.as_ref().map(|id| id.as_str())),
        ("RELAY_AGENT_TYPE", Some("agent")),
        ("RELAY_STRICT_AGENT_NAME", Some("1")),
        // Only together with a token: without one the agent's tools would have no identity at all.
        ("RELAY_SKIP_BOOTSTRAP", Some("1")),
    ];
    let own = relay.into_iter().filter_map(|(key, value)| Some((OsString::from(key), value?.into())));
    let added = spec.env.iter().map(|(key, value)| (key.into(), value.into()));
    Launch {
        program: spec.program.clone(),
        args: spec.args.clone(),
        cwd: PathBuf::from(&spec.cwd),
        // The agent's identity wins over what a spawn asks for.
        env: pty::clean_env(std::env::vars_os(), &spec.cwd, added.chain(own)),
        spawn_id: SpawnId::random(),
    }
}

fn refusal(spec: &SpawnSpec, error: LaunchError) -> SpawnRefused {
    let why = error.to_string();
    match error {
        LaunchError::BadCwd { .. } => SpawnRefused::BadCwd(why),
        LaunchError::NotExecutable { program, why } => SpawnRefused::BadProgram { program, why },
        LaunchError::NotFound(program) => {
            let why = "not found on the agent's PATH; install it or give its absolute path".to_owned();
            SpawnRefused::BadProgram { program, why }
        }
        LaunchError::Io(why) => SpawnRefused::BadProgram { program: spec.program.clone(), why },
    }
}

fn state_word(state: AgentState) -> &'static str {
    match state {
        AgentState::Starting => "starting",
        AgentState::Blocked => "blocked",
        AgentState::Idle => "idle",
        AgentState::Working => "working",
        AgentState::NotReading => "not reading",
        AgentState::Human => "human",
        AgentState::Exited => "exited",
    }
}
