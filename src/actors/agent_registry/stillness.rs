//! What is told of an agent's state: each change, that it is ready for the first time, and, when it stays as it is,
//! that it is idle or that messages wait for it in vain.

use std::{sync::atomic::Ordering, time::Duration};

use actix::{AsyncContext, Context, Handler};

use super::AgentRegistry;
use crate::{
    ids::AgentName,
    messages::{
        observe::Event,
        pty::{AgentState, StateChanged},
    },
    supervision::lock,
};

/// Unless the spawn says otherwise (spec/api 2.6).
const IDLE_AFTER: Duration = Duration::from_secs(30);
/// Spec/api 2.6.
const BLOCKED_AFTER: Duration = Duration::from_secs(120);

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stillness {
    /// It waits for work.
    Idle,
    /// It takes no messages.
    Blocked,
}

/// What is told about an agent that stays in this state for how long.
fn told_after(state: AgentState, idle_after: Option<Duration>) -> Option<(Stillness, Duration)> {
    match state {
        AgentState::Idle => Some((Stillness::Idle, idle_after.unwrap_or(IDLE_AFTER))),
        AgentState::Blocked | AgentState::NotReading => Some((Stillness::Blocked, BLOCKED_AFTER)),
        AgentState::Starting | AgentState::Working | AgentState::Human | AgentState::Exited => None,
    }
}

impl Handler<StateChanged> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, changed: StateChanged, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let StateChanged { name, birth, from, to, because, dialog } = changed;
        let Some(entry) = self.of_birth(&name, birth) else { return };
        if matches!(to, AgentState::Idle | AgentState::Working)
            && !std::mem::replace(&mut entry.was_ready, true)
        {
            let ready = Event::WorkerReady {
                name: name.clone(),
                runtime: "pty",
                provider: entry.started.as_ref().map(|started| started.harness.clone()).unwrap_or_default(),
                cli: entry.spec.program.clone(),
                model: entry.spec.model.clone(),
                session_id: entry.session_ref().map(ToString::to_string),
                pid: entry.rooms.as_ref().map(|rooms| rooms.view.pid.load(Ordering::Relaxed)),
            };
            self.publish(ready);
        }
        self.time_stillness(&name, to, ctx);
        self.publish(Event::AgentState { name, from, to, because, dialog });
    }
}

impl AgentRegistry {
    /// The agent is in this state from now on.
    pub(super) fn time_stillness(&mut self, name: &AgentName, state: AgentState, ctx: &mut Context<Self>) {
        let Some(entry) = self.agents.get_mut(name) else { return };
        if let Some(timer) = entry.stillness.take() {
            ctx.cancel_future(timer);
        }
        let Some((what, after)) = told_after(state, entry.spec.idle_after) else { return };
        let (name, birth) = (name.clone(), entry.birth);
        entry.stillness = Some(ctx.run_later(after, move |registry, _| {
            let Some(entry) = registry.of_birth(&name, birth) else {
                return;
            };
            entry.stillness = None;
            let detail = entry.rooms.as_ref().map(|rooms| rooms.view.detail()).unwrap_or_default();
            let secs = after.as_secs();
            match (what, detail.queued) {
                (Stillness::Idle, _) => {
                    registry.publish(Event::AgentIdle {
                        name,
                        idle_secs: secs,
                        since_ms: detail.state_since_ms,
                    });
                }
                (Stillness::Blocked, 0) => {}
                (Stillness::Blocked, pending_delivery_count) => {
                    registry.publish(Event::AgentBlockedOnSend {
                        name,
                        blocked_secs: secs,
                        pending_delivery_count,
                    });
                }
            }
        }));
    }

    /// Begins anew for all agents: a restart forgets every timer.
    pub(super) fn time_all_stillness(&mut self, ctx: &mut Context<Self>) {
        let state = |(name, entry): (&AgentName, &mut super::Entry)| {
            entry.stillness = None;
            let state = lock(&entry.rooms.as_ref()?.view.detail).state?;
            Some((name.clone(), state))
        };
        let states: Vec<_> = self.agents.iter_mut().filter_map(state).collect();
        for (name, state) in states {
            self.time_stillness(&name, state, ctx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_agent_that_waits_or_is_waited_for_is_told_about() {
        let soon = Some(Duration::from_secs(5));
        for (state, idle_after, told) in [
            (AgentState::Idle, None, Some((Stillness::Idle, IDLE_AFTER))),
            (AgentState::Idle, soon, Some((Stillness::Idle, Duration::from_secs(5)))),
            (AgentState::Blocked, soon, Some((Stillness::Blocked, BLOCKED_AFTER))),
            (AgentState::NotReading, None, Some((Stillness::Blocked, BLOCKED_AFTER))),
            (AgentState::Working, soon, None),
            (AgentState::Human, soon, None),
        ] {
            assert_eq!(told_after(state, idle_after), told, "{state:?}");
        }
    }
}
