//! The core thread: owner of the store and of the live links, and the only one that changes either.
//!
//! Work arrives as jobs. All that have arrived by the time one commit is done form the next batch: one
//! transaction, at most one fsync, each job in a savepoint of its own so that one refusal undoes one job. Answers
//! and frames leave only after the commit, in the order of the jobs; then every link with room is fed from
//! the mailboxes. A panic inside a job undoes that job alone.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{self, RecvTimeoutError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tracing::{error, warn};

use super::{
    EngineConfig, EngineError, Limits,
    error::Failure,
    hub::{Effect, Hub},
    store::Store,
};

/// Most jobs in one transaction: bounds how long the first of them waits for its answer.
const BATCH: usize = 256;

/// What the core thread owns.
pub(super) struct Core {
    pub(super) store: Store,
    pub(super) hub: Hub,
    pub(super) limits: Limits,
    /// Agents whose mailbox was found full since the last sweep: each is logged once.
    pub(super) full: HashSet<i64>,
    effects: Vec<Effect>,
}

type Completion = Box<dyn FnOnce(bool) + Send>;

/// May the commit of a job outlive the process but not a power cut?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Answered only when it is on the disk.
    Disk,
    /// Lost with the power: the other side repeats it (acks) or it ages anyway (heartbeats). Saves the fsync.
    Process,
}

enum Work {
    Job(Durability, Box<dyn FnOnce(&mut Core) -> Completion + Send>),
    /// A link has room again: the turn itself feeds it.
    Feed,
    Finish,
}

/// The way to the core thread, for the server's threads.
#[derive(Clone)]
pub(super) struct CoreHandle {
    work: mpsc::Sender<Work>,
}

impl CoreHandle {
    /// Runs `job` in the next batch and answers once it is on disk.
    ///
    /// # Errors
    /// The job's own failure, or [`Failure::Aborted`] when the commit failed or the engine is stopping.
    pub(super) async fn run<T, F>(&self, job: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut Core) -> Result<T, Failure> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.post(Durability::Disk, job, move |outcome| {
            // A client that went away wants no answer.
            answer.send(outcome).ok();
        });
        answered.await.unwrap_or(Err(Failure::Aborted("the engine is stopping")))
    }

    /// Runs `job` in the next batch; `done` is called on the core thread with what became of it.
    pub(super) fn post<T, F, D>(&self, durability: Durability, job: F, done: D)
    where
        T: Send + 'static,
        F: FnOnce(&mut Core) -> Result<T, Failure> + Send + 'static,
        D: FnOnce(Result<T, Failure>) + Send + 'static,
    {
        let job: Box<dyn FnOnce(&mut Core) -> Completion + Send> = Box::new(move |core| {
            let outcome = core.attempt(job);
            Box::new(move |committed| {
                done(if committed { outcome } else { Err(Failure::Aborted("the commit failed")) });
            })
        });
        // A stopped core drops the job and with it `done`, which is how the waiter learns of it.
        self.work.send(Work::Job(durability, job)).ok();
    }

    /// Says that a link which had run full can take frames again.
    pub(super) fn feed(&self) {
        self.work.send(Work::Feed).ok(); // a stopped core feeds nobody
    }

    /// Closes every node socket.
    pub(super) fn close_links(&self) {
        self.post(
            Durability::Process,
            |core| {
                core.effect(Effect::CloseAll);
                Ok(())
            },
            |_: Result<(), Failure>| {},
        );
    }

    /// Ends the thread after the work already posted.
    pub(super) fn finish(&self) {
        self.work.send(Work::Finish).ok(); // already finished is what we want
    }
}

/// Opens the store and starts the core thread.
pub(super) fn start(config: &EngineConfig) -> Result<(CoreHandle, JoinHandle<()>), EngineError> {
    let store = Store::open(&config.database)?;
    let (work, inbox) = mpsc::channel();
    let mut core = Core {
        store,
        hub: Hub::default(),
        limits: config.limits.clone(),
        full: HashSet::new(),
        effects: Vec::new(),
    };
    let thread = std::thread::Builder::new()
        .name("engine-core".to_owned())
        .spawn(move || core.live(&inbox))
        .map_err(EngineError::Thread)?;
    Ok((CoreHandle { work }, thread))
}

impl Core {
    /// Notes what must happen outside once the batch is on disk.
    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn live(&mut self, inbox: &mpsc::Receiver<Work>) {
        let mut next_sweep = Instant::now();
        loop {
            let patience = next_sweep.saturating_duration_since(Instant::now());
            let mut batch = Vec::new();
            match inbox.recv_timeout(patience) {
                Ok(work) => batch.push(work),
                Err(RecvTimeoutError::Timeout) => {
                    next_sweep = Instant::now() + self.limits.sweep.max(Duration::from_millis(10));
                    let sweep = |core: &mut Self| -> Completion {
                        if let Err(failure) = core.attempt(Self::sweep) {
                            error!(%failure, "the engine's sweep failed");
                        }
                        Box::new(|_| {})
                    };
                    batch.push(Work::Job(Durability::Process, Box::new(sweep)));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            batch.extend(inbox.try_iter().take(BATCH - 1));
            if !self.turn(batch) {
                break;
            }
        }
        self.store.close();
    }

    /// One batch; false when it held the order to finish.
    fn turn(&mut self, batch: Vec<Work>) -> bool {
        let mut go_on = true;
        let mut completions = Vec::with_capacity(batch.len());
        let on_disk = batch.iter().any(|work| matches!(work, Work::Job(Durability::Disk, _)));
        let mut begun = self.store.begin(on_disk);
        if begun.is_ok() {
            begun = self.mark_handed();
        }
        for work in batch {
            match work {
                Work::Job(_, job) if begun.is_ok() => completions.push(job(self)),
                Work::Job(..) | Work::Feed => {} // a dropped job tells its waiter
                Work::Finish => go_on = false,
            }
        }
        let committed = begun.and_then(|()| self.store.commit());
        if let Err(failure) = &committed {
            error!(%failure, "the engine's commit failed");
            self.store.abandon();
        }
        let effects = std::mem::take(&mut self.effects);
        if committed.is_ok() {
            for effect in effects {
                self.hub.apply(effect);
            }
            if let Err(failure) = self.hub.feed(&self.store) {
                error!(%failure, "reading the mailboxes failed");
            }
        }
        for complete in completions {
            complete(committed.is_ok());
        }
        go_on
    }

    /// Runs one job in its savepoint: what a refused, failed or panicked job had written is undone, and
    /// what it wanted to send is forgotten.
    pub(super) fn attempt<T>(
        &mut self,
        job: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let noted = self.effects.len();
        self.store.savepoint()?;
        let outcome = catch_unwind(AssertUnwindSafe(|| job(self))).unwrap_or_else(|_| {
            warn!("a job of the engine panicked and was undone");
            Err(Failure::Aborted("a bug in the engine"))
        });
        if outcome.is_ok() {
            self.store.release()?;
        } else {
            self.effects.truncate(noted);
            self.store.undo()?;
        }
        outcome
    }

    /// Writes down which rows have been handed to a socket since the last batch. It rides on the next
    /// transaction, because a lost mark only means that a row still counts as queued.
    fn mark_handed(&mut self) -> rusqlite::Result<()> {
        for handed in self.hub.take_handed() {
            self.store.mark_delivered(handed.agent, handed.from, handed.to)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, CoreHandle, JoinHandle<()>) {
        let dir = tempfile::tempdir().unwrap();
        let (core, thread) = start(&EngineConfig::new(dir.path().join("engine.db"))).unwrap();
        (dir, core, thread)
    }

    fn workspace(core: &mut Core, name: &str) -> Result<(), Failure> {
        core.store.insert_workspace(name, name).map(drop).map_err(Failure::from)
    }

    async fn exists(core: &CoreHandle, name: &'static str) -> bool {
        core.run(move |core| Ok(core.store.workspace_by_name(name)?.is_some())).await.unwrap()
    }

    #[actix::test]
    async fn a_job_that_fails_or_panics_undoes_itself_and_spares_the_others_of_its_batch() {
        let (_dir, core, thread) = open();
        let (gate, opened) = mpsc::channel::<()>();
        // The first job holds the thread, so that the other three share a batch.
        core.post(Durability::Disk, move |_| Ok(opened.recv().is_ok()), |_| {});
        let before = core.run(|core| workspace(core, "before"));
        let refused = core.run(|core| {
            workspace(core, "refused")?;
            Err::<(), _>(Failure::conflict("no", "no"))
        });
        let panicked = core.run(|core| -> Result<(), Failure> {
            workspace(core, "panicked")?;
            panic!("on purpose")
        });
        let after = core.run(|core| workspace(core, "after"));
        // Polled in this order: the gate opens when all four are waiting behind it.
        let open = async { gate.send(()).unwrap() };
        let (before, refused, panicked, after, ()) =
            futures_util::future::join5(before, refused, panicked, after, open).await;
        assert!(before.is_ok() && after.is_ok());
        assert!(matches!(refused, Err(Failure::Refused(_))));
        assert!(matches!(panicked, Err(Failure::Aborted(_))));
        assert!(exists(&core, "before").await && exists(&core, "after").await);
        assert!(!exists(&core, "refused").await && !exists(&core, "panicked").await);
        core.finish();
        thread.join().unwrap();
    }

    #[actix::test]
    async fn a_finished_core_answers_what_came_before_and_refuses_what_comes_after() {
        let (_dir, core, thread) = open();
        let (answer, answered) = mpsc::channel();
        core.post(
            Durability::Disk,
            |core| workspace(core, "last"),
            move |outcome| {
                answer.send(outcome.is_ok()).unwrap();
            },
        );
        core.finish();
        thread.join().unwrap();
        assert!(answered.recv().unwrap());
        assert!(matches!(core.run(|_| Ok(())).await, Err(Failure::Aborted(_))));
    }
}
