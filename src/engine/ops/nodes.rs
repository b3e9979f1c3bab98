//! Nodes: enrolment, binding, and what each frame of their socket does.

use std::{collections::HashSet, sync::Arc};

use serde_json::{Value, json};
use tracing::info;

use crate::{
    engine::{
        core::Core,
        error::Failure,
        frames,
        hub::{Effect, LinkId, Outbox},
        ids,
        rules::{cursor, is_live, text::is_name},
        store::{AgentRow, NewNode, NodeRow},
        views,
    },
    ids::Seq,
    wire::{
        api::{CreateAgent, CreateNode, NodeCapability, PublicNode},
        codes::{CURSOR_CAPABILITY, INVALID_MESSAGE, LOCATION_CONFLICT},
        frames::{
            AcceptedCapability, AgentDeregister, AgentRecover, AgentRegister, AgentRegistered, BrokerFrame,
            Capability, DeliveryAck, FrameError, InventorySync, InventorySynced, NodeHeartbeat, NodeRegister,
        },
    },
};

impl Core {
    /// Enrols a node, or rotates the token of the one that has this id. A name that belongs to another id
    /// is refused, because rotating it would throw a stranger's broker out.
    pub(in crate::engine) fn enrol(
        &mut self,
        workspace: i64,
        wish: &CreateNode,
    ) -> Result<(NodeRow, String), Failure> {
        if !is_name(&wish.name) {
            return Err(Failure::bad_request(
                "invalid_node_name",
                "a name has 1 to 128 characters, no slash, no control",
            ));
        }
        let role = wish.role.as_deref().unwrap_or("broker");
        if role == "direct" && wish.max_agents != Some(1) {
            return Err(Failure::bad_request(
                "direct_node_capacity_exceeded",
                "a direct node has max_agents 1",
            ));
        }
        let named = self.store.node_by_name(workspace, &wish.name)?;
        let known = match (&wish.node_id, &named) {
            (Some(id), Some(named)) if named.id != id.as_str() => {
                return Err(Failure::conflict(
                    "node_name_conflict",
                    format!("{} is the name of another node; choose another", wish.name),
                ));
            }
            (Some(id), None) => self.store.node(id.as_str())?,
            (_, Some(_)) => named,
            (None, None) => None,
        };
        if known.as_ref().is_some_and(|known| known.workspace != workspace) {
            return Err(Failure::conflict("node_name_conflict", "this node id belongs to another workspace"));
        }
        let id = match (&wish.node_id, &known) {
            (Some(id), _) => id.to_string(),
            (None, Some(known)) => known.id.clone(),
            (None, None) => format!("node_{}", self.store.next_id()),
        };
        let capabilities = match (&wish.capabilities, &known) {
            (Some(names), _) => {
                json!(names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()).to_string()
            }
            (None, Some(known)) => known.capabilities.clone(),
            (None, None) => "[]".to_owned(),
        };
        let tags = match (&wish.tags, &known) {
            (Some(tags), _) => json!(tags).to_string(),
            (None, Some(known)) => known.tags.clone(),
            (None, None) => "[]".to_owned(),
        };
        let token = ids::mint("nt_live_", 24)?;
        self.store.enrol_node(
            workspace,
            &NewNode {
                id: &id,
                name: &wish.name,
                kind: wish.kind.as_deref().unwrap_or("ws"),
                role,
                token_hash: &ids::fingerprint(&token),
                capabilities: &capabilities,
                tags: &tags,
                version: wish.version.as_deref().unwrap_or("unknown"),
                max_agents: stored(wish.max_agents.unwrap_or(0)),
            },
        )?;
        Ok((self.node_row(&id)?, token))
    }

    /// The node of that name.
    pub(in crate::engine) fn node_named(&self, workspace: i64, name: &str) -> Result<NodeRow, Failure> {
        let name = name.strip_prefix('#').unwrap_or(name);
        self.store
            .node_by_name(workspace, name)?
            .ok_or_else(|| Failure::not_found("node_not_found", format!("there is no node {name}")))
    }

    /// A node as its workspace sees it now.
    pub(in crate::engine) fn node_view(&self, node: &NodeRow) -> PublicNode {
        views::node(node, self.store.now(), self.limits.liveness)
    }

    /// Is the node heard of lately?
    pub(in crate::engine) fn node_is_live(&self, node: &NodeRow) -> bool {
        is_live(node.online, node.last_heartbeat_at, self.store.now(), self.limits.liveness)
    }

    /// Moves an agent to a node, leaving its token alone.
    pub(in crate::engine) fn bind(
        &mut self,
        agent: &AgentRow,
        node: &NodeRow,
        session_ref: Option<&str>,
        priority: i64,
    ) -> Result<AgentRow, Failure> {
        self.require_slot(agent.node.as_deref(), node)?;
        self.store.locate_agent(agent.id, &node.id, session_ref, priority)?;
        self.effect(Effect::Replay { node: node.id.as_str().into(), agents: vec![agent.id] });
        self.store.agent(agent.id)?.ok_or(Failure::Aborted("a bound agent is missing"))
    }

    /// A node's socket is open. What an earlier one was asked may have been lost with it.
    pub(in crate::engine) fn attach(
        &mut self,
        link: LinkId,
        node: &Arc<str>,
        outbox: Outbox,
    ) -> Result<(), Failure> {
        for invocation in self.store.dispatched_to(node)? {
            self.reschedule(invocation)?;
        }
        let since = self.store.now();
        self.effect(Effect::Attach { link, node: Arc::clone(node), outbox, since });
        Ok(())
    }

    /// A node's socket is gone. When it was the current one, the node and its agents are offline.
    pub(in crate::engine) fn detach(&mut self, link: LinkId, node: &Arc<str>) -> Result<(), Failure> {
        if self.hub.is_current(node, link) {
            self.node_offline(node)?;
        }
        self.effect(Effect::Detach { link });
        Ok(())
    }

    /// A node is not heard of any more: its agents keep their place, what it was asked to do goes on
    /// elsewhere or later.
    pub(in crate::engine) fn node_offline(&mut self, node: &str) -> Result<(), Failure> {
        if let Some(row) = self.store.node(node)? {
            info!(node, "node offline");
            self.store.update_node(&NodeRow {
                online: false,
                handlers_live: false,
                load: 0.0,
                active_agents: 0,
                ..row
            })?;
        }
        self.store.agents_offline(node)?;
        for invocation in self.store.dispatched_to(node)? {
            self.reschedule(invocation)?;
        }
        Ok(())
    }

    /// One frame from a node's socket. A refusal undoes what the frame had done and is answered.
    pub(in crate::engine) fn on_frame(
        &mut self,
        link: LinkId,
        node: &Arc<str>,
        frame: Result<BrokerFrame, FrameError>,
    ) {
        if !self.hub.is_current(node, link) {
            return; // the last words of a superseded socket
        }
        let (id, outcome) = match frame {
            Ok(frame) => {
                let id = frame.id().map(str::to_owned);
                (id, self.attempt(|core| core.obey(link, node, frame)))
            }
            // The contract: an unreadable frame is answered under an id of the engine's own.
            Err(error) => (None, Err(Failure::bad_request(INVALID_MESSAGE, error.to_string()))),
        };
        if let Err(failure) = outcome {
            let refusal = failure.refusal();
            let id = id.unwrap_or_else(|| self.store.next_id().to_string());
            self.effect(Effect::Answer { link, frame: frames::error(id, refusal.code, &refusal.message) });
        }
    }

    fn obey(&mut self, link: LinkId, node: &Arc<str>, frame: BrokerFrame) -> Result<(), Failure> {
        match frame {
            BrokerFrame::NodeRegister(frame) => self.register_node(link, node, frame),
            BrokerFrame::NodeHeartbeat(frame) => self.heartbeat(node, frame),
            BrokerFrame::NodeDeregister(frame) => {
                self.node_offline(node)?;
                self.effect(Effect::Silent { node: Arc::clone(node) });
                self.answer_if_asked(link, frame.id, json!({"node_id": &**node, "deregistered": true}));
                Ok(())
            }
            BrokerFrame::AgentRegister(frame) => self.register_agent(link, node, frame),
            BrokerFrame::AgentRecover(frame) => self.recover_agent(link, node, frame),
            BrokerFrame::AgentDeregister(frame) => self.deregister_agent(link, node, frame),
            BrokerFrame::DeliveryAck(frame) => self.ack(node, &frame),
            BrokerFrame::ActionResult(frame) => self.on_result(node, frame),
            BrokerFrame::InventorySync(frame) => self.sync(link, node, frame),
        }
    }

    fn register_node(&mut self, link: LinkId, node: &Arc<str>, frame: NodeRegister) -> Result<(), Failure> {
        let row = self.node_row(node)?;
        if frame.node_id != row.id {
            return Err(Failure::forbidden("node_id_mismatch", "node_id does not belong to this token"));
        }
        self.require_free_name(&row, &frame.name)?;
        let row = NodeRow {
            name: frame.name,
            capabilities: json!(public(&frame.capabilities)).to_string(),
            tags: json!(frame.tags).to_string(),
            version: frame.version,
            max_agents: stored(frame.max_agents),
            online: true,
            handlers_live: !frame.capabilities.is_empty(),
            last_heartbeat_at: Some(self.store.now()),
            ..row
        };
        self.store.update_node(&row)?;
        let mut view = self.node_view(&row);
        if frame.provider.is_some() {
            view.accepted_capabilities = Some(frame.capabilities.iter().map(accepted).collect());
        }
        view.provider = frame.provider;
        self.answer(link, frame.id, view);
        self.effect(Effect::Ready { node: Arc::clone(node) });
        self.dispatch_waiting(node)?;
        self.replay_node(node)
    }

    fn heartbeat(&mut self, node: &Arc<str>, frame: NodeHeartbeat) -> Result<(), Failure> {
        let row = self.node_row(node)?;
        if frame.node_id.is_some_and(|id| id != row.id) {
            return Err(Failure::forbidden("node_id_mismatch", "node_id does not belong to this token"));
        }
        if let Some(name) = &frame.name {
            self.require_free_name(&row, name)?;
        }
        self.store.update_node(&NodeRow {
            name: frame.name.unwrap_or(row.name),
            capabilities: frame
                .capabilities
                .map_or(row.capabilities, |capabilities| json!(public(&capabilities)).to_string()),
            max_agents: frame.max_agents.map_or(row.max_agents, stored),
            version: frame.version.unwrap_or(row.version),
            load: frame.load.map_or(row.load, |load| load.get()),
            active_agents: stored(frame.active_agents),
            handlers_live: frame.handlers_live,
            online: true,
            last_heartbeat_at: Some(self.store.now()),
            ..row
        })?;
        self.effect(Effect::Ready { node: Arc::clone(node) });
        self.dispatch_waiting(node)
    }

    fn register_agent(&mut self, link: LinkId, node: &Arc<str>, frame: AgentRegister) -> Result<(), Failure> {
        let row = self.node_row(node)?;
        let agent = match self.store.agent_by_name(row.workspace, &frame.name)? {
            Some(agent) => agent,
            None => {
                let wish = CreateAgent { name: frame.name, ..CreateAgent::default() };
                self.create_agent(row.workspace, &wish)?.0
            }
        };
        self.take_in(link, &row, &agent, frame.id, frame.session_ref.as_deref())
    }

    fn recover_agent(&mut self, link: LinkId, node: &Arc<str>, frame: AgentRecover) -> Result<(), Failure> {
        let row = self.node_row(node)?;
        let agent = self.agent_named(row.workspace, &frame.name)?;
        if agent.id.to_string() != frame.expected_agent_id.as_str() {
            return Err(Failure::conflict("agent_identity_mismatch", "this name belongs to another agent"));
        }
        self.take_in(link, &row, &agent, frame.id, frame.session_ref.as_deref())
    }

    /// Locates an agent on a node under a fresh token, and replays that agent alone.
    fn take_in(
        &mut self,
        link: LinkId,
        node: &NodeRow,
        agent: &AgentRow,
        id: Option<String>,
        session_ref: Option<&str>,
    ) -> Result<(), Failure> {
        let elsewhere = agent.node.as_deref().is_some_and(|other| other != node.id);
        if elsewhere && agent.status == "active" {
            return Err(conflict(&agent.name));
        }
        self.require_slot(agent.node.as_deref(), node)?;
        let token = self.rotate_agent_token(agent.id)?;
        self.store.locate_agent(agent.id, &node.id, session_ref, 0)?;
        if let Some(general) = self.store.channel_by_name(node.workspace, super::agents::GENERAL)? {
            self.store.join(general.id, agent.id, "member")?;
        }
        let wants_cursor = capabilities(node).any(|name| name == CURSOR_CAPABILITY);
        self.answer(
            link,
            id,
            AgentRegistered {
                agent_id: agent.id.to_string().into(),
                token: token.into(),
                name: Some(agent.name.clone()),
                delivery_ack_seq: wants_cursor.then(|| Seq(u64::try_from(agent.ack_seq).unwrap_or(0))),
            },
        );
        self.effect(Effect::Replay { node: node.id.as_str().into(), agents: vec![agent.id] });
        Ok(())
    }

    fn deregister_agent(
        &mut self,
        link: LinkId,
        node: &Arc<str>,
        frame: AgentDeregister,
    ) -> Result<(), Failure> {
        let row = self.node_row(node)?;
        let agent = match (frame.agent_id.as_str(), &frame.name) {
            ("", Some(name)) => self.store.agent_by_name(row.workspace, name)?,
            (id, _) => match id.parse() {
                Ok(id) => self.store.agent(id)?,
                Err(_) => None,
            },
        };
        let here = agent.filter(|agent| agent.node.as_deref() == Some(node));
        if let Some(agent) = &here {
            self.store.unlocate_agent(agent.id, "offline")?;
        }
        let id = here.as_ref().map_or_else(|| frame.agent_id.to_string(), |agent| agent.id.to_string());
        self.answer_if_asked(link, frame.id, json!({"agent_id": id, "deregistered": here.is_some()}));
        Ok(())
    }

    fn ack(&mut self, node: &Arc<str>, frame: &DeliveryAck) -> Result<(), Failure> {
        let row = self.node_row(node)?;
        let agent = self.store.agent_by_name(row.workspace, &frame.agent)?;
        let Some(agent) = agent.filter(|agent| agent.node.as_deref() == Some(node)) else {
            return Ok(()); // the contract: an ack for somebody else's agent means nothing
        };
        if let Some(up_to) = cursor::advance(agent.ack_seq, agent.last_seq, stored(frame.up_to_seq.0)) {
            self.store.ack(agent.id, agent.ack_seq, up_to)?;
        }
        Ok(())
    }

    fn sync(&mut self, link: LinkId, node: &Arc<str>, frame: InventorySync) -> Result<(), Failure> {
        let row = self.node_row(node)?;
        let mut listed = HashSet::new();
        let mut completed = 0;
        for item in &frame.agents {
            let Some(agent) = self.store.agent_by_name(row.workspace, &item.name)? else { continue };
            if agent.status == "active"
                && let Some(other) = agent.node.as_deref().filter(|other| *other != row.id)
                && self.store.node(other)?.is_some_and(|other| self.node_is_live(&other))
            {
                return Err(conflict(&agent.name));
            }
            self.store.locate_agent(agent.id, node, item.session_ref.as_deref(), agent.priority)?;
            listed.insert(agent.id);
            if let Some(invocation) = &item.invocation_id {
                let output = json!({
                    "agent_id": agent.id.to_string(), "name": agent.name,
                    "invocation_id": invocation, "session_ref": item.session_ref,
                });
                completed += u64::from(self.complete(node, invocation.as_str(), Ok(output.to_string()))?);
            }
        }
        for agent in self.store.agents_on(node)? {
            if !listed.contains(&agent.id) && agent.status != "offline" {
                self.store.set_agent_status(agent.id, "offline")?;
            }
        }
        let (mut open, mut rescheduled) = (0, 0);
        // What was asked over this very socket is on its way, not lost.
        let since = self.hub.since(node).unwrap_or(0);
        for invocation in self.store.dispatched_to(node)? {
            if invocation.dispatched_at.is_some_and(|at| at >= since) {
                open += 1;
            } else {
                self.reschedule(invocation)?;
                rescheduled += 1;
            }
        }
        self.answer(
            link,
            frame.id,
            InventorySynced {
                rebound_agents: u64::try_from(frame.agents.len()).unwrap_or(u64::MAX),
                open_invocations: open,
                completed_invocations: completed,
                rescheduled_invocations: rescheduled,
            },
        );
        self.replay_node(node)
    }

    fn replay_node(&mut self, node: &Arc<str>) -> Result<(), Failure> {
        let agents = self.store.agents_on(node)?;
        let agents = agents.into_iter().filter(|agent| agent.unacked > 0).map(|agent| agent.id).collect();
        self.effect(Effect::Replay { node: Arc::clone(node), agents });
        Ok(())
    }

    fn answer(&mut self, link: LinkId, id: Option<String>, data: impl serde::Serialize) {
        let id = id.unwrap_or_else(|| self.store.next_id().to_string());
        self.effect(Effect::Answer { link, frame: frames::reply(id, &data) });
    }

    /// Engines before 8.7 do not answer these frames, so a broker that sent no id expects none.
    fn answer_if_asked(&mut self, link: LinkId, id: Option<String>, data: Value) {
        if id.is_some() {
            self.answer(link, id, data);
        }
    }

    fn node_row(&self, node: &str) -> Result<NodeRow, Failure> {
        self.store
            .node(node)?
            .ok_or_else(|| Failure::not_found("node_not_found", "this node is not enrolled"))
    }

    fn require_free_name(&self, node: &NodeRow, name: &str) -> Result<(), Failure> {
        match self.store.node_by_name(node.workspace, name)? {
            Some(other) if other.id != node.id => {
                Err(Failure::conflict("node_name_conflict", format!("{name} is the name of another node")))
            }
            _ => Ok(()),
        }
    }

    /// A free place on `node` for an agent that is at `current`.
    fn require_slot(&self, current: Option<&str>, node: &NodeRow) -> Result<(), Failure> {
        if node.max_agents == 0 || current == Some(&node.id) {
            return Ok(());
        }
        let there = self.store.agents_on(&node.id)?;
        let active = there.iter().filter(|agent| agent.status != "offline").count();
        if i64::try_from(active).unwrap_or(i64::MAX) < node.max_agents {
            Ok(())
        } else {
            Err(Failure::conflict("node_capacity_exceeded", format!("{} is full", node.name)))
        }
    }
}

/// The names of what a node can do.
pub(super) fn capabilities(node: &NodeRow) -> impl Iterator<Item = String> {
    let parsed: Vec<NodeCapability> = serde_json::from_str(&node.capabilities).unwrap_or_default();
    parsed.into_iter().map(|capability| capability.name)
}

/// True when the node offers this as an action: capacity is for placing spawns alone.
pub(super) fn declares(node: &NodeRow, action: &str) -> bool {
    let parsed: Vec<NodeCapability> = serde_json::from_str(&node.capabilities).unwrap_or_default();
    parsed.iter().any(|known| known.name == action && known.kind.as_deref() != Some("capacity"))
}

fn public(capabilities: &[Capability]) -> Vec<NodeCapability> {
    let shown = |capability: &Capability| NodeCapability {
        name: capability.name.clone(),
        kind: capability.kind.clone(),
        metadata: capability.metadata.clone(),
    };
    capabilities.iter().map(shown).collect()
}

fn accepted(capability: &Capability) -> AcceptedCapability {
    AcceptedCapability {
        name: capability.name.clone(),
        kind: Some(capability.kind.clone().unwrap_or_else(|| "capacity".to_owned())),
        accepted: true,
        reason: None,
    }
}

fn conflict(name: &str) -> Failure {
    Failure::conflict(LOCATION_CONFLICT, format!("{name} is active elsewhere"))
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
