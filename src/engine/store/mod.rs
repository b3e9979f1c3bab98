//! The engine's tables: what is asked of SQLite, one file per concern. No decisions here.
//!
//! WAL with `synchronous=FULL`: the journal of a broker remembers what it injected across a power cut, so
//! an engine that forgot a message it had numbered would give its number away twice. The fsync is paid once
//! per batch, not once per message, and a batch of nothing but acks and heartbeats (`NORMAL`) pays none.

mod agents;
mod channels;
mod deliveries;
mod invocations;
mod messages;
mod nodes;
mod workspaces;

use std::{
    fs::{self, DirBuilder, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::Connection;
use tracing::warn;

use super::{EngineError, ids::Snowflakes};

pub(super) use self::{
    agents::{AgentRow, NewAgent},
    channels::{ChannelRow, MemberRow},
    deliveries::{DeliveryRow, OpenRow},
    invocations::{InvocationRow, NewInvocation},
    messages::{MessageRow, NewMessage},
    nodes::{NewNode, NodeRow},
    workspaces::WorkspaceRow,
};

const SCHEMA: &str = include_str!("schema.sql");
const SCHEMA_VERSION: i64 = 1;

/// The open database. Every method runs on the core thread.
pub(super) struct Store {
    conn: Connection,
    ids: Snowflakes,
    /// Whether commits are fsynced now.
    on_disk: bool,
}

impl Store {
    /// Opens or creates the file (0600, its directory 0700).
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        prepare(path).map_err(|source| EngineError::Directory { path: path.to_owned(), source })?;
        Self::connect(path).map_err(|source| EngineError::Database { path: path.to_owned(), source })
    }

    fn connect(path: &Path) -> rusqlite::Result<Self> {
        let conn = Connection::open(path)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "foreign_keys", true)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        conn.set_prepared_statement_cache_capacity(128);
        let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version < SCHEMA_VERSION {
            conn.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"))?;
        }
        let last = conn.query_row(
            "SELECT max(coalesce((SELECT max(id) FROM workspaces), 0), coalesce((SELECT max(id) FROM agents), 0),
                        coalesce((SELECT max(id) FROM channels), 0), coalesce((SELECT max(id) FROM messages), 0),
                        coalesce((SELECT max(binding_id) FROM agents), 0),
                        coalesce((SELECT max(id) FROM reactions), 0), coalesce((SELECT max(id) FROM invocations), 0))",
            [],
            |row| row.get(0),
        )?;
        // Whoever was online was so over a socket that is gone.
        conn.execute_batch(
            "UPDATE agents SET status = 'offline' WHERE node_id IN (SELECT id FROM nodes WHERE online = 1);
             UPDATE nodes SET online = 0, handlers_live = 0, load = 0, active_agents = 0 WHERE online = 1;",
        )?;
        Ok(Self { conn, ids: Snowflakes::after(last), on_disk: true })
    }

    /// Unix milliseconds.
    pub(super) fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// A fresh id.
    pub(super) fn next_id(&mut self) -> i64 {
        let now = self.now();
        self.ids.next(now)
    }

    /// Begins a batch; `on_disk` decides whether its commit survives a power cut or only the process.
    pub(super) fn begin(&mut self, on_disk: bool) -> rusqlite::Result<()> {
        if self.on_disk != on_disk {
            let level = if on_disk { "FULL" } else { "NORMAL" };
            self.conn.pragma_update(None, "synchronous", level)?;
            self.on_disk = on_disk;
        }
        self.execute("BEGIN")
    }

    pub(super) fn commit(&self) -> rusqlite::Result<()> {
        self.execute("COMMIT")
    }

    /// Gives up a batch whose commit failed.
    pub(super) fn abandon(&self) {
        if !self.conn.is_autocommit()
            && let Err(failure) = self.execute("ROLLBACK")
        {
            warn!(%failure, "rolling back failed");
        }
    }

    pub(super) fn savepoint(&self) -> rusqlite::Result<()> {
        self.execute("SAVEPOINT job")
    }

    pub(super) fn release(&self) -> rusqlite::Result<()> {
        self.execute("RELEASE job")
    }

    pub(super) fn undo(&self) -> rusqlite::Result<()> {
        self.execute("ROLLBACK TO job")?;
        self.release()
    }

    /// Folds the write-ahead log into the file before the process lets go of it.
    pub(super) fn close(&self) {
        if let Err(failure) = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            warn!(%failure, "the last checkpoint failed; the log is folded in at the next start");
        }
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(drop)
    }
}

/// Makes the directory and an empty private file, so that SQLite never creates one that others can read.
fn prepare(path: &Path) -> std::io::Result<()> {
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
        && !fs::exists(directory)?
    {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}
