//! The invocations of the engine: what each comes to here, and how it is answered.
//!
//! What is to be done with one is decided by the rules in [`invocations`](super::invocations). Before anything
//! begins that must not happen twice, the kernel has a record by which a repeat is answered.

use actix::{ActorFutureExt, AsyncContext, Handler, WrapFuture};
use futures_util::future::OptionFuture;
use tracing::info;

use super::{
    AgentRegistry, RegistryConfig,
    command::{self, Call},
    invocations::{Defaults, HANDLER_UNAVAILABLE, Plan, cut_short},
};
use crate::{
    ids::InvocationId,
    messages::{
        Reply, Unanswered,
        invoke::{InvocationEnded, InvocationResult, Invoke},
        release::{Release, Released},
        spawn::Origin,
    },
    store::{Record, Ticket},
    supervision::now_ms,
};

impl Handler<Invoke> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, invoke: Invoke, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let Invoke { invocation, action } = invoke;
        let known = self.journal.invocation(&invocation);
        let RegistryConfig { cwd, channels, handlers, actions, .. } = &self.config;
        let defaults = Defaults { cwd, channels, handlers, actions, sidecar: &self.sidecar };
        match self.running.plan(&invocation, known, action, defaults) {
            Plan::Ignore => {}
            Plan::Repeat(result) => self.tell_result(invocation, result),
            Plan::Fail(why) => self.answer_invocation(invocation, InvocationResult::Failed(why)),
            Plan::Unavailable => self.unavailable(invocation),
            Plan::Call(sidecar, call) => self.call(sidecar, call, ctx),
            Plan::Run { action, declared, input } => {
                info!(action, %invocation, "running a declared action");
                let kept = self.keep_result(&invocation, cut_short());
                let cwd = self.config.cwd.clone();
                let call = Call { action, invocation: invocation.clone(), declared, cwd, input };
                let written = self.journal.written(kept);
                let ran = async move {
                    // Before that record is in the kernel, a kill of this process would have the command run twice.
                    // A journal that has ended ends the house.
                    if let Some(Err(Unanswered)) = OptionFuture::from(written).await {
                        return cut_short();
                    }
                    command::run(call).await
                };
                ctx.spawn(ran.into_actor(self).map(move |result, registry, _| {
                    registry.answer_invocation(invocation, result);
                }));
            }
            Plan::Spawn(spec) => self.spawn(*spec, Origin::Engine(invocation), None, ctx),
            Plan::Release(name, reason) => {
                let (reply, released) = Reply::channel();
                let release = Release { name: name.clone(), reason, force: false, reply };
                self.release(release, ctx);
                ctx.spawn(released.into_actor(self).map(move |released, registry, _| {
                    let result = match released {
                        Ok(Released::Ended(_) | Released::AlreadyGone) => InvocationResult::Released { name },
                        Ok(Released::Overdue) => InvocationResult::Failed(
                            "release_failed: it did not end in time; look for its process on this node"
                                .to_owned(),
                        ),
                        Ok(Released::Unknown) => {
                            InvocationResult::Failed("release_failed: no such agent on this node".to_owned())
                        }
                        Err(Unanswered) => {
                            InvocationResult::Failed("release_failed: the registry restarted".to_owned())
                        }
                    };
                    registry.answer_invocation(invocation, result);
                }));
            }
        }
        self.publish_inventory();
    }
}

impl AgentRegistry {
    pub(super) fn answer_invocation(&mut self, invocation: InvocationId, result: InvocationResult) {
        self.running.ended(&invocation);
        self.keep_result(&invocation, result.clone());
        self.tell_result(invocation, result);
        self.publish_inventory();
    }

    /// From now on, and by the next broker process, the invocation is answered with this.
    pub(super) fn keep_result(&self, invocation: &InvocationId, result: InvocationResult) -> Ticket {
        let (invocation, at_ms) = (invocation.clone(), now_ms());
        self.journal.append(Record::InvocationEnded { invocation, result, at_ms })
    }

    /// Tells the engine that nothing here can run it, and keeps nothing of that: a sidecar may come.
    pub(super) fn unavailable(&mut self, invocation: InvocationId) {
        self.running.ended(&invocation);
        self.tell_result(invocation, InvocationResult::Failed(HANDLER_UNAVAILABLE.to_owned()));
    }

    fn tell_result(&self, invocation: InvocationId, result: InvocationResult) {
        // A session that is down is asked again by the engine, which then hears what was kept of it.
        self.doors.invocation_ended.tell(InvocationEnded { invocation, result }).ok();
    }
}
