//! `down`: stops the broker and waits until it is gone.

use std::time::{Duration, Instant};

use super::{
    Exit, Failure,
    client::{Api, Nothing, block_on},
    connection::is_alive,
    find::Where,
    ui,
};
use crate::config::Env;

/// A broker ends its agents within 5 s; the rest is its own.
const GONE: Duration = Duration::from_secs(10);
/// Between two looks at its process.
const LOOK: Duration = Duration::from_millis(20);

/// `relay-broker down`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Where,
}

/// Stops it.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    let pid = broker.pid;
    block_on(async {
        Api::new(broker).post("/api/shutdown", &Nothing {}).await?;
        let began = Instant::now();
        while pid.is_some_and(is_alive) {
            if began.elapsed() > GONE {
                let pid = pid.unwrap_or_default();
                let said = format!(
                    "the broker (pid {pid}) is still ending after {} s; `kill -KILL {pid}` ends it and its \
                     agents at once",
                    GONE.as_secs()
                );
                return Err(Failure::new(Exit::Failed, said));
            }
            actix_rt::time::sleep(LOOK).await;
        }
        Ok(())
    })?;
    ui::line("stopped")?;
    Ok(Exit::Ok)
}
