//! Agents that are registered, and registrations that are undone.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[actix::test]
async fn registrations_are_answered_by_id_and_one_name_has_one_at_a_time() {
    let mut house = House::start(quick()).await;
    assert_eq!(
        house.register("early", None).await.unwrap().unwrap_err(),
        RegisterRefused::Offline,
        "not live yet"
    );
    let mut socket = house.engine.live().await;
    house.up().await;
    let (ann, bob) = (house.register("ann", None), house.register("bob", None));
    assert_eq!(house.register("ann", None).await.unwrap().unwrap_err(), RegisterRefused::InProgress);
    let first = socket.frame("agent.register").await;
    let second = socket.frame("agent.register").await;
    assert_eq!((&first["name"], &second["name"]), (&json!("ann"), &json!("bob")));
    let mut data = registered("8", "bob");
    data["delivery_ack_seq"] = json!(41);
    socket.reply(&second, &data);
    socket.error(first["id"].as_str().unwrap(), "node_capacity_exceeded");
    let bob = bob.await.unwrap().unwrap();
    assert_eq!((bob.agent_id.as_str(), bob.ack_seq), ("8", Some(Seq(41))));
    let refused = RegisterRefused::Engine { code: "node_capacity_exceeded".into(), message: "words".into() };
    assert_eq!(ann.await.unwrap().unwrap_err(), refused);
}

#[actix::test]
async fn a_registration_is_recovered_when_the_engine_creates_only_and_we_know_the_id() {
    let (house, mut socket) = House::live(quick()).await;
    let answer = house.register("ann", Some("7".into()));
    let register = socket.frame("agent.register").await;
    socket.error(register["id"].as_str().unwrap(), "agent_already_exists");
    let recover = socket.frame("agent.recover").await;
    assert_eq!(recover["expected_agent_id"], json!("7"));
    socket.reply(&recover, &registered("7", "ann"));
    assert_eq!(answer.await.unwrap().unwrap().agent_id.as_str(), "7");
}

#[actix::test]
async fn a_registration_that_is_answered_too_late_is_undone() {
    let timings = Timings { agent_register: Duration::from_millis(100), ..quick() };
    let (house, mut socket) = House::live(timings).await;
    let answer = house.register("ann", None);
    let register = socket.frame("agent.register").await;
    assert_eq!(answer.await.unwrap().unwrap_err(), RegisterRefused::TimedOut);
    socket.reply(&register, &registered("7", "ann"));
    let gone = socket.frame("agent.deregister").await;
    assert_eq!((&gone["agent_id"], &gone["name"]), (&json!("7"), &json!("ann")));
}

#[actix::test]
async fn a_reply_that_comes_twice_answers_once_and_undoes_nothing() {
    let (house, mut socket) = House::live(quick()).await;
    let (ann, bob) = (house.register("ann", None), house.register("bob", None));
    let first = socket.frame("agent.register").await;
    let second = socket.frame("agent.register").await;
    socket.reply(&first, &registered("7", "ann"));
    socket.reply(&first, &registered("7", "ann"));
    assert_eq!(ann.await.unwrap().unwrap().agent_id.as_str(), "7");
    house.shows("replies_late", |n| n == "1").await;
    socket.reply(&second, &registered("8", "bob"));
    assert_eq!(bob.await.unwrap().unwrap().agent_id.as_str(), "8");
    assert_eq!(socket.so_far(), Vec::<Value>::new(), "ann stays");
}

#[actix::test]
async fn a_registration_that_nobody_waits_for_any_more_is_undone() {
    let (house, mut socket) = House::live(quick()).await;
    drop(house.register("ann", None));
    let register = socket.frame("agent.register").await;
    socket.reply(&register, &registered("7", "ann"));
    socket.frame("agent.deregister").await;
}

#[actix::test]
async fn a_lost_socket_answers_who_waited_and_what_is_owed_goes_out_with_the_next() {
    let (mut house, mut socket) = House::live(quick()).await;
    let answer = house.register("ann", None);
    socket.frame("agent.register").await;
    socket.close("bye");
    assert_eq!(answer.await.unwrap().unwrap_err(), RegisterRefused::Offline);
    house.ended(0).await;
    let (agent_id, name) = ("7".into(), name("ann"));
    house.tell(DeregisterAgent { agent_id, name });
    let result = InvocationResult::Failed("spawn_failed".into());
    house.tell(InvocationEnded { invocation: "inv_1".into(), result });
    house.resume();
    let mut socket = house.engine.live().await;
    assert_eq!(socket.frame("agent.deregister").await["agent_id"], json!("7"));
    assert_eq!(socket.frame("action.result").await["error"], json!("spawn_failed"));
}

#[actix::test]
async fn the_last_ack_of_an_agent_is_told_before_the_agent_is_gone() {
    let (house, mut socket) = House::live(quick()).await;
    house.tell(Ack { agent_id: "7".into(), agent: name("ann"), up_to: Seq(3) });
    house.tell(DeregisterAgent { agent_id: "7".into(), name: name("ann") });
    assert_eq!(socket.frame("delivery.ack").await["up_to_seq"], json!(3));
    socket.frame("agent.deregister").await;
}

/// Counts what is logged at `WARN` and above while it is set.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[actix::test]
async fn a_reply_that_nobody_waits_for_is_counted_and_no_cause_for_a_warning() {
    let (house, mut socket) = House::live(quick()).await;
    let warnings = Warnings::default();
    let _listening = tracing::subscriber::set_default(warnings.clone());
    let reply = |data: Value| json!({"v": 1, "type": "reply", "id": "invented", "ok": true, "data": data});
    socket.say(reply(json!({"id": "node_1", "name": "quay"})));
    socket.say(reply(json!({"rebound_agents": 0})));
    house.shows("replies_unmatched", |n| n == "2").await;
    assert_eq!(warnings.0.load(Ordering::Relaxed), 0);
    assert_eq!(socket.so_far(), Vec::<Value>::new(), "nothing is undone for them");
    // The listening itself can hear.
    socket.deliver("99", "ghost", 1);
    socket.frame("delivery.ack").await;
    assert_eq!(warnings.0.load(Ordering::Relaxed), 1);
}
