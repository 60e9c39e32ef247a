-- name: open_job
INSERT INTO perennial.jobs (job_id, agent, run_id, reason, mode, forced, requested_by, config)
VALUES (%(job_id)s, %(agent)s, %(run_id)s, %(reason)s, %(mode)s, %(forced)s, %(requested_by)s, %(config)s)
ON CONFLICT DO NOTHING RETURNING job_id
-- name: adopt_job
-- A request was waiting under this id: the run that now carries it out writes its own id on it.
UPDATE perennial.jobs SET run_id = %(run_id)s WHERE job_id = %(job_id)s AND agent = %(agent)s AND status = 'pending'
RETURNING job_id
-- name: job_of_run
SELECT * FROM perennial.jobs WHERE run_id = %(run_id)s AND agent = %(agent)s
-- name: job
SELECT * FROM perennial.jobs WHERE job_id = %(job_id)s
-- name: lock_job
SELECT agent, status, attempt, version FROM perennial.jobs WHERE job_id = %(job_id)s FOR UPDATE
-- name: expired_jobs
-- Jobs whose worker let the lease run out; another transaction that sweeps them already is left alone.
SELECT job_id FROM perennial.jobs
WHERE agent = %(agent)s AND job_id <> %(job_id)s AND status IN ('validating', 'training', 'evaluating')
  AND lease_until < clock_timestamp() FOR UPDATE SKIP LOCKED
-- name: fail_expired
UPDATE perennial.jobs SET status = 'failed', error = 'lease expired', completed_at = clock_timestamp(),
    note = 'its worker stopped renewing the lease; the rows went back to the buffer'
WHERE job_id = ANY (%(jobs)s)
-- name: rows_back
-- Claimed rows of these jobs wait again, unless a correction has overtaken them meanwhile.
UPDATE perennial.examples SET
    state = CASE WHEN superseded_by IS NULL THEN 'ready' ELSE 'superseded' END::perennial.example_state,
    reason = CASE WHEN superseded_by IS NULL THEN reason ELSE 'corrected' END, job_id = NULL, attempt = NULL
WHERE job_id = ANY (%(jobs)s) AND state = 'claimed'
-- name: holdout_back
UPDATE perennial.examples SET job_id = NULL WHERE job_id = ANY (%(jobs)s) AND holdout
-- name: other_running
SELECT 1 FROM perennial.jobs
WHERE agent = %(agent)s AND job_id <> %(job_id)s AND status IN ('validating', 'training', 'evaluating')
-- name: start
UPDATE perennial.jobs SET status = 'validating', attempt = attempt + 1, started_at = clock_timestamp(), completed_at = NULL,
    error = NULL, note = '', lease_until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE job_id = %(job_id)s RETURNING attempt
-- name: restamp
UPDATE perennial.examples SET attempt = %(attempt)s WHERE job_id = %(job_id)s AND state = 'claimed'
-- name: renew
-- Also after the lease ran out, as long as nobody took over: the attempt number is the fence, the lease only permits a takeover.
UPDATE perennial.jobs SET lease_until = greatest(lease_until, clock_timestamp() + make_interval(secs => %(seconds)s))
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND status IN ('validating', 'training', 'evaluating') RETURNING job_id
-- name: fence
-- The job, locked, if this attempt still owns it and its lease lives; every write of a job begins with this.
SELECT agent, status, started_at FROM perennial.jobs
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND status IN ('validating', 'training', 'evaluating')
  AND lease_until >= clock_timestamp() FOR UPDATE
-- name: owned
SELECT 1 FROM perennial.jobs WHERE job_id = %(job_id)s AND attempt = %(attempt)s
-- name: claim
-- Walks examples_claimable from its best end. Rows that a correction overtook unseen (both were being written at once) leave here.
-- An urgent claim (least > 0) takes the rows that were refused least often: what was refused is tried again by itself.
WITH best AS (
    SELECT example_id, id, input_digest, correction FROM perennial.examples
    WHERE agent = %(agent)s AND state = 'ready' AND NOT holdout AND priority >= %(least)s
      AND (%(least)s = 0 OR refusals = (
          SELECT min(refusals) FROM perennial.examples
          WHERE agent = %(agent)s AND state = 'ready' AND NOT holdout AND priority >= %(least)s))
    ORDER BY priority DESC, importance DESC, uncertainty DESC, created_at DESC, id DESC
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), judged AS (
    SELECT b.example_id, c.example_id AS newer FROM best b LEFT JOIN LATERAL (
        SELECT c.example_id FROM perennial.examples c
        WHERE c.input_digest = b.input_digest AND c.correction AND c.state NOT IN ('quarantined', 'purged', 'evicted', 'superseded')
          AND c.id <> b.id AND (NOT b.correction OR c.id > b.id)
        ORDER BY c.id DESC LIMIT 1
    ) c ON true
)
UPDATE perennial.examples e SET
    state = CASE WHEN j.newer IS NULL THEN 'claimed' ELSE 'superseded' END::perennial.example_state,
    superseded_by = j.newer, reason = CASE WHEN j.newer IS NULL THEN e.reason ELSE 'corrected' END,
    job_id = CASE WHEN j.newer IS NULL THEN %(job_id)s::uuid END, attempt = CASE WHEN j.newer IS NULL THEN %(attempt)s::integer END
FROM judged j WHERE e.example_id = j.example_id
-- name: count_holdout
-- Holdout rows that came since the last training count as used by this one, so that they call for no other.
UPDATE perennial.examples SET job_id = %(job_id)s WHERE example_id IN (
    SELECT example_id FROM perennial.examples WHERE agent = %(agent)s AND holdout AND job_id IS NULL AND state = 'ready'
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
-- name: note_claim
UPDATE perennial.jobs SET example_count = %(count)s WHERE job_id = %(job_id)s
-- name: claimed_rows
SELECT example_id, task, input_text, expected_output, priority, correction, source_id, created_at FROM perennial.examples
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND state = 'claimed'
ORDER BY priority DESC, importance DESC, uncertainty DESC, created_at DESC, id DESC
-- name: advance
UPDATE perennial.jobs SET status = %(status)s WHERE job_id = %(job_id)s
-- name: settle_trained
UPDATE perennial.examples SET state = 'trained', model_version = %(version)s, trained_at = clock_timestamp()
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND state = 'claimed'
-- name: note_version
UPDATE perennial.jobs SET version = %(version)s, example_count = CASE WHEN %(count)s > 0 THEN %(count)s ELSE example_count END
WHERE job_id = %(job_id)s RETURNING example_count
-- name: give_back
-- Spared rows wait again as they were: they were in a refused batch and not to blame.
UPDATE perennial.examples SET
    refusals = CASE WHEN example_id = ANY (%(spared)s::uuid[]) THEN refusals ELSE refusals + %(refusals)s END,
    state = CASE WHEN superseded_by IS NOT NULL THEN 'superseded'
                 WHEN refusals + %(refusals)s >= %(most)s AND example_id <> ALL (%(spared)s::uuid[]) THEN 'held'
                 ELSE 'ready' END::perennial.example_state,
    reason = CASE WHEN superseded_by IS NOT NULL THEN 'corrected' WHEN example_id = ANY (%(spared)s::uuid[]) THEN reason
                  ELSE %(reason)s END,
    job_id = NULL, attempt = NULL
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND state = 'claimed'
RETURNING state::text AS state
-- name: holdout_with_batch
-- The batch is held: what came in with it judges nobody until a person has looked.
UPDATE perennial.examples SET reason = %(mark)s WHERE job_id = %(job_id)s AND holdout AND state = 'ready'
-- name: set_aside
UPDATE perennial.examples SET state = %(state)s::perennial.example_state, reason = %(reason)s, job_id = NULL, attempt = NULL
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND state = 'claimed' AND example_id = ANY (%(ids)s)
-- name: finish
UPDATE perennial.jobs SET status = %(status)s, note = %(note)s, error = %(error)s, version = coalesce(%(version)s, version),
    completed_at = clock_timestamp(), lease_until = NULL
WHERE job_id = %(job_id)s
-- name: absorb_requests
-- Requests that waited when this job began are answered by it.
UPDATE perennial.jobs p SET status = 'cancelled', completed_at = clock_timestamp(), note = 'answered by job ' || %(job_id)s::text
FROM perennial.jobs j
WHERE j.job_id = %(job_id)s AND p.agent = j.agent AND p.job_id <> j.job_id AND p.status = 'pending'
  AND p.created_at <= coalesce(j.started_at, j.created_at)
-- name: cancel_waiting
UPDATE perennial.jobs SET status = 'cancelled', completed_at = clock_timestamp(), note = %(note)s
WHERE job_id = %(job_id)s AND status = 'pending'
-- name: job_record
UPDATE perennial.jobs SET dataset = dataset || %(dataset)s, config = config || %(config)s WHERE job_id = %(job_id)s
-- name: release_new_labels
-- Rows of a label that was too rare wait together; once enough carry it, all of them wait for training again.
UPDATE perennial.examples SET state = 'ready', reason = ''
WHERE agent = %(agent)s AND task = %(task)s AND state = 'held' AND reason = 'new_label_waiting' AND superseded_by IS NULL
  AND expected_output IN (
    SELECT expected_output FROM perennial.examples
    WHERE agent = %(agent)s AND task = %(task)s AND NOT holdout
      AND ((state = 'held' AND reason = 'new_label_waiting') OR state = 'ready')
      AND expected_output IN (SELECT DISTINCT expected_output FROM perennial.examples
                              WHERE agent = %(agent)s AND task = %(task)s AND state = 'held' AND reason = 'new_label_waiting')
    GROUP BY expected_output HAVING count(*) >= %(minimum)s)
-- name: mark_learned
UPDATE perennial.examples SET learned = %(version)s WHERE example_id = ANY (%(ids)s) AND learned IS NULL
-- name: due
-- Level-triggered and in constant time: every part is a probe of an index that stops at its limit.
-- After failed trainings an agent rests for 10 s, then twice as long each time up to 10 minutes; a request does not wait for that.
SELECT l.agent, l.update_threshold AS threshold, waiting.n AS waiting, urgent.n AS corrections,
       CASE WHEN dead.reason IS NOT NULL THEN dead.reason
            WHEN urgent.n > 0 AND awake.yes THEN 'correction'
            WHEN request.reason IS NOT NULL THEN request.reason
            WHEN waiting.n >= l.update_threshold AND awake.yes THEN 'threshold' END AS reason
FROM perennial.limits l
CROSS JOIN LATERAL (SELECT count(*)::integer AS n FROM (
    SELECT 1 FROM perennial.waiting e WHERE e.agent = l.agent LIMIT l.update_threshold) w) waiting
CROSS JOIN LATERAL (SELECT count(*)::integer AS n FROM (
    SELECT 1 FROM perennial.waiting e WHERE e.agent = l.agent AND e.priority >= 2 LIMIT 1000) u) urgent
LEFT JOIN LATERAL (SELECT j.reason FROM perennial.jobs j
    WHERE j.agent = l.agent AND j.status = 'pending' ORDER BY j.created_at LIMIT 1) request ON true
LEFT JOIN LATERAL (SELECT j.reason FROM perennial.jobs j
    WHERE j.agent = l.agent AND j.status IN ('validating', 'training', 'evaluating') AND j.lease_until < clock_timestamp()
    LIMIT 1) dead ON true
CROSS JOIN LATERAL (SELECT coalesce(
    max(ended) + make_interval(secs => least(10 * 2 ^ (count(*) FILTER (WHERE good_since = 0) - 1), 600)) < clock_timestamp()
    OR count(*) FILTER (WHERE good_since = 0) = 0, true) AS yes
    FROM (SELECT completed_at AS ended, count(*) FILTER (WHERE status <> 'failed') OVER (ORDER BY created_at DESC) AS good_since
          FROM (SELECT status, completed_at, created_at FROM perennial.jobs j
                WHERE j.agent = l.agent AND j.status IN ('completed', 'failed') ORDER BY j.created_at DESC LIMIT 7) newest) ranked
    ) awake
WHERE l.active AND (%(agent)s::text IS NULL OR l.agent = %(agent)s)
  AND (%(agent)s::text IS NOT NULL OR NOT EXISTS (
      SELECT 1 FROM perennial.jobs j
      WHERE j.agent = l.agent AND j.status IN ('validating', 'training', 'evaluating') AND j.lease_until >= clock_timestamp()))
ORDER BY urgent.n > 0 DESC, l.agent
-- name: request
-- One waiting request per agent is enough; a second wish joins it.
INSERT INTO perennial.jobs (job_id, agent, run_id, reason, mode, forced, requested_by)
SELECT %(job_id)s, %(agent)s, %(job_id)s::text, %(reason)s, %(mode)s, %(forced)s, %(requested_by)s
WHERE NOT EXISTS (SELECT 1 FROM perennial.jobs WHERE agent = %(agent)s AND status = 'pending' AND run_id = job_id::text)
-- name: waiting_request
SELECT job_id FROM perennial.jobs WHERE agent = %(agent)s AND status = 'pending' AND run_id = job_id::text ORDER BY created_at LIMIT 1
-- name: wake
SELECT pg_notify('perennial_due', %(agent)s)
