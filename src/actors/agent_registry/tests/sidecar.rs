//! A sidecar at the registry's door: what is offered for it, what it is called for, and what becomes of that.

use tokio::sync::mpsc::{Receiver, channel};

use super::*;
use crate::{
    ids::SidecarId,
    messages::{
        session::OfferRefused,
        sidecar::{
            CALLS_MAX, Call, EndCall, HandlerSpec, Manifest, OfferHandlers, RegisterSidecar, SidecarGone,
            SidecarRefused,
        },
    },
};

/// A sidecar that has registered.
struct Sidecar {
    id: SidecarId,
    calls: Receiver<Call>,
}

impl Sidecar {
    async fn called(&mut self) -> Call {
        timeout(PATIENCE, self.calls.recv()).await.expect("it is not called").unwrap()
    }
}

impl House {
    async fn register_sidecar(&self, handlers: &[&str]) -> Result<Sidecar, SidecarRefused> {
        let (tx, calls) = channel(CALLS_MAX);
        let handler = |name: &&str| HandlerSpec { name: (*name).to_owned(), metadata: None };
        let handlers = handlers.iter().map(handler).collect();
        let manifest = Manifest { name: "pier".to_owned(), handlers, ..Manifest::default() };
        let asked = |reply| RegisterSidecar { manifest, calls: tx, reply };
        let id = self.registry.post().ask(asked).await.unwrap()?;
        Ok(Sidecar { id, calls })
    }

    /// The next offer, as names; it is answered with this.
    async fn offered(&mut self, taken: Result<(), OfferRefused>) -> Vec<String> {
        match self.next().await {
            Told::Offer(set) => {
                set.reply.send(taken);
                set.offer.handlers.into_iter().map(|handler| handler.name).collect()
            }
            other => panic!("{} instead of an offer", what(&other)),
        }
    }

    /// A sidecar whose handlers are taken by the engine.
    async fn sidecar(&mut self, handlers: &[&str]) -> Sidecar {
        let sidecar = self.register_sidecar(handlers).await.unwrap();
        let ready = self.ready(sidecar.id, handlers);
        assert_eq!(self.offered(Ok(())).await, handlers);
        ready.await.unwrap().unwrap();
        sidecar
    }

    fn ready(&self, sidecar: SidecarId, names: &[&str]) -> Answer<Result<(), SidecarRefused>> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.registry.post().ask(|reply| OfferHandlers { sidecar, names, reply })
    }

    async fn end(
        &self,
        sidecar: SidecarId,
        invocation: &str,
        outcome: Result<&str, &str>,
    ) -> Result<(), SidecarRefused> {
        let outcome = outcome.map(str::to_owned).map_err(str::to_owned);
        let ended = |reply| EndCall { sidecar, invocation: invocation.into(), outcome, reply };
        self.registry.post().ask(ended).await.unwrap()
    }

    async fn gone(&self, sidecar: SidecarId) {
        self.registry.post().ask(|reply| SidecarGone { sidecar, reply }).await.unwrap();
    }

    fn invoke_other(&self, invocation: &str, action: &str) {
        let action = Action::Other { name: action.to_owned(), input: r#"{"a":1}"#.to_owned() };
        self.tell(Invoke { invocation: invocation.into(), action });
    }

    async fn failed(&mut self, invocation: &str) -> String {
        match self.ended().await {
            InvocationEnded { invocation: of, result: InvocationResult::Failed(why) }
                if of.as_str() == invocation =>
            {
                why
            }
            other => panic!("{other:?}"),
        }
    }
}

fn output(json: &str) -> InvocationResult {
    InvocationResult::Output(json.to_owned())
}

#[actix::test]
async fn an_invocation_is_called_once_and_its_result_is_repeated_over_a_restart_of_the_broker() {
    let mut house = House::new();
    house.up();
    let mut sidecar = house.sidecar(&["echo", "spawn:otter"]).await;
    house.invoke_other("inv_1", "echo");
    let call = sidecar.called().await;
    assert_eq!(call, Call { invocation: "inv_1".into(), handler: "echo".into(), input: r#"{"a":1}"#.into() });
    house.invoke_other("inv_1", "echo");
    assert_eq!(house.end(sidecar.id, "inv_1", Ok("[1]")).await, Ok(()));
    assert_eq!(house.ended().await, InvocationEnded { invocation: "inv_1".into(), result: output("[1]") });
    assert_eq!(
        house.end(sidecar.id, "inv_1", Ok("[2]")).await,
        Err(SidecarRefused::UnknownInvocation("inv_1".into()))
    );

    house.invoke_other("inv_2", "echo");
    assert_eq!(sidecar.called().await.invocation, "inv_2".into(), "the repeat was not called");
    house.end(sidecar.id, "inv_2", Err("boom")).await.unwrap();
    assert_eq!(house.failed("inv_2").await, "boom");
    house.invoke_other("inv_3", "echo");
    assert_eq!(sidecar.called().await.invocation, "inv_3".into());

    let mut house = house.again();
    house.up();
    house.invoke_other("inv_1", "echo");
    assert_eq!(house.ended().await.result, output("[1]"));
    house.invoke_other("inv_3", "echo");
    assert!(house.failed("inv_3").await.contains("interrupted"), "nobody knows how far it came");
}

#[actix::test]
async fn a_sidecar_that_goes_in_the_middle_of_a_call_takes_its_handlers_along_and_a_repeat_ends_the_call() {
    let mut house = House::new();
    house.up();
    let mut first = house.sidecar(&["echo"]).await;
    house.invoke_other("inv_1", "echo");
    first.called().await;
    house.gone(first.id).await;
    assert_eq!(house.offered(Ok(())).await, [""; 0], "the engine hears that first");
    assert_eq!(house.failed("inv_1").await, "handler_unavailable");
    house.invoke_other("inv_2", "echo");
    assert_eq!(house.failed("inv_2").await, "handler_unavailable");

    let mut second = house.sidecar(&["echo"]).await;
    house.invoke_other("inv_1", "echo");
    assert!(house.failed("inv_1").await.contains("interrupted"), "it may have run");
    house.invoke_other("inv_2", "echo");
    assert_eq!(second.called().await.invocation, "inv_2".into(), "it has not run");
    assert_eq!(house.end(first.id, "inv_2", Ok("1")).await, Err(SidecarRefused::NotRegistered));
}

#[actix::test]
async fn a_sidecars_spawn_is_registered_for_its_invocation_and_answered_by_the_handler_alone() {
    let mut house = House::new();
    house.up();
    let mut sidecar = house.sidecar(&["spawn:otter"]).await;
    let asked = InvokedSpawn { harness: Some("otter".into()), input: r#"{"name":"ann"}"#.into(), ..asked() };
    house.invoke("inv_1", asked);
    let call = sidecar.called().await;
    assert_eq!((call.handler.as_str(), call.input.as_str()), ("spawn:otter", r#"{"name":"ann"}"#));
    let (spec, origin) = (house.spec(), Origin::Sidecar("inv_1".into()));
    let spawned = house.registry.post::<Spawn>().ask(|reply| Spawn { spec, origin, reply });
    let register = house.asked_to_register().await;
    assert_eq!(register.invocation, Some("inv_1".into()));
    register.reply.send(Ok(registration()));
    let build = house.asked_to_build().await;
    build.reply.send(rooms(&house.ears));
    build.started.send(Ok(started()));
    spawned.await.unwrap().unwrap();
    assert_eq!(house.listed(&["ann"]).await[0].invocation, None, "the engine would take that for the result");
    assert!(!house.has_ended("inv_1"));
    house.end(sidecar.id, "inv_1", Ok(r#"{"mine":1}"#)).await.unwrap();
    assert_eq!(house.ended().await.result, output(r#"{"mine":1}"#));
    house.gone(sidecar.id).await;
    assert_eq!(house.agents().await.len(), 1, "an agent outlives the sidecar that asked for it");
}

#[actix::test]
async fn there_is_one_sidecar_and_one_that_the_engine_does_not_take_may_register_again() {
    let mut house = House::new();
    house.up();
    let refused = house.register_sidecar(&["nod"]).await.err();
    assert_eq!(refused, Some(SidecarRefused::Declared("nod".into())), "the configuration declares it");
    let first = house.register_sidecar(&["echo"]).await.unwrap();
    let refused = house.register_sidecar(&["other"]).await.err();
    assert_eq!(refused, Some(SidecarRefused::Occupied { name: "pier".into() }));

    let ready = house.ready(first.id, &["echo"]);
    let no = OfferRefused::Engine { code: "action_name_conflict".into(), message: "words".into() };
    assert_eq!(house.offered(Err(no.clone())).await, ["echo"]);
    assert_eq!(ready.await.unwrap(), Err(SidecarRefused::NotTaken(no)));
    assert_eq!(house.offered(Ok(())).await, [""; 0], "it is taken back");
    house.invoke_other("inv_1", "echo");
    assert_eq!(house.failed("inv_1").await, "handler_unavailable");
    // Neither does one stay that nobody has the end of any more.
    let lost = house.register_sidecar(&["echo"]).await.unwrap();
    drop(lost.calls);
    house.sidecar(&["echo"]).await;
}

#[actix::test]
async fn a_call_waits_for_its_record_and_a_restart_of_the_registry_ends_it() {
    let mut house = House::new();
    house.up();
    let mut sidecar = house.sidecar(&["echo"]).await;
    house.journal.stall(true);
    house.invoke_other("inv_1", "echo");
    let early = timeout(Duration::from_millis(500), sidecar.calls.recv()).await;
    assert!(early.is_err(), "it would be called again after a kill of the broker");
    house.journal.stall(false);
    assert_eq!(sidecar.called().await.invocation, "inv_1".into());

    house.registry.probe().arm(FaultPoint::Handler);
    house.read("m1");
    assert!(house.failed("inv_1").await.contains("interrupted"));
    let late = house.end(sidecar.id, "inv_1", Ok("1")).await;
    assert_eq!(late, Err(SidecarRefused::UnknownInvocation("inv_1".into())));
    house.invoke_other("inv_2", "echo");
    assert_eq!(sidecar.called().await.invocation, "inv_2".into(), "the sidecar stays");
    // The clock moves on when nothing else does.
    tokio::time::pause();
    let ended = loop {
        if let Told::Ended(ended) = house.told.recv().await.unwrap() {
            break ended;
        }
    };
    let InvocationResult::Failed(why) = ended.result else { panic!("it has a result") };
    assert!(why.contains("did not answer within"), "{why}");
}
