//! How fast output is read: at once, until a program floods its terminal.
//!
//! ```text
//! Free --more than a burst, faster than it drains--> Paced: a rest after each portion
//!   ^------------------ drained --------------------/
//! ```
//!
//! A flood and the thread that reads it take a core each for as long as there is more, and everybody else waits for one
//! of them to be taken away. While a flood's reader rests, the terminal is full and its program waits too.

use std::time::{Duration, Instant};

/// So much is read as fast as it comes: a large file, a build's log.
const BURST: u64 = 2 << 20;
/// So much drains in a second (spec/pty 3.6: more than that, sustained, is a flood).
const DRAINED: u64 = 1 << 20;
/// So much of a flood is read between two rests.
const PORTION: u64 = 16 << 10;
/// One rest. Reading a portion takes about as long.
const REST: Duration = Duration::from_millis(1);

/// The pace of one program.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes read, less what has drained by `at`.
    level: u64,
    at: Instant,
    /// Read since the last rest.
    portion: u64,
    until: Option<Instant>,
}

impl Pace {
    /// The pace of a program that starts now.
    pub(super) fn new(now: Instant) -> Self {
        Self { level: 0, at: now, portion: 0, until: None }
    }

    /// So many bytes were read by now.
    pub(super) fn read(&mut self, bytes: usize, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_micros();
        let drained = u64::try_from(passed * u128::from(DRAINED) / 1_000_000).unwrap_or(u64::MAX);
        let bytes = bytes as u64;
        // However long a flood was, it is over two seconds after it has stopped.
        self.level = (self.level.saturating_sub(drained) + bytes).min(2 * BURST);
        self.at = now;
        self.portion += bytes;
        if self.portion >= PORTION {
            self.portion = 0;
            self.until = (self.level > BURST).then(|| now + REST);
        }
    }

    /// When to read on, if not now.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `total` bytes, a portion in each millisecond, and answers how long it took.
    fn takes(pace: &mut Pace, total: u64, begin: Instant) -> Duration {
        let (mut now, mut read) = (begin, 0);
        while read < total {
            now = pace.rests_until(now).unwrap_or(now) + Duration::from_millis(1);
            pace.read(16 << 10, now);
            read += 16 << 10;
        }
        now - begin
    }

    #[test]
    fn a_burst_is_read_as_it_comes_and_a_flood_at_half_the_pace() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(takes(&mut pace, 2 << 20, start), Duration::from_millis(128));
        let mut flood = Pace::new(start);
        let took = takes(&mut flood, 100 << 20, start).as_millis();
        assert!((12_000..12_800).contains(&took), "{took}");
        let later = start + Duration::from_secs(20);
        assert_eq!(takes(&mut flood, 1 << 20, later), Duration::from_millis(64), "it has drained");
    }

    #[test]
    fn what_comes_no_faster_than_it_drains_never_rests() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for tenth in 1..1000 {
            let now = start + Duration::from_millis(100 * tenth);
            pace.read(100 << 10, now);
            assert_eq!(pace.rests_until(now), None);
        }
    }
}
