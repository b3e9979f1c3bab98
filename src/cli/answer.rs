//! `answer`: pressing the keys of a choice in a dialog that an agent's program has opened.

use serde::Serialize;

use super::{
    Exit, Failure, agent_name,
    client::{Api, block_on},
    find::Where,
};
use crate::{config::Env, ids::AgentName};

/// `relay-broker answer`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which agent.
    #[arg(value_parser = agent_name)]
    name: AgentName,
    /// One of the choices that `relay-broker explain` shows.
    choice: String,
    /// Only if this dialog is still open, by its id in `explain --json`.
    #[arg(long, value_name = "ID")]
    expect: Option<String>,
    /// Print the broker's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Serialize)]
struct Request<'a> {
    choice: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<&'a str>,
}

/// Answers it.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    let Args { name, choice, expect, json, .. } = args;
    let request = Request { choice, expect: expect.as_deref() };
    let path = format!("/api/spawned/{name}/answer");
    let answer = block_on(async { Api::new(broker).post(&path, &request).await })?;
    answer.show(*json, || Ok(format!("{name} was answered `{choice}`")))
}
