-- Ids are snowflakes kept as integers; instants are Unix milliseconds; a *_hash is SHA-256 in hex.
CREATE TABLE workspaces (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    key_hash    TEXT NOT NULL UNIQUE,
    metadata    TEXT NOT NULL DEFAULT '{}',
    created_at  INTEGER NOT NULL
);

CREATE TABLE nodes (
    id                TEXT PRIMARY KEY,
    workspace_id      INTEGER NOT NULL REFERENCES workspaces (id),
    name              TEXT NOT NULL,
    kind              TEXT NOT NULL,
    role              TEXT NOT NULL,
    token_hash        TEXT NOT NULL UNIQUE,
    capabilities      TEXT NOT NULL,
    tags              TEXT NOT NULL,
    version           TEXT NOT NULL,
    max_agents        INTEGER NOT NULL,
    online            INTEGER NOT NULL DEFAULT 0,
    handlers_live     INTEGER NOT NULL DEFAULT 0,
    load              REAL NOT NULL DEFAULT 0,
    active_agents     INTEGER NOT NULL DEFAULT 0,
    last_heartbeat_at INTEGER,
    created_at        INTEGER NOT NULL,
    UNIQUE (workspace_id, name)
) WITHOUT ROWID;

-- An agent's location, numbering and cursor are one row: `node_id` null means its implicit direct node.
CREATE TABLE agents (
    id            INTEGER PRIMARY KEY,
    workspace_id  INTEGER NOT NULL REFERENCES workspaces (id),
    name          TEXT NOT NULL,
    type          TEXT NOT NULL,
    persona       TEXT,
    metadata      TEXT NOT NULL DEFAULT '{}',
    capabilities  TEXT,
    status        TEXT NOT NULL,
    token_hash    TEXT NOT NULL UNIQUE,
    created_at    INTEGER NOT NULL,
    last_seen     INTEGER NOT NULL,
    node_id       TEXT REFERENCES nodes (id),
    binding_id    INTEGER,
    session_ref   TEXT,
    priority      INTEGER NOT NULL DEFAULT 0,
    bound_at      INTEGER,
    last_seq      INTEGER NOT NULL DEFAULT 0,
    ack_seq       INTEGER NOT NULL DEFAULT 0,
    unacked       INTEGER NOT NULL DEFAULT 0,
    UNIQUE (workspace_id, name)
);
CREATE INDEX agents_by_node ON agents (node_id) WHERE node_id IS NOT NULL;

-- `conversation` is the 24 hex digits of a direct conversation, null for a named channel.
CREATE TABLE channels (
    id            INTEGER PRIMARY KEY,
    workspace_id  INTEGER NOT NULL REFERENCES workspaces (id),
    name          TEXT,
    conversation  TEXT,
    topic         TEXT,
    metadata      TEXT NOT NULL DEFAULT '{}',
    created_by    INTEGER,
    created_at    INTEGER NOT NULL,
    archived      INTEGER NOT NULL DEFAULT 0,
    UNIQUE (workspace_id, name),
    UNIQUE (workspace_id, conversation)
);

CREATE TABLE members (
    channel_id  INTEGER NOT NULL REFERENCES channels (id),
    agent_id    INTEGER NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    role        TEXT NOT NULL,
    joined_at   INTEGER NOT NULL,
    muted       INTEGER NOT NULL DEFAULT 0,
    last_read   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (channel_id, agent_id)
) WITHOUT ROWID;
CREATE INDEX members_by_agent ON members (agent_id);

-- `payload` is what a deliver frame carries, rendered once. The author's name outlives the author.
CREATE TABLE messages (
    id           INTEGER PRIMARY KEY,
    channel_id   INTEGER NOT NULL REFERENCES channels (id),
    agent_id     INTEGER NOT NULL,
    agent_name   TEXT NOT NULL,
    thread_id    INTEGER,
    text         TEXT NOT NULL,
    blocks       TEXT,
    metadata     TEXT NOT NULL,
    mentions     TEXT NOT NULL,
    attachments  TEXT NOT NULL,
    mode         TEXT NOT NULL,
    payload      TEXT NOT NULL,
    created_at   INTEGER NOT NULL
);
CREATE INDEX messages_by_channel ON messages (channel_id, id);
CREATE INDEX messages_by_thread ON messages (thread_id, id) WHERE thread_id IS NOT NULL;

-- status: 0 queued, 1 delivered, 2 acked, 3 failed, 4 dead-lettered. Below 2 is open.
CREATE TABLE deliveries (
    agent_id      INTEGER NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    seq           INTEGER NOT NULL,
    message_id    INTEGER NOT NULL,
    channel_id    INTEGER NOT NULL,
    status        INTEGER NOT NULL,
    reason        TEXT NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0,
    expires_at    INTEGER NOT NULL,
    delivered_at  INTEGER,
    acked_at      INTEGER,
    dead_at       INTEGER,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER,
    PRIMARY KEY (agent_id, seq)
) WITHOUT ROWID;
-- The open rows are few among many closed ones; queries for them name this index, because the planner, which
-- knows no numbers, would rather walk the primary key past everything that was ever acked.
CREATE INDEX deliveries_open ON deliveries (agent_id, seq) WHERE status < 2;
CREATE UNIQUE INDEX deliveries_by_message ON deliveries (message_id, agent_id);

CREATE TABLE receipts (
    message_id  INTEGER NOT NULL,
    agent_id    INTEGER NOT NULL,
    read_at     INTEGER NOT NULL,
    PRIMARY KEY (message_id, agent_id)
) WITHOUT ROWID;

CREATE TABLE reactions (
    id          INTEGER PRIMARY KEY,
    message_id  INTEGER NOT NULL REFERENCES messages (id),
    agent_id    INTEGER NOT NULL,
    agent_name  TEXT NOT NULL,
    emoji       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    UNIQUE (message_id, agent_id, emoji)
);

-- `target` pins an invocation to one node; `tried` is a JSON array of node ids.
CREATE TABLE invocations (
    id             INTEGER PRIMARY KEY,
    workspace_id   INTEGER NOT NULL REFERENCES workspaces (id),
    action         TEXT NOT NULL,
    caller_id      INTEGER,
    caller_name    TEXT,
    input          TEXT NOT NULL,
    target         TEXT,
    node_id        TEXT,
    tried          TEXT NOT NULL DEFAULT '[]',
    attempts       INTEGER NOT NULL DEFAULT 0,
    status         TEXT NOT NULL,
    due_at         INTEGER,
    dispatched_at  INTEGER,
    output         TEXT,
    error          TEXT,
    created_at     INTEGER NOT NULL,
    completed_at   INTEGER
);
CREATE INDEX invocations_open ON invocations (status, due_at) WHERE completed_at IS NULL;

CREATE TABLE idempotency (
    owner        INTEGER NOT NULL,
    key          TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,
    body         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at);
