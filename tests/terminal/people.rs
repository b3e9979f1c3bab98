//! Persons who type while messages come.

use crate::stage::{Stage, assert_shows};

#[test]
fn half_typed_human_keeps_what_stands_in_the_composer() {
    let stage = Stage::new();
    let tui = stage.start("half_typed_human", &[]);
    tui.until_state("idle");
    tui.types("half a thou");
    let told = tui.tell("a message in between");
    tui.event_of("delivery_queued", &told);
    tui.types("ght\r");
    assert_eq!(tui.acks(&told), ["landed", "submitted"]);
    let turns = tui.turns();
    assert_eq!(turns.len(), 2, "{turns:?}");
    assert_eq!(turns[0], "half a thought");
    assert_shows(&turns[1], &told);
    drop(tui);
    stage.over();
}
