//! Read receipts.

use super::*;

impl House {
    /// What became of the next read receipt.
    async fn receipt(&mut self) -> (&'static str, Option<String>) {
        loop {
            let told = timeout(PATIENCE, self.told.recv()).await.expect("no receipt").unwrap();
            if let Told::Event(Event::DeliveryReadAck { status, reason, .. }) = told {
                return (status, reason);
            }
        }
    }
}

#[actix::test]
async fn a_read_message_is_marked_with_the_agents_own_token_where_the_ack_does_not_say_it() {
    let (url, seen) = engine::serve(200).await;
    let mut house = House::at(&url);
    house.up();
    let spawned = house.spawn();
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    house.read("m1");
    assert_eq!(house.receipt().await, ("suppressed_duplicate", None), "the ack says it");

    house.tell(SessionUp {
        epoch: Epoch(2),
        node_id: "node_1".into(),
        node_name: "quay".into(),
        dialect: Dialect::V6,
    });
    house.read("m1");
    assert_eq!(house.receipt().await, ("marked", None));
    house.read("m2");
    let (status, reason) = house.receipt().await;
    assert!(status == "failed" && reason.is_some(), "{status}");
    let asked = seen.lock().unwrap().clone();
    let reads = asked.iter().filter(|line| line.ends_with("/read")).count();
    assert_eq!(reads, 2, "never on the old engine, once each on the new one");
    assert!(!asked.iter().any(|line| line == "POST /v1/agents"), "nothing is registered again: {asked:?}");
}
