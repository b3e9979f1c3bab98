//! One agent's terminal: it starts the program, types messages into it with proof, shows its screen, and
//! tells how it ended.
//!
//! ```text
//! Starting --survived--> Live --child exited--> Draining --> Sweeping --> exits (Finished)
//!    |                    |  Inject, Input, Resize, TakeSnapshot
//!    +--refused--> exits  +--Terminate--> Live, finishing what is half-way, then on the ladder (HUP, TERM, KILL)
//! ```
//!
//! No thread and, while nothing is under way, no timer: one future ([`drive::Drive`]) waits for output, for room or
//! a drained queue, for the exit, and for the one deadline that comes first. All decisions are in the [`desk`].
//!
//! A restart keeps the terminal, the child, the screen and what the child may have of ours (bytes in the
//! writer, flights, the text in its composer); it forgets what was not begun, which the cursor hands over
//! again, and keystrokes that wait for their answer. What was wholly written is never written again.

mod desk;
mod dialog;
mod drive;
mod ending;
mod exit;
mod frame;
mod inject;
mod intake;
mod launch;
mod live;
mod output;
mod pace;
mod parting;
mod person;
mod plain;
mod readiness;
mod record;
mod redact;
mod sanitise;
mod session;
mod sight;
mod stream;
mod transcript;
mod turn;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use actix::{Actor, Context, Handler, Supervised};
use futures_util::future::Either;
use tracing::{debug, info, warn};

use crate::{
    config::{Timings, ToolServer},
    ids::{AgentName, Birth, DialogId},
    messages::{
        Reply,
        delivery::{
            CancelInjections, FlushAcks, Inject, InjectReport, InjectStep, Note, Rung, WorkerGone, WorkerUp,
        },
        lifecycle::ExitReason,
        observe::Output,
        pty::{
            AgentState, AnswerDialog, AnswerRefused, ChildExited, Dialog, Input, PtyRefused, Resize,
            SessionKnown, Snapshot, StateChanged, TakeSnapshot, Terminate, WorkerView,
        },
        spawn::{AgentEnv, SpawnRefused, SpawnSpec, Started},
    },
    pty::Guard,
    store::AgentDir,
    supervision::{Detail, Lifeline, Post, lock, now_ms},
};

use desk::Effect;
use frame::Whole;
use intake::{Cleared, Intake, Next};
use live::Live;
use output::Outlet;
use transcript::Transcript;

/// What this agent's program is shown of a note, on several lines and on one. Only for tests that feed it hostile notes.
#[doc(hidden)]
pub fn shown(note: &Note, reader: &AgentName, nth: u64, body_max: usize) -> (String, String) {
    let hints = frame::Hints::Command;
    let framing = frame::Framing { reader, nth, body_max, redelivered: false, hints };
    let frame = frame::Frame::new(note, framing, &Whole::Nowhere);
    (frame.lines(), frame.flat())
}

/// Most rounds of work in one turn: each writes, looks and does what follows from it.
const ROUNDS: usize = 8;

/// What a worker is told at its birth. It keeps for all its lives.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The agent.
    pub name: AgentName,
    /// Which of that name; told with its end.
    pub birth: Birth,
    /// What to run.
    pub spec: SpawnSpec,
    /// What the agent is told about itself.
    pub relay_env: AgentEnv,
    /// Periods; tests shorten them.
    pub timings: Timings,
    /// How many want the live output; at 0 none is sent.
    pub stream_wanted: Arc<AtomicUsize>,
    /// What is kept of the agent on disk.
    pub files: AgentDir,
    /// The tools that agents are handed.
    pub tools: ToolServer,
    /// Who ends what is left of the agent if the broker is killed.
    pub guard: Guard,
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
    /// The last proofs, through the cursor to the engine.
    pub flush: Post<FlushAcks>,
    /// The end, to the registry.
    pub exited: Post<ChildExited>,
    /// Changes of what the agent does, to the registry.
    pub state: Post<StateChanged>,
    /// Which session its program is in, to the registry.
    pub session: Post<SessionKnown>,
    /// The live output, to the event hub.
    pub output: Post<Output>,
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
    /// Keystrokes that the kernel has not taken yet, by their number.
    keys: HashMap<u64, Keys>,
    intake: Intake,
    outlet: Outlet,
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
            keys: HashMap::new(),
            intake: Intake::default(),
            outlet: Outlet::default(),
        }
    }

    /// One turn: everything that can be done now. Says whether the child is gone and its output read.
    fn turn(&mut self, now: Instant) -> Turn {
        self.survive(now);
        let Some(live) = &mut self.live else { return Turn::Wait };
        live.keep_books(now);
        live.enforce(&self.config.name, now);
        live.step_end(&self.config.name, now);
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
        for effect in &effects {
            let Effect::Report { id, step, .. } = effect else { continue };
            if matches!(step, InjectStep::Reached(rung) | InjectStep::Proven(rung) if *rung >= Rung::Consumed)
            {
                live.watch.put_in(id.clone());
            }
        }
        if effects.iter().any(begins_a_session) {
            self.session_has_begun();
        }
        for effect in effects {
            match effect {
                Effect::Report { id, attempt, step } => {
                    let worker = self.life.generation();
                    let report = InjectReport { worker, delivery_id: id, attempt, step };
                    // A cursor that is gone keeps no books.
                    self.doors.report.tell(report).ok();
                }
                Effect::State { from, to, because, dialog } => self.tell_state(from, to, because, dialog),
                Effect::Task(Ok(rung)) => {
                    info!(agent = %self.config.name, ?rung, "first task is in");
                }
                Effect::Task(Err(reason)) => {
                    warn!(agent = %self.config.name, reason, "first task could not be typed");
                }
                Effect::Granted(dialog, choice) => {
                    info!(agent = %self.config.name, %dialog, choice, "dialog answered as the spawn's autonomy says");
                }
                Effect::InputTaken(number) => {
                    if let Some(keys) = self.keys.remove(&number) {
                        keys.taken(&self.config.name);
                    }
                }
            }
        }
        self.show();
    }

    fn tell_state(&self, from: AgentState, to: AgentState, because: String, dialog: Option<Dialog>) {
        debug!(agent = %self.config.name, ?from, ?to, "agent state");
        let (name, birth) = (self.config.name.clone(), self.config.birth);
        // A registry that is gone lists no agents.
        self.doors.state.tell(StateChanged { name, birth, from, to, because, dialog }).ok();
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
        if detail.dialog.as_ref() != live.desk.dialog() {
            detail.dialog = live.desk.dialog().cloned();
        }
        detail.queued = live.desk.queued();
        detail.injecting = live.desk.injecting();
    }

    /// The earliest moment at which something is due although nothing happens.
    fn wake(&self, now: Instant) -> Option<Instant> {
        let live = self.live.as_ref()?;
        if let Some(drain) = &live.exit {
            return (!drain.swept).then(|| drain.look_at.min(drain.until));
        }
        let survival = (!live.survived).then(|| live.survived_at(self.config.timings.survival));
        let ending = live.end_wake(now);
        let limit = live.watch.wake().filter(|_| live.survived && live.ending.is_none());
        let desk = live.desk.wake(now).filter(|_| !live.hung_up && !live.deaf);
        let transcript = live.transcript.as_ref().and_then(Transcript::wake);
        let transcript =
            transcript.filter(|_| !live.hung_up && !live.deaf && live.desk.awaits_record().is_some());
        let pace = live.pace.rests_until(now);
        let closed = live.closed_at(now);
        [survival, ending, limit, live.look_at, closed, desk, transcript, pace, self.outlet.wake()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Hands over what can be handed to the desk now. Comes to what the next one waits for.
    fn take_in(&mut self, now: Instant) -> Option<impl Future<Output = Cleared> + 'static> {
        let live = self.live.as_mut()?;
        let most = live.desk.typed_max();
        loop {
            match self.intake.next(|note| frame::to_keep(&note.body, most)) {
                Next::Wait => return None,
                Next::Pass(inject) => live.desk.inject(inject, Whole::Nowhere, now),
                Next::Mark(marked) => {
                    return Some(Either::Left(async move {
                        // A journal that has ended ends the house.
                        marked.await.ok();
                        Cleared::Marked
                    }));
                }
                Next::Keep(id, text) => {
                    let kept = self.config.files.keep(&id, text);
                    return Some(Either::Right(async move { Cleared::Kept(id, Whole::of(kept.await)) }));
                }
            }
        }
    }

    /// What the next message waited for has happened.
    fn cleared(&mut self, cleared: Cleared, now: Instant) {
        match cleared {
            Cleared::Marked => self.intake.marked(),
            Cleared::Kept(id, whole) => {
                if let Some(inject) = self.intake.kept(&id)
                    && let Some(live) = &mut self.live
                {
                    live.desk.inject(inject, whole, now);
                }
            }
        }
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
            offset: screen.settled(),
            state: if live.exit.is_some() { AgentState::Exited } else { live.desk.state().0 },
            modes: screen.modes(),
        })
    }
}

/// Somebody's keystrokes on their way into the kernel.
enum Keys {
    Input(usize, Reply<Result<usize, PtyRefused>>),
    Answer(DialogId, Reply<Result<DialogId, AnswerRefused>>),
}

impl Keys {
    /// The kernel has them. Whoever gave up waiting has them in the terminal all the same.
    fn taken(self, agent: &AgentName) {
        match self {
            Self::Input(len, reply) => reply.send(Ok(len)),
            Self::Answer(dialog, reply) => {
                info!(%agent, %dialog, "dialog answered");
                reply.send(Ok(dialog))
            }
        };
    }

    /// Nobody will read them.
    fn lost(self) {
        match self {
            Self::Input(_, reply) => reply.send(Err(PtyRefused::Exited)),
            Self::Answer(_, reply) => reply.send(Err(PtyRefused::Exited.into())),
        };
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
        self.keys.clear();
        self.intake.begin_next_life();
        self.outlet.begin_next_life(self.live.as_ref().map(|live| live.desk.screen()));
        if let Some(live) = &mut self.live {
            live.desk.begin_next_life();
            live.look_at = None;
            if let Some(transcript) = &mut live.transcript {
                transcript.begin_next_life();
            }
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
            live.watch.stirred(Instant::now());
            self.intake.push(inject);
        }
    }
}

impl Handler<CancelInjections> for PtyWorker {
    type Result = ();

    fn handle(&mut self, cancel: CancelInjections, _: &mut Context<Self>) {
        let _turn = self.life.turn();
        let mut forgotten = self.intake.cancel();
        if let Some(live) = &mut self.live {
            forgotten.extend(live.desk.cancel());
        }
        // A cursor that has restarted meanwhile asks again.
        cancel.reply.send(forgotten);
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
            Some(live) => match live.desk.input(bytes, Instant::now()) {
                Ok(number) => {
                    live.watch.stirred(Instant::now());
                    self.keys.insert(number, Keys::Input(len, reply));
                    return;
                }
                Err(waiting) => PtyRefused::InputFull(waiting),
            },
        };
        reply.send(Err(refused));
    }
}

impl Handler<AnswerDialog> for PtyWorker {
    type Result = ();

    fn handle(&mut self, answer: AnswerDialog, _: &mut Context<Self>) {
        let _turn = self.life.turn();
        let AnswerDialog { choice, dialog, reply } = answer;
        let refused = match &mut self.live {
            None => PtyRefused::Io("the agent has not started yet".to_owned()).into(),
            Some(live) if live.exit.is_some() || live.hung_up || live.deaf => PtyRefused::Exited.into(),
            Some(live) => match live.desk.answer(&choice, dialog.as_ref()) {
                Ok((number, dialog)) => {
                    live.watch.stirred(Instant::now());
                    self.keys.insert(number, Keys::Answer(dialog, reply));
                    return;
                }
                Err(refused) => refused,
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
                    self.record_size(size, Instant::now());
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
        // A stream that is joined at the snapshot begins with what comes after it.
        self.stream_settle(Instant::now());
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

/// True when a text of ours is in for good.
fn begins_a_session(effect: &Effect) -> bool {
    matches!(effect, Effect::Report { step: InjectStep::Proven(_), .. } | Effect::Task(Ok(_)))
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
