//! The future that runs one actor through all its lives.
//!
//! ```text
//! Running --ended--> (policy) --Restart--> Waiting --time--> Running
//!                             --Park-----> Waiting --time or Resume--> Running
//!                             --Stop / Quarantine / Escalate--> gone
//! ```

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context as Task, Poll, ready},
    time::{Duration, Instant},
};

use actix::{
    Actor, Addr, ArbiterHandle, Context, Handler, Message, Supervised, dev::ContextFut, dev::ToEnvelope,
    dev::channel,
};
use tokio::{sync::mpsc, time::Sleep};
use tracing::{error, info, warn};

use super::{
    Directory, Lifeline, Post, Probe,
    policy::{self, History},
};
use crate::{
    ids::{AgentName, Birth},
    messages::lifecycle::{ActorId, ActorKind, ChildNotice, ChildStep, Decision, ExitReason},
};

/// Runs one actor. See the module.
pub struct Runner<A: Actor<Context = Context<A>> + Supervised> {
    /// `None` once the actor is gone for good.
    actor: Option<ContextFut<A, Context<A>>>,
    lifeline: Lifeline,
    history: History,
    life: Life,
    nudges: mpsc::UnboundedReceiver<Nudge>,
    notices: Option<Post<ChildNotice>>,
    agent: Option<(AgentName, Birth)>,
    directory: Directory,
}

enum Life {
    Running,
    Waiting { until: Pin<Box<Sleep>>, parked: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nudge {
    Resume,
    Stop,
}

/// A running actor, as its parent sees it.
pub struct Child<A: Actor<Context = Context<A>>> {
    addr: Addr<A>,
    probe: Arc<Probe>,
    handle: ChildHandle,
}

/// The parent's hold on a child, without its type.
#[derive(Clone, Debug)]
pub struct ChildHandle {
    nudges: mpsc::UnboundedSender<Nudge>,
}

impl ChildHandle {
    /// Wakes a parked or waiting child now.
    pub fn resume(&self) {
        // A child that is gone needs no waking.
        self.nudges.send(Nudge::Resume).ok();
    }

    /// Ends the child for good, whatever it does.
    pub fn stop(&self) {
        self.nudges.send(Nudge::Stop).ok();
    }

    /// Completes when the child is gone for good.
    pub async fn gone(&self) {
        self.nudges.closed().await;
    }

    /// True when the child is gone for good.
    pub fn is_gone(&self) -> bool {
        self.nudges.is_closed()
    }
}

impl<A: Actor<Context = Context<A>>> Child<A> {
    /// A post for one of the messages that it handles.
    pub fn post<M>(&self) -> Post<M>
    where
        M: Message<Result = ()> + Send + 'static,
        A: Handler<M>,
        Context<A>: ToEnvelope<A, M>,
    {
        Post::new(self.addr.clone().recipient(), self.probe.clone())
    }

    /// Its probe.
    pub fn probe(&self) -> &Arc<Probe> {
        &self.probe
    }

    /// The hold on it.
    pub fn handle(&self) -> &ChildHandle {
        &self.handle
    }
}

/// A place in the house for an actor that is not there yet: its address exists, so that rooms which write
/// to each other can be wired in any order.
pub struct Seat<A: Actor<Context = Context<A>>> {
    mailbox: channel::AddressReceiver<A>,
    nudges: mpsc::UnboundedReceiver<Nudge>,
    probe: Arc<Probe>,
    agent: Option<(AgentName, Birth)>,
    directory: Directory,
}

impl<A: Actor<Context = Context<A>> + Supervised> Seat<A> {
    /// Reserves a seat and enters its probe into the directory.
    pub fn reserve(id: ActorId, directory: &Directory) -> (Child<A>, Self) {
        let probe = Probe::new(id);
        directory.enter(probe.clone());
        // The capacity is without meaning: see `Post`.
        let (tx, mailbox) = channel::channel(16);
        let (nudge, nudges) = mpsc::unbounded_channel();
        let handle = ChildHandle { nudges: nudge };
        let child = Child { addr: Addr::new(tx), probe: probe.clone(), handle };
        (child, Self { mailbox, nudges, probe, agent: None, directory: directory.clone() })
    }

    /// The same for an actor of this agent, which its notices name: there may be another one of the name by the time
    /// that they are read.
    pub fn reserve_for(
        kind: ActorKind,
        agent: &AgentName,
        birth: Birth,
        directory: &Directory,
    ) -> (Child<A>, Self) {
        let (child, seat) = Self::reserve(ActorId::of(kind, agent), directory);
        (child, Self { agent: Some((agent.clone(), birth)), ..seat })
    }

    /// Starts the actor on the current arbiter. `make` builds the instance of all its lives around its
    /// lifeline. Steps of its life go to `notices`.
    pub fn start(
        self,
        notices: Option<Post<ChildNotice>>,
        make: impl FnOnce(&mut Context<A>, Lifeline) -> A,
    ) {
        let lifeline = Lifeline::new(self.probe);
        let mut ctx = Context::with_receiver(self.mailbox);
        let actor = make(&mut ctx, lifeline.clone());
        let runner = Runner {
            actor: Some(ctx.into_future(actor)),
            lifeline,
            history: History::default(),
            life: Life::Running,
            nudges: self.nudges,
            notices,
            agent: self.agent,
            directory: self.directory,
        };
        runner.notify(ChildStep::Started);
        actix_rt::spawn(runner);
    }

    /// Starts the actor on another arbiter. The instance is built there.
    pub fn start_on(
        self,
        arbiter: &ArbiterHandle,
        notices: Option<Post<ChildNotice>>,
        make: impl FnOnce(&mut Context<A>, Lifeline) -> A + Send + 'static,
    ) {
        arbiter.spawn_fn(move || self.start(notices, make));
    }
}

impl<A: Actor<Context = Context<A>> + Supervised> Runner<A> {
    fn id(&self) -> &ActorId {
        self.lifeline.probe().id()
    }

    fn notify(&self, step: ChildStep) {
        if let Some(notices) = &self.notices {
            let generation = self.lifeline.generation();
            // A supervisor that is gone is ending the house; nobody is left to tell.
            let (id, agent) = (self.id().clone(), self.agent.clone());
            notices.tell(ChildNotice { id, agent, generation, step }).ok();
        }
    }

    /// Polls the actor once; `Some(reason)` when this life has ended.
    fn poll_actor(&mut self, task: &mut Task<'_>) -> Option<ExitReason> {
        let actor = self.actor.as_mut()?;
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(actor).poll(task)));
        let reason = match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(())) => Some(self.lifeline.take_exit().unwrap_or(ExitReason::Finished)),
            Err(panic) => {
                let panicked = ExitReason::Panicked(panic_message(panic.as_ref()));
                // An end on purpose stays what it was, also when its clean-up panics: a released agent must
                // not come back.
                Some(match self.lifeline.take_exit() {
                    Some(reason) => {
                        error!(actor = %self.id(), %panicked, "panic while ending");
                        reason
                    }
                    None => panicked,
                })
            }
        };
        if self.lifeline.take_healthy() {
            self.history.healthy();
            self.notify(ChildStep::Healthy);
        }
        reason
    }

    /// Takes the end of a life to its consequence.
    fn end(&mut self, reason: ExitReason) {
        let jitter = rand::random_range(-1.0..=1.0);
        let kind = self.id().kind;
        let decision = policy::decide(kind, &reason, &mut self.history, Instant::now(), jitter);
        let probe = self.lifeline.probe();
        probe.ended(&reason, describe(&decision));
        log(self.id(), self.lifeline.generation().0, &reason, &decision);
        // What is over is over before anybody hears of it: a child that its worker kills on being dropped is
        // dead before its name is free.
        if matches!(decision, Decision::Quarantine | Decision::Escalate | Decision::Stop) {
            self.bury();
        }
        self.notify(ChildStep::Ended { reason, decision: decision.clone() });
        let probe = self.lifeline.probe();
        match decision {
            Decision::Restart { after } => {
                probe.set_state("restarting");
                // The intensity limit ends this recursion when `restarting` itself keeps panicking.
                if after.is_zero() { self.restart() } else { self.wait(after, false) }
            }
            Decision::Park { why, retry } => {
                probe.set_state(format!("parked: {why}"));
                self.wait(retry, true);
            }
            Decision::Quarantine => probe.set_state("quarantined"),
            Decision::Escalate => probe.set_state("failed"),
            Decision::Stop => {
                probe.set_state("stopped");
                if matches!(kind, ActorKind::DeliveryCursor | ActorKind::PtyWorker) {
                    self.directory.leave(probe);
                }
            }
        }
    }

    fn wait(&mut self, after: Duration, parked: bool) {
        self.life = Life::Waiting { until: Box::pin(tokio::time::sleep(after)), parked };
    }

    /// Begins the next life; a panic in `restarting` ends it at once.
    fn restart(&mut self) {
        self.lifeline.probe().reborn();
        self.life = Life::Running;
        let Some(actor) = self.actor.as_mut() else { return };
        match catch_unwind(AssertUnwindSafe(|| actor.restart())) {
            Ok(true) => self.notify(ChildStep::Started),
            // Nobody holds its address any more.
            Ok(false) => self.end(ExitReason::Finished),
            Err(panic) => self.end(ExitReason::Panicked(panic_message(panic.as_ref()))),
        }
    }

    /// Drops the instance and its mailbox. Its destructor runs `stopping` and `stopped`, which may panic.
    fn bury(&mut self) {
        let actor = self.actor.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(actor))) {
            error!(actor = %self.id(), panic = panic_message(panic.as_ref()), "panic while ending");
        }
    }
}

impl<A: Actor<Context = Context<A>> + Supervised> Future for Runner<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<()> {
        let this = self.get_mut();
        while let Poll::Ready(Some(nudge)) = this.nudges.poll_recv(task) {
            match (nudge, &mut this.life) {
                (Nudge::Stop, _) => {
                    this.end(ExitReason::Finished);
                    return Poll::Ready(());
                }
                (Nudge::Resume, Life::Waiting { .. }) => this.restart(),
                (Nudge::Resume, Life::Running) => {}
            }
        }
        while this.actor.is_some() {
            match &mut this.life {
                Life::Running => match this.poll_actor(task) {
                    Some(reason) => this.end(reason),
                    None => return Poll::Pending,
                },
                Life::Waiting { until, parked } => {
                    ready!(until.as_mut().poll(task));
                    if *parked {
                        info!(actor = %this.lifeline.probe().id(), "parked actor probes again");
                    }
                    this.restart();
                }
            }
        }
        Poll::Ready(())
    }
}

fn describe(decision: &Decision) -> String {
    match decision {
        Decision::Restart { after } => format!("restart after {after:?}"),
        Decision::Park { retry, .. } => format!("park, probe after {retry:?}"),
        Decision::Quarantine => "quarantine".to_owned(),
        Decision::Stop => "stop".to_owned(),
        Decision::Escalate => "escalate".to_owned(),
    }
}

fn log(actor: &ActorId, generation: u64, reason: &ExitReason, decision: &Decision) {
    let decided = describe(decision);
    match decision {
        Decision::Stop => info!(%actor, generation, %reason, "actor ended"),
        Decision::Restart { .. } => {
            warn!(%actor, generation, %reason, decided, "actor ended, restarting");
        }
        Decision::Park { .. } | Decision::Quarantine | Decision::Escalate => {
            error!(%actor, generation, %reason, decided, "actor ended, not restarting on its own");
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}
