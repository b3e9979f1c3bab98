//! A backlog that is far too long for its agent, and an engine that sends it again and again.

use std::time::{Duration, Instant};

use relay_broker::engine::Limits;

use crate::support::{House, Proxy, TestEngine, agents, agents::text, expect, processes::resident, until};

const BACKLOG: usize = 50_000;
/// How long the house is watched.
const WATCHED: Duration = Duration::from_secs(12);
/// What everybody else may take on a machine that has other work to do: far from the pace of a quiet one (some
/// milliseconds), and far from standing still.
const API_LIMIT: Duration = Duration::from_millis(1500);
const USUAL_LIMIT: Duration = Duration::from_secs(3);
const DELIVERY_LIMIT: Duration = Duration::from_secs(10);
/// A heartbeat is due every 500 ms, except while there is no connection.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(5);
const RSS_GROWTH: u64 = 200 << 20;

#[test]
fn a_backlog_of_fifty_thousand_leaves_everybody_else_at_their_pace() {
    let limits = Limits { mailbox_depth: 10 * BACKLOG as u64, ..Limits::default() };
    let mut engine = TestEngine::with(limits);
    let proxy = Proxy::to(engine.addr());
    let house = House::behind(&proxy, &engine).start();
    let (_, node) = house.until_live();
    house.spawn("swamped", agents::SLOW_READER);
    let swamped = house.notes("swamped");
    let quick = house.listener("quick");
    let sender = engine.person("sender");
    engine.dm(&sender, "swamped", &text("0"));
    swamped.hears(1);
    until("the first message is acked", || {
        let acked = engine.acked(&node, "swamped");
        expect(acked == Some(1), || format!("{acked:?}"))
    });
    let start = resident(house.pid());

    engine.multiply("swamped", BACKLOG);
    house.until_live();
    let began = Instant::now();
    let (mut sent, mut worst_api, mut deliveries) = (0, Duration::ZERO, Vec::new());
    let (mut last_cut, mut last_beat) = (Instant::now(), Instant::now());
    let (mut beat, mut worst_beat) = (serde_json::Value::Null, Duration::ZERO);
    while began.elapsed() < WATCHED {
        // Every reconnection makes the engine send everything again.
        if last_cut.elapsed() > Duration::from_secs(4) {
            let before = proxy.sockets();
            proxy.cut();
            proxy.reconnected(before);
            last_cut = Instant::now();
        }
        let asked = Instant::now();
        house.get("/health");
        house.get("/api/spawned");
        worst_api = worst_api.max(asked.elapsed());
        let asked = Instant::now();
        sent += 1;
        engine.dm(&sender, "quick", &text(sent));
        quick.hears(sent);
        deliveries.push(asked.elapsed());
        let heard = engine.get(&format!("/v1/nodes/{node}"))["last_heartbeat_at"].take();
        if heard != beat {
            (beat, last_beat) = (heard, Instant::now());
        }
        worst_beat = worst_beat.max(last_beat.elapsed());
    }
    deliveries.sort();
    let (usual, worst_delivery) = (deliveries[sent / 2], deliveries[sent - 1]);
    let grown = resident(house.pid()).saturating_sub(start);
    eprintln!(
        "{sent} messages to the other agent, half of them within {usual:?}, slowest {worst_delivery:?}; slowest API {worst_api:?}; longest \
         without a heartbeat {worst_beat:?}; grown by {} MiB; the swamped one heard {}",
        grown >> 20,
        swamped.heard().len()
    );
    assert!(worst_api < API_LIMIT, "the API took {worst_api:?}");
    assert!(usual < USUAL_LIMIT, "half of the deliveries took more than {usual:?}");
    assert!(worst_delivery < DELIVERY_LIMIT, "a delivery took {worst_delivery:?}");
    assert!(worst_beat < HEARTBEAT_LIMIT, "no heartbeat for {worst_beat:?}");
    assert!(grown < RSS_GROWTH, "grown by {} MiB", grown >> 20);

    let heard = swamped.heard();
    let wanted: Vec<_> = (0..heard.len()).map(|n| n.to_string()).collect();
    assert_eq!(heard, wanted, "lost, repeated or out of order");
    let least = usize::try_from(WATCHED.as_secs()).unwrap() * 50 / 4;
    assert!(heard.len() > least, "it was fed {} messages only", heard.len());
}
