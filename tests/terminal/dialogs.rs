//! Programs that want an answer which no message is.

use crate::stage::Stage;

#[test]
fn dialog_then_prompt_is_blocked_until_somebody_answers() {
    let stage = Stage::new();
    let tui = stage.start("dialog_then_prompt", &[]);
    tui.until_state("blocked");
    let told = tui.tell("now count the boats");
    stage.events.wait("delivery_queued", &tui.name);
    assert!(tui.read().is_empty(), "{:?}", tui.notes());
    tui.has_nothing();

    tui.types("1");
    assert_eq!(tui.acks(&told), ["landed", "submitted"]);
    assert_eq!(tui.noted("chosen"), ["Trust this folder and go on"]);
    let (answer, rest) = tui.read().split_first().map(|(first, rest)| (*first, rest.to_vec())).unwrap();
    assert_eq!(answer, b'1');
    assert!(rest.starts_with(b"\x1b[200~[relay DM"), "{:?}", tui.pieces());
    assert_eq!((tui.turns().len(), tui.enters()), (1, 1));
    drop(tui);
    stage.over();
}
