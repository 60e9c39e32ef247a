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
-- name: training_seconds
-- Seconds of the steps that train, of jobs that began within the last week.
SELECT coalesce(sum(seconds), 0)::float8 AS week,
       coalesce(sum(seconds) FILTER (WHERE began > clock_timestamp() - interval '24 hours'), 0)::float8 AS day
FROM (
    SELECT coalesce(j.started_at, j.created_at) AS began, (c.value #>> '{}')::float8 AS seconds
    FROM perennial.jobs j CROSS JOIN LATERAL jsonb_each(j.cost) c
    WHERE j.agent = %(agent)s AND j.created_at > clock_timestamp() - interval '8 days' AND starts_with(c.key, 'train.')
) steps WHERE began > clock_timestamp() - interval '7 days'
-- name: standings
-- Per active agent: how its newest training ended, and a training whose lease ran out.
SELECT a.agent, last.status::text AS last_status, last.note AS last_note, last.job_id AS last_job,
       stuck.job_id AS stuck_job, extract(epoch FROM clock_timestamp() - stuck.lease_until)::float8 AS stuck_seconds
FROM perennial.agents a
LEFT JOIN LATERAL (SELECT j.status, j.note, j.job_id FROM perennial.jobs j
    WHERE j.agent = a.agent AND j.status IN ('completed', 'failed') ORDER BY j.created_at DESC LIMIT 1) last ON true
LEFT JOIN LATERAL (SELECT j.job_id, j.lease_until FROM perennial.jobs j
    WHERE j.agent = a.agent AND j.status IN ('validating', 'training', 'evaluating') AND j.lease_until < clock_timestamp()
    LIMIT 1) stuck ON true
WHERE a.active ORDER BY a.agent
-- name: relay_batch
-- The sinks of this deployment get each announcement at least once: it counts as relayed after they took it.
SELECT id, batch_id, topic, agent, payload FROM perennial.outbox
WHERE relayed_at IS NULL ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
-- name: relayed
UPDATE perennial.outbox SET relayed_at = clock_timestamp() WHERE id = ANY(%(ids)s)
