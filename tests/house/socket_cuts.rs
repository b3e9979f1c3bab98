//! The node's socket is cut again and again, between frames and in the middle of them.

use crate::support::{Chance, House, Proxy, TestEngine, agents::text, expect, figure, until};

const AGENTS: [&str; 8] = ["ann", "ben", "cho", "dan", "eve", "fay", "gus", "hal"];
/// For each agent, between two cuts.
const AT_ONCE: usize = 7;

#[test]
fn messages_survive_cuts_of_the_socket_once_and_in_order() {
    let mut chance = Chance::new();
    let engine = TestEngine::start();
    let proxy = Proxy::to(engine.addr());
    // Cuts come too soon for a spell that would pass for healthy elsewhere, and the backoff is not the subject.
    let house = House::behind(&proxy, &engine).period("healthy", 1).start();
    let (_, node) = house.until_live();
    let listeners = AGENTS.map(|name| house.listener(name));
    let sender = engine.person("sender");

    let mut sent = 0;
    for _ in 0..figure(20, 200) {
        let before = proxy.sockets();
        // Half of the time it hits the replay or the burst somewhere; else what follows the burst.
        let armed = chance.below(2) == 0;
        if armed {
            proxy.cut_after(u32::try_from(chance.below(24_000)).unwrap());
        }
        for n in sent..sent + AT_ONCE {
            for name in AGENTS {
                engine.dm(&sender, name, &text(format_args!("{name} {n}")));
            }
        }
        sent += AT_ONCE;
        if proxy.is_armed() || !armed {
            proxy.cut();
        }
        proxy.reconnected(before);
    }

    for listener in &listeners {
        let wanted: Vec<_> = (0..sent).map(|n| format!("{} {n}", listener.name)).collect();
        assert_eq!(listener.hears(sent), wanted);
    }
    for name in AGENTS {
        until(&format!("all of {name}'s mail is acked"), || {
            let acked = engine.acked(&node, name);
            expect(acked == Some(sent as u64), || format!("{acked:?}"))
        });
    }
    // A late second copy would have come with the replay of one more connection.
    let before = proxy.sockets();
    proxy.cut();
    proxy.reconnected(before);
    for listener in &listeners {
        let last = text(format_args!("{} last", listener.name));
        engine.dm(&sender, &listener.name, &last);
        assert_eq!(listener.hears(sent + 1).len(), sent + 1);
    }
}

#[test]
fn a_line_that_went_dead_without_a_word_is_noticed_and_replaced() {
    let engine = TestEngine::start();
    let proxy = Proxy::to(engine.addr());
    let house = House::behind(&proxy, &engine).period("silence", 2000).start();
    let listener = house.listener("alice");
    let sender = engine.person("sender");
    proxy.stall(true);
    engine.dm(&sender, "alice", &text("into the void"));
    until("the silence is noticed", || {
        let readyz = house.call("GET", "/readyz", None);
        expect(readyz.status == 503, || readyz.text.clone())
    });
    assert_eq!(listener.heard(), [""; 0]);
    assert_eq!(house.agents(), ["alice"]);
    proxy.stall(false);
    house.until_live();
    assert_eq!(listener.hears(1), ["into the void"]);
    engine.dm(&sender, "alice", &text("and on"));
    assert_eq!(listener.hears(2), ["into the void", "and on"]);
}
