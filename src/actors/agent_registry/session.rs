//! The sessions of the programs: which one each is in, where that is kept, and who takes one up again.
//!
//! ```text
//! worker ─SessionKnown─▶ entry ─▶ AgentLive in the journal, the inventory, the view, the record of the end
//!                          │ policy `resume`
//!                          ├─▶ the agent's next program
//!                          └─▶ a spawn of the name after a broker that ended below its agents
//! ```

use actix::{Context, Handler};
use tracing::info;

use super::{AgentRegistry, Entry};
use crate::{
    harness::Harness,
    ids::SessionRef,
    messages::{
        process::{KnownSession, RestartWhen},
        pty::SessionKnown,
        spawn::SpawnSpec,
    },
    store::{LiveAgent, Record},
};

impl Handler<SessionKnown> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, known: SessionKnown, _: &mut Context<Self>) {
        let _turn = self.life.turn();
        let SessionKnown { name, birth, session } = known;
        let Some(entry) = self.of_birth(&name, birth) else { return };
        entry.session = Some(session);
        // While it rests its last record stands, and with the next program it is written again.
        if let Some(live) = entry.live_agent() {
            self.journal.append(Record::AgentLive(live));
        }
        self.publish_inventory();
    }
}

impl AgentRegistry {
    /// A spawn that goes on with what the last agent of its name was in when the broker ended below it.
    pub(super) fn with_left_session(&self, mut spec: SpawnSpec) -> SpawnSpec {
        if spec.session_ref.is_none()
            && spec.process.restart.when == RestartWhen::Resume
            && let Some(left) = self.journal.left_session(&spec.name)
            && is_for(&left, &spec)
        {
            info!(agent = %spec.name, session = %left.id, "taking up the session that the last broker left");
            spec.session_ref = Some(left.id);
        }
        spec
    }
}

/// True when the program and the place are those of the session.
fn is_for(session: &KnownSession, spec: &SpawnSpec) -> bool {
    let harness = match &spec.harness {
        Some(name) => Harness::by_name(name),
        None => Harness::for_program(&spec.program),
    };
    harness.is_some_and(|harness| harness.name == session.harness) && session.cwd == spec.cwd
}

impl Entry {
    /// The session that it is in, was in, or is to take up.
    pub(super) fn session_ref(&self) -> Option<&SessionRef> {
        self.session.as_ref().map(|session| &session.id).or(self.spec.session_ref.as_ref())
    }

    /// What its next program is told: by the policy, to take up the session of the last one.
    pub(super) fn spec_of_next_program(&self) -> SpawnSpec {
        let resumes = self.spec.process.restart.when == RestartWhen::Resume;
        let session = if resumes { self.session_ref() } else { self.spec.session_ref.as_ref() };
        SpawnSpec { session_ref: session.cloned(), ..self.spec.clone() }
    }

    /// A program lives that is not in the session of the one before it.
    pub(super) fn note_spawned_session(&mut self, harness: &str) {
        let id = self.spec_of_next_program().session_ref;
        let (harness, cwd) = (harness.to_owned(), self.spec.cwd.clone());
        self.session = id.map(|id| KnownSession { id, harness, cwd });
    }

    /// What the journal keeps of it while its process runs.
    pub(super) fn live_agent(&self) -> Option<LiveAgent> {
        let (registration, started) = (self.registration.as_ref()?, self.started.as_ref()?);
        Some(LiveAgent {
            agent: registration.agent_id.clone(),
            name: self.spec.name.clone(),
            spawn: started.spawn.clone(),
            pid: started.pid,
            started: started.at_tick,
            keep_daemons: self.spec.process.keep_daemons,
            session: self.session.clone(),
        })
    }
}
