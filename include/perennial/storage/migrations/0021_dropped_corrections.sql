-- What a person dropped outranks nothing: a dropped correction gives back what it had overtaken, and rows that come later are judged by
-- the newest correction that still holds. A correction that is more urgent than the one it repeats is a row of its own.

-- These corrections hold no more (refused or dropped, and marked so before): each row that one of them had overtaken goes to the newest
-- other correction of its input that is newer than the row and holds, or waits again.
CREATE FUNCTION perennial.restore_corrected(gone uuid[]) RETURNS void LANGUAGE sql AS $$
    UPDATE perennial.examples o SET superseded_by = r.newer,
        reason = CASE WHEN o.state = 'superseded' AND r.newer IS NULL THEN '' ELSE o.reason END,
        state = CASE WHEN o.state <> 'superseded' OR r.newer IS NOT NULL THEN o.state WHEN o.label_digest = '' THEN 'unlabelled'
                     WHEN o.admitted_at IS NULL THEN 'raw' ELSE 'ready' END::perennial.example_state
    FROM (
        SELECT e.example_id, n.example_id AS newer
        FROM perennial.examples c
        JOIN perennial.examples e ON e.superseded_by = c.example_id
            AND e.content_digest BETWEEN substring(c.input_digest FROM 1 FOR 16) AND perennial.last_of(c.input_digest)
        LEFT JOIN LATERAL (
            SELECT k.example_id FROM perennial.examples k
            WHERE k.input_digest = c.input_digest AND k.correction AND k.state NOT IN ('quarantined', 'purged', 'evicted', 'superseded')
              AND k.example_id <> ALL (gone) AND k.example_id <> e.example_id AND (NOT e.correction OR k.id > e.id)
            ORDER BY k.id DESC LIMIT 1
        ) n ON true
        WHERE c.example_id = ANY (gone) AND c.correction
    ) r WHERE o.example_id = r.example_id
$$;

-- it reads a temporary table that is not there yet
SET LOCAL check_function_bodies = off;

CREATE OR REPLACE FUNCTION perennial.judge_incoming()
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

SET LOCAL check_function_bodies = on;

-- A time that drivers cannot read in every time zone would stop each claim that meets its row. Fires before add_training_example.
CREATE FUNCTION perennial.a_time_of_this_era() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW."timestamp" NOT BETWEEN '0002-01-01' AND '9998-12-31' THEN
        PERFORM perennial.refuse('timestamp', 'is out of range', 'send a time of this era, or none');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER a_time_of_this_era INSTEAD OF INSERT ON perennial.training_examples
    FOR EACH ROW EXECUTE FUNCTION perennial.a_time_of_this_era();
CREATE TRIGGER a_time_of_this_era INSTEAD OF INSERT ON public.training_examples
    FOR EACH ROW EXECUTE FUNCTION perennial.a_time_of_this_era();
