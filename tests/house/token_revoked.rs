//! The node's token dies while agents work.

use serde_json::json;

use crate::support::{House, Proxy, TestEngine, agents::text, expect, until};

#[test]
fn a_revoked_token_is_replaced_and_agents_notice_nothing() {
    let engine = TestEngine::start();
    let proxy = Proxy::to(engine.addr());
    let house = House::behind(&proxy, &engine).start();
    let (node_id, node_name) = house.until_live();
    let listener = house.listener("alice");
    let pid = house.get("/api/spawned")["agents"][0]["pid"].clone();
    let sender = engine.person("sender");
    engine.dm(&sender, "alice", &text("before"));
    listener.hears(1);

    // Whoever enrols a node anew gets a new token, and the old one is dead.
    engine.post("/v1/nodes", &engine.key, json!({ "node_id": node_id, "name": node_name }));
    let before = proxy.sockets();
    proxy.cut();
    engine.dm(&sender, "alice", &text("meanwhile"));
    proxy.reconnected(before);

    assert_eq!(listener.hears(2), ["before", "meanwhile"]);
    engine.dm(&sender, "alice", &text("after"));
    assert_eq!(listener.hears(3), ["before", "meanwhile", "after"]);
    assert_eq!(house.get("/api/spawned")["agents"][0]["pid"], pid);
    assert_eq!(house.until_live(), (node_id, node_name), "the node is the same");
    let session = house.actor("node_session");
    let refused = session["restarts"].as_array().unwrap().iter();
    let refused = refused.filter(|end| end["reason"].as_str().unwrap().contains("refused the node token"));
    assert_eq!(refused.count(), 1, "one 401 was enough: {session}");
}

#[test]
fn refused_handshakes_are_answered_by_minting_and_not_by_giving_up() {
    let engine = TestEngine::start();
    let proxy = Proxy::to(engine.addr());
    let house = House::behind(&proxy, &engine).start();
    let listener = house.listener("alice");
    let before = proxy.sockets();
    proxy.refuse(3);
    proxy.cut();
    proxy.reconnected(before);
    house.until_live();
    house.send("alice", "back");
    assert_eq!(listener.hears(1), ["back"]);
}

#[test]
fn a_node_that_is_refused_for_good_waits_for_a_person_and_says_so() {
    let engine = TestEngine::start();
    let proxy = Proxy::to(engine.addr());
    let house = House::behind(&proxy, &engine).start();
    let pid = house.spawn("alice", crate::support::agents::READER);
    proxy.refuse(usize::MAX);
    proxy.cut();
    until("the session is parked", || {
        let state = house.actor("node_session")["state"].as_str().unwrap().to_owned();
        expect(state.starts_with("parked"), || state.clone())
    });
    let readyz = house.call("GET", "/readyz", None);
    assert_eq!(readyz.status, 503);
    assert!(readyz.text.contains("relay-broker resume"), "{}", readyz.text);
    assert_eq!(house.get("/api/spawned")["agents"][0]["pid"], pid);

    proxy.refuse(0);
    let before = proxy.sockets();
    assert_eq!(house.call("POST", "/api/resume", None).status, 200);
    proxy.reconnected(before);
    house.until_live();
}
