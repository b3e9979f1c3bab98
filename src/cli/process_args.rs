//! The options of `spawn` that say how the process is run.

use serde::Serialize;

use crate::command_line;

/// The options.
#[derive(Debug, Default, clap::Args)]
pub(super) struct ProcessArgs {
    /// Start the program again when it fails: `on-failure` as it was, `resume` in the session that it was in, where
    /// that is known [default: never].
    #[arg(long, value_name = "WHEN")]
    restart: Option<When>,
    /// Most restarts without a quiet spell of five minutes [default: 5].
    #[arg(long, value_name = "NUMBER", requires = "restart")]
    max_restarts: Option<u32>,
    /// End it after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    max_runtime: Option<u64>,
    /// End it after this many seconds without output, input or a message.
    #[arg(long, value_name = "SECONDS")]
    max_idle: Option<u64>,
    /// End it after this many bytes of output.
    #[arg(long, value_name = "BYTES")]
    max_output: Option<u64>,
    /// A command that runs the program, such as `nice -n 5`; split into words, and run without a shell.
    #[arg(long, value_name = "COMMAND", value_parser = words)]
    wrapper: Option<Words>,
    /// Pass on this variable of the broker's environment and no other; may be repeated.
    #[arg(long = "env-allow", value_name = "NAME")]
    env_allow: Vec<String>,
    /// Leave what the program started in the background running when the agent ends.
    #[arg(long)]
    keep_daemons: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum When {
    Never,
    OnFailure,
    Resume,
}

#[derive(Clone, Debug)]
struct Words(Vec<String>);

fn words(line: &str) -> Result<Words, command_line::BadLine> {
    let (program, args) = command_line::split(line)?;
    Ok(Words(std::iter::once(program).chain(args).collect()))
}

/// The same in the body of `POST /api/spawn`.
#[derive(Debug, Default, Serialize)]
pub(super) struct ProcessRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    restart: Option<Restart>,
    limits: Limits,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wrapper: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env_allow: Option<Vec<String>>,
    keep_daemons: bool,
}

#[derive(Debug, Serialize)]
struct Restart {
    when: When,
    max: Option<u32>,
}

#[derive(Debug, Default, Serialize)]
struct Limits {
    max_runtime_secs: Option<u64>,
    idle_secs: Option<u64>,
    output_bytes: Option<u64>,
}

impl From<ProcessArgs> for ProcessRequest {
    fn from(args: ProcessArgs) -> Self {
        Self {
            restart: args.restart.map(|when| Restart { when, max: args.max_restarts }),
            limits: Limits {
                max_runtime_secs: args.max_runtime,
                idle_secs: args.max_idle,
                output_bytes: args.max_output,
            },
            wrapper: args.wrapper.map(|Words(words)| words).unwrap_or_default(),
            env_allow: (!args.env_allow.is_empty()).then_some(args.env_allow),
            keep_daemons: args.keep_daemons,
        }
    }
}
