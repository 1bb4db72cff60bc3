-- What is told of the past across agents: whose a message and a step is and when it came to be, and what clients think of
-- a step.

-- The tenant of the agent once more, so that one index has all messages of a tenant in their order. A trigger fills it,
-- so that a program of an earlier version, which does not know the column, fills it too.
ALTER TABLE messages ADD COLUMN tenant TEXT;
ALTER TABLE steps ADD COLUMN tenant TEXT;

CREATE FUNCTION take_tenant_of_agent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT agents.tenant INTO NEW.tenant FROM agents WHERE agents.id = NEW.agent_id;
    RETURN NEW;
END $$;

CREATE TRIGGER messages_tenant BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION take_tenant_of_agent();
CREATE TRIGGER steps_tenant BEFORE INSERT ON steps FOR EACH ROW EXECUTE FUNCTION take_tenant_of_agent();

UPDATE messages SET tenant = (SELECT agents.tenant FROM agents WHERE agents.id = messages.agent_id);
UPDATE steps SET tenant = (SELECT agents.tenant FROM agents WHERE agents.id = steps.agent_id);

CREATE INDEX messages_by_creation ON messages (tenant, created_at, id);
CREATE INDEX messages_by_step ON messages (step_id, position) WHERE step_id IS NOT NULL;
CREATE INDEX steps_by_beginning ON steps (tenant, started_at, id);
CREATE INDEX steps_by_agent ON steps (agent_id, started_at, id);

ALTER TABLE steps ADD COLUMN feedback TEXT CHECK (feedback IN ('positive', 'negative'));
ALTER TABLE steps ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';

-- The tags of steps once more, so that a list can be filtered by them. ON UPDATE: a pending step that is begun anew gets
-- another id.
CREATE TABLE step_tags (
    step_id UUID NOT NULL REFERENCES steps (id) ON DELETE CASCADE ON UPDATE CASCADE,
    place BIGINT NOT NULL CHECK (place >= 0),
    tag TEXT NOT NULL,
    PRIMARY KEY (step_id, place)
);
