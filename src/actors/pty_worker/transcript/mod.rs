//! What the program itself writes down of its turns: the strongest proof that it took a message (spec/pty 8).
//!
//! It is looked at only while an injection waits for it, off the actor's thread, one look at a time.

mod database;
mod files;
mod line;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use tracing::warn;

use self::{database::Database, files::Files};
use super::PtyWorker;
use crate::{
    harness::Harness,
    ids::{DeliveryId, SessionRef},
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// The clock of a file system may be behind that of the process by a tick.
const SLACK: Duration = Duration::from_secs(1);

/// What the program writes, by its kind.
#[derive(Clone, Debug)]
enum Source {
    Files(Files),
    Database(Database),
}

/// A turn that was looked for.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The session that it is in, where the record says so.
    session: Option<SessionRef>,
}

impl Source {
    /// Looks once for the turn of the message with this mark. Blocks for as long as the disk takes.
    fn look(&mut self, mark: &str) -> Option<Found> {
        match self {
            Self::Files(files) => files.look(mark),
            Self::Database(database) => database.look(mark),
        }
    }
}

/// The transcript of one child.
pub(super) struct Transcript {
    source: Source,
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
        let records = harness.records.as_ref()?;
        let dirs: Vec<_> = records.dirs.iter().filter_map(|dir| expand(dir, &env)).collect();
        let cwds = names_of(&env("PWD").unwrap_or_default());
        let clock = SystemTime::now();
        // What was not touched since is of other children.
        let since = clock.checked_sub(SLACK).unwrap_or(clock);
        let source = match &records.query {
            None => Source::Files(Files::new(records, harness.session.recorded.as_ref(), cwds, dirs, since)),
            Some(query) => Source::Database(Database::new(dirs, records, query, since, cwds)),
        };
        Some(Self { source, is_looking: false, next_look: now })
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
    /// What was looked at, as far as it is read now; nothing when the look failed.
    source: Option<Source>,
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
        let mut source = transcript.source.clone();
        let look = tokio::task::spawn_blocking(move || {
            let found = source.look(&mark);
            (source, found)
        });
        Some(async move {
            match look.await {
                Ok((source, found)) => Looked { id, source: Some(source), found },
                Err(error) => {
                    warn!(%error, "a program's record cannot be looked at");
                    Looked { id, source: None, found: None }
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
        if let Some(source) = looked.source {
            transcript.source = source;
        }
        if let Some(Found { session }) = looked.found {
            live.desk.recorded(&looked.id);
            if let Some(session) = session {
                self.session_is(session);
            }
        }
    }
}

/// A directory of the rules for a child with this environment: `~` and `$NAME` at the start are its own. `None`
/// when it has no such variable, or one that is not an absolute path.
fn expand(dir: &str, env: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let (first, rest) = dir.split_once('/').unwrap_or((dir, ""));
    let name = if first == "~" { "HOME" } else { first.strip_prefix('$')? };
    let base = env(name).filter(|base| base.is_absolute())?;
    Some(base.join(rest))
}

/// A directory by the name that its child knows it by, and by that without links, which its program may know.
fn names_of(dir: &Path) -> Vec<String> {
    let real = dir.canonicalize().ok();
    let names = [Some(dir), real.as_deref()].into_iter().flatten();
    names.filter_map(|name| name.to_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_that_of_the_childs_own_environment() {
        let env = |name: &str| match name {
            "HOME" => Some(PathBuf::from("/home/a")),
            "TOOL_HOME" => Some(PathBuf::from("relative")),
            _ => None,
        };
        assert_eq!(expand("~/.tool/x", env), Some("/home/a/.tool/x".into()));
        assert_eq!(expand("$HOME", env), Some("/home/a".into()));
        for none in ["$TOOL_HOME/x", "$OTHER/x", "/etc", "x"] {
            assert_eq!(expand(none, env), None, "{none}");
        }
    }
}
