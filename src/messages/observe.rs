//! The event stream: every room -> event_hub, and event_hub -> subscribers (spec/api 2.6).

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Reply,
    allowance::Allowed,
    delivery::Rung,
    hold::DeliveryMode,
    lifecycle::ActorId,
    pty::{AgentState, Dialog},
    told,
};
use crate::ids::{AgentName, DeliveryId, EventSeq, MsgId, ResultId};

/// Something that a client may want to know. The variants are the `kind`s of spec/api 2.6, plus our own.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are the documented JSON of docs/api.md")]
pub enum Event {
    AgentSpawned {
        name: AgentName,
        runtime: &'static str,
        provider: String,
        cli: String,
        model: Option<String>,
        #[serde(rename = "sessionId")]
        session_id: Option<String>,
        pid: Option<u32>,
        source: &'static str,
        pre_registered: bool,
        registration_warning: Option<String>,
    },
    WorkerReady {
        name: AgentName,
        runtime: &'static str,
        provider: String,
        cli: String,
        model: Option<String>,
        #[serde(rename = "sessionId")]
        session_id: Option<String>,
        pid: Option<u32>,
    },
    AgentState {
        name: AgentName,
        from: AgentState,
        to: AgentState,
        because: String,
        /// What the agent asks, when it is blocked by a question.
        #[serde(skip_serializing_if = "Option::is_none")]
        dialog: Option<Dialog>,
    },
    /// It has been idle for this long.
    AgentIdle {
        name: AgentName,
        idle_secs: u64,
        /// Milliseconds since the Unix epoch.
        since_ms: u64,
    },
    /// It has been blocked, or has not read, for this long while messages wait in its terminal's queue.
    AgentBlockedOnSend {
        name: AgentName,
        blocked_secs: u64,
        pending_delivery_count: usize,
    },
    AgentExit {
        name: AgentName,
        reason: &'static str,
    },
    AgentExited {
        name: AgentName,
        code: Option<i32>,
        signal: Option<String>,
        reason: &'static str,
        uptime_ms: u64,
    },
    AgentReleased {
        name: AgentName,
    },
    /// It has handed something in.
    AgentResult {
        name: AgentName,
        result_id: ResultId,
        data: Box<RawValue>,
        #[serde(rename = "final")]
        is_final: bool,
        metadata: Option<Box<RawValue>>,
    },
    /// Its program has failed; the agent stays, and gets another one.
    AgentRestarting {
        name: AgentName,
        code: Option<i32>,
        signal: Option<String>,
        restart_count: u32,
        delay_ms: u64,
    },
    AgentRestarted {
        name: AgentName,
        restart_count: u32,
        pid: u32,
    },
    /// It should have been started again, and will not be.
    AgentPermanentlyDead {
        name: AgentName,
        reason: String,
    },
    /// It lives on another node now and is being ended here.
    AgentDetached {
        name: AgentName,
        reason: &'static str,
    },
    RelayInbound {
        event_id: MsgId,
        from: String,
        target: String,
        body: String,
        thread_id: Option<MsgId>,
    },
    /// `reason` is there when it waits for more than its turn: `manual_flush`.
    DeliveryQueued {
        name: AgentName,
        delivery_id: DeliveryId,
        event_id: MsgId,
        from: String,
        target: String,
        timestamp: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
    },
    AgentInboundDeliveryModeChanged {
        name: AgentName,
        previous_mode: DeliveryMode,
        mode: DeliveryMode,
    },
    /// So many held messages are on their way; `reason` is `explicit_flush` or `delivery_mode_transition`.
    AgentPendingDrained {
        name: AgentName,
        count: usize,
        reason: &'static str,
    },
    DeliveryInjected {
        name: AgentName,
        delivery_id: DeliveryId,
        event_id: MsgId,
        timestamp: u64,
        rung: Rung,
    },
    /// The proof is on disk and the engine is being told.
    DeliveryAck {
        name: AgentName,
        delivery_id: DeliveryId,
        event_id: MsgId,
        timestamp: u64,
        evidence: Rung,
    },
    DeliveryVerified {
        name: AgentName,
        delivery_id: DeliveryId,
        event_id: MsgId,
        verification: Rung,
    },
    DeliveryStuck {
        name: AgentName,
        delivery_id: DeliveryId,
        event_id: MsgId,
        rung: Rung,
        /// The last rows of the agent's screen.
        screen: String,
    },
    DeliveryDropped {
        name: AgentName,
        count: usize,
        reason: String,
    },
    MessageDeliveryConfirmed {
        name: AgentName,
        delivery_id: DeliveryId,
        event_id: MsgId,
        from: String,
        to: String,
    },
    MessageDeliveryFailed {
        name: AgentName,
        delivery_id: DeliveryId,
        event_id: MsgId,
        from: String,
        to: String,
        attempts: u32,
        #[serde(rename = "lastError")]
        last_error: String,
    },
    /// `status` is `marked`, `failed`, or `suppressed_duplicate` when the ack itself marks the message as read.
    DeliveryReadAck {
        name: AgentName,
        delivery_id: DeliveryId,
        event_id: MsgId,
        status: &'static str,
        reason: Option<String>,
    },
    DeadLetterAdded {
        name: AgentName,
        delivery_id: DeliveryId,
        event_id: MsgId,
        reason: String,
    },
    /// A dead letter was tried again, and is in.
    DeadLetterRedelivered {
        name: AgentName,
        delivery_id: DeliveryId,
        event_id: MsgId,
    },
    /// The engine says that a message which was sent from here will not reach somebody.
    SendFailed {
        event_id: Option<MsgId>,
        delivery_id: Option<DeliveryId>,
        reason: String,
        /// Whether sending it again may help, when the engine says so.
        retryable: Option<bool>,
    },
    SessionState {
        state: &'static str,
        detail: String,
    },
    ActorLife {
        actor: ActorId,
        generation: u64,
        step: &'static str,
        detail: String,
    },
}

/// Every room -> event_hub: this happened.
#[derive(Clone, Debug)]
pub struct Publish(pub Event);

/// pty_worker -> event_hub: terminal output, for those who watch it now. It gets no number and is never kept.
#[derive(Debug)]
pub struct Output {
    /// Whose.
    pub name: AgentName,
    /// Whole characters and whole control sequences.
    pub text: String,
    /// Output bytes in all at its beginning: the end of the piece before it, unless pieces were lost between.
    pub start: u64,
    /// Output bytes in all at its end.
    pub end: u64,
    /// Its part of what one worker may have on its way to the hub.
    pub allowed: Allowed,
}

/// http -> event_hub: a client wants events after `since`, then live ones.
#[derive(Debug)]
pub struct Subscribe {
    /// The last seq the client has; `None` means live only.
    pub since: Option<EventSeq>,
    /// The process that numbered `since`, if the client knows. Numbers of another process are no position
    /// in this one's stream: the client finds a `replay_gap` and then everything.
    pub boot: Option<String>,
    /// Terminal output of this agent alone; `None` means everybody's.
    pub output_of: Option<AgentName>,
    /// Answered with the feed.
    pub reply: Reply<Feed>,
}

/// A subscriber's feed, backlog first. Bounded: a reader that falls behind by more than [`FEED_CAP`] frames
/// loses the oldest events and finds a `replay_gap` in their place; one that falls behind by more than
/// [`OUTPUT_BEHIND_MAX`] of terminal output loses the newest and finds a `stream_gap`.
#[derive(Debug)]
pub struct Feed {
    /// The frames.
    pub frames: tokio::sync::mpsc::Receiver<Frame>,
}

/// One frame of a feed. It counts as read when it is dropped.
#[derive(Debug)]
pub struct Frame {
    /// JSON.
    pub text: std::sync::Arc<str>,
    /// Its part of the output that this reader may be behind.
    pub room: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// http -> event_hub: the backlog after `since` as one answer.
#[derive(Debug)]
pub struct Replay {
    /// The last seq the client has.
    pub since: EventSeq,
    /// The process that numbered `since`, if the client knows.
    pub boot: Option<String>,
    /// Answered with what the ring holds.
    pub reply: Reply<Replayed>,
}

/// What the ring held.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Each event's JSON.
    pub events: Vec<std::sync::Arc<str>>,
    /// True when events after `since` have already left the ring, or `since` is of another process.
    pub gap: bool,
    /// The oldest seq still held; the next one to come while none is.
    pub oldest: EventSeq,
    /// The newest seq given out.
    pub current: EventSeq,
}

/// Frames a slow subscriber may lag behind.
pub const FEED_CAP: usize = 1024;
/// Bytes of terminal output that a slow subscriber may lag behind (spec/pty 3.9: 1 MiB)...
pub const OUTPUT_BEHIND_MAX: u32 = 1 << 20;
/// ...of which each chunk takes at least so many: 256 chunks in all.
pub const OUTPUT_CHUNK_MIN: u32 = OUTPUT_BEHIND_MAX / 256;
/// Events kept for replay (spec/api 2.6).
pub const RING_CAP: usize = 1000;

told!(Publish, Output, Subscribe, Replay);
