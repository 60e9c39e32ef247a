-- A bulk add costs a quarter less: what is asked of every row is asked once, and nothing of empty columns.

SET LOCAL check_function_bodies = off;

-- The rows of the staging table as they will stand in the buffer. At most one correction per input may be staged at a time.
CREATE OR REPLACE FUNCTION perennial.judge_incoming()
RETURNS TABLE (ordinal integer, example_id uuid, agent text, task text, expected_output jsonb, predicted_output jsonb,
               uncertainty double precision, importance double precision, priority smallint, source text, source_url text, source_id text,
               tag text, correction boolean, created_at timestamptz, state perennial.example_state, holdout boolean, superseded_by uuid, reason text,
               content_digest bytea, input_digest bytea, label_digest bytea, twin uuid)
LANGUAGE sql STABLE AS $$
    WITH named AS (
        SELECT i.*, coalesce(t.alias_of, i.task) AS real_task, t.task IS NOT NULL AS known, a.holdout_share
        FROM pg_temp.perennial_staged i
        JOIN perennial.agents a ON a.agent = i.agent AND a.active
        LEFT JOIN perennial.tasks t ON t.agent = i.agent AND t.task = i.task
    ), hashed AS (
        -- of a label that is no correction's it is only asked whether there is one
        SELECT n.*, perennial.input_digest(n.agent, n.real_task, n.plain_digest) AS of_input,
               CASE WHEN n.correction THEN substring(sha256(convert_to(n.expected_output::text, 'UTF8')) FOR 8)
                    WHEN n.expected_output IS NOT NULL THEN '\x01'::bytea END AS of_label
        FROM named n
        OFFSET 0  -- else the planner would compute the digests again wherever they are named below
    )
    SELECT h.ordinal, h.example_id, h.agent, h.real_task, h.expected_output, h.predicted_output, h.uncertainty, h.importance, h.priority,
           h.source, h.source_url, h.source_id, h.tag, h.correction, h.created_at,
           CASE WHEN NOT h.known THEN 'quarantined' WHEN l.example_id IS NOT NULL AND NOT h.correction THEN 'superseded'
                WHEN h.expected_output IS NULL THEN 'unlabelled' ELSE 'raw' END::perennial.example_state,
           h.known AND h.expected_output IS NOT NULL AND h.priority <= 1 AND NOT h.correction AND l.example_id IS NULL
               AND perennial.share(h.of_input) < h.holdout_share,
           CASE WHEN h.known AND NOT h.correction THEN l.example_id END,
           CASE WHEN NOT h.known THEN 'unknown_task' WHEN l.example_id IS NOT NULL AND NOT h.correction THEN 'corrected_before' ELSE '' END,
           -- a correction that repeats an older one which does not wait any more is news: its predecessor's id makes it another row,
           -- and a dropped one is a predecessor too
           substring(h.of_input FROM 1 FOR 16) || substring(sha256(h.text_digest || convert_to(concat_ws(
               chr(31), h.expected_output::text, CASE WHEN h.correction THEN 'correction' END,
               CASE WHEN h.correction THEN p.example_id::text END), 'UTF8')) FROM 1 FOR 16),
           h.of_input, coalesce(h.of_label, ''),
           CASE WHEN h.correction AND l.label_digest = h.of_label AND l.state IN ('raw', 'ready', 'claimed') AND l.priority >= h.priority
                THEN l.example_id END
    FROM hashed h
    LEFT JOIN LATERAL (
        SELECT c.example_id, c.label_digest, c.state, c.priority FROM perennial.examples c
        WHERE c.input_digest = h.of_input AND c.correction AND c.state NOT IN ('quarantined', 'purged', 'evicted')
          AND c.example_id <> h.example_id
        ORDER BY c.id DESC LIMIT 1
    ) l ON true
    LEFT JOIN LATERAL (
        SELECT c.example_id FROM perennial.examples c
        WHERE h.correction AND c.input_digest = h.of_input AND c.correction AND c.state NOT IN ('quarantined', 'purged')
          AND c.example_id <> h.example_id
        ORDER BY c.id DESC LIMIT 1
    ) p ON true
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
            SELECT i.agent, gen_random_uuid() AS batch_id, i.given, i.urgency
            FROM (SELECT agent, count(*) AS given, max(priority) AS urgency FROM pg_temp.perennial_staged GROUP BY agent) i
            JOIN perennial.agents a ON a.agent = i.agent AND a.active
        ), stored AS (
            INSERT INTO perennial.examples (
                example_id, agent, task, state, expected_output, predicted_output, uncertainty, importance, priority, source, source_url,
                source_id, tag, correction, holdout, regression, content_digest, input_digest, label_digest, superseded_by, reason,
                batch_id, created_at)
            SELECT j.example_id, j.agent, j.task, j.state,
                   -- `keep_plain` would take a label of several words away; `keep_out_of_holdout` compares it with the answer before
                   CASE WHEN j.predicted_output IS NOT NULL OR j.expected_output #>> '{}' !~ '\s'
                        THEN perennial.short_label(j.expected_output) END,
                   perennial.short_label(j.predicted_output), j.uncertainty, j.importance, j.priority, j.source, j.source_url,
                   j.source_id, j.tag, j.correction, j.holdout, j.correction AND j.priority >= 2, j.content_digest, j.input_digest,
                   j.label_digest, j.superseded_by, j.reason, (SELECT b.batch_id FROM batches b WHERE b.agent = j.agent), j.created_at
            FROM perennial.judge_incoming() j
            WHERE j.twin IS NULL
            ORDER BY j.content_digest  -- one order for all writers: overlapping batches wait for each other and never in a circle
            ON CONFLICT DO NOTHING
            RETURNING id, example_id, agent, state
        ), kept AS (
            INSERT INTO perennial.originals (example_id, input_text, expected_output, user_feedback, predicted_output)
            SELECT i.example_id, i.input_text, i.expected_output, i.user_feedback, i.predicted_output
            FROM stored s JOIN pg_temp.perennial_staged i USING (example_id)
        ), counted AS (
            SELECT s.agent, count(*) AS added, count(*) FILTER (WHERE s.state = 'quarantined') AS quarantined,
                   jsonb_agg(s.example_id) AS ids, max(s.id) AS newest
            FROM stored s GROUP BY s.agent
        )
        SELECT b.agent, b.batch_id, b.given, b.urgency, coalesce(c.added, 0) AS added, coalesce(c.quarantined, 0) AS quarantined,
               c.ids, c.newest
        FROM batches b LEFT JOIN counted c ON c.agent = b.agent ORDER BY b.agent
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

SET LOCAL check_function_bodies = on;

-- As before; a column that holds nothing is not compared with a pattern.
DROP TRIGGER keep_plain ON perennial.examples;
CREATE TRIGGER keep_plain BEFORE INSERT ON perennial.examples FOR EACH ROW
WHEN (NEW.source_url <> '' OR NEW.reason = 'unknown_task'
      OR (NEW.source_id <> '' AND NEW.source_id !~ '^[A-Za-z_-]{0,60}[0-9]{0,6}$')
      OR (NEW.tag <> '' AND NEW.tag !~ '^[A-Za-z_-]{0,60}[0-9]{0,6}$')
      OR (NEW.expected_output IS NOT NULL
          AND coalesce(NEW.expected_output #>> '{}' !~ '^([A-Za-z_-]{1,60}[0-9]{0,6}|-?[0-9]{1,6}([.][0-9]{1,6})?)$', false))
      OR (NEW.predicted_output IS NOT NULL
          AND coalesce(NEW.predicted_output #>> '{}' !~ '^([A-Za-z_-]{1,60}[0-9]{0,6}|-?[0-9]{1,6}([.][0-9]{1,6})?)$', false)))
EXECUTE FUNCTION perennial.keep_plain();
