-- name: take_urgent
-- Rows that nobody has read yet, urgent ones first; two admissions at once share the work and never meet. An answer that a quarantine took
-- off comes from the original, as much of it as may stand: without it nobody would know a label of the model's own making.
SELECT e.example_id, e.task, e.state::text AS state, e.correction, e.input_digest,
       coalesce(e.predicted_output, perennial.short_label(perennial.plain_answer(o.predicted_output))) AS predicted_output,
       coalesce(o.expected_output = o.predicted_output, false) AS own_answer, o.input_text, o.expected_output, o.user_feedback
FROM perennial.examples e JOIN perennial.originals o USING (example_id)
WHERE e.agent = %(agent)s AND e.state = 'raw' AND e.priority >= 2
ORDER BY e.id LIMIT %(limit)s FOR UPDATE OF e SKIP LOCKED
-- name: take_raw
SELECT e.example_id, e.task, e.state::text AS state, e.correction, e.input_digest,
       coalesce(e.predicted_output, perennial.short_label(perennial.plain_answer(o.predicted_output))) AS predicted_output,
       coalesce(o.expected_output = o.predicted_output, false) AS own_answer, o.input_text, o.expected_output, o.user_feedback
FROM perennial.examples e JOIN perennial.originals o USING (example_id)
WHERE e.agent = %(agent)s AND e.state = 'raw'
ORDER BY e.id LIMIT %(limit)s FOR UPDATE OF e SKIP LOCKED
-- name: take_unlabelled
SELECT e.example_id, e.task, e.state::text AS state, e.correction, e.input_digest,
       coalesce(e.predicted_output, perennial.short_label(perennial.plain_answer(o.predicted_output))) AS predicted_output,
       coalesce(o.expected_output = o.predicted_output, false) AS own_answer, o.input_text, o.expected_output, o.user_feedback
FROM perennial.examples e JOIN perennial.originals o USING (example_id)
WHERE e.agent = %(agent)s AND e.state = 'unlabelled' AND e.admitted_at IS NULL
ORDER BY e.id LIMIT %(limit)s FOR UPDATE OF e SKIP LOCKED
-- name: waiting_agents
-- Each part is a probe of a partial index. What stands aside for an absent guard, an unknown task or a rare label may come back; what a
-- training found left by an older redactor, and what a person let stand (version ''), is waiting to be redacted again.
SELECT a.agent FROM unnest(%(agents)s::text[]) AS a (agent)
WHERE EXISTS (SELECT 1 FROM perennial.examples e WHERE e.agent = a.agent AND e.state = 'raw')
   OR EXISTS (SELECT 1 FROM perennial.examples e WHERE e.agent = a.agent AND e.state = 'unlabelled' AND e.admitted_at IS NULL)
   OR EXISTS (SELECT 1 FROM perennial.examples e WHERE e.agent = a.agent AND e.state = 'quarantined'
              AND e.reason IN ('guard_unavailable', 'unknown_task'))
   OR EXISTS (SELECT 1 FROM perennial.examples e WHERE e.agent = a.agent AND e.state = 'held' AND e.reason = 'new_label_waiting')
   OR EXISTS (SELECT 1 FROM perennial.examples e WHERE e.agent = a.agent AND e.state = 'quarantined' AND e.aside = 'redactor_changed'
              AND e.admitted_at IS NOT NULL AND e.input_text IS NOT NULL)
   OR EXISTS (SELECT 1 FROM perennial.examples e WHERE e.agent = a.agent AND e.state IN ('ready', 'held', 'unlabelled')
              AND e.redaction ->> 'version' = '' AND e.admitted_at IS NOT NULL AND e.input_text IS NOT NULL)
   OR EXISTS (SELECT 1 FROM perennial.examples e WHERE e.agent = a.agent AND e.state = 'trained'
              AND e.redaction ->> 'version' = '' AND e.admitted_at IS NOT NULL AND e.input_text IS NOT NULL)
-- name: admitted
-- holdout = holdout: the trigger keep_out_of_holdout looks again, now that label and answer are whole.
UPDATE perennial.examples SET
    state = CASE WHEN %(label)s::jsonb IS NULL THEN 'unlabelled' ELSE 'ready' END::perennial.example_state,
    input_text = %(text)s, expected_output = %(label)s::jsonb, user_feedback = %(feedback)s, redaction = %(redaction)s,
    predicted_output = %(predicted)s::jsonb, holdout = holdout, reason = '', admitted_at = clock_timestamp()
WHERE example_id = %(example_id)s
-- name: overtaken
-- A correction overtakes what it finds waiting: rows that stood aside when it came, or were written in the same moment, it did not see.
-- The rule of the claim; the holdout, which nobody claims, needs it here.
UPDATE perennial.examples e SET superseded_by = n.newer, state = 'superseded', reason = 'corrected_before'
FROM (
    SELECT r.example_id, c.example_id AS newer FROM perennial.examples r CROSS JOIN LATERAL (
        SELECT c.example_id FROM perennial.examples c
        WHERE c.input_digest = r.input_digest AND c.correction AND c.state NOT IN ('quarantined', 'purged', 'evicted', 'superseded')
          AND c.id <> r.id AND (NOT r.correction OR c.id > r.id)
        ORDER BY c.id DESC LIMIT 1
    ) c
    WHERE r.example_id = ANY (%(ids)s) AND r.state IN ('ready', 'unlabelled') AND r.superseded_by IS NULL
) n WHERE e.example_id = n.example_id
-- name: quarantined
-- Label and answer may be what it was refused for: they stay with the original alone, where the next look finds them again.
UPDATE perennial.examples SET state = 'quarantined', reason = %(reason)s, expected_output = NULL, predicted_output = NULL
WHERE example_id = %(example_id)s
-- name: restore_corrected
-- A refused correction takes nothing away: what it had overtaken counts again, or is overtaken by another correction that holds.
SELECT perennial.restore_corrected(ARRAY[%(example_id)s::uuid])
-- name: count
SELECT perennial.add_to_counter(%(agent)s, 'quarantined', %(amount)s)
-- name: release_guard
-- Rows wait in quarantine while a detector is away; now they are looked at again, but for those that their sender took back meanwhile.
UPDATE perennial.examples SET reason = CASE WHEN superseded_by IS NULL THEN '' ELSE 'corrected' END,
    state = CASE WHEN superseded_by IS NOT NULL THEN 'superseded' WHEN label_digest = '' THEN 'unlabelled' ELSE 'raw' END::perennial.example_state
WHERE agent = %(agent)s AND state = 'quarantined' AND reason = 'guard_unavailable'
-- name: release_tasks
-- Rows of a task that the fleet did not know, and knows now under its own name or as an alias. They keep their place behind
-- later corrections; one that repeats a row which came under the right name is superseded by it.
WITH known AS (
    SELECT e.example_id, e.id, coalesce(t.alias_of, t.task) AS task, e.content_digest,
           perennial.input_digest(e.agent, coalesce(t.alias_of, t.task), perennial.plain_digest(o.input_text)) AS input_digest
    FROM perennial.examples e JOIN perennial.originals o USING (example_id)
    JOIN perennial.tasks t ON t.agent = e.agent AND t.task = e.task
    WHERE e.agent = %(agent)s AND e.state = 'quarantined' AND e.reason = 'unknown_task' FOR UPDATE OF e SKIP LOCKED
), named AS (
    SELECT k.example_id, k.id, k.task, k.input_digest,
           substring(k.input_digest FROM 1 FOR 16) || substring(k.content_digest FROM 17 FOR 16) AS content_digest FROM known k
), ranked AS (
    SELECT n.*, row_number() OVER (PARTITION BY n.content_digest ORDER BY n.id) AS place FROM named n
), judged AS (
    SELECT r.example_id, r.task, r.input_digest, r.content_digest, r.place > 1 OR d.example_id IS NOT NULL AS repeats, d.example_id AS twin
    FROM ranked r LEFT JOIN perennial.examples d ON d.content_digest = r.content_digest AND d.example_id <> r.example_id
)
UPDATE perennial.examples e SET task = j.task,
    input_digest = CASE WHEN j.repeats THEN e.input_digest ELSE j.input_digest END,
    content_digest = CASE WHEN j.repeats THEN e.content_digest ELSE j.content_digest END,
    superseded_by = coalesce(j.twin, e.superseded_by),  -- one that its sender took back meanwhile stays so
    reason = CASE WHEN j.repeats THEN 'duplicate' WHEN e.superseded_by IS NOT NULL THEN 'corrected' ELSE '' END,
    state = CASE WHEN j.repeats OR e.superseded_by IS NOT NULL THEN 'superseded' WHEN e.label_digest = '' THEN 'unlabelled' ELSE 'raw' END::perennial.example_state
FROM judged j WHERE e.example_id = j.example_id
RETURNING e.example_id
-- name: stale_waiting
-- Rows in which a training found what an older redactor had left: they wait for exactly this.
SELECT e.example_id FROM perennial.examples e
WHERE e.agent = %(agent)s AND e.admitted_at IS NOT NULL AND e.input_text IS NOT NULL AND e.state = 'quarantined' AND e.aside = 'redactor_changed'
ORDER BY e.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
-- name: stale_below
-- What a person let stand has the version '', before all others. Two ranges of an index: <> would read all rows.
SELECT e.example_id FROM perennial.examples e
WHERE e.agent = %(agent)s AND e.admitted_at IS NOT NULL AND e.input_text IS NOT NULL AND e.state IN ('ready', 'held', 'unlabelled')
  AND e.redaction ->> 'version' < %(version)s ORDER BY e.redaction ->> 'version', e.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
-- name: stale_above
SELECT e.example_id FROM perennial.examples e
WHERE e.agent = %(agent)s AND e.admitted_at IS NOT NULL AND e.input_text IS NOT NULL AND e.state IN ('ready', 'held', 'unlabelled')
  AND e.redaction ->> 'version' > %(version)s ORDER BY e.redaction ->> 'version', e.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
-- name: stale_trained_below
SELECT e.example_id FROM perennial.examples e
WHERE e.agent = %(agent)s AND e.admitted_at IS NOT NULL AND e.input_text IS NOT NULL AND e.state = 'trained'
  AND e.redaction ->> 'version' < %(version)s ORDER BY e.redaction ->> 'version', e.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
-- name: stale_trained_above
SELECT e.example_id FROM perennial.examples e
WHERE e.agent = %(agent)s AND e.admitted_at IS NOT NULL AND e.input_text IS NOT NULL AND e.state = 'trained'
  AND e.redaction ->> 'version' > %(version)s ORDER BY e.redaction ->> 'version', e.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
-- name: as_sent
-- What these rows were sent as; where retention took the original, what they hold.
SELECT e.example_id, e.task, e.state::text AS state, e.correction, e.input_digest,
       CASE WHEN o.example_id IS NULL THEN e.input_text ELSE o.input_text END AS input_text,
       CASE WHEN o.example_id IS NULL THEN e.expected_output ELSE o.expected_output END AS expected_output,
       CASE WHEN o.example_id IS NULL THEN e.user_feedback ELSE o.user_feedback END AS user_feedback
FROM perennial.examples e LEFT JOIN perennial.originals o USING (example_id)
WHERE e.example_id = ANY (%(ids)s) ORDER BY e.id
-- name: redacted_again
UPDATE perennial.examples SET
    input_text = %(text)s, expected_output = %(label)s::jsonb, user_feedback = %(feedback)s, redaction = %(redaction)s,
    predicted_output = CASE WHEN predicted_output = expected_output THEN %(label)s::jsonb ELSE predicted_output END,
    reason = CASE WHEN state = 'quarantined' THEN '' ELSE reason END,
    state = CASE WHEN state <> 'quarantined' THEN state WHEN superseded_by IS NOT NULL THEN 'superseded'
                 WHEN %(label)s::jsonb IS NULL THEN 'unlabelled' ELSE 'ready' END::perennial.example_state
WHERE example_id = %(example_id)s
-- name: wake
SELECT pg_notify('perennial_due', %(agent)s) WHERE perennial.may_be_due(%(agent)s)
-- name: ask
-- One task per text: rows that share it share the answer. What was decided is not asked again; a new word is, and so is a text that comes
-- back after nobody answered or its rows were dropped.
INSERT INTO perennial.redaction_tasks AS t (agent, text_key, task, kinds, doubts, words, example_ids, version)
VALUES (%(agent)s, %(text_key)s, %(task)s, %(kinds)s, %(doubts)s, %(words)s, ARRAY[%(example_id)s::uuid], %(version)s)
ON CONFLICT (agent, text_key) DO UPDATE SET
    example_ids = CASE WHEN %(example_id)s::uuid = ANY (t.example_ids) THEN t.example_ids ELSE t.example_ids || %(example_id)s::uuid END,
    words = ARRAY(SELECT DISTINCT w FROM unnest(t.words || excluded.words) AS all_of (w) ORDER BY w),
    round = CASE WHEN perennial.asks_again(t, excluded.words, %(example_id)s) THEN t.round + 1 ELSE t.round END,
    state = CASE WHEN perennial.asks_again(t, excluded.words, %(example_id)s) THEN 'open' ELSE t.state END,
    opened_at = CASE WHEN perennial.asks_again(t, excluded.words, %(example_id)s) THEN clock_timestamp() ELSE t.opened_at END,
    decided_at = CASE WHEN perennial.asks_again(t, excluded.words, %(example_id)s) THEN NULL ELSE t.decided_at END,
    kinds = CASE WHEN perennial.asks_again(t, excluded.words, %(example_id)s) THEN excluded.kinds ELSE t.kinds END,
    doubts = CASE WHEN perennial.asks_again(t, excluded.words, %(example_id)s) THEN excluded.doubts ELSE t.doubts END,
    version = excluded.version
-- name: unask
UPDATE perennial.redaction_tasks SET state = 'closed', doubts = '[]', decided_at = clock_timestamp()
WHERE agent = %(agent)s AND text_key = ANY (%(keys)s) AND state = 'open'
