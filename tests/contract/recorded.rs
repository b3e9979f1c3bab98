//! Every frame and every body that a broker and an engine really sent, judged by the published schemas.

use std::collections::{BTreeSet, HashMap};

use awc::http::Method;
use serde_json::{Value, json};

use crate::{
    broker::Broker,
    engine::House,
    judge::{Case, all_accepted, all_refused},
    recorder::{Exchange, Frame, Recorder, Side, Tape},
};

/// A day in the life of a node: everything that makes the two ends talk.
async fn a_day(baseline: bool) -> Tape {
    let house = House::open().await;
    let recorder = Recorder::before(house.base_url(), baseline);
    let human = house.agent("harbormaster", "human").await;
    let broker = Broker::join(&recorder.base_url(), &house.key).await;
    broker.spawn("otter", "cat").await;
    broker.spawn("seal", "cat").await;

    // Messages of every kind, to agents that read them.
    let post = async |path: &str, token: &str, body: Value| {
        house.expect(201, Method::POST, path, token, body).await["data"].clone()
    };
    post("/v1/dm", &human, json!({"to": "otter", "text": "fuel is low"})).await;
    let general = "/v1/channels/general/messages";
    let said = post(general, &human, json!({"text": "@otter the tide turns", "mode": "steer"})).await;
    let replies = format!("/v1/messages/{}/replies", said["id"].as_str().unwrap());
    post(&replies, &human, json!({"text": "at five"})).await;
    for text in ["fuel is low", "the tide turns", "at five"] {
        broker.until(text, async || broker.screen("otter").await.contains(text)).await;
    }

    // What an agent says is read and reacted to.
    let otter = token_of("otter", &recorder.tape());
    let said = post(general, &otter, json!({"text": "moored"})).await;
    let about = format!("/v1/messages/{}", said["id"].as_str().unwrap());
    post(&format!("{about}/reactions"), &human, json!({"emoji": "anchor"})).await;
    house.expect(200, Method::POST, &format!("{about}/read"), &human, Value::Null).await;

    // Invocations: one that works, one that does not, and the way back.
    let invoke = async |action: &str, input: Value| {
        let path = format!("/v1/actions/{action}/invoke");
        let asked = post(&path, &otter, json!({"input": input})).await;
        let path = format!("/v1/actions/{action}/invocations/{}", asked["invocation_id"].as_str().unwrap());
        broker
            .until("an invocation ends", async || {
                let answer = house.expect(200, Method::GET, &path, &house.key, Value::Null).await;
                ["completed", "failed"].contains(&answer["data"]["status"].as_str().unwrap())
            })
            .await;
    };
    invoke("spawn", json!({"name": "mate", "cli": "cat", "task": "swab the deck"})).await;
    broker.until("mate lives", async || broker.agents().await.contains(&"mate".to_owned())).await;
    broker.until("its task", async || broker.screen("mate").await.contains("swab the deck")).await;
    invoke("spawn", json!({"name": "ghost", "cli": "no-such-program", "task": "haunt"})).await;
    invoke("release", json!({"name": "mate"})).await;
    broker.until("mate is gone", async || !broker.agents().await.contains(&"mate".to_owned())).await;

    // The network fails; what was said meanwhile arrives.
    recorder.cut();
    post("/v1/dm", &human, json!({"to": "seal", "text": "are you there"})).await;
    broker.until("seal is reached", async || broker.screen("seal").await.contains("are you there")).await;

    let (status, answer) = broker.call(Method::DELETE, "/api/spawned/otter", Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    let seal = token_of("seal", &recorder.tape());
    broker
        .until("everything is acked", async || {
            let answer = house.expect(200, Method::GET, "/v1/deliveries", &seal, Value::Null).await;
            let rows = answer["data"].as_array().unwrap();
            !rows.is_empty() && rows.iter().all(|row| row["status"] == "acked")
        })
        .await;
    broker.until("a later heartbeat", async || beats_since_last_register(&recorder.tape()) > 1).await;
    broker.end();
    recorder.tape()
}

fn beats_since_last_register(tape: &Tape) -> usize {
    let kinds = tape.frames.iter().rev().filter(|frame| frame.from == Side::Broker).map(Frame::kind);
    kinds.take_while(|kind| *kind != "node.register").filter(|kind| *kind == "node.heartbeat").count()
}

/// An agent's token, from the reply that brought it.
fn token_of(agent: &str, tape: &Tape) -> String {
    let replies = tape.frames.iter().rev().filter(|frame| frame.kind() == "reply");
    let data = replies
        .map(|frame| &frame.value["data"])
        .find(|data| data["name"] == agent && !data["token"].is_null());
    data.unwrap_or_else(|| panic!("{agent} never had a token"))["token"].as_str().unwrap().to_owned()
}

/// Every frame as a case, and what replies carry as one more.
fn frames(tape: &Tape) -> Vec<Case> {
    let mut asked = HashMap::new();
    let mut cases = Vec::new();
    for (place, frame) in tape.frames.iter().enumerate().filter(|(_, frame)| !frame.refused) {
        let name = format!("frame {place} on socket {}, {}", frame.socket, frame.kind());
        let id = (frame.socket, frame.value["id"].as_str().map(str::to_owned));
        let schema = match frame.from {
            Side::Broker => {
                asked.insert(id, frame.kind().to_owned());
                "frame/broker"
            }
            Side::Engine => {
                if frame.kind() == "reply" {
                    let schema = match asked.get(&id).map(String::as_str) {
                        Some("node.register") => Some("data/node.register"),
                        Some("agent.register") => Some("data/agent.register"),
                        Some("inventory.sync") => Some("data/inventory.sync"),
                        // Later engines answer these too, with nothing that is promised.
                        Some("agent.deregister" | "node.deregister") => None,
                        other => panic!("{name} answers {other:?}"),
                    };
                    let data = frame.value["data"].clone();
                    cases.extend(schema.map(|schema| Case { name: name.clone(), schema, value: data }));
                }
                "frame/engine"
            }
        };
        cases.push(Case { name, schema, value: frame.value.clone() });
    }
    cases
}

/// The schema of a request over HTTP, and that of its answer.
fn bodies(exchange: &Exchange) -> (Option<&'static str>, Option<&'static str>) {
    let place = exchange.place.split('?').next().unwrap();
    let (verb, path) = place.split_once(' ').unwrap();
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    match (verb, parts.as_slice()) {
        ("GET", ["health" | "v1"] | ["v1", "node", "ws"]) => (None, None),
        ("POST", ["v1", "workspaces"]) => (Some("request/workspace-create"), Some("answer/workspace-create")),
        ("GET", ["v1", "workspace"]) => (None, Some("answer/workspace-get")),
        ("POST", ["v1", "nodes"]) => (None, Some("answer/node-create")),
        ("GET", ["v1", "nodes"]) => (None, None),
        ("POST", ["v1", "nodes", _, "agents"]) => (None, Some("answer/node-bind")),
        ("POST", ["v1", "agents"]) => (Some("request/agent-create"), Some("answer/agent-create")),
        ("GET", ["v1", "agents", _] | ["v1", "agent"]) => (None, Some("answer/agent-get")),
        ("DELETE" | "PATCH", ["v1", "agents", _]) => (None, None),
        ("POST", ["v1", "agents", _, "rotate-token"]) => (None, Some("answer/agent-rotate")),
        ("POST", ["v1", "agents", "release"]) => {
            (Some("request/agent-release"), Some("answer/agent-release"))
        }
        ("POST", ["v1", "channels"]) => (Some("request/channel-create"), Some("answer/channel-create")),
        ("POST", ["v1", "channels", _, "join"]) => (None, Some("answer/channel-join")),
        ("POST", ["v1", "channels", _, "messages"]) => {
            (Some("request/message-post"), Some("answer/message-post"))
        }
        ("POST", ["v1", "dm"]) => (Some("request/dm-send"), Some("answer/dm-send")),
        ("POST", ["v1", "messages", _, "read"]) => (None, Some("answer/mark-read")),
        _ => panic!("{} has no schema yet", exchange.place),
    }
}

/// Every body as a case.
fn exchanged(tape: &Tape) -> Vec<Case> {
    let mut cases = Vec::new();
    for exchange in &tape.exchanges {
        let (request, answer) = bodies(exchange);
        let name = format!("{} -> {}", exchange.place, exchange.status);
        let case = |schema, value: &Value| Case { name: name.clone(), schema, value: value.clone() };
        cases.extend(request.map(|schema| case(schema, &exchange.request)));
        match exchange.status {
            200 | 201 => cases.extend(answer.map(|schema| case(schema, &exchange.answer))),
            101 | 204 => {}
            _ => cases.push(case("answer/error", &exchange.answer)),
        }
    }
    cases
}

/// That a tape has everything that it is meant to show.
fn check_complete(tape: &Tape) {
    assert!(tape.faults.is_empty(), "{:?}", tape.faults);
    let said = |side| {
        let frames = tape.frames.iter().filter(move |frame| frame.from == side);
        frames.map(|frame| frame.kind().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(
        said(Side::Broker),
        BTreeSet::from(
            [
                "action.result",
                "agent.deregister",
                "agent.register",
                "delivery.ack",
                "inventory.sync",
                "node.deregister",
                "node.heartbeat",
                "node.register",
            ]
            .map(str::to_owned)
        )
    );
    let delivered: BTreeSet<_> = tape
        .frames
        .iter()
        .filter(|frame| frame.kind() == "deliver")
        .map(|frame| frame.value["payload"]["type"].as_str().unwrap())
        .collect();
    for payload in [
        "action.completed",
        "action.failed",
        "dm.received",
        "message.created",
        "message.reacted",
        "message.read",
        "thread.reply",
    ] {
        assert!(delivered.contains(payload), "no {payload} was delivered: {delivered:?}");
    }
    let results: Vec<_> = tape.frames.iter().filter(|frame| frame.kind() == "action.result").collect();
    for key in ["output", "error"] {
        assert!(results.iter().any(|frame| frame.value.get(key).is_some()), "no result with {key}");
    }
    let sockets = tape.frames.iter().map(|frame| frame.socket).max().unwrap() + 1;
    assert!(sockets >= 2, "the broker never came back");
    assert_eq!(tape.closes.first(), Some(&(Side::Broker, Some(1000))), "the broker says goodbye first");
}

/// The keys by which a frame goes beyond the baseline towards a newer engine.
fn without_newer_keys(case: Case) -> Case {
    let mut value = case.value;
    if let Some(object) = value.as_object_mut() {
        match case.schema {
            "frame/broker" => object.remove("provider"),
            "data/agent.register" => object.remove("delivery_ack_seq"),
            _ => None,
        };
    }
    Case { value, ..case }
}

#[actix::test]
async fn every_frame_to_an_engine_of_the_baseline_is_one_that_it_reads() {
    let tape = a_day(true).await;
    check_complete(&tape);
    // The extended form is tried once, and no other frame is ever refused; not even after a reconnect.
    let refused: Vec<_> = tape.frames.iter().filter(|frame| frame.refused).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!((refused[0].kind(), refused[0].socket), ("node.register", 0));
    assert!(refused[0].value.get("provider").is_some(), "{refused:?}");

    let mut cases = frames(&tape);
    cases.extend(exchanged(&tape));
    all_accepted(&cases);
}

#[actix::test]
async fn every_frame_to_a_newer_engine_is_the_baselines_but_for_the_keys_that_are_named() {
    let tape = a_day(false).await;
    check_complete(&tape);
    let cases: Vec<_> = frames(&tape).into_iter().map(without_newer_keys).collect();
    all_accepted(&cases);
    all_accepted(&exchanged(&tape));

    // The keys are really there: otherwise this is the test before.
    let newer: Vec<_> = frames(&tape)
        .into_iter()
        .filter(|case| case.value.get("provider").is_some() && case.schema == "frame/broker")
        .collect();
    let kinds: BTreeSet<_> = newer.iter().filter_map(|case| case.value["type"].as_str()).collect();
    assert_eq!(kinds, BTreeSet::from(["node.deregister", "node.heartbeat", "node.register"]));
    all_refused(&newer);
}

/// The place without what stands for a name or an id.
fn route(place: &str) -> String {
    let place = place.split('?').next().unwrap();
    let (verb, path) = place.split_once(' ').unwrap();
    let parts: Vec<_> = path.split('/').collect();
    let parts = parts.iter().enumerate().map(|(nth, part)| match (parts.get(nth.wrapping_sub(1)), *part) {
        (Some(&"channels"), _) => ":name",
        (Some(&"messages"), _) => ":id",
        (_, part) => part,
    });
    format!("{verb} {}", parts.collect::<Vec<_>>().join("/"))
}

#[actix::test]
async fn a_node_asks_an_engine_for_what_it_needs_and_speaks_in_the_order_of_the_contract() {
    let tape = a_day(false).await;
    let asked: BTreeSet<_> = tape.exchanges.iter().map(|exchange| route(&exchange.place)).collect();
    let wanted = [
        "GET /v1/node/ws",
        "GET /v1/nodes",
        "GET /v1/workspace",
        "POST /v1/channels",
        "POST /v1/channels/:name/join",
        "POST /v1/messages/:id/read",
        "POST /v1/nodes",
    ];
    // No workspace stream, nothing that switches one on, and no agent registered but over the socket.
    assert_eq!(asked, BTreeSet::from(wanted.map(str::to_owned)));
    let count = |wanted: &str| tape.exchanges.iter().filter(|one| route(&one.place) == wanted).count();
    assert_eq!(count("POST /v1/nodes"), 1, "one token for all sockets");
    assert_eq!(count("GET /v1/node/ws"), 2, "one cut, one reconnection");

    let said = |socket| {
        let frames = tape.frames.iter().filter(move |one| one.socket == socket && one.from == Side::Broker);
        frames.map(Frame::kind).collect::<Vec<_>>()
    };
    for socket in [0, 1] {
        assert_eq!(said(socket)[..3], ["node.register", "inventory.sync", "node.heartbeat"], "{socket}");
    }

    let mut acked = HashMap::new();
    for ack in tape.frames.iter().filter(|frame| frame.kind() == "delivery.ack") {
        let agent = ack.value["agent"].as_str().unwrap();
        let up_to = ack.value["up_to_seq"].as_u64().unwrap();
        let before = acked.insert(agent, up_to).unwrap_or(0);
        assert!(up_to >= before, "{agent} goes back from {before} to {up_to}");
    }

    // What an invocation has started is in the next inventory, and gone from one after its release.
    let listed = |sync: &Frame| {
        let agents = sync.value["agents"].as_array().unwrap().iter();
        agents.map(|agent| agent["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let result = |name: &str| {
        let of_mate =
            |frame: &Frame| frame.value["output"][name] == true && frame.value["output"]["name"] == "mate";
        tape.frames.iter().position(of_mate).unwrap_or_else(|| panic!("mate was never {name}"))
    };
    for (done, wanted) in [("spawned", true), ("released", false)] {
        let around = tape.frames[..].iter().enumerate().filter(|(_, frame)| frame.kind() == "inventory.sync");
        let near = around.min_by_key(|(place, _)| place.abs_diff(result(done))).unwrap().1;
        assert_eq!(listed(near).contains(&"mate".to_owned()), wanted, "{done}: {near:?}");
    }
}
