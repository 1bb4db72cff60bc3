-- Ends of runs that are to be told to a URL of the client's: see PostgreSQL.

ALTER TABLE runs ADD COLUMN callback_sent_at INTEGER;
ALTER TABLE runs ADD COLUMN callback_status_code INTEGER;
ALTER TABLE runs ADD COLUMN callback_error TEXT;

CREATE TABLE callbacks (
    run_id BLOB PRIMARY KEY NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    receiver TEXT NOT NULL,
    failed INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0),
    takes INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL
) STRICT;

CREATE INDEX callbacks_due ON callbacks (due_at, run_id);
