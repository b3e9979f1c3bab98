//! The command line: one file per subcommand. `up` and `init` are the broker itself, everything else is a
//! client of a running one (see [`find`] for how it is found) and knows nothing that the local API does not
//! say.

use clap::{Parser, Subcommand};

use crate::config::Env;

mod actors;
mod agent;
mod answer;
mod attach;
mod broker;
mod client;
mod connection;
mod crashes;
mod dead_letters;
mod demo;
mod down;
mod exit;
mod explain;
mod find;
mod guard;
mod harness;
mod hold;
mod init;
mod lock;
mod logging;
mod logs;
mod mcp;
mod process_args;
mod ps;
mod release;
mod resume;
mod send;
mod snapshot;
mod spawn;
mod ui;
mod up;

pub use exit::{Exit, Failure};
pub use guard::run as stand_guard;
pub use logging::{LogFormat, install as install_logging};

/// Makes this machine a node of a Relaycast workspace: runs coding CLIs, or any command, as agents in
/// terminals and brings them their messages, once, in order, with proof.
#[derive(Debug, Parser)]
#[command(
    name = "relay-broker",
    version,
    arg_required_else_help = true,
    after_help = "Start with `relay-broker demo`. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 bad \
                  configuration, 4 refused, 5 already running, 6 no such agent or no broker, 70 gave up."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How log lines look on standard error; RUST_LOG says which there are.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker here, until Ctrl-C; with an engine of its own unless --engine names one.
    Up(up::Args),
    /// Start an agent in a terminal of its own.
    Spawn(spawn::Args),
    /// List the agents.
    Ps(ps::Args),
    /// Send a message to an agent or a #channel.
    Send(send::Args),
    /// Serve an agent's tools to its program over MCP, on standard input and output; started by that program.
    Mcp,
    /// End an agent.
    Release(release::Args),
    /// Say where an agent's last message is and what it waits for.
    Explain(explain::Args),
    /// Hold an agent's messages back until they are let through.
    Hold(hold::Whose),
    /// Let through what is held now, once.
    Flush(hold::FlushArgs),
    /// Let an agent's messages go in as they come; the opposite of `hold`.
    Auto(hold::Whose),
    /// Answer a dialog that an agent's program has opened.
    Answer(answer::Args),
    /// Have an agent's terminal on this one, to watch it or to type into it.
    Attach(attach::Args),
    /// Show what an agent's terminal has shown, also of an agent that has ended.
    Logs(logs::Args),
    /// Show an agent's screen.
    Snapshot(snapshot::Args),
    /// List the messages that could not be put into an agent, or try them again.
    DeadLetters(dead_letters::Args),
    /// Show how programs of agents have ended.
    Crashes(crashes::Args),
    /// Show every actor of the broker: state, restarts, mailbox.
    Actors(actors::Args),
    /// Wake what waits for a person, for example after the workspace key was refused.
    Resume(resume::Args),
    /// Stop the broker and its agents.
    Down(down::Args),
    /// Show what is known of programs, check a rule set, record a screen.
    Harness(harness::Args),
    /// Watch two agents talk, hop by hop, in a directory that is removed afterwards.
    Demo(demo::Args),
    /// Run a broker for a program: prints one line with its address on standard output.
    Init(init::Args),
    /// Show an agent's screen (the older name of `snapshot`).
    DumpPty(snapshot::DumpArgs),
    /// End what a killed broker leaves behind; started by the broker.
    #[command(hide = true)]
    Guard,
}

impl Cli {
    /// What is logged when RUST_LOG says nothing. Programs that start a broker quote the end of its standard
    /// error, so `init` logs little.
    pub fn default_log_filter(&self) -> &'static str {
        match self.command {
            Command::Up(_) => "info,actix_server=warn,actix_web=warn",
            _ => "warn",
        }
    }

    /// True for the one that works below a broker, and needs neither a log nor anything else of a client.
    pub fn is_guard(&self) -> bool {
        matches!(self.command, Command::Guard)
    }

    /// Does what was asked.
    ///
    /// # Errors
    /// A text for the user and the exit code that goes with it.
    pub fn run(self, env: &Env) -> Result<Exit, Failure> {
        match self.command {
            Command::Up(args) => up::run(args, env),
            Command::Init(args) => init::run(args, env),
            Command::Spawn(args) => spawn::run(args, env),
            Command::Ps(args) => ps::run(&args, env),
            Command::Send(args) => send::run(args, env),
            Command::Mcp => mcp::run(env),
            Command::Release(args) => release::run(&args, env),
            Command::Explain(args) => explain::run(&args, env),
            Command::Hold(args) => hold::hold(&args, env),
            Command::Flush(args) => hold::flush(&args, env),
            Command::Auto(args) => hold::auto(&args, env),
            Command::Answer(args) => answer::run(&args, env),
            Command::Attach(args) => attach::run(&args, env),
            Command::Logs(args) => logs::run(&args, env),
            Command::Snapshot(args) => snapshot::run(&args, env),
            Command::DumpPty(args) => snapshot::dump(args, env),
            Command::DeadLetters(args) => dead_letters::run(&args, env),
            Command::Crashes(args) => crashes::run(&args, env),
            Command::Actors(args) => actors::run(&args, env),
            Command::Resume(args) => resume::run(&args, env),
            Command::Down(args) => down::run(&args, env),
            Command::Harness(args) => harness::run(&args, env),
            Command::Demo(args) => demo::run(&args, env),
            Command::Guard => Ok(guard::run()),
        }
    }
}

/// An agent's name on the command line.
fn agent_name(text: &str) -> Result<crate::ids::AgentName, String> {
    crate::ids::AgentName::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_after_two_dashes_belongs_to_the_command() {
        let words = ["relay-broker", "spawn", "a", "--task", "t", "--", "sh", "-c", "echo --json"];
        let Command::Spawn(args) = Cli::try_parse_from(words).unwrap().command else { panic!("not a spawn") };
        assert_eq!(args.command, ["sh", "-c", "echo --json"]);
        assert_eq!(args.task.as_deref(), Some("t"));
    }
}
