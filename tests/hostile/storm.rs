//! A hundred thousand frames that no engine sends, at the socket of the real binary.

use serde_json::json;

use crate::{
    corpus,
    meddler::{self, Meddler},
    mutate,
    support::{Chance, TestEngine, agents::text, expect, processes::resident, until},
};

const FRAMES: usize = 100_000;
/// After these the memory is what it needs for such frames at all.
const WARM_UP: usize = 5_000;
/// More than the broker reads (4 MiB).
const GIANT: usize = 10 << 20;
const DEPTH: usize = 10_000;
const GROWTH_MAX: u64 = 20 << 20;

#[test]
fn a_hundred_thousand_malformed_frames_cost_nothing_but_their_time() {
    let mut chance = Chance::new();
    let engine = TestEngine::start();
    let meddler = Meddler::before(engine.addr());
    let house = meddler.house(&engine.key).start();
    let listener = house.listener("alice");
    // The recorded deliveries are for one of this name: they go all the way.
    house.listener("otter-1");
    let sender = engine.person("sender");
    let seeds = corpus::files("fixtures/frames/engine");
    let pid = house.pid();

    let mut resident_before = 0;
    for n in 0..FRAMES {
        if n == WARM_UP {
            meddler.until_read(n);
            resident_before = resident(pid);
        }
        meddler.say(&hostile(&mut chance, &seeds, n)).unwrap();
    }
    meddler.until_read(FRAMES);
    let seen = house.actor("node_session")["detail"].to_string();
    eprintln!("{seen}");
    assert!(seen.contains("frames_unreadable") && seen.contains("frames_for_strangers"), "{seen}");
    assert_eq!(meddler.sockets(), 1, "no frame was worth a disconnect:\n{}", house.log());

    // Too much for one message, whole and in parts: the policy is to end the socket, and nothing else.
    let giant = vec![b'['; GIANT];
    for (n, bytes) in
        [meddler::frame(meddler::TEXT, &giant), meddler::parts(&giant, 1 << 20)].iter().enumerate()
    {
        // The broker ends the socket before it has read everything.
        meddler.say(bytes).ok();
        meddler.reconnected(n + 1);
        house.until_live();
    }
    assert_eq!(meddler.sockets(), 3);

    engine.dm(&sender, "alice", &text("still there"));
    assert_eq!(listener.hears(1), ["still there"]);
    assert_eq!(house.pid(), pid);
    assert!(!house.log().contains("panicked"), "{}", house.log());
    until("the memory is given back", || {
        let now = resident(pid);
        eprintln!("resident: {} KiB after the warm-up, {} KiB now", resident_before >> 10, now >> 10);
        expect(now < resident_before + GROWTH_MAX, || format!("{resident_before} bytes became {now}"))
    });
}

/// One hostile frame.
fn hostile(chance: &mut Chance, seeds: &[Vec<u8>], n: usize) -> Vec<u8> {
    let seed = &seeds[mutate::index(chance, seeds.len())];
    let other = &seeds[mutate::index(chance, seeds.len())];
    let words = match chance.below(10) {
        0..4 => mutate::value(chance, seed).unwrap_or_default(),
        // Text that is no UTF-8 is a breach of RFC 6455, which ends a socket: that is another test's.
        4..8 => String::from_utf8_lossy(&mutate::bytes(chance, seed, other)).into_owned(),
        8 => mutate::random(chance, 4).to_string(),
        _ if n.is_multiple_of(1000) => deep(),
        _ => {
            let length = mutate::index(chance, 200);
            return meddler::frame(meddler::BINARY, &mutate::noise(chance, length));
        }
    };
    meddler::frame(meddler::TEXT, words.as_bytes())
}

/// A delivery whose payload is a list in a list in a list.
fn deep() -> String {
    let lists = "[".repeat(DEPTH) + &"]".repeat(DEPTH);
    let frame = json!({
        "v": 1, "type": "deliver", "delivery_id": "d", "agent_id": "a", "agent": "a", "msg_id": "m", "seq": 0,
        "mode": "wait", "payload": "HERE",
    });
    frame.to_string().replace("\"HERE\"", &lists)
}
