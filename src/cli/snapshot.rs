//! `snapshot` and its older name `dump-pty`: an agent's screen.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::{
    Exit, Failure, agent_name,
    client::{Api, block_on},
    find::{Found, Where},
    ui,
};
use crate::{
    config::Env,
    ids::{AgentName, ApiKey},
};

/// `relay-broker snapshot`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which agent.
    #[arg(value_parser = agent_name)]
    name: AgentName,
    /// As text, or with the colours as escape sequences.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print the broker's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// `relay-broker dump-pty`
#[derive(Debug, clap::Args)]
pub(super) struct DumpArgs {
    #[command(flatten)]
    args: Args,
    /// The broker's address, with --api-key.
    #[arg(long, value_name = "URL", requires = "api_key")]
    broker_url: Option<String>,
    /// The broker's key.
    #[arg(long, value_name = "KEY", requires = "broker_url")]
    api_key: Option<String>,
}

/// What a screen is shown as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Plain,
    Ansi,
}

#[derive(Debug, Deserialize)]
struct Snapshot {
    screen: String,
}

/// Shows the screen.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    show(args, args.place.find(env)?)
}

/// The same, of a broker that may be named by its address.
pub(super) fn dump(args: DumpArgs, env: &Env) -> Result<Exit, Failure> {
    let broker = match (args.broker_url, args.api_key) {
        (Some(url), Some(key)) => {
            Found { url: url.trim_end_matches('/').to_owned(), api_key: ApiKey::from(key), pid: None }
        }
        _ => args.args.place.find(env)?,
    };
    show(&args.args, broker)
}

fn show(args: &Args, broker: Found) -> Result<Exit, Failure> {
    let format = match args.format {
        Format::Plain => "plain",
        Format::Ansi => "ansi",
    };
    let path = format!("/api/spawned/{}/snapshot?format={format}", args.name);
    let answer = block_on(async { Api::new(broker).get(&path).await })?;
    let screen = || answer.read().map(|Snapshot { screen }| screen);
    if args.json || args.format == Format::Plain {
        return answer.show(args.json, || Ok(screen()?.trim_end().to_owned()));
    }
    let bytes = BASE64_STANDARD.decode(screen()?).map_err(|error| {
        Failure::new(Exit::Failed, format!("the broker's answer is not understood ({error})"))
    })?;
    ui::bytes(&bytes)?;
    Ok(Exit::Ok)
}
