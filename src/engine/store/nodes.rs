//! Nodes: roster, liveness and token hashes.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;

/// One node. `capabilities` and `tags` are JSON arrays.
#[derive(Clone)]
pub(in crate::engine) struct NodeRow {
    pub(in crate::engine) id: String,
    pub(in crate::engine) workspace: i64,
    pub(in crate::engine) name: String,
    pub(in crate::engine) kind: String,
    pub(in crate::engine) role: String,
    pub(in crate::engine) capabilities: String,
    pub(in crate::engine) tags: String,
    pub(in crate::engine) version: String,
    pub(in crate::engine) max_agents: i64,
    pub(in crate::engine) online: bool,
    pub(in crate::engine) handlers_live: bool,
    pub(in crate::engine) load: f64,
    pub(in crate::engine) active_agents: i64,
    pub(in crate::engine) last_heartbeat_at: Option<i64>,
    pub(in crate::engine) created_at: i64,
}

/// What enrolling says about a node.
pub(in crate::engine) struct NewNode<'a> {
    pub(in crate::engine) id: &'a str,
    pub(in crate::engine) name: &'a str,
    pub(in crate::engine) kind: &'a str,
    pub(in crate::engine) role: &'a str,
    pub(in crate::engine) token_hash: &'a str,
    pub(in crate::engine) capabilities: &'a str,
    pub(in crate::engine) tags: &'a str,
    pub(in crate::engine) version: &'a str,
    pub(in crate::engine) max_agents: i64,
}

const COLUMNS: &str = "id, workspace_id, name, kind, role, capabilities, tags, version, \
     max_agents, online, handlers_live, load, active_agents, last_heartbeat_at, created_at";

fn read(row: &Row<'_>) -> rusqlite::Result<NodeRow> {
    Ok(NodeRow {
        id: row.get(0)?,
        workspace: row.get(1)?,
        name: row.get(2)?,
        kind: row.get(3)?,
        role: row.get(4)?,
        capabilities: row.get(5)?,
        tags: row.get(6)?,
        version: row.get(7)?,
        max_agents: row.get(8)?,
        online: row.get(9)?,
        handlers_live: row.get(10)?,
        load: row.get(11)?,
        active_agents: row.get(12)?,
        last_heartbeat_at: row.get(13)?,
        created_at: row.get(14)?,
    })
}

impl Store {
    /// Inserts a node, or gives the existing row of that id a new token and marks it offline.
    pub(in crate::engine) fn enrol_node(&self, workspace: i64, node: &NewNode<'_>) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached(
                "INSERT INTO nodes (id, workspace_id, name, kind, role, token_hash, capabilities, tags, version,
                                    max_agents, created_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (id) DO UPDATE SET name = excluded.name, kind = excluded.kind, role = excluded.role,
                     token_hash = excluded.token_hash, capabilities = excluded.capabilities, tags = excluded.tags,
                     version = excluded.version, max_agents = excluded.max_agents,
                     online = 0, handlers_live = 0, load = 0, active_agents = 0",
            )?
            .execute(params![
                node.id,
                workspace,
                node.name,
                node.kind,
                node.role,
                node.token_hash,
                node.capabilities,
                node.tags,
                node.version,
                node.max_agents,
                self.now(),
            ])
            .map(drop)
    }

    pub(in crate::engine) fn node(&self, id: &str) -> rusqlite::Result<Option<NodeRow>> {
        self.node_where("id = ?1", params![id])
    }

    pub(in crate::engine) fn node_by_name(
        &self,
        workspace: i64,
        name: &str,
    ) -> rusqlite::Result<Option<NodeRow>> {
        self.node_where("workspace_id = ?1 AND name = ?2", params![workspace, name])
    }

    pub(in crate::engine) fn node_by_token(&self, hash: &str) -> rusqlite::Result<Option<NodeRow>> {
        self.node_where("token_hash = ?1", params![hash])
    }

    /// Every node of a workspace, by name.
    pub(in crate::engine) fn nodes(&self, workspace: i64) -> rusqlite::Result<Vec<NodeRow>> {
        self.conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM nodes WHERE workspace_id = ? ORDER BY name"))?
            .query_map([workspace], read)?
            .collect()
    }

    /// Nodes that are marked online but whose last heartbeat is older than `oldest`.
    pub(in crate::engine) fn silent_nodes(&self, oldest: i64) -> rusqlite::Result<Vec<NodeRow>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM nodes WHERE online = 1 AND coalesce(last_heartbeat_at, 0) < ?"
            ))?
            .query_map([oldest], read)?
            .collect()
    }

    /// Stores a node's roster and marks it as heard of now.
    pub(in crate::engine) fn update_node(&self, node: &NodeRow) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE nodes SET name = ?2, capabilities = ?3, tags = ?4, version = ?5, max_agents = ?6,
                     online = ?7, handlers_live = ?8, load = ?9, active_agents = ?10, last_heartbeat_at = ?11
                 WHERE id = ?1",
            )?
            .execute(params![
                node.id,
                node.name,
                node.capabilities,
                node.tags,
                node.version,
                node.max_agents,
                node.online,
                node.handlers_live,
                node.load,
                node.active_agents,
                node.last_heartbeat_at,
            ])
            .map(drop)
    }

    fn node_where(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> rusqlite::Result<Option<NodeRow>> {
        self.conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM nodes WHERE {condition}"))?
            .query_row(values, read)
            .optional()
    }
}
