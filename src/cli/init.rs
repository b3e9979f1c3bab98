//! `init`: a broker for a program. Flags, environment, the one line on standard output, connection.json, the
//! words on a lock conflict and the exit codes are a contract with the programs that start brokers
//! (spec/api 1).

use std::{net::IpAddr, path::PathBuf};

use super::{Exit, Failure, broker, ui};
use crate::config::{self, Asked, Env, Form};

/// `relay-broker init`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// This broker's name [default: --name, AGENT_RELAY_BROKER_NAME, the name of this directory].
    #[arg(long, value_name = "NAME")]
    instance_name: Option<String>,
    /// The node's name, and the broker's when --instance-name is not given.
    #[arg(long, alias = "broker-name", value_name = "NAME")]
    name: Option<String>,
    /// The key of the workspace to join.
    #[arg(long, value_name = "rk_...")]
    workspace_key: Option<String>,
    /// Channels of agents that name none, separated by commas.
    #[arg(long, value_name = "NAMES")]
    channels: Option<String>,
    /// The API's port; 0 is any free one.
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
    /// The API's address.
    #[arg(long, value_name = "ADDRESS")]
    api_bind: Option<IpAddr>,
    /// Allow an address that other machines can reach, over plain HTTP.
    #[arg(long)]
    allow_remote_api: bool,
    /// Keep the state, and run on when nobody renews the session.
    #[arg(long)]
    persist: bool,
    /// Where the broker keeps its state [default: .agentworkforce/relay with --persist, else a temporary
    /// directory].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Run the embedded engine whatever the environment says.
    #[arg(long)]
    local_only: bool,
    /// A configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the broker.
pub(super) fn run(args: Args, env: &Env) -> Result<Exit, Failure> {
    start(args, env).map_err(Failure::for_programs)
}

fn start(args: Args, env: &Env) -> Result<Exit, Failure> {
    let config = config::load(&args.into(), env)?;
    broker::run(config, |listening| ui::line(&format!("API listening on {}", listening.url)))
}

impl From<Args> for Asked {
    fn from(args: Args) -> Self {
        Self {
            form: Form::Init { persist: args.persist },
            instance: args.instance_name,
            legacy_name: args.name,
            workspace_key: args.workspace_key,
            embedded: args.local_only,
            channels: args.channels,
            port: args.api_port,
            bind: args.api_bind,
            allow_remote_api: args.allow_remote_api,
            state_dir: args.state_dir,
            config: args.config,
            ..Self::default()
        }
    }
}
