//! Making a hostile input out of a good one, and out of nothing.

use serde_json::{Map, Value, json};

use crate::support::Chance;

/// A few random edits of bytes: flips, cuts, repeats, and pieces of another input.
pub(crate) fn bytes(chance: &mut Chance, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=chance.below(4) {
        let at = index(chance, out.len() + 1);
        let end = (at + index(chance, 16)).min(out.len());
        match chance.below(7) {
            0 if at < out.len() => out[at] ^= 1 << chance.below(8),
            1 if at < out.len() => out[at] = byte(chance),
            2 => out.insert(at, byte(chance)),
            3 => drop(out.drain(at..end)),
            4 => {
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            5 => out.truncate(at),
            _ => {
                let from = index(chance, other.len() + 1);
                let to = (from + index(chance, 64)).min(other.len());
                out.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    out
}

/// One value somewhere in it is replaced, removed, doubled, buried or taken out of its place; `None` when the
/// input is no JSON.
pub(crate) fn value(chance: &mut Chance, input: &[u8]) -> Option<String> {
    let mut whole: Value = serde_json::from_slice(input).ok()?;
    let mut at = &mut whole;
    // Down to a random depth.
    while chance.below(4) > 0 {
        let places = match &*at {
            Value::Object(object) => object.len(),
            Value::Array(list) => list.len(),
            _ => 0,
        };
        if places == 0 {
            break;
        }
        let place = index(chance, places);
        at = match at {
            Value::Object(object) => object.values_mut().nth(place)?,
            Value::Array(list) => list.get_mut(place)?,
            _ => break,
        };
    }
    match (chance.below(5), &mut *at) {
        (0, Value::Object(object)) => {
            let key = object.keys().nth(index(chance, object.len().max(1))).cloned().unwrap_or_default();
            object.remove(&key);
        }
        (1, Value::Object(object)) => {
            let key = object.keys().nth(index(chance, object.len().max(1))).cloned().unwrap_or_default();
            object.insert(format!("{key}\u{0}"), random(chance, 2));
        }
        (2, buried) => {
            for _ in 0..chance.below(200) {
                *buried = Value::Array(vec![buried.take()]);
            }
        }
        (_, replaced) => *replaced = random(chance, 3),
    }
    let text = whole.to_string();
    // Half a surrogate pair is what JavaScript leaves of a character that it cut.
    Some(if chance.below(8) == 0 { text.replacen('e', "\\ud83e", 1) } else { text })
}

/// Any JSON, of the values that programs trip over.
pub(crate) fn random(chance: &mut Chance, depth: u32) -> Value {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0.5),
        json!(1e308),
        json!(u64::MAX),
        json!(9_007_199_254_740_993_u64),
        json!(""),
        json!(" "),
        json!("deliver"),
        json!("\u{0}\u{1b}[2J\r\n\u{202e}"),
        json!("../../etc/passwd"),
        json!("x".repeat(300)),
        json!({}),
        json!([]),
    ];
    match chance.below(6) {
        0 if depth > 0 => (0..chance.below(4)).map(|_| random(chance, depth - 1)).collect(),
        1 if depth > 0 => {
            let keys = ["type", "v", "data", "payload", "agent_id", "seq", "text", "input", "name", "id"];
            let mut object = Map::new();
            for _ in 0..chance.below(5) {
                object.insert(keys[index(chance, keys.len())].to_owned(), random(chance, depth - 1));
            }
            Value::Object(object)
        }
        _ => odd[index(chance, odd.len())].clone(),
    }
}

/// So many bytes of everything.
pub(crate) fn noise(chance: &mut Chance, length: usize) -> Vec<u8> {
    (0..length).map(|_| byte(chance)).collect()
}

pub(crate) fn index(chance: &mut Chance, end: usize) -> usize {
    usize::try_from(chance.below(end.max(1) as u64)).unwrap()
}

/// Half of the time one that means something in JSON, in TOML or to a terminal.
fn byte(chance: &mut Chance) -> u8 {
    const SPECIAL: &[u8] = b"{}[]\":,\\\0\x1b\r\n\t\x7f\x9b-.eE0919'#=;?hlu\xc3\xe2\x80\xae\xf0\xed\xa0";
    if chance.below(2) == 0 {
        SPECIAL[index(chance, SPECIAL.len())]
    } else {
        u8::try_from(chance.below(256)).unwrap()
    }
}
