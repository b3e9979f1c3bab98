//! Frames on their way to the cursors, and acks back.

use super::*;

#[actix::test]
async fn a_frame_goes_to_the_cursor_of_its_id_and_by_name_only_when_the_id_is_unknown() {
    let (mut house, socket) = House::live(quick()).await;
    house.route("7", "ann");
    house.route("8", "bob");
    house.epoch().await;
    house.epoch().await;
    socket.deliver("7", "bob", 1);
    socket.deliver("99", "bob", 2);
    let first = house.delivered().await;
    assert_eq!((first.epoch, first.delivery.seq), (Epoch(1), Seq(1)));
    let Content::Inject(note) = &first.delivery.content else { panic!("{:?}", first.delivery) };
    assert_eq!((note.target.as_str(), note.from.as_str()), ("ann", "eve"));
    let Content::Inject(note) = house.delivered().await.delivery.content else { panic!() };
    assert_eq!(note.target, "bob");
}

#[actix::test]
async fn a_frame_for_an_unknown_agent_is_acked_exactly_once() {
    let (house, mut socket) = House::live(quick()).await;
    socket.deliver("99", "ghost", 5);
    let ack = socket.frame("delivery.ack").await;
    assert_eq!(ack, json!({"v": 1, "type": "delivery.ack", "agent": "ghost", "up_to_seq": 5}));
    socket.deliver("99", "ghost", 0);
    house.shows("frames_for_strangers", |n| n == "2").await;
    // A question that is answered behind everything that was said before.
    let answer = house.register("probe", None);
    let last = socket.frame("agent.register").await;
    socket.reply(&last, &registered("1", "probe"));
    answer.await.unwrap().unwrap();
    assert_eq!(socket.so_far(), Vec::<Value>::new());
}

#[actix::test]
async fn a_field_that_nobody_knows_costs_neither_a_delivery_nor_an_invocation() {
    let (mut house, mut socket) = House::live(quick()).await;
    house.route("7", "ann");
    house.epoch().await;
    socket.say(json!({
        "v": 1, "type": "deliver", "delivery_id": "del_1", "agent_id": "7", "agent": "ann", "msg_id": "m1",
        "seq": 1, "mode": "wait", "payload": {"type": "message.created", "data": {"text": "hello"}},
        "added_later": {"deep": [1, null]}
    }));
    assert_eq!(house.delivered().await.delivery.delivery_id, "del_1".into());
    house.tell(Ack { agent_id: "7".into(), agent: name("ann"), up_to: Seq(1) });
    assert_eq!(socket.frame("delivery.ack").await["up_to_seq"], json!(1));
    socket.say(json!({
        "v": 1, "type": "action.invoke", "invocation_id": "inv_1", "action": "release",
        "input": {"name": "ann"}, "added_later": [true]
    }));
    let action = house.invoked().await.action;
    assert_eq!(action, Action::Release { name: Some("ann".into()), reason: None });
}

#[actix::test]
async fn frames_that_found_no_room_are_dropped_unacked_and_asked_for_when_there_is_room() {
    let (mut house, mut socket) = House::live(quick()).await;
    let lane = house.route("7", "ann");
    house.epoch().await;
    let sent = LANE_FRAMES_MAX as u64 + 20;
    for seq in 1..=sent {
        socket.deliver("7", "ann", seq);
    }
    let mut held = Vec::new();
    while held.len() < LANE_FRAMES_MAX {
        held.push(house.delivered().await);
    }
    house.shows("frames_refused", |n| n == "20").await;
    assert!(lane.owes_replay());
    sleep(ROOM_CHECK * 3).await;
    assert_eq!(socket.so_far(), Vec::<Value>::new(), "neither acked nor asked for while there is no room");
    held.truncate(LANE_FRAMES_MAX / 2);
    let sync = socket.frame("inventory.sync").await;
    socket.reply(&sync, &json!({}));
    sleep(ROOM_CHECK * 3).await;
    assert_eq!(socket.so_far(), Vec::<Value>::new(), "asked once");
}

#[actix::test]
async fn frames_before_the_route_are_left_unacked_and_asked_for_at_the_route() {
    let (mut house, mut socket) = House::live(quick()).await;
    let answer = house.register("ann", None);
    let register = socket.frame("agent.register").await;
    socket.reply(&register, &registered("7", "ann"));
    socket.deliver("7", "ann", 1);
    assert_eq!(answer.await.unwrap().unwrap().agent_id.as_str(), "7");
    house.shows("frames_left", |n| n == "1").await;
    house.route("7", "ann");
    assert_eq!(house.epoch().await, Epoch(1));
    socket.frame("inventory.sync").await;
}

#[actix::test]
async fn a_frame_for_a_cursor_that_was_given_up_is_dropped_unacked() {
    let (house, mut socket) = House::live(quick()).await;
    let (gone, _) = Ears::open();
    let lane = house.route_to(&gone, "7", "ann");
    post::<Die>(&gone).tell(Die).unwrap();
    until_holds("the ears end", || !gone.connected()).await;
    socket.deliver("7", "ann", 1);
    house.shows("frames_quarantined", |n| n == "1").await;
    assert_eq!(lane.held(), (0, 0), "its room is free again");
    assert_eq!(socket.so_far(), Vec::<Value>::new());
}

#[actix::test]
async fn heartbeats_keep_their_pace_while_fifty_thousand_frames_pour_in() {
    let (mut house, mut socket) = House::live(quick()).await;
    house.route("7", "ann");
    house.epoch().await;
    let to = socket.to.clone();
    let frame = |seq: u64| {
        json!({
            "v": 1, "type": "deliver", "delivery_id": format!("d{seq}"), "agent_id": "7", "agent": "ann",
            "msg_id": format!("m{seq}"), "seq": seq, "payload": {"type": "message.created", "data": {"text": "x"}}
        })
    };
    for seq in 1..=50_000 {
        to.send(Do::Say(frame(seq))).unwrap();
    }
    // The ears drop what they hear: the deliveries' room comes back as fast as they take it.
    let began = Instant::now();
    let mut beats = Vec::new();
    let mut seen = 0;
    while seen < 50_000 && began.elapsed() < PATIENCE {
        seen += house.count(|told| matches!(told, Told::Delivered(_))) as u64;
        while let Ok(said) = socket.from.try_recv() {
            if matches!(&said, Said::Frame(frame) if frame["type"] == json!("node.heartbeat")) {
                beats.push(began.elapsed());
            }
        }
        sleep(Duration::from_millis(1)).await;
        if house.tally("frames_refused") + seen >= 50_000 {
            break;
        }
    }
    let took = began.elapsed();
    assert!(took < PATIENCE, "the frames are not through");
    beats.push(took);
    let longest = beats.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(took);
    assert!(longest < Duration::from_secs(2), "no heartbeat for {longest:?}, within {took:?}");
}
