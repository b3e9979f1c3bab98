//! How a command ends: the exit codes of docs/operations.md, and failures that carry one.

use std::{io, process::ExitCode};

use crate::{config::ConfigErrors, wire::client::ApiError};

/// The exit codes, as documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed for a reason that is none of the others.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The configuration does not.
    Config = 3,
    /// The broker or the engine said no.
    Refused = 4,
    /// Another broker runs in this directory.
    Locked = 5,
    /// No such agent, or no broker.
    NotFound = 6,
    /// The broker gave up: restarting did not help.
    Escalated = 70,
    /// Ctrl-C, or a signal that means the same.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure, as the user reads it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// A failure with this exit code. The text is lower case, has no full stop and names the next step.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    /// Its exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// True when there is nothing to say: whoever read our output has gone.
    pub fn is_silent(&self) -> bool {
        self.text.is_empty()
    }

    /// The same failure under the rule of `init`: programs that start a broker know 1 alone.
    #[must_use]
    pub fn for_programs(self) -> Self {
        Self { exit: Exit::Failed, ..self }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(Exit::Config, errors.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // `relay-broker ps | head -1` is no failure.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Ok, "");
        }
        Self::new(Exit::Failed, error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(|error| {
            let engine = error.chain().find_map(|cause| cause.downcast_ref::<ApiError>());
            let refused = engine.is_some_and(|engine| matches!(engine.status, Some(401 | 403)));
            Self::new(if refused { Exit::Refused } else { Exit::Failed }, format!("{error:#}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_exit_code_through_anyhow() {
        let failure = Failure::from(anyhow::Error::from(Failure::new(Exit::Locked, "taken")));
        assert_eq!((failure.exit(), failure.to_string().as_str()), (Exit::Locked, "taken"));
        let other = Failure::from(anyhow::anyhow!("inner").context("outer"));
        assert_eq!((other.exit(), other.to_string().as_str()), (Exit::Failed, "outer: inner"));
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(failure.is_silent());
        assert_eq!(failure.exit(), Exit::Ok);
    }
}
