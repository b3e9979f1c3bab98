//! `up` again in the same directory: the embedded engine, its mailboxes and identities are still there.

use nix::sys::signal::Signal;

use crate::support::House;

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
