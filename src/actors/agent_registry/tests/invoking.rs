//! Invocations are run once, and answered each time.

use super::*;

#[actix::test]
async fn an_invocation_that_comes_again_is_answered_and_not_run_even_after_a_restart() {
    let mut house = House::new();
    house.up();
    house.invoke("inv_1", asked());
    house.invoke("inv_1", asked());
    house.bring_up().await;
    let result = house.ended().await;
    house.invoke("inv_1", asked());
    assert_eq!(house.ended().await, result);

    let mut house = house.again();
    house.up();
    house.invoke("inv_1", asked());
    assert_eq!(house.ended().await, result, "from the journal");
}

#[actix::test]
async fn the_command_of_an_action_waits_for_the_record_that_it_was_begun() {
    let mut house = House::new();
    house.up();
    house.journal.stall(true);
    let action = Action::Other { name: "nod".to_owned(), input: "{}".to_owned() };
    house.tell(Invoke { invocation: "inv_1".into(), action });
    let early = timeout(Duration::from_millis(500), house.ended()).await;
    assert!(early.is_err(), "it ran, and would run again after a kill of the broker");
    house.journal.stall(false);
    assert_eq!(house.ended().await.result, InvocationResult::Output("{}".to_owned()));
}
