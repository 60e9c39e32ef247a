-- What people are told about: one row per cause, open until the cause is gone; and when slow checks were last made.

CREATE TABLE perennial.alerts (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL,
    agent        text NOT NULL DEFAULT '',
    cause        text NOT NULL,              -- the same words for as long as it is the same cause
    text         text NOT NULL,              -- names, counts and reasons; never the text of an example
    raised_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered_at timestamptz,                -- written after the message was taken, so a kill in between repeats it
    cleared_at   timestamptz
);
-- two looks at the same time raise a cause once
CREATE UNIQUE INDEX alerts_one_open ON perennial.alerts (kind, cause) WHERE cleared_at IS NULL;
CREATE INDEX alerts_undelivered ON perennial.alerts (id) WHERE delivered_at IS NULL;

CREATE TABLE perennial.checks (
    name text PRIMARY KEY,
    ok   boolean NOT NULL,
    text text NOT NULL DEFAULT '',
    at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- "Did anything come in lately" reads the newest pages alone, and costs writers next to nothing.
CREATE INDEX examples_added ON perennial.examples USING brin (added_at);

GRANT SELECT, INSERT, UPDATE ON perennial.alerts, perennial.checks TO perennial_app;
GRANT SELECT ON perennial.alerts, perennial.checks TO perennial_admit;
GRANT USAGE ON SEQUENCE perennial.alerts_id_seq TO perennial_app;
