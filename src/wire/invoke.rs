//! What an `action.invoke` frame asks for (spec/wire 5.8).
//!
//! Engines and their users word a spawn in several ways. All strings are trimmed, and a blank one counts as
//! absent.

use serde_json::{Map, Value};

use super::frames::ActionInvoke;
use crate::messages::invoke::{Action, InvokedSpawn};

/// The action, with everything taken out of the frame that it needs.
pub fn action(frame: &ActionInvoke) -> Action {
    let input = match serde_json::from_str(frame.input.get()) {
        Ok(Value::Object(input)) => input,
        // An input that is no object names nothing; what is missing becomes a typed failure of the
        // invocation.
        _ => Map::new(),
    };
    match frame.action.split_once(':') {
        None if frame.action == "spawn" => Action::Spawn(spawn(frame, &input, None)),
        Some(("spawn", harness)) => Action::Spawn(spawn(frame, &input, filled(harness))),
        None if frame.action == "release" => {
            Action::Release { name: agent_name(frame, &input), reason: text(&input, &["reason"]) }
        }
        _ => Action::Other { name: frame.action.clone(), input: frame.input.get().to_owned() },
    }
}

fn spawn(frame: &ActionInvoke, input: &Map<String, Value>, harness: Option<String>) -> InvokedSpawn {
    let harness_config =
        ["harnessConfig", "harness_config"].iter().find_map(|key| input.get(*key)?.as_object());
    InvokedSpawn {
        name: agent_name(frame, input),
        agent_id: frame.agent_id.clone(),
        cli: text(input, &["cli", "command", "provider"]).or_else(|| harness.clone()),
        harness,
        task: text(input, &["task", "initial_task", "prompt"]),
        channels: channels(input),
        model: text(input, &["model"]),
        cwd: text(input, &["cwd"]),
        session_ref: text(input, &["session_ref", "sessionRef"])
            .or_else(|| text(harness_config?, &["session_id", "sessionId"])),
        input: frame.input.get().to_owned(),
    }
}

/// The first that is filled of: the frame's `agent_name`; `name`, `agent_name` and `agent` of the input;
/// the same inside an `agent` object; the frame's `agent_id`.
fn agent_name(frame: &ActionInvoke, input: &Map<String, Value>) -> Option<String> {
    const KEYS: [&str; 3] = ["name", "agent_name", "agent"];
    frame
        .agent_name
        .as_deref()
        .and_then(filled)
        .or_else(|| text(input, &KEYS))
        .or_else(|| text(input.get("agent")?.as_object()?, &KEYS))
        .or_else(|| filled(frame.agent_id.as_ref()?.as_str()))
}

/// The most channels that one spawn may name. What a frame has room for would keep the house busy for minutes.
const CHANNELS_MAX: usize = 64;

/// `channel`, then `channels`, without a leading `#` and without repeats, the first [`CHANNELS_MAX`] of them.
fn channels(input: &Map<String, Value>) -> Vec<String> {
    let one = input.get("channel").into_iter();
    let many = input.get("channels").and_then(Value::as_array).into_iter().flatten();
    let mut channels = Vec::new();
    for channel in one.chain(many).filter_map(Value::as_str) {
        if channels.len() == CHANNELS_MAX {
            break;
        }
        if let Some(channel) = filled(channel.trim().trim_start_matches('#'))
            && !channels.contains(&channel)
        {
            channels.push(channel);
        }
    }
    channels
}

fn text(object: &Map<String, Value>, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| object.get(*key)?.as_str().and_then(filled))
}

fn filled(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::frames::EngineFrame;

    fn asked(action: &str, input: &Value, rest: &[(&str, &str)]) -> Action {
        let mut frame = json!({
            "v": 1, "type": "action.invoke", "invocation_id": "inv_1", "action": action, "input": input
        });
        for (key, value) in rest {
            frame[*key] = json!(value);
        }
        match EngineFrame::decode_tolerant(&frame.to_string()).unwrap() {
            EngineFrame::ActionInvoke(frame) => super::action(&frame),
            other => panic!("not an invocation: {other:?}"),
        }
    }

    fn spawn(action: &str, input: &Value, rest: &[(&str, &str)]) -> InvokedSpawn {
        match asked(action, input, rest) {
            Action::Spawn(spawn) => spawn,
            other => panic!("not a spawn: {other:?}"),
        }
    }

    #[test]
    fn a_frame_full_of_channels_names_no_more_than_a_program_can_join() {
        let channels: Vec<_> = (0..100_000).map(|n| format!("c{n}")).collect();
        let named = spawn("spawn", &json!({"name": "a", "channels": channels}), &[]).channels;
        assert_eq!(named, channels[..CHANNELS_MAX]);
    }

    #[test]
    fn the_name_is_the_first_filled_one_in_the_order_of_the_contract() {
        let all = json!({
            "name": "by-name", "agent_name": "by-agent-name",
            "agent": {"name": "nested-name", "agent_name": "nested-agent-name", "agent": "nested-agent"}
        });
        let frame = [("agent_name", "by-frame"), ("agent_id", "77")];
        let name = |input: &Value, rest: &[(&str, &str)]| spawn("spawn", input, rest).name.unwrap();
        assert_eq!(name(&all, &frame), "by-frame");
        assert_eq!(name(&all, &[("agent_name", "  "), ("agent_id", "77")]), "by-name");

        let mut input = all;
        for (blanked, next) in [("name", "by-agent-name"), ("agent_name", "nested-name")] {
            input[blanked] = json!(" ");
            assert_eq!(name(&input, &frame[1..]), next);
        }
        for (blanked, next) in
            [("name", "nested-agent-name"), ("agent_name", "nested-agent"), ("agent", "77")]
        {
            input["agent"][blanked] = json!("");
            assert_eq!(name(&input, &frame[1..]), next);
        }
        assert_eq!(name(&json!({"agent": "plain"}), &frame[1..]), "plain");
        assert_eq!(spawn("spawn", &input, &[]).name, None);
    }

    #[test]
    fn the_suffix_of_the_action_is_the_harness_and_stands_in_for_a_missing_cli() {
        let bare = spawn("spawn:otter", &json!({"name": "a"}), &[]);
        assert_eq!((bare.cli.as_deref(), bare.harness.as_deref()), (Some("otter"), Some("otter")));
        let named = spawn("spawn:otter", &json!({"name": "a", "command": " heron --fast "}), &[]);
        assert_eq!((named.cli.as_deref(), named.harness.as_deref()), (Some("heron --fast"), Some("otter")));
        for (action, input) in [("spawn", json!({})), ("spawn:", json!({"cli": " "})), ("spawn: ", json!([]))]
        {
            let neither = spawn(action, &input, &[]);
            assert_eq!((neither.cli, neither.harness), (None, None), "{action}");
        }
    }

    #[test]
    fn a_spawn_takes_every_wording_of_its_fields() {
        let input = json!({
            "provider": "otter", "initial_task": " dig ", "channel": "#reef", "channels": ["reef", "delta", 7],
            "model": "m-1", "cwd": "/srv", "harnessConfig": {"session_id": "s-1"}
        });
        let spawned = spawn("spawn", &input, &[]);
        assert_eq!(spawned.cli.as_deref(), Some("otter"));
        assert_eq!(spawned.task.as_deref(), Some("dig"));
        assert_eq!(spawned.channels, ["reef", "delta"]);
        assert_eq!(spawned.model.as_deref(), Some("m-1"));
        assert_eq!(spawned.cwd.as_deref(), Some("/srv"));
        assert_eq!(spawned.session_ref, Some("s-1".to_owned()));

        let explicit =
            json!({"sessionRef": "s-2", "harness_config": {"session_id": "s-1"}, "prompt": "swim"});
        let spawned = spawn("spawn", &explicit, &[]);
        assert_eq!(spawned.session_ref, Some("s-2".to_owned()));
        assert_eq!(spawned.task.as_deref(), Some("swim"));
    }

    #[test]
    fn a_release_without_a_name_is_still_a_release() {
        assert_eq!(
            asked("release", &json!({"name": "a", "reason": "done"}), &[]),
            Action::Release { name: Some("a".into()), reason: Some("done".into()) }
        );
        assert_eq!(asked("release", &Value::Null, &[]), Action::Release { name: None, reason: None });
    }

    #[test]
    fn an_action_that_only_resembles_ours_is_another_one_with_its_input_as_it_came() {
        for other in ["spawner", "Spawn", "release:now", "respawn:otter", "tide.table", ""] {
            let wanted = Action::Other { name: other.to_owned(), input: r#"{"name":7}"#.to_owned() };
            assert_eq!(asked(other, &json!({"name": 7}), &[]), wanted);
        }
    }
}
