-- Versions, what serves, who decided, what production said.

-- Append-only: one row per released version. `ordinal` is monotonic, so an older signed bundle cannot pass as newer.
CREATE TABLE perennial.versions (
    ordinal    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent      text NOT NULL,
    version    text NOT NULL,
    digest     text NOT NULL,          -- sha256 of the signed bundle, hex
    base_version text,
    job_id     uuid,
    uri        text NOT NULL,          -- where the artifacts lie (MLflow)
    mlflow_run_id text,
    manifest   jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (agent, version),
    UNIQUE (agent, digest)
);

-- Append-only: every move of an alias, so that "what served on date X" has an answer.
CREATE TABLE perennial.alias_moves (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent     text NOT NULL,
    alias     text NOT NULL CHECK (alias IN ('champion', 'candidate')),
    version   text,                    -- NULL: the alias was taken away
    actor     text NOT NULL,
    reason    text NOT NULL,
    job_id    uuid,
    moved_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX alias_moves_by_agent ON perennial.alias_moves (agent, alias, id DESC);

-- Append-only: gate reports (whole, as JSON), bound to the candidate's digest.
CREATE TABLE perennial.gate_reports (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent      text NOT NULL,
    job_id     uuid NOT NULL,
    attempt    integer NOT NULL,
    content_digest text NOT NULL,      -- of the candidate's components; the bundle's manifest carries the same
    action     text NOT NULL CHECK (action IN ('pass', 'hold', 'approve')),
    report     jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (job_id, attempt)
);

-- Append-only: decisions of people. Promotion reads these, never Airflow's own record.
CREATE TABLE perennial.approvals (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent      text NOT NULL,
    job_id     uuid NOT NULL,
    content_digest text NOT NULL,
    decision   text NOT NULL CHECK (decision IN ('approve', 'reject')),
    actor      text NOT NULL,
    comment    text NOT NULL DEFAULT '',
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX approvals_by_job ON perennial.approvals (job_id, id DESC);

-- Append-only: what validation said, counts and row ids only.
CREATE TABLE perennial.validations (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent      text NOT NULL,
    job_id     uuid NOT NULL,
    attempt    integer NOT NULL,
    task       text NOT NULL,
    success    boolean NOT NULL,
    report     jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (job_id, attempt, task)
);

-- Append-only: one row per update, also for refused and rolled back ones.
CREATE TABLE perennial.performance_history (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent_name      text NOT NULL,
    model_name      text NOT NULL,
    accuracy_before double precision,
    accuracy_after  double precision,
    examples_trained integer NOT NULL,
    update_timestamp timestamptz NOT NULL DEFAULT clock_timestamp(),
    rollback_triggered boolean NOT NULL DEFAULT false,
    job_id          uuid,
    version         text,
    detail          jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX performance_by_agent ON perennial.performance_history (agent_name, id DESC);

CREATE TABLE perennial.audit (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor     text NOT NULL,
    action    text NOT NULL,
    agent     text NOT NULL DEFAULT '',
    subject   text NOT NULL DEFAULT '',
    detail    jsonb NOT NULL DEFAULT '{}'
);

-- What the gateways should do now: one row per agent. `epoch` grows with every change.
CREATE TABLE perennial.serving (
    agent      text PRIMARY KEY,
    champion   text,
    previous   text,                   -- the champion before; stays hot while the present one bakes
    candidate  text,
    weight     real NOT NULL DEFAULT 0 CHECK (weight BETWEEN 0 AND 1),
    epoch      bigint NOT NULL DEFAULT 0,
    rollout_id bigint,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What each gateway really has loaded; heartbeat of the process.
CREATE TABLE perennial.gateways (
    instance  text NOT NULL,
    agent     text NOT NULL,
    champion  text,
    previous  text,
    candidate text,
    weight    real NOT NULL DEFAULT 0,
    epoch     bigint NOT NULL DEFAULT 0,
    error     text,
    seen_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (instance, agent)
);

CREATE TABLE perennial.rollouts (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent      text NOT NULL,
    version    text NOT NULL,
    previous   text,                   -- the champion when it began
    plan       jsonb NOT NULL,         -- frozen at verify
    state      text NOT NULL,
    step       integer NOT NULL DEFAULT 0,
    weight     real NOT NULL DEFAULT 0,
    run_id     text NOT NULL UNIQUE,
    reason     text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    step_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    full_at    timestamptz,
    ended_at   timestamptz
);
CREATE INDEX rollouts_by_agent ON perennial.rollouts (agent, id DESC);
CREATE UNIQUE INDEX rollouts_one_open ON perennial.rollouts (agent) WHERE state IN ('pending', 'shadow', 'canary');

CREATE TABLE perennial.rollout_looks (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rollout_id bigint NOT NULL REFERENCES perennial.rollouts,
    state      text NOT NULL,
    step       integer NOT NULL,
    action     text NOT NULL,
    reason     text NOT NULL,
    evidence   jsonb NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Every answer of the gateway, written behind the request. Texts go to originals through the buffer, not here.
CREATE TABLE perennial.predictions (
    prediction_id uuid PRIMARY KEY,
    agent      text NOT NULL,
    task       text NOT NULL,
    version    text NOT NULL,
    arm        text NOT NULL,
    input_digest bytea NOT NULL,
    output     jsonb,
    confidence real,
    latency_ms real,
    error      text,
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX predictions_by_version ON perennial.predictions (agent, version, at);

-- Inputs of recent answers, kept for shadow replay and for late outcomes; pruned by age and count.
CREATE TABLE perennial.recent_inputs (
    prediction_id uuid PRIMARY KEY,
    agent      text NOT NULL,
    task       text NOT NULL,
    input_text text NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX recent_inputs_by_agent ON perennial.recent_inputs (agent, at DESC);

CREATE TABLE perennial.outcomes (
    prediction_id uuid PRIMARY KEY,
    agent      text NOT NULL,
    task       text NOT NULL,
    version    text NOT NULL,
    arm        text NOT NULL,
    actual     jsonb NOT NULL,
    correct    real NOT NULL,          -- 1 or 0; for scores 1 - |error|
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX outcomes_by_version ON perennial.outcomes (agent, version, at);

CREATE FUNCTION perennial.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'perennial.% is append-only', TG_TABLE_NAME USING HINT = 'write a new row that says what changed';
END $$;

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['versions', 'alias_moves', 'gate_reports', 'approvals', 'validations', 'performance_history', 'audit'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON perennial.%I FOR EACH ROW EXECUTE FUNCTION perennial.refuse_change()', name);
        EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON perennial.%I FOR EACH STATEMENT EXECUTE FUNCTION perennial.refuse_change()', name);
        EXECUTE format('GRANT SELECT, INSERT ON perennial.%I TO perennial_app, perennial_admit', name);
    END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE ON perennial.serving, perennial.gateways, perennial.rollouts TO perennial_app, perennial_admit;
GRANT SELECT, INSERT ON perennial.rollout_looks TO perennial_app, perennial_admit;
GRANT SELECT, INSERT, DELETE ON perennial.predictions, perennial.recent_inputs, perennial.outcomes TO perennial_app, perennial_admit;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA perennial TO perennial_app, perennial_admit;
