//! Names that are used again, and agents without a program.

use super::*;
use crate::messages::{
    process::{RestartPolicy, RestartWhen},
    release::WorkerLost,
    spawn::{FindAgent, Found},
};

impl House {
    async fn found(&self) -> Found {
        let found = self.registry.post::<FindAgent>().ask(|reply| FindAgent { name: name("ann"), reply });
        found.await.unwrap()
    }
}

#[actix::test]
async fn late_words_of_a_dead_agent_are_not_taken_for_its_successors() {
    let mut house = House::new();
    house.up();
    for birth in 1..=2 {
        let spawned = house.spawn();
        house.bring_up().await;
        spawned.await.unwrap().unwrap();
        if birth == 1 {
            house.tell(ChildExited { name: name("ann"), birth: Birth(1), exit: exit(EndedBy::Itself) });
            assert!(house.agents().await.is_empty());
            assert!(matches!(house.next().await, Told::Close));
            assert!(matches!(house.next().await, Told::Deregister(_)));
        }
    }
    let lost = |birth| WorkerLost {
        name: name("ann"),
        birth: Birth(birth),
        actor: ActorKind::PtyWorker,
        why: "panicked".to_owned(),
    };
    let idle = |birth| StateChanged {
        name: name("ann"),
        birth: Birth(birth),
        from: AgentState::Starting,
        to: AgentState::Idle,
        because: birth.to_string(),
        dialog: None,
    };
    house.tell(lost(1));
    house.tell(idle(1));
    house.tell(idle(2));
    assert_eq!(house.agents().await[0].phase, AgentPhase::Live);
    let mut told = std::iter::from_fn(|| house.told.try_recv().ok()).filter_map(|told| match told {
        Told::Event(Event::AgentState { because, .. }) => Some(because),
        _ => None,
    });
    assert_eq!((told.next().as_deref(), told.next()), (Some("2"), None));
    drop(told);
    house.tell(lost(2));
    assert!(house.agents().await.is_empty());
}

#[actix::test]
async fn an_agent_that_rests_is_found_without_a_program() {
    let mut house = House::new();
    house.up();
    assert!(matches!(house.found().await, Found::Nobody));
    let spawned = house.spawn_with(|spec| {
        spec.process.restart = RestartPolicy { when: RestartWhen::OnFailure, ..RestartPolicy::default() };
    });
    assert!(matches!(house.found().await, Found::NoProgram(AgentPhase::Registering)));
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    assert!(matches!(house.found().await, Found::Doors(_)));
    house.tell(ChildExited {
        name: name("ann"),
        birth: Birth(1),
        exit: ExitRecord::with_code(EndedBy::Itself, 9),
    });
    assert!(matches!(house.found().await, Found::NoProgram(AgentPhase::Restarting)));
}
