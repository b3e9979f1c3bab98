//! Messages, reactions and receipts.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;

/// One message. `blocks`, `metadata`, `mentions` and `attachments` are JSON.
#[derive(Clone)]
pub(in crate::engine) struct MessageRow {
    pub(in crate::engine) id: i64,
    pub(in crate::engine) channel: i64,
    pub(in crate::engine) agent: i64,
    pub(in crate::engine) agent_name: String,
    pub(in crate::engine) thread: Option<i64>,
    pub(in crate::engine) text: String,
    pub(in crate::engine) blocks: Option<String>,
    pub(in crate::engine) metadata: String,
    pub(in crate::engine) mentions: String,
    pub(in crate::engine) attachments: String,
    pub(in crate::engine) mode: String,
    pub(in crate::engine) created_at: i64,
}

/// A message with what a deliver frame says of it.
pub(in crate::engine) struct NewMessage<'a> {
    pub(in crate::engine) row: &'a MessageRow,
    pub(in crate::engine) payload: &'a str,
}

/// One agent's emoji on a message.
pub(in crate::engine) struct ReactionRow {
    pub(in crate::engine) message: i64,
    pub(in crate::engine) agent_name: String,
    pub(in crate::engine) emoji: String,
    pub(in crate::engine) created_at: i64,
}

const COLUMNS: &str = "id, channel_id, agent_id, agent_name, thread_id, text, blocks, metadata, mentions, \
     attachments, mode, created_at";

fn read(row: &Row<'_>) -> rusqlite::Result<MessageRow> {
    Ok(MessageRow {
        id: row.get(0)?,
        channel: row.get(1)?,
        agent: row.get(2)?,
        agent_name: row.get(3)?,
        thread: row.get(4)?,
        text: row.get(5)?,
        blocks: row.get(6)?,
        metadata: row.get(7)?,
        mentions: row.get(8)?,
        attachments: row.get(9)?,
        mode: row.get(10)?,
        created_at: row.get(11)?,
    })
}

fn read_reaction(row: &Row<'_>) -> rusqlite::Result<ReactionRow> {
    Ok(ReactionRow {
        message: row.get(0)?,
        agent_name: row.get(1)?,
        emoji: row.get(2)?,
        created_at: row.get(3)?,
    })
}

impl Store {
    pub(in crate::engine) fn insert_message(&self, message: &NewMessage<'_>) -> rusqlite::Result<()> {
        let row = message.row;
        self.conn
            .prepare_cached(
                "INSERT INTO messages (id, channel_id, agent_id, agent_name, thread_id, text, blocks, metadata,
                                       mentions, attachments, mode, payload, created_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                row.id,
                row.channel,
                row.agent,
                row.agent_name,
                row.thread,
                row.text,
                row.blocks,
                row.metadata,
                row.mentions,
                row.attachments,
                row.mode,
                message.payload,
                row.created_at,
            ])
            .map(drop)
    }

    pub(in crate::engine) fn message(&self, id: i64) -> rusqlite::Result<Option<MessageRow>> {
        self.conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM messages WHERE id = ?"))?
            .query_row([id], read)
            .optional()
    }

    /// Top-level messages of a channel between two ids (exclusive), newest first.
    pub(in crate::engine) fn channel_messages(
        &self,
        channel: i64,
        after: i64,
        before: i64,
        limit: i64,
    ) -> rusqlite::Result<Vec<MessageRow>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM messages
                 WHERE channel_id = ? AND id > ? AND id < ? AND thread_id IS NULL ORDER BY id DESC LIMIT ?"
            ))?
            .query_map([channel, after, before, limit], read)?
            .collect()
    }

    /// The replies to a message, oldest first.
    pub(in crate::engine) fn replies(&self, thread: i64, limit: i64) -> rusqlite::Result<Vec<MessageRow>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM messages WHERE thread_id = ? ORDER BY id LIMIT ?"
            ))?
            .query_map([thread, limit], read)?
            .collect()
    }

    pub(in crate::engine) fn reply_count(&self, message: i64) -> rusqlite::Result<i64> {
        self.conn
            .prepare_cached("SELECT count(*) FROM messages WHERE thread_id = ?")?
            .query_row([message], |row| row.get(0))
    }

    /// Messages of others in a channel after an id.
    pub(in crate::engine) fn unread_count(
        &self,
        channel: i64,
        agent: i64,
        after: i64,
    ) -> rusqlite::Result<i64> {
        self.conn
            .prepare_cached(
                "SELECT count(*) FROM messages WHERE channel_id = ? AND agent_id <> ? AND id > ?",
            )?
            .query_row([channel, agent, after], |row| row.get(0))
    }

    /// The newest message of a channel.
    pub(in crate::engine) fn last_message(&self, channel: i64) -> rusqlite::Result<Option<MessageRow>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM messages WHERE channel_id = ? ORDER BY id DESC LIMIT 1"
            ))?
            .query_row([channel], read)
            .optional()
    }

    /// Unacked messages to an agent that mention it, newest first, with the channel's name.
    pub(in crate::engine) fn open_mentions(
        &self,
        agent: i64,
        limit: i64,
    ) -> rusqlite::Result<Vec<(MessageRow, String)>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {}, c.name FROM deliveries d INDEXED BY deliveries_open
                 JOIN messages m ON m.id = d.message_id JOIN channels c ON c.id = d.channel_id
                 WHERE d.agent_id = ? AND d.status < 2 AND d.reason = 'mention' AND c.name IS NOT NULL
                 ORDER BY d.seq DESC LIMIT ?",
                COLUMNS
                    .split(", ")
                    .map(|column| format!("m.{}", column.trim()))
                    .collect::<Vec<_>>()
                    .join(", ")
            ))?
            .query_map([agent, limit], |row| Ok((read(row)?, row.get(12)?)))?
            .collect()
    }

    /// The id of the new reaction; `None` when that agent had given that emoji already.
    pub(in crate::engine) fn insert_reaction(
        &mut self,
        message: i64,
        agent: i64,
        agent_name: &str,
        emoji: &str,
    ) -> rusqlite::Result<Option<i64>> {
        let (id, now) = (self.next_id(), self.now());
        let added = self
            .conn
            .prepare_cached(
                "INSERT OR IGNORE INTO reactions (id, message_id, agent_id, agent_name, emoji, created_at)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![id, message, agent, agent_name, emoji, now])?;
        Ok((added > 0).then_some(id))
    }

    /// The id and time of a reaction that exists.
    pub(in crate::engine) fn reaction(
        &self,
        message: i64,
        agent: i64,
        emoji: &str,
    ) -> rusqlite::Result<Option<(i64, i64)>> {
        self.conn
            .prepare_cached(
                "SELECT id, created_at FROM reactions WHERE message_id = ? AND agent_id = ? AND emoji = ?",
            )?
            .query_row(params![message, agent, emoji], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    pub(in crate::engine) fn delete_reaction(
        &self,
        message: i64,
        agent: i64,
        emoji: &str,
    ) -> rusqlite::Result<bool> {
        self.conn
            .prepare_cached("DELETE FROM reactions WHERE message_id = ? AND agent_id = ? AND emoji = ?")?
            .execute(params![message, agent, emoji])
            .map(|removed| removed > 0)
    }

    /// The reactions to a message, oldest first.
    pub(in crate::engine) fn reactions(&self, message: i64) -> rusqlite::Result<Vec<ReactionRow>> {
        self.conn
            .prepare_cached(
                "SELECT message_id, agent_name, emoji, created_at FROM reactions WHERE message_id = ? ORDER BY id",
            )?
            .query_map([message], read_reaction)?
            .collect()
    }

    /// What others reacted to an agent's messages, newest first, with the channel's name.
    pub(in crate::engine) fn recent_reactions(
        &self,
        author: i64,
        limit: i64,
    ) -> rusqlite::Result<Vec<(ReactionRow, String)>> {
        self.conn
            .prepare_cached(
                "SELECT r.message_id, r.agent_name, r.emoji, r.created_at, coalesce(c.name, '')
                 FROM (SELECT * FROM reactions ORDER BY id DESC LIMIT 1000) r
                 JOIN messages m ON m.id = r.message_id JOIN channels c ON c.id = m.channel_id
                 WHERE m.agent_id = ?1 AND r.agent_id <> ?1 ORDER BY r.id DESC LIMIT ?2",
            )?
            .query_map([author, limit], |row| Ok((read_reaction(row)?, row.get(4)?)))?
            .collect()
    }

    /// Notes that an agent has read a message; the first time counts. Answers when that was.
    pub(in crate::engine) fn insert_receipt(&self, message: i64, agent: i64) -> rusqlite::Result<i64> {
        self.conn
            .prepare_cached(
                "INSERT OR IGNORE INTO receipts (message_id, agent_id, read_at) VALUES (?, ?, ?)",
            )?
            .execute([message, agent, self.now()])?;
        self.conn
            .prepare_cached("SELECT read_at FROM receipts WHERE message_id = ? AND agent_id = ?")?
            .query_row([message, agent], |row| row.get(0))
    }

    pub(in crate::engine) fn read_by_count(&self, message: i64) -> rusqlite::Result<i64> {
        self.conn
            .prepare_cached("SELECT count(*) FROM receipts WHERE message_id = ?")?
            .query_row([message], |row| row.get(0))
    }
}
