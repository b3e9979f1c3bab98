//! Invocations, and the answers that an idempotency key recalls.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;

/// One invocation. `input`, `output` and `tried` are JSON.
#[derive(Clone)]
pub(in crate::engine) struct InvocationRow {
    pub(in crate::engine) id: i64,
    pub(in crate::engine) workspace: i64,
    pub(in crate::engine) action: String,
    pub(in crate::engine) caller: Option<i64>,
    pub(in crate::engine) caller_name: Option<String>,
    pub(in crate::engine) input: String,
    pub(in crate::engine) target: Option<String>,
    pub(in crate::engine) node: Option<String>,
    pub(in crate::engine) tried: String,
    pub(in crate::engine) attempts: i64,
    pub(in crate::engine) status: String,
    pub(in crate::engine) due_at: Option<i64>,
    pub(in crate::engine) dispatched_at: Option<i64>,
    pub(in crate::engine) output: Option<String>,
    pub(in crate::engine) error: Option<String>,
    pub(in crate::engine) created_at: i64,
    pub(in crate::engine) completed_at: Option<i64>,
}

/// What invoking an action says.
pub(in crate::engine) struct NewInvocation<'a> {
    pub(in crate::engine) action: &'a str,
    pub(in crate::engine) caller: Option<(i64, &'a str)>,
    pub(in crate::engine) input: &'a str,
    pub(in crate::engine) target: Option<&'a str>,
}

const COLUMNS: &str = "id, workspace_id, action, caller_id, caller_name, input, target, node_id, tried, attempts, \
     status, due_at, dispatched_at, output, error, created_at, completed_at";

fn read(row: &Row<'_>) -> rusqlite::Result<InvocationRow> {
    Ok(InvocationRow {
        id: row.get(0)?,
        workspace: row.get(1)?,
        action: row.get(2)?,
        caller: row.get(3)?,
        caller_name: row.get(4)?,
        input: row.get(5)?,
        target: row.get(6)?,
        node: row.get(7)?,
        tried: row.get(8)?,
        attempts: row.get(9)?,
        status: row.get(10)?,
        due_at: row.get(11)?,
        dispatched_at: row.get(12)?,
        output: row.get(13)?,
        error: row.get(14)?,
        created_at: row.get(15)?,
        completed_at: row.get(16)?,
    })
}

impl Store {
    pub(in crate::engine) fn insert_invocation(
        &mut self,
        workspace: i64,
        invocation: &NewInvocation<'_>,
    ) -> rusqlite::Result<InvocationRow> {
        let (id, now) = (self.next_id(), self.now());
        self.conn
            .prepare_cached(
                "INSERT INTO invocations (id, workspace_id, action, caller_id, caller_name, input, target, status,
                                          due_at, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'pending', ?8, ?8)",
            )?
            .execute(params![
                id,
                workspace,
                invocation.action,
                invocation.caller.map(|(id, _)| id),
                invocation.caller.map(|(_, name)| name),
                invocation.input,
                invocation.target,
                now,
            ])?;
        self.invocation(id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    pub(in crate::engine) fn invocation(&self, id: i64) -> rusqlite::Result<Option<InvocationRow>> {
        self.conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM invocations WHERE id = ?"))?
            .query_row([id], read)
            .optional()
    }

    /// Stores where an invocation stands.
    pub(in crate::engine) fn update_invocation(&self, invocation: &InvocationRow) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE invocations SET node_id = ?2, tried = ?3, attempts = ?4, status = ?5, due_at = ?6,
                     dispatched_at = ?7, output = ?8, error = ?9, completed_at = ?10
                 WHERE id = ?1",
            )?
            .execute(params![
                invocation.id,
                invocation.node,
                invocation.tried,
                invocation.attempts,
                invocation.status,
                invocation.due_at,
                invocation.dispatched_at,
                invocation.output,
                invocation.error,
                invocation.completed_at,
            ])
            .map(drop)
    }

    /// Open invocations in `status` that are due, oldest first.
    pub(in crate::engine) fn due_invocations(
        &self,
        status: &str,
        limit: i64,
    ) -> rusqlite::Result<Vec<InvocationRow>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM invocations
                 WHERE status = ? AND due_at <= ? AND completed_at IS NULL ORDER BY id LIMIT ?"
            ))?
            .query_map(params![status, self.now(), limit], read)?
            .collect()
    }

    /// Invocations that a node has been given and not answered, oldest first.
    pub(in crate::engine) fn dispatched_to(&self, node: &str) -> rusqlite::Result<Vec<InvocationRow>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM invocations
                 WHERE status = 'dispatched' AND completed_at IS NULL AND node_id = ? ORDER BY id"
            ))?
            .query_map([node], read)?
            .collect()
    }

    /// Invocations that wait for exactly this node, oldest first.
    pub(in crate::engine) fn pending_for(&self, node: &str) -> rusqlite::Result<Vec<InvocationRow>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM invocations
                 WHERE status = 'pending' AND completed_at IS NULL AND target = ? ORDER BY id LIMIT 100"
            ))?
            .query_map([node], read)?
            .collect()
    }

    /// The answer that was given to this key before, with the fingerprint of its request.
    pub(in crate::engine) fn recall(
        &self,
        owner: i64,
        key: &str,
        not_before: i64,
    ) -> rusqlite::Result<Option<(String, String)>> {
        self.conn
            .prepare_cached(
                "SELECT fingerprint, body FROM idempotency WHERE owner = ? AND key = ? AND created_at >= ?",
            )?
            .query_row(params![owner, key, not_before], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    pub(in crate::engine) fn remember(
        &self,
        owner: i64,
        key: &str,
        fingerprint: &str,
        body: &str,
    ) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached(
                "INSERT OR REPLACE INTO idempotency (owner, key, fingerprint, body, created_at)
                 VALUES (?, ?, ?, ?, ?)",
            )?
            .execute(params![owner, key, fingerprint, body, self.now()])
            .map(drop)
    }

    pub(in crate::engine) fn forget_before(&self, oldest: i64) -> rusqlite::Result<()> {
        self.conn.prepare_cached("DELETE FROM idempotency WHERE created_at < ?")?.execute([oldest]).map(drop)
    }
}
