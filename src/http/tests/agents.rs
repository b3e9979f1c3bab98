//! Agents: begun, ended, written to, listed, and what they hand in.

use super::*;

#[actix::test]
async fn a_spawn_is_handed_over_and_its_agent_described() {
    let house = house();
    let body = json!({"name": "bo", "cli": "sh -c 'sleep 9'", "args": ["x"], "cwd": "/tmp",
        "spawnMode": "interactive", "model": "m"});
    let got = house.post("/api/spawn", &body.to_string()).await;
    let reply = got.json();
    assert_eq!((got.status, &reply["name"], &reply["runtime"]), (200, &"bo".into(), &"pty".into()));
    assert_eq!((&reply["pid"], &reply["success"]), (&4242.into(), &true.into()));
    assert_eq!((&reply["model"], &reply["agent_id"]), (&"m".into(), &"ag_1".into()));
    let spec = house.script().spawns.remove(0);
    assert_eq!((spec.program.as_str(), spec.args), ("sh", vec!["-c".into(), "sleep 9".into(), "x".into()]));
}

#[actix::test]
async fn a_refused_spawn_keeps_its_meaning() {
    let house = house();
    let name = name("a");
    for (refused, status, code) in [
        (SpawnRefused::NameTaken(name), 409, "agent_exists"),
        (SpawnRefused::BadCwd("no such directory".into()), 400, "invalid_cwd"),
        (SpawnRefused::BadProgram { program: "x".into(), why: "not found".into() }, 400, "program_not_found"),
        (SpawnRefused::NodeOffline { why: "refused".into(), next: "wait".into() }, 503, "node_offline"),
    ] {
        house.script().refuse_spawn = Some(refused);
        let got = house.post("/api/spawn", r#"{"name":"a"}"#).await;
        is_envelope(&got, status, code);
        assert_eq!(got.json()["name"], "a");
        assert_eq!(got.json()["retryable"], status == 503);
    }
}

#[actix::test]
async fn a_release_needs_no_body_and_an_unknown_agent_is_success() {
    let house = house();
    let headers = keyed("");
    for (path, extra, body) in [
        ("/api/spawned/ghost", "", ""),
        ("/api/spawned/gh%6Fst?force=true", "", ""),
        ("/api/spawned/ghost", "content-type: application/json\r\n", r#"{"reason":"done"}"#),
    ] {
        let got = house.with("DELETE", path, &format!("{headers}{extra}"), body).await;
        assert_eq!((got.status, got.json()["success"].as_bool()), (200, Some(true)), "{got:?}");
        assert_eq!(got.json()["name"], "ghost");
    }
    let asked = std::mem::take(&mut house.script().releases);
    assert_eq!(asked, [("ghost".into(), false), ("ghost".into(), true), ("ghost".into(), false)]);
}

#[actix::test]
async fn a_message_is_sent_through_the_engine_and_its_refusal_is_said() {
    let house = house();
    let got = house.post("/api/send", r#"{"to":"@al","message":"hi","mode":"steer","threadId":"t"}"#).await;
    assert_eq!((got.status, &got.json()["event_id"]), (200, &"m1".into()), "{got:?}");
    let sent = house.script().sends.remove(0);
    assert_eq!(sent.to, crate::messages::send::Recipient::Direct("al".into()));
    assert_eq!((sent.text.as_str(), sent.mode), ("hi", crate::messages::delivery::Mode::Steer));
    assert_eq!(sent.thread, Some(MsgId::from("t")));
    for (refused, status, code, retryable) in [
        (SendRefused::NoSuchRecipient("no agent al".into()), 404, "agent_not_found", false),
        (SendRefused::Unreachable("refused".into()), 503, "engine_unreachable", true),
    ] {
        house.script().refuse_send = Some(refused);
        let got = house.post("/api/send", r#"{"to":"al","text":"hi"}"#).await;
        is_envelope(&got, status, code);
        assert_eq!(got.json()["retryable"], retryable);
    }
}

#[actix::test]
async fn a_terminal_is_typed_to_resized_and_shown() {
    let house = house();
    let typed = house.post("/api/input/al", r#"{"data":"l\r"}"#).await;
    assert_eq!(typed.json(), json!({"name": "al", "bytes_written": 2}));
    assert_eq!(house.script().inputs, [b"l\r".to_vec()]);
    let resized = house.post("/api/resize/al", r#"{"rows":30,"cols":100}"#).await;
    assert_eq!(resized.json(), json!({"name": "al", "rows": 30, "cols": 100}));
    let plain = house.get("/api/spawned/al/snapshot").await.json();
    assert_eq!((&plain["format"], &plain["screen"]), (&"plain".into(), &"$ hello\nworld\n".into()));
    assert_eq!((&plain["rows"], &plain["cols"], &plain["cursor"]), (&40.into(), &120.into(), &json!([2, 1])));
    let ansi = house.get("/api/spawned/al/snapshot?format=ansi").await.json();
    assert_eq!(ansi["screen"], "G1tIeA==");
    let lines = house.get("/api/spawned/al/snapshot?format=json").await.json();
    assert_eq!(lines["screen"], json!(["$ hello", "world"]));
}

#[actix::test]
async fn the_lists_have_the_fields_that_clients_read() {
    let house = house();
    let agents = house.get("/api/spawned").await.json();
    let al = &agents["agents"][0];
    assert_eq!((&al["name"], &al["provider"], &al["cli"]), (&"al".into(), &"sh".into(), &"/bin/sh".into()));
    assert_eq!((&al["current_state"], &al["runtime"]), (&"idle".into(), &"pty".into()));
    for key in ["model", "sessionId", "team", "channels", "parent", "pid", "workerPid", "last_activity_ms"] {
        assert!(al.get(key).is_some(), "{key}");
    }
    let status = house.get("/api/status").await.json();
    assert_eq!((&status["agent_count"], &status["pending_delivery_count"]), (&1.into(), &1.into()));
    let pending = &status["pending_deliveries"][0];
    assert_eq!(pending["delivery_id"], "d1");
    assert_eq!((pending["attempts"].as_u64(), pending["queued_at_ms"].as_u64()), (Some(2), Some(1_000)));
    assert!(pending["age_ms"].as_u64().is_some_and(|age| age > 1_000_000_000_000), "{pending}");
    assert_eq!(status["auth"]["workspaces"][0]["workspace_id"], "ws_1");
    let session = house.get("/api/session").await.json();
    assert_eq!((&session["protocol_version"], &session["mode"]), (&2.into(), &"persist".into()));
    assert_eq!(session["workspace_key"], "rk_live_planted");
    let metrics = house.get("/api/metrics").await.json();
    assert_eq!(metrics["broker"]["active_agents"], 1);
    assert!(metrics["agents"][0]["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    assert_eq!(metrics["broker"]["total_crashes"], Value::Null, "nobody counted, so it is not 0");
    let renewed = house.post("/api/session/renew", "").await.json();
    assert_eq!(renewed, json!({"renewed": true, "expires_in_secs": 0, "persist": true}));
}

#[actix::test]
async fn a_result_is_taken_by_the_agents_own_token_and_by_no_other_key() {
    let house = house();
    let submit = async |headers: &str, body: &str| {
        let head = format!("host: localhost\r\ncontent-type: application/json\r\n{headers}");
        house.with("POST", "/api/agent-result", &head, body).await
    };
    let own = format!("x-agent-result-token: {RESULT_TOKEN}\r\n");
    let bearer = format!("authorization: Bearer {RESULT_TOKEN}\r\n");
    let full = r#"{"agent":"al","data":{"n":[1,null]},"final":false,"metadata":{"m":1}}"#;
    let taken = submit(&bearer, full).await;
    assert_eq!(taken.json(), json!({ "success": true, "name": "al", "result_id": "r1" }));
    for short in [r#"{"name":"al","result":"text"}"#, r#"{"data":null,"metadata":null}"#] {
        assert_eq!(submit(&own, short).await.status, 200, "{short}");
    }
    let results = std::mem::take(&mut house.script().results);
    let kept =
        |data: &str, is_final, metadata: Option<&str>| (data.into(), is_final, metadata.map(Into::into));
    assert_eq!(
        results,
        [
            kept(r#"{"n":[1,null]}"#, false, Some(r#"{"m":1}"#)),
            kept(r#""text""#, true, None),
            kept("null", true, None),
        ]
    );

    let api_key = format!("x-api-key: {KEY}\r\n");
    let as_token = format!("x-agent-result-token: {KEY}\r\n");
    for (headers, body) in [
        ("", full),
        (&api_key, full),
        (&as_token, full),
        (&own[..own.len() - 3], full),
        (&own, r#"{"agent":"bo","data":1}"#),
    ] {
        let headers = headers.trim_end();
        let headers = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
        is_envelope(&submit(&headers, body).await, 401, "unauthorized");
    }
    is_envelope(&submit(&own, r#"{"agent":"al"}"#).await, 400, "invalid_request");
    let long = json!({ "data": "x".repeat(agent_result::RESULT_MAX) }).to_string();
    is_envelope(&submit(&own, &long).await, 413, "payload_too_large");
    assert!(house.script().results.is_empty());
    let token_as_key = house.with("GET", "/api/status", &format!("host: localhost\r\n{bearer}"), "").await;
    is_envelope(&token_as_key, 401, "unauthorized");
}

#[actix::test]
async fn what_upstream_has_routes_for_is_done_or_refused_in_words_and_never_pretended() {
    let house = house();
    let post = async |path: &str, body: &str| {
        let answer = house.post(path, body).await;
        (answer.status, answer.json())
    };
    let joined = post("/api/spawned/al/subscribe", r##"{"channels":["#dock","pier"]}"##).await;
    assert_eq!(joined, (200, json!({"name": "al", "channels": ["join", "#dock", "pier"]})));
    let (status, left) = post("/api/spawned/al/unsubscribe", r#"{"channels":["dock"]}"#).await;
    assert_eq!((status, &left["channels"]), (200, &json!(["leave", "dock"])));
    let engine = ChannelsRefused::Unreachable { channel: "dock".into(), why: "refused".into() };
    house.script().refuse_channels = Some(engine);
    for (path, body, status, code) in [
        ("/api/spawned/al/subscribe", r#"{"channels":["dock"]}"#, 503, "engine_unreachable"),
        ("/api/spawned/al/subscribe", r##"{"channels":["#"]}"##, 400, "invalid_request"),
        ("/api/spawned/../subscribe", r#"{"channels":["dock"]}"#, 400, "invalid_name"),
        ("/api/spawned/al/model", r#"{"model":"opus","timeout_ms":1}"#, 409, "model_not_changeable"),
        ("/api/spawned/nobody/model", r#"{"model":"opus"}"#, 404, "agent_not_found"),
        ("/api/preflight", r#"{"agents":[{"name":"../evil","cli":"cat"}]}"#, 400, "invalid_name"),
    ] {
        let (got, refused) = post(path, body).await;
        assert_eq!((got, refused["code"].as_str()), (status, Some(code)), "{path} {body}: {refused}");
    }
    let ready = post("/api/preflight", r#"{"agents":[{"name":"bo","cli":"cat"}]}"#).await;
    assert_eq!(ready, (200, json!({"queued": 0})));
}
