//! Who is asking.

use crate::engine::{
    core::Core,
    error::Failure,
    ids::fingerprint,
    store::{AgentRow, NodeRow},
};

/// How long an agent's `last_seen` may lag behind its last request (spec/wire 1.1).
const LAST_SEEN_LAG_MS: i64 = 30_000;

/// Whose token came with a request.
pub(in crate::engine) enum Caller {
    /// The key of this workspace.
    Key(i64),
    /// An agent.
    Agent(Box<AgentRow>),
}

impl Caller {
    /// The workspace that the caller belongs to.
    pub(in crate::engine) fn workspace(&self) -> i64 {
        match self {
            Self::Key(workspace) => *workspace,
            Self::Agent(agent) => agent.workspace,
        }
    }
}

impl Core {
    /// Reads a bearer token.
    pub(in crate::engine) fn caller(&mut self, token: Option<&str>) -> Result<Caller, Failure> {
        let Some(token) = token else {
            return Err(Failure::unauthorized(
                "unauthorized",
                "send Authorization: Bearer with a key or token",
            ));
        };
        if token.starts_with("nt_") {
            return Err(Failure::unauthorized("node_token_forbidden", "node tokens are for the node socket"));
        }
        let hash = fingerprint(token);
        if token.starts_with("at_") {
            let agent = self.store.agent_by_token(&hash)?.ok_or_else(|| {
                Failure::unauthorized("agent_token_invalid", "this agent token is not valid")
            })?;
            return Ok(Caller::Agent(Box::new(self.seen(agent)?)));
        }
        match self.store.workspace_by_key(&hash)? {
            Some(workspace) => Ok(Caller::Key(workspace.id)),
            None => Err(Failure::unauthorized("unauthorized", "Invalid API key")),
        }
    }

    /// The workspace of a caller with its key.
    pub(in crate::engine) fn key_holder(&mut self, token: Option<&str>) -> Result<i64, Failure> {
        match self.caller(token)? {
            Caller::Key(workspace) => Ok(workspace),
            Caller::Agent(_) => Err(Failure::unauthorized("unauthorized", "this needs the workspace key")),
        }
    }

    /// The agent that speaks.
    pub(in crate::engine) fn speaker(&mut self, token: Option<&str>) -> Result<AgentRow, Failure> {
        match self.caller(token)? {
            Caller::Agent(agent) => Ok(*agent),
            Caller::Key(_) => Err(Failure::forbidden("agent_token_required", "this needs an agent token")),
        }
    }

    /// The node that a token opens the socket of.
    pub(in crate::engine) fn node_of_token(&self, token: &str) -> Result<Option<NodeRow>, Failure> {
        if !token.starts_with("nt_") {
            return Ok(None);
        }
        Ok(self.store.node_by_token(&fingerprint(token))?)
    }

    fn seen(&mut self, mut agent: AgentRow) -> Result<AgentRow, Failure> {
        let now = self.store.now();
        if agent.status != "active" || now - agent.last_seen > LAST_SEEN_LAG_MS {
            self.store.touch_agent(agent.id)?;
            agent.last_seen = now;
            "active".clone_into(&mut agent.status);
        }
        Ok(agent)
    }
}
