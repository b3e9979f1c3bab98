//! The program's output on its way: into the screen, to those who watch, and into the recording.

use std::{
    sync::atomic::Ordering,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use tracing::warn;

use super::{
    PtyWorker,
    live::DRAIN_LOOK,
    record::Recording,
    stream::{Chunk, PAUSE, Stream},
};
use crate::{
    messages::{allowance::Allowance, observe::Output, pty::TermSize},
    pty::{ExitStatus, ReadOutcome},
    screen::Screen,
    supervision::now_ms,
};

/// Most reads, and most bytes, before other agents of this thread get their turn (spec/pty 3.3).
const READS: usize = 16;
const READ_BYTES: usize = 16 << 10;
/// One read returns at most about 4 KiB.
const READ_BUFFER: usize = 8 << 10;
/// Bytes of output that may be on their way to the hub. What does not fit, those who watch do not see.
const UNSEEN_MAX: usize = 256 << 10;

/// Where output goes beside the screen.
#[derive(Debug)]
pub(super) struct Outlet {
    stream: Stream,
    recording: Option<Recording>,
    allowance: Allowance,
    /// Those who watch have missed something since then, and have to be told.
    missed: Option<Instant>,
}

impl Default for Outlet {
    fn default() -> Self {
        let allowance = Allowance::new(UNSEEN_MAX);
        Self { stream: Stream::default(), recording: None, allowance, missed: None }
    }
}

impl Outlet {
    /// When something is due although nothing happens.
    pub(super) fn wake(&self) -> Option<Instant> {
        let missed = self.missed.map(|since| since + PAUSE);
        self.stream.wake().into_iter().chain(missed).min()
    }

    /// The next life goes on from what the screen shows.
    pub(super) fn begin_next_life(&mut self, screen: Option<&Screen>) {
        self.stream.begin_at(screen.map_or(0, Screen::settled));
    }
}

impl PtyWorker {
    /// Reads what the terminal has, within the budget. Says whether there may be more.
    pub(super) fn read(&mut self, now: Instant) -> bool {
        let mut buffer = [0; READ_BUFFER];
        let mut bytes = 0;
        if let Some(live) = &mut self.live {
            live.look_first(now);
        }
        for _ in 0..READS {
            let Some(live) = &mut self.live else { return false };
            match live.terminal.try_read(&mut buffer) {
                Ok(ReadOutcome::Bytes(read)) => {
                    bytes += read;
                    let chunk = &buffer[..read];
                    live.take_output(chunk, now);
                    let settled = live.desk.screen().settled();
                    self.stream_output(chunk, settled, now);
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

    fn note_output(&mut self, bytes: usize) {
        if bytes > 0 {
            if let Some(live) = &mut self.live {
                // A rest begins when the portion is worked off.
                live.pace.read(bytes, Instant::now());
            }
            self.config.view.last_output_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    fn is_watched(&self) -> bool {
        self.config.stream_wanted.load(Ordering::Relaxed) > 0
    }

    fn stream_output(&mut self, bytes: &[u8], settled: u64, now: Instant) {
        if self.outlet.recording.is_none() && !self.is_watched() {
            return self.outlet.stream.skip(bytes, settled);
        }
        let chunk = self.outlet.stream.push(bytes, settled, now);
        self.pass_on(chunk, now);
    }

    pub(super) fn stream_due(&mut self, now: Instant) {
        if self.outlet.wake().is_some_and(|at| at <= now) {
            let chunk = self.outlet.stream.due(now);
            self.pass_on(chunk, now);
            self.tell_missed(now);
        }
    }

    /// Hands out everything that the screen shows: what comes later continues it.
    pub(super) fn stream_settle(&mut self, now: Instant) {
        let chunk = self.outlet.stream.cut(now);
        self.pass_on(chunk, now);
    }

    /// Hands out the rest, and ends the recording.
    pub(super) fn stream_end(&mut self, status: ExitStatus, now: Instant) {
        let last = self.outlet.stream.finish();
        self.pass_on(last, now);
        if let Some(recording) = &mut self.outlet.recording {
            self.config.files.append(recording.ended(status, now));
        }
        self.outlet.recording = None;
        self.config.files.end();
    }

    /// Begins the recording of a program that starts now.
    pub(super) fn record(&mut self, now: Instant) {
        if self.config.files.records() {
            let mut recording = Recording::new(now);
            self.begin_file(&mut recording, self.config.spec.size);
            self.outlet.recording = Some(recording);
        }
    }

    /// Notes a new size.
    pub(super) fn record_size(&mut self, size: TermSize, now: Instant) {
        // What was shown before it was shown in the old size.
        self.stream_settle(now);
        if let Some(recording) = &mut self.outlet.recording
            && !self.config.files.append(recording.resized(size, now))
        {
            recording.missed();
        }
    }

    fn begin_file(&self, recording: &mut Recording, size: TermSize) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.config.files.begin(recording.header(self.config.name.as_str(), size, at));
    }

    fn pass_on(&mut self, chunk: Option<Chunk>, now: Instant) {
        let Some(chunk) = chunk else { return };
        self.write_down(&chunk.text, now);
        if !self.is_watched() {
            self.outlet.missed = None;
        } else if self.outlet.missed.is_some() || !self.publish(chunk) {
            self.outlet.missed.get_or_insert(now);
        }
    }

    fn write_down(&mut self, text: &str, now: Instant) {
        let Some(mut recording) = self.outlet.recording.take() else { return };
        if !self.config.files.append(recording.output(text, now)) {
            recording.missed();
        }
        if recording.is_full()
            && let Some(live) = &self.live
        {
            let screen = live.desk.screen();
            self.begin_file(&mut recording, screen.size());
            let picture = recording.output(&String::from_utf8_lossy(&screen.ansi()), now);
            if !self.config.files.append(picture) {
                recording.missed();
            }
        }
        self.outlet.recording = Some(recording);
    }

    /// Hands a chunk to the hub, unless too much is on its way there.
    fn publish(&self, Chunk { text, start, end }: Chunk) -> bool {
        let Some(allowed) = self.outlet.allowance.take(text.len()) else { return false };
        let name = self.config.name.clone();
        // Without a hub nobody watches.
        self.doors.output.tell(Output { name, text, start, end, allowed }).ok();
        true
    }

    /// Those who watch see by where it begins that something is missing before it.
    fn tell_missed(&mut self, now: Instant) {
        if self.outlet.missed.is_some_and(|since| since + PAUSE <= now) {
            let at = self.live.as_ref().map_or(0, |live| live.desk.screen().settled());
            let mark = Chunk { text: String::new(), start: at, end: at };
            self.outlet.missed = if self.publish(mark) { None } else { Some(now) };
        }
    }
}
