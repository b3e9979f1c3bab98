//! Speaking as the agent in whose environment a command runs: with its own token straight to the engine, and
//! with its result token to its broker. No other credential is looked for, and none is ever an argument.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Exit, Failure, client::Api, find::Found};
use crate::{
    config::{Env, env},
    ids::{AgentToken, ApiKey, MsgId, ResultId},
    messages::delivery::Mode,
    wire::{
        api::{PostDm, PostMessage, PostReply, PublicAgent},
        client::{ApiError, EngineClient, EngineEndpoint},
    },
};

/// The agent. To be made inside [`block_on`](super::client::block_on).
pub(super) struct Agent {
    name: Option<String>,
    token: AgentToken,
    engine: EngineClient,
    results: Option<Api>,
}

/// The body of `POST /api/agent-result`.
#[derive(Serialize)]
struct Submission<'a> {
    data: &'a Value,
}

#[derive(Deserialize)]
struct Submitted {
    result_id: ResultId,
}

impl Agent {
    /// The agent whose environment this is; `None` outside of any.
    ///
    /// # Errors
    /// There is a token, but no engine to show it to.
    pub(super) fn of(env: &Env) -> Result<Option<Self>, Failure> {
        let Some(token) = env.text(env::AGENT_TOKEN) else { return Ok(None) };
        let base_url = env.text(env::BASE_URL_FALLBACK).or_else(|| env.text(env::BASE_URL));
        let base_url = base_url.ok_or_else(|| {
            let said = format!(
                "{} is set but {} is not; set both to speak as an agent, or neither",
                env::AGENT_TOKEN,
                env::BASE_URL_FALLBACK
            );
            Failure::new(Exit::Config, said)
        })?;
        let endpoint = EngineEndpoint::parse(base_url, None)
            .map_err(|error| Failure::new(Exit::Config, format!("{}: {error}", env::BASE_URL_FALLBACK)))?;
        let results = env.text(env::RESULT_URL).zip(env.text(env::RESULT_TOKEN));
        let results = results.map(|(url, token)| {
            Api::new(Found { url: url.to_owned(), api_key: ApiKey::from(token), pid: None }).refused_with(
                "the broker takes no result from this agent: it has been started anew, or released",
            )
        });
        let name = env.text(env::AGENT_NAME).map(str::to_owned);
        Ok(Some(Self { name, token: AgentToken::from(token), engine: EngineClient::new(endpoint), results }))
    }

    /// True for its own name.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }

    /// True when it can hand in results.
    pub(super) fn has_results(&self) -> bool {
        self.results.is_some()
    }

    /// Sends to an agent's name (an `@` before it is allowed) or a #channel.
    pub(super) async fn send(&self, to: &str, text: String, mode: Mode) -> Result<MsgId, Failure> {
        check(&text)?;
        let mode = Some(mode);
        let sent = if let Some(channel) = to.strip_prefix('#') {
            let message = PostMessage::text(text, mode);
            self.engine.post_message(&self.token, channel, &message).await.map(|message| message.id)
        } else {
            let name = to.strip_prefix('@').filter(|name| *name != "self").unwrap_or(to).to_owned();
            let dm = PostDm { to: name, text, mode, attachments: None };
            self.engine.post_dm(&self.token, &dm).await.map(|sent| sent.id)
        };
        sent.map_err(|error| not_sent(to, &error))
    }

    /// Answers in the thread of a message; a message that is itself an answer is in one already.
    pub(super) async fn reply(&self, message: &str, text: String) -> Result<MsgId, Failure> {
        check(&text)?;
        let reply = PostReply { text, blocks: None, data: None };
        let sent = self.engine.post_reply(&self.token, &MsgId::from(message), &reply).await;
        sent.map(|message| message.id).map_err(|error| not_sent(message, &error))
    }

    /// Everybody in the workspace.
    pub(super) async fn list(&self) -> Result<Vec<PublicAgent>, Failure> {
        let listed = self.engine.list_agents(&self.token).await;
        listed.map_err(|error| failed(format!("the engine lists nobody: {error}; try again")))
    }

    /// Hands in a result to whoever started this agent.
    pub(super) async fn submit(&self, data: &Value) -> Result<ResultId, Failure> {
        let results = self.results.as_ref().ok_or_else(|| {
            let said =
                format!("{} and {} are not set: no broker takes results", env::RESULT_URL, env::RESULT_TOKEN);
            Failure::new(Exit::Config, said)
        })?;
        let answer = results.post("", &Submission { data }).await?;
        Ok(answer.read::<Submitted>()?.result_id)
    }
}

fn check(text: &str) -> Result<(), Failure> {
    if text.trim().is_empty() {
        return Err(Failure::new(Exit::Usage, "there is no text to send"));
    }
    Ok(())
}

fn failed(said: String) -> Failure {
    Failure::new(Exit::Failed, said)
}

fn not_sent(to: &str, error: &ApiError) -> Failure {
    match error.status {
        Some(404) => Failure::new(
            Exit::NotFound,
            format!("not sent: the engine knows no `{to}` ({}); see who is there and try again", error.code),
        ),
        Some(400..500) => {
            let said = format!("not sent: the engine refuses it: {} ({})", error.message, error.code);
            Failure::new(Exit::Refused, said)
        }
        _ => failed(format!("not sent: {} ({}); try again", error.message, error.code)),
    }
}
