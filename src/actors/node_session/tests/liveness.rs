//! Syncs, replays, and when the engine is given up.

use super::*;

#[actix::test]
async fn a_replay_is_asked_for_at_most_every_five_seconds_and_its_asker_told_the_epoch() {
    let (house, mut socket) = House::live(quick()).await;
    let ask = || {
        let agent_id = AgentId::from("7");
        house.session.post::<RequestReplay>().ask(|reply| RequestReplay { agent_id, reply })
    };
    let began = Instant::now();
    let answers = (ask(), ask());
    let sync = socket.frame("inventory.sync").await;
    assert!(began.elapsed() > Duration::from_secs(4), "the one at connect counts");
    socket.reply(&sync, &json!({}));
    assert_eq!((answers.0.await.unwrap(), answers.1.await.unwrap()), (Epoch(1), Epoch(1)));
    assert_eq!(socket.so_far(), Vec::<Value>::new(), "one for both");
}

#[actix::test]
async fn a_replay_for_frames_that_the_cursor_dropped_itself_is_asked_for_soon() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.live().await;
    let lane = house.route("7", "ann");
    house.up().await;
    lane.refuse(Seq(9));
    let agent_id = AgentId::from("7");
    let began = Instant::now();
    let answer = house.session.post::<RequestReplay>().ask(|reply| RequestReplay { agent_id, reply });
    let sync = socket.frame("inventory.sync").await;
    assert!(began.elapsed() < Duration::from_secs(4), "not as late as one for a gap");
    socket.reply(&sync, &json!({}));
    assert_eq!(answer.await.unwrap(), Epoch(1));
}

#[actix::test]
async fn a_change_of_the_inventory_is_synced_at_once_and_heard_in_a_heartbeat() {
    let (house, mut socket) = House::live(quick()).await;
    let item = InventoryItem { agent_id: "7".into(), name: name("ann"), invocation: None, session_ref: None };
    for _ in 0..2 {
        house.tell(SetInventory { agents: vec![item.clone()], invoking: false });
    }
    let sync = socket.frame("inventory.sync").await;
    assert_eq!(sync["agents"][0]["name"], json!("ann"));
    socket.reply(&sync, &json!({}));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(socket.so_far(), Vec::<Value>::new(), "the second changes nothing");
}

#[actix::test]
async fn an_inventory_with_an_agent_that_lives_elsewhere_is_looked_into_and_synced_again_without_it() {
    let (mut house, mut socket) = House::live(quick()).await;
    let item = |id: &str, agent| InventoryItem {
        agent_id: id.into(),
        name: name(agent),
        invocation: None,
        session_ref: None,
    };
    let agents = vec![item("7", "ann"), item("8", "ben")];
    house.tell(SetInventory { agents: agents.clone(), invoking: false });
    let sync = socket.frame("inventory.sync").await;
    socket.error(sync["id"].as_str().unwrap(), "agent_location_conflict");
    house.told_of(|told| matches!(told, Told::Conflict).then_some(())).await;
    house.tell(SetInventory { agents: agents[..1].to_vec(), invoking: false });
    let sync = socket.frame("inventory.sync").await;
    assert_eq!(sync["agents"].as_array().unwrap().len(), 1);
    socket.reply(&sync, &json!({}));
}

#[actix::test]
async fn an_engine_that_falls_silent_is_given_up_within_four_intervals() {
    let timings = Timings { silence: Duration::from_millis(400), ..quick() };
    let (house, socket) = House::live(timings).await;
    sleep(Duration::from_millis(1000)).await;
    assert_eq!(house.session.probe().view().restart_count, 0, "pongs keep it alive");
    let began = Instant::now();
    socket.fall_silent();
    assert!(house.ended(0).await.contains("nothing was heard"));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[actix::test]
async fn an_engine_that_only_pongs_is_given_up_within_two_periods() {
    let timings = Timings { sync: Duration::from_millis(300), ..quick() };
    let mut house = House::start(timings).await;
    let mut socket = house.engine.live().await;
    socket.frame("inventory.sync").await;
    assert!(house.ended(0).await.contains("inventory.sync"));
}

#[actix::test]
async fn a_session_that_stays_live_is_healthy() {
    let mut house = House::start(quick()).await;
    for life in 0..3 {
        let socket = house.engine.live().await;
        house.up().await;
        sleep(Duration::from_millis(200)).await;
        socket.close("bye");
        house.ended(life).await;
        let decision = house.session.probe().view().restarts[life].decision.clone();
        let after: f64 = decision
            .trim_start_matches("restart after ")
            .trim_end_matches("ms")
            .parse()
            .unwrap_or_else(|_| panic!("{decision}"));
        assert!((400.0..=600.0).contains(&after), "the backoff begins anew: {decision}");
        house.resume();
    }
}
