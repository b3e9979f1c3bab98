//! Sessions of programs: who is told of them, and who takes one up again.

use super::*;
use crate::messages::{
    process::{KnownSession, RestartPolicy, RestartWhen},
    pty::SessionKnown,
};

impl House {
    pub(super) fn spawn_with(
        &self,
        change: impl FnOnce(&mut SpawnSpec),
    ) -> Answer<Result<Spawned, SpawnRefused>> {
        let mut spec = self.spec();
        change(&mut spec);
        self.registry.post::<Spawn>().ask(|reply| Spawn { spec, origin: Origin::Api, reply })
    }

    fn session(&self, birth: u64, id: &str) {
        let cwd = self.dir.path().to_owned();
        let session = KnownSession { id: id.into(), harness: "auto".to_owned(), cwd };
        self.tell(SessionKnown { name: name("ann"), birth: Birth(birth), session });
    }

    fn fails(&self) {
        let exit = ExitRecord { uptime_ms: 60_000, ..ExitRecord::with_code(EndedBy::Itself, 9) };
        self.tell(ChildExited { name: name("ann"), birth: Birth(1), exit });
    }

    /// The session that its agent is listed with.
    async fn listed_session(&self) -> Option<String> {
        self.agents().await.pop().and_then(|agent| agent.session).map(|session| session.to_string())
    }
}

fn again(when: RestartWhen) -> RestartPolicy {
    RestartPolicy { when, backoff: Duration::ZERO, ..RestartPolicy::default() }
}

#[actix::test]
async fn the_next_program_takes_up_the_last_session_under_the_policy_that_says_so() {
    for (when, resumed) in [(RestartWhen::Resume, Some("s-2")), (RestartWhen::OnFailure, None)] {
        let mut house = House::new();
        house.up();
        let spawned = house.spawn_with(|spec| spec.process.restart = again(when));
        let (first, _) = house.bring_up().await;
        spawned.await.unwrap().unwrap();
        assert_eq!(first.session_ref, None);
        house.session(1, "s-1");
        house.session(1, "s-2");
        house.session(2, "s-3");
        assert_eq!(house.listed_session().await.as_deref(), Some("s-2"), "not that of another agent");
        let listed = house.listed(&["ann"]).await;
        assert!(listed[0].session_ref.is_none(), "the first list was of before");
        house.fails();
        assert!(matches!(house.next().await, Told::Close));
        let build = house.asked_to_build().await;
        assert_eq!(build.spec.session_ref.as_ref().map(|session| session.as_str()), resumed, "{when:?}");
        build.reply.send(rooms(&house.ears));
        build.started.send(Ok(started()));
        house.event(|event| matches!(event, Event::AgentRestarted { .. })).await;
        assert_eq!(house.listed_session().await.as_deref(), resumed, "{when:?}");
        let ends = house.journal.exits();
        assert_eq!(ends[0].session.as_ref().unwrap().id, "s-2".into(), "it is in the record of the end");
    }
}

#[actix::test]
async fn a_session_that_a_dead_broker_left_is_taken_up_by_the_same_program_in_the_same_place() {
    let resume = |spec: &mut SpawnSpec| spec.process.restart = again(RestartWhen::Resume);
    type Change<'a> = &'a dyn Fn(&mut SpawnSpec);
    let changes: [(Change<'_>, Option<&str>); 5] = [
        (&resume, Some("s-1")),
        (&|spec| (resume(spec), spec.cwd = "/".into()).1, None),
        (&|spec| (resume(spec), spec.program = "codex".to_owned()).1, None),
        (&|spec| (resume(spec), spec.session_ref = Some("s-9".into())).1, Some("s-9")),
        (&|_| (), None),
    ];
    for (nth, (change, resumed)) in changes.into_iter().enumerate() {
        let mut house = House::new();
        house.up();
        let spawned = house.spawn();
        house.bring_up().await;
        spawned.await.unwrap().unwrap();
        house.session(1, "s-1");
        assert_eq!(house.listed_session().await.as_deref(), Some("s-1"));

        let mut house = house.again();
        house.up();
        let _spawned = house.spawn_with(change);
        let asked = house.asked_to_register().await;
        assert_eq!(asked.session_ref.as_ref().map(|session| session.as_str()), resumed, "{nth}");
    }
}
