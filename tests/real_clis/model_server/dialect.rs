//! What each API calls the user's texts, its tools and their answers, and what it takes for an answer.

use std::{
    io::{self, Write},
    net::TcpStream,
};

use serde_json::{Value, json};

use super::{Asked, Reply};

/// What every turn is answered with that calls no tool.
const ANSWER: &str = "Understood.";
/// The model's name.
const MODEL: &str = "fake";

/// One of the APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenAI responses.
    Responses,
    /// OpenAI chat completions.
    Chat,
    /// Gemini.
    Gemini,
    /// Anthropic messages.
    Messages,
}

/// An event of a stream; only some APIs name theirs.
pub(super) struct Event {
    name: Option<&'static str>,
    data: String,
}

impl Event {
    fn of(data: &Value) -> Self {
        Self { name: None, data: data.to_string() }
    }

    /// Its name stands in its data as well.
    fn named(name: &'static str, mut data: Value) -> Self {
        data["type"] = json!(name);
        Self { name: Some(name), data: data.to_string() }
    }

    pub(super) fn write(&self, stream: &mut TcpStream) -> io::Result<()> {
        if let Some(name) = self.name {
            writeln!(stream, "event: {name}")?;
        }
        write!(stream, "data: {}\n\n", self.data)
    }
}

impl Dialect {
    /// The API of this path, if it asks a model for words.
    pub(super) fn of(path: &str) -> Option<Self> {
        let ends = |with| path.ends_with(with);
        match () {
            () if ends("/responses") => Some(Self::Responses),
            () if ends("/chat/completions") => Some(Self::Chat),
            () if ends(":streamGenerateContent") || ends(":generateContent") => Some(Self::Gemini),
            () if ends("/messages") => Some(Self::Messages),
            () => None,
        }
    }

    /// True when the answer comes in pieces.
    pub(super) fn is_streamed(self, path: &str, body: &Value) -> bool {
        match self {
            Self::Responses => true,
            Self::Chat | Self::Messages => body["stream"] == true,
            Self::Gemini => path.ends_with(":streamGenerateContent"),
        }
    }

    /// True for a turn of the user's. Without tools it is none: the CLI asks for a title.
    pub(super) fn is_turn(self, body: &Value) -> bool {
        self == Self::Gemini || body["tools"].as_array().is_some_and(|tools| !tools.is_empty())
    }

    /// What stands in a request for a turn.
    pub(super) fn asked(self, body: &Value) -> Asked {
        let (list, content) = match self {
            Self::Responses => ("input", "content"),
            Self::Chat | Self::Messages => ("messages", "content"),
            Self::Gemini => ("contents", "parts"),
        };
        let items = || body[list].as_array().into_iter().flatten();
        let users = items().filter(|item| item["role"] == "user").map(|item| texts(&item[content]));
        let parts = || items().filter_map(|item| item[content].as_array()).flatten();
        let results = match self {
            Self::Responses => {
                let outputs = items().filter(|item| item["type"].as_str().unwrap_or("").ends_with("_output"));
                outputs.map(|item| plain(&item["output"])).collect()
            }
            Self::Chat => {
                items().filter(|item| item["role"] == "tool").map(|item| plain(&item["content"])).collect()
            }
            Self::Gemini => {
                let responses = parts().filter(|part| part["functionResponse"].is_object());
                responses.map(|part| plain(&part["functionResponse"]["response"])).collect()
            }
            Self::Messages => {
                let answers = parts().filter(|part| part["type"] == "tool_result");
                answers.map(|part| plain(&part["content"])).collect()
            }
        };
        Asked { texts: users.flatten().collect(), tools: self.tools(body), results }
    }

    fn tools(self, body: &Value) -> Vec<String> {
        let tools = body["tools"].as_array().into_iter().flatten();
        let named = |tool: &Value| tool["name"].as_str().map(str::to_owned);
        match self {
            Self::Chat => tools.filter_map(|tool| named(&tool["function"])).collect(),
            Self::Gemini => {
                let lists = tools.filter_map(|tool| tool["functionDeclarations"].as_array());
                lists.flatten().filter_map(named).collect()
            }
            Self::Responses => {
                let names = |tool: &Value| {
                    let (own, inner) = (named(tool), tool["tools"].as_array());
                    let inner = inner.into_iter().flatten().filter_map(named);
                    match (own, tool["type"] == "namespace") {
                        (Some(space), true) => inner.map(|name| format!("{space}.{name}")).collect(),
                        (own, _) => own.into_iter().collect::<Vec<_>>(),
                    }
                };
                tools.flat_map(names).collect()
            }
            Self::Messages => tools.filter_map(named).collect(),
        }
    }

    /// An answer in pieces.
    pub(super) fn streamed(self, reply: &Reply) -> Vec<Event> {
        match self {
            Self::Responses => responses(reply),
            Self::Chat => chat(reply),
            Self::Gemini => vec![Event::of(&candidate(&match reply {
                Reply::Text => json!({ "text": ANSWER }),
                Reply::Call { id, tool, arguments } => {
                    json!({ "functionCall": { "id": id, "name": tool, "args": arguments } })
                }
            }))],
            Self::Messages => messages(reply),
        }
    }

    /// An answer in one piece; none of these calls a tool.
    pub(super) fn whole(self) -> Value {
        match self {
            // What it asks beside the turn wants an object.
            Self::Gemini => candidate(&json!({ "text": r#"{"reasoning":"done","next_speaker":"user"}"# })),
            Self::Messages => {
                let mut message = message();
                message["content"] = json!([{ "type": "text", "text": ANSWER }]);
                message["stop_reason"] = json!("end_turn");
                message
            }
            Self::Responses | Self::Chat => json!({
                "id": "chat_1", "object": "chat.completion", "created": 1, "model": MODEL,
                "choices": [{
                    "index": 0, "message": { "role": "assistant", "content": ANSWER }, "finish_reason": "stop",
                }],
                "usage": { "prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12 },
            }),
        }
    }
}

/// A text, or those of its parts.
fn texts(content: &Value) -> Vec<String> {
    match content {
        Value::String(text) => vec![text.clone()],
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// What a tool answered: its words, or whatever else it is.
fn plain(answer: &Value) -> String {
    let texts = texts(answer);
    if texts.is_empty() { answer.to_string() } else { texts.concat() }
}

fn responses(reply: &Reply) -> Vec<Event> {
    let item = match reply {
        Reply::Text => json!({
            "type": "message", "role": "assistant", "id": "msg_1",
            "content": [{ "type": "output_text", "text": ANSWER, "annotations": [] }],
        }),
        Reply::Call { id, tool, arguments } => {
            let (space, name) = tool.split_once('.').unzip();
            let mut call = json!({
                "type": "function_call", "id": format!("fc_{id}"), "call_id": id,
                "name": name.unwrap_or(tool), "arguments": arguments.to_string(),
            });
            if let Some(space) = space {
                call["namespace"] = json!(space);
            }
            call
        }
    };
    let usage = json!({
        "input_tokens": 10, "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": 2, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 12,
    });
    let completed = json!({ "response": { "id": "resp_1", "output": [], "usage": usage } });
    vec![
        Event::named("response.created", json!({ "response": { "id": "resp_1" } })),
        Event::named("response.output_item.done", json!({ "output_index": 0, "item": item })),
        Event::named("response.completed", completed),
    ]
}

fn chat(reply: &Reply) -> Vec<Event> {
    let chunk = |delta: Value, finish: Value| {
        Event::of(&json!({
            "id": "chat_1", "object": "chat.completion.chunk", "created": 1, "model": MODEL,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        }))
    };
    let (delta, finish) = match reply {
        Reply::Text => (json!({ "role": "assistant", "content": ANSWER }), "stop"),
        Reply::Call { id, tool, arguments } => {
            let function = json!({ "name": tool, "arguments": arguments.to_string() });
            let call = json!({ "index": 0, "id": id, "type": "function", "function": function });
            (json!({ "role": "assistant", "tool_calls": [call] }), "tool_calls")
        }
    };
    vec![
        chunk(delta, Value::Null),
        chunk(json!({}), json!(finish)),
        Event { name: None, data: "[DONE]".to_owned() },
    ]
}

fn candidate(part: &Value) -> Value {
    json!({
        "candidates": [{
            "content": { "role": "model", "parts": [part] }, "finishReason": "STOP", "index": 0,
        }],
        "usageMetadata": { "promptTokenCount": 10, "candidatesTokenCount": 2, "totalTokenCount": 12 },
    })
}

/// A message that says nothing yet.
fn message() -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": { "input_tokens": 10, "output_tokens": 1 },
    })
}

fn messages(reply: &Reply) -> Vec<Event> {
    let (block, delta, stop) = match reply {
        Reply::Text => (
            json!({ "type": "text", "text": "" }),
            json!({ "type": "text_delta", "text": ANSWER }),
            "end_turn",
        ),
        Reply::Call { id, tool, arguments } => (
            json!({ "type": "tool_use", "id": id, "name": tool, "input": {} }),
            json!({ "type": "input_json_delta", "partial_json": arguments.to_string() }),
            "tool_use",
        ),
    };
    let ended = json!({ "stop_reason": stop, "stop_sequence": null });
    vec![
        Event::named("message_start", json!({ "message": message() })),
        Event::named("content_block_start", json!({ "index": 0, "content_block": block })),
        Event::named("content_block_delta", json!({ "index": 0, "delta": delta })),
        Event::named("content_block_stop", json!({ "index": 0 })),
        Event::named("message_delta", json!({ "delta": ended, "usage": { "output_tokens": 2 } })),
        Event::named("message_stop", json!({})),
    ]
}
