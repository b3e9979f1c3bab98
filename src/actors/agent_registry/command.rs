//! The command of a declared action: JSON in on its standard input, JSON out on its standard output.
//!
//! It is started without a shell, in a process group of its own, and without a variable of the broker's. When it
//! has ended, is out of time or says too much, its whole group is killed. Whoever drops the answer stops it too.

use std::{
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use serde::de::IgnoredAny;

use crate::{
    config::{DeclaredAction, env},
    ids::InvocationId,
    messages::invoke::InvocationResult,
};

/// The most that a command may print, in bytes. Results are kept for an hour, in memory and on disk.
pub(super) const OUTPUT_MAX: usize = 16 << 10;
/// How much of the end of its standard error a failure tells, in bytes.
const SAID_MAX: usize = 1 << 10;
/// What a pipe holds at most, so that one read empties it (pipe(7)).
const PIPE_SIZE: usize = 64 << 10;
/// Between two looks at the child and the clock, while nothing is said.
const LOOK: Duration = Duration::from_millis(20);
/// What a command that prints nothing has answered.
const NOTHING: &str = "{}";

/// One action to run.
#[derive(Debug)]
pub(super) struct Call {
    /// Its name, told to the command.
    pub(super) action: String,
    /// Told to the command too: it can use it as the key of what must happen once.
    pub(super) invocation: InvocationId,
    /// What runs, and for how long.
    pub(super) declared: DeclaredAction,
    /// Where.
    pub(super) cwd: PathBuf,
    /// JSON.
    pub(super) input: String,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot start `{program}`: {source}")]
    Start { program: String, source: io::Error },
    #[error("the broker cannot talk to it: {0}")]
    Pipe(#[from] io::Error),
    #[error("the broker stopped it")]
    Stopped,
    #[error("it did not end within {0:?}")]
    TimedOut(Duration),
    #[error("it printed more than {OUTPUT_MAX} bytes")]
    TooMuch,
    #[error("{how}{said}")]
    Ended { how: String, said: String },
    #[error("what it printed is not JSON: {0}")]
    NotJson(serde_json::Error),
}

/// Runs it. Dropping the future stops it.
pub(super) async fn run(call: Call) -> InvocationResult {
    let stop = StopOnDrop::default();
    let stopped = Arc::clone(&stop.0);
    let ran = tokio::task::spawn_blocking(move || call.run(&stopped)).await;
    match ran {
        Ok(Ok(output)) => InvocationResult::Output(output),
        Ok(Err(why)) => InvocationResult::failed_action(why),
        Err(lost) => InvocationResult::failed_action(lost),
    }
}

#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl Call {
    fn run(self, stop: &AtomicBool) -> Result<String, Failure> {
        let mut group = Group(self.start()?);
        let mut talk = Talk::with(&mut group.0, self.input.into_bytes())?;
        let deadline = Instant::now() + self.declared.timeout;
        loop {
            talk.go_on(LOOK)?;
            if group.has_ended() {
                break;
            }
            if stop.load(Relaxed) {
                return Err(Failure::Stopped);
            }
            if Instant::now() >= deadline {
                return Err(Failure::TimedOut(self.declared.timeout));
            }
        }
        // What it said last. A child of its own that keeps the pipes open is not waited for.
        talk.go_on(Duration::ZERO)?;
        let status = group.end()?;
        if !status.success() {
            return Err(Failure::Ended { how: how(status), said: talk.said() });
        }
        talk.output()
    }

    fn start(&self) -> Result<Child, Failure> {
        let line = &self.declared.command;
        let mut command = Command::new(&line.program);
        command.args(&line.args).current_dir(&self.cwd).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in env::ALL {
            command.env_remove(name);
        }
        command.env(env::ACTION, &self.action).env(env::INVOCATION, self.invocation.as_str());
        command.spawn().map_err(|source| Failure::Start { program: line.program.clone(), source })
    }
}

/// `exit code 3` or `signal 9`.
fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "it ended nobody knows how".to_owned(),
    }
}

/// A child and everything in its process group; none of it outlives this value.
struct Group(Child);

impl Group {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }

    /// Looks without taking the status: until that is taken, the group's number is nobody else's.
    fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(self.pid()), flags), Ok(WaitStatus::StillAlive))
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        match killpg(self.pid(), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => self.0.wait(),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Once its status is taken there is nothing left to end: the number may be another's by now.
        if matches!(self.0.try_wait(), Ok(None))
            && let Err(error) = self.end()
        {
            tracing::warn!(pid = self.0.id(), %error, "an action's command cannot be ended");
        }
    }
}

/// The three pipes.
struct Talk {
    stdin: Option<ChildStdin>,
    /// What it has not read yet.
    input: Vec<u8>,
    stdout: Option<ChildStdout>,
    output: Vec<u8>,
    stderr: Option<ChildStderr>,
    /// The end of what it complained about.
    said: Vec<u8>,
}

impl Talk {
    fn with(child: &mut Child, input: Vec<u8>) -> io::Result<Self> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let ends = [
            stdin.as_ref().map(AsFd::as_fd),
            stdout.as_ref().map(AsFd::as_fd),
            stderr.as_ref().map(AsFd::as_fd),
        ];
        for end in ends.into_iter().flatten() {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self { stdin, input, stdout, output: Vec::new(), stderr, said: Vec::new() })
    }

    /// Waits up to `wait` until there is something to do, and does it.
    fn go_on(&mut self, wait: Duration) -> Result<(), Failure> {
        let mut ends: Vec<_> = [
            self.stdin.as_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLOUT)),
            self.stdout.as_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN)),
            self.stderr.as_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN)),
        ]
        .into_iter()
        .flatten()
        .collect();
        match poll(&mut ends, PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        self.tell()?;
        take(&mut self.stdout, &mut self.output)?;
        take(&mut self.stderr, &mut self.said)?;
        if self.output.len() > OUTPUT_MAX {
            return Err(Failure::TooMuch);
        }
        self.said.drain(..self.said.len().saturating_sub(SAID_MAX));
        Ok(())
    }

    fn tell(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        match stdin.write(&self.input) {
            Ok(written) => drop(self.input.drain(..written)),
            Err(error) if is_for_later(&error) => return Ok(()),
            // It does not care for its input.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.input.clear(),
            Err(error) => return Err(error),
        }
        if self.input.is_empty() {
            self.stdin = None;
        }
        Ok(())
    }

    fn output(&self) -> Result<String, Failure> {
        let text = String::from_utf8_lossy(&self.output);
        let text = match text.trim() {
            "" => NOTHING,
            text => text,
        };
        serde_json::from_str::<IgnoredAny>(text).map_err(Failure::NotJson)?;
        Ok(text.to_owned())
    }

    /// `: ` and the end of its standard error as one line, or nothing.
    fn said(&self) -> String {
        let said = String::from_utf8_lossy(&self.said);
        let words: Vec<_> = said
            .split(|c: char| c.is_whitespace() || c.is_control())
            .filter(|word| !word.is_empty())
            .collect();
        if words.is_empty() { String::new() } else { format!(": {}", words.join(" ")) }
    }
}

/// Reads what is there; the end closes the pipe.
fn take(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<()> {
    let Some(open) = pipe else { return Ok(()) };
    let mut buffer = [0; PIPE_SIZE];
    match open.read(&mut buffer) {
        Ok(0) => *pipe = None,
        Ok(read) => into.extend_from_slice(&buffer[..read]),
        Err(error) if is_for_later(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CommandLine;

    fn call(script: &str, input: &str) -> Call {
        let command = CommandLine { program: "sh".into(), args: vec!["-c".into(), script.into()] };
        Call {
            action: "tide.table".into(),
            invocation: "inv_1".into(),
            declared: DeclaredAction { command, timeout: Duration::from_secs(20) },
            cwd: std::env::temp_dir(),
            input: input.into(),
        }
    }

    fn ran(script: &str, input: &str) -> Result<String, String> {
        call(script, input).run(&AtomicBool::new(false)).map_err(|why| why.to_string())
    }

    #[test]
    fn what_it_prints_is_the_output_and_its_input_is_what_was_asked() {
        assert_eq!(ran("cat", r#" {"a": [1, "b"]} "#), Ok(r#"{"a": [1, "b"]}"#.to_owned()));
        assert_eq!(
            ran("printf '\"%s %s\"' \"$RELAY_ACTION\" \"$RELAY_INVOCATION_ID\"", ""),
            Ok("\"tide.table inv_1\"".to_owned())
        );
        assert_eq!(ran("exit 0", &"x".repeat(1 << 20)), Ok(NOTHING.to_owned()), "nobody reads its input");
        // More than a pipe holds, both ways at once.
        let long = format!("\"{}\"", "x".repeat(200_000));
        assert_eq!(ran("tr -d x", &long), Ok("\"\"".to_owned()));
    }

    #[test]
    fn every_way_to_fail_is_told_with_words() {
        for (script, words) in [
            ("echo the tide\necho is out >&2; exit 3", "exit code 3: is out"),
            ("exit 4", "exit code 4"),
            ("kill -9 $$", "signal 9"),
            ("echo no", "what it printed is not JSON"),
            ("echo '{} {}'", "what it printed is not JSON"),
            ("head -c 20000 /dev/zero", "it printed more than 16384 bytes"),
        ] {
            let why = ran(script, "{}").unwrap_err();
            assert!(why.starts_with(words), "{script}: {why}");
        }
        let mut missing = call("", "");
        missing.declared.command.program = "/nowhere/tide".into();
        let why = missing.run(&AtomicBool::new(false)).unwrap_err().to_string();
        assert!(why.starts_with("cannot start `/nowhere/tide`: "), "{why}");
        let long = ran("yes mud | head -c 9000 >&2; echo end >&2; exit 1", "").unwrap_err();
        assert!(long.ends_with("mud end") && long.len() < 1100, "{long}");
    }

    /// A script that leaves a child of its own behind, which holds this lock file as long as it lives.
    fn clingy(lock: &str, rest: &str) -> String {
        format!("exec 9>{lock}; flock 9; sleep 1000 & {rest}")
    }

    fn is_free(lock: &str) -> bool {
        let free = Command::new("flock").args(["--timeout", "10", lock, "true"]).status();
        free.is_ok_and(|status| status.success())
    }

    #[test]
    fn nothing_of_its_group_outlives_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("lock").display().to_string();
        assert_eq!(ran(&clingy(&lock, "echo 1"), ""), Ok("1".to_owned()), "its child holds the pipes open");
        assert!(is_free(&lock), "its child lives");

        let mut slow = call(&clingy(&lock, "wait"), "");
        slow.declared.timeout = Duration::from_millis(300);
        let why = slow.run(&AtomicBool::new(false)).unwrap_err().to_string();
        assert_eq!(why, "it did not end within 300ms");
        assert!(is_free(&lock), "its child lives");

        let why = call(&clingy(&lock, "wait"), "").run(&AtomicBool::new(true)).unwrap_err().to_string();
        assert_eq!(why, "the broker stopped it");
        assert!(is_free(&lock), "its child lives");
    }
}
