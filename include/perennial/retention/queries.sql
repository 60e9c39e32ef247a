-- name: in_play
SELECT version, min(why) AS why FROM perennial.in_play WHERE agent = %(agent)s GROUP BY version ORDER BY version
-- name: left
SELECT v.version, v.digest, v.base_version, coalesce(v.manifest -> 'encoders', '{}') AS encoders FROM perennial.versions v
WHERE v.agent = %(agent)s AND NOT EXISTS (SELECT FROM perennial.removed_bundles b WHERE b.agent = v.agent AND b.version = v.version)
ORDER BY v.ordinal DESC
-- name: lock_serving
-- the lock that every change of serving takes: what is in play cannot change before this transaction ends
SELECT agent FROM perennial.serving WHERE agent = %(agent)s FOR UPDATE
-- name: lock_agent
-- holds and removals of an agent come one after the other
SELECT pg_advisory_xact_lock(hashtextextended('perennial.retention:' || %(agent)s, 0))
-- name: known
SELECT version FROM perennial.versions WHERE agent = %(agent)s AND version = %(version)s
-- name: begin_removal
INSERT INTO perennial.removed_bundles (agent, version, step, digest, actor, reason)
SELECT v.agent, v.version, 'begun', v.digest, %(actor)s, %(reason)s FROM perennial.versions v
WHERE v.agent = %(agent)s AND v.version = %(version)s
  AND NOT EXISTS (SELECT FROM perennial.in_play p WHERE p.agent = v.agent AND p.version = v.version)
ON CONFLICT (agent, version, step) DO NOTHING
-- name: end_removal
INSERT INTO perennial.removed_bundles (agent, version, step, digest, actor, reason)
SELECT agent, version, 'gone', digest, actor, reason FROM perennial.removed_bundles
WHERE agent = %(agent)s AND version = %(version)s AND step = 'begun'
ON CONFLICT (agent, version, step) DO NOTHING
-- name: removals
SELECT b.agent, b.version, b.digest, b.actor, b.reason, b.at,
       EXISTS (SELECT FROM perennial.removed_bundles g WHERE g.agent = b.agent AND g.version = b.version AND g.step = 'gone') AS complete
FROM perennial.removed_bundles b WHERE b.agent = %(agent)s AND b.step = 'begun' ORDER BY b.id
-- name: unfinished
SELECT b.agent, b.version, b.digest, b.actor, b.reason, b.at, false AS complete FROM perennial.removed_bundles b
WHERE b.agent = %(agent)s AND b.step = 'begun'
  AND NOT EXISTS (SELECT FROM perennial.removed_bundles g WHERE g.agent = b.agent AND g.version = b.version AND g.step = 'gone')
ORDER BY b.id
-- name: removal
SELECT b.agent, b.version, b.digest, b.actor, b.reason, b.at,
       EXISTS (SELECT FROM perennial.removed_bundles g WHERE g.agent = b.agent AND g.version = b.version AND g.step = 'gone') AS complete
FROM perennial.removed_bundles b WHERE b.agent = %(agent)s AND b.version = %(version)s AND b.step = 'begun'
-- name: hold
-- nothing is written when it stands so already, or when the version is not there or gone
INSERT INTO perennial.retention_holds (agent, version, held, actor, reason)
SELECT v.agent, v.version, %(held)s, %(actor)s, %(reason)s FROM perennial.versions v
WHERE v.agent = %(agent)s AND v.version = %(version)s
  AND %(held)s IS DISTINCT FROM coalesce(
    (SELECT h.held FROM perennial.retention_holds h WHERE h.agent = v.agent AND h.version = v.version ORDER BY h.id DESC LIMIT 1), false)
-- name: holds
SELECT agent, version, actor, reason, at FROM (
    SELECT DISTINCT ON (agent, version) agent, version, held, actor, reason, at FROM perennial.retention_holds
    WHERE agent = %(agent)s ORDER BY agent, version, id DESC
) AS last WHERE held ORDER BY version
-- name: finished_jobs
-- of these ids: jobs that ended before the moment; one that is open, or that ended later, keeps its folder
SELECT job_id, coalesce(status IN ('completed', 'failed', 'cancelled') AND completed_at < %(before)s, false) AS finished
FROM perennial.jobs WHERE job_id = ANY (%(ids)s)
-- name: old_predictions
-- Statistics that a rollout or a bake still reads are not touched; of what serves now, the newest answers stay whatever their age.
WITH floors AS MATERIALIZED (  -- once per version, not once per row
    SELECT v.agent, v.version, CASE
        WHEN EXISTS (SELECT FROM perennial.rollouts r WHERE r.agent = v.agent AND (r.version = v.version OR r.previous = v.version)
                     AND r.state IN ('pending', 'shadow', 'canary', 'baking')) THEN '-infinity'::timestamptz
        WHEN EXISTS (SELECT FROM perennial.serving s WHERE s.agent = v.agent AND v.version IN (s.champion, s.previous, s.candidate))
            THEN least(%(before)s, coalesce((SELECT q.at FROM perennial.predictions q WHERE q.agent = v.agent AND q.version = v.version
                                             ORDER BY q.at DESC OFFSET %(newest)s - 1 LIMIT 1), '-infinity'))
        ELSE %(before)s END AS until
    FROM perennial.versions v
)
SELECT p.ctid FROM floors f JOIN perennial.predictions p ON p.agent = f.agent AND p.version = f.version AND p.at < f.until
-- name: remove_predictions
DELETE FROM perennial.predictions WHERE ctid = ANY (ARRAY({old} LIMIT %(limit)s))
-- name: old_outcomes
WITH floors AS MATERIALIZED (  -- once per version, not once per row
    SELECT v.agent, v.version, CASE
        WHEN EXISTS (SELECT FROM perennial.rollouts r WHERE r.agent = v.agent AND (r.version = v.version OR r.previous = v.version)
                     AND r.state IN ('pending', 'shadow', 'canary', 'baking')) THEN '-infinity'::timestamptz
        WHEN EXISTS (SELECT FROM perennial.serving s WHERE s.agent = v.agent AND v.version IN (s.champion, s.previous, s.candidate))
            THEN least(%(before)s, coalesce((SELECT q.at FROM perennial.outcomes q WHERE q.agent = v.agent AND q.version = v.version
                                             ORDER BY q.at DESC OFFSET %(newest)s - 1 LIMIT 1), '-infinity'))
        ELSE %(before)s END AS until
    FROM perennial.versions v
)
SELECT p.ctid FROM floors f JOIN perennial.outcomes p ON p.agent = f.agent AND p.version = f.version AND p.at < f.until
-- name: remove_outcomes
DELETE FROM perennial.outcomes WHERE ctid = ANY (ARRAY({old} LIMIT %(limit)s))
-- name: old_recent_inputs
-- a bake judges its champion on the requests since it began
WITH floors AS MATERIALIZED (
    SELECT a.agent, least(%(before)s, (SELECT min(r.started_at) FROM perennial.rollouts r WHERE r.agent = a.agent
                                       AND r.state IN ('pending', 'shadow', 'canary', 'baking'))) AS until
    FROM perennial.agents a
)
SELECT i.ctid FROM floors f JOIN perennial.recent_inputs i ON i.agent = f.agent AND i.at < f.until
-- name: remove_recent_inputs
DELETE FROM perennial.recent_inputs WHERE ctid = ANY (ARRAY({old} LIMIT %(limit)s))
-- name: old_gateways
SELECT ctid FROM perennial.gateways WHERE seen_at < %(before)s
-- name: remove_gateways
-- one that speaks up meanwhile is another row version by then, and stays
DELETE FROM perennial.gateways WHERE ctid = ANY (ARRAY({old} LIMIT %(limit)s))
-- name: old_outbox
SELECT ctid FROM perennial.outbox WHERE relayed_at < %(before)s
-- name: remove_outbox
SELECT count(*) AS gone FROM perennial.forget_relayed(%(before)s, %(limit)s)
-- name: old_rejected
SELECT ctid FROM perennial.rejected WHERE added_at < %(before)s
-- name: remove_rejected
DELETE FROM perennial.rejected WHERE ctid = ANY (ARRAY({old} LIMIT %(limit)s))
-- name: old_embeddings
SELECT ctid FROM perennial.embeddings WHERE used_at < %(before)s::date
-- name: remove_embeddings
DELETE FROM perennial.embeddings WHERE ctid = ANY (ARRAY({old} LIMIT %(limit)s))
-- name: old_scanned_texts
SELECT ctid FROM perennial.scanned_texts WHERE used_at < %(before)s::date
-- name: remove_scanned_texts
DELETE FROM perennial.scanned_texts WHERE ctid = ANY (ARRAY({old} LIMIT %(limit)s))
-- name: old_redaction_tasks
SELECT ctid FROM perennial.redaction_tasks WHERE state = 'open' AND opened_at < %(before)s
-- name: remove_redaction_tasks
-- one that a person answers meanwhile is another row version by then, and stays as decided
UPDATE perennial.redaction_tasks SET state = 'closed', doubts = '[]', decided_at = clock_timestamp()
WHERE state = 'open' AND ctid = ANY (ARRAY({old} LIMIT %(limit)s))
-- name: old_leftovers
-- A correction that is refused or dropped gives back what it had overtaken, so a row waits until what overtook it was learned or is gone.
SELECT e.ctid FROM perennial.examples e
WHERE e.state IN ('superseded', 'evicted') AND e.added_at < %(before)s
  AND NOT EXISTS (SELECT FROM perennial.examples w WHERE w.example_id = e.superseded_by
                    AND w.state IN ('raw', 'unlabelled', 'ready', 'claimed', 'held', 'quarantined'))
-- name: remove_leftovers
WITH purged AS (
    UPDATE perennial.examples SET state = 'purged', input_text = NULL, expected_output = NULL, predicted_output = NULL, user_feedback = NULL,
        source_url = ''
    WHERE ctid = ANY (ARRAY({old} LIMIT %(limit)s FOR UPDATE OF e SKIP LOCKED)) RETURNING example_id
), texts AS (
    DELETE FROM perennial.originals o USING purged p WHERE o.example_id = p.example_id
), questions AS (
    UPDATE perennial.redaction_tasks t SET state = 'closed', doubts = '[]', decided_at = clock_timestamp()
    WHERE t.state = 'open' AND t.example_ids && ARRAY(SELECT example_id FROM purged)
)
SELECT count(*) AS gone FROM purged
-- name: old_trained
-- corrections stay: they are the agent's permanent regression slice
SELECT e.ctid FROM perennial.examples e WHERE e.state = 'trained' AND NOT e.correction AND NOT e.holdout AND e.trained_at < %(before)s
-- name: remove_trained
WITH purged AS (
    UPDATE perennial.examples SET state = 'purged', input_text = NULL, expected_output = NULL, predicted_output = NULL, user_feedback = NULL,
        source_url = ''
    WHERE ctid = ANY (ARRAY({old} LIMIT %(limit)s FOR UPDATE OF e SKIP LOCKED)) RETURNING example_id
), texts AS (
    DELETE FROM perennial.originals o USING purged p WHERE o.example_id = p.example_id
), questions AS (
    UPDATE perennial.redaction_tasks t SET state = 'closed', doubts = '[]', decided_at = clock_timestamp()
    WHERE t.state = 'open' AND t.example_ids && ARRAY(SELECT example_id FROM purged)
)
SELECT count(*) AS gone FROM purged
