//! The book's rules, one by one.

use std::time::Duration;

use super::{book::*, gap::*, *};
use crate::{
    ids::{Generation, MsgId},
    messages::{
        delivery::{Content, CursorView, House, InjectStep, Mode, Note, Rung},
        hold::ModeConflict,
    },
    store::{CursorState, Outcome, Record},
};

/// A book whose disk is as fast as thought, unless told otherwise.
struct Desk {
    book: Book,
    house: Arc<House>,
    lane: Arc<Lane>,
    now: Instant,
    out: Vec<Effect>,
    mark: u64,
}

impl Desk {
    fn new(position: Option<u64>) -> Self {
        let journal = CursorState { position: position.map(Seq), ..CursorState::default() };
        Self::from(journal, None)
    }

    fn from(journal: CursorState, ack_seq: Option<u64>) -> Self {
        let house = Arc::<House>::default();
        let lane = Lane::new(house.clone());
        let mut out = Vec::new();
        let origin = Origin {
            agent: AgentId::from("agent_1"),
            name: AgentName::parse("skipper").unwrap(),
            lane: lane.clone(),
            journal,
            ack_seq: ack_seq.map(Seq),
            condemned: HashSet::new(),
            worker: None,
            mode: DeliveryMode::default(),
            counts: Counts::default(),
        };
        let book = Book::new(origin, &mut out);
        let mark = 1 + appended(&out).len() as u64;
        let mut desk = Self { book, house, lane, now: Instant::now(), out, mark };
        desk.flush();
        desk.out.clear();
        desk
    }

    fn step(&mut self, event: Event) -> &mut Self {
        let at = Moment { now: self.now, wall_ms: 0 };
        let from = self.out.len();
        self.book.step(at, event, &mut self.out);
        self.mark += appended(&self.out[from..]).len() as u64;
        self
    }

    fn flush(&mut self) -> &mut Self {
        self.step(Event::OnDisk(self.mark))
    }

    fn up(&mut self) -> &mut Self {
        self.step(Event::WorkerUp(WorkerUp { worker: Generation(1), window: 4 }))
    }

    fn give(&mut self, delivery: Delivery) -> &mut Self {
        let credit = self.lane.take(delivery.seq, 100).unwrap();
        self.step(Event::Deliver { epoch: Epoch(1), delivery: Arc::new(delivery), credit })
    }

    fn deliver(&mut self, seq: u64) -> &mut Self {
        self.give(row(seq))
    }

    fn report(&mut self, delivery: &str, attempt: u32, step: InjectStep) -> &mut Self {
        let delivery_id = delivery.into();
        self.step(Event::Report(InjectReport { worker: Generation(1), delivery_id, attempt, step }))
    }

    fn prove(&mut self, seq: u64) -> &mut Self {
        self.report(&format!("del_{seq}"), 1, InjectStep::Proven(Rung::Submitted))
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self.step(Event::Tick)
    }

    fn at(&self) -> Moment {
        Moment { now: self.now, wall_ms: 0 }
    }

    fn hold(&mut self) -> &mut Self {
        self.book.set_mode(self.at(), DeliveryMode::ManualFlush, None, &mut self.out).unwrap();
        self
    }

    fn let_through(&mut self, only: Option<&str>) -> usize {
        let only = only.map(DeliveryId::from);
        self.book.flush(self.at(), only.as_ref(), &mut self.out)
    }

    fn take_backs(&self) -> usize {
        self.out.iter().filter(|effect| matches!(effect, Effect::TakeBack)).count()
    }

    fn pending(&self) -> Vec<String> {
        self.book.pending().into_iter().map(|pending| pending.delivery.to_string()).collect()
    }

    fn appended(&self) -> Vec<&Record> {
        appended(&self.out)
    }

    fn acks(&self) -> Vec<u64> {
        let ack = |effect: &Effect| if let Effect::Ack(seq) = effect { Some(seq.0) } else { None };
        self.out.iter().filter_map(ack).collect()
    }

    fn injects(&self) -> Vec<&str> {
        fn id(effect: &Effect) -> Option<&str> {
            if let Effect::Inject(one) = effect { Some(one.delivery_id.as_str()) } else { None }
        }
        self.out.iter().filter_map(id).collect()
    }

    fn asks(&self) -> usize {
        self.out.iter().filter(|effect| matches!(effect, Effect::RequestReplay)).count()
    }

    fn view(&self) -> CursorView {
        self.book.view()
    }
}

fn appended(out: &[Effect]) -> Vec<&Record> {
    fn record(effect: &Effect) -> Option<&Record> {
        if let Effect::Append(record) = effect { Some(record) } else { None }
    }
    out.iter().filter_map(record).collect()
}

fn row(seq: u64) -> Delivery {
    let msg_id = MsgId::from(format!("msg_{seq}"));
    let note = Note {
        from: "harbormaster".into(),
        target: "#dock".into(),
        thread: None,
        msg_id: msg_id.clone(),
        body: "moor".into(),
        sent_at: None,
        system: false,
    };
    Delivery {
        delivery_id: format!("del_{seq}").into(),
        msg_id,
        seq: Seq(seq),
        mode: Mode::Wait,
        content: Content::Inject(note),
        repeats: false,
    }
}

fn fanout(id: &str) -> Delivery {
    Delivery { delivery_id: id.into(), seq: Seq(0), ..row(1) }
}

#[test]
fn the_same_message_at_the_next_seq_advances_and_is_acked_and_is_not_typed_again() {
    let mut desk = Desk::new(Some(0));
    desk.up().deliver(1).give(Delivery { seq: Seq(2), ..row(1) }).deliver(3);
    assert_eq!(desk.injects(), ["del_1", "del_3"]);
    desk.prove(1).prove(3).flush();
    assert_eq!(desk.acks().last(), Some(&3));
    assert!(matches!(desk.appended()[0], Record::Settled { seq: Seq(2), outcome: Outcome::Duplicate, .. }));
}

#[test]
fn only_the_contiguous_written_prefix_is_acked() {
    let mut desk = Desk::new(Some(0));
    desk.up().deliver(1).deliver(2).deliver(3).prove(2).flush();
    assert_eq!(desk.acks(), [0; 0]);
    assert_eq!((desk.view().injected, desk.view().journalled), (Seq(0), Seq(0)));
    desk.prove(1);
    assert_eq!((desk.view().injected, desk.view().journalled), (Seq(2), Seq(0)), "not on disk yet");
    assert_eq!(desk.acks(), [0; 0]);
    desk.flush();
    assert_eq!(desk.acks(), [2]);
}

#[test]
fn frames_that_nobody_is_shown_are_settled_in_order() {
    let mut desk = Desk::new(Some(0));
    desk.up().deliver(1);
    desk.give(Delivery { content: Content::AckOnly("message.read".into()), ..row(2) });
    desk.give(Delivery { content: Content::Unusable("x.y".into()), ..row(3) }).flush();
    assert_eq!(desk.acks(), [0; 0], "their time has not come");
    desk.prove(1).flush();
    assert_eq!(desk.acks(), [3]);
    assert_eq!(desk.injects(), ["del_1"]);
}

#[test]
fn a_duplicate_gets_the_current_ack_again() {
    let mut desk = Desk::new(Some(42));
    desk.up().deliver(40).deliver(42);
    assert_eq!((desk.acks(), desk.injects().len()), (vec![42, 42], 0));
    desk.deliver(43).deliver(43);
    assert_eq!(desk.acks(), [42, 42, 42]);
    assert_eq!(desk.injects(), ["del_43"]);
    assert_eq!(desk.view().duplicates, 3);
}

#[test]
fn frames_outside_the_mailbox_are_shown_once_and_never_touch_the_cursor() {
    for position in [None, Some(7)] {
        let mut desk = Desk::new(position);
        desk.up().give(fanout("evt_1")).give(fanout("evt_1")).give(fanout("evt_2"));
        assert_eq!(desk.injects(), ["evt_1", "evt_2"]);
        desk.report("evt_1", 1, InjectStep::Proven(Rung::Submitted)).flush();
        let current = position.unwrap_or(0);
        assert!(desk.acks().iter().all(|up_to| *up_to == current) && !desk.acks().is_empty());
        // A reaction to a message is no reason to drop the message itself.
        let next = current + 1;
        desk.give(Delivery { msg_id: "msg_1".into(), ..row(next) });
        assert_eq!(desk.injects().last(), Some(&format!("del_{next}").as_str()));
    }
}

#[test]
fn a_cursor_that_was_told_nothing_starts_at_the_lowest_frame_that_comes_first() {
    let mut desk = Desk::new(None);
    desk.up().deliver(45).deliver(43).deliver(44);
    assert_eq!(desk.injects().len(), 0);
    desk.pass(REORDER_WAIT);
    assert_eq!(desk.injects(), ["del_43", "del_44", "del_45"]);
    assert!(matches!(desk.appended()[0], Record::Seeded { at: Seq(42), .. }));
    let mut first = Desk::new(None);
    first.up().deliver(1);
    assert_eq!(first.injects(), ["del_1"], "nothing can come before the first");
}

#[test]
fn of_engine_and_journal_the_one_that_is_ahead_is_believed() {
    let journal = CursorState { position: Some(Seq(45)), ..CursorState::default() };
    let mut desk = Desk::from(journal.clone(), Some(42));
    desk.up().deliver(43).deliver(46);
    assert_eq!(desk.injects(), ["del_46"], "43 is in the terminal, its ack was lost");
    let mut desk = Desk::from(journal, Some(50));
    desk.up().deliver(51);
    assert_eq!(desk.injects(), ["del_51"]);
}

#[test]
fn what_was_settled_ahead_of_a_crash_is_not_typed_again() {
    let mut journal = CursorState { position: Some(Seq(42)), ..CursorState::default() };
    journal.ahead.insert(44, 44);
    let mut desk = Desk::from(journal, None);
    desk.up().deliver(43).deliver(44).deliver(45);
    assert_eq!(desk.injects(), ["del_43", "del_45"]);
    desk.prove(43).prove(45).flush();
    assert_eq!(desk.acks().last(), Some(&45));
}

#[test]
fn a_reversed_burst_heals_by_itself() {
    let mut desk = Desk::new(Some(0));
    for seq in (1..=AHEAD_MAX as u64).rev() {
        desk.deliver(seq);
    }
    assert_eq!((desk.view().gaps, desk.view().refused), (0, 0));
    desk.pass(Duration::from_secs(60));
    assert_eq!(desk.asks(), 0);
    desk.up();
    assert_eq!(desk.injects(), ["del_1", "del_2", "del_3", "del_4"]);
}

#[test]
fn beyond_the_bound_the_farthest_frames_are_left_to_the_engine() {
    let mut desk = Desk::new(Some(0));
    for seq in 2..AHEAD_MAX as u64 + 12 {
        desk.deliver(seq);
    }
    assert_eq!((desk.view().held, desk.view().refused), (AHEAD_MAX, 10));
    assert_eq!(desk.asks(), 1, "and it is asked for them");
    desk.deliver(1);
    assert_eq!(desk.view().gaps, 0);
}

#[test]
fn a_replay_that_passes_over_missing_numbers_shows_that_they_are_gone() {
    let mut desk = Desk::new(Some(0));
    desk.up().deliver(4).deliver(5).pass(REORDER_WAIT);
    assert_eq!(desk.asks(), 1);
    desk.deliver(4);
    assert_eq!(desk.injects().len(), 0, "that was no replay");
    desk.step(Event::ReplayAsked(Some(Epoch(1)))).deliver(4);
    assert_eq!(desk.injects(), ["del_4", "del_5"]);
    assert_eq!(desk.view().gaps_skipped, 3);
    assert!(matches!(desk.appended()[0], Record::GapSkipped { from: Seq(1), to: Seq(3), .. }));
    assert!(desk.acks().iter().all(|up_to| *up_to == 0), "not on disk yet");
    desk.flush();
    assert_eq!(desk.acks().last(), Some(&3));
}

#[test]
fn a_frame_that_was_refused_here_is_never_given_up_as_gone() {
    let mut desk = Desk::new(Some(0));
    let hog = Lane::new(desk.house.clone());
    let big: Vec<_> = (0..4).map_while(|_| hog.take(Seq(1), 4 << 20)).collect();
    desk.up().deliver(2).pass(REORDER_WAIT).step(Event::ReplayAsked(Some(Epoch(1))));
    assert!(desk.lane.take(Seq(1), 1 << 20).is_none(), "the house is full");
    desk.pass(REPLAY_WAIT);
    assert_eq!((desk.view().gaps_skipped, desk.injects().len()), (0, 0));
    drop(big);
    desk.step(Event::EpochStarted).deliver(1).deliver(2);
    assert_eq!(desk.injects(), ["del_1", "del_2"]);
}

#[test]
fn reports_of_an_older_attempt_or_worker_change_nothing() {
    let mut desk = Desk::new(Some(0));
    desk.up().deliver(1);
    desk.step(Event::WorkerUp(WorkerUp { worker: Generation(2), window: 1 }));
    assert_eq!(desk.injects(), ["del_1", "del_1"]);
    desk.prove(1);
    let of = |worker, attempt| InjectReport {
        worker: Generation(worker),
        delivery_id: "del_1".into(),
        attempt,
        step: InjectStep::Proven(Rung::Submitted),
    };
    desk.step(Event::Report(of(2, 1))).step(Event::Report(of(1, 2)));
    assert_eq!((desk.view().stale_reports, desk.appended().len()), (3, 0));
    desk.step(Event::Report(of(2, 2))).flush();
    assert_eq!(desk.acks(), [1]);
}

#[test]
fn what_two_programs_have_died_of_is_a_dead_letter_and_the_next_message_goes_on() {
    let mut journal = CursorState::default();
    let agent = AgentId::from("agent_1");
    journal.apply(&Record::Seeded { agent: agent.clone(), at: Seq(0) });
    for attempt in 1..=DEATHS_MAX {
        let mut desk = Desk::from(journal.clone(), Some(0));
        desk.up().deliver(1).deliver(2);
        assert_eq!(desk.injects(), ["del_1", "del_2"], "at attempt {attempt}");
        for (delivery, seq) in [("del_1", 1), ("del_2", 2)] {
            let (agent, delivery) = (agent.clone(), delivery.into());
            journal.apply(&Record::Handed { agent, delivery, seq: Seq(seq), attempt });
        }
        let deliveries = vec!["del_1".into()];
        journal.apply(&Record::ReaderDied { agent: agent.clone(), deliveries });
    }
    let mut desk = Desk::from(journal, Some(0));
    desk.up().deliver(1).deliver(2);
    assert_eq!(desk.injects(), ["del_2"]);
    let Record::DeadLettered(letter) = desk.appended()[0] else { panic!("{:?}", desk.appended()) };
    assert!(letter.reason.starts_with("the program ended 2 times while it had this message"), "{letter:?}");
    desk.report("del_2", DEATHS_MAX + 1, InjectStep::Proven(Rung::Submitted)).flush();
    assert_eq!(desk.acks(), [2]);
}

#[test]
fn a_failed_delivery_becomes_a_dead_letter_and_the_mailbox_goes_on() {
    let mut desk = Desk::new(Some(0));
    desk.up().deliver(1).deliver(2);
    let failed = InjectStep::Failed { reason: "refused twice".into(), landed: false };
    desk.report("del_1", 1, failed).prove(2).flush();
    assert_eq!(desk.acks(), [2]);
    let Record::DeadLettered(letter) = desk.appended()[0] else { panic!("{:?}", desk.appended()) };
    assert_eq!((letter.reason.as_str(), letter.attempts, letter.landed), ("refused twice", 1, false));
    let told = desk.out.iter().any(|effect| matches!(effect, Effect::Tell(_, Fact::DeadLettered { .. })));
    assert!(told);
    desk.give(Delivery { msg_id: "msg_1".into(), ..row(3) });
    assert_eq!(desk.injects().last(), Some(&"del_3"), "sent again, it is not a duplicate");
}

#[test]
fn a_delivery_is_not_handed_over_for_ever() {
    let mut desk = Desk::new(Some(0));
    desk.deliver(1);
    for worker in 1..=u64::from(ATTEMPTS_MAX) + 3 {
        desk.step(Event::WorkerUp(WorkerUp { worker: Generation(worker), window: 1 }));
    }
    desk.flush();
    assert_eq!(desk.injects().len(), ATTEMPTS_MAX as usize);
    assert_eq!((desk.acks(), desk.view().dead_letters), (vec![1], 1));
}

#[test]
fn the_window_of_the_worker_is_kept() {
    let mut desk = Desk::new(Some(0));
    for seq in 1..=10 {
        desk.deliver(seq);
    }
    assert_eq!(desk.injects().len(), 0, "nobody there");
    desk.up();
    assert_eq!(desk.injects().len(), 4);
    desk.prove(1).prove(2);
    assert_eq!(desk.injects(), ["del_1", "del_2", "del_3", "del_4", "del_5", "del_6"]);
}

#[test]
fn room_that_comes_back_brings_the_refused_frames_back() {
    let mut desk = Desk::new(Some(0));
    desk.up();
    for seq in 1..=crate::messages::delivery::LANE_FRAMES_MAX as u64 {
        desk.deliver(seq);
    }
    assert!(desk.lane.take(Seq(2000), 10).is_none());
    for seq in 1..=400 {
        desk.prove(seq);
    }
    desk.flush();
    assert_eq!(desk.asks(), 0, "more than half is still taken");
    for seq in 401..=600 {
        desk.prove(seq);
    }
    desk.flush().flush();
    assert_eq!(desk.asks(), 1);
}

#[test]
fn the_view_says_what_the_last_message_waits_for() {
    let waits = |desk: &Desk| desk.view().last.unwrap().waiting_for;
    let mut desk = Desk::new(Some(0));
    desk.deliver(1);
    assert_eq!(waits(&desk), "the agent to start");
    desk.up();
    assert_eq!(waits(&desk), "the terminal");
    desk.report("del_1", 1, InjectStep::Waiting("a dialog is open".into()));
    assert_eq!(waits(&desk), "a dialog is open");
    desk.report("del_1", 1, InjectStep::Reached(Rung::Landed));
    assert_eq!(desk.view().last.unwrap().rung, Some(Rung::Landed));
    desk.prove(1);
    assert_eq!(waits(&desk), "the journal");
    desk.flush();
    assert_eq!(waits(&desk), "");
    desk.deliver(3);
    assert_eq!(waits(&desk), "earlier messages that have not arrived");
}

#[test]
fn what_comes_while_messages_are_held_is_not_handed_over_and_a_flush_lets_through_what_is_there() {
    let mut desk = Desk::new(Some(0));
    desk.up().hold().deliver(1).deliver(2);
    assert!(desk.injects().is_empty());
    let told = |desk: &Desk| {
        let received =
            |effect: &&Effect| matches!(effect, Effect::Tell(_, Fact::Received { held_back: true }));
        desk.out.iter().filter(received).count()
    };
    assert_eq!((told(&desk), desk.pending()), (2, vec!["del_1".to_owned(), "del_2".to_owned()]));
    assert_eq!((desk.view().waiting, desk.view().held_back), (2, 2));
    assert_eq!(
        desk.view().last.unwrap().waiting_for,
        "a person to let it through, because messages are held"
    );
    assert_eq!(desk.let_through(None), 2);
    assert_eq!(desk.injects(), ["del_1", "del_2"]);
    desk.deliver(3).prove(1).prove(2).flush();
    assert_eq!(desk.injects(), ["del_1", "del_2"], "the mode stays");
    assert_eq!((desk.acks().last(), desk.let_through(None), desk.let_through(None)), (Some(&2), 1, 0));
}

#[test]
fn one_message_can_be_let_through_before_those_that_came_earlier_and_their_acks_wait_for_them() {
    let mut desk = Desk::new(Some(0));
    desk.up().hold().deliver(1).deliver(2).deliver(3);
    assert_eq!((desk.let_through(Some("del_9")), desk.let_through(Some("del_2"))), (0, 1));
    assert_eq!(desk.injects(), ["del_2"]);
    desk.prove(2).flush();
    assert!(desk.acks().is_empty(), "{:?}", desk.acks());
    let set = desk.book.set_mode(desk.at(), DeliveryMode::AutoInject, None, &mut desk.out).unwrap();
    assert_eq!((set.flushed, desk.injects()), (2, vec!["del_2", "del_1", "del_3"]));
}

#[test]
fn what_the_worker_has_not_begun_comes_back_in_its_order_and_counts_as_no_try() {
    let mut desk = Desk::new(Some(0));
    desk.up();
    for seq in 1..=5 {
        desk.deliver(seq);
    }
    assert_eq!(desk.injects(), ["del_1", "del_2", "del_3", "del_4"]);
    desk.hold();
    assert_eq!((desk.take_backs(), desk.pending()), (1, vec!["del_5".to_owned()]));
    desk.step(Event::TakenBack(vec![("del_4".into(), 1), ("del_2".into(), 1), ("del_3".into(), 7)]));
    // An answer about another attempt is nothing.
    assert_eq!(desk.pending(), ["del_2", "del_4", "del_5"]);
    desk.prove(1).flush();
    assert_eq!(desk.acks().last(), Some(&1), "what was under way is finished");
    desk.out.clear();
    assert_eq!(desk.let_through(None), 3);
    let again = desk.out.iter().find_map(|effect| match effect {
        Effect::Inject(one) => Some((one.delivery_id.to_string(), one.attempt, one.redelivered)),
        _ => None,
    });
    assert_eq!(again, Some(("del_2".to_owned(), 2, false)), "nobody has seen it yet");
}

#[test]
fn a_new_worker_finishes_what_the_last_one_may_have_begun_and_gives_the_rest_back() {
    let mut desk = Desk::new(Some(0));
    desk.up().deliver(1).deliver(2).hold();
    desk.out.clear();
    desk.step(Event::WorkerUp(WorkerUp { worker: Generation(2), window: 4 }));
    assert_eq!((desk.injects(), desk.take_backs()), (vec!["del_1", "del_2"], 1));
    desk.step(Event::TakenBack(vec![("del_2".into(), 2)]));
    assert_eq!((desk.pending(), desk.injects().len()), (vec!["del_2".to_owned()], 2));
}

#[test]
fn the_mode_is_set_only_by_those_who_know_it() {
    let mut desk = Desk::new(Some(0));
    let (auto, manual) = (DeliveryMode::AutoInject, DeliveryMode::ManualFlush);
    let mut set = |mode, expect| desk.book.set_mode(desk.at(), mode, expect, &mut desk.out);
    assert_eq!(set(manual, Some(auto)).unwrap().previous, auto);
    assert_eq!(set(auto, Some(auto)), Err(ModeConflict { mode: manual, expected: auto }));
    assert_eq!(set(manual, Some(manual)).unwrap().previous, manual);
    assert_eq!(set(auto, None).unwrap().mode, auto);
    assert!(desk.out.is_empty(), "nobody has anything to give back");
}
