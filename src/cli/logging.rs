//! Log lines, on standard error.

use std::{io::IsTerminal, panic};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Env, env};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends log lines to standard error, and panics into the log: one line each, no backtrace, because whoever
/// started us quotes the last lines only. To be called once.
pub fn install(format: LogFormat, default_filter: &str, env: &Env) {
    let wanted = env.text(env::LOG_FILTER).unwrap_or(default_filter);
    // A filter that does not parse must not keep the broker from running.
    let filter = EnvFilter::try_new(wanted).unwrap_or_else(|_| EnvFilter::new(default_filter));
    // A line that cannot be written, because the disk below the log is full, is lost: the complaint about it would
    // go the same way, and end the broker.
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
    panic::set_hook(Box::new(|info| {
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let said = payload.downcast_ref::<&str>().copied();
        let said = said.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        tracing::error!(at, message_of_panic = said.unwrap_or("no text"), "panicked");
    }));
}
