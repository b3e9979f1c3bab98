//! The contract of the frames, held against every file of `fixtures/frames`:
//!
//! | folder | strict 5.0 | our engine | our broker |
//! |---|---|---|---|
//! | `broker` | reads | reads | – |
//! | `newer` | refuses | reads | – |
//! | `neg/broker` | refuses | refuses | – |
//! | `engine` | reads | – | reads |
//! | `tolerated` | refuses | – | reads |
//! | `neg/engine` | refuses | – | – |

use std::{fs, path::Path};

use proptest::prelude::*;
use serde_json::{Value, json, value::RawValue};

use super::{frames::*, invoke, payload};
use crate::{
    ids::{MsgId, Seq},
    messages::{delivery::*, invoke::Action},
};

/// The files of a folder: name and text.
fn fixtures(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/frames").join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no fixture", folder.display());
    files
}

fn fixture(folder: &str, name: &str) -> String {
    let found = fixtures(folder).into_iter().find(|(file, _)| file == name);
    found.unwrap_or_else(|| panic!("no fixture {folder}/{name}")).1
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn every_broker_frame_survives_the_way_there_and_back_unchanged() {
    for (folder, newer) in [("broker", false), ("newer", true)] {
        for (name, text) in fixtures(folder) {
            let frame =
                BrokerFrame::decode_extended(&text).unwrap_or_else(|why| panic!("{folder}/{name}: {why}"));
            assert_eq!(value(&frame.encode()), value(&text), "{folder}/{name}");
            assert_eq!(value(&text)["type"], frame.kind());
            assert_eq!(value(&text)["id"].as_str(), frame.id(), "{folder}/{name}");
            assert_eq!(BrokerFrame::decode_strict(&text).is_err(), newer, "{folder}/{name}");
        }
    }
}

#[test]
fn every_engine_frame_survives_the_way_there_and_back_unchanged() {
    for (name, text) in fixtures("engine") {
        let frame = EngineFrame::decode_strict(&text).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(value(&frame.encode()), value(&text), "{name}");
        assert_eq!(value(&text)["type"], frame.kind());
    }
}

#[test]
fn there_is_a_fixture_of_every_frame_type() {
    let kinds = |folders: [&str; 2]| {
        let mut kinds: Vec<_> = folders
            .iter()
            .flat_map(|folder| fixtures(folder))
            .map(|(_, text)| value(&text)["type"].as_str().unwrap().to_owned())
            .collect();
        kinds.sort();
        kinds.dedup();
        kinds
    };
    assert_eq!(
        kinds(["broker", "newer"]),
        [
            "action.result",
            "agent.deregister",
            "agent.recover",
            "agent.register",
            "delivery.ack",
            "inventory.sync",
            "node.deregister",
            "node.heartbeat",
            "node.register",
        ]
    );
    assert_eq!(
        kinds(["engine", "engine"]),
        ["action.invoke", "context.update", "deliver", "error", "ping", "reply"]
    );
}

#[test]
fn what_the_schemas_refuse_is_refused() {
    for (name, text) in fixtures("neg/broker") {
        assert!(BrokerFrame::decode_strict(&text).is_err(), "{name} was accepted as 5.0");
        assert!(BrokerFrame::decode_extended(&text).is_err(), "{name} was accepted by our engine");
    }
    for (name, text) in fixtures("neg/engine") {
        assert!(EngineFrame::decode_strict(&text).is_err(), "{name} was accepted");
    }
}

#[test]
fn a_frame_that_is_too_new_names_the_key_that_is() {
    for (name, key) in [
        ("node.register.provider", "provider"),
        ("node.register.machine-id", "machine_id"),
        ("node.register.repo-keys", "repo_keys"),
        ("node.register.capability-global", "global"),
        ("node.register.capability-queue", "queue"),
        ("node.heartbeat.provider", "provider"),
        ("node.heartbeat.load-absent", "load"),
        ("node.deregister.provider", "provider"),
    ] {
        match BrokerFrame::decode_strict(&fixture("newer", name)) {
            Err(FrameError::TooNew { key: named, .. }) => assert_eq!(named, key, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let null_load = r#"{"v":1,"type":"node.heartbeat","load":null,"active_agents":0,"handlers_live":true}"#;
    assert!(BrokerFrame::decode_strict(null_load).is_err());
    assert!(BrokerFrame::decode_extended(null_load).is_ok());
}

#[test]
fn one_unknown_key_is_refused_by_the_engine_and_ignored_by_the_broker() {
    for folder in ["broker", "newer"] {
        for (name, text) in fixtures(folder) {
            let mut more = value(&text);
            more["added_later"] = json!({"deep": [1, null]});
            assert!(BrokerFrame::decode_strict(&more.to_string()).is_err(), "{folder}/{name}");
            assert!(BrokerFrame::decode_extended(&more.to_string()).is_err(), "{folder}/{name}");
        }
    }
    for (name, text) in fixtures("engine") {
        let mut more = value(&text);
        more["added_later"] = json!({"deep": [1, null]});
        let frame =
            EngineFrame::decode_tolerant(&more.to_string()).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(value(&frame.encode()), value(&text), "{name}");
        assert!(EngineFrame::decode_strict(&more.to_string()).is_err(), "{name}");
    }
}

#[test]
fn a_broker_reads_what_a_strict_one_refuses() {
    for (name, text) in fixtures("tolerated") {
        let frame = EngineFrame::decode_tolerant(&text).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(EngineFrame::decode_strict(&text).is_err(), "{name}");
        let unknown = matches!(frame, EngineFrame::Unknown { .. });
        assert_eq!(unknown, name.starts_with("unknown."), "{name}: {frame:?}");
    }
    match EngineFrame::decode_tolerant(&fixture("tolerated", "deliver.new-mode")).unwrap() {
        EngineFrame::Deliver(frame) => assert_eq!(frame.mode, Mode::Wait),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_of_the_old_workspace_stream_are_unknown_frames() {
    for name in ["unknown.agent-spawn-requested", "unknown.agent-release-requested"] {
        let text = fixture("tolerated", name);
        match EngineFrame::decode_tolerant(&text).unwrap() {
            EngineFrame::Unknown { kind } => assert_eq!(value(&text)["type"], kind.as_str()),
            other => panic!("{name} became {other:?}"),
        }
    }
    // An unknown type stays unknown even when its body would fit a known one.
    let mut invoke = value(&fixture("engine", "action.invoke.spawn"));
    invoke["type"] = json!("action.invoked");
    assert!(matches!(
        EngineFrame::decode_tolerant(&invoke.to_string()).unwrap(),
        EngineFrame::Unknown { kind } if kind == "action.invoked"
    ));
}

#[test]
fn what_is_no_frame_at_all_is_a_typed_error() {
    for text in ["", "null", "17", "\"deliver\"", "[1,\"ping\"]", "{", "{\"v\":1,\"type\":\"ping\"} x"] {
        assert!(matches!(EngineFrame::decode_tolerant(text), Err(FrameError::Json(_))), "{text}");
        assert!(matches!(BrokerFrame::decode_strict(text), Err(FrameError::Json(_))), "{text}");
    }
    for text in ["{}", r#"{"v":1,"type":null}"#, r#"{"v":1,"type":{"deliver":1}}"#] {
        assert!(matches!(EngineFrame::decode_tolerant(text), Err(FrameError::Untyped)), "{text}");
    }
    for text in [r#"{"v":1,"type":"deliver"}"#, r#"{"v":1,"type":"action.invoke","action":7}"#] {
        assert!(matches!(EngineFrame::decode_tolerant(text), Err(FrameError::Body { .. })), "{text}");
    }
}

#[test]
fn a_number_means_what_it_means_to_javascript() {
    let ack = |seq: &str| {
        BrokerFrame::decode_strict(&format!(
            r#"{{"v":1.0,"type":"delivery.ack","agent":"a","up_to_seq":{seq}}}"#
        ))
    };
    for (text, seq) in [("17", 17), ("17.0", 17), ("1.7e1", 17), ("9007199254740991", (1 << 53) - 1)] {
        match ack(text) {
            Ok(BrokerFrame::DeliveryAck(frame)) => assert_eq!(frame.up_to_seq, Seq(seq)),
            other => panic!("{text}: {other:?}"),
        }
    }
    for text in ["17.5", "-1", "9007199254740992", "1e300", "\"17\"", "true"] {
        assert!(ack(text).is_err(), "{text} was accepted");
    }
}

#[test]
fn an_empty_error_is_never_sent() {
    let blank = ActionResult::error("inv_1".into(), "  ");
    let sent = value(&BrokerFrame::ActionResult(blank).encode());
    assert_eq!(sent["error"], "action_failed");
    assert!(sent.get("output").is_none());
}

#[test]
fn a_load_that_is_sent_is_a_number_from_0_to_1() {
    for (load, sent) in
        [(0.25, 0.25), (-3.0, 0.0), (7.0, 1.0), (f64::NAN, 0.0), (f64::INFINITY, 1.0), (-0.0, 0.0)]
    {
        let beat = NodeHeartbeat { load: Some(Load::clamped(load)), ..NodeHeartbeat::default() };
        let text = BrokerFrame::NodeHeartbeat(beat).encode();
        assert!((value(&text)["load"].as_f64().unwrap() - sent).abs() < f64::EPSILON, "{text}");
        assert!(BrokerFrame::decode_strict(&text).is_ok());
    }
}

#[test]
fn replies_carry_what_the_requests_promised() {
    let reply = |name| match EngineFrame::decode_tolerant(&fixture("engine", name)).unwrap() {
        EngineFrame::Reply(reply) => reply,
        other => panic!("{other:?}"),
    };
    let agent: AgentRegistered = reply("reply.agent-register.newer").data().unwrap();
    assert_eq!(agent.delivery_ack_seq, Some(Seq(41)));
    assert_eq!(agent.token.expose(), "at_live_0f1e2d3c4b5a69788796a5b4c3d2e1f0");
    let agent: AgentRegistered = reply("reply.agent-register").data().unwrap();
    assert_eq!((agent.name.as_deref(), agent.delivery_ack_seq), (Some("otter-1"), None));
    let node: NodeRegistered = reply("reply.node-register.newer").data().unwrap();
    assert_eq!(node.accepted_capabilities[1].reason.as_deref(), Some("delivery_readiness_unsupported"));
    let node: NodeRegistered = reply("reply.node-register").data().unwrap();
    assert!(node.accepted_capabilities.is_empty());
    let synced: InventorySynced = reply("reply.inventory-sync").data().unwrap();
    assert_eq!(synced.rebound_agents, 2);
    assert!(reply("reply.null").data::<AgentRegistered>().is_err());
}

#[test]
fn no_debug_output_shows_a_token_or_a_message() {
    for (name, secret) in [
        ("reply.agent-register", "at_live_"),
        ("deliver.message-created", "urchins"),
        ("action.invoke.spawn", "urchins"),
    ] {
        let frame = EngineFrame::decode_tolerant(&fixture("engine", name)).unwrap();
        assert!(!format!("{frame:?}").contains(secret), "{frame:?}");
    }
}

#[test]
fn a_raw_payload_reaches_the_other_end_byte_for_byte() {
    let odd = r#"{"n":1.000000000000000000001,"big":123456789012345678901234567890,"s":"\ud800"}"#;
    let text = format!(
        r#"{{"v":1,"type":"deliver","delivery_id":"d","agent_id":"1","agent":"a","msg_id":"m","seq":1,"mode":"wait","payload":{odd}}}"#
    );
    match EngineFrame::decode_tolerant(&text).unwrap() {
        EngineFrame::Deliver(frame) => assert_eq!(frame.payload.get(), odd),
        other => panic!("{other:?}"),
    }
}

/// Every text of the fixtures, whoever it is for.
fn all_texts() -> Vec<String> {
    ["broker", "newer", "engine", "tolerated", "neg/broker", "neg/engine"]
        .iter()
        .flat_map(|folder| fixtures(folder))
        .map(|(_, text)| text)
        .collect()
}

/// Whatever comes in: no panic, and what is readable can be used.
fn read_and_use(text: &str) {
    BrokerFrame::decode_strict(text).ok();
    BrokerFrame::decode_extended(text).ok();
    match EngineFrame::decode_tolerant(text) {
        Ok(EngineFrame::Deliver(frame)) => {
            payload::content(&frame.payload, &frame.agent, &frame.msg_id);
        }
        Ok(EngineFrame::ActionInvoke(frame)) => {
            invoke::action(&frame);
        }
        Ok(EngineFrame::Reply(reply)) => {
            reply.data::<AgentRegistered>().ok();
            reply.data::<NodeRegistered>().ok();
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_decoder_panic(text in any::<String>()) {
        read_and_use(&text);
    }

    #[test]
    fn no_change_to_a_frame_makes_a_decoder_panic(
        which in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        span in 0..40_usize,
        patch in "[\"{}\\[\\]:,\\\\u0-9dDn. -]{0,12}",
    ) {
        let texts = all_texts();
        let text: Vec<char> = which.get(&texts).chars().collect();
        let at = cut.index(text.len());
        let changed: String =
            text[..at].iter().copied().chain(patch.chars()).chain(text[at..].iter().skip(span).copied()).collect();
        read_and_use(&changed);
    }

    #[test]
    fn no_payload_makes_its_reading_panic(text in "\\PC{0,60}", escape in "(\\\\u[dD][89a-fA-F][0-9]{2}){0,4}") {
        let body = format!(r#"{{"data":{{"text":{}}},"from":"{escape}"}}"#, Value::from(text));
        if let Ok(raw) = RawValue::from_string(body) {
            payload::content(&raw, "a", &MsgId::from("m"));
        }
    }
}

#[test]
fn a_frame_nested_a_hundred_thousand_levels_deep_is_harmless() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for text in [
        deep.clone(),
        format!(r#"{{"v":1,"type":{deep}}}"#),
        format!(r#"{{"v":{deep},"type":"ping"}}"#),
        format!(r#"{{"v":1,"type":"ping","x":{deep}}}"#),
        format!(
            r#"{{"v":1,"type":"deliver","delivery_id":"d","agent_id":"1","agent":"a","msg_id":"m","seq":1,"payload":{deep}}}"#
        ),
        format!(r#"{{"v":1,"type":"action.invoke","invocation_id":"i","action":"spawn","input":{deep}}}"#),
        format!(r#"{{"v":1,"type":"action.result","invocation_id":"i","output":{deep}}}"#),
        format!(
            r#"{{"v":1,"type":"node.register","name":"n","node_id":"n","capabilities":[{{"name":"c","metadata":{{"x":{deep}}}}}],"max_agents":0,"tags":[],"version":"v"}}"#
        ),
    ] {
        read_and_use(&text);
    }
}

#[test]
fn every_delivered_fixture_reads_as_its_name_says() {
    let mut seen = 0;
    for (name, text) in fixtures("engine") {
        let EngineFrame::Deliver(frame) = EngineFrame::decode_tolerant(&text).unwrap() else { continue };
        seen += 1;
        let content = payload::content(&frame.payload, &frame.agent, &frame.msg_id);
        let receipt = name.contains(".message-read") || name.contains(".message-reacted");
        match content {
            Content::Inject(note) => {
                assert!(!receipt, "{name}");
                assert_eq!(note.system, name.contains("action"), "{name}");
            }
            Content::AckOnly(_) => assert!(receipt, "{name}"),
            Content::Unusable(why) => panic!("{name}: {why}"),
        }
    }
    assert_eq!(seen, 11);
}

#[test]
fn every_invocation_fixture_reads_as_its_name_says() {
    for (name, text) in fixtures("engine") {
        let EngineFrame::ActionInvoke(frame) = EngineFrame::decode_tolerant(&text).unwrap() else { continue };
        match (name.as_str(), invoke::action(&frame)) {
            ("action.invoke.spawn", Action::Spawn(spawn)) => {
                assert_eq!(
                    (spawn.name.as_deref(), spawn.channels.as_slice()),
                    (Some("otter-1"), &["kelp".to_owned()][..])
                );
            }
            ("action.invoke.release", Action::Release { name: Some(agent), .. }) => {
                assert_eq!(agent, "otter-1")
            }
            ("action.invoke.agent-owned", Action::Other { name, .. }) => assert_eq!(name, "urchin.count"),
            other => panic!("{other:?}"),
        }
    }
}
