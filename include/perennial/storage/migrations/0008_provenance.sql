-- Which examples made and judged which version, and what served in which share at every moment.

-- Append-only, written in the transaction of the version's own row: the ids of one task in one role, in training order. An array of ids
-- and not a row per id: a holdout repeats from version to version, and a posting list of GIN holds such repeats in a fifth of the space
-- (benchmarks/bench_provenance.py).
CREATE TABLE perennial.version_examples (
    agent   text NOT NULL,
    version text NOT NULL,
    task    text NOT NULL,
    role    text NOT NULL CHECK (role IN ('new', 'replay', 'holdout')),
    ids     uuid[] NOT NULL,
    PRIMARY KEY (agent, version, task, role)
);
-- no pending list: an answer must not get slower until the next vacuum
CREATE INDEX version_examples_by_id ON perennial.version_examples USING gin (ids) WITH (fastupdate = off);

-- Versions from before this table: the buffer knows which rows each one was trained on. A task's ids are taken over only where all of the
-- version's together have the digest that its signed manifest names; `perennial trace AGENT --fill` reads the rest from the bundles.
WITH known AS (
    SELECT v.agent, v.version, v.manifest -> 'examples' ->> 'digest' AS digest,
           encode(sha256(convert_to(string_agg(e.example_id::text, E'\n' ORDER BY e.example_id::text COLLATE "C"), 'UTF8')), 'hex') AS found
    FROM perennial.versions v JOIN perennial.examples e ON e.agent = v.agent AND e.model_version = v.version
    GROUP BY v.agent, v.version, v.manifest
)
INSERT INTO perennial.version_examples (agent, version, task, role, ids)
SELECT e.agent, e.model_version, e.task, 'new',
       array_agg(e.example_id ORDER BY e.priority DESC, e.importance DESC, e.uncertainty DESC, e.created_at DESC, e.id DESC)
FROM known k JOIN perennial.examples e ON e.agent = k.agent AND e.model_version = k.version
WHERE k.found = k.digest
GROUP BY e.agent, e.model_version, e.task;

-- Append-only: what every change of perennial.serving left behind, so that a canary's share on a past day has an answer.
CREATE TABLE perennial.serving_history (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent      text NOT NULL,
    champion   text,
    candidate  text,
    weight     real NOT NULL,
    epoch      bigint NOT NULL,
    changed_at timestamptz NOT NULL
);
CREATE INDEX serving_history_by_agent ON perennial.serving_history (agent, id DESC);
INSERT INTO perennial.serving_history (agent, champion, candidate, weight, epoch, changed_at)
SELECT agent, champion, candidate, weight, epoch, changed_at FROM perennial.serving WHERE epoch > 0;

CREATE FUNCTION perennial.keep_serving() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO perennial.serving_history (agent, champion, candidate, weight, epoch, changed_at)
    VALUES (NEW.agent, NEW.champion, NEW.candidate, NEW.weight, NEW.epoch, NEW.changed_at);
    RETURN NULL;
END $$;
CREATE TRIGGER keep_serving AFTER UPDATE ON perennial.serving FOR EACH ROW
    WHEN ((OLD.champion, OLD.candidate, OLD.weight) IS DISTINCT FROM (NEW.champion, NEW.candidate, NEW.weight))
    EXECUTE FUNCTION perennial.keep_serving();

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['version_examples', 'serving_history'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON perennial.%I FOR EACH ROW EXECUTE FUNCTION perennial.refuse_change()', name);
        EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON perennial.%I FOR EACH STATEMENT EXECUTE FUNCTION perennial.refuse_change()', name);
        EXECUTE format('GRANT SELECT, INSERT ON perennial.%I TO perennial_app, perennial_admit', name);
    END LOOP;
END $$;
GRANT USAGE ON SEQUENCE perennial.serving_history_id_seq TO perennial_app, perennial_admit;
