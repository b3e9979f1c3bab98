//! A disk that takes nothing where the token should go, and one that fills up in the middle of everything.

use std::{fs, path::Path};

use relay_broker::{config::env, store::token_cache::TOKEN_DIR};

use serde_json::json;

use crate::support::{House, Proxy, TestEngine, agents::text, expect, until};

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

/// The files in a directory, with what they hold.
fn files(dir: &Path) -> Vec<(String, String)> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.display().to_string(), fs::read_to_string(path).unwrap())
    };
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(entry).collect();
    files.sort();
    files
}

#[test]
fn a_disk_that_fills_up_between_two_writes_costs_no_message_and_spoils_no_file() {
    let engine = TestEngine::start();
    let proxy = Proxy::to(engine.addr());
    let data = tempfile::tempdir().unwrap();
    let house = House::behind(&proxy, &engine)
        .env(env::XDG_DATA_HOME, data.path().to_str().unwrap())
        .ignoring("XFSZ")
        .start();
    let (node_id, node_name) = house.until_live();
    let listener = house.listener("alice");
    let sender = engine.person("sender");
    let acked = |upto: u64| {
        until("her mail is acked", || {
            let acked = engine.acked(&node_name, "alice");
            expect(acked == Some(upto), || format!("{acked:?}"))
        });
    };
    engine.dm(&sender, "alice", &text("one"));
    acked(1);
    let tokens = data.path().join("agent-relay").join(TOKEN_DIR);
    let stored = files(&tokens);
    assert_eq!(stored.len(), 1);

    house.fill_disk(true);
    // A new token must be got, and cannot be stored.
    engine.post("/v1/nodes", &engine.key, json!({ "node_id": node_id, "name": node_name }));
    let before = proxy.sockets();
    proxy.cut();
    proxy.reconnected(before);
    engine.dm(&sender, "alice", &text("two"));
    assert_eq!(listener.hears(2), ["one", "two"]);
    until("the journal says so", || {
        let journal = house.actor("journal");
        expect(journal["state"] == "failed", || journal.to_string())
    });
    let mint = house.actor("token_mint").to_string();
    assert!(mint.contains("degraded"), "{mint}");
    assert_eq!(files(&tokens), stored, "the file of the old token is whole, and alone");
    assert_eq!(engine.acked(&node_name, "alice"), Some(1), "acked without proof on disk");

    house.fill_disk(false);
    acked(2);
    assert_eq!(listener.heard(), ["one", "two"]);
    let journal = house.actor("journal");
    assert_ne!(journal["state"], "failed", "{journal}");
}
