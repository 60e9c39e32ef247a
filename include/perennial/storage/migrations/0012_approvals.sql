-- Approvals that cannot be forged past the flows: what was asked, and decisions bound to what a gate report asked for.

-- Append-only: what a person was asked, and a digest of the evidence that the form shows. Airflow keeps a form's first text
-- when its task is cleared; these rows tell whether the form still shows what is asked now.
CREATE TABLE perennial.approval_questions (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent      text NOT NULL,
    job_id     uuid NOT NULL,
    attempt    integer NOT NULL,
    content_digest text NOT NULL,
    version    text NOT NULL,              -- what the bytes would become
    requested_by text NOT NULL DEFAULT '', -- the person who asked for the training; empty: a machine did
    body_digest text NOT NULL,
    asked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (job_id, attempt)
);
CREATE INDEX approval_questions_by_agent ON perennial.approval_questions (agent, id DESC);

ALTER TABLE perennial.approvals
    ADD COLUMN attempt integer,            -- NULL: decided before this migration
    ADD COLUMN version text NOT NULL DEFAULT '',
    ADD COLUMN requested_by text NOT NULL DEFAULT '',
    ADD COLUMN void text NOT NULL DEFAULT '',  -- why an approval does not count
    -- older rows stay as they are: they can no longer be changed
    ADD CONSTRAINT approvals_have_an_actor CHECK (btrim(actor) <> '') NOT VALID,
    ADD CONSTRAINT approvals_expire CHECK (expires_at <= created_at + interval '30 days') NOT VALID;
CREATE INDEX approvals_by_agent ON perennial.approvals (agent, id DESC);

-- A decision answers a gate report that asks for one, about the same bytes, and is dated by this clock alone.
CREATE FUNCTION perennial.check_approval() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.created_at := clock_timestamp();
    IF NOT EXISTS (
        SELECT FROM perennial.gate_reports g
        WHERE g.job_id = NEW.job_id AND g.attempt = NEW.attempt AND g.agent = NEW.agent
          AND g.content_digest = NEW.content_digest AND g.action = 'approve'
    ) THEN
        RAISE EXCEPTION 'no gate report asks a person about these bytes'
            USING ERRCODE = 'check_violation', HINT = 'run the gate of this job again';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER answers_a_report BEFORE INSERT ON perennial.approvals FOR EACH ROW EXECUTE FUNCTION perennial.check_approval();

-- A verdict cannot be dated back to before a release that it should excuse.
CREATE FUNCTION perennial.stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.created_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER dated_here BEFORE INSERT ON perennial.gate_reports FOR EACH ROW EXECUTE FUNCTION perennial.stamp();

-- Who asked for a training is written once: the two-person rule rests on it.
CREATE FUNCTION perennial.keep_requester() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'who asked for a job is never changed' USING HINT = 'start a new job';
END $$;
CREATE TRIGGER requester_stays BEFORE UPDATE OF requested_by ON perennial.jobs FOR EACH ROW
    WHEN (NEW.requested_by IS DISTINCT FROM OLD.requested_by) EXECUTE FUNCTION perennial.keep_requester();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON perennial.approval_questions FOR EACH ROW EXECUTE FUNCTION perennial.refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON perennial.approval_questions FOR EACH STATEMENT EXECUTE FUNCTION perennial.refuse_change();
GRANT SELECT, INSERT ON perennial.approval_questions TO perennial_app;
GRANT SELECT ON perennial.approval_questions TO perennial_admit;
-- admission decides nothing
REVOKE INSERT ON perennial.approvals FROM perennial_admit;
GRANT USAGE ON SEQUENCE perennial.approval_questions_id_seq TO perennial_app;
