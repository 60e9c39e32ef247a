-- name: tallies
-- Rows by task and state, each (agent, state) counted up to a limit: every part walks a partial index and stops, whatever the buffer holds.
SELECT a.agent, found.task, found.state, count(*)::integer AS rows
FROM unnest(%(agents)s::text[]) AS a (agent) CROSS JOIN LATERAL (
    (SELECT task, 'raw' AS state FROM perennial.examples WHERE agent = a.agent AND state = 'raw' LIMIT %(most)s)
    UNION ALL
    (SELECT task, 'ready' FROM perennial.examples WHERE agent = a.agent AND state = 'ready' AND NOT holdout LIMIT %(most)s)
    UNION ALL
    (SELECT task, 'holdout' FROM perennial.examples WHERE agent = a.agent AND state = 'ready' AND holdout LIMIT %(most)s)
    UNION ALL
    (SELECT e.task, 'claimed' FROM perennial.jobs j JOIN perennial.examples e ON e.job_id = j.job_id AND e.state = 'claimed'
     WHERE j.agent = a.agent AND j.status IN ('validating', 'training', 'evaluating') LIMIT %(most)s)
    UNION ALL
    (SELECT task, 'unlabelled' FROM perennial.examples WHERE agent = a.agent AND state = 'unlabelled' LIMIT %(most)s)
    UNION ALL
    (SELECT task, 'quarantined' FROM perennial.examples WHERE agent = a.agent AND state = 'quarantined' LIMIT %(most)s)
    UNION ALL
    (SELECT task, 'held' FROM perennial.examples WHERE agent = a.agent AND state = 'held' LIMIT %(most)s)
    UNION ALL
    (SELECT t.task, 'trained' FROM perennial.tasks t CROSS JOIN LATERAL (
        SELECT 1 FROM perennial.examples e WHERE e.agent = t.agent AND e.task = t.task AND e.state = 'trained' LIMIT %(most)s) AS one
     WHERE t.agent = a.agent AND t.alias_of IS NULL)
) AS found
GROUP BY a.agent, found.task, found.state
-- name: serving
SELECT s.agent, s.champion, s.candidate, s.weight::float8 AS weight, m.moved_at AS since, m.actor, m.reason
FROM perennial.serving s LEFT JOIN LATERAL (
    SELECT moved_at, actor, reason FROM perennial.alias_moves
    WHERE agent = s.agent AND alias = 'champion' ORDER BY id DESC LIMIT 1) AS m ON true
WHERE s.agent = ANY (%(agents)s)
-- name: rollouts
SELECT r.* FROM unnest(%(agents)s::text[]) AS a (agent) CROSS JOIN LATERAL (
    SELECT agent, version, state, reason FROM perennial.rollouts WHERE agent = a.agent ORDER BY id DESC LIMIT 1) AS r
-- name: verdicts
-- without the report itself, which is large
SELECT g.* FROM unnest(%(agents)s::text[]) AS a (agent) CROSS JOIN LATERAL (
    SELECT agent, job_id, attempt, action, coalesce(report ->> 'summary', '') AS summary, created_at AS at FROM perennial.gate_reports
    WHERE agent = a.agent ORDER BY id DESC LIMIT %(limit)s) AS g
-- name: trend
SELECT p.* FROM unnest(%(agents)s::text[]) AS a (agent) CROSS JOIN LATERAL (
    SELECT id, agent_name AS agent, version, accuracy_after AS score, rollback_triggered AS refused, update_timestamp AS at
    FROM perennial.performance_history WHERE agent_name = a.agent ORDER BY id DESC LIMIT %(limit)s) AS p
ORDER BY p.id
-- name: versions
SELECT version, base_version AS base, job_id, created_at AS at, coalesce(manifest ->> 'reason', '') AS reason,
       coalesce(manifest ->> 'mode', '') AS mode, coalesce(manifest ->> 'gate_action', '') AS gate
FROM perennial.versions WHERE agent = %(agent)s ORDER BY ordinal DESC LIMIT %(limit)s
