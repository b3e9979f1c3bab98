//! The worker's way out: a child that is told to end, its exit, and what it left behind.

use std::time::{Duration, Instant};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tracing::{info, warn};

use super::{
    PtyWorker, exit,
    live::{Drain, Live},
    parting::Parting,
    redact::redact,
};
use crate::{
    messages::{
        delivery::{FlushAcks, WorkerGone},
        lifecycle::ExitReason,
        process::ExitRecord,
        pty::{AgentState, ChildExited, Terminate},
        spawn::SpawnRefused,
    },
    pty::{self, ExitStatus, Swept},
    supervision::lock,
};

/// For the last proofs to reach the disk and the session.
const LAST_ACKS: Duration = Duration::from_millis(500);

impl PtyWorker {
    pub(super) fn climb(&mut self, terminate: Terminate, now: Instant) {
        let Some(live) = &mut self.live else {
            self.condemned = Some(terminate);
            return;
        };
        live.end(terminate, now);
    }

    pub(super) fn child_exited(&mut self, status: ExitStatus, now: Instant) {
        if let Some(live) = &mut self.live {
            if live.ending.is_some() {
                live.desk.conclude();
            }
            live.exit.get_or_insert(Drain::new(status, now));
        }
    }

    /// Ends what the child left behind, then says goodbye.
    pub(super) fn sweep(&mut self, ctx: &mut Context<Self>) {
        let Some(live) = &self.live else { return };
        let process = live.process.clone();
        let keep = self.config.spec.process.keep_daemons;
        // The cursor goes with its agent, and the agent's name at the engine: an ack that comes later is for nobody.
        let flushed = tokio::time::timeout(LAST_ACKS, self.doors.flush.ask(FlushAcks));
        let sweep = async move {
            let swept = if keep { Swept::default() } else { pty::sweep(&process).await };
            if flushed.await.is_err() {
                warn!("the last proofs were not acked in time: the next cursor of this agent does that");
            }
            swept
        };
        ctx.spawn(sweep.into_actor(self).map(|swept, worker, ctx| worker.bury(swept, ctx)));
    }

    fn bury(&mut self, swept: Swept, ctx: &mut Context<Self>) {
        let Some(live) = self.live.take() else { return };
        let Some(drain) = &live.exit else { return };
        let ended = exit::Ended {
            code: drain.status.code(),
            signal: drain.status.signal_name(),
            core_dumped: drain.status.core_dumped(),
            oom: live.watch.killed_since(pty::oom_kills()),
        };
        let by = live.ending.as_ref().map(Parting::by);
        let standing = exit::Standing {
            by,
            state: live.desk.state().0,
            was_ready: live.desk.was_ready(),
            wants_login: live.desk.wants_login(),
            uptime: live.born.elapsed(),
        };
        let status = drain.status;
        let record = ExitRecord {
            last_output: self.last_words(&live, exit::LAST_OUTPUT_MAX),
            last_delivery: live.watch.last().cloned(),
            peak_memory: live.watch.peak(live.process.peak_memory()),
            pending: live.desk.queued(),
            unproven: live.desk.half_way(),
            swept: swept.killed,
            ..exit::record(ended, standing)
        };
        info!(agent = %self.config.name, how = record.how(), by = ?record.by, swept = record.swept.len(),
            left = swept.left.len(), "program ended");
        self.stream_end(status, Instant::now());
        for (_, keys) in self.keys.drain() {
            keys.lost();
        }
        if self.starting.is_some() {
            let last_output = self.last_words(&live, exit::REFUSAL_OUTPUT_MAX);
            let refused = match by {
                Some(_) => SpawnRefused::Abandoned("it was released while it started".to_owned()),
                None => SpawnRefused::DiedAtOnce(Box::new(ExitRecord { last_output, ..record })),
            };
            return self.refuse(refused, ctx);
        }
        let from = live.desk.state().0;
        lock(&self.config.view.detail).exit = Some(record.clone());
        self.tell_state(from, AgentState::Exited, record.how(), None);
        let reason = exit::gone_reason(&record);
        let (name, birth) = (self.config.name.clone(), self.config.birth);
        // Those who are gone already need not be told.
        self.doors.exited.tell(ChildExited { name, birth, exit: record }).ok();
        self.doors.gone.tell(WorkerGone { reason }).ok();
        self.life.exit(ctx, ExitReason::Finished);
    }

    /// The last screen, without what is secret: the agent's tokens, and what its environment was given under a
    /// name that says so.
    fn last_words(&self, live: &Live, max: usize) -> String {
        let text = live.desk.screen().last_words(max, exit::LAST_LINES_MAX);
        let given = self.config.spec.env.iter().filter(|(name, _)| names_a_secret(name));
        let given = given.map(|(_, value)| value.as_str());
        let relay_env = &self.config.relay_env;
        redact(&text, given.chain([relay_env.token.expose(), relay_env.result_token.expose()]))
    }
}

/// True for the usual names of variables that hold secrets.
fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS"].iter().any(|word| name.contains(word))
}
