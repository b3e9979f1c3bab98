//! Agents: creating, finding, rotating, deleting.

use crate::{
    engine::{
        core::Core,
        error::Failure,
        ids,
        rules::text::is_name,
        store::{AgentRow, ChannelRow, NewAgent},
    },
    wire::{
        api::{CreateAgent, PatchAgent},
        codes::AGENT_EXISTS,
    },
};

/// The channel that everyone is in.
pub(in crate::engine) const GENERAL: &str = "general";

impl Core {
    /// Creates an agent and lets it into `#general`; answers its token, which is never stored.
    pub(in crate::engine) fn create_agent(
        &mut self,
        workspace: i64,
        wish: &CreateAgent,
    ) -> Result<(AgentRow, String), Failure> {
        if !is_name(&wish.name) {
            return Err(Failure::bad_request(
                "invalid_request",
                "a name has 1 to 128 characters, no slash, no control",
            ));
        }
        if self.store.agent_by_name(workspace, &wish.name)?.is_some() {
            return Err(Failure::conflict(AGENT_EXISTS, format!("{} exists", wish.name)));
        }
        let token = ids::mint("at_live_", 16)?;
        let metadata = serde_json::Value::Object(wish.metadata.clone().unwrap_or_default()).to_string();
        let capabilities = wish.capabilities.as_ref().map(ToString::to_string);
        let id = self.store.insert_agent(
            workspace,
            &NewAgent {
                name: &wish.name,
                kind: wish.kind.as_deref().unwrap_or("agent"),
                persona: wish.persona.as_deref(),
                metadata: &metadata,
                capabilities: capabilities.as_deref(),
                token_hash: &ids::fingerprint(&token),
            },
        )?;
        if let Some(general) = self.store.channel_by_name(workspace, GENERAL)? {
            self.store.join(general.id, id, "member")?;
        }
        let agent = self.store.agent(id)?.ok_or(Failure::Aborted("a fresh agent is missing"))?;
        Ok((agent, token))
    }

    /// The agent of that name.
    pub(in crate::engine) fn agent_named(&self, workspace: i64, name: &str) -> Result<AgentRow, Failure> {
        let name = name.strip_prefix('@').unwrap_or(name);
        self.store
            .agent_by_name(workspace, name)?
            .ok_or_else(|| Failure::not_found("agent_not_found", format!("there is no agent {name}")))
    }

    /// The channel of that name.
    pub(in crate::engine) fn channel_named(&self, workspace: i64, name: &str) -> Result<ChannelRow, Failure> {
        let name = name.strip_prefix('#').unwrap_or(name);
        self.store
            .channel_by_name(workspace, name)?
            .ok_or_else(|| Failure::not_found("channel_not_found", format!("there is no channel {name}")))
    }

    /// Gives an agent a new token; the former one is dead at once.
    pub(in crate::engine) fn rotate_agent_token(&mut self, agent: i64) -> Result<String, Failure> {
        let token = ids::mint("at_live_", 16)?;
        self.store.set_agent_token(agent, &ids::fingerprint(&token))?;
        Ok(token)
    }

    /// Changes what a patch names.
    pub(in crate::engine) fn patch_agent(
        &mut self,
        mut agent: AgentRow,
        patch: PatchAgent,
    ) -> Result<AgentRow, Failure> {
        if let Some(status) = patch.status {
            agent.status = status;
        }
        if patch.persona.is_some() {
            agent.persona = patch.persona;
        }
        if let Some(metadata) = patch.metadata {
            agent.metadata = serde_json::Value::Object(metadata).to_string();
        }
        if let Some(capabilities) = patch.capabilities {
            agent.capabilities = Some(capabilities.to_string());
        }
        self.store.update_agent(&agent)?;
        Ok(agent)
    }
}
