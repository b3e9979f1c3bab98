//! Dead letters.

use super::*;
use crate::{
    ids::Seq,
    messages::{
        dead_letter::{Letters, RedeliverLetters, RedeliverRefused},
        delivery::Note,
    },
    store::{DeadLetter, Record},
};

fn letter(delivery: &str, of: &str) -> DeadLetter {
    let note = Note {
        from: "bob".into(),
        target: of.into(),
        thread: None,
        msg_id: "m1".into(),
        body: "hello".into(),
        sent_at: None,
        system: false,
    };
    DeadLetter {
        agent: "3".into(),
        name: name(of),
        delivery: delivery.into(),
        seq: Seq(1),
        note,
        reason: "no".into(),
        attempts: 1,
        landed: false,
        at_ms: 1,
    }
}

#[actix::test]
async fn dead_letters_go_to_the_agent_that_has_the_name_now() {
    let mut house = House::new();
    house.up();
    let spawned = house.spawn();
    house.bring_up().await;
    spawned.await.unwrap().unwrap();
    for (delivery, of) in [("d1", "ann"), ("d2", "ben")] {
        house.journal.append(Record::KeptLetter(Box::new(letter(delivery, of))));
    }
    let ask =
        |which| house.registry.post::<RedeliverLetters>().ask(|reply| RedeliverLetters { which, reply });
    let (all, none) = (ask(Letters::All), ask(Letters::Of("d9".into())));
    match house.next().await {
        Told::Redeliver(Redeliver { letter, reply }) => {
            assert_eq!(letter.delivery, "d1".into());
            reply.send(Ok(()));
        }
        other => panic!("{} instead of a dead letter", what(&other)),
    }
    let outcomes: Vec<_> =
        all.await.unwrap().into_iter().map(|tried| (tried.delivery, tried.outcome)).collect();
    assert_eq!(outcomes, [("d1".into(), Ok(())), ("d2".into(), Err(RedeliverRefused::NotLive))]);
    assert_eq!(none.await.unwrap(), []);
}
