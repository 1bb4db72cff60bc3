-- Agents, runs, messages, steps, the archive of events and the outbox: the schema of PostgreSQL, table by table and
-- column by column. See there for the reasons; what differs here:
--   * UUIDs are blobs of 16 bytes, booleans are 0 or 1.
--   * Identity columns are the row ids, by AUTOINCREMENT, so that no number is ever given out twice.
--   * All tables are STRICT: a value of a wrong type is refused rather than kept.

CREATE TABLE agents (
    id BLOB PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    -- The name in lower case, for the search in any case.
    name_folded TEXT NOT NULL,
    settings TEXT NOT NULL,
    -- The place of the agent's newest message. Whoever raises it holds the row, so places are given out in the order of
    -- commits, and the same row lock gives the agent's runs their order of arrival.
    last_position INTEGER NOT NULL DEFAULT 0 CHECK (last_position >= 0),
    last_stop_reason TEXT,
    last_run_completion INTEGER,
    last_run_duration_ms INTEGER,
    -- When the agent's last run ended, by the database's clock: since then the next one stands at the head of the line.
    line_moved_at INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    -- A deleted agent is unknown to everyone, but its runs stay readable until retention takes them.
    deleted_at INTEGER,
    CHECK ((last_stop_reason IS NULL) = (last_run_completion IS NULL)),
    CHECK ((last_stop_reason IS NULL) = (last_run_duration_ms IS NULL))
) STRICT;

CREATE INDEX agents_by_creation ON agents (tenant, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX agents_by_change ON agents (tenant, updated_at, id) WHERE deleted_at IS NULL;

-- The tags of the settings once more, so that a list can be filtered by them. Tags are of any length, so they are not
-- part of an index; an agent has few.
CREATE TABLE agent_tags (
    agent_id BLOB NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    place INTEGER NOT NULL CHECK (place >= 0),
    tag TEXT NOT NULL,
    PRIMARY KEY (agent_id, place)
) STRICT;

CREATE TABLE blocks (
    id BLOB PRIMARY KEY NOT NULL,
    agent_id BLOB NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    -- The order of attachment, from 0.
    place INTEGER NOT NULL CHECK (place >= 0),
    label TEXT NOT NULL,
    value TEXT NOT NULL,
    details TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (agent_id, label),
    UNIQUE (agent_id, place)
) STRICT;

CREATE TABLE runs (
    id BLOB NOT NULL UNIQUE,
    -- Order of arrival. It is drawn while the agent's row is locked, so that per agent it is also the order of commits.
    arrival INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    agent_id BLOB NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    status TEXT NOT NULL CHECK (status IN ('created', 'running', 'completed', 'failed', 'cancelled')),
    background INTEGER NOT NULL CHECK (background IN (0, 1)),
    request TEXT NOT NULL,
    -- The idempotency key, and the hash of what was asked for: with the key, or alone where a repeat may join the run
    -- while it is active.
    request_key TEXT,
    request_content TEXT,
    trace TEXT,
    cancel_requested_at INTEGER,
    usage TEXT NOT NULL,
    -- The last event that is in `event_segments`.
    archived INTEGER NOT NULL CHECK (archived >= 0),
    -- The number of the `stop_reason` event.
    terminal_seq INTEGER,
    stop_reason TEXT,
    error TEXT,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    ttft_ns INTEGER,
    -- The fencing token: each claim raises it, each write of a worker names it.
    epoch INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    -- Claims since the last committed step.
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    worker_id BLOB,
    -- When it was accepted, and when the rescuer last sent a hint for it that no claim has answered, both by the
    -- database's clock.
    accepted_at INTEGER NOT NULL,
    hinted_at INTEGER,
    UNIQUE (agent_id, request_key),
    CHECK (request_key IS NULL OR request_content IS NOT NULL),
    CHECK ((status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL)),
    CHECK ((completed_at IS NULL) = (stop_reason IS NULL)),
    CHECK ((completed_at IS NULL) = (terminal_seq IS NULL)),
    CHECK (error IS NULL OR completed_at IS NOT NULL),
    CHECK (terminal_seq IS NULL OR terminal_seq BETWEEN 1 AND archived),
    CHECK (status <> 'created' OR (epoch = 0 AND started_at IS NULL)),
    CHECK (status <> 'running' OR (epoch > 0 AND started_at IS NOT NULL)),
    CHECK (worker_id IS NULL OR status = 'running'),
    CHECK (cancel_requested_at IS NULL OR status IN ('created', 'running'))
) STRICT;

-- At most one run of an agent executes at any time, whatever the code believes.
CREATE UNIQUE INDEX runs_one_running ON runs (agent_id) WHERE status = 'running';
-- The line of an agent: who is next, who is before whom, how many wait.
CREATE INDEX runs_line ON runs (agent_id, arrival) WHERE status IN ('created', 'running');
CREATE INDEX runs_by_agent ON runs (agent_id, arrival);
CREATE INDEX runs_by_tenant ON runs (tenant, arrival);
CREATE INDEX runs_by_worker ON runs (worker_id) WHERE worker_id IS NOT NULL;
-- What the rescuer walks through; both hold live runs only and stay small.
CREATE INDEX runs_running ON runs (hinted_at) WHERE status = 'running';
CREATE INDEX runs_created ON runs (accepted_at) WHERE status = 'created';

CREATE TABLE messages (
    id BLOB PRIMARY KEY NOT NULL,
    agent_id BLOB NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    run_id BLOB REFERENCES runs (id) ON DELETE CASCADE,
    step_id BLOB,
    role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    body TEXT NOT NULL,
    labels TEXT NOT NULL,
    -- The text in lower case, for the search in any case.
    folded TEXT NOT NULL,
    -- Whether the model sees it. The input of a run is not in context before the run is claimed.
    in_context INTEGER NOT NULL CHECK (in_context IN (0, 1)),
    -- Place in the agent's history; the agent's system message has 0.
    position INTEGER NOT NULL CHECK (position >= 0),
    created_at INTEGER NOT NULL,
    UNIQUE (agent_id, position),
    -- The system message never leaves the context.
    CHECK (position > 0 OR (role = 'system' AND in_context))
) STRICT;

CREATE INDEX messages_in_context ON messages (agent_id, position) WHERE in_context;
CREATE INDEX messages_outside ON messages (agent_id) WHERE NOT in_context;
CREATE INDEX messages_by_run ON messages (run_id, position) WHERE run_id IS NOT NULL;

CREATE TABLE steps (
    id BLOB PRIMARY KEY NOT NULL,
    run_id BLOB NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    agent_id BLOB NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 1),
    status TEXT NOT NULL CHECK (status IN ('pending', 'success', 'failed', 'cancelled')),
    stop_reason TEXT,
    model TEXT NOT NULL,
    usage TEXT NOT NULL,
    error TEXT,
    -- The assistant message that was recorded before its calls ran; with it the model is not called again.
    answer_id BLOB,
    started_at INTEGER NOT NULL,
    llm_request_ns INTEGER,
    tool_execution_ns INTEGER,
    step_ns INTEGER,
    UNIQUE (run_id, number),
    CHECK ((status = 'pending') = (step_ns IS NULL)),
    CHECK (status <> 'pending' OR (stop_reason IS NULL AND error IS NULL))
) STRICT;

CREATE UNIQUE INDEX steps_one_pending ON steps (run_id) WHERE status = 'pending';

-- Results of tool calls, written as soon as a call is done: a call with a row here is never executed again.
CREATE TABLE tool_returns (
    step_id BLOB NOT NULL REFERENCES steps (id) ON DELETE CASCADE,
    call INTEGER NOT NULL CHECK (call >= 0),
    body TEXT NOT NULL,
    PRIMARY KEY (step_id, call)
) STRICT;

-- The archive of events. A segment holds the events first_seq..last_seq of a run without a gap, each as one byte for the
-- kind, four bytes for the length (big endian), and the frame.
CREATE TABLE event_segments (
    run_id BLOB NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    first_seq INTEGER NOT NULL CHECK (first_seq >= 1),
    last_seq INTEGER NOT NULL,
    -- Bytes of `frames`, so that a reader can see how much it would read.
    size INTEGER NOT NULL,
    frames BLOB NOT NULL,
    PRIMARY KEY (run_id, last_seq),
    CHECK (last_seq >= first_seq)
) STRICT;

-- One row per worker process; a run whose holder has no row, or an old one, may be taken.
CREATE TABLE workers (
    id BLOB PRIMARY KEY NOT NULL,
    -- By the database's clock.
    heartbeat_at INTEGER NOT NULL
) STRICT;

-- Hints that are to be published. A row is gone as soon as the broker has confirmed its hint.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id BLOB NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    trace TEXT,
    -- Not before this, by the database's clock: whoever wrote the row publishes it itself, and only what a crash left
    -- becomes due.
    due_at INTEGER NOT NULL
) STRICT;

CREATE INDEX outbox_due ON outbox (due_at, id);
CREATE INDEX outbox_by_run ON outbox (run_id);
