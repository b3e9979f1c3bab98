//! `actors`: every actor of the broker, as a tree.

use serde::Deserialize;

use super::{
    Exit, Failure,
    client::{Answer, Api, block_on},
    find::Where,
    ui,
};
use crate::config::Env;

/// `relay-broker actors`
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
    actors: Vec<Actor>,
}

/// What is shown of one actor; the answer has more.
#[derive(Debug, Deserialize)]
struct Actor {
    id: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    restart_count: u64,
    #[serde(default)]
    mailbox_depth: u64,
    #[serde(default)]
    mailbox_oldest_ms: u64,
    #[serde(default)]
    handled: u64,
    #[serde(default)]
    last_error: Option<String>,
}

/// Shows them.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    let answer = block_on(async { Api::new(broker).get("/debug/actors").await })?;
    answer.show(args.json, || table(&answer))
}

/// The answer of `GET /debug/actors` for a person.
pub(super) fn table(answer: &Answer) -> Result<String, Failure> {
    let listing: Listing = answer.read()?;
    Ok(draw(listing.actors))
}

/// The supervisor on top, the rooms of the house below it, the rooms of each agent below its name.
fn draw(mut actors: Vec<Actor>) -> String {
    const ROOT: &str = "supervisor";
    actors.sort_by_key(|actor| {
        let (kind, agent) = parts(&actor.id);
        (kind != ROOT, agent.map(str::to_owned), kind.to_owned())
    });
    let mut rows = Vec::new();
    let mut shown_agent = None;
    for actor in &actors {
        let (kind, agent) = parts(&actor.id);
        if let Some(agent) = agent
            && shown_agent != Some(agent)
        {
            rows.push(vec![format!("  {agent}")]);
            shown_agent = Some(agent);
        }
        let indent = if agent.is_some() {
            "    "
        } else if kind == ROOT {
            ""
        } else {
            "  "
        };
        rows.push(vec![
            format!("{indent}{kind}"),
            ui::plain(&actor.state),
            actor.restart_count.to_string(),
            mailbox(actor),
            actor.handled.to_string(),
            actor.last_error.as_deref().map(ui::plain).unwrap_or_default(),
        ]);
    }
    ui::table(&["ACTOR", "STATE", "RESTARTS", "MAILBOX", "HANDLED", "LAST ERROR"], &rows)
}

fn mailbox(actor: &Actor) -> String {
    match actor.mailbox_depth {
        0 => "empty".to_owned(),
        depth => format!("{depth}, oldest {}", ui::span(actor.mailbox_oldest_ms)),
    }
}

/// `kind/agent`, or the kind alone.
fn parts(id: &str) -> (&str, Option<&str>) {
    match id.split_once('/') {
        Some((kind, agent)) => (kind, Some(agent)),
        None => (id, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(id: &str) -> Actor {
        Actor {
            id: id.to_owned(),
            state: "live".to_owned(),
            restart_count: 1,
            mailbox_depth: 2,
            mailbox_oldest_ms: 30,
            handled: 4,
            last_error: None,
        }
    }

    #[test]
    fn the_rooms_of_an_agent_stand_together_below_its_name() {
        let ids = ["pty_worker/bob", "node_session", "delivery_cursor/al", "supervisor", "pty_worker/al"];
        let text = draw(ids.into_iter().map(actor).collect());
        let firsts: Vec<_> =
            text.lines().map(|line| line.split("  live").next().unwrap().trim_end()).collect();
        assert_eq!(
            firsts[1..],
            [
                "supervisor",
                "  node_session",
                "  al",
                "    delivery_cursor",
                "    pty_worker",
                "  bob",
                "    pty_worker"
            ]
        );
        assert!(text.contains("2, oldest 30 ms"), "{text}");
    }
}
