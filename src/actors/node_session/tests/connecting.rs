//! The way to a live session, and what refuses it.

use super::*;

#[actix::test]
async fn the_register_is_the_first_frame_then_the_inventory_then_a_heartbeat() {
    let mut house = House::start(quick()).await;
    house.route("7", "ann");
    house.tell(SetInventory {
        agents: vec![InventoryItem {
            agent_id: "7".into(),
            name: name("ann"),
            invocation: None,
            session_ref: None,
        }],
        invoking: false,
    });
    let mut socket = house.engine.socket().await;
    assert_eq!(socket.token, "Bearer nt_live_0");
    let Said::Frame(register) = socket.said().await else { panic!("not a frame") };
    assert_eq!(register["type"], json!("node.register"));
    assert_eq!((&register["name"], &register["node_id"]), (&json!("quay"), &json!("node_1")));
    assert_eq!(register["provider"]["name"], json!("broker"));
    socket.reply(&register, &json!({"id": "node_1", "name": "quay"}));

    let Said::Frame(sync) = socket.said().await else { panic!("not a frame") };
    assert_eq!(sync["type"], json!("inventory.sync"));
    assert_eq!(sync["agents"], json!([{"agent_id": "7", "name": "ann"}]));
    let Said::Frame(beat) = socket.said().await else { panic!("not a frame") };
    assert_eq!((&beat["type"], &beat["active_agents"]), (&json!("node.heartbeat"), &json!(1)));
    assert_eq!(beat["provider"], register["provider"]);

    let up = house.up().await;
    assert_eq!((up.epoch, up.dialect, up.node_name.as_str()), (Epoch(1), Dialect::V6, "quay"));
    assert_eq!(house.epoch().await, Epoch(1));
    house.shows("dialect", |dialect| dialect == "6+").await;
    assert_eq!(house.session.probe().view().state, "live");
}

#[actix::test]
async fn a_401_asks_for_another_token_than_the_refused_one_and_bumps_the_epoch() {
    let engine = Engine::start().await;
    engine.refuse(401);
    let mut house = House::at(engine, quick());
    let refused = house.ended(0).await;
    assert!(refused.contains("refused the node token (generation 0)"), "{refused}");
    house.resume();
    let socket = house.engine.live().await;
    assert_eq!(socket.token, "Bearer nt_live_1");
    let Told::Token(None) = house.told().await else { panic!("asked for a token first") };
    let Told::Token(Some(Generation(0))) = house.told().await else { panic!("says which was refused") };
    assert_eq!(house.up().await.epoch, Epoch(1));

    socket.close("force-disconnect");
    house.ended(1).await;
    house.resume();
    house.engine.live().await;
    assert_eq!(house.up().await.epoch, Epoch(2));
}

#[actix::test]
async fn five_401s_in_a_row_park_the_session_and_no_more_tokens_are_asked_for() {
    let engine = Engine::start().await;
    for _ in 0..5 {
        engine.refuse(401);
    }
    let mut house = House::at(engine, quick());
    for life in 0..4 {
        assert!(house.ended(life).await.contains("refused"));
        house.resume();
    }
    house.ended(4).await;
    let parked = &house.session.probe().view().restarts[4].decision;
    assert!(parked.starts_with("park"), "{parked}");
    assert_eq!(house.count(|told| matches!(told, Told::Token(_))), 5, "one token for each try");
    // It heals by itself once it is woken, and the count begins anew.
    house.resume();
    let socket = house.engine.live().await;
    house.up().await;
    house.shows("epoch", |n| n == "1").await;
    sleep(Duration::from_millis(200)).await;
    socket.close("bye");
    house.ended(5).await;
    house.engine.refuse(401);
    house.resume();
    house.ended(6).await;
    let decision = &house.session.probe().view().restarts[6].decision;
    assert!(decision.starts_with("restart"), "{decision}");
}

#[actix::test]
async fn a_403_and_a_500_do_not_condemn_the_token() {
    for status in [403, 404, 426, 500] {
        let engine = Engine::start().await;
        engine.refuse(status);
        let mut house = House::at(engine, quick());
        let ended = house.ended(0).await;
        assert!(ended.contains(&status.to_string()), "{ended}");
        house.resume();
        house.engine.live().await;
        for _ in 0..2 {
            let Told::Token(None) = house.told().await else { panic!("{status} condemned the token") };
        }
    }
}

#[actix::test]
async fn an_old_engine_gets_the_baseline_form_and_next_time_nothing_else() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.socket().await;
    let extended = socket.frame("node.register").await;
    assert!(extended["provider"].is_object());
    socket.error("invented", "invalid_message");
    let baseline = socket.frame("node.register").await;
    assert!(baseline.get("provider").is_none());
    assert_eq!(baseline["capabilities"], json!([{"name": "spawn:plain"}]));
    socket.reply(&baseline, &json!({"id": "node_1", "name": "quay"}));
    assert_eq!(house.up().await.dialect, Dialect::V5);
    let sync = socket.frame("inventory.sync").await;
    socket.reply(&sync, &json!({}));
    socket.close("bye");
    house.ended(0).await;
    house.resume();
    let mut socket = house.engine.socket().await;
    assert!(socket.frame("node.register").await.get("provider").is_none());
}

#[actix::test]
async fn an_engine_that_was_replaced_by_another_version_is_asked_anew_what_it_speaks() {
    let mut house = House::start(quick()).await;
    let mut registered_as_extended = Vec::new();
    for (life, version) in ["5.0.7", "5.0.7", "6.2.0"].into_iter().enumerate() {
        *house.engine.version.lock().unwrap() = version;
        if life > 0 {
            house.resume();
        }
        let mut socket = house.engine.socket().await;
        let mut register = socket.frame("node.register").await;
        registered_as_extended.push(register["provider"].is_object());
        if life == 0 {
            socket.error("invented", "invalid_message");
            register = socket.frame("node.register").await;
        }
        socket.reply(&register, &json!({"id": "node_1", "name": "quay"}));
        house.up().await;
        if life < 2 {
            house.shows("engine_version", |shown| shown == version).await;
        }
        socket.close("bye");
        house.ended(life).await;
    }
    assert_eq!(registered_as_extended, [true, false, true]);
}

#[actix::test]
async fn a_node_that_the_engine_does_not_accept_is_enrolled_again_once() {
    let mut house = House::start(quick()).await;
    let mut socket = house.engine.socket().await;
    let register = socket.frame("node.register").await;
    socket.error(register["id"].as_str().unwrap(), "node_id_mismatch");
    let mut again = house.engine.socket().await;
    assert_eq!(again.token, "Bearer nt_live_1", "on a new socket with the new token");
    let register = again.frame("node.register").await;
    again.error(register["id"].as_str().unwrap(), "node_id_mismatch");
    let ended = house.ended(0).await;
    assert!(ended.contains("node_id_mismatch") && ended.contains("enrolling again"), "{ended}");
    let is_enrolled = |told: &Told| matches!(told, Told::Enrol(code) if code == "node_id_mismatch");
    assert_eq!(house.count(is_enrolled), 1);
}

#[actix::test]
async fn a_session_that_another_broker_took_over_says_so_and_waits() {
    let mut house = House::start(quick()).await;
    let socket = house.engine.live().await;
    socket.close("superseded");
    assert_eq!(house.ended(0).await, "another broker holds this node");
    let decision = house.session.probe().view().restarts[0].decision.clone();
    assert!(decision.contains("30s"), "{decision}");
}
