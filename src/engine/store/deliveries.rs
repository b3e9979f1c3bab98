//! Mailboxes: one row per message and recipient, numbered densely per agent.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;

/// One row as `GET /v1/deliveries` shows it.
pub(in crate::engine) struct DeliveryRow {
    pub(in crate::engine) agent: i64,
    pub(in crate::engine) seq: i64,
    pub(in crate::engine) message: i64,
    pub(in crate::engine) status: i64,
    pub(in crate::engine) reason: String,
    pub(in crate::engine) attempts: i64,
    pub(in crate::engine) expires_at: i64,
    pub(in crate::engine) delivered_at: Option<i64>,
    pub(in crate::engine) acked_at: Option<i64>,
    pub(in crate::engine) dead_at: Option<i64>,
    pub(in crate::engine) created_at: i64,
    pub(in crate::engine) updated_at: Option<i64>,
}

/// One unacked row as a deliver frame needs it.
pub(in crate::engine) struct OpenRow<'a> {
    pub(in crate::engine) seq: i64,
    pub(in crate::engine) message: i64,
    pub(in crate::engine) agent_name: &'a str,
    pub(in crate::engine) mode: &'a str,
    pub(in crate::engine) payload: &'a str,
}

const COLUMNS: &str = "agent_id, seq, message_id, status, reason, attempts, expires_at, delivered_at, acked_at, \
     dead_at, created_at, updated_at";

fn read(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        agent: row.get(0)?,
        seq: row.get(1)?,
        message: row.get(2)?,
        status: row.get(3)?,
        reason: row.get(4)?,
        attempts: row.get(5)?,
        expires_at: row.get(6)?,
        delivered_at: row.get(7)?,
        acked_at: row.get(8)?,
        dead_at: row.get(9)?,
        created_at: row.get(10)?,
        updated_at: row.get(11)?,
    })
}

impl Store {
    /// How many unacked rows an agent has.
    pub(in crate::engine) fn unacked(&self, agent: i64) -> rusqlite::Result<i64> {
        self.conn
            .prepare_cached("SELECT unacked FROM agents WHERE id = ?")?
            .query_row([agent], |row| row.get(0))
    }

    /// Numbers a message for one agent and puts it into its mailbox.
    pub(in crate::engine) fn enqueue(
        &self,
        agent: i64,
        message: i64,
        channel: i64,
        reason: &str,
        expires_at: i64,
    ) -> rusqlite::Result<i64> {
        let seq: i64 = self
            .conn
            .prepare_cached(
                "UPDATE agents SET last_seq = last_seq + 1, unacked = unacked + 1 WHERE id = ? RETURNING last_seq",
            )?
            .query_row([agent], |row| row.get(0))?;
        self.conn
            .prepare_cached(
                "INSERT INTO deliveries (agent_id, seq, message_id, channel_id, status, reason, expires_at, created_at)
                 VALUES (?, ?, ?, ?, 0, ?, ?, ?)",
            )?
            .execute(params![agent, seq, message, channel, reason, expires_at, self.now()])?;
        Ok(seq)
    }

    /// Visits the unacked rows of an agent after `after`, ascending, as long as the agent is located on
    /// `node` and `visit` answers true, at most `limit`. True when there are no more.
    pub(in crate::engine) fn each_open(
        &self,
        agent: i64,
        node: &str,
        after: i64,
        limit: usize,
        mut visit: impl FnMut(OpenRow<'_>) -> bool,
    ) -> rusqlite::Result<bool> {
        let mut statement = self.conn.prepare_cached(
            "SELECT d.seq, d.message_id, a.name, m.mode, m.payload
             FROM deliveries d INDEXED BY deliveries_open JOIN agents a ON a.id = d.agent_id
             JOIN messages m ON m.id = d.message_id
             WHERE d.agent_id = ?1 AND d.seq > ?2 AND d.status < 2 AND a.node_id = ?3 AND d.expires_at > ?4
             ORDER BY d.seq",
        )?;
        let mut rows = statement.query(params![agent, after, node, self.now()])?;
        let mut visited = 0;
        while let Some(row) = rows.next()? {
            let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
            let open = OpenRow {
                seq: row.get(0)?,
                message: row.get(1)?,
                agent_name: text(2)?,
                mode: text(3)?,
                payload: text(4)?,
            };
            visited += 1;
            if !visit(open) || visited == limit {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Rows that a socket has taken.
    pub(in crate::engine) fn mark_delivered(&self, agent: i64, from: i64, to: i64) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE deliveries SET status = 1, delivered_at = ?4, updated_at = ?4, attempts = attempts + 1
                 WHERE agent_id = ?1 AND seq BETWEEN ?2 AND ?3 AND status < 2",
            )?
            .execute([agent, from, to, self.now()])
            .map(drop)
    }

    /// Acks every row in `after < seq <= up_to`: each is read by that, and the cursor moves.
    pub(in crate::engine) fn ack(&self, agent: i64, after: i64, up_to: i64) -> rusqlite::Result<()> {
        let now = self.now();
        self.conn
            .prepare_cached(
                "INSERT OR IGNORE INTO receipts (message_id, agent_id, read_at)
                 SELECT message_id, agent_id, ?4 FROM deliveries
                 WHERE agent_id = ?1 AND seq > ?2 AND seq <= ?3 AND status < 2",
            )?
            .execute([agent, after, up_to, now])?;
        self.conn
            .prepare_cached(
                "UPDATE members SET last_read = max(last_read, read.newest)
                 FROM (SELECT channel_id, max(message_id) AS newest FROM deliveries
                       WHERE agent_id = ?1 AND seq > ?2 AND seq <= ?3 GROUP BY channel_id) AS read
                 WHERE members.agent_id = ?1 AND members.channel_id = read.channel_id",
            )?
            .execute([agent, after, up_to])?;
        let acked = self
            .conn
            .prepare_cached(
                "UPDATE deliveries SET status = 2, acked_at = ?4, updated_at = ?4
                 WHERE agent_id = ?1 AND seq > ?2 AND seq <= ?3 AND status < 2",
            )?
            .execute([agent, after, up_to, now])?;
        self.conn
            .prepare_cached("UPDATE agents SET ack_seq = ?2, unacked = unacked - ?3 WHERE id = ?1")?
            .execute([agent, up_to, i64::try_from(acked).unwrap_or(i64::MAX)])
            .map(drop)
    }

    /// Closes the one open row of a message and an agent; false when there is none.
    pub(in crate::engine) fn ack_message(&self, agent: i64, message: i64) -> rusqlite::Result<bool> {
        let closed = self
            .conn
            .prepare_cached(
                "UPDATE deliveries SET status = 2, acked_at = ?3, updated_at = ?3
                 WHERE message_id = ?2 AND agent_id = ?1 AND status < 2",
            )?
            .execute([agent, message, self.now()])?;
        self.settle(agent, closed)?;
        Ok(closed > 0)
    }

    /// Turns expired open rows into dead letters, at most `limit`; answers how many.
    pub(in crate::engine) fn expire(&self, limit: usize) -> rusqlite::Result<usize> {
        let now = self.now();
        let agents: Vec<i64> = self
            .conn
            .prepare_cached("SELECT id FROM agents WHERE unacked > 0")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut expired = 0;
        for agent in agents {
            // All messages live equally long, so the expired ones are the oldest: the look ends at the first
            // that is not.
            let mut due = Vec::new();
            let mut statement = self.conn.prepare_cached(
                "SELECT seq, expires_at FROM deliveries INDEXED BY deliveries_open
                 WHERE agent_id = ? AND status < 2 ORDER BY seq",
            )?;
            let mut rows = statement.query([agent])?;
            while let Some(row) = rows.next()? {
                if row.get::<_, i64>(1)? > now || expired + due.len() >= limit {
                    break;
                }
                due.push(row.get::<_, i64>(0)?);
            }
            for seq in &due {
                self.conn
                    .prepare_cached(
                        "UPDATE deliveries SET status = 4, dead_at = ?3, updated_at = ?3
                         WHERE agent_id = ?1 AND seq = ?2",
                    )?
                    .execute([agent, *seq, now])?;
            }
            self.settle(agent, due.len())?;
            expired += due.len();
        }
        Ok(expired)
    }

    /// The rows of an agent's mailbox, newest first.
    pub(in crate::engine) fn deliveries(
        &self,
        agent: i64,
        status: Option<i64>,
        limit: i64,
    ) -> rusqlite::Result<Vec<DeliveryRow>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM deliveries WHERE agent_id = ?1 AND (?2 IS NULL OR status = ?2)
                 ORDER BY seq DESC LIMIT ?3"
            ))?
            .query_map(params![agent, status, limit], read)?
            .collect()
    }

    pub(in crate::engine) fn delivery(
        &self,
        agent: i64,
        message: i64,
    ) -> rusqlite::Result<Option<DeliveryRow>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM deliveries WHERE message_id = ?2 AND agent_id = ?1"
            ))?
            .query_row([agent, message], read)
            .optional()
    }

    fn settle(&self, agent: i64, closed: usize) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached("UPDATE agents SET unacked = unacked - ?2 WHERE id = ?1")?
            .execute([agent, i64::try_from(closed).unwrap_or(i64::MAX)])
            .map(drop)
    }
}
