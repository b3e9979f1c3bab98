//! A disk that takes nothing where the token should go.

use std::fs;

use relay_broker::{config::env, store::token_cache::TOKEN_DIR};

use crate::support::{House, Proxy, TestEngine, agents::text};

#[test]
fn a_token_that_cannot_be_stored_serves_from_memory_and_everybody_is_told() {
    let engine = TestEngine::start();
    let proxy = Proxy::to(engine.addr());
    let data = tempfile::tempdir().unwrap();
    let dir = data.path().join("agent-relay");
    fs::create_dir(&dir).unwrap();
    // A file where the directory should be: not even root can write below it.
    fs::write(dir.join(TOKEN_DIR), "mine").unwrap();
    let house = House::behind(&proxy, &engine)
        .env(env::XDG_DATA_HOME, data.path().to_str().unwrap())
        .env(env::NODE_ID, "node_of_a_full_disk")
        .start();
    let listener = house.listener("alice");
    let sender = engine.person("sender");
    engine.dm(&sender, "alice", &text("one"));
    assert_eq!(listener.hears(1), ["one"]);

    let mint = house.actor("token_mint").to_string();
    assert!(mint.contains("degraded"), "{mint}");
    assert_eq!(fs::read_to_string(dir.join(TOKEN_DIR)).unwrap(), "mine");

    let before = proxy.sockets();
    proxy.cut();
    proxy.reconnected(before);
    house.until_live();
    engine.dm(&sender, "alice", &text("two"));
    assert_eq!(listener.hears(2), ["one", "two"]);
}
