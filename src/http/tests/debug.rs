//! The debug pages.

use super::*;

#[actix::test]
async fn debug_pages_answer_without_the_rooms_and_never_hold_a_secret() {
    let house = house();
    for path in ["/debug/actors", "/debug/actors?deep=1", "/debug/agents/al", "/health", "/api/status"] {
        let got = house.get(path).await;
        assert_eq!(got.status, 200, "{path}");
        for secret in SECRETS {
            assert!(!got.body.contains(secret), "{path} shows {secret}");
        }
    }
    let deep = house.get("/debug/actors?deep=1").await.json();
    assert_eq!(deep["cursors"]["al"]["received"], 7);
    house.script().silent = true;
    let actors = house.get("/debug/actors?deep=1").await.json();
    let ids: Vec<_> = actors["actors"].as_array().unwrap().iter().map(|a| a["id"].clone()).collect();
    assert_eq!(ids, ["agent_registry", "delivery_cursor/al", "pty_worker/al", "event_hub"]);
    let explained = house.get("/debug/agents/al").await.json();
    assert!(explained["summary"].as_str().is_some_and(|s| s.contains("agent registry")), "{explained}");
    is_envelope(&house.get("/api/spawned").await, 504, "room_timeout");
}

#[actix::test]
async fn an_agent_is_explained_in_a_sentence() {
    let house = house();
    let got = house.get("/debug/agents/al").await.json();
    assert_eq!(
        got["summary"],
        "al is idle, no output yet; its last message (seq 7 from bob) is written to the terminal and waits for: \
         the text to show in the composer; nothing to do"
    );
    assert_eq!((&got["last_message"]["rung"], &got["cursor"]["acked"]), (&"written".into(), &6.into()));
    assert_eq!(got["screen"]["lines"], json!(["$ hello", "world"]));
}

#[actix::test]
async fn a_fault_is_placed_only_where_faults_are_served() {
    let house = house_with(Options { faults: true, ..Options::default() });
    let got = house.post("/debug/fault/pty_worker%2Fal/handler", "").await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(house.post("/debug/fault/pty_worker/al/stopped", "").await.status, 200);
    is_envelope(&house.post("/debug/fault/pty_worker/no/handler", "").await, 404, "actor_not_found");
    is_envelope(&house.post("/debug/fault/event_hub/nowhere", "").await, 400, "invalid_request");
}
