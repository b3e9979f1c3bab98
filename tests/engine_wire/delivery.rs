//! From a message to a socket and back as an ack.

use std::time::Duration;

use relay_broker::engine::Limits;
use serde_json::json;

use crate::harbour::{Harbour, seqs};

#[actix::test]
async fn an_acked_message_never_comes_back() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let (id, _) = socket.agent("skipper").await;
    let human = harbour.agent("harbormaster").await;

    let sent = harbour.dm(&human, "skipper", "fuel is low").await;
    let frame = socket.next().await;
    assert_eq!(frame["type"], "deliver");
    assert_eq!(frame["seq"], 1);
    assert_eq!(frame["agent"], "skipper");
    assert_eq!(frame["agent_id"], id.as_str());
    assert_eq!(frame["msg_id"], sent["id"]);
    assert_eq!(frame["delivery_id"], format!("del_{}_{id}", sent["id"].as_str().unwrap()));
    assert_eq!(frame["payload"]["type"], "dm.received");
    assert_eq!(frame["payload"]["data"]["text"], "fuel is low");
    assert_eq!(frame["payload"]["data"]["from_name"], "harbormaster");

    socket.ack("skipper", 1).await;
    assert_eq!(socket.sync(&[(&id, "skipper")]).await["data"]["rebound_agents"], 1);
    assert!(seqs(&socket.until_quiet().await).is_empty());
    drop(socket);
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    assert!(seqs(&socket.until_quiet().await).is_empty());
}

#[actix::test]
async fn unacked_mail_is_replayed_in_order_after_a_reconnect_and_after_a_sync() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let (id, _) = socket.agent("skipper").await;
    let human = harbour.agent("harbormaster").await;
    for n in 1..=5 {
        harbour.dm(&human, "skipper", &format!("message {n}")).await;
    }
    assert_eq!(seqs(&socket.until_quiet().await), [1, 2, 3, 4, 5]);
    socket.ack("skipper", 2).await;
    assert!(socket.until_quiet().await.is_empty());
    drop(socket);

    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    assert_eq!(seqs(&socket.until_quiet().await), [3, 4, 5]);
    socket.sync(&[(&id, "skipper")]).await;
    assert_eq!(seqs(&socket.until_quiet().await), [3, 4, 5]);
}

#[actix::test]
async fn registering_an_agent_replays_that_agent_alone() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let (id, first) = socket.agent("skipper").await;
    socket.agent("lookout").await;
    let human = harbour.agent("harbormaster").await;
    harbour.dm(&human, "skipper", "one").await;
    harbour.dm(&human, "lookout", "two").await;
    assert_eq!(socket.until_quiet().await.len(), 2);

    let (again, second) = socket.agent("skipper").await;
    assert_eq!(again, id);
    assert_ne!(first, second);
    let frames = socket.until_quiet().await;
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0]["agent"], "skipper");
    assert_eq!(harbour.get("/v1/agent", &first).await.0, 401);
    assert_eq!(harbour.get("/v1/agent", &second).await.0, 200);
}

#[actix::test]
async fn a_channel_message_reaches_every_member_but_its_author() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let (_, skipper) = socket.agent("skipper").await;
    socket.agent("lookout").await;
    socket.agent("cook").await;
    let (status, body) = harbour
        .post("/v1/channels/general/messages", &skipper, json!({"text": "@lookout up", "mode": "steer"}))
        .await;
    assert_eq!(status, 201, "{body}");
    let mut frames = socket.until_quiet().await;
    frames.sort_by_key(|frame| frame["agent"].as_str().unwrap().to_owned());
    let names: Vec<_> = frames.iter().map(|frame| frame["agent"].as_str().unwrap()).collect();
    assert_eq!(names, ["cook", "lookout"]);
    for frame in &frames {
        assert_eq!(frame["seq"], 1);
        assert_eq!(frame["mode"], "steer");
        assert_eq!(frame["payload"]["type"], "message.created");
        assert_eq!(frame["payload"]["data"]["channel_name"], "general");
        assert_eq!(frame["payload"]["data"]["mentions"], json!(["lookout"]));
    }
}

#[actix::test]
async fn an_ack_counts_only_from_the_node_where_the_agent_lives() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let other = harbour.enrol("node_2", "pier").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let (id, _) = socket.agent("skipper").await;
    let human = harbour.agent("harbormaster").await;
    harbour.dm(&human, "skipper", "one").await;
    assert_eq!(socket.next().await["seq"], 1);

    let mut stranger = harbour.moor(&other, "node_2", "pier").await;
    stranger.ack("skipper", 1).await;
    stranger.until_quiet().await;
    socket.sync(&[(&id, "skipper")]).await;
    assert_eq!(seqs(&socket.until_quiet().await), [1]);
}

#[actix::test]
async fn a_deep_backlog_is_streamed_in_order_past_a_reader_that_dawdles() {
    const DEEP: u64 = 3_000;
    let limits = Limits { mailbox_depth: DEEP + 1, ..Limits::default() };
    let harbour = Harbour::with(limits).await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    socket.agent("skipper").await;
    let (_, chatty) = socket.agent("chatty").await;
    // Nobody reads the socket while all this is written.
    for _ in 0..DEEP {
        harbour.dm(&chatty, "skipper", &"x".repeat(400)).await;
    }
    harbour.dm(&chatty, "chatty", "to myself").await;
    let mut expected = 1;
    while expected <= DEEP {
        let frame = socket.next().await;
        assert_eq!(frame["seq"], expected);
        if expected % 500 == 0 {
            socket.ack("skipper", expected).await;
        }
        expected += 1;
    }
    assert!(seqs(&socket.until_quiet().await).is_empty());
}

#[actix::test]
async fn a_full_mailbox_refuses_without_using_up_a_number() {
    let harbour = Harbour::with(Limits { mailbox_depth: 2, ..Limits::default() }).await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    socket.agent("skipper").await;
    let human = harbour.agent("harbormaster").await;
    for n in 1..=4 {
        harbour.dm(&human, "skipper", &format!("message {n}")).await;
    }
    assert_eq!(seqs(&socket.until_quiet().await), [1, 2]);
    socket.ack("skipper", 2).await;
    socket.until_quiet().await;
    harbour.dm(&human, "skipper", "message 5").await;
    let frame = socket.next().await;
    assert_eq!((frame["seq"].as_u64(), &frame["payload"]["data"]["text"]), (Some(3), &json!("message 5")));
}

#[actix::test]
async fn mail_that_nobody_took_in_time_is_a_dead_letter() {
    let limits = Limits {
        message_ttl: Duration::from_millis(1),
        sweep: Duration::from_millis(10),
        ..Limits::default()
    };
    let harbour = Harbour::with(limits).await;
    let token = harbour.enrol("node_1", "quay").await;
    let skipper = harbour.agent("skipper").await;
    let human = harbour.agent("harbormaster").await;
    harbour.dm(&human, "skipper", "too late").await;
    let mut status = String::new();
    for _ in 0..500 {
        let (_, body) = harbour.get("/v1/deliveries", &skipper).await;
        body["data"][0]["status"].as_str().unwrap().clone_into(&mut status);
        if status == "dead_lettered" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status, "dead_lettered");
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    socket.agent("skipper").await;
    assert!(seqs(&socket.until_quiet().await).is_empty());
}

#[actix::test]
async fn receipts_and_reactions_reach_the_others_as_seq_0() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let (skipper_id, skipper) = socket.agent("skipper").await;
    let (lookout_id, lookout) = socket.agent("lookout").await;
    let (_, body) = harbour.post("/v1/channels/general/messages", &skipper, json!({"text": "ahoy"})).await;
    let message = body["data"]["id"].as_str().unwrap().to_owned();
    assert_eq!(seqs(&socket.until_quiet().await), [1]);

    let (status, _) = harbour.post(&format!("/v1/messages/{message}/read"), &lookout, json!({})).await;
    assert_eq!(status, 200);
    let frame = socket.next().await;
    assert_eq!(frame["payload"]["type"], "message.read");
    assert_eq!(frame["delivery_id"], format!("evt_message_read_{message}_{lookout_id}_{skipper_id}"));
    assert_eq!((&frame["seq"], &frame["msg_id"]), (&json!(0), &json!(message)));
    // The receipt has closed the row.
    socket.sync(&[(&skipper_id, "skipper"), (&lookout_id, "lookout")]).await;
    assert!(seqs(&socket.until_quiet().await).is_empty());

    let (status, body) =
        harbour.post(&format!("/v1/messages/{message}/reactions"), &lookout, json!({"emoji": "eyes"})).await;
    assert_eq!(status, 201);
    let frame = socket.next().await;
    assert_eq!(frame["payload"]["data"]["action"], "added");
    let reaction = body["data"]["id"].as_str().unwrap();
    assert_eq!(frame["delivery_id"], format!("evt_message_reacted_{reaction}_{skipper_id}"));
    harbour
        .call(
            awc::http::Method::DELETE,
            &format!("/v1/messages/{message}/reactions/eyes"),
            &lookout,
            None,
            &[],
        )
        .await;
    assert_eq!(socket.next().await["payload"]["data"]["action"], "removed");
}

#[actix::test]
async fn an_idempotency_key_makes_a_repeat_the_same_message() {
    let harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    socket.agent("skipper").await;
    let human = harbour.agent("harbormaster").await;
    let post = |text: &'static str| {
        let body = json!({"to": "skipper", "text": text});
        harbour.call(awc::http::Method::POST, "/v1/dm", &human, Some(body), &[("Idempotency-Key", "k-1")])
    };
    let first = post("once").await;
    let second = post("once").await;
    assert_eq!(first, second);
    let (status, body) = post("something else").await;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("idempotency_key_reused")));
    assert_eq!(seqs(&socket.until_quiet().await), [1]);
}
