//! The worker's way into life: the program is started, survives its first moments, and is announced.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::atomic::Ordering,
    time::Instant,
};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tracing::{info, warn};

use super::{
    PtyWorker, WorkerConfig,
    desk::{Desk, TASK},
    drive::Drive,
    frame::{self, Whole},
    live::Live,
    session::Session,
    transcript::Transcript,
    watch::Watch,
};
use crate::{
    config::env,
    harness::{Harness, Start},
    ids::SpawnId,
    messages::{
        delivery::WorkerUp,
        lifecycle::ExitReason,
        process::{EndedBy, ProcessSpec},
        pty::Terminate,
        spawn::{SpawnRefused, SpawnSpec, Started},
    },
    pty::{self, Guard, Launch, LaunchError, Process, Terminal},
};

impl PtyWorker {
    fn harness(&self) -> Result<&'static Harness, SpawnRefused> {
        let spec = &self.config.spec;
        let (found, name) = match &spec.harness {
            Some(name) => (Harness::by_name(name), name),
            None => (Harness::for_program(&spec.program), &spec.program),
        };
        found.ok_or_else(|| SpawnRefused::UnknownHarness(name.clone()))
    }

    pub(super) fn launch(&mut self, ctx: &mut Context<Self>) {
        let harness = match self.harness() {
            Ok(harness) => harness,
            Err(refused) => return self.refuse(refused, ctx),
        };
        let session = Session::new(harness, &self.config.spec);
        let (launch, has_tools) = launch_of(&self.config, harness, &session);
        let env = |name: &str| launch.env.get(OsStr::new(name)).map(PathBuf::from);
        let transcript = Transcript::new(harness, env, Instant::now());
        let size = self.config.spec.size;
        let task = self.config.spec.task.clone();
        let files = self.config.files.clone();
        // What shall stay is nobody's to end.
        let keep = self.config.spec.process.keep_daemons;
        let guard = if keep { Guard::default() } else { self.config.guard.clone() };
        let start = async move {
            let to_keep = |task: &String| frame::to_keep(task, harness.typed_max());
            let whole = match task.as_ref().and_then(to_keep) {
                Some(text) => Whole::of(files.keep(&TASK.into(), text).await),
                None => Whole::Nowhere,
            };
            let (terminal, slave) = Terminal::open(size).map_err(|e| LaunchError::Io(e.to_string()))?;
            let process = pty::launch(&launch, slave, &guard).await?;
            Ok((terminal, process, task.map(|task| (task, whole))))
        };
        ctx.spawn(start.into_actor(self).map(move |done, worker, ctx| match done {
            Ok((terminal, process, task)) => {
                worker.launched(harness, has_tools, terminal, process, task);
                if let Some(live) = &mut worker.live {
                    (live.transcript, live.session) = (transcript, session);
                }
                worker.attend(ctx);
            }
            Err(error) => {
                let refused = refusal(&worker.config.spec, error);
                worker.refuse(refused, ctx);
            }
        }));
    }

    fn launched(
        &mut self,
        harness: &'static Harness,
        has_tools: bool,
        terminal: Terminal,
        process: Process,
        task: Option<(String, Whole)>,
    ) {
        let now = Instant::now();
        let pid = process.pid().as_raw().cast_unsigned();
        info!(agent = %self.config.name, pid, harness = harness.name, "program started");
        self.config.view.pid.store(pid, Ordering::Relaxed);
        let mut desk = Desk::new(harness, self.config.name.clone(), self.config.spec.size, now)
            .with_tools(has_tools)
            .with_autonomy(self.config.spec.autonomy);
        if let Some((task, whole)) = task {
            desk.assign(task, whole, now);
        }
        self.record(now);
        let watch = Watch::new(self.config.spec.process.limits.clone(), now);
        let keep = self.config.spec.process.keep_daemons;
        self.live = Some(Live::new(terminal, process, harness, desk, watch, keep, now));
        if let Some(terminate) = self.condemned.take() {
            self.climb(terminate, now);
        }
        self.show();
    }

    /// Starts the future that serves the terminal in this life.
    pub(super) fn attend(&mut self, ctx: &mut Context<Self>) {
        if let Some(live) = &self.live {
            ctx.spawn(Drive::new(live));
        }
    }

    pub(super) fn refuse(&mut self, refused: SpawnRefused, ctx: &mut Context<Self>) {
        info!(agent = %self.config.name, %refused, "program not started");
        self.config.files.end();
        if let Some(starting) = self.starting.take() {
            starting.send(Err(refused));
        }
        self.life.exit(ctx, ExitReason::Finished);
    }

    /// The first output, or the end of the survival check: the start is answered.
    pub(super) fn survive(&mut self, now: Instant) {
        let Some(live) = &mut self.live else { return };
        if live.survived || live.exit.is_some() || live.survived_at(self.config.timings.survival) > now {
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
    pub(super) fn announce(&self) {
        if let Some(live) = &self.live {
            let up = WorkerUp { worker: self.life.generation(), window: live.desk.window() };
            // A cursor that is gone needs no worker.
            self.doors.up.tell(up).ok();
        }
    }
}

/// What to start, and whether it is handed the broker's tools.
fn launch_of(config: &WorkerConfig, harness: &Harness, session: &Session) -> (Launch, bool) {
    let WorkerConfig { name, spec, relay_env, .. } = config;
    let ProcessSpec { wrapper, env_allow, .. } = &spec.process;
    let allowed = |name: &OsString| {
        env_allow.as_ref().is_none_or(|allowed| allowed.iter().any(|allowed| name == allowed.as_str()))
    };
    let broker: Vec<_> = std::env::vars_os().filter(|(name, _)| allowed(name)).collect();
    let is_set = |name: &str| spec.env.contains_key(name) || broker.iter().any(|(set, _)| set == name);
    // What its user says in the same place is left as it is.
    let tools = harness.mcp.as_ref().zip(config.tools.program.as_ref());
    let tools =
        tools.and_then(|(mcp, program)| mcp.hand_over(program, spec.mcp.or(config.tools.wanted), is_set));
    let start = Start {
        args: &spec.args,
        // Only what a program is told of its directory; the directory itself is passed on as it is.
        cwd: &spec.cwd.to_string_lossy(),
        session: session.start(),
        autonomy: spec.autonomy,
        tools: tools.as_ref(),
    };
    let relay = [
        (env::AGENT_TOKEN, Some(relay_env.token.expose())),
        (env::RESULT_TOKEN, Some(relay_env.result_token.expose())),
        (env::RESULT_URL, Some(relay_env.result_url.as_str())),
        (env::AGENT_NAME, Some(name.as_str())),
        (env::BASE_URL_FALLBACK, Some(relay_env.base_url.as_str())),
        ("RELAY_WORKSPACE_ID", relay_env.workspace.as_ref().map(|id| id.as_str())),
        (env::AGENT_TYPE, Some("agent")),
        ("RELAY_STRICT_AGENT_NAME", Some("1")),
        // Only together with a token: without one the agent's tools would have no identity at all.
        ("RELAY_SKIP_BOOTSTRAP", Some("1")),
    ];
    let own = relay.into_iter().filter_map(|(key, value)| Some((OsString::from(key), value?.into())));
    let mut added = harness.env(&start);
    added.extend(spec.env.clone());
    let added = added.into_iter().map(|(key, value)| (key.into(), value.into()));
    let command = [spec.program.clone()].into_iter().chain(harness.args(&start));
    let mut words = wrapper.iter().cloned().chain(command);
    let launch = Launch {
        program: words.next().unwrap_or_default(),
        args: words.collect(),
        cwd: PathBuf::from(&spec.cwd),
        // The agent's identity wins over what a spawn asks for.
        env: pty::clean_env(broker, &spec.cwd, added.chain(own)),
        spawn_id: SpawnId::random(),
    };
    (launch, tools.is_some())
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
