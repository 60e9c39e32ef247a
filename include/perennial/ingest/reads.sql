-- name: holdout
-- Ordered by the digest of the input: the same rows in the same order for the same time, spread evenly over what came in.
-- Rows that came with a held batch (ingest.postgres_jobs.WITH_HELD_BATCH) stay out until a person releases them.
SELECT example_id, task, input_text, expected_output, priority, correction, source_id, created_at, job_id FROM perennial.examples
WHERE agent = %(agent)s AND task = %(task)s AND holdout AND state = 'ready' AND admitted_at <= %(as_of)s
  AND reason <> 'held with its batch'
ORDER BY input_digest, content_digest LIMIT %(limit)s
-- name: regression
SELECT example_id, task, input_text, expected_output, priority, correction, source_id, created_at FROM perennial.examples
WHERE agent = %(agent)s AND task = %(task)s AND regression AND state = 'trained' AND superseded_by IS NULL
  AND trained_at <= coalesce(%(as_of)s::timestamptz, clock_timestamp())
ORDER BY id DESC LIMIT %(limit)s
-- name: replay
-- A stable draw: the digest of seed and id orders the newest trained rows, so one seed gives one replay.
SELECT * FROM (
    SELECT example_id, task, input_text, expected_output, priority, correction, source_id, created_at FROM perennial.examples
    WHERE agent = %(agent)s AND task = %(task)s AND state = 'trained' AND superseded_by IS NULL
    ORDER BY trained_at DESC, id DESC LIMIT %(pool)s) newest
ORDER BY sha256(convert_to(%(seed)s::text || example_id::text, 'UTF8')) LIMIT %(limit)s
-- name: recent_trained
SELECT example_id, task, input_text, expected_output, priority, correction, source_id, created_at FROM perennial.examples
WHERE agent = %(agent)s AND task = %(task)s AND state = 'trained' AND superseded_by IS NULL
ORDER BY trained_at DESC, id DESC LIMIT %(limit)s
-- name: counts
SELECT task, CASE WHEN holdout AND state = 'ready' THEN 'holdout' ELSE state::text END AS state, count(*) AS n
FROM perennial.examples WHERE agent = %(agent)s GROUP BY 1, 2
-- name: waiting
-- Exact, and bounded by each agent's max_buffer_size (and its corrections).
SELECT a.agent, w.n AS waiting FROM perennial.agents a
CROSS JOIN LATERAL (SELECT count(*)::integer AS n FROM perennial.waiting e WHERE e.agent = a.agent) w
WHERE a.active ORDER BY a.agent
-- name: corrections
SELECT example_id, task, coalesce(input_text, '') AS input_text, expected_output, priority, correction, source_id, created_at,
       state::text AS state, learned, model_version, refusals, reason
FROM perennial.examples WHERE agent = %(agent)s AND correction ORDER BY id DESC LIMIT %(limit)s
-- name: corrections_by_tag
SELECT tag, state::text AS state, count(*) AS n FROM perennial.examples WHERE agent = %(agent)s AND correction GROUP BY tag, state
-- name: running
SELECT agent FROM perennial.jobs WHERE status IN ('validating', 'training', 'evaluating') AND lease_until >= clock_timestamp()
ORDER BY agent
-- name: record_performance
-- Once per job and verdict, so a task that runs again after a kill writes no second line.
INSERT INTO perennial.performance_history
    (agent_name, model_name, accuracy_before, accuracy_after, examples_trained, rollback_triggered, job_id, version, detail)
SELECT %(agent)s, %(model_name)s, %(before)s, %(after)s, %(examples)s, %(rollback)s, %(job_id)s, %(version)s, %(detail)s
WHERE %(job_id)s::uuid IS NULL OR NOT EXISTS (
    SELECT 1 FROM perennial.performance_history
    WHERE agent_name = %(agent)s AND job_id = %(job_id)s AND rollback_triggered = %(rollback)s
      AND version IS NOT DISTINCT FROM %(version)s)
-- name: performance
SELECT agent_name, model_name, accuracy_before, accuracy_after, examples_trained, update_timestamp, rollback_triggered, version, job_id
FROM perennial.performance_history WHERE %(agent)s::text IS NULL OR agent_name = %(agent)s ORDER BY id DESC LIMIT %(last)s
-- name: performance_size
SELECT count(*) AS n FROM perennial.performance_history
-- name: recent_accuracy
SELECT avg(correct) AS accuracy, count(*) AS n FROM (
    SELECT o.correct FROM perennial.outcomes o WHERE o.agent = %(agent)s ORDER BY o.at DESC LIMIT %(window)s) newest
-- name: example
SELECT example_id, agent, task, state::text AS state, input_text, expected_output, uncertainty, importance, source_url, created_at,
       user_feedback, priority, tag, source, reason, model_version
FROM perennial.examples WHERE example_id = %(example_id)s
-- name: rows_by_id
SELECT example_id, task, state::text AS state, source, input_text, expected_output, priority, correction, source_id, created_at
FROM perennial.examples WHERE example_id = ANY (%(ids)s)
-- name: quiet
-- Active agents that had rows before and got none lately: one probe per agent of the index examples_newest.
SELECT a.agent FROM perennial.agents a
WHERE a.active
  AND EXISTS (SELECT FROM perennial.sources s WHERE s.agent = a.agent
              AND s.first_seen <= clock_timestamp() - make_interval(secs => %(seconds)s))
  AND NOT coalesce((SELECT e.added_at > clock_timestamp() - make_interval(secs => %(seconds)s) FROM perennial.examples e
                    WHERE e.agent = a.agent ORDER BY e.added_at DESC LIMIT 1), false)
ORDER BY a.agent
