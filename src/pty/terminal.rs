//! One agent's terminal: the master side of a PTY.

use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::Stdio,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{LocalFlags, tcgetattr},
    unistd::{Pid, tcgetpgrp},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::sys;
use crate::messages::pty::TermSize;

/// The master side of a PTY. Dropping it hangs the terminal up: its session leader gets SIGHUP.
///
/// One reader and one writer at a time: readiness is consumed by whoever waited for it.
#[derive(Debug)]
pub struct Terminal {
    master: AsyncFd<OwnedFd>,
}

/// The slave side, to be given to [`launch`](super::launch). While it is open the master cannot report a
/// hang-up, so it lives no longer than the start of the child takes.
#[derive(Debug)]
pub struct Slave(OwnedFd);

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes, at least one.
    Bytes(usize),
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
        let mut read = || match uninterrupted(|| nix::unistd::read(self.fd(), &mut *buf)) {
            Ok(0) | Err(Errno::EIO) => Ok(ReadOutcome::Hangup),
            Ok(bytes) => Ok(ReadOutcome::Bytes(bytes)),
            Err(e) => Err(io::Error::from(e)),
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

    /// Waits for a hint that the child has read: room to write again, or input drained.
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

    /// Bytes that were written and that the child has not read yet.
    ///
    /// # Errors
    /// No descriptor left: the slave is opened for a moment.
    pub fn unread(&self) -> io::Result<usize> {
        let peer = sys::open_peer(self.fd(), true)?;
        let mut poll_fd = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
        uninterrupted(|| poll(&mut poll_fd, PollTimeout::ZERO))?;
        sys::input_queue(peer.as_fd())
    }

    /// The process group that the terminal's keys (`^C`) would reach; `None` without a session.
    pub fn foreground_group(&self) -> Option<Pid> {
        tcgetpgrp(self.fd()).ok().filter(|group| group.as_raw() > 1)
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}
