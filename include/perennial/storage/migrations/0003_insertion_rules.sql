-- How rows enter the buffer: one set of rules for single adds, bulk loads and the predecessor's own INSERT.

ALTER TABLE perennial.examples ADD COLUMN tag text NOT NULL DEFAULT '';        -- why a person corrected: manual, qa, domain_expert, ...
ALTER TABLE perennial.examples ADD COLUMN label_digest bytea NOT NULL DEFAULT '';  -- short, so that labels compare before they are admitted
ALTER TABLE perennial.originals ADD COLUMN predicted_output jsonb;

-- Waiting = raw or ready and not yet counted by a job. Serves the "due" probe, the limit and the choice of what leaves, without counting.
CREATE INDEX examples_waiting ON perennial.examples (agent, priority, importance, uncertainty, created_at, id)
    WHERE state IN ('raw', 'ready') AND job_id IS NULL;
CREATE INDEX examples_corrections ON perennial.examples (input_digest, id) WHERE correction;
CREATE INDEX examples_unread ON perennial.examples (agent, id) WHERE state = 'unlabelled' AND admitted_at IS NULL;
-- Holdout rows count towards the threshold until a job has started after them; that job's id is written on them.
CREATE INDEX examples_uncounted ON perennial.examples (agent, id) WHERE holdout AND job_id IS NULL AND state IN ('raw', 'ready');
CREATE INDEX examples_counted ON perennial.examples (job_id) WHERE holdout AND job_id IS NOT NULL;

CREATE INDEX outcomes_by_agent ON perennial.outcomes (agent, at DESC);

-- Values that a coordinator was given at run time; they beat environment and files for agents that declare none of their own.
CREATE TABLE perennial.overrides (
    name   text PRIMARY KEY CHECK (name IN ('update_threshold', 'max_buffer_size', 'performance_window', 'rollback_threshold')),
    value  double precision NOT NULL CHECK (value > 0),
    set_by text NOT NULL DEFAULT '',
    set_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT, INSERT, UPDATE, DELETE ON perennial.overrides TO perennial_app;
GRANT SELECT ON perennial.overrides TO perennial_admit;

-- What holds for each agent now: its own declaration, else an override, else what the deployment's settings said at the last sync.
CREATE VIEW perennial.limits AS
SELECT a.agent, a.active, a.holdout_share,
       CASE WHEN a.record ->> 'update_threshold' IS NOT NULL THEN a.update_threshold
            ELSE coalesce((SELECT value FROM perennial.overrides WHERE name = 'update_threshold')::integer, a.update_threshold)
       END AS update_threshold,
       CASE WHEN a.record ->> 'max_buffer_size' IS NOT NULL THEN a.max_buffer_size
            ELSE coalesce((SELECT value FROM perennial.overrides WHERE name = 'max_buffer_size')::integer, a.max_buffer_size)
       END AS max_buffer_size
FROM perennial.agents a;
GRANT SELECT ON perennial.limits TO perennial_app, perennial_admit;

-- sha256 of a text with ASCII letters lowered and runs of ASCII white space made one blank; ingest/digests.py computes the same.
CREATE FUNCTION perennial.plain_digest(input_text text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT sha256(convert_to(
        lower(btrim(regexp_replace(input_text, E'[ \t\n\r\x0b\f]+', ' ', 'g'), ' ') COLLATE "C"), 'UTF8'))
$$;

CREATE FUNCTION perennial.input_digest(agent text, task text, plain bytea) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT sha256(convert_to(agent || chr(31) || task || chr(31), 'UTF8') || plain)
$$;

-- A number in [0, 1) from a digest: where an input stands in the draw for the holdout.
CREATE FUNCTION perennial.share(digest bytea) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT (get_byte(digest, 0)::bigint * 16777216 + get_byte(digest, 1) * 65536 + get_byte(digest, 2) * 256 + get_byte(digest, 3))
           / 4294967296.0::double precision
$$;

-- What of a label may stand in `examples` before redaction: numbers, booleans and short strings, as class names are.
CREATE FUNCTION perennial.short_label(label jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN jsonb_typeof(label) IN ('number', 'boolean') OR (jsonb_typeof(label) = 'string' AND length(label #>> '{}') <= 64)
                THEN label END
$$;

-- The staging table of this session; rows leave at commit.
CREATE FUNCTION perennial.open_intake() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('pg_temp.perennial_incoming') IS NULL THEN
        CREATE TEMPORARY TABLE perennial_incoming (
            ordinal integer NOT NULL, example_id uuid NOT NULL, agent text NOT NULL, task text NOT NULL, input_text text NOT NULL,
            expected_output jsonb, predicted_output jsonb, user_feedback text, uncertainty real NOT NULL, importance real NOT NULL,
            priority smallint NOT NULL, source text NOT NULL, source_url text NOT NULL, source_id text NOT NULL, tag text NOT NULL,
            correction boolean NOT NULL, plain_digest bytea NOT NULL, created_at timestamptz NOT NULL
        ) ON COMMIT DELETE ROWS;
    ELSE
        DELETE FROM pg_temp.perennial_incoming;
    END IF;
END $$;

-- Evict the least worth of an agent's waiting rows until its limit holds; never a correction. Returns how many left.
CREATE FUNCTION perennial.evict(of_agent text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    most integer;
    excess bigint;
    gone integer;
BEGIN
    SELECT max_buffer_size INTO most FROM perennial.limits WHERE agent = of_agent;
    PERFORM 1 FROM perennial.examples WHERE agent = of_agent AND state IN ('raw', 'ready') AND job_id IS NULL OFFSET most LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- one evicts at a time; whoever finds it taken leaves the rest to the next add
    IF NOT pg_try_advisory_xact_lock(720721, hashtext(of_agent)) THEN
        RETURN 0;
    END IF;
    SELECT count(*) - most INTO excess FROM perennial.examples
    WHERE agent = of_agent AND state IN ('raw', 'ready') AND job_id IS NULL;
    WITH leaving AS (
        SELECT id FROM perennial.examples
        WHERE agent = of_agent AND state IN ('raw', 'ready') AND job_id IS NULL AND NOT correction
        ORDER BY priority, importance, uncertainty, created_at, id
        LIMIT greatest(excess, 0) FOR UPDATE SKIP LOCKED
    )
    UPDATE perennial.examples e SET state = 'evicted', reason = 'buffer_full' FROM leaving WHERE e.id = leaving.id;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

CREATE FUNCTION perennial.add_to_counter(of_agent text, of_name text, amount bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO perennial.counters AS c (agent, name, value) SELECT of_agent, of_name, amount WHERE amount > 0
    ON CONFLICT (agent, name) DO UPDATE SET value = c.value + excluded.value
$$;

-- Whether an agent may be due after an add: an urgent row waits, or as many rows as its threshold. Constant time.
CREATE FUNCTION perennial.may_be_due(of_agent text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT 1 FROM perennial.examples
                   WHERE agent = of_agent AND state IN ('raw', 'ready') AND job_id IS NULL AND priority >= 2)
        OR EXISTS (SELECT 1 FROM perennial.examples WHERE agent = of_agent AND state IN ('raw', 'ready') AND job_id IS NULL
                   OFFSET (SELECT update_threshold - 1 FROM perennial.limits WHERE agent = of_agent) LIMIT 1)
$$;

-- The staging table exists in sessions only, so the two functions that read it in plain SQL are checked when they run.
SET LOCAL check_function_bodies = off;

-- The rows of the staging table as they will stand in the buffer. At most one correction per input may be staged at a time.
CREATE FUNCTION perennial.judge_incoming()
RETURNS TABLE (ordinal integer, example_id uuid, agent text, task text, expected_output jsonb, predicted_output jsonb, uncertainty real,
               importance real, priority smallint, source text, source_url text, source_id text, tag text, correction boolean,
               created_at timestamptz, state perennial.example_state, holdout boolean, superseded_by uuid, reason text,
               content_digest bytea, input_digest bytea, label_digest bytea, twin uuid)
LANGUAGE sql STABLE AS $$
    WITH named AS (
        SELECT i.*, coalesce(t.alias_of, i.task) AS real_task, t.task IS NOT NULL AS known, a.holdout_share
        FROM pg_temp.perennial_incoming i
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
           sha256(convert_to(concat_ws(chr(31), h.agent, h.real_task, h.expected_output::text, h.input_text,
                                       CASE WHEN h.correction THEN 'correction' END,
                                       CASE WHEN h.correction THEN l.example_id::text END), 'UTF8')),
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
CREATE FUNCTION perennial.take_in(announce_small boolean DEFAULT false) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    part record;
    gone integer;
    outcome jsonb := '[]';
BEGIN
    FOR part IN
        WITH batches AS MATERIALIZED (
            SELECT i.agent, gen_random_uuid() AS batch_id, count(*) AS given, max(i.priority) AS urgency FROM pg_temp.perennial_incoming i
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
            RETURNING example_id, agent, state
        ), kept AS (
            INSERT INTO perennial.originals (example_id, input_text, expected_output, user_feedback, predicted_output)
            SELECT i.example_id, i.input_text, i.expected_output, i.user_feedback, i.predicted_output
            FROM stored s JOIN pg_temp.perennial_incoming i USING (example_id)
        )
        SELECT b.agent, b.batch_id, b.given, b.urgency, count(s.example_id) AS added,
               count(*) FILTER (WHERE s.state = 'quarantined') AS quarantined, jsonb_agg(s.example_id) AS ids
        FROM batches b LEFT JOIN stored s ON s.agent = b.agent GROUP BY b.agent, b.batch_id, b.given, b.urgency ORDER BY b.agent
    LOOP
        gone := 0;
        IF part.added > 0 THEN
            -- a correction outranks every older row of its input; what is being trained or was trained is only marked
            IF EXISTS (SELECT 1 FROM pg_temp.perennial_incoming i WHERE i.correction AND i.agent = part.agent) THEN
                UPDATE perennial.examples o
                SET superseded_by = w.example_id,
                    state = CASE WHEN o.state IN ('raw', 'ready', 'unlabelled', 'held') THEN 'superseded' ELSE o.state END,
                    reason = CASE WHEN o.state IN ('raw', 'ready', 'unlabelled', 'held') THEN 'corrected' ELSE o.reason END
                FROM pg_temp.perennial_incoming i
                JOIN perennial.examples w ON w.example_id = i.example_id AND w.batch_id = part.batch_id
                WHERE i.correction AND w.state <> 'quarantined' AND o.input_digest = w.input_digest AND o.example_id <> w.example_id
                  AND o.superseded_by IS NULL AND o.state IN ('raw', 'ready', 'unlabelled', 'held', 'claimed', 'trained');
            END IF;
            gone := perennial.evict(part.agent);
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

-- Under which id each staged row is stored: its own, or that of the row it repeats.
CREATE FUNCTION perennial.stored_ids() RETURNS TABLE (ordinal integer, example_id uuid) LANGUAGE sql STABLE AS $$
    SELECT j.ordinal, coalesce(own.example_id, j.twin, same.example_id)
    FROM perennial.judge_incoming() j
    LEFT JOIN perennial.examples own ON own.example_id = j.example_id
    LEFT JOIN perennial.examples same ON same.content_digest = j.content_digest
$$;

SET LOCAL check_function_bodies = on;

-- The ten columns that the predecessor's INSERT names, with the same rules behind them as every other way in.
CREATE VIEW perennial.training_examples AS
SELECT agent AS agent_name, task AS task_type, input_text, expected_output::text AS expected_output,
       uncertainty::double precision AS uncertainty_score, importance::double precision AS importance_score, source_url,
       created_at AS "timestamp", user_feedback, priority::integer AS correction_priority
FROM perennial.examples;

CREATE FUNCTION perennial.refuse(field text, problem text, remedy text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% %; %', field, problem, remedy USING ERRCODE = 'invalid_parameter_value';
END $$;

CREATE FUNCTION perennial.add_training_example() RETURNS trigger LANGUAGE plpgsql AS $$
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
    INSERT INTO pg_temp.perennial_incoming VALUES (
        0, gen_random_uuid(), NEW.agent_name, NEW.task_type, NEW.input_text, label, NULL, NEW.user_feedback, NEW.uncertainty_score,
        coalesce(NEW.importance_score, 0.5), urgency, CASE WHEN urgency >= 2 THEN 'correction' ELSE 'example' END,
        coalesce(NEW.source_url, ''), '', '', urgency >= 2 AND label IS NOT NULL, perennial.plain_digest(NEW.input_text),
        coalesce(NEW."timestamp", clock_timestamp()));
    PERFORM perennial.take_in();
    RETURN NEW;
END $$;

CREATE TRIGGER add_training_example INSTEAD OF INSERT ON perennial.training_examples
    FOR EACH ROW EXECUTE FUNCTION perennial.add_training_example();
-- The old client names no schema.
CREATE VIEW public.training_examples AS SELECT * FROM perennial.training_examples;
CREATE TRIGGER add_training_example INSTEAD OF INSERT ON public.training_examples
    FOR EACH ROW EXECUTE FUNCTION perennial.add_training_example();
GRANT SELECT, INSERT ON perennial.training_examples, public.training_examples TO perennial_app, perennial_admit;
