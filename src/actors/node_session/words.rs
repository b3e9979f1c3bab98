//! What this node says about itself, as frames: the one place that knows which words an engine generation
//! takes (spec/wire 4.7, 7).

use serde::Serialize;

use crate::{
    ids::AgentName,
    messages::{
        invoke::{InvocationEnded, InvocationResult},
        session::{DeregisterAgent, Dialect, InventoryItem, OfferRefused, RegisterAgent},
        sidecar::{HandlerSpec, Offer},
        token::TokenGrant,
    },
    wire::{
        codes::CURSOR_CAPABILITY,
        frames::{
            ActionResult, AgentDeregister, AgentRecover, AgentRegister, BrokerFrame, Capability,
            InventoryAgent, InventorySync, Load, NodeDeregister, NodeHeartbeat, NodeRegister, NodeRegistered,
            Provider,
        },
    },
};

const RELEASE_CAPABILITY: &str = "release";
/// One name for all our processes: an engine keeps the providers of a node for good.
const PROVIDER: &str = "broker";
/// What this program calls itself.
const VERSION: &str = concat!("relay-broker/", env!("CARGO_PKG_VERSION"));

/// What this node is.
#[derive(Clone, Debug)]
pub(super) struct Words {
    harnesses: Vec<String>,
    actions: Vec<String>,
    max_agents: u32,
    tags: Vec<String>,
    /// What a sidecar handles beside that.
    offer: Offer,
    /// One per process, never stored: it tells a quick restart from a second broker.
    instance: String,
}

impl Words {
    /// The words of a node with these harnesses and actions. `instance` is unique to this process.
    pub(super) fn new(
        harnesses: Vec<String>,
        actions: Vec<String>,
        max_agents: u32,
        tags: Vec<String>,
        instance: String,
    ) -> Self {
        Self { harnesses, actions, max_agents, tags, offer: Offer::default(), instance }
    }

    /// Takes over what a sidecar handles. True when that is something else than before.
    pub(super) fn offer(&mut self, offer: Offer) -> bool {
        let changed = self.offer != offer;
        self.offer = offer;
        changed
    }

    /// How many handlers a sidecar has ready.
    pub(super) fn offered(&self) -> usize {
        self.offer.handlers.len()
    }

    /// Why the engine does not take one of them, if it says so.
    pub(super) fn refused(&self, node: &NodeRegistered) -> Option<OfferRefused> {
        let is_offered = |name: &str| self.offer.handlers.iter().any(|handler| handler.name == name);
        let mut said = node.accepted_capabilities.iter();
        let refused = said.find(|said| !said.accepted && is_offered(&said.name))?;
        let code = refused.reason.clone().unwrap_or_else(|| "not_accepted".to_owned());
        Some(OfferRefused::Engine { code, message: format!("it does not take `{}`", refused.name) })
    }

    /// `node.register` of what this node runs by itself.
    pub(super) fn register(&self, id: String, form: Dialect, grant: &TokenGrant) -> BrokerFrame {
        let capabilities = self.capabilities(form);
        self.register_as(id, form, grant, capabilities, self.max_agents, self.tags.clone())
    }

    /// `node.register` of that and of what the sidecar handles.
    pub(super) fn register_all(&self, id: String, form: Dialect, grant: &TokenGrant) -> BrokerFrame {
        let mut capabilities = self.capabilities(form);
        for handler in &self.offer.handlers {
            // A harness that the node can run by itself is offered once.
            capabilities.retain(|own| own.name != handler.name);
            capabilities.push(handled(handler, form));
        }
        let tags = [&self.tags[..], &self.offer.tags[..]].concat();
        self.register_as(id, form, grant, capabilities, self.most_agents(), tags)
    }

    fn register_as(
        &self,
        id: String,
        form: Dialect,
        grant: &TokenGrant,
        capabilities: Vec<Capability>,
        max_agents: u32,
        tags: Vec<String>,
    ) -> BrokerFrame {
        BrokerFrame::NodeRegister(NodeRegister {
            id: Some(id),
            name: grant.node_name.to_string(),
            node_id: grant.node_id.to_string(),
            provider: self.provider(form),
            capabilities,
            max_agents: u64::from(max_agents),
            tags,
            version: VERSION.to_owned(),
            ..NodeRegister::default()
        })
    }

    /// A sidecar may lower the limit; 0 is none.
    fn most_agents(&self) -> u32 {
        match (self.max_agents, self.offer.max_agents.unwrap_or(0)) {
            (own, 0) => own,
            (0, its) => its,
            (own, its) => own.min(its),
        }
    }

    /// A 5.0 engine makes a workspace-wide action of everything that is not `spawn:…`, a newer one of everything
    /// that is not of kind `capacity`. That is what is wanted for a declared action; if we advertised `spawn`, every
    /// spawn of the workspace would be sent here.
    fn capabilities(&self, form: Dialect) -> Vec<Capability> {
        let spawns = self.harnesses.iter().map(|harness| format!("spawn:{harness}"));
        let actions = self.actions.iter().map(Capability::plain);
        match form {
            Dialect::V5 => spawns.map(Capability::plain).chain(actions).collect(),
            Dialect::V6 => spawns
                .chain([RELEASE_CAPABILITY, CURSOR_CAPABILITY].map(str::to_owned))
                .map(Capability::capacity)
                .chain(actions)
                .collect(),
        }
    }

    fn provider(&self, form: Dialect) -> Option<Provider> {
        let provider = || Provider { name: PROVIDER.to_owned(), instance_id: self.instance.clone() };
        (form == Dialect::V6).then(provider)
    }

    /// `node.heartbeat`
    pub(super) fn heartbeat(&self, dialect: Dialect, agents: usize) -> BrokerFrame {
        let load = match self.most_agents() {
            0 => 0.0,
            most => agents as f64 / f64::from(most),
        };
        BrokerFrame::NodeHeartbeat(NodeHeartbeat {
            provider: self.provider(dialect),
            load: Some(Load::clamped(load)),
            active_agents: agents as u64,
            handlers_live: !(self.harnesses.is_empty()
                && self.actions.is_empty()
                && self.offer.handlers.is_empty()),
            ..NodeHeartbeat::default()
        })
    }

    /// `node.deregister`
    pub(super) fn deregister(&self, dialect: Dialect) -> BrokerFrame {
        BrokerFrame::NodeDeregister(NodeDeregister { id: None, provider: self.provider(dialect) })
    }
}

/// A spawn never becomes an action of the workspace, and a newer engine is told so.
fn handled(handler: &HandlerSpec, form: Dialect) -> Capability {
    let name = handler.name.as_str();
    let capability = match form {
        Dialect::V6 if name.starts_with("spawn:") => Capability::capacity(name),
        Dialect::V5 | Dialect::V6 => Capability::plain(name),
    };
    match &handler.metadata {
        Some(metadata) => capability.described(metadata),
        None => capability,
    }
}

/// `inventory.sync`
pub(super) fn inventory(id: String, agents: &[InventoryItem]) -> BrokerFrame {
    let agents = agents
        .iter()
        .map(|item| InventoryAgent {
            agent_id: item.agent_id.clone(),
            name: item.name.to_string(),
            invocation_id: item.invocation.clone(),
            session_ref: item.session_ref.as_ref().map(ToString::to_string),
        })
        .collect();
    BrokerFrame::InventorySync(InventorySync { id: Some(id), agents })
}

/// `agent.register`
pub(super) fn register_agent(id: String, asked: &RegisterAgent) -> BrokerFrame {
    BrokerFrame::AgentRegister(AgentRegister {
        id: Some(id),
        name: asked.name.to_string(),
        invocation_id: asked.invocation.clone(),
        session_ref: asked.session_ref.as_ref().map(ToString::to_string),
        resumable: asked.session_ref.as_ref().map(|_| true),
    })
}

/// `agent.recover`, when we know the agent's id from earlier.
pub(super) fn recover_agent(id: String, asked: &RegisterAgent) -> Option<BrokerFrame> {
    Some(BrokerFrame::AgentRecover(AgentRecover {
        id: Some(id),
        name: asked.name.to_string(),
        expected_agent_id: asked.known_id.clone()?,
        invocation_id: asked.invocation.clone(),
        session_ref: asked.session_ref.as_ref().map(ToString::to_string),
        resumable: asked.session_ref.as_ref().map(|_| true),
    }))
}

/// `agent.deregister`
pub(super) fn deregister_agent(gone: &DeregisterAgent) -> BrokerFrame {
    BrokerFrame::AgentDeregister(AgentDeregister {
        id: None,
        agent_id: gone.agent_id.clone(),
        name: Some(gone.name.to_string()),
    })
}

/// `action.result`
pub(super) fn result(ended: InvocationEnded) -> BrokerFrame {
    #[derive(Serialize)]
    struct Spawned {
        spawned: bool,
        name: AgentName,
    }
    #[derive(Serialize)]
    struct Released {
        released: bool,
        name: AgentName,
    }

    let invocation = ended.invocation;
    BrokerFrame::ActionResult(match ended.result {
        InvocationResult::Output(json) => ActionResult::printed(invocation, json),
        InvocationResult::Spawned { name } => {
            ActionResult::output(invocation, &Spawned { spawned: true, name })
        }
        InvocationResult::Released { name } => {
            ActionResult::output(invocation, &Released { released: true, name })
        }
        InvocationResult::Failed(code) => ActionResult::error(invocation, code),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::Generation, messages::Reply, wire::frames::AcceptedCapability};

    fn words() -> Words {
        Words::new(vec!["otter".to_owned(), "plain".to_owned()], vec![], 4, vec![], "proc-1".to_owned())
    }

    fn grant() -> TokenGrant {
        TokenGrant {
            token: "nt_live_1".into(),
            generation: Generation(1),
            node_id: "node_1".into(),
            node_name: "quay".into(),
        }
    }

    fn names(capabilities: &[Capability]) -> Vec<&str> {
        capabilities.iter().map(|capability| capability.name.as_str()).collect()
    }

    #[test]
    fn an_old_engine_reads_every_frame_that_is_meant_for_it() {
        let words = words();
        let item = InventoryItem {
            agent_id: "7".into(),
            name: AgentName::parse("ann").unwrap(),
            invocation: Some("inv_1".into()),
            session_ref: Some("s-1".into()),
        };
        let (reply, _answer) = Reply::channel();
        let asked = RegisterAgent {
            name: item.name.clone(),
            invocation: None,
            session_ref: Some("s-1".into()),
            known_id: Some("7".into()),
            reply,
        };
        let gone = DeregisterAgent { agent_id: "7".into(), name: item.name.clone() };
        let ended = |result| InvocationEnded { invocation: "inv_1".into(), result };
        for frame in [
            words.register("r1".to_owned(), Dialect::V5, &grant()),
            words.heartbeat(Dialect::V5, 3),
            words.deregister(Dialect::V5),
            inventory("i1".to_owned(), std::slice::from_ref(&item)),
            register_agent("a1".to_owned(), &asked),
            deregister_agent(&gone),
            result(ended(InvocationResult::Spawned { name: item.name.clone() })),
            result(ended(InvocationResult::Released { name: item.name.clone() })),
            result(ended(InvocationResult::Output("[1]".to_owned()))),
            result(ended(InvocationResult::Failed("spawn_failed: no".to_owned()))),
        ] {
            let text = frame.encode();
            if let Err(why) = BrokerFrame::decode_strict(&text) {
                panic!("{why} in {text}");
            }
        }
        assert!(recover_agent("a2".to_owned(), &asked).is_some());
    }

    #[test]
    fn an_old_engine_hears_of_spawns_alone_and_a_newer_one_of_capacities() {
        let BrokerFrame::NodeRegister(old) = words().register("r".into(), Dialect::V5, &grant()) else {
            panic!()
        };
        assert_eq!(names(&old.capabilities), ["spawn:otter", "spawn:plain"]);
        assert!(old.provider.is_none() && old.capabilities.iter().all(|c| c.kind.is_none()));
        let BrokerFrame::NodeRegister(new) = words().register("r".into(), Dialect::V6, &grant()) else {
            panic!()
        };
        assert_eq!(
            names(&new.capabilities),
            ["spawn:otter", "spawn:plain", "release", "relay:delivery-cursor-v1"]
        );
        assert!(new.capabilities.iter().all(|c| c.kind.as_deref() == Some("capacity")));
        assert_eq!(new.provider.unwrap().instance_id, "proc-1");
    }

    #[test]
    fn a_declared_action_is_offered_by_its_name_and_is_no_capacity() {
        let words = Words::new(vec![], vec!["tide.table".to_owned()], 4, vec![], "proc-1".to_owned());
        for form in [Dialect::V5, Dialect::V6] {
            let BrokerFrame::NodeRegister(frame) = words.register("r".into(), form, &grant()) else {
                panic!()
            };
            let tide = frame.capabilities.iter().find(|known| known.name == "tide.table").unwrap();
            assert_eq!(tide.kind, None, "{form:?}");
            let BrokerFrame::NodeHeartbeat(beat) = words.heartbeat(form, 0) else { panic!() };
            assert!(beat.handlers_live);
        }
    }

    #[test]
    fn a_sidecars_handlers_stand_beside_the_nodes_own_and_may_lower_its_limit() {
        let handler = |name: &str, metadata: Option<&str>| HandlerSpec {
            name: name.to_owned(),
            metadata: metadata.map(str::to_owned),
        };
        let offer = Offer {
            handlers: vec![
                handler("spawn:plain", Some(r#"{"cli":"x"}"#)),
                handler("echo", Some("no object")),
            ],
            max_agents: Some(2),
            tags: vec!["dry".to_owned()],
        };
        for form in [Dialect::V5, Dialect::V6] {
            let mut words = words();
            assert!(words.offer(offer.clone()) && !words.offer(offer.clone()));
            let BrokerFrame::NodeRegister(own) = words.register("r".into(), form, &grant()) else { panic!() };
            assert!(!names(&own.capabilities).contains(&"echo") && own.max_agents == 4, "{form:?}");
            let frame = words.register_all("r".into(), form, &grant());
            let BrokerFrame::NodeRegister(all) = &frame else { panic!() };
            let found = |name: &str| {
                let mut found = all.capabilities.iter().filter(|capability| capability.name == name);
                (found.next().unwrap().clone(), found.count())
            };
            let (spawn, others) = found("spawn:plain");
            assert_eq!((spawn.metadata.unwrap()["cli"].as_str(), others), (Some("x"), 0), "{form:?}");
            assert_eq!(spawn.kind.is_some(), form == Dialect::V6);
            let (echo, _) = found("echo");
            assert_eq!((echo.kind, echo.metadata), (None, None));
            assert_eq!((all.max_agents, &all.tags[..]), (2, &["dry".to_owned()][..]));
            if form == Dialect::V5 {
                BrokerFrame::decode_strict(&frame.encode()).unwrap();
            }
            let BrokerFrame::NodeHeartbeat(beat) = words.heartbeat(form, 1) else { panic!() };
            assert_eq!(beat.load.unwrap().get(), 0.5);
        }
    }

    #[test]
    fn a_handler_that_the_engine_does_not_take_is_told_by_its_name() {
        let mut words = words();
        let handlers = vec![HandlerSpec { name: "echo".to_owned(), metadata: None }];
        words.offer(Offer { handlers, ..Offer::default() });
        let node = |name: &str, accepted: bool| NodeRegistered {
            id: "node_1".into(),
            name: "quay".to_owned(),
            accepted_capabilities: vec![AcceptedCapability {
                name: name.to_owned(),
                accepted,
                reason: Some("action_name_conflict".to_owned()),
                ..AcceptedCapability::default()
            }],
        };
        assert_eq!(words.refused(&node("echo", true)), None);
        assert_eq!(words.refused(&node("release", false)), None, "not the sidecar's");
        let Some(OfferRefused::Engine { code, message }) = words.refused(&node("echo", false)) else {
            panic!()
        };
        assert_eq!((code.as_str(), message.as_str()), ("action_name_conflict", "it does not take `echo`"));
    }

    #[test]
    fn what_a_command_printed_is_the_output_as_it_is() {
        let ended = |json: &str| InvocationEnded {
            invocation: "inv_1".into(),
            result: InvocationResult::Output(json.to_owned()),
        };
        let text = result(ended(r#"{"high": 3}"#)).encode();
        assert!(text.contains(r#""output":{"high": 3}"#) && !text.contains("error"), "{text}");
        let text = result(ended("{")).encode();
        assert!(text.contains(r#""error":"action_failed: "#) && !text.contains("output"), "{text}");
    }

    #[test]
    fn a_node_that_was_told_of_no_harness_offers_none_and_handles_nothing() {
        let words = Words::new(vec![], vec![], 4, vec![], "proc-1".to_owned());
        let BrokerFrame::NodeRegister(old) = words.register("r".into(), Dialect::V5, &grant()) else {
            panic!()
        };
        assert!(old.capabilities.is_empty());
        let BrokerFrame::NodeRegister(new) = words.register("r".into(), Dialect::V6, &grant()) else {
            panic!()
        };
        assert_eq!(names(&new.capabilities), ["release", "relay:delivery-cursor-v1"]);
        assert!(new.capabilities.iter().all(|c| c.kind.as_deref() == Some("capacity")), "no action");
    }

    #[test]
    fn an_agent_is_resumable_by_its_session_and_by_nothing_else() {
        for session_ref in [Some("s-1"), None] {
            let (reply, _answer) = Reply::channel();
            let asked = RegisterAgent {
                name: AgentName::parse("ann").unwrap(),
                invocation: None,
                session_ref: session_ref.map(Into::into),
                known_id: None,
                reply,
            };
            let BrokerFrame::AgentRegister(frame) = register_agent("a".into(), &asked) else { panic!() };
            assert_eq!(frame.session_ref.as_deref(), session_ref);
            assert_eq!(frame.resumable, session_ref.map(|_| true));
        }
    }

    #[test]
    fn the_load_is_always_a_number_from_0_to_1() {
        let load = |max_agents, agents| {
            let words = Words::new(vec![], vec![], max_agents, vec![], String::new());
            let BrokerFrame::NodeHeartbeat(beat) = words.heartbeat(Dialect::V6, agents) else { panic!() };
            assert!(!beat.handlers_live, "nothing is handled");
            beat.load.unwrap().get()
        };
        assert_eq!(load(0, 100), 0.0);
        assert_eq!(load(4, 1), 0.25);
        assert_eq!(load(4, 9), 1.0);
    }
}
