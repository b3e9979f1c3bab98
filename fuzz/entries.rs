//! What must hold for any bytes whatsoever, one function per door that others' words come in by. The fuzz
//! targets call them, and so does `tests/hostile`, which needs no fuzzer.

use std::path::Path;

use relay_broker::{
    actors::pty_worker,
    config,
    ids::{AgentName, MsgId},
    messages::{
        delivery::{Content, Note},
        pty::TermSize,
    },
    screen::{Region, Screen},
    wire::{
        frames::{AgentRegistered, BrokerFrame, EngineFrame, InventorySynced, NodeRegistered},
        invoke, payload,
    },
};
use serde_json::value::RawValue;

/// A frame of an engine, and a frame of a broker.
pub(crate) fn frames(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(frame) = EngineFrame::decode_tolerant(text) {
        // No log may depend on what stands in a frame.
        assert!(!format!("{frame:?}").is_empty());
        match &frame {
            EngineFrame::Deliver(frame) => read(&frame.payload, &frame.agent),
            EngineFrame::ActionInvoke(frame) => drop(invoke::action(frame)),
            EngineFrame::Reply(reply) => {
                drop(reply.data::<AgentRegistered>());
                drop(reply.data::<NodeRegistered>());
                drop(reply.data::<InventorySynced>());
            }
            _ => {}
        }
        if !matches!(frame, EngineFrame::Unknown { .. }) {
            let again = EngineFrame::decode_tolerant(&frame.encode()).expect("what we write we read");
            assert_eq!(again.kind(), frame.kind());
        }
    }
    let extended = BrokerFrame::decode_extended(text);
    if BrokerFrame::decode_strict(text).is_ok() {
        assert!(extended.is_ok(), "the extended reading takes whatever the strict one takes");
    }
    if let Ok(frame) = extended {
        let again = BrokerFrame::decode_extended(&frame.encode()).expect("what we write we read");
        assert_eq!((again.kind(), again.id()), (frame.kind(), frame.id()));
    }
}

/// The payload of a delivery, up to what an agent is shown of it.
pub(crate) fn payload(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(raw) = RawValue::from_string(text.to_owned()) {
        read(&raw, "otter-1");
    }
}

fn read(payload: &RawValue, agent: &str) {
    if let Content::Inject(note) = payload::content(payload, agent, &MsgId::from("m-1")) {
        shown(&note, 0, 1 << 16);
    }
}

/// A message whose every part is chosen by somebody else: parts are separated by a zero byte.
pub(crate) fn typed(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    let (from, target, thread, msg_id, sent_at) = (part(), part(), part(), part(), part());
    let body = parts.collect::<Vec<_>>().join("\0");
    let first = data.first().copied().unwrap_or_default();
    let note = Note {
        from,
        target,
        thread: (!thread.is_empty()).then(|| MsgId::from(thread.as_str())),
        msg_id: MsgId::from(msg_id.as_str()),
        body,
        sent_at: (!sent_at.is_empty()).then_some(sent_at),
        system: first.is_multiple_of(2),
    };
    // Also so short that bodies are cut.
    for body_max in [1 << 16, usize::from(first) % 16] {
        shown(&note, u64::from(first), body_max);
    }
}

/// Nothing that a terminal or a line discipline acts on is typed, and no line but ours looks like ours.
fn shown(note: &Note, nth: u64, body_max: usize) {
    let reader = AgentName::parse("otter-1").expect("a name");
    let (lines, flat) = pty_worker::shown(note, &reader, nth, body_max);
    assert!(!lines.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{lines:?}");
    assert!(!flat.contains(char::is_control), "{flat:?}");
    assert!(lines.starts_with("[relay ") && flat.starts_with("[relay "), "{lines:?}");
    let ours = lines.split('\n').filter(|line| line.to_lowercase().starts_with("[relay"));
    assert_eq!(ours.count(), 1, "{lines:?}");
    let hints = lines.split('\n').filter(|line| line.starts_with("[reply:")).count();
    assert!(hints <= usize::from(!note.system && nth.is_multiple_of(20)), "{lines:?}");
}

/// Output of a program: two bytes choose the screen's size, the third how the rest is cut into pieces.
pub(crate) fn screen(data: &[u8]) {
    let [rows, cols, cut, output @ ..] = data else { return };
    let size = |rows: u8, cols: u8| TermSize { rows: 10 + u16::from(rows) % 60, cols: 20 + u16::from(cols) };
    let mut screen = Screen::new(size(*rows, *cols));
    let mut answered = 0;
    for (i, piece) in output.chunks(usize::from(*cut) + 1).enumerate() {
        answered += screen.feed(piece).len();
        if i % 7 == 6 {
            screen.resize(size(piece[0], *cut));
        }
        if i % 16 == 0 {
            look(&screen);
        }
    }
    look(&screen);
    // The shortest query has three bytes; an answer is a few times that, never a flood.
    assert!(answered <= 32 * output.len(), "{answered} bytes in answer to {}", output.len());
    let mut again = Screen::new(screen.size());
    again.feed(&screen.ansi());
    look(&again);
}

fn look(screen: &Screen) {
    let TermSize { rows, cols } = screen.size();
    let (row, col) = screen.cursor();
    assert!(row < rows && col < cols, "the cursor is at {row}, {col} of {rows}, {cols}");
    assert_eq!(screen.rows(Region::All).len(), usize::from(rows));
    assert!(screen.rows(Region::Bottom(3)).len() <= 3);
    assert!(screen.rows(Region::Cursor { above: 1, below: 1 }).len() <= 3);
    assert_eq!(screen.rows_to_cursor().len(), usize::from(row) + 1);
    assert!(!screen.title().contains(char::is_control));
    assert!(screen.last_words(40, 40).chars().count() <= 40);
    assert!(screen.modes().len() <= 7);
}

/// A configuration file.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(problems) = config::check(Path::new("/harbor/relay-broker.toml"), text) {
        assert!(!problems.0.is_empty());
        assert!(problems.to_string().lines().count() <= problems.0.len() + 1, "a line each: {problems}");
    }
}
