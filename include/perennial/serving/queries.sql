-- name: serving
SELECT agent, champion, previous, candidate, weight, epoch, rollout_id FROM perennial.serving ORDER BY agent
-- name: tasks
SELECT t.agent, t.task AS name, coalesce(t.alias_of, t.task) AS task, t.kind, t.max_length, t.labels, a.holdout_share
FROM perennial.tasks t JOIN perennial.agents a USING (agent) WHERE a.active
-- name: heartbeat
INSERT INTO perennial.gateways (instance, agent, champion, previous, candidate, weight, epoch, error)
VALUES (%(instance)s, %(agent)s, %(champion)s, %(previous)s, %(candidate)s, %(weight)s, %(epoch)s, %(error)s)
ON CONFLICT (instance, agent) DO UPDATE
SET champion = excluded.champion, previous = excluded.previous, candidate = excluded.candidate,
    weight = excluded.weight, epoch = excluded.epoch, error = excluded.error, seen_at = clock_timestamp()
-- name: add_prediction
INSERT INTO perennial.predictions
    (prediction_id, agent, task, version, arm, input_digest, output, confidence, latency_ms, error)
VALUES (%(prediction_id)s, %(agent)s, %(task)s, %(version)s, %(arm)s, %(input_digest)s, %(output)s, %(confidence)s,
        %(latency_ms)s, %(error)s)
ON CONFLICT (prediction_id) DO NOTHING
-- name: add_input
INSERT INTO perennial.recent_inputs (prediction_id, agent, task, input_text)
VALUES (%(prediction_id)s, %(agent)s, %(task)s, %(text)s) ON CONFLICT (prediction_id) DO NOTHING
-- name: prune_inputs
DELETE FROM perennial.recent_inputs
WHERE agent = %(agent)s AND (
    at < clock_timestamp() - make_interval(hours => %(hours)s)
    OR at <= (SELECT at FROM perennial.recent_inputs WHERE agent = %(agent)s ORDER BY at DESC OFFSET %(keep)s LIMIT 1)
)
-- name: answered
SELECT p.prediction_id, p.agent, p.task, p.version, p.arm, p.input_digest, p.output, p.confidence, p.latency_ms, p.error,
       i.input_text AS text
FROM perennial.predictions p LEFT JOIN perennial.recent_inputs i USING (prediction_id)
WHERE p.prediction_id = ANY(%(ids)s)
-- name: known_outcomes
SELECT prediction_id, actual FROM perennial.outcomes WHERE prediction_id = ANY(%(ids)s)
-- name: forget_outcomes
DELETE FROM perennial.outcomes WHERE prediction_id = ANY(%(ids)s)
-- name: add_outcome
INSERT INTO perennial.outcomes (prediction_id, agent, task, version, arm, actual, correct)
VALUES (%(prediction_id)s, %(agent)s, %(task)s, %(version)s, %(arm)s, %(actual)s, %(correct)s)
ON CONFLICT (prediction_id) DO NOTHING
