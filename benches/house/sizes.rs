//! What a message takes by its length, its Enter included: into a program that reads and into one with a composer.

use std::{path::Path, thread, time::Duration};

use anyhow::Result;

use crate::{
    child::{EVERYDAY, Program},
    figures::{Figures, Goal, quantile},
    party::Party,
    subdir,
};

/// Lengths of the texts, with their names.
const SIZES: [(usize, [&str; 2]); 3] = [
    (10, ["10 B", "10"]),
    (1 << 10, ["1 kB", "1k"]),
    // The longest body that is typed whole.
    (16 << 10, ["16 kB", "16k"]),
];
/// The programs, with the messages of each length and the rest between them: a composer that was just submitted is
/// typed into again after the silence that its rules want.
const PROGRAMS: [(Program, &str, u32, Duration); 3] = [
    (Program::Reader, "plain", 100, Duration::from_millis(8)),
    (Program::Composer("brisk"), "composer, no settle", 40, Duration::from_millis(300)),
    (Program::Composer("generic"), "composer", 40, Duration::from_millis(300)),
];
/// A program starts behind its composer; then it is at rest.
const SETTLED: Duration = Duration::from_secs(2);
/// Messages of the burst.
const BURST: usize = 40;
/// Agents of the crowd, and messages to each.
const CROWD: u64 = 100;
const EACH: u64 = 10;

/// Measures, with a broker of its own for each program.
pub(crate) fn measure(dir: &Path, figures: &mut Figures) -> Result<()> {
    for (program, name, count, rest) in PROGRAMS {
        let mut party = Party::broker(&subdir(dir, &format!("sizes-{name}"))?)?;
        party.spawn_as(program)?;
        thread::sleep(SETTLED);
        // The first tells of its start, not of its length.
        party.deliver([0].into_iter())?;
        let pauses = matches!(program, Program::Composer("generic"));
        for (bytes, size) in SIZES {
            let mut times = Vec::new();
            for _ in 0..count {
                thread::sleep(rest);
                times.push(party.deliver_of(bytes, [0].into_iter())?.to_read_us() / 1e3);
            }
            for (quantile_name, share, most) in [("p50", 0.5, 50.0), ("p99", 0.99, 250.0)] {
                let goal = if pauses { Goal::None } else { Goal::AtMost(most) };
                let what = format!("{name}: {}, {quantile_name}", size[0]);
                let key = format!("size_{}_{}_{quantile_name}", name.replace([',', ' '], ""), size[1]);
                figures.add((key, what, "ms"), quantile(&times, share), None, goal);
            }
        }
        thread::sleep(SETTLED);
        let burst = party.deliver_of(EVERYDAY, [0; BURST].into_iter())?.to_read_us() / 1e6;
        let what = (format!("burst_{}", program.harness()), format!("{name}: {BURST} at once"), "s");
        figures.add(what, burst, None, Goal::AtMost(3.0));
    }
    for program in [Program::Reader, Program::Composer("generic")] {
        let harness = program.harness();
        let mut party = Party::broker(&subdir(dir, &format!("crowd-{harness}"))?)?;
        for _ in 0..CROWD {
            party.spawn_as(program)?;
        }
        thread::sleep(SETTLED);
        let crowd = party.deliver((0..CROWD * EACH).map(|n| n % CROWD))?.to_read_us() / 1e6;
        let what = format!("{harness}: {CROWD} agents, {EACH} to each");
        figures.add((format!("crowd_{harness}"), what, "s"), crowd, None, Goal::AtMost(10.0));
    }
    Ok(())
}
