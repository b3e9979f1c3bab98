//! Every door that others' words come in by, fed with our recordings, our seeds and what mutation makes of
//! them. The same entries run under a fuzzer (`just fuzz`).

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{entries, mutate, support::Chance};

/// Mutations of all inputs of a door together.
const MUTATIONS: usize = 20_000;
/// The largest message that the socket lets in.
const GIANT: usize = 4 << 20;

/// The files below a directory of the project.
pub(crate) fn files(below: &str) -> Vec<Vec<u8>> {
    fn read(dir: &Path, into: &mut Vec<Vec<u8>>) {
        let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        // In an order that does not depend on the file system: a seed must repeat.
        paths.sort();
        for path in paths {
            if path.is_dir() { read(&path, into) } else { into.push(fs::read(path).unwrap()) }
        }
    }
    let mut found = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(below), &mut found);
    assert!(!found.is_empty(), "nothing below {below}");
    found
}

/// The payloads of the recorded deliveries.
fn payloads() -> Vec<Vec<u8>> {
    let frames = files("fixtures/frames/engine");
    let payloads = frames.iter().filter_map(|frame| {
        let frame: Value = serde_json::from_slice(frame).unwrap();
        Some(frame.get("payload")?.to_string().into_bytes())
    });
    payloads.collect()
}

fn hold(door: fn(&[u8]), inputs: &[Vec<u8>]) {
    let mut chance = Chance::new();
    for input in inputs {
        door(input);
    }
    for n in 0..MUTATIONS {
        let input = &inputs[n % inputs.len()];
        let other = &inputs[mutate::index(&mut chance, inputs.len())];
        let hostile = match chance.below(4) {
            0 => mutate::value(&mut chance, input).map(String::into_bytes),
            1 if n.is_multiple_of(50) => Some(mutate::noise(&mut chance, 600)),
            _ => None,
        };
        door(&hostile.unwrap_or_else(|| mutate::bytes(&mut chance, input, other)));
    }
}

#[test]
fn no_frame_makes_the_decoders_panic_or_disagree() {
    hold(entries::frames, &files("fixtures/frames"));
}

#[test]
fn no_payload_types_anything_but_text() {
    hold(entries::payload, &payloads());
}

#[test]
fn no_sender_channel_id_or_body_types_anything_but_text() {
    hold(entries::typed, &files("fuzz/seeds/typed"));
}

#[test]
fn no_output_of_a_program_breaks_the_screen() {
    hold(entries::screen, &files("fuzz/seeds/screen"));
}

#[test]
fn no_configuration_file_is_more_than_refused() {
    hold(entries::config, &files("fuzz/seeds/config"));
}

#[test]
fn the_largest_frames_take_no_longer_than_their_bytes() {
    let shapes: [(&str, &str, &str, &str); 7] = [
        // Where it is put, what is repeated, between what.
        ("payload", "[", "", ""),
        ("payload", "[],", "[", "0]"),
        ("payload", r"\ud83e", "{\"text\":\"", "\"}"),
        ("payload", "[relay \\n", "{\"text\":\"", "\"}"),
        ("payload", "{\"data\":", "", ""),
        ("input", "\"c#\",", "{\"channels\":[", "0]}"),
        ("input", "{\"agent\":", "", ""),
    ];
    for (key, piece, before, after) in shapes {
        let mut n = 0_usize;
        let mut inner = String::with_capacity(GIANT);
        while inner.len() < GIANT - 1024 {
            n += 1;
            inner.push_str(&piece.replace('#', &n.to_string()));
        }
        let frame = format!(
            "{{\"v\":1,\"type\":\"{}\",\"delivery_id\":\"d\",\"agent_id\":\"a\",\"agent\":\"a\",\"msg_id\":\"m\",\
             \"seq\":1,\"mode\":\"wait\",\"invocation_id\":\"i\",\"action\":\"spawn:x\",\
             \"{key}\":{before}{inner}{after}}}",
            if key == "payload" { "deliver" } else { "action.invoke" }
        );
        let began = Instant::now();
        entries::frames(frame.as_bytes());
        let took = began.elapsed();
        // Slow machines and unoptimised code included; what grows with the square takes minutes.
        assert!(took < Duration::from_secs(10), "{} of {piece} took {took:?}", frame.len());
    }
}
