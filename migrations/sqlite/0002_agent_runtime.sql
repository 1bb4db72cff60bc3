-- Tools of tenants, calls that wait for the client, compaction, and what a step tells of its tries: see PostgreSQL.

CREATE TABLE tools (
    id BLOB PRIMARY KEY NOT NULL,
    -- NULL: a tool that the operator gives to every tenant.
    tenant TEXT,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- JSON Schema of the arguments.
    parameters TEXT NOT NULL,
    -- How it is carried out, and the contract's word for that kind, by which lists are filtered.
    source TEXT NOT NULL,
    tool_type TEXT NOT NULL,
    options TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX tools_by_name ON tools (coalesce(tenant, ''), name);
CREATE INDEX tools_by_creation ON tools (tenant, created_at, id);

-- SQLite cannot change a CHECK: the table is made anew, with two more roles. Nothing refers to it.
CREATE TABLE messages_anew (
    id BLOB PRIMARY KEY NOT NULL,
    agent_id BLOB NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    run_id BLOB REFERENCES runs (id) ON DELETE CASCADE,
    step_id BLOB,
    role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool', 'approval', 'summary')),
    body TEXT NOT NULL,
    labels TEXT NOT NULL,
    folded TEXT NOT NULL,
    in_context INTEGER NOT NULL CHECK (in_context IN (0, 1)),
    position INTEGER NOT NULL CHECK (position >= 0),
    created_at INTEGER NOT NULL,
    UNIQUE (agent_id, position),
    CHECK (position > 0 OR (role = 'system' AND in_context))
) STRICT;

INSERT INTO messages_anew
SELECT id, agent_id, run_id, step_id, role, body, labels, folded, in_context, position, created_at FROM messages;
DROP TABLE messages;
ALTER TABLE messages_anew RENAME TO messages;

CREATE INDEX messages_in_context ON messages (agent_id, position) WHERE in_context;
CREATE INDEX messages_outside ON messages (agent_id) WHERE NOT in_context;
CREATE INDEX messages_by_run ON messages (run_id, position) WHERE run_id IS NOT NULL;

ALTER TABLE agents ADD COLUMN pending_approval BLOB;
ALTER TABLE agents ADD COLUMN approval_deadline INTEGER
    CHECK (approval_deadline IS NULL OR pending_approval IS NOT NULL);
CREATE INDEX agents_by_approval_deadline ON agents (approval_deadline) WHERE approval_deadline IS NOT NULL;

ALTER TABLE runs ADD COLUMN answers BLOB;
CREATE UNIQUE INDEX runs_one_answer ON runs (answers) WHERE answers IS NOT NULL AND status IN ('created', 'running');

ALTER TABLE steps ADD COLUMN answers_step BLOB;
ALTER TABLE steps ADD COLUMN retries TEXT NOT NULL DEFAULT '[]';

ALTER TABLE workers ADD COLUMN facts TEXT NOT NULL DEFAULT '{}';

-- A row without a body is a call that was begun: should its worker die, nobody knows whether it had an effect.
CREATE TABLE tool_returns_anew (
    step_id BLOB NOT NULL REFERENCES steps (id) ON DELETE CASCADE,
    call INTEGER NOT NULL CHECK (call >= 0),
    body TEXT,
    PRIMARY KEY (step_id, call)
) STRICT;
INSERT INTO tool_returns_anew SELECT step_id, call, body FROM tool_returns;
DROP TABLE tool_returns;
ALTER TABLE tool_returns_anew RENAME TO tool_returns;

-- The system message as it was when a tool of the run first changed the agent's memory: the run keeps it, so that its
-- provider keeps finding its prompts in the cache, also after a takeover.
ALTER TABLE runs ADD COLUMN system TEXT;
