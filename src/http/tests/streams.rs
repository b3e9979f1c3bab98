//! The streams: events out, keys in.

use super::*;

#[actix::test]
async fn the_stream_replays_then_goes_on_live_and_ends_when_asked() {
    let house = house();
    house.publish("one");
    house.publish("two");
    let mut ws = house.ws("?sinceSeq=1").await;
    assert_eq!(event(&mut ws).await["seq"], 2);
    house.publish("three");
    assert_eq!(event(&mut ws).await["seq"], 3);
    assert_eq!(house.get("/health").await.json()["wsConnections"], 1);
    house.server.close_streams();
    assert!(matches!(frame(&mut ws).await, Frame::Close(Some(_))));
    drop(ws);
    let stopping = tokio::time::Instant::now();
    house.server.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(STOP_TIME), "an ended stream held the server up");
}

#[actix::test]
async fn a_stream_finds_a_gap_only_for_what_is_gone() {
    let house = house();
    let total = RING_CAP + 5;
    for n in 1..=total {
        house.publish(n);
    }
    let mut fresh = house.ws("?sinceSeq=5").await;
    assert_eq!(event(&mut fresh).await["seq"], 6);
    let mut late = house.ws("?since_seq=3").await;
    let gap = event(&mut late).await;
    assert_eq!((&gap["kind"], &gap["oldestAvailable"]), (&"replay_gap".into(), &6.into()));
    assert_eq!(event(&mut late).await["seq"], 6);
    let mut foreign = house.ws("?sinceSeq=900&bootId=another").await;
    assert_eq!(event(&mut foreign).await["kind"], "replay_gap");
    let replayed = house.get(&format!("/api/events/replay?sinceSeq={}", total - 1)).await.json();
    assert_eq!((&replayed["gap"], &replayed["currentSeq"]), (&false.into(), &json!(total)));
    assert_eq!(replayed["events"].as_array().unwrap().len(), 1);
}

#[actix::test]
async fn a_client_that_does_not_read_holds_nobody_up_and_learns_what_it_lost() {
    let house = house();
    let mut slow = house.ws("?sinceSeq=0").await;
    let filler = "x".repeat(4096);
    let total = 3 * (FEED_CAP + RING_CAP) as u64;
    for n in 1..total {
        house.publish(format!("{n} {filler}"));
    }
    house.publish("end");
    let current = house.hub.post().ask(|reply| Replay { since: EventSeq(0), boot: None, reply });
    assert_eq!(current.await.unwrap().current, EventSeq(total));
    assert_eq!(house.get("/health").await.status, 200);
    let (mut expected, mut gaps) = (1, 0);
    loop {
        let event = event(&mut slow).await;
        if event["kind"] == "replay_gap" {
            assert_eq!(event["requestedSinceSeq"], expected - 1);
            expected = event["oldestAvailable"].as_u64().unwrap();
            gaps += 1;
        } else {
            assert_eq!(event["seq"], expected);
            expected += 1;
            if event["detail"] == "end" {
                break;
            }
        }
    }
    assert!(gaps > 0, "nothing was lost, so nothing was tested");
    assert_eq!(expected, total + 1);
}

#[actix::test]
async fn keys_are_typed_in_their_order_and_each_is_acked() {
    let house = house();
    let mut ws = house.socket("/api/input/al/stream").await;
    assert_eq!(event(&mut ws).await, json!({"type": "pty_input_ready", "name": "al"}));
    let keys = [
        Message::Text("ls".into()),
        Message::Binary("\u{e4}".into()),
        Message::Text(r#"{"type":"pty_input","data":"\r"}"#.into()),
    ];
    for key in keys {
        ws.send(key).await.unwrap();
    }
    for bytes in [2, 2, 1] {
        let ack = json!({"type": "pty_input_ack", "name": "al", "bytes_written": bytes});
        assert_eq!(event(&mut ws).await, ack);
    }
    assert_eq!(house.script().inputs.concat(), "ls\u{e4}\r".as_bytes());
    house.server.close_streams();
    assert!(matches!(frame(&mut ws).await, Frame::Close(Some(_))));
}

#[actix::test]
async fn whoever_types_to_nobody_is_told_in_a_frame() {
    let house = house();
    for (name, code, status) in [("nobody", "agent_not_found", 404), ("a%20b", "invalid_name", 400)] {
        let mut ws = house.socket(&format!("/api/input/{name}/stream")).await;
        let refused = event(&mut ws).await;
        assert_eq!(refused["type"], "pty_input_error");
        assert_eq!((&refused["code"], &refused["statusCode"]), (&json!(code), &json!(status)));
        assert!(matches!(frame(&mut ws).await, Frame::Close(Some(_))));
    }
    let got = house.get("/api/input/al/stream").await;
    is_envelope(&got, 400, "websocket_expected");
}

#[actix::test]
async fn whoever_drives_holds_messages_back_until_the_stream_ends_also_when_it_never_began() {
    let house = house();
    for before in [DeliveryMode::AutoInject, DeliveryMode::ManualFlush] {
        house.script().delivery_mode = before;
        let mut ws = house.socket("/api/input/al/stream?drive=true").await;
        assert_eq!(event(&mut ws).await["type"], "pty_input_ready");
        assert_eq!(house.script().delivery_mode, DeliveryMode::ManualFlush);
        ws.send(Message::Close(None)).await.unwrap();
        assert!(matches!(frame(&mut ws).await, Frame::Close(_)));
        assert_eq!(house.script().delivery_mode, before);
    }
    house.script().delivery_mode = DeliveryMode::AutoInject;
    house.script().hold_unanswered = true;
    let mut ws = house.socket("/api/input/al/stream?drive=true").await;
    assert_eq!(event(&mut ws).await["code"], "room_timeout");
    assert!(matches!(frame(&mut ws).await, Frame::Close(Some(_))));
    assert_eq!(house.script().delivery_mode, DeliveryMode::AutoInject);
    assert_eq!(house.post("/api/input/al", r#"{"data":"x"}"#).await.status, 200, "the lease is back");
}
