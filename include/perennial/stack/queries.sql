-- What the embedded stack does to its own server. Words in braces are filled in by psycopg.sql, which quotes them.

-- name: roles
SELECT rolname FROM pg_roles

-- name: make_role
CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {password}

-- name: change_role
ALTER ROLE {role} PASSWORD {password}

-- name: databases
SELECT datname FROM pg_database

-- name: make_database
CREATE DATABASE {database} OWNER {owner}

-- name: close_database
REVOKE ALL ON DATABASE {database} FROM PUBLIC

-- name: open_database
GRANT CONNECT, TEMPORARY ON DATABASE perennial TO {role}

-- name: is_closed
-- To everybody; and ours is open to our roles.
SELECT NOT has_database_privilege('public', %(database)s, 'CONNECT, TEMPORARY, CREATE')
    AND (%(database)s <> 'perennial' OR (SELECT bool_and(has_database_privilege(r, 'perennial', p))
        FROM unnest('{perennial_app,perennial_admit}'::text[]) r, unnest('{CONNECT,TEMPORARY}'::text[]) p)) AS yes

-- name: may_act_as
-- Before version 16 every member could.
SELECT CASE WHEN current_setting('server_version_num')::integer < 160000 THEN pg_has_role(%(role)s, 'MEMBER')
    ELSE pg_has_role(%(role)s, 'SET') END

-- name: join_role
GRANT {role} TO CURRENT_USER

-- name: leave_role
REVOKE {role} FROM CURRENT_USER

-- name: note_of_database
SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()

-- name: write_note
COMMENT ON DATABASE airflow IS {note}

-- name: forget_jobs
UPDATE job SET state = 'failed', end_date = now() WHERE job_type = %(job_type)s AND state = 'running'

-- name: why_not_training
-- Per agent, by probes that stop at their limit: what waits, what runs, how the last training ended.
SELECT l.agent, l.update_threshold AS threshold, waiting.n AS waiting, urgent.yes AS urgent, held.n AS held,
       running.job_id::text AS job_id, running.run_id, running.status::text AS status, running.alive, running.seconds AS running_seconds,
       last.status::text AS last_status, last.note AS last_note, last.seconds AS last_seconds
FROM perennial.limits l
CROSS JOIN LATERAL (SELECT count(*)::integer AS n FROM (
    SELECT 1 FROM perennial.examples e
    WHERE e.agent = l.agent AND e.state IN ('raw', 'ready') AND e.job_id IS NULL LIMIT l.update_threshold) w) waiting
CROSS JOIN LATERAL (SELECT EXISTS (SELECT 1 FROM perennial.examples e
    WHERE e.agent = l.agent AND e.state IN ('raw', 'ready') AND e.job_id IS NULL AND e.priority >= 2) AS yes) urgent
CROSS JOIN LATERAL (SELECT count(*)::integer AS n FROM (
    SELECT 1 FROM perennial.examples e WHERE e.agent = l.agent AND e.state IN ('held', 'quarantined') LIMIT 1000) h) held
LEFT JOIN LATERAL (SELECT j.job_id, j.run_id, j.status, j.lease_until >= clock_timestamp() AS alive,
           extract(epoch FROM clock_timestamp() - j.started_at)::float AS seconds
    FROM perennial.jobs j WHERE j.agent = l.agent AND j.status IN ('validating', 'training', 'evaluating') LIMIT 1) running ON true
LEFT JOIN LATERAL (SELECT j.status, j.note, extract(epoch FROM clock_timestamp() - j.completed_at)::float AS seconds
    FROM perennial.jobs j WHERE j.agent = l.agent AND j.status IN ('completed', 'failed', 'cancelled')
    ORDER BY j.created_at DESC LIMIT 1) last ON true
WHERE l.active ORDER BY l.agent

-- name: is_ours
SELECT to_regclass('perennial.rollouts') IS NOT NULL AND to_regclass('perennial.jobs') IS NOT NULL AS made

-- name: try_upgrade_lock
SELECT pg_try_advisory_lock(720724, 0) AS taken

-- name: busy
-- What a change of tables must not meet. A bake is no open rollout: nothing is decided in it but a way back.
SELECT agent || ' ' || version || ' is in rollout (' || state || coalesce(', parked: ' || parked, '') || ')' AS what
FROM perennial.rollouts WHERE state IN ('pending', 'shadow', 'canary')
UNION ALL
SELECT agent || ' trains (job ' || job_id || ', ' || status::text || ')' FROM perennial.jobs
WHERE status IN ('validating', 'training', 'evaluating') AND lease_until >= clock_timestamp()
ORDER BY what

-- name: one_view
BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: export_view
SELECT pg_export_snapshot()

-- name: now
SELECT clock_timestamp()

-- name: example_counts
-- Everything that was ever acknowledged is in one of these states, so equal counts mean that no row is lost.
SELECT agent || ' ' || state::text AS name, count(*) AS rows FROM perennial.examples GROUP BY 1 ORDER BY 1

-- name: champions
SELECT m.agent, m.version, v.digest, v.uri FROM (
    SELECT DISTINCT ON (agent) agent, version FROM perennial.alias_moves WHERE alias = 'champion' ORDER BY agent, id DESC
) m JOIN perennial.versions v USING (agent, version) ORDER BY m.agent

-- name: other_counts
SELECT 'versions' AS name, count(*) AS rows FROM perennial.versions
UNION ALL SELECT 'originals', count(*) FROM perennial.originals
UNION ALL SELECT 'audit rows', count(*) FROM perennial.audit
UNION ALL SELECT 'approvals', count(*) FROM perennial.approvals
UNION ALL SELECT 'jobs', count(*) FROM perennial.jobs

-- name: tables_anywhere
SELECT count(*) FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema')

-- name: has_airflow_secrets
SELECT count(*) = 5 AS made FROM information_schema.tables
WHERE table_schema = 'public' AND table_name IN ('connection', 'variable', 'trigger', 'task_instance', 'callback')

-- name: forget_connections
DELETE FROM connection WHERE is_encrypted OR is_extra_encrypted RETURNING 'connection ' || conn_id AS name

-- name: forget_variables
DELETE FROM variable WHERE is_encrypted RETURNING 'variable ' || key AS name

-- name: wake_deferred
-- Their triggers cannot be read any more, so they begin anew. Before the triggers go: the foreign key would take the task along.
UPDATE task_instance SET state = NULL, trigger_id = NULL, next_method = NULL, next_kwargs = NULL WHERE trigger_id IS NOT NULL

-- name: free_callbacks
UPDATE callback SET trigger_id = NULL WHERE trigger_id IS NOT NULL

-- name: forget_triggers
-- The DAG processor makes those of assets anew when it reads the DAG files.
DELETE FROM trigger
