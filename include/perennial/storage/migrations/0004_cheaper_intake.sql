-- Fewer indexes for a row to enter; scores keep every digit that was sent; and the digests are computed in line: a call of an SQL function per row costs more
-- than the row. PostgreSQL expands a function in place only if it is declared as its body is (convert_to is STABLE) and if
-- each costly argument is used once.

-- Raw rows are found in the order of their arrival, which costs a bulk load next to nothing; the few urgent ones by an index of
-- their own. With the one for claims these serve admission, the "due" probe, the limit and the choice of what leaves.
DROP INDEX perennial.examples_waiting;
DROP INDEX perennial.examples_raw;
DROP INDEX perennial.examples_uncounted;
-- `id` orders arrivals; rows are found by example_id, so its index is enough.
ALTER TABLE perennial.examples DROP CONSTRAINT examples_pkey;
ALTER TABLE perennial.examples DROP CONSTRAINT examples_example_id_key, ADD PRIMARY KEY (example_id);
-- The first half of a content digest is its input's, so the unique index finds all rows of an input too.
DROP INDEX perennial.examples_by_input;
UPDATE perennial.examples SET content_digest = substring(input_digest FROM 1 FOR 16) || substring(content_digest FROM 1 FOR 16);
CREATE INDEX examples_raw ON perennial.examples (agent, id) WHERE state = 'raw';
CREATE INDEX examples_urgent ON perennial.examples (agent, id) WHERE state = 'raw' AND priority >= 2;
CREATE INDEX examples_uncounted ON perennial.examples (agent, priority DESC, id) WHERE state = 'ready' AND holdout AND job_id IS NULL;

DROP VIEW public.training_examples;
DROP VIEW perennial.training_examples;
ALTER TABLE perennial.examples ALTER COLUMN uncertainty TYPE double precision, ALTER COLUMN importance TYPE double precision;

-- What waits for a training: raw rows, claimable ones, and holdout rows that no job has counted yet. A LIMIT stops early.
CREATE VIEW perennial.waiting AS
SELECT example_id, id, agent, priority, importance, uncertainty, created_at, correction FROM perennial.examples WHERE state = 'raw'
UNION ALL
SELECT example_id, id, agent, priority, importance, uncertainty, created_at, correction FROM perennial.examples
WHERE state = 'ready' AND NOT holdout
UNION ALL
SELECT example_id, id, agent, priority, importance, uncertainty, created_at, correction FROM perennial.examples
WHERE state = 'ready' AND holdout AND job_id IS NULL;
GRANT SELECT ON perennial.waiting TO perennial_app, perennial_admit;

-- Announcements of thousands of ids are not worth compressing: ids do not shrink.
ALTER TABLE perennial.outbox ALTER COLUMN payload SET STORAGE EXTERNAL;

-- Up to which example id an agent's buffer cannot be full: at the last count so many places were free, and ids only grow.
CREATE TABLE perennial.rooms (
    agent text PRIMARY KEY,
    most  integer NOT NULL,  -- the limit that the count was made for
    until bigint NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON perennial.rooms TO perennial_app, perennial_admit;

DROP FUNCTION perennial.evict(text);
-- Evict the least worth of an agent's waiting rows until its limit holds; never a correction. Returns how many left.
-- `newest` is the highest id just inserted. A buffer may stand over its limit by what was being written in the same moment.
CREATE FUNCTION perennial.evict(of_agent text, newest bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    allowed integer;
    waiting_now bigint;
    gone integer;
BEGIN
    SELECT max_buffer_size INTO allowed FROM perennial.limits WHERE agent = of_agent;
    PERFORM 1 FROM perennial.rooms WHERE agent = of_agent AND most = allowed AND until >= newest;
    -- one counts at a time; whoever finds it taken leaves it to the next add
    IF FOUND OR NOT pg_try_advisory_xact_lock(720721, hashtext(of_agent)) THEN
        RETURN 0;
    END IF;
    SELECT count(*) INTO waiting_now FROM perennial.waiting WHERE agent = of_agent;
    IF waiting_now < allowed THEN
        INSERT INTO perennial.rooms AS r VALUES (of_agent, allowed, newest + allowed - waiting_now)
        ON CONFLICT (agent) DO UPDATE SET most = excluded.most, until = excluded.until;
    END IF;
    IF waiting_now <= allowed THEN
        RETURN 0;
    END IF;
    WITH least AS MATERIALIZED (
        SELECT example_id FROM perennial.waiting WHERE agent = of_agent AND NOT correction
        ORDER BY priority, importance, uncertainty, created_at, id LIMIT waiting_now - allowed
    ), leaving AS MATERIALIZED (  -- rows that another transaction holds stay for now: an add never waits for an admission
        SELECT e.example_id FROM perennial.examples e JOIN least USING (example_id) WHERE e.state IN ('raw', 'ready')
        FOR UPDATE OF e SKIP LOCKED
    )
    UPDATE perennial.examples e SET state = 'evicted', reason = 'buffer_full' FROM leaving WHERE e.example_id = leaving.example_id;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

CREATE OR REPLACE FUNCTION perennial.may_be_due(of_agent text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT 1 FROM perennial.waiting WHERE agent = of_agent AND priority >= 2)
        OR EXISTS (SELECT 1 FROM perennial.waiting WHERE agent = of_agent
                   OFFSET (SELECT update_threshold - 1 FROM perennial.limits WHERE agent = of_agent) LIMIT 1)
$$;

CREATE OR REPLACE FUNCTION perennial.plain_digest(input_text text) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256(convert_to(
        lower(btrim(regexp_replace(input_text, E'[ \t\n\r\x0b\f]+', ' ', 'g'), ' ') COLLATE "C"), 'UTF8'))
$$;

-- Half a sha256 of the exact text; ingest/digests.py computes the same.
CREATE FUNCTION perennial.text_digest(input_text text) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT substring(sha256(convert_to(input_text, 'UTF8')) FROM 1 FOR 16)
$$;

CREATE OR REPLACE FUNCTION perennial.input_digest(agent text, task text, plain bytea) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256(convert_to(agent || chr(31) || task || chr(31), 'UTF8') || plain)
$$;

-- The last possible content digest of an input; the first one is the bare half of the input's digest.
CREATE FUNCTION perennial.last_of(input_digest bytea) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT substring(input_digest FROM 1 FOR 16) || '\xffffffffffffffffffffffffffffffff'::bytea
$$;

CREATE OR REPLACE FUNCTION perennial.share(digest bytea) RETURNS double precision LANGUAGE sql STABLE AS $$
    SELECT ('x' || encode(substring(digest FROM 1 FOR 4), 'hex'))::bit(32)::bigint / 4294967296.0::double precision
$$;

CREATE VIEW perennial.training_examples AS
SELECT agent AS agent_name, task AS task_type, input_text, expected_output::text AS expected_output,
       uncertainty AS uncertainty_score, importance AS importance_score, source_url,
       created_at AS "timestamp", user_feedback, priority::integer AS correction_priority
FROM perennial.examples;

CREATE TRIGGER add_training_example INSTEAD OF INSERT ON perennial.training_examples
    FOR EACH ROW EXECUTE FUNCTION perennial.add_training_example();
-- The old client names no schema.
CREATE VIEW public.training_examples AS SELECT * FROM perennial.training_examples;
CREATE TRIGGER add_training_example INSTEAD OF INSERT ON public.training_examples
    FOR EACH ROW EXECUTE FUNCTION perennial.add_training_example();
GRANT SELECT, INSERT ON perennial.training_examples, public.training_examples TO perennial_app, perennial_admit;

CREATE OR REPLACE FUNCTION perennial.open_intake() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('pg_temp.perennial_staged') IS NULL THEN
        CREATE TEMPORARY TABLE perennial_staged (
            ordinal integer NOT NULL, example_id uuid NOT NULL, agent text NOT NULL, task text NOT NULL, input_text text NOT NULL,
            expected_output jsonb, predicted_output jsonb, user_feedback text, uncertainty double precision NOT NULL,
            importance double precision NOT NULL, priority smallint NOT NULL, source text NOT NULL, source_url text NOT NULL,
            source_id text NOT NULL, tag text NOT NULL, correction boolean NOT NULL, plain_digest bytea NOT NULL,
            text_digest bytea NOT NULL, created_at timestamptz NOT NULL
        ) ON COMMIT DELETE ROWS;
    ELSE
        DELETE FROM pg_temp.perennial_staged;
    END IF;
END $$;

SET LOCAL check_function_bodies = off;

DROP FUNCTION perennial.stored_ids();
DROP FUNCTION perennial.judge_incoming();

CREATE FUNCTION perennial.judge_incoming()
RETURNS TABLE (ordinal integer, example_id uuid, agent text, task text, expected_output jsonb, predicted_output jsonb,
               uncertainty double precision, importance double precision, priority smallint, source text, source_url text, source_id text, tag text, correction boolean,
               created_at timestamptz, state perennial.example_state, holdout boolean, superseded_by uuid, reason text,
               content_digest bytea, input_digest bytea, label_digest bytea, twin uuid)
LANGUAGE sql STABLE AS $$
    WITH named AS (
        SELECT i.*, coalesce(t.alias_of, i.task) AS real_task, t.task IS NOT NULL AS known, a.holdout_share
        FROM pg_temp.perennial_staged i
        JOIN perennial.agents a ON a.agent = i.agent AND a.active
        LEFT JOIN perennial.tasks t ON t.agent = i.agent AND t.task = i.task
    ), hashed AS (
        SELECT n.*, perennial.input_digest(n.agent, n.real_task, n.plain_digest) AS of_input,
               substring(sha256(convert_to(n.expected_output::text, 'UTF8')) FOR 8) AS of_label
        FROM named n
    )
    SELECT h.ordinal, h.example_id, h.agent, h.real_task, h.expected_output, h.predicted_output, h.uncertainty, h.importance, h.priority,
           h.source, h.source_url, h.source_id, h.tag, h.correction, h.created_at,
           CASE WHEN NOT h.known THEN 'quarantined' WHEN l.example_id IS NOT NULL AND NOT h.correction THEN 'superseded'
                WHEN h.expected_output IS NULL THEN 'unlabelled' ELSE 'raw' END::perennial.example_state,
           h.known AND h.expected_output IS NOT NULL AND h.priority <= 1 AND NOT h.correction AND l.example_id IS NULL
               AND perennial.share(h.of_input) < h.holdout_share,
           CASE WHEN h.known AND NOT h.correction THEN l.example_id END,
           CASE WHEN NOT h.known THEN 'unknown_task' WHEN l.example_id IS NOT NULL AND NOT h.correction THEN 'corrected_before' ELSE '' END,
           -- a correction that repeats an older one which does not wait any more is news: its predecessor's id makes it another row
           substring(h.of_input FROM 1 FOR 16) || substring(sha256(h.text_digest || convert_to(concat_ws(
               chr(31), h.expected_output::text, CASE WHEN h.correction THEN 'correction' END,
               CASE WHEN h.correction THEN l.example_id::text END), 'UTF8')) FROM 1 FOR 16),
           h.of_input, coalesce(h.of_label, ''),
           CASE WHEN h.correction AND l.label_digest = h.of_label AND l.state IN ('raw', 'ready', 'claimed') THEN l.example_id END
    FROM hashed h
    LEFT JOIN LATERAL (
        SELECT c.example_id, c.label_digest, c.state FROM perennial.examples c
        WHERE c.input_digest = h.of_input AND c.correction AND c.state NOT IN ('quarantined', 'purged') AND c.example_id <> h.example_id
        ORDER BY c.id DESC LIMIT 1
    ) l ON true
$$;

-- Move the staged rows into the buffer: rows, originals, supersession, limits, counters, one announcement per agent, wake-up.
-- Returns one JSON object per agent: agent, given, added, quarantined, evicted. Agents that are not in the fleet are not in it.
CREATE OR REPLACE FUNCTION perennial.take_in(announce_small boolean DEFAULT false) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    part record;
    gone integer;
    outcome jsonb := '[]';
BEGIN
    FOR part IN
        WITH batches AS MATERIALIZED (
            SELECT i.agent, gen_random_uuid() AS batch_id, count(*) AS given, max(i.priority) AS urgency FROM pg_temp.perennial_staged i
            JOIN perennial.agents a ON a.agent = i.agent AND a.active GROUP BY i.agent
        ), stored AS (
            INSERT INTO perennial.examples (
                example_id, agent, task, state, expected_output, predicted_output, uncertainty, importance, priority, source, source_url,
                source_id, tag, correction, holdout, regression, content_digest, input_digest, label_digest, superseded_by, reason,
                batch_id, created_at)
            SELECT j.example_id, j.agent, j.task, j.state, perennial.short_label(j.expected_output), perennial.short_label(j.predicted_output),
                   j.uncertainty, j.importance, j.priority, j.source, j.source_url, j.source_id, j.tag, j.correction, j.holdout,
                   j.correction AND j.priority >= 2, j.content_digest, j.input_digest, j.label_digest, j.superseded_by, j.reason,
                   b.batch_id, j.created_at
            FROM perennial.judge_incoming() j JOIN batches b ON b.agent = j.agent
            WHERE j.twin IS NULL
            ORDER BY j.content_digest  -- one order for all writers: overlapping batches wait for each other and never in a circle
            ON CONFLICT DO NOTHING
            RETURNING id, example_id, agent, state
        ), kept AS (
            INSERT INTO perennial.originals (example_id, input_text, expected_output, user_feedback, predicted_output)
            SELECT i.example_id, i.input_text, i.expected_output, i.user_feedback, i.predicted_output
            FROM stored s JOIN pg_temp.perennial_staged i USING (example_id)
        )
        SELECT b.agent, b.batch_id, b.given, b.urgency, count(s.example_id) AS added,
               count(*) FILTER (WHERE s.state = 'quarantined') AS quarantined, jsonb_agg(s.example_id) AS ids, max(s.id) AS newest
        FROM batches b LEFT JOIN stored s ON s.agent = b.agent GROUP BY b.agent, b.batch_id, b.given, b.urgency ORDER BY b.agent
    LOOP
        gone := 0;
        IF part.added > 0 THEN
            -- a correction outranks every older row of its input; what is being trained or was trained is only marked
            IF EXISTS (SELECT 1 FROM pg_temp.perennial_staged i WHERE i.correction AND i.agent = part.agent) THEN
                UPDATE perennial.examples o
                SET superseded_by = w.example_id,
                    state = CASE WHEN o.state IN ('raw', 'ready', 'unlabelled', 'held') THEN 'superseded' ELSE o.state END,
                    reason = CASE WHEN o.state IN ('raw', 'ready', 'unlabelled', 'held') THEN 'corrected' ELSE o.reason END
                FROM pg_temp.perennial_staged i
                JOIN perennial.examples w ON w.example_id = i.example_id AND w.batch_id = part.batch_id
                WHERE i.correction AND w.state <> 'quarantined' AND o.example_id <> w.example_id
                  AND o.content_digest BETWEEN substring(w.input_digest FROM 1 FOR 16) AND perennial.last_of(w.input_digest)
                  AND o.superseded_by IS NULL AND o.state IN ('raw', 'ready', 'unlabelled', 'held', 'claimed', 'trained');
            END IF;
            gone := perennial.evict(part.agent, part.newest);
            INSERT INTO perennial.outbox (batch_id, topic, agent, payload)
            VALUES (part.batch_id, 'training.example.created', part.agent, jsonb_build_object('count', part.added, 'example_ids', part.ids));
            -- NOTIFY makes commits queue up, so single ordinary rows leave the discovery to the poll
            IF (part.urgency >= 2 OR part.given > 1 OR announce_small) AND perennial.may_be_due(part.agent) THEN
                PERFORM pg_notify('perennial_due', part.agent);
            END IF;
        END IF;
        PERFORM perennial.add_to_counter(part.agent, 'duplicates', part.given - part.added);
        PERFORM perennial.add_to_counter(part.agent, 'evicted', gone);
        PERFORM perennial.add_to_counter(part.agent, 'quarantined', part.quarantined);
        outcome := outcome || jsonb_build_object('agent', part.agent, 'given', part.given, 'added', part.added,
                                                 'quarantined', part.quarantined, 'evicted', gone);
    END LOOP;
    RETURN outcome;
END $$;

CREATE FUNCTION perennial.stored_ids() RETURNS TABLE (ordinal integer, example_id uuid) LANGUAGE sql STABLE AS $$
    SELECT j.ordinal, coalesce(own.example_id, j.twin, same.example_id)
    FROM perennial.judge_incoming() j
    LEFT JOIN perennial.examples own ON own.example_id = j.example_id
    LEFT JOIN perennial.examples same ON same.content_digest = j.content_digest
$$;

SET LOCAL check_function_bodies = on;

CREATE OR REPLACE FUNCTION perennial.add_training_example() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    urgency integer := coalesce(NEW.correction_priority, 0);
    label jsonb;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM perennial.agents WHERE agent = NEW.agent_name AND active) THEN
        PERFORM perennial.refuse('agent_name', 'is not in the fleet', 'add include/fleet/<name>.py');
    ELSIF coalesce(btrim(NEW.task_type), '') = '' THEN
        PERFORM perennial.refuse('task_type', 'is empty', 'name the task');
    ELSIF coalesce(btrim(NEW.input_text, E' \t\n\r'), '') = '' THEN
        PERFORM perennial.refuse('input_text', 'is empty', 'send the text that the model saw');
    ELSIF length(NEW.input_text) > 1000000 THEN
        PERFORM perennial.refuse('input_text', 'is too long', 'send at most 1000000 characters');
    ELSIF NEW.uncertainty_score IS NULL OR NOT NEW.uncertainty_score BETWEEN 0 AND 1 THEN
        PERFORM perennial.refuse('uncertainty_score', 'is not between 0 and 1', 'send 1 - confidence');
    ELSIF NOT coalesce(NEW.importance_score, 0.5) BETWEEN 0 AND 1 THEN
        PERFORM perennial.refuse('importance_score', 'is not between 0 and 1', 'send a share');
    ELSIF urgency NOT BETWEEN 0 AND 3 THEN
        PERFORM perennial.refuse('correction_priority', 'is not 0, 1, 2 or 3', 'send one of them');
    ELSIF length(NEW.source_url) > 2048 THEN
        PERFORM perennial.refuse('source_url', 'is too long', 'send at most 2048 characters');
    ELSIF length(NEW.user_feedback) > 20000 THEN
        PERFORM perennial.refuse('user_feedback', 'is too long', 'send at most 20000 characters');
    END IF;
    label := nullif(NEW.expected_output::jsonb, 'null');
    PERFORM perennial.open_intake();
    INSERT INTO pg_temp.perennial_staged VALUES (
        0, gen_random_uuid(), NEW.agent_name, NEW.task_type, NEW.input_text, label, NULL, NEW.user_feedback, NEW.uncertainty_score,
        coalesce(NEW.importance_score, 0.5), urgency, CASE WHEN urgency >= 2 THEN 'correction' ELSE 'example' END,
        coalesce(NEW.source_url, ''), '', '', urgency >= 2 AND label IS NOT NULL, perennial.plain_digest(NEW.input_text),
        perennial.text_digest(NEW.input_text),
        coalesce(NEW."timestamp", clock_timestamp()));
    PERFORM perennial.take_in();
    RETURN NEW;
END $$;

