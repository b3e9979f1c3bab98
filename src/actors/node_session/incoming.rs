//! What the engine says: frames to their cursors, replies to those who wait, and the end of the socket.

use std::time::Instant;

use actix::Context;
use tracing::{debug, info, warn};

use super::{
    DELIVERY_OVERHEAD, NodeSession, ROOM_CHECK, Waiter, pending::Match, phase::Event, routes::Destination,
    words,
};
use crate::{
    ids::AgentName,
    messages::{
        delivery::{Deliver, Delivery},
        invoke::Invoke,
        lifecycle::ExitReason,
        observe::{self, Publish},
        session::{DeregisterAgent, LocationConflict, RegisterRefused, Registration},
    },
    wire::{
        codes::{AGENT_EXISTS, INVALID_MESSAGE, LOCATION_CONFLICT, REPEATING_DELIVERY},
        frames::{
            AgentRegistered, BrokerFrame, DeliverFrame, DeliveryFailed, EngineError, EngineFrame,
            Reply as EngineReply,
        },
        invoke, payload,
        socket::Closed,
    },
};

impl NodeSession {
    pub(super) fn text(&mut self, ctx: &mut Context<Self>, text: &str) {
        let frame = match EngineFrame::decode_tolerant(text) {
            Ok(frame) => frame,
            Err(error) => {
                self.tally.unreadable += 1;
                debug!(%error, bytes = text.len(), "frame cannot be read");
                return;
            }
        };
        self.tally.received(frame.kind());
        if let Some(link) = &mut self.link {
            link.replay.heard(Instant::now());
        }
        match frame {
            EngineFrame::Deliver(frame) => self.deliver(ctx, frame),
            EngineFrame::Reply(reply) => self.replied(ctx, &reply),
            EngineFrame::Error(error) => self.errored(ctx, error),
            EngineFrame::ActionInvoke(frame) => {
                let invoked =
                    Invoke { invocation: frame.invocation_id.clone(), action: invoke::action(&frame) };
                // A registry that has ended is ending the house; the engine will try another node.
                self.doors.invoke.tell(invoked).ok();
            }
            EngineFrame::DeliveryFailed(failed) => self.send_failed(failed),
            EngineFrame::ContextUpdate(_) | EngineFrame::Ping => {}
            EngineFrame::Unknown { kind } => debug!(kind, "frame of an unknown type"),
        }
    }

    /// Nobody here can mend it: whoever watches is told.
    fn send_failed(&self, failed: DeliveryFailed) {
        let DeliveryFailed { message_id: event_id, delivery_id, reason, error, retryable } = failed;
        let reason = reason.or(error).unwrap_or_default();
        let message = event_id.as_ref().map(tracing::field::display);
        warn!(message, reason, retryable, "the engine says that a message will not arrive");
        // Without a hub nobody listens.
        self.doors
            .publish
            .tell(Publish(observe::Event::SendFailed { event_id, delivery_id, reason, retryable }))
            .ok();
    }

    pub(super) fn deliver(&mut self, ctx: &mut Context<Self>, frame: DeliverFrame) {
        if !self.machine.is_live() {
            // The inventory.sync at the start of the session brings it back.
            self.tally.early += 1;
            return;
        }
        match self.routes.find(&frame.agent_id, &frame.agent) {
            Destination::Cursor(route) => {
                let bytes = frame.payload.get().len() + DELIVERY_OVERHEAD;
                let Some(credit) = route.lane.take(frame.seq, bytes) else {
                    self.tally.refused += 1;
                    self.watch_for_room(ctx);
                    return;
                };
                let content = payload::content(&frame.payload, route.name.as_str(), &frame.msg_id);
                let delivery = Delivery {
                    repeats: frame.delivery_id.as_str().starts_with(REPEATING_DELIVERY),
                    delivery_id: frame.delivery_id,
                    msg_id: frame.msg_id,
                    seq: frame.seq,
                    mode: frame.mode,
                    content,
                };
                if route.cursor.tell(Deliver { epoch: self.epoch, delivery, credit }).is_err() {
                    self.tally.quarantined += 1;
                }
            }
            Destination::Absent => self.tally.left += 1,
            Destination::Stranger { first } => {
                self.tally.strangers += 1;
                if first {
                    warn!(agent = %frame.agent_id, "frame for an agent that is not here, acked and dropped");
                }
                if frame.seq.0 > 0
                    && !frame.agent.is_empty()
                    && let Some(link) = &mut self.link
                {
                    link.outbox.ack(&frame.agent, frame.seq);
                    self.flush_soon(ctx);
                }
            }
        }
    }

    pub(super) fn watch_for_room(&mut self, ctx: &mut Context<Self>) {
        let Some(link) = &mut self.link else { return };
        link.replay.refused();
        if link.room_at.is_none() {
            link.room_at = Some(Instant::now() + ROOM_CHECK);
            self.arm(ctx);
        }
    }

    pub(super) fn replied(&mut self, ctx: &mut Context<Self>, reply: &EngineReply) {
        if !self.machine.is_live() {
            self.step(ctx, Event::Replied { id: &reply.id });
            return;
        }
        if self.offer_replied(reply) {
            return;
        }
        let Some(link) = &mut self.link else { return };
        if link.replay.answered(&reply.id) {
            self.pump(ctx);
            return;
        }
        let registered = reply.data::<AgentRegistered>();
        let name = registered.as_ref().ok().and_then(|registered| registered.name.as_deref());
        let name_of = name.and_then(|name| AgentName::parse(name).ok());
        match (link.pending.answered(&reply.id, name), registered) {
            (Match::For(name, waiter), Ok(registered)) => self.registered(name, waiter, registered),
            (Match::For(name, waiter), Err(error)) => {
                warn!(agent = %name, %error, "the reply to a registration cannot be read");
                let (code, message) = ("unreadable_reply".to_owned(), error.to_string());
                waiter.asked.reply.send(Err(RegisterRefused::Engine { code, message }));
            }
            (Match::GivenUp(name), Ok(registered)) => self.registered_late(registered, Some(name)),
            (Match::Nobody, Ok(registered)) => self.registered_late(registered, name_of),
            (Match::GivenUp(_) | Match::Nobody, Err(_)) => {
                self.tally.unmatched += 1;
                debug!(id = reply.id, "reply for nobody");
            }
        }
    }

    pub(super) fn registered(&mut self, name: AgentName, waiter: Waiter, registered: AgentRegistered) {
        let agent_id = registered.agent_id;
        self.routes.expect(agent_id.clone(), name.clone());
        let registration = Registration {
            agent_id: agent_id.clone(),
            token: registered.token,
            ack_seq: registered.delivery_ack_seq,
        };
        if !waiter.asked.reply.send(Ok(registration)) {
            self.undo_registration(DeregisterAgent { agent_id, name });
        }
    }

    /// An agent exists at the engine that nobody here waits for any more.
    pub(super) fn registered_late(&mut self, registered: AgentRegistered, name: Option<AgentName>) {
        self.tally.late += 1;
        let Some(link) = &self.link else { return };
        // The id is the same for a name that was registered again: a newer one must not be undone.
        let wanted = self.routes.knows(&registered.agent_id)
            || name.as_ref().is_some_and(|name| link.pending.has(name));
        if !wanted && let Some(name) = name {
            self.undo_registration(DeregisterAgent { agent_id: registered.agent_id, name });
        }
    }

    pub(super) fn undo_registration(&mut self, gone: DeregisterAgent) {
        info!(agent = %gone.name, id = %gone.agent_id, "registration was given up, deregistering");
        self.routes.forget_absent(&gone.agent_id);
        self.send_or_owe(words::deregister_agent(&gone));
    }

    pub(super) fn errored(&mut self, ctx: &mut Context<Self>, error: EngineError) {
        if !self.machine.is_live() {
            let EngineError { id, code, message, .. } = &error;
            self.step(ctx, Event::Errored { id, code, message });
            return;
        }
        if self.offer_errored(&error) {
            return;
        }
        let Some(link) = &mut self.link else { return };
        if link.replay.answered(&error.id) {
            warn!(code = error.code, message = error.message, "the engine refused the inventory");
            self.life.error(format!("inventory.sync: {}: {}", error.code, error.message));
            if error.code == LOCATION_CONFLICT {
                // A registry that has ended is ending the house.
                self.doors.conflict.tell(LocationConflict).ok();
            }
            self.pump(ctx);
            return;
        }
        match link.pending.answered(&error.id, None) {
            Match::For(name, waiter) => self.registration_refused(ctx, name, waiter, error),
            Match::GivenUp(_) => self.tally.late += 1,
            Match::Nobody if error.code == INVALID_MESSAGE => {
                self.tally.not_understood += 1;
                warn!(message = error.message, "the engine could not read a frame of ours");
                self.life.error(format!("the engine could not read a frame of ours: {}", error.message));
            }
            Match::Nobody => {
                self.tally.unmatched += 1;
                debug!(id = error.id, code = error.code, "error for nobody");
            }
        }
    }

    /// Newer engines create only; an agent that we know the id of is taken back instead (spec/wire 7).
    pub(super) fn registration_refused(
        &mut self,
        ctx: &mut Context<Self>,
        name: AgentName,
        waiter: Waiter,
        error: EngineError,
    ) {
        if error.code == AGENT_EXISTS && !waiter.recovering && waiter.asked.known_id.is_some() {
            let id = self.request_id("agent_recover");
            if let Some(frame) = words::recover_agent(id.clone(), &waiter.asked) {
                self.open_registration(ctx, id, name, frame, Waiter { recovering: true, ..waiter });
                return;
            }
        }
        let EngineError { code, message, .. } = error;
        waiter.asked.reply.send(Err(RegisterRefused::Engine { code, message }));
    }

    pub(super) fn open_registration(
        &mut self,
        ctx: &mut Context<Self>,
        id: String,
        name: AgentName,
        frame: BrokerFrame,
        waiter: Waiter,
    ) {
        let Some(link) = &mut self.link else {
            waiter.asked.reply.send(Err(RegisterRefused::Offline));
            return;
        };
        link.pending.open(id, name, Instant::now() + self.timings.agent_register, waiter);
        self.send(frame);
        self.arm(ctx);
    }

    pub(super) fn closed(&mut self, ctx: &mut Context<Self>, how: Closed) {
        if !self.leaving.is_empty() {
            self.end(ctx, ExitReason::Finished);
            return;
        }
        let event = match how {
            Closed::ByPeer { code, reason } => {
                let code = code.map_or("no code".to_owned(), |code| code.to_string());
                let why = format!("the engine closed the socket ({code} {reason})");
                Event::Closed { reason: Some(reason), why }
            }
            Closed::Lost(why) => Event::Closed { reason: None, why },
            Closed::WriteStalled => {
                Event::Closed { reason: None, why: "the engine stopped reading".to_owned() }
            }
        };
        self.step(ctx, event);
    }
}
