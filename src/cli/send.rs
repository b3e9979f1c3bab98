//! `send`: a message to an agent or a channel. Inside an agent (its token is in the environment) it speaks
//! as that agent, straight to the engine; anywhere else as the person in front of the broker.

use std::io::Read;

use serde::{Deserialize, Serialize};

use super::{
    Exit, Failure,
    agent::Agent,
    client::{Answer, Api, block_on},
    find::Where,
    ui,
};
use crate::{config::Env, ids::MsgId, messages::delivery::Mode};

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
    let answer = block_on(async {
        match (Agent::of(env)?, &args.thread) {
            (None, _) => as_person(&args, &text, env).await,
            (Some(agent), Some(thread)) => said(agent.reply(thread, text).await?),
            (Some(agent), None) => said(agent.send(&args.to, text, args.mode.into()).await?),
        }
    })?;
    answer.show(args.json, || {
        let reply: Reply = answer.read()?;
        Ok(format!("sent to {} as {}", args.to, ui::plain(&reply.event_id)))
    })
}

fn said(id: MsgId) -> Result<Answer, Failure> {
    Answer::of(&Reply { event_id: id.to_string() })
}

async fn as_person(args: &Args, text: &str, env: &Env) -> Result<Answer, Failure> {
    let broker = args.place.find(env)?;
    let request = Request { to: &args.to, text, mode: args.mode.into(), thread: args.thread.as_deref() };
    Api::new(broker).post("/api/send", &request).await
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
