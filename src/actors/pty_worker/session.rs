//! Which session the program is in: under the name that we gave it, or as its record tells.
//!
//! Either way it counts from the first turn of ours on. Before that a program may have kept nothing of it, and
//! would refuse to take it up again.

use tracing::info;

use super::PtyWorker;
use crate::{
    harness::{Harness, SessionStart},
    ids::SessionRef,
    messages::{process::KnownSession, pty::SessionKnown, spawn::SpawnSpec},
};

/// The session of one program.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    /// Begun under this name of ours, and nothing is known to be in it yet.
    named: Option<SessionRef>,
    /// The one that it is in.
    known: Option<SessionRef>,
}

impl Session {
    /// The session of a program that is about to start.
    pub(super) fn new(harness: &Harness, spec: &SpawnSpec) -> Self {
        let known = spec.session_ref.clone();
        let takes_name = known.is_none() && harness.takes_session_name(&spec.args);
        Self { named: takes_name.then(SessionRef::random), known }
    }

    /// What the program is told of it.
    pub(super) fn start(&self) -> SessionStart<'_> {
        match (&self.known, &self.named) {
            (Some(known), _) => SessionStart::Resumed(known.as_str()),
            (None, Some(named)) => SessionStart::Named(named.as_str()),
            (None, None) => SessionStart::Unnamed,
        }
    }
}

impl PtyWorker {
    /// A text of ours is in.
    pub(super) fn session_has_begun(&mut self) {
        if let Some(named) = self.live.as_mut().and_then(|live| live.session.named.take()) {
            self.session_is(named);
        }
    }

    /// The program is in this session.
    pub(super) fn session_is(&mut self, session: SessionRef) {
        let Some(live) = &mut self.live else { return };
        if live.session.known.as_ref() == Some(&session) {
            return;
        }
        live.session.known = Some(session.clone());
        info!(agent = %self.config.name, %session, "the program's session is known");
        let (harness, cwd) = (live.chosen.name.clone(), self.config.spec.cwd.clone());
        let session = KnownSession { id: session, harness, cwd };
        let (name, birth) = (self.config.name.clone(), self.config.birth);
        // A registry that is gone starts nothing again.
        self.doors.session.tell(SessionKnown { name, birth, session }).ok();
    }
}
