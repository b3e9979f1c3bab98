//! What can be seen of an actor from outside while it runs, is stuck, parked or dead.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{
    ids::Generation,
    messages::{
        delivery::CursorView,
        lifecycle::{ActorId, ExitReason},
        pty::{WorkerDetail, WorkerView},
    },
};

/// Restarts remembered per actor.
const RESTARTS_KEPT: usize = 20;

/// One actor's instrument panel. Written by the actor (through its `Lifeline`), its senders and its runner;
/// read by anybody. Never holds a secret or message text.
#[derive(Debug)]
pub struct Probe {
    id: ActorId,
    generation: AtomicU64,
    handled: AtomicU64,
    busy_us: AtomicU64,
    last_activity_ms: AtomicU64,
    faults: AtomicU8,
    mail: Mutex<VecDeque<Instant>>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    state: String,
    last_error: Option<String>,
    restart_count: u64,
    restarts: VecDeque<Restart>,
    detail: Detail,
}

/// One restart, for the debug page.
#[derive(Clone, Debug, Serialize)]
pub struct Restart {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Why the actor ended.
    pub reason: String,
    /// What was decided.
    pub decision: String,
}

/// The numbers that only some kinds of actor have.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(untagged)]
pub enum Detail {
    /// Nothing beyond the common ones.
    #[default]
    None,
    /// A delivery cursor.
    Cursor(CursorView),
    /// A PTY worker.
    Worker(#[serde(serialize_with = "worker_view")] Arc<WorkerView>),
    /// Named numbers and words, for the others.
    Facts(Vec<(&'static str, String)>),
}

/// Where a deliberate panic can be placed (`RELAY_BROKER_FAULTS=1` only; see docs/operations.md). Several may
/// wait at once: a panic in a handler is the only way into `restarting` of most actors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FaultPoint {
    /// In the next handler.
    Handler = 1,
    /// In the next `started`.
    Started = 2,
    /// In the next `restarting`.
    Restarting = 4,
    /// In the next `stopped`.
    Stopped = 8,
}

/// A probe as JSON.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeView {
    /// Which actor.
    pub id: ActorId,
    /// Its kind.
    pub kind: &'static str,
    /// What it does, in its own words.
    pub state: String,
    /// Its life: 0 is the first.
    pub generation: u64,
    /// Restarts since start.
    pub restart_count: u64,
    /// The last restarts, newest last.
    pub restarts: Vec<Restart>,
    /// Messages waiting.
    pub mailbox_depth: usize,
    /// Age of the oldest one waiting, in milliseconds.
    pub mailbox_oldest_ms: u64,
    /// The last error.
    pub last_error: Option<String>,
    /// Messages handled.
    pub handled: u64,
    /// Time spent handling them, in microseconds.
    pub busy_us: u64,
    /// Milliseconds since the Unix epoch of the last turn; 0 before any.
    pub last_activity_ms: u64,
    /// What only this kind has.
    pub detail: Detail,
}

impl Probe {
    /// A fresh probe.
    pub fn new(id: ActorId) -> Arc<Self> {
        Arc::new(Self {
            id,
            generation: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            busy_us: AtomicU64::new(0),
            last_activity_ms: AtomicU64::new(0),
            faults: AtomicU8::new(0),
            mail: Mutex::default(),
            told: Mutex::new(Told { state: "starting".to_owned(), ..Told::default() }),
        })
    }

    /// Whose probe.
    pub fn id(&self) -> &ActorId {
        &self.id
    }

    /// The actor's life: 0 is the first.
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// Everything, for the debug page.
    pub fn view(&self) -> ProbeView {
        let (mailbox_depth, oldest) = {
            let mail = lock(&self.mail);
            (mail.len(), mail.front().copied())
        };
        let told = lock(&self.told);
        ProbeView {
            id: self.id.clone(),
            kind: self.id.kind.as_str(),
            state: told.state.clone(),
            generation: self.generation().0,
            restart_count: told.restart_count,
            restarts: told.restarts.iter().cloned().collect(),
            mailbox_depth,
            mailbox_oldest_ms: oldest.map_or(0, |at| at.elapsed().as_millis() as u64),
            last_error: told.last_error.clone(),
            handled: self.handled.load(Ordering::Relaxed),
            busy_us: self.busy_us.load(Ordering::Relaxed),
            last_activity_ms: self.last_activity_ms.load(Ordering::Relaxed),
            detail: told.detail.clone(),
        }
    }

    /// Sets what the actor does, in a word or two.
    pub fn set_state(&self, state: impl Into<String>) {
        lock(&self.told).state = state.into();
    }

    /// Records a failure that did not end the actor.
    pub fn set_error(&self, error: impl Into<String>) {
        lock(&self.told).last_error = Some(error.into());
    }

    /// Replaces what only this kind has.
    pub fn set_detail(&self, detail: Detail) {
        lock(&self.told).detail = detail;
    }

    /// Places a deliberate panic.
    pub fn arm(&self, point: FaultPoint) {
        self.faults.fetch_or(point as u8, Ordering::Release);
    }

    /// Panics when one was placed here.
    pub(super) fn pass(&self, point: FaultPoint) {
        let here = point as u8;
        // Read first: without faults this is all that a turn pays.
        if self.faults.load(Ordering::Relaxed) & here != 0
            && self.faults.fetch_and(!here, Ordering::AcqRel) & here != 0
        {
            panic!("deliberate fault in {point:?} of {}", self.id);
        }
    }

    /// A message was put into the mailbox.
    pub(super) fn posted(&self) {
        lock(&self.mail).push_back(Instant::now());
    }

    /// A message was taken out of it.
    pub(super) fn taken(&self) {
        lock(&self.mail).pop_front();
    }

    /// A turn took this long.
    pub(super) fn turned(&self, began: Instant) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        self.busy_us.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.last_activity_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// A life ended.
    pub(super) fn ended(&self, reason: &ExitReason, decision: String) {
        let mut told = lock(&self.told);
        if *reason != ExitReason::Finished {
            told.last_error = Some(reason.to_string());
        }
        told.restarts.push_back(Restart { at_ms: now_ms(), reason: reason.to_string(), decision });
        if told.restarts.len() > RESTARTS_KEPT {
            told.restarts.pop_front();
        }
    }

    /// The next life begins.
    pub(super) fn reborn(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        lock(&self.told).restart_count += 1;
    }
}

fn worker_view<S: serde::Serializer>(view: &WorkerView, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown {
        pid: u32,
        output_bytes: u64,
        last_output_ms: u64,
        was_ready: bool,
        #[serde(flatten)]
        detail: WorkerDetail,
    }
    Shown {
        pid: view.pid.load(Ordering::Relaxed),
        output_bytes: view.output_bytes.load(Ordering::Relaxed),
        last_output_ms: view.last_output_ms.load(Ordering::Relaxed),
        was_ready: view.was_ready.load(Ordering::Relaxed),
        detail: lock(&view.detail).clone(),
    }
    .serialize(serializer)
}

/// Milliseconds since the Unix epoch: a stamp, by which nothing but the age of a record is ever decided.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Takes a lock whether or not its last holder panicked: only for what a panic cannot leave half written in a way
/// that matters.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
