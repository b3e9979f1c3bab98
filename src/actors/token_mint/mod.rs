//! The node token: where it comes from, and the one place that holds it.

use std::path::PathBuf;

use actix::{Actor, Context, Handler, Supervised};

use crate::{
    ids::{NodeId, NodeName, NodeToken, WorkspaceId, WorkspaceKey},
    messages::token::{EnrolAgain, GetToken, TokenRefused},
    store::identity::MachineSeed,
    supervision::Lifeline,
};

/// What the mint was told.
#[derive(Clone, Debug)]
pub struct MintConfig {
    /// The engine's HTTP base.
    pub base_url: String,
    /// Administers the workspace. Needed for everything but a pinned token.
    pub workspace_key: Option<WorkspaceKey>,
    /// The workspace, when it is known already; else the engine is asked by key.
    pub workspace: Option<WorkspaceId>,
    /// Who this node is.
    pub identity: Identity,
    /// A token that was enrolled elsewhere (`RELAY_NODE_TOKEN`), used verbatim and never replaced.
    pub pinned_token: Option<NodeToken>,
    /// The node's name; `<host>-<6 hex of the node id>` when absent.
    pub node_name: Option<NodeName>,
    /// This machine's name, for the default node name.
    pub host: String,
    /// `spawn:<harness>` capabilities, by name.
    pub capabilities: Vec<String>,
    /// Most agents at once; 0 is unlimited.
    pub max_agents: u32,
    /// Free words about the node.
    pub tags: Vec<String>,
    /// Where `node-tokens/` is.
    pub data_dir: PathBuf,
}

/// Who this node is.
#[derive(Clone, Debug)]
pub enum Identity {
    /// As configured, verbatim.
    Pinned(NodeId),
    /// Follows from machine, directory and workspace; the seed itself when a token is pinned without an id.
    Derived {
        /// The machine's seed.
        seed: MachineSeed,
        /// The canonical directory.
        cwd: PathBuf,
    },
}

/// The actor.
pub struct TokenMint {
    life: Lifeline,
    config: MintConfig,
}

impl TokenMint {
    /// The mint of one node.
    pub fn new(life: Lifeline, config: MintConfig) -> Self {
        Self { life, config }
    }
}

impl Actor for TokenMint {
    type Context = Context<Self>;

    fn started(&mut self, _ctx: &mut Self::Context) {
        self.life.started();
        self.life.state(format!("for {}", self.config.base_url));
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.life.stopped();
    }
}

impl Supervised for TokenMint {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        self.life.restarting();
    }
}

fn not_yet() -> TokenRefused {
    TokenRefused::Retry { why: "the mint is not open".to_owned(), after: std::time::Duration::from_secs(1) }
}

impl Handler<GetToken> for TokenMint {
    type Result = ();

    fn handle(&mut self, asked: GetToken, _ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        asked.reply.send(Err(not_yet()));
    }
}

impl Handler<EnrolAgain> for TokenMint {
    type Result = ();

    fn handle(&mut self, asked: EnrolAgain, _ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        asked.reply.send(Err(not_yet()));
    }
}
