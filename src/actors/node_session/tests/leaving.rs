//! The way out.

use super::*;

#[actix::test]
async fn leaving_flushes_the_acks_deregisters_the_node_and_closes() {
    let (house, mut socket) = House::live(quick()).await;
    for up_to in 1..=9 {
        house.tell(Ack { agent_id: "7".into(), agent: name("ann"), up_to: Seq(up_to) });
    }
    let left = house.session.post::<Leave>().ask(Leave);
    let ack = socket.frame("delivery.ack").await;
    assert_eq!(ack["up_to_seq"], json!(9), "acks of one turn are one");
    socket.frame("node.deregister").await;
    assert_eq!(socket.closed().await, Some((1000, "leaving".to_owned())));
    left.await.unwrap();
    assert_eq!(house.ended(0).await, "finished");
    assert!(house.session.handle().is_gone());
}

#[actix::test]
async fn leaving_without_a_session_ends_at_once() {
    let engine = Engine::start().await;
    engine.refuse(500);
    let house = House::at(engine, quick());
    house.ended(0).await;
    let left = house.session.post::<Leave>().ask(Leave);
    house.resume();
    left.await.unwrap();
    assert!(house.session.handle().is_gone() || house.ended(1).await == "finished");
}
