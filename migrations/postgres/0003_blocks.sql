-- Blocks of tenants, attached to any number of agents; what lists of blocks and agents are filtered by.
--
-- Programs older than this know blocks of one agent only and cannot work with this schema. None of them was released.

ALTER TABLE blocks
    ADD COLUMN tenant TEXT,
    -- The texts in lower case, for the search in any case.
    ADD COLUMN label_folded TEXT,
    ADD COLUMN value_folded TEXT,
    ADD COLUMN description_folded TEXT,
    -- Details once more, so that a list can be filtered by them.
    ADD COLUMN is_template BOOLEAN NOT NULL DEFAULT FALSE,
    ADD COLUMN template_name TEXT,
    ADD COLUMN project_id TEXT;

-- What a deleted agent had is unknown to everyone, and stays so.
DELETE FROM blocks USING agents WHERE agents.id = blocks.agent_id AND agents.deleted_at IS NOT NULL;

UPDATE blocks SET
    tenant = agents.tenant,
    label_folded = lower(label),
    value_folded = lower(value),
    -- A document with U+0000 in it cannot be looked into; such a block is found by its description once it is written
    -- again.
    description_folded = CASE WHEN strpos(details, '\u0000') = 0 THEN lower(details::json ->> 'description') END
FROM agents WHERE agents.id = blocks.agent_id;

ALTER TABLE blocks
    ALTER COLUMN tenant SET NOT NULL,
    ALTER COLUMN label_folded SET NOT NULL,
    ALTER COLUMN value_folded SET NOT NULL;

-- Whoever writes here holds the rows of the agent and of the block, so that a block's agents are known to whoever holds
-- it. A deleted agent has none.
CREATE TABLE agent_blocks (
    agent_id UUID NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    block_id UUID NOT NULL REFERENCES blocks (id) ON DELETE CASCADE,
    -- The order of attachment, from 0.
    place BIGINT NOT NULL CHECK (place >= 0),
    -- The block's label once more, so that an agent cannot have it twice.
    label TEXT NOT NULL,
    PRIMARY KEY (agent_id, block_id),
    UNIQUE (agent_id, label),
    UNIQUE (agent_id, place)
);

INSERT INTO agent_blocks (agent_id, block_id, place, label) SELECT agent_id, id, place, label FROM blocks;
ALTER TABLE blocks DROP COLUMN agent_id, DROP COLUMN place;

CREATE INDEX agent_blocks_by_block ON agent_blocks (block_id);
CREATE INDEX blocks_by_creation ON blocks (tenant, created_at, id);

-- The tags of the details once more. Tags are of any length, so they are not part of an index; a block has few.
CREATE TABLE block_tags (
    block_id UUID NOT NULL REFERENCES blocks (id) ON DELETE CASCADE,
    tag TEXT NOT NULL
);

INSERT INTO block_tags (block_id, tag)
SELECT readable.id, tags.tag
FROM (SELECT id, CASE WHEN strpos(details, '\u0000') = 0 THEN details::json -> 'tags' END AS tags FROM blocks) AS readable,
    json_array_elements_text(CASE WHEN json_typeof(readable.tags) = 'array' THEN readable.tags ELSE '[]' END) AS tags (tag);

CREATE INDEX block_tags_by_block ON block_tags (block_id);

-- Ids of things that are kept elsewhere (projects, templates, identities), from an agent's settings once more.
CREATE TABLE agent_references (
    agent_id UUID NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    -- The setting that has it.
    kind TEXT NOT NULL,
    value TEXT NOT NULL
);

INSERT INTO agent_references (agent_id, kind, value)
SELECT readable.id, kinds.kind, readable.other ->> kinds.kind
FROM (
    SELECT id, CASE WHEN strpos(settings, '\u0000') = 0 THEN settings::json -> 'other' END AS other FROM agents
) AS readable, (VALUES ('project_id'), ('template_id'), ('base_template_id')) AS kinds (kind)
WHERE json_typeof(readable.other -> kinds.kind) = 'string';

INSERT INTO agent_references (agent_id, kind, value)
SELECT readable.id, 'identity_ids', identities.id
FROM (
    SELECT id, CASE WHEN strpos(settings, '\u0000') = 0 THEN settings::json -> 'other' -> 'identity_ids' END AS ids
    FROM agents
) AS readable,
    json_array_elements_text(CASE WHEN json_typeof(readable.ids) = 'array' THEN readable.ids ELSE '[]' END)
        AS identities (id)
WHERE identities.id IS NOT NULL;

CREATE INDEX agent_references_by_agent ON agent_references (agent_id);

CREATE INDEX agents_by_completion ON agents (tenant, coalesce(last_run_completion, 0), id) WHERE deleted_at IS NULL;
