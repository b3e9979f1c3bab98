//! Persons who type while messages come.

use crate::stage::{Stage, assert_shows};

#[test]
fn half_typed_human_keeps_what_stands_in_the_composer() {
    let stage = Stage::new();
    let tui = stage.start("half_typed_human", &[]);
    tui.until_state("idle");
    tui.types("half a thou");
    tui.until_state("human");
    let told = tui.tell("a message in between");
    // A person who does not type on is not done for that: their words stand there.
    tui.until_because("the composer holds a person's words");
    assert_eq!(tui.read(), b"half a thou");
    tui.has_nothing();
    tui.types("ght\r");
    assert_eq!(tui.acks(&told), ["landed", "submitted"]);
    let turns = tui.turns();
    assert_eq!(turns.len(), 2, "{turns:?}");
    assert_eq!(turns[0], "half a thought");
    assert_shows(&turns[1], &told);
    drop(tui);
    stage.over();
}
