//! `crashes`: how programs of agents have ended.

use serde::Deserialize;

use super::{
    Exit, Failure,
    client::{Api, block_on},
    find::Where,
    ui,
};
use crate::config::Env;

/// `relay-broker crashes`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the broker's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Deserialize)]
struct Insights {
    recent: Vec<Past>,
}

#[derive(Debug, Deserialize)]
struct Past {
    agent_name: String,
    #[serde(default)]
    at: Option<String>,
    class: String,
    description: String,
    uptime_ms: u64,
    #[serde(default)]
    peak_memory_bytes: Option<u64>,
    #[serde(default)]
    last_output: String,
    #[serde(default)]
    go_on: Option<String>,
}

/// Lists them, the newest first.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    let answer = block_on(async { Api::new(broker).get("/api/crash-insights").await })?;
    answer.show(args.json, || Ok(table(answer.read()?)))
}

fn table(insights: Insights) -> String {
    if insights.recent.is_empty() {
        return "no agent has ended yet".to_owned();
    }
    let rows: Vec<_> = insights.recent.into_iter().map(row).collect();
    ui::table(&["WHEN", "NAME", "WHAT", "LIVED", "MEMORY", "HOW", "LAST LINE", "GO ON WITH"], &rows)
}

fn row(past: Past) -> Vec<String> {
    let unknown = || "-".to_owned();
    let last = past.last_output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("-");
    vec![
        past.at.unwrap_or_else(unknown),
        past.agent_name,
        past.class,
        ui::span(past.uptime_ms),
        past.peak_memory_bytes.map_or_else(unknown, |bytes| format!("{} MiB", bytes >> 20)),
        ui::plain(&past.description),
        ui::shortened(last),
        past.go_on.map_or_else(unknown, |line| ui::plain(&line)),
    ]
}
