//! Kills a broker exactly at a system call: before the kernel has done it, or when it has and before the program
//! knows.
//!
//! A thread of the test attaches to every thread of the broker as a debugger does (ptrace(2)), lets it run from one
//! system call to the next, and at the chosen one sends SIGKILL: a call that it was about to make is not made any more,
//! after the other threads had some time to do what they should not do before it.
//! Calls are known by their descriptor and by what they write, not by counting them from the start.
//!
//! Programs that the broker starts are not traced. Nobody may wait for the broker while the trap is set: its stops
//! would be taken for the trap's own.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::Cursor,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{Chance, House, PATIENCE, frames::Frame};

/// A system call that takes a message one step further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The note that it is about to be typed goes into the journal.
    Note,
    /// Bytes of it go into the terminal.
    Type,
    /// The proof goes into the journal.
    Prove,
    /// The journal is brought to the disk, the first time after a proof.
    Sync,
    /// The ack goes to the engine.
    Ack,
}

/// Before or after the kernel has done it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Before,
    After,
}

/// Where a broker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boundary {
    pub(crate) step: Step,
    pub(crate) side: Side,
    /// At the how manieth of these calls, from 1.
    pub(crate) nth: usize,
}

/// A trap that waits for its boundary.
pub(crate) struct Trap {
    journal: PathBuf,
    hunter: JoinHandle<Option<u64>>,
}

/// A journal as a killed broker has left it.
pub(crate) struct Remains {
    journal: PathBuf,
    /// Bytes that had been brought to the disk.
    synced: u64,
}

/// What the end of a machine, other than that of a process, takes along: bytes of the journal that were not brought to
/// the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Only the process has ended.
    Nothing,
    /// All of them.
    Unsynced,
    /// Those behind a random one of them, within a record nearly always.
    Torn,
    /// A random stretch of them: the file has its length, and zeros there.
    Hole,
}

impl Trap {
    /// Sets a trap for a broker. What its journal holds by now is brought to the disk first.
    pub(crate) fn set(house: &House, boundary: Boundary) -> Self {
        let pid = Pid::from_raw(house.pid().try_into().unwrap());
        let journal = house.journal_file();
        let (is_set, set) = mpsc::channel();
        let hunter = thread::spawn({
            let journal = journal.clone();
            move || {
                let mut hunt = Hunt::begin(pid, &journal, boundary);
                is_set.send(()).unwrap();
                hunt.run()
            }
        });
        set.recv().expect("the broker can be traced");
        Self { journal, hunter }
    }

    /// True when it has killed, or given up.
    pub(crate) fn is_over(&self) -> bool {
        self.hunter.is_finished()
    }

    /// Waits until it has killed.
    pub(crate) fn sprung(self) -> Remains {
        let synced = self.hunter.join().unwrap().expect("the boundary was never reached");
        Remains { journal: self.journal, synced }
    }
}

impl Remains {
    /// Takes away what the end of the machine would have. The broker's process must have ended.
    pub(crate) fn lose(&self, loss: Loss, chance: &mut Chance) {
        let file = OpenOptions::new().write(true).open(&self.journal).unwrap();
        let unsynced = file.metadata().unwrap().len() - self.synced;
        match loss {
            Loss::Nothing => {}
            Loss::Unsynced => file.set_len(self.synced).unwrap(),
            Loss::Torn => file.set_len(self.synced + chance.below(unsynced + 1)).unwrap(),
            Loss::Hole => {
                let from = chance.below(unsynced + 1);
                let zeros = vec![0; usize::try_from(chance.below(unsynced - from + 1)).unwrap()];
                file.write_all_at(&zeros, self.synced + from).unwrap();
            }
        }
    }

    /// The journal as far as it had been brought to the disk.
    pub(crate) fn on_disk(&self) -> Vec<u8> {
        let mut bytes = fs::read(&self.journal).unwrap();
        bytes.truncate(self.synced.try_into().unwrap());
        bytes
    }
}

/// The trap's own thread: only the one that has attached may ask anything of a traced one.
struct Hunt<'a> {
    pid: Pid,
    memory: File,
    journal: &'a Path,
    boundary: Boundary,
    /// What each thread is about to do, or doing.
    calls: HashMap<Pid, Call>,
    counts: HashMap<Step, usize>,
    /// A proof was written and no sync has begun since.
    proof_to_sync: bool,
    /// Bytes of the journal that are on disk.
    synced: u64,
}

/// A system call that matters.
#[derive(Clone, Copy, Debug)]
struct Call {
    step: Option<Step>,
    /// It brings this many bytes of the journal to the disk.
    syncs: u64,
}

impl<'a> Hunt<'a> {
    fn begin(pid: Pid, journal: &'a Path, boundary: Boundary) -> Self {
        attach(pid);
        let file = File::open(journal).unwrap();
        let synced = file.metadata().unwrap().len();
        file.sync_all().unwrap();
        Self {
            pid,
            memory: File::open(format!("/proc/{pid}/mem")).unwrap(),
            journal,
            boundary,
            calls: HashMap::new(),
            counts: HashMap::new(),
            proof_to_sync: false,
            synced,
        }
    }

    /// Lets the broker run to the boundary and kills it there; how much of the journal is on disk then. The end of
    /// this thread lets go of the broker's. `None` when it did not come there in time: heartbeats alone make it stop
    /// often enough to see that.
    fn run(&mut self) -> Option<u64> {
        let began = Instant::now();
        let mut held: Option<Instant> = None;
        while began.elapsed() < PATIENCE {
            let flags = if held.is_some() { ITS_THREADS | WaitPidFlag::WNOHANG } else { ITS_THREADS };
            let (thread, signal) = match waitpid(None, Some(flags)).unwrap() {
                WaitStatus::PtraceSyscall(thread) => {
                    // Always asked, for it keeps the books.
                    if self.is_there(thread) && held.is_none() {
                        if self.boundary.side == Side::After {
                            return self.kill();
                        }
                        held = Some(Instant::now());
                        continue;
                    }
                    (thread, None)
                }
                WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
                WaitStatus::PtraceEvent(thread, ..) => (thread, None),
                WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) if thread != self.pid => {
                    continue;
                }
                WaitStatus::StillAlive => {
                    if held.is_some_and(|since| since.elapsed() > HOLD) {
                        return self.kill();
                    }
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                ended => panic!("the broker ended before its boundary: {ended:?}"),
            };
            go_on(thread, signal);
        }
        None
    }

    fn kill(&self) -> Option<u64> {
        kill(self.pid, Signal::SIGKILL).unwrap();
        Some(self.synced)
    }

    /// True when a thread that stands before or behind a call stands at the boundary.
    fn is_there(&mut self, thread: Pid) -> bool {
        let (step, side) = match ptrace::syscall_info(thread).unwrap().op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => {
                let Some(call) = self.call(thread) else { return false };
                self.calls.insert(thread, call);
                if let Some(step) = call.step {
                    *self.counts.entry(step).or_default() += 1;
                }
                (call.step, Side::Before)
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                let Some(call) = self.calls.remove(&thread) else { return false };
                self.synced = self.synced.max(call.syncs);
                (call.step, Side::After)
            }
            _ => return false,
        };
        let wanted = self.boundary;
        step == Some(wanted.step) && side == wanted.side && self.counts[&wanted.step] == wanted.nth
    }

    /// What a thread is about to do, if it matters.
    fn call(&mut self, thread: Pid) -> Option<Call> {
        // The number, the arguments, the stack and the place in the program (proc(5)).
        let line = fs::read_to_string(format!("/proc/{}/task/{thread}/syscall", self.pid)).ok()?;
        let mut words = line.split_ascii_whitespace();
        let number: libc::c_long = words.next()?.parse().ok()?;
        if ![libc::SYS_pwrite64, libc::SYS_fdatasync, libc::SYS_write, libc::SYS_sendto].contains(&number) {
            return None;
        }
        let mut arguments = words.map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap());
        let (descriptor, data, length) = (arguments.next()?, arguments.next()?, arguments.next()?);
        let target = fs::read_link(format!("/proc/{}/fd/{descriptor}", self.pid)).ok()?;
        if number == libc::SYS_fdatasync {
            let is_step = target == self.journal && std::mem::take(&mut self.proof_to_sync);
            let syncs = if target == self.journal { fs::metadata(self.journal).unwrap().len() } else { 0 };
            return Some(Call { step: is_step.then_some(Step::Sync), syncs });
        }
        let mut bytes = vec![0; length.try_into().unwrap()];
        let step = if target == self.journal {
            self.memory.read_exact_at(&mut bytes, data).unwrap();
            let says = |what: &str| bytes.windows(what.len()).any(|part| part == what.as_bytes());
            if says("{\"settled\":") {
                self.proof_to_sync = true;
                Step::Prove
            } else if says("{\"handed\":") {
                Step::Note
            } else {
                return None;
            }
        } else if target.ends_with("ptmx") {
            Step::Type
        } else if target.to_string_lossy().starts_with("socket:") && self.counts.contains_key(&Step::Sync) {
            self.memory.read_exact_at(&mut bytes, data).unwrap();
            let mut sent = Cursor::new(&bytes[..]);
            let mut frames = std::iter::from_fn(|| Frame::read(&mut sent).ok());
            let is_ack = |frame: Frame| frame.text().is_some_and(|text| text.contains("\"delivery.ack\""));
            if !frames.any(is_ack) {
                return None;
            }
            Step::Ack
        } else {
            return None;
        };
        Some(Call { step: Some(step), syncs: 0 })
    }
}

/// A call that is not made yet is held up for so long, as by a slow disk, and only then never made: what should have
/// waited for it and does not, is done by then.
const HOLD: Duration = Duration::from_millis(100);
/// The stops and ends of what this thread traces: other tests have children of their own.
const ITS_THREADS: WaitPidFlag = WaitPidFlag::__WALL.union(WaitPidFlag::__WNOTHREAD);

/// Attaches to all threads of a process. Those that they start from then on are attached by the kernel.
fn attach(pid: Pid) {
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_TRACECLONE;
    let mut attached = HashSet::new();
    loop {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let threads = threads.map(|thread| thread.unwrap().file_name().to_str().unwrap().parse().unwrap());
        let new: Vec<_> = threads.map(Pid::from_raw).filter(|thread| attached.insert(*thread)).collect();
        if new.is_empty() {
            return;
        }
        for thread in new {
            match ptrace::seize(thread, options).and_then(|()| ptrace::interrupt(thread)) {
                // It has ended, or one that was attached before has started it.
                Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
                Err(error) => panic!("cannot trace {thread} of {pid}: {error}"),
            }
        }
    }
}

/// Lets a stopped thread run to its next system call; one that was killed meanwhile needs no leave.
fn go_on(thread: Pid, signal: Option<Signal>) {
    match ptrace::syscall(thread, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("cannot let {thread} go on: {error}"),
    }
}
