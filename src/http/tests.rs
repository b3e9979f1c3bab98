//! The real server on loopback, with probe actors for the rooms behind it.

mod agents;
mod debug;
mod doors;
mod fleet;
mod held;
mod house;
mod lifetime;
mod rooms;
mod streams;

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError, atomic::AtomicUsize},
};

use actix::{Actor, Context, Handler, Supervised};
use awc::ws::{Frame, Message};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use self::{
    house::{Got, Options, event, frame, house, house_with, keyed, try_house},
    rooms::{Rooms, Script, Shared, cursor, lock},
};
use super::*;
use crate::{
    actors::event_hub::EventHub,
    ids::{EventSeq, MsgId, Seq, SidecarId},
    messages::{
        Reply,
        channels::{ChannelsRefused, Membership},
        dead_letter::{DeadLetter, Letters, RedeliverRefused, Redelivery},
        delivery::{CursorView, LastDelivery, Mode, Note, ObserveCursor, Rung},
        hold::{
            DeliveryMode, Flush, GetDeliveryMode, HoldDoors, ListPending, ModeConflict, ModeSet, Pending,
            SetDeliveryMode,
        },
        lifecycle::{ActorId, ActorKind},
        observe::{Event, FEED_CAP, Publish, RING_CAP},
        process::ListExits,
        pty::{
            AgentState, AnswerDialog, AnswerRefused, Input, Resize, Snapshot, TakeSnapshot, TermSize,
            WorkerView,
        },
        readiness::Readiness,
        release::Released,
        result::{ResultTaken, SubmitResult},
        send::{SendRefused, Sent},
        sidecar::{Call, Manifest, SidecarRefused},
        spawn::{AgentDoors, AgentPhase, AgentView, Found, SpawnRefused, SpawnSpec, Spawned},
    },
    supervision::{Child, Detail, Lifeline, Seat},
    testing::{name, within},
};

const KEY: &str = "br_0123456789abcdef";
const RESULT_TOKEN: &str = "ar_fedcba9876543210";
const SECRETS: [&str; 4] = ["br_0123456789abcdef", "rk_live_planted", "hunter2-env", "hunter2-arg"];

/// Every field that some client reads, and the code.
fn is_envelope(got: &Got, status: u16, code: &str) {
    let body = got.json();
    assert_eq!((got.status, body["code"].as_str()), (status, Some(code)), "{got:?}");
    assert_eq!(body["success"], false, "{got:?}");
    assert_eq!(body["statusCode"], status, "{got:?}");
    assert!(body["retryable"].is_boolean() && body["message"] == body["error"], "{got:?}");
    assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{got:?}");
    assert!(got.head.contains("x-request-id: "), "{got:?}");
}
