-- Ends of runs that are to be told to a URL of the client's.

-- The last try: when, the receiver's HTTP status, what went wrong.
ALTER TABLE runs ADD COLUMN callback_sent_at BIGINT;
ALTER TABLE runs ADD COLUMN callback_status_code BIGINT;
ALTER TABLE runs ADD COLUMN callback_error TEXT;

-- Callbacks that are to be sent. A row is written by the commit that ends the run, and gone when a receiver has taken the
-- callback or the last try has failed.
CREATE TABLE callbacks (
    run_id UUID PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    -- Scheme, host and port of the URL: who is slow holds up only what is for himself.
    receiver TEXT NOT NULL,
    -- Tries that failed.
    failed BIGINT NOT NULL DEFAULT 0 CHECK (failed >= 0),
    -- How often the row was taken. Only the last taker says what came of it.
    takes BIGINT NOT NULL DEFAULT 0,
    -- Not before this, by the database's clock: whoever takes the row pushes it forward, so that nobody else sends the same
    -- until he must be dead.
    due_at BIGINT NOT NULL
);

CREATE INDEX callbacks_due ON callbacks (due_at, run_id);
