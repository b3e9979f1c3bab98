//! What outlives an engine, and what is never written down.

use relay_broker::engine::{Engine, EngineConfig, EngineError};
use serde_json::json;

use crate::harbour::{Harbour, seqs};

#[actix::test]
async fn a_restarted_engine_keeps_mailboxes_numbers_cursors_and_tokens() {
    let mut harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let (id, skipper) = socket.agent("skipper").await;
    let human = harbour.agent("harbormaster").await;
    for n in 1..=3 {
        harbour.dm(&human, "skipper", &format!("message {n}")).await;
    }
    assert_eq!(seqs(&socket.until_quiet().await), [1, 2, 3]);
    socket.ack("skipper", 1).await;
    socket.until_quiet().await;

    harbour.restart();
    assert_eq!(harbour.get("/v1/agent", &skipper).await.0, 200);
    assert_eq!(harbour.get("/v1/workspace", &harbour.key).await.0, 200);
    harbour.dm(&human, "skipper", "message 4").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    assert_eq!(seqs(&socket.until_quiet().await), [2, 3, 4]);
    let (_, body) = harbour.get("/v1/nodes/quay/agents", &harbour.key).await;
    assert_eq!(body["data"][0]["agent_id"], id.as_str());
    assert_eq!(body["data"][0]["delivery_ack_seq"], 1);
}

#[actix::test]
async fn the_disk_holds_no_token_only_hashes() {
    let mut harbour = Harbour::open().await;
    let node = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&node, "node_1", "quay").await;
    let (_, skipper) = socket.agent("skipper").await;
    let human = harbour.agent("harbormaster").await;
    harbour.dm(&human, "skipper", "a text that is stored").await;
    drop(socket);
    harbour.stop();
    let mut seen_text = false;
    for entry in std::fs::read_dir(harbour.database().parent().unwrap()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let holds = |needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        seen_text |= holds("a text that is stored");
        for token in [&harbour.key, &node, &skipper, &human] {
            let secret = token.rsplit('_').next().unwrap();
            assert!(!holds(secret), "a token is on disk in plain");
        }
    }
    assert!(seen_text, "the search did not look where the engine stores");
}

#[actix::test]
async fn the_database_can_be_read_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let harbour = Harbour::open().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&harbour.database()), 0o600);
    assert_eq!(mode(harbour.database().parent().unwrap()), 0o700);
    for entry in std::fs::read_dir(harbour.database().parent().unwrap()).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()) & 0o077, 0);
    }
}

#[actix::test]
async fn two_engines_in_one_process_do_not_know_each_other() {
    let one = Harbour::open().await;
    let two = Harbour::open().await;
    assert_ne!(one.engine().port(), two.engine().port());
    assert_eq!(two.get("/v1/workspace", &one.key).await.0, 401);
}

#[actix::test]
async fn a_taken_port_and_a_broken_file_are_told_apart() {
    let harbour = Harbour::open().await;
    let dir = tempfile::tempdir().unwrap();
    let config =
        EngineConfig { port: harbour.engine().port(), ..EngineConfig::new(dir.path().join("engine.db")) };
    assert!(matches!(Engine::start(config), Err(EngineError::Bind { .. })));

    let broken = dir.path().join("broken.db");
    std::fs::write(&broken, "this is no database, and long enough to be looked at ".repeat(40)).unwrap();
    assert!(matches!(Engine::start(EngineConfig::new(broken)), Err(EngineError::Database { .. })));
}

#[actix::test]
async fn stopping_closes_the_sockets_of_nodes() {
    let mut harbour = Harbour::open().await;
    let token = harbour.enrol("node_1", "quay").await;
    let mut socket = harbour.moor(&token, "node_1", "quay").await;
    let stopping = actix::spawn(async move { actix_rt::task::spawn_blocking(move || harbour.stop()).await });
    assert_eq!(socket.next().await, json!({"close": [1000, "engine stopping"]}));
    drop(socket);
    stopping.await.unwrap().unwrap();
}
