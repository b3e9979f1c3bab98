//! Deliberate panics in every actor, at every point of its life.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{House, Listener, PATIENCE, Proxy, TestEngine, agents, expect, until};

const ACTORS: [&str; 7] = [
    "supervisor",
    "event_hub",
    "token_mint",
    "node_session",
    "agent_registry",
    "delivery_cursor/alice",
    "pty_worker/alice",
];

struct Ward {
    house: House,
    proxy: Proxy,
    listener: Listener,
    sent: usize,
    _engine: TestEngine,
}

impl Ward {
    fn open() -> Self {
        let engine = TestEngine::start();
        let proxy = Proxy::to(engine.addr());
        let house = House::behind(&proxy, &engine).faulty().start();
        let listener = house.listener("alice");
        Self { house, proxy, listener, sent: 0, _engine: engine }
    }

    fn arm(&self, actor: &str, point: &str) {
        let answer = self.house.call("POST", &format!("/debug/fault/{actor}/{point}"), None);
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    fn restarts(&self, actor: &str) -> u64 {
        self.house.actor(actor)["restart_count"].as_u64().unwrap()
    }

    /// Gives every actor something to do. What fails on the way is the fault's doing.
    fn stir(&mut self, actor: &str) {
        match actor {
            "token_mint" | "node_session" => {
                let before = self.proxy.sockets();
                self.proxy.cut();
                self.proxy.reconnected(before);
            }
            "supervisor" => {
                let body = self.house.spawn_request("extra", agents::READER, &[]);
                self.house.try_call("POST", "/api/spawn", Some(&body)).ok();
                self.house.try_call("DELETE", "/api/spawned/extra", None).ok();
            }
            _ => self.send(),
        }
    }

    /// A message that arrives, however often it must be sent. Only an accepted one is numbered.
    fn send(&mut self) {
        let began = Instant::now();
        loop {
            let answer = self.house.try_send("alice", &self.sent.to_string());
            if answer.status == 200 {
                break;
            }
            assert_eq!(answer.status, 503, "{}", answer.text);
            assert!(began.elapsed() < PATIENCE, "still refused: {}", answer.text);
            std::thread::sleep(Duration::from_millis(20));
        }
        self.sent += 1;
    }

    /// What was accepted has arrived, each once and in order: except that a panic between the engine's
    /// acceptance and the answer makes the sender try again.
    fn works(&mut self, after: &str) {
        self.house.until_live();
        self.send();
        let last = (self.sent - 1).to_string();
        let heard = until(&format!("a message arrives after {after}"), || {
            let heard = self.listener.heard();
            expect(heard.last() == Some(&last), || {
                format!("the last of {} is {:?}", heard.len(), heard.last())
            })?;
            Ok(heard)
        });
        let mut once = heard.clone();
        once.dedup();
        assert_eq!(once, (0..self.sent).map(|n| n.to_string()).collect::<Vec<_>>(), "after {after}");
        assert!(heard.len() <= once.len() + 1, "after {after}: {heard:?}");
    }
}

/// Each actor panics at this point, and in a handler where only a failure leads there.
fn each_panics_in(point: &str) {
    let mut ward = Ward::open();
    let pid = ward.house.get("/api/spawned")["agents"][0]["pid"].clone();
    ward.works("the start");
    for actor in ACTORS {
        let before = ward.restarts(actor);
        let mut wanted = before + 1;
        // First, because a busy actor is in its handler before the next fault can be placed.
        if point != "handler" {
            ward.arm(actor, point);
            wanted += 1;
        }
        ward.arm(actor, "handler");
        let what = format!("{actor} panicked in {point}");
        until(&format!("{what} and was restarted"), || {
            let restarts = ward.restarts(actor);
            if restarts < wanted {
                ward.stir(actor);
            }
            expect(restarts >= wanted, || format!("{restarts} of {wanted} restarts"))
        });
        ward.works(&what);
        assert_eq!(ward.house.get("/api/spawned")["agents"][0]["pid"], pid, "{what}: another process");
    }
}

#[test]
fn a_panic_in_a_handler_of_any_actor_is_survived() {
    each_panics_in("handler");
}

#[test]
fn a_panic_while_starting_again_is_survived() {
    each_panics_in("started");
}

#[test]
fn a_panic_while_rebuilding_is_survived() {
    each_panics_in("restarting");
}

#[test]
fn a_panic_while_ending_is_survived() {
    let mut ward = Ward::open();
    ward.works("the start");
    // These two end on purpose while the house lives on; an agent's actors with their agent.
    let before = ward.restarts("node_session");
    ward.arm("node_session", "stopped");
    ward.stir("node_session");
    assert!(ward.restarts("node_session") > before);
    ward.works("the session panicked in stopped");

    ward.house.spawn("brief", agents::READER);
    ward.arm("pty_worker/brief", "stopped");
    ward.arm("delivery_cursor/brief", "stopped");
    ward.house.release("brief");
    assert_eq!(ward.house.agents(), ["alice"]);
    ward.house.spawn("brief", agents::READER);
    ward.works("an agent's actors panicked in stopped");
}

#[test]
fn the_fifth_panic_of_the_session_in_a_minute_ends_the_house_with_70() {
    let mut ward = Ward::open();
    for n in 1..=4 {
        ward.arm("node_session", "handler");
        until("the session was restarted", || {
            let restarts = ward.restarts("node_session");
            if restarts < n {
                ward.send();
            }
            expect(restarts >= n, || format!("{restarts} restarts"))
        });
    }
    ward.works("four panics");
    let agent = ward.house.get("/api/spawned")["agents"][0]["pid"].as_u64().unwrap();
    ward.arm("node_session", "handler");
    // Its heartbeats are no messages, so it is given something to do; it may be gone before it answers.
    let body = json!({ "to": "alice", "text": "the last straw" });
    ward.house.try_call("POST", "/api/send", Some(&body)).ok();
    assert_eq!(ward.house.wait().code(), Some(70), "{}", ward.house.log());
    assert!(!ward.house.connection_file().exists());
    assert!(!std::path::Path::new(&format!("/proc/{agent}")).exists());
}

#[test]
fn a_cursor_that_keeps_failing_costs_its_own_agent_alone() {
    let ward = Ward::open();
    let other = ward.house.listener("bob");
    until("alice is quarantined", || {
        let state = ward.house.actor("delivery_cursor/alice")["state"].as_str().unwrap().to_owned();
        if state != "quarantined" {
            ward.arm("delivery_cursor/alice", "handler");
            ward.house.try_send("alice", "poison");
        }
        expect(state == "quarantined", || state.clone())
    });
    assert_eq!(ward.house.until_live(), ward.house.until_live());
    ward.house.send("bob", "still here");
    assert_eq!(other.hears(1), ["still here"]);
    let explained = ward.house.get("/debug/agents/alice");
    assert!(explained["summary"].as_str().unwrap().contains("quarantined"), "{explained}");
    // The engine kept her mail: a new process of that name gets what comes.
    ward.house.release("alice");
    ward.house.spawn("alice", agents::READER);
    ward.house.send("alice", "anew");
    until("the new one hears it", || {
        let heard = ward.listener.heard();
        expect(heard.last().is_some_and(|last| last == "anew"), || format!("{heard:?}"))
    });
}
