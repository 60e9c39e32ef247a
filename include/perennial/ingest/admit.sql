-- name: take_urgent
-- Rows that nobody has read yet, urgent ones first; two admissions at once share the work and never meet.
SELECT e.example_id, e.task, e.state::text AS state, e.correction, e.input_digest,
       e.predicted_output, o.input_text, o.expected_output, o.user_feedback
FROM perennial.examples e JOIN perennial.originals o USING (example_id)
WHERE e.agent = %(agent)s AND e.state = 'raw' AND e.priority >= 2
ORDER BY e.id LIMIT %(limit)s FOR UPDATE OF e SKIP LOCKED
-- name: take_raw
SELECT e.example_id, e.task, e.state::text AS state, e.correction, e.input_digest,
       e.predicted_output, o.input_text, o.expected_output, o.user_feedback
FROM perennial.examples e JOIN perennial.originals o USING (example_id)
WHERE e.agent = %(agent)s AND e.state = 'raw'
ORDER BY e.id LIMIT %(limit)s FOR UPDATE OF e SKIP LOCKED
-- name: take_unlabelled
SELECT e.example_id, e.task, e.state::text AS state, e.correction, e.input_digest,
       e.predicted_output, o.input_text, o.expected_output, o.user_feedback
FROM perennial.examples e JOIN perennial.originals o USING (example_id)
WHERE e.agent = %(agent)s AND e.state = 'unlabelled' AND e.admitted_at IS NULL
ORDER BY e.id LIMIT %(limit)s FOR UPDATE OF e SKIP LOCKED
-- name: admitted
UPDATE perennial.examples SET
    state = CASE WHEN %(label)s::jsonb IS NULL THEN 'unlabelled' ELSE 'ready' END::perennial.example_state,
    input_text = %(text)s, expected_output = %(label)s::jsonb, user_feedback = %(feedback)s, redaction = %(redaction)s,
    predicted_output = CASE WHEN NOT %(hide_predicted)s THEN predicted_output END, reason = '', admitted_at = clock_timestamp()
WHERE example_id = %(example_id)s
-- name: quarantined
-- Label and answer may be what it was refused for: they stay with the original alone, where a release finds the label again.
UPDATE perennial.examples SET state = 'quarantined', reason = %(reason)s, expected_output = NULL, predicted_output = NULL
WHERE example_id = %(example_id)s
-- name: restore_corrected
-- A refused correction takes nothing away: what it had overtaken counts again.
UPDATE perennial.examples SET superseded_by = NULL,
    reason = CASE WHEN state = 'superseded' THEN '' ELSE reason END,
    state = CASE WHEN state <> 'superseded' THEN state WHEN label_digest = '' THEN 'unlabelled'
                 WHEN admitted_at IS NULL THEN 'raw' ELSE 'ready' END::perennial.example_state
WHERE content_digest BETWEEN substring(%(input_digest)s::bytea FROM 1 FOR 16) AND perennial.last_of(%(input_digest)s::bytea)
  AND superseded_by = %(example_id)s
-- name: count
SELECT perennial.add_to_counter(%(agent)s, 'quarantined', %(amount)s)
-- name: release_guard
-- Rows wait in quarantine while a detector is away; now they are looked at again.
UPDATE perennial.examples SET state = CASE WHEN label_digest = '' THEN 'unlabelled' ELSE 'raw' END::perennial.example_state, reason = ''
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
    superseded_by = j.twin, reason = CASE WHEN j.repeats THEN 'duplicate' ELSE '' END,
    state = CASE WHEN j.repeats THEN 'superseded' WHEN e.label_digest = '' THEN 'unlabelled' ELSE 'raw' END::perennial.example_state
FROM judged j WHERE e.example_id = j.example_id
