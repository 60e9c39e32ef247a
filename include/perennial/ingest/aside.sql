-- name: release_held
-- With them the holdout rows that came in with their batch. 'released' tells the screening of the next batch that a person let these through.
UPDATE perennial.examples
SET state = 'ready', refusals = 0, reason = CASE WHEN holdout THEN '' ELSE 'released' END, job_id = NULL, attempt = NULL
WHERE agent = %(agent)s AND ((state = 'held' AND reason <> 'new_label_waiting')
   OR (holdout AND state = 'ready' AND reason = 'held with its batch'))
-- name: drop_held
-- Evicted rather than deleted: nothing that was acknowledged disappears from the books.
UPDATE perennial.examples SET state = 'evicted', reason = 'dropped by ' || %(actor)s
WHERE agent = %(agent)s AND ((state = 'held' AND reason <> 'new_label_waiting')
   OR (holdout AND state = 'ready' AND reason = 'held with its batch'))
