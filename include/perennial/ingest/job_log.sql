-- name: recent
SELECT job_id, run_id, status::text AS status, reason, example_count, version, note, cost,
       status IN ('completed', 'failed', 'cancelled') AS finished
FROM perennial.jobs
WHERE agent = %(agent)s AND created_at > clock_timestamp() - make_interval(secs => %(seconds)s)
ORDER BY created_at DESC
-- name: of_version
SELECT job_id, run_id, status::text AS status, reason, example_count, version, note, cost,
       status IN ('completed', 'failed', 'cancelled') AS finished
FROM perennial.jobs WHERE agent = %(agent)s AND version = %(version)s
ORDER BY created_at DESC LIMIT 1
-- name: add_cost
UPDATE perennial.jobs SET cost = cost || %(cost)s WHERE job_id = %(job_id)s AND attempt = %(attempt)s
-- name: relay_batch
-- The sinks of this deployment get each announcement at least once: it counts as relayed after they took it.
SELECT id, batch_id, topic, agent, payload FROM perennial.outbox
WHERE relayed_at IS NULL ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
-- name: relayed
UPDATE perennial.outbox SET relayed_at = clock_timestamp() WHERE id = ANY(%(ids)s)
