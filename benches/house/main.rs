//! What the broker costs, beside a floor program that does the least a program can do with the same frames
//! and the same children, in one run. docs/performance.md tells the method and the goals.
//!
//! ```text
//! cargo bench --bench house -- [latency] [burst] [idle] [spawn] [start] [sizes] [flood] [--rounds N]
//! ```
//!
//! Engine, broker, floor and children are processes on one machine that read one clock; the figures of a
//! busy machine compare with those of the same run alone.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the figures go to whoever asked for them")]

mod broker;
mod child;
mod clock;
mod composer;
mod engine;
mod figures;
mod flood;
mod floor;
mod party;
mod sink;
mod sizes;
mod socket;

use std::{fs, path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{
    broker::Broker,
    engine::{Engine, Heard},
    figures::{Figures, Goal, median, quantile},
    party::Party,
};

/// What is measured when nothing is named.
const ALL: [&str; 7] = ["latency", "burst", "idle", "spawn", "start", "sizes", "flood"];
/// The two that take turns.
const NAMES: [&str; 2] = ["broker", "floor"];
/// Rounds of latency and burst; broker and floor take turns.
const ROUNDS: u32 = 5;
/// Messages of one round of latency.
const SINGLES: u32 = 200;
/// Pause between them, so that each meets a house at rest.
const PAUSE: Duration = Duration::from_millis(8);
/// Messages of a burst, and agents of the wide one.
const BURST: u64 = 5000;
const WIDE: u64 = 20;
/// The most that an engine keeps for one agent.
const MAILBOX: u64 = 1000;
/// Idle agents.
const CROWD: u64 = 50;
/// How long they are watched.
const WATCH: Duration = Duration::from_secs(20);
/// After the last spawn, before anything is measured.
const REST: Duration = Duration::from_secs(3);
/// Spawns and starts of each kind.
const TRIES: u32 = 10;
/// The broker's survival check: a silent child's spawn is answered after it (milliseconds).
const SURVIVAL: f64 = 250.0;

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["reader", report, agent] => child::run(report, agent.parse()?),
        ["composer", report, agent] => child::compose(report, agent.parse()?),
        ["flooder", _, _] => child::flood(),
        ["floor", engine, report, agents] => floor::run(engine, report, agents.parse()?),
        _ => measure(&words),
    }
}

fn measure(words: &[&str]) -> Result<()> {
    let mut rounds = ROUNDS;
    let mut wanted = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            // What cargo adds.
            "--bench" => {}
            "--rounds" => rounds = words.next().context("--rounds wants a number")?.parse()?,
            name if ALL.contains(&name) => wanted.push(name),
            other => bail!("`{other}` is none of {}", ALL.join(", ")),
        }
    }
    let wants = |name| wanted.is_empty() || wanted.contains(&name);
    // On a real disk, so that the journal's syncs cost what they cost.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let load_before = load();
    let mut figures = Figures::default();
    if wants("latency") || wants("burst") {
        traffic(dir.path(), rounds, wants("latency"), wants("burst"), &mut figures)?;
    }
    if wants("idle") || wants("spawn") {
        idle(dir.path(), wants("idle"), wants("spawn"), &mut figures)?;
    }
    if wants("start") {
        start(dir.path(), &mut figures)?;
    }
    if wants("sizes") {
        sizes::measure(dir.path(), &mut figures)?;
    }
    if wants("flood") {
        flood::measure(dir.path(), rounds, &mut figures)?;
    }
    let circumstances = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cores": thread::available_parallelism().map_or(0, usize::from),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "load_before": load_before, "load_after": load(), "rounds": rounds,
    });
    println!("{}{}", figures.table(), figures.line(circumstances));
    Ok(())
}

/// How busy the machine was in the last minute.
fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

fn subdir(dir: &Path, name: &str) -> Result<std::path::PathBuf> {
    let dir = dir.join(name);
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Single messages and bursts, broker and floor in turns.
fn traffic(dir: &Path, rounds: u32, latency: bool, burst: bool, figures: &mut Figures) -> Result<()> {
    let mut broker = Party::broker(&subdir(dir, "traffic")?)?;
    for _ in 0..WIDE {
        broker.spawn()?;
    }
    broker.deliver(0..WIDE)?;
    let floor = Party::floor(&subdir(dir, "floor")?, WIDE)?;

    let mut singles = [Series::default(), Series::default()];
    let mut mailbox = [Series::default(), Series::default()];
    let mut narrow = [Series::default(), Series::default()];
    let mut wide = [Series::default(), Series::default()];
    let mut parties = [broker, floor];
    for round in 0..rounds {
        if latency {
            let mut of_round = [Series::default(), Series::default()];
            for _ in 0..SINGLES {
                // In turns, so that both meet the machine in the same mood.
                for (party, series) in parties.iter_mut().zip(&mut of_round) {
                    series.take(party.deliver(std::iter::once(0))?);
                    thread::sleep(PAUSE);
                }
            }
            for ((series, of_round), name) in singles.iter_mut().zip(of_round).zip(NAMES) {
                eprintln!("round {round}, {name}: {}", of_round.summary());
                series.merge(of_round);
            }
        }
        for (at, party) in parties.iter_mut().enumerate().filter(|_| burst) {
            mailbox[at].take(party.deliver((0..MAILBOX).map(|_| 0))?);
            narrow[at].take(party.deliver((0..BURST).map(|_| 0))?);
            wide[at].take(party.deliver((0..BURST).map(|number| number % WIDE))?);
            eprintln!(
                "round {round}, {}: until read, ms: 1,000 to 1 {:.0}, 5,000 to 1 {:.0}, 5,000 to {WIDE} {:.0}",
                NAMES[at],
                mailbox[at].last_read() / 1e3,
                narrow[at].last_read() / 1e3,
                wide[at].last_read() / 1e3,
            );
        }
    }
    if latency {
        let [broker, floor] = &singles;
        let mut add = |what, share: f64, of: fn(&Series) -> &[f64], goal| {
            figures.add(what, quantile(of(broker), share), Some(quantile(of(floor), share)), goal);
        };
        add(("read_p50", "deliver to read, p50", "us"), 0.5, Series::read, Goal::TimesFloor(2.0));
        add(("read_p99", "deliver to read, p99", "us"), 0.99, Series::read, Goal::None);
        add(("acked_p50", "deliver to ack, p50", "us"), 0.5, Series::acked, Goal::None);
        add(("acked_p99", "deliver to ack, p99", "us"), 0.99, Series::acked, Goal::None);
    }
    if burst {
        let mut add = |what, count: u64, [broker, floor]: &[Series; 2], of: fn(&Series) -> &[f64], least| {
            let rate = |series: &Series| count as f64 / (median(of(series)) / 1e6);
            figures.add(what, rate(broker), Some(rate(floor)), least);
        };
        let what = ("mailbox_read", "1,000 to 1 agent, until read", "msg/s");
        add(what, MAILBOX, &mailbox, Series::read, Goal::None);
        let what = ("mailbox_acked", "1,000 to 1 agent, until acked", "msg/s");
        add(what, MAILBOX, &mailbox, Series::acked, Goal::None);
        let what = ("narrow_read", "5,000 to 1 agent, until read", "msg/s");
        add(what, BURST, &narrow, Series::read, Goal::AtLeast(3000.0));
        let what = ("narrow_acked", "5,000 to 1 agent, until acked", "msg/s");
        add(what, BURST, &narrow, Series::acked, Goal::None);
        let what = ("wide_read", "5,000 to 20 agents, until read", "msg/s");
        add(what, BURST, &wide, Series::read, Goal::AtLeast(8000.0));
        let what = ("wide_acked", "5,000 to 20 agents, until acked", "msg/s");
        add(what, BURST, &wide, Series::acked, Goal::None);
    }
    Ok(())
}

/// Times of many deliveries, in microseconds.
#[derive(Default)]
struct Series {
    read: Vec<f64>,
    acked: Vec<f64>,
}

impl Series {
    fn take(&mut self, times: party::Times) {
        self.read.push(times.to_read_us());
        self.acked.push(times.to_acked_us());
    }

    fn merge(&mut self, other: Self) {
        self.read.extend(other.read);
        self.acked.extend(other.acked);
    }

    fn read(&self) -> &[f64] {
        &self.read
    }

    fn acked(&self) -> &[f64] {
        &self.acked
    }

    fn last_read(&self) -> f64 {
        self.read.last().copied().unwrap_or(f64::NAN)
    }

    fn summary(&self) -> String {
        format!(
            "read p50 {:.0} us p99 {:.0} us, acked p50 {:.0} us p99 {:.0} us",
            median(&self.read),
            quantile(&self.read, 0.99),
            median(&self.acked),
            quantile(&self.acked, 0.99)
        )
    }
}

/// Fifty agents at rest; and what a spawn takes, on the way there.
fn idle(dir: &Path, idle: bool, spawn: bool, figures: &mut Figures) -> Result<()> {
    let mut party = Party::broker(&subdir(dir, "idle")?)?;
    if spawn {
        let mut silent = Vec::new();
        for number in 0..TRIES {
            let name = format!("silent-{number}");
            let (_, took) = party.as_broker()?.spawn(&name, Path::new("sleep"), &["1000"], "plain")?;
            silent.push(took - SURVIVAL);
        }
        let talking = (0..TRIES).map(|_| party.spawn()).collect::<Result<Vec<_>>>()?;
        let what = ("spawn_silent", "spawn, beyond the survival check, p50", "ms");
        figures.add(what, median(&silent), None, Goal::AtMost(15.0));
        figures.add(
            ("spawn_talking", "spawn of a child that talks, p50", "ms"),
            median(&talking),
            None,
            Goal::None,
        );
    }
    if idle {
        // A broker that has done nothing yet, so that the first agent's share is counted too.
        party = Party::broker(&subdir(dir, "crowd")?)?;
        thread::sleep(REST);
        let before = party.as_broker()?.rss()?;
        for _ in 0..CROWD {
            party.spawn()?;
        }
        thread::sleep(REST);
        let fresh = party.as_broker()?.rss()?;
        let cpu = party.as_broker()?.cpu()?;
        thread::sleep(WATCH);
        let used = party.as_broker()?.cpu()? - cpu;
        party.deliver(0..CROWD)?;
        thread::sleep(REST);
        let after = party.as_broker()?.rss()?;
        let each = |rss: f64| (rss - before) / CROWD as f64;
        figures.add(("rss_base", "memory without agents", "KiB"), before, None, Goal::None);
        figures.add(
            ("rss_each", "memory per idle agent, of 50", "KiB"),
            each(fresh),
            None,
            Goal::AtMost(600.0),
        );
        figures.add(
            ("rss_spoken", "the same after one message to each", "KiB"),
            each(after),
            None,
            Goal::AtMost(600.0),
        );
        let share = used / (WATCH.as_secs_f64() * 1000.0) * 100.0;
        figures.add(("cpu_idle", "CPU of 50 idle agents, 20 s", "%"), share, None, Goal::AtMost(0.5));
    }
    Ok(())
}

/// From the start of the process to its `node.register`: in a new directory, where it enrols, and again.
fn start(dir: &Path, figures: &mut Figures) -> Result<()> {
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for round in 0..TRIES {
        let home = subdir(dir, &format!("start-{round}"))?;
        let engine = Engine::start()?;
        for times in [&mut cold, &mut warm] {
            let mut broker = Broker::start(&home, &engine.url())?;
            let (at, heard) = engine.next(Duration::from_secs(30))?;
            let Heard::Node = heard else { bail!("{heard:?} before node.register") };
            times.push(clock::ms(broker.started, at));
            broker.listening()?;
            broker.stop()?;
        }
    }
    figures.add(
        ("start_new", "start to node.register, new, p50", "ms"),
        median(&cold),
        None,
        Goal::AtMost(15.0),
    );
    figures.add(
        ("start_again", "start to node.register, again, p50", "ms"),
        median(&warm),
        None,
        Goal::AtMost(15.0),
    );
    Ok(())
}
