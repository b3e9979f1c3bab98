//! The program in the terminal: raw mode, reads, notes when it has read the end of which message.
//!
//! What it saw goes to the bench over a Unix socket, after the fact: the time is taken before, and reports
//! are held back while input keeps coming.

use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
};

use anyhow::{Context, Result};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr},
};

use crate::clock;

/// A report waits for this much silence, in milliseconds...
const HOLD_BACK: u16 = 4;
/// ...or for this many messages.
const HOLD_MAX: usize = 256;
/// Begins the number at the end of a text.
const MARK: u8 = b'~';
/// Ends it.
const END: u8 = b';';

/// A message text of everyday length that ends in its number.
pub(crate) fn text(number: u64) -> String {
    format!(
        "the watch on the quay has counted the crates again and finds as many as the manifest says, \
         so the crane may go on with the next hold ~{number};"
    )
}

/// Finds the numbers at the ends of texts in a stream that may be cut anywhere.
#[derive(Default)]
struct Scanner {
    number: Option<u64>,
}

impl Scanner {
    fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(u64)) {
        for byte in bytes {
            self.number = match (byte, self.number) {
                (&MARK, _) => Some(0),
                (digit @ b'0'..=b'9', Some(number)) => Some(number * 10 + u64::from(digit - b'0')),
                (&END, Some(number)) => {
                    found(number);
                    None
                }
                _ => None,
            };
        }
    }
}

/// Reads until the terminal is gone.
pub(crate) fn run(report: &str, agent: u64) -> Result<()> {
    let mut terminal = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut modes = tcgetattr(&terminal).context("standard input is no terminal")?;
    cfmakeraw(&mut modes);
    tcsetattr(&terminal, SetArg::TCSANOW, &modes)?;
    let mut report = UnixStream::connect(report).context("nobody takes reports")?;
    report.write_all(&agent.to_le_bytes())?;
    File::from(std::io::stdout().as_fd().try_clone_to_owned()?).write_all(b"ready\r\n")?;

    let mut buffer = vec![0; 64 << 10];
    let mut scanner = Scanner::default();
    let mut seen = Vec::with_capacity(HOLD_MAX * 16);
    loop {
        if !seen.is_empty() {
            let mut input = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
            let silent = poll(&mut input, PollTimeout::from(HOLD_BACK))? == 0;
            if silent || seen.len() >= HOLD_MAX * 16 {
                report.write_all(&seen)?;
                seen.clear();
            }
        }
        let Ok(read @ 1..) = terminal.read(&mut buffer) else { return Ok(()) };
        let at = clock::now();
        scanner.feed(&buffer[..read], |number| {
            seen.extend_from_slice(&at.to_le_bytes());
            seen.extend_from_slice(&number.to_le_bytes());
        });
    }
}
