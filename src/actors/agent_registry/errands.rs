//! What is done at the engine over HTTP for somebody: a person's message, an agent's channels, a read receipt.

use actix::{ActorFutureExt, AsyncContext, Handler, WrapFuture};

use super::{AgentRegistry, Entry};
use crate::messages::{
    channels::{ChangeChannels, ChannelsRefused, Membership},
    delivery::MarkRead,
    observe::Event,
    send::SendMessage,
    session::Dialect,
};

/// Read receipts on their way at once; further ones are not sent, for nothing depends on them.
const RECEIPTS_MAX: usize = 64;

impl Handler<SendMessage> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, send: SendMessage, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let SendMessage { to, text, mode, thread, reply } = send;
        let engine = self.engine.clone();
        let sent = async move { engine.send(to, text, mode, thread).await };
        ctx.spawn(sent.into_actor(self).map(|sent, _, _| {
            // Whoever asked went away; the message is on its way all the same.
            reply.send(sent);
        }));
    }
}

impl Handler<ChangeChannels> for AgentRegistry {
    type Result = ();

    fn handle(&mut self, ask: ChangeChannels, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        let ChangeChannels { name, change, channels, reply } = ask;
        let found =
            self.agents.get(&name).and_then(|entry| Some((entry.birth, entry.registration.as_ref()?)));
        let Some((birth, registration)) = found else {
            // Whoever asked went away.
            reply.send(Err(ChannelsRefused::NoSuchAgent(name)));
            return;
        };
        let channels: Vec<_> = channels.iter().map(|name| name.trim_start_matches('#').to_owned()).collect();
        let (engine, token, agent) = (self.engine.clone(), registration.token.clone(), name.clone());
        let changed = async move {
            let (done, result) = engine.change_channels(&agent, &token, change, &channels).await;
            (channels.into_iter().take(done).collect::<Vec<_>>(), result)
        };
        ctx.spawn(changed.into_actor(self).map(move |(changed, result), registry, _| {
            let entry = registry.of_birth(&name, birth);
            let answer = match entry {
                None => Err(ChannelsRefused::NoSuchAgent(name)),
                Some(entry) => {
                    entry.note_channels(change, changed);
                    result.map(|()| entry.spec.channels.clone())
                }
            };
            // Whoever asked went away; the list has it.
            reply.send(answer);
        }));
    }
}

impl Entry {
    /// The engine has changed these memberships.
    fn note_channels(&mut self, change: Membership, changed: Vec<String>) {
        let channels = &mut self.spec.channels;
        channels.retain(|known| !changed.iter().any(|one| one == known.trim_start_matches('#')));
        if change == Membership::Join {
            channels.extend(changed);
        }
    }
}

impl Handler<MarkRead> for AgentRegistry {
    type Result = ();

    /// On a 5.0 engine, and on our own, an ack is a read receipt already (spec/wire 4.3); newer ones are told
    /// by the agent's own token, beside everything else.
    fn handle(&mut self, read: MarkRead, ctx: &mut Self::Context) {
        let _turn = self.life.turn();
        if self.config.embedded || self.dialect != Some(Dialect::V6) {
            self.publish_read(read, "suppressed_duplicate", None);
            return;
        }
        let token =
            self.agents.get(&read.name).and_then(|entry| Some(entry.registration.as_ref()?.token.clone()));
        let Some(token) = token else {
            return self.publish_read(read, "failed", Some("the agent is gone".to_owned()));
        };
        if self.receipts == RECEIPTS_MAX {
            return self.publish_read(read, "failed", Some("too many are on their way".to_owned()));
        }
        self.receipts += 1;
        let (engine, message) = (self.engine.clone(), read.msg_id.clone());
        let marked = async move { engine.mark_read(&token, &message).await };
        ctx.spawn(marked.into_actor(self).map(|marked, registry, _| {
            registry.receipts = registry.receipts.saturating_sub(1);
            match marked {
                Ok(()) => registry.publish_read(read, "marked", None),
                Err(why) => registry.publish_read(read, "failed", Some(why)),
            }
        }));
    }
}

impl AgentRegistry {
    fn publish_read(&self, read: MarkRead, status: &'static str, reason: Option<String>) {
        let MarkRead { name, delivery_id, msg_id } = read;
        self.publish(Event::DeliveryReadAck { name, delivery_id, event_id: msg_id, status, reason });
    }
}
