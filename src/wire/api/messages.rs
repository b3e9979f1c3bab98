//! Channels, messages, and what an agent has not read yet.

use super::*;

/// `POST /v1/channels`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateChannel {
    /// `[a-z0-9][a-z0-9-]*`
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub topic: Option<String>,
    /// Anything.
    #[serde(default, deserialize_with = "null_as_default")]
    pub metadata: Map<String, Value>,
    /// An agent's id.
    #[serde(default)]
    pub created_by: Option<String>,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// No messages any more.
    #[serde(default)]
    pub is_archived: bool,
    /// How many are in it.
    #[serde(default)]
    pub member_count: u64,
    /// With a single channel only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<ChannelMember>>,
}

/// Somebody in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelMember {
    /// Who.
    pub agent_id: AgentId,
    /// Their name.
    #[serde(default)]
    pub agent_name: String,
    /// `owner` or `member`.
    #[serde(default)]
    pub role: String,
    /// ISO 8601.
    #[serde(default)]
    pub joined_at: String,
    /// Hides the channel from event streams, not from deliveries.
    #[serde(default)]
    pub is_muted: bool,
}

/// Answer of `POST /v1/channels/:name/join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedChannel {
    /// Its name.
    pub channel: String,
    /// Who joined.
    pub agent_id: AgentId,
    /// Nothing changed.
    #[serde(default)]
    pub already_member: bool,
}

/// `POST /v1/channels/:name/messages`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PostMessage {
    /// The text.
    pub text: String,
    /// How it reaches a busy agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Rich text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Value>,
    /// Ids of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Vec<String>>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

impl PostMessage {
    /// A plain text.
    pub fn text(text: impl Into<String>, mode: Option<Mode>) -> Self {
        Self { text: text.into(), mode, ..Self::default() }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: MsgId,
    /// Where.
    #[serde(default)]
    pub channel_id: String,
    /// Who.
    #[serde(default)]
    pub agent_id: String,
    /// Their name.
    #[serde(default)]
    pub agent_name: String,
    /// What.
    #[serde(default)]
    pub text: String,
    /// Rich text.
    #[serde(default)]
    pub blocks: Option<Value>,
    /// Anything.
    #[serde(default, deserialize_with = "null_as_default")]
    pub metadata: Map<String, Value>,
    /// Whether files belong to it.
    #[serde(default)]
    pub has_attachments: bool,
    /// The message that it answers.
    #[serde(default)]
    pub thread_id: Option<MsgId>,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// Names.
    #[serde(default, deserialize_with = "null_as_default")]
    pub mentions: Vec<String>,
    /// Files.
    #[serde(default, deserialize_with = "null_as_default")]
    pub attachments: Vec<Value>,
    /// How it reaches a busy agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injection_mode: Option<String>,
    /// In lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_count: Option<u64>,
    /// In lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reactions: Option<Vec<Value>>,
    /// In lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_by_count: Option<u64>,
    /// In replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_name: Option<String>,
}

/// `POST /v1/messages/:id/replies`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PostReply {
    /// The text.
    pub text: String,
    /// Rich text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Value>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

/// `POST /v1/dm`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PostDm {
    /// A name, or `@self`.
    pub to: String,
    /// The text.
    pub text: String,
    /// How it reaches a busy agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Ids of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Vec<String>>,
}

/// Answer of `POST /v1/dm`. The flat tail repeats `message` for old clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SentDm {
    /// Whom it is between.
    #[serde(default)]
    pub conversation_id: String,
    /// The message.
    #[serde(default)]
    pub message: DmMessage,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// The message's id.
    pub id: MsgId,
    /// The sender.
    #[serde(default)]
    pub from_agent_id: String,
    /// The recipient's name.
    #[serde(default)]
    pub to: String,
    /// The text.
    #[serde(default)]
    pub text: String,
    /// How it reaches a busy agent.
    #[serde(default)]
    pub injection_mode: String,
    /// Files.
    #[serde(default, deserialize_with = "null_as_default")]
    pub attachments: Vec<Value>,
}

/// A direct message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DmMessage {
    /// Its id.
    pub id: String,
    /// The sender.
    pub agent_id: String,
    /// The sender's name.
    pub agent_name: String,
    /// The text.
    pub text: String,
    /// How it reaches a busy agent.
    pub injection_mode: String,
    /// Files.
    #[serde(deserialize_with = "null_as_default")]
    pub attachments: Vec<Value>,
}

/// Answer of `POST /v1/messages/:id/read`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReceipt {
    /// Which.
    pub message_id: MsgId,
    /// Who.
    pub agent_id: AgentId,
    /// ISO 8601.
    #[serde(default)]
    pub read_at: String,
}

/// `GET /v1/inbox`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inbox {
    /// Channels with news.
    pub unread_channels: Vec<UnreadChannel>,
    /// Messages that name the reader.
    pub mentions: Vec<Mention>,
    /// Conversations with news.
    pub unread_dms: Vec<UnreadDm>,
    /// Reactions to the reader's messages.
    pub recent_reactions: Vec<Value>,
}

/// A channel with news.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnreadChannel {
    /// Its name.
    pub channel_name: String,
    /// How many.
    pub unread_count: u64,
}

/// A message that names the reader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mention {
    /// Its id.
    pub id: String,
    /// Where.
    pub channel_name: String,
    /// Who.
    pub agent_name: String,
    /// What.
    pub text: String,
    /// ISO 8601.
    pub created_at: String,
}

/// A conversation with news.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnreadDm {
    /// Whom it is between.
    pub conversation_id: String,
    /// With whom.
    pub from: String,
    /// How many.
    pub unread_count: u64,
    /// The newest.
    pub last_message: Option<LastMessage>,
}

/// The newest message of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastMessage {
    /// Its id.
    pub id: String,
    /// What.
    pub text: String,
    /// ISO 8601.
    pub created_at: String,
}
