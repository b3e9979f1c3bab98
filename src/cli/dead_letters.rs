//! `dead-letters`: the messages that could not be put into an agent, and trying them again.

use serde::{Deserialize, Serialize};

use super::{
    Exit, Failure,
    client::{Api, block_on},
    find::Where,
    ui,
};
use crate::config::Env;

/// `relay-broker dead-letters`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Print the broker's answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them; this is also what happens without a word.
    List,
    /// Try one again, or all.
    Redeliver(RedeliverArgs),
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct RedeliverArgs {
    /// Which, by the id in the list.
    id: Option<String>,
    /// Every one.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Deserialize)]
struct Listing {
    dead_letters: Vec<Letter>,
}

#[derive(Debug, Deserialize)]
struct Letter {
    id: String,
    name: String,
    from: String,
    reason: String,
    attempts: u32,
    #[serde(default)]
    at: Option<String>,
    body: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Request<'a> {
    One { id: &'a str },
    All { all: bool },
}

#[derive(Debug, Deserialize)]
struct Reply {
    redelivered: Vec<String>,
    failed: Vec<Failed>,
}

#[derive(Debug, Deserialize)]
struct Failed {
    id: String,
    name: String,
    message: String,
}

/// Lists them, or tries them again.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    match &args.verb {
        None | Some(Verb::List) => {
            let answer = block_on(async { Api::new(broker).get("/api/dead-letters").await })?;
            answer.show(args.json, || Ok(table(answer.read()?)))
        }
        Some(Verb::Redeliver(which)) => {
            let request = match &which.id {
                Some(id) => Request::One { id },
                None => Request::All { all: which.all },
            };
            let answer =
                block_on(async { Api::new(broker).post("/api/dead-letters/redeliver", &request).await })?;
            let reply: Reply = answer.read()?;
            answer.show(args.json, || Ok(report(&reply)))?;
            Ok(if reply.failed.is_empty() { Exit::Ok } else { Exit::Failed })
        }
    }
}

fn table(listing: Listing) -> String {
    if listing.dead_letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let row = |letter: Letter| {
        vec![
            letter.id,
            letter.name,
            ui::plain(&letter.from),
            letter.at.unwrap_or_else(|| "-".to_owned()),
            letter.attempts.to_string(),
            ui::plain(&letter.reason),
            ui::shortened(&letter.body),
        ]
    };
    let rows: Vec<_> = listing.dead_letters.into_iter().map(row).collect();
    let table = ui::table(&["ID", "AGENT", "FROM", "AT", "TRIES", "WHY", "TEXT"], &rows);
    table + "try one again with `relay-broker dead-letters redeliver ID`"
}

fn report(reply: &Reply) -> String {
    let taken = match reply.redelivered.len() {
        0 if reply.failed.is_empty() => Some("no dead letters".to_owned()),
        0 => None,
        1 => Some("1 dead letter is being tried again".to_owned()),
        n => Some(format!("{n} dead letters are being tried again")),
    };
    let failed = |failed: &Failed| format!("{} of {}: {}", failed.id, failed.name, failed.message);
    taken.into_iter().chain(reply.failed.iter().map(failed)).collect::<Vec<_>>().join("\n")
}
