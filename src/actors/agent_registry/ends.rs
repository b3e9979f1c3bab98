//! What follows when a program has ended: another one for the same agent, or the agent's burial.
//!
//! An agent that rests keeps its registration, its place in the inventory and its mailbox: its frames are left
//! to the engine unacked, and come again with its next cursor. What had its proof is not typed again; what had
//! none is, and says so.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler};
use tracing::{info, warn};

use super::{
    AgentRegistry,
    restart::{GaveUp, Verdict},
    saga::{Event as Happened, Phase},
};
use crate::{
    ids::{AgentName, Birth},
    messages::{
        lifecycle::ActorKind,
        observe::Event,
        process::{EndedBy, ExitClass, ExitRecord, ListExits, PastExit},
        pty::{AgentState, ChildExited},
        release::WorkerLost,
        spawn::SpawnRefused,
    },
    store::Record,
    supervision::now_ms,
};

impl Handler<ChildExited> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, exited: ChildExited, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.child_ended(&exited.name, exited.birth, exited.exit, ctx);
    }
}

impl Handler<WorkerLost> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, lost: WorkerLost, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let WorkerLost { name, birth, actor, why } = lost;
        let Some(entry) = self.of_birth(&name, birth) else { return };
        entry.quarantined = true;
        entry.warning = Some(why);
        // A cursor that is gone costs the agent its mail, not its life; without its worker nobody holds its
        // terminal any more.
        if actor == ActorKind::PtyWorker {
            self.happen(&name, birth, Happened::Lost, ctx);
        }
    }
}

impl Handler<ListExits> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, list: ListExits, _: &mut Self::Context) {
        let _turn = self.life.turn();
        // Whoever asked went away.
        list.0.send(self.journal.exits());
    }
}

impl AgentRegistry {
    /// A child has ended: whether there is another one is decided before anything else is.
    pub(super) fn child_ended(
        &mut self,
        name: &AgentName,
        birth: Birth,
        mut exit: ExitRecord,
        ctx: &mut Context<Self>,
    ) {
        let closing = self.closing.is_some();
        let Some(entry) = self.of_birth(name, birth) else { return };
        let lived = match entry.saga.phase() {
            Phase::Live => true,
            Phase::Starting => entry.restarts > 0,
            _ => false,
        };
        let mut then = None;
        if lived && !closing && !entry.claimed {
            let policy = &entry.spec.process.restart;
            match entry.history.step(policy, &exit, rand::random_range(-1.0..=1.0)) {
                Verdict::Over => {}
                Verdict::Restart { after, .. } => then = Some(after),
                Verdict::GiveUp(why) => {
                    if matches!(why, GaveUp::CrashLoop(_)) {
                        exit.class = ExitClass::CrashLoop;
                    }
                    entry.gave_up = Some(why.to_string());
                }
            }
        }
        self.happen(name, birth, Happened::ChildEnded { exit, then }, ctx);
    }

    /// A program did not come to life.
    pub(super) fn not_started(
        &mut self,
        name: &AgentName,
        birth: Birth,
        refused: SpawnRefused,
        ctx: &mut Context<Self>,
    ) {
        let Some(entry) = self.of_birth(name, birth) else { return };
        let again = entry.restarts > 0;
        let refused = match refused {
            SpawnRefused::DiedAtOnce(exit) if again => return self.child_ended(name, birth, *exit, ctx),
            SpawnRefused::DiedAtOnce(exit) => {
                self.write_down(name, &exit);
                SpawnRefused::DiedAtOnce(exit)
            }
            refused @ SpawnRefused::BadProgram { .. } => {
                self.write_down(name, &never_ran());
                refused
            }
            refused => refused,
        };
        if again && let Some(entry) = self.agents.get_mut(name) {
            entry.gave_up = Some(refused.to_string());
        }
        self.happen(name, birth, Happened::NotStarted(refused), ctx);
    }

    /// A program has failed, and there will be another one.
    pub(super) fn mourn(&mut self, name: &AgentName, exit: ExitRecord, delay: Duration) {
        self.write_down(name, &exit);
        self.crashes += 1;
        self.restarts += 1;
        let Some(entry) = self.agents.get_mut(name) else { return };
        entry.restarts += 1;
        // They are closed; the next program gets its own.
        (entry.rooms, entry.started, entry.quarantined) = (None, None, false);
        if std::mem::take(&mut entry.was_ready) {
            // The first task was for the first program that took it.
            entry.spec.task = None;
        }
        let restart_count = entry.restarts;
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        warn!(agent = %name, how = exit.how(), restart_count, delay_ms, "agent failed, starting it again");
        let ExitRecord { code, signal, .. } = exit;
        self.publish(Event::AgentRestarting { name: name.clone(), code, signal, restart_count, delay_ms });
    }

    pub(super) fn rest(&mut self, name: AgentName, birth: Birth, delay: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(delay, move |registry, ctx| registry.happen(&name, birth, Happened::Rested, ctx));
    }

    /// The next program of an agent lives.
    pub(super) fn announce_again(&mut self, name: &AgentName, pid: u32) {
        let Some(entry) = self.agents.get(name) else { return };
        let restart_count = entry.restarts;
        info!(agent = %name, pid, restart_count, "agent live again");
        self.publish(Event::AgentRestarted { name: name.clone(), restart_count, pid });
        self.publish_inventory();
    }

    /// An agent that lived is gone: write it down, tell the world.
    pub(super) fn bury(&mut self, name: &AgentName, exit: Option<ExitRecord>) {
        let Some(entry) = self.agents.get(name) else { return };
        let gave_up = entry.gave_up.clone();
        let ended = |by| exit.as_ref().is_some_and(|exit| exit.by == by);
        let released = !entry.releases.is_empty() || ended(EndedBy::Release) || ended(EndedBy::Shutdown);
        if let Some(exit) = exit {
            self.write_down(name, &exit);
            if exit.is_failure() {
                self.crashes += 1;
            }
            info!(agent = %name, how = exit.how(), by = ?exit.by, uptime_ms = exit.uptime_ms, "agent ended");
            let reason = if released { EndedBy::Release.reason() } else { exit.by.reason() };
            self.publish(Event::AgentExit { name: name.clone(), reason });
            self.publish(Event::AgentExited {
                name: name.clone(),
                code: exit.code,
                signal: exit.signal,
                reason,
                uptime_ms: exit.uptime_ms,
            });
        }
        if let Some(reason) = gave_up {
            warn!(agent = %name, reason, "agent is not started again");
            self.publish(Event::AgentPermanentlyDead { name: name.clone(), reason });
        }
        if released {
            self.publish(Event::AgentReleased { name: name.clone() });
        }
    }

    /// Keeps an end for a person who looks later, and for the next cursor what it may have died of.
    fn write_down(&self, name: &AgentName, exit: &ExitRecord) {
        let Some(entry) = self.agents.get(name) else { return };
        if let Some(registration) = &entry.registration
            && exit.by == EndedBy::Itself
            && !exit.unproven.is_empty()
        {
            let (agent, deliveries) = (registration.agent_id.clone(), exit.unproven.clone());
            self.journal.append(Record::ReaderDied { agent, deliveries });
        }
        self.journal.append(Record::AgentExited(Box::new(PastExit {
            name: name.clone(),
            program: entry.spec.program.clone(),
            at_ms: now_ms(),
            exit: exit.clone(),
            session: entry.session.clone(),
        })));
    }
}

/// The end of what never began.
fn never_ran() -> ExitRecord {
    ExitRecord {
        code: None,
        signal: None,
        core_dumped: false,
        by: EndedBy::Itself,
        class: ExitClass::ExecFailed,
        uptime_ms: 0,
        state: AgentState::Starting,
        last_output: String::new(),
        last_delivery: None,
        pending: 0,
        unproven: Vec::new(),
        peak_memory: None,
        swept: Vec::new(),
    }
}
