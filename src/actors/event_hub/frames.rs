//! The texts of the stream's frames (spec/api 2.6).

use std::sync::Arc;

use serde::Serialize;

use super::ring::Gap;
use crate::{
    ids::{AgentName, EventSeq},
    messages::observe::{Event, Output},
};

#[derive(Serialize)]
struct Numbered<'a> {
    seq: EventSeq,
    #[serde(flatten)]
    event: &'a Event,
}

/// An event with its number.
pub(super) fn numbered(seq: EventSeq, event: &Event) -> Result<Arc<str>, serde_json::Error> {
    serde_json::to_string(&Numbered { seq, event }).map(Arc::from)
}

#[derive(Serialize)]
#[serde(tag = "kind", rename = "worker_stream")]
struct WorkerStream<'a> {
    name: &'a AgentName,
    stream: &'static str,
    chunk: &'a str,
    start: u64,
    /// At its end.
    offset: u64,
}

/// Terminal output.
pub(super) fn output(output: &Output) -> Result<Arc<str>, serde_json::Error> {
    let Output { name, text, start, end, .. } = output;
    let frame = WorkerStream { name, stream: "stdout", chunk: text, start: *start, offset: *end };
    serde_json::to_string(&frame).map(Arc::from)
}

/// Events after what the reader has are gone. `seq` is the position before the oldest that follows, so a
/// client that remembers the last `seq` it saw asks for the right ones when it is cut off right here.
pub(super) fn replay_gap(gap: Gap, boot_id: &str) -> Arc<str> {
    serde_json::json!({
        "kind": "replay_gap",
        "requestedSinceSeq": gap.since,
        "oldestAvailable": gap.oldest,
        "seq": gap.oldest.0.saturating_sub(1),
        "boot_id": boot_id,
    })
    .to_string()
    .into()
}

/// So many frames of terminal output were not given to this reader: to see what is, it takes a snapshot.
pub(super) fn stream_gap(frames: u64) -> Arc<str> {
    serde_json::json!({ "kind": "stream_gap", "frames": frames }).to_string().into()
}
