//! `up` again in the same directory: the embedded engine, its mailboxes and identities are still there.

use nix::sys::signal::Signal;

use crate::support::{House, figure};

#[test]
fn mailboxes_and_identities_survive_a_restart_of_up() {
    let mut house = House::embedded().start();
    let node = house.until_live();
    let session = house.get("/api/session");
    let listener = house.listener("alice");
    let events = house.events();
    house.send("alice", "first");
    listener.hears(1);
    // What was read and has no proof on disk yet would rightly come again.
    events.wait("delivery_ack", "alice");
    let id = house.get("/api/spawned")["agents"][0]["agent_id"].clone();

    // She is away, and is written to; then the broker is away, too.
    house.kill();
    house.start_again();
    house.send("alice", "while away");
    house.signal(Signal::SIGTERM);
    assert_eq!(house.wait().code(), Some(0));
    house.start_again();

    assert_eq!(house.until_live(), node);
    for key in ["workspace_key", "default_workspace_id", "relay_base_url"] {
        assert_eq!(house.get("/api/session")[key], session[key], "{key}");
    }
    let listener = house.listener("alice");
    assert_eq!(house.get("/api/spawned")["agents"][0]["agent_id"], id);
    house.send("alice", "back");
    assert_eq!(listener.hears(3), ["first", "while away", "back"]);
}

#[test]
fn agents_of_one_name_in_turn_each_get_their_first_message() {
    let house = House::embedded().start();
    // An agent that says something is there at once.
    let script = r#"echo here; exec cat >> "$LOG""#;
    let listener = house.notes("relief");
    let turns = figure(20, 1000);
    for n in 0..turns {
        house.spawn("relief", script);
        house.send("relief", &n.to_string());
        listener.hears(n + 1);
        house.release("relief");
    }
    let wanted: Vec<_> = (0..turns).map(|n| n.to_string()).collect();
    assert_eq!(listener.heard(), wanted);
}
