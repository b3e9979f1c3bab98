//! `harness`: what is known of programs, and recording a screen to know more.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Exit, Failure, agent_name,
    client::{Api, block_on},
    find::Where,
    ui,
};
use crate::{
    config::{self, ConfigErrors, Env},
    harness::{self, Catalogue, Harness, Origin, Proof, Recording},
    ids::AgentName,
    store::private_file::create_private,
};

/// `relay-broker harness`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List the rule sets that a broker started now would have.
    List,
    /// Show a rule set as it was written.
    Show {
        /// Its name.
        name: String,
    },
    /// Look for mistakes in a rule set, and name their lines.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Record an agent's screen, to be judged by a person and kept as a test.
    Record(Record),
}

#[derive(Debug, clap::Args)]
struct Record {
    /// Which agent.
    #[arg(value_parser = agent_name)]
    name: AgentName,
    /// What the screen must be judged: not_ready, idle, working or blocked:RULE [default: ?, to be filled in].
    #[arg(long, default_value = "?", hide_default_value = true)]
    state: String,
    /// A message was typed before: rules for a fresh screen alone do not count.
    #[arg(long)]
    typed: bool,
    /// An existing directory for the file.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    place: Where,
}

/// The agents, as far as they say which program they run.
#[derive(Deserialize)]
struct Listing {
    agents: Vec<Agent>,
}

#[derive(Deserialize)]
struct Agent {
    name: String,
    /// The rule set that was asked for, or the program's name.
    provider: String,
}

#[derive(Deserialize)]
struct Snapshot {
    rows: u16,
    cols: u16,
    cursor: (u16, u16),
    modes: Vec<String>,
    title: String,
    offset: u64,
    screen: Vec<String>,
}

/// Does what was asked.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    match &args.what {
        What::List => list(&catalogue(env)?),
        What::Show { name } => show(&catalogue(env)?, name),
        What::Check { file } => check(file),
        What::Record(record) => self::record(record, env),
    }
}

fn catalogue(env: &Env) -> Result<Catalogue, Failure> {
    Ok(config::load_catalogue(env).map_err(ConfigErrors)?)
}

fn list(catalogue: &Catalogue) -> Result<Exit, Failure> {
    let mut rows: Vec<_> = catalogue
        .entries()
        .iter()
        .map(|entry| {
            let harness = &entry.harness;
            let proof = match harness.proof {
                Proof::Consumed => "consumed",
                Proof::Submitted => "submitted",
                Proof::Accepted => "accepted",
            };
            let origin = match &entry.origin {
                Origin::BuiltIn => "built in".to_owned(),
                Origin::File(file) => file.display().to_string(),
            };
            let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
            let version = harness.version.clone().unwrap_or_default();
            let programs = or_none(harness.programs.join(" "));
            vec![harness.name.clone(), programs, or_none(version), proof.to_owned(), origin]
        })
        .collect();
    rows.sort();
    ui::line(&ui::table(&["NAME", "PROGRAMS", "SEEN", "PROOF", "ORIGIN"], &rows))?;
    Ok(Exit::Ok)
}

fn show(catalogue: &Catalogue, name: &str) -> Result<Exit, Failure> {
    let entry = catalogue.entry(name).ok_or_else(|| {
        let text = format!("no harness named `{name}`; `relay-broker harness list` shows them");
        Failure::new(Exit::NotFound, text)
    })?;
    ui::line(&entry.text)?;
    Ok(Exit::Ok)
}

fn check(file: &Path) -> Result<Exit, Failure> {
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::new(Exit::Failed, format!("{} cannot be read: {error}", file.display())))?;
    match harness::read_file(file, &text) {
        Ok(harness) => {
            ui::line(&format!("{} is right: {} rules", file.display(), harness.rules().count()))?;
            Ok(Exit::Ok)
        }
        Err(faults) => {
            let line = |fault: &harness::Fault| format!("{}:{}: {}", file.display(), fault.line, fault.said);
            let text = faults.iter().map(line).collect::<Vec<_>>().join("\n");
            Err(Failure::new(Exit::Config, text))
        }
    }
}

fn record(args: &Record, env: &Env) -> Result<Exit, Failure> {
    let catalogue = catalogue(env)?;
    let api = Api::new(args.place.find(env)?);
    let path = format!("/api/spawned/{}/snapshot?format=json", args.name);
    let (listing, snapshot) = block_on(async {
        let listing: Listing = api.get("/api/spawned").await?.read()?;
        let snapshot: Snapshot = api.get(&path).await?.read()?;
        Ok::<_, Failure>((listing, snapshot))
    })?;
    let agent = listing.agents.into_iter().find(|agent| agent.name == args.name.as_str());
    let program = agent.map(|agent| agent.provider).unwrap_or_default();
    let asked = catalogue.entry(&program).map(|entry| &entry.harness);
    let harness = asked.or_else(|| catalogue.for_program(&program));
    let mut screen = snapshot.screen;
    while screen.last().is_some_and(|row| row.trim().is_empty()) {
        screen.pop();
    }
    let recording = Recording {
        harness: harness.map_or(program, judged_by),
        version: "?".to_owned(),
        state: args.state.clone(),
        typed: args.typed,
        rows: snapshot.rows,
        cols: snapshot.cols,
        cursor: snapshot.cursor,
        modes: snapshot.modes,
        title: snapshot.title,
        screen,
    };
    let file = args.dir.join(format!("{}-{}.json", args.name, snapshot.offset));
    let mut text = serde_json::to_string_pretty(&recording).map_err(anyhow::Error::from)?;
    text.push('\n');
    let written = create_private(&file, text.as_bytes()).map_err(|error| {
        Failure::new(Exit::Failed, format!("{} cannot be written: {error}", file.display()))
    })?;
    if !written {
        let text = format!("{} exists already; move it away, or choose another --dir", file.display());
        return Err(Failure::new(Exit::Failed, text));
    }
    ui::line(&format!(
        "{} holds the screen; take out what is private, and fill in its version and state",
        file.display()
    ))?;
    Ok(Exit::Ok)
}

/// The rule set whose rules a screen is judged by: of one that has none until a composer is seen, the other one.
fn judged_by(harness: &Harness) -> String {
    harness.becomes.as_ref().unwrap_or(&harness.name).clone()
}
