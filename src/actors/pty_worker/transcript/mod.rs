//! What the program itself writes down of its turns: the strongest proof that it took a message (spec/pty 8).
//!
//! It is looked at only while an injection waits for it, off the actor's thread, one look at a time.

mod files;
mod line;

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use tracing::warn;

use self::files::{Files, Found};
use super::PtyWorker;
use crate::{harness::Harness, ids::DeliveryId};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The transcript of one child.
pub(super) struct Transcript {
    files: Files,
    is_looking: bool,
    next_look: Instant,
}

impl Transcript {
    /// The transcript of a child that starts now with this environment, if its program keeps one.
    pub(super) fn new(
        harness: &'static Harness,
        env: impl Fn(&str) -> Option<PathBuf>,
        now: Instant,
    ) -> Option<Self> {
        let sessions = harness.session.recorded.as_ref();
        let files = Files::new(harness.records.as_ref()?, sessions, env, SystemTime::now());
        Some(Self { files, is_looking: false, next_look: now })
    }

    /// When to look next, unless a look is under way.
    pub(super) fn wake(&self) -> Option<Instant> {
        (!self.is_looking).then_some(self.next_look)
    }

    /// A look that was under way ended with the worker's life.
    pub(super) fn begin_next_life(&mut self) {
        self.is_looking = false;
    }
}

/// What a look has found.
pub(super) struct Looked {
    id: DeliveryId,
    /// The files, as far as they are read now; nothing when the look failed.
    files: Option<Files>,
    found: Option<Found>,
}

impl PtyWorker {
    /// Begins to look for the turn that the desk waits to see, if it is time.
    pub(super) fn look_at_transcript(
        &mut self,
        now: Instant,
    ) -> Option<impl Future<Output = Looked> + use<>> {
        let live = self.live.as_mut()?;
        let transcript = live.transcript.as_mut()?;
        transcript.wake().filter(|at| *at <= now)?;
        let (id, mark) = live.desk.awaits_record()?;
        transcript.is_looking = true;
        let mut files = transcript.files.clone();
        let look = tokio::task::spawn_blocking(move || {
            let found = files.look(&mark);
            (files, found)
        });
        Some(async move {
            match look.await {
                Ok((files, found)) => Looked { id, files: Some(files), found },
                Err(error) => {
                    warn!(%error, "a program's record cannot be looked at");
                    Looked { id, files: None, found: None }
                }
            }
        })
    }

    /// A look has ended.
    pub(super) fn looked_at_transcript(&mut self, looked: Looked, now: Instant) {
        let Some(live) = &mut self.live else { return };
        let Some(transcript) = &mut live.transcript else { return };
        transcript.is_looking = false;
        transcript.next_look = now + PAUSE;
        if let Some(files) = looked.files {
            transcript.files = files;
        }
        if let Some(Found { session }) = looked.found {
            live.desk.recorded(&looked.id);
            if let Some(session) = session {
                self.session_is(session);
            }
        }
    }
}
