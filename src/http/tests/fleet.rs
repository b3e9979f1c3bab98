//! The socket of a sidecar.

use super::{house::Socket, *};

async fn say(ws: &mut Socket, kind: &str, payload: &Value) {
    let frame = json!({"v": 2, "type": kind, "request_id": format!("r-{kind}"), "payload": payload});
    ws.send(Message::Text(frame.to_string().into())).await.unwrap();
}

/// One request, and the payload of its answer, which must be of this type.
async fn ask(ws: &mut Socket, kind: &str, payload: Value, answered: &str) -> Value {
    say(ws, kind, &payload).await;
    let mut answer = event(ws).await;
    assert_eq!((&answer["type"], &answer["v"]), (&json!(answered), &json!(2)), "{kind}: {answer}");
    assert_eq!(answer["request_id"], format!("r-{kind}"));
    answer["payload"].take()
}

async fn ok(ws: &mut Socket, kind: &str, payload: Value) -> Value {
    ask(ws, kind, payload, "ok").await["result"].take()
}

async fn refused(ws: &mut Socket, kind: &str, payload: Value, code: &str) -> bool {
    let error = ask(ws, kind, payload, "error").await;
    assert_eq!(error["code"], code, "{error}");
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    error["retryable"].as_bool().unwrap()
}

fn node() -> Value {
    let echo = json!({"name": "echo", "kind": "action", "metadata": {"cli": "x"}});
    json!({"manifest": {"name": "quay", "capabilities": [echo, {"name": "spawn:otter"}], "max_agents": 3, "tags": ["dry"]}})
}

#[actix::test]
async fn a_sidecar_registers_is_called_answers_and_says_goodbye() {
    let mut house = house();
    let mut ws = house.socket("/api/fleet/ws").await;
    let hello = ok(&mut ws, "hello", json!({"client_name": "x"})).await;
    assert_eq!(hello, json!({"broker_version": "0.1.0", "protocol_version": 2}));
    assert_eq!(ok(&mut ws, "register_node", node()).await, json!({"registered": true}));
    let names = json!({"names": ["echo", "spawn:otter"]});
    assert_eq!(ok(&mut ws, "register_handlers", names).await, json!({"handlers_live": true}));
    let (calls, manifest) = house.script().sidecars[0].clone();
    assert_eq!(
        (manifest.name.as_str(), manifest.max_agents, &manifest.tags[..]),
        ("quay", Some(3), &["dry".to_owned()][..])
    );
    assert_eq!(manifest.handlers[0].metadata.as_deref(), Some(r#"{"cli":"x"}"#));

    calls
        .try_send(Call { invocation: "inv_1".into(), handler: "echo".into(), input: "{\"a\":1}".into() })
        .unwrap();
    let call = event(&mut ws).await;
    let payload = json!({"invocation_id": "inv_1", "name": "echo", "input": {"a": 1}});
    assert_eq!(call, json!({"v": 2, "type": "invoke_handler", "payload": payload}));
    for result in [
        json!({"invocation_id": "inv_1", "output": {"a": 1}}),
        json!({"invocation_id": "inv_2", "error": "boom"}),
    ] {
        assert_eq!(ok(&mut ws, "handler_result", result).await, json!({"completed": true}));
    }
    let ended =
        [("inv_1".to_owned(), Ok("{\"a\":1}".to_owned())), ("inv_2".to_owned(), Err("boom".to_owned()))];
    assert_eq!(house.script().ended_calls, ended);

    assert_eq!(ok(&mut ws, "deregister_node", json!({})).await, json!({"deregistered": true}));
    assert_eq!(house.ends.recv().await.unwrap(), "sidecar 1");
    assert!(matches!(frame(&mut ws).await, Frame::Close(Some(_))));
    assert!(calls.is_closed(), "nothing more can come to it");
}

#[actix::test]
async fn a_socket_that_breaks_is_told_as_the_end_of_its_sidecar_and_only_if_it_was_one() {
    let mut house = house();
    let mut stranger = house.socket("/api/fleet/ws").await;
    ok(&mut stranger, "hello", json!({})).await;
    drop(stranger);
    let mut ws = house.socket("/api/fleet/ws").await;
    ok(&mut ws, "register_node", node()).await;
    drop(ws);
    assert_eq!(house.ends.recv().await.unwrap(), "sidecar 1");
    let mut ws = house.socket("/api/fleet/ws").await;
    ok(&mut ws, "register_node", node()).await;
    house.server.close_streams();
    assert!(matches!(frame(&mut ws).await, Frame::Close(Some(_))));
    assert_eq!(house.ends.recv().await.unwrap(), "sidecar 2");
}

#[actix::test]
async fn what_a_route_does_a_sidecar_may_ask_for_too() {
    let mut house = house();
    let mut ws = house.socket("/api/fleet/ws").await;
    let harness = json!({"runtime": "pty", "command": "/bin/cat", "args": ["-u"]});
    let agent = json!({"name": "ann", "runtime": "pty", "cli": "cat", "harness_config": harness});
    let spawn =
        json!({"agent": agent, "initial_task": "dig", "skip_relay_prompt": false, "invocation_id": "inv_1"});
    let spawned = ok(&mut ws, "spawn_agent", spawn).await;
    assert_eq!((&spawned["name"], &spawned["runtime"]), (&json!("ann"), &json!("pty")));
    {
        let script = house.script();
        let spec = &script.spawns[0];
        assert_eq!(
            (spec.program.as_str(), &spec.args[..], spec.task.as_deref()),
            ("/bin/cat", &["-u".to_owned()][..], Some("dig"))
        );
        assert_eq!(script.origins, ["Sidecar(inv_1)"]);
    }
    assert_eq!(
        ok(&mut ws, "send_message", json!({"to": "al", "text": "hi", "from": "n"})).await["event_id"],
        "m1"
    );
    assert_eq!(ok(&mut ws, "send_input", json!({"name": "al", "data": "ls\r"})).await["bytes_written"], 3);
    let channels = json!({"name": "al", "channels": ["reef"]});
    assert_eq!(
        ok(&mut ws, "subscribe_channels", channels.clone()).await["channels"],
        json!(["join", "reef"])
    );
    assert_eq!(ok(&mut ws, "unsubscribe_channels", channels).await["channels"], json!(["leave", "reef"]));
    assert_eq!(ok(&mut ws, "list_agents", json!({})).await["agents"][0]["name"], "al");
    assert_eq!(ok(&mut ws, "release_agent", json!({"name": "al"})).await["outcome"], "unknown");
    assert_eq!(ok(&mut ws, "shutdown", json!({})).await["status"], "shutting_down");
    assert_eq!(house.ends.recv().await.unwrap(), "asked for by a client");
}

#[actix::test]
async fn a_refusal_has_a_code_and_leaves_the_socket_open() {
    let house = house();
    let mut ws = house.socket("/api/fleet/ws").await;
    refused(&mut ws, "set_model", json!({}), "unknown_type").await;
    refused(&mut ws, "register_handlers", json!({"names": []}), "node_not_registered").await;
    refused(&mut ws, "handler_result", json!({"invocation_id": "inv_1"}), "node_not_registered").await;
    refused(&mut ws, "deregister_node", json!({}), "node_not_registered").await;
    refused(&mut ws, "spawn_agent", json!({"agent": {"name": "../evil"}}), "invalid_name").await;
    refused(&mut ws, "send_input", json!({"name": "nobody", "data": "x"}), "agent_not_found").await;
    ws.send(Message::Text("no frame".into())).await.unwrap();
    let answer = event(&mut ws).await;
    assert_eq!((&answer["payload"]["code"], answer.get("request_id")), (&json!("invalid_frame"), None));

    house.script().refuse_sidecar = Some(SidecarRefused::Occupied { name: "other".into() });
    assert!(refused(&mut ws, "register_node", node(), "sidecar_connected").await, "the other one may go");
    house.script().refuse_sidecar = None;
    let mut supervised = node();
    supervised["supervision"] = json!({"argv": ["node", "x"], "cwd": "/", "env": {"PATH": "/bin"}});
    let answer = ok(&mut ws, "register_node", supervised).await;
    assert_eq!(answer, json!({"registered": true, "supervised": false}), "nothing is started for it");
}

#[actix::test]
async fn a_frame_beyond_the_bound_ends_the_socket_and_a_wrong_key_opens_none() {
    let house = house();
    let mut ws = house.socket("/api/fleet/ws").await;
    let long = "x".repeat(2 << 20);
    // It may be closed before all of it is written.
    ws.send(Message::Text(long.into())).await.ok();
    assert!(matches!(frame(&mut ws).await, Frame::Close(Some(_))));
    let url = format!("http://{}/api/fleet/ws", house.server.addr());
    assert!(awc::Client::new().ws(url).set_header("x-api-key", "br_wrong").connect().await.is_err());
}
