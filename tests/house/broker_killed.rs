//! The broker dies by SIGKILL in the middle of its work and is started again.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::support::{
    Chance, House, PATIENCE, Proxy, TestEngine, Verdict, agents,
    agents::text,
    expect, figure,
    processes::{self, signal},
    until, until_within,
};

const SENT: usize = 120;
/// Proofs that the engine hears of.
const TOLD: usize = 12;
/// Proofs that it does not hear of before the broker dies.
const UNTOLD: usize = 25;
const PROVEN: usize = TOLD + UNTOLD;

#[test]
fn what_had_its_proof_before_a_kill_is_never_typed_again_and_the_rest_is() {
    let engine = TestEngine::start();
    let proxy = Proxy::to(engine.addr());
    let mut house = House::behind(&proxy, &engine).start();
    let (_, node) = house.until_live();
    let listener = house.notes("alice");
    listener.allow(TOLD);
    house.spawn("alice", agents::RATIONED);
    let events = house.events();
    let sender = engine.person("sender");
    for n in 0..SENT {
        engine.dm(&sender, "alice", &text(n));
    }
    until("the engine knows of some proofs", || {
        let acked = engine.acked(&node, "alice");
        expect(acked == Some(TOLD as u64), || format!("{acked:?}, read {}", listener.heard().len()))
    });
    // From here on only the broker's own journal knows.
    proxy.mute_broker(true);
    listener.allow(PROVEN);
    until("more proofs", || {
        let proven = events.of("delivery_ack").len();
        expect(proven == PROVEN, || format!("{proven} proofs"))
    });
    house.kill();
    assert_eq!(events.finish("delivery_ack").len(), PROVEN);
    assert_eq!(engine.acked(&node, "alice"), Some(TOLD as u64), "the engine heard of it: nothing is tested");

    proxy.mute_broker(false);
    proxy.cut();
    house.start_again();
    house.spawn("alice", agents::READER);
    let heard: Vec<usize> = listener.hears(SENT).iter().map(|n| n.parse().unwrap()).collect();
    assert_eq!(heard, (0..SENT).collect::<Vec<_>>(), "something is lost, repeated or out of order");
    until("all mail is acked", || {
        let acked = engine.acked(&node, "alice");
        expect(acked == Some(SENT as u64), || format!("{acked:?}"))
    });
    assert_eq!(listener.heard().len(), SENT);
}

const CREW: [&str; 3] = ["ann", "ben", "cho"];
/// For each of the crew, around each kill.
const BATCH: usize = 8;
/// Longer than a batch takes to be sent and read on a quiet machine: some kills hit before it, most in it.
const KILL_WITHIN_MS: u64 = 150;

/// Waits until each of the crew was told the last of so many.
fn caught_up(house: &House, sent: usize) {
    let Some(last) = sent.checked_sub(1) else { return };
    for name in CREW {
        let notes = house.notes(name);
        until("the crew has caught up", || {
            let heard = notes.heard();
            expect(heard.contains(&last.to_string()), || format!("{name}: {} of {sent}", heard.len()))
        });
    }
}

#[test]
fn kills_at_random_moments_lose_nothing_and_what_comes_twice_is_marked() {
    let mut chance = Chance::new();
    let engine = TestEngine::start();
    let mut house = House::at(&engine).start();
    let (_, node) = house.until_live();
    let sender = engine.person("sender");
    let kills = figure(5, 100);
    for kill in 0..kills {
        for name in CREW {
            house.spawn(name, agents::SURVIVOR);
        }
        // A message that is tried twenty times in vain would become a dead letter.
        caught_up(&house, kill * BATCH);
        let after = Duration::from_millis(chance.below(KILL_WITHIN_MS));
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in kill * BATCH..(kill + 1) * BATCH {
                    for name in CREW {
                        engine.dm(&sender, name, &text(n));
                    }
                }
            });
            // The random moment: nothing is waited for.
            thread::sleep(after);
            house.kill();
        });
        house.start_again();
    }
    let sent = kills * BATCH;
    for name in CREW {
        house.spawn(name, agents::SURVIVOR);
    }
    let listeners = CREW.map(|name| house.notes(name));
    for listener in &listeners {
        until("all mail is acked", || {
            let acked = engine.acked(&node, &listener.name);
            expect(acked == Some(sent as u64), || format!("{}: {acked:?} of {sent}", listener.name))
        });
    }
    let repeats: usize = listeners.iter().map(|listener| listener.repeats(sent)).sum();
    eprintln!("{kills} kills, {} messages, {repeats} typed twice and marked", sent * CREW.len());
}

/// Where a message is when the broker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The engine has sent its frame: nothing may be written down yet.
    Sent,
    /// A part of it has been read, and more than the terminal holds is still to come.
    HalfTyped,
    /// The program has read all of it; the proof may be on its way to the disk.
    Read,
    /// The proof is on disk, and the engine does not hear of it.
    Proven,
    /// The engine has its ack.
    Acked,
}

impl Moment {
    const ALL: [Self; 5] = [Self::Sent, Self::HalfTyped, Self::Read, Self::Proven, Self::Acked];

    /// From here on there is proof on disk: typing it again would be a fault, marked or not.
    fn has_proof(self) -> bool {
        matches!(self, Self::Proven | Self::Acked)
    }
}

/// Several times what may be unread in a terminal at once (4 KiB).
const LONG: usize = 20_000;
/// Between looks for a moment, which lasts less than the pause of [`until`].
const GLANCE: Duration = Duration::from_micros(200);

#[test]
fn a_kill_at_each_step_of_a_message_loses_nothing_and_repeats_only_what_has_no_proof() {
    let engine = TestEngine::start();
    let frames = Arc::new(AtomicUsize::new(0));
    let proxy = Proxy::judging(engine.addr(), {
        let frames = Arc::clone(&frames);
        move |text| {
            frames.fetch_add(usize::from(text.contains("<<")), Ordering::SeqCst);
            Verdict::Pass
        }
    });
    let mut house = House::behind(&proxy, &engine).start();
    let (_, node) = house.until_live();
    let sender = engine.person("sender");
    let notes = house.notes("alice");
    let mut proven = Vec::new();
    let rounds = figure(1, 10);
    for n in 0..rounds * Moment::ALL.len() {
        let moment = Moment::ALL[n % Moment::ALL.len()];
        let events = house.events();
        house
            .spawn("alice", if moment == Moment::HalfTyped { agents::SLOW_READER } else { agents::SURVIVOR });
        let body = match moment {
            Moment::HalfTyped => format!("{}{} end of {n}", text(n), "x".repeat(LONG)),
            _ => text(n),
        };
        proxy.mute_broker(moment == Moment::Proven);
        let before = frames.load(Ordering::SeqCst);
        engine.dm(&sender, "alice", &body);
        let is_there = || match moment {
            Moment::Sent => frames.load(Ordering::SeqCst) > before,
            Moment::HalfTyped | Moment::Read => notes.heard().contains(&n.to_string()),
            Moment::Proven => !events.of("delivery_ack").is_empty(),
            Moment::Acked => engine.acked(&node, "alice") == Some(n as u64 + 1),
        };
        let began = Instant::now();
        while !is_there() {
            assert!(began.elapsed() < PATIENCE, "{n} was never {moment:?}");
            thread::sleep(GLANCE);
        }
        house.kill();
        if moment == Moment::HalfTyped {
            assert!(!notes.has(&format!("end of {n}")), "all of {n} was read: nothing is tested");
        }
        if moment.has_proof() {
            proven.push(n.to_string());
        }
        proxy.mute_broker(false);
        proxy.cut();
        house.start_again();
        house.spawn("alice", agents::SURVIVOR);
        until("it is acked", || {
            let acked = engine.acked(&node, "alice");
            expect(acked == Some(n as u64 + 1), || format!("{n}, killed when {moment:?}: {acked:?}"))
        });
        house.release("alice");
    }
    let repeats = notes.repeats(rounds * Moment::ALL.len());
    for n in proven {
        let times = notes.heard().into_iter().filter(|heard| *heard == n).count();
        assert_eq!(times, 1, "{n} had its proof and was typed again");
    }
    eprintln!("{rounds} kills at each step, {repeats} typed twice and marked");
}

/// Flees in every way that is known, and notes its processes: what nohup shields, what has a session of its own,
/// what ignores HUP and TERM, what has no mark, and what has neither mark nor session nor parent.
const FUGITIVES: &str = r#"note='echo "<<$1 $$>>" >> "$0"; exec sleep 1000'
    nohup sh -c "$note" "$LOG" nohup >/dev/null 2>&1 &
    setsid sh -c "$note" "$LOG" setsid &
    sh -c "trap '' HUP TERM; $note" "$LOG" deaf &
    setsid env -i /bin/sh -c "$note" "$LOG" bare &
    (setsid env -i /bin/sh -c 'sh -c "$0" "$1" ghost &' "$note" "$LOG" &)
    trap '' HUP TERM; while :; do sleep 1; done"#;
const FLED: usize = 5;
/// From the kill to the end of the last process.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Starts an agent that flees; its processes. Only a cgroup holds the last two of its kinds, once the program that they
/// came from is killed with its broker.
fn fugitives(house: &House, name: &str) -> Vec<u32> {
    let leader = house.spawn(name, FUGITIVES);
    let notes = house.notes(name);
    let has_cgroups = house.log().contains("agents have cgroups of their own");
    let fled = notes.hears(FLED).into_iter().filter_map(|note| {
        let (kind, pid) = note.split_once(' ').unwrap();
        let pid = pid.parse().unwrap();
        if matches!(kind, "bare" | "ghost") && !has_cgroups {
            // Nobody could find them: they are no part of the test, and must not outlive it.
            signal(pid, Signal::SIGKILL);
            return None;
        }
        Some(pid)
    });
    fled.chain([leader]).collect()
}

fn are_gone(what: &str, pids: &[u32]) {
    until_within(GONE_WITHIN, what, || {
        let left: Vec<u32> = pids.iter().copied().filter(|pid| processes::runs(*pid)).collect();
        expect(left.is_empty(), || processes::describe(&left))
    });
}

#[test]
fn a_killed_broker_leaves_nothing_behind_although_no_next_one_comes() {
    let mut house = House::embedded().apart().start();
    let guard = house.guard();
    let fled = fugitives(&house, "mule");
    let mut all = fugitives(&house, "goat");
    all.extend(fled);
    assert!(all.iter().all(|pid| processes::runs(*pid)), "too few to mean anything");
    let began = Instant::now();
    house.kill();
    are_gone("all that agents have started is gone", &all);
    let took = began.elapsed();
    are_gone("the guard is gone", &[guard]);
    eprintln!("{} processes were gone {took:?} after the kill", all.len());
}

#[test]
fn the_guard_has_nothing_of_the_brokers_but_a_pipe() {
    let house = House::embedded().env("RELAY_BROKER_API_KEY", "br_secret").start();
    house.listener("alice");
    let guard = house.guard();
    let open = processes::descriptors(guard);
    let pipes = open.iter().filter(|open| open.starts_with("pipe:")).count();
    let nothing = open.iter().filter(|open| *open == "/dev/null").count();
    assert_eq!((pipes, nothing, open.len()), (1, 2, 3), "{open:?}");
    assert_eq!(fs::read(format!("/proc/{guard}/environ")).unwrap(), b"");
    assert_eq!(processes::threads(guard), 1);
    for which in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signal(guard, which);
    }
    house.release("alice");
    assert!(processes::runs(guard));
    assert_eq!(house.guard(), guard);
    eprintln!("{} bytes resident", processes::resident(guard));
}

#[test]
fn a_guard_that_was_killed_is_replaced_and_the_broker_goes_on() {
    let mut house = House::embedded().apart().start();
    let mut all = fugitives(&house, "mule");
    let old = house.guard();
    signal(old, Signal::SIGKILL);
    are_gone("the guard is dead", &[old]);
    all.extend(fugitives(&house, "goat"));
    assert_eq!(house.agents().len(), 2);
    let guard = house.guard();
    assert_ne!(guard, old);
    house.kill();
    are_gone("all that agents have started is gone", &all);
    are_gone("the guard is gone", &[guard]);
}

#[test]
fn the_next_broker_ends_what_a_killed_one_left_behind_together_with_its_guard() {
    let mut house = House::embedded().apart().start();
    let all = fugitives(&house, "mule");
    let guard = house.guard();
    // So that it cannot start another one.
    house.signal(Signal::SIGSTOP);
    signal(guard, Signal::SIGKILL);
    are_gone("the guard is dead", &[guard]);
    house.kill();
    let (leader, fled) = all.split_last().unwrap();
    are_gone("the program itself is gone", &[*leader]);
    assert!(fled.iter().all(|pid| processes::runs(*pid)), "somebody else has ended them: nothing is tested");
    house.start_again();
    are_gone("the old processes are gone", fled);
    assert_eq!(house.agents(), [""; 0]);
    house.spawn("mule", agents::READER);
}

#[test]
fn daemons_that_shall_stay_outlive_a_killed_broker_and_the_start_of_the_next() {
    let mut house = House::embedded().apart().start();
    let mut body = house.spawn_request("host", FUGITIVES, &[]);
    body["keep_daemons"] = true.into();
    assert_eq!(house.call("POST", "/api/spawn", Some(&body)).status, 200);
    let daemons: Vec<u32> = house
        .notes("host")
        .hears(FLED)
        .iter()
        .map(|note| note.split_once(' ').unwrap().1.parse().unwrap())
        .collect();
    let guard = house.guard();
    house.kill();
    are_gone("the guard is gone", &[guard]);
    house.start_again();
    house.spawn("guest", agents::READER);
    let kept: Vec<_> = daemons.iter().filter(|pid| processes::runs(**pid)).collect();
    assert_eq!(kept.len(), FLED, "{}", processes::describe(&daemons));
    daemons.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
}
