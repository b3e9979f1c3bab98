//! What a sidecar handles, offered on a session that is live.

use super::*;
use crate::messages::{
    session::{OfferRefused, SetOffer},
    sidecar::{HandlerSpec, Offer},
};

impl House {
    fn offer(&self, names: &[&str]) -> Answer<Result<(), OfferRefused>> {
        let handler = |name: &&str| HandlerSpec { name: (*name).to_owned(), metadata: None };
        let offer = Offer { handlers: names.iter().map(handler).collect(), ..Offer::default() };
        self.session.post().ask(|reply| SetOffer { offer, reply })
    }
}

fn capabilities(register: &Value) -> Vec<&str> {
    let all = register["capabilities"].as_array().unwrap();
    all.iter().map(|capability| capability["name"].as_str().unwrap()).collect()
}

#[actix::test]
async fn handlers_are_offered_at_once_and_again_on_every_socket_after_what_the_node_runs_by_itself() {
    let (mut house, mut socket) = House::live(quick()).await;
    let taken = house.offer(&["echo"]);
    let register = socket.frame("node.register").await;
    assert_eq!(capabilities(&register), ["spawn:plain", "echo"]);
    socket.reply(&register, &json!({"id": "node_1", "name": "quay"}));
    assert_eq!(taken.await.unwrap(), Ok(()));

    socket.to.send(Do::Close("force-disconnect")).unwrap();
    let mut socket = house.engine.live().await;
    house.up().await;
    let register = socket.frame("node.register").await;
    assert_eq!(capabilities(&register), ["spawn:plain", "echo"]);
    // Refused now, it costs the handlers and not the session.
    socket.error(register["id"].as_str().unwrap(), "action_name_conflict");
    house.shows("handlers_offered", |n| n == "1").await;
    let withdrawn = house.offer(&[]);
    let register = socket.frame("node.register").await;
    assert_eq!(capabilities(&register), ["spawn:plain"]);
    socket.reply(&register, &json!({"id": "node_1", "name": "quay"}));
    assert_eq!(withdrawn.await.unwrap(), Ok(()));
    assert_eq!(house.offer(&[]).await.unwrap(), Ok(()), "nothing new is nothing to say");
    assert_eq!(socket.so_far(), Vec::<Value>::new());
}

#[actix::test]
async fn a_refusal_and_a_silence_are_told_to_who_offers() {
    let (house, mut socket) = House::live(Timings { register: Duration::from_millis(400), ..quick() }).await;
    let refused = house.offer(&["echo"]);
    let register = socket.frame("node.register").await;
    socket.error(register["id"].as_str().unwrap(), "action_name_conflict");
    let Err(OfferRefused::Engine { code, .. }) = refused.await.unwrap() else { panic!("it is taken") };
    assert_eq!(code, "action_name_conflict");

    let refused = house.offer(&["moor"]);
    let register = socket.frame("node.register").await;
    let one = json!({"name": "moor", "accepted": false, "reason": "reserved"});
    socket.reply(&register, &json!({"id": "node_1", "name": "quay", "accepted_capabilities": [one]}));
    let Err(OfferRefused::Engine { code, .. }) = refused.await.unwrap() else { panic!("it is taken") };
    assert_eq!(code, "reserved");

    let unheard = house.offer(&["tide"]);
    socket.frame("node.register").await;
    assert_eq!(unheard.await.unwrap(), Err(OfferRefused::TimedOut));
}

#[actix::test]
async fn an_offer_without_a_session_waits_for_one() {
    let mut house = House::start(quick()).await;
    assert_eq!(house.offer(&["echo"]).await.unwrap(), Ok(()));
    let mut socket = house.engine.live().await;
    assert_eq!(capabilities(&socket.frame("node.register").await), ["spawn:plain", "echo"]);
}
