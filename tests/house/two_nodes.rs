//! Two brokers at one engine: an agent that moves from one to the other, and two that have one token.

use relay_broker::config::env;
use serde_json::json;

use crate::support::{House, TestEngine, agents, agents::text, expect, until};

#[test]
fn an_agent_that_another_node_has_claimed_ends_here_and_takes_nothing_with_it() {
    let engine = TestEngine::start();
    let quay = House::at(&engine).period("sync", 300).start();
    // It never says that she does not run there.
    let pier = House::at(&engine).period("sync", 600_000).start();
    let ((_, quay_name), (_, pier_name)) = (quay.until_live(), pier.until_live());
    let sender = engine.person("sender");
    let ann = quay.spawn("ann", agents::READER);
    let ben = quay.listener("ben");
    let events = quay.events();
    engine.dm(&sender, "ann", &text("on the quay"));
    assert_eq!(quay.notes("ann").hears(1), ["on the quay"]);

    // The engine says from now on that she lives on the pier: a sync of the quay's that lists her is refused whole.
    engine.post(&format!("/v1/nodes/{pier_name}/agents"), &engine.key, json!({ "agent_name": "ann" }));
    let told = events.wait("agent_detached", "ann");
    assert_eq!(told["reason"], "claimed_by_another_node", "{told}");
    until("she is gone from the quay", || {
        let (agents, runs) = (quay.agents(), quay.processes().contains(&ann));
        expect(agents == ["ben"] && !runs, || format!("{agents:?}, her process runs: {runs}"))
    });
    let names = |node: &str| -> Vec<_> {
        engine.inventory(node).into_iter().map(|bound| bound["agent_name"].clone()).collect()
    };
    assert_eq!((names(&quay_name), names(&pier_name)), (vec![json!("ben")], vec![json!("ann")]));
    engine.dm(&sender, "ben", &text("still here"));
    assert_eq!(ben.hears(1), ["still here"]);
    assert_eq!(quay.notes("ann").heard(), ["on the quay"]);
}

#[test]
fn of_two_brokers_with_one_token_the_older_makes_way_says_so_and_comes_back() {
    let engine = TestEngine::start();
    let node = engine.post("/v1/nodes", &engine.key, json!({ "name": "quay" }));
    let [id, token] = ["id", "token"].map(|field| node[field].as_str().unwrap());
    let house = || House::at(&engine).env(env::NODE_ID, id).env(env::NODE_TOKEN, token);
    let older = house().start();
    older.until_live();
    let ann = older.listener("ann");
    let sender = engine.person("sender");
    engine.dm(&sender, "ann", &text("before"));
    assert_eq!(ann.hears(1), ["before"]);

    let mut newer = house().start();
    newer.until_live();
    let restart = until("the older one makes way", || {
        let session = older.actor("node_session");
        let last = session["restarts"].as_array().and_then(|restarts| restarts.last().cloned());
        last.ok_or_else(|| session.to_string())
    });
    assert_eq!(restart["reason"], "another broker holds this node", "{restart}");
    assert!(restart["decision"].as_str().unwrap().contains("30s"), "{restart}");
    assert_eq!(older.agents(), ["ann"], "her program goes on");

    newer.kill();
    assert_eq!(older.call("POST", "/api/resume", None).status, 200);
    older.until_live();
    engine.dm(&sender, "ann", &text("after"));
    assert_eq!(ann.hears(2), ["before", "after"]);
}
