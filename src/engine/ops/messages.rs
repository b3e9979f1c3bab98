//! Messages: posting, reading, reacting. One numbered row per recipient, in the transaction of the message.

use serde_json::{Map, Value, json, value::RawValue};
use tracing::warn;

use crate::{
    engine::{
        core::Core,
        error::Failure,
        frames::{self, Event},
        hub::Effect,
        ids,
        rules::{millis, text::mentions},
        store::{AgentRow, ChannelRow, MemberRow, MessageRow, NewMessage},
        views,
    },
    messages::delivery::Mode,
    wire::api::{DmMessage, Message, ReadReceipt, SentDm},
};

/// What somebody wants to say.
#[derive(Default)]
pub(in crate::engine) struct Draft {
    pub(in crate::engine) text: String,
    pub(in crate::engine) mode: Mode,
    pub(in crate::engine) blocks: Option<Value>,
    pub(in crate::engine) data: Option<Value>,
    pub(in crate::engine) attachments: Vec<String>,
}

impl Core {
    /// Posts into a channel; every other member gets it.
    pub(in crate::engine) fn post_message(
        &mut self,
        author: &AgentRow,
        channel: &ChannelRow,
        draft: Draft,
    ) -> Result<Message, Failure> {
        let row = self.write(author, channel, None, draft)?;
        let message = views::message(&row, channel);
        let payload = frames::payload(
            "message.created",
            &with(&message, json!({"channel_name": channel.display_name(), "from_name": author.name})),
        );
        self.deliver(&row, &payload, channel)?;
        Ok(message)
    }

    /// Answers a message; a reply to a reply belongs to the same thread.
    pub(in crate::engine) fn post_reply(
        &mut self,
        author: &AgentRow,
        parent: &MessageRow,
        channel: &ChannelRow,
        draft: Draft,
    ) -> Result<Message, Failure> {
        let row = self.write(author, channel, Some(parent.thread.unwrap_or(parent.id)), draft)?;
        let message = Message {
            channel_name: Some(channel.display_name().to_owned()),
            ..views::message(&row, channel)
        };
        let payload = if channel.conversation.is_some() {
            let sent = sent_dm(&row, channel, "");
            frames::payload(
                "dm.received",
                &with(&sent, json!({"from_name": author.name, "thread_id": message.thread_id})),
            )
        } else {
            frames::payload(
                "thread.reply",
                &json!({
                    "id": message.id, "channel_id": message.channel_id, "channel_name": message.channel_name,
                    "agent_id": message.agent_id, "agent_name": message.agent_name,
                    "thread_id": message.thread_id, "text": message.text, "blocks": message.blocks,
                    "metadata": message.metadata, "has_attachments": message.has_attachments,
                    "created_at": message.created_at, "from_name": author.name,
                }),
            )
        };
        self.deliver(&row, &payload, channel)?;
        Ok(message)
    }

    /// Says something to one agent; to oneself it is kept and delivered to nobody.
    pub(in crate::engine) fn post_dm(
        &mut self,
        author: &AgentRow,
        to: &str,
        draft: Draft,
    ) -> Result<SentDm, Failure> {
        let recipient = if to == "@self" { author.clone() } else { self.agent_named(author.workspace, to)? };
        let hex = ids::conversation(author.workspace, author.id, recipient.id);
        let channel = self.store.conversation(author.workspace, &hex)?;
        if channel.member_count == 0 {
            self.store.join(channel.id, author.id, "member")?;
            self.store.join(channel.id, recipient.id, "member")?;
        }
        let row = self.write(author, &channel, None, draft)?;
        let sent = sent_dm(&row, &channel, &recipient.name);
        let payload = frames::payload("dm.received", &with(&sent, json!({"from_name": author.name})));
        self.store.insert_message(&NewMessage { row: &row, payload: payload.get() })?;
        if recipient.id != author.id {
            self.put(&row, &channel, recipient.id, recipient.node, "dm")?;
        }
        Ok(sent)
    }

    /// An agent has read a message: its row is closed and the others hear of it.
    pub(in crate::engine) fn mark_read(
        &mut self,
        reader: &AgentRow,
        message: i64,
    ) -> Result<ReadReceipt, Failure> {
        let (row, channel) = self.message_for(reader, message)?;
        let read_at = views::iso(self.store.insert_receipt(row.id, reader.id)?);
        self.store.ack_message(reader.id, row.id)?;
        self.store.advance_last_read(channel.id, reader.id, row.id)?;
        let receipt = ReadReceipt {
            message_id: row.id.to_string().into(),
            agent_id: reader.id.to_string().into(),
            read_at,
        };
        let payload = frames::payload("message.read", &with(&receipt, json!({"agent_name": reader.name})));
        self.tell_others(
            &channel,
            reader.id,
            &Event {
                kind: "message.read",
                key: &format!("{}_{}", row.id, reader.id),
                about: &row.id.to_string(),
                payload: &payload,
            },
        )?;
        Ok(receipt)
    }

    /// Adds an emoji; giving it twice is one reaction.
    pub(in crate::engine) fn react(
        &mut self,
        actor: &AgentRow,
        message: i64,
        emoji: &str,
    ) -> Result<Value, Failure> {
        let (row, channel) = self.message_for(actor, message)?;
        let fresh = self.store.insert_reaction(row.id, actor.id, &actor.name, emoji)?;
        let (id, created_at) = self
            .store
            .reaction(row.id, actor.id, emoji)?
            .ok_or(Failure::Aborted("a fresh reaction is missing"))?;
        if fresh.is_some() {
            let payload = frames::payload(
                "message.reacted",
                &json!({
                    "id": id.to_string(), "message_id": row.id.to_string(), "emoji": emoji,
                    "agent_id": actor.id.to_string(), "channel_name": channel.display_name(),
                    "agent_name": actor.name, "action": "added",
                }),
            );
            self.tell_others(
                &channel,
                actor.id,
                &Event {
                    kind: "message.reacted",
                    key: &id.to_string(),
                    about: &row.id.to_string(),
                    payload: &payload,
                },
            )?;
        }
        Ok(json!({
            "id": id.to_string(), "message_id": row.id.to_string(), "agent_name": actor.name,
            "emoji": emoji, "created_at": views::iso(created_at),
        }))
    }

    /// Takes an emoji back; one that is not there is gone already.
    pub(in crate::engine) fn unreact(
        &mut self,
        actor: &AgentRow,
        message: i64,
        emoji: &str,
    ) -> Result<(), Failure> {
        let (row, channel) = self.message_for(actor, message)?;
        if !self.store.delete_reaction(row.id, actor.id, emoji)? {
            return Ok(());
        }
        let payload = frames::payload(
            "message.reacted",
            &json!({
                "message_id": row.id.to_string(), "emoji": emoji, "channel_name": channel.display_name(),
                "agent_name": actor.name, "action": "removed",
            }),
        );
        self.tell_others(
            &channel,
            actor.id,
            &Event {
                kind: "message.reacted",
                key: &format!("removed_{}_{}_{emoji}", row.id, actor.id),
                about: &row.id.to_string(),
                payload: &payload,
            },
        )
    }

    /// A message of the caller's workspace with its channel. A conversation of others does not exist.
    pub(in crate::engine) fn message_in(
        &self,
        workspace: i64,
        reader: Option<i64>,
        message: i64,
    ) -> Result<(MessageRow, ChannelRow), Failure> {
        let missing = || Failure::not_found("message_not_found", "there is no such message");
        let row = self.store.message(message)?.ok_or_else(missing)?;
        let channel = self.store.channel(row.channel)?.ok_or_else(missing)?;
        let foreign = match reader {
            Some(agent) if channel.conversation.is_some() => !self.store.is_member(channel.id, agent)?,
            _ => false,
        };
        if channel.workspace != workspace || foreign { Err(missing()) } else { Ok((row, channel)) }
    }

    /// A message in a channel that the agent is a member of.
    fn message_for(&self, agent: &AgentRow, message: i64) -> Result<(MessageRow, ChannelRow), Failure> {
        let (row, channel) = self.message_in(agent.workspace, Some(agent.id), message)?;
        if self.store.is_member(channel.id, agent.id)? {
            Ok((row, channel))
        } else {
            Err(Failure::not_found("message_not_found", "there is no such message in your channels"))
        }
    }

    fn write(
        &mut self,
        author: &AgentRow,
        channel: &ChannelRow,
        thread: Option<i64>,
        draft: Draft,
    ) -> Result<MessageRow, Failure> {
        if channel.archived {
            return Err(Failure::bad_request("channel_archived", "this channel is archived"));
        }
        if draft.text.is_empty() {
            return Err(Failure::bad_request("invalid_request", "text must not be empty"));
        }
        if !draft.attachments.is_empty() {
            return Err(Failure::bad_request(
                "invalid_request",
                "this engine keeps no files: send no attachments",
            ));
        }
        let metadata = match draft.data {
            Some(Value::Object(data)) => data,
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err(Failure::bad_request("invalid_request", "data must be an object")),
        };
        Ok(MessageRow {
            id: self.store.next_id(),
            channel: channel.id,
            agent: author.id,
            agent_name: author.name.clone(),
            thread,
            mentions: json!(mentions(&draft.text)).to_string(),
            text: draft.text,
            blocks: draft.blocks.filter(|blocks| !blocks.is_null()).map(|blocks| blocks.to_string()),
            metadata: Value::Object(metadata).to_string(),
            attachments: "[]".to_owned(),
            mode: match draft.mode {
                Mode::Wait => "wait".to_owned(),
                Mode::Steer => "steer".to_owned(),
            },
            created_at: self.store.now(),
        })
    }

    /// Stores a message and puts it into the mailbox of everyone in the channel but its author.
    fn deliver(&mut self, row: &MessageRow, payload: &RawValue, channel: &ChannelRow) -> Result<(), Failure> {
        self.store.insert_message(&NewMessage { row, payload: payload.get() })?;
        let named = mentions(&row.text);
        for member in self.store.members(channel.id)? {
            let MemberRow { agent, agent_name, node, .. } = member;
            if agent != row.agent {
                let reason = match (&channel.conversation, row.thread) {
                    (Some(_), _) => "dm",
                    _ if named.contains(&agent_name) => "mention",
                    (None, Some(_)) => "thread",
                    (None, None) => "channel",
                };
                self.put(row, channel, agent, node, reason)?;
            }
        }
        Ok(())
    }

    /// One mailbox. A full one refuses: no row, no number (spec/wire 4.2).
    fn put(
        &mut self,
        row: &MessageRow,
        channel: &ChannelRow,
        agent: i64,
        node: Option<String>,
        reason: &str,
    ) -> Result<(), Failure> {
        let depth = i64::try_from(self.limits.mailbox_depth).unwrap_or(i64::MAX);
        if self.store.unacked(agent)? >= depth {
            if self.full.insert(agent) {
                warn!(agent, message = row.id, "a mailbox is full: messages for this agent are refused");
            }
            return Ok(());
        }
        let expires_at = row.created_at.saturating_add(millis(self.limits.message_ttl));
        self.store.enqueue(agent, row.id, channel.id, reason, expires_at)?;
        if let Some(node) = node {
            self.effect(Effect::Mail { node, agent });
        }
        Ok(())
    }

    fn tell_others(&mut self, channel: &ChannelRow, actor: i64, event: &Event<'_>) -> Result<(), Failure> {
        for member in self.store.members(channel.id)? {
            if member.agent != actor
                && let Some(node) = member.node
            {
                let frame = frames::event(member.agent, &member.agent_name, event);
                self.effect(Effect::Event { node, frame });
            }
        }
        Ok(())
    }
}

/// The answer to a direct message; old clients read the flat tail.
fn sent_dm(row: &MessageRow, channel: &ChannelRow, to: &str) -> SentDm {
    SentDm {
        conversation_id: format!("dm_{}", channel.conversation.as_deref().unwrap_or_default()),
        message: DmMessage {
            id: row.id.to_string(),
            agent_id: row.agent.to_string(),
            agent_name: row.agent_name.clone(),
            text: row.text.clone(),
            injection_mode: row.mode.clone(),
            attachments: Vec::new(),
        },
        created_at: views::iso(row.created_at),
        id: row.id.to_string().into(),
        from_agent_id: row.agent.to_string(),
        to: to.to_owned(),
        text: row.text.clone(),
        injection_mode: row.mode.clone(),
        attachments: Vec::new(),
    }
}

/// A body with a few keys more.
fn with(body: &impl serde::Serialize, more: Value) -> Value {
    // Bodies are plain structs, which always serialise to objects.
    let mut body = serde_json::to_value(body).unwrap_or_default();
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}
