//! One piece of the mint's work, from the workspace's id to the stored token. Runs beside the actor and holds no
//! state of it; the decisions are those of [`super::resolve`] and [`super::enrol`].

use std::{io, sync::Arc};

use awc::http::StatusCode;
use tracing::warn;

use super::{
    Identity, MintConfig,
    enrol::{Enrolment, Outcome, Recorded, Row, Step, kept_name},
    resolve::{default_name, later, refusal},
};
use crate::{
    ids::{NodeId, NodeName, NodeToken, WorkspaceId, WorkspaceKey},
    messages::token::{TokenGrant, TokenRefused},
    store::token_cache::{CachedToken, Scope, TokenCache},
    wire::{
        api::{CreateNode, PublicNode},
        client::{ApiError, ApiErrorKind, EngineClient},
    },
};

/// Names that are tried beyond the first.
const SPARES: usize = 3;
/// Calls of one enrolment; the rules end long before.
const CALLS_MAX: usize = 32;

/// Why there is work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no token yet; one may be cached.
    First,
    /// The engine refused the token at hand.
    Rejected,
    /// The engine says that the token at hand is not for our node, or that there is no such node.
    NotOurs,
}

impl Why {
    /// In words, for the debug page.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::First => "resolving",
            Self::Rejected => "minting: the token was refused",
            Self::NotOurs => "minting: the node was not recognised",
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Obtained {
    pub(super) token: NodeToken,
    /// False for one from the cache.
    pub(super) minted: bool,
    pub(super) node_id: NodeId,
    pub(super) node_name: NodeName,
    pub(super) workspace: WorkspaceId,
    /// What a person should know.
    pub(super) notes: Vec<String>,
    /// Why it is not on disk.
    pub(super) unpersisted: Option<String>,
}

/// The work.
pub(super) struct Job {
    config: MintConfig,
    workspace: Option<WorkspaceId>,
    held: Option<TokenGrant>,
    why: Why,
    failures: u32,
}

/// A random word for a name.
pub(super) fn spare() -> String {
    format!("{:06x}", rand::random::<u32>() & 0xff_ffff)
}

/// The id that follows from the configuration.
fn own_id(config: &MintConfig, workspace: &WorkspaceId) -> NodeId {
    match &config.identity {
        Identity::Pinned(id) => id.clone(),
        Identity::Derived { seed, cwd } => seed.node_id(cwd, workspace),
    }
}

fn cache_of(config: &MintConfig, node_id: NodeId, workspace: WorkspaceId) -> Arc<TokenCache> {
    let base_url = config.endpoint.base_url().to_owned();
    Arc::new(TokenCache::new(&config.data_dir, Scope { node_id, workspace, base_url }))
}

/// Keeps the name that the node goes by now, so that the next start tries it first.
pub(super) async fn keep_name(
    config: MintConfig,
    workspace: WorkspaceId,
    grant: TokenGrant,
) -> io::Result<()> {
    let cache = cache_of(&config, own_id(&config, &workspace), workspace);
    let TokenGrant { token, node_id, node_name, .. } = grant;
    store(&cache, CachedToken { node_id, node_name: Some(node_name), token }).await
}

impl Job {
    pub(super) fn new(
        config: &MintConfig,
        workspace: Option<WorkspaceId>,
        held: Option<TokenGrant>,
        why: Why,
        failures: u32,
    ) -> Self {
        Self { config: config.clone(), workspace, held, why, failures }
    }

    pub(super) async fn run(self) -> Result<Obtained, TokenRefused> {
        let Some(key) = self.config.workspace_key.clone() else {
            let why = "there is neither a node token nor a workspace key; set RELAY_WORKSPACE_KEY";
            return Err(TokenRefused::KeyRefused { why: why.to_owned() });
        };
        let client = EngineClient::new(self.config.endpoint.clone());
        let workspace = match &self.workspace {
            Some(workspace) => workspace.clone(),
            None => client.get_workspace(&key).await.map_err(|error| self.refused(&error))?.id,
        };
        let own = own_id(&self.config, &workspace);
        let pinned = matches!(self.config.identity, Identity::Pinned(_));
        let wish = self.config.node_name.clone().unwrap_or_else(|| default_name(&self.config.host, &own));
        let cache = cache_of(&self.config, own.clone(), workspace.clone());
        let cached = load(&cache).await;

        if self.why == Why::First
            && let Some(CachedToken { node_id, node_name, token }) = cached
        {
            let recorded = Recorded { id: node_id.clone(), name: node_name };
            let node_name = kept_name(&wish, Some(&recorded)).unwrap_or(wish);
            return Ok(Obtained {
                token,
                minted: false,
                node_id,
                node_name,
                workspace,
                notes: Vec::new(),
                unpersisted: None,
            });
        }

        let known = self.known(cached);
        let recorded =
            known.as_ref().map(|known| Recorded { id: known.node_id.clone(), name: known.node_name.clone() });
        let spares = std::iter::repeat_with(spare).take(SPARES);
        let mut enrolment = Enrolment::new(own, pinned, wish, recorded, spares);
        let (token, under, node_id, node_name) =
            self.enrol(&client, &key, &mut enrolment, known.as_ref()).await?;
        let to_store = CachedToken { node_id: node_id.clone(), node_name: Some(under), token: token.clone() };
        let unpersisted = store(&cache, to_store).await.err().map(|error| error.to_string());
        let notes = enrolment.notes().to_vec();
        Ok(Obtained { token, minted: true, node_id, node_name, workspace, notes, unpersisted })
    }

    /// What is known of the node: the token in memory is newer than the one on disk. A token that turned out to
    /// be somebody else's says nothing about us.
    fn known(&self, cached: Option<CachedToken>) -> Option<CachedToken> {
        if self.why == Why::NotOurs {
            return None;
        }
        let held = self.held.as_ref().map(|held| CachedToken {
            node_id: held.node_id.clone(),
            // The name at the engine may be an older one: the one on disk.
            node_name: cached
                .as_ref()
                .and_then(|cached| cached.node_name.clone())
                .or_else(|| Some(held.node_name.clone())),
            token: held.token.clone(),
        });
        held.or(cached)
    }

    /// Makes the calls that the rules ask for. Answers the token, the name it was minted under, and the node.
    async fn enrol(
        &self,
        client: &EngineClient,
        key: &WorkspaceKey,
        enrolment: &mut Enrolment,
        known: Option<&CachedToken>,
    ) -> Result<(NodeToken, NodeName, NodeId, NodeName), TokenRefused> {
        let mut step = enrolment.begin();
        let mut minted = None;
        let mut failure = None;
        for _ in 0..CALLS_MAX {
            let result = match step {
                Step::LookUp(name) => {
                    client.find_node(key, name.as_str()).await.map(|node| Outcome::Found(node.map(row)))
                }
                Step::List => client
                    .list_nodes(key)
                    .await
                    .map(|nodes| Outcome::Listed(nodes.into_iter().map(row).collect())),
                Step::Mint { id, name } => {
                    let proof = known.filter(|known| known.node_id == id).map(|known| &known.token);
                    let body = self.body(id, &name);
                    client.create_node(key, &body, proof, None).await.map(|created| {
                        minted = Some((created.token, name));
                        Outcome::Minted(created.node.id)
                    })
                }
                Step::Done { id, name } => {
                    let Some((token, under)) = minted else { break };
                    return Ok((token, under, id, name));
                }
                Step::Failed => break,
                // Not a matter of the key: the next try, later, finds other spare names.
                Step::Stuck(why) => return Err(later(why, u32::MAX, None)),
            };
            let outcome = match result {
                Ok(outcome) => outcome,
                Err(error) => match outcome_of(&error) {
                    Some(outcome) => {
                        failure = Some(error);
                        outcome
                    }
                    None => return Err(self.refused(&error)),
                },
            };
            step = enrolment.step(outcome);
        }
        Err(match failure {
            Some(error) => self.refused(&error),
            None => later("enrolment came to no end".to_owned(), u32::MAX, None),
        })
    }

    fn body(&self, id: NodeId, name: &NodeName) -> CreateNode {
        let capabilities = self.config.harnesses.iter().map(|harness| format!("spawn:{harness}"));
        CreateNode {
            capabilities: Some(capabilities.collect()),
            max_agents: Some(u64::from(self.config.max_agents)),
            tags: Some(self.config.tags.clone()),
            ..CreateNode::broker(id, name)
        }
    }

    fn refused(&self, error: &ApiError) -> TokenRefused {
        refusal(error, self.failures)
    }
}

/// The failures that enrolment itself has an answer to.
fn outcome_of(error: &ApiError) -> Option<Outcome> {
    let status = error.status.and_then(|status| StatusCode::from_u16(status).ok());
    match (error.kind, error.code.as_str(), status) {
        (ApiErrorKind::Status, "node_name_conflict", _) => Some(Outcome::NameTaken),
        (ApiErrorKind::Status, "node_token_proof_required", _) => Some(Outcome::ProofWanted),
        (ApiErrorKind::Status, _, Some(StatusCode::INTERNAL_SERVER_ERROR)) => Some(Outcome::EngineFailed),
        _ => None,
    }
}

fn row(node: PublicNode) -> Row {
    Row { id: node.id, name: NodeName::from(node.name), live: node.live }
}

/// A cache that cannot be read is as good as none, except that the next mint has no proof to show.
async fn load(cache: &Arc<TokenCache>) -> Option<CachedToken> {
    let reading = cache.clone();
    match blocking(move || reading.load()).await {
        Ok(cached) => cached,
        Err(error) => {
            warn!(path = %cache.path().display(), %error, "the stored node token cannot be read");
            None
        }
    }
}

async fn store(cache: &Arc<TokenCache>, cached: CachedToken) -> io::Result<()> {
    let writing = cache.clone();
    let path = cache.path().display().to_string();
    let stored = blocking(move || writing.store(&cached)).await;
    stored.map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

/// File work, on a helper thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|ended| Err(io::Error::other(ended)))
}
