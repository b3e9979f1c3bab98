//! The assembly of all rooms into one running broker.

use crate::{config::Config, ids::ApiKey};

/// Where the local API listens.
#[derive(Clone, Debug)]
pub struct Listening {
    /// `http://<bind>:<port>`.
    pub url: String,
    /// The port that was bound.
    pub port: u16,
    /// What guards it.
    pub api_key: ApiKey,
}

/// Runs a broker until it ends, and answers its exit code. `on_listening` is called once the port is
/// bound, before the engine is contacted.
///
/// # Errors
/// Whatever kept it from starting.
pub fn run(
    config: Config,
    on_listening: impl FnOnce(&Listening) -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    drop((config, on_listening));
    anyhow::bail!("not assembled yet")
}
