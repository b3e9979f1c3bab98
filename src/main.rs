//! The `relay-broker` binary: parses the command line, prepares the process, runs.

use std::process::ExitCode;

use clap::Parser;
use relay_broker::{
    cli::{self, Cli, install_logging},
    config::Env,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.is_guard() {
        return cli::stand_guard().into();
    }
    let env = Env::of_process();
    install_logging(cli.log_format, cli.default_log_filter(), &env);
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider was installed already");
    }
    match cli.run(&env) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.is_silent() {
                complain(&failure.to_string());
            }
            failure.exit().into()
        }
    }
}

/// The last line on standard error says what went wrong: whoever started us quotes it.
fn complain(text: &str) {
    use std::io::Write;
    // Nobody is left to tell when standard error is closed.
    writeln!(std::io::stderr(), "relay-broker: {text}").ok();
}
