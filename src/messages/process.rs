//! One agent's process: how it is to be run, and how it ended. Parts of the spawn, of pty_worker -> registry,
//! and what http asks the registry about ends of the past.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Reply, pty::AgentState, told};
use crate::ids::{AgentName, DeliveryId, SessionRef};

/// How an agent's process is run, beyond its program and its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessSpec {
    /// What follows when it ends by itself.
    pub restart: RestartPolicy,
    /// When it is ended although nobody asks for it.
    pub limits: Limits,
    /// A command that runs the program: these words, then the program and its arguments, as one `argv` and
    /// through no shell.
    pub wrapper: Vec<String>,
    /// Of the broker's own environment only these variables; `None` for all that are fit for an agent. The
    /// terminal's variables, those of the spawn and the agent's own identity are there in any case.
    pub env_allow: Option<Vec<String>>,
    /// What the program leaves behind (a development server) goes on when the agent ends.
    pub keep_daemons: bool,
}

/// Words of a wrapper.
const WRAPPER_WORDS_MAX: usize = 64;
/// Variables of an allow-list.
const ENV_ALLOW_MAX: usize = 256;
/// More restarts than anybody means.
const RESTARTS_MAX: u32 = 1000;

/// A wish about a process that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProcessSpec {
    /// The wrapper begins with nothing, holds a NUL, or has no end.
    #[error("a wrapper is a program and its arguments, at most {WRAPPER_WORDS_MAX} words without a NUL")]
    Wrapper,
    /// A name that no variable can have.
    #[error("`{0}` cannot name an environment variable")]
    Variable(String),
    /// Too many names.
    #[error("an environment allow-list has at most {ENV_ALLOW_MAX} names")]
    AllowList,
    /// A limit of nothing.
    #[error("a limit must be above zero; leave it out for none")]
    Limit,
    /// More restarts than anybody means.
    #[error("at most {RESTARTS_MAX} restarts can be asked for")]
    Restarts,
}

impl ProcessSpec {
    /// Looks whether all of it makes sense.
    ///
    /// # Errors
    /// [`BadProcessSpec`], the first that is found.
    pub fn check(&self) -> Result<(), BadProcessSpec> {
        let empty_head = self.wrapper.first().is_some_and(|program| program.trim().is_empty());
        let unfit = self.wrapper.iter().any(|word| word.contains('\0'));
        if empty_head || unfit || self.wrapper.len() > WRAPPER_WORDS_MAX {
            return Err(BadProcessSpec::Wrapper);
        }
        if let Some(allowed) = &self.env_allow {
            if allowed.len() > ENV_ALLOW_MAX {
                return Err(BadProcessSpec::AllowList);
            }
            let unfit = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
            if let Some(bad) = allowed.iter().find(unfit) {
                return Err(BadProcessSpec::Variable(bad.clone()));
            }
        }
        let Limits { max_runtime, idle, output_bytes } = &self.limits;
        let nothing = |limit: &Option<Duration>| limit.is_some_and(|limit| limit.is_zero());
        if nothing(max_runtime) || nothing(idle) || *output_bytes == Some(0) {
            return Err(BadProcessSpec::Limit);
        }
        if self.restart.max > RESTARTS_MAX {
            return Err(BadProcessSpec::Restarts);
        }
        Ok(())
    }
}

/// Whether an agent whose program ended by itself gets another one (spec/pty 5.8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    /// In which cases.
    pub when: RestartWhen,
    /// Most restarts without a spell of five minutes between them, 5 unless said otherwise.
    pub max: u32,
    /// Before the first restart, 2 s unless said otherwise; doubled for each further one, up to 60 s.
    pub backoff: Duration,
    /// Ends in a row, each within 10 s of its start, that are a crash loop: 3 unless said otherwise.
    pub loop_after: u32,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { when: RestartWhen::Never, max: 5, backoff: Duration::from_secs(2), loop_after: 3 }
    }
}

/// In which cases a program is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartWhen {
    /// In none.
    #[default]
    Never,
    /// When it failed: a code other than 0, or a signal that was not ours.
    OnFailure,
    /// As `OnFailure`, and the next program takes up the session of the last one, where that is known. So does a
    /// spawn of the name after the broker itself has ended.
    Resume,
}

/// When an agent is ended although nobody asks for it; `None` for never.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Since its start.
    pub max_runtime: Option<Duration>,
    /// Without output, input or a message.
    pub idle: Option<Duration>,
    /// Of output.
    pub output_bytes: Option<u64>,
}

/// A session that a program keeps by itself, known once a turn of ours is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSession {
    /// What the program calls it.
    pub id: SessionRef,
    /// The rule set of the program, which says how it is taken up again.
    pub harness: String,
    /// Where the program ran: most look for their sessions there alone.
    pub cwd: PathBuf,
}

/// How a child ended. True facts from `waitid` and from the broker's own books, never guesses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code, when it exited.
    pub code: Option<i32>,
    /// Signal name (`SIGTERM`), when it was killed.
    pub signal: Option<String>,
    /// True when a core was dumped.
    pub core_dumped: bool,
    /// Who ended it.
    pub by: EndedBy,
    /// What it comes to.
    pub class: ExitClass,
    /// Lifetime in milliseconds.
    pub uptime_ms: u64,
    /// What the agent was doing.
    pub state: AgentState,
    /// The last screen, at most 40 lines and 2000 characters, with secrets blotted out.
    pub last_output: String,
    /// The last delivery that was put in.
    pub last_delivery: Option<DeliveryId>,
    /// Messages at its terminal that had no proof yet: the engine keeps them.
    pub pending: usize,
    /// Those of them that stood in its composer, or were on their way into it.
    #[serde(default)]
    pub unproven: Vec<DeliveryId>,
    /// The most memory that it, or a process of its tree that it waited for, ever had resident; in bytes.
    pub peak_memory: Option<u64>,
    /// Other processes of its tree that had to be ended.
    pub swept: Vec<u32>,
}

impl ExitRecord {
    /// `code 7` or `signal SIGKILL`.
    pub fn how(&self) -> String {
        match (&self.code, &self.signal) {
            (Some(code), _) => format!("code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "unknown".to_owned(),
        }
    }

    /// An end with this code, of which nothing else is known.
    #[cfg(test)]
    pub fn with_code(by: EndedBy, code: i32) -> Self {
        Self {
            code: Some(code),
            signal: None,
            core_dumped: false,
            by,
            class: if by == EndedBy::Itself { ExitClass::Error } else { ExitClass::KilledByUs },
            uptime_ms: 1,
            state: AgentState::Idle,
            last_output: String::new(),
            last_delivery: None,
            pending: 0,
            unproven: Vec::new(),
            peak_memory: None,
            swept: Vec::new(),
        }
    }

    /// True when it ended by itself and not with code 0.
    pub fn is_failure(&self) -> bool {
        self.by == EndedBy::Itself && self.code != Some(0)
    }
}

/// Who ended a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// Itself, or somebody outside.
    Itself,
    /// A release.
    Release,
    /// The broker's own shutdown.
    Shutdown,
    /// The limit of its lifetime.
    MaxRuntime,
    /// The limit of its idleness.
    IdleLimit,
    /// The limit of its output.
    OutputLimit,
}

impl EndedBy {
    /// In words, of an agent.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Itself => "the agent exited",
            Self::Release => "the agent was released",
            Self::Shutdown => "the broker was shut down",
            Self::MaxRuntime => "the agent reached the limit of its lifetime",
            Self::IdleLimit => "the agent was idle for as long as it may be",
            Self::OutputLimit => "the agent reached the limit of its output",
        }
    }

    /// The reason in events: `released`, `child_exited`, or the limit.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Itself => "child_exited",
            Self::Release | Self::Shutdown => "released",
            Self::MaxRuntime => "max_runtime",
            Self::IdleLimit => "idle_limit",
            Self::OutputLimit => "output_limit",
        }
    }
}

/// What an end comes to (spec/pty 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitClass {
    /// It ended by itself with code 0.
    Clean,
    /// It ended by itself with another code.
    Error,
    /// A signal ended it that the broker did not send.
    Signal,
    /// The kernel killed it for want of memory: its cgroup counted such a kill at that time.
    Oom,
    /// A release or the broker's shutdown ended it.
    KilledByUs,
    /// One of its limits ended it.
    Limit,
    /// It ended by itself once more right after its start, and is not started again.
    CrashLoop,
    /// It failed before it was ever ready.
    NeverReady,
    /// It could not be started at all.
    ExecFailed,
    /// It ended while it asked for a login.
    AuthNeeded,
}

impl ExitClass {
    /// True for the ends that a person should look at.
    pub const fn is_crash(self) -> bool {
        !matches!(self, Self::Clean | Self::KilledByUs | Self::Limit)
    }
}

/// An end of the past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastExit {
    /// Whose.
    pub name: AgentName,
    /// What ran.
    pub program: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How.
    pub exit: ExitRecord,
    /// The session it was in.
    #[serde(default)]
    pub session: Option<KnownSession>,
}

/// http -> registry: the ends of the past, oldest first.
#[derive(Debug)]
pub struct ListExits(pub Reply<Vec<PastExit>>);

told!(ListExits);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_its_name() {
        let with = |change: &dyn Fn(&mut ProcessSpec)| {
            let mut spec = ProcessSpec::default();
            change(&mut spec);
            spec.check()
        };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(with(&|_| {}), Ok(()));
        assert_eq!(with(&|spec| spec.wrapper = words(&["nice", "-n", "", "5"])), Ok(()));
        for wrapper in [words(&[" "]), words(&["nice", "\0"]), vec!["x".to_owned(); 65]] {
            assert_eq!(with(&|spec| spec.wrapper = wrapper.clone()), Err(BadProcessSpec::Wrapper));
        }
        let refused = with(&|spec| spec.env_allow = Some(words(&["PATH", "A=B"])));
        assert_eq!(refused, Err(BadProcessSpec::Variable("A=B".into())));
        let refused = with(&|spec| spec.env_allow = Some(vec!["A".into(); 257]));
        assert_eq!(refused, Err(BadProcessSpec::AllowList));
        assert_eq!(with(&|spec| spec.limits.idle = Some(Duration::ZERO)), Err(BadProcessSpec::Limit));
        assert_eq!(with(&|spec| spec.limits.output_bytes = Some(0)), Err(BadProcessSpec::Limit));
        assert_eq!(with(&|spec| spec.restart.max = 1001), Err(BadProcessSpec::Restarts));
    }
}
