//! What a `deliver` frame says, as the note an agent is shown (spec/wire 5.5 and 5.6).

use serde_json::{Value, value::RawValue};

use crate::{ids::MsgId, messages::delivery::Content, messages::delivery::Note};

/// Classifies a payload and takes the note out of it. `agent` is the recipient's name.
pub fn content(payload: &RawValue, agent: &str, msg_id: &MsgId) -> Content {
    let Some(payload) = parsed(payload.get()) else {
        return Content::Unusable("the payload cannot be read as JSON".to_owned());
    };
    if !payload.is_object() {
        return Content::Unusable("the payload is not an object".to_owned());
    }
    let kind = match payload.get("type") {
        None | Some(Value::Null) => "",
        Some(Value::String(kind)) => kind.as_str(),
        Some(_) => return Content::Unusable("the payload's type is not a string".to_owned()),
    };
    match Class::of(kind) {
        Class::Message => message(&payload, agent, msg_id),
        Class::Outcome => Content::Inject(outcome(&payload, kind, agent, msg_id)),
        Class::Receipt => Content::AckOnly(kind.to_owned()),
        Class::Unknown => Content::Unusable(format!("unknown payload type `{}`", shortened(kind))),
    }
}

/// What a payload type is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Somebody says something.
    Message,
    /// An action that the agent called has ended.
    Outcome,
    /// Receipts and reactions.
    Receipt,
    /// Anything else.
    Unknown,
}

impl Class {
    fn of(kind: &str) -> Self {
        match kind {
            // A payload without a type is a message in the oldest, flat form.
            ""
            | "message.created"
            | "message.received"
            | "message.new"
            | "message.sent"
            | "message.delivered"
            | "thread.reply"
            | "thread.message.created"
            | "thread.message.sent"
            | "dm.received"
            | "dm.created"
            | "dm.new"
            | "dm.sent"
            | "dm.message.created"
            | "direct_message.received"
            | "direct_message.created"
            | "direct_message.new"
            | "direct_message.sent"
            | "group_dm.received"
            | "group_dm.created"
            | "group_dm.new"
            | "group_dm.sent"
            | "group_dm.message.created" => Self::Message,
            "action.completed" | "action.failed" | "action.denied" => Self::Outcome,
            "message.reacted" | "message.read" => Self::Receipt,
            _ => Self::Unknown,
        }
    }
}

fn message(payload: &Value, agent: &str, msg_id: &MsgId) -> Content {
    let body = first(
        payload,
        &["/data/text", "/data/message/text", "/text", "/body", "/content", "/message/text", "/payload/text"],
    )
    .map(str::to_owned)
    .or_else(|| attachments_alone(payload));
    match body {
        Some(body) => Content::Inject(note(payload, sender(payload), body, agent, msg_id)),
        // Showing the raw JSON instead would put words into the sender's mouth.
        None => Content::Unusable("the message has no text".to_owned()),
    }
}

fn sender(payload: &Value) -> String {
    first(
        payload,
        &[
            "/data/agent_name",
            "/data/from_name",
            "/data/message/agent_name",
            "/from",
            "/sender",
            "/author",
            "/message/agent_name",
            "/message/from",
            "/payload/from",
            // An id is a poor name, and better than none.
            "/data/from_agent_id",
            "/data/agent_id",
            "/data/message/agent_id",
        ],
    )
    .unwrap_or("unknown sender")
    .to_owned()
}

/// The result of an action: exactly its output, else its error; else what there is.
fn outcome(payload: &Value, kind: &str, agent: &str, msg_id: &MsgId) -> Note {
    let body = ["/data/output", "/data/error", "/data/text", "/data", ""]
        .iter()
        .filter_map(|pointer| payload.pointer(pointer))
        .map(rendered)
        .find(|body| !body.trim().is_empty())
        .unwrap_or_default();
    let action = first(payload, &["/data/action_name", "/data/invocation_id"]).unwrap_or("unnamed");
    let how = kind.trim_start_matches("action.");
    let from = format!("action {action} {how}");
    Note { system: true, ..note(payload, from, body, agent, msg_id) }
}

fn note(payload: &Value, from: String, body: String, agent: &str, msg_id: &MsgId) -> Note {
    Note {
        from,
        target: target(payload).unwrap_or_else(|| agent.to_owned()),
        thread: first(payload, &["/data/thread_id", "/thread_id", "/threadId", "/data/parent_id"])
            .map(MsgId::from),
        msg_id: msg_id.clone(),
        body,
        sent_at: first(payload, &["/data/created_at", "/data/message/created_at", "/created_at"])
            .map(str::to_owned),
        system: false,
    }
}

fn target(payload: &Value) -> Option<String> {
    first(payload, &["/target", "/to", "/recipient", "/message/target"]).map(str::to_owned).or_else(|| {
        let channel = first(payload, &["/data/channel_name", "/channel", "/message/channel"])?;
        Some(format!("#{}", channel.trim_start_matches('#')))
    })
}

/// A message may consist of attachments alone.
fn attachments_alone(payload: &Value) -> Option<String> {
    let attached = ["/data/attachments", "/data/message/attachments"]
        .iter()
        .find_map(|pointer| payload.pointer(pointer)?.as_array().filter(|list| !list.is_empty()))?;
    Some(format!("[{} attachment(s), no text]", attached.len()))
}

/// The first string that is not blank.
fn first<'a>(payload: &'a Value, pointers: &[&str]) -> Option<&'a str> {
    pointers
        .iter()
        .find_map(|pointer| payload.pointer(pointer)?.as_str().filter(|text| !text.trim().is_empty()))
}

/// A string as it is, null as nothing, any other value as compact JSON.
fn rendered(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn shortened(kind: &str) -> String {
    kind.chars().take(64).collect()
}

fn parsed(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().or_else(|| serde_json::from_str(&mended(text)).ok())
}

/// JavaScript cuts strings between the halves of a surrogate pair and writes the half that is left as an
/// escape, which is no Unicode: such a half becomes U+FFFD, so that the rest of the message is not lost.
fn mended(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        let taken = match (surrogate(escape), escape.get(6..).and_then(surrogate)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(_), _) => {
                out.push('\u{FFFD}');
                rest = escape.get(6..).unwrap_or_default();
                continue;
            }
            // Any other escape: the backslash and the character after it.
            (None, _) => 1 + escape.chars().nth(1).map_or(0, char::len_utf8),
        };
        let (kept, after) = escape.split_at(taken);
        out.push_str(kept);
        rest = after;
    }
    out + rest
}

/// The surrogate that an escape at the beginning of the text stands for.
fn surrogate(text: &str) -> Option<u16> {
    let hex = text.strip_prefix("\\u")?.get(..4)?;
    let unit = u16::from_str_radix(hex, 16).ok()?;
    (0xD800..=0xDFFF).contains(&unit).then_some(unit)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(payload: &Value) -> Content {
        read_text(&payload.to_string())
    }

    fn read_text(payload: &str) -> Content {
        content(&RawValue::from_string(payload.to_owned()).unwrap(), "otter-1", &MsgId::from("m-1"))
    }

    fn note(payload: &Value) -> Note {
        match read(payload) {
            Content::Inject(note) => note,
            other => panic!("not injected: {other:?}"),
        }
    }

    #[test]
    fn every_alias_of_a_message_is_injected() {
        let aliases = [
            ("message", &["created", "received", "new", "sent", "delivered"][..]),
            ("thread", &["reply", "message.created", "message.sent"]),
            ("dm", &["received", "created", "new", "sent", "message.created"]),
            ("direct_message", &["received", "created", "new", "sent"]),
            ("group_dm", &["received", "created", "new", "sent", "message.created"]),
        ];
        let mut count = 0;
        for (family, ways) in aliases {
            for way in ways {
                count += 1;
                let kind = format!("{family}.{way}");
                let note = note(&json!({"type": kind, "data": {"text": "hi", "agent_name": "keeper"}}));
                assert_eq!(
                    (note.body.as_str(), note.from.as_str(), note.system),
                    ("hi", "keeper", false),
                    "{kind}"
                );
            }
        }
        assert_eq!(count, 22);
        for untyped in
            [json!({"text": "hi"}), json!({"type": "", "text": "hi"}), json!({"type": null, "text": "hi"})]
        {
            assert_eq!(note(&untyped).body, "hi");
        }
    }

    #[test]
    fn receipts_are_acked_and_what_is_unknown_says_so() {
        for kind in ["message.reacted", "message.read"] {
            assert_eq!(
                read(&json!({"type": kind, "data": {"text": "x"}})),
                Content::AckOnly(kind.to_owned())
            );
        }
        for unusable in [
            json!({"type": "message.deleted", "data": {"text": "x"}}),
            json!({"type": "Message.Created", "data": {"text": "x"}}),
            json!({"type": 7, "text": "x"}),
            json!({"type": "message.created", "data": {"agent_name": "keeper"}}),
            json!({"type": "message.created", "data": {"text": " \n"}}),
            json!("x"),
            json!(["x"]),
            Value::Null,
        ] {
            assert!(matches!(read(&unusable), Content::Unusable(_)), "{unusable}");
        }
    }

    #[test]
    fn nested_fields_win_over_flat_ones_and_flat_ones_are_used_alone() {
        let flat = json!({"text": "flat", "from": "f", "channel": "kelp", "thread_id": "t-1"});
        let read = note(&flat);
        assert_eq!((read.body.as_str(), read.from.as_str(), read.target.as_str()), ("flat", "f", "#kelp"));
        assert_eq!(read.thread, Some("t-1".into()));

        let mut both = flat;
        both["data"] =
            json!({"text": "nested", "agent_name": "n", "channel_name": "reef", "thread_id": "t-2"});
        let read = note(&both);
        assert_eq!((read.body.as_str(), read.from.as_str(), read.target.as_str()), ("nested", "n", "#reef"));
        assert_eq!(read.thread, Some("t-2".into()));
    }

    #[test]
    fn a_field_is_found_wherever_the_contract_allows_it() {
        let at = |pointer: &str, value: Value| {
            pointer.rsplit('/').filter(|key| !key.is_empty()).fold(value, |inner, key| json!({key: inner}))
        };
        let with = |pointer: &str| {
            let mut payload = at(pointer, json!("found"));
            if payload.pointer("/text").is_none() && payload.get("body").is_none() {
                payload["body"] = json!("b");
            }
            note(&payload)
        };
        for pointer in [
            "/data/text",
            "/data/message/text",
            "/text",
            "/body",
            "/content",
            "/message/text",
            "/payload/text",
        ] {
            assert_eq!(note(&at(pointer, json!("found"))).body, "found", "{pointer}");
        }
        for pointer in [
            "/data/agent_name",
            "/data/from_name",
            "/data/message/agent_name",
            "/from",
            "/sender",
            "/author",
            "/message/agent_name",
            "/message/from",
            "/payload/from",
            "/data/from_agent_id",
        ] {
            assert_eq!(with(pointer).from, "found", "{pointer}");
        }
        for pointer in ["/target", "/to", "/recipient", "/message/target"] {
            assert_eq!(with(pointer).target, "found", "{pointer}");
        }
        for pointer in ["/data/channel_name", "/channel", "/message/channel"] {
            assert_eq!(with(pointer).target, "#found", "{pointer}");
        }
        for pointer in ["/data/thread_id", "/thread_id", "/threadId", "/data/parent_id"] {
            assert_eq!(with(pointer).thread, Some("found".into()), "{pointer}");
        }
        for pointer in ["/data/created_at", "/data/message/created_at", "/created_at"] {
            assert_eq!(with(pointer).sent_at.as_deref(), Some("found"), "{pointer}");
        }
    }

    #[test]
    fn a_channel_has_one_hash_and_a_direct_message_goes_to_its_reader() {
        for channel in ["kelp", "#kelp", "##kelp"] {
            assert_eq!(note(&json!({"data": {"text": "x", "channel_name": channel}})).target, "#kelp");
        }
        assert_eq!(note(&json!({"type": "dm.received", "data": {"text": "x"}})).target, "otter-1");
    }

    #[test]
    fn a_message_never_shows_raw_json_nor_speaks_as_the_engine() {
        let nameless = note(&json!({"type": "message.created", "data": {"text": "x"}}));
        assert_eq!(nameless.from, "unknown sender");
        let silent = json!({"type": "message.created", "data": {"agent_name": "keeper", "output": {"a": 1}}});
        assert!(matches!(read(&silent), Content::Unusable(_)));
        let attached =
            json!({"type": "message.created", "data": {"text": "", "attachments": ["f-1", "f-2"]}});
        assert_eq!(note(&attached).body, "[2 attachment(s), no text]");
    }

    #[test]
    fn the_result_of_an_action_is_exactly_its_value() {
        for (output, body) in [
            (json!({"low": "16:00", "at": [1, 2]}), r#"{"at":[1,2],"low":"16:00"}"#),
            (json!([1, "two", null]), r#"[1,"two",null]"#),
            (json!(7.5), "7.5"),
            (json!(false), "false"),
            (json!("plain"), "plain"),
        ] {
            for (kind, key) in
                [("action.completed", "output"), ("action.failed", "error"), ("action.denied", "error")]
            {
                let mut payload = json!({"type": kind, "data": {"action_name": "tide", "output": null}});
                payload["data"][key] = output.clone();
                let note = note(&payload);
                assert_eq!(note.body, body, "{kind}");
                assert_eq!(note.from, format!("action tide {}", &kind[7..]));
                assert!(note.system);
                assert_eq!(note.target, "otter-1");
            }
        }
    }

    #[test]
    fn a_result_without_a_value_falls_back_to_its_data_and_then_to_the_payload() {
        let bare =
            note(&json!({"type": "action.completed", "data": {"action_name": "tide", "output": null}}));
        assert_eq!(bare.body, r#"{"action_name":"tide","output":null}"#);
        let empty = note(&json!({"type": "action.completed"}));
        assert_eq!(empty.body, r#"{"type":"action.completed"}"#);
        assert_eq!(empty.from, "action unnamed completed");
    }

    #[test]
    fn half_a_surrogate_pair_costs_one_character_and_not_the_message() {
        for (escaped, shown) in [
            (r"cut \ud83d here", "cut \u{FFFD} here"),
            (r"cut \ude00", "cut \u{FFFD}"),
            (r"\ud83d\ud83d\ude00", "\u{FFFD}\u{1F600}"),
            (r"whole \ud83d\ude00 \ud83d", "whole \u{1F600} \u{FFFD}"),
            (r"\\ud83d is text, \ud83d is not", "\\ud83d is text, \u{FFFD} is not"),
            (r"\ud83dé", "\u{FFFD}é"),
        ] {
            match read_text(&format!(r#"{{"text":"{escaped}"}}"#)) {
                Content::Inject(note) => assert_eq!(note.body, shown),
                other => panic!("{escaped}: {other:?}"),
            }
        }
    }
}
