//! The program's output on its way: into the screen, and to those who watch.

use std::{sync::atomic::Ordering, time::Instant};

use tracing::warn;

use super::{PtyWorker, live::DRAIN_LOOK, stream::Chunk};
use crate::{
    messages::observe::{Event, Publish},
    pty::ReadOutcome,
    supervision::now_ms,
};

/// Most reads, and most bytes, before other agents of this thread get their turn (spec/pty 3.3).
const READS: usize = 16;
const READ_BYTES: usize = 64 << 10;
/// One read returns at most about 4 KiB.
const READ_BUFFER: usize = 8 << 10;

impl PtyWorker {
    /// Reads what the terminal has, within the budget. Says whether there may be more.
    pub(super) fn read(&mut self, now: Instant) -> bool {
        let mut buffer = [0; READ_BUFFER];
        let mut bytes = 0;
        for _ in 0..READS {
            let Some(live) = &mut self.live else { return false };
            match live.terminal.try_read(&mut buffer) {
                Ok(ReadOutcome::Bytes(read)) => {
                    bytes += read;
                    let chunk = &buffer[..read];
                    live.take_output(chunk, now);
                    let end = live.desk.screen().offset();
                    self.stream_output(chunk, end, now);
                    if bytes >= READ_BYTES {
                        break;
                    }
                }
                Ok(ReadOutcome::Flushed) => live.desk.flushed(now),
                Ok(ReadOutcome::WouldBlock) => {
                    if let Some(drain) = &mut live.exit {
                        drain.quiet += 1;
                        drain.look_at = now + DRAIN_LOOK;
                    }
                    self.note_output(bytes);
                    return false;
                }
                Ok(ReadOutcome::Hangup) => {
                    live.hung_up = true;
                    self.note_output(bytes);
                    return false;
                }
                Err(error) => {
                    warn!(agent = %self.config.name, %error, "terminal cannot be read");
                    live.hung_up = true;
                    return false;
                }
            }
        }
        self.note_output(bytes);
        true
    }

    fn note_output(&self, bytes: usize) {
        if bytes > 0 {
            self.config.view.last_output_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    fn stream_output(&mut self, bytes: &[u8], end: u64, now: Instant) {
        if self.config.stream_wanted.load(Ordering::Relaxed) == 0 {
            return self.stream.forget();
        }
        let chunk = self.stream.push(bytes, end, now);
        self.publish(chunk);
    }

    pub(super) fn stream_due(&mut self, now: Instant) {
        if self.stream.wake().is_some_and(|at| at <= now) {
            let chunk = self.stream.due(now);
            self.publish(chunk);
        }
    }

    pub(super) fn publish(&self, chunk: Option<Chunk>) {
        if let Some(Chunk { text, offset }) = chunk {
            let name = self.config.name.clone();
            let event = Event::WorkerStream { name, stream: "stdout", chunk: text, offset };
            // Without a hub nobody watches.
            self.doors.publish.tell(Publish(event)).ok();
        }
    }
}
