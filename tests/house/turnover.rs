//! Many agents, over and over: the broker is afterwards what it was before.

use std::{sync::Arc, thread};

use serde_json::json;

use crate::support::{House, expect, processes, until};

/// Agents at once, and how often each place is filled anew.
const AGENTS: usize = 25;
const ROUNDS: usize = 4;

fn round(house: &Arc<House>, number: usize) {
    let threads: Vec<_> = (0..5)
        .map(|worker| {
            let house = Arc::clone(house);
            thread::spawn(move || {
                let names = (worker..AGENTS).step_by(5).map(|n| format!("turn-{number}-{n}"));
                let names: Vec<_> = names.collect();
                for name in &names {
                    house.spawn(name, "echo hello; exec cat");
                }
                for name in &names {
                    let answer = house.call(
                        "DELETE",
                        &format!("/api/spawned/{name}"),
                        Some(&json!({ "force": true })),
                    );
                    assert_eq!(answer.status, 200, "{}", answer.text);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

#[test]
fn agents_that_come_and_go_leave_no_descriptor_no_thread_and_no_zombie() {
    let house = Arc::new(House::embedded().start());
    house.until_live();
    // The first round fills pools that stay.
    round(&house, 0);
    let open = |house: &House| {
        let descriptors = processes::descriptors(house.pid());
        descriptors.into_iter().filter(|target| target.contains("ptmx") || target.contains("pidfd")).count()
    };
    until("the first round is over", || expect(open(&house) == 0, || format!("{} open", open(&house))));
    let before = processes::descriptors(house.pid()).len();
    for number in 1..ROUNDS {
        round(&house, number);
    }
    until("everything is given back", || {
        let (now, ptys) = (processes::descriptors(house.pid()).len(), open(&house));
        let zombies = processes::zombies_of(house.pid());
        // Connections of clients come and go.
        let same = now <= before + before / 20 + 2 && ptys == 0 && zombies.is_empty();
        expect(same, || {
            format!("{before} descriptors became {now}, {ptys} of terminals, zombies {zombies:?}")
        })
    });
    assert!(threads(house.pid()) <= 64, "{} threads", threads(house.pid()));
    assert!(house.agents().is_empty());
    eprintln!("resident after {} agents: {} KiB", AGENTS * ROUNDS, processes::resident(house.pid()) / 1024);
}
