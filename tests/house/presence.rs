//! What a broker is while nothing goes wrong: few rooms, one node for each directory, little work.

use std::{fs, time::Duration};

use relay_broker::config::env;
use serde_json::json;

use crate::support::{House, TestEngine, agents, agents::text, until};

/// The actors of the debug page, by id.
fn rooms(house: &House) -> Vec<String> {
    let page = house.get("/debug/actors");
    let ids = page["actors"].as_array().unwrap().iter();
    let mut ids: Vec<_> = ids.map(|actor| actor["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[test]
fn there_is_one_session_and_one_mint_and_two_rooms_for_each_agent() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    house.spawn("alice", agents::READER);
    house.spawn("bob", agents::READER);
    let rooms = rooms(&house);
    for sole in ["node_session", "token_mint", "agent_registry", "supervisor", "event_hub"] {
        assert_eq!(rooms.iter().filter(|room| *room == sole).count(), 1, "{sole}: {rooms:?}");
    }
    for kind in ["delivery_cursor", "pty_worker"] {
        let of_agents: Vec<_> = rooms.iter().filter(|room| room.starts_with(kind)).collect();
        assert_eq!(of_agents.len(), 2, "{kind}: {rooms:?}");
        assert!(of_agents[0].ends_with("alice") && of_agents[1].ends_with("bob"), "{of_agents:?}");
    }
    let session = house.actor("node_session");
    for part in ["state", "generation", "restart_count", "mailbox_depth", "last_error", "restarts"] {
        assert!(session.get(part).is_some(), "no {part}: {session}");
    }
    let page = house.get("/debug/actors").to_string();
    for secret in [engine.key.as_str(), "nt_live_", "at_live_"] {
        assert!(!page.contains(secret), "{page}");
    }
}

#[test]
fn a_message_keeps_the_id_that_its_sender_was_told() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    let listener = house.listener("alice");
    let events = house.events();
    let sender = engine.person("sender");
    let id = engine.dm(&sender, "alice", &text("moor at berth four"));
    listener.hears(1);
    for kind in ["delivery_queued", "delivery_injected", "delivery_ack"] {
        let event = events.wait(kind, "alice");
        assert_eq!(event["event_id"], json!(id), "{kind}");
        assert!(event["delivery_id"].is_string(), "{event}");
    }
    let inbound = events.of("relay_inbound");
    assert_eq!((inbound.len(), &inbound[0]["event_id"]), (1, &json!(id)));
}

#[test]
fn brokers_of_one_host_and_one_home_are_different_nodes_with_tokens_of_their_own() {
    let engine = TestEngine::start();
    let home = tempfile::tempdir().unwrap();
    let home_dir = home.path().to_str().unwrap();
    let other = engine.post("/v1/workspaces", "", json!({ "name": "another harbor" }));
    let other = other["api_key"].as_str().unwrap();
    let start =
        |key: &str| House::at(&engine).env(env::XDG_DATA_HOME, home_dir).env(env::WORKSPACE_KEY, key).start();
    let houses = [start(&engine.key), start(&engine.key), start(other)];
    let mut nodes: Vec<_> = houses.iter().map(|house| house.until_live().0).collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    let tokens = fs::read_dir(home.path().join("agent-relay/node-tokens")).unwrap();
    let mut files: Vec<_> = tokens.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, nodes.iter().map(|node| format!("{node}.json")).collect::<Vec<_>>());
    // None has pushed another aside.
    for house in &houses {
        assert_eq!(house.actor("node_session")["restart_count"], json!(0));
    }
}

#[test]
fn a_workspace_knows_nothing_of_another_on_the_same_engine() {
    let engine = TestEngine::start();
    let other = engine.post("/v1/workspaces", "", json!({ "name": "another harbor" }));
    let other = other["api_key"].as_str().unwrap();
    let here = House::at(&engine).start();
    let there = House::at(&engine).env(env::WORKSPACE_KEY, other).start();
    // The same name in both; mail goes to the one of the sender's workspace.
    let (heard_here, heard_there) = (here.listener("alice"), there.listener("alice"));
    there.spawn("bob", agents::READER);
    let refused = here.try_send("bob", "not for you");
    assert_eq!(refused.status, 404, "{}", refused.text);
    here.send("alice", "here");
    there.send("#general", "there");
    assert_eq!(heard_here.hears(1), ["here"]);
    assert_eq!(heard_there.hears(1), ["there"]);
}

#[test]
fn an_agent_is_the_program_that_was_asked_for_and_no_other_is_started() {
    let engine = TestEngine::start();
    let house = House::at(&engine).start();
    let boot = house.get("/health")["boot_id"].clone();
    let pid = house.spawn("stub", agents::DEAF);
    let mut expected = vec![house.pid(), pid];
    expected.sort_unstable();
    for _ in 0..3 {
        let mut running = house.processes();
        running.sort_unstable();
        assert_eq!(running, expected, "nothing beside the broker and its stub");
        assert_eq!(house.get("/api/metrics")["broker"]["active_agents"], json!(1));
        house.send("stub", "to one who does not read");
    }
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(command, "sleep\x001000\0");
    assert_eq!(house.get("/health")["boot_id"], boot, "the broker was not started anew");
}

/// Clock ticks that a process has used, all its threads together; there are 100 in a second.
fn ticks_used(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // What follows the name, which may hold anything.
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_broker_with_nothing_to_do_uses_less_than_a_hundredth_of_a_core() {
    let usual = |house: crate::support::house::Builder| {
        house.period("heartbeat", 12_000).period("silence", 48_000).period("sync", 30_000)
    };
    let house = usual(House::embedded()).start();
    house.spawn("alice", agents::DEAF);
    house.spawn("bob", agents::READER);
    // Also one that nothing can come in to.
    let mut engine = TestEngine::start();
    let alone = usual(House::at(&engine)).start();
    engine.stop();
    until("it notices", || {
        let readyz = alone.call("GET", "/readyz", None);
        crate::support::expect(readyz.status == 503, || readyz.text.clone())
    });
    let brokers = [house.pid(), alone.pid()];
    // What starting them has left to do is done in the end.
    until("a second of rest", || {
        let before = brokers.map(ticks_used);
        std::thread::sleep(Duration::from_secs(1));
        let used = brokers.map(ticks_used).iter().zip(before).map(|(now, then)| now - then).max().unwrap();
        crate::support::expect(used <= 1, || format!("{used} ticks"))
    });
    let before = brokers.map(ticks_used);
    std::thread::sleep(Duration::from_secs(5));
    for (pid, before) in brokers.into_iter().zip(before) {
        let used = ticks_used(pid) - before;
        assert!(used <= 5, "{used} of 500 ticks");
    }
}
