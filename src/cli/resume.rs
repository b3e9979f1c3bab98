//! `resume`: wakes what waits for a person.

use super::{
    Exit, Failure,
    client::{Api, Nothing, block_on},
    find::Where,
};
use crate::config::Env;

/// `relay-broker resume`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the broker's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// Wakes it.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    let answer = block_on(async { Api::new(broker).post("/api/resume", &Nothing {}).await })?;
    answer.show(args.json, || Ok("resumed; `relay-broker actors` shows what comes of it".to_owned()))
}
