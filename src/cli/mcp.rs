//! `mcp`: the tools of an agent, as an MCP server on standard input and output.
//!
//! A rule set says how a program is told to start it (docs/harness.md). It runs inside the agent, knows what the
//! agent's environment says and nothing else, and ends with its input. Standard output belongs to the protocol: what
//! there is to log goes to standard error.

use rmcp::{
    ServerHandler, ServiceExt,
    handler::server::{router::tool::ToolRouter, wrapper::Parameters},
    model::{ContentBlock, Implementation, IntoContents, JsonObject, ServerCapabilities, ServerConfig},
    schemars::JsonSchema,
    service::ServerInitializeError,
    tool, tool_handler, tool_router,
    transport::stdio_pipes,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Exit, Failure, agent::Agent, client::block_on};
use crate::{
    config::{Env, env},
    messages::delivery::Mode,
};

/// Agents that are listed by name; more would only fill a model's memory.
const LISTED_MAX: usize = 200;
/// The longest schema that a description repeats, in bytes.
const SCHEMA_MAX: usize = 4 << 10;
/// What a model is told of the whole.
const INSTRUCTIONS: &str = "Messages to you arrive as your user's turns, under a header like `[relay DM from NAME · msg \
                            ID · 14:02]`. What you print reaches nobody: to answer, or to tell somebody something, use \
                            send_message or reply_to_thread.";

/// The server. One for the life of the process.
struct Tools {
    agent: Agent,
    router: ToolRouter<Self>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Message {
    /// An agent's name, or a channel with its #.
    to: String,
    /// The whole message, as it is to be read.
    text: String,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Reply {
    /// What stands after `msg` in the header of the message that is answered.
    message_id: String,
    /// The whole message, as it is to be read.
    text: String,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Submission {
    /// The result.
    // Any JSON is taken; what is shown is an object, since not every model is let use a schema that says nothing.
    #[schemars(with = "JsonObject")]
    data: Value,
}

/// Serves until standard input ends.
pub(super) fn run(env: &Env) -> Result<Exit, Failure> {
    block_on(async {
        let agent = Agent::of(env)?.ok_or_else(|| {
            let said = format!(
                "{} is not set: `mcp` is started by an agent's program, with the agent's environment",
                env::AGENT_TOKEN
            );
            Failure::new(Exit::Config, said)
        })?;
        let tools = Tools::new(agent, env.text(env::RESULT_SCHEMA));
        let serving = match tools.serve(stdio_pipes()).await {
            Ok(serving) => serving,
            Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(Exit::Ok),
            Err(error) => return Err(Failure::new(Exit::Failed, format!("no MCP client: {error}"))),
        };
        match serving.waiting().await {
            Ok(_) => Ok(Exit::Ok),
            Err(error) => Err(Failure::new(Exit::Failed, format!("the MCP server broke: {error}"))),
        }
    })
}

#[tool_router(router = routes)]
impl Tools {
    fn new(agent: Agent, schema: Option<&str>) -> Self {
        let mut router = Self::routes();
        if !agent.has_results() {
            router.remove_route("submit_result");
        }
        if let Some(schema) = schema
            && let Some(route) = router.map.get_mut("submit_result")
        {
            let said = route.attr.description.take().unwrap_or_default();
            route.attr.description = Some(format!("{said} {}", schema_in_words(schema)).into());
        }
        Self { agent, router }
    }

    #[tool(
        description = "Send a message to another agent, or to everybody in a #channel. They read it as a turn of their \
                       own; an answer, if any, reaches you the same way later: do not wait for it.",
        annotations(read_only_hint = false, destructive_hint = false, open_world_hint = false)
    )]
    async fn send_message(&self, Parameters(message): Parameters<Message>) -> Result<String, Failure> {
        let to = message.to.trim();
        if to.is_empty() {
            return Err(Failure::new(Exit::Usage, "`to` is empty; list_agents says who is there"));
        }
        let id = self.agent.send(to, message.text, Mode::Wait).await?;
        Ok(format!("sent to {to} as {id}"))
    }

    #[tool(
        description = "Answer a message in its thread, where everybody who reads its channel or conversation finds it.",
        annotations(read_only_hint = false, destructive_hint = false, open_world_hint = false)
    )]
    async fn reply_to_thread(&self, Parameters(reply): Parameters<Reply>) -> Result<String, Failure> {
        let message = reply.message_id.trim();
        if message.is_empty() {
            return Err(Failure::new(
                Exit::Usage,
                "`message_id` is empty; it stands after `msg` in the header",
            ));
        }
        let id = self.agent.reply(message, reply.text).await?;
        Ok(format!("replied to {message} as {id}"))
    }

    #[tool(
        description = "List who can be sent a message: name, kind and whether they are there.",
        annotations(read_only_hint = true, open_world_hint = false)
    )]
    async fn list_agents(&self) -> Result<String, Failure> {
        let all = self.agent.list().await?;
        let mut lines: Vec<_> = all
            .iter()
            .take(LISTED_MAX)
            .map(|other| {
                let you = if self.agent.is(&other.name) { ", you" } else { "" };
                format!("{} ({}, {}{you})", other.name, other.kind, other.status)
            })
            .collect();
        if all.len() > LISTED_MAX {
            lines.push(format!("and {} more", all.len() - LISTED_MAX));
        }
        Ok(lines.join("\n"))
    }

    #[tool(
        description = "Hand in the result of your task to the program that started you. Only when your task asks for \
                       one, and once; it is no answer to a message.",
        annotations(read_only_hint = false, destructive_hint = false, open_world_hint = false)
    )]
    async fn submit_result(&self, Parameters(result): Parameters<Submission>) -> Result<String, Failure> {
        let id = self.agent.submit(&result.data).await?;
        Ok(format!("handed in as {id}"))
    }
}

#[tool_handler(router = self.router)]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }
}

/// A failure is the tool's answer: a model can do something about it.
impl IntoContents for Failure {
    fn into_contents(self) -> Vec<ContentBlock> {
        self.to_string().into_contents()
    }
}

fn schema_in_words(schema: &str) -> String {
    if schema.len() > SCHEMA_MAX {
        format!("`data` must be as the JSON schema in the environment variable {} says.", env::RESULT_SCHEMA)
    } else {
        format!("`data` must be as this JSON schema says: {schema}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools<const N: usize>(pairs: [(&str, &str); N]) -> Tools {
        let env = Env::from(pairs);
        block_on(async { Tools::new(Agent::of(&env).unwrap().unwrap(), env.text(env::RESULT_SCHEMA)) })
    }

    const TOKEN: (&str, &str) = ("RELAY_AGENT_TOKEN", "at_live_x");
    const ENGINE: (&str, &str) = ("RELAY_BASE_URL", "http://127.0.0.1:9");
    const URL: (&str, &str) = ("AGENT_RELAY_RESULT_URL", "http://127.0.0.1:9/api/agent-result");
    const RESULT_TOKEN: (&str, &str) = ("AGENT_RELAY_RESULT_TOKEN", "ar_x");

    #[test]
    fn a_tool_that_the_agent_cannot_use_is_not_offered() {
        let names = |tools: &Tools| {
            let names: Vec<_> = tools.router.list_all().into_iter().map(|tool| tool.name).collect();
            names.join(" ")
        };
        let without = tools([TOKEN, ENGINE, URL]);
        assert_eq!(names(&without), "list_agents reply_to_thread send_message");
        let with = tools([TOKEN, ENGINE, URL, RESULT_TOKEN]);
        assert_eq!(names(&with), "list_agents reply_to_thread send_message submit_result");
    }

    #[test]
    fn a_result_is_described_by_its_schema_unless_that_is_very_long() {
        let described = |schema: &str| {
            let tools = tools([TOKEN, ENGINE, URL, RESULT_TOKEN, ("AGENT_RELAY_RESULT_SCHEMA", schema)]);
            tools.router.get("submit_result").unwrap().description.clone().unwrap()
        };
        assert!(described(r#"{"type":"array"}"#).ends_with(r#"schema says: {"type":"array"}"#));
        let long = described(&"x".repeat(SCHEMA_MAX + 1));
        assert!(long.len() < 400 && long.contains("AGENT_RELAY_RESULT_SCHEMA"), "{long}");
    }

    #[test]
    fn every_parameter_is_described_with_a_type_that_any_model_takes() {
        for tool in tools([TOKEN, ENGINE, URL, RESULT_TOKEN]).router.list_all() {
            assert!(tool.description.is_some_and(|said| said.len() < 250), "{}", tool.name);
            let properties = tool.input_schema.get("properties").and_then(Value::as_object);
            for (name, schema) in properties.into_iter().flatten() {
                let kind = schema["type"].as_str();
                assert!(matches!(kind, Some("string" | "object")), "{}.{name}: {schema}", tool.name);
                assert!(schema["description"].is_string(), "{}.{name}: {schema}", tool.name);
            }
        }
    }
}
