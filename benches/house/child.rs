//! The programs in the terminals. A reader: raw mode, reads, notes when it has read the end of which message. A
//! composer: the same behind a box that takes pastes, notes a message when the Enter that submits it was read. A
//! flood: writes as fast as it goes and never reads.
//!
//! What they saw goes to the bench over a Unix socket, after the fact: the time is taken before, and reports
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

use crate::{clock, composer, composer::Composer};

/// A report waits for this much silence, in milliseconds...
const HOLD_BACK: u16 = 4;
/// ...or for this many messages.
const HOLD_MAX: usize = 256;
/// Begins the number at the end of a text.
const MARK: u8 = b'~';
/// Ends it.
const END: u8 = b';';

const WORDS: &str = "the watch on the quay has counted the crates again and finds as many as the manifest says, \
                     so the crane may go on with the next hold ";
/// The length of an everyday text.
pub(crate) const EVERYDAY: usize = WORDS.len() + 4;

/// A message text of so many bytes that ends in its number; longer when that alone takes more.
pub(crate) fn text(number: u64, bytes: usize) -> String {
    let end = format!("~{number};");
    let mut text: String = WORDS.chars().cycle().take(bytes.saturating_sub(end.len())).collect();
    text += &end;
    text
}

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// Under the rule set `plain`.
    Reader,
    /// Under this rule set.
    Composer(&'static str),
    /// Under the rule set `plain`.
    Flood,
}

impl Program {
    /// The word by which this binary becomes it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Composer(_) => "composer",
            Self::Flood => "flooder",
        }
    }

    /// Its rule set.
    pub(crate) fn harness(self) -> &'static str {
        match self {
            Self::Composer(harness) => harness,
            Self::Reader | Self::Flood => "plain",
        }
    }
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

/// The terminal, in raw mode.
fn terminal() -> Result<File> {
    let terminal = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut modes = tcgetattr(&terminal).context("standard input is no terminal")?;
    cfmakeraw(&mut modes);
    tcsetattr(&terminal, SetArg::TCSANOW, &modes)?;
    Ok(terminal)
}

/// Writes until the terminal is gone.
pub(crate) fn flood() -> Result<()> {
    let mut terminal = terminal()?;
    let lines = "a line of a flood that nobody wants to read to its end\r\n".repeat(1000);
    while terminal.write_all(lines.as_bytes()).is_ok() {}
    Ok(())
}

/// Reads until the terminal is gone.
pub(crate) fn run(report: &str, agent: u64) -> Result<()> {
    read(report, agent, None)
}

/// The same behind a composer.
pub(crate) fn compose(report: &str, agent: u64) -> Result<()> {
    read(report, agent, Some(Composer::default()))
}

fn read(report: &str, agent: u64, mut composer: Option<Composer>) -> Result<()> {
    let mut terminal = terminal()?;
    let mut report = UnixStream::connect(report).context("nobody takes reports")?;
    report.write_all(&agent.to_le_bytes())?;
    let hello = if composer.is_some() { composer::HELLO } else { "ready\r\n" };
    terminal.write_all(hello.as_bytes())?;

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
        let mut note = |number: u64| {
            seen.extend_from_slice(&at.to_le_bytes());
            seen.extend_from_slice(&number.to_le_bytes());
        };
        match &mut composer {
            None => scanner.feed(&buffer[..read], note),
            Some(composer) => {
                composer.feed(&buffer[..read], |text| Scanner::default().feed(text, &mut note));
                terminal.write_all(composer.frame().as_bytes())?;
            }
        }
    }
}
