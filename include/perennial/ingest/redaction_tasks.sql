-- name: task_totals
-- Exact up to `most`, as the other counts of what waits for a person.
SELECT a.agent, c.n AS tasks FROM perennial.agents a CROSS JOIN LATERAL (SELECT count(*)::integer AS n FROM (
    SELECT 1 FROM perennial.redaction_tasks t WHERE t.agent = a.agent AND t.state = 'open' LIMIT %(most)s + 1) counted) c
WHERE c.n > 0 ORDER BY a.agent
-- name: open_tasks
-- With the words only where the caller may show them.
SELECT number, task, round, kinds, CASE WHEN %(words)s THEN doubts ELSE '[]' END AS doubts, cardinality(example_ids) AS rows, version, opened_at
FROM perennial.redaction_tasks
WHERE agent = %(agent)s AND state = 'open' AND number < %(before)s ORDER BY number DESC LIMIT %(limit)s
-- name: lock_rows
-- Rows before tasks, as admission and retention lock them.
SELECT e.example_id, e.state::text AS state FROM perennial.examples e
WHERE e.example_id IN (SELECT unnest(example_ids) FROM perennial.redaction_tasks WHERE agent = %(agent)s AND number = %(number)s)
ORDER BY e.id FOR UPDATE
-- name: lock_task
SELECT number, task, state, round, kinds, doubts, example_ids FROM perennial.redaction_tasks
WHERE agent = %(agent)s AND number = %(number)s FOR UPDATE
-- name: decide
UPDATE perennial.redaction_tasks SET state = %(state)s, doubts = '[]', decided_at = clock_timestamp(),
    cleared = CASE WHEN %(restores)s THEN ARRAY(SELECT DISTINCT w FROM unnest(cleared || %(words)s::text[]) AS all_of (w) ORDER BY w)
                   ELSE ARRAY(SELECT w FROM unnest(cleared) AS kept (w) WHERE w <> ALL (%(words)s::text[]) ORDER BY w) END
WHERE agent = %(agent)s AND number = %(number)s
-- name: to_redact_again
-- No redactor has the version '': the next admission makes these rows anew, from their originals, with the words left standing.
UPDATE perennial.examples SET redaction = jsonb_set(redaction, '{version}', '""')
WHERE example_id = ANY (%(ids)s) AND redaction IS NOT NULL AND state NOT IN ('evicted', 'purged')
-- name: drop_rows
UPDATE perennial.examples SET state = 'evicted', reason = 'dropped by ' || %(actor)s, job_id = NULL, attempt = NULL
WHERE example_id = ANY (%(ids)s) AND state IN ('raw', 'ready', 'held', 'unlabelled', 'quarantined', 'superseded')
RETURNING example_id
-- name: restore_corrected
SELECT perennial.restore_corrected(%(ids)s::uuid[])
-- name: cleared
SELECT text_key, cleared FROM perennial.redaction_tasks
WHERE agent = %(agent)s AND cleared <> '{}' ORDER BY number DESC LIMIT %(limit)s
-- name: notes
SELECT example_id, redaction ->> 'version' AS version, redaction -> 'cleared' AS cleared FROM perennial.examples
WHERE example_id = ANY (%(ids)s) AND redaction IS NOT NULL
