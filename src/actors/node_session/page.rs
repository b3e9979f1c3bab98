//! What the debug page shows of the session.

use std::time::Instant;

use actix::Context;

use super::{NodeSession, SHOW_DELAY};
use crate::{messages::session::Dialect, supervision::Detail};

impl NodeSession {
    pub(super) fn show(&mut self) {
        self.show_at = None;
        self.life.state(self.machine.describe());
        let mut facts = vec![("epoch", self.epoch.to_string())];
        if let Some(dialect) = self.machine.dialect() {
            let dialect = match dialect {
                Dialect::V5 => "5",
                Dialect::V6 => "6+",
            };
            facts.push(("dialect", dialect.to_owned()));
        }
        if let Some(grant) = &self.grant {
            facts.push(("node_id", grant.node_id.to_string()));
            facts.push(("node_name", grant.node_name.to_string()));
            facts.push(("token_generation", grant.generation.to_string()));
        }
        facts.push(("engine", self.endpoint.base_url().to_owned()));
        if let Some(version) = &self.version {
            facts.push(("engine_version", version.clone()));
        }
        facts.push(("inventory", self.inventory.len().to_string()));
        facts.push(("routes", self.routes.len().to_string()));
        facts.push(("handlers_offered", self.words.offered().to_string()));
        if let Some(link) = &self.link {
            facts.push(("registrations_open", link.pending.len().to_string()));
            facts.push(("outbox", link.outbox.len().to_string()));
        }
        facts.extend(self.tally.facts());
        self.life.detail(Detail::Facts(facts));
    }

    /// Shows the numbers soon, not at every frame.
    pub(super) fn show_soon(&mut self, ctx: &mut Context<Self>) {
        if self.show_at.is_none() {
            self.show_at = Some(Instant::now() + SHOW_DELAY);
            self.arm(ctx);
        }
    }
}
