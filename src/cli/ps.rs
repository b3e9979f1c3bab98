//! `ps`: the agents.

use serde::Deserialize;

use super::{
    Exit, Failure,
    client::{Api, block_on},
    find::Where,
    ui,
};
use crate::{config::Env, messages::hold::DeliveryMode};

/// `relay-broker ps`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the broker's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Deserialize)]
struct Listing {
    agents: Vec<Agent>,
}

#[derive(Debug, Deserialize)]
struct Agent {
    name: String,
    #[serde(default)]
    cli: Option<String>,
    #[serde(default)]
    pid: Option<u32>,
    #[serde(default)]
    channels: Vec<String>,
    /// What it does, once its terminal says so.
    #[serde(default)]
    state: Option<String>,
    /// Where it is in its life.
    #[serde(default)]
    phase: Option<String>,
    #[serde(default)]
    because: String,
    #[serde(default)]
    pending_messages: u64,
    #[serde(default)]
    held_back: u64,
    #[serde(default)]
    delivery_mode: DeliveryMode,
    #[serde(default)]
    dialog: Option<Dialog>,
    #[serde(default)]
    last_activity_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Dialog {
    text: String,
    choices: Vec<String>,
}

/// Lists them.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    let answer = block_on(async { Api::new(broker).get("/api/spawned").await })?;
    answer.show(args.json, || Ok(table(answer.read()?)))
}

fn table(listing: Listing) -> String {
    if listing.agents.is_empty() {
        return "no agents; start one with `relay-broker spawn NAME -- COMMAND`".to_owned();
    }
    let rows: Vec<_> = listing.agents.into_iter().map(row).collect();
    ui::table(&["NAME", "PID", "STATE", "MAIL", "QUIET FOR", "PROGRAM", "CHANNELS", "WHY"], &rows)
}

fn row(agent: Agent) -> Vec<String> {
    let (mail, why) = (mail(&agent), why(&agent));
    let unknown = || "-".to_owned();
    // Only in its usual life does the terminal's word say more than the registry's.
    let live = agent.phase.as_deref().is_none_or(|phase| phase == "live");
    let state = if live { agent.state.or(agent.phase) } else { agent.phase }.unwrap_or_else(unknown);
    vec![
        agent.name,
        agent.pid.map_or_else(unknown, |pid| pid.to_string()),
        state,
        mail,
        agent.last_activity_ms.map_or_else(unknown, ui::span),
        agent.cli.map_or_else(unknown, |cli| ui::plain(&cli)),
        agent.channels.iter().map(|name| format!("#{name}")).collect::<Vec<_>>().join(" "),
        why,
    ]
}

/// How many messages wait, and whether a person holds them back.
fn mail(agent: &Agent) -> String {
    match agent.delivery_mode {
        DeliveryMode::AutoInject => agent.pending_messages.to_string(),
        DeliveryMode::ManualFlush => format!("{} ({} held)", agent.pending_messages, agent.held_back),
    }
}

/// Why it is in its state, and how an open dialog is answered.
fn why(agent: &Agent) -> String {
    match &agent.dialog {
        None => ui::plain(&agent.because),
        Some(Dialog { text, choices }) => {
            let asked = ui::shortened(text.trim());
            format!("asks: {asked} answer it with one of: {}", ui::plain(&choices.join(", ")))
        }
    }
}
