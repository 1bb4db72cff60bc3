-- Threads and conversations: see PostgreSQL.

CREATE TABLE threads (
    id BLOB PRIMARY KEY NOT NULL,
    agent_id BLOB NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    -- The message that comes first in the context, whatever its place in the history.
    system_id BLOB NOT NULL,
    -- The agent's version that the system message was compiled from; see `agents.prompt_version`.
    prompt_version INTEGER NOT NULL DEFAULT 0,
    -- The message whose calls wait for the client's answer. It is set by the commit that ends the run which asks, and
    -- cleared by the commit that stores the results, so no request comes between question and state.
    pending_approval BLOB,
    -- When the server answers itself, by the clocks of the hosts: a deadline of days needs no better one.
    approval_deadline INTEGER,
    -- When the thread's last run ended, by the database's clock: since then the next one stands at the head of the line.
    line_moved_at INTEGER NOT NULL DEFAULT 0,
    CHECK (approval_deadline IS NULL OR pending_approval IS NOT NULL)
) STRICT;

INSERT INTO threads (id, agent_id, system_id, pending_approval, approval_deadline, line_moved_at)
SELECT agents.id, agents.id, messages.id, agents.pending_approval, agents.approval_deadline, agents.line_moved_at
FROM agents JOIN messages ON messages.agent_id = agents.id AND messages.position = 0;

CREATE INDEX threads_by_agent ON threads (agent_id);
CREATE INDEX threads_by_approval_deadline ON threads (approval_deadline) WHERE approval_deadline IS NOT NULL;

DROP INDEX agents_by_approval_deadline;
ALTER TABLE agents DROP COLUMN approval_deadline;
ALTER TABLE agents DROP COLUMN pending_approval;
ALTER TABLE agents DROP COLUMN line_moved_at;
-- Raised with each change of what system messages are compiled from.
ALTER TABLE agents ADD COLUMN prompt_version INTEGER NOT NULL DEFAULT 0;

CREATE TABLE conversations (
    id BLOB PRIMARY KEY NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    tenant TEXT NOT NULL,
    agent_id BLOB NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    settings TEXT NOT NULL,
    -- The summary in lower case, for the search in any case.
    summary_folded TEXT NOT NULL,
    archived_at INTEGER,
    last_message_at INTEGER,
    last_run_completion INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;

CREATE INDEX conversations_by_creation ON conversations (tenant, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX conversations_by_agent ON conversations (agent_id, created_at, id) WHERE deleted_at IS NULL;

-- The thread of a message and of a run. Positions are still places in the agent's whole history, so that threads can be
-- read side by side.
ALTER TABLE messages ADD COLUMN thread_id BLOB NOT NULL DEFAULT x'';
UPDATE messages SET thread_id = agent_id;
DROP INDEX messages_in_context;
DROP INDEX messages_outside;
CREATE INDEX messages_in_context ON messages (thread_id, position) WHERE in_context;
CREATE INDEX messages_outside ON messages (thread_id) WHERE NOT in_context;
CREATE INDEX messages_by_thread ON messages (thread_id, position);

-- The client's key of a message, by which a stream that was lost early is found again. Keys may be of any length, so the
-- index has their beginning.
ALTER TABLE messages ADD COLUMN otid TEXT;
CREATE INDEX messages_by_otid ON messages (thread_id, substr(otid, 1, 100)) WHERE otid IS NOT NULL;

ALTER TABLE runs ADD COLUMN thread_id BLOB NOT NULL DEFAULT x'';
UPDATE runs SET thread_id = agent_id;
DROP INDEX runs_one_running;
DROP INDEX runs_line;
-- At most one run of a thread executes at any time, whatever the code believes.
CREATE UNIQUE INDEX runs_one_running ON runs (thread_id) WHERE status = 'running';
-- The line of a thread: who is next, who is before whom, how many wait.
CREATE INDEX runs_line ON runs (thread_id, arrival) WHERE status IN ('created', 'running');
CREATE INDEX runs_by_thread ON runs (thread_id, arrival);

-- The messages that a fork has from where it came from. Where they stand and whether its model sees them is its own
-- affair: what happens in one thread does not show in the other.
CREATE TABLE shared_messages (
    thread_id BLOB NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    message_id BLOB NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    position INTEGER NOT NULL CHECK (position > 0),
    in_context INTEGER NOT NULL CHECK (in_context IN (0, 1)),
    PRIMARY KEY (thread_id, message_id)
) STRICT;
