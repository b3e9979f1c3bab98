//! The way to a live agent, and its undoing.

use futures_util::FutureExt;

use super::*;

#[actix::test]
async fn a_client_and_the_engine_get_the_same_agent_by_the_same_way() {
    let mut by_client = House::new();
    by_client.up();
    let answer = by_client.spawn();
    let (spec, env) = by_client.bring_up().await;
    assert_eq!(answer.await.unwrap().unwrap().agent_id, "7".into());

    let mut by_engine = House::over(by_client.dir, by_client.journal, "http://127.0.0.1:9");
    by_engine.up();
    by_engine.invoke("inv_1", asked());
    let (engine_spec, engine_env) = by_engine.bring_up().await;
    assert_eq!(by_engine.ended().await.result, InvocationResult::Spawned { name: name("ann") });

    assert_eq!(engine_spec, spec);
    let told = |env: &AgentEnv| (env.token.expose().to_owned(), env.base_url.clone(), env.workspace.clone());
    assert_eq!(told(&engine_env), told(&env));
    assert_eq!(env.token.expose(), "at_live_7", "the token of its own registration");
}

#[actix::test]
async fn the_registration_carries_invocation_and_session_and_comes_before_the_process() {
    let mut house = House::new();
    house.up();
    house.invoke("inv_1", InvokedSpawn { session_ref: Some("s-1".into()), ..asked() });
    let register = house.asked_to_register().await;
    assert_eq!(register.invocation, Some("inv_1".into()));
    assert_eq!(register.session_ref, Some("s-1".into()));
    assert!(matches!(house.told.try_recv(), Err(_) | Ok(Told::Inventory(_))), "nothing starts meanwhile");
    register.reply.send(Ok(registration()));
    assert_eq!(house.asked_to_build().await.spec.session_ref, Some("s-1".into()));

    let mut house = House::new();
    house.up();
    house.spawn();
    let register = house.asked_to_register().await;
    assert_eq!((register.invocation, register.session_ref), (None, None));
}

#[actix::test]
async fn an_agent_is_in_the_inventory_while_it_lives_and_out_of_it_at_its_end() {
    let mut house = House::new();
    house.up();
    house.invoke("inv_1", asked());
    house.bring_up().await;
    assert_eq!(house.listed(&["ann"]).await[0].agent_id, "7".into());
    house.tell(ChildExited { name: name("ann"), birth: Birth(1), exit: exit(EndedBy::Itself) });
    let mut seen = Vec::new();
    loop {
        match timeout(PATIENCE, house.told.recv()).await.unwrap().unwrap() {
            Told::Inventory(set) if set.agents.is_empty() => break,
            Told::Close => seen.push("closed"),
            Told::Deregister(gone) => {
                assert_eq!(gone.agent_id, "7".into());
                seen.push("deregistered");
            }
            _ => {}
        }
    }
    assert_eq!(seen, ["closed", "deregistered"]);
}

#[actix::test]
async fn a_start_that_fails_is_undone_whoever_asked() {
    let refused = || SpawnRefused::BadProgram { program: "cat".into(), why: "gone".into() };
    for by_engine in [false, true] {
        let mut house = House::new();
        house.up();
        let answer = if by_engine {
            house.invoke("inv_1", asked());
            None
        } else {
            Some(house.spawn())
        };
        house.asked_to_register().await.reply.send(Ok(registration()));
        let build = house.asked_to_build().await;
        build.reply.send(rooms(&house.ears));
        build.started.send(Err(refused()));
        assert!(matches!(house.next().await, Told::Close));
        assert!(matches!(house.next().await, Told::Deregister(gone) if gone.agent_id == "7".into()));
        match answer {
            Some(answer) => assert_eq!(answer.await.unwrap().unwrap_err(), refused()),
            None => {
                let InvocationResult::Failed(why) = house.ended().await.result else { panic!("a success") };
                assert!(why.starts_with("spawn_failed: "), "{why}");
            }
        }
        house.listed(&[]).await;
    }
}

impl House {
    /// Waits until its agent has a process.
    async fn until_survived(&self) {
        let look = async {
            while self.agents().await[0].pid.is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, look).await.expect("no process");
    }

    /// True when the world was told of an agent; whatever else was told is passed over.
    fn is_spawn_told(&mut self) -> bool {
        std::iter::from_fn(|| self.told.try_recv().ok())
            .any(|told| matches!(told, Told::Event(Event::AgentSpawned { .. })))
    }
}

#[actix::test]
async fn nobody_hears_of_an_agent_before_it_is_written_down_also_over_a_restart_of_the_registry() {
    for by_engine in [false, true] {
        let mut house = House::new();
        house.up();
        house.journal.stall(true);
        let mut answer = None;
        if by_engine {
            house.invoke("inv_1", asked());
        } else {
            answer = Some(house.spawn());
        }
        house.bring_up().await;
        house.until_survived().await;
        assert_eq!(house.agents().await[0].phase, AgentPhase::Starting, "it could be lost");
        assert!(!house.is_spawn_told(), "it could be lost");
        assert!(answer.as_mut().is_none_or(|answer| answer.now_or_never().is_none()), "it could be lost");
        assert!(!house.has_ended("inv_1"), "it could be lost");

        house.registry.probe().arm(FaultPoint::Handler);
        house.read("m1");
        assert_eq!(house.agents().await.len(), 1, "the registry has restarted");
        assert!(answer.as_mut().is_none_or(|answer| answer.now_or_never().is_none()), "it could be lost");
        assert!(!house.has_ended("inv_1"), "it could be lost");

        house.journal.stall(false);
        match answer {
            Some(answer) => assert_eq!(answer.await.unwrap().unwrap().agent_id, "7".into()),
            None => {
                assert_eq!(house.ended().await.result, InvocationResult::Spawned { name: name("ann") });
            }
        }
    }
}
