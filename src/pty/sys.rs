//! The system calls that have no safe wrapper elsewhere, each behind a safe function. The only unsafe code
//! of the crate.
#![allow(unsafe_code, reason = "ioctls, pidfds, pre_exec and AsyncFd::register have no safe form")]

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::OpenOptionsExt,
            process::CommandExt,
        },
    },
    path::Path,
    process::Command,
};

use nix::{errno::Errno, libc};
use tokio::io::unix::AsyncFd;

/// How a child ended, as `waitid` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawExit {
    /// `CLD_EXITED`, `CLD_KILLED` or `CLD_DUMPED`.
    pub(super) code: i32,
    /// The exit code or the signal number.
    pub(super) status: i32,
    /// The kernel's account of its resident memory at the highest, in KiB: its own, that of those it has
    /// waited for, and that of the process that it was forked from.
    pub(super) peak_kib: i64,
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn checked_call(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A new, unlocked PTY master: close-on-exec and non-blocking from birth, and never our controlling
/// terminal.
pub(super) fn open_master() -> io::Result<OwnedFd> {
    let master: OwnedFd = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/ptmx")?
        .into();
    let unlocked: libc::c_int = 0;
    // SAFETY: the descriptor is open and TIOCSPTLCK reads one int through the pointer.
    checked(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    Ok(master)
}

/// Opens the slave side of a master without going through a path, close-on-exec from birth.
pub(super) fn open_peer(master: BorrowedFd<'_>, nonblocking: bool) -> io::Result<File> {
    let mut flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    if nonblocking {
        flags |= libc::O_NONBLOCK;
    }
    // SAFETY: the descriptor is open; TIOCGPTPEER takes flags by value and returns a new descriptor.
    let fd = checked(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Sets the window size; the kernel sends SIGWINCH to the foreground group.
pub(super) fn set_size(master: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and TIOCSWINSZ reads one winsize through the pointer.
    checked(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// Rows and columns of a terminal's window; 0 when nobody has set them.
pub(super) fn window_size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and TIOCGWINSZ writes one winsize through the pointer.
    checked(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// Bytes that a read of this descriptor would find (`FIONREAD`).
pub(super) fn input_queue(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open and FIONREAD writes one int through the pointer.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// In a status of packet mode: the child has thrown away unread input (`TIOCPKT_FLUSHREAD`, ioctl_tty(2)).
pub(super) const FLUSHED: u8 = 1;

/// Packet mode: each read of the master begins with a byte of status, by which the kernel tells what the
/// child did to the terminal.
pub(super) fn set_packet_mode(master: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open and TIOCPKT reads one int through the pointer.
    checked(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCPKT, &raw const on) })?;
    Ok(())
}

/// Reads from a master in packet mode: the status, and how many bytes of output are in the buffer. Without
/// even a status (`None`) nobody has the terminal open any more.
pub(super) fn read_packet(master: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<Option<(u8, usize)>> {
    let mut status = 0_u8;
    let parts = [
        libc::iovec { iov_base: (&raw mut status).cast(), iov_len: 1 },
        libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() },
    ];
    // SAFETY: the descriptor is open, and both parts are writable memory of the given lengths that outlives
    // the call.
    let read = unsafe { libc::readv(master.as_raw_fd(), parts.as_ptr(), 2) };
    match usize::try_from(read) {
        Ok(bytes) => Ok(bytes.checked_sub(1).map(|bytes| (status, bytes))),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Hands a descriptor to the reactor of the current runtime.
pub(super) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd returns one and the same open descriptor for as long as it lives, and the AsyncFd
    // owns it until it has deregistered it.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// A descriptor for a process: it never refers to another one, whatever happens to the pid.
pub(super) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers; the flag is O_NONBLOCK (PIDFD_NONBLOCK).
    let fd = checked_call(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, libc::O_NONBLOCK) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us alone, close-on-exec by definition.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Signals the process that a pidfd names; `ESRCH` when it has ended.
pub(super) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open; a null siginfo asks for the same one that kill(2) makes.
    checked_call(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })?;
    Ok(())
}

/// Which child to wait for.
#[derive(Clone, Copy)]
pub(super) enum Child<'a> {
    /// The one that this pidfd names.
    ByFd(BorrowedFd<'a>),
    /// The one with this pid.
    ByPid(i32),
}

/// Takes the exit status of a child that has ended, without waiting; `None` while it runs. `ECHILD` when it
/// is not our child, or no longer.
pub(super) fn reap(child: Child<'_>) -> io::Result<Option<RawExit>> {
    let (kind, id) = match child {
        Child::ByFd(fd) => (libc::P_PIDFD, fd.as_raw_fd()),
        Child::ByPid(pid) => (libc::P_PID, pid),
    };
    // nix's waitid refuses real-time signals after it has taken the status: the exit would be lost.
    waitid(kind, id.cast_unsigned(), libc::WEXITED | libc::WNOHANG)
}

/// True when some child of this process has ended and nobody has taken its status yet.
pub(super) fn any_zombie() -> bool {
    matches!(waitid(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT), Ok(Some(_)))
}

/// True when this child has ended, or is none of ours. It is not reaped, so its pid stays its own.
pub(super) fn has_ended(pid: u32) -> bool {
    !matches!(waitid(libc::P_PID, pid, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT), Ok(None))
}

fn waitid(kind: libc::idtype_t, id: libc::id_t, options: libc::c_int) -> io::Result<Option<RawExit>> {
    // SAFETY: siginfo_t and rusage are plain data for which all zeroes is a value.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    loop {
        // The C library's waitid leaves out what the system call has to say of resources.
        // SAFETY: waitid writes one siginfo_t and one rusage through the pointers.
        let done =
            unsafe { libc::syscall(libc::SYS_waitid, kind, id, &raw mut info, options, &raw mut usage) };
        match checked_call(done) {
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    // SAFETY: after a successful waitid the child fields are filled in, or still zero (WNOHANG).
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((pid != 0).then_some(RawExit { code: info.si_code, status, peak_kib: usage.ru_maxrss }))
}

/// Makes the child of this command the leader of a new session whose controlling terminal is its standard
/// input, with default signal dispositions, no inherited descriptor beyond the three, and dead when the
/// calling thread dies (spec/pty 2.4).
pub(super) fn lead_a_session(command: &mut Command) {
    // SAFETY: getpid cannot fail. Taken before the fork, to be compared after it.
    let parent = unsafe { libc::getpid() };
    let in_child = move || -> io::Result<()> {
        // SAFETY: between fork and exec of a threaded process. Only async-signal-safe system calls on
        // plain values follow: no allocation, no lock, no environment.
        unsafe {
            begin_a_session()?;
            checked(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
            checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // The parent may have died before the line above: then nobody sends that signal.
            if libc::getppid() != parent {
                libc::_exit(127);
            }
        }
        Ok(())
    };
    // SAFETY: the closure is async-signal-safe, see within.
    unsafe { command.pre_exec(in_child) };
}

/// Makes the child of this command, called `arg0`, become its program by execve(2) and nothing else. The standard
/// library has execvp(3) do that, which hands a file that the kernel cannot run to `/bin/sh`. To be called last.
///
/// # Errors
/// A text holds a zero byte.
pub(super) fn exec_itself(command: &mut Command, arg0: &str) -> io::Result<()> {
    let args = std::iter::once(OsStr::new(arg0)).chain(command.get_args()).map(OsStr::to_owned);
    let env = command.get_envs().filter_map(|(name, value)| {
        let mut variable = name.to_owned();
        variable.push("=");
        variable.push(value?);
        Some(variable)
    });
    let image = Image::new(command.get_program(), args, env)?;
    // SAFETY: the closure makes one system call, execve(2), on memory that was laid out before the fork.
    unsafe { command.pre_exec(move || image.exec()) };
    Ok(())
}

/// A program with its arguments and its environment, as execve(2) wants them.
struct Image {
    program: CString,
    args: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    /// What `args` and `env` point into: text on the heap, which stays where it is.
    _texts: Vec<CString>,
}

// SAFETY: the pointers lead into `_texts` alone, which nobody changes and which lives as long.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    fn new(
        program: &OsStr,
        args: impl Iterator<Item = OsString>,
        env: impl Iterator<Item = OsString>,
    ) -> io::Result<Self> {
        let mut texts = Vec::new();
        let mut lay_out = |all: &mut dyn Iterator<Item = OsString>| -> io::Result<Vec<*const libc::c_char>> {
            let mut pointers = Vec::new();
            for text in all {
                let text = CString::new(text.into_vec())?;
                pointers.push(text.as_ptr());
                texts.push(text);
            }
            pointers.push(std::ptr::null());
            Ok(pointers)
        };
        let (args, env) = (lay_out(&mut { args })?, lay_out(&mut { env })?);
        Ok(Self { program: CString::new(program.as_bytes())?, args, env, _texts: texts })
    }

    /// Returns only when the kernel refuses.
    fn exec(&self) -> io::Result<()> {
        // SAFETY: the program is a text that ends with NUL; both arrays end with a null pointer and lead to such.
        checked(unsafe { libc::execve(self.program.as_ptr(), self.args.as_ptr(), self.env.as_ptr()) })?;
        Ok(())
    }
}

/// Makes the child of this command one that goes on when its parent ends: it leads a session without a
/// terminal, ignores what would end a broker, and has no inherited descriptor beyond the three.
pub(super) fn outlive_the_parent(command: &mut Command) {
    let in_child = || -> io::Result<()> {
        // SAFETY: as in `lead_a_session`.
        unsafe {
            begin_a_session()?;
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::signal(signal, libc::SIG_IGN);
            }
        }
        Ok(())
    };
    // SAFETY: the closure is async-signal-safe, see within.
    unsafe { command.pre_exec(in_child) };
}

/// A session of its own, default signals, and descriptors that end with the exec.
///
/// # Safety
/// For the child, between fork and exec. Async-signal-safe.
unsafe fn begin_a_session() -> io::Result<()> {
    // SAFETY: only async-signal-safe system calls on plain values.
    unsafe {
        checked(libc::setsid())?;
        // A broker under nohup ignores SIGHUP, and Rust ignores SIGPIPE: exec would pass both on.
        // SIGKILL, SIGSTOP and the C library's own two refuse, which is fine.
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        // Descriptors that the broker itself inherited without close-on-exec. Kernels before 5.11 do
        // not know the flag; all descriptors of our own making are close-on-exec anyway.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
    Ok(())
}

/// Moves the child of this command, before anything else of it happens, into the cgroup whose `cgroup.procs`
/// this is. A child that may not move stays where it is.
pub(super) fn move_into(command: &mut Command, procs: File) {
    let in_child = move || {
        move_self(&procs).ok();
        Ok(())
    };
    // SAFETY: the closure makes one system call, write(2).
    unsafe { command.pre_exec(in_child) };
}

/// Whether a child can be moved into the cgroup whose `cgroup.procs` this is: tried with one that ends before
/// it becomes a program.
pub(super) fn try_to_move(procs: File) -> io::Result<()> {
    let moved = Errno::ECANCELED as i32;
    let mut command = Command::new("/");
    let in_child = move || {
        move_self(&procs)?;
        Err(io::Error::from_raw_os_error(moved))
    };
    // SAFETY: the closure makes one system call, write(2); an error of the system's holds no allocation.
    unsafe { command.pre_exec(in_child) };
    match command.spawn() {
        Err(error) if error.raw_os_error() == Some(moved) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("a directory cannot run")),
    }
}

/// `0` stands for whoever writes it (cgroups(7)).
fn move_self(mut procs: &File) -> io::Result<()> {
    procs.write_all(b"0")
}

/// True when a file or directory has an extended attribute of this name.
pub(super) fn has_attribute(path: &Path, name: &CStr) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: both texts end with NUL; a size of 0 asks for the length alone and writes nothing.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
}
