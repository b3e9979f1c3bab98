//! Messages that are held back, and those that were given up.

use super::*;

fn letter(id: &str, agent: &str) -> DeadLetter {
    DeadLetter {
        agent: "7".into(),
        name: crate::testing::name(agent),
        delivery: id.into(),
        seq: Seq(3),
        note: Note {
            from: "bob".into(),
            target: agent.into(),
            thread: None,
            msg_id: "m3".into(),
            body: "mind the tide".into(),
            sent_at: None,
            system: false,
        },
        reason: "the composer refused it".into(),
        attempts: 2,
        landed: false,
        at_ms: 0,
    }
}

#[actix::test]
async fn dead_letters_are_listed_and_tried_again_one_or_all() {
    let house = house();
    house.script().letters = vec![letter("d1", "al"), letter("d2", "gone")];
    let got = house.get("/api/dead-letters").await.json();
    assert_eq!(got["count"], 2);
    let first = &got["dead_letters"][0];
    for (key, value) in [
        ("id", json!("d1")),
        ("name", json!("al")),
        ("event_id", json!("m3")),
        ("body", json!("mind the tide")),
        ("reason", json!("the composer refused it")),
        ("at", json!("1970-01-01T00:00:00Z")),
    ] {
        assert_eq!(first[key], value, "{key}");
    }

    let path = "/api/dead-letters/redeliver";
    let one = house.post(path, r#"{"id":"d1"}"#).await;
    assert_eq!((one.status, one.json()["redelivered"].clone()), (200, json!(["d1"])));
    let all = house.post(path, r#"{"all":true}"#).await.json();
    assert_eq!((all["success"].clone(), all["redelivered"].clone()), (json!(false), json!(["d1"])));
    assert_eq!(all["failed"][0]["code"], "agent_not_running");
    for (body, status, code) in [
        (r#"{"id":"d2"}"#, 409, "agent_not_running"),
        (r#"{"id":"d9"}"#, 404, "dead_letter_not_found"),
        ("{}", 400, "invalid_request"),
        (r#"{"id":"d1","all":true}"#, 400, "invalid_request"),
    ] {
        let got = house.post(path, body).await;
        assert_eq!((got.status, got.json()["code"].clone()), (status, json!(code)), "{body}");
    }
    house.script().letters.clear();
    let none = house.post(path, r#"{"all":true}"#).await;
    assert_eq!((none.status, none.json()["success"].clone()), (200, json!(true)));
}

#[actix::test]
async fn messages_are_held_listed_and_let_through_in_the_shapes_that_clients_read() {
    let house = house();
    let at = "/api/spawned/al/delivery-mode";
    assert_eq!(house.get(at).await.json(), json!({"mode": "auto_inject"}));
    let held = house.put(at, &json!({"mode": "manual_flush", "previous": "auto_inject"})).await;
    assert_eq!(held.json(), json!({"mode": "manual_flush", "previous": "auto_inject", "flushed": 2}));
    for (mode, path, status, code) in [
        (json!({"mode": "auto_inject", "expect": "auto_inject"}), at, 409, "delivery_mode_conflict"),
        (json!({"mode": "sometimes"}), at, 400, "invalid_mode"),
        (json!({}), at, 400, "invalid_mode"),
        (json!({"mode": "auto_inject"}), "/api/spawned/nobody/delivery-mode", 404, "agent_not_found"),
    ] {
        let refused = house.put(path, &mode).await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (status, Some(code)),
            "{}",
            refused.body
        );
    }
    let note = Note {
        from: "bob".into(),
        target: "al".into(),
        thread: None,
        msg_id: MsgId::from("m1"),
        body: "fuel is low".into(),
        sent_at: None,
        system: false,
    };
    let pending =
        |id: &str| Pending { delivery: id.into(), note: note.clone(), mode: Mode::Steer, queued_at_ms: 7 };
    house.script().pending = vec![pending("d1"), pending("d2")];
    assert_eq!(
        house.get("/api/spawned/al/pending").await.json()["pending"][0],
        json!({"from": "bob", "body": "fuel is low", "target": "al", "priority": 0, "mode": "steer",
            "queued_at_ms": 7, "event_id": "m1", "delivery_id": "d1"})
    );
    assert_eq!(house.post("/api/spawned/al/flush", "").await.json(), json!({"flushed": 2}));
    assert_eq!(house.post("/api/spawned/al/flush", r#"{"id":"d2"}"#).await.json(), json!({"flushed": 1}));
    let refused = house.post("/api/spawned/al/answer", r#"{"choice":"yes"}"#).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("no_dialog")));
}
