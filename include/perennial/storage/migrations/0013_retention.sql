-- What retention may take, what it must leave, and what it took.

-- A person keeps one version whatever its age. Append-only: the last row of a version counts.
CREATE TABLE perennial.retention_holds (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent   text NOT NULL,
    version text NOT NULL,
    held    boolean NOT NULL,
    actor   text NOT NULL,
    reason  text NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX retention_holds_by_version ON perennial.retention_holds (agent, version, id DESC);

-- Versions whose files are gone, in two steps: `begun` before the first file goes, `gone` after the last. Only bytes go: the row in
-- `versions`, reports, decisions and history stay.
CREATE TABLE perennial.removed_bundles (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent   text NOT NULL,
    version text NOT NULL,
    step    text NOT NULL CHECK (step IN ('begun', 'gone')),
    digest  text NOT NULL,
    actor   text NOT NULL,
    reason  text NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (agent, version, step)
);

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['retention_holds', 'removed_bundles'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON perennial.%I FOR EACH ROW EXECUTE FUNCTION perennial.refuse_change()', name);
        EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON perennial.%I FOR EACH STATEMENT EXECUTE FUNCTION perennial.refuse_change()', name);
        EXECUTE format('GRANT SELECT, INSERT ON perennial.%I TO perennial_app, perennial_admit', name);
    END LOOP;
END $$;

-- Versions whose files something may open at any moment, and why. A version can be here more than once.
CREATE VIEW perennial.in_play AS
SELECT agent, champion AS version, 'champion' AS why FROM perennial.serving WHERE champion IS NOT NULL
UNION ALL SELECT agent, previous, 'former champion, kept hot' FROM perennial.serving WHERE previous IS NOT NULL
UNION ALL SELECT agent, candidate, 'candidate' FROM perennial.serving WHERE candidate IS NOT NULL
UNION ALL
SELECT agent, version, alias FROM (
    SELECT DISTINCT ON (agent, alias) agent, alias, version FROM perennial.alias_moves ORDER BY agent, alias, id DESC
) AS moves WHERE version IS NOT NULL
UNION ALL
SELECT agent, version, 'in rollout' FROM perennial.rollouts WHERE state IN ('pending', 'shadow', 'canary', 'baking')
UNION ALL
SELECT agent, previous, 'a rollout goes back to it' FROM perennial.rollouts
WHERE state IN ('pending', 'shadow', 'canary', 'baking') AND previous IS NOT NULL
UNION ALL  -- what a revert of the present champion puts back, also after its bake
SELECT s.agent, r.previous, 'a rollout goes back to it' FROM perennial.serving s
CROSS JOIN LATERAL (
    SELECT previous FROM perennial.rollouts WHERE agent = s.agent AND version = s.champion ORDER BY id DESC LIMIT 1
) AS r WHERE r.previous IS NOT NULL
UNION ALL
SELECT v.agent, v.version, 'its job is open' FROM perennial.versions v JOIN perennial.jobs j USING (job_id)
WHERE j.status NOT IN ('completed', 'failed', 'cancelled')
UNION ALL
SELECT agent, dataset ->> 'champion', 'an open job starts from it' FROM perennial.jobs
WHERE status NOT IN ('completed', 'failed', 'cancelled') AND dataset ->> 'champion' IS NOT NULL
UNION ALL
SELECT g.agent, loaded.version, 'loaded by a gateway' FROM perennial.gateways g
CROSS JOIN LATERAL (VALUES (g.champion), (g.previous), (g.candidate)) AS loaded (version)
WHERE g.seen_at > clock_timestamp() - interval '1 hour' AND loaded.version IS NOT NULL
UNION ALL
SELECT agent, version, 'held by a person' FROM (
    SELECT DISTINCT ON (agent, version) agent, version, held FROM perennial.retention_holds ORDER BY agent, version, id DESC
) AS holds WHERE held;
GRANT SELECT ON perennial.in_play TO perennial_app, perennial_admit;

-- Batches are found without reading the table.
CREATE INDEX examples_leftover ON perennial.examples (added_at) WHERE state IN ('superseded', 'evicted');
CREATE INDEX jobs_open ON perennial.jobs (agent) WHERE status NOT IN ('completed', 'failed', 'cancelled');

GRANT DELETE ON perennial.gateways TO perennial_app;

-- An announcement is forgotten only after it was relayed: the app role may take away nothing else of the outbox.
CREATE FUNCTION perennial.forget_relayed(before timestamptz, most integer) RETURNS SETOF bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM perennial.outbox o WHERE o.id IN (
        SELECT id FROM perennial.outbox WHERE relayed_at < before ORDER BY id LIMIT most
    ) RETURNING o.id
$$;
REVOKE ALL ON FUNCTION perennial.forget_relayed(timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION perennial.forget_relayed(timestamptz, integer) TO perennial_app;
