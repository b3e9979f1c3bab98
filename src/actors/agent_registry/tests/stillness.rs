//! What is told of an agent that stays as it is.

use super::*;

#[actix::test]
async fn an_agent_that_stays_idle_is_told_about_each_time() {
    let mut house = House::new();
    house.up();
    let spec = SpawnSpec { idle_after: Some(Duration::from_millis(1)), ..house.spec() };
    let spawned = house.registry.post::<Spawn>().ask(|reply| Spawn { spec, origin: Origin::Api, reply });
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    let change = |from, to| StateChanged {
        name: name("ann"),
        birth: Birth(1),
        from,
        to,
        because: String::new(),
        dialog: None,
    };
    for _ in 0..2 {
        house.tell(change(AgentState::Working, AgentState::Idle));
        house.event(|event| matches!(event, Event::AgentIdle { name, .. } if name.as_str() == "ann")).await;
        house.tell(change(AgentState::Idle, AgentState::Working));
    }
}
