//! What a sidecar is told and says: the calls of its handlers, and their ends.
//!
//! A call goes by the rules of every invocation: before it is handed over, the kernel has a record by which a
//! repeat is answered without running it again; its own result replaces that. A sidecar that goes away in the
//! middle is `handler_unavailable` to the engine, which looks for another node; if there is none and the
//! invocation comes back here, that record ends it.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use futures_util::future::OptionFuture;
use tracing::{info, warn};

use super::{
    AgentRegistry,
    command::OUTPUT_MAX,
    invocations::{HANDLER_UNAVAILABLE, cut_short},
    sidecar::Declared,
};
use crate::{
    ids::SidecarId,
    messages::{
        invoke::InvocationResult,
        session::SetOffer,
        sidecar::{Call, EndCall, Offer, OfferHandlers, RegisterSidecar, SidecarGone, SidecarRefused},
    },
};

/// A call that has no result after this has failed, and its place is free again.
const CALL_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How much of a handler's error the caller is told, in bytes.
const ERROR_MAX: usize = 1 << 10;

impl AgentRegistry {
    /// Hands an invocation to the sidecar once a kill of this process cannot have it run twice.
    pub(super) fn call(&mut self, sidecar: SidecarId, call: Call, ctx: &mut Context<Self>) {
        info!(handler = call.handler, invocation = %call.invocation, "calling a handler of the sidecar");
        let kept = self.keep_result(&call.invocation, cut_short());
        let invocation = call.invocation.clone();
        let written = OptionFuture::from(self.journal.written(kept));
        ctx.spawn(written.into_actor(self).map(move |written, registry, _| {
            // A journal that has ended ends the house.
            if !matches!(written, Some(Err(_))) && registry.running.is_called(&call.invocation, sidecar) {
                let handed = registry.sidecar.calls(sidecar).map(|calls| calls.try_send(call.clone()));
                // Its socket has ended; that is told next.
                if !matches!(handed, Some(Ok(()))) {
                    registry.unavailable(call.invocation);
                }
            }
        }));
        ctx.run_later(CALL_LIMIT, move |registry, _| {
            if registry.running.is_called(&invocation, sidecar) {
                warn!(%invocation, "a handler of the sidecar has no result after a long time");
                let why = format!("its handler did not answer within {CALL_LIMIT:?}");
                registry.answer_invocation(invocation, InvocationResult::failed_action(why));
                registry.report();
            }
        });
        self.report();
    }

    /// A sidecar has no handlers any more: the engine hears that first, then what becomes of its calls.
    fn let_go(&mut self, sidecar: SidecarId) {
        let offered = self.sidecar.offered();
        if !self.sidecar.leave(sidecar) {
            return;
        }
        if offered != Offer::default() {
            // A session that is down has it then; nobody waits for the engine here.
            drop(self.doors.offer.ask(|reply| SetOffer { offer: Offer::default(), reply }));
        }
        let calls = self.running.calls_of(sidecar);
        info!(%sidecar, calls = calls.len(), "the sidecar is gone");
        for invocation in calls {
            self.unavailable(invocation);
        }
        self.publish_inventory();
        self.report();
    }
}

impl Handler<RegisterSidecar> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, asked: RegisterSidecar, _: &mut Self::Context) {
        let _turn = self.life.turn();
        let RegisterSidecar { manifest, calls, reply } = asked;
        if let Some(lost) = self.sidecar.lost() {
            self.let_go(lost);
        }
        let declared = Declared { handlers: &self.config.handlers, actions: &self.config.actions };
        let registered = self.sidecar.register(manifest, calls, declared);
        match &registered {
            Ok(id) => info!(sidecar = %id, name = self.sidecar.name(), "a sidecar is here"),
            Err(refused) => warn!(%refused, "sidecar refused"),
        }
        let id = registered.as_ref().ok().copied();
        if !reply.send(registered)
            && let Some(id) = id
        {
            self.let_go(id);
        }
        self.report();
    }
}

impl Handler<OfferHandlers> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, asked: OfferHandlers, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let OfferHandlers { sidecar, names, reply } = asked;
        if let Err(refused) = self.sidecar.offer(sidecar, names) {
            // Whoever asked went away.
            reply.send(Err(refused));
            return;
        }
        let taken = self.doors.offer.ask(|reply| SetOffer { offer: self.sidecar.offered(), reply });
        ctx.spawn(taken.into_actor(self).map(move |taken, registry, _| {
            // A session that ended meanwhile offers it with its next life.
            let taken = taken.unwrap_or(Ok(()));
            if let Err(why) = &taken {
                warn!(%why, "the engine does not take the handlers of the sidecar");
                registry.let_go(sidecar);
            }
            // Whoever asked went away.
            reply.send(taken.map_err(SidecarRefused::from));
        }));
        self.report();
    }
}

impl Handler<EndCall> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, ended: EndCall, _: &mut Self::Context) {
        let _turn = self.life.turn();
        let EndCall { sidecar, invocation, outcome, reply } = ended;
        let answer = if !self.sidecar.is(sidecar) {
            Err(SidecarRefused::NotRegistered)
        } else if !self.running.is_called(&invocation, sidecar) {
            Err(SidecarRefused::UnknownInvocation(invocation))
        } else {
            let (result, answer) = result_of(outcome);
            self.answer_invocation(invocation, result);
            answer
        };
        // Whoever asked went away.
        reply.send(answer);
        self.report();
    }
}

/// The result of a call, and what its sidecar is answered.
fn result_of(outcome: Result<String, String>) -> (InvocationResult, Result<(), SidecarRefused>) {
    match outcome {
        Ok(output) if output.len() > OUTPUT_MAX => {
            let refused = SidecarRefused::OutputTooLong(output.len(), OUTPUT_MAX);
            (InvocationResult::failed_action(&refused), Err(refused))
        }
        Ok(output) => (InvocationResult::Output(output), Ok(())),
        Err(error) => {
            let error = &error[..error.floor_char_boundary(ERROR_MAX)];
            let result = match error.trim() {
                "" => InvocationResult::failed_action("its handler failed without a word"),
                // To an engine it means that the handler did not run.
                HANDLER_UNAVAILABLE => InvocationResult::failed_action(HANDLER_UNAVAILABLE),
                error => InvocationResult::Failed(error.to_owned()),
            };
            (result, Ok(()))
        }
    }
}

impl Handler<SidecarGone> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, gone: SidecarGone, _: &mut Self::Context) {
        let _turn = self.life.turn();
        self.let_go(gone.sidecar);
        // Nobody waits when its socket broke.
        gone.reply.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_in_the_handlers_words_and_never_as_a_handler_that_did_not_run() {
        let failed = |error: &str| match result_of(Err(error.to_owned())) {
            (InvocationResult::Failed(said), Ok(())) => said,
            other => panic!("{other:?}"),
        };
        assert_eq!(failed("boom"), "boom");
        assert_eq!(failed(" "), "action_failed: its handler failed without a word");
        assert_eq!(failed("handler_unavailable"), "action_failed: handler_unavailable");
        assert_eq!(failed(&"ł".repeat(2000)).len(), ERROR_MAX);
    }

    #[test]
    fn an_output_that_cannot_be_kept_fails_the_call_and_is_refused() {
        assert_eq!(result_of(Ok("null".into())), (InvocationResult::Output("null".into()), Ok(())));
        let (result, answer) = result_of(Ok("x".repeat(OUTPUT_MAX + 1)));
        assert!(
            matches!(result, InvocationResult::Failed(why) if why.starts_with("action_failed: an output"))
        );
        assert_eq!(answer, Err(SidecarRefused::OutputTooLong(OUTPUT_MAX + 1, OUTPUT_MAX)));
    }
}
