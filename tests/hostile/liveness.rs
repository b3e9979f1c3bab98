//! What is alive is left alone, and what comes back is found at once.

use std::time::{Duration, Instant};

use crate::{
    meddler::Meddler,
    support::{TestEngine, figure},
};

const HEARTBEAT_MS: u64 = 250;

#[test]
fn a_line_where_nothing_happens_and_the_engine_answers_is_kept() {
    let engine = TestEngine::start();
    let meddler = Meddler::before(engine.addr());
    // Four intervals of silence would end it, as in earnest; twenty pass.
    let house = meddler
        .house(&engine.key)
        .period("heartbeat", HEARTBEAT_MS)
        .period("silence", 4 * HEARTBEAT_MS)
        .period("sync", 5 * HEARTBEAT_MS)
        .start();
    meddler.beats(20);
    assert_eq!(meddler.sockets(), 1, "{}", house.log());
}

#[test]
fn the_backoff_after_a_healthy_session_starts_from_the_bottom() {
    let engine = TestEngine::start();
    let meddler = Meddler::before(engine.addr());
    let house = meddler.house(&engine.key).period("heartbeat", 150).period("healthy", 50).start();
    let mut waits = Vec::new();
    let sessions = figure(10, 50);
    for nth in 1..=sessions {
        // Three times as long as a session must be live to be healthy.
        meddler.beats(2);
        let cut = Instant::now();
        meddler.cut();
        meddler.reconnected(nth);
        let handshakes = meddler.heard("GET /v1/node/ws");
        waits.push(handshakes[nth].duration_since(cut));
        house.until_live();
    }
    eprintln!("waits before the next handshake: {waits:?}");
    // The first step is half a second, give or take a fifth; without a healthy session the tenth were thirty.
    let within = waits.iter().filter(|wait| **wait <= Duration::from_secs(1)).count();
    assert!(
        within >= sessions * 4 / 5 && waits.iter().all(|wait| *wait < Duration::from_secs(3)),
        "{waits:?}"
    );
}
