//! What a sidecar says, and what it is told: upstream's words, version 2 (spec/api 2.7).

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    http::{
        agents::{InputBody, ReleaseBody, SendBody},
        channels::ChannelsBody,
        error::ApiError,
        spawn_body::SpawnBody,
    },
    ids::InvocationId,
    messages::sidecar::{Call, HandlerSpec, Manifest},
};
use actix_web::http::StatusCode;

/// The version of the envelope, and what `hello` is answered.
pub(super) const VERSION: u64 = 2;

/// Around everything that is said, both ways.
#[derive(Deserialize)]
struct Envelope<'a> {
    v: u64,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    request_id: Option<String>,
    #[serde(default, borrow)]
    payload: Option<&'a RawValue>,
}

/// What a sidecar asks for.
pub(super) enum Request {
    Hello,
    RegisterNode(Box<RegisterNode>),
    RegisterHandlers(RegisterHandlers),
    HandlerResult(HandlerResult),
    SpawnAgent(Box<SpawnAgent>),
    SendMessage(SendBody),
    SendInput(Named<InputBody>),
    ReleaseAgent(Named<ReleaseBody>),
    SubscribeChannels(Named<ChannelsBody>),
    UnsubscribeChannels(Named<ChannelsBody>),
    ListAgents,
    Shutdown,
    DeregisterNode,
}

#[derive(Deserialize)]
pub(super) struct RegisterNode {
    manifest: ManifestBody,
    /// How upstream's broker would start it again. We start nothing for a sidecar, and say so.
    #[serde(default)]
    pub(super) supervision: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct ManifestBody {
    name: String,
    #[serde(default)]
    capabilities: Vec<CapabilityBody>,
    #[serde(default)]
    max_agents: Option<u32>,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct CapabilityBody {
    name: String,
    #[serde(default)]
    metadata: Option<serde_json::Map<String, Value>>,
}

impl RegisterNode {
    pub(super) fn manifest(self) -> Manifest {
        let ManifestBody { name, capabilities, max_agents, tags } = self.manifest;
        let handler = |body: CapabilityBody| HandlerSpec {
            name: body.name,
            metadata: body.metadata.map(|metadata| Value::Object(metadata).to_string()),
        };
        Manifest { name, handlers: capabilities.into_iter().map(handler).collect(), max_agents, tags }
    }
}

#[derive(Deserialize)]
pub(super) struct RegisterHandlers {
    pub(super) names: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct HandlerResult {
    pub(super) invocation_id: InvocationId,
    #[serde(default)]
    output: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<String>,
}

impl HandlerResult {
    /// The output as JSON, or the error.
    ///
    /// # Errors
    /// 400 for both at once.
    pub(super) fn outcome(self) -> Result<Result<String, String>, ApiError> {
        match (self.output, self.error) {
            (Some(_), Some(_)) => Err(ApiError::invalid("give `output` or `error`, not both")),
            (None, Some(error)) => Ok(Err(error)),
            (Some(output), None) => Ok(Ok(output.get().to_owned())),
            (None, None) => Ok(Ok("null".to_owned())),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct SpawnAgent {
    pub(super) agent: SpawnBody,
    #[serde(default)]
    pub(super) initial_task: Option<String>,
    /// Of the call that it is for, if it is for one.
    #[serde(default)]
    pub(super) invocation_id: Option<InvocationId>,
}

/// An agent's name and what a route of that name has in its body.
#[derive(Deserialize)]
pub(super) struct Named<T> {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) body: T,
}

/// A frame of a sidecar.
pub(super) struct Asked {
    /// Repeated in the answer.
    pub(super) id: Option<String>,
    pub(super) request: Result<Request, ApiError>,
}

impl Asked {
    pub(super) fn read(text: &str) -> Self {
        match serde_json::from_str(text) {
            Ok(Envelope { v, kind, request_id, payload }) => {
                let payload = payload.map_or("{}", RawValue::get);
                Self { id: request_id, request: version(v).and_then(|()| request(&kind, payload)) }
            }
            Err(error) => {
                let message = format!("a frame is {{v:2,type,request_id?,payload}} as JSON: {error}");
                Self { id: None, request: Err(bad("invalid_frame", message)) }
            }
        }
    }
}

fn version(v: u64) -> Result<(), ApiError> {
    if v == VERSION {
        return Ok(());
    }
    Err(bad("unsupported_version", format!("version {v} of the protocol is not spoken here, only {VERSION}")))
}

fn request(kind: &str, payload: &str) -> Result<Request, ApiError> {
    fn of<'a, T: Deserialize<'a>>(payload: &'a str) -> Result<T, ApiError> {
        serde_json::from_str(payload).map_err(|error| ApiError::invalid(format!("payload: {error}")))
    }
    Ok(match kind {
        "hello" => Request::Hello,
        "register_node" => Request::RegisterNode(of(payload)?),
        "register_handlers" => Request::RegisterHandlers(of(payload)?),
        "handler_result" => Request::HandlerResult(of(payload)?),
        "spawn_agent" => Request::SpawnAgent(of(payload)?),
        "send_message" => Request::SendMessage(of(payload)?),
        "send_input" => Request::SendInput(of(payload)?),
        "release_agent" => Request::ReleaseAgent(of(payload)?),
        "subscribe_channels" => Request::SubscribeChannels(of(payload)?),
        "unsubscribe_channels" => Request::UnsubscribeChannels(of(payload)?),
        "list_agents" => Request::ListAgents,
        "shutdown" => Request::Shutdown,
        "deregister_node" => Request::DeregisterNode,
        other => {
            let shown: String = other.chars().take(64).collect();
            return Err(bad("unknown_type", format!("no request `{}` is known", shown.escape_debug())));
        }
    })
}

fn bad(code: &'static str, message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, code, message)
}

/// What we say.
#[derive(Serialize)]
struct Said<'a, T> {
    v: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    payload: T,
}

fn say(kind: &'static str, request_id: Option<&str>, payload: impl Serialize) -> String {
    // Strings and values always serialise.
    serde_json::to_string(&Said { v: VERSION, kind, request_id, payload }).unwrap_or_default()
}

/// The answer to a request.
pub(super) fn answer(id: Option<&str>, answer: &Result<Value, ApiError>) -> String {
    match answer {
        Ok(result) => say("ok", id, serde_json::json!({ "result": result })),
        Err(error) => say("error", id, error.as_payload()),
    }
}

/// A call.
pub(super) fn invoke(call: &Call) -> String {
    #[derive(Serialize)]
    struct Invoke<'a> {
        invocation_id: &'a InvocationId,
        name: &'a str,
        input: Option<&'a RawValue>,
    }
    // It was taken out of the engine's frame as it stood there.
    let input = serde_json::from_str(&call.input).ok();
    say("invoke_handler", None, Invoke { invocation_id: &call.invocation, name: &call.handler, input })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(frame: &Value) -> String {
        match Asked::read(&frame.to_string()).request {
            Ok(_) => panic!("{frame} is taken"),
            Err(error) => error.code().to_owned(),
        }
    }

    #[test]
    fn every_request_is_read_with_its_id_and_whatever_else_is_in_it() {
        for (kind, payload) in [
            ("hello", json!({"client_name": "x", "client_version": "1"})),
            ("hello", json!(null)),
            (
                "register_node",
                json!({"manifest": {"name": "n", "capabilities": [{"name": "e", "kind": "action"}], "version": "1"}}),
            ),
            ("register_handlers", json!({"names": ["e"]})),
            ("handler_result", json!({"invocation_id": "inv_1", "output": null})),
            (
                "spawn_agent",
                json!({"agent": {"name": "a", "runtime": "pty", "cli": "cat"}, "skip_relay_prompt": false}),
            ),
            ("send_message", json!({"to": "#general", "text": "x", "from": "n", "data": {}})),
            ("send_input", json!({"name": "a", "data": "x"})),
            ("release_agent", json!({"name": "a"})),
            ("subscribe_channels", json!({"name": "a", "channels": ["x"]})),
            ("unsubscribe_channels", json!({"name": "a", "channels": ["x"]})),
            ("list_agents", json!({})),
            ("shutdown", json!({})),
            ("deregister_node", json!({})),
        ] {
            let frame = json!({"v": 2, "type": kind, "request_id": "r1", "payload": payload, "more": 1});
            let asked = Asked::read(&frame.to_string());
            assert!(asked.request.is_ok(), "{frame}: {}", asked.request.err().unwrap());
            assert_eq!(asked.id.as_deref(), Some("r1"));
        }
        assert!(Asked::read(r#"{"v":2,"type":"list_agents"}"#).request.is_ok(), "a payload may be left out");
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_code() {
        let frame = |v: u64, kind: &str, payload: Value| json!({"v": v, "type": kind, "payload": payload});
        for (asked, code) in [
            (json!([]), "invalid_frame"),
            (json!({"type": "hello"}), "invalid_frame"),
            (frame(1, "hello", json!({})), "unsupported_version"),
            (frame(2, "set_model", json!({})), "unknown_type"),
            (frame(2, "register_node", json!({})), "invalid_request"),
            (frame(2, "register_handlers", json!({"names": "e"})), "invalid_request"),
            (frame(2, "send_input", json!({"name": "a"})), "invalid_request"),
        ] {
            assert_eq!(refusal(&asked), code, "{asked}");
        }
        assert_eq!(refusal(&json!("\u{1b}[2J")), "invalid_frame");
    }

    #[test]
    fn a_result_is_an_output_or_an_error() {
        let outcome = |payload: Value| serde_json::from_value::<HandlerResult>(payload).unwrap().outcome();
        let id = "inv_1";
        assert_eq!(outcome(json!({"invocation_id": id, "output": [1]})), Ok(Ok("[1]".to_owned())));
        assert_eq!(outcome(json!({"invocation_id": id, "output": null})), Ok(Ok("null".to_owned())));
        assert_eq!(outcome(json!({"invocation_id": id, "error": "boom"})), Ok(Err("boom".to_owned())));
        assert!(outcome(json!({"invocation_id": id, "output": 1, "error": "boom"})).is_err());
    }

    #[test]
    fn a_call_carries_its_input_as_it_came() {
        let call = Call { invocation: "inv_1".into(), handler: "echo".into(), input: r#"{"a": 1.0}"#.into() };
        let wanted = r#"{"v":2,"type":"invoke_handler","payload":{"invocation_id":"inv_1","name":"echo","input":{"a": 1.0}}}"#;
        assert_eq!(invoke(&call), wanted);
    }
}
