//! `release`: ends an agent.

use serde::Deserialize;

use super::{
    Exit, Failure, agent_name,
    client::{Api, block_on},
    find::Where,
    ui,
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

#[derive(Debug, Deserialize)]
struct Listing {
    agents: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// Ends it.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    let name = args.name.as_str();
    let answer = block_on(async {
        let api = Api::new(broker);
        if !args.force {
            // The API takes the release of an unknown agent for done, which hides a slip of the finger.
            let listing: Listing = api.get("/api/spawned").await?.read()?;
            if !listing.agents.iter().any(|agent| agent.name == name) {
                let said = format!("no agent named `{name}`; `relay-broker ps` lists them");
                return Err(Failure::new(Exit::NotFound, said));
            }
        }
        let force = if args.force { "?force=true" } else { "" };
        api.delete(&format!("/api/spawned/{name}{force}")).await
    })?;
    if args.json {
        ui::line(&answer.text())?
    } else {
        ui::line(&format!("{name} is released"))?
    }
    Ok(Exit::Ok)
}
