//! Real children for the tests of this module.

use std::{os::fd::AsRawFd, process::Command};

use super::*;
use crate::{messages::pty::TermSize, testing};

/// A shell script on a terminal.
pub(super) struct Agent {
    pub(super) terminal: Terminal,
    pub(super) process: Process,
}

/// A launch of `sh -c script` in the clean environment.
pub(super) fn shell(script: &str) -> Launch {
    Launch {
        program: "sh".into(),
        args: vec!["-c".into(), script.into()],
        cwd: "/".into(),
        env: clean_env(std::env::vars_os(), "/".as_ref(), []),
        spawn_id: crate::ids::SpawnId::random(),
    }
}

impl Agent {
    pub(super) async fn run(script: &str) -> Self {
        Self::launch(&shell(script)).await.unwrap()
    }

    pub(super) async fn launch(what: &Launch) -> Result<Self, LaunchError> {
        Self::guarded(what, &Guard::default()).await
    }

    pub(super) async fn guarded(what: &Launch, guard: &Guard) -> Result<Self, LaunchError> {
        let (terminal, slave) = Terminal::open(TermSize::default()).unwrap();
        let process = launch(what, slave, guard).await?;
        Ok(Self { terminal, process })
    }

    /// Output up to and with `text`, and what came with it.
    pub(super) async fn until(&self, text: &str) -> String {
        self.read(|seen| seen.contains(text)).await
    }

    /// All output up to the hang-up.
    pub(super) async fn rest(&self) -> String {
        self.read(|_| false).await
    }

    /// Output until it is enough.
    pub(super) async fn read(&self, enough: impl Fn(&str) -> bool) -> String {
        let mut seen = String::new();
        let mut buf = [0; 4096];
        within(async {
            while !enough(&seen) {
                match self.terminal.try_read(&mut buf).unwrap() {
                    ReadOutcome::Bytes(n) => seen.push_str(&String::from_utf8_lossy(&buf[..n])),
                    ReadOutcome::WouldBlock => self.terminal.readable().await.unwrap(),
                    ReadOutcome::Flushed => {}
                    ReadOutcome::Hangup => break,
                }
            }
        })
        .await;
        seen
    }

    /// Waits for the proof that everything typed was read.
    pub(super) async fn all_read(&self) {
        within(async {
            while self.terminal.unread().unwrap() > 0 {
                self.terminal.drained().await.unwrap();
            }
        })
        .await;
    }

    /// Stops or continues the leader, and waits until it has.
    pub(super) async fn send_only(&self, signal: Signal) {
        let pid = self.process.pid();
        nix::sys::signal::kill(pid, signal).unwrap();
        let stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        within(async {
            while stopped() != (signal == Signal::SIGSTOP) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(super) fn send(&self, signal: Signal) {
        self.process.signal_groups(&self.terminal, signal).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.process.try_exited().is_none() {
            self.send(Signal::SIGKILL);
        }
    }
}

pub(super) async fn within<F: Future>(work: F) -> F::Output {
    testing::within("something happens", work).await
}

/// Waits until a process that need not be a child has ended (it may be a zombie then).
pub(super) async fn ended(pid: i32) -> bool {
    let Ok(pidfd) = sys::pidfd_open(pid) else { return true };
    let pidfd = sys::watch(pidfd).unwrap();
    within(pidfd.readable()).await.is_ok()
}

/// The number after a word in some output.
pub(super) fn pid_after(output: &str, word: &str) -> i32 {
    let (_, rest) =
        output.split_once(&format!("{word} ")).unwrap_or_else(|| panic!("no {word} in {output:?}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number after {word} in {output:?}"))
}

/// Set in a copy of the test program that runs one test alone.
const ALONE: &str = "PTY_TEST_ALONE";

/// True inside the copy.
pub(super) fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// A copy of this test program that runs the named test and nothing else, for what threads of other tests
/// would disturb.
pub(super) fn alone(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("pty::{test}"), "--exact", "--nocapture"]).env(ALONE, "1");
    command
}

/// A descriptor that the kernel hands on to every child.
pub(super) fn leaky_fd() -> impl AsRawFd {
    let file = std::fs::File::open("/dev/null").unwrap();
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    file
}
