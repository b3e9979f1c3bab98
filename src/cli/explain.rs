//! `explain`: where an agent's last message is, and what it waits for.

use super::{
    Exit, Failure, agent_name,
    client::{Api, block_on},
    find::Where,
    ui,
};
use crate::{config::Env, ids::AgentName};

/// `relay-broker explain`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which agent.
    #[arg(value_parser = agent_name)]
    name: AgentName,
    /// Print the broker's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// Explains it.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    let path = format!("/debug/agents/{}", args.name);
    let answer = block_on(async { Api::new(broker).get(&path).await })?;
    ui::line(&answer.text())?;
    Ok(Exit::Ok)
}
