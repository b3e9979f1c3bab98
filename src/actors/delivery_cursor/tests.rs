//! The actor with probes as recipients and a real journal.

use std::{sync::Mutex, time::Duration};

use actix::Message;
use futures_util::FutureExt;

use super::*;
use crate::{
    ids::{Epoch, Generation, MsgId},
    messages::{
        dead_letter::{Redeliver, RedeliverRefused},
        delivery::{Content, House, InjectStep, Mode, Note, Rung},
        hold::{Flush, GetDeliveryMode, ListPending, ModeConflict, ModeSet, SetDeliveryMode},
        lifecycle::{ActorId, ActorKind},
    },
    supervision::{Child, Directory, FaultPoint, Probe, Seat},
    testing::{name, until, until_holds},
};

/// Keeps every message of one type.
struct Keeper<M>(Arc<Mutex<Vec<M>>>);

impl<M: Unpin + 'static> Actor for Keeper<M> {
    type Context = Context<Self>;
}

impl<M: Message<Result = ()> + Unpin + 'static> Handler<M> for Keeper<M> {
    type Result = ();
    fn handle(&mut self, message: M, _ctx: &mut Context<Self>) {
        self.0.lock().unwrap().push(message);
    }
}

fn keeper<M: Message<Result = ()> + Unpin + Send + 'static>() -> (Post<M>, Arc<Mutex<Vec<M>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let addr = Keeper(kept.clone()).start();
    (Post::new(addr.recipient(), Probe::new(ActorId::of(ActorKind::EventHub, "probe"))), kept)
}

struct Room {
    child: Child<DeliveryCursor>,
    lane: Arc<Lane>,
    injects: Arc<Mutex<Vec<Inject>>>,
    cancels: Arc<Mutex<Vec<CancelInjections>>>,
    acks: Arc<Mutex<Vec<Ack>>>,
    replays: Arc<Mutex<Vec<RequestReplay>>>,
    events: Arc<Mutex<Vec<Publish>>>,
}

const WORKER: Generation = Generation(7);

impl Room {
    fn new(journal: &Journal, ack_seq: Option<u64>) -> Self {
        Self::with(journal, ack_seq, None)
    }

    fn with(journal: &Journal, ack_seq: Option<u64>, poison: Option<&str>) -> Self {
        let (inject, injects) = keeper();
        let (cancel, cancels) = keeper();
        let (ack, acks) = keeper();
        let (replay, replays) = keeper();
        let (publish, events) = keeper();
        let doors = CursorDoors { inject, cancel, ack, read: keeper().0, replay, publish };
        let lane = Lane::new(Arc::<House>::default());
        let id = ActorId::of(ActorKind::DeliveryCursor, "skipper");
        let (child, seat) = Seat::reserve(id, &Directory::default());
        let (kept, room) = (journal.clone(), lane.clone());
        seat.start(None, move |_, life| {
            let config = CursorConfig { agent_id: agent(), name: name("skipper"), ack_seq: ack_seq.map(Seq) };
            let mut cursor = DeliveryCursor::new(life, config, kept, doors, room);
            cursor.poison = poison.map(DeliveryId::from);
            cursor
        });
        Self { child, lane, injects, cancels, acks, replays, events }
    }

    fn tell<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        DeliveryCursor: Handler<M>,
    {
        self.child.post().tell(message).unwrap();
    }

    fn up(&self) {
        self.tell(WorkerUp { worker: WORKER, window: 4 });
    }

    fn deliver(&self, seq: u64) {
        self.deliver_as(delivery(seq));
    }

    fn deliver_as(&self, delivery: Delivery) {
        let credit = self.lane.take(delivery.seq, 100).unwrap();
        self.tell(Deliver { epoch: Epoch(1), delivery, credit });
    }

    fn report(&self, delivery: &str, attempt: u32, step: InjectStep) {
        let delivery_id = delivery.into();
        self.tell(InjectReport { worker: WORKER, delivery_id, attempt, step });
    }

    fn prove(&self, seq: u64, attempt: u32) {
        self.report(&format!("del_{seq}"), attempt, InjectStep::Proven(Rung::Submitted));
    }

    fn acked(&self) -> Vec<u64> {
        self.acks.lock().unwrap().iter().map(|ack| ack.up_to.0).collect()
    }

    fn injected(&self) -> Vec<(String, u32, bool)> {
        let injects = self.injects.lock().unwrap();
        injects.iter().map(|one| (one.delivery_id.to_string(), one.attempt, one.redelivered)).collect()
    }

    fn events(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let kind =
            |event: &Publish| serde_json::to_value(&event.0).unwrap()["kind"].as_str().unwrap().to_owned();
        events.iter().map(kind).collect()
    }

    async fn view(&self) -> crate::messages::delivery::CursorView {
        self.child.post().ask(ObserveCursor).await.unwrap()
    }

    /// Waits until it holds.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let seen = || format!("{:?} {:?} {:?}", self.injected(), self.acked(), self.child.probe().view());
        until(what, async || if holds(self) { Ok(()) } else { Err(seen()) }).await;
    }
}

fn agent() -> AgentId {
    AgentId::from("agent_1")
}

fn delivery(seq: u64) -> Delivery {
    Delivery {
        delivery_id: format!("del_{seq}").into(),
        msg_id: format!("msg_{seq}").into(),
        seq: Seq(seq),
        mode: Mode::Wait,
        content: Content::Inject(Note {
            from: "harbormaster".into(),
            target: "#dock".into(),
            thread: None,
            msg_id: MsgId::from(format!("msg_{seq}")),
            body: "moor at berth 4".into(),
            sent_at: None,
            system: false,
        }),
        repeats: false,
    }
}

fn journal() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path().join("journal")).unwrap();
    (dir, journal)
}

#[actix::test]
async fn an_ack_follows_the_proof_to_disk_and_every_event_is_told_once() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(0));
    room.up();
    room.deliver(1);
    room.until("injected", |room| room.injected() == [("del_1".to_owned(), 1, false)]).await;
    room.report("del_1", 1, InjectStep::Reached(Rung::Landed));
    room.view().await;
    assert_eq!(journal.cursor(&agent()).unfinished[&"del_1".into()].rung, Some(Rung::Landed));
    assert!(!room.acked().contains(&1), "no proof, no ack");
    room.prove(1, 1);
    room.until("acked", |room| room.acked().last() == Some(&1)).await;
    assert_eq!(journal.cursor(&agent()).position, Some(Seq(1)));
    room.until("all told", |room| room.events().len() == 6).await;
    assert_eq!(
        room.events(),
        [
            "relay_inbound",
            "delivery_queued",
            "delivery_injected",
            "delivery_verified",
            "delivery_ack",
            "message_delivery_confirmed"
        ]
    );
    room.deliver(1);
    room.report("del_1", 1, InjectStep::Proven(Rung::Submitted));
    let view = room.view().await;
    assert_eq!((view.duplicates, view.stale_reports, view.held), (1, 1, 0));
    assert_eq!(room.events().len(), 6);
    assert_eq!(room.injected().len(), 1);
}

#[actix::test]
async fn a_new_epoch_repeats_the_current_ack() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(41));
    room.until("the seed is on disk", |room| room.acked() == [41]).await;
    room.tell(EpochStarted { epoch: Epoch(2) });
    room.until("repeated", |room| room.acked() == [41, 41]).await;
}

#[actix::test]
async fn a_panic_loses_nothing_that_was_held_and_hands_it_over_again() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(0));
    room.up();
    for seq in 1..=3 {
        room.deliver(seq);
    }
    room.until("handed over", |room| room.injected().len() == 3).await;
    room.prove(1, 1);
    room.until("acked", |room| room.acked().last() == Some(&1)).await;
    room.child.probe().arm(FaultPoint::Handler);
    room.tell(EpochStarted { epoch: Epoch(2) });
    room.until("again", |room| room.injected().len() == 5).await;
    assert_eq!(room.injected()[3..], [("del_2".to_owned(), 2, true), ("del_3".to_owned(), 2, true)]);
    assert_eq!(room.cancels.lock().unwrap().len(), 1);
    assert_eq!(room.replays.lock().unwrap().len(), 1, "the message in the mailbox's hand is lost");
    room.prove(2, 1);
    room.prove(2, 2);
    room.prove(3, 2);
    room.until("acked", |room| room.acked().last() == Some(&3)).await;
    let view = room.view().await;
    assert_eq!((view.stale_reports, view.held), (1, 0));
    let inbound = room.events().iter().filter(|kind| *kind == "relay_inbound").count();
    assert_eq!(inbound, 3, "told once, whatever panics");
}

#[actix::test]
async fn a_delivery_in_hand_at_three_panics_becomes_a_dead_letter_and_the_cursor_goes_on() {
    let (_dir, journal) = journal();
    let room = Room::with(&journal, Some(0), Some("del_1"));
    room.up();
    for life in 1..=3u64 {
        room.deliver(1);
        room.until("restarted", |room| room.child.probe().view().restart_count == life).await;
    }
    room.deliver(1);
    room.deliver(2);
    room.until("the next one goes in", |room| room.injected().len() == 1).await;
    room.prove(2, 1);
    room.until("both acked", |room| room.acked().last() == Some(&2)).await;
    let letters = journal.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].delivery, "del_1".into());
    room.until("told", |room| room.events().contains(&"message_delivery_failed".to_owned())).await;
}

#[actix::test]
async fn what_was_proven_before_a_kill_is_not_injected_into_the_next_process() {
    let (dir, journal) = journal();
    let first = Room::new(&journal, None);
    first.up();
    first.deliver(1);
    first.deliver(2);
    first.until("handed over", |room| room.injected().len() == 2).await;
    first.prove(1, 1);
    first.report("del_2", 1, InjectStep::Reached(Rung::Landed));
    first.until("acked", |room| room.acked().last() == Some(&1)).await;
    first.view().await;
    first.child.handle().stop();
    journal.close().unwrap();

    let journal = Journal::open(dir.path().join("journal")).unwrap();
    let second = Room::new(&journal, None);
    second.up();
    second.deliver(1);
    second.deliver(2);
    second.until("only the unproven one", |room| room.injected().len() == 1).await;
    assert_eq!(second.injected(), [("del_2".to_owned(), 2, true)]);
    assert_eq!(second.injects.lock().unwrap()[0].reached, None, "its composer is gone");
    second.prove(2, 2);
    second.until("acked", |room| room.acked().last() == Some(&2)).await;
}

#[actix::test]
async fn a_frame_beyond_a_gap_is_held_and_answered_with_the_ack_as_it_stands() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(4));
    room.up();
    room.until("where it stands", |room| room.acked() == [4]).await;
    room.deliver(7);
    room.until("again", |room| room.acked() == [4, 4]).await;
    assert!(room.injected().is_empty());
    for seq in [6, 5] {
        room.deliver(seq);
    }
    room.until("in order", |room| room.injected().len() == 3).await;
    let order: Vec<_> = room.injected().into_iter().map(|(id, ..)| id).collect();
    assert_eq!(order, ["del_5", "del_6", "del_7"]);
    for seq in [7, 6, 5] {
        room.prove(seq, 1);
    }
    room.until("one ack for all", |room| room.acked().last() == Some(&7)).await;
    assert!(room.acked().iter().all(|up_to| [4, 7].contains(up_to)), "{:?}", room.acked());
}

#[actix::test]
async fn a_gap_asks_once_and_gives_up_five_seconds_after_the_engine_was_asked() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(0));
    room.up();
    room.deliver(3);
    room.view().await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = std::mem::take(&mut *room.replays.lock().unwrap());
    assert_eq!(asked.len(), 1);
    assert!(room.injected().is_empty(), "offline, nothing is given up");
    for ask in asked {
        assert!(ask.reply.send(Epoch(1)));
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(room.injected().is_empty());
    tokio::time::sleep(Duration::from_secs(2)).await;
    tokio::time::resume();
    room.until("given up", |room| room.injected().len() == 1).await;
    room.prove(3, 1);
    room.until("acked past the gap", |room| room.acked().last() == Some(&3)).await;
    assert_eq!(room.view().await.gaps_skipped, 2);
}

#[actix::test]
async fn when_the_agent_is_gone_what_is_held_is_dropped_unacked_and_its_room_comes_back() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(0));
    room.up();
    for seq in 1..=9 {
        room.deliver(seq);
    }
    room.until("handed over", |room| room.injected().len() == 4).await;
    room.prove(1, 1);
    room.tell(WorkerGone { reason: "exited with code 0".into() });
    room.until("the proven one is acked", |room| room.acked().last() == Some(&1)).await;
    assert_eq!(room.lane.held(), (0, 0));
    room.deliver(10);
    assert_eq!(room.view().await.held, 0);
    assert_eq!(room.acked().last(), Some(&1));
    assert!(room.events().contains(&"delivery_dropped".to_owned()));
}

#[actix::test]
async fn every_denial_of_one_action_is_shown() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(4));
    room.up();
    for _ in 0..3 {
        room.deliver_as(Delivery { seq: Seq(0), repeats: true, ..delivery(0) });
        room.deliver_as(Delivery { seq: Seq(0), delivery_id: "evt_once".into(), ..delivery(0) });
    }
    room.until("shown", |room| room.injected().len() == 4).await;
    let injected = room.injected();
    let ids: HashSet<_> = injected.iter().map(|(id, ..)| id).collect();
    assert_eq!(ids.len(), 4, "the worker must not take one for another: {ids:?}");
    for (id, attempt, _) in &injected {
        room.report(id, *attempt, InjectStep::Proven(Rung::Consumed));
    }
    room.until("let go", |room| room.lane.held() == (0, 0)).await;
    assert!(room.acked().iter().all(|up_to| *up_to == 4), "they never move the cursor");
}

/// Not a limit of taste: the house promises 8,000 deliveries a second, and a tenth of that in a debug build
/// on a busy machine still shows a cost that grows with the backlog.
#[actix::test]
async fn thousands_of_deliveries_a_second_go_through_one_cursor() {
    struct Prover {
        cursor: Post<InjectReport>,
    }
    impl Actor for Prover {
        type Context = Context<Self>;
    }
    impl Handler<Inject> for Prover {
        type Result = ();
        fn handle(&mut self, inject: Inject, _ctx: &mut Context<Self>) {
            let Inject { delivery_id, attempt, .. } = inject;
            let step = InjectStep::Proven(Rung::Submitted);
            let report = InjectReport { worker: WORKER, delivery_id, attempt, step };
            self.cursor.tell(report).unwrap();
        }
    }

    let (_dir, journal) = journal();
    let (child, seat) = Seat::<DeliveryCursor>::reserve(
        ActorId::of(ActorKind::DeliveryCursor, "fast"),
        &Directory::default(),
    );
    let prover = Prover { cursor: child.post() }.start();
    let (cancel, _cancels) = keeper();
    let (ack, acks) = keeper::<Ack>();
    let (replay, _replays) = keeper::<RequestReplay>();
    let (publish, _events) = keeper::<Publish>();
    let inject = Post::new(prover.recipient(), Probe::new(ActorId::of(ActorKind::PtyWorker, "p")));
    let doors = CursorDoors { inject, cancel, ack, read: keeper().0, replay, publish };
    let lane = Lane::new(Arc::<House>::default());
    let (kept, room) = (journal.clone(), lane.clone());
    seat.start(None, move |_, life| {
        let name = name("fast");
        let config = CursorConfig { agent_id: agent(), name, ack_seq: Some(Seq(0)) };
        DeliveryCursor::new(life, config, kept, doors, room)
    });
    child.post().tell(WorkerUp { worker: WORKER, window: 16 }).unwrap();

    const COUNT: u64 = 4000;
    let began = std::time::Instant::now();
    let mut seq = 0;
    while seq < COUNT {
        match lane.take(Seq(seq + 1), 200) {
            Some(credit) => {
                seq += 1;
                child.post().tell(Deliver { epoch: Epoch(1), delivery: delivery(seq), credit }).unwrap();
                if seq % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            None => tokio::time::sleep(Duration::from_micros(200)).await,
        }
        assert!(began.elapsed() < Duration::from_secs(30), "stuck at {seq}");
    }
    let acked = || acks.lock().unwrap().last().map(|ack| ack.up_to);
    until_holds("all are acked", || acked() == Some(Seq(COUNT))).await;
    let rate = COUNT as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} deliveries/s, {:?}", journal.probe().view().detail);
    assert!(rate > 800.0, "{rate:.0} deliveries/s");
}

impl Room {
    async fn redeliver(&self, letter: &DeadLetter) -> Result<(), RedeliverRefused> {
        let letter = letter.clone();
        self.child.post().ask(|reply| Redeliver { letter, reply }).await.unwrap()
    }
}

#[actix::test]
async fn a_dead_letter_is_tried_again_without_touching_the_mailbox_and_goes_once_it_is_in() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(0));
    room.up();
    room.deliver(1);
    room.until("handed over", |room| room.injected().len() == 1).await;
    let failed = |reason: &str| InjectStep::Failed { reason: reason.into(), landed: false };
    room.report("del_1", 1, failed("no"));
    room.until("acked", |room| room.acked().last() == Some(&1)).await;
    let letter = journal.dead_letters().remove(0);

    assert_eq!(room.redeliver(&letter).await, Ok(()));
    assert_eq!(room.redeliver(&letter).await, Err(RedeliverRefused::UnderWay));
    let again = letter.again().to_string();
    room.until("again", |room| room.injected().last() == Some(&(again.clone(), 1, true))).await;
    assert_eq!(journal.dead_letters().len(), 1, "kept until it is in");

    // It fails again: a letter of its own takes the place of the first.
    room.report(&again, 1, failed("still no"));
    room.until("replaced", |_| journal.dead_letters().iter().all(|one| one.reason == "still no")).await;
    let letter = journal.dead_letters().remove(0);
    assert_eq!((letter.delivery.as_str(), journal.dead_letters().len()), (again.as_str(), 1));

    // Its stamp may be that of the first, to the millisecond; then its next try is the same one again.
    let letter = DeadLetter { at_ms: letter.at_ms + 1, ..letter };
    assert_eq!(room.redeliver(&letter).await, Ok(()));
    room.until("once more", |room| room.injected().len() == 3).await;
    room.report(letter.again().as_str(), 1, InjectStep::Proven(Rung::Submitted));
    room.until("told", |room| room.events().last().unwrap() == "dead_letter_redelivered").await;
    assert!(journal.dead_letters().is_empty());
    assert!(room.acked().iter().all(|acked| *acked <= 1), "no ack but that of the mailbox");

    room.tell(WorkerGone { reason: "the program ended".into() });
    assert_eq!(room.redeliver(&letter).await, Err(RedeliverRefused::NotLive));
}

#[actix::test]
async fn a_flush_is_answered_when_the_last_proof_is_on_disk_and_acked() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(0));
    room.up();
    room.deliver(1);
    room.deliver(2);
    room.until("handed over", |room| room.injected().len() == 2).await;
    room.prove(1, 1);
    room.tell(WorkerGone { reason: "the program ended".into() });
    room.child.post().ask(FlushAcks).await.unwrap();
    // Whoever keeps the acks has its turn, and the disk none.
    tokio::task::yield_now().await;
    assert_eq!(room.acked().last(), Some(&1), "the second has no proof");
    // Nothing is on its way.
    room.child.post().ask(FlushAcks).await.unwrap();
}

#[actix::test]
async fn a_letter_whose_agent_ends_meanwhile_is_kept() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(0));
    room.up();
    room.deliver(1);
    room.until("handed over", |room| room.injected().len() == 1).await;
    room.report("del_1", 1, InjectStep::Failed { reason: "no".into(), landed: false });
    room.until("acked", |room| room.acked().last() == Some(&1)).await;
    let letter = journal.dead_letters().remove(0);
    assert_eq!(room.redeliver(&letter).await, Ok(()));
    room.tell(WorkerGone { reason: "the program ended".into() });
    room.view().await;
    assert_eq!(journal.dead_letters(), std::slice::from_ref(&letter));

    // The next process of that agent can have it.
    let next = Room::new(&journal, Some(1));
    next.up();
    assert_eq!(next.redeliver(&letter).await, Ok(()));
    next.until("handed over", |room| room.injected().len() == 1).await;
}

impl Room {
    fn set_mode(
        &self,
        mode: DeliveryMode,
        expect: Option<DeliveryMode>,
    ) -> crate::messages::Answer<Result<ModeSet, ModeConflict>> {
        self.child.post().ask(|reply| SetDeliveryMode { mode, expect, reply })
    }

    /// The worker's answer to what it was asked last.
    async fn give_back(&self, forgotten: &[(&str, u32)]) {
        self.until("asked to give back", |room| !room.cancels.lock().unwrap().is_empty()).await;
        let cancel = self.cancels.lock().unwrap().remove(0);
        cancel.reply.send(forgotten.iter().map(|(id, attempt)| ((*id).into(), *attempt)).collect());
    }

    async fn pending(&self) -> Vec<String> {
        let pending = self.child.post().ask(ListPending).await.unwrap();
        pending.into_iter().map(|pending| pending.delivery.to_string()).collect()
    }
}

#[actix::test]
async fn whoever_holds_messages_hears_of_it_when_the_worker_has_given_back_what_it_had_not_begun() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(0));
    room.up();
    room.deliver(1);
    room.deliver(2);
    room.until("handed over", |room| room.injected().len() == 2).await;
    let held = room.set_mode(DeliveryMode::ManualFlush, Some(DeliveryMode::AutoInject));
    let late = room.set_mode(DeliveryMode::ManualFlush, Some(DeliveryMode::AutoInject));
    assert_eq!(late.await.unwrap().unwrap_err().mode, DeliveryMode::ManualFlush);
    assert!(room.pending().await.is_empty(), "nobody knows yet what is begun");
    room.give_back(&[("del_2", 1)]).await;
    let set = held.await.unwrap().unwrap();
    assert_eq!((set.previous, set.flushed), (DeliveryMode::AutoInject, 0));
    room.deliver(3);
    assert_eq!(room.pending().await, ["del_2", "del_3"]);
    room.prove(1, 1);
    room.until("what was under way is acked", |room| room.acked().last() == Some(&1)).await;

    let flushed = room.child.post().ask(|reply| Flush { only: None, reply }).await.unwrap();
    room.until("let through", |room| room.injected().len() == 4).await;
    assert_eq!(
        (flushed, room.child.post().ask(GetDeliveryMode).await.unwrap()),
        (2, DeliveryMode::ManualFlush)
    );
    room.deliver(4);
    let set = room.set_mode(DeliveryMode::AutoInject, None).await.unwrap().unwrap();
    assert_eq!((set.flushed, room.pending().await.len()), (1, 0));
    let about_holding = |kind: &String| kind.starts_with("agent_");
    assert_eq!(
        room.events().into_iter().filter(about_holding).collect::<Vec<_>>(),
        [
            "agent_inbound_delivery_mode_changed",
            "agent_pending_drained",
            "agent_inbound_delivery_mode_changed",
            "agent_pending_drained"
        ]
    );
}

#[actix::test]
async fn a_second_hold_waits_for_the_worker_as_the_first_does() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(0));
    room.up();
    room.deliver(1);
    room.deliver(2);
    room.until("handed over", |room| room.injected().len() == 2).await;
    let first = room.set_mode(DeliveryMode::ManualFlush, None);
    let mut second = room.set_mode(DeliveryMode::ManualFlush, None);
    // Answered after both were taken in.
    assert!(room.pending().await.is_empty());
    assert!((&mut second).now_or_never().is_none(), "it is not in force yet");
    room.give_back(&[("del_2", 1)]).await;
    assert_eq!(first.await.unwrap().unwrap().previous, DeliveryMode::AutoInject);
    room.give_back(&[]).await;
    assert_eq!(second.await.unwrap().unwrap().previous, DeliveryMode::ManualFlush);
    assert_eq!(room.pending().await, ["del_2"]);
}

#[actix::test]
async fn messages_stay_held_over_a_panic_and_what_was_begun_is_finished() {
    let (_dir, journal) = journal();
    let room = Room::new(&journal, Some(0));
    room.up();
    room.deliver(1);
    room.until("handed over", |room| room.injected().len() == 1).await;
    let held = room.set_mode(DeliveryMode::ManualFlush, None);
    room.give_back(&[]).await;
    assert!(held.await.unwrap().is_ok());
    room.deliver(2);
    assert_eq!(room.pending().await, ["del_2"]);
    room.child.probe().arm(FaultPoint::Handler);
    room.tell(EpochStarted { epoch: Epoch(2) });
    room.until("the first again", |room| room.injected().len() == 2).await;
    // The worker is told to forget what it has queued, is handed it again, and asked what it has not begun.
    room.give_back(&[]).await;
    room.give_back(&[]).await;
    assert_eq!(room.pending().await, ["del_2"]);
    room.prove(1, 2);
    room.until("acked", |room| room.acked().last() == Some(&1)).await;
    assert_eq!(room.injected().last().unwrap().0, "del_1");
}
