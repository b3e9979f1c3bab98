//! `demo`: two agents talk, in a directory that is removed afterwards.
//!
//! A broker (this same program, `up`) is started with everything it writes below one temporary directory.
//! Two agents, which are a small shell script each, are told over the API to play; they answer by calling
//! `relay-broker send`. What happens is printed as the broker's event stream tells it.

use std::{
    io,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::{
    Exit, Failure, actors,
    client::{Api, block_on},
    ui,
};
use crate::config::Env;

mod hops;
mod stage;

use hops::Hops;
use stage::Stage;

/// The players.
const PLAYERS: [&str; 2] = ["ping", "pong"];
/// How often the ball is hit.
const HITS: usize = 6;
/// For all of it together, until the house is torn down.
const WHOLE: Duration = Duration::from_secs(9);

/// For a question to a broker that has not kept its time.
const LAST_QUESTION: Duration = Duration::from_secs(1);

/// `relay-broker demo`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Leave it running, to look around.
    #[arg(long)]
    keep: bool,
}

#[derive(Deserialize)]
struct Explained {
    summary: String,
}

#[derive(Serialize)]
struct Told<'a> {
    to: &'a str,
    text: &'a str,
}

/// Shows it.
pub(super) fn run(args: &Args, _env: &Env) -> Result<Exit, Failure> {
    let mut stage = Stage::build()?;
    let outcome = block_on(async {
        tokio::select! {
            outcome = timeout(WHOLE, show(&mut stage)) => match outcome {
                Ok(shown) => shown,
                Err(_) => Err(too_slow(&stage).await),
            },
            () = asked_to_stop() => Err(Failure::new(Exit::Interrupted, "interrupted; all is cleaned up")),
        }
    });
    match outcome {
        Ok(()) if args.keep => {
            let (dir, state) = (stage.dir().display().to_string(), stage.state_dir().display().to_string());
            stage.keep();
            ui::line(&format!(
                "\nIt runs on. Look around with\n  \
                 relay-broker ps --state-dir {state}\n  \
                 relay-broker explain pong --state-dir {state}\n  \
                 relay-broker send ping 'ball 1' --state-dir {state}\n\
                 and end it with\n  \
                 relay-broker down --state-dir {state} && rm -r {dir}"
            ))?;
            Ok(Exit::Ok)
        }
        Ok(()) => {
            stage.clear()?;
            ui::line(
                "\nDone: no process and no file is left. Now try it yourself:\n  \
                 relay-broker up                          # in this terminal\n  \
                 relay-broker spawn alice -- bash         # in another one, in the same directory\n  \
                 relay-broker send alice hello\n  \
                 relay-broker snapshot alice",
            )?;
            Ok(Exit::Ok)
        }
        Err(failure) => {
            stage.clear()?;
            Err(failure)
        }
    }
}

async fn show(stage: &mut Stage) -> Result<(), Failure> {
    let began = Instant::now();
    let say = |text: &str| -> io::Result<()> {
        ui::line(&format!("{:>6} ms  {text}", began.elapsed().as_millis()))
    };
    say(&format!("a broker with an engine of its own starts in {}", stage.dir().display()))?;
    let broker = stage.start().await?;
    say(&format!("it listens on {} (pid {})", broker.url, broker.pid.unwrap_or_default()))?;
    let mut hops = Hops::listen(&broker, began).await?;
    let api = Api::new(broker);
    stage.until_live(&api).await?;
    say("its node is registered at the engine")?;

    for (player, peer) in [(PLAYERS[0], PLAYERS[1]), (PLAYERS[1], PLAYERS[0])] {
        api.post("/api/spawn", &stage.player(player, peer, HITS)).await?;
        say(&format!("agent {player} runs in a terminal of its own: {}", stage.command_line()))?;
    }
    say(&format!("you tell {}: ball 1", PLAYERS[0]))?;
    api.post("/api/send", &Told { to: PLAYERS[0], text: "ball 1" }).await?;
    hops.print_until_acked(HITS).await?;

    say(&format!("{HITS} messages, each proven and acked; `relay-broker actors` shows"))?;
    ui::line(&format!("\n{}", actors::table(&api.get("/debug/actors").await?)?))?;
    Ok(())
}

/// What a person needs to see why: what each player waits for, and the end of the broker's log.
async fn too_slow(stage: &Stage) -> Failure {
    let mut said = format!("the demo did not finish within {} s", WHOLE.as_secs());
    if let Ok(broker) = stage.broker() {
        let api = Api::new(broker);
        for player in PLAYERS {
            let path = format!("/debug/agents/{player}");
            let explained = match timeout(LAST_QUESTION, api.get(&path)).await {
                Ok(Ok(answer)) => answer.read().map(|Explained { summary }| ui::plain(&summary)),
                Ok(Err(failure)) => Err(failure),
                Err(_) => Ok(format!("{player}: the broker does not answer")),
            };
            let line = explained.unwrap_or_else(|failure| format!("{player}: {failure}"));
            said.push_str(&format!("\n  {line}"));
        }
    }
    Failure::new(Exit::Failed, format!("{said}\nthe broker's last words: {}", stage.last_words()))
}

/// Ctrl-C, or anything else that means the same.
async fn asked_to_stop() {
    let one = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            // Then this signal simply ends the process, as it would without us.
            Err(error) => {
                tracing::warn!(%error, "a signal cannot be watched");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = one(SignalKind::interrupt()) => {}
        () = one(SignalKind::terminate()) => {}
        () = one(SignalKind::hangup()) => {}
    }
}
