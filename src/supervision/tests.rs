//! The machinery against real actix contexts, with time paused.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, Supervised};

use super::{Child, Directory, FaultPoint, Lifeline, Post, Seat, policy};
use crate::{
    ids::Birth,
    messages::{
        Reply,
        lifecycle::{ActorId, ActorKind, ChildNotice, ChildStep, Decision, ExitReason},
        told,
    },
    testing::{name, until_holds},
};

/// An actor that does what it is told and remembers what survived.
struct Worker {
    life: Lifeline,
    /// Kept over restarts.
    handled: Vec<u32>,
    /// Volatile: rebuilt by `restarting`.
    since_restart: u32,
    log: Rc<RefCell<Vec<String>>>,
    fail_when_stopping: bool,
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.life.started();
        self.log.borrow_mut().push(format!("started {}", self.life.generation()));
        ctx.run_interval(Duration::from_secs(3600), |_, _| {});
    }

    fn stopping(&mut self, _: &mut Self::Context) -> actix::Running {
        assert!(!self.fail_when_stopping, "no way out");
        actix::Running::Stop
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.life.stopped();
    }
}

impl Supervised for Worker {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.life.restarting();
        self.since_restart = 0;
    }
}

struct Work(u32);
struct Boom;
struct Fail(ExitReason);
struct Leave;
struct Heal;
struct Numbers(Reply<(Vec<u32>, u32, u64)>);
told!(Work, Boom, Fail, Leave, Heal, Numbers);

impl Handler<Work> for Worker {
    type Result = ();
    fn handle(&mut self, work: Work, _: &mut Self::Context) {
        let _turn = self.life.turn();
        self.handled.push(work.0);
        self.since_restart += 1;
    }
}
impl Handler<Boom> for Worker {
    type Result = ();
    fn handle(&mut self, _: Boom, _: &mut Self::Context) {
        let _turn = self.life.turn();
        panic!("boom");
    }
}
impl Handler<Fail> for Worker {
    type Result = ();
    fn handle(&mut self, fail: Fail, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.life.exit(ctx, fail.0);
    }
}
impl Handler<Leave> for Worker {
    type Result = ();
    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        ctx.stop();
    }
}
impl Handler<Heal> for Worker {
    type Result = ();
    fn handle(&mut self, _: Heal, _: &mut Self::Context) {
        let _turn = self.life.turn();
        self.life.healthy();
    }
}
impl Handler<Numbers> for Worker {
    type Result = ();
    fn handle(&mut self, ask: Numbers, _: &mut Self::Context) {
        let _turn = self.life.turn();
        ask.0.send((self.handled.clone(), self.since_restart, self.life.generation().0));
    }
}

/// Takes notices down.
struct Notebook(Rc<RefCell<Vec<ChildNotice>>>);
impl Actor for Notebook {
    type Context = Context<Self>;
}
impl Handler<ChildNotice> for Notebook {
    type Result = ();
    fn handle(&mut self, notice: ChildNotice, _: &mut Self::Context) {
        self.0.borrow_mut().push(notice);
    }
}

struct Bench {
    directory: Directory,
    notices: Rc<RefCell<Vec<ChildNotice>>>,
    log: Rc<RefCell<Vec<String>>>,
    child: Child<Worker>,
}

impl Bench {
    fn start(kind: ActorKind) -> Self {
        Self::start_with(kind, false)
    }

    fn start_with(kind: ActorKind, fail_when_stopping: bool) -> Self {
        let directory = Directory::default();
        let notices = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::new(RefCell::new(Vec::new()));
        let notebook = Notebook(notices.clone()).start();
        let probe = super::Probe::new(ActorId::sole(ActorKind::Supervisor));
        let post = Post::new(notebook.recipient(), probe);
        let lines = log.clone();
        let (child, seat) = Seat::reserve_for(kind, &name("x"), Birth(7), &directory);
        seat.start(Some(post), |_, life| Worker {
            life,
            handled: Vec::new(),
            since_restart: 0,
            log: lines,
            fail_when_stopping,
        });
        Self { directory, notices, log, child }
    }

    fn tell<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Worker: Handler<M>,
    {
        self.child.post::<M>().tell(message).unwrap();
    }

    async fn numbers(&self) -> (Vec<u32>, u32, u64) {
        self.child.post::<Numbers>().ask(Numbers).await.expect("the actor answers")
    }

    fn decisions(&self) -> Vec<Decision> {
        let ended = |notice: &ChildNotice| match &notice.step {
            ChildStep::Ended { decision, .. } => Some(decision.clone()),
            _ => None,
        };
        self.notices.borrow().iter().filter_map(ended).collect()
    }

    async fn gone(&self) {
        until_holds("it is gone", || self.child.handle().is_gone()).await;
    }
}

#[actix::test]
async fn a_panic_in_a_handler_keeps_the_address_the_queued_mail_and_the_instance() {
    tokio::time::pause();
    let bench = Bench::start(ActorKind::AgentRegistry);
    bench.tell(Work(1));
    bench.tell(Boom);
    bench.tell(Work(2));
    bench.tell(Work(3));
    let (handled, since_restart, generation) = bench.numbers().await;
    assert_eq!(handled, [1, 2, 3], "mail queued behind the panic is handled by the next life");
    assert_eq!(since_restart, 2, "volatile fields are rebuilt");
    assert_eq!(generation, 1);
    let view = &bench.directory.view()[0];
    assert_eq!(view.restart_count, 1);
    assert!(view.restarts[0].reason.contains("boom"), "{:?}", view.restarts);
    assert_eq!(view.mailbox_depth, 0);
    assert_eq!(view.handled, 5);
}

#[actix::test]
async fn a_panic_in_started_restarting_or_stopped_is_survived_too() {
    tokio::time::pause();
    let bench = Bench::start(ActorKind::EventHub);
    assert_eq!(bench.numbers().await.2, 0);
    let probe = bench.child.probe();
    probe.arm(FaultPoint::Started);
    bench.tell(Boom);
    assert_eq!(bench.numbers().await.2, 2, "the life whose `started` panicked is over at once");
    probe.arm(FaultPoint::Restarting);
    bench.tell(Boom);
    assert_eq!(bench.numbers().await.2, 4);
    assert_eq!(*bench.log.borrow(), ["started 0", "started 2", "started 4"]);

    let bench = Bench::start(ActorKind::NodeSession);
    bench.child.probe().arm(FaultPoint::Stopped);
    bench.tell(Fail(ExitReason::Disconnected("eof".into())));
    assert_eq!(bench.numbers().await.2, 1);
    assert!(
        matches!(bench.decisions()[..], [Decision::Restart { after }] if after > Duration::ZERO),
        "the reason that was given counts, not the panic on the way out"
    );
}

#[actix::test]
async fn a_released_actor_does_not_come_back_when_its_clean_up_panics() {
    tokio::time::pause();
    let bench = Bench::start_with(ActorKind::PtyWorker, true);
    bench.tell(Fail(ExitReason::Finished));
    bench.gone().await;
    assert_eq!(bench.decisions(), [Decision::Stop]);
    assert!(bench.directory.view().is_empty(), "an agent's actor leaves the directory with it");
    assert!(bench.child.post::<Work>().tell(Work(1)).is_err());
}

#[actix::test]
async fn the_backoff_is_waited_out_and_a_healthy_spell_resets_it() {
    tokio::time::pause();
    let bench = Bench::start(ActorKind::NodeSession);
    let lost = || Fail(ExitReason::Disconnected("eof".into()));
    let mut waited = Vec::new();
    for _ in 0..4 {
        let began = tokio::time::Instant::now();
        bench.tell(lost());
        bench.numbers().await;
        waited.push(began.elapsed());
    }
    let mut nominal = policy::BACKOFF_FIRST;
    for after in waited {
        assert!(after >= nominal.mul_f64(1.0 - policy::JITTER), "{after:?} < {nominal:?}");
        assert!(after <= nominal.mul_f64(1.0 + policy::JITTER) + Duration::from_millis(2));
        nominal *= 2;
    }
    // Being answered, a mere success, has reset nothing so far; the healthy spell does.
    bench.tell(Heal);
    let began = tokio::time::Instant::now();
    bench.tell(lost());
    bench.numbers().await;
    assert!(began.elapsed() < policy::BACKOFF_FIRST.mul_f64(1.0 + policy::JITTER) + Duration::from_millis(2));
    assert!(bench.notices.borrow().iter().any(|notice| matches!(notice.step, ChildStep::Healthy)));
}

#[actix::test]
async fn a_parked_actor_comes_back_on_resume_with_its_mail() {
    tokio::time::pause();
    let bench = Bench::start(ActorKind::TokenMint);
    bench.tell(Fail(ExitReason::KeyRefused("expired".into())));
    until_holds("an end is decided", || !bench.decisions().is_empty()).await;
    bench.tell(Work(7));
    assert!(bench.directory.view()[0].state.starts_with("parked"));
    assert_eq!(bench.directory.view()[0].mailbox_depth, 1);
    let began = Instant::now();
    bench.child.handle().resume();
    assert_eq!(bench.numbers().await.0, [7]);
    assert!(began.elapsed() < Duration::from_secs(60), "not by waiting for the slow probe");
}

#[actix::test]
async fn five_panics_in_a_minute_quarantine_an_agents_actor_and_escalate_another() {
    tokio::time::pause();
    for (kind, last) in [
        (ActorKind::DeliveryCursor, Decision::Quarantine),
        (ActorKind::PtyWorker, Decision::Quarantine),
        (ActorKind::NodeSession, Decision::Escalate),
        (ActorKind::TokenMint, Decision::Escalate),
        (ActorKind::AgentRegistry, Decision::Escalate),
        (ActorKind::EventHub, Decision::Escalate),
        (ActorKind::Supervisor, Decision::Escalate),
    ] {
        let bench = Bench::start(kind);
        for _ in 0..policy::INTENSITY {
            bench.tell(Boom);
        }
        bench.gone().await;
        let decisions = bench.decisions();
        assert_eq!(decisions.len(), policy::INTENSITY);
        assert_eq!(decisions.last(), Some(&last), "{kind:?}");
        let theirs = |notice: &ChildNotice| notice.agent == Some((name("x"), Birth(7)));
        assert!(bench.notices.borrow().iter().all(theirs), "of which agent of the name it is");
        assert_eq!(bench.directory.view().len(), 1, "a failed actor stays visible");
    }
}

#[actix::test]
async fn the_parent_can_stop_a_child_that_waits_and_an_abandoned_child_ends_itself() {
    tokio::time::pause();
    let bench = Bench::start(ActorKind::NodeSession);
    bench.tell(Fail(ExitReason::Superseded));
    until_holds("an end is decided", || !bench.decisions().is_empty()).await;
    bench.child.handle().stop();
    bench.gone().await;
    assert_eq!(bench.decisions().last(), Some(&Decision::Stop));

    let bench = Bench::start(ActorKind::EventHub);
    bench.tell(Leave);
    bench.gone().await;
    assert_eq!(bench.decisions(), [Decision::Stop]);
}

#[actix::test]
async fn a_question_to_an_ended_actor_is_answered_as_unanswered() {
    tokio::time::pause();
    let bench = Bench::start(ActorKind::EventHub);
    bench.tell(Leave);
    bench.gone().await;
    assert!(bench.child.post::<Numbers>().ask(Numbers).await.is_err());
}
