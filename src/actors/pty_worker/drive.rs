//! The future that serves one terminal for one life of the worker.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context as Task, Poll},
    time::{Duration, Instant},
};

use actix::{ActorFuture, Context};
use tokio::time::Sleep;

use super::{PtyWorker, ROUNDS, Turn, intake::Cleared, live::Live, transcript::Looked};
use crate::pty::{ExitStatus, Terminal};

type Wait<T> = Pin<Box<dyn Future<Output = T>>>;

/// See the module.
pub(super) struct Drive {
    terminal: Rc<Terminal>,
    readable: Option<Wait<io::Result<()>>>,
    drained: Option<Wait<io::Result<()>>>,
    exited: Option<Wait<ExitStatus>>,
    looked: Option<Wait<Looked>>,
    /// What the next message waits for.
    cleared: Option<Wait<Cleared>>,
    sleep: Pin<Box<Sleep>>,
}

impl Drive {
    pub(super) fn new(live: &Live) -> Self {
        let process = live.process.clone();
        Self {
            terminal: live.terminal.clone(),
            readable: None,
            drained: None,
            exited: Some(Box::pin(async move { process.exited().await })),
            looked: None,
            cleared: None,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    fn poll_readable(&mut self, task: &mut Task<'_>) -> bool {
        let terminal = &self.terminal;
        let wait = self.readable.get_or_insert_with(|| {
            let terminal = terminal.clone();
            Box::pin(async move { terminal.readable().await })
        });
        let ready = wait.as_mut().poll(task).is_ready();
        if ready {
            self.readable = None;
        }
        ready
    }

    fn poll_drained(&mut self, task: &mut Task<'_>) -> bool {
        let terminal = &self.terminal;
        let wait = self.drained.get_or_insert_with(|| {
            let terminal = terminal.clone();
            Box::pin(async move { terminal.drained().await })
        });
        let ready = wait.as_mut().poll(task).is_ready();
        if ready {
            self.drained = None;
        }
        ready
    }

    fn poll_exited(&mut self, task: &mut Task<'_>) -> Option<ExitStatus> {
        ended(&mut self.exited, task)
    }

    fn poll_looked(&mut self, task: &mut Task<'_>) -> Option<Looked> {
        ended(&mut self.looked, task)
    }

    /// Takes messages in until one must wait.
    fn poll_intake(&mut self, worker: &mut PtyWorker, now: Instant, task: &mut Task<'_>) {
        // Bounded: whatever is waited for belongs to one message, and those are bounded by the window.
        loop {
            if self.cleared.is_none() {
                self.cleared = worker.take_in(now).map(|wait| Box::pin(wait) as Wait<Cleared>);
            }
            let Some(cleared) = ended(&mut self.cleared, task) else { return };
            worker.cleared(cleared, now);
        }
    }
}

/// What a future has come to, which is then forgotten.
fn ended<T>(wait: &mut Option<Wait<T>>, task: &mut Task<'_>) -> Option<T> {
    match wait.as_mut()?.as_mut().poll(task) {
        Poll::Ready(outcome) => {
            *wait = None;
            Some(outcome)
        }
        Poll::Pending => None,
    }
}

impl ActorFuture<PtyWorker> for Drive {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        worker: &mut PtyWorker,
        ctx: &mut Context<PtyWorker>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        let drive = self.get_mut();
        // Each round does what became possible and registers for what comes next.
        for _ in 0..ROUNDS {
            let now = Instant::now();
            let mut again = false;
            if let Some(status) = drive.poll_exited(task) {
                worker.child_exited(status, now);
            }
            if let Some(looked) = drive.poll_looked(task) {
                worker.looked_at_transcript(looked, now);
            }
            drive.poll_intake(worker, now, task);
            let Some(live) = &worker.live else { return Poll::Ready(()) };
            let draining = live.exit.as_ref().is_some_and(|drain| !drain.swept && drain.look_at <= now);
            let mut more = false;
            let rests = live.exit.is_none() && live.pace.rests_until(now).is_some();
            if !live.hung_up && (draining || (!rests && drive.poll_readable(task))) {
                again = true;
                more = worker.read(now);
            }
            if worker.turn(now) == Turn::Sweep {
                worker.sweep(ctx);
                return Poll::Ready(());
            }
            if more {
                // The budget is used up: other agents of this thread come first.
                return after_others(task);
            }
            if drive.looked.is_none() {
                drive.looked = worker.look_at_transcript(now).map(|look| Box::pin(look) as Wait<Looked>);
                again |= drive.looked.is_some();
            }
            let Some(live) = &mut worker.live else { return Poll::Ready(()) };
            if live.exit.is_none() && live.awaits_reader(now) && drive.poll_drained(task) {
                live.hinted(now);
                again = true;
            }
            if let Some(at) = worker.wake(now) {
                if at <= now {
                    again = true;
                } else {
                    drive.sleep.as_mut().reset(at.into());
                    again |= drive.sleep.as_mut().poll(task).is_ready();
                }
            }
            if !again {
                return Poll::Pending;
            }
        }
        after_others(task)
    }
}

/// To be polled again once whatever else can happen on this thread has happened: a task that only wakes itself would
/// come dozens of times before those that other threads and the kernel have woken.
fn after_others(task: &mut Task<'_>) -> Poll<()> {
    std::pin::pin!(tokio::task::yield_now()).poll(task)
}
