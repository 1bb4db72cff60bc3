-- Agents, runs, messages, steps, the archive of events and the outbox.
--
-- What holds for all tables:
--   * Identifiers are UUIDs without their prefix.
--   * Times are microseconds since the epoch. Columns that one host compares with another's (heartbeats, due times)
--     are written and read by the database's clock; the others are what the host that wrote them said.
--   * Documents (settings, bodies, requests) are JSON in TEXT, not JSONB: JSONB refuses the character U+0000, which
--     models and tools may well produce, and nothing here looks into a document.
--   * A status and the columns that belong to it are tied together by CHECK, so that a defect cannot store a run that
--     is half ended.
--
-- The schema of SQLite is the same, table by table and column by column.

CREATE TABLE agents (
    id UUID PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    -- The name in lower case, for the search in any case.
    name_folded TEXT NOT NULL,
    settings TEXT NOT NULL,
    -- The place of the agent's newest message. Whoever raises it holds the row, so places are given out in the order of
    -- commits, and the same row lock gives the agent's runs their order of arrival.
    last_position BIGINT NOT NULL DEFAULT 0 CHECK (last_position >= 0),
    last_stop_reason TEXT,
    last_run_completion BIGINT,
    last_run_duration_ms BIGINT,
    -- When the agent's last run ended, by the database's clock: since then the next one stands at the head of the line.
    line_moved_at BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- A deleted agent is unknown to everyone, but its runs stay readable until retention takes them.
    deleted_at BIGINT,
    CHECK ((last_stop_reason IS NULL) = (last_run_completion IS NULL)),
    CHECK ((last_stop_reason IS NULL) = (last_run_duration_ms IS NULL))
);

CREATE INDEX agents_by_creation ON agents (tenant, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX agents_by_change ON agents (tenant, updated_at, id) WHERE deleted_at IS NULL;

-- The tags of the settings once more, so that a list can be filtered by them. Tags are of any length, so they are not
-- part of an index; an agent has few.
CREATE TABLE agent_tags (
    agent_id UUID NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    place BIGINT NOT NULL CHECK (place >= 0),
    tag TEXT NOT NULL,
    PRIMARY KEY (agent_id, place)
);

CREATE TABLE blocks (
    id UUID PRIMARY KEY,
    agent_id UUID NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    -- The order of attachment, from 0.
    place BIGINT NOT NULL CHECK (place >= 0),
    label TEXT NOT NULL,
    value TEXT NOT NULL,
    details TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (agent_id, label),
    UNIQUE (agent_id, place)
);

CREATE TABLE runs (
    id UUID PRIMARY KEY,
    -- Order of arrival. It is drawn while the agent's row is locked, so that per agent it is also the order of commits.
    arrival BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant TEXT NOT NULL,
    agent_id UUID NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    status TEXT NOT NULL CHECK (status IN ('created', 'running', 'completed', 'failed', 'cancelled')),
    background BOOLEAN NOT NULL,
    request TEXT NOT NULL,
    -- The idempotency key, and the hash of what was asked for: with the key, or alone where a repeat may join the run
    -- while it is active.
    request_key TEXT,
    request_content TEXT,
    trace TEXT,
    cancel_requested_at BIGINT,
    usage TEXT NOT NULL,
    -- The last event that is in `event_segments`.
    archived BIGINT NOT NULL CHECK (archived >= 0),
    -- The number of the `stop_reason` event.
    terminal_seq BIGINT,
    stop_reason TEXT,
    error TEXT,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    completed_at BIGINT,
    ttft_ns BIGINT,
    -- The fencing token: each claim raises it, each write of a worker names it.
    epoch BIGINT NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    -- Claims since the last committed step.
    attempts BIGINT NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    worker_id UUID,
    -- When it was accepted, and when the rescuer last sent a hint for it that no claim has answered, both by the
    -- database's clock.
    accepted_at BIGINT NOT NULL,
    hinted_at BIGINT,
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
);

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
    id UUID PRIMARY KEY,
    agent_id UUID NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    run_id UUID REFERENCES runs (id) ON DELETE CASCADE,
    step_id UUID,
    role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    body TEXT NOT NULL,
    labels TEXT NOT NULL,
    -- The text in lower case, for the search in any case.
    folded TEXT NOT NULL,
    -- Whether the model sees it. The input of a run is not in context before the run is claimed.
    in_context BOOLEAN NOT NULL,
    -- Place in the agent's history; the agent's system message has 0.
    position BIGINT NOT NULL CHECK (position >= 0),
    created_at BIGINT NOT NULL,
    UNIQUE (agent_id, position),
    -- The system message never leaves the context.
    CHECK (position > 0 OR (role = 'system' AND in_context))
);

CREATE INDEX messages_in_context ON messages (agent_id, position) WHERE in_context;
CREATE INDEX messages_outside ON messages (agent_id) WHERE NOT in_context;
CREATE INDEX messages_by_run ON messages (run_id, position) WHERE run_id IS NOT NULL;

CREATE TABLE steps (
    id UUID PRIMARY KEY,
    run_id UUID NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    agent_id UUID NOT NULL,
    number BIGINT NOT NULL CHECK (number >= 1),
    status TEXT NOT NULL CHECK (status IN ('pending', 'success', 'failed', 'cancelled')),
    stop_reason TEXT,
    model TEXT NOT NULL,
    usage TEXT NOT NULL,
    error TEXT,
    -- The assistant message that was recorded before its calls ran; with it the model is not called again.
    answer_id UUID,
    started_at BIGINT NOT NULL,
    llm_request_ns BIGINT,
    tool_execution_ns BIGINT,
    step_ns BIGINT,
    UNIQUE (run_id, number),
    CHECK ((status = 'pending') = (step_ns IS NULL)),
    CHECK (status <> 'pending' OR (stop_reason IS NULL AND error IS NULL))
);

CREATE UNIQUE INDEX steps_one_pending ON steps (run_id) WHERE status = 'pending';

-- Results of tool calls, written as soon as a call is done: a call with a row here is never executed again.
CREATE TABLE tool_returns (
    step_id UUID NOT NULL REFERENCES steps (id) ON DELETE CASCADE,
    call BIGINT NOT NULL CHECK (call >= 0),
    body TEXT NOT NULL,
    PRIMARY KEY (step_id, call)
);

-- The archive of events. A segment holds the events first_seq..last_seq of a run without a gap, each as one byte for the
-- kind, four bytes for the length (big endian), and the frame.
CREATE TABLE event_segments (
    run_id UUID NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    first_seq BIGINT NOT NULL CHECK (first_seq >= 1),
    last_seq BIGINT NOT NULL,
    -- Bytes of `frames`, so that a reader can see how much it would read.
    size BIGINT NOT NULL,
    frames BYTEA NOT NULL,
    PRIMARY KEY (run_id, last_seq),
    CHECK (last_seq >= first_seq)
);

-- One row per worker process; a run whose holder has no row, or an old one, may be taken.
CREATE TABLE workers (
    id UUID PRIMARY KEY,
    -- By the database's clock.
    heartbeat_at BIGINT NOT NULL
);

-- Hints that are to be published. A row is gone as soon as the broker has confirmed its hint.
CREATE TABLE outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id UUID NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    trace TEXT,
    -- Not before this, by the database's clock: whoever wrote the row publishes it itself, and only what a crash left
    -- becomes due.
    due_at BIGINT NOT NULL
);

CREATE INDEX outbox_due ON outbox (due_at, id);
CREATE INDEX outbox_by_run ON outbox (run_id);
