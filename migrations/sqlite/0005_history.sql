-- What is told of the past across agents: see PostgreSQL.

ALTER TABLE messages ADD COLUMN tenant TEXT;
ALTER TABLE steps ADD COLUMN tenant TEXT;

CREATE TRIGGER messages_tenant AFTER INSERT ON messages BEGIN
    UPDATE messages SET tenant = (SELECT agents.tenant FROM agents WHERE agents.id = NEW.agent_id) WHERE id = NEW.id;
END;
CREATE TRIGGER steps_tenant AFTER INSERT ON steps BEGIN
    UPDATE steps SET tenant = (SELECT agents.tenant FROM agents WHERE agents.id = NEW.agent_id) WHERE id = NEW.id;
END;

UPDATE messages SET tenant = (SELECT agents.tenant FROM agents WHERE agents.id = messages.agent_id);
UPDATE steps SET tenant = (SELECT agents.tenant FROM agents WHERE agents.id = steps.agent_id);

CREATE INDEX messages_by_creation ON messages (tenant, created_at, id);
CREATE INDEX messages_by_step ON messages (step_id, position) WHERE step_id IS NOT NULL;
CREATE INDEX steps_by_beginning ON steps (tenant, started_at, id);
CREATE INDEX steps_by_agent ON steps (agent_id, started_at, id);

ALTER TABLE steps ADD COLUMN feedback TEXT CHECK (feedback IN ('positive', 'negative'));
ALTER TABLE steps ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';

CREATE TABLE step_tags (
    step_id BLOB NOT NULL REFERENCES steps (id) ON DELETE CASCADE ON UPDATE CASCADE,
    place INTEGER NOT NULL CHECK (place >= 0),
    tag TEXT NOT NULL,
    PRIMARY KEY (step_id, place)
) STRICT;
