//! The ends that are asked for: of one agent, and of all of them when the house ends.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler};
use tracing::info;

use super::{AgentRegistry, saga::Event as Happened};
use crate::{
    ids::{AgentId, AgentName, Birth},
    messages::{
        Reply,
        process::EndedBy,
        pty::Terminate,
        release::{Release, ReleaseAll, Released},
    },
    store::Record,
};

/// A release whose agent has not ended after so long is answered as overdue; finishing what is half-way and the ladder
/// itself take 9 s.
const RELEASE_LIMIT: Duration = Duration::from_secs(15);

/// The end of all agents.
pub(super) struct Closing {
    /// Who waits for the last one.
    reply: Option<Reply<usize>>,
    /// How many there were.
    agents: usize,
    /// Each one's time before KILL.
    within: Duration,
}

impl Handler<Release> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, release: Release, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        self.release(release, ctx);
    }
}

impl Handler<ReleaseAll> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, all: ReleaseAll, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let ReleaseAll { within, reply } = all;
        self.closing = Some(Closing { reply: Some(reply), agents: self.agents.len(), within });
        let names: Vec<_> = self.agents.iter().map(|(name, entry)| (name.clone(), entry.birth)).collect();
        for (name, birth) in names {
            self.happen(&name, birth, Happened::ReleaseAsked { force: false, by: EndedBy::Shutdown }, ctx);
        }
        self.closed_if_empty();
    }
}

impl AgentRegistry {
    pub(super) fn release(&mut self, release: Release, ctx: &mut Context<Self>) {
        let Release { name, reason, force, reply } = release;
        let Some(entry) = self.agents.get_mut(&name) else {
            let known = self.forget_absent(&name) || self.former.has_ended(&name);
            // Whoever stopped waiting knows where to look.
            reply.send(if known { Released::AlreadyGone } else { Released::Unknown });
            return;
        };
        info!(agent = %name, reason = reason.as_deref().unwrap_or("none given"), force, "releasing");
        entry.releases.push(reply);
        let birth = entry.birth;
        self.happen(&name, birth, Happened::ReleaseAsked { force, by: EndedBy::Release }, ctx);
    }

    /// Gives up the mail of an agent that an earlier broker process left behind.
    fn forget_absent(&mut self, name: &AgentName) -> bool {
        let Some(agent_id) = self.former.take_absent(name) else { return false };
        self.journal.append(Record::AgentGone { agent: agent_id.clone() });
        self.deregister(agent_id.clone(), name);
        self.remember(name.clone(), Some(agent_id));
        true
    }

    /// An agent is no more: its id is for the next one of its name.
    pub(super) fn remember(&mut self, name: AgentName, id: Option<AgentId>) {
        if let Some(agent) = id.clone() {
            self.journal.append(Record::AgentKnown { agent, name: name.clone() });
        }
        self.former.ended(name, id);
    }

    pub(super) fn terminate(
        &mut self,
        name: &AgentName,
        birth: Birth,
        force: bool,
        by: EndedBy,
        ctx: &mut Context<Self>,
    ) {
        let Some(rooms) = self.agents.get(name).and_then(|entry| entry.rooms.as_ref()) else { return };
        let closing = self.closing.as_ref().filter(|_| by == EndedBy::Shutdown);
        let within = closing.map(|closing| closing.within);
        let gone = rooms.terminate.tell(Terminate { by, force, within }).is_err();
        let name = name.clone();
        let (limit, event) =
            if gone { (Duration::ZERO, Happened::Lost) } else { (RELEASE_LIMIT, Happened::Overdue) };
        ctx.run_later(limit, move |registry, ctx| registry.happen(&name, birth, event, ctx));
    }

    pub(super) fn closed_if_empty(&mut self) {
        if self.agents.is_empty()
            && let Some(closing) = &mut self.closing
            && let Some(reply) = closing.reply.take()
        {
            reply.send(closing.agents);
        }
    }
}
