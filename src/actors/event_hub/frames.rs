//! The texts of the stream's frames (spec/api 2.6).

use std::sync::Arc;

use serde::Serialize;

use super::ring::Gap;
use crate::{ids::EventSeq, messages::observe::Event};

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

/// An event without a number.
pub(super) fn ephemeral(event: &Event) -> Result<Arc<str>, serde_json::Error> {
    serde_json::to_string(event).map(Arc::from)
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

/// This many frames of terminal output were not given to this reader.
pub(super) fn stream_gap(frames: u64) -> Arc<str> {
    serde_json::json!({ "kind": "stream_gap", "frames": frames }).to_string().into()
}
