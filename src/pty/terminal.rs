//! One agent's terminal: the master side of a PTY.

use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::Stdio,
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{LocalFlags, tcgetattr},
    unistd::{Pid, tcgetpgrp},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::sys;
use crate::messages::pty::TermSize;

/// Most bytes that may be written and unread for [`Terminal::unread`] to be exact when it says zero. At 4095
/// the line discipline is full and the rest waits in a buffer before it, where nobody can see it.
pub const IN_FLIGHT_MAX: usize = 3584;

/// A child that reads in the very moment of the question makes it ask again; nobody writes meanwhile, so
/// a second or third time settles it.
const UNREAD_TRIES: usize = 8;

/// The master side of a PTY. Dropping it hangs the terminal up: its session leader gets SIGHUP.
///
/// One reader and one writer at a time: readiness is consumed by whoever waited for it.
#[derive(Debug)]
pub struct Terminal {
    master: AsyncFd<OwnedFd>,
}

/// The slave side, to be given to [`launch`](super::launch()). While it is open the master cannot report a
/// hang-up, so it lives no longer than the start of the child takes.
#[derive(Debug)]
pub struct Slave(OwnedFd);

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes, at least one.
    Bytes(usize),
    /// The child has thrown away the input that it had not read (`tcflush`, a mode switch with
    /// `TCSAFLUSH`, `^C`). There may be output too: read on.
    Flushed,
    /// Nothing now, and nothing on the way either: the kernel has delivered all that was written.
    WouldBlock,
    /// Nobody has the terminal open any more, and all output has been read. Says nothing about exit. Do
    /// not wait for [`Terminal::readable`] after this: it is ready for ever.
    Hangup,
}

/// How the kernel treats what is typed, as the child has set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineMode {
    /// Input is handed over line by line, and only the first 4095 bytes of a line are kept.
    pub canonical: bool,
    /// Input is echoed by the kernel.
    pub echo: bool,
}

impl Slave {
    /// Standard input, output and error on this terminal.
    pub(super) fn stdio(&self) -> io::Result<[Stdio; 3]> {
        Ok([self.0.try_clone()?.into(), self.0.try_clone()?.into(), self.0.try_clone()?.into()])
    }
}

impl Terminal {
    /// A new terminal of this size. Both descriptors are close-on-exec from birth, so that no process
    /// started by another thread at the same moment can hold them.
    ///
    /// # Errors
    /// No descriptor or no PTY left (`RLIMIT_NOFILE`, `/proc/sys/kernel/pty/max`).
    pub fn open(size: TermSize) -> io::Result<(Self, Slave)> {
        let master = sys::open_master()?;
        let slave = sys::open_peer(master.as_fd(), false)?;
        sys::set_size(master.as_fd(), size.rows, size.cols)?;
        sys::set_packet_mode(master.as_fd())?;
        Ok((Self { master: sys::watch(master)? }, Slave(slave.into())))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.master.get_ref().as_fd()
    }

    /// Waits until there is output to read, or the hang-up.
    ///
    /// # Errors
    /// The runtime is ending.
    pub async fn readable(&self) -> io::Result<()> {
        self.master.readable().await.map(drop)
    }

    /// Reads what there is, up to the size of the buffer (4 KiB at a time, as a rule).
    ///
    /// # Errors
    /// None that a healthy terminal gives: the hang-up (`EIO`) is an outcome, `EINTR` is tried again.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<ReadOutcome> {
        let mut read = || loop {
            match sys::read_packet(self.fd(), buf) {
                Ok(Some((0, bytes))) if bytes > 0 => return Ok(ReadOutcome::Bytes(bytes)),
                Ok(Some((status, _))) if status & sys::FLUSHED != 0 => {
                    return Ok(ReadOutcome::Flushed);
                }
                // Other news (output stopped or flushed) that nobody here needs.
                Ok(Some(_)) => {}
                Ok(None) => return Ok(ReadOutcome::Hangup),
                Err(e) if e.raw_os_error() == Some(libc::EIO) => return Ok(ReadOutcome::Hangup),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        };
        // Asked of the kernel whether the reactor has seen something or not, so that a drain after the
        // exit is complete. Only the second one, inside try_io, may take the readiness away.
        let outcome = match read() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => self.master.try_io(Interest::READABLE, |_| read()),
            known => known,
        };
        match outcome {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(ReadOutcome::WouldBlock),
            known => known,
        }
    }

    /// Offers bytes to the kernel and says how many it took; 0 when it takes none now, and then
    /// [`Terminal::drained`] tells when to try again. At most 13 to 20 KiB fit while the child does not read.
    ///
    /// # Errors
    /// `EIO` when nobody has the terminal open any more.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match uninterrupted(|| nix::unistd::write(self.fd(), bytes)) {
            Ok(taken) => Ok(taken),
            Err(Errno::EAGAIN) => Ok(0),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits for the kernel's hint that the child has read. Each hint is given once, and one that came
    /// since the last call is given at once, so that none is lost between a look at
    /// [`unread`](Self::unread) and the wait.
    ///
    /// The kernel wakes a master's writers whenever a read leaves at most 128 bytes of input (of complete
    /// lines, in canonical mode). Measured on Linux 6.18 with raw and canonical readers and reads of 1 to
    /// 4096 bytes: none missed in 6,000 messages, and 15 to 100 µs from write to proof. What it does not
    /// tell: reads that leave more than that behind, so that a slow look at `unread` is still needed.
    /// What it tells too often: our own writes and the child's output come as hints too.
    ///
    /// # Errors
    /// The runtime is ending.
    pub async fn drained(&self) -> io::Result<()> {
        self.master.writable().await.map(|mut ready| ready.clear_ready())
    }

    /// Sets the window size; the child gets SIGWINCH.
    ///
    /// # Errors
    /// None that a healthy terminal gives.
    pub fn resize(&self, size: TermSize) -> io::Result<()> {
        sys::set_size(self.fd(), size.rows, size.cols)
    }

    /// The slave's line mode, which a master can see.
    ///
    /// # Errors
    /// None that a healthy terminal gives.
    pub fn line_mode(&self) -> io::Result<LineMode> {
        let modes = tcgetattr(self.fd())?.local_flags;
        Ok(LineMode { canonical: modes.contains(LocalFlags::ICANON), echo: modes.contains(LocalFlags::ECHO) })
    }

    /// Bytes that were written and that the child has not read. 4 to 5 µs.
    ///
    /// Zero is a proof that the child has read everything, as long as the writer keeps at most
    /// [`IN_FLIGHT_MAX`] bytes in flight, and in canonical mode ends with a newline (of an unfinished line
    /// nothing is counted). A number above zero is a lower bound: bytes that were written while older ones
    /// are still unread take a moment to be counted (11 µs as a rule, milliseconds on a loaded machine),
    /// and no more than 4095 ever are.
    ///
    /// The slave is opened for the moment of the question and not kept: an open slave would hide the
    /// hang-up.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn unread(&self) -> io::Result<usize> {
        let peer = sys::open_peer(self.fd(), true)?;
        for _ in 0..UNREAD_TRIES {
            // What is written waits in a buffer until a kernel worker hands it to the line discipline. A
            // poll that finds no input waits for that worker first, so "nothing" from it is the truth. A
            // poll that finds some does not wait, and the child may take it before it is counted.
            let mut input = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
            let found = uninterrupted(|| poll(&mut input, PollTimeout::ZERO))? > 0;
            let count = sys::input_queue(peer.as_fd())?;
            if count > 0 || !found {
                return Ok(count);
            }
        }
        // Ready for ever without a byte to count: an end-of-file mark waits in a canonical terminal.
        Ok(1)
    }

    /// True when news of the terminal waits to be read, perhaps [`ReadOutcome::Flushed`]. Asked after
    /// [`unread`](Self::unread), it tells whether a zero may be the work of a flush.
    ///
    /// # Errors
    /// None that a healthy terminal gives.
    pub fn has_news(&self) -> io::Result<bool> {
        let mut news = [PollFd::new(self.fd(), PollFlags::POLLPRI)];
        uninterrupted(|| poll(&mut news, PollTimeout::ZERO))?;
        Ok(news[0].revents().is_some_and(|events| events.contains(PollFlags::POLLPRI)))
    }

    /// The process group that the terminal's keys (`^C`) would reach; `None` without a session.
    pub fn foreground_group(&self) -> Option<Pid> {
        tcgetpgrp(self.fd()).ok().filter(|group| group.as_raw() > 1)
    }
}

/// Rows and columns of the window of somebody's own terminal; 0 when it does not say.
///
/// # Errors
/// It is none.
pub fn window_size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    sys::window_size(terminal)
}

fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pty::{
        Signal,
        fixture::{Agent, pid_after, within},
    };

    /// Offers all of it until the kernel has taken it.
    async fn type_all(agent: &Agent, mut bytes: &[u8]) {
        within(async {
            while !bytes.is_empty() {
                match agent.terminal.try_write(bytes).unwrap() {
                    0 => agent.terminal.drained().await.unwrap(),
                    taken => bytes = &bytes[taken..],
                }
            }
        })
        .await;
    }

    /// Asks again until the kernel's worker has handed over what was written.
    async fn counted(agent: &Agent, bytes: usize) {
        within(async {
            while agent.terminal.unread().unwrap() != bytes {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn what_a_child_does_not_read_is_counted_in_either_mode() {
        for stty in ["raw -echo", "-echo"] {
            let agent = Agent::run(&format!("stty {stty}; echo READY; exec sleep 1000")).await;
            agent.until("READY").await;
            assert_eq!(agent.terminal.unread().unwrap(), 0);
            for line in 1..=7 {
                type_all(&agent, format!("{}\n", "x".repeat(511)).as_bytes()).await;
                assert!(agent.terminal.unread().unwrap() > 0, "{stty}: zero although nothing was read");
                counted(&agent, line * 512).await;
            }
            assert_eq!(7 * 512, IN_FLIGHT_MAX);
        }
    }

    #[tokio::test]
    async fn what_is_left_after_a_read_of_known_size_is_exact() {
        for (stty, rest) in [("raw -echo", 1000), ("-echo", 600)] {
            // Canonical reads end with the line, of 400 bytes here.
            let agent = Agent::run(&format!(
                "stty {stty}; echo READY; dd bs=2000 count=1 of=/dev/null 2>&1; echo DONE; exec sleep 1000"
            ))
            .await;
            agent.until("READY").await;
            let line = format!("{}\n", "x".repeat(399));
            let text = if stty == "-echo" { line + &"y".repeat(599) + "\n" } else { "x".repeat(3000) };
            type_all(&agent, text.as_bytes()).await;
            agent.until("DONE").await;
            counted(&agent, rest).await;
        }
    }

    #[tokio::test]
    async fn zero_unread_is_never_said_before_the_child_has_read_it_all() {
        // The child answers each line of a known length after it has read it, and not before: zero may
        // come first, but never while the child is stopped.
        for stty in ["raw -echo", "-echo"] {
            let agent = Agent::run(&format!("stty {stty}; echo READY; exec dd bs=64 of=/dev/null")).await;
            agent.until("READY").await;
            for round in 0..20 {
                agent.send_only(Signal::SIGSTOP).await;
                let line = format!("{}\n", "x".repeat(round * 100));
                type_all(&agent, line.as_bytes()).await;
                for _ in 0..20 {
                    assert_ne!(agent.terminal.unread().unwrap(), 0, "{stty}: the reader is stopped");
                }
                agent.send_only(Signal::SIGCONT).await;
                agent.all_read().await;
            }
        }
    }

    #[tokio::test]
    async fn reading_children_are_seen_to_read_by_the_hint_alone() {
        for (stty, bs) in [("raw -echo", 4096), ("raw -echo", 64), ("-echo", 4096), ("-echo", 7)] {
            let agent = Agent::run(&format!("stty {stty}; echo READY; exec dd bs={bs} of=/dev/null")).await;
            agent.until("READY").await;
            for size in [1, 127, 128, 129, 1000, 3500] {
                type_all(&agent, format!("{}\n", "x".repeat(size - 1)).as_bytes()).await;
                agent.all_read().await;
            }
        }
    }

    #[tokio::test]
    async fn an_end_of_file_mark_counts_as_unread() {
        let agent = Agent::run("stty -echo; echo READY; exec sleep 1000").await;
        agent.until("READY").await;
        type_all(&agent, b"\x04").await;
        assert_eq!(agent.terminal.unread().unwrap(), 1);
    }

    #[tokio::test]
    async fn asking_for_the_unread_leaves_no_descriptor_and_no_false_hangup() {
        let agent = Agent::run("stty raw -echo; echo READY; exec cat").await;
        agent.until("READY").await;
        for _ in 0..5000 {
            assert_eq!(agent.terminal.unread().unwrap(), 0);
        }
        type_all(&agent, b"still here").await;
        assert_eq!(agent.until("still here").await, "still here");
    }

    #[tokio::test]
    async fn a_canonical_line_keeps_4095_bytes_and_loses_the_rest_in_silence() {
        let agent = Agent::run("stty -echo; echo READY; head -n1 | wc -c; echo .").await;
        agent.until("READY\r\n").await;
        type_all(&agent, format!("{}\n", "x".repeat(6000)).as_bytes()).await;
        assert_eq!(agent.until(".").await.trim_end_matches(['.', '\r', '\n']).trim(), "4096");
    }

    #[tokio::test]
    async fn a_raw_child_that_does_not_read_takes_some_and_then_no_more() {
        let agent = Agent::run("stty raw -echo; echo READY; exec sleep 1000").await;
        agent.until("READY").await;
        let mut taken = 0;
        for _ in 0..100 {
            taken += agent.terminal.try_write(&[b'x'; 1024]).unwrap();
        }
        assert!((IN_FLIGHT_MAX..64 * 1024).contains(&taken), "{taken}");
        assert_eq!(agent.terminal.try_write(b"x").unwrap(), 0);
        counted(&agent, 4095).await;
    }

    #[tokio::test]
    async fn the_master_sees_the_line_mode_of_the_slave() {
        let agent = Agent::run("echo ONE; read -r x; stty raw -echo; echo TWO; exec sleep 1000").await;
        agent.until("ONE").await;
        assert_eq!(agent.terminal.line_mode().unwrap(), LineMode { canonical: true, echo: true });
        type_all(&agent, b"\n").await;
        agent.until("TWO").await;
        assert_eq!(agent.terminal.line_mode().unwrap(), LineMode { canonical: false, echo: false });
    }

    #[tokio::test]
    async fn a_size_is_there_from_the_start_and_a_new_one_is_signalled() {
        let agent =
            Agent::run("trap 'stty size' WINCH; stty size; while [ ! \"$end\" ]; do read -r end; done").await;
        agent.until("40 120").await;
        agent.terminal.resize(TermSize::new(50, 200).unwrap()).unwrap();
        agent.until("50 200").await;
    }

    #[tokio::test]
    async fn nothing_of_a_burst_before_the_exit_is_lost() {
        let agent = Agent::run("head -c 300000 /dev/zero | tr '\\0' x").await;
        assert_eq!(agent.rest().await.len(), 300_000);
        assert_eq!(agent.process.exited().await.code(), Some(0));
    }

    #[tokio::test]
    async fn output_that_waits_after_the_exit_is_read_without_the_reactor() {
        let agent = Agent::run("trap '' HUP; sleep 1000 & echo last words $!.; exit 7").await;
        assert_eq!(agent.process.exited().await.code(), Some(7));
        let mut seen = String::new();
        let mut buf = [0; 8];
        while let ReadOutcome::Bytes(n) = agent.terminal.try_read(&mut buf).unwrap() {
            seen.push_str(std::str::from_utf8(&buf[..n]).unwrap());
        }
        let grandchild = pid_after(&seen, "last words");
        // The exit was known at once, yet there is no hang-up: the grandchild has the terminal.
        assert_eq!(agent.terminal.try_read(&mut buf).unwrap(), ReadOutcome::WouldBlock);
        nix::sys::signal::kill(Pid::from_raw(grandchild), Signal::SIGKILL).unwrap();
        assert_eq!(agent.rest().await, "");
        assert_eq!(agent.terminal.try_read(&mut buf).unwrap(), ReadOutcome::Hangup);
    }

    #[tokio::test]
    async fn a_hangup_is_no_exit() {
        let agent = Agent::run("exec </dev/null >/dev/null 2>&1; exec sleep 1000").await;
        assert_eq!(agent.rest().await, "");
        assert_eq!(agent.process.try_exited(), None);
    }

    #[tokio::test]
    async fn an_open_slave_keeps_the_hangup_away_and_without_one_it_is_there() {
        let (terminal, slave) = Terminal::open(TermSize::default()).unwrap();
        let mut buf = [0; 8];
        assert_eq!(terminal.try_read(&mut buf).unwrap(), ReadOutcome::WouldBlock);
        assert_eq!(terminal.foreground_group(), None);
        drop(slave);
        within(terminal.readable()).await.unwrap();
        assert_eq!(terminal.try_read(&mut buf).unwrap(), ReadOutcome::Hangup);
    }

    #[tokio::test]
    async fn input_that_the_child_throws_away_is_told_and_input_that_it_reads_is_not() {
        let flush = "import termios; termios.tcflush(0, termios.TCIFLUSH)";
        let script = format!(
            "echo ready; sleep 0.2; python3 -c '{flush}'; echo flushed; read -r x; echo \"$x\"; read -r y"
        );
        let agent = Agent::run(&script).await;
        agent.until("ready").await;
        agent.terminal.try_write(b"lost\n").unwrap();
        let mut buf = [0; 256];
        let mut seen = String::new();
        let mut flushes = 0;
        while !seen.contains("kept\r\n") || !seen.contains("flushed") {
            match agent.terminal.try_read(&mut buf).unwrap() {
                ReadOutcome::Bytes(n) => {
                    let before = seen.contains("flushed");
                    seen.push_str(std::str::from_utf8(&buf[..n]).unwrap());
                    if !before && seen.contains("flushed") {
                        assert_eq!(flushes, 1, "told before what follows it");
                        agent.terminal.try_write(b"kept\n").unwrap();
                    }
                }
                ReadOutcome::Flushed => {
                    flushes += 1;
                    assert_eq!(agent.terminal.unread().unwrap(), 0);
                }
                ReadOutcome::WouldBlock => agent.terminal.readable().await.unwrap(),
                ReadOutcome::Hangup => panic!("it ended"),
            }
        }
        assert_eq!(flushes, 1);
        assert!(!agent.terminal.has_news().unwrap());
    }
}
