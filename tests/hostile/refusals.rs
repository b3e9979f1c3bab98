//! An engine that refuses, stalls and babbles where an answer should be.

use std::time::{Duration, Instant};

use crate::{
    meddler::{Door, Meddler, Treat},
    support::{TestEngine, expect, until, until_within},
};

/// 401s in a row before minting is given up.
const MINTS_MAX: usize = 5;
/// The steps of the backoff between them, less their jitter (a fifth).
const STEPS_MS: [u64; 4] = [400, 800, 1600, 3200];

/// Longer than the backoff's next step (8 s) can be.
const WATCHED: Duration = Duration::from_secs(12);

fn answer(status: &str, headers: &str, body: &str) -> Treat {
    Treat::Answer(format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// What is answered, and the words for it that must be said: of a handshake, and of a call.
fn bad_answers() -> Vec<(Treat, &'static str, &'static str)> {
    let portal = answer("200 OK", "", "<html>a captive portal</html>");
    let no_http = Treat::Answer("\u{0}\u{1}not HTTP at all\r\n\r\n".to_owned());
    let half = Treat::Answer("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_owned());
    vec![
        (answer("500 Internal Server Error", "", "{\"ok\":false}"), "status 500", "status 500"),
        (
            answer("502 Bad Gateway", "Content-Type: text/html\r\n", "<html>bad gateway</html>"),
            "status 502",
            "status 502",
        ),
        (answer("429 Too Many Requests", "Retry-After: 1\r\n", ""), "asks to wait 1s", "status 429"),
        (portal, "status 200", "not what the engine's contract promises"),
        (no_http, "not an engine's socket", "cannot be reached"),
        (half, "status 200", "not what the engine's contract promises"),
        (Treat::HangUp, "cannot be reached", "cannot be reached"),
    ]
}

#[test]
fn every_bad_answer_to_a_handshake_is_told_and_got_over() {
    let engine = TestEngine::start();
    let meddler = Meddler::before(engine.addr());
    let house = meddler.house(&engine.key).start();
    for (treat, word, _) in bad_answers() {
        // A healthy session between two of them keeps the backoff short.
        meddler.beats(2);
        let sockets = meddler.sockets();
        let tries = meddler.heard("GET /v1/node/ws").len();
        meddler.treat(Door::Socket, treat.clone());
        meddler.cut();
        until("it has tried", || {
            let now = meddler.heard("GET /v1/node/ws").len();
            expect(now > tries, || format!("{now} handshakes"))
        });
        until("it says why not", || {
            let readyz = house.call("GET", "/readyz", None);
            let session = house.actor("node_session");
            let said = session["last_error"].to_string();
            expect(readyz.status == 503 && said.contains(word), || {
                format!("{treat:?}: {} {said}", readyz.text)
            })
        });
        meddler.treat(Door::Socket, Treat::Pass);
        meddler.reconnected(sockets);
        house.until_live();
    }
    assert_eq!(meddler.heard("POST /v1/nodes").len(), 1, "none of this is the token's fault");
}

#[test]
fn every_bad_answer_to_a_start_is_waited_out() {
    for (treat, _, word) in bad_answers() {
        let engine = TestEngine::start();
        let meddler = Meddler::before(engine.addr());
        meddler.treat(Door::Calls, treat.clone());
        let house = meddler.house(&engine.key).listening();
        until("it says what it waits for", || {
            let readyz = house.call("GET", "/readyz", None);
            let heard = meddler.heard("").len();
            let said = readyz.text;
            expect(readyz.status == 503 && heard > 0 && said.contains(word), || format!("{treat:?}: {said}"))
        });
        assert_eq!(house.call("GET", "/health", None).status, 200);
        meddler.treat(Door::Calls, Treat::Pass);
        house.until_live();
    }
}

#[test]
fn a_handshake_that_is_never_answered_is_given_up_and_tried_again() {
    let engine = TestEngine::start();
    let meddler = Meddler::before(engine.addr());
    let house = meddler.house(&engine.key).start();
    let tries = meddler.heard("GET /v1/node/ws").len();
    meddler.treat(Door::Socket, Treat::Hang);
    meddler.cut();
    until_within(Duration::from_secs(40), "a second try after the first was given up", || {
        let now = meddler.heard("GET /v1/node/ws").len();
        expect(now >= tries + 2, || format!("{now} handshakes"))
    });
    assert_eq!(house.call("GET", "/readyz", None).status, 503);
    let sockets = meddler.sockets();
    meddler.treat(Door::Socket, Treat::Pass);
    // The try that is under way hangs for good.
    meddler.cut();
    meddler.reconnected(sockets);
    house.until_live();
}

#[test]
fn a_storm_of_401_costs_five_mints_and_ends_in_slow_probes() {
    let engine = TestEngine::start();
    let meddler = Meddler::before(engine.addr());
    let house = meddler.house(&engine.key).start();
    let first = meddler.heard("GET /v1/node/ws").len();
    let minted = meddler.heard("POST /v1/nodes").len();
    meddler.treat(Door::Socket, answer("401 Unauthorized", "", "{\"ok\":false}"));
    meddler.cut();
    until("the session is parked", || {
        // It has gone, and is not back for a moment in between.
        let readyz = house.call("GET", "/readyz", None);
        let state = house.actor("node_session")["state"].as_str().unwrap().to_owned();
        assert!(readyz.status == 503 || meddler.heard("GET /v1/node/ws").len() == first, "{}", readyz.text);
        expect(state.starts_with("parked"), || state.clone())
    });
    let tries = meddler.heard("GET /v1/node/ws");
    let mints = meddler.heard("POST /v1/nodes").len() - minted;
    assert_eq!(tries.len() - first, MINTS_MAX);
    assert!(mints <= MINTS_MAX, "{mints} mints");
    for (pair, least) in tries[first..].windows(2).zip(STEPS_MS) {
        let apart = pair[1].duration_since(pair[0]);
        assert!(apart >= Duration::from_millis(least), "only {apart:?} apart, not {least} ms");
    }

    // The next probe is minutes away: nothing is asked meanwhile, and whoever asks is told.
    let began = Instant::now();
    while began.elapsed() < WATCHED {
        assert_eq!(house.call("GET", "/readyz", None).status, 503);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(meddler.heard("GET /v1/node/ws").len() - first, MINTS_MAX);
    assert_eq!(meddler.heard("POST /v1/nodes").len() - minted, mints);

    meddler.treat(Door::Socket, Treat::Pass);
    assert_eq!(house.call("POST", "/api/resume", None).status, 200);
    let resumed = Instant::now();
    house.until_live();
    eprintln!("live {:?} after the resume", resumed.elapsed());
}
