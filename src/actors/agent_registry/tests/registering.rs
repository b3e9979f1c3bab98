//! Over the socket, over HTTP when it is down, and under which id.

use super::*;
use crate::messages::session::RegisterRefused;

/// A house whose session was live and is down.
async fn cut_off(binding: u16) -> (House, Arc<Mutex<Vec<String>>>) {
    let (url, seen) = engine::serve(binding).await;
    let house = House::at(&url);
    house.up();
    house.down();
    (house, seen)
}

#[actix::test]
async fn without_a_session_an_agent_is_registered_over_http_and_bound_to_this_node() {
    let (mut house, seen) = cut_off(200).await;
    let answer = house.spawn();
    let build = house.asked_to_build().await;
    assert_eq!(build.relay_env.token.expose(), "at_live_7");
    build.reply.send(rooms(&house.ears));
    build.started.send(Ok(started()));
    assert_eq!(answer.await.unwrap().unwrap().warning, None);
    let asked = seen.lock().unwrap()[..2].to_vec();
    assert_eq!(asked, ["POST /v1/agents", "POST /v1/nodes/quay/agents"]);
}

#[actix::test]
async fn an_agent_that_could_not_be_bound_is_a_warning_to_a_client_and_a_failure_to_the_engine() {
    let (mut house, _) = cut_off(404).await;
    let answer = house.spawn();
    let build = house.asked_to_build().await;
    build.reply.send(rooms(&house.ears));
    build.started.send(Ok(started()));
    let warning = answer.await.unwrap().unwrap().warning.unwrap();
    assert!(warning.contains("not bound"), "{warning}");

    let (mut house, _) = cut_off(404).await;
    house.invoke("inv_1", asked());
    assert!(matches!(house.next().await, Told::Deregister(gone) if gone.agent_id == "7".into()));
    let InvocationResult::Failed(why) = house.ended().await.result else { panic!("a success") };
    assert!(why.contains("not bound"), "{why}");
    house.listed(&[]).await;
}

#[actix::test]
async fn a_session_that_is_up_is_the_only_way_to_register() {
    let (url, seen) = engine::serve(200).await;
    let mut house = House::at(&url);
    house.up();
    let answer = house.spawn();
    let register = house.asked_to_register().await;
    let refused = RegisterRefused::Engine { code: "node_capacity_exceeded".into(), message: "full".into() };
    register.reply.send(Err(refused.clone()));
    assert_eq!(answer.await.unwrap().unwrap_err(), SpawnRefused::NotRegistered(refused));
    assert_eq!(*seen.lock().unwrap(), Vec::<String>::new(), "a refusal is no reason to go over HTTP");
}

#[actix::test]
async fn the_id_of_an_agent_that_ended_is_known_after_a_restart() {
    let mut house = House::new();
    house.up();
    let spawned = house.spawn();
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    house.tell(ChildExited { name: name("ann"), birth: Birth(1), exit: exit(EndedBy::Itself) });
    house.listed(&[]).await;

    let mut house = house.again();
    house.up();
    let _spawned = house.spawn();
    assert_eq!(house.asked_to_register().await.known_id, Some("7".into()));
}
