-- name: release_held
-- With them the holdout rows that came in with their batch. 'released' tells the screening of the next batch that a person let these through.
UPDATE perennial.examples
SET state = CASE WHEN superseded_by IS NULL THEN 'ready' ELSE 'superseded' END::perennial.example_state, refusals = 0,
    reason = CASE WHEN superseded_by IS NOT NULL THEN 'corrected' WHEN holdout THEN '' ELSE 'released' END, job_id = NULL, attempt = NULL
WHERE agent = %(agent)s AND ((state = 'held' AND reason <> 'new_label_waiting')
   OR (holdout AND state = 'ready' AND reason = 'held with its batch'))
-- name: drop_held
-- Evicted rather than deleted: nothing that was acknowledged disappears from the books.
UPDATE perennial.examples SET state = 'evicted', reason = 'dropped by ' || %(actor)s
WHERE agent = %(agent)s AND ((state = 'held' AND reason <> 'new_label_waiting')
   OR (holdout AND state = 'ready' AND reason = 'held with its batch'))
RETURNING example_id, correction
-- name: aside_totals
-- Per agent and state, exact up to `most`: the count stops there, so it costs the same however much stands aside.
SELECT a.agent, s.state, c.n AS rows
FROM perennial.agents a
CROSS JOIN (VALUES ('quarantined'), ('held'), ('unlabelled')) AS s (state)
CROSS JOIN LATERAL (SELECT count(*)::integer AS n FROM (
    SELECT 1 FROM perennial.examples e
    WHERE e.agent = a.agent AND e.state = s.state::perennial.example_state AND e.aside IS NOT NULL
    LIMIT %(most)s + 1) counted) c
WHERE c.n > 0 ORDER BY a.agent, s.state
-- name: aside_groups
-- Hops from one (task, reason) of a state to the next on examples_aside_groups instead of reading all rows; each group is counted up to
-- `most`. Each state has its own `groups`: made-up task names, which are quarantined, hide nothing that is held.
WITH RECURSIVE found AS (
    SELECT s.state, b.task, b.code, 1 AS place
    FROM unnest('{unlabelled,quarantined,held}'::perennial.example_state[]) AS s (state) CROSS JOIN LATERAL (
        SELECT e.task, e.aside AS code FROM perennial.examples e
        WHERE e.agent = %(agent)s AND e.state = s.state AND e.aside IS NOT NULL ORDER BY e.task, e.aside LIMIT 1) b
    UNION ALL
    SELECT f.state, n.task, n.code, f.place + 1 FROM found f CROSS JOIN LATERAL (
        SELECT e.task, e.aside AS code FROM perennial.examples e
        WHERE e.agent = %(agent)s AND e.state = f.state AND e.aside IS NOT NULL AND (e.task, e.aside) > (f.task, f.code)
        ORDER BY e.task, e.aside LIMIT 1) n
    WHERE f.place < %(groups)s
)
SELECT f.state::text AS state, f.task, f.code, c.n AS rows FROM found f
CROSS JOIN LATERAL (SELECT count(*)::integer AS n FROM (
    SELECT 1 FROM perennial.examples e
    WHERE e.agent = %(agent)s AND e.state = f.state AND e.task = f.task AND e.aside = f.code
    LIMIT %(most)s + 1) counted) c
ORDER BY f.state, f.task, f.code
-- name: aside_group
SELECT count(*)::integer AS rows FROM (
    SELECT 1 FROM perennial.examples
    WHERE agent = %(agent)s AND state = %(state)s::perennial.example_state AND task = %(task)s AND aside = %(code)s
    LIMIT %(most)s + 1) counted
-- name: aside_newest
-- What is quarantined may still hold personal data in text and label, so neither is read. Texts are cut: a page shows a beginning.
SELECT id AS number, example_id, task, state::text AS state, reason, priority, correction, source, source_id, refusals, created_at, added_at,
       CASE WHEN state <> 'quarantined' AND admitted_at IS NOT NULL THEN left(input_text, %(letters)s) END AS text,
       CASE WHEN state <> 'quarantined' AND admitted_at IS NOT NULL THEN length(input_text) END AS length,
       CASE WHEN state <> 'quarantined' AND admitted_at IS NOT NULL THEN expected_output END AS label
FROM perennial.examples
WHERE agent = %(agent)s AND aside IS NOT NULL AND id < %(before)s
ORDER BY id DESC LIMIT %(limit)s
-- name: aside_of_group
SELECT id AS number, example_id, task, state::text AS state, reason, priority, correction, source, source_id, refusals, created_at, added_at,
       CASE WHEN state <> 'quarantined' AND admitted_at IS NOT NULL THEN left(input_text, %(letters)s) END AS text,
       CASE WHEN state <> 'quarantined' AND admitted_at IS NOT NULL THEN length(input_text) END AS length,
       CASE WHEN state <> 'quarantined' AND admitted_at IS NOT NULL THEN expected_output END AS label
FROM perennial.examples
WHERE agent = %(agent)s AND state = %(state)s::perennial.example_state
  AND task = %(task)s AND aside = %(code)s AND id < %(before)s
ORDER BY id DESC LIMIT %(limit)s
-- name: aside_pick_ids
-- The fence: rows that are no longer where the person saw them stay as they are.
SELECT example_id FROM perennial.examples
WHERE example_id = ANY (%(ids)s) AND agent = %(agent)s AND state = %(state)s::perennial.example_state AND task = %(task)s
  AND aside = %(code)s
ORDER BY id FOR UPDATE
-- name: aside_pick_group
-- Up to `until`, the newest row there was when the person decided: what came later was not looked at.
SELECT example_id FROM perennial.examples
WHERE agent = %(agent)s AND state = %(state)s::perennial.example_state
  AND task = %(task)s AND aside = %(code)s AND id <= %(until)s
ORDER BY id DESC LIMIT %(limit)s FOR UPDATE SKIP LOCKED
-- name: aside_release_held
-- 'released' tells the screening of the next batch that a person let these through. What a correction overtook while a training had it
-- stands aside no more, and trains no more either.
UPDATE perennial.examples SET
    state = CASE WHEN superseded_by IS NULL THEN 'ready' ELSE 'superseded' END::perennial.example_state, refusals = 0,
    reason = CASE WHEN superseded_by IS NULL THEN 'released' ELSE 'corrected' END, job_id = NULL, attempt = NULL
WHERE example_id = ANY (%(ids)s)
-- name: aside_release_quarantined
-- Through admission again, from the original: nothing of an earlier look at it stays, not even a redaction.
UPDATE perennial.examples SET
    state = CASE WHEN superseded_by IS NOT NULL THEN 'superseded' WHEN label_digest = '' THEN 'unlabelled'
                 ELSE 'raw' END::perennial.example_state,
    reason = CASE WHEN superseded_by IS NULL THEN '' ELSE 'corrected' END, refusals = 0,
    input_text = NULL, user_feedback = NULL, redaction = NULL, admitted_at = NULL, job_id = NULL, attempt = NULL
WHERE example_id = ANY (%(ids)s)
-- name: aside_overtake
-- A correction that was refused had given back what it had overtaken; with its release that is overtaken again. One whose task had no
-- name in the fleet had overtaken nothing yet.
UPDATE perennial.examples o SET superseded_by = w.example_id,
    state = CASE WHEN o.state IN ('raw', 'ready', 'unlabelled', 'held') THEN 'superseded' ELSE o.state END,
    reason = CASE WHEN o.state IN ('raw', 'ready', 'unlabelled', 'held') THEN 'corrected' ELSE o.reason END
FROM (
    SELECT DISTINCT ON (input_digest) example_id, id, input_digest FROM perennial.examples
    WHERE example_id = ANY (%(ids)s) AND correction AND superseded_by IS NULL ORDER BY input_digest, id DESC
) w
WHERE o.content_digest BETWEEN substring(w.input_digest FROM 1 FOR 16) AND perennial.last_of(w.input_digest)
  AND o.id < w.id AND o.superseded_by IS NULL AND o.state IN ('raw', 'ready', 'unlabelled', 'held', 'claimed', 'trained')
-- name: aside_drop
-- Evicted rather than deleted: nothing that was acknowledged disappears from the books.
UPDATE perennial.examples SET state = 'evicted', reason = 'dropped by ' || %(actor)s, job_id = NULL, attempt = NULL
WHERE example_id = ANY (%(ids)s)
-- name: restore_corrected
-- What was dropped overtakes nothing any more.
SELECT perennial.restore_corrected(%(ids)s::uuid[])
-- name: aside_holdout_release
-- Holdout rows that came in with refused batches judge again when all refused rows of their task are let go.
UPDATE perennial.examples SET reason = '', job_id = NULL, attempt = NULL
WHERE agent = %(agent)s AND task = %(task)s AND holdout AND state = 'ready' AND reason = 'held with its batch' AND id <= %(until)s
-- name: aside_holdout_drop
UPDATE perennial.examples SET state = 'evicted', reason = 'dropped by ' || %(actor)s
WHERE agent = %(agent)s AND task = %(task)s AND holdout AND state = 'ready' AND reason = 'held with its batch' AND id <= %(until)s
-- name: aside_wake
SELECT pg_notify('perennial_due', %(agent)s) WHERE perennial.may_be_due(%(agent)s)
