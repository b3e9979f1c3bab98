//! `send`: a message to an agent or a channel. Inside an agent (its token is in the environment) it speaks
//! as that agent, straight to the engine; anywhere else as the person in front of the broker.

use std::io::Read;

use serde::{Deserialize, Serialize};

use super::{
    Exit, Failure,
    client::{Answer, Api, block_on},
    find::Where,
    ui,
};
use crate::{
    config::{Env, env},
    ids::{AgentToken, MsgId},
    messages::delivery::Mode,
    wire::{
        api::{PostDm, PostMessage, PostReply},
        client::{ApiError, EngineClient, EngineEndpoint},
    },
};

/// Longest text read from standard input; more than any engine takes.
const TEXT_MAX: u64 = 1 << 20;

/// `relay-broker send`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An agent's name, or a channel with its #.
    #[arg(value_name = "NAME|#CHANNEL")]
    to: String,
    /// The text; several words are joined, a single - reads it from standard input.
    #[arg(required = true, value_name = "TEXT")]
    text: Vec<String>,
    /// Whether a busy agent is let finish first, or steered at once.
    #[arg(long, value_enum, default_value_t)]
    mode: Manner,
    /// Answer in the thread of this message.
    #[arg(long, value_name = "MESSAGE")]
    thread: Option<String>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// [`Mode`], as a word of the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Manner {
    #[default]
    Wait,
    Steer,
}

#[derive(Serialize)]
struct Request<'a> {
    to: &'a str,
    text: &'a str,
    mode: Mode,
    #[serde(rename = "threadId", skip_serializing_if = "Option::is_none")]
    thread: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    event_id: String,
}

/// Sends it.
pub(super) fn run(mut args: Args, env: &Env) -> Result<Exit, Failure> {
    let text = match args.text.as_slice() {
        [dash] if dash == "-" => read_stdin()?,
        words => words.join(" "),
    };
    if text.trim().is_empty() {
        return Err(Failure::new(Exit::Usage, "there is no text to send"));
    }
    args.text.clear();
    let answer = match (env.text(env::AGENT_TOKEN), base_url(env)) {
        (Some(token), Some(base_url)) => {
            let token = AgentToken::from(token);
            let msg_id = block_on(as_agent(&args, &text, &token, base_url))?;
            Answer::of(&Reply { event_id: msg_id.to_string() })?
        }
        (Some(_), None) => {
            let said = format!(
                "{} is set but {} is not; set both to speak as an agent, or neither",
                env::AGENT_TOKEN,
                env::BASE_URL_FALLBACK
            );
            return Err(Failure::new(Exit::Config, said));
        }
        (None, _) => as_person(&args, &text, env)?,
    };
    answer.show(args.json, || {
        let reply: Reply = answer.read()?;
        Ok(format!("sent to {} as {}", args.to, ui::plain(&reply.event_id)))
    })
}

fn base_url(env: &Env) -> Option<&str> {
    env.text(env::BASE_URL_FALLBACK).or_else(|| env.text(env::BASE_URL))
}

fn as_person(args: &Args, text: &str, env: &Env) -> Result<Answer, Failure> {
    let broker = args.place.find(env)?;
    let request = Request { to: &args.to, text, mode: args.mode.into(), thread: args.thread.as_deref() };
    block_on(async { Api::new(broker).post("/api/send", &request).await })
}

impl From<Manner> for Mode {
    fn from(manner: Manner) -> Self {
        match manner {
            Manner::Wait => Self::Wait,
            Manner::Steer => Self::Steer,
        }
    }
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().take(TEXT_MAX).read_to_string(&mut text)?;
    Ok(text)
}

async fn as_agent(args: &Args, text: &str, token: &AgentToken, base_url: &str) -> Result<MsgId, Failure> {
    let endpoint = EngineEndpoint::parse(base_url, None)
        .map_err(|error| Failure::new(Exit::Config, format!("{}: {error}", env::BASE_URL_FALLBACK)))?;
    let engine = EngineClient::new(endpoint);
    let text = text.to_owned();
    let mode = Some(args.mode.into());
    let sent = if let Some(thread) = &args.thread {
        let reply = PostReply { text, blocks: None, data: None };
        engine.post_reply(token, &MsgId::from(thread.as_str()), &reply).await.map(|message| message.id)
    } else if let Some(channel) = args.to.strip_prefix('#') {
        engine.post_message(token, channel, &PostMessage::text(text, mode)).await.map(|message| message.id)
    } else {
        let to = args.to.strip_prefix('@').filter(|name| *name != "self").unwrap_or(&args.to).to_owned();
        engine.post_dm(token, &PostDm { to, text, mode, attachments: None }).await.map(|sent| sent.id)
    };
    sent.map_err(|error| not_sent(&args.to, &error))
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
        _ => {
            let said = format!("not sent: {} ({}); try again", error.message, error.code);
            Failure::new(Exit::Failed, said)
        }
    }
}
