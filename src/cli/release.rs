//! `release`: ends an agent.

use serde::{Deserialize, Serialize};

use super::{
    Exit, Failure, agent_name,
    client::{Api, block_on},
    find::Where,
};
use crate::{config::Env, ids::AgentName};

/// `relay-broker release`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which agent.
    #[arg(value_parser = agent_name)]
    name: AgentName,
    /// Do not give it time to end on its own, and do not mind if there is no such agent.
    #[arg(long)]
    force: bool,
    /// Print the broker's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Serialize)]
struct Request {
    force: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reply {
    outcome: String,
    exit: Option<Ended>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ended {
    code: Option<i32>,
    signal: Option<String>,
}

/// Ends it.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    let name = &args.name;
    let answer = block_on(async {
        Api::new(broker).delete(&format!("/api/spawned/{name}"), &Request { force: args.force }).await
    })?;
    let reply: Reply = answer.read()?;
    // The API takes the release of an unknown agent for done; here it would hide a slip of the finger.
    if reply.outcome == "unknown" && !args.force {
        let ended = "`relay-broker crashes` those that have ended";
        let said = format!("no agent named `{name}`; `relay-broker ps` lists them, {ended}");
        return Err(Failure::new(Exit::NotFound, said));
    }
    if reply.outcome == "overdue" {
        let said =
            format!("{name} did not end in time and is given up; look for its processes on this machine");
        return Err(Failure::new(Exit::Failed, said));
    }
    answer.show(args.json, || {
        if reply.outcome == "already_gone" {
            return Ok(format!("{name} had already ended"));
        }
        let how = match reply.exit {
            Some(Ended { signal: Some(signal), .. }) => format!(" (ended by {signal})"),
            Some(Ended { code: Some(code), .. }) => format!(" (exit code {code})"),
            _ => String::new(),
        };
        Ok(format!("{name} is released{how}"))
    })
}
