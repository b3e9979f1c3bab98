//! Agents that live elsewhere now.

use super::*;
use crate::messages::session::LocationConflict;

#[actix::test]
async fn an_agent_that_another_node_has_claimed_is_ended_here_and_not_there() {
    let (url, seen) = engine::serve(200).await;
    let mut house = House::at(&url);
    house.up();
    let spawned = house.spawn();
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    house.listed(&["ann"]).await;

    house.tell(LocationConflict);
    house.listed(&[]).await;
    assert!(matches!(house.next().await, Told::Terminate));
    house.tell(ChildExited { name: name("ann"), birth: Birth(1), exit: exit(EndedBy::Release) });
    assert!(matches!(house.next().await, Told::Close), "and no deregistration before it");
    assert!(seen.lock().unwrap().contains(&"GET /v1/nodes/quay/agents".to_owned()));

    // The name is free here, and nothing claims that the id was ever ours.
    let _again = house.spawn();
    assert_eq!(house.asked_to_register().await.known_id, None, "no deregistration after it either");
}
