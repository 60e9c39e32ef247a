-- name: reserve_order
SELECT nextval(pg_get_serial_sequence('perennial.versions', 'ordinal')) AS reserved
-- name: lock_agent
-- one writer of an agent's releases and aliases at a time; freed with the transaction
SELECT pg_advisory_xact_lock(hashtextextended('perennial.registry:' || %(agent)s, 0))
-- name: record_version
INSERT INTO perennial.versions
    (ordinal, agent, version, digest, base_version, job_id, uri, mlflow_run_id, manifest)
OVERRIDING SYSTEM VALUE
VALUES (%(order)s, %(agent)s, %(version)s, %(digest)s, %(base_version)s, %(job_id)s, %(uri)s, %(mlflow_run_id)s, %(manifest)s)
ON CONFLICT DO NOTHING
RETURNING ordinal
-- name: record_examples
INSERT INTO perennial.version_examples (agent, version, task, role, ids)
VALUES (%(agent)s, %(version)s, %(task)s, %(role)s, %(ids)s)
ON CONFLICT DO NOTHING
-- name: uses_of_example
SELECT e.agent, e.version, e.task, e.role, v.created_at AS released_at
FROM perennial.version_examples e JOIN perennial.versions v USING (agent, version)
WHERE e.ids @> ARRAY[%(example_id)s]::uuid[]
ORDER BY v.ordinal, e.task, e.role
-- name: examples_of_version
SELECT e.agent, e.version, e.task, e.role, i.example_id, v.created_at AS released_at
FROM perennial.version_examples e JOIN perennial.versions v USING (agent, version)
CROSS JOIN LATERAL unnest(e.ids) WITH ORDINALITY AS i (example_id, place)
WHERE e.agent = %(agent)s AND e.version = %(version)s
ORDER BY e.task, e.role, i.place
-- name: clashes
-- what keeps a new row out: the same version, the same bytes, the same place in time, or a later one
SELECT version, digest, ordinal FROM perennial.versions
WHERE ordinal = %(order)s OR (agent = %(agent)s AND (version = %(version)s OR digest = %(digest)s OR ordinal > %(order)s))
ORDER BY ordinal
-- name: version
SELECT ordinal, agent, version, digest, base_version, job_id, uri, mlflow_run_id, manifest, created_at
FROM perennial.versions WHERE agent = %(agent)s AND version = %(version)s
-- name: version_of_job
SELECT ordinal, agent, version, digest, base_version, job_id, uri, mlflow_run_id, manifest, created_at
FROM perennial.versions WHERE job_id = %(job_id)s ORDER BY ordinal DESC LIMIT 1
-- name: versions
SELECT ordinal, agent, version, digest, base_version, job_id, uri, mlflow_run_id, manifest, created_at
FROM perennial.versions WHERE agent = %(agent)s ORDER BY ordinal DESC
-- name: version_names
SELECT version FROM perennial.versions WHERE agent = %(agent)s
-- name: agents
SELECT DISTINCT agent FROM perennial.versions ORDER BY agent
-- name: newest_unserved
-- the newest release alone: an older one that never met traffic must not follow a newer one
SELECT ordinal, agent, version, digest, base_version, job_id, uri, mlflow_run_id, manifest, created_at
FROM perennial.versions v
WHERE agent = %(agent)s
  AND ordinal = (SELECT max(ordinal) FROM perennial.versions WHERE agent = %(agent)s)
  -- a rollout whose run was gone before any traffic leaves the release waiting, a few times
  AND NOT EXISTS (
    SELECT FROM perennial.rollouts r WHERE r.agent = v.agent AND r.version = v.version
    AND NOT (r.state = 'reverted' AND r.full_at IS NULL AND starts_with(r.reason, %(lost)s)))
  AND (SELECT count(*) FROM perennial.rollouts r WHERE r.agent = v.agent AND r.version = v.version) < %(tries)s
  AND NOT EXISTS (
    SELECT FROM perennial.alias_moves m WHERE m.agent = v.agent AND m.alias = 'champion' AND m.version = v.version)
-- name: alias
SELECT agent, alias, version, actor, reason, job_id, moved_at FROM perennial.alias_moves
WHERE agent = %(agent)s AND alias = %(alias)s ORDER BY id DESC LIMIT 1
-- name: move_alias
INSERT INTO perennial.alias_moves (agent, alias, version, actor, reason, job_id)
VALUES (%(agent)s, %(alias)s, %(version)s, %(actor)s, %(reason)s, %(job_id)s)
-- name: moves
SELECT agent, alias, version, actor, reason, job_id, moved_at FROM perennial.alias_moves
WHERE agent = %(agent)s ORDER BY id DESC LIMIT %(limit)s
-- name: first_move
-- One change writes the champion's move before the candidate's.
SELECT agent, alias, version, actor, reason, job_id, moved_at FROM perennial.alias_moves
WHERE agent = %(agent)s AND reason = %(reason)s AND moved_at >= %(since)s ORDER BY id LIMIT 1
-- name: promoted_since
-- Moves are written in the order of their time, so the primary key walks back over the new ones alone; and over some more, because
-- two that are written in one moment may change places.
SELECT DISTINCT agent FROM perennial.alias_moves
WHERE id > coalesce((SELECT id FROM perennial.alias_moves WHERE moved_at <= %(time)s ORDER BY id DESC LIMIT 1), 0) - 1000
  AND alias = 'champion' AND version IS NOT NULL AND moved_at > %(time)s
-- name: ever_served
SELECT EXISTS (
  SELECT FROM perennial.alias_moves WHERE agent = %(agent)s AND alias = 'champion' AND version IS NOT NULL) AS yes
-- name: served_at
SELECT agent, alias, version, actor, reason, job_id, moved_at FROM perennial.alias_moves
WHERE agent = %(agent)s AND alias = 'champion' AND moved_at <= %(time)s ORDER BY id DESC LIMIT 1
-- name: add_gate_report
INSERT INTO perennial.gate_reports (agent, job_id, attempt, content_digest, action, report)
VALUES (%(agent)s, %(job_id)s, %(attempt)s, %(content_digest)s, %(action)s, %(report)s)
ON CONFLICT (job_id, attempt) DO NOTHING
-- name: gate_report_of_attempt
SELECT agent, job_id, attempt, content_digest, action, report, created_at FROM perennial.gate_reports
WHERE job_id = %(job_id)s AND attempt = %(attempt)s
-- name: gate_report
SELECT agent, job_id, attempt, content_digest, action, report, created_at FROM perennial.gate_reports
WHERE job_id = %(job_id)s ORDER BY attempt DESC LIMIT 1
-- name: gate_reports
SELECT agent, job_id, attempt, content_digest, action, report, created_at FROM perennial.gate_reports
WHERE agent = %(agent)s ORDER BY id DESC LIMIT %(limit)s
-- name: judgements
SELECT attempt, content_digest, action, created_at FROM perennial.gate_reports WHERE job_id = %(job_id)s ORDER BY attempt
-- name: ask
INSERT INTO perennial.approval_questions (agent, job_id, attempt, content_digest, version, requested_by, body_digest)
VALUES (%(agent)s, %(job_id)s, %(attempt)s, %(content_digest)s, %(version)s, %(requested_by)s, %(body_digest)s)
ON CONFLICT (job_id, attempt) DO NOTHING
-- name: question_of_attempt
SELECT agent, job_id, attempt, content_digest, version, requested_by, body_digest, asked_at
FROM perennial.approval_questions WHERE job_id = %(job_id)s AND attempt = %(attempt)s
-- name: questions
SELECT agent, job_id, attempt, content_digest, version, requested_by, body_digest, asked_at
FROM perennial.approval_questions
WHERE (%(agent)s::text IS NULL OR agent = %(agent)s::text) AND (%(job_id)s::uuid IS NULL OR job_id = %(job_id)s::uuid)
ORDER BY id DESC LIMIT %(limit)s
-- name: add_approval
INSERT INTO perennial.approvals
    (agent, job_id, attempt, content_digest, version, decision, actor, requested_by, void, comment, expires_at)
VALUES (%(agent)s, %(job_id)s, %(attempt)s, %(content_digest)s, %(version)s, %(decision)s, %(actor)s, %(requested_by)s,
        %(void)s, %(comment)s, clock_timestamp() + make_interval(secs => %(seconds)s))
RETURNING id, agent, job_id, attempt, content_digest, version, decision, actor, requested_by, void, comment, expires_at, created_at
-- name: decisions
SELECT id, agent, job_id, attempt, content_digest, version, decision, actor, requested_by, void, comment, expires_at, created_at
FROM perennial.approvals
WHERE (%(agent)s::text IS NULL OR agent = %(agent)s::text) AND (%(job_id)s::uuid IS NULL OR job_id = %(job_id)s::uuid)
ORDER BY id DESC LIMIT %(limit)s
-- name: now
SELECT clock_timestamp() AS now
-- name: add_validation
INSERT INTO perennial.validations (agent, job_id, attempt, task, success, report)
VALUES (%(agent)s, %(job_id)s, %(attempt)s, %(task)s, %(success)s, %(report)s)
ON CONFLICT (job_id, attempt, task) DO NOTHING
-- name: validations
SELECT agent, job_id, attempt, task, success, report, created_at FROM perennial.validations
WHERE job_id = %(job_id)s ORDER BY attempt, task
-- name: recent_validations
SELECT agent, job_id, attempt, task, success, report, created_at FROM perennial.validations
WHERE agent = %(agent)s ORDER BY id DESC LIMIT %(limit)s
