//! The recording of an agent's output: asciicast v3, a line per event, intervals in seconds.
//!
//! Every file of a recording can be played by itself: a new one begins with the screen as it is. Their events
//! can also be read one file after the other, since intervals go on from one to the next.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::{messages::pty::TermSize, pty::ExitStatus};

/// A file is followed by a new one at this size (spec/pty 4.4).
const FILE_MAX: u64 = 10 << 20;

/// What is known of the recording under way.
#[derive(Debug)]
pub(super) struct Recording {
    began: Instant,
    /// Time of the last event, in whole milliseconds since the beginning, so that no error adds up.
    last: Duration,
    /// Bytes in the file.
    size: u64,
    /// Events that the disk did not take.
    missed: u64,
}

#[derive(Serialize)]
struct Header<'a> {
    version: u8,
    term: Term,
    /// Seconds since the Unix epoch.
    timestamp: u64,
    title: &'a str,
}

#[derive(Serialize)]
struct Term {
    cols: u16,
    rows: u16,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl Recording {
    /// A recording that begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, last: Duration::ZERO, size: 0, missed: 0 }
    }

    /// The first line of a file.
    pub(super) fn header(&mut self, title: &str, size: TermSize, timestamp: u64) -> Vec<u8> {
        let TermSize { rows, cols } = size;
        let term = Term { cols, rows, kind: "xterm-256color" };
        let line = line(&Header { version: 3, term, timestamp, title });
        self.size = line.len() as u64;
        line
    }

    /// True when it is time for a new file.
    pub(super) fn is_full(&self) -> bool {
        self.size >= FILE_MAX
    }

    /// Output.
    pub(super) fn output(&mut self, text: &str, now: Instant) -> Vec<u8> {
        self.event('o', text, now)
    }

    /// A new size.
    pub(super) fn resized(&mut self, size: TermSize, now: Instant) -> Vec<u8> {
        self.event('r', &format!("{}x{}", size.cols, size.rows), now)
    }

    /// The end of the program, as a shell counts it: the format wants a number.
    pub(super) fn ended(&mut self, status: ExitStatus, now: Instant) -> Vec<u8> {
        let number = match status {
            ExitStatus::Exited(code) => code,
            ExitStatus::Killed { signal, .. } => 128 + signal,
            ExitStatus::Lost => return Vec::new(),
        };
        self.event('x', &number.to_string(), now)
    }

    /// The disk did not take the last event.
    pub(super) fn missed(&mut self) {
        self.missed += 1;
    }

    fn event(&mut self, code: char, data: &str, now: Instant) -> Vec<u8> {
        let mut lines = Vec::new();
        let missed = std::mem::take(&mut self.missed);
        if missed > 0 {
            lines = line(&(self.interval(now), 'm', format!("{missed} events were not recorded")));
        }
        lines.extend(line(&(self.interval(now), code, data)));
        self.size += lines.len() as u64;
        lines
    }

    fn interval(&mut self, now: Instant) -> f64 {
        let at = Duration::from_millis(millis(now.saturating_duration_since(self.began)));
        let interval = at.saturating_sub(self.last);
        self.last = at;
        interval.as_secs_f64()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn line(value: &impl Serialize) -> Vec<u8> {
    // Strings and numbers always serialise.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: Vec<u8>) -> String {
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn a_recording_is_an_asciicast() {
        let began = Instant::now();
        let after = |ms| began + Duration::from_millis(ms);
        let mut recording = Recording::new(began);
        assert_eq!(
            text(recording.header("bob", TermSize { rows: 40, cols: 120 }, 1_700_000_000)),
            "{\"version\":3,\"term\":{\"cols\":120,\"rows\":40,\"type\":\"xterm-256color\"},\
             \"timestamp\":1700000000,\"title\":\"bob\"}\n"
        );
        assert_eq!(
            text(recording.output("hi\u{1b}[m\r\n", after(250))),
            "[0.25,\"o\",\"hi\\u001b[m\\r\\n\"]\n"
        );
        let size = TermSize { rows: 30, cols: 90 };
        assert_eq!(text(recording.resized(size, after(1250))), "[1.0,\"r\",\"90x30\"]\n");
        recording.missed();
        recording.missed();
        assert_eq!(
            text(recording.ended(ExitStatus::Exited(0), after(1251))),
            "[0.001,\"m\",\"2 events were not recorded\"]\n[0.0,\"x\",\"0\"]\n"
        );
        let killed = ExitStatus::Killed { signal: 9, core_dumped: false };
        assert_eq!(text(recording.ended(killed, after(1251))), "[0.0,\"x\",\"137\"]\n");
    }

    #[test]
    fn a_file_is_full_at_its_limit_and_the_next_one_is_not() {
        let now = Instant::now();
        let mut recording = Recording::new(now);
        let mut files = 0;
        let mut written = 0;
        while files < 2 {
            written += recording.output(&"x".repeat(4000), now).len() as u64;
            if recording.is_full() {
                assert!((FILE_MAX..FILE_MAX + 5000).contains(&written), "{written}");
                recording.header("bob", TermSize::default(), 0);
                (files, written) = (files + 1, 0);
            }
        }
    }
}
