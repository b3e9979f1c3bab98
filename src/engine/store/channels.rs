//! Channels, direct conversations and their members.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;

/// One channel; a direct conversation is a channel without a name.
#[derive(Clone)]
pub(in crate::engine) struct ChannelRow {
    pub(in crate::engine) id: i64,
    pub(in crate::engine) workspace: i64,
    pub(in crate::engine) name: Option<String>,
    pub(in crate::engine) conversation: Option<String>,
    pub(in crate::engine) topic: Option<String>,
    pub(in crate::engine) metadata: String,
    pub(in crate::engine) created_by: Option<i64>,
    pub(in crate::engine) created_at: i64,
    pub(in crate::engine) archived: bool,
    pub(in crate::engine) member_count: i64,
}

impl ChannelRow {
    /// The id as the wire shows it: a conversation's channel is hidden behind `dmch_`.
    pub(in crate::engine) fn public_id(&self) -> String {
        match &self.conversation {
            Some(hex) => format!("dmch_{hex}"),
            None => self.id.to_string(),
        }
    }

    /// The name as an event shows it; a conversation has none.
    pub(in crate::engine) fn display_name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

/// One membership.
#[derive(Clone)]
pub(in crate::engine) struct MemberRow {
    pub(in crate::engine) agent: i64,
    pub(in crate::engine) agent_name: String,
    pub(in crate::engine) node: Option<String>,
    pub(in crate::engine) role: String,
    pub(in crate::engine) joined_at: i64,
    pub(in crate::engine) muted: bool,
    pub(in crate::engine) last_read: i64,
}

const COLUMNS: &str = "c.id, c.workspace_id, c.name, c.conversation, c.topic, c.metadata, c.created_by, \
     c.created_at, c.archived, (SELECT count(*) FROM members m WHERE m.channel_id = c.id)";

fn read(row: &Row<'_>) -> rusqlite::Result<ChannelRow> {
    Ok(ChannelRow {
        id: row.get(0)?,
        workspace: row.get(1)?,
        name: row.get(2)?,
        conversation: row.get(3)?,
        topic: row.get(4)?,
        metadata: row.get(5)?,
        created_by: row.get(6)?,
        created_at: row.get(7)?,
        archived: row.get(8)?,
        member_count: row.get(9)?,
    })
}

impl Store {
    pub(in crate::engine) fn insert_channel(
        &mut self,
        workspace: i64,
        name: &str,
        topic: Option<&str>,
        metadata: &str,
        created_by: Option<i64>,
    ) -> rusqlite::Result<i64> {
        let (id, now) = (self.next_id(), self.now());
        self.conn
            .prepare_cached(
                "INSERT INTO channels (id, workspace_id, name, topic, metadata, created_by, created_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![id, workspace, name, topic, metadata, created_by, now])?;
        Ok(id)
    }

    /// The hidden channel of a conversation, made on first use.
    pub(in crate::engine) fn conversation(
        &mut self,
        workspace: i64,
        hex: &str,
    ) -> rusqlite::Result<ChannelRow> {
        if let Some(channel) = self.channel_by_conversation(workspace, hex)? {
            return Ok(channel);
        }
        let (id, now) = (self.next_id(), self.now());
        self.conn
            .prepare_cached(
                "INSERT INTO channels (id, workspace_id, conversation, created_at) VALUES (?, ?, ?, ?)",
            )?
            .execute(params![id, workspace, hex, now])?;
        self.channel_by_conversation(workspace, hex)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    pub(in crate::engine) fn channel(&self, id: i64) -> rusqlite::Result<Option<ChannelRow>> {
        self.channel_where("c.id = ?1", params![id])
    }

    pub(in crate::engine) fn channel_by_name(
        &self,
        workspace: i64,
        name: &str,
    ) -> rusqlite::Result<Option<ChannelRow>> {
        self.channel_where("c.workspace_id = ?1 AND c.name = ?2", params![workspace, name])
    }

    pub(in crate::engine) fn channel_by_conversation(
        &self,
        workspace: i64,
        hex: &str,
    ) -> rusqlite::Result<Option<ChannelRow>> {
        self.channel_where("c.workspace_id = ?1 AND c.conversation = ?2", params![workspace, hex])
    }

    /// The named channels of a workspace, by name.
    pub(in crate::engine) fn channels(&self, workspace: i64) -> rusqlite::Result<Vec<ChannelRow>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM channels c WHERE c.workspace_id = ? AND c.name IS NOT NULL ORDER BY c.name"
            ))?
            .query_map([workspace], read)?
            .collect()
    }

    /// The channels and conversations that an agent is a member of, with its membership.
    pub(in crate::engine) fn channels_of(
        &self,
        agent: i64,
    ) -> rusqlite::Result<Vec<(ChannelRow, MemberRow)>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {COLUMNS}, a.id, a.name, a.node_id, mine.role, mine.joined_at, mine.muted, mine.last_read
                 FROM members mine JOIN channels c ON c.id = mine.channel_id JOIN agents a ON a.id = mine.agent_id
                 WHERE mine.agent_id = ? ORDER BY c.id"
            ))?
            .query_map([agent], |row| Ok((read(row)?, read_member(row, 10)?)))?
            .collect()
    }

    /// Adds a member; false when it was one already.
    pub(in crate::engine) fn join(&self, channel: i64, agent: i64, role: &str) -> rusqlite::Result<bool> {
        // What was said before is not unread for a newcomer.
        self.conn
            .prepare_cached(
                "INSERT OR IGNORE INTO members (channel_id, agent_id, role, joined_at, last_read)
                 VALUES (?1, ?2, ?3, ?4, coalesce((SELECT max(id) FROM messages WHERE channel_id = ?1), 0))",
            )?
            .execute(params![channel, agent, role, self.now()])
            .map(|added| added > 0)
    }

    /// Removes a member; false when it was none.
    pub(in crate::engine) fn leave(&self, channel: i64, agent: i64) -> rusqlite::Result<bool> {
        self.conn
            .prepare_cached("DELETE FROM members WHERE channel_id = ? AND agent_id = ?")?
            .execute([channel, agent])
            .map(|removed| removed > 0)
    }

    pub(in crate::engine) fn set_muted(
        &self,
        channel: i64,
        agent: i64,
        muted: bool,
    ) -> rusqlite::Result<bool> {
        self.conn
            .prepare_cached("UPDATE members SET muted = ?3 WHERE channel_id = ?1 AND agent_id = ?2")?
            .execute(params![channel, agent, muted])
            .map(|changed| changed > 0)
    }

    /// Everyone in a channel, in the order of their ids.
    pub(in crate::engine) fn members(&self, channel: i64) -> rusqlite::Result<Vec<MemberRow>> {
        self.conn
            .prepare_cached(
                "SELECT a.id, a.name, a.node_id, m.role, m.joined_at, m.muted, m.last_read
                 FROM members m JOIN agents a ON a.id = m.agent_id WHERE m.channel_id = ? ORDER BY a.id",
            )?
            .query_map([channel], |row| read_member(row, 0))?
            .collect()
    }

    pub(in crate::engine) fn is_member(&self, channel: i64, agent: i64) -> rusqlite::Result<bool> {
        self.conn
            .prepare_cached("SELECT 1 FROM members WHERE channel_id = ? AND agent_id = ?")?
            .exists([channel, agent])
    }

    /// Moves an agent's last-read mark forward, never back.
    pub(in crate::engine) fn advance_last_read(
        &self,
        channel: i64,
        agent: i64,
        message: i64,
    ) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE members SET last_read = max(last_read, ?3) WHERE channel_id = ?1 AND agent_id = ?2",
            )?
            .execute([channel, agent, message])
            .map(drop)
    }

    fn channel_where(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> rusqlite::Result<Option<ChannelRow>> {
        self.conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM channels c WHERE {condition}"))?
            .query_row(values, read)
            .optional()
    }
}

fn read_member(row: &Row<'_>, first: usize) -> rusqlite::Result<MemberRow> {
    Ok(MemberRow {
        agent: row.get(first)?,
        agent_name: row.get(first + 1)?,
        node: row.get(first + 2)?,
        role: row.get(first + 3)?,
        joined_at: row.get(first + 4)?,
        muted: row.get(first + 5)?,
        last_read: row.get(first + 6)?,
    })
}
