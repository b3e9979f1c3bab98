//! Ends that were asked for: in time, late, or never.

use super::*;

#[actix::test]
async fn releasing_an_agent_that_never_was_is_an_error_to_the_engine_and_one_that_has_ended_is_not() {
    let mut house = House::new();
    house.up();
    house.release("inv_0", "ghost");
    let InvocationResult::Failed(why) = house.ended().await.result else { panic!("a success") };
    assert!(why.starts_with("release_failed: "), "{why}");

    house.invoke("inv_1", asked());
    house.bring_up().await;
    house.ended().await;
    house.release("inv_2", "ann");
    assert!(matches!(house.next().await, Told::Terminate), "the process first");
    house.tell(ChildExited { name: name("ann"), birth: Birth(1), exit: exit(EndedBy::Release) });
    assert!(matches!(house.next().await, Told::Close));
    assert!(matches!(house.next().await, Told::Deregister(_)));
    let released = InvocationResult::Released { name: name("ann") };
    assert_eq!(house.ended().await.result, released);

    house.release("inv_3", "ann");
    assert_eq!(house.ended().await.result, released, "the same end, and nothing is done twice");
    let answer = house.registry.post::<Release>().ask(|reply| Release {
        name: name("ann"),
        reason: None,
        force: false,
        reply,
    });
    assert!(matches!(answer.await.unwrap(), Released::AlreadyGone));
}

#[actix::test]
async fn a_release_that_nothing_comes_of_is_said_to_be_overdue_and_the_late_end_hits_no_later_agent() {
    let mut house = House::new();
    house.up();
    let spawned = house.spawn();
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    let released = house.registry.post::<Release>().ask(|reply| Release {
        name: name("ann"),
        reason: None,
        force: false,
        reply,
    });
    house.release("inv_1", "ann");
    assert!(matches!(house.next().await, Told::Terminate));
    // The clock moves on when nothing else does.
    tokio::time::pause();
    assert!(matches!(released.await.unwrap(), Released::Overdue));
    tokio::time::resume();
    assert!(matches!(house.next().await, Told::Close));
    assert!(matches!(house.next().await, Told::Deregister(_)));
    let InvocationResult::Failed(why) = house.ended().await.result else { panic!("a success") };
    assert!(why.starts_with("release_failed: it did not end in time"), "{why}");

    let spawned = house.spawn();
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    house.tell(ChildExited { name: name("ann"), birth: Birth(1), exit: exit(EndedBy::Release) });
    let agents = house.agents().await;
    assert_eq!(agents.iter().map(|agent| agent.phase).collect::<Vec<_>>(), [AgentPhase::Live]);
    house.tell(ChildExited { name: name("ann"), birth: Birth(2), exit: exit(EndedBy::Itself) });
    assert!(house.agents().await.is_empty());
}

#[actix::test]
async fn a_release_gives_up_what_a_killed_broker_left_also_of_a_name_whose_earlier_agent_had_ended() {
    for lives in 1..=2 {
        let mut house = House::new();
        house.up();
        for birth in 1..=lives {
            let spawned = house.spawn();
            house.bring_up().await;
            spawned.await.unwrap().unwrap();
            if birth < lives {
                house.tell(ChildExited {
                    name: name("ann"),
                    birth: Birth(birth),
                    exit: exit(EndedBy::Itself),
                });
                assert!(matches!(house.next().await, Told::Close));
                assert!(matches!(house.next().await, Told::Deregister(_)));
            }
        }
        let mut house = house.again();
        assert_eq!(house.journal.agents().len(), 1, "nobody said goodbye");
        let released = house.registry.post::<Release>().ask(|reply| Release {
            name: name("ann"),
            reason: None,
            force: false,
            reply,
        });
        assert!(matches!(released.await.unwrap(), Released::AlreadyGone));
        assert!(matches!(house.next().await, Told::Deregister(gone) if gone.agent_id == "7".into()));
        assert!(house.journal.agents().is_empty(), "its mail waits for nobody any more");
    }
}
