//! Workspaces and their keys.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;

/// One workspace.
pub(in crate::engine) struct WorkspaceRow {
    pub(in crate::engine) id: i64,
    pub(in crate::engine) name: String,
    pub(in crate::engine) key_hash: String,
    pub(in crate::engine) metadata: String,
    pub(in crate::engine) created_at: i64,
}

const COLUMNS: &str = "id, name, key_hash, metadata, created_at";

fn read(row: &Row<'_>) -> rusqlite::Result<WorkspaceRow> {
    Ok(WorkspaceRow {
        id: row.get(0)?,
        name: row.get(1)?,
        key_hash: row.get(2)?,
        metadata: row.get(3)?,
        created_at: row.get(4)?,
    })
}

impl Store {
    pub(in crate::engine) fn insert_workspace(
        &mut self,
        name: &str,
        key_hash: &str,
    ) -> rusqlite::Result<WorkspaceRow> {
        let (id, now) = (self.next_id(), self.now());
        self.conn
            .prepare_cached("INSERT INTO workspaces (id, name, key_hash, created_at) VALUES (?, ?, ?, ?)")?
            .execute(params![id, name, key_hash, now])?;
        Ok(WorkspaceRow {
            id,
            name: name.to_owned(),
            key_hash: key_hash.to_owned(),
            metadata: "{}".to_owned(),
            created_at: now,
        })
    }

    pub(in crate::engine) fn workspace(&self, id: i64) -> rusqlite::Result<Option<WorkspaceRow>> {
        self.workspace_where("id = ?", id)
    }

    pub(in crate::engine) fn workspace_by_name(&self, name: &str) -> rusqlite::Result<Option<WorkspaceRow>> {
        self.workspace_where("name = ?", name)
    }

    pub(in crate::engine) fn workspace_by_key(&self, hash: &str) -> rusqlite::Result<Option<WorkspaceRow>> {
        self.workspace_where("key_hash = ?", hash)
    }

    fn workspace_where(
        &self,
        condition: &str,
        value: impl rusqlite::ToSql,
    ) -> rusqlite::Result<Option<WorkspaceRow>> {
        self.conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM workspaces WHERE {condition}"))?
            .query_row([value], read)
            .optional()
    }
}
