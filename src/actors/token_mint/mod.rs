//! The node token: where it comes from, and the one place that holds it.
//!
//! ```text
//! Idle --GetToken, EnrolAgain--> Working --token--> Idle      (all who wait are answered alike)
//!                                   |--engine away--> Idle    (all are told when to ask again)
//!                                   `--key refused--> exit, parked
//! ```
//!
//! One piece of work at a time, whoever asks meanwhile shares its result. A pinned token is given as it is; else
//! the cache is asked, then the engine. The former token stays on disk until the new one is; when it cannot be
//! stored, the node runs on the one in memory and says so.
//!
//! A restart forgets the work under way and who waited for it (they see the question dropped, and ask again). It
//! keeps the token, its generation and the workspace's id.

mod enrol;
mod job;
mod resolve;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Supervised, WrapFuture};
use tracing::{info, warn};

use self::{
    job::{Job, Obtained, Why},
    resolve::{AtHand, Next},
};
use crate::{
    ids::{Generation, NodeId, NodeName, NodeToken, WorkspaceId, WorkspaceKey},
    messages::{
        Reply,
        lifecycle::ExitReason,
        token::{EnrolAgain, GetToken, TokenGrant, TokenRefused},
    },
    store::identity::MachineSeed,
    supervision::{Detail, Lifeline},
    wire::client::EngineEndpoint,
};

/// What the mint was told.
#[derive(Clone, Debug)]
pub struct MintConfig {
    /// Where the engine is.
    pub endpoint: EngineEndpoint,
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
    /// Harness names; each is advertised as `spawn:<harness>`.
    pub harnesses: Vec<String>,
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

type Asker = Reply<Result<TokenGrant, TokenRefused>>;

/// The actor.
pub struct TokenMint {
    life: Lifeline,
    config: MintConfig,
    /// The token in use, with what belongs to it.
    grant: Option<TokenGrant>,
    /// Generations are never used twice.
    generation: Generation,
    workspace: Option<WorkspaceId>,
    /// Whether the token in use is on disk.
    persisted: bool,
    mints: u64,
    // Of one life.
    askers: Vec<Asker>,
    working: bool,
    failures: u32,
    pinned_given: bool,
}

impl TokenMint {
    /// The mint of one node.
    pub fn new(life: Lifeline, config: MintConfig) -> Self {
        let workspace = config.workspace.clone();
        let grant = pinned_grant(&config);
        Self {
            life,
            config,
            grant,
            generation: Generation::default(),
            workspace,
            persisted: true,
            mints: 0,
            askers: Vec::new(),
            working: false,
            failures: 0,
            pinned_given: false,
        }
    }

    fn at_hand(&self) -> AtHand {
        let pinned = self.config.pinned_token.is_some();
        let held = self.grant.as_ref().map(|grant| grant.generation);
        AtHand { pinned, pinned_given: self.pinned_given, held: held.filter(|_| !pinned) }
    }

    fn give(&mut self, asker: Asker) {
        if let Some(grant) = &self.grant {
            self.pinned_given = self.config.pinned_token.is_some();
            asker.send(Ok(grant.clone()));
        }
    }

    /// A pinned token, or the wish of a person, that the engine refuses: nothing but a person helps.
    fn refuse_pinned(&mut self, ctx: &mut Context<Self>, asker: Asker, why: &str) {
        let why = format!("{why}; set a valid RELAY_NODE_TOKEN, or none and a workspace key");
        self.askers.push(asker);
        self.refused(ctx, TokenRefused::KeyRefused { why });
    }

    /// Puts an asker in line, and sets to work unless that is under way.
    fn work(&mut self, ctx: &mut Context<Self>, asker: Asker, why: Why) {
        self.askers.push(asker);
        if self.working {
            return;
        }
        self.working = true;
        self.life.state(why.as_str());
        let job = Job::new(&self.config, self.workspace.clone(), self.grant.clone(), why, self.failures);
        ctx.spawn(job.run().into_actor(self).map(|done, this, ctx| {
            this.working = false;
            match done {
                Ok(obtained) => this.obtained(obtained),
                Err(refused) => this.refused(ctx, refused),
            }
        }));
    }

    fn obtained(&mut self, obtained: Obtained) {
        let Obtained { token, minted, node_id, node_name, workspace, notes, unpersisted } = obtained;
        if minted {
            self.generation = self.generation.next();
            self.mints += 1;
            info!(node = %node_id, name = %node_name, generation = %self.generation, "node enrolled");
        }
        for note in &notes {
            warn!(note, "enrolment differs from the configuration");
            self.life.error(note.as_str());
        }
        self.persisted = unpersisted.is_none();
        if let Some(why) = unpersisted {
            warn!(why, "the node token cannot be stored, running on the one in memory");
            self.life.error(format!("degraded: the node token cannot be stored: {why}"));
        }
        self.failures = 0;
        self.workspace = Some(workspace);
        let grant = TokenGrant { token, generation: self.generation, node_id, node_name };
        for asker in self.askers.drain(..) {
            asker.send(Ok(grant.clone()));
        }
        self.grant = Some(grant);
        self.show();
    }

    fn refused(&mut self, ctx: &mut Context<Self>, refused: TokenRefused) {
        self.life.error(refused.to_string());
        self.failures = self.failures.saturating_add(1);
        for asker in self.askers.drain(..) {
            asker.send(Err(refused.clone()));
        }
        self.show();
        match refused {
            TokenRefused::Retry { why, after } => warn!(why, ?after, "no node token yet"),
            TokenRefused::KeyRefused { why } => self.life.exit(ctx, ExitReason::KeyRefused(why)),
        }
    }

    /// Writes the node's name down beside its token, then answers. It counts as work: a token that is minted
    /// meanwhile must not be overwritten. A pinned token is nowhere on disk, and neither is its name.
    fn keep_name(&mut self, ctx: &mut Context<Self>, asker: Asker) {
        let pinned = self.config.pinned_token.is_some();
        let known = self.workspace.clone().zip(self.grant.clone()).filter(|_| !pinned);
        let Some((workspace, grant)) = known else { return self.give(asker) };
        self.askers.push(asker);
        if self.working {
            return;
        }
        self.working = true;
        let kept = job::keep_name(self.config.clone(), workspace, grant);
        ctx.spawn(kept.into_actor(self).map(|kept, this, _| {
            this.working = false;
            if let Err(error) = kept {
                warn!(%error, "the node's other name is not kept, the next start tries the taken one first");
                this.life.error(format!("the node's name cannot be stored: {error}"));
            }
            for asker in std::mem::take(&mut this.askers) {
                this.give(asker);
            }
            this.show();
        }));
    }

    fn show(&self) {
        self.life.state(if self.grant.is_some() { "ready" } else { "no token" });
        let mut facts = vec![
            ("mints", self.mints.to_string()),
            ("generation", self.generation.to_string()),
            ("persisted", self.persisted.to_string()),
            ("source", if self.config.pinned_token.is_some() { "pinned" } else { "enrolled" }.to_owned()),
        ];
        if let Some(grant) = &self.grant {
            facts.push(("node_id", grant.node_id.to_string()));
            facts.push(("node_name", grant.node_name.to_string()));
        }
        self.life.detail(Detail::Facts(facts));
    }
}

/// What a pinned token opens: the pinned id, or the machine's own (spec/wire 5.4).
fn pinned_grant(config: &MintConfig) -> Option<TokenGrant> {
    let token = config.pinned_token.clone()?;
    let node_id = match &config.identity {
        Identity::Pinned(id) => id.clone(),
        Identity::Derived { seed, .. } => seed.verbatim(),
    };
    let node_name = config.node_name.clone().unwrap_or_else(|| resolve::default_name(&config.host, &node_id));
    Some(TokenGrant { token, generation: Generation::default(), node_id, node_name })
}

impl Actor for TokenMint {
    type Context = Context<Self>;

    fn started(&mut self, _ctx: &mut Self::Context) {
        self.life.started();
        self.show();
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.life.stopped();
    }
}

impl Supervised for TokenMint {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        self.life.restarting();
        // Dropping a question tells its asker.
        self.askers.clear();
        self.working = false;
        self.failures = 0;
        self.pinned_given = false;
    }
}

impl Handler<GetToken> for TokenMint {
    type Result = ();

    fn handle(&mut self, asked: GetToken, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let GetToken { rejected, reply } = asked;
        if reply.is_abandoned() {
            return;
        }
        match resolve::next(self.at_hand(), rejected) {
            Next::Give => self.give(reply),
            Next::Resolve => self.work(ctx, reply, Why::First),
            Next::Mint => self.work(ctx, reply, Why::Rejected),
            Next::RefusePinned => {
                self.refuse_pinned(ctx, reply, "the engine refuses the pinned node token");
            }
        }
    }
}

impl Handler<EnrolAgain> for TokenMint {
    type Result = ();

    fn handle(&mut self, asked: EnrolAgain, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let EnrolAgain { code, reply } = asked;
        let pinned = self.config.pinned_token.is_some();
        match (code.as_str(), &mut self.grant) {
            // The token is good, only the name is somebody's.
            ("node_name_conflict", Some(grant)) => {
                let wish = self
                    .config
                    .node_name
                    .clone()
                    .unwrap_or_else(|| resolve::default_name(&self.config.host, &grant.node_id));
                grant.node_name = enrol::suffixed(&wish, &job::spare());
                warn!(wish = %wish, name = %grant.node_name, "the node's name is taken, using another");
                self.life.error(format!("the name {wish} is taken; using {}", grant.node_name));
                self.keep_name(ctx, reply);
            }
            _ if pinned => {
                let why = format!("the pinned node token does not fit the node id ({code})");
                self.refuse_pinned(ctx, reply, &why);
            }
            _ => self.work(ctx, reply, Why::NotOurs),
        }
    }
}
