//! Agents: identity, location, numbering and cursor.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;

/// One agent. `metadata` and `capabilities` are JSON.
#[derive(Clone)]
pub(in crate::engine) struct AgentRow {
    pub(in crate::engine) id: i64,
    pub(in crate::engine) workspace: i64,
    pub(in crate::engine) name: String,
    pub(in crate::engine) kind: String,
    pub(in crate::engine) persona: Option<String>,
    pub(in crate::engine) metadata: String,
    pub(in crate::engine) capabilities: Option<String>,
    pub(in crate::engine) status: String,
    pub(in crate::engine) created_at: i64,
    pub(in crate::engine) last_seen: i64,
    pub(in crate::engine) node: Option<String>,
    pub(in crate::engine) binding: Option<i64>,
    pub(in crate::engine) session_ref: Option<String>,
    pub(in crate::engine) priority: i64,
    pub(in crate::engine) bound_at: Option<i64>,
    pub(in crate::engine) last_seq: i64,
    pub(in crate::engine) ack_seq: i64,
    pub(in crate::engine) unacked: i64,
}

/// What creating an agent says about it.
pub(in crate::engine) struct NewAgent<'a> {
    pub(in crate::engine) name: &'a str,
    pub(in crate::engine) kind: &'a str,
    pub(in crate::engine) persona: Option<&'a str>,
    pub(in crate::engine) metadata: &'a str,
    pub(in crate::engine) capabilities: Option<&'a str>,
    pub(in crate::engine) token_hash: &'a str,
}

const COLUMNS: &str = "id, workspace_id, name, type, persona, metadata, capabilities, status, created_at, \
     last_seen, node_id, binding_id, session_ref, priority, bound_at, last_seq, ack_seq, unacked";

fn read(row: &Row<'_>) -> rusqlite::Result<AgentRow> {
    Ok(AgentRow {
        id: row.get(0)?,
        workspace: row.get(1)?,
        name: row.get(2)?,
        kind: row.get(3)?,
        persona: row.get(4)?,
        metadata: row.get(5)?,
        capabilities: row.get(6)?,
        status: row.get(7)?,
        created_at: row.get(8)?,
        last_seen: row.get(9)?,
        node: row.get(10)?,
        binding: row.get(11)?,
        session_ref: row.get(12)?,
        priority: row.get(13)?,
        bound_at: row.get(14)?,
        last_seq: row.get(15)?,
        ack_seq: row.get(16)?,
        unacked: row.get(17)?,
    })
}

impl Store {
    pub(in crate::engine) fn insert_agent(
        &mut self,
        workspace: i64,
        agent: &NewAgent<'_>,
    ) -> rusqlite::Result<i64> {
        let (id, now) = (self.next_id(), self.now());
        self.conn
            .prepare_cached(
                "INSERT INTO agents (id, workspace_id, name, type, persona, metadata, capabilities, status,
                                     token_hash, created_at, last_seen)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'active', ?8, ?9, ?9)",
            )?
            .execute(params![
                id,
                workspace,
                agent.name,
                agent.kind,
                agent.persona,
                agent.metadata,
                agent.capabilities,
                agent.token_hash,
                now,
            ])?;
        Ok(id)
    }

    pub(in crate::engine) fn agent(&self, id: i64) -> rusqlite::Result<Option<AgentRow>> {
        self.agent_where("id = ?1", params![id])
    }

    pub(in crate::engine) fn agent_by_name(
        &self,
        workspace: i64,
        name: &str,
    ) -> rusqlite::Result<Option<AgentRow>> {
        self.agent_where("workspace_id = ?1 AND name = ?2", params![workspace, name])
    }

    pub(in crate::engine) fn agent_by_token(&self, hash: &str) -> rusqlite::Result<Option<AgentRow>> {
        self.agent_where("token_hash = ?1", params![hash])
    }

    /// Every agent of a workspace, by name.
    pub(in crate::engine) fn agents(&self, workspace: i64) -> rusqlite::Result<Vec<AgentRow>> {
        self.conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM agents WHERE workspace_id = ? ORDER BY name"))?
            .query_map([workspace], read)?
            .collect()
    }

    /// The agents that are located on a node, by name.
    pub(in crate::engine) fn agents_on(&self, node: &str) -> rusqlite::Result<Vec<AgentRow>> {
        self.conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM agents WHERE node_id = ? ORDER BY name"))?
            .query_map([node], read)?
            .collect()
    }

    /// Stores what may change of an agent's description and status.
    pub(in crate::engine) fn update_agent(&self, agent: &AgentRow) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE agents SET persona = ?2, metadata = ?3, capabilities = ?4, status = ?5, last_seen = ?6
                 WHERE id = ?1",
            )?
            .execute(params![
                agent.id,
                agent.persona,
                agent.metadata,
                agent.capabilities,
                agent.status,
                agent.last_seen,
            ])
            .map(drop)
    }

    pub(in crate::engine) fn set_agent_token(&self, id: i64, hash: &str) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached("UPDATE agents SET token_hash = ?2 WHERE id = ?1")?
            .execute(params![id, hash])
            .map(drop)
    }

    /// Moves an agent to a node and makes it active.
    pub(in crate::engine) fn locate_agent(
        &mut self,
        id: i64,
        node: &str,
        session_ref: Option<&str>,
        priority: i64,
    ) -> rusqlite::Result<()> {
        let (binding, now) = (self.next_id(), self.now());
        self.conn
            .prepare_cached(
                "UPDATE agents SET status = 'active', last_seen = ?3, priority = ?6,
                     session_ref = coalesce(?5, CASE WHEN node_id = ?2 THEN session_ref END),
                     binding_id = CASE WHEN node_id = ?2 THEN binding_id ELSE ?4 END,
                     bound_at = CASE WHEN node_id = ?2 THEN bound_at ELSE ?3 END,
                     node_id = ?2
                 WHERE id = ?1",
            )?
            .execute(params![id, node, now, binding, session_ref, priority])
            .map(drop)
    }

    /// Sends an agent back to its implicit direct node.
    pub(in crate::engine) fn unlocate_agent(&self, id: i64, status: &str) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE agents SET node_id = NULL, binding_id = NULL, session_ref = NULL, bound_at = NULL,
                     priority = 0, status = ?2
                 WHERE id = ?1",
            )?
            .execute(params![id, status])
            .map(drop)
    }

    pub(in crate::engine) fn set_agent_status(&self, id: i64, status: &str) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached("UPDATE agents SET status = ?2 WHERE id = ?1")?
            .execute(params![id, status])
            .map(drop)
    }

    /// Everyone who is located on a node goes offline with it; the location stays.
    pub(in crate::engine) fn agents_offline(&self, node: &str) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached("UPDATE agents SET status = 'offline' WHERE node_id = ?")?
            .execute([node])
            .map(drop)
    }

    pub(in crate::engine) fn touch_agent(&self, id: i64) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached("UPDATE agents SET last_seen = ?2, status = 'active' WHERE id = ?1")?
            .execute(params![id, self.now()])
            .map(drop)
    }

    /// Deletes an agent with its memberships and its mailbox; what it wrote stays.
    pub(in crate::engine) fn delete_agent(&self, id: i64) -> rusqlite::Result<()> {
        self.conn.prepare_cached("DELETE FROM agents WHERE id = ?")?.execute([id]).map(drop)
    }

    fn agent_where(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> rusqlite::Result<Option<AgentRow>> {
        self.conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM agents WHERE {condition}"))?
            .query_row(values, read)
            .optional()
    }
}
