-- name: ensure_serving
INSERT INTO perennial.serving (agent) VALUES (%(agent)s) ON CONFLICT (agent) DO NOTHING
-- name: lock_serving
SELECT agent, champion, previous, candidate, weight, epoch, rollout_id, clock_timestamp() AS now
FROM perennial.serving WHERE agent = %(agent)s FOR UPDATE
-- name: serving
SELECT agent, champion, previous, candidate, weight, epoch, rollout_id FROM perennial.serving WHERE agent = %(agent)s
-- name: set_serving
UPDATE perennial.serving
SET champion = %(champion)s, previous = %(previous)s, candidate = %(candidate)s, weight = %(weight)s,
    rollout_id = %(rollout_id)s, epoch = epoch + 1, changed_at = clock_timestamp()
WHERE agent = %(agent)s
-- name: notify
SELECT pg_notify('perennial_serving', %(agent)s)
-- name: move_alias
-- nothing is written when the alias points there already
INSERT INTO perennial.alias_moves (agent, alias, version, actor, reason, job_id)
SELECT %(agent)s, %(alias)s, %(version)s::text, %(actor)s, %(reason)s,
       (SELECT job_id FROM perennial.versions WHERE agent = %(agent)s AND version = %(version)s::text)
WHERE (SELECT version FROM perennial.alias_moves WHERE agent = %(agent)s AND alias = %(alias)s ORDER BY id DESC LIMIT 1)
      IS DISTINCT FROM %(version)s::text
-- name: champions
SELECT version FROM (
    SELECT DISTINCT ON (version) version, id FROM perennial.alias_moves m
    WHERE agent = %(agent)s AND alias = 'champion' AND version IS NOT NULL
      -- a version whose files retention took can never be put back
      AND NOT EXISTS (SELECT FROM perennial.removed_bundles b WHERE b.agent = m.agent AND b.version = m.version)
    ORDER BY version, id DESC
) AS moves ORDER BY id DESC
-- name: reverted
-- not those that a person put back since: a champion's own move lies before its revert
SELECT version FROM (
    SELECT DISTINCT ON (version) version, state, ended_at FROM perennial.rollouts
    WHERE agent = %(agent)s ORDER BY version, id DESC
) AS latest WHERE state = 'reverted' AND NOT EXISTS (
    SELECT FROM perennial.alias_moves m
    WHERE m.agent = %(agent)s AND m.alias = 'champion' AND m.version = latest.version AND m.moved_at > latest.ended_at)
-- name: by_id
SELECT id, agent, version, previous, plan, state, step, weight, run_id, reason, started_at, step_at, full_at, ended_at,
       parked
FROM perennial.rollouts WHERE id = %(id)s
-- name: by_run
SELECT id, agent, version, previous, plan, state, step, weight, run_id, reason, started_at, step_at, full_at, ended_at,
       parked
FROM perennial.rollouts WHERE run_id = %(run_id)s AND agent = %(agent)s
-- name: latest
SELECT id, agent, version, previous, plan, state, step, weight, run_id, reason, started_at, step_at, full_at, ended_at,
       parked
FROM perennial.rollouts WHERE agent = %(agent)s ORDER BY id DESC LIMIT 1
-- name: of_version
SELECT id, agent, version, previous, plan, state, step, weight, run_id, reason, started_at, step_at, full_at, ended_at,
       parked
FROM perennial.rollouts WHERE agent = %(agent)s AND version = %(version)s ORDER BY id
-- name: serving_history
SELECT agent, champion, candidate, weight, epoch, changed_at FROM perennial.serving_history
WHERE agent = %(agent)s ORDER BY id
-- name: baking
SELECT id, agent, version, previous, plan, state, step, weight, run_id, reason, started_at, step_at, full_at, ended_at,
       parked
FROM perennial.rollouts WHERE state = 'baking' ORDER BY id
-- name: parked
SELECT id, agent, version, previous, plan, state, step, weight, run_id, reason, started_at, step_at, full_at, ended_at,
       parked
FROM perennial.rollouts WHERE parked IS NOT NULL AND state IN ('pending', 'shadow', 'canary') ORDER BY id
-- name: running
SELECT id, agent, version, previous, plan, state, step, weight, run_id, reason, started_at, step_at, full_at, ended_at,
       parked
FROM perennial.rollouts WHERE parked IS NULL AND state IN ('pending', 'shadow', 'canary') ORDER BY id
-- name: reverted_lately
-- statement_timestamp, since an index cannot be asked for a clock that goes on
SELECT id, agent, version, previous, plan, state, step, weight, run_id, reason, started_at, step_at, full_at, ended_at,
       parked
FROM perennial.rollouts
WHERE state = 'reverted' AND ended_at > statement_timestamp() - make_interval(secs => %(within)s) ORDER BY id
-- name: recent
SELECT id, agent, version, previous, plan, state, step, weight, run_id, reason, started_at, step_at, full_at, ended_at,
       parked
FROM perennial.rollouts WHERE agent = %(agent)s ORDER BY id DESC LIMIT %(limit)s
-- name: now
SELECT clock_timestamp() AS now
-- name: in_play
-- what a change of serving may touch: open rollouts, and the last one of the present champion
SELECT id, agent, version, previous, plan, state, step, weight, run_id, reason, started_at, step_at, full_at, ended_at,
       parked
FROM perennial.rollouts r
WHERE agent = %(agent)s AND (
    state IN ('pending', 'shadow', 'canary', 'baking')
    OR (state IN ('done', 'reverted') AND version = %(champion)s::text
        AND id = (SELECT max(id) FROM perennial.rollouts WHERE agent = %(agent)s AND version = %(champion)s::text))
) ORDER BY id
-- name: cut_short
-- former champions whose bake a newer one ended, by the last rollout of each version
SELECT id, agent, version, previous, plan, state, step, weight, run_id, reason, started_at, step_at, full_at, ended_at,
       parked
FROM perennial.rollouts r
WHERE agent = %(agent)s AND state = 'superseded' AND full_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM perennial.rollouts n WHERE n.agent = r.agent AND n.version = r.version AND n.id > r.id)
ORDER BY id DESC LIMIT 100
-- name: insert_rollout
INSERT INTO perennial.rollouts (agent, version, previous, plan, state, step, weight, run_id, started_at, step_at)
VALUES (%(agent)s, %(version)s, %(previous)s, %(plan)s, 'pending', 0, 0, %(run_id)s, %(now)s, %(now)s)
RETURNING id, agent, version, previous, plan, state, step, weight, run_id, reason, started_at, step_at, full_at, ended_at, parked
-- name: update_rollout
UPDATE perennial.rollouts
SET state = %(state)s, step = %(step)s, weight = %(weight)s, reason = %(reason)s, step_at = %(step_at)s,
    full_at = %(full_at)s, ended_at = %(ended_at)s, parked = %(parked)s, previous = %(previous)s
WHERE id = %(id)s
-- name: seconds
SELECT extract(epoch FROM clock_timestamp() - step_at)::float8 AS on_step,
       -- a bake that goes on after a newer champion went back counts from there
       extract(epoch FROM clock_timestamp() - CASE WHEN state = 'baking' THEN step_at ELSE full_at END)::float8 AS since_full
FROM perennial.rollouts WHERE id = %(id)s
-- name: add_look
INSERT INTO perennial.rollout_looks (rollout_id, state, step, action, reason, evidence)
SELECT id, state, step, %(action)s, %(reason)s, %(evidence)s FROM perennial.rollouts WHERE id = %(id)s
-- name: looks
SELECT state, step, action, reason, evidence, at FROM perennial.rollout_looks WHERE rollout_id = %(id)s ORDER BY id
-- name: stats
WITH answers AS (
    SELECT error, latency_ms, at FROM perennial.predictions
    WHERE agent = %(agent)s AND version = %(version)s AND arm <> 'shadow'
      AND at >= coalesce(%(since)s::timestamptz, '-infinity')
    ORDER BY at DESC LIMIT %(last)s
), judged AS (
    -- with late labels only outcomes of answers that are old enough: the first to be told are no fair sample
    SELECT correct FROM perennial.outcomes o
    WHERE agent = %(agent)s AND version = %(version)s AND at >= coalesce(%(since)s::timestamptz, '-infinity')
      AND (%(label_delay)s::float8 = 0 OR EXISTS (
          SELECT 1 FROM perennial.predictions p WHERE p.prediction_id = o.prediction_id
          AND p.at <= clock_timestamp() - make_interval(secs => %(label_delay)s::float8)))
    ORDER BY at DESC LIMIT %(last)s
)
SELECT
    (SELECT count(*) FROM answers) AS answers,
    (SELECT count(*) FROM answers WHERE error IS NOT NULL) AS errors,
    (SELECT count(*) FROM answers
     WHERE at > coalesce((SELECT max(at) FROM answers WHERE error IS NULL), '-infinity')) AS trailing_errors,
    (SELECT percentile_cont(0.50) WITHIN GROUP (ORDER BY latency_ms::float8) FROM answers WHERE error IS NULL) AS p50_ms,
    (SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms::float8) FROM answers WHERE error IS NULL) AS p95_ms,
    (SELECT count(*) FROM judged) AS outcomes,
    (SELECT coalesce(sum(correct::float8), 0) FROM judged) AS correct_sum,
    (SELECT (evidence ->> 'agreement')::float8 FROM perennial.rollout_looks l
     JOIN perennial.rollouts r ON r.id = l.rollout_id
     WHERE r.agent = %(agent)s AND r.version = %(version)s AND evidence ? 'agreement'
     ORDER BY l.id DESC LIMIT 1) AS agreement
-- name: slices
SELECT task || ': ' || label AS name, count(*)::integer AS outcomes, sum(correct::float8) AS correct_sum FROM (
    SELECT task, actual #>> '{}' AS label, correct FROM perennial.outcomes o
    WHERE agent = %(agent)s AND version = %(version)s AND at >= coalesce(%(since)s::timestamptz, '-infinity')
      AND jsonb_typeof(actual) = 'string' AND length(actual #>> '{}') <= 100
      AND (%(label_delay)s::float8 = 0 OR EXISTS (
          SELECT 1 FROM perennial.predictions p WHERE p.prediction_id = o.prediction_id
          AND p.at <= clock_timestamp() - make_interval(secs => %(label_delay)s::float8)))
    ORDER BY at DESC LIMIT %(last)s
) newest GROUP BY task, label
-- name: add_report
-- the version is that of the answer, or the one named if it ever was in a rollout of this agent; both are one where both are known
INSERT INTO perennial.quality_reports (report_id, agent, version, prediction_id, kind, reporter)
SELECT %(report_id)s, %(agent)s, named.version, %(prediction_id)s, %(kind)s, %(reporter)s
FROM (
    SELECT version FROM perennial.predictions
    WHERE prediction_id = %(prediction_id)s::uuid AND agent = %(agent)s
    UNION
    SELECT version FROM perennial.rollouts
    WHERE agent = %(agent)s AND version = %(version)s::text
) named
ON CONFLICT (report_id) DO NOTHING RETURNING report_id
-- name: known_report
SELECT 1 AS known FROM perennial.quality_reports WHERE report_id = %(report_id)s
-- name: reporters
SELECT count(DISTINCT reporter)::integer AS people FROM perennial.quality_reports
WHERE agent = %(agent)s AND version = %(version)s AND at > clock_timestamp() - make_interval(secs => %(within)s)
-- name: reset_breaker
INSERT INTO perennial.breaker_resets (agent, actor, reason) VALUES (%(agent)s, %(actor)s, %(reason)s)
-- name: breaker_reset
SELECT max(at) AS at FROM perennial.breaker_resets WHERE agent = %(agent)s
-- name: recent_inputs
SELECT task, input_text AS text FROM perennial.recent_inputs WHERE agent = %(agent)s ORDER BY at DESC LIMIT %(limit)s
-- name: judged_inputs
SELECT i.task, i.input_text AS text, o.actual, o.correct
FROM perennial.outcomes o JOIN perennial.recent_inputs i USING (prediction_id)
WHERE o.agent = %(agent)s AND o.version = %(version)s AND o.at >= %(since)s
ORDER BY o.at DESC LIMIT %(limit)s
-- name: error_rates
SELECT task, count(*)::integer AS judged, avg(1 - correct::float8) AS rate FROM (
    SELECT task, correct FROM perennial.outcomes
    WHERE agent = %(agent)s AND version = %(version)s ORDER BY at DESC LIMIT %(last)s
) newest GROUP BY task ORDER BY rate DESC, task
-- name: gateways
SELECT instance, agent, champion, previous, candidate, weight, epoch, error,
       extract(epoch FROM clock_timestamp() - seen_at)::float8 AS age
FROM perennial.gateways
WHERE agent = %(agent)s AND seen_at > clock_timestamp() - make_interval(secs => %(within)s)
ORDER BY instance
