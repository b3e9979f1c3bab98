//! Many agents, over and over: the broker is afterwards what it was before.

use std::{collections::BTreeMap, thread};

use serde_json::json;

use crate::support::{House, figure, processes, until};

/// Callers at once.
const CALLERS: usize = 5;
/// Resident memory may grow by this much, in bytes and in percent. What the broker remembers of agents that are gone
/// is bounded (500 of them, their last exits) and fills up within the whole figure, and an allocator keeps what it
/// was once given; a screen that stayed would cost 40 KB for each of 900 agents.
const GROWN_MAX: u64 = 4 << 20;
const GROWN_PERCENT: u64 = 10;

/// Does it to each name, several at a time.
fn each(names: &[String], act: impl Fn(&str) + Sync) {
    let act = &act;
    thread::scope(|scope| {
        for part in names.chunks(names.len().div_ceil(CALLERS)) {
            scope.spawn(move || part.iter().for_each(|name| act(name)));
        }
    });
}

/// All are there at once, and then none is.
fn round(house: &House, agents: usize, number: usize) {
    let names: Vec<_> = (0..agents).map(|n| format!("turn-{number}-{n}")).collect();
    each(&names, |name| {
        house.spawn(name, "echo hello; exec cat");
    });
    each(&names, |name| {
        let answer = house.call("DELETE", &format!("/api/spawned/{name}"), Some(&json!({ "force": true })));
        assert_eq!(answer.status, 200, "{}", answer.text);
    });
}

/// What a broker holds of the system.
#[derive(Debug)]
struct Held {
    /// How many of each kind: `anon_inode:[pidfd]`, `socket`, `pipe`, or a file's path.
    descriptors: BTreeMap<String, usize>,
    threads: usize,
    zombies: Vec<u32>,
}

impl Held {
    fn by(house: &House) -> Self {
        let mut descriptors = BTreeMap::new();
        for target in processes::descriptors(house.pid()) {
            let kind = match target.split_once(":[") {
                Some((kind @ ("socket" | "pipe"), _)) => kind.to_owned(),
                _ => target,
            };
            *descriptors.entry(kind).or_default() += 1;
        }
        let zombies = processes::zombies_of(house.pid());
        Self { descriptors, threads: processes::threads(house.pid()), zombies }
    }

    /// Nothing that an agent's process needs.
    fn is_of_no_agent(&self) -> bool {
        let of_agent = |kind: &String| kind.contains("ptmx") || kind.contains("pidfd");
        self.zombies.is_empty() && !self.descriptors.keys().any(of_agent)
    }

    /// Of nothing more than it was before.
    fn is_within(&self, before: &Self) -> bool {
        let was = |kind: &String| before.descriptors.get(kind).copied().unwrap_or(0);
        self.threads <= before.threads && self.descriptors.iter().all(|(kind, count)| *count <= was(kind))
    }
}

#[test]
fn agents_that_come_and_go_leave_no_descriptor_no_thread_no_zombie_and_no_memory() {
    let (agents, rounds) = (figure(25, 100), figure(4, 10));
    let house = House::embedded().start();
    house.until_live();
    // The first round fills pools and caches that stay.
    round(&house, agents, 0);
    let before = until("the first round is over", || {
        let held = Held::by(&house);
        if held.is_of_no_agent() { Ok(held) } else { Err(format!("{held:?}")) }
    });
    let memory = processes::resident(house.pid());
    for number in 1..rounds {
        round(&house, agents, number);
    }
    let after = until("everything is given back", || {
        let held = Held::by(&house);
        if held.is_of_no_agent() && held.is_within(&before) {
            Ok(held)
        } else {
            Err(format!("{held:?} of {before:?}"))
        }
    });
    assert!(house.agents().is_empty());
    let now = processes::resident(house.pid());
    eprintln!("{} agents: {memory} bytes became {now}; {after:?}", agents * rounds);
    assert!(now <= memory + memory / 100 * GROWN_PERCENT + GROWN_MAX, "{memory} bytes became {now}");
}
