//! Spawn, release and what nodes declare: placed on a node, dispatched, repeated until there is a result.
//!
//! ```text
//! pending --dispatch--> dispatched --result--> completed | failed
//!    ^                      |
//!    +---- reschedule ------+   timeout, node gone, or `handler_unavailable`
//! ```

use std::sync::Arc;

use serde_json::{Value, json};

use super::nodes::{capabilities, declares};
use crate::{
    engine::{
        core::Core,
        error::Failure,
        frames::{self, Event},
        hub::Effect,
        rules::{
            millis,
            placement::{self, Candidate, NoPlace, Target},
            retry_pause,
        },
        store::{AgentRow, InvocationRow, NewInvocation, NodeRow},
        views,
    },
    wire::frames::{ActionResult, Outcome},
};

/// What a node answers when it cannot handle an action at all: the invocation moves on.
const HANDLER_UNAVAILABLE: &str = "handler_unavailable";
/// Invocations that one sweep looks at; the next one goes on.
const SWEPT_AT_ONCE: i64 = 100;

impl Core {
    /// Asks a node to spawn an agent.
    pub(in crate::engine) fn invoke_spawn(
        &mut self,
        workspace: i64,
        caller: Option<&AgentRow>,
        input: &Value,
    ) -> Result<InvocationRow, Failure> {
        let wanted = placement::wanted(input)
            .ok_or_else(|| Failure::bad_request("invalid_request", "a spawn names a cli or a capability"))?;
        let target = match placement::target(input) {
            Target::Any => None,
            Target::Named(name) => Some(self.node_named(workspace, &name)?),
            Target::Own => Some(self.node_of_caller(caller)?),
        };
        if let Some(node) = &target {
            if !capabilities(node).any(|name| name == wanted) {
                return Err(mismatch(&wanted));
            }
        } else {
            placement::place(&self.candidates(workspace)?, &wanted, &[]).map_err(|why| match why {
                NoPlace::NobodyCan => mismatch(&wanted),
                NoPlace::NobodyServes => Failure::unavailable(
                    HANDLER_UNAVAILABLE,
                    format!("no node that offers {wanted} is online with room"),
                ),
            })?;
        }
        let invocation = self.store.insert_invocation(
            workspace,
            &NewInvocation {
                action: "spawn",
                caller: caller.map(|agent| (agent.id, agent.name.as_str())),
                input: &input.to_string(),
                target: target.as_ref().map(|node| node.id.as_str()),
            },
        )?;
        self.place(invocation)
    }

    /// Asks the node that an agent lives on to let go of it.
    pub(in crate::engine) fn invoke_release(
        &mut self,
        workspace: i64,
        caller: Option<&AgentRow>,
        input: &Value,
    ) -> Result<InvocationRow, Failure> {
        let name = input.get("name").and_then(Value::as_str).unwrap_or_default();
        let agent = self.agent_named(workspace, name)?;
        let Some(node) = agent.node else {
            return Err(Failure::conflict("agent_not_node_bound", format!("{name} lives on no node")));
        };
        let invocation = self.store.insert_invocation(
            workspace,
            &NewInvocation {
                action: "release",
                caller: caller.map(|agent| (agent.id, agent.name.as_str())),
                input: &input.to_string(),
                target: Some(&node),
            },
        )?;
        self.place(invocation)
    }

    /// Asks a node that has declared this action.
    pub(in crate::engine) fn invoke_declared(
        &mut self,
        workspace: i64,
        caller: &AgentRow,
        action: &str,
        input: &Value,
    ) -> Result<InvocationRow, Failure> {
        let is_declared = self.store.nodes(workspace)?.iter().any(|node| declares(node, action));
        if !is_declared {
            return Err(Failure::not_found("action_not_found", format!("there is no action {action}")));
        }
        let invocation = self.store.insert_invocation(
            workspace,
            &NewInvocation {
                action,
                caller: Some((caller.id, caller.name.as_str())),
                input: &input.to_string(),
                target: None,
            },
        )?;
        self.place(invocation)
    }

    /// An invocation of this workspace by its public id.
    pub(in crate::engine) fn invocation_in(
        &self,
        workspace: i64,
        id: &str,
    ) -> Result<InvocationRow, Failure> {
        self.invocation_by_id(id)?
            .filter(|invocation| invocation.workspace == workspace)
            .ok_or_else(|| Failure::not_found("action_not_found", "there is no such invocation"))
    }

    /// Dispatches what waits for this node, or for any node like it.
    pub(in crate::engine) fn dispatch_waiting(&mut self, node: &Arc<str>) -> Result<(), Failure> {
        for invocation in self.store.pending_for(node)? {
            self.dispatch(invocation, node.to_string())?;
        }
        Ok(())
    }

    /// A node says how an action ended.
    pub(in crate::engine) fn on_result(
        &mut self,
        node: &Arc<str>,
        frame: ActionResult,
    ) -> Result<(), Failure> {
        let id = frame.invocation_id;
        let outcome = match frame.outcome {
            Outcome::Error(error) if error == HANDLER_UNAVAILABLE => {
                return self.handler_gone(node, id.as_str());
            }
            Outcome::Error(error) if error.is_empty() => Ok("null".to_owned()),
            Outcome::Error(error) => Err(error),
            Outcome::Output(output) => Ok(output.get().to_owned()),
        };
        self.complete(node, id.as_str(), outcome).map(drop)
    }

    /// Ends an invocation, if it is open and this node was asked; true when it was.
    pub(in crate::engine) fn complete(
        &mut self,
        node: &str,
        id: &str,
        outcome: Result<String, String>,
    ) -> Result<bool, Failure> {
        let Some(invocation) = self.open_invocation(node, id)? else { return Ok(false) };
        let (status, output, error) = match outcome {
            Ok(output) => ("completed", Some(output), None),
            Err(error) => ("failed", None, Some(error)),
        };
        let invocation = InvocationRow {
            status: status.to_owned(),
            output,
            error,
            due_at: None,
            completed_at: Some(self.store.now()),
            ..invocation
        };
        self.store.update_invocation(&invocation)?;
        if invocation.action == "release" && invocation.error.is_none() {
            self.settle_release(&invocation)?;
        }
        self.tell_caller(&invocation)?;
        Ok(true)
    }

    /// Takes an invocation back from a node that will not answer it: to another one at once, else to any
    /// (the same included) after a pause.
    pub(in crate::engine) fn reschedule(&mut self, invocation: InvocationRow) -> Result<(), Failure> {
        let pause = retry_pause(self.limits.retry_delay, invocation.attempts);
        let waiting = InvocationRow {
            status: "pending".to_owned(),
            due_at: Some(self.store.now().saturating_add(millis(pause))),
            ..invocation
        };
        self.store.update_invocation(&waiting)?;
        if waiting.target.is_none() {
            let tried = tried(&waiting);
            if let Some(next) = self.best_node(&waiting, &tried)?.filter(|next| !tried.contains(next)) {
                self.dispatch(waiting, next)?;
            }
        }
        Ok(())
    }

    /// Overdue ones are taken back, due ones are placed.
    pub(super) fn sweep_invocations(&mut self) -> Result<(), Failure> {
        for invocation in self.store.due_invocations("dispatched", SWEPT_AT_ONCE)? {
            self.reschedule(invocation)?;
        }
        for invocation in self.store.due_invocations("pending", SWEPT_AT_ONCE)? {
            self.place(invocation)?;
        }
        Ok(())
    }

    /// Sends an invocation where it belongs, if that place has a socket now.
    fn place(&mut self, invocation: InvocationRow) -> Result<InvocationRow, Failure> {
        let place = match &invocation.target {
            Some(target) => self.hub.is_ready(target).then(|| target.clone()),
            None => self.best_node(&invocation, &tried(&invocation))?,
        };
        match place {
            Some(node) => self.dispatch(invocation, node),
            None => Ok(invocation),
        }
    }

    fn dispatch(&mut self, invocation: InvocationRow, node: String) -> Result<InvocationRow, Failure> {
        let now = self.store.now();
        let mut tried = tried(&invocation);
        if !tried.contains(&node) {
            tried.push(node.clone());
        }
        // The first time a spawn names its capability; a repeat is bare (spec/wire 4.7).
        let wanted = placement::wanted(&views::parsed(&invocation.input));
        let action = match wanted {
            Some(wanted) if invocation.action == "spawn" && invocation.attempts == 0 => wanted,
            _ => invocation.action.clone(),
        };
        let frame = frames::invoke(invocation.id, &action, &invocation.input);
        let invocation = InvocationRow {
            node: Some(node.clone()),
            tried: json!(tried).to_string(),
            attempts: invocation.attempts + 1,
            status: "dispatched".to_owned(),
            due_at: Some(now.saturating_add(millis(self.limits.dispatch_timeout))),
            dispatched_at: Some(now),
            ..invocation
        };
        self.store.update_invocation(&invocation)?;
        self.effect(Effect::Command { node, frame });
        Ok(invocation)
    }

    fn best_node(&self, invocation: &InvocationRow, tried: &[String]) -> Result<Option<String>, Failure> {
        let wanted = match invocation.action.as_str() {
            "spawn" => placement::wanted(&views::parsed(&invocation.input)),
            other => Some(other.to_owned()),
        };
        let Some(wanted) = wanted else { return Ok(None) };
        let candidates = self.candidates(invocation.workspace)?;
        Ok(placement::place(&candidates, &wanted, tried).ok().map(|node| node.id.clone()))
    }

    fn candidates(&self, workspace: i64) -> Result<Vec<Candidate>, Failure> {
        let candidate = |node: NodeRow| Candidate {
            capabilities: capabilities(&node).collect(),
            serving: self.hub.is_ready(&node.id) && self.node_is_live(&node) && node.handlers_live,
            load: node.load,
            agents: node.active_agents,
            max_agents: node.max_agents,
            id: node.id,
            name: node.name,
        };
        Ok(self.store.nodes(workspace)?.into_iter().map(candidate).collect())
    }

    fn node_of_caller(&self, caller: Option<&AgentRow>) -> Result<NodeRow, Failure> {
        let Some(agent) = caller else {
            return Err(Failure::bad_request(
                "placement_self_requires_agent",
                "only an agent has a node of its own",
            ));
        };
        match &agent.node {
            Some(node) => self.store.node(node)?,
            None => None,
        }
        .ok_or_else(|| Failure::conflict("placement_self_unavailable", "the caller lives on no node"))
    }

    fn open_invocation(&self, node: &str, id: &str) -> Result<Option<InvocationRow>, Failure> {
        let open = |invocation: &InvocationRow| {
            invocation.completed_at.is_none() && invocation.node.as_deref() == Some(node)
        };
        Ok(self.invocation_by_id(id)?.filter(open))
    }

    fn invocation_by_id(&self, id: &str) -> Result<Option<InvocationRow>, Failure> {
        match id.strip_prefix("inv_").and_then(|number| number.parse().ok()) {
            Some(number) => Ok(self.store.invocation(number)?),
            None => Ok(None),
        }
    }

    /// A node that cannot handle what it advertised gets no more until its next heartbeat.
    fn handler_gone(&mut self, node: &str, id: &str) -> Result<(), Failure> {
        let Some(invocation) = self.open_invocation(node, id)? else { return Ok(()) };
        if let Some(row) = self.store.node(node)? {
            self.store.update_node(&NodeRow { handlers_live: false, ..row })?;
        }
        self.reschedule(invocation)
    }

    fn settle_release(&mut self, invocation: &InvocationRow) -> Result<(), Failure> {
        let input = views::parsed(&invocation.input);
        let name = input.get("name").and_then(Value::as_str).unwrap_or_default();
        let Some(agent) = self.store.agent_by_name(invocation.workspace, name)? else { return Ok(()) };
        if agent.node != invocation.node {
            return Ok(()); // it has moved on meanwhile
        }
        if input.get("delete_agent").and_then(Value::as_bool) == Some(true) {
            self.store.delete_agent(agent.id)?;
            return Ok(());
        }
        self.store.unlocate_agent(agent.id, "offline")?;
        let mut metadata = views::parsed(&agent.metadata);
        if let Value::Object(keys) = &mut metadata {
            keys.remove("spawn");
            keys.remove("cli");
        }
        self.store.update_agent(&AgentRow {
            metadata: metadata.to_string(),
            status: "offline".to_owned(),
            ..agent
        })?;
        Ok(())
    }

    fn tell_caller(&mut self, invocation: &InvocationRow) -> Result<(), Failure> {
        let caller = match invocation.caller {
            Some(caller) => self.store.agent(caller)?,
            None => None,
        };
        let Some(AgentRow { id, name, node: Some(node), .. }) = caller else { return Ok(()) };
        let kind = if invocation.error.is_none() { "action.completed" } else { "action.failed" };
        let invocation_id = frames::invocation_id(invocation.id);
        let payload = frames::payload(
            kind,
            &json!({
                "invocation_id": invocation_id, "action_name": invocation.action,
                "status": invocation.status, "output": invocation.output.as_deref().map(views::parsed),
                "error": invocation.error,
            }),
        );
        let event = Event { kind, key: &invocation_id, about: &invocation_id, payload: &payload };
        self.effect(Effect::Event { node, frame: frames::event(id, &name, &event) });
        Ok(())
    }
}

fn tried(invocation: &InvocationRow) -> Vec<String> {
    serde_json::from_str(&invocation.tried).unwrap_or_default()
}

fn mismatch(wanted: &str) -> Failure {
    Failure::conflict("capability_mismatch", format!("no node offers {wanted}"))
}
