//! From a configuration to an engine, a workspace and an identity.
//!
//! Trouble that passes (an engine that is not there yet) is waited out with the API up and not ready;
//! trouble that does not (a refused key, an unreadable seed) ends the start with its cause.

use std::path::Path;

use actix_rt::task::spawn_blocking;
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::{
    actors::{
        agent_registry::RegistryConfig,
        node_session::SessionConfig,
        supervisor::Settled,
        token_mint::{Identity, MintConfig},
    },
    config::{Config, EngineChoice},
    engine::{Engine, EngineConfig, EngineError},
    http,
    ids::{WorkspaceId, WorkspaceKey},
    messages::readiness::{Readiness, ReadinessBoard},
    pty,
    store::{
        Journal,
        identity::MachineSeed,
        private_file::{read_private, write_private},
    },
    supervision::policy::{BACKOFF_FIRST, BACKOFF_MAX},
    wire::client::{ApiError, ApiErrorKind, EngineClient, EngineEndpoint},
};

/// Names tried for a new workspace.
const NAMES_TRIED: u32 = 5;

/// What a booted house is built on.
pub(super) struct Booted {
    /// The embedded engine, if it is ours.
    pub(super) engine: Option<Engine>,
    /// What the actors are told.
    pub(super) settled: Settled,
    /// What the API shows.
    pub(super) shown: http::Workspace,
}

/// The workspace as it was found, kept so that the next start needs no engine for it.
#[derive(Clone, Serialize, Deserialize)]
struct StoredWorkspace {
    base_url: String,
    workspace_id: WorkspaceId,
    /// The key, when this broker made the workspace itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
    /// SHA-256 of the key that the id was found with.
    key_hash: String,
}

/// Finds engine, workspace and identity. Agents are told where the local API is.
pub(super) async fn boot(
    config: &Config,
    api_url: &str,
    journal: &Journal,
    readiness: &ReadinessBoard,
) -> anyhow::Result<Booted> {
    sweep_leftovers(journal).await;
    let file = config.state_dir.join("workspace.json");
    let stored = stored(&file)?;
    let (engine, endpoint) = match &config.engine {
        EngineChoice::Embedded => {
            let engine = start_engine(config, stored.as_ref()).await?;
            let endpoint = EngineEndpoint::parse(engine.base_url(), None)?;
            (Some(engine), endpoint)
        }
        EngineChoice::Remote { base_url, ws_url } => {
            (None, EngineEndpoint::parse(base_url, ws_url.as_deref())?)
        }
    };
    let client = EngineClient::new(endpoint.clone());
    let (key, workspace) = match &config.node_token {
        // A node that was enrolled elsewhere needs no key.
        Some(_) if config.workspace_key.is_none() => (None, None),
        _ => {
            let found = find_workspace(config, &client, stored, &file, readiness).await?;
            (Some(found.0), Some(found.1))
        }
    };

    let (data_dir, seed_dir) = (config.data_dir.clone(), config.data_dir.clone());
    let identity = match &config.node_id {
        Some(id) => Identity::Pinned(id.clone()),
        None => Identity::Derived {
            seed: spawn_blocking(move || MachineSeed::load_or_create(&seed_dir)).await??,
            cwd: config.cwd.clone(),
        },
    };
    let base_url = endpoint.base_url().to_owned();
    let settled = Settled {
        mint: MintConfig {
            endpoint: endpoint.clone(),
            workspace_key: key.clone(),
            workspace: workspace.clone(),
            identity,
            pinned_token: config.node_token.clone(),
            node_name: config.node_name.clone(),
            host: host_name(),
            harnesses: config.harnesses.clone(),
            max_agents: config.max_agents,
            tags: Vec::new(),
            data_dir,
        },
        session: SessionConfig {
            endpoint: endpoint.clone(),
            harnesses: config.harnesses.clone(),
            actions: config.actions.keys().cloned().collect(),
            max_agents: config.max_agents,
            tags: Vec::new(),
            timings: config.timings.clone(),
        },
        registry: RegistryConfig {
            endpoint,
            workspace_key: key.clone(),
            workspace: workspace.clone(),
            instance: config.instance.clone(),
            agent_type: config.agent_type.clone(),
            identity_file: config.state_dir.join("identity.json"),
            cwd: config.cwd.clone(),
            channels: config.channels.clone(),
            embedded: config.engine == EngineChoice::Embedded,
            handlers: config.handlers.clone(),
            actions: config.actions.clone(),
            result_url: format!("{api_url}{}", http::RESULT_PATH),
        },
    };
    let shown = http::Workspace {
        id: workspace,
        key,
        base_url,
        self_name: config.instance.clone(),
        self_agent_id: None,
    };
    Ok(Booted { engine, settled, shown })
}

/// Ends what an earlier broker process left behind when it was killed.
async fn sweep_leftovers(journal: &Journal) {
    for agent in journal.agents().into_iter().filter(|agent| !agent.keep_daemons) {
        let swept = pty::sweep_leftover(&agent.spawn, agent.pid, agent.started).await;
        if swept != pty::Swept::default() {
            warn!(agent = %agent.name, ?swept, "leftovers of a killed broker ended");
        }
    }
}

/// Starts the embedded engine, on its port of last time if that is free: agents and tokens know it by its
/// address.
async fn start_engine(config: &Config, stored: Option<&StoredWorkspace>) -> anyhow::Result<Engine> {
    let last_port = stored
        .and_then(|stored| stored.base_url.rsplit_once(':'))
        .and_then(|(_, port)| port.parse().ok())
        .unwrap_or(0);
    let mut wanted = EngineConfig::new(config.state_dir.join("engine.db"));
    wanted.port = last_port;
    let again = wanted.clone();
    match spawn_blocking(move || Engine::start(wanted)).await? {
        Err(EngineError::Bind { port, source }) if port != 0 => {
            warn!(port, %source, "the embedded engine's last port is taken, using another one");
            let mut any = again;
            any.port = 0;
            Ok(spawn_blocking(move || Engine::start(any)).await??)
        }
        started => Ok(started?),
    }
}

/// The workspace: as stored, as the key says, or a new one.
async fn find_workspace(
    config: &Config,
    client: &EngineClient,
    stored: Option<StoredWorkspace>,
    file: &Path,
    readiness: &ReadinessBoard,
) -> anyhow::Result<(WorkspaceKey, WorkspaceId)> {
    let base_url = client.endpoint().base_url().to_owned();
    let embedded = config.engine == EngineChoice::Embedded;
    let key = match &config.workspace_key {
        Some(key) => Some(key.clone()),
        None => stored
            .as_ref()
            .filter(|stored| embedded || stored.base_url == base_url)
            .and_then(|stored| stored.api_key.as_deref().map(WorkspaceKey::from)),
    };
    if let (Some(key), Some(stored)) = (&key, &stored)
        && stored.key_hash == hash(key)
        && stored.base_url == base_url
    {
        return Ok((key.clone(), stored.workspace_id.clone()));
    }
    let made_here = config.workspace_key.is_none();
    let mut delay = BACKOFF_FIRST;
    let (key, id) = loop {
        let tried = match &key {
            Some(key) => client.get_workspace(key).await.map(|found| (key.clone(), found.id)),
            None => create_workspace(config, client).await,
        };
        match tried {
            Ok(found) => break found,
            Err(error) if error.is_retryable() => {
                let pause = error.retry_after.unwrap_or(delay).max(delay);
                warn!(%error, engine = base_url, ?pause, "the engine is not there yet, trying again");
                readiness.set(Readiness::Starting {
                    doing: format!("waiting for the engine at {base_url}: {error}"),
                });
                tokio::time::sleep(pause).await;
                delay = (delay * 2).min(BACKOFF_MAX);
            }
            Err(error) => {
                let story = format!(
                    "the engine at {base_url} refuses the workspace key (check --workspace-key, \
                     RELAY_WORKSPACE_KEY and the engine's address)"
                );
                return Err(anyhow::Error::new(error).context(story));
            }
        }
    };
    let kept = StoredWorkspace {
        base_url,
        workspace_id: id.clone(),
        api_key: made_here.then(|| key.expose().to_owned()),
        key_hash: hash(&key),
    };
    let json = serde_json::to_vec(&kept)?;
    write_private(file, &json).with_context(|| format!("cannot keep the workspace in {}", file.display()))?;
    info!(workspace = %id, "workspace found");
    Ok((key, id))
}

/// A workspace of our own: for an embedded engine always, elsewhere where the engine lets anybody.
async fn create_workspace(
    config: &Config,
    client: &EngineClient,
) -> Result<(WorkspaceKey, WorkspaceId), ApiError> {
    let digest = Sha256::digest(config.cwd.as_os_str().as_encoded_bytes());
    let base = format!("relay-{}", hex(&digest[..4]));
    let mut name = base.clone();
    let mut tried = 1;
    let made = loop {
        match client.create_workspace(&name).await {
            // The name is somebody's, or was ours and its key is lost.
            Err(error) if error.status == Some(409) && tried < NAMES_TRIED => {
                tried += 1;
                name = format!("{base}-{:04x}", rand::random::<u16>());
            }
            made => break made?,
        }
    };
    let key = made.api_key.ok_or_else(|| ApiError {
        kind: ApiErrorKind::Unreadable,
        status: None,
        code: "no_api_key".to_owned(),
        message: "the engine made a workspace but kept its key".to_owned(),
        retry_after: None,
    })?;
    Ok((key, made.workspace_id))
}

fn stored(file: &Path) -> anyhow::Result<Option<StoredWorkspace>> {
    let bytes = read_private(file).with_context(|| format!("cannot read {}", file.display()))?;
    let Some(bytes) = bytes else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(stored) => Ok(Some(stored)),
        Err(error) => {
            bail!("{} is damaged ({error}); move it away to start with a new workspace", file.display())
        }
    }
}

fn hash(key: &WorkspaceKey) -> String {
    hex(&Sha256::digest(key.expose().as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// This machine's name, for the node's default name.
fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "host".to_owned())
}
