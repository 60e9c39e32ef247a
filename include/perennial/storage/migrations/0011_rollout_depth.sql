-- Rollouts that wait for a person or for the end of a freeze; what users report; who closed a circuit breaker.

-- No run carries a parked rollout on: it keeps its share, and rollout_watch looks after it.
ALTER TABLE perennial.rollouts ADD COLUMN parked text CHECK (parked IN ('ask', 'freeze'));

-- No text is kept: a comment would be personal data, and a correction is where the right answer belongs.
CREATE TABLE perennial.quality_reports (
    report_id  uuid PRIMARY KEY,
    agent      text NOT NULL,
    version    text NOT NULL,
    prediction_id uuid,                -- NULL: about the version as a whole
    kind       text NOT NULL CHECK (kind IN ('wrong', 'harmful', 'unusable', 'slow', 'other')),
    reporter   bytea NOT NULL,         -- keyed digest: tells people apart, names nobody
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX quality_reports_by_version ON perennial.quality_reports (agent, version, at);

-- Append-only: a person let an agent train again by itself.
CREATE TABLE perennial.breaker_resets (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent  text NOT NULL,
    actor  text NOT NULL,
    reason text NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX breaker_resets_by_agent ON perennial.breaker_resets (agent, at);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON perennial.breaker_resets
FOR EACH ROW EXECUTE FUNCTION perennial.refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON perennial.breaker_resets
FOR EACH STATEMENT EXECUTE FUNCTION perennial.refuse_change();

GRANT SELECT, INSERT, DELETE ON perennial.quality_reports TO perennial_app, perennial_admit;
GRANT SELECT, INSERT ON perennial.breaker_resets TO perennial_app, perennial_admit;
GRANT USAGE ON SEQUENCE perennial.breaker_resets_id_seq TO perennial_app, perennial_admit;
