-- Defences against poisoned batches: since when each source is known, and no label of the model's own making in the holdout.

-- When an agent first took in a row of a source. There is no unique key: two writers that meet a new source in the same moment both note it
-- and neither waits for the other; readers take the earliest. Written by the trigger below alone, so no caller can make itself older.
CREATE TABLE perennial.sources (
    agent      text NOT NULL,
    source_id  text NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX sources_by_name ON perennial.sources (agent, source_id, first_seen);
GRANT SELECT ON perennial.sources TO perennial_app, perennial_admit;
INSERT INTO perennial.sources (agent, source_id, first_seen) SELECT agent, source_id, min(added_at) FROM perennial.examples GROUP BY 1, 2;

-- Once per statement, whichever way the rows came in.
CREATE FUNCTION perennial.note_sources() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO perennial.sources (agent, source_id)
    SELECT f.agent, f.source_id FROM (SELECT DISTINCT agent, source_id FROM fresh) f
    WHERE NOT EXISTS (SELECT 1 FROM perennial.sources s WHERE s.agent = f.agent AND s.source_id = f.source_id);
    RETURN NULL;
END $$;
CREATE TRIGGER note_sources AFTER INSERT ON perennial.examples REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION perennial.note_sources();

-- A label that only repeats the model's own answer, with no truth from outside; domain/origin.py says the same.
CREATE FUNCTION perennial.self_labelled(source text, label jsonb, predicted jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT source IN ('example', 'import', 'inbox') AND coalesce(label = predicted, false)
$$;

-- Measured on its own answers a model is always right, so such rows may be trained on (up to a share) and never judge.
CREATE FUNCTION perennial.keep_out_of_holdout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.holdout := false;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_out_of_holdout BEFORE INSERT OR UPDATE OF holdout ON perennial.examples FOR EACH ROW
    WHEN (NEW.holdout AND NEW.predicted_output IS NOT NULL
          AND perennial.self_labelled(NEW.source, NEW.expected_output, NEW.predicted_output))
    EXECUTE FUNCTION perennial.keep_out_of_holdout();
UPDATE perennial.examples SET holdout = false
WHERE holdout AND state IN ('raw', 'ready') AND perennial.self_labelled(source, expected_output, predicted_output);

-- What waits because its source had its share already; a later training takes it in as room allows.
CREATE INDEX examples_capped ON perennial.examples (agent, id) WHERE state = 'held' AND reason = 'source_cap';
