-- Tools of tenants, calls that wait for the client, compaction, and what a step tells of its tries.

-- Tools that clients made, and those of MCP servers, which the workers enter. Built-in tools have no rows.
CREATE TABLE tools (
    id UUID PRIMARY KEY,
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
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- A name means one tool of a tenant. (NULLs differ from each other in a UNIQUE constraint, hence the empty word.)
CREATE UNIQUE INDEX tools_by_name ON tools (coalesce(tenant, ''), name);
CREATE INDEX tools_by_creation ON tools (tenant, created_at, id);

ALTER TABLE messages DROP CONSTRAINT messages_role_check;
ALTER TABLE messages ADD CONSTRAINT messages_role_check
    CHECK (role IN ('system', 'user', 'assistant', 'tool', 'approval', 'summary'));

-- The message whose calls wait for the client's answer. It is set by the commit that ends the run which asks, and
-- cleared by the commit that stores the results, so no request comes between question and state.
ALTER TABLE agents ADD COLUMN pending_approval UUID;
-- When the server answers itself, by the clocks of the hosts: a deadline of days needs no better one.
ALTER TABLE agents ADD COLUMN approval_deadline BIGINT;
ALTER TABLE agents ADD CONSTRAINT agents_deadline_check CHECK (approval_deadline IS NULL OR pending_approval IS NOT NULL);
CREATE INDEX agents_by_approval_deadline ON agents (approval_deadline) WHERE approval_deadline IS NOT NULL;

-- The request that a run answers. Such a run goes before all others of its agent: they wait for what it settles.
ALTER TABLE runs ADD COLUMN answers UUID;
-- A request is answered by one run at a time.
CREATE UNIQUE INDEX runs_one_answer ON runs (answers) WHERE answers IS NOT NULL AND status IN ('created', 'running');

-- The step of an earlier run whose calls this one finishes. It makes no model call, so lists leave it out.
ALTER TABLE steps ADD COLUMN answers_step UUID;
-- Tries of the model call that failed before the one that counts.
ALTER TABLE steps ADD COLUMN retries TEXT NOT NULL DEFAULT '[]';

-- What a worker can do, as a document: the health answer tells it.
ALTER TABLE workers ADD COLUMN facts TEXT NOT NULL DEFAULT '{}';

-- A row without a body is a call that was begun: should its worker die, nobody knows whether it had an effect.
ALTER TABLE tool_returns ALTER COLUMN body DROP NOT NULL;

-- The system message as it was when a tool of the run first changed the agent's memory: the run keeps it, so that its
-- provider keeps finding its prompts in the cache, also after a takeover.
ALTER TABLE runs ADD COLUMN system TEXT;
