//! `spawn`: starts an agent.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Exit, Failure, agent_name,
    client::{Api, block_on},
    find::Where,
    process_args::{ProcessArgs, ProcessRequest},
};
use crate::{config::Env, ids::AgentName};

/// `relay-broker spawn`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The agent's name: letters, digits, dots, dashes and underscores.
    #[arg(value_parser = agent_name)]
    name: AgentName,
    /// Where it runs [default: this directory].
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// A channel it joins; may be repeated.
    #[arg(long = "channel", value_name = "NAME")]
    channels: Vec<String>,
    /// Its first task, typed when it is ready.
    #[arg(long, value_name = "TEXT")]
    pub(super) task: Option<String>,
    /// The rules by which its screen is read [default: by the program's name].
    #[arg(long, value_name = "NAME")]
    harness: Option<String>,
    /// A variable for its environment; may be repeated.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// What it may do without asking [default: ask].
    #[arg(long, value_name = "LEVEL", value_parser = ["ask", "trust_cwd", "full"])]
    autonomy: Option<String>,
    /// The session of the program that it takes up, on every start.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Whether it is handed the broker's tools over MCP [default: yes where that was seen to work].
    #[arg(long, value_name = "BOOL")]
    mcp: Option<bool>,
    /// The model it uses, for display.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Print the broker's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    place: Where,
    /// The program and its arguments, after two dashes.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

/// The body of `POST /api/spawn`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Request {
    pub(super) name: String,
    /// As it is: whoever typed it has a shell that has split it already.
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) cwd: PathBuf,
    pub(super) env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) channels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) harness: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) autonomy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mcp: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_id: Option<String>,
    #[serde(flatten)]
    pub(super) process: ProcessRequest,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reply {
    pid: Option<u32>,
    warning: Option<String>,
}

/// Asks the broker to start it.
pub(super) fn run(args: Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    let here = std::env::current_dir()?;
    let mut words = args.command.into_iter();
    let command = words.next().filter(|program| !program.trim().is_empty());
    let Some(command) = command else {
        // A variable that is not set, for example.
        return Err(Failure::new(Exit::Usage, "the program's name is empty; name one after the two dashes"));
    };
    let request = Request {
        name: args.name.to_string(),
        command,
        args: words.collect(),
        // A path means what it means here, wherever the broker runs.
        cwd: args.cwd.map_or_else(|| here.clone(), |cwd| here.join(cwd)),
        env: args.env.into_iter().collect(),
        channels: args.channels,
        task: args.task,
        harness: args.harness,
        autonomy: args.autonomy,
        mcp: args.mcp,
        model: args.model,
        session_id: args.session,
        process: args.process.into(),
    };
    let answer = block_on(async { Api::new(broker).post("/api/spawn", &request).await })?;
    let mut warned = None;
    let done = answer.show(args.json, || {
        let Reply { pid, warning } = answer.read()?;
        warned = warning;
        let pid = pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"));
        Ok(format!("{} runs ({pid}); watch it with `relay-broker snapshot {0}`", args.name))
    })?;
    if let Some(warning) = warned {
        tracing::warn!("{warning}");
    }
    Ok(done)
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not NAME=VALUE")),
    }
}
