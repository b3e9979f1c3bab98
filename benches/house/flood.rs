//! What others notice of an agent that writes as fast as it goes and never reads.

use std::{path::Path, thread, time::Duration};

use anyhow::{Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    PAUSE,
    child::Program,
    figures::{Figures, Goal, quantile},
    party::{Party, agent_name},
    subdir,
};

/// Single messages of one round, with the flood and without.
const SINGLES: u32 = 100;
/// The least that the flood has to bring.
const FLOOD: u64 = 100_000_000;
/// For the rest of it, when the singles were done sooner.
const LOOKS: u32 = 600;
const LOOK: Duration = Duration::from_millis(100);

/// The listener, and the agent that floods.
const LISTENER: u64 = 0;
const FLOODER: u64 = 1;

/// Single messages in rounds, the flood stopped in every other one.
pub(crate) fn measure(dir: &Path, rounds: u32, figures: &mut Figures) -> Result<()> {
    let mut party = Party::broker(&subdir(dir, "flood")?)?;
    party.spawn()?;
    party.deliver([LISTENER].into_iter())?;
    let (flood, _) = party.spawn_as(Program::Flood)?;
    let flood = Pid::from_raw(i32::try_from(flood)?);
    let mut peak: f64 = 0.0;
    let (mut calm, mut flooded) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (signal, times) in [(Signal::SIGSTOP, &mut calm), (Signal::SIGCONT, &mut flooded)] {
            kill(flood, signal)?;
            // What is under way comes to its end.
            thread::sleep(LOOK);
            for _ in 0..SINGLES {
                times.push(party.deliver([LISTENER].into_iter())?.to_read_us());
                thread::sleep(PAUSE);
            }
            peak = peak.max(party.as_broker()?.rss()?);
        }
    }
    let written = || party.as_broker()?.written_by(&agent_name(FLOODER));
    let mut looks = 0;
    while written()? < FLOOD {
        looks += 1;
        ensure!(looks < LOOKS, "the flood has brought {} bytes only", written()?);
        thread::sleep(LOOK);
        peak = peak.max(party.as_broker()?.rss()?);
    }
    let mut add = |key: &'static str, what: &'static str, share, goal| {
        let (flooded, calm) = (quantile(&flooded, share), quantile(&calm, share));
        figures.add((key, what, "us"), flooded, Some(calm), goal);
    };
    add("flood_p50", "beside a flood (without), p50", 0.5, Goal::None);
    add("flood_p99", "beside a flood (without), p99", 0.99, Goal::TimesFloor(2.0));
    let what = ("flood_rss", "memory in a flood of 100 MB", "MiB");
    figures.add(what, peak / 1024.0, None, Goal::AtMost(100.0));
    Ok(())
}
