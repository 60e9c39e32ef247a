-- The fleet as the database knows it, the buffer of examples, and the jobs that consume it.
-- Run by the owner role. Roles perennial_app and perennial_admit exist before (the stack or a DBA makes them).

CREATE SCHEMA perennial;
GRANT USAGE ON SCHEMA perennial TO perennial_app, perennial_admit;

-- One row per agent that a fleet file declares. `record` is the whole declaration, for audits.
CREATE TABLE perennial.agents (
    agent            text PRIMARY KEY,
    record           jsonb NOT NULL,
    file_digest      text NOT NULL,
    update_threshold integer NOT NULL CHECK (update_threshold > 0),
    max_buffer_size  integer NOT NULL CHECK (max_buffer_size > 0),
    holdout_share    real NOT NULL CHECK (holdout_share >= 0 AND holdout_share < 1),
    active           boolean NOT NULL DEFAULT true,
    synced_at        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE perennial.tasks (
    agent  text NOT NULL REFERENCES perennial.agents,
    task   text NOT NULL,
    alias_of text,                    -- set when this row is another name for a task
    kind   text NOT NULL,
    labels text[],                    -- NULL: learnt from the data
    max_length integer NOT NULL,
    PRIMARY KEY (agent, task)
);

CREATE TYPE perennial.example_state AS ENUM (
    'raw', 'ready', 'claimed', 'trained', 'unlabelled', 'quarantined', 'held', 'superseded', 'evicted', 'purged'
);

CREATE TYPE perennial.job_status AS ENUM (
    'pending', 'validating', 'training', 'evaluating', 'completed', 'failed', 'cancelled'
);

CREATE TABLE perennial.jobs (
    job_id       uuid PRIMARY KEY,
    agent        text NOT NULL,
    run_id       text NOT NULL UNIQUE,          -- the Airflow run that carries it out
    status       perennial.job_status NOT NULL DEFAULT 'pending',
    reason       text NOT NULL,
    mode         text NOT NULL,
    forced       boolean NOT NULL DEFAULT false,
    requested_by text NOT NULL DEFAULT '',
    provider     text NOT NULL DEFAULT 'local',
    attempt      integer NOT NULL DEFAULT 0,    -- the fence: a write carries (job_id, attempt)
    lease_until  timestamptz,                   -- on the database's clock
    example_count integer NOT NULL DEFAULT 0,
    dataset      jsonb NOT NULL DEFAULT '{}',   -- digests and counts, never texts
    config       jsonb NOT NULL DEFAULT '{}',
    policy       jsonb NOT NULL DEFAULT '{}',
    datasheet    jsonb NOT NULL DEFAULT '{}',
    cost         jsonb NOT NULL DEFAULT '{}',
    version      text,
    note         text NOT NULL DEFAULT '',      -- one line: what happened
    error        text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    completed_at timestamptz
);

-- At most one training per agent, across workers and hosts. An expired lease is swept before a new claim.
CREATE UNIQUE INDEX jobs_one_running ON perennial.jobs (agent) WHERE status IN ('validating', 'training', 'evaluating');
CREATE INDEX jobs_by_agent ON perennial.jobs (agent, created_at DESC);

CREATE TABLE perennial.examples (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    example_id      uuid NOT NULL UNIQUE,
    agent           text NOT NULL,
    task            text NOT NULL,
    state           perennial.example_state NOT NULL,
    input_text      text,                       -- redacted; NULL until admitted
    expected_output jsonb,                      -- NULL: unlabelled
    predicted_output jsonb,
    user_feedback   text,                       -- redacted; NULL until admitted
    uncertainty     real NOT NULL,
    importance      real NOT NULL,
    priority        smallint NOT NULL CHECK (priority BETWEEN 0 AND 3),
    source          text NOT NULL,
    source_url      text NOT NULL DEFAULT '',
    source_id       text NOT NULL DEFAULT '',
    correction      boolean NOT NULL DEFAULT false,
    holdout         boolean NOT NULL DEFAULT false,  -- never claimable
    regression      boolean NOT NULL DEFAULT false,  -- a correction of priority >= 2: every later candidate must answer it
    learned         text,                            -- version that answered it right first; NULL: not yet
    content_digest  bytea NOT NULL,                  -- agent, task, input and expected output
    input_digest    bytea NOT NULL,                  -- agent, task and the normalised input
    superseded_by   uuid,
    job_id          uuid,
    attempt         integer,
    refusals        integer NOT NULL DEFAULT 0,
    model_version   text,                            -- the version that was trained on it
    reason          text NOT NULL DEFAULT '',        -- why it stands aside
    redaction       jsonb,                           -- counts by type and the redactor's version
    batch_id        uuid,                            -- the outbox row that announced it
    created_at      timestamptz NOT NULL,            -- when the example was made
    added_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    admitted_at     timestamptz,
    trained_at      timestamptz
);
ALTER TABLE perennial.examples ADD CONSTRAINT examples_content UNIQUE (content_digest);

-- Claims walk this index in the order of worth and stop after the batch, so their cost does not grow with the buffer.
CREATE INDEX examples_claimable ON perennial.examples
    (agent, priority DESC, importance DESC, uncertainty DESC, created_at DESC, id DESC)
    WHERE state = 'ready' AND NOT holdout;
CREATE INDEX examples_raw ON perennial.examples (agent, priority DESC, id) WHERE state = 'raw';
CREATE INDEX examples_of_job ON perennial.examples (job_id) WHERE state = 'claimed';
CREATE INDEX examples_holdout ON perennial.examples (agent, task, created_at) WHERE holdout;
CREATE INDEX examples_regression ON perennial.examples (agent, task, id) WHERE regression;
CREATE INDEX examples_trained ON perennial.examples (agent, task, trained_at DESC) WHERE state = 'trained';
CREATE INDEX examples_by_input ON perennial.examples (input_digest);
CREATE INDEX examples_aside ON perennial.examples (agent, state) WHERE state IN ('quarantined', 'held', 'unlabelled');

-- What was sent, before redaction. The app role may write it and never read it.
CREATE TABLE perennial.originals (
    example_id      uuid PRIMARY KEY,
    input_text      text NOT NULL,
    expected_output jsonb,
    user_feedback   text,
    added_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Counted, not stored: duplicates, evictions, quarantines, refusals at the door.
CREATE TABLE perennial.counters (
    agent text NOT NULL,
    name  text NOT NULL,
    value bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (agent, name)
);

-- Announcements, one per batch, written in the transaction of the change that they announce.
CREATE TABLE perennial.outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id   uuid NOT NULL DEFAULT gen_random_uuid(),
    topic      text NOT NULL,
    agent      text NOT NULL,
    payload    jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    relayed_at timestamptz
);
CREATE INDEX outbox_waiting ON perennial.outbox (id) WHERE relayed_at IS NULL;

-- How far each source was read; written in the transaction of the rows.
CREATE TABLE perennial.source_offsets (
    source     text NOT NULL,
    part       text NOT NULL,
    position   bigint NOT NULL,
    digest     text NOT NULL DEFAULT '',
    finished   boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, part)
);

-- Records that could not even become an example (broken lines, wrong fields): origin and reason; the raw bytes stay with the originals.
CREATE TABLE perennial.rejected (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source     text NOT NULL,
    part       text NOT NULL,
    position   bigint NOT NULL,
    field      text NOT NULL,
    reason     text NOT NULL,
    raw        bytea,
    added_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (source, part, position)
);

CREATE TABLE perennial.embeddings (
    encoder text NOT NULL,
    key     text NOT NULL,
    vector  bytea NOT NULL,
    used_at date NOT NULL DEFAULT current_date,
    PRIMARY KEY (encoder, key)
);

GRANT SELECT, INSERT, UPDATE ON perennial.agents, perennial.tasks, perennial.jobs, perennial.examples, perennial.counters, perennial.outbox,
    perennial.source_offsets TO perennial_app, perennial_admit;
GRANT DELETE ON perennial.tasks TO perennial_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON perennial.embeddings TO perennial_app, perennial_admit;
GRANT INSERT ON perennial.originals, perennial.rejected TO perennial_app;
GRANT SELECT (id, source, part, position, field, reason, added_at) ON perennial.rejected TO perennial_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON perennial.originals, perennial.rejected TO perennial_admit;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA perennial TO perennial_app, perennial_admit;
