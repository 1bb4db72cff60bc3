-- Blocks of tenants, attached to any number of agents; what lists are filtered by: see PostgreSQL.

-- SQLite cannot drop a column that is part of a constraint: the table is made anew. Nothing refers to it.
ALTER TABLE blocks RENAME TO blocks_before;

CREATE TABLE blocks (
    id BLOB PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    label TEXT NOT NULL,
    label_folded TEXT NOT NULL,
    value TEXT NOT NULL,
    value_folded TEXT NOT NULL,
    description_folded TEXT,
    is_template INTEGER NOT NULL DEFAULT 0 CHECK (is_template IN (0, 1)),
    template_name TEXT,
    project_id TEXT,
    details TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

INSERT INTO blocks (id, tenant, label, label_folded, value, value_folded, description_folded, details, created_at, updated_at)
SELECT blocks_before.id, agents.tenant, label, lower(label), value, lower(value),
    CASE WHEN instr(details, '\u0000') = 0 THEN lower(json_extract(details, '$.description')) END,
    details, blocks_before.created_at, blocks_before.updated_at
FROM blocks_before JOIN agents ON agents.id = blocks_before.agent_id WHERE agents.deleted_at IS NULL;

CREATE TABLE agent_blocks (
    agent_id BLOB NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    block_id BLOB NOT NULL REFERENCES blocks (id) ON DELETE CASCADE,
    place INTEGER NOT NULL CHECK (place >= 0),
    label TEXT NOT NULL,
    PRIMARY KEY (agent_id, block_id),
    UNIQUE (agent_id, label),
    UNIQUE (agent_id, place)
) STRICT;

INSERT INTO agent_blocks (agent_id, block_id, place, label)
SELECT agent_id, id, place, label FROM blocks_before WHERE id IN (SELECT id FROM blocks);
DROP TABLE blocks_before;

CREATE INDEX agent_blocks_by_block ON agent_blocks (block_id);
CREATE INDEX blocks_by_creation ON blocks (tenant, created_at, id);

CREATE TABLE block_tags (
    block_id BLOB NOT NULL REFERENCES blocks (id) ON DELETE CASCADE,
    tag TEXT NOT NULL
) STRICT;

INSERT INTO block_tags (block_id, tag)
SELECT blocks.id, tags.value FROM blocks, json_each(blocks.details, '$.tags') AS tags
WHERE tags.type = 'text' AND instr(blocks.details, '\u0000') = 0;

CREATE INDEX block_tags_by_block ON block_tags (block_id);

CREATE TABLE agent_references (
    agent_id BLOB NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    value TEXT NOT NULL
) STRICT;

INSERT INTO agent_references (agent_id, kind, value)
SELECT agents.id, other.key, other.value FROM agents, json_each(agents.settings, '$.other') AS other
WHERE other.key IN ('project_id', 'template_id', 'base_template_id') AND other.type = 'text'
    AND instr(agents.settings, '\u0000') = 0;

INSERT INTO agent_references (agent_id, kind, value)
SELECT agents.id, 'identity_ids', ids.value FROM agents, json_each(agents.settings, '$.other.identity_ids') AS ids
WHERE ids.type = 'text' AND instr(agents.settings, '\u0000') = 0;

CREATE INDEX agent_references_by_agent ON agent_references (agent_id);

CREATE INDEX agents_by_completion ON agents (tenant, coalesce(last_run_completion, 0), id) WHERE deleted_at IS NULL;
