-- name: open_intake
SELECT perennial.open_intake()
-- name: add_one
-- One row: staged and taken in by one statement each, in the caller's transaction.
INSERT INTO pg_temp.perennial_staged VALUES (
    %(ordinal)s, %(example_id)s, %(agent)s, %(task)s, %(input_text)s, %(expected)s::jsonb, %(predicted)s::jsonb, %(feedback)s,
    %(uncertainty)s, %(importance)s, %(priority)s, %(source)s, %(source_url)s, %(source_id)s, %(tag)s, %(correction)s,
    %(plain)s, %(exact)s, %(created_at)s)
-- name: copy_rows
COPY pg_temp.perennial_staged FROM STDIN (FORMAT binary)
-- name: measure_intake
-- Tells the planner how many rows were staged; one narrow column, so it stays cheap.
ANALYZE pg_temp.perennial_staged (ordinal)
-- name: take_in
SELECT perennial.take_in(%(announce)s) AS outcome
-- name: stored_ids
SELECT ordinal, example_id FROM perennial.stored_ids() ORDER BY ordinal
-- name: withdraw
-- A row that stands under its own id as overtaken was taken back by its sender. What is being trained or was trained is only marked.
UPDATE perennial.examples SET superseded_by = example_id,
    state = CASE WHEN state IN ('raw', 'ready', 'unlabelled', 'held') THEN 'superseded' ELSE state END,
    reason = CASE WHEN state IN ('raw', 'ready', 'unlabelled', 'held') THEN 'corrected' ELSE reason END
WHERE example_id = ANY (%(ids)s) AND superseded_by IS NULL AND state NOT IN ('superseded', 'evicted', 'purged')
-- name: bring_back
-- Not where a correction holds by now.
UPDATE perennial.examples o SET superseded_by = NULL, reason = CASE WHEN o.state = 'superseded' THEN '' ELSE o.reason END,
    state = CASE WHEN o.state <> 'superseded' THEN o.state WHEN o.label_digest = '' THEN 'unlabelled'
                 WHEN o.admitted_at IS NULL THEN 'raw' ELSE 'ready' END::perennial.example_state
WHERE o.example_id = ANY (%(ids)s) AND o.superseded_by = o.example_id AND o.state NOT IN ('evicted', 'purged')
  AND NOT EXISTS (SELECT FROM perennial.examples c WHERE c.input_digest = o.input_digest AND c.correction
                    AND c.state NOT IN ('quarantined', 'purged', 'evicted', 'superseded') AND c.id <> o.id)
-- name: advance_offset
-- No row comes back when the source was already read beyond this position: the caller must then do nothing.
INSERT INTO perennial.source_offsets AS o (source, part, position, digest, finished)
VALUES (%(source)s, %(part)s, %(position)s, %(digest)s, %(finished)s)
ON CONFLICT (source, part) DO UPDATE SET position = excluded.position, digest = excluded.digest, finished = excluded.finished,
    updated_at = clock_timestamp()
WHERE o.position < excluded.position OR (o.position = excluded.position AND excluded.finished AND NOT o.finished)
RETURNING position
-- name: offset
SELECT source, part, position, digest, finished FROM perennial.source_offsets WHERE source = %(source)s AND part = %(part)s
-- name: reject
INSERT INTO perennial.rejected (source, part, position, field, reason, raw)
VALUES (%(source)s, %(part)s, %(position)s, %(field)s, %(reason)s, %(raw)s) ON CONFLICT DO NOTHING
-- name: count
SELECT perennial.add_to_counter(%(agent)s, %(name)s, %(amount)s)
-- name: counters
SELECT agent, name, value FROM perennial.counters ORDER BY agent, name
-- name: fleet
SELECT t.agent, t.task AS name, coalesce(t.alias_of, t.task) AS task, t.kind, t.labels, t.max_length
FROM perennial.tasks t JOIN perennial.agents a USING (agent) WHERE a.active ORDER BY t.agent, t.task
-- name: synced
-- The active agents as they were last written, in the form of what is to be written.
SELECT a.agent, a.record, a.file_digest, a.update_threshold, a.max_buffer_size, a.holdout_share,
       coalesce((SELECT json_agg(json_build_object('task', t.task, 'alias_of', t.alias_of, 'kind', t.kind, 'labels', t.labels,
                                                   'max_length', t.max_length) ORDER BY t.task COLLATE "C")
                 FROM perennial.tasks t WHERE t.agent = a.agent), '[]'::json) AS tasks
FROM perennial.agents a WHERE a.active
-- name: lock_sync
SELECT pg_advisory_xact_lock(720722)
-- name: sync_agent
INSERT INTO perennial.agents (agent, record, file_digest, update_threshold, max_buffer_size, holdout_share)
VALUES (%(agent)s, %(record)s, %(file_digest)s, %(update_threshold)s, %(max_buffer_size)s, %(holdout_share)s)
ON CONFLICT (agent) DO UPDATE SET record = excluded.record, file_digest = excluded.file_digest,
    update_threshold = excluded.update_threshold, max_buffer_size = excluded.max_buffer_size,
    holdout_share = excluded.holdout_share, active = true, synced_at = clock_timestamp()
WHERE (agents.record, agents.file_digest, agents.update_threshold, agents.max_buffer_size, agents.holdout_share, agents.active)
    IS DISTINCT FROM
    (excluded.record, excluded.file_digest, excluded.update_threshold, excluded.max_buffer_size, excluded.holdout_share, true)
-- name: sync_task
INSERT INTO perennial.tasks (agent, task, alias_of, kind, labels, max_length)
VALUES (%(agent)s, %(task)s, %(alias_of)s, %(kind)s, %(labels)s, %(max_length)s)
ON CONFLICT (agent, task) DO UPDATE SET alias_of = excluded.alias_of, kind = excluded.kind, labels = excluded.labels,
    max_length = excluded.max_length
WHERE (tasks.alias_of, tasks.kind, tasks.labels, tasks.max_length)
    IS DISTINCT FROM (excluded.alias_of, excluded.kind, excluded.labels, excluded.max_length)
-- name: drop_tasks
DELETE FROM perennial.tasks WHERE agent = %(agent)s AND task <> ALL (%(names)s)
-- name: retire_agents
UPDATE perennial.agents SET active = false, synced_at = clock_timestamp() WHERE active AND agent <> ALL (%(names)s)
-- name: override
-- What a constructor was given beats what another process has in its environment.
INSERT INTO perennial.overrides (name, value, set_by) VALUES (%(name)s, %(value)s, %(set_by)s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, set_by = excluded.set_by, set_at = clock_timestamp()
WHERE NOT (excluded.set_by LIKE 'environment%%' AND overrides.set_by LIKE 'constructor%%')
-- name: drop_override
DELETE FROM perennial.overrides WHERE name = %(name)s
-- name: overrides
SELECT name, value FROM perennial.overrides
