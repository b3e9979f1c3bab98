//! `up`: a broker in the foreground, for a person.

use std::{net::IpAddr, path::PathBuf};

use super::{Exit, Failure, broker, ui};
use crate::config::{self, Asked, EngineChoice, Env, Form, STATE_BELOW_CWD};

/// `relay-broker up`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The engine to join; without it, and without RELAYCAST_BASE_URL or RELAY_BASE_URL, the broker runs its
    /// own.
    #[arg(long, value_name = "URL")]
    engine: Option<String>,
    /// Run the embedded engine whatever the environment says.
    #[arg(long)]
    embedded: bool,
    /// This broker's name [default: the name of this directory].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The node's name at the engine [default: HOST-XXXXXX, the end from the node id].
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// The key of the workspace to join.
    #[arg(long, value_name = "rk_...")]
    workspace_key: Option<String>,
    /// Channels of agents that name none, separated by commas.
    #[arg(long, value_name = "NAMES")]
    channels: Option<String>,
    /// Programs that the engine may start here, separated by commas.
    #[arg(long, value_name = "NAMES")]
    harnesses: Option<String>,
    /// Most agents at once; 0 is unlimited.
    #[arg(long, value_name = "N")]
    max_agents: Option<u32>,
    /// The API's port; 0 is any free one.
    #[arg(long, visible_alias = "api-port", value_name = "PORT")]
    port: Option<u16>,
    /// The API's address.
    #[arg(long, value_name = "ADDRESS")]
    api_bind: Option<IpAddr>,
    /// Allow an address that other machines can reach, over plain HTTP.
    #[arg(long)]
    allow_remote_api: bool,
    /// Where the broker keeps its state [default: .agentworkforce/relay].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// A configuration file [default: relay-broker.toml in the state directory, then in
    /// ~/.config/relay-broker].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the broker.
pub(super) fn run(args: Args, env: &Env) -> Result<Exit, Failure> {
    let config = config::load(&args.into(), env)?;
    let engine = match &config.engine {
        EngineChoice::Embedded => "its own, on this machine alone".to_owned(),
        EngineChoice::Remote { base_url, .. } => base_url.clone(),
    };
    let state_dir = config.state_dir.display().to_string();
    // Where clients find it by themselves they need no more than the command.
    let place = match config.state_dir.ends_with(STATE_BELOW_CWD) {
        true => String::new(),
        false => format!("--state-dir '{state_dir}' "),
    };
    broker::run(config, |listening| {
        ui::line(&format!(
            "API listening on {url}\n\
             engine  {engine}\n\
             state   {state_dir}\n\
             next    relay-broker spawn {place}alice -- bash      (in another terminal)\n        \
             relay-broker send {place}alice hello\n\
             Ctrl-C ends the broker and its agents",
            url = listening.url
        ))
    })
}

impl From<Args> for Asked {
    fn from(args: Args) -> Self {
        Self {
            form: Form::Up,
            instance: args.name,
            legacy_name: None,
            node_name: args.node_name,
            workspace_key: args.workspace_key,
            engine: args.engine,
            embedded: args.embedded,
            channels: args.channels,
            harnesses: args.harnesses,
            port: args.port,
            bind: args.api_bind,
            allow_remote_api: args.allow_remote_api,
            state_dir: args.state_dir,
            config: args.config,
            max_agents: args.max_agents,
        }
    }
}
