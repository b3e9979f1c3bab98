//! The hub with readers that keep up, fall behind and go away.

use std::time::Duration;

use super::*;
use crate::{
    messages::{
        allowance::Allowance,
        lifecycle::{ActorId, ActorKind},
        observe::Event,
    },
    supervision::{Child, Directory, FaultPoint, Seat},
};

struct House {
    hub: Child<EventHub>,
    wanted: Arc<AtomicUsize>,
}

fn house() -> House {
    let directory = Directory::default();
    let wanted = Arc::new(AtomicUsize::new(0));
    let (hub, seat) = Seat::reserve(ActorId::sole(ActorKind::EventHub), &directory);
    let stream_wanted = wanted.clone();
    seat.start(None, move |_, life| EventHub::new(life, stream_wanted, "boot-a".into()));
    House { hub, wanted }
}

impl House {
    fn publish(&self, detail: impl ToString) {
        let event = Event::SessionState { state: "test", detail: detail.to_string() };
        self.hub.post().tell(Publish(event)).unwrap();
    }

    fn output(&self, of: &str, text: &str, end: u64) {
        let (name, start) = (crate::ids::AgentName::parse(of).unwrap(), end - text.len() as u64);
        let allowed = Allowance::new(text.len()).take(text.len()).unwrap();
        self.hub.post().tell(Output { name, text: text.to_owned(), start, end, allowed }).unwrap();
    }

    async fn subscribe(&self, since: Option<u64>, boot: Option<&str>) -> Feed {
        let (since, boot) = (since.map(EventSeq), boot.map(str::to_owned));
        self.hub.post().ask(|reply| Subscribe { since, boot, output_of: None, reply }).await.unwrap()
    }

    async fn replay(&self, since: u64) -> Replayed {
        self.hub.post().ask(|reply| Replay { since: EventSeq(since), boot: None, reply }).await.unwrap()
    }
}

/// The next frame, which must come.
async fn frame(feed: &mut Feed) -> serde_json::Value {
    let text = tokio::time::timeout(Duration::from_secs(5), feed.frames.recv()).await;
    serde_json::from_str(&text.expect("a frame in time").expect("an open feed").text).unwrap()
}

/// Reads until the event with this detail; everything read, in order.
async fn until(feed: &mut Feed, detail: &str) -> Vec<serde_json::Value> {
    let mut read = Vec::new();
    loop {
        read.push(frame(feed).await);
        if read.last().is_some_and(|last| last["detail"] == detail) {
            return read;
        }
    }
}

#[actix::test]
async fn a_subscriber_gets_what_it_missed_and_then_what_happens_in_order() {
    let house = house();
    house.publish("one");
    house.publish("two");
    let mut feed = house.subscribe(Some(1), Some("boot-a")).await;
    house.publish("three");
    let frames = until(&mut feed, "three").await;
    let seqs: Vec<_> = frames.iter().map(|f| f["seq"].as_u64()).collect();
    assert_eq!(seqs, [Some(2), Some(3)]);
    assert_eq!(frames[0]["kind"], "session_state");
}

#[actix::test]
async fn a_fresh_subscriber_finds_no_false_gap() {
    let house = house();
    let mut feed = house.subscribe(Some(0), None).await;
    house.publish("first");
    assert_eq!(frame(&mut feed).await["seq"], 1);
}

#[actix::test]
async fn numbers_of_another_process_are_answered_with_a_gap_and_everything() {
    let house = house();
    house.publish("one");
    house.publish("two");
    for (since, boot) in [(1, Some("boot-b")), (700, None)] {
        let mut feed = house.subscribe(Some(since), boot).await;
        let gap = frame(&mut feed).await;
        assert_eq!(gap["kind"], "replay_gap");
        assert_eq!((&gap["requestedSinceSeq"], &gap["oldestAvailable"]), (&since.into(), &1.into()));
        assert_eq!(gap["boot_id"], "boot-a");
        assert_eq!(frame(&mut feed).await["seq"], 1);
        assert_eq!(frame(&mut feed).await["seq"], 2);
    }
}

#[actix::test]
async fn a_slow_reader_loses_the_oldest_and_is_told_exactly_which() {
    let house = house();
    let mut feed = house.subscribe(Some(0), None).await;
    let total = FEED_CAP + RING_CAP + 500;
    for n in 1..=total {
        house.publish(n);
    }
    // The hub has taken all of them although nobody read.
    assert_eq!(house.replay(0).await.current, EventSeq(total as u64));
    let frames = until(&mut feed, &total.to_string()).await;
    let mut expected = 1;
    let mut gaps = 0;
    for frame in &frames {
        if frame["kind"] == "replay_gap" {
            gaps += 1;
            assert_eq!(frame["requestedSinceSeq"], expected - 1);
            expected = frame["oldestAvailable"].as_u64().unwrap();
        } else {
            assert_eq!(frame["seq"], expected);
            expected += 1;
        }
    }
    assert_eq!((gaps, expected), (1, total as u64 + 1));
}

#[actix::test]
async fn terminal_output_has_no_number_and_is_not_kept() {
    let house = house();
    let mut feed = house.subscribe(None, None).await;
    house.output("a", "x", 1);
    house.publish("end");
    let frames = until(&mut feed, "end").await;
    let wanted = serde_json::json!({
        "kind": "worker_stream", "name": "a", "stream": "stdout", "chunk": "x", "start": 0, "offset": 1,
    });
    assert_eq!(frames[0], wanted);
    assert_eq!(house.replay(0).await.events.len(), 1, "output was kept for replay");
}

#[actix::test]
async fn a_reader_of_one_agents_output_sees_no_others() {
    let house = house();
    let output_of = Some(crate::ids::AgentName::parse("b").unwrap());
    let subscribe = |reply| Subscribe { since: None, boot: None, output_of, reply };
    let mut feed = house.hub.post().ask(subscribe).await.unwrap();
    for name in ["a", "b", "c"] {
        house.output(name, "x", 1);
    }
    house.publish("end");
    let frames = until(&mut feed, "end").await;
    assert_eq!((frames.len(), frames[0]["name"].as_str()), (2, Some("b")));
}

#[actix::test]
async fn a_reader_that_falls_behind_in_output_loses_the_newest_and_is_told_once_it_reads_on() {
    for text in ["x", &"y".repeat(60_000)] {
        let house = house();
        let mut slow = house.subscribe(None, None).await;
        let mut quick = house.subscribe(None, None).await;
        let mut read = Vec::new();
        for n in 1..=300 {
            house.output("a", text, n * text.len() as u64);
            read.push(frame(&mut quick).await["kind"].clone());
        }
        assert!(read.iter().all(|kind| kind == "worker_stream"), "a quick reader has lost something");
        let mut kept = 0;
        let lost = loop {
            let frame = frame(&mut slow).await;
            match frame["kind"].as_str() {
                Some("worker_stream") => {
                    kept += 1;
                    assert_eq!(frame["offset"], kept * text.len());
                }
                Some("stream_gap") => break frame["frames"].as_u64().unwrap(),
                kind => panic!("{kind:?}"),
            }
        };
        assert_eq!(kept as u64 + lost, 300);
        assert!(kept * text.len().max(OUTPUT_CHUNK_MIN as usize) <= OUTPUT_BEHIND_MAX as usize, "{kept}");
        assert!(kept > 10, "{kept}");
        house.output("a", "after", 5);
        assert_eq!(frame(&mut slow).await["chunk"], "after");
    }
}

#[actix::test]
async fn output_is_wanted_only_while_somebody_listens() {
    let house = house();
    let feed = house.subscribe(None, None).await;
    house.replay(0).await;
    assert_eq!(house.wanted.load(Ordering::Acquire), 1);
    drop(feed);
    // The next turns of the hub find the reader gone, without any event.
    for _ in 0..100 {
        house.replay(0).await;
        if house.wanted.load(Ordering::Acquire) == 0 {
            return;
        }
    }
    panic!("the reader is still counted");
}

#[actix::test]
async fn a_restart_keeps_numbers_and_subscribers() {
    let house = house();
    let mut feed = house.subscribe(Some(0), None).await;
    house.publish("before");
    assert_eq!(frame(&mut feed).await["seq"], 1);
    house.hub.probe().arm(FaultPoint::Handler);
    house.publish("lost with the fault");
    house.publish("after");
    assert_eq!(frame(&mut feed).await["seq"], 2);
    assert_eq!(house.hub.probe().generation().0, 1);
}
